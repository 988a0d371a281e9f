//! Running a training or evaluation and recording what was seen: what it could read before, what it wrote.

use std::path::PathBuf;

use super::declared;
use super::models::Place;
use super::record::{self, Observed, Options, Report};
use super::{Ctx, Selection, add, status};
use crate::error::{Error, Kind, Result};
use crate::execution;
use crate::human;
use crate::lineage::Execution;
use crate::model_yaml::{Model, Role};
use crate::repo_path::RepoPath;
use crate::secrets;
use crate::worktree::{Scan, scan};

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
pub fn run(ctx: &Ctx, options: &Options, command: &[String]) -> Result<Ran> {
    let model = ctx.model(options.name.as_deref(), Place::Worktree)?;
    record::check(options)?;
    let mut inputs_declared = declared::look_up(ctx, &model, Place::Worktree, &declared::INPUTS)?;
    // The command reads what is there, not what was added last.
    let read = inputs_declared.artifacts.iter().map(|(path, _)| path.clone()).collect();
    let mut added = add_all(ctx, &modified(ctx, read)?)?;
    if !added.is_empty() {
        inputs_declared = declared::look_up(ctx, &model, Place::Worktree, &declared::INPUTS)?;
    }
    let data = record::snapshots(ctx, &model, &inputs_declared, &[])?;
    let inputs = record::inputs(&inputs_declared, &data);
    let (base_commit, dirty) = record::base(ctx, &model, &inputs_declared)?;
    let host = execution::host_facts(command);
    let weights_before = looks(ctx, model.files(Role::Weights))?;
    let report_before = looks(ctx, model.files(Role::Evaluation))?;

    let finished = execution::run(command)?;
    if finished.code != 0 {
        return Err(Error::new(format!(
            "{}: it ended with exit code {}",
            human::escape(&command[0]),
            finished.code
        ))
        .of_kind(Kind::Command(finished.code))
        .hint("nothing was recorded, and what it wrote is where it was"));
    }
    let observed = Observed {
        run: Execution {
            command: secrets::redact(command),
            started: finished.started,
            seconds: finished.duration.as_secs(),
            host,
        },
        inputs,
        data,
        base_commit,
        dirty,
        wrote_weights: looks(ctx, model.files(Role::Weights))? != weights_before,
        wrote_report: looks(ctx, model.files(Role::Evaluation))? != report_before,
    };
    added.extend(add_changed(ctx, &model)?);
    let record = record::record_model(ctx, model, options, Some(&observed))?;
    Ok(Ran { added, record, wrote_weights: observed.wrote_weights, wrote_report: observed.wrote_report })
}

/// How files look from outside: another look after they were written to differs.
fn looks(ctx: &Ctx, paths: &[RepoPath]) -> Result<Vec<Option<Scan>>> {
    let root = ctx.root()?;
    paths.iter().map(|path| scan(&root, path)).collect()
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
