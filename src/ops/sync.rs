//! Bringing the worktree in step with its pointers: look, fetch, stage, swap, record; in this order.
//!
//! Nothing in the worktree changes before all content is here, checked, and complete beside its place. What the user
//! changed is never replaced, unless forced, and then only after it went into the cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::artifacts::Artifact;
use super::fetch::{Limit, ensure, listing};
use super::observe::{Observer, OnDisk, Reading, Seen, below};
use super::{Ctx, Selection, kept};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Clock, FileStat, Kind};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::pointer::{Content, Pointer};
use crate::progress::Step as ProgressStep;
use crate::repo_path::RepoPath;
use crate::tree::FlatEntry;
use crate::worktree::place::Expected;
use crate::worktree::swap::{Before, Outcome, Step, swap};
use crate::worktree::{Record, RecordEntry, Records, Root, Staging, scan};

/// What to bring in step.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which artifacts.
    pub selection: Selection,
    /// Replace what the user changed; it goes into the cache first.
    pub force: bool,
    /// A remote other than the default.
    pub remote: Option<String>,
    /// The most to fetch; `None` for whatever is needed.
    pub fetch_limit: Option<u64>,
    /// Where to look for remotes if the current branch has none.
    pub commit: Option<Oid>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Artifacts that now have their pointer's content.
    pub synced: Vec<(RepoPath, Pointer)>,
    /// Artifacts of a branch that was left, removed because the cache has them.
    pub removed: Vec<RepoPath>,
    /// Artifacts that the user changed; left alone.
    pub modified: Vec<RepoPath>,
    /// Artifacts without a pointer that were kept, and are now listed in `info/exclude`.
    pub kept: Vec<RepoPath>,
    /// Artifacts that could not be looked at, and why.
    pub problems: Vec<Error>,
    /// Artifacts whose content the user had changed and that went into the cache before they were replaced.
    pub saved: Vec<(RepoPath, Digest)>,
    /// What was fetched.
    pub fetched: super::fetch::Report,
    /// Whether an interrupted sync was finished first.
    pub resumed: bool,
}

impl Report {
    /// Whether every selected artifact is in step now.
    pub fn is_complete(&self) -> bool {
        self.modified.is_empty() && self.problems.is_empty()
    }
}

/// An artifact that is to get other content.
struct Want {
    path: RepoPath,
    pointer: Pointer,
    seen: Option<Seen>,
}

/// A file that was staged, for the record.
type Placed = HashMap<(RepoPath, String), (Digest, FileStat)>;

/// Brings the selected artifacts in step. A selected path that is no artifact is an error.
pub fn sync(ctx: &Ctx, options: &Options) -> Result<Report> {
    let resumed = ctx.finish_interrupted()?;
    let artifacts = ctx.require_artifacts(&options.selection)?;
    Ok(Report { resumed, ..sync_artifacts(ctx, options, artifacts)? })
}

/// As [`sync`], for paths that may have lost their pointer.
pub(super) fn sync_existing(ctx: &Ctx, options: &Options) -> Result<Report> {
    let resumed = ctx.finish_interrupted()?;
    let artifacts = ctx.artifacts(&options.selection)?;
    Ok(Report { resumed, ..sync_artifacts(ctx, options, artifacts)? })
}

fn sync_artifacts(ctx: &Ctx, options: &Options, artifacts: Vec<Artifact>) -> Result<Report> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    let mut report = Report::default();
    let step = ctx.progress.step("checking", artifacts.len() as u64, 0);
    let observer = ctx.observer(&root, &records, step.as_ref())?;
    let tracked: BTreeSet<RepoPath> = artifacts.iter().map(|artifact| artifact.path.clone()).collect();
    let (wants, good) = decide(&observer, artifacts, &mut report)?;
    let left = left_behind(ctx, &observer, &tracked, options, &mut report)?;
    drop(observer);
    drop(step);
    if options.dry_run {
        report.synced = wants
            .iter()
            .filter(|want| !want_is_modified(want, &report))
            .map(|want| (want.path.clone(), want.pointer))
            .collect();
        report.removed = left.into_iter().map(|(path, _)| path).collect();
        return Ok(report);
    }
    let wants = settle_modified(ctx, &root, &records, wants, options, &mut report)?;
    let needed: Vec<(RepoPath, Pointer)> =
        wants.iter().map(|want| (want.path.clone(), want.pointer)).collect();
    let limit = options.fetch_limit.map_or(Limit::None, Limit::Bytes);
    report.fetched = ensure(ctx, &needed, options.remote.as_deref(), options.commit.as_ref(), limit)?;
    replace(ctx, &root, &records, &wants, &left, options, &mut report)?;
    kept::release(ctx, &tracked)?;
    for record in good {
        records.save(&record)?;
    }
    report.synced = needed;
    Ok(report)
}

