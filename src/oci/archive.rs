//! tar archives that depend on nothing but names and content: fixed owner, time and modes, entries in the order in which they are
//! given, parent directories once and first. Names of more than 100 bytes and sizes above 8 GiB are written as GNU tar does.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

/// Writes an archive.
pub struct TarWriter<W: Write> {
    builder: Builder<W>,
    directories: BTreeSet<String>,
}

impl<W: Write> std::fmt::Debug for TarWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarWriter").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl<W: Write> TarWriter<W> {
    /// An archive to `to`.
    pub fn new(to: W) -> Self {
        TarWriter { builder: Builder::new(to), directories: BTreeSet::new() }
    }

    /// Adds a file below the directories that its path names. `content` must have exactly `size` bytes.
    pub fn file(&mut self, path: &str, size: u64, executable: bool, content: impl Read) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            self.directory(&path[..at])?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        let mut content = Counted { inner: content, seen: 0 };
        self.builder.append_data(&mut header(EntryType::Regular, mode, size), path, &mut content)?;
        match content.seen == size {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} bytes came instead of {size}", content.seen))),
        }
    }

    fn directory(&mut self, path: &str) -> io::Result<()> {
        if !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.builder.append_data(&mut header(EntryType::Directory, 0o755, 0), format!("{path}/"), io::empty())
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// The tar crate copies what it gets: too much or too little would shift all that follows.
struct Counted<R> {
    inner: R,
    seen: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_come_back_with_fixed_headers() {
        let long = format!("models/{}/{}", "d".repeat(120), "f".repeat(200));
        let mut archive = TarWriter::new(Vec::new());
        archive.file("models/a", 1, false, &b"a"[..]).unwrap();
        archive.file(&long, 2, true, &b"bc"[..]).unwrap();
        let bytes = archive.finish().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            found.push((
                String::from_utf8(entry.path_bytes().to_vec()).unwrap(),
                header.mode().unwrap(),
                header.size().unwrap(),
            ));
        }
        let directory = format!("models/{}/", "d".repeat(120));
        assert_eq!(
            found,
            [
                ("models/".to_owned(), 0o755, 0),
                ("models/a".to_owned(), 0o644, 1),
                (directory, 0o755, 0),
                (long, 0o755, 2)
            ]
        );
    }

    #[test]
    fn content_of_another_length_is_an_error() {
        for content in [&b"abc"[..], b"a"] {
            let mut archive = TarWriter::new(Vec::new());
            assert!(archive.file("x", 2, false, content).is_err());
        }
    }
}
