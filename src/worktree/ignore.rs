//! The lines that keep artifacts out of git: in `.gitignore` files and in `info/exclude`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::{Root, Staging};
use crate::error::{Context, Result};
use crate::fsio::{self, Durability};
use crate::repo_path::RepoPath;

/// Larger ignore files are refused.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The `.gitignore` that belongs to an artifact: the one in its directory.
pub fn file_of(artifact: &RepoPath) -> Result<RepoPath> {
    artifact.sibling(".gitignore")
}

/// The pattern that ignores exactly `path`, from the directory that `path` is relative to.
fn pattern(path: &str) -> String {
    let mut out = String::from("/");
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    // Git drops unescaped spaces at the end of a line.
    let trimmed = out.trim_end_matches(' ').len();
    let spaces = out.split_off(trimmed);
    out + &"\\ ".repeat(spaces.len())
}

/// Adds the missing lines for these artifacts. Returns the `.gitignore` files that changed.
pub fn add(root: &Root, artifacts: &[RepoPath], durability: Durability) -> Result<Vec<RepoPath>> {
    let mut files: BTreeMap<RepoPath, Vec<String>> = BTreeMap::new();
    for artifact in artifacts {
        files.entry(file_of(artifact)?).or_default().push(pattern(artifact.name()));
    }
    let mut changed = Vec::new();
    for (file, patterns) in files {
        let text = root.read_small(&file, MAX_BYTES)?.unwrap_or_default();
        let lines = missing_lines(&text, &patterns);
        if !lines.is_empty() {
            root.append(&file, &lines, durability)?;
            changed.push(file);
        }
    }
    Ok(changed)
}

/// Removes an artifact's line. Returns the `.gitignore` if it changed; one that becomes empty is removed.
pub fn remove(root: &Root, artifact: &RepoPath, staging: &Staging) -> Result<Option<RepoPath>> {
    let file = file_of(artifact)?;
    let Some(text) = root.read_small(&file, MAX_BYTES)? else { return Ok(None) };
    let unwanted = pattern(artifact.name());
    let kept: Vec<&[u8]> =
        text.split_inclusive(|&b| b == b'\n').filter(|line| trim_end(line) != unwanted.as_bytes()).collect();
    let kept = kept.concat();
    if kept.len() == text.len() {
        return Ok(None);
    }
    if kept.is_empty() {
        root.remove_file(&file)?;
    } else {
        root.write_small(&file, &kept, staging)?;
    }
    Ok(Some(file))
}

/// Adds an artifact to the repository's private `info/exclude`.
pub fn exclude(common_dir: &Path, artifact: &RepoPath) -> Result<()> {
    let file = common_dir.join("info/exclude");
    fsio::create_dir_all(&common_dir.join("info"), Durability::Off)?;
    let text = fs::read(&file).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error).context(&file, "read"),
    })?;
    let lines = missing_lines(&text, &[pattern(artifact.as_str())]);
    if lines.is_empty() {
        return Ok(());
    }
    let opened = fs::OpenOptions::new().create(true).append(true).open(&file);
    opened.and_then(|mut file| file.write_all(lines.as_bytes())).context(&file, "append to")
}

/// Takes artifacts out of `info/exclude`.
pub fn unexclude(common_dir: &Path, artifacts: &BTreeSet<RepoPath>) -> Result<()> {
    let file = common_dir.join("info/exclude");
    let Some(text) = fsio::read_bounded(&file, MAX_BYTES)? else { return Ok(()) };
    let ours: BTreeSet<String> = artifacts.iter().map(|path| pattern(path.as_str())).collect();
    let is_ours = |line: &&[u8]| std::str::from_utf8(trim_end(line)).is_ok_and(|line| ours.contains(line));
    let kept: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').filter(|line| !is_ours(line)).collect();
    let kept = kept.concat();
    if kept.len() == text.len() {
        return Ok(());
    }
    fsio::write_atomic(&file, &kept, Durability::Off)
}

/// The patterns that no line of `text` has yet, as lines to append, in the file's own line-end style.
fn missing_lines(text: &[u8], patterns: &[String]) -> String {
    let mut out = String::new();
    let end = if text.windows(2).any(|pair| pair == b"\r\n") { "\r\n" } else { "\n" };
    if !text.is_empty() && !text.ends_with(b"\n") {
        out.push_str(end);
    }
    let before = out.len();
    for pattern in patterns {
        if !text.split(|&b| b == b'\n').any(|line| trim_end(line) == pattern.as_bytes()) {
            out.push_str(pattern);
            out.push_str(end);
        }
    }
    if out.len() == before { String::new() } else { out }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_exactly_one_name() {
        assert_eq!(pattern("weights.bin"), "/weights.bin");
        assert_eq!(pattern("a*b?[c]\\d"), "/a\\*b\\?\\[c]\\\\d");
        assert_eq!(pattern("#!x "), "/#!x\\ ");
    }

    #[test]
    fn lines_are_added_once_in_the_style_of_the_file() {
        let wanted = ["/a".to_owned(), "/b".to_owned()];
        assert_eq!(missing_lines(b"", &wanted), "/a\n/b\n");
        assert_eq!(missing_lines(b"/a\n", &wanted), "/b\n");
        assert_eq!(missing_lines(b"x\r\n/a\r\ny", &wanted), "\r\n/b\r\n");
        assert_eq!(missing_lines(b"/b\n/a", &wanted), "");
    }
}
