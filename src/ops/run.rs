//! Running a training or evaluation and recording what was seen: what it could read before, what it wrote.

use std::path::PathBuf;

use super::declared;
use super::models::Place;
use super::observation::{Observations, Observed, Statements, identities};
use super::record::{self, Options, Report};
use super::{Ctx, Selection, add, status};
use crate::error::{Error, Kind, Result};
use crate::execution;
use crate::human;
use crate::lineage::Execution;
use crate::model_yaml::{Model, Role};
use crate::repo_path::RepoPath;
use crate::secrets;

/// What was run, and what came of it.
#[derive(Debug)]
pub struct Ran {
    /// Artifacts whose new content was added.
    pub added: Vec<add::Item>,
    /// What was recorded.
    pub record: Report,
    /// Whether it wrote declared weights.
    pub wrote_weights: bool,
    /// Whether it wrote the declared evaluation report.
    pub wrote_report: bool,
}

/// Runs `command`; when it succeeds, adds artifacts that changed and records. A command that fails records nothing.
///
/// When recording fails after a good command, what was seen is kept for the next `git model record`.
pub fn run(ctx: &Ctx, options: &Options, command: &[String]) -> Result<Ran> {
    let model = ctx.model(options.name.as_deref(), Place::Worktree)?;
    let report = record::check(ctx, &model, options)?;
    // What the record could not be written over is better known before days of training than after.
    ctx.lineage(&model, Place::Worktree)?;
    let unrecorded = Observations::load(ctx, &model)?;
    let mut inputs_declared = declared::look_up(ctx, &model, Place::Worktree, &declared::INPUTS)?;
    // The command reads what is there, not what was added last.
    let read = inputs_declared.artifacts.iter().map(|(path, _)| path.clone()).collect();
    let mut added = add_all(ctx, &modified(ctx, read)?)?;
    if !added.is_empty() {
        inputs_declared = declared::look_up(ctx, &model, Place::Worktree, &declared::INPUTS)?;
    }
    let data = record::snapshots(ctx, &model, &inputs_declared, &[], true)?;
    let inputs = record::inputs(&inputs_declared, &data);
    let (base_commit, dirty) = record::base(ctx, &model, &inputs_declared)?;
    let host = execution::host_facts(command);
    let before = identities(ctx, &model, report.as_ref())?;

    let finished = execution::run(command, &ctx.interrupt)?;
    if finished.code != 0 {
        return Err(Error::new(format!(
            "{}: it ended with exit code {}",
            human::escape(&command[0]),
            finished.code
        ))
        .of_kind(Kind::Command(finished.code))
        .hint("nothing was recorded, and what it wrote is where it was"));
    }
    let run = Execution {
        command: secrets::redact(command),
        started: finished.started,
        seconds: finished.duration.as_secs(),
        host,
    };
    let (weights, judged) = identities(ctx, &model, report.as_ref())?;
    let (wrote_weights, wrote_report) = (weights != before.0, judged != before.1);
    let observed = Observed { run: run.clone(), inputs, data, base_commit, dirty };
    // An earlier training that could not be recorded is still the one of these weights.
    let earlier = unrecorded.and_then(|seen| seen.about(&before.0, &before.1)).filter(|_| !wrote_weights);
    let (training, evaluation, mut statements) = match earlier {
        Some(earlier) => (earlier.training, earlier.evaluation, earlier.statements),
        None => (None, None, Statements::default()),
    };
    statements.extend(options.statements());
    let mut seen = Observations {
        weights,
        report: judged,
        training: if wrote_weights { Some(observed.clone()) } else { training },
        evaluation: if wrote_report { Some(observed) } else { evaluation },
        statements,
        stated_report: report.clone(),
    };
    let worth_keeping = seen.training.is_some() || seen.evaluation.is_some();
    let recorded = (|| {
        if worth_keeping {
            seen.save(ctx, &model)?;
        }
        added.extend(add_changed(ctx, &model)?);
        if worth_keeping {
            seen.learn_content(ctx, &model)?;
            seen.save(ctx, &model)?;
        }
        record::record_model(ctx, model.clone(), options, report, worth_keeping.then_some(seen))
    })();
    let mut record = recorded.map_err(|error| {
        let error = match ctx.interrupt.is_raised() {
            true => Error::new("interrupted after the command had ended"),
            false => error,
        };
        match worth_keeping {
            true => error.hint(format!(
                "what was seen of the command is kept: git model record {} takes it up",
                model.name
            )),
            false => error,
        }
    })?;
    record.taken_up.retain(|earlier| *earlier != run);
    Ok(Ran { added, record, wrote_weights, wrote_report })
}

/// Adds artifacts that changed, and declared weights that nobody tracks yet.
fn add_changed(ctx: &Ctx, model: &Model) -> Result<Vec<add::Item>> {
    let root = ctx.root()?;
    let artifacts = ctx.artifacts(&Selection::all())?;
    let mut paths = modified(ctx, artifacts.iter().map(|artifact| artifact.path.clone()).collect())?;
    for path in model.files(Role::Weights) {
        let tracked = !ctx.git.index_files(&[path.clone(), path.pointer()])?.is_empty();
        let inside = artifacts.iter().any(|artifact| path.is_within(&artifact.path));
        if !tracked && !inside && root.stat(path)?.is_some() {
            paths.push(path.clone());
        }
    }
    add_all(ctx, &paths)
}

/// The artifacts among these whose content is not what their pointer names.
fn modified(ctx: &Ctx, paths: Vec<RepoPath>) -> Result<Vec<RepoPath>> {
    if paths.is_empty() {
        return Ok(paths);
    }
    let items = status::status(ctx, &Selection::of(paths))?.items.into_iter();
    Ok(items.filter(|item| item.state == status::State::Modified).map(|item| item.path).collect())
}

fn add_all(ctx: &Ctx, paths: &[RepoPath]) -> Result<Vec<add::Item>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let root = ctx.root()?;
    let typed: Vec<PathBuf> = paths.iter().map(|path| root.full(path)).collect();
    let options = add::Options { paths: typed, update: false, stage: true, dry_run: false };
    Ok(add::add(ctx, &options)?.items)
}
