//! `lineage.yaml`: what a version of a model was made of, written by `git model record`. Format:
//! `docs/formats/lineage-yaml.md`.
//!
//! The text is canonical: equal content gives equal bytes, so that recording again changes nothing and diffs are short.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::human;
use crate::id::{Digest, Hasher};
use crate::model_yaml::Role;
use crate::repo_path::RepoPath;
use crate::values;
use crate::yaml;

/// The name of the recorded file, beside `model.yaml`.
pub const FILE_NAME: &str = "lineage.yaml";
/// No record is larger; larger files are never read.
pub const MAX_BYTES: u64 = 8 * 1024 * 1024;

const VERSION: u64 = 1;

/// One declared file, or one directory that is an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Repository path.
    pub path: RepoPath,
    /// Digest of the bytes in git or in the store; of a directory artifact, of its tree object.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// Number of files, of a directory artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// What the headers of the weights say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// See [`weights_digest`].
    pub sha256: Digest,
    /// Bytes of all weights files.
    pub size: u64,
    /// `safetensors`, `gguf`, …; `mixed` when several; absent when none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Number of tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<u64>,
    /// Number of parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Parameters by data type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub dtypes: BTreeMap<String, u64>,
    /// Digest of all names, types and shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shapes: Option<Digest>,
    /// What the format's own metadata says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub metadata: BTreeMap<String, String>,
}

/// How a statement is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// `git model run` saw it happen.
    Observed,
    /// `git model record` was run afterwards and knows only what it found then.
    Declared,
}

/// Digests of what a command could read, by role and by data name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inputs {
    /// See [`files_digest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Digest>,
    /// See [`files_digest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// See [`files_digest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Digest>,
    /// Each data snapshot's digest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub data: BTreeMap<String, String>,
}

/// A command that `git model run` watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// The command and its arguments; what looked like a secret is `***`.
    pub command: Vec<String>,
    /// When it started, UTC, RFC 3339.
    pub started: String,
    /// How long it took, in whole seconds.
    pub seconds: u64,
    /// Facts about the machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub host: BTreeMap<String, String>,
}

/// How the weights came about. Bound to their digest, and carried unchanged while that is unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The weights that it is about.
    pub weights: Digest,
    /// How it is known.
    pub basis: Basis,
    /// The command, where one was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Execution>,
    /// The commit that was checked out; informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// Whether declared inputs differed from that commit.
    pub dirty: bool,
    /// The release that these weights descend from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What there was to read.
    #[serde(default)]
    pub inputs: Inputs,
    /// What the user stated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub params: BTreeMap<String, String>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a report says about weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The weights that were judged; absent when the report cannot have judged the ones that are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Digest>,
    /// How it is known.
    pub basis: Basis,
    /// The command, where one was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Execution>,
    /// Digest of the report's bytes.
    pub report: Digest,
    /// Each data snapshot's digest at that time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub data: BTreeMap<String, String>,
    /// The report's numbers, flattened.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "yaml::unique_map")]
    pub metrics: BTreeMap<String, f64>,
}

/// A data snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Its name.
    pub name: String,
    /// Repository path, of one that is tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RepoPath>,
    /// Location, of one outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `sha256:<hex>` of the content or of the listing; of a named one, what its owner gave.
    pub digest: String,
    /// Number of files, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Data {
    /// The digest as a SHA-256, which one that only its owner knows need not be.
    pub fn sha256(&self) -> Option<Digest> {
        Digest::from_hex(self.digest.strip_prefix("sha256:")?)
    }
}

