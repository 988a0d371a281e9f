//! Making an artifact's new content beside its place, and planning the steps that swap it in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Ctx;
use super::fetch::{Limit, ensure, listing};
use super::observe::{Seen, below, flat};
use super::pushed::Pushed;
use super::sync::Want;
use crate::error::{Context, Error, Result};
use crate::fsio::{self, FileStat, Kind};
use crate::human;
use crate::id::Digest;
use crate::pointer::{Content, Pointer};
use crate::progress::Step as ProgressStep;
use crate::repo_path::RepoPath;
use crate::tree::{self, FlatEntry};
use crate::worktree::place::Expected;
use crate::worktree::swap::{Before, Step};
use crate::worktree::{LinkMode, RecordEntry, Root, Staging};

/// Files that were staged, by artifact and path in it, with what they are known to be.
pub(super) type Placed = HashMap<(RepoPath, String), (Digest, FileStat)>;

/// What is ready to be swapped in.
#[derive(Default)]
pub(super) struct Staged {
    /// The steps, in order.
    pub(super) steps: Vec<Step>,
    /// The new files.
    pub(super) placed: Placed,
    /// The old files that the steps replace or remove, by their paths in the repository.
    dropped: Vec<(RepoPath, RecordEntry)>,
}

impl Staged {
    /// Plans the removal of these files, then of these directories, deepest first.
    fn remove(&mut self, path: &RepoPath, entries: &[RecordEntry]) -> Result<()> {
        for entry in entries.iter().filter(|entry| entry.stat.kind != Kind::Tree) {
            let dest = below(path, &entry.path)?;
            self.dropped.push((dest.clone(), entry.clone()));
            self.steps.push(Step::Remove { dest, before: Before::file(&entry.stat) });
        }
        for entry in entries.iter().rev().filter(|entry| entry.stat.kind == Kind::Tree) {
            self.steps.push(Step::RemoveDir { dest: below(path, &entry.path)? });
        }
        Ok(())
    }

    /// Plans the removal of a whole artifact.
    pub(super) fn remove_all(&mut self, path: &RepoPath, seen: &Seen) -> Result<()> {
        self.remove(path, &seen.entries)?;
        if seen.pointer.is_tree() {
            self.steps.push(Step::RemoveDir { dest: path.clone() });
        }
        Ok(())
    }

    fn place(&mut self, staged: PathBuf, dest: RepoPath, replaces: Option<&RecordEntry>) {
        self.dropped.extend(replaces.map(|entry| (dest.clone(), entry.clone())));
        self.steps.push(Step::Place {
            staged,
            dest,
            before: replaces.map(|entry| Before::file(&entry.stat)),
        });
    }
}

/// Stages one artifact.
pub(super) struct Stager<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) root: &'a Root,
    pub(super) staging: &'a Staging,
    pub(super) progress: &'a dyn ProgressStep,
    pub(super) want: &'a Want,
    pub(super) remote: Option<&'a str>,
}

