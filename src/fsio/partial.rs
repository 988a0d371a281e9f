//! A file that is filled in any order, and that outlives the process that fills it. Format: `docs/formats/local-layout.md`.
//!
//! The file holds the content at its final place, then the record of which blocks of it are there. What the record claims
//! saves work and is trusted for nothing: the whole content is hashed before anybody uses it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{Durability, create_dir_all, remove_older};
use crate::error::{Context, Error, Result};
use crate::id::{Digest, Hasher};

/// Bytes per entry of the record.
pub const BLOCK: u64 = 1024 * 1024;
/// The last bytes of the file, after the record and the system's boot id.
const MAGIC: &[u8; 8] = b"gmpart1\n";
const BOOT_ID: usize = 16;
/// What nobody touched for so long is not gone on with.
const KEEP: i64 = 7 * 24 * 60 * 60 * 1_000_000_000;

/// The block is not there.
const ABSENT: u8 = 0;
/// The block was written; a power cut since then may have lost it.
const WRITTEN: u8 = 1;
/// The block was written and synced.
const SYNCED: u8 = 2;

/// An object of known name and size, on its way to being complete. Shared by the threads that fill it.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    /// Locked as long as it is open, so that others can tell a leftover from a file in use.
    file: File,
    digest: Digest,
    size: u64,
    durability: Durability,
    record: Mutex<BlockRecord>,
    hashed: Mutex<Hashed>,
    inherited: u64,
    /// Set when a sync failed: the kernel may have dropped bytes, and would not say so again.
    unsynced: AtomicBool,
}

/// Which blocks are there; the end of the file says the same as long as it is not complete.
#[derive(Debug)]
struct BlockRecord {
    blocks: Vec<u8>,
    /// Set when the record was taken off: from then on nothing may be written behind the content, not even by a checkpoint
    /// that began before.
    complete: bool,
}

/// How far the content was hashed, in order.
#[derive(Debug, Default)]
struct Hashed {
    hasher: Hasher,
    blocks: u64,
    buffer: Vec<u8>,
}

/// A leftover of an earlier run.
struct Leftover {
    path: PathBuf,
    file: File,
    blocks: Vec<u8>,
}

impl Leftover {
    fn present(&self) -> usize {
        self.blocks.iter().filter(|block| **block != ABSENT).count()
    }
}

impl Partial {
    /// Goes on with what an earlier run left in `dir`, or starts a new file of the full size there.
    ///
    /// A file in use is never shared: whoever finds one fills another file. The lock that tells is only a help; if it fails
    /// to tell, two processes write the same bytes to the same places, and one of them finds that its file was taken away.
    pub fn open(dir: &Path, digest: Digest, size: u64, durability: Durability) -> Result<Partial> {
        create_dir_all(dir, durability)?;
        remove_older(dir, "", KEEP)?;
        let path = dir.join(format!("{digest}.{}", uuid::Uuid::new_v4().simple()));
        let (file, blocks) = match adopt(dir, &digest, size, &path)? {
            Some(leftover) => (leftover.file, leftover.blocks),
            None => create(&path, size)?,
        };
        let inherited = bytes_of(&blocks, size);
        let record = Mutex::new(BlockRecord { blocks, complete: false });
        let (hashed, unsynced) = (Mutex::default(), AtomicBool::new(false));
        let partial = Partial { path, file, digest, size, durability, record, hashed, inherited, unsynced };
        partial.write_record()?;
        Ok(partial)
    }

