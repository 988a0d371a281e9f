//! What version of a model a checkout or a deployed directory is.

use std::path::Path;

use super::declared;
use super::models::Place;
use super::status::State;
use super::{Ctx, Selection, bundle, registry, status};
use crate::error::{Error, Result};
use crate::fsio;
use crate::human;
use crate::lineage::{FileEntry, Lineage};
use crate::model_info::{self, ModelInfo};
use crate::model_yaml::{Model, Role};

/// What is checked out.
#[derive(Debug)]
pub struct Checkout {
    /// What the record says.
    pub info: ModelInfo,
    /// Where the files differ from it; empty when they do not.
    pub differences: Vec<String>,
}

/// What a directory that `git model get` wrote says it is. `None` when there is no `model-info.json`.
pub fn of_directory(dir: &Path) -> Result<Option<ModelInfo>> {
    let path = dir.join(model_info::FILE_NAME);
    let bytes = fsio::read_bounded(&path, model_info::MAX_BYTES)?;
    bytes.map(|bytes| ModelInfo::parse(&bytes, &path.to_string_lossy())).transpose()
}

/// What this checkout's version of a model is.
pub fn of_checkout(ctx: &Ctx, name: Option<&str>) -> Result<Checkout> {
    let head = ctx.git.commit("HEAD")?;
    let place = match (&head, ctx.git.is_bare()) {
        (Some(head), true) => Place::Commit(head),
        _ => Place::Worktree,
    };
    let model = ctx.model(name, place)?;
    let lineage = ctx.lineage(&model, place)?.ok_or_else(|| {
        Error::new(format!("{}: nothing is recorded yet", model.name))
            .hint(format!("git model record {}", model.name))
    })?;
    let digest = bundle::model_digest(&bundle::files(ctx, &lineage, head.as_ref())?);
    let history = registry::local_history(ctx, &model.name)?;
    // The newest release of this very model; the one of this commit first.
    let same = |release: &&crate::release::Release| {
        release.payload().is_some_and(|payload| payload.digest == digest)
    };
    let here = |release: &&crate::release::Release| {
        Some(release.tag.target.as_str()) == head.as_ref().map(|head| head.as_str())
    };
    let releases = history.releases();
    let release = releases.iter().rev().filter(same).find(here).or_else(|| releases.iter().rev().find(same));
    let info = ModelInfo {
        model: model.name.as_str().to_owned(),
        version: release.map(|release| release.version.to_string()),
        release: release.map(|release| format!("{}@v{}", model.name, release.version)),
        digest,
        commit: head.as_ref().map(|head| head.as_str().to_owned()),
        data_digest: lineage.data_digest(),
        files: Vec::new(),
    };
    let differences = match place {
        Place::Worktree => differences(ctx, &model, &lineage)?,
        Place::Commit(_) => Vec::new(),
    };
    Ok(Checkout { info, differences })
}

/// Where the worktree is not what the record says.
pub(super) fn differences(ctx: &Ctx, model: &Model, lineage: &Lineage) -> Result<Vec<String>> {
    let declared = declared::look_up(ctx, model, Place::Worktree, &Role::ALL)?;
    let mut found = Vec::new();
    for role in Role::ALL {
        let (now, recorded) = (declared.role(role), lineage.role(role));
        let by_path = |entries: &[FileEntry], path: &FileEntry| {
            entries.iter().find(|entry| entry.path == path.path).cloned()
        };
        for entry in now {
            match by_path(recorded, entry) {
                None => found.push(format!("{}: not recorded", human::escape(entry.path.as_str()))),
                Some(other) if other != *entry => {
                    found.push(format!(
                        "{}: changed since it was recorded",
                        human::escape(entry.path.as_str())
                    ));
                }
                Some(_) => {}
            }
        }
        let gone = recorded.iter().filter(|entry| by_path(now, entry).is_none());
        found.extend(gone.map(|entry| {
            format!("{}: recorded, but no longer declared", human::escape(entry.path.as_str()))
        }));
    }
    for data in &lineage.data {
        if let Some(now) = declared.data.get(&data.name)
            && format!("sha256:{}", now.sha256) != data.digest
        {
            found.push(format!("data `{}`: changed since it was recorded", human::escape(&data.name)));
        }
    }
    found.extend(
        declared
            .left_out
            .iter()
            .map(|path| format!("{}: not in git, so not recorded", human::escape(path.as_str()))),
    );
    let paths = declared.artifacts.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    if !paths.is_empty() {
        for item in status::status(ctx, &Selection::of(paths))?.items {
            let what = match item.state {
                State::Clean => continue,
                State::Missing => "its content is not here",
                State::Modified => "changed since it was added",
                _ => "not in step with its pointer",
            };
            found.push(format!("{}: {what}", human::escape(item.path.as_str())));
        }
    }
    Ok(found)
}
