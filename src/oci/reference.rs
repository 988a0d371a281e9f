//! Where an artifact is in a registry: `oci://registry.example.com/team/churn:1.4.0`.

use std::fmt;

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::remote_url;

/// A repository of a registry, and what is meant in it. Holds no secret: users and passwords are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port if there is one.
    pub registry: String,
    /// The repository's path.
    pub repository: String,
    /// Tag or digest, if one was named.
    pub pinned: Option<Pinned>,
}

/// One of several manifests in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// By its tag.
    Tag(String),
    /// By its digest.
    Digest(Digest),
}

impl Reference {
    /// Parses `oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`; the scheme may be left out. `docker.io` is where Docker looks for it.
    pub fn parse(text: &str) -> Result<Reference> {
        let shown = human::escape(&remote_url::redact(text));
        let invalid = |reason: &str| {
            Error::usage(format!("{shown}: not a place in a registry: {reason}"))
                .hint("it looks like oci://registry.example.com/team/churn:1.4.0")
        };
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        if rest.contains("://") {
            return Err(invalid("only oci:// is known"));
        }
        let (registry, path) = rest.split_once('/').ok_or_else(|| invalid("it names no repository"))?;
        if !is_host(registry) {
            return Err(invalid("the part before the first slash is no host, or holds a user or password"));
        }
        let (repository, pinned) = match path.split_once('@') {
            Some((repository, digest)) => {
                let digest = super::parse_digest(digest)
                    .ok_or_else(|| invalid("after @ comes sha256: and 64 digits"))?;
                // A tag beside a digest says nothing more.
                let repository = repository.split(':').next().unwrap_or_default();
                (repository, Some(Pinned::Digest(digest)))
            }
            None => match path.split_once(':') {
                Some((repository, tag)) if is_tag(tag) => (repository, Some(Pinned::Tag(tag.to_owned()))),
                Some(_) => return Err(invalid("a tag is up to 128 letters, digits, dots, _ and -")),
                None => (path, None),
            },
        };
        if !repository.split('/').all(is_component) || repository.len() > 255 {
            return Err(invalid(
                "a repository is lowercase letters and digits, with . _ - and / between them",
            ));
        }
        let docker = ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&registry);
        Ok(Reference {
            registry: if docker { "registry-1.docker.io" } else { registry }.to_owned(),
            repository: match docker && !repository.contains('/') {
                true => format!("library/{repository}"),
                false => repository.to_owned(),
            },
            pinned,
        })
    }

    /// The same repository at a digest.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { pinned: Some(Pinned::Digest(digest)), ..self.clone() }
    }

    /// The same repository at a tag.
    pub fn tagged(&self, tag: &str) -> Reference {
        Reference { pinned: Some(Pinned::Tag(tag.to_owned())), ..self.clone() }
    }

    /// As image tools take it, without scheme.
    pub fn image(&self) -> String {
        let registry = if self.registry == "registry-1.docker.io" { "docker.io" } else { &self.registry };
        let pinned = match &self.pinned {
            Some(Pinned::Tag(tag)) => format!(":{tag}"),
            Some(Pinned::Digest(digest)) => format!("@sha256:{digest}"),
            None => String::new(),
        };
        format!("{registry}/{}{pinned}", self.repository)
    }

    /// Whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.registry.split(':').next().unwrap_or_default(),
        };
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.image())
    }
}

/// A host name or address with an optional port. A single word is a host only when nothing else is possible.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("", port),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, _)) => (host, &text[host.len()..]),
            None => (text, ""),
        },
    };
    let named = text.starts_with('[')
        || !host.is_empty()
            && !host.starts_with(['-', '.'])
            && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    let numbered = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    named && numbered
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_component(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        let digest = Digest::of(b"x");
        for (text, registry, repository, shown) in [
            ("oci://ghcr.io/acme/churn:1.4.0", "ghcr.io", "acme/churn", "oci://ghcr.io/acme/churn:1.4.0"),
            ("127.0.0.1:5000/churn", "127.0.0.1:5000", "churn", "oci://127.0.0.1:5000/churn"),
            ("oci://[::1]:5000/a/b:x", "[::1]:5000", "a/b", "oci://[::1]:5000/a/b:x"),
            ("docker.io/churn:1", "registry-1.docker.io", "library/churn", "oci://docker.io/library/churn:1"),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!((parsed.registry.as_str(), parsed.repository.as_str()), (registry, repository));
            assert_eq!(parsed.to_string(), shown);
        }
        let pinned = Reference::parse(&format!("oci://h.example/churn:1@sha256:{digest}")).unwrap();
        assert_eq!(pinned.pinned, Some(Pinned::Digest(digest)));
        for (text, local) in [
            ("localhost:5000/x", true),
            ("127.9.9.9/x", true),
            ("[::1]/x", true),
            ("localhost.evil.example/x", false),
        ] {
            assert_eq!(Reference::parse(text).unwrap().is_loopback(), local, "{text}");
        }
    }

    #[test]
    fn hostile_places_are_refused() {
        for text in [
            "",
            "oci://",
            "oci://host",
            "oci://host/",
            "oci://user:pw@host/x",
            "https://host/x",
            "oci://host/../x",
            "oci://host/X",
            "oci://host/a//b",
            "oci://host/x:",
            "oci://host/x:a b",
            "oci://host:99999/x",
            "oci://host/x@sha256:12",
            "oci://ho\nst/x",
            "oci://-h/x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
