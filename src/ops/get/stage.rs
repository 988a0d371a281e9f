//! The directory in which files are made before they go to their place: one process at a time.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::Place;
use super::{Origin, PART, Wanted};
use crate::error::{Context, Error, Kind, Result};
use crate::fsio::{self, FileStat};

/// How often it is looked whether another process is done.
const POLL: Duration = Duration::from_millis(50);

/// The staging directory, taken for this process.
///
/// A lock keeps two processes from mixing their versions. Where locks do not work, [`Made`] still notices it.
pub(super) struct Stage {
    pub(super) path: PathBuf,
    _lock: Option<File>,
}

impl Stage {
    /// Takes it. Another process that writes to the same directory is waited for.
    pub(super) fn take(place: &Place<'_>, origin: &Origin<'_>) -> Result<Stage> {
        let mut waiting = None;
        loop {
            let path = place.stage_path()?;
            fsio::create_dir_all(&path, place.durability)?;
            let dir = match File::open(&path) {
                // Another process was done with it just now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                dir => dir.context(&path, "open")?,
            };
            match dir.try_lock() {
                Ok(()) if is_at(&dir, &path) && place.stage_path()? == path => {
                    return Ok(Stage { path, _lock: Some(dir) });
                }
                // It was moved or removed before the lock was free.
                Ok(()) => {}
                Err(TryLockError::Error(_)) => return Ok(Stage { path, _lock: None }),
                Err(TryLockError::WouldBlock) => {
                    origin.interrupt().check()?;
                    waiting.get_or_insert_with(|| origin.progress().step("waiting for another get", 0, 0));
                    std::thread::sleep(POLL);
                }
            }
        }
    }

    /// Removes what a run that was killed at its very end left in a directory that is complete.
    pub(super) fn clear_left(place: &Place<'_>) -> Result<()> {
        let path = place.dir.join(PART);
        match File::open(&path).map(|dir| dir.try_lock()) {
            Err(_) | Ok(Err(TryLockError::WouldBlock)) => Ok(()),
            Ok(_) => fsio::remove_all_if_there(&path),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Only an empty one goes: the next run goes on with what is in it.
        drop(fs::remove_dir(&self.path));
    }
}

fn is_at(dir: &File, path: &Path) -> bool {
    let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((dir.metadata(), fs::symlink_metadata(path)), (Ok(open), Ok(found)) if id(&open) == id(&found))
}

/// The files that were just made in the staging directory and checked.
pub(super) struct Made<'a>(Vec<(&'a Wanted, FileStat)>);

impl<'a> Made<'a> {
    pub(super) fn look(stage: &Path, wanted: &'a [Wanted]) -> Result<Made<'a>> {
        let stat = |file: &'a Wanted| Ok((file, stat_of(&stage.join(file.path.as_path()))?));
        wanted.iter().map(stat).collect::<Result<_>>().map(Made)
    }

    /// Fails unless the files at their places are those that were made.
    pub(super) fn require_in(&self, dir: &Path) -> Result<()> {
        for (file, made) in &self.0 {
            let path = dir.join(file.path.as_path());
            if !stat_of(&path).is_ok_and(|found| made.is_same_file(&found)) {
                let said = format!("{}: another process writes here, too", path.display());
                return Err(Error::new(said)
                    .of_kind(Kind::Race)
                    .hint("run it again when the other one is done"));
            }
        }
        Ok(())
    }
}

fn stat_of(path: &Path) -> Result<FileStat> {
    Ok(FileStat::from_metadata(&fs::symlink_metadata(path).context(path, "read")?))
}
