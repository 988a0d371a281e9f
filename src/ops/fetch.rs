//! Bringing objects from a store into the cache.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pushed::Pushed;
use super::remotes::{self, Purpose};
use super::{Ctx, Selection};
use crate::cache::Incoming;
use crate::error::{Error, Result};
use crate::fsio::{self, Kind, Partial};
use crate::git::{Oid, RangeEnd};
use crate::human;
use crate::id::Digest;
use crate::pointer::Pointer;
use crate::remote::{Download, Receive, Remote};
use crate::repo_path::RepoPath;
use crate::tree::{self, FlatEntry, Node};

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Commits, branches or tags; none means the worktree's pointers (in a bare repository, HEAD).
    pub revisions: Vec<String>,
    /// Every version in the history of the revisions, too.
    pub history: bool,
    /// Only these artifacts, as the user typed them.
    pub paths: Vec<PathBuf>,
    /// A remote other than the default.
    pub remote: Option<String>,
    /// Only say what would be fetched.
    pub dry_run: bool,
}

/// What was fetched.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects that came.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long that took.
    pub time: Duration,
    /// Where from; `None` when nothing was needed.
    pub remote: Option<String>,
    /// Pointers in the history that cannot be read and were passed over.
    pub unreadable: Vec<Error>,
}

/// How much may be fetched without asking.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Whatever is needed.
    None,
    /// This many bytes.
    Bytes(u64),
}

/// Fetches what the options say.
pub fn fetch(ctx: &Ctx, options: &Options) -> Result<Report> {
    let selection = if ctx.git.is_bare() { Selection::all() } else { ctx.selection(&options.paths)? };
    let wanted = wanted(ctx, options, &selection)?;
    let mut fetcher = Fetcher::new(ctx, options.remote.as_deref(), wanted.commit.as_ref());
    let missing = fetcher.missing(&wanted.versions)?;
    if options.dry_run {
        fetcher.report.objects = missing.len() as u64;
        fetcher.report.bytes = total(&missing);
        fetcher.report.remote = None;
    } else {
        fetcher.fetch(&missing, Limit::None)?;
        fetcher.remember(&wanted.versions)?;
    }
    let mut report = fetcher.finish()?;
    report.unreadable = wanted.unreadable;
    Ok(report)
}

#[derive(Default)]
struct Wanted {
    versions: Vec<(RepoPath, Pointer)>,
    commit: Option<Oid>,
    unreadable: Vec<Error>,
}

fn wanted(ctx: &Ctx, options: &Options, selection: &Selection) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    let mut revisions = options.revisions.clone();
    if revisions.is_empty() && (ctx.git.is_bare() || options.history) {
        revisions.push("HEAD".to_owned());
    }
    if revisions.is_empty() {
        for artifact in ctx.require_artifacts(selection)? {
            wanted.versions.push((artifact.path, artifact.pointer?));
        }
    }
    for revision in &revisions {
        let id = ctx.git.require_commit(revision)?;
        wanted.versions.extend(ctx.commit_artifacts(&id, selection)?);
        if options.history {
            for entry in ctx.git.range_blobs(&[RangeEnd::Include(id.as_str().to_owned())])? {
                let Some(path) = entry.path.artifact().filter(|path| selection.contains(path)) else {
                    continue;
                };
                match ctx.blob_pointer(&entry.blob, &path) {
                    Ok(pointer) => wanted.versions.push((path, pointer)),
                    // One that never was readable must not stop the others.
                    Err(error) => wanted.unreadable.push(error),
                }
            }
        }
        wanted.commit.get_or_insert(id);
    }
    Ok(wanted)
}

fn total(downloads: &[Download]) -> u64 {
    downloads.iter().map(|download| download.size).fold(0, u64::saturating_add)
}

