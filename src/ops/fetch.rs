//! Bringing objects from a store into the cache.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::pushed::Pushed;
use super::remotes::{self, Purpose};
use super::{Ctx, Selection};
use crate::cache::Incoming;
use crate::error::{Error, Result};
use crate::fsio::{self, Kind};
use crate::git::{Oid, RangeEnd};
use crate::human;
use crate::id::Digest;
use crate::pointer::Pointer;
use crate::remote::{Download, Receive, Remote};
use crate::repo_path::RepoPath;
use crate::tree::{self, FlatEntry, Node};

/// Artifacts with a pointer each.
type Versions = Vec<(RepoPath, Pointer)>;

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
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Objects that came.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where from; `None` when nothing was needed.
    pub remote: Option<String>,
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
    let (wanted, commit) = wanted(ctx, options, &selection)?;
    if options.dry_run {
        let mut fetcher = Fetcher::new(ctx, options.remote.as_deref(), commit.as_ref());
        let missing = fetcher.missing(&wanted)?;
        let bytes = missing.iter().map(|download| download.size).sum();
        return Ok(Report { objects: missing.len() as u64, bytes, remote: None });
    }
    ensure(ctx, &wanted, options.remote.as_deref(), commit.as_ref(), Limit::None)
}

fn wanted(ctx: &Ctx, options: &Options, selection: &Selection) -> Result<(Versions, Option<Oid>)> {
    let mut revisions = options.revisions.clone();
    if revisions.is_empty() && (ctx.git.is_bare() || options.history) {
        revisions.push("HEAD".to_owned());
    }
    if revisions.is_empty() {
        let artifacts = ctx.require_artifacts(selection)?;
        let wanted = artifacts.into_iter().map(|artifact| Ok((artifact.path, artifact.pointer?)));
        return Ok((wanted.collect::<Result<_>>()?, None));
    }
    let mut wanted = Vec::new();
    let mut commit = None;
    for revision in &revisions {
        let id = ctx.git.require_commit(revision)?;
        wanted.extend(ctx.commit_artifacts(&id, selection)?);
        if options.history {
            for entry in ctx.git.range_pointers(&[RangeEnd::Include(id.as_str().to_owned())])? {
                if let Some(path) = entry.path.artifact().filter(|path| selection.contains(path)) {
                    let pointer = ctx.blob_pointer(&entry.blob, &path)?;
                    wanted.push((path, pointer));
                }
            }
        }
        commit.get_or_insert(id);
    }
    Ok((wanted, commit))
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
    Ok(fetcher.report)
}

struct Fetcher<'a> {
    ctx: &'a Ctx,
    remote_name: Option<&'a str>,
    commit: Option<&'a Oid>,
    remote: Option<(Remote, Pushed)>,
    fetched: HashSet<Digest>,
    report: Report,
}

impl<'a> Fetcher<'a> {
    fn new(ctx: &'a Ctx, remote_name: Option<&'a str>, commit: Option<&'a Oid>) -> Self {
        Fetcher { ctx, remote_name, commit, remote: None, fetched: HashSet::new(), report: Report::default() }
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
                files.insert(pointer.digest, Download { path, digest: pointer.digest, size: pointer.size });
            }
        }
        while !level.is_empty() {
            self.fetch_trees(&level)?;
            let mut below = BTreeMap::new();
            for (digest, (path, depth)) in std::mem::take(&mut level) {
                visited.insert(digest);
                match Node::parse(&self.tree_object(&digest, &path)?, depth)? {
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
                                    Download { path, digest: entry.digest, size: entry.size },
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

    fn tree_object(&self, digest: &Digest, path: &str) -> Result<Vec<u8>> {
        self.ctx.cache.read_small(digest, tree::MAX_OBJECT)?.ok_or_else(|| {
            Error::new(format!("{}: its list of files is damaged in the cache", human::escape(path)))
                .hint("run the same command again to fetch it")
        })
    }

    fn fetch_trees(&mut self, level: &BTreeMap<Digest, (String, usize)>) -> Result<()> {
        let mut missing = Vec::new();
        for (digest, (path, _)) in level {
            // Reading checks the bytes, and moves damaged ones out of the way.
            if self.ctx.cache.read_small(digest, tree::MAX_OBJECT)?.is_none() {
                missing.push(Download { path: path.clone(), digest: *digest, size: tree::MAX_OBJECT });
            }
        }
        self.download(&missing, 0)
    }

    /// Fetches files, if they are within the limit and there is room for them.
    fn fetch(&mut self, missing: &[Download], limit: Limit) -> Result<()> {
        let bytes: u64 = missing.iter().map(|download| download.size).sum();
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
            fsio::require_space(self.ctx.cache.root(), bytes, "what is to be fetched")?;
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
            let remote = remotes::open(self.ctx, &found, Purpose::Fetch)?;
            let mut pushed = Pushed::load(self.ctx.git.common_dir(), &found.url)?;
            match remote.id()? {
                Some(id) => pushed.met(&id),
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
            Ok(Box::new(IntoCache(batch.incoming(download.digest, download.size)?)))
        };
        let result = remote.download(missing, &receive, step.as_ref(), &self.ctx.interrupt);
        // What came is kept even when something else did not.
        let stored = batch.commit()?;
        self.report.objects += stored.objects;
        self.report.bytes += stored.bytes;
        self.fetched.extend(missing.iter().map(|download| download.digest));
        result
    }

    /// Notes what the store was seen to hold completely, so that it is not sent or asked for later.
    fn remember(&mut self, wanted: &[(RepoPath, Pointer)]) -> Result<()> {
        let Some((_, pushed)) = &mut self.remote else { return Ok(()) };
        for (_, pointer) in wanted {
            let closure = closure(self.ctx, pointer)?;
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
    /// Tree objects, each after those that it names.
    pub trees: Vec<(Digest, u64)>,
}

impl Closure {
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.files.iter().map(|file| &file.digest).chain(self.trees.iter().map(|(digest, _)| digest))
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
    // Objects were read parents first.
    trees.reverse();
    let mut seen = HashSet::new();
    trees.retain(|(digest, _)| seen.insert(*digest));
    Ok(Closure { files, trees })
}

/// The files and directories of a directory artifact, from tree objects in the cache; notes the objects that were read.
pub(super) fn listing(ctx: &Ctx, pointer: &Pointer, read: &mut Vec<(Digest, u64)>) -> Result<Vec<FlatEntry>> {
    let entries = tree::flatten(pointer.digest, &mut |digest| {
        let bytes = ctx.cache.read_small(digest, tree::MAX_OBJECT)?.ok_or_else(|| {
            Error::new("its list of files is not in the cache").hint("git model fetch brings it")
        })?;
        read.push((*digest, bytes.len() as u64));
        Ok(bytes)
    })?;
    let sizes: u64 = entries.iter().filter(|entry| entry.kind != Kind::Tree).map(|entry| entry.size).sum();
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

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish().map(drop)
    }
}
