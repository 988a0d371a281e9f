//! The user's settings: `model.*` in git's configuration, and a few environment variables.
//!
//! Nothing here ever comes from a committed file.

pub mod env;
pub mod registries;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::fsio::Durability;
use crate::human;
use crate::oci::Reference;
use crate::remote_url::RemoteUrl;

/// How files come from the cache into the worktree: `model.link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Link {
    /// Shared blocks where possible, else a copy.
    #[default]
    Auto,
    /// Always a copy.
    Copy,
    /// Read-only hard links.
    Hardlink,
}

/// What the user set for one remote.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RemoteSettings {
    /// `model.remote.<name>.url`: overrides the committed URL, and is approved by being here. Checked when it is used, so that
    /// one mistake does not stop commands that need no remote.
    pub url: Option<String>,
    /// `model.remote.<name>.endpoint`: of an S3-compatible server.
    pub endpoint: Option<String>,
    /// `model.remote.<name>.region`.
    pub region: Option<String>,
    /// `model.remote.<name>.profile`: of `~/.aws`.
    pub profile: Option<String>,
    /// `model.remote.<name>.anonymous`: whether requests are sent without credentials.
    pub anonymous: bool,
    /// `model.remote.<name>.allowHttp`: whether the endpoint may be plain http.
    pub allow_http: bool,
    /// `model.remote.<name>.checksum`: whether uploads carry a SHA-256 for the server to check (default), or not.
    pub checksum: bool,
}

/// All settings, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `model.fsync`.
    pub durability: Durability,
    /// `model.cache`: a directory shared by several repositories.
    pub cache: Option<PathBuf>,
    /// `model.link`.
    pub link: Link,
    /// `model.jobs`: transfers at once.
    pub jobs: Option<usize>,
    /// `model.limitRate`: bytes per second of all transfers together.
    pub limit_rate: Option<u64>,
    /// `model.autofetch`: how many bytes a hook may fetch by itself.
    pub autofetch: u64,
    /// `model.prepushLimit`: how many bytes the pre-push hook may upload while git waits.
    pub prepush_limit: u64,
    /// `model.gitRemote`: the git remote that holds releases.
    pub git_remote: Option<String>,
    /// `model.trust` and `GIT_MODEL_TRUST`: approved URLs.
    pub trusted: Vec<String>,
    /// Whether `GIT_MODEL_HOOKS` lets hooks work.
    pub hooks: bool,
    remotes: BTreeMap<String, RemoteSettings>,
    /// `model.registry.<host>.allowHttp`: whether that registry is spoken to in plain http.
    plain_registries: BTreeMap<String, bool>,
}

