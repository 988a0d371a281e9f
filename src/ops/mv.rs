//! Renaming an artifact with its pointer.

use super::Ctx;
use super::artifacts::read_pointer;
use crate::error::{Error, Result};
use crate::human;
use crate::repo_path::RepoPath;
use crate::worktree::ignore;

/// Moves an artifact, its pointer, its ignore line and its record; stages both ends.
pub fn mv(ctx: &Ctx, from: &RepoPath, to: &RepoPath) -> Result<()> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    ctx.finish_interrupted()?.require_free([from, to])?;
    let artifacts: Vec<RepoPath> =
        ctx.artifacts(&super::Selection::all())?.into_iter().map(|artifact| artifact.path).collect();
    let shown = |path: &RepoPath| human::escape(path.as_str());
    // An earlier run renamed the pointer, and was stopped before the content.
    let is_begun = !artifacts.contains(from)
        && read_pointer(&root, to).is_ok_and(|pointer| pointer.is_some())
        && records.load(from)?.is_some()
        && root.stat(from)?.is_some()
        && root.stat(to)?.is_none();
    if !artifacts.contains(from) && !is_begun {
        return Err(Error::usage(format!("{}: no artifact is tracked here", shown(from)))
            .hint("git model ls lists them"));
    }
    if let Some(outer) = artifacts.iter().find(|artifact| to != *artifact && to.is_within(artifact)) {
        return Err(Error::usage(format!("{}: inside the artifact {}", shown(to), shown(outer))));
    }
    if !is_begun && (root.stat(to)?.is_some() || root.stat(&to.pointer())?.is_some()) {
        return Err(Error::new(format!("{}: exists already", shown(to)))
            .hint("move it away first, or choose another name"));
    }
    let durability = ctx.settings.durability;
    // Ignored at its new place before it is there, so that it never shows up as an untracked file.
    ignore::add(&root, std::slice::from_ref(to), durability)?;
    // The pointer first: it is what a later run goes by.
    if !is_begun {
        root.rename(&from.pointer(), &to.pointer(), durability)?;
    }
    if root.stat(from)?.is_some() {
        root.rename(from, to, durability)?;
    }
    let mut to_stage = vec![from.pointer(), to.pointer(), ignore::file_of(to)?];
    to_stage.extend(ignore::remove(&root, from, &ctx.staging()?)?);
    if let Some(mut record) = records.load(from)? {
        record.path = to.clone();
        records.save(&record)?;
        records.remove(from)?;
    }
    root.remove_empty_parents(from, ctx.git.user_dir().as_ref())?;
    ctx.git.stage(&to_stage).map(drop)
}
