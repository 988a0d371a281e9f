//! Byte streams that check, count and hash what goes through them.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::error::{Error, Result};
use crate::human;
use crate::id::{Digest, Hasher};
use crate::progress::{Interrupt, Step};

/// Reads a file that must have a known digest, and fails at its end when it has another.
pub(super) struct Checked<'a> {
    pub(super) file: File,
    pub(super) digest: Digest,
    /// Repository path, for messages.
    pub(super) shown: &'a str,
    pub(super) hasher: Hasher,
    pub(super) step: &'a dyn Step,
    pub(super) interrupt: &'a Interrupt,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt.check_io()?;
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.step.advance(count as u64);
        if count == 0 && !buffer.is_empty() && self.hasher.clone().finish() != self.digest {
            return Err(io::Error::other(damaged(self.shown)));
        }
        Ok(count)
    }
}

/// The error for content that is not what its name says.
pub(super) fn damaged(path: &str) -> Error {
    Error::refused(format!("{}: its content here is damaged", human::escape(path)))
        .hint("run it again: damaged content is set aside, and the right one is fetched from the store")
}

/// Hashes what is written through it.
pub(super) struct Hashing<W> {
    pub(super) to: W,
    hasher: Hasher,
    pub(super) count: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(to: W) -> Self {
        Hashing { to, hasher: Hasher::default(), count: 0 }
    }

    /// What was written through, and how many bytes.
    pub(super) fn finish(self) -> (W, Digest, u64) {
        (self.to, self.hasher.finish(), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// An error of ours that came through a stream, or one of the stream's own about writing `target`.
pub(super) fn unwrap<T>(done: io::Result<T>, target: &std::path::Path) -> Result<T> {
    use crate::error::Context;
    done.or_else(|error| match error.downcast::<Error>() {
        Ok(ours) => Err(ours),
        Err(error) => Err(error).context(target, "write"),
    })
}
