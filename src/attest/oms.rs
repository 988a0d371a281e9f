//! Signatures of a directory as OpenSSF Model Signing 1.0 defines them: a Sigstore bundle around a DSSE envelope around an
//! in-toto statement that lists every file's SHA-256.
//!
//! Source: <https://github.com/ossf/model-signing-spec>, schemas and test vectors of version 1.0. Bundles that were signed
//! with a key are made and checked. Those with certificates or by Sigstore are read, and refused by name.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::key::{PrivateKey, PublicKey};
use crate::error::{Error, Result};
use crate::human;
use crate::id::{Digest, Hasher};

/// The name of a signature beside the files it is about.
pub const FILE_NAME: &str = "model.sig";
/// No bundle is larger; larger ones are never read. A file takes some 200 bytes.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What the reference tool leaves out at the top of a directory unless it is told otherwise.
pub const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Type of every in-toto statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<serde_json::Value>,
    tlog_entries: Option<Vec<serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyName {
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    sig: String,
    keyid: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard_size: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// What was signed: the files of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the directory is called; informative.
    pub name: String,
    /// Every file's digest by its path below the directory.
    pub files: BTreeMap<String, Digest>,
    /// Paths that may be there without being signed, with everything below them.
    pub ignored: Vec<String>,
}

impl Manifest {
    /// One digest over all files: SHA-256 over their raw digests in the order of their paths' bytes.
    pub fn root(&self) -> Digest {
        root(self.files.values())
    }

    /// Whether a file may be there without being signed.
    pub fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|ignored| {
            let ignored = ignored.strip_prefix("./").unwrap_or(ignored).trim_end_matches('/');
            path.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Where files differ from what was signed, a line each.
    pub fn differences(&self, found: &BTreeMap<String, Digest>) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, digest) in &self.files {
            match found.get(path) {
                Some(there) if there == digest => {}
                Some(_) => lines.push(format!("{}: other bytes than were signed", human::escape(path))),
                None => lines.push(format!("{}: signed, and missing", human::escape(path))),
            }
        }
        let added = found.keys().filter(|path| !self.files.contains_key(*path) && !self.ignores(path));
        lines.extend(added.map(|path| format!("{}: not signed", human::escape(path))));
        lines
    }

    /// Signs it; returns the bytes of the bundle.
    pub fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>> {
        if self.files.is_empty() {
            return Err(Error::usage("there is no file to sign"));
        }
        let predicate = Predicate {
            serialization: Serialization {
                method: "files".to_owned(),
                hash_type: "sha256".to_owned(),
                allow_symlinks: false,
                ignore_paths: self.ignored.clone(),
                shard_size: None,
            },
            resources: self
                .files
                .iter()
                .map(|(name, digest)| Resource {
                    name: name.clone(),
                    algorithm: "sha256".to_owned(),
                    digest: digest.to_hex(),
                })
                .collect(),
        };
        let subject = Subject {
            name: self.name.clone(),
            digest: BTreeMap::from([("sha256".to_owned(), self.root().to_hex())]),
        };
        let statement = Statement {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![subject],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: to_json(&predicate),
        };
        let payload = to_json(&statement).to_string().into_bytes();
        let signature = key.sign(&pre_authentication(&payload))?;
        let bundle = RawBundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material {
                public_key: Some(KeyName { hint: Some(key.public().hint().to_hex()) }),
                tlog_entries: Some(Vec::new()),
                ..Material::default()
            },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![RawSignature {
                    sig: STANDARD.encode(signature),
                    keyid: Some(String::new()),
                }],
            },
        };
        let mut text = serde_json::to_vec_pretty(&bundle).expect("plain data");
        text.push(b'\n');
        Ok(text)
    }
}

/// A bundle whose form is right. What it claims counts only after [`Bundle::verify`].
#[derive(Debug)]
pub struct Bundle {
    payload: Vec<u8>,
    signature: Vec<u8>,
    signer: Signer,
    claimed: Manifest,
}

/// By what a bundle was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Signer {
    /// A key, with its name where the bundle has it.
    Key(Option<String>),
    Certificate,
    Sigstore,
}