fn want_is_modified(want: &Want, report: &Report) -> bool {
    report.modified.contains(&want.path)
}

/// Finds out which artifacts need other content; and which records are worth saving because something was read.
fn decide(
    observer: &Observer<'_>,
    artifacts: Vec<Artifact>,
    report: &mut Report,
) -> Result<(Vec<Want>, Vec<Record>)> {
    enum Verdict {
        Good(Option<Record>),
        Wanted(Want),
        Modified(Want),
        Problem(Error),
    }
    let verdicts: Vec<Verdict> = artifacts
        .into_par_iter()
        .map(|artifact| {
            let path = artifact.path;
            let pointer = match artifact.pointer {
                Ok(pointer) => pointer,
                Err(error) => return Ok(Verdict::Problem(error)),
            };
            let record = observer.records.load(&path)?;
            let base = record.as_ref().map(|record| record.base);
            Ok(match observer.look(&path, record.as_ref(), Reading::Compare(&pointer)) {
                Err(error) => Verdict::Problem(error),
                Ok(OnDisk::Absent) => Verdict::Wanted(Want { path, pointer, seen: None }),
                Ok(OnDisk::Different) => Verdict::Modified(Want { path, pointer, seen: None }),
                Ok(OnDisk::Known(seen)) if seen.pointer == pointer => {
                    let moved = base != Some(pointer.digest) || !seen.proved;
                    Verdict::Good(moved.then(|| seen.record(&path, pointer.digest)))
                }
                Ok(OnDisk::Known(seen)) if Some(seen.pointer.digest) == base => {
                    Verdict::Wanted(Want { path, pointer, seen: Some(seen) })
                }
                Ok(OnDisk::Known(seen)) => Verdict::Modified(Want { path, pointer, seen: Some(seen) }),
            })
        })
        .collect::<Result<_>>()?;
    let (mut wants, mut good) = (Vec::new(), Vec::new());
    for verdict in verdicts {
        match verdict {
            Verdict::Good(record) => good.extend(record),
            Verdict::Wanted(want) => wants.push(want),
            Verdict::Modified(want) => {
                report.modified.push(want.path.clone());
                wants.push(want);
            }
            Verdict::Problem(error) => report.problems.push(error),
        }
    }
    Ok((wants, good))
}

/// Artifacts that have a record but no pointer any more. Those that are unmodified and safe in the cache are to be removed;
/// the others stay, out of git's sight.
fn left_behind(
    ctx: &Ctx,
    observer: &Observer<'_>,
    tracked: &BTreeSet<RepoPath>,
    options: &Options,
    report: &mut Report,
) -> Result<Vec<(RepoPath, Seen)>> {
    let mut left = Vec::new();
    for (path, base) in observer.records.list()? {
        if tracked.contains(&path) || !options.selection.contains(&path) || observer.pointer_exists(&path)? {
            continue;
        }
        if !ctx.git.tracked_below(&path)?.is_empty() {
            // Here git itself keeps this path, as it did before somebody made it an artifact.
            observer.records.remove(&path)?;
            continue;
        }
        let Some(record) = observer.records.load(&path)? else { continue };
        let safe = match observer.look(&path, Some(&record), Reading::Compare(&pointer_of(&record))) {
            Ok(OnDisk::Absent) => {
                observer.records.remove(&path)?;
                continue;
            }
            Ok(OnDisk::Known(seen)) => {
                if !seen.proved {
                    observer.records.save(&seen.record(&path, base))?;
                }
                (seen.pointer.digest == base && observer.all_cached(&seen)).then_some(seen)
            }
            _ => None,
        };
        let inside_other = tracked.iter().any(|other| path.is_within(other));
        match safe {
            Some(seen) if !inside_other => left.push((path, seen)),
            _ => report.kept.push(path),
        }
    }
    Ok(left)
}

/// What a pointer to the last added or synced content said, as far as comparing needs it.
fn pointer_of(record: &Record) -> Pointer {
    let content = match record.is_tree {
        true => Content::Tree { files: record.files },
        false => Content::File { executable: false },
    };
    Pointer { content, digest: record.base, size: record.size }
}