    /// Bytes of the whole content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that an earlier run left.
    pub fn inherited(&self) -> u64 {
        self.inherited
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is missing, in order, in pieces of at most `max` bytes (a multiple of [`BLOCK`]).
    pub fn missing(&self, max: u64) -> Vec<Range<u64>> {
        let record = self.record();
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for (at, _) in record.blocks.iter().enumerate().filter(|(_, block)| **block == ABSENT) {
            let start = at as u64 * BLOCK;
            let end = (start + BLOCK).min(self.size);
            match pieces.last_mut() {
                Some(last) if last.end == start && end - last.start <= max => last.end = end,
                _ => pieces.push(start..end),
            }
        }
        pieces
    }

    /// Writes bytes at their place.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if offset + bytes.len() as u64 > self.size {
            return Err(Error::new(format!("more than the expected {} bytes came", self.size)));
        }
        self.file.write_all_at(bytes, offset).context(&self.path, "write")
    }

    /// Notes that these bytes were written. Only whole blocks count.
    pub fn mark(&self, written: Range<u64>) -> Result<()> {
        let first = written.start.div_ceil(BLOCK);
        let end = if written.end == self.size { self.size.div_ceil(BLOCK) } else { written.end / BLOCK };
        let mut record = self.record();
        for at in first..end {
            record.blocks[at as usize] = WRITTEN;
        }
        if first < end {
            let marks = vec![WRITTEN; (end - first) as usize];
            self.file.write_all_at(&marks, self.size + first).context(&self.path, "write")?;
        }
        Ok(())
    }

    /// Syncs what was written so far, so that it survives a power cut. Does nothing where the user gave that up.
    pub fn checkpoint(&self) -> Result<()> {
        if self.durability == Durability::Off {
            return Ok(());
        }
        let before = self.record().blocks.clone();
        if let Err(error) = self.durability.sync_file(&self.file, &self.path) {
            self.unsynced.store(true, Ordering::Relaxed);
            self.reset()?;
            return Err(error);
        }
        let mut record = self.record();
        if record.complete {
            return Ok(());
        }
        for (block, before) in record.blocks.iter_mut().zip(before) {
            if before == WRITTEN && *block == WRITTEN {
                *block = SYNCED;
            }
        }
        self.file.write_all_at(&record.blocks, self.size).context(&self.path, "write")
    }

    fn record(&self) -> MutexGuard<'_, BlockRecord> {
        self.record.lock().expect("no thread panicked")
    }

    /// Tells the device to start on what was written: also where nobody waits for it, because memory can let go only of what the
    /// device has.
    pub fn start_writeback(&self) {
        super::start_writeback(&self.file);
    }

    /// Hashes the next block if it is there: what lies in the file, right behind whoever wrote it. `false` when it is not.
    pub fn hash_next(&self) -> Result<bool> {
        let mut hashed = self.hashed.lock().expect("no thread panicked");
        let at = hashed.blocks;
        let present = self.record().blocks.get(at as usize).copied();
        if present.is_none_or(|block| block == ABSENT) {
            return Ok(false);
        }
        let start = at * BLOCK;
        let length = BLOCK.min(self.size - start) as usize;
        let Hashed { hasher, blocks, buffer } = &mut *hashed;
        buffer.resize(length, 0);
        self.file.read_exact_at(buffer, start).context(&self.path, "read")?;
        hasher.update(buffer);
        *blocks += 1;
        Ok(true)
    }

    /// Whether all of it is there and hashes to its name. An error when the device lost some of it.
    pub fn is_right(&self) -> Result<bool> {
        self.require_synced()?;
        while self.hash_next()? {}
        let hashed = self.hashed.lock().expect("no thread panicked");
        Ok(hashed.blocks == self.size.div_ceil(BLOCK) && hashed.hasher.clone().finish() == self.digest)
    }

    /// Forgets everything that was written.
    pub fn reset(&self) -> Result<()> {
        // In the order in which whoever hashes takes them.
        let mut hashed = self.hashed.lock().expect("no thread panicked");
        let mut record = self.record();
        if record.complete {
            return Ok(());
        }
        record.blocks.fill(ABSENT);
        self.file.write_all_at(&record.blocks, self.size).context(&self.path, "write")?;
        *hashed = Hashed::default();
        Ok(())
    }

    /// Takes the record off, so that the file is the content and nothing else. It must be right.
    pub fn complete(&self, mode: u32) -> Result<()> {
        self.require_synced()?;
        let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        let own = self.file.metadata().context(&self.path, "read")?;
        if found.ok() != Some((own.dev(), own.ino())) {
            // Of I/O, not of wrong bytes.
            return Err(Error::new(self.path.display().to_string())
                .caused_by(io::Error::other("another process took it over"))
                .hint("run the command again when the other one is done"));
        }
        let mut record = self.record();
        record.complete = true;
        self.file.set_len(self.size).context(&self.path, "cut")?;
        self.file.set_permissions(fs::Permissions::from_mode(mode)).context(&self.path, "change the mode of")
    }

    /// Fails once a sync did.
    pub fn require_synced(&self) -> Result<()> {
        if self.unsynced.load(Ordering::Relaxed) {
            return Err(Error::new(self.path.display().to_string())
                .caused_by(io::Error::other("could not be synced to the device"))
                .hint("see what the system says about the device (dmesg), then run the command again"));
        }
        Ok(())
    }

    /// Removes it.
    pub fn discard(&self) {
        // Another process may be at it, too; whatever is left is removed after a while.
        drop(fs::remove_file(&self.path));
    }

    fn write_record(&self) -> Result<()> {
        let mut tail = self.record().blocks.clone();
        tail.extend_from_slice(&boot_id());
        tail.extend_from_slice(MAGIC);
        self.file.write_all_at(&tail, self.size).context(&self.path, "write")
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // An empty one would only take space. After `complete` and a rename there is nothing under this name any more.
        if self.record.lock().is_ok_and(|record| record.blocks.iter().all(|block| *block == ABSENT)) {
            self.discard();
        }
    }
}

