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
    /// A bucket of S3 or of an S3-compatible server, and a prefix in it: `s3://bucket/prefix`.
    S3 {
        /// Bucket name.
        bucket: String,
        /// Key prefix without leading or trailing slash; may be empty.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage, and a prefix in it: `gs://bucket/prefix`.
    Gcs {
        /// Bucket name.
        bucket: String,
        /// Key prefix without leading or trailing slash; may be empty.
        prefix: String,
    },
    /// A container of Azure Blob Storage, and a prefix in it: `az://account/container/prefix`.
    Azure {
        /// Name of the storage account.
        account: String,
        /// Name of the container.
        container: String,
        /// Key prefix without leading or trailing slash; may be empty.
        prefix: String,
    },
    /// A store behind a web server or CDN, which can only be read: `https://host/path`.
    Https {
        /// Host, and port if it is not the usual one.
        host: String,
        /// Path without leading or trailing slash; may be empty.
        prefix: String,
    },
}

impl RemoteUrl {
    /// The forms that are accepted, for hints.
    pub const FORMS: &str = "a folder, s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix or https://host/path";

    /// Parses a URL from a committed file or the user's configuration: folders must be absolute.
    pub fn parse(text: &str) -> Result<RemoteUrl> {
        let shown = human::escape(&redact(text));
        let invalid = |reason: &str| {
            Error::usage(format!("{shown}: not a usable remote URL: {reason}"))
                .hint(format!("use {}", RemoteUrl::FORMS))
        };
        if text.chars().any(char::is_control) {
            return Err(invalid("it holds control characters"));
        }
        if let Some(path) = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text)) {
            return folder(path).ok_or_else(|| invalid("a folder needs an absolute path without `..`"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("no scheme and not an absolute path"));
        };
        if !["s3", "gs", "az", "https"].contains(&scheme) {
            return Err(invalid(&format!("the scheme `{}` is not supported", human::escape(scheme))));
        }
        if rest.contains(['?', '#', '@', '\\', '%']) {
            return Err(invalid("it may hold no user, password, query, fragment or escapes"));
        }
        let (first, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && prefix.split('/').any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(invalid("the prefix holds an empty, `.` or `..` part"));
        }
        let (first, prefix) = (first.to_owned(), prefix.to_owned());
        match scheme {
            "s3" if is_bucket(&first, 63) => Ok(RemoteUrl::S3 { bucket: first, prefix }),
            "gs" if is_bucket(&first, 222) => Ok(RemoteUrl::Gcs { bucket: first, prefix }),
            "s3" | "gs" => {
                Err(invalid("a bucket name is 3 to 63 lowercase letters, digits, dots and hyphens"))
            }
            "az" => azure(first, &prefix).ok_or_else(|| {
                invalid("it names an account (3 to 24 lowercase letters and digits) and a container in it")
            }),
            _ if is_host(&first) => Ok(RemoteUrl::Https { host: first, prefix }),
            _ => Err(invalid("it needs a host name in lowercase letters")),
        }
    }

    /// What every key of the store begins with, without leading or trailing slash. A folder, like a web server, is the root
    /// of its store.
    pub fn key_prefix(&self) -> &str {
        match self {
            RemoteUrl::Folder(_) | RemoteUrl::Https { .. } => "",
            RemoteUrl::S3 { prefix, .. }
            | RemoteUrl::Gcs { prefix, .. }
            | RemoteUrl::Azure { prefix, .. } => prefix,
        }
    }

    /// Whether nothing can be written there, and nothing listed.
    pub fn is_read_only(&self) -> bool {
        matches!(self, RemoteUrl::Https { .. })
    }

    /// Whether the URL alone says that one of the clouds is meant, and which; unless the user set a custom endpoint.
    pub fn is_cloud(&self) -> bool {
        matches!(self, RemoteUrl::S3 { .. } | RemoteUrl::Gcs { .. } | RemoteUrl::Azure { .. })
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

/// Whether what this URL leads to is on this machine.
pub fn is_here(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn is_bucket(name: &str, longest: usize) -> bool {
    let bucket_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    (3..=longest).contains(&name.len()) && name.chars().all(bucket_char) && !name.starts_with(['.', '-'])
}

fn azure(account: String, rest: &str) -> Option<RemoteUrl> {
    let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_account = (3..=24).contains(&account.len()) && account.chars().all(plain);
    let is_container = (3..=63).contains(&container.len())
        && container.chars().all(|c| plain(c) || c == '-')
        && !container.starts_with('-');
    (is_account && is_container).then(|| RemoteUrl::Azure {
        account,
        container: container.to_owned(),
        prefix: prefix.to_owned(),
    })
}

/// A host name or IPv4 address, and perhaps a port. Lowercase, so that one place is written in one way.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let host_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let is_label = |label: &str| !label.is_empty() && !label.starts_with('-');
    let is_port =
        |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0 && !port.starts_with(['0', '+']));
    name.chars().all(host_char) && name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn folder(path: &str) -> Option<RemoteUrl> {
    let trimmed = path.trim_end_matches('/');
    let absolute = path.starts_with('/') && !trimmed.is_empty();
    let plain = !trimmed.split('/').any(|part| part == "..");
    (absolute && plain).then(|| RemoteUrl::Folder(PathBuf::from(trimmed)))
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, prefix) = match self {
            RemoteUrl::Folder(path) => return write!(f, "{}", path.display()),
            RemoteUrl::S3 { bucket, prefix } => (format!("s3://{bucket}"), prefix),
            RemoteUrl::Gcs { bucket, prefix } => (format!("gs://{bucket}"), prefix),
            RemoteUrl::Azure { account, container, prefix } => {
                (format!("az://{account}/{container}"), prefix)
            }
            RemoteUrl::Https { host, prefix } => (format!("https://{host}"), prefix),
        };
        match prefix.is_empty() {
            true => f.write_str(&place),
            false => write!(f, "{place}/{prefix}"),
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
            ("gs://acme_models.example/churn/", "gs://acme_models.example/churn"),
            ("az://acme/models", "az://acme/models"),
            ("az://acme/models/team/churn/", "az://acme/models/team/churn"),
            ("https://models.example:8443/churn/", "https://models.example:8443/churn"),
            ("https://models.example/", "https://models.example"),
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
            "gs://x",
            "gs://bucket/../x",
            "gs://bucket/x?uploads",
            "az://account",
            "az://Account/container",
            "az://acc-ount/container",
            "az://evil.example/container",
            "az://account/-container",
            "az://account/container/../x",
            "https://",
            "https:///etc",
            "https://Host/x",
            "https://host:0/x",
            "https://host:99999/x",
            "https://user:secret@host/x",
            "https://host/x?token=1",
            "https://host/%2e%2e/x",
            "https://[::1]/x",
            "/",
        ] {
            assert!(RemoteUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
