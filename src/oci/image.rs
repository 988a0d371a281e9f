//! A plain image: layers whose files are below `/models`, for whatever mounts or unpacks images.

use std::collections::BTreeMap;

use serde::Serialize;

use super::digest_text;
use crate::id::Digest;
use crate::model_info::ModelInfo;

/// The media type of the configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a layer. A plain tar would be compressed again by tools that copy it, which changes its digest.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The directory that holds everything; without a leading `./`, which some readers do not expect.
pub const ROOT: &str = "models";

/// What an image runs on. Data runs nowhere, but an image has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`
    pub architecture: String,
}

impl Platform {
    /// Parses `linux/arm64`.
    pub fn parse(text: &str) -> Option<Platform> {
        let (os, architecture) = text.split_once('/')?;
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        let both = word(os) && word(architecture);
        both.then(|| Platform { os: os.to_owned(), architecture: architecture.to_owned() })
    }
}

/// The bytes of the configuration, given the digests of the layers' tar streams.
pub fn config_bytes(
    info: &ModelInfo,
    platform: &Platform,
    layers: &[Digest],
    labels: &BTreeMap<String, String>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Image<'a> {
        architecture: &'a str,
        os: &'a str,
        config: Config<'a>,
        rootfs: Root,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config<'a> {
        env: Vec<String>,
        labels: &'a BTreeMap<String, String>,
    }
    #[derive(Serialize)]
    struct Root {
        r#type: &'static str,
        diff_ids: Vec<String>,
    }
    let env =
        info.pairs().into_iter().map(|(name, value)| format!("MODEL_{}={value}", name.to_ascii_uppercase()));
    let image = Image {
        architecture: &platform.architecture,
        os: &platform.os,
        config: Config { env: env.collect(), labels },
        rootfs: Root { r#type: "layers", diff_ids: layers.iter().map(digest_text).collect() },
    };
    serde_json::to_vec(&image).expect("plain data")
}
