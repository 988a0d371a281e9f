//! Bringing the worktree in step with its pointers: look, fetch, stage, swap, record; in this order.
//!
//! Nothing in the worktree changes before all content is here, checked, and complete beside its place. What the user
//! changed is never replaced, unless forced, and then only after it went into the cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::artifacts::Artifact;
use super::fetch::{Limit, ensure, estimate, listing};
use super::observe::{Observer, OnDisk, Reading, Seen, below, flat};
use super::stage::{Placed, Staged, Stager, keep_dropped};
use super::{Ctx, Interrupted, Selection, kept};
use crate::error::{Error, Result};
use crate::fsio::{Clock, Kind};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::pointer::{Content, Pointer};
use crate::progress::Silent;
use crate::repo_path::RepoPath;
use crate::worktree::swap::{Outcome, swap};
use crate::worktree::{Record, RecordEntry, Records, Root, scan};

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
pub(super) struct Want {
    pub(super) path: RepoPath,
    pub(super) pointer: Pointer,
    /// What is there now, if anything.
    pub(super) seen: Option<Seen>,
}

impl Want {
    /// A path inside the artifact, for messages.
    pub(super) fn shown(&self, relative: &str) -> String {
        match relative {
            "" => human::escape(self.path.as_str()),
            relative => format!("{}/{}", human::escape(self.path.as_str()), human::escape(relative)),
        }
    }
}

/// Brings the selected artifacts in step. A selected path that is no artifact is an error.
pub fn sync(ctx: &Ctx, options: &Options) -> Result<Report> {
    let interrupted = ctx.finish_interrupted()?;
    sync_artifacts(ctx, options, ctx.require_artifacts(&options.selection)?, interrupted)
}

/// As [`sync`], for paths that may have lost their pointer.
pub(super) fn sync_existing(ctx: &Ctx, options: &Options) -> Result<Report> {
    let interrupted = ctx.finish_interrupted()?;
    sync_artifacts(ctx, options, ctx.artifacts(&options.selection)?, interrupted)
}

