//! Ending the tracking of artifacts.

use super::observe::{OnDisk, Reading};
use super::stage::{Staged, keep_dropped};
use super::{Ctx, Selection};
use crate::error::{Error, Result};
use crate::human;
use crate::progress::Silent;
use crate::repo_path::RepoPath;
use crate::worktree::ignore;
use crate::worktree::swap::swap;

/// What is to become of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Removed, if the cache has it.
    Remove,
    /// Removed, whatever it is.
    Force,
    /// Kept where it is, no longer ignored by git.
    Keep,
}

/// Stops tracking artifacts: their pointers go, from the worktree and the index.
pub fn remove(ctx: &Ctx, selection: &Selection, content: Content) -> Result<Vec<RepoPath>> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    let interrupted = ctx.finish_interrupted()?;
    let artifacts = ctx.require_artifacts(selection)?;
    interrupted.require_free(artifacts.iter().map(|artifact| &artifact.path))?;
    let observer = ctx.observer(&root, &records, &Silent)?;
    let staging = ctx.staging()?;
    // All are checked before the first is touched.
    let mut to_remove = Vec::new();
    for artifact in artifacts {
        let path = artifact.path;
        let seen = match observer.recall(&path, Reading::Hash)?.1 {
            Ok(OnDisk::Known(seen)) => Some(seen),
            Ok(_) => None,
            Err(error) if content == Content::Remove => return Err(error),
            Err(_) => None,
        };
        if let (Content::Remove, Some(seen)) = (content, &seen)
            && !observer.all_cached(seen)
        {
            return Err(Error::new(format!("{}: its content is nowhere else", human::escape(path.as_str())))
                .hint("git model add it first, or use --force to lose it, or --keep to leave the file"));
        }
        to_remove.push((path, seen));
    }
    let mut staged = Staged::default();
    if content != Content::Keep {
        for (path, seen) in &to_remove {
            seen.iter().try_for_each(|seen| staged.remove_all(path, seen))?;
        }
    }
    if content == Content::Remove {
        // What the cache holds may be damaged, and this the only good copy.
        keep_dropped(ctx, &root, &staged, to_remove.iter().filter_map(|(_, seen)| seen.as_ref()))?;
    }
    let mut to_stage = Vec::new();
    for (path, _) in &to_remove {
        if content == Content::Keep {
            // Whatever has a record and no pointer is removed by the next sync.
            records.remove(path)?;
        }
        root.remove_file(&path.pointer())?;
        to_stage.push(path.pointer());
        to_stage.extend(ignore::remove(&root, path, &staging)?);
    }
    swap(&root, &staging, &staged.steps, &[])?.settle()?;
    for (path, _) in &to_remove {
        records.remove(path)?;
    }
    ctx.git.stage(&to_stage)?;
    Ok(to_remove.into_iter().map(|(path, _)| path).collect())
}
