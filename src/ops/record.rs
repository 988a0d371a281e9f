//! Recording what a version of a model is made of. It never states more than is known: what is bound to weights is carried
//! unchanged with them, and told apart by whether it was observed or only declared.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Ctx;
use super::declared::{self, Declared};
use super::models::{Place, lineage_path};
use super::{Selection, snapshot, status, weights};
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::lineage::{Basis, Data, Evaluation, Execution, Inputs, Lineage, Training, files_digest};
use crate::model_yaml::{Model, Role, Source};
use crate::release::{Reference, Wanted};
use crate::repo_path::RepoPath;
use crate::values::{self, Value};

/// Keys under which a report may say which weights it judged.
const WEIGHTS_KEYS: [&str; 2] = ["weights_sha256", "weights.sha256"];

/// What the user states.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model; the only one if not given.
    pub name: Option<String>,
    /// The report that judged the weights that are here.
    pub eval: Option<PathBuf>,
    /// Facts about the training.
    pub params: Vec<(String, String)>,
    /// About the training, in words.
    pub note: Option<String>,
    /// The release that the weights descend from.
    pub parent: Option<String>,
    /// Look at outside data again, though the weights did not change.
    pub refresh_data: bool,
    /// Only say what would be recorded.
    pub dry_run: bool,
}

/// What recording did.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub model: Model,
    /// Where the record is.
    pub path: RepoPath,
    /// What was recorded before.
    pub before: Option<Lineage>,
    /// What is recorded now.
    pub lineage: Lineage,
    /// Whether the file changed.
    pub changed: bool,
    /// What the user should know.
    pub warnings: Vec<Error>,
}

/// What `git model run` saw.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The command.
    pub run: Execution,
    /// What there was to read before it started.
    pub inputs: Inputs,
    /// The data snapshots then.
    pub data: Vec<Data>,
    /// The commit that was checked out before.
    pub base_commit: Option<String>,
    /// Whether declared inputs differed from it.
    pub dirty: bool,
    /// Whether it wrote weights.
    pub wrote_weights: bool,
    /// Whether it wrote the evaluation report.
    pub wrote_report: bool,
}

/// Records the model as it is in the worktree.
pub fn record(ctx: &Ctx, options: &Options) -> Result<Report> {
    let model = ctx.model(options.name.as_deref(), Place::Worktree)?;
    check(options)?;
    record_model(ctx, model, options, None)
}

/// Refuses what cannot be meant, before anything is run or read.
pub(super) fn check(options: &Options) -> Result<()> {
    let Some(parent) = &options.parent else { return Ok(()) };
    match Reference::parse(parent) {
        Ok(Reference::Release { wanted: Wanted::Exact(_), .. }) => Ok(()),
        _ => Err(Error::usage(format!("{}: not a release", human::escape(parent)))
            .hint("write --parent NAME@vMAJOR.MINOR.PATCH")),
    }
}

/// Records a model; `observed` is what a watched command did.
pub(super) fn record_model(
    ctx: &Ctx,
    model: Model,
    options: &Options,
    observed: Option<&Observed>,
) -> Result<Report> {
    let path = lineage_path(&model)?;
    let before = ctx.lineage(&model, Place::Worktree)?;
    let declared = declared::look_up(ctx, &model, Place::Worktree, &Role::ALL)?;
    require_added(ctx, &declared)?;
    let mut recorder = Recorder {
        ctx,
        model: &model,
        declared: &declared,
        before: before.as_ref(),
        options,
        warnings: Vec::new(),
    };
    let lineage = recorder.lineage(observed)?;
    let mut warnings = recorder.warnings;
    warnings.extend(declared.untracked.iter().map(|path| {
        let shown = human::escape(path.as_str());
        let command = if model.files(Role::Weights).contains(path) { "git model add" } else { "git add" };
        Error::new(format!("{shown}: recorded, but not in git yet"))
            .hint(format!("{command} {}", human::shell_quote(path.as_str())))
    }));
    let changed = before.as_ref() != Some(&lineage);
    if changed && !options.dry_run {
        let text = lineage.to_text();
        // A record that nobody can read would stop every later command.
        let read = Lineage::parse(text.as_bytes(), path.as_str());
        if !read.is_ok_and(|read| read == lineage) {
            return Err(Error::new(format!("{path}: what would be recorded could not be read again"))
                .hint("shorten names and texts in the parameters, the note and the report"));
        }
        ctx.root()?.write_small(&path, text.as_bytes(), &ctx.staging()?)?;
        ctx.git.stage(std::slice::from_ref(&path))?;
    }
    Ok(Report { model, path, before, lineage, changed, warnings })
}

