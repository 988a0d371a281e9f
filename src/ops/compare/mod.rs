//! What differs between two versions of a model, part by part.

mod weights;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Ctx;
use super::info;
use super::log::{Metric, directions};
use super::models::Place;
use super::registry;
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::json_schema;
use crate::lineage::{Data, FileEntry, Lineage};
use crate::lockfile;
use crate::model_yaml::{Model, Role};
use crate::release::{Reference, StageName, Wanted};
use crate::values::{self, Value};

pub use weights::{Moved, TensorChange, WeightsChange};

/// Larger locks are not looked into.
const MAX_LOCK: u64 = 64 * 1024 * 1024;

/// Something that has a value on one side or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is called.
    pub name: String,
    /// Its value on the old side.
    pub old: Option<String>,
    /// Its value on the new side.
    pub new: Option<String>,
}

/// A data snapshot that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataChange {
    /// Its name.
    pub name: String,
    /// The old side.
    pub old: Option<Data>,
    /// The new side.
    pub new: Option<Data>,
}

/// One side of the comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// What the user typed.
    pub typed: String,
    /// The commit; `None` for the worktree.
    pub commit: Option<String>,
}

/// What differs.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The model's name.
    pub model: String,
    /// The old side.
    pub old: Side,
    /// The new side.
    pub new: Side,
    /// Metrics of either side that are about its weights; changed ones have a change.
    pub metrics: BTreeMap<String, Metric>,
    /// Metrics that only the old side has.
    pub metrics_gone: BTreeMap<String, f64>,
    /// What was stated about the training.
    pub params: Vec<Change>,
    /// Keys of configuration files, as `path: key`.
    pub config: Vec<Change>,
    /// Code files, by their digests.
    pub code: Vec<Change>,
    /// Packages of dependency locks.
    pub packages: Vec<Change>,
    /// Fields of the input/output schema.
    pub io_schema: Vec<Change>,
    /// Data snapshots.
    pub data: Vec<DataChange>,
    /// Weights.
    pub weights: WeightsChange,
    /// What could not be looked into, and why.
    pub notes: Vec<String>,
}

/// A version with its record.
struct Version {
    side: Side,
    commit: Option<Oid>,
    lineage: Lineage,
}

impl Version {
    fn place(&self) -> Place<'_> {
        self.commit.as_ref().map_or(Place::Worktree, Place::Commit)
    }
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// The old side.
    pub old: String,
    /// The new side, or the model if it is the name of one; the worktree if not given.
    pub new: Option<String>,
    /// The model.
    pub name: Option<String>,
}

/// Compares two versions; without a new one, the old one with the worktree.
pub fn compare(ctx: &Ctx, options: &Options) -> Result<Comparison> {
    let (old, name) = (options.old.as_str(), options.name.as_deref());
    let (new, name) = match (options.new.as_deref(), name) {
        (Some(word), None) if is_model(ctx, word)? => (None, Some(word)),
        given => given,
    };
    let old_commit = commit_of(ctx, old)?;
    let new_commit = new.map(|new| commit_of(ctx, new)).transpose()?;
    let place = new_commit.as_ref().map_or(Place::Worktree, Place::Commit);
    let named = name.map(str::to_owned).or_else(|| model_in(new.unwrap_or(old))).or_else(|| model_in(old));
    let model = ctx.model(named.as_deref(), place)?;
    let old = version(ctx, &model, old, Some(old_commit))?;
    let new = version(ctx, &model, new.unwrap_or("the worktree"), new_commit.clone())?;
    let mut notes = match place {
        // Versions are compared by their records; the worktree may be ahead of its own.
        Place::Worktree => info::differences(ctx, &model, &new.lineage)?,
        Place::Commit(_) => Vec::new(),
    };
    let mut differ = Differ { ctx, old: &old, new: &new, notes: &mut notes };
    Ok(Comparison {
        model: model.name.as_str().to_owned(),
        metrics: metrics(&model, &old.lineage, &new.lineage),
        metrics_gone: gone(&old.lineage, &new.lineage),
        params: changes(&params(&old.lineage), &params(&new.lineage)),
        config: differ.values(Role::Config, &flattened),
        code: files(&old.lineage, &new.lineage, Role::Code),
        packages: differ.values(Role::Environment, &packages),
        io_schema: differ.values(Role::Schema, &fields),
        data: data(&old.lineage, &new.lineage),
        weights: weights::compare(ctx, &model, &old.lineage, &new.lineage)?,
        old: old.side.clone(),
        new: new.side.clone(),
        notes,
    })
}