/// Bytes on the disk that leftovers of this object take already.
pub fn allocated(dir: &Path, digest: &Digest, size: u64) -> u64 {
    let largest = leftovers(dir, digest).filter_map(|path| fs::symlink_metadata(path).ok());
    largest.map(|found| found.blocks().saturating_mul(512)).max().unwrap_or(0).min(size)
}

fn leftovers(dir: &Path, digest: &Digest) -> impl Iterator<Item = PathBuf> {
    let prefix = format!("{digest}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
}

/// Takes over the fullest leftover that nobody uses, under a new name; the others that nobody uses are removed.
fn adopt(dir: &Path, digest: &Digest, size: u64, path: &Path) -> Result<Option<Leftover>> {
    let mut found: Vec<Leftover> = Vec::new();
    for leftover in leftovers(dir, digest) {
        let open = || OpenOptions::new().read(true).write(true).open(&leftover);
        let file = match open() {
            // It was complete when its process died; one that is about to be published is locked.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                make_writable(&leftover).and_then(|()| open())
            }
            file => file,
        };
        let Ok(file) = file else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let blocks = read_record(&file, size).context(&leftover, "read")?;
        found.push(Leftover { path: leftover, file, blocks });
    }
    found.sort_by_key(Leftover::present);
    let mut adopted = None;
    for leftover in found.into_iter().rev() {
        if adopted.is_some() || leftover.present() == 0 {
            drop(fs::remove_file(&leftover.path));
        } else if fs::rename(&leftover.path, path).is_ok() {
            // Whoever renames it first has it.
            leftover.file.set_len(length(size)).context(path, "extend")?;
            adopted = Some(leftover);
        }
    }
    Ok(adopted)
}

/// Makes a file writable that nobody uses.
fn make_writable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.try_lock()?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

fn create(path: &Path, size: u64) -> Result<(File, Vec<u8>)> {
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(path).context(path, "create")?;
    // Where locks do not work, nobody goes on with a leftover.
    drop(file.try_lock());
    if let Err(error) = reserve(&file, length(size)) {
        drop(fs::remove_file(path));
        return Err(error).context(path, "reserve space for");
    }
    Ok((file, vec![ABSENT; size.div_ceil(BLOCK) as usize]))
}

/// Makes the file so long, with its space taken where the file system can do that.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            other => return other.map_err(io::Error::from),
        }
    }
    file.set_len(length)
}

/// The content, one byte per block, the boot id and the magic.
fn length(size: u64) -> u64 {
    size + size.div_ceil(BLOCK) + (BOOT_ID + MAGIC.len()) as u64
}

/// Which blocks are there. What the system may have lost since they were written counts as absent.
fn read_record(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let count = size.div_ceil(BLOCK) as usize;
    let found = file.metadata()?.len();
    if found == size {
        // It was complete and right, but not published yet.
        return Ok(vec![WRITTEN; count]);
    }
    if found != length(size) {
        return Ok(vec![ABSENT; count]);
    }
    let mut tail = vec![0; count + BOOT_ID + MAGIC.len()];
    file.read_exact_at(&mut tail, size)?;
    let same_boot = tail[count..count + BOOT_ID] == boot_id() && tail[count..count + BOOT_ID] != [0; BOOT_ID];
    let is_record = tail.ends_with(MAGIC);
    tail.truncate(count);
    for block in &mut tail {
        let is_there = *block == SYNCED || *block == WRITTEN && same_boot;
        if !is_record || !is_there {
            *block = ABSENT;
        }
    }
    Ok(tail)
}

/// What the system calls its present run; zeros where it has no name for it. Then only synced blocks count.
fn boot_id() -> [u8; BOOT_ID] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    uuid::Uuid::parse_str(text.trim()).map_or([0; BOOT_ID], uuid::Uuid::into_bytes)
}

