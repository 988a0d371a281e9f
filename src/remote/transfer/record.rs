//! What is known about uploads that were not finished. Format: `docs/formats/local-layout.md`.
//!
//! A hint: the store says what it holds, and each part is compared again with the local file before it counts as sent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Upload;
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::id::Digest;

/// A record of 10,000 parts is smaller.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Uploads that nobody touched for so long are ended: stores charge for their parts.
const KEEP: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    version: u64,
    key: String,
    upload: String,
    part_size: u64,
}

/// Every other line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SentPart {
    /// Its place, from 0.
    pub(super) part: u64,
    /// What the store calls it.
    pub(super) id: String,
    /// SHA-256 of everything up to its end.
    pub(super) until: Digest,
}

/// The record of one upload, open and locked.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: File,
    is_spare: bool,
    upload: Option<String>,
    parts: BTreeMap<u64, SentPart>,
}

impl Record {
    /// Opens the record of an object's upload. When another process is at it, that one's is left alone and a spare one made.
    pub(super) fn open(dir: &Path, object: &Upload, key: &str, part_size: u64) -> Result<Record> {
        fsio::create_dir_all(dir, Durability::Off)?;
        let open = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            file.context(path, "open")
        };
        let mut path = dir.join(object.digest.to_hex());
        let mut file = open(&path)?;
        let is_spare = file.try_lock().is_err();
        if is_spare {
            path.set_extension(uuid::Uuid::new_v4().simple().to_string());
            file = open(&path)?;
            // Nobody else knows it yet. Where files cannot be locked, it is old only after a week, too.
            file.try_lock().ok();
        }
        let mut text = String::new();
        // What cannot be read is as good as nothing.
        let read = (&mut file).take(MAX_BYTES).read_to_string(&mut text);
        let (upload, parts) = match (read, parse(&text)) {
            (Ok(_), Some((header, parts))) if header.key == key && header.part_size == part_size => {
                (Some(header.upload), parts)
            }
            _ => (None, BTreeMap::new()),
        };
        // A line that was cut off is not continued.
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").context(&path, "write")?;
        }
        Ok(Record { path, file, is_spare, upload, parts })
    }

    /// Whether no later run looks at it, but to end its upload.
    pub(super) fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// The upload to go on with.
    pub(super) fn upload(&self) -> Option<&str> {
        self.upload.as_deref()
    }

    /// What the store has of a part, if the content up to its end is still the same.
    pub(super) fn sent(&self, part: u64, until: &Digest) -> Option<&SentPart> {
        self.parts.get(&part).filter(|sent| sent.until == *until)
    }

    /// Begins with a new upload.
    pub(super) fn begin(&mut self, key: &str, upload: &str, part_size: u64) -> Result<()> {
        let header = Header { version: 1, key: key.to_owned(), upload: upload.to_owned(), part_size };
        self.file.set_len(0).context(&self.path, "cut")?;
        self.file.seek(SeekFrom::Start(0)).context(&self.path, "cut")?;
        self.append(&header)?;
        (self.upload, self.parts) = (Some(upload.to_owned()), BTreeMap::new());
        Ok(())
    }

    /// Notes a part that the store accepted.
    pub(super) fn add(&mut self, part: &SentPart) -> Result<()> {
        self.append(part)
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text =
            serde_json::to_string(line).map_err(|error| Error::new("cannot make JSON").caused_by(error))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).context(&self.path, "write")
    }

    /// The upload is over.
    pub(super) fn remove(self) {
        // Another process may be at it, too; whatever is left is ended after a week.
        drop(fs::remove_file(&self.path));
    }
}

/// Lines that are cut off or make no sense are passed over.
fn parse(text: &str) -> Option<(Header, BTreeMap<u64, SentPart>)> {
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next()?).ok()?;
    let parts = lines.filter_map(|line| serde_json::from_str::<SentPart>(line).ok());
    (header.version == 1).then(|| (header, parts.map(|part| (part.part, part)).collect()))
}

/// Keys and ids of uploads that nobody touched for a week. Their records are gone when this returns.
pub(super) fn take_old(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut old = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let age = fs::metadata(&path).and_then(|found| found.modified()).map(|time| time.elapsed());
        if !matches!(age, Ok(Ok(age)) if age > KEEP) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let mut text = String::new();
        if file.take(MAX_BYTES).read_to_string(&mut text).is_ok()
            && let Some((header, _)) = parse(&text)
        {
            old.push((header.key, header.upload));
        }
        drop(fs::remove_file(&path));
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Upload {
        let digest = Digest::of(b"object");
        Upload { path: "w.bin".into(), digest, size: 100, file: PathBuf::new(), replaces: false }
    }

    fn part(part: u64) -> SentPart {
        SentPart { part, id: format!("<id>{part}</id>"), until: Digest::of(&[part as u8]) }
    }

    #[test]
    fn an_upload_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let open = |key: &str, size: u64| Record::open(dir.path(), &object(), key, size).unwrap();
        let mut record = open("k", 16);
        assert_eq!(record.upload(), None);
        record.begin("k", "upload-1", 16).unwrap();
        record.add(&part(1)).unwrap();
        record.add(&part(0)).unwrap();
        record.file.write_all(b"{\"part\":2,").unwrap();
        let spare = open("k", 16);
        assert_eq!((spare.is_spare(), spare.upload()), (true, None), "it is in use");
        spare.remove();
        drop(record);
        let record = open("k", 16);
        assert!(!record.is_spare());
        assert_eq!(record.upload(), Some("upload-1"));
        assert_eq!(record.sent(1, &part(1).until).unwrap().id, "<id>1</id>");
        assert!(record.sent(1, &part(0).until).is_none(), "other content");
        assert!(record.sent(2, &part(2).until).is_none(), "cut off");
        drop(record);
        assert_eq!(open("other", 16).upload(), None);
        assert_eq!(open("k", 17).upload(), None);
        open("k", 16).remove();
        assert_eq!(open("k", 16).upload(), None);
    }

    #[test]
    fn old_uploads_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Record::open(dir.path(), &object(), "k", 16).unwrap();
        let (mut record, mut spare) = (open(), open());
        record.begin("k", "upload-1", 16).unwrap();
        spare.begin("k", "upload-2", 16).unwrap();
        assert_eq!(take_old(dir.path()), []);
        let old = std::time::SystemTime::now() - KEEP - std::time::Duration::from_secs(60);
        record.file.set_modified(old).unwrap();
        spare.file.set_modified(old).unwrap();
        assert_eq!(take_old(dir.path()), [], "they are in use");
        drop((record, spare));
        let mut ended = take_old(dir.path());
        ended.sort();
        assert_eq!(ended, ["upload-1", "upload-2"].map(|id| ("k".to_owned(), id.to_owned())));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
