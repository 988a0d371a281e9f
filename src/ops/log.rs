//! The recorded versions of a model on a branch: what changed from one to the next.

use std::collections::{BTreeMap, HashMap};

use super::Ctx;
use super::models::{Place, lineage_path};
use super::registry;
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::lineage::{Basis, Lineage};
use crate::model_yaml::{Direction, Model};

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
    /// Newest first.
    pub versions: Vec<Version>,
    /// Records in the history that cannot be read.
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
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    // One more than shown, so that the last one can be compared, too.
    let most = options.limit.map(|limit| limit.saturating_add(1));
    for commit in ctx.git.file_history(&start, &path, most)? {
        match ctx.lineage(&model, Place::Commit(&commit.id)) {
            Ok(Some(lineage)) => records.push((commit, lineage)),
            // A commit that removed the record is no version.
            Ok(None) => {}
            Err(error) => {
                unreadable.push(error.about(format!("commit {}", human::escape(&commit.id.as_str()[..12]))));
            }
        }
    }
    let marks = Marks::load(ctx, &model)?;
    let direction = directions(&model);
    let mut versions = Vec::new();
    for (at, (commit, lineage)) in records.iter().enumerate() {
        let before = records.get(at + 1).map(|(_, lineage)| lineage);
        let (releases, stages) = marks.of(lineage);
        versions.push(Version {
            commit: commit.id.clone(),
            time: commit.time,
            subject: commit.subject.clone(),
            releases,
            stages,
            weights: weights_of(lineage),
            weights_changed: before.map(|before| weights_of(before) != weights_of(lineage)),
            data_changed: before.map(|before| data_of(before) != data_of(lineage)),
            basis: lineage.training.as_ref().map(|training| training.basis),
            metrics: metrics(lineage, &records[at + 1..], &direction),
        });
    }
    versions.truncate(options.limit.unwrap_or(usize::MAX));
    Ok(Log { model, versions, unreadable })
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

fn metrics<T>(
    lineage: &Lineage,
    older: &[(T, Lineage)],
    direction: &HashMap<&str, Direction>,
) -> BTreeMap<String, Metric> {
    let before = |name: &str| older.iter().find_map(|(_, lineage)| lineage.metrics()?.get(name).copied());
    let metric = |(name, value): (&String, &f64)| {
        (name.clone(), Metric::new(*value, before(name), direction.get(name.as_str()).copied()))
    };
    lineage.metrics().map(|metrics| metrics.iter().map(metric).collect()).unwrap_or_default()
}

/// Releases by the record that their commit holds.
struct Marks(HashMap<Digest, (Vec<String>, Vec<String>)>);

impl Marks {
    fn load(ctx: &Ctx, model: &Model) -> Result<Marks> {
        let history = registry::local_history(ctx, &model.name)?;
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