fn bytes_of(blocks: &[u8], size: u64) -> u64 {
    let length = |at: usize| BLOCK.min(size - at as u64 * BLOCK);
    blocks.iter().enumerate().filter(|(_, block)| **block != ABSENT).map(|(at, _)| length(at)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 5 * BLOCK + 7;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|at| (at / 1000 % 251) as u8).collect()
    }

    fn open(dir: &Path) -> Partial {
        Partial::open(dir, Digest::of(&content()), SIZE, Durability::Full).unwrap()
    }

    fn fill(partial: &Partial, range: Range<u64>) {
        partial.write_at(&content()[range.start as usize..range.end as usize], range.start).unwrap();
        partial.mark(range).unwrap();
    }

    #[test]
    fn pieces_in_any_order_make_the_object() {
        let dir = tempfile::tempdir().unwrap();
        let partial = open(dir.path());
        assert_eq!(partial.missing(2 * BLOCK), [0..2 * BLOCK, 2 * BLOCK..4 * BLOCK, 4 * BLOCK..SIZE]);
        fill(&partial, 4 * BLOCK..SIZE);
        assert!(!partial.hash_next().unwrap());
        fill(&partial, 0..2 * BLOCK);
        assert!(partial.hash_next().unwrap());
        assert!(!partial.is_right().unwrap());
        fill(&partial, 2 * BLOCK..4 * BLOCK);
        assert!(partial.is_right().unwrap());
        partial.complete(0o444).unwrap();
        assert_eq!(fs::read(partial.path()).unwrap(), content());
        assert!(partial.write_at(b"x", SIZE).is_err());
    }

    #[test]
    fn a_failed_sync_is_not_taken_for_wrong_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let partial = open(dir.path());
        fill(&partial, 0..SIZE);
        partial.unsynced.store(true, Ordering::Relaxed);
        partial.reset().unwrap();
        for error in [partial.is_right().unwrap_err(), partial.complete(0o444).unwrap_err()] {
            assert!(error.one_line().contains("could not be synced"), "{}", error.one_line());
        }
    }

    #[test]
    fn a_checkpoint_that_ends_late_adds_nothing_to_the_object() {
        let dir = tempfile::tempdir().unwrap();
        let partial = open(dir.path());
        fill(&partial, 0..SIZE);
        assert!(partial.is_right().unwrap());
        partial.complete(0o444).unwrap();
        partial.checkpoint().unwrap();
        partial.reset().unwrap();
        assert_eq!(fs::read(partial.path()).unwrap(), content());
    }

    #[test]
    fn a_later_run_goes_on_and_one_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        // Half of the second block is not a block.
        fill(&first, 0..BLOCK + 9);
        fill(&first, 3 * BLOCK..4 * BLOCK);
        let beside = open(dir.path());
        assert_eq!(beside.inherited(), 0);
        drop(beside);
        drop(first);
        let second = open(dir.path());
        assert_eq!(second.inherited(), 2 * BLOCK);
        assert_eq!(second.missing(16 * BLOCK), [BLOCK..3 * BLOCK, 4 * BLOCK..SIZE]);
        assert!(allocated(dir.path(), &Digest::of(&content()), SIZE) > 0);
        fill(&second, BLOCK..3 * BLOCK);
        fill(&second, 4 * BLOCK..SIZE);
        assert!(second.is_right().unwrap());
        second.complete(0o444).unwrap();
        drop(second);
        assert_eq!(open(dir.path()).missing(SIZE), [], "complete, and only not published yet");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_shows_and_everything_can_start_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        fill(&first, 0..SIZE);
        first.file.write_all_at(b"damage", 2 * BLOCK).unwrap();
        drop(first);
        let second = open(dir.path());
        assert_eq!(second.inherited(), SIZE);
        assert!(!second.is_right().unwrap());
        second.reset().unwrap();
        fill(&second, 0..SIZE);
        assert!(second.is_right().unwrap());
    }

    #[test]
    fn after_a_reboot_only_what_was_synced_counts() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        fill(&first, 0..2 * BLOCK);
        first.checkpoint().unwrap();
        fill(&first, 2 * BLOCK..3 * BLOCK);
        let boot_at = SIZE + SIZE.div_ceil(BLOCK);
        first.file.write_all_at(&[7; BOOT_ID], boot_at).unwrap();
        drop(first);
        let second = open(dir.path());
        assert_eq!(second.inherited(), 2 * BLOCK);
        second.file.write_all_at(b"other it", boot_at + BOOT_ID as u64).unwrap();
        drop(second);
        assert_eq!(open(dir.path()).inherited(), 0);
    }

    #[test]
    fn an_empty_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
