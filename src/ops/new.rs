//! Drafting a model's declaration from what is in the repository.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::artifacts::Artifact;
use super::fetch::listing;
use super::models::Place;
use super::{Ctx, Selection};
use crate::error::{Error, Result};
use crate::human;
use crate::lockfile;
use crate::model_yaml::{FILE_NAME, Model};
use crate::release::ModelName;
use crate::repo_path::RepoPath;
use crate::yaml;

/// How weights are named.
const WEIGHTS: [&str; 13] = [
    ".safetensors",
    ".safetensors.index.json",
    ".gguf",
    ".onnx",
    ".npz",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".keras",
    ".tflite",
    ".joblib",
    ".pkl",
];
/// How tracked files are named that are weights as a rule; elsewhere this may be anything.
const WEIGHTS_IF_TRACKED: &str = ".bin";
/// How code around a model is named.
const CODE: [&str; 8] =
    ["train", "evaluat", "preprocess", "postprocess", "predict", "inference", "serve", "features"];
/// How evaluation reports are named.
const REPORTS: [&str; 3] = ["eval", "metrics", "evaluation"];
/// How configurations are named.
const CONFIGS: [&str; 5] = ["config", "params", "train", "hparams", "settings"];
/// More suggestions of one kind are no help.
const MOST: usize = 20;

