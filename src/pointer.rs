//! The pointer file: what git keeps in place of an artifact. Format: `docs/formats/pointer.md`.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::repo_path::{POINTER_SUFFIX, RepoPath};
use crate::yaml;

/// No pointer is larger; larger files are never read.
pub const MAX_BYTES: u64 = 1024;

const HEADER: &str = "# The content of this path is kept outside git. Get it with: git model pull\n";
const VERSION: u64 = 1;

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// One file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Tree {
        /// Files and symlinks at every depth.
        files: u64,
    },
}

/// A parsed pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// File or directory.
    pub content: Content,
    /// Digest of the file, or of the root tree object.
    pub digest: Digest,
    /// Bytes of the file, or of all files of the directory.
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u64,
    kind: String,
    sha256: String,
    size: u64,
    files: Option<u64>,
    executable: Option<bool>,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl Pointer {
    /// Parses the bytes of the pointer at `path` (the pointer's own path, for messages).
    pub fn parse(bytes: &[u8], path: &str) -> Result<Pointer> {
        let shown = human::escape(path);
        if bytes.len() as u64 > MAX_BYTES && !has_conflict_markers(bytes) {
            return Err(Error::new(format!("{shown}: not a pointer: larger than {MAX_BYTES} bytes")));
        }
        if has_conflict_markers(bytes) {
            return Err(conflict(path));
        }
        if let Some(pointer) = parse_canonical(bytes) {
            return Ok(pointer);
        }
        if let Ok(VersionOnly { version }) = yaml::from_slice(bytes, path)
            && version > VERSION
        {
            return Err(Error::new(format!(
                "{shown}: written by a newer git-model (pointer version {version})"
            ))
            .hint("update git-model"));
        }
        let raw: Raw = yaml::from_slice(bytes, path)?;
        let invalid = |what: &str| Error::new(format!("{shown}: not a valid pointer: {what}"));
        if raw.version != VERSION {
            return Err(invalid("`version` must be 1"));
        }
        let digest = Digest::from_hex(&raw.sha256)
            .ok_or_else(|| invalid("`sha256` must be 64 lowercase hex digits"))?;
        if raw.size > i64::MAX as u64 {
            return Err(invalid("`size` is too large"));
        }
        let content = match (raw.kind.as_str(), raw.files, raw.executable) {
            ("file", None, executable) => Content::File { executable: executable.unwrap_or(false) },
            ("tree", Some(files), None) => Content::Tree { files },
            ("file", Some(_), _) => return Err(invalid("`files` belongs to `kind: tree`")),
            ("tree", None, _) => return Err(invalid("`files` is missing")),
            ("tree", _, Some(_)) => return Err(invalid("`executable` belongs to `kind: file`")),
            _ => return Err(invalid("`kind` must be `file` or `tree`")),
        };
        Ok(Pointer { content, digest, size: raw.size })
    }

    /// The canonical bytes.
    pub fn to_text(&self) -> String {
        let (kind, last) = match self.content {
            Content::File { executable: false } => ("file", String::new()),
            Content::File { executable: true } => ("file", "executable: true\n".to_owned()),
            Content::Tree { files } => ("tree", format!("files: {files}\n")),
        };
        format!(
            "{HEADER}version: {VERSION}\nkind: {kind}\nsha256: {}\nsize: {}\n{last}",
            self.digest, self.size
        )
    }

    /// Whether the artifact is a directory.
    pub fn is_tree(&self) -> bool {
        matches!(self.content, Content::Tree { .. })
    }

    /// Number of files and links; one for a file.
    pub fn files(&self) -> u64 {
        match self.content {
            Content::Tree { files } => files,
            Content::File { .. } => 1,
        }
    }

    /// Size, and number of files of a directory, for people.
    pub fn summary(&self) -> String {
        match self.content {
            Content::File { .. } => human::bytes(self.size),
            Content::Tree { files } => {
                format!("{}, {}", human::count(files, "file"), human::bytes(self.size))
            }
        }
    }
}