impl Stager<'_> {
    /// Stages everything that the artifact needs.
    pub(super) fn stage(&self, out: &mut Staged) -> Result<()> {
        let path = &self.want.path;
        match (self.want.pointer.content, &self.want.seen) {
            (Content::Tree { .. }, Some(seen)) if seen.pointer.is_tree() => self.change_tree(seen, out)?,
            (Content::Tree { .. }, seen) => {
                let staged = self.new_tree(out)?;
                out.remove(path, seen.as_ref().map_or(&[], |seen| &seen.entries))?;
                out.place(staged, path.clone(), None);
            }
            (Content::File { executable }, seen) => {
                let kind = if executable { Kind::Executable } else { Kind::File };
                let (digest, size) = (self.want.pointer.digest, self.want.pointer.size);
                let entry = FlatEntry { path: String::new(), kind, digest, size };
                let staged = self.staging.path_for(self.root, path)?;
                self.fill_all(&[(&entry, staged.clone())], out)?;
                match seen {
                    Some(seen) if seen.pointer.is_tree() => {
                        out.remove_all(path, seen)?;
                        out.place(staged, path.clone(), None);
                    }
                    seen => out.place(staged, path.clone(), seen.as_ref().map(|seen| &seen.entries[0])),
                }
            }
        }
        Ok(())
    }

    fn listing(&self) -> Result<Vec<FlatEntry>> {
        listing(self.ctx, &self.want.pointer, &mut Vec::new())
    }

    /// A whole new directory, to be renamed to its place in one step.
    fn new_tree(&self, out: &mut Staged) -> Result<PathBuf> {
        let staged = self.staging.path_for(self.root, &self.want.path)?;
        let make = |dir: &Path| std::fs::create_dir(dir).context(dir, "create the directory");
        make(&staged)?;
        let listing = self.listing()?;
        for dir in listing.iter().filter(|entry| entry.kind == Kind::Tree) {
            make(&staged.join(&dir.path))?;
        }
        let files: Vec<(&FlatEntry, PathBuf)> = listing
            .iter()
            .filter(|entry| entry.kind != Kind::Tree)
            .map(|entry| (entry, staged.join(&entry.path)))
            .collect();
        self.fill_all(&files, out)?;
        Ok(staged)
    }

    /// Only what differs: conflicting kinds go first, then directories and files come, then the rest goes.
    fn change_tree(&self, seen: &Seen, out: &mut Staged) -> Result<()> {
        let path = &self.want.path;
        let listing = self.listing()?;
        let old: BTreeMap<&str, &RecordEntry> =
            seen.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let is_dir: BTreeMap<&str, bool> =
            listing.iter().map(|entry| (entry.path.as_str(), entry.kind == Kind::Tree)).collect();
        let (mut conflicts, mut gone) = (Vec::new(), Vec::new());
        for (relative, entry) in &old {
            match is_dir.get(relative) {
                Some(&is_dir) if is_dir == (entry.stat.kind == Kind::Tree) => {}
                Some(_) => conflicts.push((*entry).clone()),
                // Below a directory that becomes a file, things must go before the file can come.
                None if ancestors(relative).any(|dir| is_dir.get(dir) == Some(&false)) => {
                    conflicts.push((*entry).clone());
                }
                None => gone.push((*entry).clone()),
            }
        }
        out.remove(path, &conflicts)?;
        let mut changed = Vec::new();
        for entry in &listing {
            let dest = below(path, &entry.path)?;
            let before = old.get(entry.path.as_str()).copied();
            match (entry.kind, before) {
                (Kind::Tree, Some(before)) if before.stat.kind == Kind::Tree => {}
                (Kind::Tree, _) => out.steps.push(Step::MakeDir { dest }),
                (_, Some(before)) if before.digest == entry.digest && before.stat.kind == entry.kind => {}
                (_, before) => {
                    let staged = self.staging.path_for(self.root, &dest)?;
                    changed.push((
                        entry,
                        staged,
                        dest,
                        before.filter(|before| before.stat.kind != Kind::Tree),
                    ));
                }
            }
        }
        let files: Vec<(&FlatEntry, PathBuf)> =
            changed.iter().map(|(entry, staged, ..)| (*entry, staged.clone())).collect();
        self.fill_all(&files, out)?;
        for (_, staged, dest, before) in changed {
            out.place(staged, dest, before);
        }
        out.remove(path, &gone)
    }

    /// Fills staged files from the cache, on all cores, checking every byte.
    fn fill_all(&self, files: &[(&FlatEntry, PathBuf)], out: &mut Staged) -> Result<()> {
        self.require_space(files)?;
        // The parts that threads may share; the repository handle is not one.
        let (cache, staging, mode) = (&self.ctx.cache, self.staging, self.ctx.link_mode());
        let (progress, interrupt) = (self.progress, &self.ctx.interrupt);
        let fill = |entry: &FlatEntry, staged: &Path| -> Result<bool> {
            interrupt.check()?;
            let object = cache.object_path(&entry.digest);
            let expected = Expected { kind: entry.kind, digest: entry.digest, size: entry.size };
            let on_bytes = |bytes| {
                progress.advance(bytes);
                interrupt.check_io()
            };
            let filled = match entry.kind {
                Kind::Link => {
                    staging.place_link(&object, &expected, &entry.path, staged).map(|link| link.is_some())
                }
                _ => {
                    let was_checked = || cache.was_checked(&entry.digest);
                    let placed = staging.place(&object, &expected, staged, mode, &was_checked, &on_bytes);
                    placed.map(|placed| placed.is_some())
                }
            };
            filled.map_err(|error| error.about(self.want.shown(&entry.path)))
        };
        let done: Vec<bool> =
            files.par_iter().map(|(entry, staged)| fill(entry, staged)).collect::<Result<_>>()?;
        let mut fetched = HashSet::new();
        for ((entry, staged), _) in files.iter().zip(&done).filter(|(_, good)| !**good) {
            // The cached bytes were wrong. They go into quarantine, and the store is asked for the right ones; once, for many
            // files may have this content.
            if fetched.insert(entry.digest) {
                cache.quarantine(&entry.digest)?;
                self.fetch_again(entry)?;
            }
            if !fill(entry, staged)? {
                return Err(self.damaged(entry));
            }
        }
        for (entry, staged) in files {
            let metadata = std::fs::symlink_metadata(staged).context(staged, "read")?;
            let key = (self.want.path.clone(), entry.path.clone());
            out.placed.insert(key, (entry.digest, FileStat::from_metadata(&metadata)));
        }
        Ok(())
    }

    /// Room for what is about to be staged, unless it will share its blocks with the cache.
    fn require_space(&self, files: &[(&FlatEntry, PathBuf)]) -> Result<()> {
        let bytes = files.iter().map(|(entry, _)| entry.size).fold(0, u64::saturating_add);
        let dir = files.first().and_then(|(_, staged)| staged.parent());
        let (Some(dir), true) = (dir, bytes > fsio::free_space(self.root.path())?) else { return Ok(()) };
        let shares = self.ctx.link_mode() != LinkMode::Copy
            && self.staging.shares_blocks_with(&self.ctx.cache.root().join("tmp"));
        if shares { Ok(()) } else { fsio::require_space(dir, bytes, "the content that is to be placed") }
    }

    fn fetch_again(&self, entry: &FlatEntry) -> Result<()> {
        let content = Content::File { executable: false };
        let pointer = Pointer { content, digest: entry.digest, size: entry.size };
        let path = below(&self.want.path, &entry.path)?;
        ensure(self.ctx, &[(path, pointer)], self.remote, None, Limit::None)
            .map(drop)
            .map_err(|error| self.damaged(entry).caused_by(error))
    }

    fn damaged(&self, entry: &FlatEntry) -> Error {
        let path = self.want.shown(&entry.path);
        Error::refused(format!("{path}: the cached content was damaged (now in quarantine)"))
            .hint("get it from a remote that has it: git model fetch --remote NAME")
    }
}

