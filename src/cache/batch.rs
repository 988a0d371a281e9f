//! Adding objects: write under a temporary name, sync, rename, sync the directories; many at once.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rayon::prelude::*;
use tempfile::{NamedTempFile, TempPath};

use super::{Cache, Usage};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, Partial, Reflink, Writing};
use crate::id::{Digest, Hasher};

/// Waiting objects are published when there are this many, so that an interrupted run keeps most of its work.
const FLUSH_COUNT: usize = 8192;
/// An object of this size or more is published at once.
const PUBLISH_AT_ONCE: u64 = 8 * 1024 * 1024;
/// Smaller files are read whole before they are written.
const SMALL: u64 = 1024 * 1024;
/// Objects are never modified.
const OBJECT_MODE: u32 = 0o444;
/// What names of temporary files begin with.
pub(super) const TEMP_PREFIX: &str = "new-";
/// What arrives and is not larger waits in memory until it was checked.
const ARRIVES_IN_MEMORY: u64 = 64 * 1024;
/// Sharing blocks saves nothing for files smaller than a block.
const REFLINK_FROM: u64 = 4096;

/// An object that a batch took in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Objects on their way into the cache; shared by the threads that add them.
///
/// Nothing may refer to them before [`Batch::commit`] returned.
#[derive(Debug)]
pub struct Batch<'a> {
    cache: &'a Cache,
    tmp: PathBuf,
    waiting: Mutex<Vec<Waiting>>,
    published: Mutex<HashSet<Digest>>,
    added: Mutex<Usage>,
    dirs: Mutex<BTreeSet<PathBuf>>,
    reflinks: AtomicBool,
    /// A file in `tmp` while small objects are being written elsewhere: it tells that they were left when it was.
    sign: OnceLock<TempPath>,
}

#[derive(Debug)]
struct Waiting {
    digest: Digest,
    size: u64,
    temp: TempPath,
}

impl<'a> Batch<'a> {
    pub(super) fn new(cache: &'a Cache, tmp: PathBuf) -> Self {
        Batch {
            cache,
            tmp,
            waiting: Mutex::default(),
            published: Mutex::default(),
            added: Mutex::default(),
            dirs: Mutex::default(),
            reflinks: AtomicBool::new(true),
            sign: OnceLock::new(),
        }
    }

    /// Takes in a copy of a file: shared blocks where the file system can, else one pass of copying and hashing.
    ///
    /// The digest is of the copy. Whether the source changed meanwhile is for the caller to find out.
    pub fn add_file(&self, source: &File, size: u64, on_bytes: fsio::OnBytes<'_>) -> Result<Added> {
        if size < SMALL && !self.may_share_blocks(size) {
            let mut bytes = Vec::with_capacity(size as usize + 1);
            // One byte more than expected shows that the file has grown.
            source.take(size + 1).read_to_end(&mut bytes).context(&self.tmp, "read a file into")?;
            on_bytes(bytes.len() as u64).context(&self.tmp, "read a file into")?;
            return self.add_bytes(&bytes);
        }
        let temp = self.temp_in(&self.tmp)?;
        let path = temp.path().to_path_buf();
        // The user's own file is what will be read next, not the copy.
        let writing = match self.cache.durability {
            Durability::Full => Writing::Through,
            Durability::Off => Writing::Fastest,
        };
        let (digest, size) = if self.try_reflink(source, temp.as_file(), size) {
            // The clone has its own blocks from here on; it is what gets hashed.
            fsio::hash_file(&File::open(&path).context(&path, "open")?, on_bytes).context(&path, "read")?
        } else {
            fsio::copy_hashing(source, temp.as_file(), size, writing, on_bytes)
                .context(&path, "copy into the cache as")?
        };
        self.take(Waiting { digest, size, temp: temp.into_temp_path() })
    }

