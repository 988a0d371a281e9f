//! What a deployed or checked-out model is: `model-info.json`, and the same for shells, metrics and traces. Format:
//! `docs/formats/model-info.md`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::repo_path::RepoPath;

/// The name of the file beside a deployed model.
pub const FILE_NAME: &str = "model-info.json";
/// No such file is larger; larger ones are never read.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

const SCHEMA: &str = "git-model/model-info/v1";

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The model's name.
    pub model: String,
    /// The version, if it is a release.
    pub version: Option<String>,
    /// The release's tag, `churn@v1.4.0`.
    pub release: Option<String>,
    /// The model digest.
    pub digest: Digest,
    /// The commit, in hex.
    pub commit: Option<String>,
    /// One digest over all data snapshots.
    pub data_digest: Option<Digest>,
    /// The files of a deployed directory, for whoever wants to check them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InfoFile>,
}

/// A file of a deployed directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoFile {
    /// Path below the directory.
    pub path: RepoPath,
    /// Its content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    #[serde(flatten)]
    info: ModelInfo,
}

impl ModelInfo {
    /// Parses the bytes of the file at `path` (for messages).
    pub fn parse(bytes: &[u8], path: &str) -> Result<ModelInfo> {
        let shown = human::escape(path);
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Error::new(format!("{shown}: not a model-info.json")).caused_by(error))?;
        match document.schema == SCHEMA {
            true => Ok(document.info),
            false => {
                Err(Error::new(format!("{shown}: schema `{}` is not known", human::escape(&document.schema)))
                    .hint("update git-model"))
            }
        }
    }

    /// The bytes of the file; equal content gives equal bytes.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            schema: &'a str,
            #[serde(flatten)]
            info: &'a ModelInfo,
        }
        let mut text =
            serde_json::to_string_pretty(&Written { schema: SCHEMA, info: self }).expect("plain data");
        text.push('\n');
        text
    }

    /// Whether another one is about the same version, whatever parts of it either has.
    pub fn is_of_same_version(&self, other: &ModelInfo) -> bool {
        let without_files = |info: &ModelInfo| ModelInfo { files: Vec::new(), ..info.clone() };
        without_files(self) == without_files(other)
    }

    /// Names and values that are known.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let digest = |digest: &Digest| format!("sha256:{digest}");
        let mut pairs = vec![("name", self.model.clone())];
        pairs.extend(self.version.clone().map(|version| ("version", version)));
        pairs.push(("digest", digest(&self.digest)));
        pairs.extend(self.release.clone().map(|release| ("tag", release)));
        pairs.extend(self.commit.clone().map(|commit| ("git_commit", commit)));
        pairs.extend(self.data_digest.as_ref().map(|data| ("data_digest", digest(data))));
        pairs
    }

    /// Lines that a POSIX shell or an env file takes: `MODEL_NAME=churn`.
    pub fn to_env(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.pairs() {
            let _ = writeln!(text, "MODEL_{}={}", name.to_ascii_uppercase(), human::shell_quote(&value));
        }
        let _ = writeln!(text, "OTEL_RESOURCE_ATTRIBUTES={}", human::shell_quote(&self.to_otel()));
        text
    }

    /// An info metric in Prometheus' text format.
    pub fn to_prometheus(&self) -> String {
        let escape = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
        let label = |(name, value): (&str, String)| match name {
            "git_commit" => format!("git_commit=\"{}\"", escape(&value)),
            name => format!("model_{name}=\"{}\"", escape(&value)),
        };
        let labels: Vec<String> = self.pairs().into_iter().map(label).collect();
        format!(
            "# HELP model_info What model this process serves.\n# TYPE model_info gauge\nmodel_info{{{}}} 1\n",
            labels.join(",")
        )
    }

    /// OpenTelemetry resource attributes, as in `OTEL_RESOURCE_ATTRIBUTES`; values are percent-encoded.
    pub fn to_otel(&self) -> String {
        let key = |name: &'static str| match name {
            "version" => "service.version".to_owned(),
            "git_commit" => "vcs.ref.head.revision".to_owned(),
            name => format!("git_model.{name}"),
        };
        let pairs: Vec<String> = self
            .pairs()
            .into_iter()
            .map(|(name, value)| format!("{}={}", key(name), human::percent_encode(&value, b"/:@")))
            .collect();
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ModelInfo {
        ModelInfo {
            model: "team/churn".into(),
            version: Some("1.4.0+cu121".into()),
            release: Some("team/churn@v1.4.0+cu121".into()),
            digest: Digest::of(b"x"),
            commit: None,
            data_digest: None,
            files: Vec::new(),
        }
    }

    #[test]
    fn every_form_says_the_same() {
        let info = info();
        assert_eq!(ModelInfo::parse(info.to_json().as_bytes(), "f").unwrap(), info);
        assert!(
            info.to_env().starts_with("MODEL_NAME=team/churn\nMODEL_VERSION='1.4.0+cu121'\n")
                || info.to_env().starts_with("MODEL_NAME=team/churn\nMODEL_VERSION=1.4.0+cu121\n")
        );
        assert!(info.to_prometheus().ends_with("} 1\n"));
        assert!(
            info.to_prometheus()
                .contains("model_info{model_name=\"team/churn\",model_version=\"1.4.0+cu121\",")
        );
        assert!(info.to_otel().contains("service.version=1.4.0%2Bcu121,"));
    }

    #[test]
    fn other_documents_are_refused() {
        for text in ["", "{}", &info().to_json().replace("/v1", "/v2")] {
            assert!(ModelInfo::parse(text.as_bytes(), "f").is_err(), "{text}");
        }
    }
}