impl Bundle {
    /// Parses the bytes of the bundle at `path` (for messages).
    pub fn parse(bytes: &[u8], path: &str) -> Result<Bundle> {
        let shown = human::escape(path);
        let bad = |what: &str| Error::refused(format!("{shown}: {what}"));
        if bytes.len() as u64 > MAX_BYTES {
            return Err(bad(&format!("larger than {MAX_BYTES} bytes")));
        }
        let raw: RawBundle = serde_json::from_slice(bytes)
            .map_err(|error| bad("not a bundle of OpenSSF Model Signing").caused_by(error))?;
        if raw.media_type != MEDIA_TYPE {
            return Err(bad(&format!("its media type is {}", human::escape(&raw.media_type))));
        }
        let signer = signer(raw.verification_material).map_err(bad)?;
        let envelope = raw.dsse_envelope;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(bad(&format!("its payload is {}", human::escape(&envelope.payload_type))));
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| bad("not base64").caused_by(error));
        let first = envelope.signatures.first().ok_or_else(|| bad("it holds no signature"))?;
        let (payload, signature) = (decode(&envelope.payload)?, decode(&first.sig)?);
        let claimed = claimed(&payload).map_err(|error| error.about(shown.clone()))?;
        Ok(Bundle { payload, signature, signer, claimed })
    }

    /// The root digest that it claims to be about.
    pub fn claimed_root(&self) -> Digest {
        self.claimed.root()
    }

    /// What was signed, if this key signed it. Otherwise refused, as about `shown`.
    pub fn verify(&self, key: &PublicKey, shown: &str) -> Result<&Manifest> {
        let shown = human::escape(shown);
        let other = |how: &str| {
            Error::refused(format!("{shown}: signed by {how}, not with a key"))
                .hint("model_signing, the tool of the specification, checks that")
        };
        match &self.signer {
            Signer::Certificate => return Err(other("a certificate")),
            Signer::Sigstore => return Err(other("Sigstore")),
            Signer::Key(Some(hint)) if *hint != key.hint().to_hex() => {
                let hint: String = hint.chars().take(12).collect();
                return Err(Error::refused(format!(
                    "{shown}: signed with another key ({}) than this one ({})",
                    human::escape(&hint),
                    key.hint().short()
                )));
            }
            Signer::Key(_) => {}
        }
        if key.verifies(&pre_authentication(&self.payload), &self.signature) {
            return Ok(&self.claimed);
        }
        Err(Error::refused(format!("{shown}: its signature does not fit what it is about"))
            .hint("it was changed after it was signed, or is of another key"))
    }
}

fn signer(material: Material) -> Result<Signer, &'static str> {
    let logged = material.tlog_entries.is_some_and(|entries| !entries.is_empty());
    match (material.public_key, material.x509_certificate_chain, material.certificate) {
        (Some(key), None, None) => Ok(Signer::Key(key.hint)),
        (None, Some(_), None) => Ok(Signer::Certificate),
        (None, None, Some(_)) if logged => Ok(Signer::Sigstore),
        (None, None, Some(_)) => Err("a certificate of Sigstore, and no entry of its log"),
        (None, None, None) => Err("it does not say by what it was signed"),
        _ => Err("it says in several ways by what it was signed"),
    }
}

/// What a payload claims.
fn claimed(payload: &[u8]) -> Result<Manifest> {
    let bad = |what: String| Error::refused(what);
    let statement: Statement = serde_json::from_slice(payload)
        .map_err(|error| bad("its payload is not an in-toto statement".to_owned()).caused_by(error))?;
    if statement.kind != STATEMENT_TYPE {
        return Err(bad(format!("its statement is of type {}", human::escape(&statement.kind))));
    }
    if statement.predicate_type != PREDICATE_TYPE {
        return Err(bad(format!(
            "its predicate type is {}, not {PREDICATE_TYPE}",
            human::escape(&statement.predicate_type)
        )));
    }
    let predicate: Predicate = serde_json::from_value(statement.predicate)
        .map_err(|error| bad("its predicate is not one of Model Signing".to_owned()).caused_by(error))?;
    let serialization = predicate.serialization;
    if serialization.method != "files" || serialization.hash_type != "sha256" {
        return Err(bad(format!(
            "it lists {} by {}; only files by sha256 are checked",
            human::escape(&serialization.method),
            human::escape(&serialization.hash_type)
        ))
        .hint("model_signing, the tool of the specification, checks that"));
    }
    let mut files = BTreeMap::new();
    let mut hasher = Hasher::default();
    for resource in predicate.resources {
        let name = resource.name;
        let digest = Digest::from_hex(&resource.digest)
            .filter(|_| resource.algorithm == "sha256")
            .ok_or_else(|| bad(format!("{}: no SHA-256 is stated", human::escape(&name))))?;
        hasher.update(digest.as_bytes());
        if let Some(twice) = files.insert(name.clone(), digest) {
            return Err(bad(format!("{}: listed twice ({})", human::escape(&name), twice.short())));
        }
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(bad(format!("it is about {} subjects", statement.subject.len())));
    };
    if subject.digest.get("sha256").map(String::as_str) != Some(hasher.finish().to_hex().as_str()) {
        return Err(bad("its root digest is not the one of its files".to_owned()));
    }
    Ok(Manifest { name: subject.name.clone(), files, ignored: serialization.ignore_paths })
}

