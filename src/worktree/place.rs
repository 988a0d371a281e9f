//! Making complete new files beside the worktree, ready to be swapped in.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, Kind, Reflink};
use crate::id::Digest;

/// How content gets from the cache into the worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LinkMode {
    /// Shared blocks where the file system can, else a copy.
    #[default]
    Auto,
    /// Always a copy.
    Copy,
    /// A read-only hard link to the cached object; a program that writes through it damages the cache.
    Hardlink,
}

/// How one file really came into the worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It shares its blocks with the cache.
    Reflink,
    /// It is a copy.
    Copy,
    /// It is the cached file, under one more name.
    Hardlink,
}

/// A place for complete files, on the file system where they will be swapped in.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    journal: PathBuf,
    dev: u64,
    durability: Durability,
    next: AtomicU64,
    reflinks: AtomicBool,
    elsewhere: Mutex<BTreeSet<PathBuf>>,
}

/// A fresh file in the staging area.
#[derive(Debug)]
pub struct StagedFile {
    /// The open, empty file.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
}

/// The directory that takes files for an artifact on another mount than the git dir.
const BESIDE: &str = ".git-model-tmp";

impl Staging {
    /// Makes a staging area below a worktree's `model` directory, for this process alone.
    pub fn new(model_dir: &Path, durability: Durability) -> Result<Staging> {
        let dir = model_dir.join("staging").join(uuid::Uuid::new_v4().simple().to_string());
        fsio::create_dir_all(&dir, Durability::Off)?;
        let dev = fs::metadata(&dir).context(&dir, "read")?.dev();
        Ok(Staging {
            dir,
            journal: model_dir.join(super::swap::JOURNAL),
            dev,
            durability,
            next: AtomicU64::new(0),
            reflinks: AtomicBool::new(true),
            elsewhere: Mutex::default(),
        })
    }

    /// Whether what leaves this area is to be synced.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// A name that no other file in the area has, on the file system of `destination`.
    pub fn path_for(&self, destination: &Path) -> Result<PathBuf> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let existing = destination.ancestors().skip(1).find_map(|dir| Some((dir, fs::metadata(dir).ok()?)));
        match existing {
            Some((dir, metadata)) if metadata.dev() != self.dev => {
                let beside = dir.join(BESIDE);
                match fs::create_dir(&beside) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error).context(&beside, "create the directory");
                    }
                    _ => fs::write(beside.join(".gitignore"), "*\n").context(&beside, "write to")?,
                }
                if !fs::symlink_metadata(&beside).context(&beside, "read")?.is_dir() {
                    return Err(Error::new(format!("{}: is in the way: not a directory", beside.display())));
                }
                let path = beside.join(format!("{}-{name}", uuid::Uuid::new_v4().simple()));
                self.elsewhere.lock().expect("no thread panicked").insert(beside);
                Ok(path)
            }
            _ => Ok(self.dir.join(name)),
        }
    }

    /// A fresh file that can be renamed to `destination`.
    pub fn file_for(&self, destination: &Path) -> Result<StagedFile> {
        let path = self.path_for(destination)?;
        let file = create(&path, false)?;
        Ok(StagedFile { file, path })
    }

    /// Fills the new file `target` with an object's content and checks every byte of it.
    ///
    /// `None` when the object's bytes turn out wrong; the target is gone then.
    pub fn place(
        &self,
        object: &Path,
        expected: &Expected,
        target: &Path,
        mode: LinkMode,
        on_bytes: fsio::OnBytes<'_>,
    ) -> Result<Option<Placed>> {
        let source = File::open(object).context(object, "open")?;
        let (found, placed) = match mode {
            LinkMode::Hardlink if expected.kind == Kind::File && fs::hard_link(object, target).is_ok() => {
                (fsio::hash_file(&source, on_bytes).context(object, "read")?, Placed::Hardlink)
            }
            _ => self.fill(&source, expected, target, mode, on_bytes)?,
        };
        if found == (expected.digest, expected.size) {
            return Ok(Some(placed));
        }
        fs::remove_file(target).context(target, "remove")?;
        Ok(None)
    }

    fn fill(
        &self,
        source: &File,
        expected: &Expected,
        target: &Path,
        mode: LinkMode,
        on_bytes: fsio::OnBytes<'_>,
    ) -> Result<((Digest, u64), Placed)> {
        let file = create(target, expected.kind == Kind::Executable)?;
        if mode != LinkMode::Copy && expected.size > 0 && self.reflinks.load(Ordering::Relaxed) {
            match fsio::reflink(source, &file) {
                Reflink::Shared => {
                    let clone = File::open(target).context(target, "open")?;
                    return Ok((fsio::hash_file(&clone, on_bytes).context(target, "read")?, Placed::Reflink));
                }
                Reflink::Never => self.reflinks.store(false, Ordering::Relaxed),
                Reflink::NotThis => {}
            }
        }
        let durable = self.durability == Durability::Full;
        let found = fsio::copy_hashing(source, &file, expected.size, durable, on_bytes)
            .context(target, "write the content to")?;
        Ok((found, Placed::Copy))
    }

    /// Makes the link `target` from the object that holds its text. `None` when that is not what it should be.
    pub fn place_link(&self, object: &Path, expected: &Expected, target: &Path) -> Result<Option<()>> {
        let mut text = Vec::new();
        File::open(object)
            .and_then(|file| file.take(crate::tree::MAX_LINK + 1).read_to_end(&mut text))
            .context(object, "read")?;
        if Digest::of(&text) != expected.digest {
            return Ok(None);
        }
        use std::os::unix::ffi::OsStrExt;
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&text), target)
            .context(target, "create the link")?;
        Ok(Some(()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A journal says that a swap was interrupted: the next run needs these files to finish it.
        if self.journal.exists() {
            return;
        }
        // Otherwise what is left was not swapped in and is of no use to anybody.
        drop(fs::remove_dir_all(&self.dir));
        for beside in self.elsewhere.lock().expect("no thread panicked").iter() {
            drop(fs::remove_file(beside.join(".gitignore")));
            drop(fs::remove_dir(beside));
        }
    }
}

/// What a placed file must turn out to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// File, executable or link.
    pub kind: Kind,
    /// Digest of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

fn create(path: &Path, executable: bool) -> Result<File> {
    // The user's umask decides the rest, as it does for git.
    let mode = if executable { 0o777 } else { 0o666 };
    OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(path).context(path, "create")
}
