//! What differs between two sets of pointers: two commits, a commit and the worktree, or the index's commit and the worktree.

use std::collections::BTreeMap;

use super::{Ctx, Selection};
use crate::error::Result;
use crate::fsio::Kind;
use crate::id::Digest;
use crate::pointer::Pointer;
use crate::repo_path::RepoPath;

/// One artifact that differs.
#[derive(Debug)]
pub struct Item {
    /// The artifact.
    pub path: RepoPath,
    /// Its pointer on the old side.
    pub old: Option<Pointer>,
    /// Its pointer on the new side.
    pub new: Option<Pointer>,
    /// For two directories whose lists of files are here, what differs inside.
    pub files: Option<Vec<FileChange>>,
}

/// One file that differs inside a directory artifact.
#[derive(Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its path below the artifact.
    pub path: String,
    /// Its size on the old side.
    pub old: Option<u64>,
    /// Its size on the new side.
    pub new: Option<u64>,
}

/// Compares the pointers of `old` (HEAD if not given) with those of `new` (the worktree if not given).
pub fn diff(ctx: &Ctx, old: Option<&str>, new: Option<&str>, selection: &Selection) -> Result<Vec<Item>> {
    let old = match old {
        Some(revision) => ctx.commit_artifacts(&ctx.git.require_commit(revision)?, selection)?,
        // A repository without a commit has nothing on the old side.
        None => match ctx.git.commit("HEAD")? {
            Some(head) => ctx.commit_artifacts(&head, selection)?,
            None => Vec::new(),
        },
    };
    let new: Vec<(RepoPath, Pointer)> = match new {
        Some(revision) => ctx.commit_artifacts(&ctx.git.require_commit(revision)?, selection)?,
        None => ctx
            .artifacts(selection)?
            .into_iter()
            .map(|artifact| Ok((artifact.path, artifact.pointer?)))
            .collect::<Result<_>>()?,
    };
    let mut sides: BTreeMap<RepoPath, (Option<Pointer>, Option<Pointer>)> = BTreeMap::new();
    for (path, pointer) in old {
        sides.entry(path).or_default().0 = Some(pointer);
    }
    for (path, pointer) in new {
        sides.entry(path).or_default().1 = Some(pointer);
    }
    let differing = sides.into_iter().filter(|(_, (old, new))| old != new);
    Ok(differing.map(|(path, (old, new))| Item { files: inside(ctx, old, new), path, old, new }).collect())
}

/// What differs inside, where both are directories whose lists of files are here.
fn inside(ctx: &Ctx, old: Option<Pointer>, new: Option<Pointer>) -> Option<Vec<FileChange>> {
    let files = |pointer: Pointer| -> Option<BTreeMap<String, (Digest, Kind, u64)>> {
        let entries = super::fetch::listing(ctx, &pointer, &mut Vec::new()).ok()?;
        let files = entries.into_iter().filter(|entry| entry.kind != Kind::Tree);
        Some(files.map(|entry| (entry.path, (entry.digest, entry.kind, entry.size))).collect())
    };
    let (old, new) = (old.filter(Pointer::is_tree)?, new.filter(Pointer::is_tree)?);
    let (old, new) = (files(old)?, files(new)?);
    let mut changes = Vec::new();
    for (path, entry) in &old {
        if new.get(path) != Some(entry) {
            changes.push(FileChange {
                path: path.clone(),
                old: Some(entry.2),
                new: new.get(path).map(|entry| entry.2),
            });
        }
    }
    for (path, entry) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        changes.push(FileChange { path: path.clone(), old: None, new: Some(entry.2) });
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Some(changes)
}