/// What is signed of a payload: DSSE's pre-authentication encoding, version 1.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn root<'d>(digests: impl Iterator<Item = &'d Digest>) -> Digest {
    let mut hasher = Hasher::default();
    digests.for_each(|digest| hasher.update(digest.as_bytes()));
    hasher.finish()
}

fn to_json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let files = [("a", b"a"), ("d/b", b"b")].map(|(name, bytes)| (name.to_owned(), Digest::of(bytes)));
        Manifest {
            name: "m".into(),
            files: files.into(),
            ignored: vec!["model.sig".into(), "./cache/".into()],
        }
    }

    #[test]
    fn what_is_ignored_is_a_path_and_what_is_below() {
        let manifest = manifest();
        for (path, ignored) in [
            ("model.sig", true),
            ("cache/x/y", true),
            ("model.signature", false),
            ("d/model.sig", false),
            ("cached", false),
        ] {
            assert_eq!(manifest.ignores(path), ignored, "{path}");
        }
    }

    #[test]
    fn differences_name_the_file() {
        let manifest = manifest();
        let mut found = manifest.files.clone();
        found.insert("cache/x".into(), Digest::of(b""));
        assert!(manifest.differences(&found).is_empty());
        found.insert("a".into(), Digest::of(b"x"));
        found.insert("new".into(), Digest::of(b"x"));
        found.remove("d/b");
        let lines = manifest.differences(&found);
        assert_eq!(lines, ["a: other bytes than were signed", "d/b: signed, and missing", "new: not signed"]);
    }

    #[test]
    fn claims_must_hold_together() {
        let statement = |resources: &str, digest: &str| {
            format!(
                r#"{{"_type":"{STATEMENT_TYPE}","subject":[{{"name":"m","digest":{{"sha256":"{digest}"}}}}],
                "predicateType":"{PREDICATE_TYPE}","predicate":{{"serialization":{{"method":"files","hash_type":"sha256",
                "allow_symlinks":false}},"resources":[{resources}]}}}}"#
            )
        };
        let resource = |name: &str, bytes: &[u8]| {
            format!(r#"{{"name":"{name}","algorithm":"sha256","digest":"{}"}}"#, Digest::of(bytes))
        };
        let (one, two) = (resource("a", b"a"), resource("b", b"b"));
        let both = root([Digest::of(b"a"), Digest::of(b"b")].iter()).to_hex();
        let good = statement(&format!("{one},{two}"), &both);
        assert_eq!(claimed(good.as_bytes()).unwrap().root().to_hex(), both);
        let reason = |text: &str| claimed(text.as_bytes()).unwrap_err().one_line();
        assert!(reason(&statement(&format!("{two},{one}"), &both)).contains("root digest"));
        assert!(reason(&statement(&format!("{one},{one}"), &both)).contains("listed twice"));
        assert!(
            reason(&good.replacen("\"sha256\",\"digest\"", "\"blake3\",\"digest\"", 1))
                .contains("a: no SHA-256")
        );
        assert!(reason(&good.replace("\"files\"", "\"shards\"")).contains("only files by sha256"));
        assert!(reason(&good.replace("/v1.0", "/v9")).contains("predicate type"));
        assert!(reason(&good.replace("Statement/v1", "Statement/v9")).contains("of type"));
        assert!(reason(&good.replace("\"resources\"", "\"more\":1,\"resources\"")).contains("predicate"));
    }
}