/// Whether a word that could also be a revision is the name of a model.
fn is_model(ctx: &Ctx, word: &str) -> Result<bool> {
    let Ok(Reference::Model(name)) = Reference::parse(word) else { return Ok(false) };
    if ctx.git.is_bare() || !ctx.models(Place::Worktree)?.0.iter().any(|model| model.name == name) {
        return Ok(false);
    }
    match ctx.git.commit(word)? {
        None => Ok(true),
        Some(_) => Err(Error::usage(format!("{name}: both a model and a commit, branch or tag here")).hint(
            format!("--model {name} compares the model with the worktree; as a version, name the model after it: {name} {name}"),
        )),
    }
}

/// The commit that a reference names: a commit or branch, a release, or what a stage holds, from this clone's tags.
pub(super) fn commit_of(ctx: &Ctx, typed: &str) -> Result<Oid> {
    let (name, wanted) = match Reference::parse(typed)? {
        Reference::Model(name) => return ctx.git.require_commit(name.as_str()),
        Reference::Commit(revision) => return ctx.git.require_commit(&revision),
        Reference::Release { name, wanted } => (name, Ok(wanted)),
        Reference::Stage { name, stage } => (name, Err(stage)),
    };
    let history = registry::local_history(ctx, &name)?;
    let wanted = wanted.or_else(|stage: StageName| {
        let current = history.current(&stage).map(|current| Wanted::Exact(current.version.clone()));
        current.ok_or_else(|| {
            Error::new(format!("{name}#{stage}: nothing is in this stage, as far as this clone knows"))
        })
    })?;
    let release = history.find(&wanted).ok_or_else(|| {
        Error::usage(format!("{}: there is no such release here", human::escape(typed)))
            .hint("git fetch --tags")
    })?;
    ctx.git.parse_id(&release.tag.target)
}

fn model_in(typed: &str) -> Option<String> {
    match Reference::parse(typed).ok()? {
        Reference::Release { name, .. } | Reference::Stage { name, .. } => Some(name.as_str().to_owned()),
        _ => None,
    }
}

fn version(ctx: &Ctx, model: &Model, typed: &str, commit: Option<Oid>) -> Result<Version> {
    let place = commit.as_ref().map_or(Place::Worktree, Place::Commit);
    // The declaration may have moved meanwhile; the model is found by its name.
    let there =
        ctx.model(Some(model.name.as_str()), place).map_err(|error| error.about(human::escape(typed)))?;
    let lineage = ctx.lineage(&there, place)?.ok_or_else(|| {
        Error::new(format!("{}: nothing is recorded about {} there", human::escape(typed), model.name))
            .hint(format!("git model record {} writes lineage.yaml", model.name))
    })?;
    let side = Side { typed: typed.to_owned(), commit: commit.as_ref().map(|id| id.as_str().to_owned()) };
    Ok(Version { side, commit, lineage })
}

fn metrics(model: &Model, old: &Lineage, new: &Lineage) -> BTreeMap<String, Metric> {
    let direction = directions(model);
    let before = |name: &str| old.metrics().and_then(|metrics| metrics.get(name).copied());
    let metric = |(name, value): (&String, &f64)| {
        (name.clone(), Metric::new(*value, before(name), direction.get(name.as_str()).copied()))
    };
    new.metrics().map(|metrics| metrics.iter().map(metric).collect()).unwrap_or_default()
}

fn gone(old: &Lineage, new: &Lineage) -> BTreeMap<String, f64> {
    let mut gone = old.metrics().cloned().unwrap_or_default();
    gone.retain(|name, _| new.metrics().is_none_or(|metrics| !metrics.contains_key(name)));
    gone
}

fn params(lineage: &Lineage) -> BTreeMap<String, String> {
    lineage.training.as_ref().map(|training| training.params.clone()).unwrap_or_default()
}

/// What differs between two maps.
fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| Change {
        name: name.clone(),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    };
    names.into_iter().map(change).filter(|change| change.old != change.new).collect()
}

fn files(old: &Lineage, new: &Lineage, role: Role) -> Vec<Change> {
    let digests = |lineage: &Lineage| {
        lineage.role(role).iter().map(|file| (file.path.to_string(), file.sha256.to_hex())).collect()
    };
    changes(&digests(old), &digests(new))
}

