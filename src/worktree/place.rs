//! Making complete new files beside the worktree, ready to be swapped in.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, Kind, Reflink};
use crate::id::Digest;
use crate::repo_path::RepoPath;

use super::root::Root;

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
    model_dir: PathBuf,
    mount: Mount,
    durability: Durability,
    next: AtomicU64,
    reflinks: AtomicBool,
    elsewhere: Mutex<HashMap<Mount, PathBuf>>,
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
const BESIDE: &str = ".git-model-tmp-";
/// In a staging area: where it has such a directory.
const NOTE: &str = "beside";

/// Whether this is the name of a directory that only staging makes. It may lie inside an artifact that is a mount of its own,
/// and is no part of it.
pub(super) fn is_beside(name: &str) -> bool {
    let unique = name.strip_prefix(BESIDE);
    unique.is_some_and(|unique| unique.len() == 32 && unique.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes the directory that a staged file lay in, if it is such a directory and empty.
pub(super) fn remove_beside_of(staged: &Path) {
    if let Some(beside) = staged.parent().filter(|dir| has_name_of_beside(dir)) {
        drop(fs::remove_file(beside.join(".gitignore")));
        drop(fs::remove_dir(beside));
    }
}

fn has_name_of_beside(dir: &Path) -> bool {
    dir.file_name().and_then(OsStr::to_str).is_some_and(is_beside)
}

/// Removes the staging areas of processes that died, wherever they are.
fn remove_stale(areas: &Path) -> Result<()> {
    for area in fsio::stale(areas)? {
        let note = fs::read(area.join(NOTE)).unwrap_or_default();
        for beside in note.split(|&byte| byte == b'\n').map(|path| Path::new(OsStr::from_bytes(path))) {
            if has_name_of_beside(beside) {
                drop(fs::remove_dir_all(beside));
            }
        }
    }
    fsio::remove_stale(areas, "").map(drop)
}

impl Staging {
    /// Makes a staging area below a worktree's `model` directory, for this process alone.
    pub fn new(model_dir: &Path, durability: Durability) -> Result<Staging> {
        if super::swap::journals(model_dir).is_empty() {
            remove_stale(&model_dir.join("staging"))?;
        }
        let dir = model_dir.join("staging").join(uuid::Uuid::new_v4().simple().to_string());
        fsio::create_dir_all(&dir, Durability::Off)?;
        let mount = mount_of(&File::open(&dir).context(&dir, "open")?).context(&dir, "read")?;
        Ok(Staging {
            dir,
            model_dir: model_dir.to_path_buf(),
            mount,
            durability,
            next: AtomicU64::new(0),
            reflinks: AtomicBool::new(true),
            elsewhere: Mutex::default(),
        })
    }

    /// The `model` directory that it belongs to.
    pub fn model_dir(&self) -> &Path {
        &self.model_dir
    }

    /// Whether what leaves this area is to be synced.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// A name that no other file in the area has, on the mount of `destination`.
    pub fn path_for(&self, root: &Root, destination: &RepoPath) -> Result<PathBuf> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let (dir, mount) = existing_dir(root, destination)?;
        if mount == self.mount {
            return Ok(self.dir.join(name));
        }
        let mut elsewhere = self.elsewhere.lock().expect("no thread panicked");
        if let Some(beside) = elsewhere.get(&mount) {
            return Ok(beside.join(name));
        }
        // A name that nobody could have committed; creating fails if there is anything, even a link.
        let beside = dir.join(format!("{BESIDE}{}", uuid::Uuid::new_v4().simple()));
        // Noted first, so that a later run finds it if this one dies.
        let line = [beside.as_os_str().as_bytes(), b"\n"].concat();
        let note = self.dir.join(NOTE);
        let file = OpenOptions::new().append(true).create(true).open(&note).context(&note, "open")?;
        (&file).write_all(&line).context(&note, "write to")?;
        fs::create_dir(&beside).context(&beside, "create the directory")?;
        fs::write(beside.join(".gitignore"), "*\n").context(&beside, "write to")?;
        let path = beside.join(name);
        elsewhere.insert(mount, beside);
        Ok(path)
    }

    /// The directories that hold staged files.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let elsewhere = self.elsewhere.lock().expect("no thread panicked");
        let beside = elsewhere
            .values()
            .flat_map(|dir| [Some(dir.clone()), dir.parent().map(Path::to_path_buf)])
            .flatten();
        [Some(self.dir.clone()), self.dir.parent().map(Path::to_path_buf)]
            .into_iter()
            .flatten()
            .chain(beside)
            .collect()
    }

    /// A fresh file that can be renamed to `destination`.
    pub fn file_for(&self, root: &Root, destination: &RepoPath) -> Result<StagedFile> {
        let path = self.path_for(root, destination)?;
        let file = create(&path, false)?;
        Ok(StagedFile { file, path })
    }

    /// Whether files placed here can share blocks with those in `dir`. Tried for real: a file system's name does not tell.
    pub fn shares_blocks_with(&self, dir: &Path) -> bool {
        let probe = || -> std::io::Result<bool> {
            let source = tempfile::Builder::new().prefix("probe-").tempfile_in(dir)?;
            std::io::Write::write_all(&mut source.as_file(), &[0; 8192])?;
            let target = tempfile::Builder::new().prefix("probe-").tempfile_in(&self.dir)?;
            Ok(fsio::reflink(source.as_file(), target.as_file()) == Reflink::Shared)
        };
        probe().unwrap_or(false)
    }

    /// Fills the new file `target` with an object's content and checks every byte of it, but for an object of which `was_checked`
    /// says, before and after, that it need not be.
    ///
    /// `None` when the object's bytes turn out wrong; the target is gone then.
    pub fn place(
        &self,
        object: &Path,
        expected: &Expected,
        target: &Path,
        mode: LinkMode,
        was_checked: &dyn Fn() -> bool,
        on_bytes: fsio::OnBytes<'_>,
    ) -> Result<Option<Placed>> {
        let source = File::open(object).context(object, "open")?;
        let is_known = mode == LinkMode::Auto && was_checked();
        let (found, placed) = match mode {
            LinkMode::Hardlink if expected.kind == Kind::File && fs::hard_link(object, target).is_ok() => {
                (fsio::hash_file(&source, on_bytes).context(object, "read")?, Placed::Hardlink)
            }
            _ => self.fill(&source, expected, target, mode, is_known, on_bytes)?,
        };
        if is_known && !was_checked() {
            // Somebody touched it meanwhile.
            fs::remove_file(target).context(target, "remove")?;
            return self.place(object, expected, target, mode, &|| false, on_bytes);
        }
        if found == (expected.digest, expected.size) {
            return Ok(Some(placed));
        }
        fs::remove_file(target).context(target, "remove")?;
        if found.0 == expected.digest {
            return Err(Error::new(format!(
                "its pointer states {} bytes, but the content has {}",
                expected.size, found.1
            ))
            .hint("git model add writes a right pointer where the content is known"));
        }
        Ok(None)
    }

    /// What is known to be right already need not be read to be placed, where the system can share or copy it unread.
    fn fill(
        &self,
        source: &File,
        expected: &Expected,
        target: &Path,
        mode: LinkMode,
        is_known: bool,
        on_bytes: fsio::OnBytes<'_>,
    ) -> Result<((Digest, u64), Placed)> {
        let file = create(target, expected.kind == Kind::Executable)?;
        if mode != LinkMode::Copy && expected.size > 0 && self.reflinks.load(Ordering::Relaxed) {
            match fsio::reflink(source, &file) {
                Reflink::Shared if is_known => {
                    on_bytes(expected.size).context(target, "write the content to")?;
                    return Ok(((expected.digest, expected.size), Placed::Reflink));
                }
                Reflink::Shared => {
                    let clone = File::open(target).context(target, "open")?;
                    return Ok((fsio::hash_file(&clone, on_bytes).context(target, "read")?, Placed::Reflink));
                }
                Reflink::Never => self.reflinks.store(false, Ordering::Relaxed),
                Reflink::NotThis => {}
            }
        }
        let writing = self.durability.writing();
        if is_known
            && let Some(copied) =
                fsio::copy_unread(source, &file, writing, on_bytes).context(target, "write the content to")?
        {
            return Ok(((expected.digest, copied), Placed::Copy));
        }
        let found = fsio::copy_hashing(source, &file, expected.size, writing, on_bytes)
            .context(target, "write the content to")?;
        Ok((found, Placed::Copy))
    }

    /// Makes the link `target` from the object that holds its text; `link` is its path in the artifact. `None` when the
    /// object is not what it should be.
    pub fn place_link(
        &self,
        object: &Path,
        expected: &Expected,
        link: &str,
        target: &Path,
    ) -> Result<Option<()>> {
        let mut text = Vec::new();
        File::open(object)
            .and_then(|file| file.take(crate::tree::MAX_LINK + 1).read_to_end(&mut text))
            .context(object, "read")?;
        if Digest::of(&text) != expected.digest {
            return Ok(None);
        }
        let inside = |text: &&str| crate::tree::link_stays_inside(link, text);
        let Some(text) = std::str::from_utf8(&text).ok().filter(inside) else {
            return Err(Error::new(format!(
                "a symbolic link that leads out of the artifact ({})",
                text.escape_ascii()
            )));
        };
        std::os::unix::fs::symlink(text, target).context(target, "create the link")?;
        Ok(Some(()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A journal says that a swap was interrupted: the next run needs these files to finish it.
        if !super::swap::journals(&self.model_dir).is_empty() {
            return;
        }
        // Otherwise what is left was not swapped in and is of no use to anybody.
        drop(fs::remove_dir_all(&self.dir));
        for beside in self.elsewhere.lock().expect("no thread panicked").values() {
            drop(fs::remove_dir_all(beside));
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

/// What tells one mount from another, also two of the same file system.
type Mount = (u64, u64);

#[cfg(target_os = "linux")]
fn mount_of(dir: impl AsFd) -> rustix::io::Result<Mount> {
    use rustix::fs::{AtFlags, StatxFlags, makedev};
    let found =
        rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    Ok((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_mnt_id))
}

#[cfg(not(target_os = "linux"))]
fn mount_of(dir: impl AsFd) -> rustix::io::Result<Mount> {
    Ok((rustix::fs::fstat(dir)?.st_dev as u64, 0))
}

/// The nearest directory above `destination` that exists, reached without following links, and its mount.
fn existing_dir(root: &Root, destination: &RepoPath) -> Result<(PathBuf, Mount)> {
    let mut at = destination.parent();
    while let Some(dir) = at {
        if let Some(open) = root.open_dir(&dir)? {
            let full = root.full(&dir);
            let mount = mount_of(&open).context(&full, "read")?;
            return Ok((full, mount));
        }
        at = dir.parent();
    }
    let mount = mount_of(root).context(root.path(), "read")?;
    Ok((root.path().to_path_buf(), mount))
}

fn create(path: &Path, executable: bool) -> Result<File> {
    // The user's umask decides the rest, as it does for git.
    let mode = if executable { 0o777 } else { 0o666 };
    OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(path).context(path, "create")
}
