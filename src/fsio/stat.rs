//! What tells a changed file from an unchanged one, and when that can be believed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Context, Result};

/// File types as far as artifacts are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link.
    Link,
    /// A directory.
    Tree,
    /// A FIFO, socket or device: never an artifact's content.
    Special,
}

/// The part of a file's metadata that changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// The file's type.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Last modification, nanoseconds since the epoch.
    pub mtime: i64,
    /// Last change of the inode, nanoseconds since the epoch.
    pub ctime: i64,
    /// Inode number.
    pub ino: u64,
    /// Names of the inode.
    pub nlink: u64,
    /// Device of the file system.
    pub dev: u64,
}

const NANOS: i64 = 1_000_000_000;

/// Not shorter than the steps, in nanoseconds, of a file system with sub-second times.
const STEP: i64 = NANOS / 100;

impl FileStat {
    /// Takes the stat from the standard library's metadata (of the file itself, not of a link's target).
    pub fn from_metadata(metadata: &Metadata) -> Self {
        FileStat {
            kind: kind_of(metadata.mode()),
            size: metadata.size(),
            mtime: metadata.mtime().saturating_mul(NANOS).saturating_add(metadata.mtime_nsec()),
            ctime: metadata.ctime().saturating_mul(NANOS).saturating_add(metadata.ctime_nsec()),
            ino: metadata.ino(),
            nlink: metadata.nlink(),
            dev: metadata.dev(),
        }
    }

    /// Takes the stat from a system call's answer.
    pub fn from_raw(stat: &rustix::fs::Stat) -> Self {
        FileStat {
            kind: kind_of(stat.st_mode),
            size: stat.st_size as u64,
            mtime: stat.st_mtime.saturating_mul(NANOS).saturating_add(stat.st_mtime_nsec as i64),
            ctime: stat.st_ctime.saturating_mul(NANOS).saturating_add(stat.st_ctime_nsec as i64),
            ino: stat.st_ino,
            nlink: stat.st_nlink,
            dev: stat.st_dev,
        }
    }

    /// Whether nothing says that the file changed between two looks.
    ///
    /// A hard link made or removed elsewhere changes `ctime`, so that is not compared where there are several names.
    pub fn unchanged(&self, later: &FileStat) -> bool {
        self.kind == later.kind
            && self.size == later.size
            && self.mtime == later.mtime
            && self.ino == later.ino
            && (self.ctime == later.ctime || later.nlink > 1)
    }

    /// Whether it is the very file, which may have been renamed since: that changes only the time of the inode's last change.
    pub fn is_same_file(&self, later: &FileStat) -> bool {
        self.ino == later.ino
            && self.size == later.size
            && self.mtime == later.mtime
            && self.kind == later.kind
    }

    /// How long after its last change the file's stat is certain to differ after another one.
    fn granularity(&self) -> i64 {
        // Times without any sub-second part come from file systems like FAT, whose steps are two seconds.
        if self.mtime % NANOS == 0 && self.ctime % NANOS == 0 { 2 * NANOS } else { STEP }
    }

    /// Whether nobody wrote to it since a moment on the same file system's clock.
    pub fn changed_before(&self, moment: Clock) -> bool {
        self.mtime < moment.0
    }

    /// Whether, at `now` on the same file system's clock, a further change would show in the stat.
    pub fn settled_at(&self, now: Clock) -> bool {
        self.mtime.max(self.ctime).saturating_add(self.granularity()) < now.0
    }
}

fn kind_of(mode: u32) -> Kind {
    match mode & 0o170_000 {
        0o040_000 => Kind::Tree,
        0o120_000 => Kind::Link,
        0o100_000 if mode & 0o100 != 0 => Kind::Executable,
        0o100_000 => Kind::File,
        _ => Kind::Special,
    }
}

/// A moment by a file system's own clock, which may differ from the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(i64);

impl Clock {
    /// Before everything: nothing is settled at it.
    pub const EPOCH: Clock = Clock(i64::MIN);

    /// The moment so many nanoseconds before.
    pub fn earlier(self, nanoseconds: i64) -> Clock {
        Clock(self.0.saturating_sub(nanoseconds))
    }

    /// What the file system of `dir` says now.
    pub fn read(dir: &Path) -> Result<Clock> {
        let probe =
            tempfile::Builder::new().prefix("clock-").tempfile_in(dir).context(dir, "create a file in")?;
        let metadata = probe.as_file().metadata().context(probe.path(), "read")?;
        Ok(Clock(FileStat::from_metadata(&metadata).ctime))
    }

    /// What it says once a step has passed, so that everything changed before the call is settled.
    ///
    /// A file system gives a new file the time of the kernel's last tick, which may be long past, so sleeping for a step
    /// is not enough: its own clock has to be seen to move. One that counts whole seconds, or stands still, is not waited
    /// for; files then count as unsettled, and are read again next time.
    pub fn read_after_step(dir: &Path) -> Result<Clock> {
        const ATTEMPTS: usize = 10;
        let mut now = Clock::read(dir)?;
        let settled = now.0.saturating_add(STEP);
        for _ in 0..ATTEMPTS {
            let left = settled.saturating_sub(now.0).clamp(0, STEP) as u64;
            std::thread::sleep(Duration::from_nanos(left) + Duration::from_millis(1));
            now = Clock::read(dir)?;
            if now.0 > settled || now.0 % NANOS == 0 {
                break;
            }
        }
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mtime: i64) -> FileStat {
        FileStat { kind: Kind::File, size: 1, mtime, ctime: mtime, ino: 1, nlink: 1, dev: 1 }
    }

    #[test]
    fn a_fresh_file_is_not_settled() {
        let fine = stat(5 * NANOS + 1);
        assert!(!fine.settled_at(Clock(5 * NANOS + 1)));
        assert!(!fine.settled_at(Clock(5 * NANOS + 9_000_000)));
        assert!(fine.settled_at(Clock(5 * NANOS + 11_000_000)));
        let coarse = stat(6 * NANOS);
        assert!(!coarse.settled_at(Clock(8 * NANOS)));
        assert!(coarse.settled_at(Clock(8 * NANOS + 1)));
    }

    #[test]
    fn a_clock_step_settles_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        // Often enough to meet the file system's clock at every place between two ticks.
        for round in 0..50 {
            let file = dir.path().join(round.to_string());
            std::fs::write(&file, "x").unwrap();
            let stat = FileStat::from_metadata(&std::fs::symlink_metadata(&file).unwrap());
            assert!(stat.settled_at(Clock::read_after_step(dir.path()).unwrap()), "round {round}");
        }
    }
}