fn data(old: &Lineage, new: &Lineage) -> Vec<DataChange> {
    let by_name = |lineage: &Lineage| -> BTreeMap<String, Data> {
        lineage.data.iter().map(|data| (data.name.clone(), data.clone())).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| DataChange {
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}

/// Turns a file into names and values; `None` when it has none that can be told.
type Read<'r> = &'r dyn Fn(&[u8], &FileEntry) -> Result<Option<BTreeMap<String, String>>>;

struct Differ<'a> {
    ctx: &'a Ctx,
    old: &'a Version,
    new: &'a Version,
    notes: &'a mut Vec<String>,
}

impl Differ<'_> {
    /// What differs in the files of a role, by what they say; where that cannot be told, by their digests.
    fn values(&mut self, role: Role, read: Read<'_>) -> Vec<Change> {
        let mut all = Vec::new();
        for file in files(&self.old.lineage, &self.new.lineage, role) {
            let (old, new) =
                (self.side(self.old, role, &file.name, read), self.side(self.new, role, &file.name, read));
            match (old, new) {
                (Some(old), Some(new)) => all.extend(changes(&old, &new)),
                // Without values the file itself is what changed.
                _ => all.push(file),
            }
        }
        all
    }

    /// What a file says on one side; nothing where the file is not there.
    fn side(
        &mut self,
        version: &Version,
        role: Role,
        path: &str,
        read: Read<'_>,
    ) -> Option<BTreeMap<String, String>> {
        let Some(entry) = version.lineage.role(role).iter().find(|file| file.path.as_str() == path) else {
            return Some(BTreeMap::new());
        };
        let said = content(self.ctx, entry, version.place()).and_then(|bytes| match bytes {
            Some(bytes) => read(&bytes, entry),
            None => Err(Error::new(format!("{}: its content is not here", human::escape(path)))),
        });
        said.unwrap_or_else(|error| {
            self.notes.push(format!(
                "{} ({}): {}",
                human::escape(path),
                version.side.typed,
                human::escape(&error.one_line())
            ));
            None
        })
    }
}

/// The bytes of a recorded file, if they are here.
fn content(ctx: &Ctx, entry: &FileEntry, place: Place<'_>) -> Result<Option<Vec<u8>>> {
    if entry.files.is_some() {
        return Ok(None);
    }
    if let Some(bytes) = ctx.cache.read_small(&entry.sha256, MAX_LOCK)? {
        return Ok(Some(bytes));
    }
    // Git knows the bytes that a line-ending setting hides from the worktree.
    let bytes = match place {
        Place::Worktree if ctx.root()?.stat(&entry.path)?.is_some_and(|stat| stat.size <= MAX_LOCK) => {
            let blobs = ctx.git.hash_files(std::slice::from_ref(&entry.path))?;
            blobs.first().map(|blob| ctx.git.blob(blob, MAX_LOCK)).transpose()?
        }
        Place::Worktree => None,
        Place::Commit(_) => ctx.file_at(&entry.path, MAX_LOCK, place)?,
    };
    // Other bytes than the recorded ones say nothing about this version.
    Ok(bytes.filter(|bytes| Digest::of(bytes) == entry.sha256))
}

fn flattened(bytes: &[u8], file: &FileEntry) -> Result<Option<BTreeMap<String, String>>> {
    let known = ["json", "yaml", "yml", "toml", "csv"];
    let extension = file.path.name().rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    if !extension.is_some_and(|extension| known.contains(&extension.as_str())) {
        return Ok(None);
    }
    let text = |value: Value| match value {
        Value::Number(number) => values::number(number),
        Value::Text(text) => text,
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
    };
    let flat = values::flatten(bytes, file.path.as_str())?;
    Ok(Some(flat.into_iter().map(|(key, value)| (format!("{}: {key}", file.path), text(value))).collect()))
}

fn packages(bytes: &[u8], file: &FileEntry) -> Result<Option<BTreeMap<String, String>>> {
    lockfile::packages(bytes, file.path.name())
}

fn fields(bytes: &[u8], file: &FileEntry) -> Result<Option<BTreeMap<String, String>>> {
    let required = |field: json_schema::Field| match field.required {
        true => format!("{}, required", field.kind),
        false => field.kind,
    };
    let fields = json_schema::fields(bytes, file.path.as_str())?;
    Ok(fields.map(|fields| fields.into_iter().map(|(path, field)| (path, required(field))).collect()))
}
