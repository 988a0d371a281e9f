//! What an artifact's content is right now, reading only what may have changed.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::Ctx;
use crate::cache::{Batch, Cache};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Clock, Kind};
use crate::human;
use crate::id::Digest;
use crate::pointer::{Content, MAX_BYTES, Pointer};
use crate::progress::{Interrupt, Step};
use crate::repo_path::{POINTER_SUFFIX, RepoPath};
use crate::tree::{self, FlatEntry};
use crate::worktree::{LastParent, Record, RecordEntry, Records, Root, Scan, Scanned, scan};

/// How often a file that changes while it is read is tried again.
const ATTEMPTS: u32 = 3;

/// What reading a changed file is good for.
#[derive(Clone, Copy)]
pub(super) enum Reading<'a> {
    /// To know whether the content is one of a few that are known; stops early where the size tells.
    Compare(&'a Pointer),
    /// To know what it is.
    Hash,
    /// To keep it: everything that is read, or missing in the cache, goes into the batch.
    Keep(&'a Batch<'a>),
}

/// What is at an artifact's path.
#[derive(Debug)]
pub(super) enum OnDisk {
    /// Nothing.
    Absent,
    /// Content that is known now.
    Known(Seen),
    /// Content that was not read to the end, because it cannot be what it was compared with.
    Different,
}

/// Content whose digest is known.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What a pointer to it says.
    pub pointer: Pointer,
    /// Its files with their stats.
    pub entries: Arc<Vec<RecordEntry>>,
    /// Whether nothing had to be read.
    pub proved: bool,
}

impl Seen {
    /// Whether it is a directory with nothing in it.
    pub(super) fn is_empty_dir(&self) -> bool {
        self.pointer.is_tree() && self.entries.is_empty()
    }

    /// Whether the record says this of content that was added or synced as it is.
    pub(super) fn is_recorded(&self, record: Option<&Record>) -> bool {
        let same =
            |record: &Record| record.base == self.pointer.digest && record.current == self.pointer.digest;
        self.proved && record.is_some_and(same)
    }

    /// The record of this content as what was added or synced.
    pub(super) fn record(&self, path: &RepoPath, base: Digest) -> Record {
        Record {
            path: path.clone(),
            is_tree: self.pointer.is_tree(),
            base,
            current: self.pointer.digest,
            size: self.pointer.size,
            files: self.pointer.files(),
            entries: Arc::clone(&self.entries),
        }
    }
}

/// Looks at artifacts of one worktree.
///
/// Holds no repository handle, so that all cores can share it.
pub(super) struct Observer<'a> {
    cache: &'a Cache,
    interrupt: &'a Interrupt,
    model_dir: PathBuf,
    pub root: &'a Root,
    pub records: &'a Records,
    step: &'a dyn Step,
}

impl Ctx {
    /// Prepares to look at artifacts.
    pub(super) fn observer<'a>(
        &'a self,
        root: &'a Root,
        records: &'a Records,
        step: &'a dyn Step,
    ) -> Result<Observer<'a>> {
        let model_dir = self.model_dir()?;
        Ok(Observer { cache: &self.cache, interrupt: &self.interrupt, model_dir, root, records, step })
    }
}