/// How many objects and bytes the cache lacks of what these pointers name, without asking a store: of a directory whose lists
/// of files are not here, as many as its pointer states.
pub(super) fn estimate(ctx: &Ctx, wanted: &[(RepoPath, Pointer)]) -> (u64, u64) {
    let mut missing: BTreeMap<Digest, (u64, u64)> = BTreeMap::new();
    for (_, pointer) in wanted {
        let Ok(closure) = closure(ctx, pointer) else {
            missing.insert(pointer.digest, (pointer.files(), pointer.size));
            continue;
        };
        let files = closure.files.iter().filter(|file| !ctx.cache.holds(&file.digest, file.size));
        missing.extend(files.map(|file| (file.digest, (1, file.size))));
    }
    missing
        .values()
        .fold((0, 0), |(objects, bytes), (more, size)| (objects + more, bytes.saturating_add(*size)))
}

/// Makes sure that the cache holds everything that these pointers name. No store is contacted when it does.
pub(super) fn ensure(
    ctx: &Ctx,
    wanted: &[(RepoPath, Pointer)],
    remote: Option<&str>,
    commit: Option<&Oid>,
    limit: Limit,
) -> Result<Report> {
    let mut fetcher = Fetcher::new(ctx, remote, commit);
    let missing = fetcher.missing(wanted)?;
    fetcher.fetch(&missing, limit)?;
    fetcher.remember(wanted)?;
    fetcher.finish()
}

/// The bytes of an object that is not an artifact's, such as a listing: from the cache, else from the default remote.
pub(super) fn ensure_small(ctx: &Ctx, what: &str, digest: Digest, max: u64) -> Result<Vec<u8>> {
    if let Some(bytes) = ctx.cache.read_small(&digest, max)? {
        return Ok(bytes);
    }
    let mut fetcher = Fetcher::new(ctx, None, None);
    fetcher.download(&[Download { path: what.to_owned(), digest, size: max, exact: false }], 0)?;
    fetcher.finish()?;
    ctx.cache
        .read_small(&digest, max)?
        .ok_or_else(|| Error::new(format!("{}: it vanished", human::escape(what))))
}

struct Fetcher<'a> {
    ctx: &'a Ctx,
    remote_name: Option<&'a str>,
    commit: Option<&'a Oid>,
    remote: Option<(Remote, Pushed)>,
    fetched: HashSet<Digest>,
    /// Objects that the store does not have, or has with wrong bytes. They do not stop the others.
    failed: Vec<Error>,
    report: Report,
}

impl<'a> Fetcher<'a> {
    fn new(ctx: &'a Ctx, remote_name: Option<&'a str>, commit: Option<&'a Oid>) -> Self {
        let (fetched, failed, report) = (HashSet::new(), Vec::new(), Report::default());
        Fetcher { ctx, remote_name, commit, remote: None, fetched, failed, report }
    }

    /// The files that are not in the cache, each once. Tree objects that are needed to know are fetched.
    fn missing(&mut self, wanted: &[(RepoPath, Pointer)]) -> Result<Vec<Download>> {
        let mut files: BTreeMap<Digest, Download> = BTreeMap::new();
        let mut level: BTreeMap<Digest, (String, usize)> = BTreeMap::new();
        let mut visited = HashSet::new();
        for (path, pointer) in wanted {
            if pointer.is_tree() {
                level.insert(pointer.digest, (path.as_str().to_owned(), 0));
            } else if !self.ctx.cache.holds(&pointer.digest, pointer.size) {
                let path = path.as_str().to_owned();
                files.insert(
                    pointer.digest,
                    Download { path, digest: pointer.digest, size: pointer.size, exact: true },
                );
            }
        }
        while !level.is_empty() {
            self.fetch_trees(&level)?;
            let mut below = BTreeMap::new();
            for (digest, (path, depth)) in std::mem::take(&mut level) {
                visited.insert(digest);
                // What could not be fetched is among the failures already.
                let Some(bytes) = self.ctx.cache.read_small(&digest, tree::MAX_OBJECT)? else { continue };
                let node = Node::parse(&bytes, depth).map_err(|error| error.about(human::escape(&path)))?;
                match node {
                    Node::Shards(shards) => {
                        below.extend(
                            shards.into_iter().map(|shard| (shard.digest, (path.clone(), depth + 1))),
                        );
                    }
                    Node::Entries(entries) => {
                        for entry in entries {
                            let path = format!("{path}/{}", entry.name);
                            if entry.kind == Kind::Tree {
                                below.insert(entry.digest, (path, 0));
                            } else if !self.ctx.cache.holds(&entry.digest, entry.size) {
                                files.insert(
                                    entry.digest,
                                    Download { path, digest: entry.digest, size: entry.size, exact: true },
                                );
                            }
                        }
                    }
                }
            }
            below.retain(|digest, _| !visited.contains(digest));
            level = below;
        }
        Ok(files.into_values().collect())
    }

