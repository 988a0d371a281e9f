//! The directory that a release is written to: what is there, what may be replaced, and when it says what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::stage::Made;
use super::{Origin, PART, Wanted, is_right, read};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::id::Digest;
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

/// Removes a folder in which there are only folders.
fn remove_empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).context(dir, "list")? {
        let entry = entry.context(dir, "list")?;
        if entry.file_type().context(dir, "list")?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(dir).context(dir, "replace")
}

fn foreign(path: &Path) -> Error {
    Error::refused(format!("{}: a file that git model get did not write is in the way", path.display()))
        .hint("choose another directory, or --force replaces it")
}

/// The files that were written here before; after an interrupted run, of either version.
pub(super) struct Ours<'a> {
    files: BTreeMap<&'a RepoPath, Vec<&'a InfoFile>>,
    /// Whether they are replaced whatever became of them.
    mend: bool,
}

impl<'a> Ours<'a> {
    pub(super) fn new(before: Option<&'a ModelInfo>, mend: bool) -> Ours<'a> {
        let mut files: BTreeMap<&RepoPath, Vec<&InfoFile>> = BTreeMap::new();
        for file in before.into_iter().flat_map(|info| &info.files) {
            files.entry(&file.path).or_default().push(file);
        }
        Ours { files, mend }
    }

    fn of(&self, path: &RepoPath) -> &[&'a InfoFile] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }

    /// Whether a file with this content was written here. Its mode does not tell: some file systems keep none.
    fn wrote(&self, path: &RepoPath, digest: &Digest) -> bool {
        self.of(path).iter().any(|file| file.sha256 == *digest)
    }
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

    /// The files that are not there with the right bytes, each with why what is in its way must stay, if so.
    pub(super) fn not_right(
        &self,
        wanted: &[Wanted],
        ours: &Ours<'_>,
        origin: &Origin<'_>,
    ) -> Result<Vec<(Wanted, Option<Error>)>> {
        let interrupt = origin.interrupt();
        let look = |file: &Wanted| -> Result<Option<(Wanted, Option<Error>)>> {
            // Weights of two versions often have one size: they are read once to be compared with both.
            let sizes: Vec<u64> = ours.of(&file.path).iter().map(|old| old.size).chain([file.size]).collect();
            Ok(match read(&self.dir.join(file.path.as_path()), &sizes, interrupt)? {
                Some(found) if found == (file.digest, file.executable) => None,
                Some((digest, _)) if ours.wrote(&file.path, &digest) => Some((file.clone(), None)),
                _ => Some((file.clone(), self.in_way(&file.path, ours, interrupt)?)),
            })
        };
        let found: Vec<Option<_>> = wanted.par_iter().map(look).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Why what is where a file or one of its folders goes must stay, unless it is as it was written here before.
    fn in_way(&self, path: &RepoPath, ours: &Ours<'_>, interrupt: &Interrupt) -> Result<Option<Error>> {
        let above = self.file_above(path);
        let path = above.as_ref().unwrap_or(path);
        let at = self.dir.join(path.as_path());
        let Ok(found) = fs::symlink_metadata(&at) else { return Ok(None) };
        if found.is_dir() {
            for entry in fs::read_dir(&at).context(&at, "list")? {
                let name = entry.context(&at, "list")?.file_name();
                // A name that no path of ours can have is somebody else's.
                let Some(inside) = name.to_str().and_then(|name| path.join(name).ok()) else {
                    return Ok(Some(foreign(&at.join(name))));
                };
                if let Some(error) = self.in_way(&inside, ours, interrupt)? {
                    return Ok(Some(error));
                }
            }
            return Ok(None);
        }
        let written: Vec<u64> = ours.of(path).iter().map(|old| old.size).collect();
        if written.is_empty() {
            return Ok(Some(foreign(&at)));
        }
        let kept =
            ours.mend || read(&at, &written, interrupt)?.is_some_and(|(digest, _)| ours.wrote(path, &digest));
        Ok((!kept).then(|| {
            Error::refused(format!("{}: it was changed since git model get wrote it", at.display()))
                .hint("choose another directory, or --force replaces it")
        }))
    }

    /// What is no folder although the path leads through it.
    fn file_above(&self, path: &RepoPath) -> Option<RepoPath> {
        std::iter::successors(path.parent(), RepoPath::parent).find(|above| {
            let at = self.dir.join(above.as_path());
            fs::symlink_metadata(&at).is_ok() && !at.is_dir()
        })
    }

    /// Makes room for a file: with `force` whatever is in the way goes, else only folders in which nothing is left.
    pub(super) fn make_way(&self, path: &RepoPath, force: bool) -> Result<()> {
        if force && let Some(above) = self.file_above(path) {
            let at = self.dir.join(above.as_path());
            fs::remove_file(&at).context(&at, "replace")?;
        }
        let at = self.dir.join(path.as_path());
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_dir() && force => fsio::remove_all_if_there(&at),
            Ok(found) if found.is_dir() => remove_empty(&at),
            _ => Ok(()),
        }
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

    /// The staging directory: inside of a directory that is there, since that may be a mount; else beside it.
    pub(super) fn stage_path(&self) -> Result<PathBuf> {
        match self.dir.is_dir() {
            true => Ok(self.dir.join(PART)),
            false => {
                let name = self.dir.file_name().ok_or_else(|| {
                    Error::usage(format!("{}: not a directory that can be made", self.dir.display()))
                })?;
                let mut hidden = std::ffi::OsString::from(".");
                hidden.push(name);
                hidden.push(PART);
                Ok(fsio::parent_of(self.dir).join(hidden))
            }
        }
    }

    /// Moves everything to its place, and says last what it is.
    pub(super) fn publish(
        &self,
        stage: &Path,
        wanted: &[Wanted],
        made: &Made<'_>,
        info: &ModelInfo,
        before: Option<&ModelInfo>,
        force: bool,
    ) -> Result<()> {
        let text = info.to_json();
        if !self.dir.exists() {
            clear_others(stage, stage, info)?;
            self.sync_below(stage)?;
            made.require_in(stage)?;
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
        // These first: a folder may go where a file was, or a file where a folder was.
        let kept: BTreeSet<&RepoPath> = info.files.iter().map(|file| &file.path).collect();
        for old in before.into_iter().flat_map(|info| &info.files).filter(|file| !kept.contains(&file.path)) {
            self.remove_old(old)?;
        }
        for file in wanted {
            let (from, to) = (stage.join(file.path.as_path()), self.dir.join(file.path.as_path()));
            self.make_way(&file.path, force)?;
            if let Some(parent) = to.parent() {
                fsio::create_dir_all(parent, self.durability)?;
            }
            fs::rename(&from, &to).context(&to, "replace")?;
        }
        self.sync_below(self.dir)?;
        made.require_in(self.dir)?;
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
