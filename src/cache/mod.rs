//! The local objects: immutable files named by their SHA-256. Layout: `docs/formats/local-layout.md`.
//!
//! Objects come in through a [`Batch`] only, which publishes them atomically and, unless the user opted out, durably. No
//! lock is taken anywhere: publishing the same object twice is harmless.

mod batch;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use rayon::prelude::*;
use rustix::fs::AtFlags;

use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::id::Digest;

pub use batch::{Added, Batch, Incoming};

/// The store of local objects.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    durability: Durability,
    /// The directory of objects, once it was there to be opened: whoever asks for thousands of them walks no long path.
    objects: OnceLock<OwnedFd>,
    /// Large objects that this process checked and published, with their files as they were then.
    checked: Mutex<HashMap<Digest, fsio::FileStat>>,
}

/// Names of the objects that are there, for whoever asks about very many. Sizes and bytes were not looked at.
#[derive(Debug)]
pub struct Names {
    /// By their first byte, each list sorted.
    lists: Vec<Vec<Digest>>,
}

impl Names {
    /// Whether there is an object of this name.
    pub fn contain(&self, digest: &Digest) -> bool {
        self.lists[usize::from(digest.as_bytes()[0])].binary_search(digest).is_ok()
    }
}

/// How much a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Cache {
    /// Opens the cache at `root`; directories are made when they are first needed.
    pub fn new(root: PathBuf, durability: Durability) -> Cache {
        Cache { root, durability, objects: OnceLock::new(), checked: Mutex::default() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether what it publishes is synced.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The file that holds, or would hold, an object.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        let mut path = self.root.join("objects");
        path.push(&hex[..2]);
        path.push(hex);
        path
    }

    /// The size of an object's file, if there is one. That it exists does not mean that its bytes are right.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        let stat = self.stat(digest)?;
        matches!(stat.kind, fsio::Kind::File | fsio::Kind::Executable).then_some(stat.size)
    }

    /// Whether this process itself checked an object's bytes, and nothing touched its file since. Known of large objects only:
    /// others are quickly checked again.
    pub fn was_checked(&self, digest: &Digest) -> bool {
        let checked = self.checked.lock().expect("no thread panicked").get(digest).copied();
        checked.is_some() && self.stat(digest) == checked
    }

    fn note_checked(&self, digest: &Digest) {
        if let Some(stat) = self.stat(digest) {
            self.checked.lock().expect("no thread panicked").insert(*digest, stat);
        }
    }

    fn stat(&self, digest: &Digest) -> Option<fsio::FileStat> {
        let hex = digest.to_hex();
        let name = format!("{}/{hex}", &hex[..2]);
        let stat = rustix::fs::statat(self.objects()?, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(fsio::FileStat::from_raw(&stat))
    }

    fn objects(&self) -> Option<&OwnedFd> {
        if let Some(dir) = self.objects.get() {
            return Some(dir);
        }
        let dir = File::open(self.root.join("objects")).ok()?;
        Some(self.objects.get_or_init(|| dir.into()))
    }

    /// Whether a file of the right size is there for an object. Its bytes are checked when they are used.
    pub fn holds(&self, digest: &Digest, size: u64) -> bool {
        self.size_of(digest) == Some(size)
    }

    /// The names of all objects: listing 256 directories takes a fraction of the time of asking for each of thousands.
    pub fn names(&self) -> Result<Names> {
        let list = |first: u8| {
            let dir = self.root.join("objects").join(format!("{first:02x}"));
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error).context(&dir, "list"),
            };
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry.context(&dir, "list")?;
                if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    names.extend(entry.file_name().to_str().and_then(Digest::from_hex));
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        Ok(Names { lists: (0..=u8::MAX).into_par_iter().map(list).collect::<Result<_>>()? })
    }

    /// Opens an object for reading; the reader must check the bytes.
    pub fn open(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.object_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(path, "open"),
        }
    }

    /// The checked bytes of a small object. `None` when it is absent, or was damaged and is now in quarantine. A larger one
    /// is something else than the caller believes, and an error.
    pub fn read_small(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.object_path(digest);
        let Some(size) = self.size_of(digest) else { return Ok(None) };
        if size > max {
            return Err(Error::new(format!(
                "object {} is not of the kind that is expected here: too large",
                digest.short()
            )));
        }
        match fsio::read_bounded(&path, max)? {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Some(_) => self.quarantine(digest).map(|_| None),
            None => Ok(None),
        }
    }

    /// Reads an object to its end and says whether its bytes are right. `None` when it is absent.
    pub fn verify(&self, digest: &Digest, on_bytes: fsio::OnBytes<'_>) -> Result<Option<bool>> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        let (found, _) = fsio::hash_file(&file, on_bytes).context(self.object_path(digest), "read")?;
        Ok(Some(found == *digest))
    }

    /// Moves a damaged object out of the way, so that it is fetched again. Nothing is deleted.
    pub fn quarantine(&self, digest: &Digest) -> Result<PathBuf> {
        let dir = self.root.join("quarantine");
        fsio::create_dir_all(&dir, self.durability)?;
        let target = dir.join(format!("{digest}.{}", uuid::Uuid::new_v4().simple()));
        match fs::rename(self.object_path(digest), &target) {
            Ok(()) => Ok(target),
            // Another process was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
            Err(error) => Err(error).context(self.object_path(digest), "move into quarantine"),
        }
    }

    /// Where objects arrive in pieces.
    fn partial_dir(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// Of `size` bytes of an object that is to come, how many already take space because an earlier run began with it.
    pub fn allocated(&self, digest: &Digest, size: u64) -> u64 {
        fsio::allocated(&self.partial_dir(), digest, size)
    }

    /// Starts adding objects.
    pub fn batch(&self) -> Result<Batch<'_>> {
        let tmp = self.root.join("tmp");
        fsio::create_dir_all(&tmp, self.durability)?;
        fsio::create_dir_all(&self.root.join("objects"), self.durability)?;
        if fsio::remove_stale(&tmp, "")? > 0 {
            // Whoever died may have left small objects, which are written where they will be.
            let dirs = (0..=u8::MAX).map(|first| self.root.join("objects").join(format!("{first:02x}")));
            dirs.par_bridge().try_for_each(|dir| fsio::remove_stale(&dir, batch::TEMP_PREFIX).map(drop))?;
        }
        Ok(Batch::new(self, tmp))
    }

    /// How much the cache holds, as far as its books say.
    pub fn usage(&self) -> Result<Usage> {
        let path = self.root.join("usage");
        let bytes = fs::read(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error).context(&path, "read"),
        })?;
        let mut usage = Usage::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let mut numbers = line.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
            usage.objects = usage.objects.saturating_add(numbers.next().unwrap_or(0));
            usage.bytes = usage.bytes.saturating_add(numbers.next().unwrap_or(0));
        }
        Ok(usage)
    }

    /// Adds to the books what a batch published. They are information, so a failure to write them is not one of the batch.
    fn book(&self, added: Usage) {
        if added == Usage::default() {
            return;
        }
        let line = format!("{} {}\n", added.objects, added.bytes);
        let file = fs::OpenOptions::new().create(true).append(true).open(self.root.join("usage"));
        drop(file.and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes())));
    }

    fn missing_parent(&self, path: &Path) -> Result<()> {
        let parent =
            path.parent().ok_or_else(|| Error::new(format!("{}: has no directory", path.display())))?;
        fsio::create_dir_all(parent, self.durability)
    }
}
