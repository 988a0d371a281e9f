//! Recording what a version of a model is made of. It never states more than is known: what is bound to weights is carried
//! unchanged with them, and told apart by whether it was observed or only declared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Ctx;
use super::declared::{self, Declared};
use super::models::{Place, lineage_path};
use super::observation::{Observations, Statements, identities};
use super::{Selection, snapshot, status, weights};
use crate::error::{Error, Result};
use crate::fsio::Kind;
use crate::human;
use crate::id::Digest;
use crate::lineage::{Basis, Data, Evaluation, Execution, Inputs, Lineage, Training, files_digest};
use crate::model_yaml::{Model, Role, Source};
use crate::release::{Reference, Wanted};
use crate::repo_path::RepoPath;
use crate::values::{self, Value};

/// Keys under which a report may say which weights it judged.
const WEIGHTS_KEYS: [&str; 2] = ["weights_sha256", "weights.sha256"];

/// More files that are not in git are counted only.
const MOST_LEFT_OUT: usize = 10;

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

impl Options {
    /// What is stated about the training.
    pub(super) fn statements(&self) -> Statements {
        Statements {
            params: self.params.iter().cloned().collect(),
            note: self.note.clone(),
            parent: self.parent.clone(),
        }
    }
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
    /// Watched commands that are recorded now.
    pub taken_up: Vec<Execution>,
    /// What the user should know.
    pub warnings: Vec<Error>,
}

/// Records the model as it is in the worktree, with what `git model run` saw of it and could not record.
pub fn record(ctx: &Ctx, options: &Options) -> Result<Report> {
    let model = ctx.model(options.name.as_deref(), Place::Worktree)?;
    let report = check(ctx, &model, options)?;
    let seen = Observations::load(ctx, &model)?;
    record_model(ctx, model, options, report, seen)
}

/// Refuses what cannot be meant, before anything is run. Returns the report that the user names.
pub(super) fn check(ctx: &Ctx, model: &Model, options: &Options) -> Result<Option<RepoPath>> {
    if let Some(parent) = &options.parent
        && !matches!(Reference::parse(parent), Ok(Reference::Release { wanted: Wanted::Exact(_), .. }))
    {
        return Err(Error::usage(format!("{}: not a release", human::escape(parent)))
            .hint("write --parent NAME@vMAJOR.MINOR.PATCH"));
    }
    require_readable(ctx, model, &statements_alone(options))?;
    options.eval.as_ref().map(|typed| named_report(ctx, model, typed)).transpose()
}

/// A record with nothing but what the user states.
fn statements_alone(options: &Options) -> Lineage {
    let stated = options.statements();
    let training = Training {
        weights: Digest::of(b""),
        basis: Basis::Declared,
        run: None,
        base_commit: None,
        dirty: false,
        parent: stated.parent,
        inputs: Inputs::default(),
        params: stated.params,
        note: stated.note,
    };
    Lineage {
        model: "model".to_owned(),
        files: BTreeMap::new(),
        weights: None,
        training: Some(training),
        evaluation: None,
        data: Vec::new(),
    }
}

/// Refuses a record that nobody could read: it would stop every later command. Returns its text.
fn require_readable(ctx: &Ctx, model: &Model, lineage: &Lineage) -> Result<String> {
    let path = lineage_path(model)?;
    let text = lineage.to_text();
    let read = Lineage::parse(text.as_bytes(), path.as_str());
    match read.is_ok_and(|read| read == *lineage) {
        true => Ok(text),
        false => Err(Error::new(format!(
            "{}: what would be recorded could not be read again",
            ctx.git.shown(&path)
        ))
        .hint("shorten names and texts in the parameters, the note and the report")),
    }
}

/// The report that the user names, which need not be there yet.
fn named_report(ctx: &Ctx, model: &Model, typed: &Path) -> Result<RepoPath> {
    let shown = human::escape(&typed.to_string_lossy());
    let not_a_file =
        || Error::usage(format!("{shown}: not a file")).hint("name the report that an evaluation wrote");
    let path = ctx.git.repo_path(typed)?.ok_or_else(not_a_file)?;
    if let Some(declared) = model.files(Role::Evaluation).first()
        && *declared != path
    {
        let other = human::escape(declared.as_str());
        return Err(Error::usage(format!("{shown}: the declared evaluation is {other}"))
            .hint(format!("change `evaluation` in {}, or leave --eval out", model.path)));
    }
    let root = ctx.root()?;
    match root.stat(&path)?.map(|stat| stat.kind) {
        None => Ok(path),
        // Whoever may not read it must learn that now.
        Some(Kind::File | Kind::Executable) => root.open_file(&path).map(|_open| path),
        Some(_) => Err(not_a_file()),
    }
}

