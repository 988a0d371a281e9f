//! Keys in a store, and its `format.json`.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::remote_url::RemoteUrl;

const FORMAT: &str = "git-model-store";
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Format {
    format: String,
    version: u64,
    id: String,
}

/// No `format.json` is larger; larger ones are never read.
pub(super) const MAX_FORMAT: usize = 64 * 1024;

fn key(url: &RemoteUrl, rest: &str) -> Result<Path> {
    let text = match url.key_prefix() {
        "" => rest.to_owned(),
        prefix => format!("{prefix}/{rest}"),
    };
    // Taken as it is: the other constructor would escape characters, and keys would not be where the layout says.
    Path::parse(&text)
        .map_err(|error| Error::new(format!("{url}: cannot be a prefix of keys")).caused_by(error))
}

/// `<prefix>/objects/sha256`
pub(super) fn objects_key(url: &RemoteUrl) -> Result<Path> {
    key(url, "objects/sha256")
}

/// `<prefix>/objects/sha256/ab/<64 hex>`
pub(super) fn object_key(url: &RemoteUrl, digest: &Digest) -> Result<Path> {
    key(url, &object_name(digest))
}

/// An object's key below the prefix.
pub(super) fn object_name(digest: &Digest) -> String {
    let hex = digest.to_hex();
    format!("objects/sha256/{}/{hex}", &hex[..2])
}

/// `<prefix>/attest/sha256/<model digest>`
pub(super) fn attest_key(url: &RemoteUrl, model: &Digest) -> Result<Path> {
    key(url, &format!("attest/sha256/{model}"))
}

/// `<prefix>/format.json`
pub(super) fn format_key(url: &RemoteUrl) -> Result<Path> {
    key(url, "format.json")
}

/// A key that nobody else uses.
pub(super) fn probe_key(url: &RemoteUrl) -> Result<Path> {
    key(url, &format!("check-{}", uuid::Uuid::new_v4().simple()))
}

/// A new store id and the bytes of its `format.json`.
pub(super) fn new_format() -> (String, Vec<u8>) {
    let id = uuid::Uuid::new_v4().to_string();
    let format = Format { format: FORMAT.to_owned(), version: VERSION, id: id.clone() };
    (id, serde_json::to_vec(&format).expect("plain data"))
}

/// The id in the bytes of a `format.json`.
pub(super) fn parse_format(bytes: &[u8], url: &RemoteUrl) -> Result<String> {
    let format: Format = serde_json::from_slice(bytes).map_err(|error| {
        Error::new(format!("{url}: format.json is not one of git-model")).caused_by(error)
    })?;
    if format.format != FORMAT {
        return Err(Error::new(format!(
            "{url}: holds `{}`, not a git-model store",
            human::escape(&format.format)
        )));
    }
    if format.version > VERSION {
        return Err(Error::new(format!(
            "{url}: written by a newer git-model (store version {})",
            format.version
        ))
        .hint("update git-model"));
    }
    if uuid::Uuid::parse_str(&format.id).is_err() {
        return Err(Error::new(format!("{url}: format.json has no valid id")));
    }
    Ok(format.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_documented_layout() {
        let url = RemoteUrl::parse("s3://bucket/team/churn").unwrap();
        let digest = Digest::of(b"");
        assert_eq!(
            object_key(&url, &digest).unwrap().as_ref(),
            "team/churn/objects/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let bare = RemoteUrl::parse("s3://bucket").unwrap();
        assert_eq!(format_key(&bare).unwrap().as_ref(), "format.json");
        assert_eq!(format_key(&RemoteUrl::parse("/srv/store").unwrap()).unwrap().as_ref(), "format.json");
    }

    #[test]
    fn foreign_and_newer_stores_are_refused() {
        let url = RemoteUrl::parse("/srv/store").unwrap();
        let (id, bytes) = new_format();
        assert_eq!(parse_format(&bytes, &url).unwrap(), id);
        let text = String::from_utf8(bytes).unwrap();
        for (bad, reason) in [
            (text.replace("\"version\":1", "\"version\":2"), "newer"),
            (text.replace("git-model-store", "other"), "not a git-model store"),
            (text.replace(&id, "x"), "no valid id"),
            ("<Error/>".to_owned(), "not one of git-model"),
        ] {
            assert!(parse_format(bad.as_bytes(), &url).unwrap_err().one_line().contains(reason), "{bad}");
        }
    }
}
