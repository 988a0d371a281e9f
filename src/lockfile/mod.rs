//! The packages that a dependency lock pins: what the environment of a training run was made of.
//!
//! The project's own packages (installed from its checkout) are left out, since git versions them. Of a package from a git
//! repository the commit is part of the version.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::human;
use crate::values;

mod conda;
mod requirements;
mod tables;

/// The file names that [`packages`] knows; complete locks first, as a draft of `model.yaml` prefers them.
pub const NAMES: &[&str] = &[
    "uv.lock",
    "poetry.lock",
    "pixi.lock",
    "conda-lock.yml",
    "Pipfile.lock",
    "requirements.txt",
    "environment.yml",
    "environment.yaml",
    "Cargo.lock",
    "package-lock.json",
];

/// More packages are refused.
const MAX_PACKAGES: usize = 100_000;
/// The version of a package that may have any.
const ANY: &str = "*";

/// The packages of a lock by name, with their versions; several versions of one package are joined with `, `.
///
/// `None` if the last part of `file_name`, which may be a path and is used in messages, is not one of [`NAMES`]. Names
/// from the Python index are normalised as PEP 503 says, others are as the lock writes them. Where a file only limits the
/// versions (`requirements.txt`, `environment.yml`), the limit stands for the version, and `*` for none. Names and versions
/// are untrusted text.
///
/// Fails for a file larger than [`values::MAX_BYTES`], for one that is not what its name says, and for more than 100,000
/// packages.
pub fn packages(bytes: &[u8], file_name: &str) -> Result<Option<BTreeMap<String, String>>> {
    let name = file_name.rsplit('/').next().unwrap_or(file_name);
    let toml = || values::toml(bytes, file_name);
    let json = || values::json(bytes, file_name);
    let text = || values::text(bytes, file_name);
    let mut found = Packages::default();
    let read = match name {
        "uv.lock" => tables::uv(&toml()?, &mut found),
        "poetry.lock" => tables::poetry(&toml()?, &mut found),
        "Cargo.lock" => tables::cargo(&toml()?, &mut found),
        "Pipfile.lock" => tables::pipfile(&json()?, &mut found),
        "package-lock.json" => tables::npm(&json()?, &mut found),
        "requirements.txt" => requirements::read(text()?, &mut found),
        "environment.yml" | "environment.yaml" => conda::environment(text()?, &mut found),
        "pixi.lock" => conda::pixi(text()?, &mut found),
        "conda-lock.yml" => conda::conda_lock(text()?, &mut found),
        _ => return Ok(None),
    };
    read.map_err(|error| error.about(human::escape(file_name)))?;
    Ok(Some(found.joined()))
}

/// Whether [`packages`] knows files of this name, which may be a path.
pub fn is_known(file_name: &str) -> bool {
    NAMES.contains(&file_name.rsplit('/').next().unwrap_or(file_name))
}

/// The type of the packages of a lock in package URLs; `None` where they come from several places.
pub fn purl_type(file_name: &str) -> Option<&'static str> {
    match file_name.rsplit('/').next().unwrap_or(file_name) {
        "uv.lock" | "poetry.lock" | "Pipfile.lock" | "requirements.txt" => Some("pypi"),
        "Cargo.lock" => Some("cargo"),
        "package-lock.json" => Some("npm"),
        _ => None,
    }
}

/// The packages found so far.
#[derive(Default)]
struct Packages {
    versions: BTreeMap<String, BTreeSet<String>>,
    count: usize,
}

impl Packages {
    fn add(&mut self, name: impl Into<String>, version: impl Into<String>) -> Result<()> {
        if self.versions.entry(name.into()).or_default().insert(version.into()) {
            self.count += 1;
        }
        if self.count > MAX_PACKAGES {
            return Err(Error::new(format!("more than {MAX_PACKAGES} packages")));
        }
        Ok(())
    }

    fn joined(self) -> BTreeMap<String, String> {
        let join = |versions: BTreeSet<String>| versions.into_iter().collect::<Vec<_>>().join(", ");
        self.versions.into_iter().map(|(name, versions)| (name, join(versions))).collect()
    }
}

#[cfg(test)]
mod tests;
