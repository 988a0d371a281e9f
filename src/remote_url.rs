//! Where a store is: the only URLs git-model accepts.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::human;

/// The location of a store. Holds no secret by construction: users, passwords and queries are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemoteUrl {
    /// A folder, by absolute path.
    Folder(PathBuf),
    /// A bucket of S3 or of an S3-compatible server, and a prefix in it.
    S3 {
        /// Bucket name.
        bucket: String,
        /// Key prefix without leading or trailing slash; may be empty.
        prefix: String,
    },
}

impl RemoteUrl {
    /// Parses a URL from a committed file or the user's configuration: folders must be absolute.
    pub fn parse(text: &str) -> Result<RemoteUrl> {
        let shown = human::escape(&redact(text));
        let invalid = |reason: &str| {
            Error::usage(format!("{shown}: not a usable remote URL: {reason}"))
                .hint("use s3://bucket/prefix or the path of a folder")
        };
        if text.chars().any(char::is_control) {
            return Err(invalid("it holds control characters"));
        }
        if let Some(path) = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text)) {
            return folder(path).ok_or_else(|| invalid("a folder needs an absolute path without `..`"));
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            let scheme = text.split_once("://").map(|(scheme, _)| scheme);
            return Err(match scheme {
                Some(scheme) => invalid(&format!("the scheme `{}` is not supported", human::escape(scheme))),
                None => invalid("no scheme and not an absolute path"),
            });
        };
        if rest.contains(['?', '#', '@', '\\', '%']) {
            return Err(invalid("it may hold no user, password, query, fragment or escapes"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let bucket_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        if bucket.len() < 3
            || bucket.len() > 63
            || !bucket.chars().all(bucket_char)
            || bucket.starts_with(['.', '-'])
        {
            return Err(invalid("a bucket name is 3 to 63 lowercase letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && prefix.split('/').any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(invalid("the prefix holds an empty, `.` or `..` part"));
        }
        Ok(RemoteUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Parses what the user typed: a relative path is taken from `base`.
    pub fn parse_typed(text: &str, base: &Path) -> Result<RemoteUrl> {
        if text.contains("://") || text.starts_with('/') || text.is_empty() {
            return RemoteUrl::parse(text);
        }
        let mut path = base.to_path_buf();
        for part in Path::new(text).components() {
            match part {
                std::path::Component::ParentDir => {
                    path.pop();
                }
                std::path::Component::CurDir => {}
                part => path.push(part),
            }
        }
        RemoteUrl::parse(&path.to_string_lossy())
    }
}

/// A URL as it may be shown: users, passwords and queries become `***`, because secrets hide in them.
pub fn redact(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    if scheme.is_empty() {
        return text.to_owned();
    }
    let (place, query) = rest.split_once(['?', '#']).map_or((rest, ""), |(place, _)| (place, "?***"));
    let place = match place.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => place.to_owned(),
    };
    format!("{scheme}://{place}{query}")
}

fn folder(path: &str) -> Option<RemoteUrl> {
    let trimmed = path.trim_end_matches('/');
    let absolute = path.starts_with('/') && !trimmed.is_empty();
    let plain = !trimmed.split('/').any(|part| part == "..");
    (absolute && plain).then(|| RemoteUrl::Folder(PathBuf::from(trimmed)))
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteUrl::Folder(path) => write!(f, "{}", path.display()),
            RemoteUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            RemoteUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Serialize for RemoteUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_forms_are_canonical() {
        for (text, canonical) in [
            ("s3://acme-models/churn/", "s3://acme-models/churn"),
            ("s3://acme-models", "s3://acme-models"),
            ("/srv/models/", "/srv/models"),
            ("file:///srv/models", "/srv/models"),
        ] {
            let url = RemoteUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), canonical);
            assert_eq!(RemoteUrl::parse(&url.to_string()).unwrap(), url);
        }
        let typed = RemoteUrl::parse_typed("../store", Path::new("/home/x/repo")).unwrap();
        assert_eq!(typed.to_string(), "/home/x/store");
    }

    #[test]
    fn hostile_urls_are_refused() {
        for text in [
            "",
            "models",
            "s3://",
            "s3://ab",
            "s3://key:secret@bucket/x",
            "s3://bucket/x?endpoint=http://evil",
            "s3://bucket/../x",
            "s3://bucket//x",
            "s3://BUCKET/x",
            "s3://bucket/x\r\nHost: evil",
            "/a/../../etc",
            "file://host/x",
            "ext::sh -c id",
            "http://169.254.169.254/x",
            "/",
        ] {
            assert!(RemoteUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
