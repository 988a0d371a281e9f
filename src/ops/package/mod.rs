//! Packing a release into the form that a platform takes: a ModelPack artifact, a plain image, or a tar. The same release gives
//! the same bytes everywhere. Formats: `docs/formats/oci.md`.

pub mod advise;
mod blobs;
pub mod dockerfile;
mod layout;
mod plan;
mod registry;
mod streams;

use std::path::{Path, PathBuf};

use super::get::Origin;
use super::resolve::Resolved;
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::id::Digest;
use crate::oci::{self, Reference, image::Platform};
use crate::remote::registry::Pushed;
use crate::repo_path::RepoPath;

use blobs::{Artifact, Place, Stage};
pub use plan::Part;
pub use registry::{Target, digest_of};

/// What form a package has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CNCF ModelPack: an OCI artifact whose layers are the files.
    ModelPack,
    /// An OCI image with the files below `/models`.
    Image,
    /// A tar of the files.
    Tar,
}

impl Format {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Format::ModelPack => "modelpack",
            Format::Image => "image",
            Format::Tar => "tar",
        }
    }
}

/// What to pack.
#[derive(Clone, Debug)]
pub struct Options {
    /// The form.
    pub format: Format,
    /// What to take beside the weights; everything of the bundle if not given.
    pub include: Option<Vec<Part>>,
    /// Files below this directory of the repository lose it from their path.
    pub root: Option<RepoPath>,
    /// What an image says that it runs on.
    pub platform: Platform,
}

/// What was packed.
#[derive(Debug)]
pub struct Report {
    /// The form.
    pub format: Format,
    /// Digest of the manifest; of a tar, its own.
    pub digest: Digest,
    /// Bytes of everything.
    pub bytes: u64,
    /// Files of the model in it.
    pub files: u64,
    /// Bytes that were not here and had to be fetched.
    pub fetched: u64,
    /// Where it was written.
    pub path: Option<PathBuf>,
    /// Where it was sent, and what that took.
    pub pushed: Option<(Reference, Pushed)>,
}

/// A package that is ready to be written or sent, as far as that can be said without reading the weights again.
pub struct Package<'a> {
    origin: &'a Origin<'a>,
    plan: plan::Plan,
    options: &'a Options,
    stage: Stage,
    artifact: Option<Artifact>,
    fetched: u64,
}

impl std::fmt::Debug for Package<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Package").field("artifact", &self.artifact).finish_non_exhaustive()
    }
}

/// Packs a version into a file or a directory that is not there yet, sends it to a registry, or both.
pub fn pack(
    origin: &Origin<'_>,
    resolved: &Resolved,
    options: &Options,
    path: Option<&Path>,
    target: Option<&Target>,
) -> Result<Report> {
    if options.format == Format::Tar && target.is_some() {
        return Err(Error::usage("a registry takes no tar; choose --format modelpack or image"));
    }
    path.map_or(Ok(()), refuse_existing)?;
    // What the registry cannot take is found out before the work.
    let connection = target.map(|target| registry::connect(origin, resolved, target)).transpose()?;
    let dir =
        path.map_or_else(|| registry::scratch(origin), |path| Ok(fsio::parent_of(path).to_path_buf()))?;
    fsio::create_dir_all(&dir, origin.durability())?;
    let mut package = Package::prepare(origin, resolved, options, &dir)?;
    let (digest, bytes) = match path {
        Some(path) if options.format == Format::Tar => package.write_tar(resolved, path)?,
        path => {
            let archive = path.is_none_or(|path| path.extension().is_some_and(|ending| ending == "tar"));
            package.build(resolved, if archive { Place::Anywhere } else { Place::Layout })?;
            match path {
                Some(path) if archive => package.write_archive(path)?,
                Some(path) => package.write_layout(path)?,
                None => package.size(),
            }
        }
    };
    let mut report = package.report(digest, bytes, path);
    report.pushed = connection.map(|connection| package.push(&connection)).transpose()?;
    Ok(report)
}

impl<'a> Package<'a> {
    /// Plans a package; its parts are made below `dir`.
    fn prepare(
        origin: &'a Origin<'a>,
        resolved: &Resolved,
        options: &'a Options,
        dir: &Path,
    ) -> Result<Package<'a>> {
        let plan = plan::plan(resolved, options)?;
        let stage = Stage::new(dir, origin.durability())?;
        Ok(Package { origin, plan, options, stage, artifact: None, fetched: 0 })
    }

    fn report(&self, digest: Digest, bytes: u64, path: Option<&Path>) -> Report {
        Report {
            format: self.options.format,
            digest,
            bytes,
            files: self.plan.items.len() as u64,
            fetched: self.fetched,
            path: path.map(Path::to_path_buf),
            pushed: None,
        }
    }

    /// The tag that the manifest has in a layout.
    fn tag(&self) -> Option<String> {
        self.plan.info.version.as_deref().map(oci::tag_of)
    }
}

/// Writes a small file that is not there yet.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    refuse_existing(path)?;
    fsio::write_atomic(path, bytes, Durability::Full)
}

/// Nothing is ever replaced: what is at the path may be somebody else's.
fn refuse_existing(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(Error::refused(format!("{}: something is there already", path.display()))
            .hint("remove it, or choose another path; the same release gives the same package")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(path, "look at"),
    }
}

/// Gives a finished file or directory its name, unless something else has it by now.
fn publish(from: &Path, to: &Path, durability: Durability) -> Result<()> {
    rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE)
        .or_else(|error| match error {
            // The file system has no such rename: then the look before has to do.
            rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => {
                refuse_existing(to).map_err(|_| std::io::Error::from(std::io::ErrorKind::AlreadyExists))?;
                std::fs::rename(from, to)
            }
            error => Err(error.into()),
        })
        .context(to, "create")?;
    durability.sync_dir(fsio::parent_of(to))
}
