//! The directory of manifests: which files in it are git-model's, and how they are replaced. Format of the record:
//! `docs/formats/deploy-record.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::human;
use crate::id::Digest;
use crate::manifests::Target;

/// The record's name; without an extension, so that no tool takes it for a manifest.
pub const RECORD: &str = ".git-model-deploy";
const SCHEMA: &str = "git-model/deploy-record/v1";
/// No record and no manifest is larger.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What git-model wrote into a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    schema: String,
    /// The model.
    pub model: String,
    /// The stage.
    pub stage: String,
    /// What the manifests are for.
    pub target: Target,
    /// The version that they name.
    pub version: String,
    /// Its model digest.
    pub digest: Digest,
    /// Its share of the traffic, where the manifests say one.
    pub traffic: Option<u8>,
    /// The version that got all the traffic last, where KServe shares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// Every file with its digest.
    pub files: BTreeMap<String, Digest>,
    /// Versions that were deployed here, newest first.
    pub versions: Vec<Deployed>,
}

/// A version that was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// The version.
    pub version: String,
    /// Its model digest.
    pub digest: Digest,
    /// The server's image.
    pub image: Option<String>,
    /// The image of the model.
    pub model_image: Option<String>,
    /// The image with git-model and curl.
    pub tools: Option<String>,
}

impl Record {
    /// A record of nothing yet.
    pub(super) fn new(model: &str, stage: &str, target: Target, version: &str, digest: Digest) -> Record {
        Record {
            schema: SCHEMA.to_owned(),
            model: model.to_owned(),
            stage: stage.to_owned(),
            target,
            version: version.to_owned(),
            digest,
            traffic: None,
            stable: None,
            files: BTreeMap::new(),
            versions: Vec::new(),
        }
    }

    /// Reads the record of a directory; `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<Record>> {
        let path = dir.join(RECORD);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(format!("{}: not a record of git model deploy", path.display())).caused_by(error)
        })?;
        if record.schema != SCHEMA {
            let shown = human::escape(&record.schema);
            return Err(Error::new(format!("{}: schema `{shown}` is not known", path.display()))
                .hint("update git-model"));
        }
        // It comes from a repository that others write to.
        match record.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(Error::refused(format!(
                "{}: names `{}`, which is no file beside it",
                path.display(),
                human::escape(name)
            ))),
            None => Ok(Some(record)),
        }
    }

    fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain data");
        text.push(b'\n');
        text
    }
}

/// Whether a name is one that git-model gives to a manifest.
fn is_plain(name: &str) -> bool {
    name.ends_with(".yaml")
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Manifests that are ready to be written.
#[derive(Debug)]
pub(super) struct Plan {
    dir: PathBuf,
    record: Record,
    /// Their text, by name.
    files: BTreeMap<String, String>,
    stale: Vec<String>,
    /// Files in the directory that git-model did not write.
    pub(super) foreign: Vec<String>,
    /// Whether everything is there already.
    pub(super) same: bool,
}

impl Plan {
    /// Compares what is to be with what is there. Files of git-model that somebody changed are refused without `force`.
    ///
    /// `kept` are files of `old` that stay as they are.
    pub(super) fn new(
        dir: &Path,
        old: Option<&Record>,
        mut record: Record,
        files: BTreeMap<String, String>,
        kept: &[String],
        force: bool,
    ) -> Result<Plan> {
        let there = entries(dir)?;
        record.files = files.iter().map(|(name, text)| (name.clone(), Digest::of(text.as_bytes()))).collect();
        let ours = |name: &String| old.and_then(|old| old.files.get(name));
        for name in kept {
            record.files.extend(ours(name).map(|digest| (name.clone(), *digest)));
        }
        let mut same = old == Some(&record);
        let (mut stale, mut foreign) = (Vec::new(), Vec::new());
        let mut changed = Vec::new();
        for name in there.iter().filter(|name| *name != RECORD) {
            let wanted = record.files.get(name);
            if wanted.is_none() && ours(name).is_none() {
                foreign.push(name.clone());
                continue;
            }
            let found = read(&dir.join(name))?.map(|bytes| Digest::of(&bytes));
            if found.is_some() && found.as_ref() != wanted && found.as_ref() != ours(name) {
                changed.push(name.clone());
            }
            same &= found.as_ref() == wanted;
            if wanted.is_none() {
                stale.push(name.clone());
            }
        }
        if let (Some(name), false) = (changed.first(), force) {
            let why = if ours(name).is_some() { "was changed by hand" } else { "is in the way" };
            return Err(Error::refused(format!("{}: {why}", dir.join(name).display()))
                .hint("move it, or use --force to replace it"));
        }
        same &= record.files.keys().all(|name| there.contains(name));
        if let Some(name) = kept.iter().find(|name| !there.contains(*name)) {
            return Err(Error::refused(format!("{}: is missing", dir.join(name).display()))
                .hint("git brings it back; former versions need it as long as they run"));
        }
        Ok(Plan { dir: dir.to_path_buf(), record, files, stale, foreign, same })
    }

    /// Names of the files that it writes.
    pub(super) fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// Names of the files that it removes.
    pub(super) fn stale(&self) -> &[String] {
        &self.stale
    }

    /// Writes everything. A directory that is not there appears whole; in one that is, each file is replaced whole and the record
    /// last, so that an interrupted run shows, and the next one finishes it.
    pub(super) fn write(&self) -> Result<()> {
        if self.same {
            return Ok(());
        }
        let parent = fsio::parent_of(&self.dir);
        fsio::create_dir_all(parent, Durability::Full)?;
        let is_new = !self.dir.exists();
        let part = tempfile::Builder::new()
            .prefix(".git-model-deploy-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(parent)
            .context(parent, "create a directory in")?;
        for (name, text) in &self.files {
            fsio::write_atomic(&part.path().join(name), text.as_bytes(), Durability::Full)?;
        }
        fsio::write_atomic(&part.path().join(RECORD), &self.record.to_json(), Durability::Full)?;
        if is_new {
            fs::rename(part.path(), &self.dir).context(&self.dir, "create")?;
            return Durability::Full.sync_dir(parent);
        }
        for name in self.files.keys() {
            let to = self.dir.join(name);
            fs::rename(part.path().join(name), &to).context(&to, "replace")?;
        }
        for name in &self.stale {
            let path = self.dir.join(name);
            fs::remove_file(&path).context(&path, "remove")?;
        }
        let record = self.dir.join(RECORD);
        fs::rename(part.path().join(RECORD), &record).context(&record, "replace")?;
        Durability::Full.sync_dir(&self.dir)
    }
}

/// What differs between a directory and its record, as `name: what`.
pub(super) fn changes(dir: &Path, record: &Record) -> Result<Vec<(String, &'static str)>> {
    let mut changes = Vec::new();
    for (name, digest) in &record.files {
        match read(&dir.join(name))? {
            None => changes.push((name.clone(), "is missing")),
            Some(bytes) if Digest::of(&bytes) != *digest => {
                changes.push((name.clone(), "was changed by hand"));
            }
            Some(_) => {}
        }
    }
    Ok(changes)
}

/// Names of what is in a directory; none where there is no directory.
fn entries(dir: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).context(dir, "list"),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.insert(entry.context(dir, "list")?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// A regular file's bytes; a link is followed by nobody. `None` when there is nothing.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => fsio::read_bounded(path, MAX_BYTES),
        Ok(_) => Err(Error::refused(format!("{}: not a regular file", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(path, "read"),
    }
}