impl Observer<'_> {
    /// Finds out what is at `path`, and what is known about it: the record is read while the directories are listed.
    pub(super) fn recall(
        &self,
        path: &RepoPath,
        reading: Reading<'_>,
    ) -> Result<(Option<Record>, Result<OnDisk>)> {
        let (scan, record) = rayon::join(|| scan(self.root, path), || self.records.load(path));
        let record = record?;
        let found = self.look_from(scan, path, record.as_ref(), reading);
        Ok((record, found))
    }

    /// Finds out what is at `path`. `record` is what is known about it.
    pub(super) fn look(
        &self,
        path: &RepoPath,
        record: Option<&Record>,
        reading: Reading<'_>,
    ) -> Result<OnDisk> {
        self.look_from(scan(self.root, path), path, record, reading)
    }

    fn look_from(
        &self,
        mut scanned: Result<Option<Scan>>,
        path: &RepoPath,
        record: Option<&Record>,
        reading: Reading<'_>,
    ) -> Result<OnDisk> {
        for _ in 0..ATTEMPTS {
            let Some(found) = scanned? else { return Ok(OnDisk::Absent) };
            refuse_special(path, &found)?;
            let seen = self.look_at(path, &found, record, reading)?;
            if !matches!(reading, Reading::Keep(_)) || self.same_directories(path, &found)? {
                return Ok(seen);
            }
            scanned = scan(self.root, path);
        }
        Err(changing(path, ""))
    }

    /// Whether a pointer lies beside this artifact, staged or not.
    pub(super) fn pointer_exists(&self, path: &RepoPath) -> Result<bool> {
        Ok(self.root.stat(&path.pointer())?.is_some())
    }

    /// Whether the cache has a file of the right size for every part of this content.
    pub(super) fn all_cached(&self, seen: &Seen) -> bool {
        let files = seen.entries.par_iter().filter(|entry| entry.stat.kind != Kind::Tree);
        let root_there = !seen.pointer.is_tree() || self.cache.size_of(&seen.pointer.digest).is_some();
        root_there && files.into_par_iter().all(|entry| self.cache.holds(&entry.digest, entry.stat.size))
    }

    fn look_at(
        &self,
        path: &RepoPath,
        scan: &Scan,
        record: Option<&Record>,
        reading: Reading<'_>,
    ) -> Result<OnDisk> {
        let known = record.map(|record| Arc::clone(&record.entries)).unwrap_or_default();
        let matched = match_up(&scan.entries, &known);
        if let (Reading::Compare(pointer), Some(record)) = (reading, record)
            && cannot_be(scan, &matched, record, pointer)
        {
            return Ok(OnDisk::Different);
        }
        let to_read = self.to_read(&matched, reading)?;
        let clock = self.clock(&to_read)?;
        let read: Vec<(usize, RecordEntry)> = to_read
            .par_iter()
            .map_init(LastParent::default, |last, &(at, scanned)| {
                self.interrupt.check()?;
                self.read(path, scanned, last, clock, reading).map(|entry| (at, entry))
            })
            .collect::<Result<_>>()?;
        let proved = read.is_empty()
            && record.is_some_and(Record::is_complete)
            && matched.len() == known.len()
            && matched.iter().all(|(_, known)| known.is_some());
        let entries = match proved {
            true => Arc::clone(&known),
            false => Arc::new(entries(&matched, read)),
        };
        let pointer = match record {
            Some(record) if proved && !matches!(reading, Reading::Keep(_)) => recorded_pointer(record, scan),
            _ => self.describe(scan, &entries, reading).map_err(|error| error.about(shown(path, "")))?,
        };
        Ok(OnDisk::Known(Seen { pointer, entries, proved }))
    }

    /// What the content is, from the digests of its files. When keeping, tree objects go into the batch.
    fn describe(&self, scan: &Scan, entries: &[RecordEntry], reading: Reading<'_>) -> Result<Pointer> {
        if !scan.is_tree() {
            let entry = &entries[0];
            let content = Content::File { executable: entry.stat.kind == Kind::Executable };
            return Ok(Pointer { content, digest: entry.digest, size: entry.stat.size });
        }
        let listing: Vec<FlatEntry> = entries.iter().map(flat).collect();
        let built = tree::build(&listing)?;
        if let Reading::Keep(batch) = reading {
            for (digest, bytes) in &built.objects {
                if !self.cache.holds(digest, bytes.len() as u64) {
                    batch.add_bytes(bytes)?;
                }
            }
        }
        Ok(Pointer { content: Content::Tree { files: built.files }, digest: built.root, size: built.size })
    }

    /// The files whose content is not known, or that must be kept and are not in the cache; large ones first.
    fn to_read<'s>(
        &self,
        matched: &[(&'s Scanned, Option<&RecordEntry>)],
        reading: Reading<'_>,
    ) -> Result<Vec<(usize, &'s Scanned)>> {
        let known = matched.iter().filter(|(_, known)| known.is_some()).count();
        let names = match reading {
            Reading::Keep(_) if self.is_worth_listing(known)? => Some(self.cache.names()?),
            _ => None,
        };
        let is_kept = |entry: &RecordEntry| match &names {
            Some(names) => names.contain(&entry.digest),
            None => self.cache.holds(&entry.digest, entry.stat.size),
        };
        let mut to_read: Vec<(usize, &Scanned)> = matched
            .par_iter()
            .enumerate()
            .filter(|(_, (scanned, known))| {
                scanned.stat.kind != Kind::Tree
                    && match (known, reading) {
                        (Some(entry), Reading::Keep(_)) => !is_kept(entry),
                        (Some(_), _) => false,
                        (None, _) => true,
                    }
            })
            .map(|(at, (scanned, _))| (at, *scanned))
            .collect();
        to_read.sort_by_key(|(_, scanned)| std::cmp::Reverse(scanned.stat.size));
        Ok(to_read)
    }

    /// Whether listing the whole cache is cheaper than asking for so many objects one by one.
    fn is_worth_listing(&self, objects: usize) -> Result<bool> {
        const FROM: usize = 1_000;
        Ok(objects >= FROM && self.cache.usage()?.objects / 4 <= objects as u64)
    }

    /// The file system's time from which on files are read. Files that changed only just now get a moment to settle,
    /// so that they need not be read again next time.
    fn clock(&self, to_read: &[(usize, &Scanned)]) -> Result<Clock> {
        let dir = &self.model_dir;
        if to_read.is_empty() {
            return Ok(Clock::EPOCH);
        }
        let now = Clock::read(dir)?;
        match to_read.iter().all(|(_, scanned)| scanned.stat.settled_at(now)) {
            true => Ok(now),
            false => Clock::read_after_step(dir),
        }
    }

    fn read(
        &self,
        path: &RepoPath,
        scanned: &Scanned,
        last: &mut LastParent,
        clock: Clock,
        reading: Reading<'_>,
    ) -> Result<RecordEntry> {
        let full = below(path, &scanned.path)?;
        if scanned.stat.kind == Kind::Link {
            return self.read_link(&full, scanned, clock, reading);
        }
        if matches!(reading, Reading::Keep(_)) {
            self.refuse_nested(&full, scanned)?;
        }
        let entry = self.root.entry(&full, last)?.ok_or_else(|| changing(path, &scanned.path))?;
        for attempt in 0..ATTEMPTS {
            let (file, before) = entry.open()?.ok_or_else(|| changing(path, &scanned.path))?;
            let is_open_elsewhere = fsio::is_open_for_writing(&file);
            let on_bytes = |bytes| {
                self.step.advance(bytes);
                self.interrupt.check_io()
            };
            let (digest, size) = match reading {
                Reading::Keep(batch) => {
                    let added = batch.add_file(&file, before.size, &on_bytes);
                    let added = added.map_err(|error| error.about(shown(path, &scanned.path)))?;
                    (added.digest, added.size)
                }
                _ => fsio::hash_file(&file, &on_bytes).context(entry.path(), "read")?,
            };
            // The name still stands for the inode that was read, and nothing was written to it meanwhile.
            let unchanged = entry.stat()?.is_some_and(|now| before.unchanged(&now));
            if unchanged && size == before.size {
                self.step.finish_one();
                // Stores through a mapping that is there now need not show in the stat.
                let settled = !is_open_elsewhere && before.settled_at(clock);
                return Ok(RecordEntry { path: scanned.path.clone(), digest, stat: before, settled });
            }
            std::thread::sleep(std::time::Duration::from_millis(100 << attempt));
        }
        Err(changing(path, &scanned.path))
    }

    fn read_link(
        &self,
        full: &RepoPath,
        scanned: &Scanned,
        clock: Clock,
        reading: Reading<'_>,
    ) -> Result<RecordEntry> {
        let target = self.root.read_link(full)?;
        let inside =
            std::str::from_utf8(&target).is_ok_and(|target| tree::link_stays_inside(&scanned.path, target));
        if !inside {
            let shown = target.escape_ascii();
            return Err(Error::new(format!(
                "{}: a symbolic link that leads out of the artifact ({shown})",
                shown_path(full)
            ))
            .hint("replace the link by a copy of what it leads to: cp -rL"));
        }
        let digest = match reading {
            Reading::Keep(batch) => batch.add_bytes(&target)?.digest,
            _ => Digest::of(&target),
        };
        Ok(RecordEntry {
            path: scanned.path.clone(),
            digest,
            stat: scanned.stat,
            settled: scanned.stat.settled_at(clock),
        })
    }

    /// Refuses a pointer inside a directory artifact: the two would fight over the same files.
    fn refuse_nested(&self, full: &RepoPath, scanned: &Scanned) -> Result<()> {
        if !scanned.path.ends_with(POINTER_SUFFIX) || scanned.stat.size > MAX_BYTES {
            return Ok(());
        }
        let bytes = self.root.read_small(full, MAX_BYTES)?.unwrap_or_default();
        if Pointer::parse(&bytes, full.as_str()).is_err() {
            return Ok(());
        }
        Err(Error::new(format!("{}: an artifact inside the directory that is being added", shown_path(full)))
            .hint("git model rm the inner artifact first, or add the inner paths one by one"))
    }

    /// Whether no name was added to or removed from any directory since the scan.
    fn same_directories(&self, path: &RepoPath, scan: &Scan) -> Result<bool> {
        let top = std::iter::once(("", &scan.top));
        let dirs = scan.entries.iter().map(|entry| (entry.path.as_str(), &entry.stat));
        for (relative, stat) in top.chain(dirs).filter(|(_, stat)| stat.kind == Kind::Tree) {
            let now = self.root.stat(&below(path, relative)?)?;
            if now.is_none_or(|now| now.mtime != stat.mtime || now.ino != stat.ino) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Pairs what is on disk with what is recorded and proved by an equal stat. Both are sorted by path.
fn match_up<'s, 'k>(
    scanned: &'s [Scanned],
    known: &'k [RecordEntry],
) -> Vec<(&'s Scanned, Option<&'k RecordEntry>)> {
    let mut rest = known;
    scanned
        .iter()
        .map(|on_disk| {
            let skip = rest.iter().take_while(|entry| entry.path < on_disk.path).count();
            rest = &rest[skip..];
            let entry =
                rest.first().filter(|entry| entry.path == on_disk.path && entry.proves(&on_disk.stat));
            (on_disk, entry)
        })
        .collect()
}

/// Whether names and sizes alone show that the content is neither what the pointer nor what the record says.
fn cannot_be(
    scan: &Scan,
    matched: &[(&Scanned, Option<&RecordEntry>)],
    record: &Record,
    pointer: &Pointer,
) -> bool {
    if !scan.is_tree() && !pointer.is_tree() && !record.is_tree {
        return scan.top.size != pointer.size && scan.top.size != record.size;
    }
    // A directory is compared entry by entry with what is recorded, which must then be the only candidate.
    if record.current != record.base || pointer.digest != record.base || !record.is_complete() {
        return false;
    }
    let mut known = record.entries.iter().map(|entry| (&entry.path, entry.stat.kind, entry.stat.size));
    matched.len() != record.entries.len()
        || matched.iter().any(|(scanned, _)| {
            known.next().is_none_or(|(path, kind, size)| {
                *path != scanned.path
                    || kind != scanned.stat.kind
                    || (kind != Kind::Tree && size != scanned.stat.size)
            })
        })
}

/// What is known of everything that was found, and what was read of the rest.
fn entries(
    matched: &[(&Scanned, Option<&RecordEntry>)],
    read: Vec<(usize, RecordEntry)>,
) -> Vec<RecordEntry> {
    let mut entries: Vec<Option<RecordEntry>> = matched
        .iter()
        .map(|(scanned, known)| match known {
            Some(entry) => Some((*entry).clone()),
            None if scanned.stat.kind == Kind::Tree => Some(directory(scanned)),
            None => None,
        })
        .collect();
    for (at, entry) in read {
        entries[at] = Some(entry);
    }
    entries.into_iter().map(|entry| entry.expect("every entry is known or read")).collect()
}

fn recorded_pointer(record: &Record, scan: &Scan) -> Pointer {
    let content = match scan.is_tree() {
        true => Content::Tree { files: record.files },
        false => Content::File { executable: scan.top.kind == Kind::Executable },
    };
    Pointer { content, digest: record.current, size: record.size }
}

fn directory(scanned: &Scanned) -> RecordEntry {
    RecordEntry { path: scanned.path.clone(), digest: Digest::of(b""), stat: scanned.stat, settled: true }
}

pub(super) fn flat(entry: &RecordEntry) -> FlatEntry {
    let size = if entry.stat.kind == Kind::Tree { 0 } else { entry.stat.size };
    FlatEntry { path: entry.path.clone(), kind: entry.stat.kind, digest: entry.digest, size }
}

fn refuse_special(path: &RepoPath, scan: &Scan) -> Result<()> {
    if scan.top.kind == Kind::Link {
        return Err(Error::new(format!("{}: a symbolic link, which is not followed", shown_path(path)))
            .hint("add the path it leads to, or replace it by a copy: cp -rL"));
    }
    match scan.entries.iter().find(|entry| entry.stat.kind == Kind::Special) {
        Some(entry) => Err(Error::new(format!(
            "{}: not a file or directory but a FIFO, socket or device",
            shown(path, &entry.path)
        ))
        .hint("move it out of the artifact")),
        None => Ok(()),
    }
}

/// The repository path of something inside an artifact.
pub(super) fn below(path: &RepoPath, relative: &str) -> Result<RepoPath> {
    if relative.is_empty() { Ok(path.clone()) } else { path.join(relative) }
}

fn changing(path: &RepoPath, relative: &str) -> Error {
    Error::new(format!("{}: it keeps changing while it is read", shown(path, relative)))
        .hint("wait until it is written completely, then run the command again")
}

fn shown(path: &RepoPath, relative: &str) -> String {
    match relative {
        "" => shown_path(path),
        relative => format!("{}/{}", shown_path(path), human::escape(relative)),
    }
}

fn shown_path(path: &RepoPath) -> String {
    human::escape(path.as_str())
}
