//! Writing the files of a release into a directory: verified, complete or not there, and again for nothing when it is there.
//!
//! `model-info.json` is written last: a directory that has it is complete.

mod arriving;
mod place;
mod stage;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::Ctx;
use super::bundle;
use super::remotes::{self, Purpose};
use super::resolve::{FileInfo, Resolved};
use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, Kind, Reflink, Writing};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::lineage::Data;
use crate::model_info::{self, InfoFile, ModelInfo};
use crate::model_yaml::Role;
use crate::pointer::{self, Content, Pointer};
use crate::progress::{Interrupt, Progress, Step};
use crate::remote::{Download, Receive, Remote, Traffic};
use crate::remote_url::RemoteUrl;
use crate::repo_path::RepoPath;
use arriving::Arriving;
use place::{Ours, Place};
use stage::{Made, Stage};

/// Where files are made, inside of the directory or beside it.
const PART: &str = ".git-model-part";
/// Below that, where large files arrive in pieces.
const PIECES: &str = ".git-model-pieces";
/// Files of git that are larger come from the store, in pieces.
const MAX_OF_GIT: u64 = 16 * 1024 * 1024;

/// What to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The directory.
    pub dir: PathBuf,
    /// Only files of these roles; all if empty.
    pub only: Vec<Role>,
    /// The data snapshots that are tracked, too.
    pub data: bool,
    /// Replace files that are in the way.
    pub force: bool,
}

/// What was written.
#[derive(Debug)]
pub struct Report {
    /// What the directory now is.
    pub info: ModelInfo,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that were fetched.
    pub fetched: u64,
    /// Whether everything was there already.
    pub up_to_date: bool,
}

/// Where the bytes come from.
pub enum Origin<'a> {
    /// The store, as this repository knows it.
    Store(&'a Ctx),
    /// What a lock file says; no repository.
    Lock {
        /// How the store that the lock names is asked.
        traffic: &'a Traffic,
        /// Where progress is reported.
        progress: &'a dyn Progress,
        /// Set when the user wants to stop.
        interrupt: &'a Interrupt,
    },
}

impl Origin<'_> {
    pub(super) fn progress(&self) -> &dyn Progress {
        match self {
            Origin::Store(ctx) => ctx.progress.as_ref(),
            Origin::Lock { progress, .. } => *progress,
        }
    }

    pub(super) fn interrupt(&self) -> &Interrupt {
        match self {
            Origin::Store(ctx) => &ctx.interrupt,
            Origin::Lock { interrupt, .. } => interrupt,
        }
    }

    pub(super) fn durability(&self) -> Durability {
        match self {
            Origin::Store(ctx) => ctx.settings.durability,
            Origin::Lock { .. } => Durability::Full,
        }
    }

    pub(super) fn cache(&self) -> Option<&Cache> {
        match self {
            Origin::Store(ctx) => Some(&ctx.cache),
            Origin::Lock { .. } => None,
        }
    }
}

/// One file to write.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Where, below the directory.
    pub(super) path: RepoPath,
    /// The repository path that it has in the version.
    pub(super) source: RepoPath,
    /// Its content.
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
    /// Whether its owner may execute it.
    pub(super) executable: bool,
    /// A URL that anybody can use for a while.
    pub(super) presigned: Option<String>,
}

impl Wanted {
    /// A file of the bundle, at its own path.
    pub(super) fn of(file: &FileInfo) -> Wanted {
        Wanted {
            path: file.path.clone(),
            source: file.path.clone(),
            digest: file.sha256,
            size: file.size,
            executable: file.executable,
            presigned: file.presigned_url.clone(),
        }
    }
}

