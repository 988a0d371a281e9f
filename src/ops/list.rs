//! Listing artifacts, of the worktree or of a commit.

use super::{Ctx, Selection};
use crate::error::Result;
use crate::fsio::Kind;
use crate::pointer::Pointer;
use crate::repo_path::RepoPath;
use crate::tree::FlatEntry;

/// An artifact and, if asked for, its files.
#[derive(Debug)]
pub struct Item {
    /// The artifact.
    pub path: RepoPath,
    /// What its pointer says.
    pub pointer: Pointer,
    /// The files of a directory, when they were asked for and are known here.
    pub files: Option<Vec<FlatEntry>>,
}

/// Lists the artifacts of a revision, or of the worktree.
pub fn list(ctx: &Ctx, revision: Option<&str>, selection: &Selection, with_files: bool) -> Result<Vec<Item>> {
    let revision = revision.or_else(|| ctx.git.is_bare().then_some("HEAD"));
    let artifacts: Vec<(RepoPath, Pointer)> = match revision {
        Some(revision) => ctx.commit_artifacts(&ctx.git.require_commit(revision)?, selection)?,
        None => ctx
            .require_artifacts(selection)?
            .into_iter()
            .map(|artifact| Ok((artifact.path, artifact.pointer?)))
            .collect::<Result<_>>()?,
    };
    let item = |(path, pointer): (RepoPath, Pointer)| {
        let mut files = None;
        if with_files && pointer.is_tree() {
            let mut entries = super::fetch::listing(ctx, &pointer, &mut Vec::new())?;
            entries.retain(|entry| entry.kind != Kind::Tree);
            files = Some(entries);
        }
        Ok(Item { path, pointer, files })
    };
    artifacts.into_iter().map(item).collect()
}