/// Without force, takes modified artifacts out of the plan. With force, puts their content into the cache first.
fn settle_modified(
    ctx: &Ctx,
    root: &Root,
    records: &Records,
    mut wants: Vec<Want>,
    options: &Options,
    report: &mut Report,
) -> Result<Vec<Want>> {
    if !options.force {
        wants.retain(|want| !report.modified.contains(&want.path));
        return Ok(wants);
    }
    let batch = ctx.cache.batch()?;
    let step = ctx.progress.step("saving", report.modified.len() as u64, 0);
    let observer = ctx.observer(root, records, step.as_ref())?;
    for want in wants.iter_mut().filter(|want| report.modified.contains(&want.path)) {
        match observer.look(&want.path, records.load(&want.path)?.as_ref(), Reading::Keep(&batch))? {
            OnDisk::Known(seen) => {
                report.saved.push((want.path.clone(), seen.pointer.digest));
                want.seen = Some(seen);
            }
            _ => want.seen = None,
        }
    }
    batch.commit()?;
    report.modified.clear();
    Ok(wants)
}

/// Stages all new content, swaps it in, removes what was left behind, and records the outcome.
fn replace(
    ctx: &Ctx,
    root: &Root,
    records: &Records,
    wants: &[Want],
    left: &[(RepoPath, Seen)],
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    // Those that were told of before are not told of again.
    for path in std::mem::take(&mut report.kept) {
        if kept::hide(ctx, &path)? {
            report.kept.push(path);
        }
    }
    if wants.is_empty() && left.is_empty() {
        return Ok(());
    }
    require_space(ctx, root, wants)?;
    let staging = ctx.staging()?;
    let bytes = wants.iter().map(|want| want.pointer.size).sum();
    let progress = ctx.progress.step("placing", wants.len() as u64, bytes);
    let mut placed = Placed::new();
    let mut steps = Vec::new();
    for want in wants {
        ctx.interrupt.check()?;
        let stager = Stager {
            ctx,
            root,
            staging: &staging,
            progress: progress.as_ref(),
            want,
            remote: options.remote.as_deref(),
        };
        stager.stage(&mut steps, &mut placed)?;
        progress.finish_one();
    }
    drop(progress);
    for (path, seen) in left {
        steps.extend(removal(path, &seen.entries, seen.pointer.is_tree())?);
    }
    let model_dir = ctx.model_dir()?;
    let outcomes = wants.iter().map(outcome).collect();
    let swapped = swap(root, &model_dir, &steps, outcomes, ctx.settings.durability)?;
    let clock = if wants.is_empty() { Clock::EPOCH } else { Clock::read_after_step(&model_dir)? };
    for want in wants {
        if let Some(record) = record_of(root, want, &placed, clock)? {
            records.save(&record)?;
        }
    }
    for (path, _) in left {
        if root.stat(path)?.is_none() {
            records.remove(path)?;
            root.remove_empty_parents(path)?;
            report.removed.push(path.clone());
        }
    }
    report.problems.extend(swapped.changed_meanwhile.iter().map(|path| {
        Error::new(format!(
            "{}: it was changed during the sync and was left alone",
            human::escape(path.as_str())
        ))
        .hint("git model status shows how it stands")
    }));
    Ok(())
}

fn outcome(want: &Want) -> Outcome {
    Outcome {
        path: want.path.as_str().to_owned(),
        digest: want.pointer.digest.to_hex(),
        is_tree: want.pointer.is_tree(),
        size: want.pointer.size,
        files: want.pointer.files(),
    }
}

/// Room for a second copy of everything; where blocks can be shared much less is used, but nobody can know beforehand.
fn require_space(ctx: &Ctx, root: &Root, wants: &[Want]) -> Result<()> {
    let bytes: u64 = wants
        .iter()
        .map(|want| match &want.seen {
            // Only the files that differ are written; their sum is at most this.
            Some(seen) if seen.pointer.is_tree() && want.pointer.is_tree() => {
                want.pointer.size.saturating_sub(seen.pointer.size)
            }
            _ => want.pointer.size,
        })
        .sum();
    if probably_shares_blocks(ctx, root) {
        return Ok(());
    }
    fsio::require_space(root.path(), bytes, "the content that is to be placed")
}

fn probably_shares_blocks(ctx: &Ctx, root: &Root) -> bool {
    if ctx.link_mode() == crate::worktree::LinkMode::Copy {
        return false;
    }
    // Tried for real: a file system's name does not tell.
    let probe = || -> std::io::Result<bool> {
        let cached = tempfile::Builder::new().tempfile_in(ctx.cache.root().join("tmp"))?;
        std::io::Write::write_all(&mut cached.as_file(), &[0; 8192])?;
        cached.as_file().sync_data()?;
        let beside = tempfile::Builder::new().prefix(".git-model-").tempfile_in(root.path())?;
        Ok(fsio::reflink(cached.as_file(), beside.as_file()) == fsio::Reflink::Shared)
    };
    probe().unwrap_or(false)
}