fn ancestors(relative: &str) -> impl Iterator<Item = &str> {
    relative.match_indices('/').map(|(at, _)| &relative[..at])
}

/// Makes sure that what the steps replace or remove is in the cache with every byte right. What is not goes into it now.
/// Of what is known to be in the default remote as well, the cached object's size is enough. That it was sent once is not: a
/// store can be emptied, and it is not asked.
///
/// `old` is all content that was there before, whole.
pub(super) fn keep_dropped<'s>(
    ctx: &Ctx,
    root: &Root,
    staged: &Staged,
    old: impl Iterator<Item = &'s Seen>,
) -> Result<()> {
    let pushed = super::remotes::find(ctx, None, None)
        .ok()
        .map(|found| Pushed::load(ctx.git.common_dir(), &found))
        .transpose()?;
    let (cache, interrupt) = (&ctx.cache, &ctx.interrupt);
    let twice = |digest: &Digest, size: Option<u64>| {
        let cached = cache.size_of(digest);
        cached.is_some()
            && size.is_none_or(|size| cached == Some(size))
            && pushed.as_ref().is_some_and(|pushed| pushed.has(digest))
    };
    let batch = cache.batch()?;
    let at_risk: Vec<&(RepoPath, RecordEntry)> =
        staged.dropped.iter().filter(|(_, entry)| !twice(&entry.digest, Some(entry.stat.size))).collect();
    at_risk.par_iter().try_for_each(|(path, entry)| {
        if cache.verify(&entry.digest, &|_| interrupt.check_io())? == Some(true) {
            return Ok(());
        }
        let kept = match entry.stat.kind {
            Kind::Link => batch.add_bytes(&root.read_link(path)?)?.digest,
            _ => {
                let gone = || Error::new(format!("{}: it vanished", human::escape(path.as_str())));
                let file = root.open_file(path)?.ok_or_else(gone)?;
                batch.add_file(&file, entry.stat.size, &|_| interrupt.check_io())?.digest
            }
        };
        if kept == entry.digest {
            return Ok(());
        }
        Err(Error::new(format!("{}: it was changed meanwhile", human::escape(path.as_str())))
            .hint("git model status shows how it stands"))
    })?;
    for seen in old.filter(|seen| seen.pointer.is_tree() && !twice(&seen.pointer.digest, None)) {
        let entries: Vec<FlatEntry> = seen.entries.iter().map(flat).collect();
        for (digest, bytes) in tree::build(&entries)?.objects {
            if cache.read_small(&digest, tree::MAX_OBJECT)?.is_none() {
                batch.add_bytes(&bytes)?;
            }
        }
    }
    batch.commit().map(drop)
}
