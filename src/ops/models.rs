//! Which models a repository declares.

use std::path::Path;

use super::{Ctx, info};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::lineage::{self, Lineage};
use crate::model_yaml::{self, Model};
use crate::repo_path::RepoPath;

/// Where a declaration is read.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The worktree, as the next commit would have it.
    Worktree,
    /// A commit.
    Commit(&'a Oid),
}

impl Ctx {
    /// The model of this name; without a name, the only one that there is.
    pub fn model(&self, name: Option<&str>, place: Place<'_>) -> Result<Model> {
        let (mut models, failed) = self.models(place)?;
        match name {
            Some(name) => {
                if let Some(at) = models.iter().position(|model| model.name.as_str() == name) {
                    return unique(models.swap_remove(at), &models);
                }
                Err(failed.into_iter().next().unwrap_or_else(|| no_such(name, &models)))
            }
            None if models.len() == 1 && failed.is_empty() => Ok(models.remove(0)),
            None if models.is_empty() => Err(failed.into_iter().next().unwrap_or_else(|| {
                Error::usage(format!("no {} declares a model here", model_yaml::FILE_NAME))
                    .hint("git model new NAME drafts one")
            })),
            None => Err(Error::usage("there are several models here; name one").hint(names(&models))),
        }
    }

    /// All models, in path order, and the declarations that cannot be read. Copies that `get` wrote into the worktree are none.
    pub fn models(&self, place: Place<'_>) -> Result<(Vec<Model>, Vec<Error>)> {
        let paths = match place {
            Place::Commit(commit) => self.git.find_in_commit(commit, model_yaml::FILE_NAME)?,
            Place::Worktree => {
                let top = self.git.top()?;
                let found = self.git.find_by_name(model_yaml::FILE_NAME)?;
                found.into_iter().filter(|path| !is_written_out(top, path)).collect()
            }
        };
        let (mut models, mut failed) = (Vec::new(), Vec::new());
        for path in paths {
            match self.model_at(&path, place) {
                Ok(Some(model)) => models.push(model),
                Ok(None) => {}
                Err(error) => failed.push(error),
            }
        }
        Ok((models, failed))
    }

    /// The declaration at `path`, if there is one.
    pub fn model_at(&self, path: &RepoPath, place: Place<'_>) -> Result<Option<Model>> {
        let bytes = self.file_at(path, model_yaml::MAX_BYTES, place)?;
        let model = bytes.map(|bytes| Model::parse(&bytes, path)).transpose();
        model.map_err(|error| match error.hints() {
            [] => error.hint("docs/formats/model-yaml.md lists what a declaration may say"),
            _ => error,
        })
    }

    /// What is recorded about a model, if anything is.
    pub fn lineage(&self, model: &Model, place: Place<'_>) -> Result<Option<Lineage>> {
        let path = lineage_path(model)?;
        let bytes = self.file_at(&path, lineage::MAX_BYTES, place)?;
        bytes.map(|bytes| Lineage::parse(&bytes, path.as_str())).transpose()
    }

    /// A small committed file.
    pub(super) fn file_at(&self, path: &RepoPath, max: u64, place: Place<'_>) -> Result<Option<Vec<u8>>> {
        match place {
            Place::Worktree => self.root()?.read_small(path, max),
            Place::Commit(commit) => self.git.blob_at(commit, path.as_str(), max),
        }
    }
}

/// Whether `git model get` wrote this file: a folder above it, though not the top, says so.
fn is_written_out(top: &Path, path: &RepoPath) -> bool {
    std::iter::successors(path.parent(), RepoPath::parent).any(|dir| {
        let inside = path.as_str()[dir.as_str().len()..].trim_start_matches('/');
        // Whatever else has this name says nothing.
        let written = info::of_directory(&top.join(dir.as_path())).ok().flatten();
        written.is_some_and(|info| info.files.iter().any(|file| file.path.as_str() == inside))
    })
}

/// Where a model's record is.
pub fn lineage_path(model: &Model) -> Result<RepoPath> {
    model.path.sibling(lineage::FILE_NAME)
}

/// Two models of one name would share tags, also where letter case does not count.
fn unique(model: Model, others: &[Model]) -> Result<Model> {
    match others.iter().find(|other| other.name.folded() == model.name.folded()) {
        None => Ok(model),
        Some(other) => Err(Error::new(format!(
            "{}: its name `{}` is also that of {}",
            model.path, model.name, other.path
        ))
        .hint("give each model its own name, also ignoring letter case")),
    }
}

fn no_such(name: &str, models: &[Model]) -> Error {
    let error = Error::usage(format!("{}: no model of this name is declared here", human::escape(name)));
    match models.is_empty() {
        true => error.hint("git model new NAME drafts a declaration"),
        false => error.hint(names(models)),
    }
}

fn names(models: &[Model]) -> String {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    format!("declared here: {}", names.join(", "))
}