/// Makes one artifact's new content beside its place.
struct Stager<'a> {
    ctx: &'a Ctx,
    root: &'a Root,
    staging: &'a Staging,
    progress: &'a dyn ProgressStep,
    want: &'a Want,
    remote: Option<&'a str>,
}

impl Stager<'_> {
    fn stage(&self, steps: &mut Vec<Step>, placed: &mut Placed) -> Result<()> {
        let path = &self.want.path;
        match (self.want.pointer.content, &self.want.seen) {
            (Content::File { executable }, seen) => {
                let kind = if executable { Kind::Executable } else { Kind::File };
                let entry = FlatEntry {
                    path: String::new(),
                    kind,
                    digest: self.want.pointer.digest,
                    size: self.want.pointer.size,
                };
                let staged = self.staging.path_for(&self.root.full(path))?;
                self.place_all(&[(&entry, staged.clone())], placed)?;
                let before = match seen {
                    Some(seen) if seen.pointer.is_tree() => {
                        steps.extend(removal(path, &seen.entries, true)?);
                        None
                    }
                    Some(seen) => Some(Before::file(&seen.entries[0].stat)),
                    None => None,
                };
                steps.push(Step::Place { staged, dest: path.clone(), before });
            }
            (Content::Tree { .. }, Some(seen)) if seen.pointer.is_tree() => {
                self.change_tree(seen, steps, placed)?;
            }
            (Content::Tree { .. }, seen) => {
                let staged = self.new_tree(placed)?;
                if let Some(seen) = seen {
                    steps.extend(removal(path, &seen.entries, false)?);
                }
                steps.push(Step::Place { staged, dest: path.clone(), before: None });
            }
        }
        Ok(())
    }

    fn listing(&self) -> Result<Vec<FlatEntry>> {
        listing(self.ctx, &self.want.pointer, &mut Vec::new())
            .map_err(|error| error.about(human::escape(self.want.path.as_str())))
    }

    /// A whole new directory, to be renamed to its place in one step.
    fn new_tree(&self, placed: &mut Placed) -> Result<PathBuf> {
        let staged = self.staging.path_for(&self.root.full(&self.want.path))?;
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
        self.place_all(&files, placed)?;
        Ok(staged)
    }

    /// Only what differs: conflicting kinds go first, then directories and files come, then the rest goes.
    fn change_tree(&self, seen: &Seen, steps: &mut Vec<Step>, placed: &mut Placed) -> Result<()> {
        let path = &self.want.path;
        let listing = self.listing()?;
        let old: BTreeMap<&str, &RecordEntry> =
            seen.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let new: BTreeMap<&str, &FlatEntry> =
            listing.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let is_dir_now = |path: &str| new.get(path).map(|entry| entry.kind == Kind::Tree);
        let (mut conflicts, mut gone) = (Vec::new(), Vec::new());
        for (relative, entry) in &old {
            match is_dir_now(relative) {
                Some(is_dir) if is_dir == (entry.stat.kind == Kind::Tree) => {}
                Some(_) => conflicts.push((*entry).clone()),
                // Below a directory that becomes a file, things must go before the file can come.
                None if ancestors(relative).any(|dir| is_dir_now(dir) == Some(false)) => {
                    conflicts.push((*entry).clone());
                }
                None => gone.push((*entry).clone()),
            }
        }
        steps.extend(removal_below(path, &conflicts)?);
        let mut to_place = Vec::new();
        for entry in &listing {
            let dest = below(path, &entry.path)?;
            let before = old.get(entry.path.as_str());
            match (entry.kind, before) {
                (Kind::Tree, Some(before)) if before.stat.kind == Kind::Tree => {}
                (Kind::Tree, _) => steps.push(Step::MakeDir { dest }),
                (_, Some(before)) if before.digest == entry.digest && before.stat.kind == entry.kind => {}
                (_, before) => {
                    let staged = self.staging.path_for(&self.root.full(&dest))?;
                    let before = before.filter(|before| before.stat.kind != Kind::Tree);
                    to_place.push((entry, staged, dest, before.map(|before| Before::file(&before.stat))));
                }
            }
        }
        let files: Vec<(&FlatEntry, PathBuf)> =
            to_place.iter().map(|(entry, staged, _, _)| (*entry, staged.clone())).collect();
        self.place_all(&files, placed)?;
        steps.extend(to_place.into_iter().map(|(_, staged, dest, before)| Step::Place {
            staged,
            dest,
            before,
        }));
        steps.extend(removal_below(path, &gone)?);
        Ok(())
    }

    /// Fills staged files from the cache, on all cores, checking every byte.
    fn place_all(&self, files: &[(&FlatEntry, PathBuf)], placed: &mut Placed) -> Result<()> {
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
            Ok(match entry.kind {
                Kind::Link => staging.place_link(&object, &expected, staged)?.is_some(),
                _ => staging.place(&object, &expected, staged, mode, &on_bytes)?.is_some(),
            })
        };
        let done: Vec<bool> =
            files.par_iter().map(|(entry, staged)| fill(entry, staged)).collect::<Result<_>>()?;
        for ((entry, staged), _) in files.iter().zip(&done).filter(|(_, good)| !**good) {
            // The cached bytes were wrong. They go into quarantine, and the store is asked for the right ones.
            cache.quarantine(&entry.digest)?;
            self.fetch_again(entry)?;
            if !fill(entry, staged)? {
                return Err(self.damaged(entry));
            }
        }
        for (entry, staged) in files {
            let metadata = std::fs::symlink_metadata(staged).context(staged, "read")?;
            let key = (self.want.path.clone(), entry.path.clone());
            placed.insert(key, (entry.digest, FileStat::from_metadata(&metadata)));
        }
        Ok(())
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
        let path = below(&self.want.path, &entry.path)
            .map_or_else(|_| entry.path.clone(), |path| path.as_str().to_owned());
        Error::refused(format!(
            "{}: the cached content was damaged (now in quarantine)",
            human::escape(&path)
        ))
        .hint("get it from a remote that has it: git model fetch --remote NAME")
    }
}

