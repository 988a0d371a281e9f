//! Paths inside a repository: the only kind of path that committed files and stores may hold.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::human;

/// The suffix that turns an artifact's path into its pointer's path.
pub const POINTER_SUFFIX: &str = ".pointer";

/// Why a name may not be used.
///
/// A name is one component of a path; see `docs/formats/tree.md` for the rules.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() {
        return Err("an empty name");
    }
    if name.len() > 255 {
        return Err("a name longer than 255 bytes");
    }
    if name == "." || name == ".." {
        return Err("`.` or `..` as a name");
    }
    if name.contains(['/', '\\']) {
        return Err("a slash or backslash in a name");
    }
    if name.chars().any(char::is_control) {
        return Err("a control character (such as a line break) in a name");
    }
    if is_git_alias(name) {
        return Err("a name that a file system may take for `.git`");
    }
    Ok(())
}

/// Whether some file system would open `.git` under this name: other letter case, code points that HFS+ ignores,
/// NTFS short names, streams and trailing dots or spaces.
fn is_git_alias(name: &str) -> bool {
    // Nearly every name ends here: this runs for each file of a scan.
    if name.is_ascii() && !name.as_bytes().windows(3).any(|part| part.eq_ignore_ascii_case(b"git")) {
        return false;
    }
    let visible: String = name
        .chars()
        .filter(|c| {
            !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
        })
        .collect::<String>()
        .to_lowercase();
    let stem = visible.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    stem == ".git" || stem == "git~1"
}

/// A path relative to the top of the repository.
///
/// - UTF-8, separated by `/`, neither starting nor ending with it, never empty.
/// - Every component passes [`check_name`], so it can never leave the worktree or enter `.git`.
/// - At most 4,096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// Checks a path from git's index or a committed file.
    pub fn new(path: &str) -> Result<Self> {
        let reason = if path.len() > 4096 {
            Some("longer than 4,096 bytes")
        } else {
            path.split('/').find_map(|name| check_name(name).err())
        };
        match reason {
            None => Ok(RepoPath(path.to_owned())),
            Some(reason) => Err(Error::new(format!("{}: not a usable path: {reason}", human::escape(path)))
                .hint("rename it; git-model keeps only paths that every platform can hold")),
        }
    }

    /// Checks raw bytes, as git keeps them.
    pub fn from_bytes(path: &[u8]) -> Result<Self> {
        match std::str::from_utf8(path) {
            Ok(path) => RepoPath::new(path),
            Err(_) => Err(Error::new(format!("{}: not a usable path: not UTF-8", path.escape_ascii()))
                .hint("rename it to a UTF-8 name")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a relative file-system path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("a split has at least one part")
    }

    /// Everything before the last component; `None` at the top level.
    pub fn parent(&self) -> Option<RepoPath> {
        self.0.rsplit_once('/').map(|(parent, _)| RepoPath(parent.to_owned()))
    }

    /// `name` below this path.
    pub fn join(&self, name: &str) -> Result<RepoPath> {
        RepoPath::new(&format!("{}/{name}", self.0))
    }

    /// A sibling of this path.
    pub fn sibling(&self, name: &str) -> Result<RepoPath> {
        match self.parent() {
            Some(parent) => parent.join(name),
            None => RepoPath::new(name),
        }
    }

    /// The pointer's path of this artifact.
    pub fn pointer(&self) -> RepoPath {
        RepoPath(format!("{}{POINTER_SUFFIX}", self.0))
    }

    /// The artifact's path, if this is a pointer's path.
    pub fn artifact(&self) -> Option<RepoPath> {
        let stem = self.0.strip_suffix(POINTER_SUFFIX)?;
        if stem.is_empty() || stem.ends_with('/') { None } else { Some(RepoPath(stem.to_owned())) }
    }

    /// Whether `self` is `other` or lies below it.
    pub fn is_within(&self, other: &RepoPath) -> bool {
        self.0 == other.0 || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for RepoPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl Serialize for RepoPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RepoPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        RepoPath::new(&path).map_err(|error| serde::de::Error::custom(error.one_line()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "../a",
            "a/../b",
            "./a",
            ".git",
            ".git/hooks/x",
            "a/.GIT/config",
            ".g\u{200c}it/x",
            "git~1/x",
            "GIT~1",
            ".git. /x",
            ".git::$INDEX_ALLOCATION/x",
            "a\\b",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{85}b",
        ] {
            assert!(RepoPath::new(path).is_err(), "{path:?}");
        }
        assert!(RepoPath::new(&"a".repeat(256)).is_err());
        assert!(RepoPath::from_bytes(b"caf\xe9").is_err());
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in [
            "a",
            "-rf",
            "a b/c.bin",
            "модель/重み.safetensors",
            ".gitignore",
            ".github/x",
            "..a",
            "a:b",
            "git",
        ] {
            assert!(RepoPath::new(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn pointer_and_artifact_are_inverse() {
        let path = RepoPath::new("m/w.bin").unwrap();
        assert_eq!(path.pointer().as_str(), "m/w.bin.pointer");
        assert_eq!(path.pointer().artifact(), Some(path.clone()));
        assert_eq!(RepoPath::new("m/.pointer").unwrap().artifact(), None);
        assert!(path.is_within(&RepoPath::new("m").unwrap()));
        assert!(!RepoPath::new("mm/w").unwrap().is_within(&RepoPath::new("m").unwrap()));
    }
}
