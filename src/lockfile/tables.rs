//! Locks that are data with a package per table: `Cargo.lock`, `uv.lock`, `poetry.lock`, `Pipfile.lock`, `package-lock.json`.
//!
//! The keys are those that the tools write: Cargo's lock versions 1 to 4, uv's version 1, Poetry's 1.x and 2.x, Pipfile
//! spec 6, npm's lockfile versions 2 and 3.

use serde_json::Value;

use super::requirements::normalised;
use super::{ANY, Packages};
use crate::error::{Error, Result};

/// Where a package comes from.
enum Origin<'a> {
    /// The project's own checkout.
    Checkout,
    /// This commit of a git repository.
    Commit(&'a str),
    /// An index or archive, where the version says it all.
    Published,
}

impl<'a> Origin<'a> {
    /// The origin that a git URL with the commit as its fragment tells.
    fn from_git_url(url: &'a str) -> Self {
        url.rsplit_once('#').map_or(Origin::Published, |(_, commit)| Origin::Commit(commit))
    }
}

/// `Cargo.lock`.
pub(super) fn cargo(lock: &Value, found: &mut Packages) -> Result<()> {
    add_tables(lock, found, str::to_owned, |package| match text_of(package, "source") {
        None => Origin::Checkout,
        Some(source) if source.starts_with("git+") => Origin::from_git_url(source),
        Some(_) => Origin::Published,
    })
}

/// `uv.lock`.
pub(super) fn uv(lock: &Value, found: &mut Packages) -> Result<()> {
    add_tables(lock, found, normalised, |package| {
        let source = &package["source"];
        if ["virtual", "editable", "directory"].iter().any(|kind| source.get(kind).is_some()) {
            return Origin::Checkout;
        }
        text_of(source, "git").map_or(Origin::Published, Origin::from_git_url)
    })
}

/// `poetry.lock`.
pub(super) fn poetry(lock: &Value, found: &mut Packages) -> Result<()> {
    add_tables(lock, found, normalised, |package| {
        let source = &package["source"];
        match text_of(source, "type") {
            Some("directory") => Origin::Checkout,
            Some("git") => text_of(source, "resolved_reference").map_or(Origin::Published, Origin::Commit),
            _ => Origin::Published,
        }
    })
}

fn add_tables<'a>(
    lock: &'a Value,
    found: &mut Packages,
    name: impl Fn(&str) -> String,
    origin: impl Fn(&'a Value) -> Origin<'a>,
) -> Result<()> {
    let tables = lock["package"].as_array().ok_or_else(|| Error::new("has no list `package`"))?;
    for table in tables {
        let written =
            text_of(table, "name").ok_or_else(|| Error::new("a package has no `name` that is text"))?;
        add(found, name(written), text_of(table, "version"), &origin(table))?;
    }
    Ok(())
}

/// `Pipfile.lock`: each key but `_meta` is a group of packages.
pub(super) fn pipfile(lock: &Value, found: &mut Packages) -> Result<()> {
    let groups = lock.as_object().filter(|groups| groups.contains_key("_meta"));
    let groups = groups.ok_or_else(|| Error::new("has no mapping `_meta`"))?;
    let packages =
        groups.iter().filter(|(group, _)| *group != "_meta").filter_map(|(_, all)| all.as_object());
    for (name, package) in packages.flatten() {
        let version = text_of(package, "version").map(|version| version.trim_start_matches('='));
        let origin = if package.get("path").is_some() {
            Origin::Checkout
        } else if package.get("git").is_some() {
            text_of(package, "ref").map_or(Origin::Published, Origin::Commit)
        } else {
            Origin::Published
        };
        add(found, normalised(name), version.or_else(|| text_of(package, "file")), &origin)?;
    }
    Ok(())
}

/// `package-lock.json`: packages by the directory they are installed in.
pub(super) fn npm(lock: &Value, found: &mut Packages) -> Result<()> {
    let packages = lock["packages"].as_object().ok_or_else(|| {
        Error::new("has no mapping `packages`, which npm writes since version 7")
            .hint("run npm install --package-lock-only with a newer npm")
    })?;
    for (directory, package) in packages {
        // What lies elsewhere is part of the project; a link only points there.
        let Some((_, name)) = directory.rsplit_once("node_modules/") else { continue };
        let origin = match text_of(package, "resolved") {
            _ if package["link"] == true => Origin::Checkout,
            Some(url) if url.starts_with("git+") => Origin::from_git_url(url),
            _ => Origin::Published,
        };
        // A package installed under another name states its own.
        let name = text_of(package, "name").unwrap_or(name);
        add(found, name.to_owned(), text_of(package, "version"), &origin)?;
    }
    Ok(())
}

fn add(found: &mut Packages, name: String, version: Option<&str>, origin: &Origin<'_>) -> Result<()> {
    let version = version.unwrap_or(ANY);
    match origin {
        Origin::Checkout => Ok(()),
        Origin::Commit(commit) => found.add(name, format!("{version} (git {commit})")),
        Origin::Published => found.add(name, version),
    }
}

fn text_of<'a>(table: &'a Value, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}
