//! Taking content into the cache and writing its pointers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::observe::{OnDisk, Reading, Seen};
use super::{Ctx, Selection};
use crate::cache::Usage;
use crate::error::{Error, Result};
use crate::git::Staging as GitStaging;
use crate::human;
use crate::pointer::{self, Pointer};
use crate::repo_config;
use crate::repo_path::RepoPath;
use crate::tree;
use crate::worktree::{Record, Records, Root, ignore};

/// What to add, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Paths as the user typed them.
    pub paths: Vec<PathBuf>,
    /// Take every artifact that is tracked already.
    pub update: bool,
    /// Put the pointers into git's index.
    pub stage: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What adding changed for one artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not tracked before.
    New,
    /// Its content changed.
    Updated,
    /// Its pointer was right already.
    Unchanged,
}

/// One artifact that was added.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where its content is.
    pub path: RepoPath,
    /// What its pointer now says.
    pub pointer: Pointer,
    /// What changed.
    pub change: Change,
}

/// What became of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Staged {
    /// The pointers are in it.
    Yes,
    /// The user did not want that.
    NotAsked,
    /// Another process held it all the time.
    IndexBusy,
}

/// What adding did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The artifacts, in path order.
    pub items: Vec<Item>,
    /// Artifacts whose pointer is newer than the content here, which nobody changed. An update leaves them out; of those that
    /// were named, the pointer is now the old one again.
    pub outdated: Vec<RepoPath>,
    /// Objects that are new in the cache.
    pub stored: Usage,
    /// What the cache holds now.
    pub cache: Usage,
    /// Whether the pointers are in the index.
    pub staged: Staged,
    /// Pointers that a pattern ignores, with the pattern's place, and the line that would end it.
    pub ignored: Vec<(RepoPath, String, String)>,
}

/// Adds artifacts: content into the cache first, then pointers, `.gitignore`, records and the index.
pub fn add(ctx: &Ctx, options: &Options) -> Result<Report> {
    let root = ctx.root()?;
    require_init(&root)?;
    let interrupted = ctx.finish_interrupted()?;
    let records = ctx.records()?;
    let plan = plan(ctx, options, &root, &records)?;
    interrupted.require_free(plan.keys())?;
    let paths: Vec<RepoPath> = plan.keys().cloned().collect();
    let batch = ctx.cache.batch()?;
    let step = ctx.progress.step("adding", 0, planned_bytes(&root, &paths));
    let observer = ctx.observer(&root, &records, step.as_ref())?;
    let reading = if options.dry_run { Reading::Hash } else { Reading::Keep(&batch) };
    let seen: Vec<_> = paths
        .par_iter()
        .map(|path| {
            let (record, found) = observer.recall(path, reading)?;
            Ok((path, known(path, found?)?, record))
        })
        .collect::<Result<_>>()?;
    drop(observer);
    drop(step);
    let mut report = Report {
        items: Vec::new(),
        outdated: Vec::new(),
        stored: Usage::default(),
        cache: Usage::default(),
        staged: Staged::NotAsked,
        ignored: Vec::new(),
    };
    // From here on the objects are durable, and pointers may name them.
    if !options.dry_run {
        report.stored = batch.commit()?;
    }
    let staging = ctx.staging()?;
    if !options.dry_run {
        // Hidden from git before anything else is written, so that no crash leaves it in the way of `git add .`.
        ignore::add(&root, &paths, ctx.settings.durability)?;
    }
    let mut to_stage = Vec::new();
    for (path, found, record) in seen {
        let before = super::artifacts::read_pointer(&root, path).ok().flatten();
        if before.is_some_and(|before| is_outdated(&before, &found, record.as_ref())) {
            report.outdated.push(path.clone());
            if !plan[path] {
                continue;
            }
        }
        let change = match before {
            None => Change::New,
            Some(before) if before == found.pointer => Change::Unchanged,
            Some(_) => Change::Updated,
        };
        if !options.dry_run {
            root.write_small(&path.pointer(), found.pointer.to_text().as_bytes(), &staging)?;
            if !found.is_recorded(record.as_ref()) {
                records.save(&found.record(path, found.pointer.digest))?;
            }
            to_stage.push(path.pointer());
        }
        report.items.push(Item { path: path.clone(), pointer: found.pointer, change });
    }
    report.cache = ctx.cache.usage()?;
    if options.dry_run {
        return Ok(report);
    }
    report.ignored = ignored_pointers(ctx, &to_stage)?;
    if options.stage {
        for path in &paths {
            let file = ignore::file_of(path)?;
            if !to_stage.contains(&file) {
                to_stage.push(file);
            }
        }
        report.staged = match ctx.git.stage(&to_stage)? {
            GitStaging::Done => Staged::Yes,
            GitStaging::Busy => Staged::IndexBusy,
        };
    }
    Ok(report)
}