/// Refuses to record content that its pointer does not name.
fn require_added(ctx: &Ctx, declared: &Declared) -> Result<()> {
    if declared.artifacts.is_empty() {
        return Ok(());
    }
    let paths = declared.artifacts.iter().map(|(path, _)| path.clone()).collect();
    let report = status::status(ctx, &Selection::of(paths))?;
    match report.items.iter().find(|item| item.state == status::State::Modified) {
        None => Ok(()),
        Some(item) => {
            let path = item.path.as_str();
            Err(Error::refused(format!("{}: changed since it was added", human::escape(path)))
                .hint(format!("git model add {}", human::shell_quote(path))))
        }
    }
}

/// What a model's declared inputs are now.
pub(super) fn inputs(declared: &Declared, data: &[Data]) -> Inputs {
    Inputs {
        code: files_digest(declared.role(Role::Code)),
        config: files_digest(declared.role(Role::Config)),
        environment: files_digest(declared.role(Role::Environment)),
        data: data.iter().map(|data| (data.name.clone(), data.digest.clone())).collect(),
    }
}

/// The commit that is checked out, and whether declared inputs differ from it.
pub(super) fn base(ctx: &Ctx, model: &Model, declared: &Declared) -> Result<(Option<String>, bool)> {
    let Some(head) = ctx.git.commit("HEAD")? else { return Ok((None, true)) };
    let mut inputs: Vec<RepoPath> = vec![model.path.clone()];
    for role in declared::INPUTS {
        inputs.extend(model.files(role).iter().cloned());
    }
    for data in &model.data {
        if let Source::Path(path) = &data.source {
            inputs.push(path.pointer());
            inputs.push(path.clone());
        }
    }
    // What git does not know yet is in no commit, and no difference to git.
    let unknown = declared.untracked.iter().any(|path| inputs.contains(path))
        || ctx.git.index_files(std::slice::from_ref(&model.path))?.is_empty();
    let dirty = unknown || ctx.git.differs_from(&head, &inputs)?;
    Ok((Some(head.as_str().to_owned()), dirty))
}

/// Every declared data snapshot. Those outside that are among the `known` are taken from there; others are looked at.
pub(super) fn snapshots(ctx: &Ctx, model: &Model, declared: &Declared, known: &[Data]) -> Result<Vec<Data>> {
    let mut all = Vec::new();
    for data in &model.data {
        let mut entry = Data {
            name: data.name.clone(),
            path: None,
            url: None,
            id: None,
            digest: String::new(),
            files: None,
            size: None,
        };
        match &data.source {
            Source::Path(path) => {
                let file = &declared.data[&data.name];
                entry.path = Some(path.clone());
                entry.digest = format!("sha256:{}", file.sha256);
                entry.files = Some(file.files.unwrap_or(1));
                entry.size = Some(file.size);
            }
            Source::Named { id, digest } => {
                entry.id = Some(id.clone());
                entry.digest.clone_from(digest);
            }
            Source::Url(url) => {
                let known = known.iter().find(|old| old.name == data.name && old.url.as_ref() == Some(url));
                if let Some(known) = known {
                    all.push(known.clone());
                    continue;
                }
                let taken =
                    snapshot::take(ctx, url).map_err(|error| error.about(format!("data `{}`", data.name)))?;
                entry.url = Some(url.clone());
                entry.digest = format!("sha256:{}", taken.digest);
                entry.files = Some(taken.files);
                entry.size = Some(taken.size);
            }
        }
        all.push(entry);
    }
    Ok(all)
}

struct Recorder<'a> {
    ctx: &'a Ctx,
    model: &'a Model,
    declared: &'a Declared,
    before: Option<&'a Lineage>,
    options: &'a Options,
    warnings: Vec<Error>,
}

