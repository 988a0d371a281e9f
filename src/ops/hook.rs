//! What git's hooks do. They never surprise: nothing is materialised in the middle of a rebase, nothing large is fetched or
//! sent while git waits, and a commit is only refused when it would record something false.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::artifacts::{Artifact, read_pointer};
use super::models::Place;
use super::observe::{OnDisk, Reading};
use super::push::{self, Wanted};
use super::{Ctx, Selection, declared, kept, sync};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::git::{Git, IndexPointer, RangeEnd};
use crate::human;
use crate::id::Digest;
use crate::lineage;
use crate::model_yaml;
use crate::progress::Silent;
use crate::repo_path::RepoPath;
use crate::worktree::{Records, Root, swap};

/// Exists in a worktree's `model` directory while a sync is postponed.
pub const PENDING: &str = "pending";
/// What the last hook told the user, so that the next one of the same command does not repeat it.
const TOLD: &str = "told";

/// What a hook has to say.
#[derive(Debug, Default)]
pub struct Report {
    /// What was brought in step.
    pub sync: sync::Report,
    /// What was published.
    pub push: Option<push::Report>,
    /// Problems that do not stop git.
    pub warnings: Vec<Error>,
}

/// Whether the worktree is in step, found out without settings, cache, or another process: this runs after every git
/// command that changes the worktree.
pub fn is_idle(git: &Git) -> Result<bool> {
    if git.is_bare() {
        return Ok(true);
    }
    let model_dir = git.git_dir().join("model");
    let noted = [PENDING, kept::KEPT].iter().any(|name| model_dir.join(name).exists());
    if noted || !swap::journals(&model_dir).is_empty() || git.sequence_in_progress() {
        return Ok(false);
    }
    let root = Root::open(git.top()?)?;
    let mut recorded: BTreeMap<RepoPath, Digest> = Records::new(&model_dir).list()?.into_iter().collect();
    for entry in git.index_pointers()?.into_iter().filter(|entry| !entry.skipped) {
        let Some(path) = entry.path.artifact() else { continue };
        match read_pointer(&root, &path) {
            Ok(Some(pointer)) if recorded.remove(&path) == Some(pointer.digest) => {}
            _ => return Ok(false),
        }
    }
    // What is left has a record and no pointer in the index.
    Ok(recorded.is_empty())
}

/// Brings artifacts in step after git changed the index. An artifact whose pointer did not change is not even looked at.
///
/// `rewritten` is the first argument of `post-rewrite`: `rebase` means that all picks are done, though git has not tidied up.
pub fn after_index_change(ctx: &Ctx, rewritten: Option<&str>) -> Result<Report> {
    let mut report = Report::default();
    if !ctx.settings.hooks || ctx.git.is_bare() {
        return Ok(report);
    }
    let pending = ctx.git.git_dir().join("model").join(PENDING);
    if ctx.git.sequence_in_progress() && rewritten != Some("rebase") {
        ctx.model_dir()?;
        fsio::write_atomic(&pending, b"", Durability::Off)?;
        return Ok(report);
    }
    let artifacts = ctx.artifacts(&Selection::all())?;
    let tracked: BTreeSet<RepoPath> = artifacts.iter().map(|artifact| artifact.path.clone()).collect();
    kept::release(ctx, &tracked)?;
    let changed = changed_artifacts(ctx, &artifacts, tracked)?;
    if !changed.is_empty() {
        bring_in_step(ctx, changed, &mut report)?;
        report.sync.problems.drain(..).for_each(|error| report.warnings.push(error));
        say_once(ctx, &mut report)?;
    }
    match fs::remove_file(&pending) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(pending, "remove"),
        _ => Ok(report),
    }
}

/// Artifacts whose pointer is not the one whose content was last placed, and artifacts that lost their pointer.
fn changed_artifacts(
    ctx: &Ctx,
    artifacts: &[Artifact],
    tracked: BTreeSet<RepoPath>,
) -> Result<Vec<RepoPath>> {
    let recorded: BTreeMap<RepoPath, _> = ctx.records()?.list()?.into_iter().collect();
    let differs = |artifact: &Artifact| match &artifact.pointer {
        Ok(pointer) => recorded.get(&artifact.path) != Some(&pointer.digest),
        // A conflict is for the user to settle, and git says so itself.
        Err(_) => false,
    };
    let mut changed: Vec<RepoPath> =
        artifacts.iter().filter(|artifact| differs(artifact)).map(|artifact| artifact.path.clone()).collect();
    changed.extend(recorded.into_keys().filter(|path| !tracked.contains(path)));
    if changed.is_empty() && !swap::journals(&ctx.git.git_dir().join("model")).is_empty() {
        changed.extend(tracked);
    }
    Ok(changed)
}

fn bring_in_step(ctx: &Ctx, changed: Vec<RepoPath>, report: &mut Report) -> Result<()> {
    let options = |paths: Vec<RepoPath>, limit: u64| sync::Options {
        selection: Selection::of(paths),
        fetch_limit: Some(limit),
        ..sync::Options::default()
    };
    match sync::sync_existing(ctx, &options(changed.clone(), ctx.settings.autofetch)) {
        Ok(done) => report.sync = done,
        Err(error) => {
            // What cannot be fetched must not hold back what is here.
            for path in changed {
                if let Ok(mut done) = sync::sync_existing(ctx, &options(vec![path], 0)) {
                    report.sync.synced.append(&mut done.synced);
                    report.sync.removed.append(&mut done.removed);
                    report.sync.kept.append(&mut done.kept);
                    report.sync.modified.append(&mut done.modified);
                    report.sync.problems.append(&mut done.problems);
                }
            }
            report.warnings.push(error);
        }
    }
    Ok(())
}