/// Writes a resolved version into a directory.
pub fn get(origin: &Origin<'_>, resolved: &Resolved, options: &Options) -> Result<Report> {
    let place = Place { dir: &options.dir, durability: origin.durability() };
    place.require_directory()?;
    let wanted = wanted(origin, resolved, options)?;
    let info = ModelInfo { files: wanted.iter().map(of_wanted).collect(), ..resolved.info() };
    let bytes = total(&wanted);
    let mut report = Report { info, files: wanted.len() as u64, bytes, fetched: 0, up_to_date: false };
    if place.info()?.as_ref() == Some(&report.info) {
        let ours = Ours::new(Some(&report.info), true);
        if place.not_right(&wanted, &ours, origin)?.is_empty() {
            Stage::clear_left(&place)?;
            report.up_to_date = true;
            return Ok(report);
        }
    }
    let stage = Stage::take(&place, origin)?;
    // From here on nobody else changes the directory.
    let complete = place.info()?;
    let unchanged = complete.as_ref() == Some(&report.info);
    // What differs from the very version that is there is damage, and is mended.
    let mend = complete.as_ref().is_some_and(|there| there.is_of_same_version(&report.info));
    let before = complete.or(place.claim()?);
    let ours = Ours::new(before.as_ref(), mend);
    let (to_make, in_way): (Vec<Wanted>, Vec<Option<Error>>) =
        place.not_right(&wanted, &ours, origin)?.into_iter().unzip();
    if unchanged && to_make.is_empty() {
        fsio::remove_all_if_there(&stage.path)?;
        report.up_to_date = true;
        return Ok(report);
    }
    if !options.force
        && let Some(error) = in_way.into_iter().flatten().next()
    {
        return Err(error);
    }
    // An interrupted run of another version may have left a file where a folder goes now, or the reverse.
    let staged = Place { dir: &stage.path, durability: place.durability };
    to_make.iter().try_for_each(|file| staged.make_way(&file.path, true))?;
    fsio::require_space(
        &stage.path,
        total(&to_make).saturating_sub(already(&stage.path, &to_make)),
        "the files of the release",
    )?;
    report.fetched = fill(origin, resolved, &stage.path, &to_make, Clones::Hash)?;
    let made = Made::look(&stage.path, &to_make)?;
    place.publish(&stage.path, &to_make, &made, &report.info, before.as_ref(), options.force)?;
    Ok(report)
}

fn total(files: &[Wanted]) -> u64 {
    files.iter().map(|file| file.size).fold(0, u64::saturating_add)
}

fn of_wanted(file: &Wanted) -> InfoFile {
    InfoFile { path: file.path.clone(), sha256: file.digest, size: file.size, executable: file.executable }
}

fn wanted(origin: &Origin<'_>, resolved: &Resolved, options: &Options) -> Result<Vec<Wanted>> {
    let role_wanted =
        |file: &&FileInfo| options.only.is_empty() || options.only.iter().any(|role| role.key() == file.role);
    let mut files: BTreeMap<RepoPath, Wanted> = BTreeMap::new();
    for file in resolved.files.iter().filter(role_wanted) {
        files.insert(file.path.clone(), Wanted::of(file));
    }
    if options.data {
        let Origin::Store(ctx) = origin else {
            return Err(Error::usage("--with data needs the repository; a lock file lists the bundle only"));
        };
        let commit = ctx.git.parse_id(&resolved.commit)?;
        for data in &resolved.data {
            files.extend(data_files(ctx, &commit, data)?.into_iter().map(|file| (file.path.clone(), file)));
        }
    }
    if files.is_empty() {
        return Err(Error::usage("the release has no files of these roles"));
    }
    if let Some(path) = files.keys().find(|path| is_reserved(path)) {
        return Err(Error::refused(format!(
            "{}: git model get keeps files of its own there",
            human::escape(path.as_str())
        ))
        .hint("release the model with another name for it"));
    }
    Ok(files.into_values().collect())
}

/// Whether a path is one that is made here for other purposes, also where letter case does not count.
fn is_reserved(path: &RepoPath) -> bool {
    let is = |name: &str, reserved: &str| name.eq_ignore_ascii_case(reserved);
    let first = path.as_str().split('/').next().unwrap_or_default();
    is(path.as_str(), model_info::FILE_NAME) || is(first, PART) || is(first, PIECES)
}

/// The files of a tracked snapshot; one outside has none here.
fn data_files(ctx: &Ctx, commit: &Oid, data: &Data) -> Result<Vec<Wanted>> {
    let Some(path) = &data.path else { return Ok(Vec::new()) };
    let shown = || format!("data `{}`", human::escape(&data.name));
    let one = |path: RepoPath, digest, size, executable| Wanted {
        source: path.clone(),
        path,
        digest,
        size,
        executable,
        presigned: None,
    };
    let Some(bytes) = ctx.git.blob_at(commit, path.pointer().as_str(), pointer::MAX_BYTES)? else {
        return Err(Error::new(format!("{}: {path} is a file in git, not an artifact", shown()))
            .hint("get it with git; --with data is for artifacts"));
    };
    let pointer = Pointer::parse(&bytes, path.pointer().as_str())?;
    if !pointer.is_tree() {
        let executable = pointer.content == Content::File { executable: true };
        return Ok(vec![one(path.clone(), pointer.digest, pointer.size, executable)]);
    }
    let entries =
        bundle::tree_listing(ctx, path, &pointer, Some(commit)).map_err(|error| error.about(shown()))?;
    let files = entries.into_iter().filter(|entry| matches!(entry.kind, Kind::File | Kind::Executable));
    files
        .map(|entry| {
            Ok(one(path.join(&entry.path)?, entry.digest, entry.size, entry.kind == Kind::Executable))
        })
        .collect()
}