/// Reads the exact text that [`Pointer::to_text`] writes, many times faster than YAML can be parsed.
fn parse_canonical(bytes: &[u8]) -> Option<Pointer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let values: Vec<&str> =
        text.strip_prefix(HEADER)?.lines().map(|line| line.split(": ").nth(1)).collect::<Option<_>>()?;
    let [_version, kind, sha256, size, ref last @ ..] = values[..] else { return None };
    let content = match kind {
        "tree" => Content::Tree { files: last.first()?.parse().ok()? },
        _ => Content::File { executable: !last.is_empty() },
    };
    let pointer = Pointer { content, digest: Digest::from_hex(sha256)?, size: size.parse().ok()? };
    // Only what would be written exactly like this was understood completely.
    (pointer.size <= i64::MAX as u64 && pointer.to_text() == text).then_some(pointer)
}

/// Whether git left the two sides of a conflict in these bytes.
pub fn has_conflict_markers(bytes: &[u8]) -> bool {
    bytes.split(|&b| b == b'\n').any(|line| line.starts_with(b"<<<<<<< "))
}

const CONFLICT: &str = "both sides of a merge changed this artifact";

/// The explanation of an unresolved merge of the pointer at `path`.
pub fn conflict(path: &str) -> Error {
    let quoted = human::shell_quote(path);
    let artifact = human::shell_quote(path.strip_suffix(POINTER_SUFFIX).unwrap_or(path));
    Error::new(format!("{}: {CONFLICT}", human::escape(path)))
        .hint(format!(
            "choose one: git checkout --ours -- {quoted} or git checkout --theirs -- {quoted}, then git add {quoted} && git model sync {artifact}"
        ))
}

/// Whether this error says that a merge left both sides in a pointer.
pub fn is_conflict(error: &Error) -> bool {
    error.one_line().contains(CONFLICT)
}

/// As [`conflict`], for a path of the index.
pub fn conflict_at(path: &RepoPath) -> Error {
    conflict(path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Pointer {
        Pointer { content: Content::File { executable: false }, digest: Digest::of(b"x"), size: 1 }
    }

    #[test]
    fn writes_what_it_reads() {
        for content in [
            Content::File { executable: false },
            Content::File { executable: true },
            Content::Tree { files: 7 },
        ] {
            let pointer = Pointer { content, ..sample() };
            let text = pointer.to_text();
            assert_eq!(parse_canonical(text.as_bytes()), Some(pointer));
            let reordered = text.replacen("version: 1\n", "", 1) + "version: 1\n";
            assert_eq!(Pointer::parse(reordered.as_bytes(), "p").unwrap(), pointer, "as YAML");
            assert_eq!(Pointer::parse(text.replace('\n', "\r\n").as_bytes(), "p").unwrap(), pointer, "CRLF");
        }
    }

    #[test]
    fn refuses_what_is_not_exactly_a_pointer() {
        let good = sample().to_text();
        let cases = [
            (good.replace("kind: file", "kind: link"), "`kind` must be"),
            (good.replace("version: 1", "version: 2"), "newer git-model"),
            (good.replace("version: 1", "version: 0"), "`version` must be 1"),
            (good.clone() + "extra: 1\n", "unknown field `extra`"),
            (good.clone() + "size: 1\n", "duplicate"),
            (good.clone() + "files: 1\n", "belongs to"),
            (good.replace("size: 1", "size: -1"), "expected"),
            (good.replace("size: 1", "size: 9223372036854775808"), "too large"),
            (good.replace("sha256: ", "sha256: A"), "64 lowercase"),
            (good.clone() + &"#".repeat(1024), "larger than"),
            (format!("<<<<<<< ours\n{good}=======\n{good}>>>>>>> theirs\n"), "both sides of a merge"),
            ("weights".to_owned(), "invalid type"),
        ];
        for (text, reason) in cases {
            let error = Pointer::parse(text.as_bytes(), "p").unwrap_err().one_line();
            assert!(error.contains(reason), "{text}\n{error}");
        }
    }
}
