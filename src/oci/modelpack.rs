//! CNCF ModelPack: every file is a layer of its own, as it is, so that the layer's digest is the file's SHA-256.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Descriptor, annotation};
use crate::id::Digest;
use crate::model_info::ModelInfo;

/// The artifact type of the manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
/// The media type of the configuration.
pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";

const FILEPATH: &str = "org.cncf.model.filepath";
const METADATA: &str = "org.cncf.model.file.metadata+json";

/// What a file is to the model, in ModelPack's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights and what is loaded with them.
    Weight,
    /// Configuration of the weights.
    WeightConfig,
    /// Code, and what it needs to run.
    Code,
    /// Everything that tells about the model.
    Doc,
}

impl Kind {
    fn media_type(self) -> &'static str {
        match self {
            Kind::Weight => "application/vnd.cncf.model.weight.v1.raw",
            Kind::WeightConfig => "application/vnd.cncf.model.weight.config.v1.raw",
            Kind::Code => "application/vnd.cncf.model.code.v1.raw",
            Kind::Doc => "application/vnd.cncf.model.doc.v1.raw",
        }
    }
}

/// The layer of one file. Tools take its name from one of two annotations, so it has both.
pub fn layer(kind: Kind, path: &str, digest: &Digest, size: u64, executable: bool) -> Descriptor {
    #[derive(Serialize)]
    struct Metadata<'a> {
        name: &'a str,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        mtime: &'static str,
        typeflag: u8,
    }
    let metadata = Metadata {
        name: path.rsplit('/').next().unwrap_or(path),
        mode: if executable { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size,
        mtime: "1970-01-01T00:00:00Z",
        typeflag: 0,
    };
    let metadata = serde_json::to_string(&metadata).expect("plain data");
    let mut layer = Descriptor::new(kind.media_type(), digest, size);
    layer.annotations = BTreeMap::from([
        (FILEPATH.to_owned(), path.to_owned()),
        (METADATA.to_owned(), metadata),
        (annotation::TITLE.to_owned(), path.to_owned()),
    ]);
    layer
}

/// The bytes of the configuration. The schema allows no keys of our own: what it has no word for is in the manifest's annotations.
pub fn config_bytes(info: &ModelInfo, layers: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Config<'a> {
        descriptor: About<'a>,
        modelfs: Files<'a>,
        config: Empty,
    }
    #[derive(Serialize)]
    struct About<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<&'a str>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Files<'a> {
        r#type: &'static str,
        diff_ids: Vec<&'a str>,
    }
    #[derive(Serialize)]
    struct Empty {}
    let about =
        About { name: &info.model, version: info.version.as_deref(), revision: info.commit.as_deref() };
    let diff_ids = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config =
        Config { descriptor: about, modelfs: Files { r#type: "layers", diff_ids }, config: Empty {} };
    serde_json::to_vec(&config).expect("plain data")
}