/// Bytes that an earlier, interrupted run brought.
fn already(stage: &Path, wanted: &[Wanted]) -> u64 {
    let size = |file: &Wanted| {
        let complete = fs::metadata(stage.join(file.path.as_path())).map_or(0, |found| found.len());
        let begun = fsio::allocated(&stage.join(PIECES), &file.digest, file.size);
        complete.max(begun).min(file.size)
    };
    wanted.iter().map(size).fold(0, u64::saturating_add)
}

/// What to do about a file that shares its blocks with the cache. Bytes that are copied or fetched are hashed on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clones {
    /// Read it, and see that it is what its name says.
    Hash,
    /// Believe the cache: whoever reads the file checks it against its digest again.
    Trust,
}

/// Makes every file in the staging directory, from the cache, from git, or from the store; returns how many bytes had to be
/// fetched.
pub(super) fn fill(
    origin: &Origin<'_>,
    resolved: &Resolved,
    stage: &Path,
    wanted: &[Wanted],
    clones: Clones,
) -> Result<u64> {
    let durability = origin.durability();
    let interrupt = origin.interrupt();
    for file in wanted {
        if let Some(parent) = stage.join(file.path.as_path()).parent() {
            fsio::create_dir_all(parent, Durability::Off)?;
        }
    }
    let missing: Mutex<Vec<&Wanted>> = Mutex::default();
    let cache = origin.cache();
    wanted.par_iter().try_for_each(|file| -> Result<()> {
        interrupt.check()?;
        let target = stage.join(file.path.as_path());
        if is_right(&target, file, interrupt)?
            || from_cache(cache, file, &target, durability, clones, interrupt)?
        {
            return Ok(());
        }
        missing.lock().expect("no thread panicked").push(file);
        Ok(())
    })?;
    let mut missing = missing.into_inner().expect("no thread panicked");
    let mut left = Vec::new();
    for file in missing {
        if !from_git(origin, resolved, file, &stage.join(file.path.as_path()))? {
            left.push(file);
        }
    }
    missing = left;
    missing.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = missing.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let step = origin.progress().step("fetching", missing.len() as u64, bytes);
    let (linked, stored): (Vec<&Wanted>, Vec<&Wanted>) = missing
        .into_iter()
        .partition(|file| matches!(origin, Origin::Lock { .. }) && file.presigned.is_some());
    let fetch = |files: &[&Wanted], open: &dyn Fn() -> Result<Remote>| match files {
        [] => Ok(()),
        files => fetch(&open()?, files, stage, durability, step.as_ref()),
    };
    fetch(&linked, &|| open_links(origin, resolved, &linked))?;
    fetch(&stored, &|| {
        open_store(origin, resolved).map_err(|error| {
            error.about(format!("{}: its content is not here", human::escape(stored[0].source.as_str())))
        })
    })?;
    Ok(bytes)
}

fn is_right(path: &Path, file: &Wanted, interrupt: &Interrupt) -> Result<bool> {
    Ok(read(path, &[file.size], interrupt)? == Some((file.digest, file.executable)))
}

/// Content and mode of what is at a path, if it is a file of one of these sizes.
fn read(path: &Path, sizes: &[u64], interrupt: &Interrupt) -> Result<Option<(Digest, bool)>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && sizes.contains(&found.len()) => {
            File::open(path).context(path, "open")?
        }
        _ => return Ok(None),
    };
    let executable = found.metadata().context(path, "read")?.permissions().mode() & 0o100 != 0;
    let (digest, _) = fsio::hash_file(&found, &|_| interrupt.check_io()).context(path, "read")?;
    Ok(Some((digest, executable)))
}