/// A parsed record.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    /// The model's name.
    pub model: String,
    /// Declared files by role, sorted by path.
    pub files: BTreeMap<Role, Vec<FileEntry>>,
    /// Their headers.
    pub weights: Option<Weights>,
    /// How they came about.
    pub training: Option<Training>,
    /// How they were judged.
    pub evaluation: Option<Evaluation>,
    /// Data snapshots, in the order of the declaration.
    pub data: Vec<Data>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u64,
    model: String,
    #[serde(default, deserialize_with = "yaml::unique_map")]
    files: BTreeMap<Role, Vec<FileEntry>>,
    weights: Option<Weights>,
    training: Option<Training>,
    evaluation: Option<Evaluation>,
    #[serde(default)]
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl Lineage {
    /// Parses the bytes of the record at `path` (for messages).
    pub fn parse(bytes: &[u8], path: &str) -> Result<Lineage> {
        let shown = human::escape(path);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::new(format!("{shown}: larger than {MAX_BYTES} bytes")));
        }
        if crate::pointer::has_conflict_markers(bytes) {
            return Err(Error::new(format!("{shown}: both sides of a merge changed this record")).hint(
                "settle model.yaml and its files first, take either side of lineage.yaml, then git model record",
            ));
        }
        if let Ok(VersionOnly { version }) = yaml::from_slice(bytes, path)
            && version > VERSION
        {
            return Err(Error::new(format!(
                "{shown}: written by a newer git-model (lineage version {version})"
            ))
            .hint("update git-model"));
        }
        let raw: Raw = yaml::from_slice(bytes, path)?;
        if raw.version != VERSION {
            return Err(Error::new(format!("{shown}: `version` must be 1")));
        }
        let metrics = raw.evaluation.iter().flat_map(|evaluation| &evaluation.metrics);
        if let Some((name, _)) = metrics.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::new(format!("{shown}: metric `{}` is not a number", human::escape(name))));
        }
        Ok(Lineage {
            model: raw.model,
            files: raw.files,
            weights: raw.weights,
            training: raw.training,
            evaluation: raw.evaluation,
            data: raw.data,
        })
    }

    /// The files of a role.
    pub fn role(&self, role: Role) -> &[FileEntry] {
        self.files.get(&role).map_or(&[], Vec::as_slice)
    }

    /// The metrics, if they are about the weights that are recorded here.
    pub fn metrics(&self) -> Option<&BTreeMap<String, f64>> {
        let judged = self.evaluation.as_ref().filter(|evaluation| {
            evaluation.weights.is_some()
                && evaluation.weights == self.weights.as_ref().map(|weights| weights.sha256)
        });
        judged.map(|evaluation| &evaluation.metrics)
    }

    /// One digest over all data snapshots, for people and logs: of lines `<digest> <name>`. `None` without data.
    pub fn data_digest(&self) -> Option<Digest> {
        let lines: String = self.data.iter().map(|data| format!("{} {}\n", data.digest, data.name)).collect();
        (!lines.is_empty()).then(|| Digest::of(lines.as_bytes()))
    }

    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut out = Writer::default();
        out.line(0, "# What this version of the model is made of. Written by git model record; not meant for editing.");
        out.line(0, format_args!("version: {VERSION}"));
        out.line(0, format_args!("model: {}", scalar(&self.model)));
        if self.files.values().any(|files| !files.is_empty()) {
            out.line(0, "files:");
        }
        for (role, files) in self.files.iter().filter(|(_, files)| !files.is_empty()) {
            out.line(1, format_args!("{role}:"));
            files.iter().for_each(|file| out.line(2, format_args!("- {}", file_text(file))));
        }
        if let Some(weights) = &self.weights {
            out.weights(weights);
        }
        if let Some(training) = &self.training {
            out.training(training);
        }
        if let Some(evaluation) = &self.evaluation {
            out.evaluation(evaluation);
        }
        if !self.data.is_empty() {
            out.line(0, "data:");
        }
        self.data.iter().for_each(|data| out.line(1, format_args!("- {}", data_text(data))));
        out.0
    }
}

/// Names the weights as a whole: the only file's SHA-256 (of a directory artifact, of its tree object); of several, the
/// SHA-256 of lines `<sha256> <path relative to model.yaml>`, sorted by path. Moving the model's directory keeps it.
pub fn weights_digest(files: &[FileEntry], relative: impl Fn(&RepoPath) -> String) -> Option<Digest> {
    match files {
        [] => None,
        [only] => Some(only.sha256),
        several => {
            let mut hasher = Hasher::default();
            for file in several {
                hasher.update(format!("{} {}\n", file.sha256, relative(&file.path)).as_bytes());
            }
            Some(hasher.finish())
        }
    }
}

/// Names the files of a role: the SHA-256 of lines `<mode> <sha256> <size> <path>`, sorted by path bytes, as in the model
/// digest; a directory artifact is one line with its tree object and the mode 040000. `None` without files.
pub fn files_digest(files: &[FileEntry]) -> Option<Digest> {
    let mut hasher = Hasher::default();
    for file in files {
        let mode = match (file.files, file.executable) {
            (Some(_), _) => "040000",
            (None, true) => "100755",
            (None, false) => "100644",
        };
        hasher.update(format!("{mode} {} {} {}\n", file.sha256, file.size, file.path).as_bytes());
    }
    (!files.is_empty()).then(|| hasher.finish())
}

