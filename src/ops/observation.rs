//! What `git model run` saw, kept until it is recorded: a record that cannot be written must not cost what is known about a
//! training that took days.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Ctx;
use super::declared;
use super::models::Place;
use super::weights;
use crate::error::{Context, Error, Result};
use crate::fsio;
use crate::id::Digest;
use crate::lineage::{self, Data, Execution, Inputs};
use crate::model_yaml::{Model, Role};
use crate::repo_path::RepoPath;
use crate::worktree::scan;

/// A command that was watched to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
}

/// What the user states about a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Statements {
    /// Facts.
    pub params: BTreeMap<String, String>,
    /// Words.
    pub note: Option<String>,
    /// The release that the weights descend from.
    pub parent: Option<String>,
}

/// Which content some files had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Digest of how they look from outside: names, sizes, times and inodes.
    pub looks: Digest,
    /// Digest of their content, once that is known.
    pub content: Option<Digest>,
}

/// What was seen of one model, with the content that it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Observations {
    /// The weights when the last command had ended.
    pub weights: Identity,
    /// The evaluation report then.
    pub report: Identity,
    /// The command that wrote these weights.
    pub training: Option<Observed>,
    /// The command that wrote this report about these weights.
    pub evaluation: Option<Observed>,
    /// What was stated with it.
    pub statements: Statements,
    /// The report that was stated to be about these weights.
    pub stated_report: Option<RepoPath>,
}

impl Statements {
    /// Adds what was stated later, which wins.
    pub(super) fn extend(&mut self, later: Statements) {
        self.params.extend(later.params);
        self.note = later.note.or(self.note.take());
        self.parent = later.parent.or(self.parent.take());
    }
}

impl Identity {
    /// How these files look now.
    pub(super) fn look(ctx: &Ctx, paths: &[RepoPath]) -> Result<Identity> {
        let root = ctx.root()?;
        let mut text = String::new();
        for path in paths {
            let found = scan(&root, path)?;
            // Writing to a string cannot fail.
            writeln!(text, "{path}").ok();
            for entry in found.iter().flat_map(|scan| &scan.entries) {
                writeln!(text, "{}\t{:?}", entry.path, entry.stat).ok();
            }
        }
        Ok(Identity { looks: Digest::of(text.as_bytes()), content: None })
    }

    fn is(&self, now: &Identity) -> bool {
        match (self.content, now.content) {
            (Some(then), Some(now)) => then == now,
            _ => self.looks == now.looks,
        }
    }
}

impl Observations {
    /// The part of them that is about what is there now.
    pub(super) fn about(mut self, weights: &Identity, report: &Identity) -> Option<Observations> {
        if !self.weights.is(weights) {
            return None;
        }
        self.evaluation = self.evaluation.filter(|_| self.report.is(report));
        Some(self)
    }

    /// Fills in digests, which are known once everything is added. Files that are not what they were are left unknown.
    pub(super) fn learn_content(&mut self, ctx: &Ctx, model: &Model) -> Result<()> {
        let declared = declared::look_up(ctx, model, Place::Worktree, &[Role::Weights, Role::Evaluation])?;
        let (weights, report) = identities(ctx, model, self.stated_report.as_ref())?;
        if weights == self.weights {
            self.weights.content = weights::digest(model, declared.role(Role::Weights));
        }
        if report == self.report {
            self.report.content = declared.role(Role::Evaluation).first().map(|entry| entry.sha256);
        }
        Ok(())
    }

    /// All that were watched.
    pub(super) fn runs(&self) -> Vec<&Execution> {
        let mut runs: Vec<&Execution> =
            self.training.iter().chain(&self.evaluation).map(|seen| &seen.run).collect();
        runs.dedup();
        runs
    }

    /// Reads what is kept about a model.
    pub(super) fn load(ctx: &Ctx, model: &Model) -> Result<Option<Observations>> {
        let path = path_of(ctx, model)?;
        let Some(bytes) = fsio::read_bounded(&path, lineage::MAX_BYTES)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(format!("{}: what git model run saw cannot be read", path.display()))
                .caused_by(error)
                .hint(format!("without it the weights are recorded as declared: rm {}", path.display()))
        })
    }

    /// Keeps them until they are recorded.
    pub(super) fn save(&self, ctx: &Ctx, model: &Model) -> Result<()> {
        let path = path_of(ctx, model)?;
        let bytes = serde_json::to_vec(self).context(&path, "write")?;
        fsio::write_atomic(&path, &bytes, ctx.settings.durability)
    }

    /// Forgets what was kept about a model.
    pub(super) fn forget(ctx: &Ctx, model: &Model) -> Result<()> {
        let path = path_of(ctx, model)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(&path, "remove"),
            _ => Ok(()),
        }
    }
}

/// The files that the two identities are of: the declared weights, and the report that was named, else the declared one.
pub(super) fn identities(
    ctx: &Ctx,
    model: &Model,
    report: Option<&RepoPath>,
) -> Result<(Identity, Identity)> {
    let report = report.map_or(model.files(Role::Evaluation), std::slice::from_ref);
    Ok((Identity::look(ctx, model.files(Role::Weights))?, Identity::look(ctx, report)?))
}

fn path_of(ctx: &Ctx, model: &Model) -> Result<PathBuf> {
    let name = Digest::of(model.name.as_str().as_bytes()).to_hex();
    Ok(ctx.model_dir()?.join(format!("run-{}", &name[..32])))
}