fn sync_artifacts(
    ctx: &Ctx,
    options: &Options,
    mut artifacts: Vec<Artifact>,
    interrupted: Interrupted,
) -> Result<Report> {
    let root = ctx.root()?;
    let records = ctx.records()?;
    let mut report = Report { resumed: interrupted.there_were, ..Report::default() };
    let step = ctx.progress.step("checking", artifacts.len() as u64, 0);
    let observer = ctx.observer(&root, &records, step.as_ref())?;
    let tracked: BTreeSet<RepoPath> = artifacts.iter().map(|artifact| artifact.path.clone()).collect();
    // What is stuck half way is told of, and holds nothing else up.
    let stuck = interrupted.stuck;
    let is_stuck = |path: &RepoPath| stuck.iter().any(|stuck| stuck.concerns(path));
    artifacts.retain(|artifact| !is_stuck(&artifact.path));
    let (wants, good) = decide(&observer, artifacts, &mut report)?;
    let mut left = left_behind(ctx, &observer, &tracked, options, &mut report)?;
    left.retain(|left| !is_stuck(&left.path));
    report.problems.extend(
        stuck
            .into_iter()
            .filter(|stuck| stuck.dests.iter().any(|dest| options.selection.contains(dest)))
            .map(|stuck| stuck.error),
    );
    drop(observer);
    drop(step);
    if options.dry_run {
        report.synced = wants
            .iter()
            .filter(|want| !want_is_modified(want, &report))
            .map(|want| (want.path.clone(), want.pointer))
            .collect();
        report.removed = left.into_iter().map(|left| left.path).collect();
        (report.fetched.objects, report.fetched.bytes) = estimate(ctx, &report.synced);
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
            let (record, found) = observer.recall(&path, Reading::Compare(&pointer))?;
            let base = record.map(|record| record.base);
            Ok(match found {
                Err(error) => Verdict::Problem(error),
                Ok(OnDisk::Absent) => Verdict::Wanted(Want { path, pointer, seen: None }),
                Ok(OnDisk::Different) => Verdict::Modified(Want { path, pointer, seen: None }),
                Ok(OnDisk::Known(seen)) if seen.pointer == pointer => {
                    let moved = base != Some(pointer.digest) || !seen.proved;
                    Verdict::Good(moved.then(|| seen.record(&path, pointer.digest)))
                }
                // An empty directory that nobody placed, such as a mount point, is no content.
                Ok(OnDisk::Known(seen))
                    if Some(seen.pointer.digest) == base || (base.is_none() && seen.is_empty_dir()) =>
                {
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

/// An artifact that is to be removed, for its pointer is gone.
struct Left {
    path: RepoPath,
    /// What is there.
    seen: Seen,
    /// Paths in it that stay, for git itself has files there now.
    tracked: BTreeSet<RepoPath>,
}

/// Artifacts that have a record but no pointer any more. Those that are unmodified and safe in the cache are to be removed;
/// the others stay, out of git's sight.
fn left_behind(
    ctx: &Ctx,
    observer: &Observer<'_>,
    tracked: &BTreeSet<RepoPath>,
    options: &Options,
    report: &mut Report,
) -> Result<Vec<Left>> {
    let mut left = Vec::new();
    for (path, base) in observer.records.list()? {
        if tracked.contains(&path) || !options.selection.contains(&path) || observer.pointer_exists(&path)? {
            continue;
        }
        let gits: BTreeSet<RepoPath> = ctx.git.tracked_below(&path)?.into_iter().collect();
        if gits.contains(&path) {
            // Here git itself keeps this path, as it did before somebody made it an artifact.
            observer.records.remove(&path)?;
            continue;
        }
        let Some(record) = observer.records.load(&path)? else { continue };
        if !gits.is_empty() {
            left.extend(beside_gits_own(ctx, observer, &record, gits, report)?);
            continue;
        }
        let safe = match observer.look(&path, Some(&record), Reading::Compare(&pointer_of(&record))) {
            Ok(OnDisk::Absent) => {
                observer.records.remove(&path)?;
                continue;
            }
            Ok(OnDisk::Known(seen)) => {
                if !seen.proved {
                    observer.records.save_over(Some(base), &seen.record(&path, base))?;
                }
                (seen.pointer.digest == base && observer.all_cached(&seen)).then_some(seen)
            }
            _ => None,
        };
        let inside_other = tracked.iter().any(|other| path.is_within(other));
        match safe {
            Some(seen) if !inside_other => left.push(Left { path, seen, tracked: gits }),
            _ => report.kept.push(path),
        }
    }
    Ok(left)
}

/// What is left of an artifact in a directory where git itself has files now. Of its own files, those that were changed are
/// hidden from git one by one.
fn beside_gits_own(
    ctx: &Ctx,
    observer: &Observer<'_>,
    record: &Record,
    tracked: BTreeSet<RepoPath>,
    report: &mut Report,
) -> Result<Option<Left>> {
    let path = record.path.clone();
    let pointer = pointer_of(record);
    let known = match record.is_complete() {
        true => Ok(record.entries.iter().map(flat).collect()),
        false => listing(ctx, &pointer, &mut Vec::new()),
    };
    let found = observer.look(&path, Some(record), Reading::Hash);
    let (Ok(known), Ok(OnDisk::Known(seen))) = (known, found) else {
        report.kept.push(path);
        return Ok(None);
    };
    let known: HashMap<&str, Digest> =
        known.iter().map(|entry| (entry.path.as_str(), entry.digest)).collect();
    let mut mine = Vec::new();
    for entry in seen.entries.iter().filter(|entry| known.contains_key(entry.path.as_str())) {
        let file = below(&path, &entry.path)?;
        if tracked.contains(&file) {
            continue;
        }
        match entry.stat.kind == Kind::Tree || known.get(entry.path.as_str()) == Some(&entry.digest) {
            true => mine.push(entry.clone()),
            false => report.kept.push(file),
        }
    }
    Ok(Some(Left { path, seen: Seen { pointer, entries: Arc::new(mine), proved: false }, tracked }))
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
        match observer.recall(&want.path, Reading::Keep(&batch))?.1? {
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
    left: &[Left],
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
    let staging = ctx.staging()?;
    let bytes = wants.iter().map(|want| want.pointer.size).fold(0, u64::saturating_add);
    let progress = ctx.progress.step("placing", wants.len() as u64, bytes);
    let mut staged = Staged::default();
    for want in wants {
        ctx.interrupt.check()?;
        let remote = options.remote.as_deref();
        let stager = Stager { ctx, root, staging: &staging, progress: progress.as_ref(), want, remote };
        stager.stage(&mut staged).map_err(|error| {
            match error.one_line().starts_with(want.path.as_str()) {
                true => error,
                false => error.about(human::escape(want.path.as_str())),
            }
        })?;
        progress.finish_one();
    }
    drop(progress);
    for left in left {
        staged.remove_all(&left.path, &left.seen)?;
    }
    let old = wants.iter().filter_map(|want| want.seen.as_ref()).chain(left.iter().map(|left| &left.seen));
    keep_dropped(ctx, root, &staged, old)?;
    let outcomes: Vec<Outcome> = wants.iter().map(outcome).collect();
    let swapped = swap(root, &staging, &staged.steps, &outcomes)?;
    let clock = if wants.is_empty() { Clock::EPOCH } else { Clock::read_after_step(staging.model_dir())? };
    for want in wants {
        if let Some(record) = record_of(root, want, &staged.placed, clock)? {
            records.save(&record)?;
        }
    }
    let user_dir = ctx.git.user_dir();
    for Left { path, tracked, .. } in left {
        if root.stat(path)?.is_none() || !tracked.is_empty() {
            records.remove(path)?;
            root.remove_empty_parents(path, user_dir.as_ref())?;
            report.removed.push(path.clone());
        }
    }
    for path in changed_by_others(ctx, root, records, wants, &swapped.changed_meanwhile)? {
        let shown = human::escape(path.as_str());
        report.problems.push(
            Error::new(format!("{shown}: it was changed during the sync and was left alone"))
                .hint("git model status shows how it stands"),
        );
    }
    swapped.settle()
}

/// Of the paths that were left alone, those that are not what was wanted. Another sync may have placed the same content:
/// each rank of a training job runs one.
fn changed_by_others<'p>(
    ctx: &Ctx,
    root: &Root,
    records: &Records,
    wants: &[Want],
    left_alone: &'p [RepoPath],
) -> Result<Vec<&'p RepoPath>> {
    let observer = ctx.observer(root, records, &Silent)?;
    let mut changed: Vec<&RepoPath> = left_alone.iter().collect();
    for want in wants.iter().filter(|want| left_alone.iter().any(|path| path.is_within(&want.path))) {
        if let (_, Ok(OnDisk::Known(seen))) = observer.recall(&want.path, Reading::Hash)?
            && seen.pointer == want.pointer
        {
            records.save(&seen.record(&want.path, want.pointer.digest))?;
            changed.retain(|path| !path.is_within(&want.path));
        }
    }
    Ok(changed)
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

/// What is at the artifact's path after the swap. A file counts as known only if it is the very one that was staged or
/// was known before; anything else is left out of the record, and read when it matters.
fn record_of(root: &Root, want: &Want, placed: &Placed, clock: Clock) -> Result<Option<Record>> {
    let Some(found) = scan(root, &want.path)? else { return Ok(None) };
    let old: HashMap<&str, &RecordEntry> = want
        .seen
        .iter()
        .flat_map(|seen| seen.entries.iter())
        .map(|entry| (entry.path.as_str(), entry))
        .collect();
    let mut entries = Vec::with_capacity(found.entries.len());
    for on_disk in found.entries {
        let key = (want.path.clone(), on_disk.path.clone());
        let digest = match (placed.get(&key), old.get(on_disk.path.as_str())) {
            _ if on_disk.stat.kind == Kind::Tree => Some(Digest::of(b"")),
            (Some((digest, staged)), _) if staged.is_same_file(&on_disk.stat) => Some(*digest),
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
        entries: Arc::new(entries),
    }))
}
