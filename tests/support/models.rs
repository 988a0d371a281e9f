//! A small model with everything that belongs to one, and its weights.

use serde_json::Value;

use super::Repo;

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
