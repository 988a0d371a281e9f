//! Sending objects to a store. Success means that the store itself confirmed everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::fetch::{Closure, closure};
use super::pushed::Pushed;
use super::remotes::{self, Found, Purpose};
use super::{Ctx, Selection};
use crate::error::{Error, Result};
use crate::git::{PointerBlob, RangeEnd};
use crate::human;
use crate::id::Digest;
use crate::pointer::Pointer;
use crate::remote::{Remote, Upload};
use crate::repo_path::RepoPath;

/// What to push.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Commits, branches or tags whose history is pushed; none means HEAD and what is staged.
    pub revisions: Vec<String>,
    /// Only these artifacts, as the user typed them.
    pub paths: Vec<PathBuf>,
    /// A remote other than the default.
    pub remote: Option<String>,
    /// Ask the store about every object, and send again what is missing or has another size.
    pub repair: bool,
    /// Only say what would be sent.
    pub dry_run: bool,
}

/// What was pushed.
#[derive(Debug, Default)]
pub struct Report {
    /// Name and URL of the remote; `None` when there was nothing that could be pushed.
    pub remote: Option<(String, String)>,
    /// Objects that were sent.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, objects that the store had with another size.
    pub repaired: u64,
    /// Versions (of artifacts) that the store now holds, of those that were asked for.
    pub versions: u64,
    /// Pointers in the history that cannot be read and were passed over.
    pub unreadable: Vec<Error>,
}

/// Sends everything that the options name and the store does not have.
pub fn push(ctx: &Ctx, options: &Options) -> Result<Report> {
    let selection = if ctx.git.is_bare() { Selection::all() } else { ctx.selection(&options.paths)? };
    let mut wanted = Wanted::default();
    if options.revisions.is_empty() && !ctx.git.is_bare() {
        for artifact in ctx.require_artifacts(&selection)? {
            let pointer = artifact.pointer?;
            wanted.insert(artifact.path, pointer);
        }
    }
    let mut ranges = Vec::new();
    if options.revisions.is_empty() {
        ranges.extend(ctx.git.commit("HEAD")?.map(|head| RangeEnd::Include(head.as_str().to_owned())));
    }
    for revision in &options.revisions {
        ranges.push(RangeEnd::Include(ctx.git.require_commit(revision)?.as_str().to_owned()));
    }
    if !ranges.is_empty() {
        wanted.extend_from_blobs(ctx, &ctx.git.range_pointers(&ranges)?, &selection)?;
    }
    send(ctx, wanted, options, None)
}

/// Versions to push, each once, with a path for messages.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    versions: BTreeMap<Digest, (RepoPath, Pointer)>,
    unreadable: Vec<Error>,
}

impl Wanted {
    pub(super) fn insert(&mut self, path: RepoPath, pointer: Pointer) {
        self.versions.entry(pointer.digest).or_insert((path, pointer));
    }