    /// Takes in bytes that are in memory.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<Added> {
        self.add_named(Digest::of(bytes), bytes)
    }

    /// Takes in bytes with this name.
    ///
    /// It is known before they are written, so the temporary file lies where the object will be: many small files in one
    /// temporary directory, each renamed to another, would wait for each other in the file system.
    fn add_named(&self, digest: Digest, bytes: &[u8]) -> Result<Added> {
        let added = Added { digest, size: bytes.len() as u64 };
        if self.published.lock().expect("no thread panicked").contains(&digest) {
            return Ok(added);
        }
        if self.sign.get().is_none() {
            // Another thread's is as good.
            drop(self.sign.set(self.temp_in(&self.tmp)?.into_temp_path()));
        }
        let target = self.cache.object_path(&digest);
        let dir = target.parent().unwrap_or(&self.tmp);
        let mut temp = match self.temp_in(dir) {
            Err(error) if error.is_io(io::ErrorKind::NotFound) => {
                self.cache.missing_parent(&target)?;
                self.temp_in(dir)?
            }
            temp => temp?,
        };
        temp.write_all(bytes).context(temp.path(), "write")?;
        if self.cache.durability == Durability::Full {
            fsio::start_writeback(temp.as_file());
        }
        self.take(Waiting { digest, size: added.size, temp: temp.into_temp_path() })
    }

    /// Starts taking in an object that comes from elsewhere: at most, or if `exact` exactly, `max` bytes that must hash
    /// to `digest`.
    pub fn incoming(&self, digest: Digest, max: u64, exact: bool) -> Incoming<'_, 'a> {
        let place = match max <= ARRIVES_IN_MEMORY {
            true => Place::Memory(Vec::new()),
            false => Place::None,
        };
        Incoming { batch: self, digest, max, exact, size: 0, hasher: Hasher::default(), place }
    }

    /// Publishes everything that still waits. Only now may anything refer to the objects.
    pub fn commit(self) -> Result<Usage> {
        self.flush()?;
        let dirs: Vec<PathBuf> = self.dirs.into_inner().expect("no thread panicked").into_iter().collect();
        fsio::sync_dirs(&dirs, self.cache.durability)?;
        let added = self.added.into_inner().expect("no thread panicked");
        self.cache.book(added);
        Ok(added)
    }

    fn temp_in(&self, dir: &Path) -> Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            .rand_bytes(12)
            .permissions(fs::Permissions::from_mode(OBJECT_MODE))
            .tempfile_in(dir)
            .context(dir, "create a file in")
    }

    fn may_share_blocks(&self, size: u64) -> bool {
        size >= REFLINK_FROM && self.reflinks.load(Ordering::Relaxed)
    }

    fn try_reflink(&self, source: &File, target: &File, size: u64) -> bool {
        if !self.may_share_blocks(size) {
            return false;
        }
        let outcome = fsio::reflink(source, target);
        if outcome == Reflink::Never {
            self.reflinks.store(false, Ordering::Relaxed);
        }
        outcome == Reflink::Shared
    }

    fn take(&self, object: Waiting) -> Result<Added> {
        let added = Added { digest: object.digest, size: object.size };
        if !self.published.lock().expect("no thread panicked").insert(object.digest) {
            // The same bytes came twice in this batch; the temporary file goes away.
            return Ok(added);
        }
        if self.cache.durability == Durability::Off || object.size >= PUBLISH_AT_ONCE {
            self.publish(vec![object])?;
            return Ok(added);
        }
        let full = {
            let mut waiting = self.waiting.lock().expect("no thread panicked");
            waiting.push(object);
            if waiting.len() >= FLUSH_COUNT { std::mem::take(&mut *waiting) } else { Vec::new() }
        };
        self.publish(full)?;
        Ok(added)
    }

    fn flush(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("no thread panicked"));
        self.publish(waiting)
    }

    /// Syncs all files in parallel (their write-back has started already) and renames all, on all cores: each within its own
    /// directory, so that they hardly wait for each other. The directories are synced once, by [`Batch::commit`].
    fn publish(&self, objects: Vec<Waiting>) -> Result<()> {
        let temps: Vec<&Path> = objects.iter().map(|object| &*object.temp).collect();
        fsio::sync_files(&temps, self.cache.durability)?;
        let rename = |object: Waiting| -> Result<(PathBuf, Usage)> {
            let target = self.cache.object_path(&object.digest);
            let is_new = self.cache.size_of(&object.digest) != Some(object.size);
            // An object that is there already is replaced by these bytes, which are known to be right.
            self.persist(object.temp, &target)?;
            if object.size >= PUBLISH_AT_ONCE {
                self.cache.note_checked(&object.digest);
            }
            let added = if is_new { Usage { objects: 1, bytes: object.size } } else { Usage::default() };
            Ok((fsio::parent_of(&target).to_owned(), added))
        };
        let renamed: Vec<_> = objects.into_par_iter().map(rename).collect::<Result<_>>()?;
        let mut total = self.added.lock().expect("no thread panicked");
        for (_, added) in &renamed {
            total.objects += added.objects;
            total.bytes += added.bytes;
        }
        self.dirs.lock().expect("no thread panicked").extend(renamed.into_iter().map(|(dir, _)| dir));
        Ok(())
    }

    fn persist(&self, temp: TempPath, target: &Path) -> Result<()> {
        let error = match temp.persist(target) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.error.kind() != io::ErrorKind::NotFound {
            return Err(error.error).context(target, "publish");
        }
        self.cache.missing_parent(target)?;
        error.path.persist(target).map_err(|error| error.error).context(target, "publish")
    }
}

