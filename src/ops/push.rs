//! Sending objects to a store. Success means that the store itself confirmed everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fetch::closure;
use super::pushed::Pushed;
use super::remotes::{self, Found, Purpose};
use super::{Ctx, Selection};
use crate::error::{Error, Result};
use crate::git::{PointerBlob, RangeEnd};
use crate::human;
use crate::id::{Digest, Hasher};
use crate::lineage::{self, Lineage};
use crate::pointer::{Content, Pointer};
use crate::remote::{Compared, Download, Receive, Remote, Suspect, Upload};
use crate::remote_url::RemoteUrl;
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
    /// Send again what is missing in the store or wrong there, found out in this way.
    pub repair: Option<Repair>,
    /// Ask the store about every object, also about those that it is known to have had.
    pub ask_again: bool,
    /// Only say what would be sent.
    pub dry_run: bool,
}

/// How it is found out what is wrong in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The store is asked about every object: its size and, where it keeps one of use, its checksum.
    Checksums,
    /// Every object is read from the store, and hashed.
    Bytes,
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
    /// How long that took, the store's confirmation included.
    pub time: Duration,
    /// Of these, objects that the store had already, with wrong bytes.
    pub repaired: u64,
    /// When checksums were compared: objects of the right size of which the store keeps none that can be.
    pub unchecked: u64,
    /// Whether another store was found than this clone pushed to before.
    pub store_replaced: bool,
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
        wanted.extend_from_blobs(ctx, &ctx.git.range_blobs(&ranges)?, &selection)?;
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
            if entry.path.name() == lineage::FILE_NAME {
                self.extend_from_record(ctx, entry);
                continue;
            }
            let Some(path) = entry.path.artifact().filter(|path| selection.contains(path)) else { continue };
            match ctx.blob_pointer(&entry.blob, &path) {
                Ok(pointer) => self.insert(path, pointer),
                Err(error) => self.unreadable.push(error),
            }
        }
        Ok(())
    }

    /// Takes the listings of outside data that a record names, as far as they are here: whoever made one has it.
    fn extend_from_record(&mut self, ctx: &Ctx, entry: &PointerBlob) {
        let bytes = ctx.git.blob(&entry.blob, lineage::MAX_BYTES);
        // A record that cannot be read is for its own commands to explain.
        let Ok(record) = bytes.and_then(|bytes| Lineage::parse(&bytes, entry.path.as_str())) else { return };
        for data in record.data.iter().filter(|data| data.url.is_some()) {
            if let Some((digest, size)) =
                data.sha256().and_then(|digest| Some((digest, ctx.cache.size_of(&digest)?)))
            {
                let pointer = Pointer { content: Content::File { executable: false }, digest, size };
                self.insert(entry.path.clone(), pointer);
            }
        }
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
    let mut pushed = Pushed::load(ctx.git.common_dir(), &found)?;
    if options.ask_again {
        pushed.forget();
    }
    let has_all = |pushed: &Pushed| wanted.versions.keys().all(|digest| pushed.has(digest));
    // A look into a folder costs nothing, and tells when the right one is not mounted. A request would cost something.
    let costs_a_request = ctx.offline || !matches!(found.url, RemoteUrl::Folder(_));
    if options.repair.is_none() && has_all(&pushed) && costs_a_request {
        return Ok(report);
    }
    let Some((remote, id)) = meet(ctx, &found, options, &pushed)? else {
        // Only a dry run finds a folder that the push itself would make.
        let plan = plan(ctx, &wanted.versions, &Held::default(), &pushed);
        report.count(&plan);
        return Ok(report);
    };
    match id {
        Some(id) => report.store_replaced = pushed.met(&id),
        None => pushed.forget(),
    }
    if options.repair.is_none() && has_all(&pushed) {
        return Ok(report);
    }
    if options.repair.is_some() {
        pushed.forget();
    }
    if !options.dry_run {
        // What is not known any more must not count as there when this is interrupted.
        pushed.save()?;
    }
    let sizes = remote.sizes(&asked(ctx, &wanted.versions, &pushed))?;
    let wrong = match options.repair {
        None => Vec::new(),
        Some(Repair::Bytes) => damaged_in_store(ctx, &remote, &sizes)?,
        Some(Repair::Checksums) => {
            let compared = compare_checksums(ctx, &remote, &sizes)?;
            report.unchecked = compared.unknown;
            compared.wrong
        }
    };
    let held = Held { sizes, wrong: wrong.into_iter().collect() };
    let plan = plan(ctx, &wanted.versions, &held, &pushed);
    report.count(&plan);
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
    if !options.dry_run {
        let records = ctx.git.common_dir().join("model/uploads").join(pushed.place());
        let started = Instant::now();
        carry_out(ctx, &remote, &plan, &report, &records)?;
        report.time = started.elapsed();
        plan.complete.iter().for_each(|digest| pushed.insert(*digest));
        pushed.save()?;
    }
    lost_versions(&plan.lost, &found, &held).map_or(Ok(report), Err)
}

