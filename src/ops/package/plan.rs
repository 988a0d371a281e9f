//! What goes into a package, and where.

use std::collections::BTreeMap;

use super::super::get::Wanted;
use super::super::resolve::Resolved;
use super::Options;
use crate::error::{Error, Result};
use crate::human;
use crate::model_info::{self, InfoFile, ModelInfo};
use crate::model_yaml::Role;
use crate::oci::modelpack::Kind;
use crate::repo_path::RepoPath;

/// What a file of the bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A declared file.
    Role(Role),
    /// `model.yaml` and `lineage.yaml`.
    Record,
}

impl Part {
    /// Everything that can be chosen beside the weights.
    pub const CHOICES: [Part; 6] = [
        Part::Role(Role::Code),
        Part::Role(Role::Config),
        Part::Role(Role::Environment),
        Part::Role(Role::Schema),
        Part::Role(Role::Evaluation),
        Part::Record,
    ];

    /// As it is typed.
    pub fn key(self) -> &'static str {
        match self {
            Part::Role(role) => role.key(),
            Part::Record => "record",
        }
    }

    fn of(role: &str) -> Part {
        Role::ALL.into_iter().find(|known| known.key() == role).map_or(Part::Record, Part::Role)
    }

    /// In ModelPack's words.
    pub(super) fn kind(self) -> Kind {
        match self {
            Part::Role(Role::Weights) => Kind::Weight,
            Part::Role(Role::Config) => Kind::WeightConfig,
            Part::Role(Role::Code | Role::Environment) => Kind::Code,
            Part::Role(Role::Schema | Role::Evaluation) | Part::Record => Kind::Doc,
        }
    }
}

/// A file of a package.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The file; its `path` is the one in the package.
    pub(super) file: Wanted,
    /// What it is.
    pub(super) part: Part,
}

/// A package's files, sorted by path, and what says so in it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) info: ModelInfo,
}

pub(super) fn plan(resolved: &Resolved, options: &Options) -> Result<Plan> {
    let mut items: BTreeMap<RepoPath, Item> = BTreeMap::new();
    for file in &resolved.files {
        let part = Part::of(&file.role);
        let is_weights = part == Part::Role(Role::Weights);
        if !is_weights && options.include.as_ref().is_some_and(|parts| !parts.contains(&part)) {
            continue;
        }
        let place = place_of(&file.path, options.root.as_ref())?;
        let item = Item { file: Wanted { path: place.clone(), ..Wanted::of(file) }, part };
        match items.get(&place) {
            // One file of two roles is one file, and the first of its roles.
            Some(other) if other.file.source == file.path => {
                if part < other.part {
                    items.insert(place, item);
                }
            }
            Some(other) => return Err(in_the_way(&file.path, &other.file.source, &place)),
            None => drop(items.insert(place, item)),
        }
    }
    if items.is_empty() {
        return Err(Error::usage("the version has no files of these kinds"));
    }
    for (place, item) in &items {
        let mut above = place.parent();
        while let Some(dir) = above {
            if let Some(other) = items.get(&dir) {
                return Err(in_the_way(&item.file.source, &other.file.source, &dir));
            }
            above = dir.parent();
        }
        if place.as_str() == model_info::FILE_NAME {
            return Err(Error::refused(format!(
                "{}: a package has a file of this name of its own",
                human::escape(item.file.source.as_str())
            )));
        }
    }
    let items: Vec<Item> = items.into_values().collect();
    let info_file = |item: &Item| InfoFile {
        path: item.file.path.clone(),
        sha256: item.file.digest,
        size: item.file.size,
        executable: item.file.executable,
    };
    let info = ModelInfo { files: items.iter().map(info_file).collect(), ..resolved.info() };
    Ok(Plan { items, info })
}

fn place_of(path: &RepoPath, root: Option<&RepoPath>) -> Result<RepoPath> {
    match root.and_then(|root| path.as_str().strip_prefix(root.as_str())?.strip_prefix('/')) {
        Some(rest) => RepoPath::new(rest),
        None => Ok(path.clone()),
    }
}

fn in_the_way(one: &RepoPath, other: &RepoPath, place: &RepoPath) -> Error {
    let shown = |path: &RepoPath| human::escape(path.as_str());
    Error::refused(format!("{}: {} has its place {} already", shown(one), shown(other), shown(place)))
        .hint("choose another --root, or leave it out")
}
