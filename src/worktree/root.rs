//! Access to paths below the top of the worktree, component by component, without following symbolic links.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::place::Staging;
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, FileStat, Kind};
use crate::human;
use crate::repo_path::RepoPath;

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// The top of a worktree.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Root {
    /// Opens the top directory.
    pub fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).context(path, "open")?;
        Ok(Root { path: path.to_path_buf(), dir })
    }

    /// The top's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `path` is, for messages and for the file system of its directory. Never opened by this name.
    pub fn full(&self, path: &RepoPath) -> PathBuf {
        self.path.join(path.as_path())
    }

    /// Opens the directory that holds `path`. `None` when it does not exist.
    pub fn parent(&self, path: &RepoPath) -> Result<Option<OwnedFd>> {
        match path.parent() {
            Some(parent) => self.open_dir(&parent),
            None => self.dir.try_clone().map(Some).context(&self.path, "open"),
        }
    }

    /// As [`Root::parent`]; makes the directories that are missing.
    pub fn make_parent(&self, path: &RepoPath, durability: Durability) -> Result<OwnedFd> {
        match path.parent() {
            Some(parent) => self.make_dir(&parent, durability),
            None => self.dir.try_clone().context(&self.path, "open"),
        }
    }

    /// Opens a directory. `None` when it does not exist, or is a file or lies below one. A link on the way is an error.
    pub fn open_dir(&self, path: &RepoPath) -> Result<Option<OwnedFd>> {
        let mut dir = self.dir.try_clone().context(&self.path, "open")?;
        for name in path.as_str().split('/') {
            dir = match rustix::fs::openat(&dir, name, DIR, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => match stat_at(&dir, OsStr::new(name)).context(self.full(path), "read")? {
                    None => return Ok(None),
                    Some(stat) if !matches!(stat.kind, Kind::Link | Kind::Tree) => return Ok(None),
                    _ => return Err(self.not_a_dir(path, &dir, name, errno)),
                },
            };
        }
        Ok(Some(dir))
    }

    /// Opens a directory and makes it, and those above it, where they are missing.
    pub fn make_dir(&self, path: &RepoPath, durability: Durability) -> Result<OwnedFd> {
        let mut dir = self.dir.try_clone().context(&self.path, "open")?;
        for name in path.as_str().split('/') {
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
                Ok(()) if durability == Durability::Full => {
                    rustix::fs::fsync(&dir).context(self.full(path), "sync the directory above")?;
                }
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context(self.full(path), "create the directory"),
            }
            dir = rustix::fs::openat(&dir, name, DIR, Mode::empty())
                .map_err(|errno| self.not_a_dir(path, &dir, name, errno))?;
        }
        Ok(dir)
    }

    /// Explains why `name` could not be opened as a directory on the way to `path`.
    fn not_a_dir(&self, path: &RepoPath, dir: &OwnedFd, name: &str, errno: Errno) -> Error {
        let shown = human::escape(path.as_str());
        match stat_at(dir, OsStr::new(name)).ok().flatten().map(|stat| stat.kind) {
            Some(Kind::Link) => Error::new(format!(
                "{shown}: `{}` on its way is a symbolic link, which is not followed",
                human::escape(name)
            ))
            .hint("replace the link by a real directory, or track the path it leads to"),
            Some(kind) if kind != Kind::Tree => {
                Error::new(format!("{shown}: `{}` on its way is not a directory", human::escape(name)))
            }
            _ => Error::new(format!("{shown}: cannot open")).caused_by(std::io::Error::from(errno)),
        }
    }

    /// Goes to the directory of `path` once, for several questions about it. `None` when there is no such directory.
    ///
    /// `last` remembers the directory: who asks for its files one after the other opens it once.
    pub fn entry(&self, path: &RepoPath, last: &mut LastParent) -> Result<Option<Entry>> {
        let dir = path.parent();
        if last.0.as_ref().is_none_or(|(known, _)| *known != dir) {
            last.0 = self.parent(path)?.map(|fd| (dir, Arc::new(fd)));
        }
        Ok(last.0.as_ref().map(|(_, parent)| Entry {
            parent: Arc::clone(parent),
            name: path.name().to_owned(),
            full: self.full(path),
        }))
    }

    /// The stat of what is at `path` itself. `None` when there is nothing.
    pub fn stat(&self, path: &RepoPath) -> Result<Option<FileStat>> {
        self.entry(path, &mut LastParent::default())?.map_or(Ok(None), |entry| entry.stat())
    }

    /// Opens a regular file for reading. `None` when there is nothing.
    pub fn open_file(&self, path: &RepoPath) -> Result<Option<File>> {
        Ok(self.open_with_stat(path)?.map(|(file, _)| file))
    }

    fn open_with_stat(&self, path: &RepoPath) -> Result<Option<(File, FileStat)>> {
        let name = OsStr::new(path.name());
        let opened = match path.parent() {
            Some(dir) => self.open_dir(&dir)?.map_or(Ok(None), |dir| open_file_at(&dir, name)),
            // Many are at the top, which is open already.
            None => open_file_at(&self.dir, name),
        };
        opened.context(self.full(path), "open")
    }

    /// A whole small file. `None` when there is none.
    pub fn read_small(&self, path: &RepoPath, max: u64) -> Result<Option<Vec<u8>>> {
        match self.open_with_stat(path)? {
            Some((file, stat)) => fsio::read_at_most(file, stat.size, &self.full(path), max).map(Some),
            None => Ok(None),
        }
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, path: &RepoPath) -> Result<Vec<u8>> {
        let parent = self.parent(path)?.ok_or_else(|| Error::new(format!("{path}: it is gone")))?;
        let target = rustix::fs::readlinkat(&parent, path.name(), Vec::new())
            .context(self.full(path), "read the link")?;
        Ok(target.into_bytes())
    }

    /// Replaces a small file atomically. A file that has these bytes already is left alone; `false` then.
    pub fn write_small(&self, path: &RepoPath, bytes: &[u8], staging: &Staging) -> Result<bool> {
        if self.read_small(path, bytes.len() as u64 + 1).ok().flatten().as_deref() == Some(bytes) {
            return Ok(false);
        }
        let durability = staging.durability();
        let parent = self.make_parent(path, durability)?;
        let temp = staging.file_for(self, path)?;
        (&temp.file).write_all(bytes).context(&temp.path, "write")?;
        durability.sync_file(&temp.file, &temp.path)?;
        rustix::fs::renameat(CWD, &temp.path, &parent, path.name()).context(self.full(path), "replace")?;
        sync_fd(&parent, durability).context(self.full(path), "sync the directory of")?;
        Ok(true)
    }

    /// Appends whole lines to a text file, creating it. One write, so that concurrent appends never lose a line.
    pub fn append(&self, path: &RepoPath, lines: &str, durability: Durability) -> Result<()> {
        let parent = self.make_parent(path, durability)?;
        let flags = OFlags::APPEND | OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, path.name(), flags, Mode::from_raw_mode(0o666))
            .context(self.full(path), "open for writing")?;
        let mut file = File::from(file);
        append_whole(&mut file, lines.as_bytes()).context(self.full(path), "append to")?;
        durability.sync_file(&file, &self.full(path))?;
        sync_fd(&parent, durability).context(self.full(path), "sync the directory of")
    }

    /// Removes a file or link. `false` when there was nothing.
    pub fn remove_file(&self, path: &RepoPath) -> Result<bool> {
        self.unlink(path, AtFlags::empty())
    }

    /// Removes a directory if it is empty. `false` when it is absent or not empty.
    pub fn remove_empty_dir(&self, path: &RepoPath) -> Result<bool> {
        self.unlink(path, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, path: &RepoPath, flags: AtFlags) -> Result<bool> {
        let Some(parent) = self.parent(path)? else { return Ok(false) };
        match rustix::fs::unlinkat(&parent, path.name(), flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno).context(self.full(path), "remove"),
        }
    }

    /// Renames within the worktree; the target must not exist.
    pub fn rename(&self, from: &RepoPath, to: &RepoPath, durability: Durability) -> Result<()> {
        let source = self.parent(from)?.ok_or_else(|| Error::new(format!("{from}: it is gone")))?;
        let target = self.make_parent(to, durability)?;
        let exists = || Error::new(format!("{}: exists already", human::escape(to.as_str())));
        if stat_at(&target, OsStr::new(to.name())).context(self.full(to), "read")?.is_some() {
            return Err(exists());
        }
        match rename_to_nothing(&source, from.name(), &target, to.name()) {
            Err(Errno::EXIST) => return Err(exists()),
            renamed => renamed.context(self.full(from), "rename")?,
        }
        sync_fd(&target, durability).context(self.full(to), "sync the directory of")
    }

    /// Removes the directories above `path` that have become empty, up to but not including the top. That in which the user
    /// is, `user_dir`, stays: a shell whose directory is gone is of no use.
    pub fn remove_empty_parents(&self, path: &RepoPath, user_dir: Option<&RepoPath>) -> Result<()> {
        let mut dir = path.parent();
        while let Some(current) = dir {
            if user_dir.is_some_and(|user_dir| user_dir.is_within(&current))
                || !self.remove_empty_dir(&current)?
            {
                break;
            }
            dir = current.parent();
        }
        Ok(())
    }
}