fn ancestors(relative: &str) -> impl Iterator<Item = &str> {
    relative.match_indices('/').map(|(at, _)| &relative[..at])
}

/// Steps that remove a whole artifact that is as it was recorded.
pub(super) fn removal(path: &RepoPath, entries: &[RecordEntry], is_tree: bool) -> Result<Vec<Step>> {
    let mut steps = removal_below(path, entries)?;
    if is_tree {
        steps.push(Step::RemoveDir { dest: path.clone() });
    }
    Ok(steps)
}

/// Steps that remove these files, then these directories, deepest first.
fn removal_below(path: &RepoPath, entries: &[RecordEntry]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for entry in entries.iter().filter(|entry| entry.stat.kind != Kind::Tree) {
        steps.push(Step::Remove { dest: below(path, &entry.path)?, before: Before::file(&entry.stat) });
    }
    for entry in entries.iter().rev().filter(|entry| entry.stat.kind == Kind::Tree) {
        steps.push(Step::RemoveDir { dest: below(path, &entry.path)? });
    }
    Ok(steps)
}

/// What is at the artifact's path after the swap. A file counts as known only if it is the very one that was staged or
/// was known before; anything else is left out of the record, and read when it matters.
fn record_of(root: &Root, want: &Want, placed: &Placed, clock: Clock) -> Result<Option<Record>> {
    let Some(found) = scan(root, &want.path)? else { return Ok(None) };
    let old: HashMap<&str, &RecordEntry> =
        want.seen.iter().flat_map(|seen| &seen.entries).map(|entry| (entry.path.as_str(), entry)).collect();
    let mut entries = Vec::with_capacity(found.entries.len());
    for on_disk in found.entries {
        let key = (want.path.clone(), on_disk.path.clone());
        let digest = match (placed.get(&key), old.get(on_disk.path.as_str())) {
            _ if on_disk.stat.kind == Kind::Tree => Some(Digest::of(b"")),
            (Some((digest, staged)), _) if same_file(staged, &on_disk.stat) => Some(*digest),
            (_, Some(entry)) if entry.stat.unchanged(&on_disk.stat) => Some(entry.digest),
            _ => None,
        };
        if let Some(digest) = digest {
            let settled = on_disk.stat.kind == Kind::Tree || on_disk.stat.settled_at(clock);
            entries.push(RecordEntry { path: on_disk.path, digest, stat: on_disk.stat, settled });
        }
    }
    let pointer = want.pointer;
    Ok(Some(Record {
        path: want.path.clone(),
        is_tree: pointer.is_tree(),
        base: pointer.digest,
        current: pointer.digest,
        size: pointer.size,
        files: pointer.files(),
        entries,
    }))
}

/// Renaming changes only the time of the inode's last change.
fn same_file(staged: &FileStat, found: &FileStat) -> bool {
    staged.ino == found.ino
        && staged.size == found.size
        && staged.mtime == found.mtime
        && staged.kind == found.kind
}