impl Recorder<'_> {
    fn lineage(&mut self, observed: Option<&Observed>) -> Result<Lineage> {
        let entries = self.declared.role(Role::Weights);
        let now = weights::digest(self.model, entries);
        let known = self.before.and_then(|before| before.weights.as_ref());
        let same = known.map(|weights| weights.sha256) == now;
        let weights = match known.filter(|_| same) {
            // Bytes and declared set are the same, so the headers are, too.
            Some(known) => Some(known.clone()),
            None => weights::describe(self.ctx, self.model, entries)?,
        };
        let known = match (observed, self.before) {
            (Some(seen), _) if seen.wrote_weights => &seen.data[..],
            // A snapshot belongs to the weights that were made from it.
            (_, Some(before)) if same && !self.options.refresh_data => &before.data[..],
            _ => &[],
        };
        let data = snapshots(self.ctx, self.model, self.declared, known)?;
        let training = now.map(|now| self.training(now, &data, observed)).transpose()?;
        let evaluation = self.evaluation(now, same, &data, observed)?;
        Ok(Lineage {
            model: self.model.name.as_str().to_owned(),
            files: self.declared.files.clone(),
            weights,
            training,
            evaluation,
            data,
        })
    }

    fn training(&self, now: Digest, data: &[Data], observed: Option<&Observed>) -> Result<Training> {
        let carried =
            self.before.and_then(|before| before.training.as_ref()).filter(|old| old.weights == now);
        let seen = observed.filter(|seen| seen.wrote_weights);
        let mut training = match (carried, seen) {
            // Whoever watched the same bytes being made again learns nothing new, unless nobody had watched before.
            (Some(old), Some(_)) if old.basis == Basis::Observed => old.clone(),
            (Some(old), None) => old.clone(),
            (_, Some(seen)) => Training {
                weights: now,
                basis: Basis::Observed,
                run: Some(seen.run.clone()),
                base_commit: seen.base_commit.clone(),
                dirty: seen.dirty,
                parent: None,
                inputs: seen.inputs.clone(),
                params: BTreeMap::new(),
                note: None,
            },
            (None, None) => {
                let (base_commit, dirty) = base(self.ctx, self.model, self.declared)?;
                Training {
                    weights: now,
                    basis: Basis::Declared,
                    run: None,
                    base_commit,
                    dirty,
                    parent: None,
                    inputs: inputs(self.declared, data),
                    params: BTreeMap::new(),
                    note: None,
                }
            }
        };
        training.params.extend(self.options.params.iter().cloned());
        training.note = self.options.note.clone().or(training.note);
        training.parent = self.options.parent.clone().or(training.parent);
        Ok(training)
    }

    fn evaluation(
        &mut self,
        now: Option<Digest>,
        same_weights: bool,
        data: &[Data],
        observed: Option<&Observed>,
    ) -> Result<Option<Evaluation>> {
        let old = self.before.and_then(|before| before.evaluation.as_ref());
        let Some((path, digest)) = self.report()? else {
            // A report that was named by --eval only is carried while its weights are here.
            return Ok(old
                .filter(|_| same_weights && self.model.files(Role::Evaluation).is_empty())
                .cloned());
        };
        let seen = observed.filter(|seen| seen.wrote_report);
        let stated = self.options.eval.is_some();
        let same_report = old.is_some_and(|old| old.report == digest) && seen.is_none();
        // To state what is recorded already adds nothing, and must not take away that it was observed.
        let known = same_report && old.is_some_and(|old| old.weights.is_some() && old.weights == now);
        let unchanged = same_report && (!stated || known);
        if unchanged && same_weights {
            return Ok(old.cloned());
        }
        let shown = human::escape(path.as_str());
        if unchanged {
            self.warnings.push(
                Error::new(format!("{shown}: it judges other weights than the ones that are here"))
                    .hint("run the evaluation again: git model run NAME -- COMMAND"),
            );
            return Ok(old.cloned());
        }
        let values = values::flatten(&self.read_report(&path)?, path.as_str())?;
        self.check_metrics(&path, &values)?;
        let of_others = self.names_other_weights(&values, now);
        if stated && of_others {
            return Err(Error::refused(format!("{shown}: it says itself that it judged other weights"))
                .hint("run the evaluation on these weights"));
        }
        let too_old = seen.is_none() && !stated && self.is_older_than_weights(&path)?;
        let bound = !of_others && !too_old;
        if !bound {
            let (why, advice) = match of_others {
                true => ("says itself that it judged other weights", String::new()),
                false => (
                    "was written before the weights",
                    format!(
                        ", or state that it is about them: git model record --eval {}",
                        human::shell_quote(path.as_str())
                    ),
                ),
            };
            self.warnings.push(
                Error::new(format!("{shown}: it {why}, so it is recorded without being about them"))
                    .hint(format!("run the evaluation again{advice}")),
            );
        }
        Ok(Some(Evaluation {
            weights: now.filter(|_| bound),
            basis: if seen.is_some() { Basis::Observed } else { Basis::Declared },
            run: seen.map(|seen| seen.run.clone()),
            report: digest,
            data: seen
                .map_or(data, |seen| &seen.data)
                .iter()
                .map(|data| (data.name.clone(), data.digest.clone()))
                .collect(),
            metrics: numbers(values),
        }))
    }

    /// The report and its digest: the one that the user names, else the declared one.
    fn report(&self) -> Result<Option<(RepoPath, Digest)>> {
        let declared = self.declared.role(Role::Evaluation).first();
        let Some(typed) = &self.options.eval else {
            return Ok(declared.map(|entry| (entry.path.clone(), entry.sha256)));
        };
        let shown = human::escape(&typed.to_string_lossy());
        let path = self.ctx.git.repo_path(typed)?;
        let path = path.ok_or_else(|| Error::usage(format!("{shown}: not a file")))?;
        match declared {
            Some(entry) if entry.path == path => Ok(Some((path, entry.sha256))),
            Some(entry) => {
                let other = human::escape(entry.path.as_str());
                Err(Error::usage(format!("{shown}: the declared evaluation is {other}"))
                    .hint(format!("change `evaluation` in {}, or leave --eval out", self.model.path)))
            }
            None => {
                let digest = Digest::of(&self.read_report(&path)?);
                Ok(Some((path, digest)))
            }
        }
    }

    fn read_report(&self, path: &RepoPath) -> Result<Vec<u8>> {
        let bytes = self.ctx.root()?.read_small(path, values::MAX_BYTES)?;
        bytes.ok_or_else(|| {
            Error::new(format!("{}: no such file", human::escape(path.as_str())))
                .hint("write the evaluation report first, or bring it: git model pull")
        })
    }

    /// Refuses a report in which something that a gate compares is not a number.
    fn check_metrics(&self, path: &RepoPath, values: &BTreeMap<String, Value>) -> Result<()> {
        let compared = self.model.gates.metrics.iter().map(|rule| rule.name.as_str());
        for name in compared {
            let found = match values.get(name) {
                None | Some(Value::Number(_)) => continue,
                Some(Value::Text(text)) => format!("the text \"{}\"", human::escape(text)),
                Some(Value::Bool(value)) => value.to_string(),
                Some(Value::Null) => "null".to_owned(),
            };
            let shown = human::escape(path.as_str());
            return Err(Error::new(format!("{shown}: metric `{name}` is {found}, not a number"))
                .hint("a gate compares it: write it as a number"));
        }
        Ok(())
    }

    /// Whether the report names weights, and none of them are here.
    fn names_other_weights(&self, values: &BTreeMap<String, Value>, now: Option<Digest>) -> bool {
        let named = WEIGHTS_KEYS.iter().find_map(|key| match values.get(*key) {
            Some(Value::Text(text)) => Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text)),
            _ => None,
        });
        let here = |digest: Digest| {
            Some(digest) == now || self.declared.role(Role::Weights).iter().any(|file| file.sha256 == digest)
        };
        named.is_some_and(|digest| !here(digest))
    }

    /// Whether the report was written before some weights file, as far as both are here to be looked at.
    fn is_older_than_weights(&self, report: &RepoPath) -> Result<bool> {
        let root = self.ctx.root()?;
        let Some(report) = root.stat(report)? else { return Ok(false) };
        for weights in self.declared.role(Role::Weights) {
            if root.stat(&weights.path)?.is_some_and(|weights| weights.mtime > report.mtime) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn numbers(values: BTreeMap<String, Value>) -> BTreeMap<String, f64> {
    let number = |(name, value)| match value {
        Value::Number(number) => Some((name, number)),
        _ => None,
    };
    values.into_iter().filter_map(number).collect()
}
