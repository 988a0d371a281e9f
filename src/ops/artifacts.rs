//! Which artifacts there are, and what their pointers say.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::{Ctx, Selection};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::pointer::{self, Pointer};
use crate::repo_config;
use crate::repo_path::RepoPath;
use crate::worktree::Root;

/// From this many pointers on, they are read on all cores.
const THREADS_FROM: usize = 500;

/// An artifact of this worktree, by its pointer in the index or beside it on disk.
#[derive(Debug)]
pub struct Artifact {
    /// Where its content belongs.
    pub path: RepoPath,
    /// What its pointer says; an explanation where it cannot be read.
    pub pointer: Result<Pointer>,
    /// Whether the next commit would hold exactly this pointer.
    pub staged: bool,
}

impl Ctx {
    /// All artifacts that are selected, in path order.
    ///
    /// A pointer that was edited or written but not staged counts as it is on disk, as git's own files do. Pointers
    /// that a sparse checkout leaves out are not there.
    pub fn artifacts(&self, selection: &Selection) -> Result<Vec<Artifact>> {
        let root = self.root()?;
        let mut blobs: BTreeMap<RepoPath, Option<Oid>> = BTreeMap::new();
        let mut unmerged = BTreeSet::new();
        for entry in self.git.index_pointers()? {
            let Some(path) = entry.path.artifact() else { continue };
            if entry.skipped || !selection.contains(&path) {
                continue;
            }
            if entry.unmerged {
                unmerged.insert(path.clone());
            }
            blobs.insert(path, (!entry.unmerged).then_some(entry.blob));
        }
        for (path, _) in self.records()?.list()? {
            if selection.contains(&path) && root.stat(&path.pointer())?.is_some() {
                blobs.entry(path).or_insert(None);
            }
        }
        let paths: Vec<&RepoPath> = blobs.keys().collect();
        // Starting threads takes longer than reading a few hundred pointers.
        let on_disk: Vec<Result<Option<Pointer>>> = match paths.len() {
            0..THREADS_FROM => paths.iter().map(|path| read_pointer(&root, path)).collect(),
            _ => paths.par_iter().map(|path| read_pointer(&root, path)).collect(),
        };
        let mut artifacts = Vec::with_capacity(blobs.len());
        for ((path, blob), on_disk) in blobs.into_iter().zip(on_disk) {
            let in_index = blob.as_ref().map(|blob| self.blob_pointer(blob, &path)).transpose();
            let (pointer, staged) = match (on_disk, in_index) {
                _ if unmerged.contains(&path) => (Err(pointer::conflict_at(&path.pointer())), false),
                (Err(error), _) | (Ok(None), Err(error)) => (Err(error), false),
                (Ok(Some(disk)), Ok(index)) => (Ok(disk), index == Some(disk)),
                (Ok(Some(disk)), Err(_)) => (Ok(disk), false),
                // The pointer was deleted, and that is not staged yet: the artifact is on its way out.
                (Ok(None), Ok(_)) => continue,
            };
            artifacts.push(Artifact { path, pointer, staged });
        }
        Ok(artifacts)
    }

    /// As [`Ctx::artifacts`]; a typed path that matches none is an error.
    pub fn require_artifacts(&self, selection: &Selection) -> Result<Vec<Artifact>> {
        let artifacts = self.artifacts(selection)?;
        let paths: Vec<RepoPath> = artifacts.iter().map(|artifact| artifact.path.clone()).collect();
        match selection.unmatched(&paths) {
            Some(path) => {
                Err(Error::usage(format!("{}: no artifact is tracked here", human::escape(path.as_str())))
                    .hint("git model ls lists the artifacts; git model add PATH tracks one"))
            }
            None => Ok(artifacts),
        }
    }

    /// The pointer in a git blob.
    pub fn blob_pointer(&self, blob: &Oid, artifact: &RepoPath) -> Result<Pointer> {
        check_path(artifact)?;
        Pointer::parse(&self.git.blob(blob, pointer::MAX_BYTES)?, artifact.pointer().as_str())
    }

    /// All artifacts of a commit with their pointers, in path order.
    pub fn commit_artifacts(&self, commit: &Oid, selection: &Selection) -> Result<Vec<(RepoPath, Pointer)>> {
        let mut found = Vec::new();
        for entry in self.git.commit_pointers(commit)? {
            if let Some(path) = entry.path.artifact().filter(|path| selection.contains(path)) {
                let pointer = self.blob_pointer(&entry.blob, &path)?;
                found.push((path, pointer));
            }
        }
        Ok(found)
    }
}

/// Refuses paths whose files configure git or git-model: content that comes from a store must not.
pub(super) fn check_path(path: &RepoPath) -> Result<()> {
    match path.name() {
        repo_config::FILE_NAME | ".gitignore" | ".gitattributes" | ".gitmodules" => {
            Err(Error::usage(format!(
                "{}: this file configures git or git-model and belongs in git",
                human::escape(path.as_str())
            )))
        }
        _ => Ok(()),
    }
}

/// The pointer beside an artifact's path on disk, if there is one.
pub(super) fn read_pointer(root: &Root, artifact: &RepoPath) -> Result<Option<Pointer>> {
    check_path(artifact)?;
    let path = artifact.pointer();
    // Conflict markers make a pointer longer, and deserve their own explanation.
    match root.read_small(&path, 4 * pointer::MAX_BYTES)? {
        Some(bytes) => Pointer::parse(&bytes, path.as_str()).map(Some),
        None => Ok(None),
    }
}
