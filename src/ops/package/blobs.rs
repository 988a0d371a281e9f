//! Making the blobs of an artifact: files as they are, layers of an image, and the documents that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::get::{self, Clones, Wanted};
use super::super::resolve::Resolved;
use super::plan::Item;
use super::streams::{Checked, Hashing, unwrap};
use super::{Format, Package};
use crate::error::{Context, Error, Kind, Result};
use crate::fsio::{self, Durability};
use crate::id::{Digest, Hasher};
use crate::model_info;
use crate::model_yaml::Role;
use crate::oci::{self, Descriptor, Manifest, StoredGzip, TarWriter, image, modelpack};
use crate::progress::Step;
use crate::repo_path::RepoPath;

/// Where files that are not in the cache wait to be packed.
const WAITING: &str = "objects";
/// Where blobs are made; a layout has them there.
const BLOBS: &str = "blobs/sha256";
/// Weights of at least this size are a layer of their own, so that what did not change is not sent again.
const OWN_LAYER_FROM: u64 = 16 * 1024 * 1024;
/// At most so many of them: run times mount no image with more than about 120 layers.
const OWN_LAYERS: usize = 64;
/// Bytes that go to a file at once.
pub(super) const BUFFER: usize = 1024 * 1024;

/// Whether the cache's own files may stand for blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Every blob has to be in the layout that is made.
    Layout,
    /// A blob may be wherever it is.
    Anywhere,
}

/// A blob and where its bytes are.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) path: PathBuf,
    /// What it is, for messages.
    pub(super) shown: String,
}

/// A manifest and every blob that it names.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) manifest: Vec<u8>,
    pub(super) blobs: Vec<Blob>,
}

impl Artifact {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Bytes of manifest and blobs.
    pub(super) fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).fold(self.manifest.len() as u64, u64::saturating_add)
    }
}

/// A directory of our own in which a package is made; it goes when it was not published.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) dir: tempfile::TempDir,
    durability: Durability,
}

impl Stage {
    pub(super) fn new(parent: &Path, durability: Durability) -> Result<Stage> {
        let dir = tempfile::Builder::new()
            .prefix(".git-model-package-")
            // As any directory, less what the user's mask takes away: it may become the layout.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .tempdir_in(parent)
            .context(parent, "create a directory in")?;
        fsio::create_dir_all(&dir.path().join(BLOBS), Durability::Off)?;
        Ok(Stage { dir, durability })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path().join(oci::blob_path(digest))
    }

    /// A small blob that was made here.
    fn keep(&self, bytes: &[u8], shown: &str) -> Result<Blob> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        let path = self.blob(&digest);
        fsio::write_atomic(&path, bytes, self.durability)?;
        Ok(Blob { digest, size, path, shown: shown.to_owned() })
    }

    /// Removes what waited here to be packed.
    pub(super) fn clear_waiting(&self) -> Result<()> {
        let waiting = self.path().join(WAITING);
        match std::fs::remove_dir_all(&waiting) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(waiting, "remove")
            }
            _ => Ok(()),
        }
    }
}

