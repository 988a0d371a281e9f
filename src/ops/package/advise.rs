//! Embed a model in the image of its service, or fetch it at the start? The figures, and what they say.

use serde::Serialize;

use super::super::Ctx;
use super::super::models::Place;
use super::super::resolve::Resolved;
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::model_yaml::{Model, Role};
use crate::repo_path::RepoPath;

/// What is assumed about the platform.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assumed {
    /// Pods that serve the model.
    pub replicas: u64,
    /// Bytes a second from a registry or a store to a node.
    pub bandwidth: u64,
    /// Weights up to this size are embedded.
    pub embed_max: u64,
}

/// Whether the weights are in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The weights are a layer of the image.
    Embed,
    /// The pod fetches them when it starts.
    Fetch,
}

/// Bytes and seconds of an event.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Bytes that are sent to a registry.
    pub sent: u64,
    /// Bytes that all pods together receive.
    pub received: u64,
    /// Seconds that sending takes, and one pod's receiving.
    pub seconds: f64,
}

/// The same event, in each way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Embedded, in a layer below the code.
    pub embed: Cost,
    /// Embedded in one layer with the code, or above it: the mistake to avoid.
    pub one_layer: Cost,
    /// Fetched at the start.
    pub fetch: Cost,
}

/// How often something changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Changes {
    /// Commits that changed it, the first included.
    pub commits: u64,
    /// The same in 30 days; `None` when the history is shorter than a day.
    pub per_month: Option<f64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// What to do.
    pub choice: Choice,
    /// What was assumed.
    pub assumed: Assumed,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Bytes of everything else in the bundle.
    pub other_bytes: u64,
    /// How often the weights changed.
    pub weights_changes: Changes,
    /// How often code, configuration, environment or schema changed.
    pub code_changes: Changes,
    /// Days from the first to the last of these changes.
    pub days: f64,
    /// When only the code changes.
    pub code_change: Costs,
    /// When the weights change.
    pub weights_change: Costs,
    /// When a pod starts on a node that ran this version before.
    pub warm_start: Costs,
}

/// Looks at a version and at the history that leads to it.
pub fn advise(ctx: &Ctx, resolved: &Resolved, assumed: Assumed) -> Result<Advice> {
    let commit = ctx.git.parse_id(&resolved.commit)?;
    let declaration = resolved.files.iter().find(|file| file.role == "model");
    let model =
        declaration.map(|file| ctx.model_at(&file.path, Place::Commit(&commit))).transpose()?.flatten();
    let model =
        model.ok_or_else(|| Error::new(format!("{}: its commit has no declaration", resolved.model)))?;
    let is_weights = |role: &str| role == Role::Weights.key();
    let size = |weights: bool| {
        let files = resolved.files.iter().filter(|file| is_weights(&file.role) == weights);
        files.map(|file| file.size).fold(0, u64::saturating_add)
    };
    let weights = times(ctx, &commit, &model, &[Role::Weights])?;
    let code = times(ctx, &commit, &model, &[Role::Code, Role::Config, Role::Environment, Role::Schema])?;
    let all = || weights.iter().chain(&code);
    let seconds = all().max().zip(all().min()).map_or(0, |(last, first)| last.saturating_sub(*first));
    Ok(judge(size(true), size(false), &weights, &code, seconds as f64 / 86_400.0, assumed))
}

/// When files of these roles changed, in Unix seconds.
fn times(ctx: &Ctx, commit: &Oid, model: &Model, roles: &[Role]) -> Result<Vec<i64>> {
    let mut paths: Vec<RepoPath> = Vec::new();
    for path in roles.iter().flat_map(|role| model.files(*role)) {
        paths.push(path.clone());
        let mut above = Some(path.clone());
        while let Some(dir) = above {
            paths.push(dir.pointer());
            above = dir.parent();
        }
    }
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    Ok(ctx.git.history_of(commit, &paths, None)?.into_iter().map(|commit| commit.time).collect())
}

fn judge(
    weights: u64,
    other: u64,
    weights_at: &[i64],
    code_at: &[i64],
    days: f64,
    assumed: Assumed,
) -> Advice {
    let cost = |sent: u64, each: u64| Cost {
        sent,
        received: each.saturating_mul(assumed.replicas),
        seconds: sent.saturating_add(each) as f64 / assumed.bandwidth.max(1) as f64,
    };
    let changes = |at: &[i64]| Changes {
        commits: at.len() as u64,
        per_month: (days >= 1.0).then(|| at.len() as f64 * 30.0 / days),
    };
    let all = weights.saturating_add(other);
    Advice {
        choice: if weights <= assumed.embed_max { Choice::Embed } else { Choice::Fetch },
        assumed,
        weights_bytes: weights,
        other_bytes: other,
        weights_changes: changes(weights_at),
        code_changes: changes(code_at),
        days,
        // The weights' layer is in the registry and on the nodes; a new pod fetches again what its predecessor had.
        code_change: Costs { embed: cost(other, other), one_layer: cost(all, all), fetch: cost(other, all) },
        weights_change: Costs {
            embed: cost(weights, weights),
            one_layer: cost(all, all),
            fetch: cost(0, weights),
        },
        warm_start: Costs { embed: cost(0, 0), one_layer: cost(0, 0), fetch: cost(0, weights) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_sizes_and_history() {
        let assumed = Assumed { replicas: 10, bandwidth: 100, embed_max: 1000 };
        let advice = judge(1000, 50, &[0], &[0, 1, 2], 15.0, assumed);
        assert_eq!(advice.choice, Choice::Embed);
        assert_eq!(advice.weights_changes, Changes { commits: 1, per_month: Some(2.0) });
        assert_eq!(advice.code_change.embed, Cost { sent: 50, received: 500, seconds: 1.0 });
        assert_eq!(advice.code_change.one_layer, Cost { sent: 1050, received: 10_500, seconds: 21.0 });
        assert_eq!(advice.weights_change.fetch, Cost { sent: 0, received: 10_000, seconds: 10.0 });
        assert_eq!(judge(1001, 0, &[], &[], 0.0, assumed).choice, Choice::Fetch);
        assert_eq!(judge(1, 0, &[0], &[], 0.0, assumed).weights_changes.per_month, None);
    }
}