/// One git command runs several hooks. What the one before said is not said again.
fn say_once(ctx: &Ctx, report: &mut Report) -> Result<()> {
    let lines: Vec<String> = report
        .sync
        .modified
        .iter()
        .map(|path| path.as_str().to_owned())
        .chain(report.warnings.iter().map(Error::one_line))
        .collect();
    let text = lines.join("\n");
    let file = ctx.model_dir()?.join(TOLD);
    if fs::read_to_string(&file).unwrap_or_default() == text {
        report.sync.modified.clear();
        report.warnings.clear();
    }
    fsio::write_atomic(&file, text.as_bytes(), Durability::Off)
}

/// Refuses a commit that holds raw content of an artifact, or a pointer that does not describe what is in the worktree.
pub fn pre_commit(ctx: &Ctx) -> Result<()> {
    if !ctx.settings.hooks || ctx.git.is_bare() {
        return Ok(());
    }
    let staged = ctx.git.staged_paths()?;
    if staged.is_empty() {
        return Ok(());
    }
    let pointers = ctx.git.index_pointers()?;
    let records = ctx.records()?;
    let mut artifacts: BTreeSet<RepoPath> =
        pointers.iter().filter_map(|entry| entry.path.artifact()).collect();
    artifacts.extend(records.list()?.into_iter().map(|(path, _)| path));
    for path in &staged {
        if let Some(artifact) = artifacts.iter().find(|artifact| path.is_within(artifact)) {
            let shown = human::escape(path.as_str());
            return Err(Error::refused(format!(
                "{shown}: raw content of the artifact {} is staged",
                human::escape(artifact.as_str())
            ))
            .hint(format!(
                "git rm -r --cached -- {} takes it out of the commit and keeps the file",
                human::shell_quote(artifact.as_str())
            )));
        }
    }
    let staged: BTreeSet<RepoPath> = staged.into_iter().collect();
    let recorded = recorded_pointers(ctx, &staged)?;
    for entry in
        pointers.iter().filter(|entry| staged.contains(&entry.path) || recorded.contains(&entry.path))
    {
        refuse_stale(ctx, entry)?;
    }
    Ok(())
}

/// Pointers that a record of the commit is about: what it states must be true of the content that is here.
fn recorded_pointers(ctx: &Ctx, staged: &BTreeSet<RepoPath>) -> Result<BTreeSet<RepoPath>> {
    let mut pointers = BTreeSet::new();
    for record in staged.iter().filter(|path| path.name() == lineage::FILE_NAME) {
        let declaration = record.sibling(model_yaml::FILE_NAME)?;
        // A declaration that cannot be read is for `record` and `check` to explain.
        let Ok(Some(model)) = ctx.model_at(&declaration, Place::Worktree) else { continue };
        pointers.extend(declared::paths_of(&model).into_iter().filter(|path| path.artifact().is_some()));
    }
    Ok(pointers)
}

fn refuse_stale(ctx: &Ctx, entry: &IndexPointer) -> Result<()> {
    let Some(path) = entry.path.artifact() else { return Ok(()) };
    let pointer = ctx.blob_pointer(&entry.blob, &path)?;
    let (root, records) = (ctx.root()?, ctx.records()?);
    let observer = ctx.observer(&root, &records, &Silent)?;
    let (record, found) = observer.recall(&path, Reading::Compare(&pointer))?;
    let agrees = match found? {
        // The content may be elsewhere; a pointer can be committed without it.
        OnDisk::Absent => true,
        OnDisk::Different => false,
        // An older version that the user did not touch says nothing about this pointer: a merge took the other side.
        OnDisk::Known(seen) => {
            seen.pointer == pointer || record.is_some_and(|record| seen.pointer.digest == record.base)
        }
    };
    if agrees {
        return Ok(());
    }
    let quoted = human::shell_quote(path.as_str());
    Err(Error::refused(format!("{}: its pointer is stale: the content changed after it was added", human::escape(path.as_str())))
        .hint(format!("git model add {quoted} to commit what is there now, or git commit --no-verify to commit the earlier version")))
}

/// Publishes what the pushed refs need before the refs themselves go out. No store is contacted when they need nothing.
///
/// `input` is what git passes on standard input: `<local ref> <local id> <remote ref> <remote id>` per line.
pub fn pre_push(ctx: &Ctx, git_remote: &str, input: &str) -> Result<Report> {
    let mut report = Report::default();
    if !ctx.settings.hooks {
        return Ok(report);
    }
    let mut wanted = Wanted::default();
    for line in input.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, local, _, remote] = words[..] else { continue };
        let (local, remote) = (ctx.git.parse_id(local)?, ctx.git.parse_id(remote)?);
        if local.is_null() {
            continue;
        }
        let mut range = vec![RangeEnd::Include(local.as_str().to_owned())];
        if !remote.is_null() && ctx.git.has_object(&remote)? {
            range.push(RangeEnd::Exclude(remote.as_str().to_owned()));
        }
        // A remote that was given as a URL has no tracking branches.
        if !git_remote.contains(['/', ':']) {
            range.push(RangeEnd::ExcludeRemote(git_remote.to_owned()));
        }
        wanted.extend_from_blobs(ctx, &ctx.git.range_blobs(&range)?, &Selection::all())?;
    }
    if !wanted.is_empty() {
        let limit = Some(ctx.settings.prepush_limit);
        report.push = Some(push::send(ctx, wanted, &push::Options::default(), limit)?);
    }
    Ok(report)
}