impl Settings {
    /// Reads the entries of git's configuration (later ones win) and the environment.
    pub fn new(entries: &[(String, String)]) -> Result<Settings> {
        let mut settings = Settings {
            durability: Durability::Full,
            cache: None,
            link: Link::Auto,
            jobs: None,
            limit_rate: None,
            autofetch: 1 << 30,
            prepush_limit: 256 << 20,
            git_remote: None,
            trusted: Vec::new(),
            hooks: env::first(&[env::HOOKS]).as_deref() != Some("off"),
            remotes: BTreeMap::new(),
            plain_registries: BTreeMap::new(),
        };
        for (key, value) in entries {
            settings.set(key, value)?;
        }
        if let Some(urls) = env::first(&[env::TRUST]) {
            settings.trusted.extend(
                urls.split([',', '\n']).map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()),
            );
        }
        // Compared as canonical text, so that a trailing slash does not matter.
        for url in &mut settings.trusted {
            if let Ok(parsed) = RemoteUrl::parse(url) {
                *url = parsed.to_string();
            }
        }
        Ok(settings)
    }

    /// What the user set for the remote `name`.
    pub fn remote(&self, name: &str) -> RemoteSettings {
        self.remotes
            .get(name)
            .cloned()
            .unwrap_or(RemoteSettings { checksum: true, ..RemoteSettings::default() })
    }

    /// Names of the remotes that the user gave a URL.
    pub fn remote_names(&self) -> impl Iterator<Item = &str> {
        self.remotes.iter().filter(|(_, remote)| remote.url.is_some()).map(|(name, _)| name.as_str())
    }

    /// Whether a registry is spoken to in plain http: the user said so, or it is on this machine and nothing else was said.
    pub fn allows_http(&self, place: &Reference) -> bool {
        self.plain_registries.get(&place.registry).copied().unwrap_or_else(|| place.is_loopback())
    }

    /// Whether the user approved this URL.
    pub fn trusts(&self, url: &RemoteUrl) -> bool {
        self.trusted.contains(&url.to_string())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(name) = key.strip_prefix("model.") else { return Ok(()) };
        if let Some((remote, key_of_remote)) =
            name.strip_prefix("remote.").and_then(|rest| rest.rsplit_once('.'))
        {
            return self.set_remote(remote, key_of_remote, key, value);
        }
        if let Some(host) = name.strip_prefix("registry.").and_then(|rest| rest.strip_suffix(".allowhttp")) {
            self.plain_registries.insert(host.to_owned(), boolean(key, value)?);
            return Ok(());
        }
        match name {
            "fsync" => {
                self.durability = if boolean(key, value)? { Durability::Full } else { Durability::Off };
            }
            "cache" => self.cache = Some(directory(key, value)?),
            "link" => {
                self.link = match value {
                    "auto" => Link::Auto,
                    "copy" => Link::Copy,
                    "hardlink" => Link::Hardlink,
                    _ => return Err(invalid(key, value, "auto, copy or hardlink")),
                };
            }
            "jobs" => match value.parse() {
                Ok(jobs @ 1..=256) => self.jobs = Some(jobs),
                _ => return Err(invalid(key, value, "a number from 1 to 256")),
            },
            "limitrate" => self.limit_rate = Some(size(key, value)?).filter(|rate| *rate > 0),
            "autofetch" => self.autofetch = size(key, value)?,
            "prepushlimit" => self.prepush_limit = size(key, value)?,
            "trust" => self.trusted.push(value.to_owned()),
            "gitremote" => self.git_remote = Some(value.to_owned()),
            // Keys of later versions, or of other tools that use the section.
            _ => {}
        }
        Ok(())
    }

    fn set_remote(&mut self, name: &str, key_of_remote: &str, key: &str, value: &str) -> Result<()> {
        let default = RemoteSettings { checksum: true, ..RemoteSettings::default() };
        let remote = self.remotes.entry(name.to_owned()).or_insert(default);
        match key_of_remote {
            "url" => remote.url = Some(value.to_owned()),
            "endpoint" => remote.endpoint = Some(value.to_owned()),
            "region" => remote.region = Some(value.to_owned()),
            "profile" => remote.profile = Some(value.to_owned()),
            "anonymous" => remote.anonymous = boolean(key, value)?,
            "allowhttp" => remote.allow_http = boolean(key, value)?,
            "checksum" => remote.checksum = boolean(key, value)?,
            _ => {}
        }
        Ok(())
    }
}

fn invalid(key: &str, value: &str, wanted: &str) -> Error {
    Error::usage(format!("git config {key}: `{}` is not {wanted}", human::escape(value)))
        .hint(format!("set it with git config {key} VALUE"))
}

fn boolean(key: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" | "" => Ok(false),
        _ => Err(invalid(key, value, "on or off")),
    }
}

/// A number of bytes with git's suffixes.
fn size(key: &str, value: &str) -> Result<u64> {
    human::parse_bytes(value).ok_or_else(|| invalid(key, value, "a size such as 500m or 2g"))
}

fn directory(key: &str, value: &str) -> Result<PathBuf> {
    let path = match value.strip_prefix("~/") {
        Some(rest) => env::first(&["HOME"]).map(|home| PathBuf::from(home).join(rest)),
        None => Some(PathBuf::from(value)),
    };
    path.filter(|path| path.is_absolute()).ok_or_else(|| invalid(key, value, "an absolute path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str)]) -> Result<Settings> {
        let entries: Vec<_> =
            entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Settings::new(&entries)
    }

    #[test]
    fn later_entries_win_and_sizes_have_suffixes() {
        let found = settings(&[
            ("model.fsync", "off"),
            ("model.autofetch", "1m"),
            ("model.autofetch", "2g"),
            ("model.remote.my.store.url", "s3://bucket/x"),
            ("model.remote.my.store.allowhttp", "true"),
            ("model.trust", "/srv/store/"),
        ])
        .unwrap();
        assert_eq!(found.durability, Durability::Off);
        assert_eq!(found.autofetch, 2 << 30);
        assert!(found.remote("my.store").allow_http);
        assert!(found.remote("my.store").checksum && found.remote("other").checksum);
        assert!(found.trusts(&RemoteUrl::parse("/srv/store").unwrap()));
        assert!(!found.trusts(&RemoteUrl::parse("/srv/stor").unwrap()));
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (key, value) in
            [("model.link", "soft"), ("model.jobs", "0"), ("model.autofetch", "much"), ("model.cache", "rel")]
        {
            let error = settings(&[(key, value)]).unwrap_err();
            assert!(error.one_line().contains(key));
            assert_eq!(error.kind().exit_code(), 2);
        }
    }
}
