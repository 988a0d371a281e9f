//! The recorded versions of a model on a branch: what changed from one to the next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::Ctx;
use super::models::{Place, lineage_path};
use super::registry;
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::lineage::{Basis, Lineage};
use crate::model_yaml::{Direction, Model};
use crate::release::{Finding, History};

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model; the only one if not given.
    pub name: Option<String>,
    /// Where the branch starts; HEAD if not given.
    pub revision: Option<String>,
    /// At most this many versions.
    pub limit: Option<usize>,
}

/// The versions of a model.
#[derive(Debug)]
pub struct Log {
    /// The model, as declared now.
    pub model: Model,
    /// Each after the versions that came from it; on one line of the history, newest first.
    pub versions: Vec<Version>,
    /// Records in the history, and tags here, that cannot be read.
    pub unreadable: Vec<Error>,
}

/// One recorded version.
#[derive(Debug)]
pub struct Version {
    /// The commit that recorded it.
    pub commit: Oid,
    /// When that was made, in Unix seconds.
    pub time: i64,
    /// Its subject.
    pub subject: String,
    /// Releases of commits that hold this record, as `v1.2.0`.
    pub releases: Vec<String>,
    /// Stages that hold one of these releases now.
    pub stages: Vec<String>,
    /// Digest of the weights.
    pub weights: Option<Digest>,
    /// Whether the weights differ from the version before; `None` for the first.
    pub weights_changed: Option<bool>,
    /// Whether any data snapshot differs from the version before; `None` for the first.
    pub data_changed: Option<bool>,
    /// How the training is known.
    pub basis: Option<Basis>,
    /// Metrics of these weights.
    pub metrics: BTreeMap<String, Metric>,
}

/// A metric and its change.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Metric {
    /// Its value.
    pub value: f64,
    /// Its value in the version before that has it.
    pub before: Option<f64>,
    /// The difference from the version before that has it.
    pub change: Option<f64>,
    /// Whether the change is for the better, where the model's gates tell the direction.
    pub better: Option<bool>,
}

impl Metric {
    /// A value beside an earlier one.
    pub fn new(value: f64, before: Option<f64>, direction: Option<Direction>) -> Metric {
        let change = before.map(|before| value - before);
        let better = change.zip(direction).filter(|(change, _)| *change != 0.0);
        let better = better.map(|(change, direction)| (change > 0.0) == (direction == Direction::Higher));
        Metric { value, before, change, better }
    }
}

/// Lists the recorded versions that a branch leads to.
pub fn log(ctx: &Ctx, options: &Options) -> Result<Log> {
    let start = ctx.git.require_commit(options.revision.as_deref().unwrap_or("HEAD"))?;
    let model = match ctx.git.is_bare() {
        true => ctx.model(options.name.as_deref(), Place::Commit(&start))?,
        false => ctx.model(options.name.as_deref(), Place::Worktree)?,
    };
    let path = lineage_path(&model)?;
    let mut past =
        Past { ctx, model: &model, commits: HashMap::new(), read: HashMap::new(), unreadable: Vec::new() };
    let commits = ctx.git.file_history(&start, &path)?;
    past.commits = commits.iter().map(|commit| (commit.id.clone(), commit.parents.clone())).collect();
    let history = registry::local_history(ctx, &model.name)?;
    let damaged = history.findings().iter().filter(|finding| matches!(finding, Finding::Damaged { .. }));
    past.unreadable.extend(damaged.map(|finding| Error::new(finding.to_string())));
    let marks = Marks::of_history(ctx, &model, &history)?;
    let direction = directions(&model);
    let mut versions = Vec::new();
    for commit in commits {
        if options.limit.is_some_and(|limit| versions.len() >= limit) {
            break;
        }
        // A commit that removed the record is no version, and neither is a merge that took one side's.
        let Some(lineage) = past.lineage(&commit.id) else { continue };
        if past.is_of_a_parent(&commit.id, &lineage) {
            continue;
        }
        let before = past.before(&commit.id).map(|(_, lineage)| lineage);
        let (releases, stages) = marks.of(&lineage);
        versions.push(Version {
            time: commit.time,
            subject: commit.subject,
            releases,
            stages,
            weights: weights_of(&lineage),
            weights_changed: before.as_ref().map(|before| weights_of(before) != weights_of(&lineage)),
            data_changed: before.as_ref().map(|before| data_of(before) != data_of(&lineage)),
            basis: lineage.training.as_ref().map(|training| training.basis),
            metrics: metrics(&lineage, &mut past, &commit.id, &direction),
            commit: commit.id,
        });
    }
    let unreadable = past.unreadable;
    Ok(Log { model, versions, unreadable })
}

