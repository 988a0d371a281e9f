//! The directory that a release is written to: what is there, what may be replaced, and when it says what it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Origin, PART, Wanted, is_right};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::model_info::{self, InfoFile, ModelInfo};
use crate::ops::info;
use crate::progress::Interrupt;
use crate::repo_path::RepoPath;

/// Removes what an earlier, interrupted run of another version left in the staging directory.
fn clear_others(stage: &Path, dir: &Path, info: &ModelInfo) -> Result<()> {
    for entry in fs::read_dir(dir).context(dir, "list")? {
        let path = entry.context(dir, "list")?.path();
        if fs::symlink_metadata(&path).context(&path, "read")?.is_dir() {
            clear_others(stage, &path, info)?;
            // Only an empty one goes.
            fs::remove_dir(&path).ok();
        } else if !info.files.iter().any(|file| stage.join(file.path.as_path()) == path) {
            fs::remove_file(&path).context(&path, "remove")?;
        }
    }
    Ok(())
}

/// The directory that is written.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) durability: Durability,
}

impl Place<'_> {
    /// What the directory says it is.
    pub(super) fn info(&self) -> Result<Option<ModelInfo>> {
        info::of_directory(self.dir)
    }

    /// What an interrupted run was about to make of the directory: its files may be of either version.
    pub(super) fn claim(&self) -> Result<Option<ModelInfo>> {
        if self.dir.is_dir() { info::of_directory(&self.dir.join(PART)) } else { Ok(None) }
    }

    /// The files that are not there with the right bytes.
    pub(super) fn not_right(&self, wanted: &[Wanted], origin: &Origin<'_>) -> Result<Vec<Wanted>> {
        let interrupt = origin.interrupt();
        let look = |file: &Wanted| -> Result<Option<Wanted>> {
            let right = is_right(&self.dir.join(file.path.as_path()), file, interrupt)?;
            Ok((!right).then(|| file.clone()))
        };
        let found: Vec<Option<Wanted>> = wanted.par_iter().map(look).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Refuses a place that is something else than a directory.
    pub(super) fn require_directory(&self) -> Result<()> {
        match fs::metadata(self.dir) {
            Ok(found) if !found.is_dir() => {
                Err(Error::new(format!("{}: not a directory", self.dir.display()))
                    .hint("name one that is there, or one that is to be made"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to replace what is not of a version that was written here before.
    pub(super) fn refuse_foreign(
        &self,
        wanted: &[Wanted],
        before: Option<&ModelInfo>,
        force: bool,
    ) -> Result<()> {
        if force || !self.dir.is_dir() {
            return Ok(());
        }
        let ours: BTreeSet<&RepoPath> =
            before.into_iter().flat_map(|info| info.files.iter().map(|file| &file.path)).collect();
        for file in wanted {
            let path = self.dir.join(file.path.as_path());
            if ours.contains(&file.path) || fs::symlink_metadata(&path).is_err() {
                continue;
            }
            return Err(Error::refused(format!(
                "{}: a file that git model get did not write is in the way",
                path.display()
            ))
            .hint("choose another directory, or --force replaces it"));
        }
        Ok(())
    }

    /// The staging directory: inside of a directory that is there, since that may be a mount; else beside it.
    pub(super) fn stage(&self) -> Result<PathBuf> {
        let stage = match self.dir.is_dir() {
            true => self.dir.join(PART),
            false => {
                let name = self.dir.file_name().ok_or_else(|| {
                    Error::usage(format!("{}: not a directory that can be made", self.dir.display()))
                })?;
                let mut hidden = std::ffi::OsString::from(".");
                hidden.push(name);
                hidden.push(PART);
                fsio::parent_of(self.dir).join(hidden)
            }
        };
        fsio::create_dir_all(&stage, self.durability)?;
        Ok(stage)
    }

    /// Moves everything to its place, and says last what it is.
    pub(super) fn publish(
        &self,
        stage: &Path,
        wanted: &[Wanted],
        info: &ModelInfo,
        before: Option<&ModelInfo>,
    ) -> Result<()> {
        let text = info.to_json();
        if !self.dir.exists() {
            clear_others(stage, stage, info)?;
            self.sync_below(stage)?;
            fsio::write_atomic(&stage.join(model_info::FILE_NAME), text.as_bytes(), self.durability)?;
            fs::rename(stage, self.dir).context(self.dir, "create")?;
            return self.durability.sync_dir(fsio::parent_of(self.dir));
        }
        let note = self.dir.join(model_info::FILE_NAME);
        let mut claim = info.clone();
        claim.files.extend(before.into_iter().flat_map(|info| info.files.iter().cloned()));
        fsio::write_atomic(&stage.join(model_info::FILE_NAME), claim.to_json().as_bytes(), self.durability)?;
        // From here on the directory does not claim to be complete.
        match fs::remove_file(&note) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(&note, "replace");
            }
            _ => self.durability.sync_dir(self.dir)?,
        }
        for file in wanted {
            let (from, to) = (stage.join(file.path.as_path()), self.dir.join(file.path.as_path()));
            if let Some(parent) = to.parent() {
                fsio::create_dir_all(parent, self.durability)?;
            }
            fs::rename(&from, &to).context(&to, "replace")?;
        }
        let kept: BTreeSet<&RepoPath> = info.files.iter().map(|file| &file.path).collect();
        for old in before.into_iter().flat_map(|info| &info.files).filter(|file| !kept.contains(&file.path)) {
            self.remove_old(old)?;
        }
        self.sync_below(self.dir)?;
        fsio::write_atomic(&note, text.as_bytes(), self.durability)?;
        fsio::remove_all_if_there(stage)
    }

    /// Removes a file of the version before, unless somebody changed it.
    fn remove_old(&self, old: &InfoFile) -> Result<()> {
        let path = self.dir.join(old.path.as_path());
        let file = Wanted {
            path: old.path.clone(),
            source: old.path.clone(),
            digest: old.sha256,
            size: old.size,
            executable: old.executable,
            presigned: None,
        };
        if !is_right(&path, &file, &Interrupt::default())? {
            return Ok(());
        }
        fs::remove_file(&path).context(&path, "remove")?;
        let mut above = file.path.parent();
        while let Some(dir) = above {
            // Only an empty one goes.
            if fs::remove_dir(self.dir.join(dir.as_path())).is_err() {
                break;
            }
            above = dir.parent();
        }
        Ok(())
    }

    fn sync_below(&self, dir: &Path) -> Result<()> {
        if self.durability == Durability::Off {
            return Ok(());
        }
        for entry in fs::read_dir(dir).context(dir, "list")? {
            let path = entry.context(dir, "list")?.path();
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) && !path.ends_with(PART) {
                self.sync_below(&path)?;
            }
        }
        self.durability.sync_dir(dir)
    }
}