/// Records a model. `stated_report` is the one that the user names; `seen` is what watched commands did, as far as that is not
/// recorded yet.
pub(super) fn record_model(
    ctx: &Ctx,
    model: Model,
    options: &Options,
    stated_report: Option<RepoPath>,
    seen: Option<Observations>,
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
        stated_report,
        seen: None,
        warnings: Vec::new(),
    };
    let others = recorder.take_up(seen)?;
    let lineage = recorder.lineage()?;
    recorder.warn_of_others(&lineage, others.as_ref());
    let taken_up = recorder.seen.iter().flat_map(Observations::runs).cloned().collect();
    let is_about_these = recorder.seen.is_some();
    let mut warnings = recorder.warnings;
    warnings.extend(not_in_git(&model, &declared));
    if !lineage.files.keys().any(|role| role.is_of_the_model()) {
        warnings.push(
            Error::new(format!("{}: no file belongs to it, so it cannot be released", model.name))
                .hint(format!("declare its weights in {}", human::escape(model.path.as_str()))),
        );
    }
    let changed = before.as_ref() != Some(&lineage);
    if changed {
        let text = require_readable(ctx, &model, &lineage)?;
        ctx.interrupt.check()?;
        if !options.dry_run {
            ctx.root()?.write_small(&path, text.as_bytes(), &ctx.staging()?)?;
            ctx.git.stage(std::slice::from_ref(&path))?;
        }
    }
    if is_about_these && !options.dry_run {
        Observations::forget(ctx, &model)?;
    }
    let taken_up = if changed { taken_up } else { Vec::new() };
    Ok(Report { model, path, before, lineage, changed, taken_up, warnings })
}

/// Warns of files that no commit would bring back.
fn not_in_git(model: &Model, declared: &Declared) -> Vec<Error> {
    let recorded = declared.untracked.iter().map(|path| {
        let shown = human::escape(path.as_str());
        let command = if model.files(Role::Weights).contains(path) { "git model add" } else { "git add" };
        Error::new(format!("{shown}: recorded, but not in git yet"))
            .hint(format!("{command} {}", human::shell_quote(path.as_str())))
    });
    let left_out = declared.left_out.iter().take(MOST_LEFT_OUT).map(|path| {
        let shown = human::escape(path.as_str());
        Error::new(format!("{shown}: not in git, so not recorded, though it lies in a declared directory"))
            .hint(format!(
                "git add {} and record again, or let .gitignore name it",
                human::shell_quote(path.as_str())
            ))
    });
    let more = declared.left_out.len().saturating_sub(MOST_LEFT_OUT) as u64;
    let more = (more > 0).then(|| {
        Error::new(format!("{} more in declared directories are not in git", human::count(more, "file")))
            .hint("git status lists them")
    });
    recorded.chain(left_out).chain(more).collect()
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
        || declared.left_out.iter().any(|path| inputs.iter().any(|input| path.is_within(input)))
        || ctx.git.index_files(std::slice::from_ref(&model.path))?.is_empty();
    let dirty = unknown || ctx.git.differs_from(&head, &inputs)?;
    Ok((Some(head.as_str().to_owned()), dirty))
}

/// Every declared data snapshot. Those outside that are among the `known` are taken from there; others are looked at, and
/// their listings kept if `keep` says so.
pub(super) fn snapshots(
    ctx: &Ctx,
    model: &Model,
    declared: &Declared,
    known: &[Data],
    keep: bool,
) -> Result<Vec<Data>> {
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
                let taken = snapshot::take(ctx, url, keep)
                    .map_err(|error| error.about(format!("data `{}`", data.name)))?;
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
    /// The report that the user states to be about the weights that are here.
    stated_report: Option<RepoPath>,
    /// What was seen of the weights that are here.
    seen: Option<Observations>,
    warnings: Vec<Error>,
}

