//! Models as OCI artifacts: the documents, names and byte streams of which a package is made. Formats: `docs/formats/oci.md`.
//!
//! Everything here depends on its input only: no clock, no user, no machine. Sources: OCI image specification 1.1 and the CNCF
//! ModelPack specification.

mod archive;
mod credentials;
mod gzip;
pub mod image;
pub mod modelpack;
mod reference;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::model_info::ModelInfo;

pub use archive::TarWriter;
pub use credentials::{AuthFile, Credentials, parse_helper_answer};
pub use gzip::StoredGzip;
pub use reference::{Pinned, Reference};

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The file that says that a directory is a layout, and what it says.
pub const LAYOUT: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The file that lists what a layout holds.
pub const INDEX_FILE: &str = "index.json";
/// Registries take no larger manifest.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// Annotations and labels of the OCI image specification.
pub mod annotation {
    /// The tag of a manifest in a layout.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// A short name; tools that unpack artifacts take it for the file name of a layer.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// The version of what is packaged.
    pub const VERSION: &str = "org.opencontainers.image.version";
    /// The commit.
    pub const REVISION: &str = "org.opencontainers.image.revision";
    /// The model digest; git-model's own.
    pub const MODEL_DIGEST: &str = "git-model.digest";
    /// The release's tag; git-model's own.
    pub const RELEASE: &str = "git-model.release";
}

/// What stands for a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
        let media_type = media_type.to_owned();
        Descriptor { media_type, digest: digest_text(digest), size, annotations: BTreeMap::new() }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, &Digest::of(bytes), bytes.len() as u64)
    }
}

/// A manifest: a configuration and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'static str>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of these parts.
    pub fn new(
        artifact_type: Option<&'static str>,
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Manifest {
        Manifest { schema_version: 2, media_type: MANIFEST, artifact_type, config, layers, annotations }
    }

    /// Its bytes: equal manifests give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }
}

/// The bytes of a layout's `index.json` with one manifest, under a tag if one is given.
pub fn index_bytes(mut manifest: Descriptor, tag: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u8,
        media_type: &'static str,
        manifests: [Descriptor; 1],
    }
    manifest.annotations.extend(tag.map(|tag| (annotation::REF_NAME.to_owned(), tag.to_owned())));
    serde_json::to_vec(&Index { schema_version: 2, media_type: INDEX, manifests: [manifest] })
        .expect("plain data")
}

/// What says of which model a manifest or an image is: annotations or labels.
pub fn names_of(info: &ModelInfo) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (annotation::TITLE.to_owned(), info.model.clone()),
        (annotation::MODEL_DIGEST.to_owned(), digest_text(&info.digest)),
    ]);
    let more = [
        (annotation::VERSION, &info.version),
        (annotation::REVISION, &info.commit),
        (annotation::RELEASE, &info.release),
    ];
    annotations.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    annotations
}

/// A digest as OCI writes it.
pub fn digest_text(digest: &Digest) -> String {
    format!("sha256:{digest}")
}

/// A digest that OCI wrote, if it is a SHA-256.
pub fn parse_digest(text: &str) -> Option<Digest> {
    text.strip_prefix("sha256:").and_then(Digest::from_hex)
}

/// Where a blob is in a layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// A version as a tag: what a tag may not hold becomes `_`. A version without such characters stays as it is.
pub fn tag_of(version: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut tag: String = version.chars().take(128).map(|c| if fits(c) { c } else { '_' }).collect();
    if tag.starts_with(['.', '-']) {
        tag.replace_range(..1, "_");
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_fixed_bytes() {
        let config = Descriptor::of("text/x", b"{}");
        let manifest = Manifest::new(Some("text/a"), config, Vec::new(), BTreeMap::new());
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        assert_eq!(
            text,
            "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"artifactType\":\"text/a\",\"config\":{\"mediaType\":\"text/x\",\"digest\":\
             \"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2},\"layers\":[]}"
        );
        let index = index_bytes(Descriptor::of(MANIFEST, text.as_bytes()), Some("1.0.0"));
        assert!(
            String::from_utf8(index)
                .unwrap()
                .contains("\"annotations\":{\"org.opencontainers.image.ref.name\":\"1.0.0\"}")
        );
    }

    #[test]
    fn versions_become_tags() {
        for (version, tag) in
            [("1.4.0", "1.4.0"), ("1.4.0+cu121", "1.4.0_cu121"), ("1.0.0-rc.1", "1.0.0-rc.1"), (".x", "_x")]
        {
            assert_eq!(tag_of(version), tag);
        }
    }
}
