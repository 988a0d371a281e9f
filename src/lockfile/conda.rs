//! Conda's `environment.yml`, `pixi.lock` and `conda-lock.yml`.
//!
//! They are read by line: their values often start with `*` or `!`, which [`crate::yaml`] refuses, and few keys matter. The
//! tools write the locks in one form; a list in the short form `[a, b]` is not read.

use super::requirements::{self, is_name, normalised, without_comment};
use super::{ANY, Packages};
use crate::error::{Error, Result};
use crate::human;

/// One line of such a file, without comment.
struct Line<'a> {
    indent: usize,
    content: &'a str,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().map(|line| without_comment(line).trim_end()).filter(|line| !line.is_empty()).map(|line| {
        let content = line.trim_start_matches(' ');
        Line { indent: line.len() - content.len(), content }
    })
}

/// The lines below a top-level key.
fn section<'a>(text: &'a str, key: &str) -> Result<impl Iterator<Item = Line<'a>>> {
    let has_list = |line: &Line<'_>| line.indent == 0 && line.content.strip_suffix(':') == Some(key);
    let mut lines = lines(text);
    if !lines.by_ref().any(|line| has_list(&line)) {
        return Err(Error::new(format!("has no list `{key}` with one item a line")));
    }
    Ok(lines.take_while(|line| line.indent > 0 || line.content.starts_with('-')))
}

/// The text of a list item.
fn item<'a>(line: &Line<'a>) -> Option<&'a str> {
    line.content.strip_prefix("- ").map(str::trim_start)
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// `environment.yml`: the packages of conda, and those of pip in a list below.
pub(super) fn environment(text: &str, found: &mut Packages) -> Result<()> {
    let mut pip = None;
    for line in section(text, "dependencies")? {
        let not_a_package = || Error::new(format!("not a package: {}", human::escape(line.content)));
        let spec = unquoted(item(&line).ok_or_else(not_a_package)?);
        pip = pip.filter(|&indent| line.indent > indent);
        if spec == "pip:" {
            pip = Some(line.indent);
        } else if pip.is_some() {
            requirements::add(spec, found)?;
        } else {
            let (name, version) = split_spec(spec).ok_or_else(not_a_package)?;
            found.add(name, version)?;
        }
    }
    Ok(())
}

/// Name and version of a conda match specification: `channel::name=version=build`, `name >=1,<2`.
fn split_spec(spec: &str) -> Option<(&str, String)> {
    let spec = spec.rsplit_once("::").map_or(spec, |(_, spec)| spec);
    let (name, limits) = spec.split_at(spec.find(|c| !is_name(c)).unwrap_or(spec.len()));
    let limits = limits.split_whitespace().collect::<Vec<_>>();
    // Version and build may be separated by a blank; those inside a list of limits mean nothing.
    let limits = limits.join(if limits.concat().contains(['<', '>', ',', '|', '!']) { "" } else { "=" });
    let version = if limits.contains(',') { &limits } else { limits.trim_start_matches('=') };
    let is_spec = !name.is_empty() && !limits.starts_with([':', '{']);
    is_spec.then(|| (name, if version.is_empty() { ANY.to_owned() } else { version.to_owned() }))
}

/// The keys of a locked package that matter.
#[derive(Default)]
struct Locked<'a> {
    name: Option<&'a str>,
    version: Option<&'a str>,
    location: Option<&'a str>,
    is_python: bool,
}

/// `conda-lock.yml`, version 1: a record per package and platform.
pub(super) fn conda_lock(text: &str, found: &mut Packages) -> Result<()> {
    add_records(text, "package", found)
}

/// `pixi.lock`, versions 4 to 6.
pub(super) fn pixi(text: &str, found: &mut Packages) -> Result<()> {
    add_records(text, "packages", found)
}

fn add_records(text: &str, key: &str, found: &mut Packages) -> Result<()> {
    let (mut locked, mut list) = (Locked::default(), None);
    for line in section(text, key)? {
        let (indent, content) = match item(&line) {
            // Deeper items belong to lists inside a record.
            Some(content) if *list.get_or_insert(line.indent) == line.indent => {
                std::mem::take(&mut locked).add_to(found)?;
                (line.indent + line.content.len() - content.len(), content)
            }
            _ => (line.indent, line.content),
        };
        if list.is_some_and(|list| indent == list + 2) {
            locked.take(content);
        }
    }
    locked.add_to(found)
}

impl<'a> Locked<'a> {
    /// Takes a line of the record itself.
    fn take(&mut self, line: &'a str) {
        let Some((key, value)) = line.split_once(": ") else { return };
        let value = unquoted(value);
        match key {
            "name" => self.name = Some(value),
            "version" => self.version = Some(value),
            "url" | "path" | "conda" | "pypi" => self.location = Some(value),
            "manager" | "kind" => self.is_python = matches!(value, "pip" | "pypi"),
            _ => {}
        }
        self.is_python |= key == "pypi";
    }

    /// Adds the package, unless the record is empty or names a path.
    fn add_to(self, found: &mut Packages) -> Result<()> {
        let is_path = |location: &str| !location.contains("://");
        if self.location.is_none_or(is_path) {
            return Ok(());
        }
        let named = self.location.and_then(name_and_version);
        let name = self.name.or(named.map(|(name, _)| name));
        let version = self.version.or(named.map(|(_, version)| version)).unwrap_or(ANY);
        let name = name.ok_or_else(|| Error::new("a package has no `name`"))?;
        found.add(if self.is_python { normalised(name) } else { name.to_owned() }, version)
    }
}

/// What the file name of a conda package says: `name-version-build.conda`.
fn name_and_version(url: &str) -> Option<(&str, &str)> {
    let file = url.rsplit('/').next()?;
    let stem = file.strip_suffix(".conda").or_else(|| file.strip_suffix(".tar.bz2"))?;
    let (stem, _build) = stem.rsplit_once('-')?;
    stem.rsplit_once('-')
}