fn file_text(file: &FileEntry) -> String {
    let mut text =
        format!("{{path: {}, sha256: {}, size: {}", flow(file.path.as_str()), file.sha256, file.size);
    if file.executable {
        text.push_str(", executable: true");
    }
    if let Some(files) = file.files {
        let _ = write!(text, ", files: {files}");
    }
    text + "}"
}

fn data_text(data: &Data) -> String {
    let mut text = format!("{{name: {}", flow(&data.name));
    let place = [
        ("path", data.path.as_ref().map(RepoPath::as_str)),
        ("url", data.url.as_deref()),
        ("id", data.id.as_deref()),
    ];
    for (key, value) in place {
        if let Some(value) = value {
            let _ = write!(text, ", {key}: {}", flow(value));
        }
    }
    let _ = write!(text, ", digest: {}", flow(&data.digest));
    if let Some(files) = data.files {
        let _ = write!(text, ", files: {files}");
    }
    if let Some(size) = data.size {
        let _ = write!(text, ", size: {size}");
    }
    text + "}"
}

/// A scalar in block style.
fn scalar(text: &str) -> String {
    if text.contains('\n') { flow(text) } else { yaml::scalar(text) }
}

/// A scalar that may stand between braces.
fn flow(text: &str) -> String {
    let plain = yaml::scalar(text);
    let ends_early =
        plain.contains([',', '[', ']', '{', '}', '\n', '&', '*', '!']) && !plain.starts_with(['\'', '"']);
    // JSON strings are YAML strings.
    if ends_early || plain.contains('\n') { serde_json::Value::from(text).to_string() } else { plain }
}

/// Lines of YAML, two spaces a level.
#[derive(Default)]
struct Writer(String);

impl Writer {
    fn line(&mut self, level: usize, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{:1$}{text}", "", 2 * level);
    }

