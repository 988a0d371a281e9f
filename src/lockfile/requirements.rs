//! `requirements.txt`, as pip's reference "Requirements File Format" and PEP 508 describe it.

use super::{ANY, Packages};
use crate::error::Result;

/// Adds what the file asks for. Options are passed over, so files that it includes (`-r`, `-c`) are not read.
pub(super) fn read(text: &str, found: &mut Packages) -> Result<()> {
    let mut joined = String::new();
    for line in text.lines() {
        let continued = line.strip_suffix('\\').filter(|line| !line.trim_start().starts_with('#'));
        joined.push_str(continued.unwrap_or(line));
        if continued.is_none() {
            add(&joined, found)?;
            joined.clear();
        }
    }
    add(&joined, found)
}

/// Adds one requirement: a line without continuation.
pub(super) fn add(line: &str, found: &mut Packages) -> Result<()> {
    let line = without_comment(line).trim();
    let line =
        line.strip_prefix("-e ").or_else(|| line.strip_prefix("--editable ")).unwrap_or(line).trim_start();
    if line.is_empty() || line.starts_with('-') {
        return Ok(());
    }
    // Options of one requirement, such as hashes, come last.
    let line = line.split(" --").next().unwrap_or(line).trim_end();
    let (name, version) = split(line);
    if is_local(version.as_deref().unwrap_or(name)) {
        return Ok(());
    }
    let name = if version.is_some() { normalised(name) } else { name.to_owned() };
    found.add(name, version.unwrap_or_else(|| ANY.to_owned()))
}

/// Name and version of a requirement. One that is only a URL is its own name, unless its fragment has one.
fn split(requirement: &str) -> (&str, Option<String>) {
    let end = requirement.find(|c: char| !is_name(c)).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(end);
    let rest = rest.trim_start();
    let rest =
        rest.strip_prefix('[').and_then(|extras| extras.split_once(']')).map_or(rest, |(_, rest)| rest);
    if let Some(url) = rest.trim_start().strip_prefix('@') {
        // In a URL a semicolon may stand for itself, so the marker needs a space.
        return (name, Some(url.split(" ;").next().unwrap_or(url).trim().to_owned()));
    }
    if requirement.contains("://") || is_local(requirement) {
        let egg = requirement.split_once("#egg=").map(|(_, egg)| egg.split(['&', '[']).next().unwrap_or(egg));
        return egg.map_or((requirement, None), |egg| (egg, Some(requirement.to_owned())));
    }
    let limits = rest.split(';').next().unwrap_or(rest);
    let limits: String = limits.chars().filter(|c| !c.is_whitespace() && !"()".contains(*c)).collect();
    (name, Some(version_of(&limits)))
}

/// The version of an exact pin; anything else as it is.
fn version_of(limits: &str) -> String {
    let pin = limits.strip_prefix("===").or_else(|| limits.strip_prefix("=="));
    match pin.filter(|version| !version.contains(['*', ','])) {
        Some(version) => version.to_owned(),
        None if limits.is_empty() => ANY.to_owned(),
        None => limits.to_owned(),
    }
}

/// Whether a requirement is a path, which git versions if it is in the checkout.
fn is_local(requirement: &str) -> bool {
    requirement.starts_with(['.', '/']) || requirement.starts_with("file:")
}

/// The text before a comment, which starts the line or follows a blank.
pub(super) fn without_comment(line: &str) -> &str {
    let is_comment = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let start = line.match_indices('#').map(|(at, _)| at).find(|&at| is_comment(at));
    &line[..start.unwrap_or(line.len())]
}

/// Whether a package name may have this character.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A name as PEP 503 compares names: lowercase, each run of `-`, `_` and `.` a single hyphen.
pub(super) fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            _ => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}
