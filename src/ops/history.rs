//! What happened to a model: releases, stages, who, when and why; and what is broken in the record of it.

use serde::Serialize;

use super::Ctx;
use super::models::Place;
use super::registry::Registry;
use crate::error::Result;
use crate::release::{Event, History, ModelName, StageName};

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model; the only one declared here if not given.
    pub name: Option<ModelName>,
    /// One stage only.
    pub stage: Option<StageName>,
    /// How things were at this time, in Unix seconds.
    pub at: Option<i64>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The tag.
    pub tag: String,
    /// When, in Unix seconds, by the tagger's clock.
    pub time: i64,
    /// Who. Untrusted text.
    pub by: String,
    /// `release`, `promote`, `canary`, `rollback`, `retire`, `approve`, `outcome`, or another word.
    pub action: String,
    /// The version.
    pub version: Option<String>,
    /// The stage, of an event.
    pub stage: Option<String>,
    /// Percent of the traffic, of a canary.
    pub traffic: Option<u8>,
    /// How a rollout ended.
    pub outcome: Option<String>,
    /// Why. Untrusted text.
    pub reason: Option<String>,
    /// Gates that were passed by somebody's word.
    pub overrides: Vec<String>,
    /// The commit.
    pub commit: String,
}

/// What is, or was, in a stage.
#[derive(Clone, Debug, Serialize)]
pub struct InStage {
    /// The stage.
    pub stage: String,
    /// The version; `None` when it is empty.
    pub version: Option<String>,
    /// Since when, in Unix seconds.
    pub since: Option<i64>,
    /// Who put it there.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// A version with a share of the traffic, and its percent.
    pub canary: Option<(String, u8)>,
}

/// What the tags of a model say.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// Everything that happened, newest first.
    pub entries: Vec<Entry>,
    /// What is in each stage, at the time that was asked for.
    pub stages: Vec<InStage>,
    /// What is broken.
    pub findings: Vec<String>,
}

/// Tells the history of a model.
pub fn history(ctx: &Ctx, options: &Options) -> Result<Report> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => {
            let head;
            let place = match ctx.git.is_bare() {
                true => {
                    head = ctx.git.require_commit("HEAD")?;
                    Place::Commit(&head)
                }
                false => Place::Worktree,
            };
            ctx.model(None, place)?.name
        }
    };
    let registry = Registry::open(ctx)?;
    registry.refresh(&name)?;
    Ok(report(&registry.history(&name)?, &name, options))
}

fn report(history: &History, name: &ModelName, options: &Options) -> Report {
    let wanted = |stage: &&StageName| options.stage.as_ref().is_none_or(|only| only == *stage);
    let mut entries: Vec<Entry> = Vec::new();
    if options.stage.is_none() {
        entries.extend(history.releases().iter().map(|release| {
            Entry {
                tag: release.tag.name.to_string(),
                time: release.tag.time,
                by: release.tag.tagger.clone(),
                action: if release.undone.is_some() { "release (withdrawn)" } else { "release" }.to_owned(),
                version: Some(release.version.to_string()),
                stage: None,
                traffic: None,
                outcome: None,
                reason: None,
                overrides: release
                    .payload()
                    .map(|payload| {
                        payload.overrides.iter().map(|o| format!("{}: {}", o.gate, o.reason)).collect()
                    })
                    .unwrap_or_default(),
                commit: release.tag.target.clone(),
            }
        }));
    }
    for stage in history.stages().filter(wanted) {
        entries.extend(history.events(stage).iter().map(|event| entry(event, stage)));
    }
    entries.retain(|entry| options.at.is_none_or(|at| entry.time <= at));
    // Within a stage the number is the order, not the clock; a stable sort keeps it where times are equal.
    entries.reverse();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    let stages = history.stages().filter(wanted).map(|stage| in_stage(history, stage, options.at)).collect();
    let concerns = |finding: &&crate::release::Finding| {
        options.stage.as_ref().is_none_or(|stage| finding.tag().stage().is_none_or(|of| of == stage))
    };
    let findings = history.findings().iter().filter(concerns).map(ToString::to_string).collect();
    Report { model: name.as_str().to_owned(), entries, stages, findings }
}

fn entry(event: &Event, stage: &StageName) -> Entry {
    let payload = event.payload();
    let outcome = payload.and_then(|payload| payload.outcome).map(|outcome| match outcome {
        crate::release::Outcome::Ok => "ok".to_owned(),
        crate::release::Outcome::Aborted => "aborted".to_owned(),
    });
    let actor = payload.and_then(|payload| payload.actor.clone());
    Entry {
        tag: event.tag.name.to_string(),
        time: event.tag.time,
        by: actor.map_or_else(|| event.tag.tagger.clone(), |actor| format!("{actor}, {}", event.tag.tagger)),
        action: event.action.as_str().to_owned(),
        version: event.version.as_ref().map(ToString::to_string),
        stage: Some(stage.as_str().to_owned()),
        traffic: payload.and_then(|payload| payload.traffic),
        outcome,
        reason: payload.and_then(|payload| payload.reason.clone()),
        overrides: payload
            .map(|payload| payload.overrides.iter().map(|o| format!("{}: {}", o.gate, o.reason)).collect())
            .unwrap_or_default(),
        commit: event.tag.target.clone(),
    }
}

fn in_stage(history: &History, stage: &StageName, at: Option<i64>) -> InStage {
    let current = match at {
        Some(at) => history.at(stage, at),
        None => history.current(stage),
    };
    InStage {
        stage: stage.as_str().to_owned(),
        version: current.map(|current| current.version.to_string()),
        since: current.map(|current| current.since.tag.time),
        by: current.map(|current| current.since.tag.tagger.clone()),
        reason: current.and_then(|current| current.since.payload()?.reason.clone()),
        canary: current
            .and_then(|current| current.canary)
            .map(|canary| (canary.version.to_string(), canary.traffic)),
    }
}