/// Whether the pointer changed, by a merge say, and the content is still what was here before.
fn is_outdated(pointer: &Pointer, found: &Seen, record: Option<&Record>) -> bool {
    record.is_some_and(|record| found.pointer.digest == record.base && pointer.digest != record.base)
}

fn known(path: &RepoPath, found: OnDisk) -> Result<Seen> {
    match found {
        OnDisk::Known(seen) => Ok(seen),
        _ => Err(Error::new(format!("{}: it vanished while it was added", human::escape(path.as_str())))),
    }
}

fn planned_bytes(root: &Root, paths: &[RepoPath]) -> u64 {
    let size =
        |path: &RepoPath| root.stat(path).ok().flatten().filter(|stat| stat.kind != crate::fsio::Kind::Tree);
    paths.iter().filter_map(size).map(|stat| stat.size).fold(0, u64::saturating_add)
}

fn require_init(root: &Root) -> Result<()> {
    match root.stat(&RepoPath::new(repo_config::FILE_NAME)?)? {
        Some(_) => Ok(()),
        None => {
            Err(Error::new(format!("{}: git-model is not set up in this repository", root.path().display()))
                .hint("run git model init once"))
        }
    }
}

/// Checks every path before anything is read or written. Each comes with whether the user named it.
fn plan(ctx: &Ctx, options: &Options, root: &Root, records: &Records) -> Result<BTreeMap<RepoPath, bool>> {
    let mut paths = BTreeMap::new();
    let artifacts: Vec<RepoPath> =
        ctx.artifacts(&Selection::all())?.into_iter().map(|artifact| artifact.path).collect();
    if options.update {
        for path in &artifacts {
            if root.stat(path)?.is_some() {
                paths.insert(path.clone(), false);
            }
        }
    }
    for typed in &options.paths {
        let shown = human::escape(&typed.to_string_lossy());
        let path = ctx.git.repo_path(typed)?.ok_or_else(|| {
            Error::usage(format!("{shown}: the repository itself cannot be an artifact"))
                .hint("name a path inside it")
        })?;
        // A shell's `models/*` names pointers too; they stand for their artifacts.
        let path = path.artifact().filter(|artifact| artifacts.contains(artifact)).unwrap_or(path);
        paths.insert(path, true);
    }
    for path in paths.keys() {
        check(ctx, path, &artifacts)?;
        refuse_foreign_pointer(root, records, path)?;
    }
    refuse_twins(&paths, &artifacts)?;
    match paths.keys().zip(paths.keys().skip(1)).find(|(outer, inner)| inner.is_within(outer)) {
        Some((outer, inner)) => Err(nested(inner, outer)),
        None => Ok(paths),
    }
}

/// Refuses a new artifact whose path is another one's but for letter case or Unicode form: on macOS and Windows they would
/// replace each other.
fn refuse_twins(paths: &BTreeMap<RepoPath, bool>, artifacts: &[RepoPath]) -> Result<()> {
    let mut new = paths.keys().filter(|path| !artifacts.contains(path)).peekable();
    if new.peek().is_none() {
        return Ok(());
    }
    let mut folded: HashMap<String, &RepoPath> =
        artifacts.iter().map(|path| (tree::fold(path.as_str()), path)).collect();
    for path in new {
        if let Some(twin) = folded.insert(tree::fold(path.as_str()), path) {
            let (path, twin) = (human::escape(path.as_str()), human::escape(twin.as_str()));
            return Err(Error::usage(format!(
                "{path}: differs from {twin} only in letter case or Unicode form"
            ))
            .hint("they could not both exist on macOS or Windows; choose another name"));
        }
    }
    Ok(())
}

