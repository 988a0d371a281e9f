//! What git-model last put or saw at each artifact's path. Format: `docs/formats/local-layout.md`.
//!
//! Records save reading files again. They are written without syncing: one that a power cut damaged fails its checksum,
//! and then files are read.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Context, Result};
use crate::fsio::{self, Durability, FileStat, Kind};
use crate::id::Digest;
use crate::repo_path::RepoPath;

const MAGIC: &[u8; 8] = b"gmstat1\n";
/// Enough for the fixed part and the longest path.
const HEADER_BYTES: usize = 8 + 1 + 32 + 32 + 8 + 8 + 2 + 4096;
/// An entry with an empty path.
const LEAST_BYTES: u64 = 1 + 32 + 8 + 8 + 8 + 8 + 2;
const UNSETTLED: u8 = 128;

/// One file, link or directory of an artifact as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// Path relative to the artifact; empty for a file artifact.
    pub path: String,
    /// Digest of its content; meaningless for directories.
    pub digest: Digest,
    /// Its stat when it was read or written.
    pub stat: FileStat,
    /// Whether an equal stat proves equal content.
    pub settled: bool,
}

impl RecordEntry {
    /// Whether the file on disk is certainly the one that was recorded.
    pub fn proves(&self, on_disk: &FileStat) -> bool {
        if self.stat.kind == Kind::Tree {
            return on_disk.kind == Kind::Tree;
        }
        self.settled && self.stat.unchanged(on_disk)
    }
}

/// What is known about one artifact in this worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The artifact.
    pub path: RepoPath,
    /// Whether what was added or synced is a directory.
    pub is_tree: bool,
    /// What was last added or synced here. Content that differs from it was changed by the user.
    pub base: Digest,
    /// Digest of the content that the entries describe.
    pub current: Digest,
    /// Bytes of that content.
    pub size: u64,
    /// Number of its files and links.
    pub files: u64,
    /// Its files, links and directories, sorted by path bytes.
    pub entries: Arc<Vec<RecordEntry>>,
}

impl Record {
    /// Whether the entries describe all of the content, or files are missing that were not known for certain.
    pub fn is_complete(&self) -> bool {
        self.entries.iter().filter(|entry| entry.stat.kind != Kind::Tree).count() as u64 == self.files
    }
}

