//! A small model with everything that belongs to one, and its weights.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Repo, Sandbox};

/// What the model is made of, in `m/model.yaml`.
pub const DECLARED: &str = "\
version: 1
name: churn
weights: [weights.safetensors]
code: [../src/pre.py]
config: [train.yaml]
environment: [../requirements.txt]
schema: schema.json
data: [{name: train, path: ../data}]
evaluation: eval.json
";
/// Its record.
pub const LINEAGE: &str = "m/lineage.yaml";
/// Its weights.
pub const WEIGHTS: &str = "m/weights.safetensors";

/// A safetensors file with these vectors of F32.
pub fn safetensors(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    safetensors_with(&serde_json::json!({ "format": "pt" }), tensors)
}

/// The same with metadata of choice.
pub fn safetensors_with(metadata: &Value, tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let mut header = serde_json::json!({ "__metadata__": metadata });
    let mut data = Vec::new();
    for (name, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header[*name] = serde_json::json!({ "dtype": "F32", "shape": [values.len()], "data_offsets": [start, data.len()] });
    }
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Weights of which one layer depends on `step`.
pub fn weights(step: f32) -> Vec<u8> {
    safetensors(&[("head", &[step, 1.0]), ("body", &[1.0, 2.0, 3.0])])
}

/// Puts the model into a repository, recorded and committed.
pub fn churn(repo: Repo) -> Repo {
    repo.write("m/model.yaml", DECLARED);
    repo.write("src/pre.py", "print('one')\n");
    repo.write("m/train.yaml", "lr: 0.1\nepochs: 3\n");
    repo.write("requirements.txt", "numpy==1.0\n");
    repo.write("m/schema.json", r#"{"type": "object", "properties": {"text": {"type": "string"}}}"#);
    repo.write("data/rows.csv", "1,2\n");
    repo.write(WEIGHTS, weights(1.0));
    repo.write("m/eval.json", r#"{"auc": 0.1, "slices": {"new": 0.5}}"#);
    repo.model(["add", WEIGHTS, "data"]).ok();
    repo.git(["add", "."]).ok();
    record(&repo, "v1");
    repo
}

/// Records the model and commits everything.
pub fn record(repo: &Repo, message: &str) {
    repo.model(["record", "churn"]).ok();
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", message]).ok();
}

/// New weights, added.
pub fn train(repo: &Repo, step: f32) {
    repo.write(WEIGHTS, weights(step));
    repo.model(["add", WEIGHTS]).ok();
}

/// Adds lines to the declaration, or replaces some.
pub fn declare(repo: &Repo, from: &str, to: &str) {
    assert!(from.is_empty() || DECLARED.contains(from), "{from}");
    let text = if from.is_empty() { format!("{DECLARED}{to}") } else { DECLARED.replacen(from, to, 1) };
    repo.write("m/model.yaml", text);
}

/// The record, parsed.
pub fn lineage(repo: &Repo) -> Value {
    serde_yaml::from_slice(&repo.read(LINEAGE)).unwrap()
}

/// The record must be right as it is.
#[track_caller]
pub fn is_fixed(repo: &Repo) {
    let (before, index) = (repo.read(LINEAGE), repo.git(["write-tree"]).ok());
    repo.model(["record", "churn"]).says("nothing changed").ok();
    assert_eq!(repo.read(LINEAGE), before);
    assert_eq!(repo.git(["write-tree"]).ok(), index);
}

/// Rules with two stages and a comparison with what is in production.
pub const RULES: &str = "gates: {metrics: [{name: auc, direction: higher, min: 0.1, against: prod, max_drop: 0.1}]}\n\
                         stages: {staging: {}, prod: {promotes_from: [staging]}}\n";

/// A recorded model with [`RULES`] whose branch is on the bare repository `remote.git`.
pub fn published(sandbox: &Sandbox) -> Repo {
    published_with(sandbox, RULES)
}

/// The same with rules of choice.
pub fn published_with(sandbox: &Sandbox, rules: &str) -> Repo {
    bare(sandbox);
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "", rules);
    record(&repo, "rules");
    connect(sandbox, &repo);
    repo
}

/// The bare repository `remote.git`, which serves parts of histories as the hosts do.
pub fn bare(sandbox: &Sandbox) -> Repo {
    sandbox.at("").git(["init", "-q", "--bare", "remote.git"]).ok();
    let remote = sandbox.at("remote.git");
    remote.git(["config", "uploadpack.allowFilter", "true"]).ok();
    remote
}

/// Makes `remote.git` the origin of a repository, and pushes its branch there.
pub fn connect(sandbox: &Sandbox, repo: &Repo) {
    repo.git(["remote", "add", "origin", "../remote.git"]).ok();
    repo.git(["push", "-q", "-u", "origin", "main"]).ok();
    sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
}

/// Trains, evaluates, records, pushes, and releases a version.
pub fn next(repo: &Repo, step: f32, auc: &str, version: &str) {
    advance(repo, step, &format!("{{\"auc\": {auc}}}"), version);
    repo.model(["release", "churn", version]).ok();
}

/// Trains, evaluates with this report, records and pushes.
pub fn advance(repo: &Repo, step: f32, report: &str, message: &str) {
    train(repo, step);
    repo.write("m/eval.json", report);
    record(repo, message);
    repo.git(["push", "-q", "origin", "main"]).ok();
}

/// Replaces the rules on the default branch.
pub fn rule(repo: &Repo, rules: &str) {
    declare(repo, "", rules);
    record(repo, "rules");
    repo.git(["push", "-q", "origin", "main"]).ok();
}

/// The URL of `remote.git`.
pub fn remote_url(sandbox: &Sandbox) -> String {
    format!("file://{}", sandbox.join("remote.git").display())
}

/// A clone of `remote.git` that may read and write the store.
pub fn trusted_clone(sandbox: &Sandbox, name: &str) -> Repo {
    sandbox.at("").git(["clone", "-q", "remote.git", name]).ok();
    let clone = sandbox.at(name);
    clone.model(["remote", "trust"]).ok();
    clone
}

/// A folder that is no clone, with caches of its own, where the store is approved.
pub fn pod(sandbox: &Sandbox, name: &str) -> Repo {
    std::fs::create_dir(sandbox.join(name)).unwrap();
    sandbox
        .at(name)
        .env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string())
        .env("XDG_CACHE_HOME", sandbox.join(&format!("{name}-cache")).display().to_string())
}

/// The tags that `origin` has, and their objects.
pub fn remote_tags(repo: &Repo) -> BTreeMap<String, String> {
    let listed = repo.git(["ls-remote", "--refs", "--tags", "origin"]).ok();
    let pair =
        |line: &str| line.split_once("\trefs/tags/").map(|(id, name)| (name.to_owned(), id.to_owned()));
    listed.lines().filter_map(pair).collect()
}

/// A clone must have no tag that the remote lacks or has otherwise.
#[track_caller]
pub fn keeps_only(clone: &Repo, there: &BTreeMap<String, String>) {
    let format = "--format=%(refname:lstrip=2) %(objectname)";
    for line in clone.git(["for-each-ref", format, "refs/tags"]).ok().lines() {
        let (name, id) = line.split_once(' ').unwrap();
        assert_eq!(there.get(name).map(String::as_str), Some(id), "{}: {name}", clone.path.display());
    }
}

/// The JSON payload of a tag's message.
pub fn payload(repo: &Repo, tag: &str) -> Value {
    let message = repo.git(["cat-file", "tag", &format!("refs/tags/{tag}")]).ok();
    let (start, end) = (message.find("\n{\n").unwrap(), message.find("\n}\n").unwrap());
    serde_json::from_str(&message[start..end + 2]).unwrap()
}

/// What is in a stage, as the JSON of `history` has it.
pub fn in_stage(history: &Value, stage: &str) -> Value {
    let stages = history["stages"].as_array().unwrap();
    stages.iter().find(|found| found["stage"] == stage).cloned().unwrap_or_default()
}

/// How a gate came out, and what was found, in the JSON of `check`.
#[track_caller]
pub fn verdict(check: &Value, gate: &str) -> (String, String) {
    let verdicts = check["verdicts"].as_array().unwrap();
    let found =
        verdicts.iter().find(|verdict| verdict["gate"] == gate).unwrap_or_else(|| panic!("{check:#}"));
    (found["outcome"].as_str().unwrap().to_owned(), found["said"].as_str().unwrap().to_owned())
}

/// A repository with two releases, and the first of them in staging and production.
pub fn in_production(sandbox: &Sandbox) -> Repo {
    let repo = published(sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo
}