/// Refuses to write a pointer over a file that is none: it is the user's.
fn refuse_foreign_pointer(root: &Root, records: &Records, path: &RepoPath) -> Result<()> {
    let Err(error) = super::artifacts::read_pointer(root, path) else { return Ok(()) };
    // What a merge left is settled by adding, and so is a pointer of ours that was damaged.
    if pointer::is_conflict(&error) || records.load(path)?.is_some() {
        return Ok(());
    }
    let pointer = path.pointer();
    Err(Error::usage(format!(
        "{}: this file is no pointer, and would be replaced by that of {}",
        human::escape(pointer.as_str()),
        human::escape(path.as_str())
    ))
    .hint("rename one of the two, or remove it if it was a pointer"))
}

fn check(ctx: &Ctx, path: &RepoPath, artifacts: &[RepoPath]) -> Result<()> {
    let shown = human::escape(path.as_str());
    if ctx.root()?.stat(path)?.is_none() {
        let error = Error::new(format!("{shown}: no such file or directory"));
        return Err(match artifacts.contains(path) {
            true => {
                error.hint(format!("git model sync {} brings it back", human::shell_quote(path.as_str())))
            }
            false => error,
        });
    }
    super::artifacts::check_path(path)?;
    if let Some(outer) = artifacts.iter().find(|artifact| path != *artifact && path.is_within(artifact)) {
        return Err(Error::usage(format!(
            "{shown}: it is part of the artifact {}",
            human::escape(outer.as_str())
        ))
        .hint(format!("git model add {}", human::shell_quote(outer.as_str()))));
    }
    if let Some(inner) = artifacts.iter().find(|artifact| *artifact != path && artifact.is_within(path)) {
        return Err(nested(inner, path));
    }
    // Where an artifact is already, there is no submodule: its pointer is in this repository.
    let parent = path.parent().filter(|_| !artifacts.contains(path));
    for dir in std::iter::successors(parent, RepoPath::parent) {
        // What git tracks under a directory's own name is another repository.
        if ctx.git.tracked_below(&dir)?.contains(&dir) {
            return Err(Error::usage(format!(
                "{shown}: inside the submodule {}",
                human::escape(dir.as_str())
            ))
            .hint("run git model add in there"));
        }
    }
    let tracked = ctx.git.tracked_below(path)?;
    if let Some(first) = tracked.first() {
        return Err(Error::usage(format!(
            "{}: git itself tracks it, so it cannot be an artifact as well",
            human::escape(first.as_str())
        ))
        .hint(format!(
            "git rm -r --cached -- {} takes it out of git's index and keeps the file",
            human::shell_quote(path.as_str())
        )));
    }
    Ok(())
}

fn nested(inner: &RepoPath, outer: &RepoPath) -> Error {
    Error::usage(format!(
        "{}: an artifact inside {}, which cannot be one as well",
        human::escape(inner.as_str()),
        human::escape(outer.as_str())
    ))
    .hint(format!(
        "git model rm --keep {} first, or add the inner paths one by one",
        human::shell_quote(inner.as_str())
    ))
}

/// Pointers that some pattern hides from plain git commands, each with the line that makes it visible again. No pattern hides
/// what is in the index.
fn ignored_pointers(ctx: &Ctx, pointers: &[RepoPath]) -> Result<Vec<(RepoPath, String, String)>> {
    let mut found = Vec::new();
    let tracked: HashSet<RepoPath> =
        ctx.git.index_pointers()?.into_iter().map(|pointer| pointer.path).collect();
    let new: Vec<RepoPath> = pointers.iter().filter(|path| !tracked.contains(path)).cloned().collect();
    if new.is_empty() {
        return Ok(found);
    }
    for (path, pattern) in ctx.git.ignored(&new)? {
        // Git never looks into an ignored directory, so each directory on the way has to be let in again.
        let mut lines = Vec::new();
        let mut dir = path.parent();
        while let Some(parent) = dir {
            if !ctx.git.ignored(std::slice::from_ref(&parent))?.is_empty() {
                lines.push(format!("!/{parent}/"));
                lines.push(format!("/{parent}/*"));
            }
            dir = parent.parent();
        }
        // Outermost first; the innermost directory keeps its other files ignored.
        let mut ordered: Vec<String> = lines.chunks(2).rev().flat_map(<[String]>::to_vec).collect();
        ordered.push(match path.parent() {
            Some(parent) => format!("!/{parent}/*.pointer"),
            None => "!/*.pointer".to_owned(),
        });
        found.push((path, pattern, ordered.join("\n")));
    }
    Ok(found)
}
