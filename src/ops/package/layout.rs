//! Writing a package that is ready: a layout directory, an archive of one, or a plain tar. Nothing appears before it is complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::super::resolve::Resolved;
use super::blobs::{Artifact, BUFFER, Place};
use super::plan::Item;
use super::streams::{Checked, Hashing, unwrap};
use super::{Package, publish};
use crate::error::{Context, Result};
use crate::fsio;
use crate::id::{Digest, Hasher};
use crate::oci::{self, Descriptor, TarWriter};

impl Package<'_> {
    /// Digest of the manifest, and bytes of everything.
    pub(super) fn size(&self) -> (Digest, u64) {
        (self.built().digest(), self.built().bytes())
    }

    pub(super) fn built(&self) -> &Artifact {
        self.artifact.as_ref().expect("it was built before")
    }

    fn index(&self) -> Vec<u8> {
        let manifest = Descriptor::of(oci::MANIFEST, &self.built().manifest);
        oci::index_bytes(manifest, self.tag().as_deref())
    }

    /// Makes the directory: all blobs are in it already.
    pub(super) fn write_layout(&mut self, to: &Path) -> Result<(Digest, u64)> {
        let (dir, durability) = (self.stage.path(), self.origin.durability());
        let artifact = self.built();
        let digest = artifact.digest();
        fsio::write_atomic(&dir.join(oci::blob_path(&digest)), &artifact.manifest, durability)?;
        let (layout, text) = oci::LAYOUT;
        fsio::write_atomic(&dir.join(layout), text.as_bytes(), durability)?;
        fsio::write_atomic(&dir.join(oci::INDEX_FILE), &self.index(), durability)?;
        fsio::sync_dirs(&[dir.join("blobs/sha256"), dir.join("blobs"), dir.to_path_buf()], durability)?;
        publish(dir, to, durability)?;
        let bytes = artifact.bytes();
        for blob in self.artifact.iter_mut().flat_map(|artifact| &mut artifact.blobs) {
            blob.path = to.join(oci::blob_path(&blob.digest));
        }
        Ok((digest, bytes))
    }

    /// Makes an archive of the layout.
    pub(super) fn write_archive(&self, to: &Path) -> Result<(Digest, u64)> {
        let artifact = self.built();
        let digest = artifact.digest();
        fsio::require_space(fsio::parent_of(to), artifact.bytes(), "the archive")?;
        let mut entries: BTreeMap<String, Source<'_>> = BTreeMap::new();
        for blob in &artifact.blobs {
            entries.insert(
                oci::blob_path(&blob.digest),
                Source::File { path: &blob.path, digest: blob.digest, size: blob.size, shown: &blob.shown },
            );
        }
        let index = self.index();
        entries.insert(oci::blob_path(&digest), Source::Bytes(&artifact.manifest));
        entries.insert(oci::INDEX_FILE.to_owned(), Source::Bytes(&index));
        entries.insert(oci::LAYOUT.0.to_owned(), Source::Bytes(oci::LAYOUT.1.as_bytes()));
        let step = self.origin.progress().step("writing", entries.len() as u64, artifact.bytes());
        self.write_file(to, |part, target| {
            let mut tar = TarWriter::new(part);
            for (name, source) in &entries {
                let (size, mut content): (u64, Box<dyn Read>) = match source {
                    Source::Bytes(bytes) => (bytes.len() as u64, Box::new(*bytes)),
                    Source::File { path, digest, size, shown } => {
                        let content = Checked {
                            file: File::open(path).context(path, "open")?,
                            digest: *digest,
                            shown,
                            hasher: Hasher::default(),
                            step: step.as_ref(),
                            interrupt: self.origin.interrupt(),
                        };
                        (*size, Box::new(content))
                    }
                };
                unwrap(tar.file(name, size, false, &mut content), target).map_err(|error| match source {
                    Source::File { path, digest, .. } => self.set_aside(path, digest, error),
                    Source::Bytes(_) => error,
                })?;
                step.finish_one();
            }
            tar.finish().context(target, "write").map(drop)
        })?;
        Ok((digest, artifact.bytes()))
    }

    /// Makes a tar of the files.
    pub(super) fn write_tar(&mut self, resolved: &Resolved, to: &Path) -> Result<(Digest, u64)> {
        let paths = self.obtain(resolved, "objects", Place::Anywhere)?;
        let items: Vec<&Item> = self.plan.items.iter().collect();
        let bytes = items.iter().map(|item| item.file.size).fold(0, u64::saturating_add);
        fsio::require_space(fsio::parent_of(to), bytes, "the archive")?;
        let step = self.origin.progress().step("writing", items.len() as u64, bytes);
        let info = self.plan.info.to_json();
        let mut done = (Digest::of(b""), 0);
        self.write_file(to, |part, target| {
            let mut tar = TarWriter::new(Hashing::new(part));
            self.pack(&mut tar, &items, &paths, "", Some(&info), step.as_ref(), target)?;
            let (_, digest, size) = tar.finish().context(target, "write")?.finish();
            done = (digest, size);
            Ok(())
        })?;
        Ok(done)
    }

    /// Lets `fill` write a file, and gives it its name when that went well.
    fn write_file(&self, to: &Path, fill: impl FnOnce(&mut dyn Write, &Path) -> Result<()>) -> Result<()> {
        let part = self.stage.path().join("archive");
        let file = File::create(&part).context(&part, "create")?;
        let mut buffered = BufWriter::with_capacity(BUFFER, file);
        fill(&mut buffered, to)?;
        let file = buffered.into_inner().map_err(|error| error.into_error()).context(&part, "write")?;
        self.origin.durability().sync_file(&file, &part)?;
        publish(&part, to, self.origin.durability())
    }
}

enum Source<'a> {
    Bytes(&'a [u8]),
    File { path: &'a PathBuf, digest: Digest, size: u64, shown: &'a str },
}