    /// Takes the pointers of a range of history. One that never was readable must not stop the others.
    pub(super) fn extend_from_blobs(
        &mut self,
        ctx: &Ctx,
        blobs: &[PointerBlob],
        selection: &Selection,
    ) -> Result<()> {
        for entry in blobs {
            let Some(path) = entry.path.artifact().filter(|path| selection.contains(path)) else { continue };
            match ctx.blob_pointer(&entry.blob, &path) {
                Ok(pointer) => self.insert(path, pointer),
                Err(error) => self.unreadable.push(error),
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}

/// Sends what the store does not have. Above `limit` bytes, refuses before anything is sent.
pub(super) fn send(ctx: &Ctx, wanted: Wanted, options: &Options, limit: Option<u64>) -> Result<Report> {
    let mut report = Report { versions: wanted.versions.len() as u64, ..Report::default() };
    report.unreadable = wanted.unreadable;
    if wanted.versions.is_empty() {
        return Ok(report);
    }
    let found = remotes::find(ctx, options.remote.as_deref(), None)?;
    report.remote = Some((found.name.clone(), found.url.to_string()));
    let mut pushed = Pushed::load(ctx.git.common_dir(), &found.url)?;
    if options.repair {
        pushed.forget();
    }
    if wanted.versions.keys().all(|digest| pushed.has(digest)) {
        return Ok(report);
    }
    let remote = open(ctx, &found, options)?;
    match if options.dry_run { remote.id()? } else { Some(remote.id_or_create()?) } {
        Some(id) => pushed.met(&id),
        None => pushed.forget(),
    }
    let plan = plan(ctx, &wanted.versions, &remote, &pushed)?;
    let to_send = plan.stages.iter().flatten();
    report.objects = to_send.clone().count() as u64;
    report.bytes = to_send.map(|upload| upload.size).sum();
    report.repaired = plan.wrong_size;
    if let Some(limit) = limit
        && report.bytes > limit
    {
        return Err(Error::refused(format!(
            "{} of artifacts are not in {} yet, more than the {} that are sent while git waits",
            human::bytes(report.bytes),
            found.url,
            human::bytes(limit)
        ))
        .hint("git model push && git push"));
    }
    if options.dry_run {
        return lost_versions(&plan.lost, &found).map_or(Ok(report), Err);
    }
    let step = ctx.progress.step("pushing", report.objects, report.bytes);
    for stage in &plan.stages {
        remote.upload(stage, step.as_ref(), &ctx.interrupt)?;
    }
    drop(step);
    for digest in plan.complete {
        pushed.insert(digest);
    }
    pushed.save()?;
    lost_versions(&plan.lost, &found).map_or(Ok(report), Err)
}

fn open(ctx: &Ctx, found: &Found, options: &Options) -> Result<Remote> {
    let purpose = if options.dry_run { Purpose::Fetch } else { Purpose::Push };
    remotes::open(ctx, found, purpose)
}

#[derive(Debug, Default)]
struct Plan {
    /// What to send, in stages: each only names what an earlier one brought.
    stages: Vec<Vec<Upload>>,
    /// Objects that the store has with another size than they should have.
    wrong_size: u64,
    /// Objects that the store holds once the plan is carried out.
    complete: Vec<Digest>,
    /// Versions that are neither here nor in the store.
    lost: Vec<RepoPath>,
}

/// Compares what the versions need with what the store has.
fn plan(
    ctx: &Ctx,
    versions: &BTreeMap<Digest, (RepoPath, Pointer)>,
    remote: &Remote,
    pushed: &Pushed,
) -> Result<Plan> {
    let mut here: Vec<(&RepoPath, Closure)> = Vec::new();
    let mut elsewhere: Vec<(&RepoPath, Digest)> = Vec::new();
    for (digest, (path, pointer)) in versions {
        if pushed.has(digest) {
            continue;
        }
        // A directory whose lists of files are not here counts as there if its root is: roots are sent last.
        match closure(ctx, pointer) {
            Ok(closure) => here.push((path, closure)),
            Err(_) => elsewhere.push((path, *digest)),
        }
    }
    // By height: files, then tree objects in the order in which each comes after those it names.
    let mut files: HashMap<Digest, u64> = HashMap::new();
    let mut asked: Vec<Digest> = elsewhere.iter().map(|(_, digest)| *digest).collect();
    for (_, closure) in &here {
        for file in closure.files.iter().filter(|file| !pushed.has(&file.digest)) {
            files.insert(file.digest, file.size);
        }
        asked.extend(closure.trees.iter().map(|(digest, _)| digest).filter(|digest| !pushed.has(digest)));
    }
    asked.extend(files.keys());
    asked.sort_unstable();
    asked.dedup();
    let sizes = remote.sizes(&asked)?;
    let mut plan = Plan::default();
    let mut sort_in = |digest: Digest, size: u64, stage: &mut Vec<Upload>| {
        match sizes.get(&digest) {
            Some(&found) if found == size => return true,
            Some(_) => plan.wrong_size += 1,
            None => {}
        }
        if !ctx.cache.holds(&digest, size) {
            return false;
        }
        stage.push(Upload { digest, size, file: ctx.cache.object_path(&digest) });
        true
    };
    let mut first = Vec::new();
    let mut unavailable: HashSet<Digest> = HashSet::new();
    for (digest, size) in &files {
        if !sort_in(*digest, *size, &mut first) {
            unavailable.insert(*digest);
        }
    }
    let mut trees: Vec<Vec<Upload>> = Vec::new();
    let mut height: HashMap<Digest, usize> = HashMap::new();
    for (_, closure) in &here {
        let needs_lost = closure.files.iter().any(|file| unavailable.contains(&file.digest));
        if needs_lost {
            continue;
        }
        for (at, (digest, size)) in
            closure.trees.iter().enumerate().filter(|(_, (digest, _))| !pushed.has(digest))
        {
            if height.insert(*digest, at).is_none() {
                let mut stage = Vec::new();
                sort_in(*digest, *size, &mut stage);
                // The root comes alone and last; what is below it is sent together before.
                let is_root = at + 1 == closure.trees.len();
                trees.resize_with(2, Vec::new);
                trees[usize::from(is_root)].append(&mut stage);
            }
        }
    }
    plan.stages = std::iter::once(first).chain(trees).filter(|stage| !stage.is_empty()).collect();
    for (path, closure) in &here {
        if closure.files.iter().any(|file| unavailable.contains(&file.digest)) {
            plan.lost.push((*path).clone());
        } else {
            plan.complete.extend(closure.digests());
        }
    }
    plan.lost.extend(
        elsewhere.into_iter().filter(|(_, digest)| !sizes.contains_key(digest)).map(|(path, _)| path.clone()),
    );
    Ok(plan)
}

fn lost_versions(lost: &[RepoPath], found: &Found) -> Option<Error> {
    let first = human::escape(lost.first()?.as_str());
    let others = match lost.len() {
        1 => String::new(),
        more => format!(" (and {} more)", more - 1),
    };
    Some(
        Error::refused(format!("{first}{others}: the content is neither here nor in {}", found.url))
            .hint("push it from a clone that has it, or fetch it from another remote first: git model fetch --remote NAME"),
    )
}
