//! What a store is known to hold, to save requests. A hint: `push --repair` ignores it, and a replaced store voids it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::remotes::Found;
use crate::error::{Context, Result};
use crate::fsio::{self, Durability};
use crate::id::Digest;

/// The objects that this clone saw in one store.
#[derive(Debug)]
pub struct Pushed {
    file: PathBuf,
    store: Option<String>,
    known: BTreeSet<Digest>,
    changed: bool,
}

impl Pushed {
    /// Reads what is known about the store behind a remote: the same URL at another endpoint is another store.
    pub fn load(common_dir: &Path, remote: &Found) -> Result<Pushed> {
        let place = format!("{} {}", remote.url, remote.endpoint.as_deref().unwrap_or_default());
        let name = &Digest::of(place.as_bytes()).to_hex()[..16];
        let file = common_dir.join("model/pushed").join(name);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context(&file, "read"),
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let store = lines.next().filter(|line| uuid::Uuid::parse_str(line).is_ok()).map(str::to_owned);
        Ok(Pushed { file, store, known: lines.filter_map(Digest::from_hex).collect(), changed: false })
    }

    /// A name for the place of the store: URL and endpoint.
    pub fn place(&self) -> &std::ffi::OsStr {
        self.file.file_name().unwrap_or_default()
    }

    /// Whether a store was met there before.
    pub fn is_known(&self) -> bool {
        self.store.is_some()
    }

    /// Tells which store was met. Another one than before voids everything; `true` then.
    pub fn met(&mut self, store: &str) -> bool {
        if self.store.as_deref() == Some(store) {
            return false;
        }
        let replaced = self.store.replace(store.to_owned()).is_some();
        self.known.clear();
        self.changed = true;
        replaced
    }

    /// Whether the store is known to hold this object; of a directory, all of it.
    pub fn has(&self, digest: &Digest) -> bool {
        self.known.contains(digest)
    }

    /// Remembers an object that the store confirmed.
    pub fn insert(&mut self, digest: Digest) {
        self.changed |= self.known.insert(digest);
    }

    /// Forgets everything, so that the store is asked again.
    pub fn forget(&mut self) {
        self.changed |= !self.known.is_empty();
        self.known.clear();
    }

    /// Writes it down, if anything is new.
    pub fn save(&self) -> Result<()> {
        let (true, Some(store)) = (self.changed, &self.store) else { return Ok(()) };
        if let Some(dir) = self.file.parent() {
            fsio::create_dir_all(dir, Durability::Off)?;
        }
        let mut text = format!("{store}\n");
        for digest in &self.known {
            text.push_str(&digest.to_hex());
            text.push('\n');
        }
        fsio::write_atomic(&self.file, text.as_bytes(), Durability::Off)
    }
}