/// The records in a history, each read once.
struct Past<'a> {
    ctx: &'a Ctx,
    model: &'a Model,
    /// Commits that changed the record, with those before them.
    commits: HashMap<Oid, Vec<Oid>>,
    read: HashMap<Oid, Option<Rc<Lineage>>>,
    unreadable: Vec<Error>,
}

impl Past<'_> {
    /// The record in a commit. One that cannot be read is set aside.
    fn lineage(&mut self, commit: &Oid) -> Option<Rc<Lineage>> {
        if let Some(known) = self.read.get(commit) {
            return known.clone();
        }
        let read = self.ctx.lineage(self.model, Place::Commit(commit)).unwrap_or_else(|error| {
            let shown = human::escape(&commit.as_str()[..12]);
            self.unreadable.push(error.about(format!("commit {shown}")));
            None
        });
        let read = read.map(Rc::new);
        self.read.insert(commit.clone(), read.clone());
        read
    }

    fn parents(&self, commit: &Oid) -> Vec<Oid> {
        self.commits.get(commit).cloned().unwrap_or_default()
    }

    /// Whether a commit before it has the same record.
    fn is_of_a_parent(&mut self, commit: &Oid, lineage: &Lineage) -> bool {
        self.parents(commit).iter().any(|parent| self.lineage(parent).is_some_and(|other| *other == *lineage))
    }

    /// The record before the one of a commit, on its own line of the history where there is one, and its commit.
    fn before(&mut self, commit: &Oid) -> Option<(Oid, Rc<Lineage>)> {
        let mut waiting: Vec<Oid> = self.parents(commit).into_iter().rev().collect();
        let mut seen = HashSet::new();
        while let Some(parent) = waiting.pop() {
            if !seen.insert(parent.clone()) {
                continue;
            }
            if let Some(lineage) = self.lineage(&parent) {
                return Some((parent, lineage));
            }
            waiting.extend(self.parents(&parent).into_iter().rev());
        }
        None
    }
}

/// Which way each metric is better, as far as the gates tell.
pub(super) fn directions(model: &Model) -> HashMap<&str, Direction> {
    model.gates.metrics.iter().map(|rule| (rule.name.as_str(), rule.direction)).collect()
}

fn weights_of(lineage: &Lineage) -> Option<Digest> {
    lineage.weights.as_ref().map(|weights| weights.sha256)
}

/// Data snapshots by name: their order in the declaration says nothing.
fn data_of(lineage: &Lineage) -> BTreeMap<&str, &str> {
    lineage.data.iter().map(|data| (data.name.as_str(), data.digest.as_str())).collect()
}

fn metrics(
    lineage: &Lineage,
    past: &mut Past<'_>,
    commit: &Oid,
    direction: &HashMap<&str, Direction>,
) -> BTreeMap<String, Metric> {
    let Some(now) = lineage.metrics() else { return BTreeMap::new() };
    let mut before: BTreeMap<&str, f64> = BTreeMap::new();
    let mut older = past.before(commit);
    while let Some((at, lineage)) = older {
        for (name, value) in lineage.metrics().into_iter().flatten() {
            if let Some((name, _)) = now.get_key_value(name) {
                before.entry(name).or_insert(*value);
            }
        }
        older = if before.len() < now.len() { past.before(&at) } else { None };
    }
    let metric = |(name, value): (&String, &f64)| {
        let (before, direction) = (before.get(name.as_str()).copied(), direction.get(name.as_str()).copied());
        (name.clone(), Metric::new(*value, before, direction))
    };
    now.iter().map(metric).collect()
}

/// Releases by the record that their commit holds.
struct Marks(HashMap<Digest, (Vec<String>, Vec<String>)>);

impl Marks {
    fn of_history(ctx: &Ctx, model: &Model, history: &History) -> Result<Marks> {
        let mut marks: HashMap<Digest, (Vec<String>, Vec<String>)> = HashMap::new();
        for release in history.releases() {
            let target = ctx.git.parse_id(&release.tag.target)?;
            // A release whose commit is not here, as in a shallow clone, marks nothing.
            let Ok(Some(lineage)) = ctx.lineage(model, Place::Commit(&target)) else { continue };
            let (releases, stages) = marks.entry(Digest::of(lineage.to_text().as_bytes())).or_default();
            releases.push(format!("v{}", release.version));
            for stage in history.stages() {
                if history.current(stage).is_some_and(|current| *current.version == release.version) {
                    stages.push(stage.as_str().to_owned());
                }
            }
        }
        Ok(Marks(marks))
    }

    fn of(&self, lineage: &Lineage) -> (Vec<String>, Vec<String>) {
        self.0.get(&Digest::of(lineage.to_text().as_bytes())).cloned().unwrap_or_default()
    }
}
