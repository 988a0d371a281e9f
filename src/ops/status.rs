//! How the worktree's artifacts stand, without reading what need not be read.

use rayon::prelude::*;
use serde::Serialize;

use super::artifacts::Artifact;
use super::observe::{Observer, OnDisk, Reading};
use super::pushed::Pushed;
use super::{Ctx, Selection};
use crate::error::Result;
use crate::pointer::{self, Pointer};
use crate::progress::Silent;
use crate::repo_path::RepoPath;
use crate::worktree::swap;

/// How an artifact's content compares with its pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They agree.
    Clean,
    /// The content was changed here, so the pointer is stale: `git model add` updates it.
    Modified,
    /// There is no content: `git model sync` brings it.
    Missing,
    /// The pointer changed and the content is still an older version's: `git model sync` brings the new one.
    Outdated,
    /// A merge left both sides in the pointer.
    Conflict,
    /// The pointer or the content cannot be read.
    Unreadable,
}

/// How one artifact stands.
#[derive(Debug)]
pub struct Item {
    /// The artifact.
    pub path: RepoPath,
    /// What its pointer says.
    pub pointer: Option<Pointer>,
    /// How its content compares.
    pub state: State,
    /// Whether the next commit would hold this pointer.
    pub staged: bool,
    /// Whether the default remote is known to hold it; `None` without a remote.
    pub pushed: Option<bool>,
    /// Why it cannot be read, or how to settle its conflict.
    pub problem: Option<crate::error::Error>,
}

/// How the worktree stands.
#[derive(Debug)]
pub struct Report {
    /// All selected artifacts, in path order.
    pub items: Vec<Item>,
    /// Name of the default remote.
    pub remote: Option<String>,
    /// Whether a sync was interrupted and is to be finished by the next one.
    pub sync_interrupted: bool,
    /// Whether hooks postponed a sync.
    pub sync_pending: bool,
}

impl Report {
    /// Whether everything agrees and is staged; what is not pushed does not count.
    pub fn is_clean(&self) -> bool {
        !self.sync_interrupted && self.items.iter().all(|item| item.state == State::Clean && item.staged)
    }
}

/// Looks at all selected artifacts.
pub fn status(ctx: &Ctx, selection: &Selection) -> Result<Report> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    let artifacts = ctx.require_artifacts(selection)?;
    let (remote, pushed) = match super::remotes::default_name(ctx)? {
        Some(name) => {
            let pushed = super::remotes::find(ctx, Some(&name), None)
                .ok()
                .map(|found| Pushed::load(ctx.git.common_dir(), &found))
                .transpose()?;
            (Some(name), pushed)
        }
        None => (None, None),
    };
    let observer = ctx.observer(&root, &records, &Silent)?;
    let items = artifacts
        .into_par_iter()
        .map(|artifact| {
            let (state, problem) = state_of(&observer, &artifact);
            let (pointer, unreadable) = match artifact.pointer {
                Ok(pointer) => (Some(pointer), None),
                Err(error) => (None, Some(error)),
            };
            Item {
                pushed: pushed.as_ref().map(|pushed| pointer.is_some_and(|p| pushed.has(&p.digest))),
                path: artifact.path,
                pointer,
                state,
                staged: artifact.staged,
                problem: unreadable.or(problem),
            }
        })
        .collect();
    let model_dir = ctx.git.git_dir().join("model");
    Ok(Report {
        items,
        remote,
        sync_interrupted: !swap::journals(&model_dir).is_empty(),
        sync_pending: model_dir.join(super::hook::PENDING).exists(),
    })
}

/// The selected artifacts whose content is here and not what their pointers say, in path order.
pub(super) fn changed(ctx: &Ctx, selection: &Selection) -> Result<Vec<RepoPath>> {
    let (root, records) = (ctx.root()?, ctx.records()?);
    let observer = ctx.observer(&root, &records, &Silent)?;
    let artifacts = ctx.artifacts(selection)?.into_par_iter();
    let differs =
        |artifact: &Artifact| !matches!(state_of(&observer, artifact).0, State::Clean | State::Missing);
    Ok(artifacts.filter(differs).map(|artifact| artifact.path).collect())
}

fn state_of(observer: &Observer<'_>, artifact: &Artifact) -> (State, Option<crate::error::Error>) {
    let pointer = match &artifact.pointer {
        Ok(pointer) => pointer,
        Err(error) if pointer::is_conflict(error) => return (State::Conflict, None),
        Err(_) => return (State::Unreadable, None),
    };
    match compare(observer, &artifact.path, pointer) {
        Ok(state) => (state, None),
        Err(error) => (State::Unreadable, Some(error)),
    }
}

fn compare(observer: &Observer<'_>, path: &RepoPath, pointer: &Pointer) -> Result<State> {
    let records = observer.records;
    let (record, found) = observer.recall(path, Reading::Compare(pointer))?;
    let seen = match found? {
        OnDisk::Absent => return Ok(State::Missing),
        OnDisk::Different => return Ok(State::Modified),
        OnDisk::Known(seen) => seen,
    };
    let base = record.as_ref().map(|record| record.base);
    if !seen.proved {
        // What was read need not be read again. The base stays: only add and sync move it. A lost record is made anew
        // when the content is what the pointer says.
        match base {
            Some(known) => records.save_over(base, &seen.record(path, known))?,
            None if seen.pointer == *pointer => {
                records.save_over(None, &seen.record(path, pointer.digest))?;
            }
            None => {}
        }
    }
    Ok(if seen.pointer == *pointer {
        State::Clean
    } else if Some(seen.pointer.digest) == base && pointer.digest != seen.pointer.digest {
        State::Outdated
    } else {
        State::Modified
    })
}