/// The objects of the store whose bytes are not what their names say, found out by reading them all.
pub(super) fn damaged_in_store(
    ctx: &Ctx,
    remote: &Remote,
    sizes: &HashMap<Digest, u64>,
) -> Result<Vec<Digest>> {
    let objects = sizes.iter().map(|(digest, size)| Download {
        path: digest.to_hex(),
        digest: *digest,
        size: *size,
        exact: true,
    });
    let objects: Vec<Download> = objects.collect();
    let bytes = sizes.values().copied().fold(0, u64::saturating_add);
    let step = ctx.progress.step("reading the store", objects.len() as u64, bytes);
    let check = |object: &Download| -> Result<Box<dyn Receive>> {
        Ok(Box::new(Check { digest: object.digest, hasher: Hasher::default() }))
    };
    let failed = remote.download(&objects, &check, step.as_ref())?;
    Ok(failed.into_iter().map(|(digest, _)| digest).collect())
}

fn compare_checksums(ctx: &Ctx, remote: &Remote, sizes: &HashMap<Digest, u64>) -> Result<Compared> {
    let here =
        |digest: &Digest, size: u64| ctx.cache.holds(digest, size).then(|| ctx.cache.object_path(digest));
    let suspects: Vec<Suspect> = sizes
        .iter()
        .map(|(digest, size)| Suspect { digest: *digest, size: *size, file: here(digest, *size) })
        .collect();
    remote.compare_checksums(&suspects)
}

/// Hashes what comes, and keeps nothing.
struct Check {
    digest: Digest,
    hasher: Hasher,
}

impl Receive for Check {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        match self.hasher.finish() == self.digest {
            true => Ok(()),
            false => Err(Error::new("wrong bytes")),
        }
    }
}

/// Opens the store and asks for its id. `None` for a folder that is not there yet and must not be made.
fn meet(
    ctx: &Ctx,
    found: &Found,
    options: &Options,
    pushed: &Pushed,
) -> Result<Option<(Remote, Option<String>)>> {
    remotes::require_approval(ctx, found, Purpose::Push)?;
    if !options.dry_run {
        let remote = remotes::open(ctx, found, Purpose::Push)?;
        let id = remote.id_or_create()?;
        return Ok(Some((remote, Some(id))));
    }
    if let RemoteUrl::Folder(path) = &found.url
        && !path.exists()
        && !pushed.is_known()
    {
        return Ok(None);
    }
    let remote = remotes::open(ctx, found, Purpose::Fetch)?;
    let id = remote.id()?;
    Ok(Some((remote, id)))
}

/// Sends stage after stage. What is damaged here stops neither its own stage nor what does not depend on it before.
fn carry_out(ctx: &Ctx, remote: &Remote, plan: &Plan, report: &Report, records: &Path) -> Result<()> {
    let step = ctx.progress.step("pushing", report.objects, report.bytes);
    for stage in &plan.stages {
        let mut damaged = remote.upload(stage, records, step.as_ref())?.into_iter();
        if let Some((_, first)) = damaged.next() {
            let more = damaged.count() as u64;
            return Err(match more {
                0 => first,
                more => first.about(format!("{} more were not sent either", human::count(more, "object"))),
            });
        }
    }
    Ok(())
}

impl Report {
    fn count(&mut self, plan: &Plan) {
        let to_send = plan.stages.iter().flatten();
        self.objects = to_send.clone().count() as u64;
        self.bytes = to_send.map(|upload| upload.size).fold(0, u64::saturating_add);
        self.repaired = plan.replaced;
    }
}

#[derive(Debug, Default)]
struct Plan {
    /// What to send, in stages: each only names what an earlier one brought.
    stages: Vec<Vec<Upload>>,
    /// Objects that the store has already, with wrong bytes.
    replaced: u64,
    /// Objects that the store holds once the plan is carried out.
    complete: Vec<Digest>,
    /// Versions that are neither here nor in the store.
    lost: Vec<RepoPath>,
}

