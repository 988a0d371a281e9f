//! The rules that count: those of the default branch, never those of the version that they judge.

use super::candidate::Candidate;
use super::models::Place;
use super::registry::{self, Registry};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::git::tags::Signature;
use crate::human;
use crate::id::Digest;
use crate::model_yaml::{self, Model, Stage};
use crate::release::{Event, ModelName, Policy, PolicySource, StageName};
use crate::repo_path::RepoPath;

/// Rules, and where they were read.
#[derive(Debug)]
pub(super) struct Rules {
    /// The declaration that holds them.
    pub(super) model: Model,
    /// Where it was read.
    pub(super) policy: Policy,
    /// Why those of the default branch could not be read, where the version's own stand in for them.
    pub(super) unreadable: Option<Error>,
}

impl Rules {
    /// The rules for letting a version in: those of the default branch; where it has no such model yet, the version's own. When
    /// they cannot be read, nothing is let in.
    pub(super) fn to_enter(registry: &Registry<'_>, candidate: &Candidate) -> Result<Rules> {
        let there = of_default_branch(registry, &candidate.model.name, &candidate.model.path);
        let there = there.map_err(|error| {
            Error::refused("the rules on the default branch cannot be read, so nothing is released")
                .caused_by(error)
                .hint("mend model.yaml on the default branch of the git remote; git model check tells when it is")
        })?;
        Ok(there.unwrap_or_else(|| of_version(candidate)))
    }

    /// The rules for a way back, and for believing what a stage holds. They must not fail when the default branch is broken, and
    /// whoever can break it can change its rules anyway: then the version's own stand in.
    pub(super) fn to_leave(registry: &Registry<'_>, candidate: &Candidate) -> Rules {
        match of_default_branch(registry, &candidate.model.name, &candidate.model.path) {
            Ok(Some(rules)) => rules,
            Ok(None) => of_version(candidate),
            Err(error) => Rules { unreadable: Some(error), ..of_version(candidate) },
        }
    }

    /// What the rules ask of a stage.
    pub(super) fn stage(&self, stage: &StageName) -> Result<&Stage> {
        self.model.stages.get(stage).ok_or_else(|| {
            let known: Vec<&str> = self.model.stages.keys().map(StageName::as_str).collect();
            let error = Error::usage(format!("{stage}: {} declares no such stage", self.model.path));
            match known.is_empty() {
                true => error.hint("add it under `stages` on the default branch"),
                false => error.hint(format!("declared: {}", known.join(", "))),
            }
        })
    }

    /// Whether tags about this stage have to be signed. One that is no longer declared asks for nothing.
    pub(super) fn signed(&self, stage: &StageName) -> bool {
        self.model.stages.get(stage).is_some_and(|rules| rules.signed)
    }

    /// Whether any stage takes signed releases only.
    pub(super) fn any_signed(&self) -> bool {
        self.model.stages.values().any(|rules| rules.signed)
    }

    /// Why an event of a stage must not be believed: it is not signed by anybody whom git knows here, and has to be.
    pub(super) fn distrust(
        &self,
        registry: &Registry<'_>,
        stage: &StageName,
        event: &Event,
    ) -> Result<Option<String>> {
        if !self.signed(stage) {
            return Ok(None);
        }
        Ok(match registry::signature(&registry.ctx().git, &event.tag)? {
            Signature::Good { .. } => None,
            Signature::None => Some(format!("{} is not signed, and this stage asks for it", event.tag.name)),
            Signature::Bad { reason } => {
                Some(format!("{}: its signature is not good here: {reason}", event.tag.name))
            }
        })
    }
}

/// The rules of the default branch for the model `name`, which is expected at `manifest`; nothing where it is not declared there.
fn of_default_branch(
    registry: &Registry<'_>,
    name: &ModelName,
    manifest: &RepoPath,
) -> Result<Option<Rules>> {
    let ctx = registry.ctx();
    let default = registry.default_branch()?;
    let place = Place::Commit(&default);
    let of_this_name = |model: &Model| model.name == *name;
    let there = match ctx.model_at(manifest, place)?.filter(of_this_name) {
        Some(model) => Some(model),
        None => {
            let (models, failed) = ctx.models(place)?;
            let found = models.into_iter().find(of_this_name);
            // An unreadable declaration may be the very one whose rules count.
            match (found, failed.into_iter().next()) {
                (None, Some(error)) => return Err(error),
                (found, _) => found,
            }
        }
    };
    let Some(model) = there else { return Ok(None) };
    let bytes = ctx.file_at(&model.path, model_yaml::MAX_BYTES, place)?.unwrap_or_default();
    Ok(Some(rules(model, &bytes, PolicySource::DefaultBranch, &default)))
}

/// The version's own rules.
fn of_version(candidate: &Candidate) -> Rules {
    let [(_, declaration), _] = &candidate.papers;
    rules(candidate.model.clone(), declaration, PolicySource::ReleaseCommit, &candidate.commit)
}

fn rules(model: Model, bytes: &[u8], source: PolicySource, commit: &Oid) -> Rules {
    let policy = Policy { sha256: Digest::of(bytes), source, commit: commit.as_str().to_owned() };
    Rules { model, policy, unreadable: None }
}

/// What to say where a version's own rules stand in for those of the default branch.
pub(super) fn stand_in(error: &Error) -> String {
    format!(
        "the rules on the default branch cannot be read ({}); the version's own count",
        human::escape(&error.one_line())
    )
}