fn from_cache(
    cache: Option<&Cache>,
    file: &Wanted,
    target: &Path,
    durability: Durability,
    clones: Clones,
    interrupt: &Interrupt,
) -> Result<bool> {
    let Some(cache) = cache.filter(|cache| cache.holds(&file.digest, file.size)) else { return Ok(false) };
    let Some(object) = cache.open(&file.digest)? else { return Ok(false) };
    let arriving = Arriving::new(file, target, durability)?;
    let on_bytes = |_| interrupt.check_io();
    let digest = if fsio::reflink(&object, &arriving.file) == Reflink::Shared {
        if clones == Clones::Trust {
            arriving.keep()?;
            return Ok(true);
        }
        let copy = File::open(&arriving.part).context(&arriving.part, "open")?;
        fsio::hash_file(&copy, &on_bytes).context(&arriving.part, "read")?.0
    } else {
        fsio::copy_hashing(&object, &arriving.file, file.size, durability.writing(), &on_bytes)
            .context(&arriving.part, "write")?
            .0
    };
    if digest != file.digest {
        // The cached bytes are wrong; they go into quarantine, and the right ones are fetched.
        cache.quarantine(&file.digest)?;
        return Ok(false);
    }
    arriving.keep()?;
    Ok(true)
}

/// Takes a file that git has. A mirror has none of them, and would ask for each.
fn from_git(origin: &Origin<'_>, resolved: &Resolved, file: &Wanted, target: &Path) -> Result<bool> {
    let Origin::Store(ctx) = origin else { return Ok(false) };
    if ctx.git.is_bare() || file.size > MAX_OF_GIT {
        return Ok(false);
    }
    let commit = ctx.git.parse_id(&resolved.commit)?;
    // Whatever is wrong there, the store has the right bytes.
    let bytes = ctx.git.blob_at(&commit, file.source.as_str(), file.size).ok().flatten();
    let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == file.digest) else { return Ok(false) };
    let mut arriving = Box::new(Arriving::new(file, target, origin.durability())?);
    arriving.write(&bytes)?;
    arriving.finish()?;
    Ok(true)
}

fn fetch(
    remote: &Remote,
    files: &[&Wanted],
    stage: &Path,
    durability: Durability,
    step: &dyn Step,
) -> Result<()> {
    // Objects of several paths are fetched once each and copied.
    let mut places: BTreeMap<Digest, Vec<&Wanted>> = BTreeMap::new();
    for file in files {
        places.entry(file.digest).or_default().push(file);
    }
    let download = |(digest, of): (&Digest, &Vec<&Wanted>)| Download {
        path: of[0].source.to_string(),
        digest: *digest,
        size: of[0].size,
        exact: true,
    };
    let downloads: Vec<Download> = places.iter().map(download).collect();
    let receive = |download: &Download| -> Result<Box<dyn Receive>> {
        let file = places[&download.digest][0];
        let mut arriving = Arriving::new(file, &stage.join(file.path.as_path()), durability)?;
        arriving.pieces_in = Some(stage.join(PIECES));
        Ok(Box::new(arriving))
    };
    let failed = remote.download(&downloads, &receive, step)?;
    if let Some((_, error)) = failed.into_iter().next() {
        return Err(error);
    }
    for of in places.values() {
        let first = stage.join(of[0].path.as_path());
        for file in &of[1..] {
            let arriving = Arriving::new(file, &stage.join(file.path.as_path()), durability)?;
            let source = File::open(&first).context(&first, "open")?;
            fsio::copy_hashing(&source, &arriving.file, file.size, Writing::Later, &|_| Ok(()))
                .context(&first, "copy")?;
            arriving.keep()?;
        }
    }
    Ok(())
}

fn open_store(origin: &Origin<'_>, resolved: &Resolved) -> Result<Remote> {
    match origin {
        Origin::Store(ctx) => {
            let commit = ctx.git.parse_id(&resolved.commit)?;
            let found = remotes::find(ctx, None, Some(&commit))?;
            remotes::open(ctx, &found, Purpose::Fetch)
        }
        Origin::Lock { traffic, interrupt, .. } => {
            remotes::open_stated(stated_store(resolved)?, (*traffic).clone(), (*interrupt).clone())
        }
    }
}

/// The files' own URLs, which a lock file may name.
fn open_links(origin: &Origin<'_>, resolved: &Resolved, files: &[&Wanted]) -> Result<Remote> {
    let Origin::Lock { traffic, interrupt, .. } = origin else {
        unreachable!("only files of a lock are fetched by their URLs")
    };
    let links = files.iter().filter_map(|file| Some((file.digest, file.presigned.clone()?))).collect();
    let url = RemoteUrl::parse(stated_store(resolved)?)?;
    Remote::open_links(&url, &links, traffic, (*interrupt).clone())
}

fn stated_store(resolved: &Resolved) -> Result<&str> {
    resolved.store.as_deref().ok_or_else(|| Error::new("the lock file names no store"))
}
