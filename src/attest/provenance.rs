//! How weights came about, as an in-toto statement with a SLSA predicate: what the record knows, and nothing else.
//!
//! Source: <https://in-toto.io/Statement/v1>, <https://slsa.dev/spec/v1.0/provenance>.

use serde_json::{Map, Value, json};

use super::oms::STATEMENT_TYPE;
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::lineage::{Basis, Inputs, Lineage, Training, files_digest};
use crate::model_yaml::Role;
use crate::remote_url::redact;
use crate::repo_path::RepoPath;

const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean: `docs/attestations.md`.
const BUILD_TYPE: &str = "urn:git-model:training:v1";
/// `git model run` watched the command, on a machine that nobody vouches for.
const WATCHED: &str = "urn:git-model:builder:run";
/// Nothing is known about where it ran.
const UNKNOWN: &str = "urn:git-model:builder:unknown";

/// The statement's text. `weights` are the files that it is about; `manifest` is the path of `model.yaml`. Refused when the record
/// does not say how these weights came about.
pub fn text(lineage: &Lineage, manifest: &RepoPath, weights: &[(&RepoPath, Digest)]) -> Result<String> {
    let digest = lineage.weights.as_ref().map(|weights| weights.sha256);
    let training = lineage.training.as_ref().filter(|training| Some(training.weights) == digest);
    let training = training.ok_or_else(|| {
        Error::refused(format!("{}: its record does not say how the weights came about", lineage.model))
            .hint("git model run and git model record write that; commit and release it")
    })?;
    let mut definition = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": parameters(lineage, training, manifest),
    });
    let host = training.run.as_ref().map(|run| &run.host).filter(|host| !host.is_empty());
    if let Some(host) = host {
        definition["internalParameters"] = json!({ "host": host });
    }
    let dependencies = dependencies(lineage, training);
    if !dependencies.is_empty() {
        definition["resolvedDependencies"] = json!(dependencies);
    }
    let builder = if training.basis == Basis::Observed { WATCHED } else { UNKNOWN };
    let mut details = json!({"builder": {"id": builder}});
    if let Some((started, finished)) = times(training) {
        details["metadata"] = json!({"startedOn": started, "finishedOn": finished});
    }
    if let Some(report) = report(lineage) {
        details["byproducts"] = json!([report]);
    }
    let subject: Vec<Value> =
        weights.iter().map(|(path, digest)| json!({"name": path, "digest": {"sha256": digest}})).collect();
    let statement = json!({
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    });
    let mut text = serde_json::to_string_pretty(&statement).expect("plain data");
    text.push('\n');
    Ok(text)
}

fn word(basis: Basis) -> &'static str {
    match basis {
        Basis::Observed => "observed",
        Basis::Declared => "declared",
    }
}

fn parameters(lineage: &Lineage, training: &Training, manifest: &RepoPath) -> Value {
    let mut known = Map::new();
    known.insert("model".into(), json!(lineage.model));
    known.insert("manifest".into(), json!(manifest));
    known.insert("basis".into(), json!(word(training.basis)));
    if let Some(run) = &training.run {
        known.insert("command".into(), json!(run.command));
    }
    if !training.params.is_empty() {
        known.insert("params".into(), json!(training.params));
    }
    if let Some(parent) = &training.parent {
        known.insert("parent".into(), json!(parent));
    }
    if let Some(note) = &training.note {
        known.insert("note".into(), json!(note));
    }
    Value::Object(known)
}

/// What there was to read, as it was then.
fn dependencies(lineage: &Lineage, training: &Training) -> Vec<Value> {
    let mut found = Vec::new();
    if let Some(commit) = &training.base_commit {
        found.push(json!({
            "name": "base-commit",
            "digest": {"gitCommit": commit},
            "annotations": {"dirty": training.dirty},
        }));
    }
    let Inputs { code, config, environment, data } = &training.inputs;
    for (role, then) in [(Role::Code, code), (Role::Config, config), (Role::Environment, environment)] {
        let Some(then) = then else { continue };
        let now = lineage.role(role);
        if files_digest(now).as_ref() != Some(then) {
            // They changed since; of those files only the digest of their list is known.
            let annotations = json!({"role": role.key(), "kind": "list"});
            found.push(json!({"name": role.key(), "digest": {"sha256": then}, "annotations": annotations}));
            continue;
        }
        for file in now {
            let kind = if file.files.is_some() { "tree" } else { "file" };
            let annotations = json!({"role": role.key(), "kind": kind});
            found.push(
                json!({"name": file.path, "digest": {"sha256": file.sha256}, "annotations": annotations}),
            );
        }
    }
    found.extend(data.iter().map(|(name, digest)| of_data(lineage, name, digest)));
    found
}

fn of_data(lineage: &Lineage, name: &str, digest: &str) -> Value {
    let mut one = json!({"name": name, "annotations": {"role": "data"}});
    match digest.strip_prefix("sha256:").and_then(Digest::from_hex) {
        Some(sha256) => one["digest"] = json!({ "sha256": sha256 }),
        // Its owner's words.
        None => one["annotations"]["digest"] = json!(digest),
    }
    let same = |data: &&crate::lineage::Data| data.name == name && data.digest == digest;
    let recorded = lineage.data.iter().find(same);
    if let Some(url) = recorded.and_then(|data| data.url.as_deref()) {
        one["uri"] = json!(redact(url));
    } else if one.get("digest").is_none() {
        let id = recorded.and_then(|data| data.id.as_deref()).unwrap_or(name);
        one["uri"] = json!(format!("urn:git-model:data:{}", human::percent_encode(id, b"")));
    }
    one
}

/// When it ran, where that was watched.
fn times(training: &Training) -> Option<(String, String)> {
    let run = training.run.as_ref()?;
    let started = human::unix_seconds(&run.started)?;
    let finished = started.checked_add(i64::try_from(run.seconds).ok()?)?;
    Some((human::rfc3339(started)?, human::rfc3339(finished)?))
}

/// The report that judged these weights.
fn report(lineage: &Lineage) -> Option<Value> {
    let metrics = lineage.metrics()?;
    let evaluation = lineage.evaluation.as_ref()?;
    let file = lineage.role(Role::Evaluation).iter().find(|file| file.sha256 == evaluation.report);
    let name = file.map_or("evaluation", |file| file.path.as_str());
    Some(json!({
        "name": name,
        "digest": {"sha256": evaluation.report},
        "annotations": {"role": "evaluation", "basis": word(evaluation.basis), "metrics": metrics},
    }))
}
