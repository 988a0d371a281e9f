//! File-system primitives that the rest of the crate builds on: atomic publishing, durability, block sharing.
//!
//! "Durable" means: survives a power cut. A file is durable when its bytes were synced, it was renamed to its final
//! name, and the directory of that name was synced, in this order.

mod copy;
mod partial;
mod stat;
mod writeback;
mod writers;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Context, Error, Result};

pub use copy::{OnBytes, copy_hashing, copy_unread, hash_file};
pub use partial::{BLOCK, Partial, allocated};
pub use stat::{Clock, FileStat, Kind};
pub use writeback::{Writing, read_exact_through, start_writeback};
pub use writers::is_open_for_writing;

/// Whether finished files are synced to the device.
///
/// `Off` gives up durability across a power cut, never atomicity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Sync files and directories.
    Full,
    /// Leave write-back to the kernel.
    Off,
}

impl Durability {
    /// Syncs a file's bytes, if durable.
    ///
    /// After a failed sync the kernel may have dropped the bytes: the caller must discard the file, never sync again.
    pub fn sync_file(self, file: &File, path: &Path) -> Result<()> {
        match self {
            Durability::Full => file.sync_data().context(path, "sync to the device"),
            Durability::Off => Ok(()),
        }
    }

    /// How bytes are written that are synced later, if durable.
    pub fn writing(self) -> Writing {
        match self {
            Durability::Full => Writing::Soon,
            Durability::Off => Writing::Later,
        }
    }

    /// Syncs a directory's entries, if durable.
    pub fn sync_dir(self, path: &Path) -> Result<()> {
        match self {
            Durability::Full => {
                File::open(path).and_then(|dir| dir.sync_all()).context(path, "sync the directory")
            }
            Durability::Off => Ok(()),
        }
    }
}

/// Threads that wait for the device when many files are synced: more than cores, because they only wait, and a journal
/// commits what they ask for together.
const SYNC_THREADS: usize = 16;

/// Syncs the bytes of many files at once, if durable.
pub fn sync_files(paths: &[impl AsRef<Path> + Sync], durability: Durability) -> Result<()> {
    sync_each(paths, durability, &|path| {
        let file = File::open(path).context(path, "open")?;
        durability.sync_file(&file, path)
    })
}

/// Syncs the entries of many directories at once, if durable.
pub fn sync_dirs(paths: &[impl AsRef<Path> + Sync], durability: Durability) -> Result<()> {
    sync_each(paths, durability, &|path| durability.sync_dir(path))
}

fn sync_each(
    paths: &[impl AsRef<Path> + Sync],
    durability: Durability,
    sync: &(dyn Fn(&Path) -> Result<()> + Sync),
) -> Result<()> {
    if durability == Durability::Off || paths.is_empty() {
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            sync(path.as_ref())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SYNC_THREADS.min(paths.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panicked"))
    })
}

/// Creates a directory and its missing parents, and makes the new entries durable.
pub fn create_dir_all(path: &Path, durability: Durability) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path.parent().is_none() {
        return Err(Error::new(format!("{}: not a directory", path.display())));
    }
    let parent = parent_of(path);
    create_dir_all(parent, durability)?;
    match fs::create_dir(path) {
        Ok(()) => durability.sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error).context(path, "create the directory"),
    }
}

/// The directory that a path lies in; of a bare name, the current one.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces a file's content atomically: readers see all of the old or all of the new.
///
/// For git-model's own files; what lies in the user's worktree goes through `worktree`, which follows no symlinks.
pub fn write_atomic(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let dir = parent_of(path);
    let mut temp = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .context(dir, "create a file in")
        .map_err(|error| match error.is_io(io::ErrorKind::NotFound) {
            true => error.hint("make that directory first"),
            false => error,
        })?;
    temp.write_all(bytes).context(temp.path(), "write")?;
    durability.sync_file(temp.as_file(), path)?;
    temp.persist(path).map_err(|error| error.error).context(path, "replace")?;
    durability.sync_dir(dir)
}

/// Reads a whole file that must not be larger than `max` bytes. `None` when there is no such file.
pub fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let file = match fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(path, "open"),
    };
    let metadata = file.metadata().context(path, "read")?;
    if !metadata.is_file() {
        return Err(Error::new(format!("{}: not a regular file", path.display())));
    }
    read_at_most(file, metadata.len(), path, max).map(Some)
}