impl Package<'_> {
    /// Makes manifest and blobs.
    pub(super) fn build(&mut self, resolved: &Resolved, place: Place) -> Result<()> {
        let artifact = match self.options.format {
            Format::ModelPack => self.modelpack(resolved, place)?,
            Format::Image => self.image(resolved)?,
            Format::Tar => unreachable!("a tar is no artifact"),
        };
        if artifact.manifest.len() as u64 > oci::MAX_MANIFEST {
            return Err(Error::refused(format!(
                "{}: {} files are more than a manifest can name",
                self.plan.info.model,
                self.plan.items.len()
            ))
            .hint("use --format image, or fewer parts with --include"));
        }
        self.artifact = Some(artifact);
        Ok(())
    }

    fn modelpack(&mut self, resolved: &Resolved, place: Place) -> Result<Artifact> {
        let paths = self.obtain(resolved, BLOBS, place)?;
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        let mut layers: Vec<(RepoPath, Descriptor)> = Vec::new();
        for Item { file, part } in &self.plan.items {
            layers.push((
                file.path.clone(),
                modelpack::layer(part.kind(), file.path.as_str(), &file.digest, file.size, file.executable),
            ));
            blobs.entry(file.digest).or_insert_with(|| Blob {
                digest: file.digest,
                size: file.size,
                path: paths[&file.digest].clone(),
                shown: file.source.to_string(),
            });
        }
        let info = self.stage.keep(self.plan.info.to_json().as_bytes(), model_info::FILE_NAME)?;
        layers.push((
            RepoPath::new(model_info::FILE_NAME)?,
            modelpack::layer(modelpack::Kind::Doc, model_info::FILE_NAME, &info.digest, info.size, false),
        ));
        blobs.insert(info.digest, info);
        layers.sort_by(|a, b| a.0.cmp(&b.0));
        let layers: Vec<Descriptor> = layers.into_iter().map(|(_, layer)| layer).collect();
        let config = modelpack::config_bytes(&self.plan.info, &layers);
        let manifest = Manifest::new(
            Some(modelpack::ARTIFACT_TYPE),
            Descriptor::of(modelpack::CONFIG, &config),
            layers,
            oci::names_of(&self.plan.info),
        );
        let config = self.stage.keep(&config, "the configuration")?;
        blobs.insert(config.digest, config);
        Ok(Artifact { manifest: manifest.to_bytes(), blobs: blobs.into_values().collect() })
    }

    fn image(&mut self, resolved: &Resolved) -> Result<Artifact> {
        let paths = self.obtain(resolved, WAITING, Place::Anywhere)?;
        let (mut layers, mut plain, mut blobs) = (Vec::new(), Vec::new(), BTreeMap::new());
        let groups = groups(&self.plan.items);
        let bytes = self.plan.items.iter().map(|item| item.file.size).fold(0, u64::saturating_add);
        fsio::require_space(self.stage.path(), bytes, "the layers of the image")?;
        let step = self.origin.progress().step("packing", groups.len() as u64, bytes);
        for (at, group) in groups.iter().enumerate() {
            // What the image is stands in its last layer, beside what changes most often.
            let info = (at + 1 == groups.len()).then(|| self.plan.info.to_json());
            let (blob, tar) = self.layer(group, &paths, info.as_deref(), step.as_ref())?;
            layers.push(Descriptor::new(image::LAYER, &blob.digest, blob.size));
            plain.push(tar);
            blobs.insert(blob.digest, blob);
            step.finish_one();
        }
        let names = oci::names_of(&self.plan.info);
        let config = image::config_bytes(&self.plan.info, &self.options.platform, &plain, &names);
        let manifest = Manifest::new(None, Descriptor::of(image::CONFIG, &config), layers, names);
        let config = self.stage.keep(&config, "the configuration")?;
        blobs.insert(config.digest, config);
        self.stage.clear_waiting()?;
        Ok(Artifact { manifest: manifest.to_bytes(), blobs: blobs.into_values().collect() })
    }

    /// Writes one layer; returns it with the digest of its tar.
    fn layer(
        &self,
        items: &[&Item],
        paths: &BTreeMap<Digest, PathBuf>,
        info: Option<&str>,
        step: &dyn Step,
    ) -> Result<(Blob, Digest)> {
        let part = self.stage.path().join("layer");
        let file = File::create(&part).context(&part, "create")?;
        let zipped = StoredGzip::new(Hashing::new(BufWriter::with_capacity(BUFFER, file)));
        let mut tar = TarWriter::new(Hashing::new(zipped));
        self.pack(&mut tar, items, paths, &format!("{}/", image::ROOT), info, step, &part)?;
        let (zipped, plain, _) = tar.finish().context(&part, "write")?.finish();
        let (buffered, digest, size) = zipped.finish().context(&part, "write")?.finish();
        let file = buffered.into_inner().map_err(|error| error.into_error()).context(&part, "write")?;
        self.origin.durability().sync_file(&file, &part)?;
        let path = self.stage.blob(&digest);
        std::fs::rename(&part, &path).context(&path, "create")?;
        Ok((Blob { digest, size, path, shown: "a layer".to_owned() }, plain))
    }

    /// Writes files, and what the package is, into a tar, in the order of their paths.
    #[expect(clippy::too_many_arguments, reason = "all of them are about this one tar")]
    pub(super) fn pack<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        items: &[&Item],
        paths: &BTreeMap<Digest, PathBuf>,
        prefix: &str,
        mut info: Option<&str>,
        step: &dyn Step,
        target: &Path,
    ) -> Result<()> {
        let mut write_info = |tar: &mut TarWriter<W>, before: Option<&str>| -> Result<()> {
            match info {
                Some(text) if before.is_none_or(|path| path > model_info::FILE_NAME) => {
                    info = None;
                    let path = format!("{prefix}{}", model_info::FILE_NAME);
                    unwrap(tar.file(&path, text.len() as u64, false, text.as_bytes()), target)
                }
                _ => Ok(()),
            }
        };
        for Item { file, .. } in items {
            write_info(tar, Some(file.path.as_str()))?;
            let path = &paths[&file.digest];
            let content = Checked {
                file: File::open(path).context(path, "open")?,
                digest: file.digest,
                shown: file.source.as_str(),
                hasher: Hasher::default(),
                step,
                interrupt: self.origin.interrupt(),
            };
            let name = format!("{prefix}{}", file.path);
            unwrap(tar.file(&name, file.size, file.executable, content), target)
                .map_err(|error| self.set_aside(path, &file.digest, error))?;
        }
        write_info(tar, None)
    }

    /// Passes an error on; cached bytes that it says are damaged go out of the way, so that the next run fetches them.
    pub(super) fn set_aside(&self, path: &Path, digest: &Digest, error: Error) -> Error {
        let cache = self.origin.cache().filter(|cache| cache.object_path(digest) == path);
        match cache.filter(|_| error.kind() == Kind::Refused).map(|cache| cache.quarantine(digest)) {
            Some(Err(other)) => other,
            _ => error,
        }
    }

    /// Sees to it that every file is here; returns where each is.
    pub(super) fn obtain(
        &mut self,
        resolved: &Resolved,
        area: &str,
        place: Place,
    ) -> Result<BTreeMap<Digest, PathBuf>> {
        let (mut paths, mut wanted) = (BTreeMap::new(), Vec::new());
        let cached = |file: &Wanted| {
            let cache = self.origin.cache().filter(|_| place == Place::Anywhere)?;
            cache.holds(&file.digest, file.size).then(|| cache.object_path(&file.digest))
        };
        for Item { file, .. } in &self.plan.items {
            if paths.contains_key(&file.digest) {
                continue;
            }
            let path = cached(file).map_or_else(
                || {
                    let inside = RepoPath::new(&format!("{area}/{}", file.digest))?;
                    let path = self.stage.path().join(inside.as_path());
                    wanted.push(Wanted { path: inside, executable: false, ..file.clone() });
                    Ok::<_, Error>(path)
                },
                Ok,
            )?;
            paths.insert(file.digest, path);
        }
        // A blob of a layout is checked against its digest by whoever reads it; what is packed has to be read anyway.
        let clones = if place == Place::Layout { Clones::Trust } else { Clones::Hash };
        self.fetched += get::fill(self.origin, resolved, self.stage.path(), &wanted, clones)?;
        Ok(paths)
    }
}

/// The files of each layer: large weights alone, the other weights together, and the rest, which changes most often, last.
fn groups(items: &[Item]) -> Vec<Vec<&Item>> {
    let is_weights = |item: &&Item| item.part == super::Part::Role(Role::Weights);
    let mut large: Vec<&Item> =
        items.iter().filter(is_weights).filter(|item| item.file.size >= OWN_LAYER_FROM).collect();
    large.sort_by(|a, b| b.file.size.cmp(&a.file.size).then_with(|| a.file.path.cmp(&b.file.path)));
    large.truncate(OWN_LAYERS);
    large.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    let alone: BTreeSet<&RepoPath> = large.iter().map(|item| &item.file.path).collect();
    let small: Vec<&Item> =
        items.iter().filter(is_weights).filter(|item| !alone.contains(&item.file.path)).collect();
    let rest: Vec<&Item> = items.iter().filter(|item| !is_weights(item)).collect();
    let mut groups: Vec<Vec<&Item>> = large.into_iter().map(|item| vec![item]).collect();
    groups.extend((!small.is_empty()).then_some(small));
    // Never empty: it holds what the image is.
    groups.push(rest);
    groups
}
