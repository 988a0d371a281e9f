//! A file on its way to its place, in order or in pieces, and only right bytes get there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Wanted;
use crate::error::{Context, Error, Result};
use crate::fsio::{Durability, Partial};
use crate::id::{Digest, Hasher};
use crate::remote::Receive;

/// A file on its way to its place in the staging directory.
pub(super) struct Arriving {
    pub(super) file: File,
    pub(super) part: PathBuf,
    target: PathBuf,
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Hasher,
    durability: Durability,
    mode: u32,
    /// Where a large file may arrive in pieces, which a later run goes on with.
    pub(super) pieces_in: Option<PathBuf>,
    pieces: Option<Arc<Partial>>,
}

impl Arriving {
    pub(super) fn new(wanted: &Wanted, target: &Path, durability: Durability) -> Result<Arriving> {
        let dir =
            target.parent().ok_or_else(|| Error::new(format!("{}: has no directory", target.display())))?;
        let mode = if wanted.executable { 0o755 } else { 0o644 };
        let temp = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(dir)
            .context(dir, "create a file in")?;
        let (file, part) = temp.keep().map_err(|error| error.error).context(dir, "create a file in")?;
        let (digest, size) = (wanted.digest, wanted.size);
        Ok(Arriving {
            file,
            part,
            target: target.to_path_buf(),
            digest,
            size,
            seen: 0,
            hasher: Hasher::default(),
            durability,
            mode,
            pieces_in: None,
            pieces: None,
        })
    }

    /// Gives the complete file its name.
    pub(super) fn keep(self) -> Result<()> {
        self.durability.sync_file(&self.file, &self.part)?;
        fs::rename(&self.part, &self.target).context(&self.target, "replace")
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // After `keep` there is nothing under this name any more.
        drop(fs::remove_file(&self.part));
    }
}

impl Receive for Arriving {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(Error::refused("more bytes came than it has"));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).context(&self.part, "write")
    }

    fn in_pieces(&mut self) -> Result<Option<Arc<Partial>>> {
        let Some(dir) = &self.pieces_in else { return Ok(None) };
        self.pieces = Some(Arc::new(Partial::open(dir, self.digest, self.size, self.durability)?));
        Ok(self.pieces.clone())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if let Some(pieces) = &self.pieces {
            if !pieces.is_right()? {
                pieces.discard();
                return Err(Error::refused("the bytes that came are not the right ones"));
            }
            pieces.complete(self.mode)?;
            let file = File::open(pieces.path()).context(pieces.path(), "open")?;
            self.durability.sync_file(&file, pieces.path())?;
            return fs::rename(pieces.path(), &self.target).context(&self.target, "replace");
        }
        if self.seen != self.size || self.hasher.clone().finish() != self.digest {
            return Err(Error::refused("the bytes that came are not the right ones"));
        }
        self.durability.sync_file(&self.file, &self.part)?;
        fs::rename(&self.part, &self.target).context(&self.target, "replace")
    }
}
