//! `.git-model.yaml`, the committed configuration: data only. Format: `docs/formats/repository-config.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::human;
use crate::remote_url::RemoteUrl;
use crate::yaml;

/// Its name, at the top level of the repository.
pub const FILE_NAME: &str = ".git-model.yaml";
/// Larger files are never read.
pub const MAX_BYTES: u64 = 64 * 1024;

/// The parsed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoConfig {
    /// Identity of the repository, shared by its forks.
    pub repository: String,
    /// Name of the default remote.
    pub default_remote: Option<String>,
    /// All remotes by name.
    pub remotes: BTreeMap<String, RemoteUrl>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u64,
    repository: String,
    remote: Option<String>,
    #[serde(default, deserialize_with = "yaml::unique_map")]
    remotes: BTreeMap<String, RawRemote>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRemote {
    url: String,
}

impl RepoConfig {
    /// A configuration without remotes.
    pub fn new(repository: String) -> Self {
        RepoConfig { repository, default_remote: None, remotes: BTreeMap::new() }
    }

    /// Parses the file's bytes; `source` names it in messages (`.git-model.yaml` or `<commit>:.git-model.yaml`).
    pub fn parse(bytes: &[u8], source: &str) -> Result<RepoConfig> {
        let raw: Raw = yaml::from_slice(bytes, source).map_err(|error| {
            error.hint("this file is data only; its keys are listed in docs/formats/repository-config.md")
        })?;
        let shown = human::escape(source);
        if raw.version != 1 {
            return Err(
                Error::new(format!("{shown}: version {} is not known", raw.version)).hint("update git-model")
            );
        }
        if uuid::Uuid::parse_str(&raw.repository).is_err() {
            return Err(Error::new(format!("{shown}: `repository` must be a UUID")));
        }
        let mut remotes = BTreeMap::new();
        for (name, remote) in raw.remotes {
            check_remote_name(&name)?;
            let url = RemoteUrl::parse(&remote.url).map_err(|error| error.about(shown.clone()))?;
            remotes.insert(name, url);
        }
        if let Some(name) = &raw.remote
            && !remotes.contains_key(name)
        {
            return Err(Error::new(format!(
                "{shown}: `remote: {}` is not among `remotes`",
                human::escape(name)
            )));
        }
        Ok(RepoConfig { repository: raw.repository, default_remote: raw.remote, remotes })
    }

    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut text = format!("version: 1\nrepository: {}\n", self.repository);
        if let Some(name) = &self.default_remote {
            let _ = writeln!(text, "remote: {}", yaml::scalar(name));
        }
        if !self.remotes.is_empty() {
            text.push_str("remotes:\n");
        }
        for (name, url) in &self.remotes {
            let _ = writeln!(text, "  {}:\n    url: {}", yaml::scalar(name), yaml::scalar(&url.to_string()));
        }
        text
    }
}

/// Refuses names that could not stand in git's configuration or be confused with options.
pub fn check_remote_name(name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if valid {
        return Ok(());
    }
    Err(Error::usage(format!("{}: not a remote name", human::escape(name)))
        .hint("use letters, digits, `.`, `_` and `-`, starting with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1c0c0e-58b5-4bd1-9a4e-0b8e6a1f3f6d";

    #[test]
    fn round_trips() {
        let mut config = RepoConfig::new(UUID.to_owned());
        assert_eq!(RepoConfig::parse(config.to_text().as_bytes(), "f").unwrap(), config);
        config.default_remote = Some("origin".into());
        config.remotes.insert("origin".into(), RemoteUrl::parse("s3://acme-models/churn").unwrap());
        config.remotes.insert("1e3".into(), RemoteUrl::parse("/srv/a b: #c").unwrap());
        assert_eq!(RepoConfig::parse(config.to_text().as_bytes(), "f").unwrap(), config);
    }

    #[test]
    fn anything_but_data_is_refused() {
        for (extra, reason) in [
            ("endpoint: http://evil\n", "unknown field `endpoint`"),
            ("remote: nowhere\n", "not among"),
            ("remotes: {o: {url: s3://bucket/x, endpoint: http://evil}}\n", "unknown field `endpoint`"),
            ("remotes: {o: {url: 's3://key:secret@bucket'}}\n", "not a usable remote URL"),
            ("remotes: {'-o': {url: s3://bucket}}\n", "not a remote name"),
        ] {
            let text = format!("version: 1\nrepository: {UUID}\n{extra}");
            let error = RepoConfig::parse(text.as_bytes(), "f").unwrap_err().one_line();
            assert!(error.contains(reason), "{extra}: {error}");
        }
    }
}