/// Writes all of it at the end, or nothing: half a line in a list of patterns would hide other paths from git.
fn append_whole(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(written) => done += written,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let end = file.stream_position()?;
                // What another process appended since stays.
                if done > 0 && file.metadata()?.len() == end {
                    file.set_len(end - done as u64)?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Renames to a name that nothing has. The file system itself sees to that, if it can.
pub(super) fn rename_to_nothing(
    from_dir: impl AsFd,
    from: impl Arg + Copy,
    to_dir: impl AsFd,
    to: &str,
) -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(&from_dir, from, &to_dir, to, rustix::fs::RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return done,
    }
    rustix::fs::renameat(from_dir, from, to_dir, to)
}

/// The directory that was opened last.
#[derive(Debug, Default)]
pub struct LastParent(Option<(Option<RepoPath>, Arc<OwnedFd>)>);

/// A name in an open directory.
#[derive(Debug)]
pub struct Entry {
    parent: Arc<OwnedFd>,
    name: String,
    full: PathBuf,
}

impl Entry {
    /// Its stat. `None` when there is nothing.
    pub fn stat(&self) -> Result<Option<FileStat>> {
        stat_at(&self.parent, OsStr::new(&self.name)).context(&self.full, "read")
    }

    /// Opens it, if it is a regular file, and says what it then is. `None` when there is nothing.
    pub fn open(&self) -> Result<Option<(File, FileStat)>> {
        open_file_at(&self.parent, OsStr::new(&self.name)).context(&self.full, "open")
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.full
    }
}

/// Syncs an open directory, if durable.
pub(super) fn sync_fd(dir: &OwnedFd, durability: Durability) -> std::io::Result<()> {
    match durability {
        Durability::Full => Ok(rustix::fs::fsync(dir)?),
        Durability::Off => Ok(()),
    }
}

/// The stat of `name` in an open directory, of a link itself. `None` when there is nothing.
pub(super) fn stat_at(dir: impl AsFd, name: impl Arg) -> std::io::Result<Option<FileStat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileStat::from_raw(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens `name` in an open directory for reading, if it is a regular file. Never waits, as opening a FIFO would.
pub(super) fn open_file_at(dir: impl AsFd, name: &OsStr) -> std::io::Result<Option<(File, FileStat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name.as_bytes(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return Err(std::io::Error::other("it is a symbolic link, which is not followed"));
        }
        Err(errno) => return Err(errno.into()),
    };
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok(Some((file, FileStat::from_metadata(&metadata)))),
        false => Err(std::io::Error::other("it is not a regular file")),
    }
}