/// A draft that was written.
#[derive(Debug)]
pub struct Draft {
    /// Where it is.
    pub path: RepoPath,
    /// What was found, by key.
    pub found: Vec<(&'static str, Vec<String>)>,
}

/// Writes `model.yaml` into a directory (the current one if not given).
pub fn new(ctx: &Ctx, name: &ModelName, dir: Option<PathBuf>) -> Result<Draft> {
    let (models, _) = ctx.models(Place::Worktree)?;
    if let Some(other) = models.iter().find(|model| model.name.folded() == name.folded()) {
        return Err(Error::usage(format!("{name}: {} declares a model of this name already", other.path)));
    }
    let dir = ctx.git.repo_path(&dir.unwrap_or_else(|| PathBuf::from(".")))?;
    let path = match &dir {
        Some(dir) => dir.join(FILE_NAME)?,
        None => RepoPath::new(FILE_NAME)?,
    };
    let root = ctx.root()?;
    if root.stat(&path)?.is_some() {
        return Err(Error::usage(format!("{}: exists already", human::escape(path.as_str())))
            .hint("edit it, or name another directory with --dir"));
    }
    let artifacts = ctx.artifacts(&Selection::all())?;
    if let Some(around) = artifacts.iter().find(|artifact| path.is_within(&artifact.path)) {
        let (shown, around) = (human::escape(path.as_str()), human::escape(around.path.as_str()));
        return Err(Error::usage(format!(
            "{shown}: inside the artifact {around}, whose content is kept outside of git"
        ))
        .hint("name the directory above it with --dir"));
    }
    let found = find(ctx, dir.as_ref(), artifacts)?;
    let text = text(name, &found);
    // What is drafted must be what can be read.
    Model::parse(text.as_bytes(), &path)?;
    root.write_small(&path, text.as_bytes(), &ctx.staging()?)?;
    Ok(Draft { path, found })
}

fn find(
    ctx: &Ctx,
    dir: Option<&RepoPath>,
    artifacts: Vec<Artifact>,
) -> Result<Vec<(&'static str, Vec<String>)>> {
    let mut files: BTreeSet<RepoPath> = ctx.git.list_files()?.into_iter().collect();
    let is_weights = |name: &str| WEIGHTS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    // A directory with weights in it is weights, as models are often shipped.
    let (mut weights_dirs, mut data_dirs, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for artifact in artifacts {
        match artifact.pointer {
            Ok(pointer) if pointer.is_tree() => {
                let inside = listing(ctx, &pointer, &mut Vec::new()).unwrap_or_default();
                let dirs = if inside.iter().any(|entry| is_weights(&entry.path)) {
                    &mut weights_dirs
                } else {
                    &mut data_dirs
                };
                dirs.push(artifact.path);
            }
            Ok(_) => single.push(artifact.path),
            Err(_) => {}
        }
    }
    let is_likely = |path: &&RepoPath| path.name().to_ascii_lowercase().ends_with(WEIGHTS_IF_TRACKED);
    let likely: Vec<RepoPath> = single.iter().filter(is_likely).cloned().collect();
    files.retain(|path| path.artifact().is_none());
    files.extend(single);
    let is_near = |path: &&RepoPath| dir.is_none_or(|dir| path.is_within(dir));
    let lower = |path: &RepoPath| path.name().to_ascii_lowercase();
    let has_words = |path: &RepoPath, words: &[&str], ends: &[&str]| {
        let name = lower(path);
        words.iter().any(|word| name.contains(word)) && ends.iter().any(|end| name.ends_with(end))
    };
    // Weights, configuration and reports lie beside the declaration; code, locks and data often elsewhere.
    let weights = files.iter().filter(|path| is_weights(path.as_str()));
    let weights = weights.chain(&likely).chain(&weights_dirs).filter(is_near);
    let code = files
        .iter()
        .filter(|path| has_words(path, &CODE, &[".py", ".sh", ".rs", ".js", ".ts", ".java", ".go"]));
    let config = files
        .iter()
        .filter(is_near)
        .filter(|path| has_words(path, &CONFIGS, &[".yaml", ".yml", ".json", ".toml"]));
    let config = config.filter(|path| path.name() != FILE_NAME);
    let locks = lockfile::NAMES.iter().find_map(|name| files.iter().find(|path| path.name() == *name));
    let schema = files.iter().filter(is_near).find(|path| has_words(path, &["schema"], &[".json"]));
    let report = files
        .iter()
        .filter(is_near)
        .find(|path| has_words(path, &REPORTS, &[".json", ".yaml", ".yml", ".toml", ".csv"]));
    let names = |paths: &mut dyn Iterator<Item = &RepoPath>| {
        paths.take(MOST).map(|path| relative(dir, path)).collect()
    };
    Ok(vec![
        ("weights", names(&mut weights.into_iter())),
        ("code", names(&mut code.into_iter())),
        ("config", names(&mut config.into_iter())),
        ("environment", names(&mut locks.into_iter())),
        ("schema", names(&mut schema.into_iter())),
        ("data", names(&mut data_dirs.iter())),
        ("evaluation", names(&mut report.into_iter())),
    ])
}

/// `path` as seen from `dir`.
fn relative(dir: Option<&RepoPath>, path: &RepoPath) -> String {
    let from: Vec<&str> = dir.map(|dir| dir.as_str().split('/').collect()).unwrap_or_default();
    let to: Vec<&str> = path.as_str().split('/').collect();
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut parts = vec![".."; from.len() - shared];
    parts.extend(&to[shared..]);
    parts.join("/")
}

fn text(name: &ModelName, found: &[(&'static str, Vec<String>)]) -> String {
    let mut text = format!(
        "# What {name} is made of. Edit this; git model record {name} then writes lineage.yaml.\n\
         # All paths are relative to this file. Reference: docs/formats/model-yaml.md of git-model.\n\
         version: 1\n\
         name: {}\n\
         # description: one line for people\n\
         # license: Apache-2.0\n",
        yaml::scalar(name.as_str())
    );
    for (key, paths) in found {
        let listed: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
        let _ = match (*key, paths.first()) {
            (key, None) => writeln!(text, "# {key}: {}", example(key)),
            ("schema" | "evaluation", Some(_)) => writeln!(text, "{key}: {}", listed[0]),
            ("data", Some(_)) => {
                text.push_str("data:\n");
                for (name, shown) in data_names(paths).iter().zip(&listed) {
                    let _ = writeln!(text, "  - {{name: {}, path: {shown}}}", quoted(name));
                }
                Ok(())
            }
            (key, Some(_)) => writeln!(text, "{key}: [{}]", listed.join(", ")),
        };
    }
    text.push_str(
        "\n# What a release must pass, and the stages it goes through:\n\
         # gates:\n\
         #   require: [weights, code, config, environment, schema, data, evaluation]\n\
         #   metrics:\n\
         #     - {name: auc, direction: higher, min: 0.90, against: prod, max_drop: 0.002}\n\
         # stages:\n\
         #   staging: {}\n\
         #   prod: {promotes_from: [staging]}\n",
    );
    text
}

/// A name for each snapshot: the last part of its path, made unique.
fn data_names(paths: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        let last = path.rsplit('/').next().unwrap_or(path);
        let plain: String =
            last.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
        let plain = plain.trim_start_matches(['.', '_', '-']);
        let base = if plain.is_empty() { "data" } else { plain };
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut candidates = std::iter::once(base.to_owned()).chain(numbered);
        names.extend(candidates.find(|name| !names.contains(name)));
    }
    names
}

fn quoted(text: &str) -> String {
    match text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c)) {
        true => yaml::scalar(text),
        // JSON strings are YAML strings, also between braces.
        false => serde_json::Value::from(text).to_string(),
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "weights" => "[weights.safetensors]",
        "code" => "[../src/preprocess.py]",
        "config" => "[train.yaml]",
        "environment" => "[../uv.lock]",
        "schema" => "schema.json",
        "data" => "[{name: train, path: ../data/train}]",
        _ => "eval.json",
    }
}
