//! Reading every byte again: of the cached objects, and of the files in the worktree.

use rayon::prelude::*;

use super::fetch::closure;
use super::observe::{OnDisk, Reading};
use super::{Ctx, Selection};
use crate::error::Result;
use crate::id::Digest;
use crate::repo_path::RepoPath;
use crate::tree;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The artifact.
    pub path: RepoPath,
    /// What is wrong.
    pub what: String,
}

/// What verifying found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Artifacts that were checked.
    pub artifacts: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
    /// Artifacts that have no content here, neither cached nor in the worktree; not damage.
    pub absent: Vec<RepoPath>,
    /// Artifacts whose content in the worktree the user changed; not damage.
    pub modified: Vec<RepoPath>,
}

/// Checks the selected artifacts: every cached byte, then every byte in the worktree, whatever stats say.
///
/// Damaged objects are moved into quarantine, so that the next sync or fetch brings them again.
pub fn verify(ctx: &Ctx, selection: &Selection) -> Result<Report> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    let mut report = Report::default();
    for artifact in ctx.require_artifacts(selection)? {
        let path = artifact.path;
        report.artifacts += 1;
        let mut damage = |what: String| report.damage.push(Damage { path: path.clone(), what });
        let pointer = match artifact.pointer {
            Ok(pointer) => pointer,
            Err(error) => {
                damage(error.one_line());
                continue;
            }
        };
        let mut cached = false;
        if let Ok(closure) = closure(ctx, &pointer) {
            let mut objects: Vec<(Digest, u64)> =
                closure.files.iter().map(|file| (file.digest, file.size)).collect();
            objects.extend(closure.trees.iter().map(|tree| (tree.digest, tree.size)));
            objects.sort_unstable();
            objects.dedup();
            let step = ctx.progress.step(
                "verifying",
                objects.len() as u64,
                objects.iter().map(|(_, size)| *size).fold(0, u64::saturating_add),
            );
            let (cache, interrupt) = (&ctx.cache, &ctx.interrupt);
            let checked: Vec<(Digest, u64, Option<bool>)> = objects
                .par_iter()
                .map(|(digest, size)| {
                    let on_bytes = |bytes| {
                        step.advance(bytes);
                        interrupt.check_io()
                    };
                    interrupt.check()?;
                    let good = cache.verify(digest, &on_bytes)?;
                    step.finish_one();
                    Ok((*digest, *size, good))
                })
                .collect::<Result<_>>()?;
            for (digest, size, good) in checked {
                match good {
                    Some(true) => {
                        cached = true;
                        report.objects += 1;
                        report.bytes += size;
                    }
                    Some(false) => {
                        let place = ctx.cache.quarantine(&digest)?;
                        damage(format!(
                            "cached object {} is damaged; moved to {}",
                            digest.short(),
                            place.display()
                        ));
                    }
                    None => {}
                }
            }
        } else if ctx.cache.read_small(&pointer.digest, tree::MAX_OBJECT)?.is_some() {
            damage("its list of files does not fit its pointer, or is incomplete in the cache".to_owned());
        }
        let step = ctx.progress.step("reading", 1, pointer.size);
        // Without a record nothing is taken for granted: every file is read.
        let observer = ctx.observer(&root, &records, step.as_ref())?;
        match observer.look(&path, None, Reading::Hash) {
            Ok(OnDisk::Known(seen)) if seen.pointer != pointer => {
                // When sizes and times say that nobody wrote to it, the bytes changed by themselves.
                match observer.recall(&path, Reading::Compare(&pointer))?.1? {
                    OnDisk::Known(claimed) if claimed.pointer == pointer => {
                        damage("the file in the worktree changed without being written to".to_owned());
                    }
                    _ => report.modified.push(path.clone()),
                }
            }
            Ok(OnDisk::Absent) if !cached => report.absent.push(path.clone()),
            Ok(_) => {}
            Err(error) => damage(error.one_line()),
        }
    }
    Ok(report)
}