/// What a store was found to hold.
#[derive(Debug, Default)]
struct Held {
    sizes: HashMap<Digest, u64>,
    /// Objects that are there with other bytes than their names say, whatever their size.
    wrong: HashSet<Digest>,
}

impl Held {
    /// Whether an object is there and, as far as anybody looked, right.
    fn is_right(&self, digest: &Digest, size: u64) -> bool {
        self.sizes.get(digest) == Some(&size) && !self.wrong.contains(digest)
    }

    /// As [`Held::is_right`], of an object whose size nobody here knows.
    fn may_be_right(&self, digest: &Digest) -> bool {
        self.sizes.contains_key(digest) && !self.wrong.contains(digest)
    }
}

type Versions = BTreeMap<Digest, (RepoPath, Pointer)>;

/// What the versions need that is not known to be in the store.
fn asked(ctx: &Ctx, versions: &Versions, pushed: &Pushed) -> Vec<Digest> {
    let mut asked = Vec::new();
    for (digest, (_, pointer)) in versions.iter().filter(|(digest, _)| !pushed.has(digest)) {
        asked.push(*digest);
        if let Ok(closure) = closure(ctx, pointer) {
            asked.extend(closure.digests().filter(|digest| !pushed.has(digest)));
        }
    }
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Compares what the versions need with what the store holds.
fn plan(ctx: &Ctx, versions: &Versions, held: &Held, pushed: &Pushed) -> Plan {
    let mut plan = Plan::default();
    let mut files: BTreeMap<Digest, Upload> = BTreeMap::new();
    // Deepest first: what a tree object names lies deeper than itself, in every directory that holds it.
    let mut trees: HashMap<Digest, (usize, Upload)> = HashMap::new();
    for (digest, (path, pointer)) in versions.iter().filter(|(digest, _)| !pushed.has(digest)) {
        let Ok(closure) = closure(ctx, pointer) else {
            // A directory whose lists of files are not here counts as there if its root is: roots are sent last.
            if !held.may_be_right(digest) {
                plan.lost.push(path.clone());
            }
            continue;
        };
        let unavailable = |digest: &Digest, size: u64| {
            !pushed.has(digest) && !held.is_right(digest, size) && !ctx.cache.holds(digest, size)
        };
        let is_lost = closure.files.iter().any(|file| unavailable(&file.digest, file.size));
        let upload = |digest: Digest, size: u64, inside: &str| {
            let is_there = pushed.has(&digest) || held.is_right(&digest, size);
            let wanted = !is_there && ctx.cache.holds(&digest, size);
            let path = if inside.is_empty() { path.to_string() } else { format!("{path}/{inside}") };
            let (file, replaces) = (ctx.cache.object_path(&digest), held.sizes.contains_key(&digest));
            wanted.then_some(Upload { path, digest, size, file, replaces })
        };
        for file in &closure.files {
            files.extend(upload(file.digest, file.size, &file.path).map(|upload| (file.digest, upload)));
        }
        if is_lost {
            plan.lost.push(path.clone());
            continue;
        }
        for tree in &closure.trees {
            if let Some(upload) = upload(tree.digest, tree.size, "") {
                let entry = trees.entry(tree.digest).or_insert((tree.depth, upload));
                entry.0 = entry.0.max(tree.depth);
            }
        }
        plan.complete.extend(closure.digests());
    }
    let mut by_depth: BTreeMap<usize, Vec<Upload>> = BTreeMap::new();
    for (depth, upload) in trees.into_values() {
        by_depth.entry(depth).or_default().push(upload);
    }
    let files: Vec<Upload> = files.into_values().collect();
    plan.stages = std::iter::once(files)
        .chain(by_depth.into_values().rev())
        .filter(|stage| !stage.is_empty())
        .collect();
    plan.replaced = plan.stages.iter().flatten().filter(|upload| upload.replaces).count() as u64;
    plan
}

fn lost_versions(lost: &[RepoPath], found: &Found, held: &Held) -> Option<Error> {
    let first = human::escape(lost.first()?.as_str());
    let others = match lost.len() {
        1 => String::new(),
        more => format!(" (and {} more)", more - 1),
    };
    let content = if held.wrong.is_empty() { "the content" } else { "the right content" };
    Some(
        Error::refused(format!("{first}{others}: {content} is neither here nor in {}", found.url)).hint(
            "push it from a clone that has it, or fetch it from another remote first: git model fetch --remote NAME",
        ),
    )
}