impl Recorder<'_> {
    /// Takes up what was seen of the weights that are here. Returns what was seen of others.
    fn take_up(&mut self, seen: Option<Observations>) -> Result<Option<Observations>> {
        let Some(seen) = seen else { return Ok(None) };
        let root = self.ctx.root()?;
        let stated_then = match &seen.stated_report {
            Some(path) if self.stated_report.is_none() && root.stat(path)?.is_some() => Some(path.clone()),
            _ => None,
        };
        let report = self.stated_report.clone().or(stated_then);
        let (mut weights, mut judged) = identities(self.ctx, self.model, report.as_ref())?;
        weights.content = weights::digest(self.model, self.declared.role(Role::Weights));
        judged.content = self.report_of(report.as_ref())?.map(|(_, digest)| digest);
        self.seen = seen.clone().about(&weights, &judged);
        if self.seen.is_some() {
            self.stated_report = report;
        }
        Ok(self.seen.is_none().then_some(seen))
    }

    /// Says why weights are declared though a command was watched.
    fn warn_of_others(&mut self, lineage: &Lineage, others: Option<&Observations>) {
        let Some(seen) = others.and_then(|others| others.training.as_ref()) else { return };
        let training = lineage.training.as_ref();
        let before = self.before.and_then(|before| before.training.as_ref());
        if training != before && training.is_some_and(|training| training.basis == Basis::Declared) {
            let command = human::escape(&seen.run.command.join(" "));
            self.warnings.push(Error::new(format!(
                "the weights are not the ones that git model run saw `{command}` write ({}), so they are recorded as declared",
                seen.run.started
            )));
        }
    }

    fn lineage(&mut self) -> Result<Lineage> {
        let entries = self.declared.role(Role::Weights);
        let now = weights::digest(self.model, entries);
        let known = self.before.and_then(|before| before.weights.as_ref());
        let same = known.map(|weights| weights.sha256) == now;
        let weights = match known.filter(|_| same) {
            // Bytes and declared set are the same, so the headers are, too.
            Some(known) => Some(known.clone()),
            None => weights::describe(self.ctx, self.model, entries)?,
        };
        let trained = self.seen.as_ref().and_then(|seen| seen.training.as_ref());
        let known = match (trained, self.before) {
            (Some(trained), _) => &trained.data[..],
            // A snapshot belongs to the weights that were made from it.
            (_, Some(before)) if same && !self.options.refresh_data => &before.data[..],
            _ => &[],
        };
        let data = snapshots(self.ctx, self.model, self.declared, known, !self.options.dry_run)?;
        let training = now.map(|now| self.training(now, &data)).transpose()?;
        let evaluation = self.evaluation(now, same, &data)?;
        Ok(Lineage {
            model: self.model.name.as_str().to_owned(),
            files: self.declared.files.clone(),
            weights,
            training,
            evaluation,
            data,
        })
    }

    fn training(&self, now: Digest, data: &[Data]) -> Result<Training> {
        let carried =
            self.before.and_then(|before| before.training.as_ref()).filter(|old| old.weights == now);
        let seen = self.seen.as_ref().and_then(|seen| seen.training.as_ref());
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
        let stated_then = self.seen.as_ref().map(|seen| seen.statements.clone());
        for stated in stated_then.into_iter().chain([self.options.statements()]) {
            training.params.extend(stated.params);
            training.note = stated.note.or(training.note);
            training.parent = stated.parent.or(training.parent);
        }
        Ok(training)
    }

    fn evaluation(
        &mut self,
        now: Option<Digest>,
        same_weights: bool,
        data: &[Data],
    ) -> Result<Option<Evaluation>> {
        let old = self.before.and_then(|before| before.evaluation.as_ref());
        let Some((path, digest)) = self.report_of(self.stated_report.as_ref())? else {
            if let Some(declared) = self.model.files(Role::Evaluation).first() {
                let shown = human::escape(declared.as_str());
                self.warnings.push(
                    Error::new(format!("{shown}: there is no such report, so no evaluation is recorded"))
                        .hint(format!("write it with git model run {} -- COMMAND", self.model.name)),
                );
            }
            // A report that was named by --eval only is carried while its weights are here.
            return Ok(old
                .filter(|_| same_weights && self.model.files(Role::Evaluation).is_empty())
                .cloned());
        };
        let seen = self.seen.as_ref().and_then(|seen| seen.evaluation.clone());
        let seen = seen.as_ref();
        let stated = self.stated_report.is_some();
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
        let values = values::flatten(&self.read_report(&path)?, path.as_str()).map_err(|error| {
            error.hint("a report is JSON, YAML, TOML or CSV; its metrics are finite numbers: write it again")
        })?;
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

    /// The report and its digest: the one that is named, else the declared one.
    fn report_of(&self, named: Option<&RepoPath>) -> Result<Option<(RepoPath, Digest)>> {
        let declared = self.declared.role(Role::Evaluation).first();
        match (declared, named) {
            (Some(entry), _) => Ok(Some((entry.path.clone(), entry.sha256))),
            (None, Some(path)) => Ok(Some((path.clone(), Digest::of(&self.read_report(path)?)))),
            (None, None) => Ok(None),
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