/// All records of a worktree.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Opens the records below a worktree's git dir.
    pub fn new(model_dir: &Path) -> Records {
        Records { dir: model_dir.join("stat") }
    }

    /// The record of an artifact, if there is a sound one.
    pub fn load(&self, path: &RepoPath) -> Result<Option<Record>> {
        let file = self.file(path);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(file, "read"),
        };
        Ok(decode(&bytes).filter(|record| record.path == *path))
    }

    /// Paths and bases of all recorded artifacts, in path order, read from the heads of the records.
    pub fn list(&self) -> Result<Vec<(RepoPath, Digest)>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(&self.dir, "list"),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.context(&self.dir, "list")?.path();
            let mut head = [0; HEADER_BYTES];
            let mut file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(path, "open"),
            };
            // Records are small or have a small head, so what one read does not bring is not there.
            let length = file.read(&mut head).context(&path, "read")?;
            if let Some(record) = decode_head(&mut Reader(&head[..length])) {
                found.push((record.path, record.base));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Saves a record, replacing the artifact's old one.
    pub fn save(&self, record: &Record) -> Result<()> {
        fsio::create_dir_all(&self.dir, Durability::Off)?;
        fsio::write_atomic(&self.file(&record.path), &encode(record), Durability::Off)
    }

    /// Saves a record unless another process has moved the artifact's base from `base` meanwhile, as a sync does.
    pub fn save_over(&self, base: Option<Digest>, record: &Record) -> Result<()> {
        match self.load(&record.path)?.map(|now| now.base) == base {
            true => self.save(record),
            false => Ok(()),
        }
    }

    /// Forgets an artifact.
    pub fn remove(&self, path: &RepoPath) -> Result<()> {
        match fs::remove_file(self.file(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(self.file(path), "remove")
            }
            _ => Ok(()),
        }
    }

    fn file(&self, path: &RepoPath) -> PathBuf {
        self.dir.join(&Digest::of(path.as_str().as_bytes()).to_hex()[..32])
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + record.entries.len() * 128);
    out.extend_from_slice(MAGIC);
    out.push(u8::from(record.is_tree));
    out.extend_from_slice(record.base.as_bytes());
    out.extend_from_slice(record.current.as_bytes());
    out.extend_from_slice(&record.size.to_le_bytes());
    out.extend_from_slice(&record.files.to_le_bytes());
    put_text(&mut out, record.path.as_str());
    out.extend_from_slice(&(record.entries.len() as u64).to_le_bytes());
    for entry in record.entries.iter() {
        let kind = match entry.stat.kind {
            Kind::File => 0,
            Kind::Executable => 1,
            Kind::Link => 2,
            Kind::Tree => 3,
            Kind::Special => continue,
        };
        out.push(if entry.settled { kind } else { kind | UNSETTLED });
        out.extend_from_slice(entry.digest.as_bytes());
        out.extend_from_slice(&entry.stat.size.to_le_bytes());
        out.extend_from_slice(&entry.stat.mtime.to_le_bytes());
        out.extend_from_slice(&entry.stat.ctime.to_le_bytes());
        out.extend_from_slice(&entry.stat.ino.to_le_bytes());
        put_text(&mut out, &entry.path);
    }
    let checksum = Digest::of(&out);
    out.extend_from_slice(checksum.as_bytes());
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Paths are bounded by 4,096 bytes per artifact path and 128 names of 255 bytes below it.
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn digest(&mut self) -> Option<Digest> {
        self.take().map(Digest::from_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

fn decode_head(reader: &mut Reader<'_>) -> Option<Record> {
    if reader.take::<8>()? != *MAGIC {
        return None;
    }
    let is_tree = reader.take::<1>()? == [1];
    let (base, current, size, files) = (reader.digest()?, reader.digest()?, reader.u64()?, reader.u64()?);
    let path = RepoPath::new(&reader.text()?).ok()?;
    Some(Record { path, is_tree, base, current, size, files, entries: Arc::default() })
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if Digest::of(body).as_bytes() != checksum {
        return None;
    }
    let mut reader = Reader(body);
    let mut record = decode_head(&mut reader)?;
    let count = reader.u64()?;
    let mut entries = Vec::with_capacity(count.min(body.len() as u64 / LEAST_BYTES) as usize);
    for _ in 0..count {
        let [kind] = reader.take::<1>()?;
        let stat_kind = match kind & !UNSETTLED {
            0 => Kind::File,
            1 => Kind::Executable,
            2 => Kind::Link,
            3 => Kind::Tree,
            _ => return None,
        };
        let digest = reader.digest()?;
        let stat = FileStat {
            kind: stat_kind,
            size: reader.u64()?,
            mtime: reader.i64()?,
            ctime: reader.i64()?,
            ino: reader.u64()?,
            nlink: 1,
            dev: 0,
        };
        entries.push(RecordEntry { path: reader.text()?, digest, stat, settled: kind & UNSETTLED == 0 });
    }
    record.entries = Arc::new(entries);
    reader.0.is_empty().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let stat =
            FileStat { kind: Kind::Executable, size: 5, mtime: -3, ctime: 4, ino: 6, nlink: 1, dev: 0 };
        let entry = RecordEntry { path: "a/b".into(), digest: Digest::of(b"b"), stat, settled: false };
        Record {
            path: RepoPath::new("data").unwrap(),
            is_tree: true,
            base: Digest::of(b"1"),
            current: Digest::of(b"2"),
            size: 5,
            files: 1,
            entries: Arc::new(vec![entry]),
        }
    }

    #[test]
    fn records_round_trip_and_damage_shows() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        let record = sample();
        records.save(&record).unwrap();
        assert_eq!(records.load(&record.path).unwrap(), Some(record.clone()));
        assert_eq!(records.list().unwrap(), [(record.path.clone(), record.base)]);
        let later = Record { base: Digest::of(b"3"), ..record.clone() };
        records.save_over(Some(Digest::of(b"another")), &later).unwrap();
        records.save_over(None, &later).unwrap();
        assert_eq!(records.load(&record.path).unwrap(), Some(record.clone()));
        records.save_over(Some(record.base), &record).unwrap();
        let file = records.file(&record.path);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(records.load(&record.path).unwrap(), None);
        records.remove(&record.path).unwrap();
        assert_eq!(records.list().unwrap(), []);
    }
}