/// An object that arrives from elsewhere, hashed as it comes: in order, or in pieces of any order.
#[derive(Debug)]
pub struct Incoming<'b, 'a> {
    batch: &'b Batch<'a>,
    digest: Digest,
    max: u64,
    exact: bool,
    size: u64,
    hasher: Hasher,
    place: Place,
}

/// Where it arrives.
#[derive(Debug)]
enum Place {
    /// Nothing came yet of what will be a file.
    None,
    /// All that came of a small object.
    Memory(Vec<u8>),
    /// In order; gone when this process dies.
    Temp(NamedTempFile),
    /// In pieces; a later run goes on with it.
    Pieces(Arc<Partial>),
}

impl Incoming<'_, '_> {
    /// Takes the next bytes; refuses more than were announced.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.max {
            return Err(Error::new(format!("more than the expected {} bytes came", self.max)));
        }
        self.hasher.update(bytes);
        if let Place::Memory(all) = &mut self.place {
            all.extend_from_slice(bytes);
            return Ok(());
        }
        let temp = self.temp()?;
        temp.write_all(bytes).context(temp.path(), "write")
    }

    /// The place for its pieces, with what an earlier run left. `None` when its size is not known exactly.
    pub fn in_pieces(&mut self) -> Result<Option<Arc<Partial>>> {
        if !self.exact {
            return Ok(None);
        }
        let dir = self.batch.cache.partial_dir();
        let partial = Arc::new(Partial::open(&dir, self.digest, self.max, self.batch.cache.durability)?);
        self.place = Place::Pieces(Arc::clone(&partial));
        Ok(Some(partial))
    }

    fn temp(&mut self) -> Result<&mut NamedTempFile> {
        if !matches!(self.place, Place::Temp(_)) {
            self.place = Place::Temp(self.batch.temp_in(&self.batch.tmp)?);
        }
        match &mut self.place {
            Place::Temp(temp) => Ok(temp),
            Place::None | Place::Memory(_) | Place::Pieces(_) => unreachable!("it was made above"),
        }
    }

    /// Checks the bytes and hands the object to the batch. Wrong bytes are dropped.
    pub fn finish(mut self) -> Result<Added> {
        if let Place::Pieces(partial) = &self.place {
            if !partial.is_right()? {
                partial.discard();
                return Err(Error::new(format!(
                    "the bytes that came are not the right ones (their SHA-256 is not {})",
                    self.digest.short()
                )));
            }
            partial.complete(OBJECT_MODE)?;
            let temp = TempPath::try_from_path(partial.path()).context(partial.path(), "take over")?;
            return self.batch.take(Waiting { digest: self.digest, size: self.max, temp });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != self.digest {
            return Err(Error::new(format!(
                "the bytes that came are not the right ones (SHA-256 {} instead of {})",
                found.short(),
                self.digest.short()
            )));
        }
        if self.exact && self.size != self.max {
            return Err(Error::new(format!(
                "its pointer states {} bytes, but the content has {}",
                self.max, self.size
            )));
        }
        if let Place::Memory(all) = &self.place {
            return self.batch.add_named(self.digest, all);
        }
        let durable = self.batch.cache.durability == Durability::Full;
        self.temp()?;
        let Place::Temp(temp) = self.place else { unreachable!("it was made above") };
        if durable {
            fsio::start_writeback(temp.as_file());
        }
        self.batch.take(Waiting { digest: self.digest, size: self.size, temp: temp.into_temp_path() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"), Durability::Full);
        (dir, cache)
    }

    #[test]
    fn published_objects_are_right_and_counted_once() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let added = batch.add_bytes(b"abc").unwrap();
        batch.add_bytes(b"abc").unwrap();
        assert_eq!(cache.size_of(&added.digest), None, "nothing is published before its sync");
        assert_eq!(batch.commit().unwrap(), Usage { objects: 1, bytes: 3 });
        assert_eq!(cache.verify(&added.digest, &|_| Ok(())).unwrap(), Some(true));
        assert_eq!(cache.usage().unwrap(), Usage { objects: 1, bytes: 3 });
        assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn small_objects_of_a_process_that_died_are_removed() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let digest = batch.add_bytes(b"abc").unwrap().digest;
        // As if it had died: nothing is dropped.
        std::mem::forget(batch);
        let dir = fsio::parent_of(&cache.object_path(&digest)).to_owned();
        let files = |dir: &Path| -> Vec<PathBuf> {
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let left = [files(&dir), files(&cache.root().join("tmp"))].concat();
        assert_eq!(left.len(), 2);
        let kept = cache.batch().unwrap();
        let digest = kept.add_bytes(b"abc").unwrap().digest;
        kept.commit().unwrap();
        assert_eq!(files(&dir).len(), 2, "it could still be at work");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
        for path in &left {
            File::open(path).unwrap().set_modified(old).unwrap();
        }
        File::open(cache.object_path(&digest)).unwrap().set_modified(old).unwrap();
        drop(cache.batch().unwrap());
        assert_eq!(files(&dir), [cache.object_path(&digest)], "objects stay, however old");
        assert_eq!(files(&cache.root().join("tmp")), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_was_checked_is_known_until_somebody_touches_it() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let large = vec![7; PUBLISH_AT_ONCE as usize];
        let (large, small) =
            (batch.add_bytes(&large).unwrap().digest, batch.add_bytes(b"small").unwrap().digest);
        batch.commit().unwrap();
        assert!(cache.was_checked(&large));
        assert!(!cache.was_checked(&small));
        assert!(
            !Cache::new(cache.root().to_owned(), Durability::Full).was_checked(&large),
            "by another process"
        );
        let path = cache.object_path(&large);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!cache.was_checked(&large));
    }

    #[test]
    fn a_damaged_object_is_quarantined_and_replaced() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let digest = batch.add_bytes(b"good").unwrap().digest;
        batch.commit().unwrap();
        let path = cache.object_path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"evil").unwrap();
        assert_eq!(cache.read_small(&digest, 10).unwrap(), None);
        assert_eq!(fs::read_dir(cache.root().join("quarantine")).unwrap().count(), 1);
        fs::write(&path, b"evil").unwrap();
        let batch = cache.batch().unwrap();
        batch.add_bytes(b"good").unwrap();
        batch.commit().unwrap();
        assert_eq!(cache.read_small(&digest, 10).unwrap().as_deref(), Some(b"good".as_slice()));
    }

    #[test]
    fn wrong_or_too_many_incoming_bytes_are_never_published() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let digest = Digest::of(b"right");
        let mut incoming = batch.incoming(digest, 5, true);
        incoming.write(b"wrong").unwrap();
        assert!(incoming.finish().unwrap_err().one_line().contains("not the right ones"));
        let mut incoming = batch.incoming(digest, 5, true);
        assert!(incoming.write(b"too long").is_err());
        drop(incoming);
        let mut incoming = batch.incoming(digest, 5, true);
        let pieces = incoming.in_pieces().unwrap().unwrap();
        pieces.write_at(b"wrong", 0).unwrap();
        pieces.mark(0..5).unwrap();
        assert!(incoming.finish().unwrap_err().one_line().contains("not the right ones"));
        batch.commit().unwrap();
        assert_eq!(cache.size_of(&digest), None);
        assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(cache.root().join("partial")).unwrap().count(), 0);
    }

    #[test]
    fn an_object_that_came_in_pieces_is_published() {
        let (_dir, cache) = cache();
        let batch = cache.batch().unwrap();
        let digest = Digest::of(b"right");
        let mut incoming = batch.incoming(digest, 5, true);
        assert!(batch.incoming(digest, 5, false).in_pieces().unwrap().is_none());
        let pieces = incoming.in_pieces().unwrap().unwrap();
        pieces.write_at(b"right", 0).unwrap();
        pieces.mark(0..5).unwrap();
        incoming.finish().unwrap();
        drop(pieces);
        batch.commit().unwrap();
        assert_eq!(cache.verify(&digest, &|_| Ok(())).unwrap(), Some(true));
        assert_eq!(fs::read_dir(cache.root().join("partial")).unwrap().count(), 0);
        let mode = fs::metadata(cache.object_path(&digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}