/// As [`read_bounded`], of a regular file that is open already and had this size.
pub fn read_at_most(file: File, size: u64, path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size.min(max) as usize + 1);
    file.take(max + 1).read_to_end(&mut bytes).context(path, "read")?;
    if bytes.len() as u64 > max {
        return Err(Error::new(format!("{}: larger than the allowed {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// Removes a directory with all that is in it, if it is there.
pub fn remove_all_if_there(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(dir, "remove"),
        _ => Ok(()),
    }
}

/// How long nobody touches what belongs to a process that died. Whoever still writes to a file touches it.
const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;

/// Removes what processes that died left in a directory of temporary files: entries that nobody touched for a day, by the
/// file system's own clock, and whose names begin with `prefix`. Returns how many.
pub fn remove_stale(dir: &Path, prefix: &str) -> Result<usize> {
    remove_older(dir, prefix, DAY)
}

/// As [`remove_stale`], of entries that nobody touched for so many nanoseconds.
pub fn remove_older(dir: &Path, prefix: &str, age: i64) -> Result<usize> {
    // Another process may be at it, too; whatever is left is tried again next time.
    let remove = |path: &PathBuf| match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir_all(path).is_ok(),
        false => fs::remove_file(path).is_ok(),
    };
    Ok(older(dir, prefix, age)?.iter().filter(|path| remove(path)).count())
}

/// What [`remove_stale`] would remove.
pub fn stale(dir: &Path) -> Result<Vec<PathBuf>> {
    older(dir, "", DAY)
}

fn older(dir: &Path, prefix: &str, age: i64) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
            .map(|entry| entry.path())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(dir, "list"),
    };
    if !entries.is_empty() {
        let limit = Clock::read(dir)?.earlier(age);
        entries.retain(|path| {
            fs::symlink_metadata(path)
                .is_ok_and(|metadata| FileStat::from_metadata(&metadata).changed_before(limit))
        });
    }
    Ok(entries)
}

/// What became of an attempt to share blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflink {
    /// The target shares all blocks of the source.
    Shared,
    /// Not this file; another one may work.
    NotThis,
    /// These file systems never will.
    Never,
}

/// Makes `target`, an empty file, share all blocks of `source`.
pub fn reflink(source: &File, target: &File) -> Reflink {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        match rustix::fs::ioctl_ficlone(target.as_fd(), source.as_fd()) {
            Ok(()) => Reflink::Shared,
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS) => Reflink::Never,
            Err(_) => Reflink::NotThis,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _unsupported = (source.as_fd(), target.as_fd());
        Reflink::Never
    }
}

/// Bytes that an unprivileged user can still write to the file system of `path`.
pub fn free_space(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).context(path, "ask for the free space of")?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Refuses, before anything is written, work that cannot fit on the file system of `dir`.
pub fn require_space(dir: &Path, needed: u64, purpose: &str) -> Result<()> {
    let free = free_space(dir)?;
    if needed > free {
        return Err(Error::new(format!(
            "{}: not enough space for {purpose}: {} needed, {} free",
            dir.display(),
            crate::human::bytes(needed),
            crate::human::bytes(free)
        ))
        .hint("free some space, or name the paths you need"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_touched_for_a_day_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
        for (name, modified) in [("old", Some(old)), ("new", None)] {
            let file = File::create(dir.path().join(name)).unwrap();
            modified.map(|time| file.set_modified(time)).transpose().unwrap();
        }
        fs::create_dir(dir.path().join("old-dir")).unwrap();
        fs::write(dir.path().join("old-dir/file"), "x").unwrap();
        File::open(dir.path().join("old-dir")).unwrap().set_modified(old).unwrap();
        assert_eq!(remove_stale(dir.path(), "ne").unwrap(), 0);
        assert_eq!(remove_stale(dir.path(), "").unwrap(), 2);
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["new"]);
        remove_stale(&dir.path().join("absent"), "").unwrap();
    }

    #[test]
    fn a_replaced_file_is_whole_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let absent = write_atomic(&dir.path().join("no/such"), b"one", Durability::Full).unwrap_err();
        assert_eq!(absent.hints(), ["make that directory first"]);
        write_atomic(&path, b"one", Durability::Full).unwrap();
        write_atomic(&path, b"two", Durability::Full).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap().as_deref(), Some(b"two".as_slice()));
        assert!(read_bounded(&path, 2).unwrap_err().one_line().contains("larger than"));
        assert_eq!(read_bounded(&dir.path().join("absent"), 1).unwrap(), None);
    }
}