    fn fetch_trees(&mut self, level: &BTreeMap<Digest, (String, usize)>) -> Result<()> {
        let mut missing = Vec::new();
        for (digest, (path, _)) in level {
            // Reading checks the bytes, and moves damaged ones out of the way.
            if self.ctx.cache.read_small(digest, tree::MAX_OBJECT)?.is_none() {
                missing.push(Download {
                    path: path.clone(),
                    digest: *digest,
                    size: tree::MAX_OBJECT,
                    exact: false,
                });
            }
        }
        self.download(&missing, 0)
    }

    /// Fetches files, if they are within the limit and there is room for them.
    fn fetch(&mut self, missing: &[Download], limit: Limit) -> Result<()> {
        let bytes: u64 = missing.iter().map(|download| download.size).fold(0, u64::saturating_add);
        if let Limit::Bytes(limit) = limit
            && bytes > limit
        {
            return Err(Error::new(format!(
                "{} to fetch, more than the {} that a hook fetches by itself",
                human::bytes(bytes),
                human::bytes(limit)
            ))
            .hint("git model pull"));
        }
        if !missing.is_empty() {
            fsio::create_dir_all(self.ctx.cache.root(), self.ctx.settings.durability)?;
            let allocated = |download: &Download| self.ctx.cache.allocated(&download.digest, download.size);
            let large = missing.iter().filter(|download| download.size > fsio::BLOCK);
            let there: u64 = large.map(allocated).fold(0, u64::saturating_add);
            fsio::require_space(self.ctx.cache.root(), bytes.saturating_sub(there), "what is to be fetched")?;
        }
        self.download(missing, bytes)
    }

    fn download(&mut self, missing: &[Download], bytes: u64) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        if self.remote.is_none() {
            let found = remotes::find(self.ctx, self.remote_name, self.commit).map_err(|error| {
                let first = human::escape(&missing[0].path);
                Error::new(format!("{first}: its content is not here, and it cannot be fetched"))
                    .caused_by(error)
                    .hint("git model remote add NAME URL names the store that has it")
            })?;
            let first = || human::escape(&missing[0].path);
            let remote =
                remotes::open(self.ctx, &found, Purpose::Fetch).map_err(|error| error.about(first()))?;
            let mut pushed = Pushed::load(self.ctx.git.common_dir(), &found)?;
            match remote.id().map_err(|error| error.about(first()))? {
                Some(id) => drop(pushed.met(&id)),
                None => {
                    return Err(Error::new(format!("{}: nothing was ever pushed to it", found.url))
                        .hint("check the URL; git model push fills it from a clone that has the content"));
                }
            }
            self.report.remote = Some(found.name);
            self.remote = Some((remote, pushed));
        }
        let (remote, _) = self.remote.as_ref().expect("it was opened above");
        let step = self.ctx.progress.step("fetching", missing.len() as u64, bytes);
        let batch = self.ctx.cache.batch()?;
        let receive = |download: &Download| -> Result<Box<dyn Receive + '_>> {
            Ok(Box::new(IntoCache(batch.incoming(download.digest, download.size, download.exact))))
        };
        let started = Instant::now();
        let failed = remote.download(missing, &receive, step.as_ref());
        // What came is kept even when something else did not.
        let stored = batch.commit()?;
        self.report.time += started.elapsed();
        self.report.objects += stored.objects;
        self.report.bytes += stored.bytes;
        let failed = failed?;
        let lost: HashSet<Digest> = failed.iter().map(|(digest, _)| *digest).collect();
        self.fetched
            .extend(missing.iter().map(|download| download.digest).filter(|digest| !lost.contains(digest)));
        self.failed.extend(failed.into_iter().map(|(_, error)| error));
        Ok(())
    }

    /// What was done; an error if the store did not have everything.
    fn finish(mut self) -> Result<Report> {
        let more = self.failed.len().saturating_sub(1);
        match self.failed.drain(..).next() {
            None => Ok(self.report),
            Some(first) if more == 0 => Err(first),
            Some(first) => Err(first
                .about(format!("{} more could not be fetched either", human::count(more as u64, "object")))),
        }
    }

    /// Notes what the store was seen to hold completely, so that it is not sent or asked for later.
    fn remember(&mut self, wanted: &[(RepoPath, Pointer)]) -> Result<()> {
        let Some((_, pushed)) = &mut self.remote else { return Ok(()) };
        for (_, pointer) in wanted {
            let Ok(closure) = closure(self.ctx, pointer) else { continue };
            if closure.digests().all(|digest| pushed.has(digest) || self.fetched.contains(digest)) {
                closure.digests().for_each(|digest| pushed.insert(*digest));
            }
        }
        pushed.save()
    }
}