    fn key(&mut self, level: usize, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.line(level, format_args!("{key}: {value}"));
        }
    }

    fn map<V>(&mut self, level: usize, key: &str, map: &BTreeMap<String, V>, text: impl Fn(&V) -> String) {
        if !map.is_empty() {
            self.line(level, format_args!("{key}:"));
        }
        for (name, value) in map {
            self.line(level + 1, format_args!("{}: {}", scalar(name), text(value)));
        }
    }

    fn weights(&mut self, weights: &Weights) {
        self.line(0, "weights:");
        self.key(1, "sha256", Some(weights.sha256));
        self.key(1, "size", Some(weights.size));
        self.key(1, "format", weights.format.as_deref().map(scalar));
        self.key(1, "tensors", weights.tensors);
        self.key(1, "parameters", weights.parameters);
        self.map(1, "dtypes", &weights.dtypes, u64::to_string);
        self.key(1, "shapes", weights.shapes);
        self.map(1, "metadata", &weights.metadata, |text| scalar(text));
    }

    fn training(&mut self, training: &Training) {
        self.line(0, "training:");
        self.key(1, "weights", Some(training.weights));
        self.basis(training.basis);
        self.execution(training.run.as_ref());
        self.key(1, "base_commit", training.base_commit.as_deref().map(scalar));
        self.key(1, "dirty", Some(training.dirty));
        self.key(1, "parent", training.parent.as_deref().map(scalar));
        let inputs = &training.inputs;
        if *inputs != Inputs::default() {
            self.line(1, "inputs:");
            self.key(2, "code", inputs.code);
            self.key(2, "config", inputs.config);
            self.key(2, "environment", inputs.environment);
            self.map(2, "data", &inputs.data, |text| scalar(text));
        }
        self.map(1, "params", &training.params, |text| scalar(text));
        self.key(1, "note", training.note.as_deref().map(scalar));
    }

    fn evaluation(&mut self, evaluation: &Evaluation) {
        self.line(0, "evaluation:");
        self.key(1, "weights", evaluation.weights);
        self.basis(evaluation.basis);
        self.execution(evaluation.run.as_ref());
        self.key(1, "report", Some(evaluation.report));
        self.map(1, "data", &evaluation.data, |text| scalar(text));
        self.map(1, "metrics", &evaluation.metrics, |value| values::number(*value));
    }

    fn basis(&mut self, basis: Basis) {
        let word = match basis {
            Basis::Observed => "observed",
            Basis::Declared => "declared",
        };
        self.key(1, "basis", Some(word));
    }

    fn execution(&mut self, run: Option<&Execution>) {
        let Some(run) = run else { return };
        let words: Vec<String> = run.command.iter().map(|word| flow(word)).collect();
        self.line(1, "run:");
        self.line(2, format_args!("command: [{}]", words.join(", ")));
        self.key(2, "started", Some(scalar(&run.started)));
        self.key(2, "seconds", Some(run.seconds));
        self.map(2, "host", &run.host, |text| scalar(text));
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &[u8]) -> FileEntry {
        FileEntry {
            path: RepoPath::new(path).unwrap(),
            sha256: Digest::of(content),
            size: content.len() as u64,
            executable: false,
            files: None,
        }
    }

    fn full() -> Lineage {
        let digest = Digest::of(b"w");
        let run = Execution {
            command: ["python", "a, b", "--x={1}", "", "a && b:*c !", "it's \"&x\"", "# no"]
                .map(str::to_owned)
                .to_vec(),
            started: "2026-11-25T10:00:00Z".into(),
            seconds: 12,
            host: BTreeMap::from([("python".into(), "3.11".into())]),
        };
        Lineage {
            model: "team/churn".into(),
            files: BTreeMap::from([
                (
                    Role::Weights,
                    vec![file("m/w.bin", b"w"), FileEntry { files: Some(3), ..file("m/t", b"t") }],
                ),
                (Role::Code, vec![FileEntry { executable: true, ..file("src/a, b.py", b"a") }]),
            ]),
            weights: Some(Weights {
                sha256: digest,
                size: 1,
                format: Some("safetensors".into()),
                tensors: Some(1),
                parameters: Some(2),
                dtypes: BTreeMap::from([("F32".into(), 2)]),
                shapes: Some(digest),
                metadata: BTreeMap::from([("format".into(), "pt".into()), ("yes".into(), "no\nx: 1".into())]),
            }),
            training: Some(Training {
                weights: digest,
                basis: Basis::Observed,
                run: Some(run.clone()),
                base_commit: Some("1e10".into()),
                dirty: true,
                parent: Some("team/churn@v1.0.0".into()),
                inputs: Inputs {
                    code: Some(digest),
                    data: BTreeMap::from([("train".into(), "sha256:ab".into())]),
                    ..Inputs::default()
                },
                params: BTreeMap::from([("lr".into(), "1e-3".into())]),
                note: Some("it's: [fine] & *bold*, !".into()),
            }),
            evaluation: Some(Evaluation {
                weights: None,
                basis: Basis::Declared,
                run: None,
                report: digest,
                data: BTreeMap::new(),
                metrics: BTreeMap::from([("a.b c".into(), 0.5), ("n".into(), 1e300), ("z".into(), 3.0)]),
            }),
            data: vec![Data {
                name: "lake".into(),
                path: None,
                url: Some("s3://x/y, z".into()),
                id: None,
                digest: "sha256:ab".into(),
                files: Some(1),
                size: Some(2),
            }],
        }
    }

    #[test]
    fn writes_what_it_reads() {
        let lineage = full();
        let text = lineage.to_text();
        assert_eq!(Lineage::parse(text.as_bytes(), "l").unwrap(), lineage, "{text}");
        assert_eq!(Lineage::parse(text.replace('\n', "\r\n").as_bytes(), "l").unwrap(), lineage, "CRLF");
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        let text = full().to_text();
        for (from, to, reason) in [
            ("version: 1", "version: 2", "newer git-model"),
            ("version: 1", "version: 0", "must be 1"),
            ("dirty: true", "dirty: maybe", "invalid type"),
            ("n: 1e300", "n: .inf", "not a number"),
            ("model: ", "other: 1\nmodel: ", "unknown field"),
            ("m/w.bin", "../w.bin", "not a usable path"),
        ] {
            assert!(text.contains(from), "{from}\n{text}");
            let error = Lineage::parse(text.replacen(from, to, 1).as_bytes(), "l").unwrap_err().one_line();
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn a_single_file_names_the_weights_by_itself() {
        let relative = |path: &RepoPath| path.as_str().to_owned();
        let (a, b) = (file("a", b"a"), file("b", b"b"));
        assert_eq!(weights_digest(&[], relative), None);
        assert_eq!(weights_digest(std::slice::from_ref(&a), relative), Some(Digest::of(b"a")));
        let lines = format!("{} a\n{} b\n", a.sha256, b.sha256);
        assert_eq!(weights_digest(&[a, b], relative), Some(Digest::of(lines.as_bytes())));
    }
}