/// Everything that a pointer stands for.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// Files and links.
    pub files: Vec<FlatEntry>,
    /// Tree objects, each once.
    pub trees: Vec<TreeObject>,
}

/// A tree object of an artifact.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreeObject {
    /// Its name.
    pub digest: Digest,
    /// Its own bytes.
    pub size: u64,
    /// What it names lies deeper, so sending the deepest first sends nothing before what it names.
    pub depth: usize,
}

impl Closure {
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.files.iter().map(|file| &file.digest).chain(self.trees.iter().map(|tree| &tree.digest))
    }
}

/// Lists everything that a pointer stands for, from tree objects in the cache.
pub(super) fn closure(ctx: &Ctx, pointer: &Pointer) -> Result<Closure> {
    if !pointer.is_tree() {
        let file =
            FlatEntry { path: String::new(), kind: Kind::File, digest: pointer.digest, size: pointer.size };
        return Ok(Closure { files: vec![file], trees: Vec::new() });
    }
    let mut trees = Vec::new();
    let mut files = listing(ctx, pointer, &mut trees)?;
    files.retain(|entry| entry.kind != Kind::Tree);
    // An object that occurs several times counts at its deepest place.
    trees.sort_unstable_by_key(|tree| (tree.digest, std::cmp::Reverse(tree.depth)));
    trees.dedup_by_key(|tree| tree.digest);
    Ok(Closure { files, trees })
}

/// The files and directories of a directory artifact, from tree objects in the cache; notes the objects that were read.
pub(super) fn listing(ctx: &Ctx, pointer: &Pointer, read: &mut Vec<TreeObject>) -> Result<Vec<FlatEntry>> {
    let entries = tree::flatten(pointer.digest, pointer.files(), &mut |digest, depth| {
        let bytes = ctx.cache.read_small(digest, tree::MAX_OBJECT)?.ok_or_else(|| {
            Error::new("its list of files is not in the cache").hint("git model fetch brings it")
        })?;
        read.push(TreeObject { digest: *digest, size: bytes.len() as u64, depth });
        Ok(bytes)
    })?;
    let sizes: u64 = entries
        .iter()
        .filter(|entry| entry.kind != Kind::Tree)
        .map(|entry| entry.size)
        .fold(0, u64::saturating_add);
    if sizes != pointer.size {
        return Err(Error::new("its pointer states another size than its files have"));
    }
    Ok(entries)
}

struct IntoCache<'b, 'a>(Incoming<'b, 'a>);

impl Receive for IntoCache<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }

    fn in_pieces(&mut self) -> Result<Option<Arc<Partial>>> {
        self.0.in_pieces()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish().map(drop)
    }
}
