//! `model.yaml`: what a person declares about a model. Format: `docs/formats/model-yaml.md`.

mod deploy;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::human;
use crate::release::{ModelName, StageName};
use crate::repo_path::RepoPath;
use crate::yaml;

pub use deploy::{Analysis, Business, Deploy, ImageRef, Limit, Resources, Smoke, Step, Supply};

/// The name of the file that declares a model.
pub const FILE_NAME: &str = "model.yaml";
/// No declaration is larger; larger files are never read.
pub const MAX_BYTES: u64 = 256 * 1024;
/// More declared paths than this are refused: a directory says the same in one line.
const MAX_PATHS: usize = 4096;

const VERSION: u64 = 1;

/// What a declared file is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Weights, tokenizer and whatever else is loaded.
    Weights,
    /// Pre- and post-processing.
    Code,
    /// Hyperparameters and settings.
    Config,
    /// Dependency locks.
    Environment,
    /// Input and output schema.
    Schema,
    /// The evaluation report.
    Evaluation,
}

impl Role {
    /// All roles, in the order in which they are written.
    pub const ALL: [Role; 6] =
        [Role::Weights, Role::Code, Role::Config, Role::Environment, Role::Schema, Role::Evaluation];

    /// The key in `model.yaml`.
    pub fn key(self) -> &'static str {
        match self {
            Role::Weights => "weights",
            Role::Code => "code",
            Role::Config => "config",
            Role::Environment => "environment",
            Role::Schema => "schema",
            Role::Evaluation => "evaluation",
        }
    }

    /// Whether a change of such a file makes another model; an evaluation only judges one.
    pub fn is_of_the_model(self) -> bool {
        self != Role::Evaluation
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// Where a data snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tracked artifact, or a file in git.
    Path(RepoPath),
    /// A location outside, whose listing is fingerprinted.
    Url(String),
    /// Something that only its owner can look at, with the digest that they give it.
    Named {
        /// What it is called there, such as a query id.
        id: String,
        /// Its digest, as given.
        digest: String,
    },
}

/// A data snapshot that the model was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Its name in this model.
    pub name: String,
    /// Where it is.
    pub source: Source,
}

/// A part that a gate can require.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// At least one weights file.
    Weights,
    /// At least one code file.
    Code,
    /// At least one configuration file.
    Config,
    /// A dependency lock.
    Environment,
    /// An input/output schema.
    Schema,
    /// A data snapshot.
    Data,
    /// An evaluation report.
    Evaluation,
    /// A licence.
    License,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// A rule about one metric.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricRule {
    /// The flattened name in the evaluation report; slices are dotted names.
    pub name: String,
    /// Which way it is better.
    pub direction: Direction,
    /// It must be at least this.
    pub min: Option<f64>,
    /// It must be at most this.
    pub max: Option<f64>,
    /// The stage whose current version it is compared with.
    pub against: Option<StageName>,
    /// How far it may fall below that version's value.
    pub max_drop: Option<f64>,
    /// How far it may rise above that version's value, as a share of it: 0.1 is ten per cent.
    pub max_relative_increase: Option<f64>,
}

/// What a release or promotion must pass.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Parts that must be there.
    pub require: Vec<Part>,
    /// Rules about metrics.
    pub metrics: Vec<MetricRule>,
    /// Weight formats that are allowed; empty allows all.
    pub formats: Vec<String>,
    /// The input/output schema must stay compatible.
    pub schema: Option<SchemaRule>,
}

/// A rule about the input/output schema.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRule {
    /// The stage whose current version's callers must not break.
    pub against: StageName,
}

/// What a stage asks of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// A version must be in one of these before it comes here.
    pub promotes_from: Vec<StageName>,
    /// Events and the release must be signed.
    pub signed: bool,
    /// How long it must have been in the stage that it comes from.
    pub soak: Option<Duration>,
    /// Approvals by distinct verified signers.
    pub approvals: u32,
}

/// A declared model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Where the declaration is.
    pub path: RepoPath,
    /// The model's name.
    pub name: ModelName,
    /// What it is, in words.
    pub description: Option<String>,
    /// Its licence, as an SPDX expression or words.
    pub license: Option<String>,
    /// The data that it was made from.
    pub data: Vec<Data>,
    /// What a release must pass.
    pub gates: Gates,
    /// What its stages ask for.
    pub stages: BTreeMap<StageName, Stage>,
    /// How it is served.
    pub deploy: Deploy,
    files: BTreeMap<Role, Vec<RepoPath>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u64,
    name: ModelName,
    description: Option<String>,
    license: Option<String>,
    #[serde(default)]
    weights: Vec<String>,
    #[serde(default)]
    code: Vec<String>,
    #[serde(default)]
    config: Vec<String>,
    #[serde(default)]
    environment: Vec<String>,
    schema: Option<String>,
    #[serde(default)]
    data: Vec<RawData>,
    evaluation: Option<String>,
    #[serde(default)]
    gates: Gates,
    #[serde(default, deserialize_with = "yaml::unique_map")]
    stages: BTreeMap<StageName, RawStage>,
    #[serde(default)]
    deploy: deploy::Raw,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData {
    name: String,
    path: Option<String>,
    url: Option<String>,
    id: Option<String>,
    digest: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStage {
    promotes_from: Vec<StageName>,
    signed: bool,
    soak: Option<String>,
    approvals: u32,
}

impl Model {
    /// Parses the bytes of the declaration at `path`. Its paths are relative to its directory, and must stay in the repository.
    pub fn parse(bytes: &[u8], path: &RepoPath) -> Result<Model> {
        let shown = human::escape(path.as_str());
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::new(format!("{shown}: larger than {MAX_BYTES} bytes")));
        }
        if let Ok(VersionOnly { version }) = yaml::from_slice(bytes, path.as_str())
            && version > VERSION
        {
            return Err(Error::new(format!(
                "{shown}: written for a newer git-model (model version {version})"
            ))
            .hint("update git-model"));
        }
        let raw: Raw = yaml::from_slice(bytes, path.as_str())?;
        let checker = Checker { text: &String::from_utf8_lossy(bytes), path };
        if raw.version != VERSION {
            return Err(checker.refuse("version", "`version` must be 1"));
        }
        let mut files = BTreeMap::new();
        for (role, paths) in [
            (Role::Weights, raw.weights),
            (Role::Code, raw.code),
            (Role::Config, raw.config),
            (Role::Environment, raw.environment),
            (Role::Schema, raw.schema.into_iter().collect()),
            (Role::Evaluation, raw.evaluation.into_iter().collect()),
        ] {
            files.insert(role, checker.paths(role, &paths)?);
        }
        checker.metrics(&raw.gates.metrics)?;
        Ok(Model {
            path: path.clone(),
            name: raw.name,
            description: raw.description,
            license: raw.license,
            data: checker.data(raw.data)?,
            gates: raw.gates,
            stages: checker.stages(raw.stages)?,
            deploy: checker.deploy(raw.deploy)?,
            files,
        })
    }

    /// The declared paths of a role.
    pub fn files(&self, role: Role) -> &[RepoPath] {
        self.files.get(&role).map_or(&[], Vec::as_slice)
    }

    /// The directory of the declaration; `None` at the top level.
    pub fn dir(&self) -> Option<RepoPath> {
        self.path.parent()
    }

    /// `path` as it is written in the declaration: relative to its directory, where it lies below it.
    pub fn relative<'p>(&self, path: &'p RepoPath) -> &'p str {
        let inside = self.dir().and_then(|dir| path.as_str().strip_prefix(dir.as_str())?.strip_prefix('/'));
        inside.unwrap_or(path.as_str())
    }
}

/// Checks what the types alone cannot, with the line in every message.
struct Checker<'a> {
    text: &'a str,
    path: &'a RepoPath,
}

impl Checker<'_> {
    fn refuse(&self, near: &str, why: &str) -> Error {
        // Dots alone are everywhere.
        let findable = near.contains(char::is_alphanumeric);
        let line = yaml::line_of(self.text, near)
            .filter(|_| findable)
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        Error::new(format!("{}{line}: {why}", human::escape(self.path.as_str())))
    }

    fn paths(&self, role: Role, typed: &[String]) -> Result<Vec<RepoPath>> {
        if typed.len() > MAX_PATHS {
            let hint = "name the directory instead";
            return Err(self.refuse(role.key(), &format!("more than {MAX_PATHS} paths")).hint(hint));
        }
        let mut seen = BTreeSet::new();
        let mut paths = Vec::with_capacity(typed.len());
        for text in typed {
            let path = self.resolve(text)?;
            if !seen.insert(path.clone()) {
                return Err(self.refuse(text, &format!("`{}` is named twice", human::escape(text))));
            }
            paths.push(path);
        }
        Ok(paths)
    }

    fn resolve(&self, typed: &str) -> Result<RepoPath> {
        resolve(self.path.parent().as_ref(), typed).map_err(|why| {
            self.refuse(typed, &format!("`{}`: {why}", human::escape(typed)))
                .hint("name files and directories of this repository, as seen from model.yaml")
        })
    }

    fn data(&self, raw: Vec<RawData>) -> Result<Vec<Data>> {
        let mut names = BTreeSet::new();
        let mut all = Vec::with_capacity(raw.len());
        for data in raw {
            let shown = human::escape(&data.name);
            let near = format!("name: {}", data.name);
            if !is_key(&data.name) {
                let why = format!("`{shown}`: a data name is made of letters, digits, `.`, `_` and `-`");
                return Err(self.refuse(&near, &why));
            }
            let source = match (&data.path, data.url, data.id, data.digest) {
                (Some(path), None, None, None) => Source::Path(self.resolve(path)?),
                (None, Some(url), None, None) => Source::Url(self.url(&url)?),
                (None, None, Some(id), Some(digest)) => Source::Named { id, digest },
                _ => {
                    let why = format!("data `{shown}` needs either `path`, or `url`, or `id` with `digest`");
                    return Err(self.refuse(&near, &why));
                }
            };
            if !names.insert(data.name.clone()) {
                return Err(self.refuse(&near, &format!("data `{shown}` is there twice")));
            }
            all.push(Data { name: data.name, source });
        }
        Ok(all)
    }

    fn url(&self, url: &str) -> Result<String> {
        let place =
            ["s3://", "gs://", "az://", "https://", "/"].iter().find_map(|start| url.strip_prefix(start));
        if place.is_some_and(|place| !place.trim_matches('/').is_empty()) && !url.contains(['@', '?', '#']) {
            return Ok(url.to_owned());
        }
        let why = format!("`{}`: not a usable location", human::escape(&crate::remote_url::redact(url)));
        Err(self
            .refuse(url, &why)
            .hint("use s3://bucket/prefix/, gs://bucket/prefix/, az://account/container/prefix/, https:// or the path of a folder, without users or queries"))
    }

    fn metrics(&self, rules: &[MetricRule]) -> Result<()> {
        for rule in rules {
            let refuse = |why: &str| {
                Err(self.refuse(&rule.name, &format!("metric `{}`: {why}", human::escape(&rule.name))))
            };
            let bounds = [rule.min, rule.max, rule.max_drop, rule.max_relative_increase];
            if bounds.iter().flatten().any(|bound| !bound.is_finite()) {
                return refuse("a bound must be a number");
            }
            if bounds.iter().all(Option::is_none) {
                return refuse("it has no bound: add `min`, `max`, `max_drop` or `max_relative_increase`");
            }
            let relative = rule.max_drop.or(rule.max_relative_increase);
            match (&rule.against, relative) {
                (None, Some(_)) => return refuse("`against` must name the stage to compare with"),
                (Some(_), None) => return refuse("`against` needs `max_drop` or `max_relative_increase`"),
                _ => {}
            }
            if relative.is_some_and(|bound| bound < 0.0) {
                return refuse("`max_drop` and `max_relative_increase` must not be negative");
            }
            match rule.direction {
                Direction::Higher if rule.max_relative_increase.is_some() => {
                    return refuse("`max_relative_increase` is for `direction: lower`");
                }
                Direction::Lower if rule.max_drop.is_some() => {
                    return refuse("`max_drop` is for `direction: higher`");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn stages(&self, raw: BTreeMap<StageName, RawStage>) -> Result<BTreeMap<StageName, Stage>> {
        let known: BTreeSet<StageName> = raw.keys().cloned().collect();
        let mut spellings = BTreeMap::new();
        for name in &known {
            // Their tags would be one file where letter case does not count.
            if let Some(other) = spellings.insert(name.as_str().to_ascii_lowercase(), name) {
                let why = format!("stages `{other}` and `{name}` differ in letter case only");
                return Err(self.refuse(name.as_str(), &why));
            }
        }
        let mut stages = BTreeMap::new();
        for (name, stage) in raw {
            if let Some(from) =
                stage.promotes_from.iter().find(|from| !known.contains(from) || **from == name)
            {
                let why =
                    format!("stage `{name}`: `promotes_from` names `{from}`, which is no other stage here");
                return Err(self.refuse(from.as_str(), &why));
            }
            let soak = stage.soak.as_deref().map(|text| {
                parse_duration(text).ok_or_else(|| {
                    let why = format!("stage `{name}`: `soak: {}` is not a duration", human::escape(text));
                    self.refuse(text, &why).hint("write 30m, 24h or 7d")
                })
            });
            if let (Some(text), true) = (&stage.soak, stage.promotes_from.is_empty()) {
                let why = format!(
                    "stage `{name}`: `soak` is the time in the stage before, so it needs `promotes_from`"
                );
                return Err(self.refuse(text, &why));
            }
            stages.insert(
                name,
                Stage {
                    promotes_from: stage.promotes_from,
                    signed: stage.signed,
                    soak: soak.transpose()?,
                    approvals: stage.approvals,
                },
            );
        }
        Ok(stages)
    }
}

/// A path that is written relative to `dir`, as a path of the repository.
fn resolve(dir: Option<&RepoPath>, typed: &str) -> std::result::Result<RepoPath, String> {
    if typed.starts_with('/') {
        return Err("must be relative to model.yaml".to_owned());
    }
    let mut parts: Vec<&str> = dir.map(|dir| dir.as_str().split('/').collect()).unwrap_or_default();
    for part in typed.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." if parts.pop().is_none() => return Err("leads out of the repository".to_owned()),
            ".." => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("the whole repository cannot be a part of a model".to_owned());
    }
    RepoPath::new(&parts.join("/")).map_err(|error| error.one_line())
}

/// Whether a name can stand in a list of keys and on a command line without quotes.
fn is_key(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// `90s`, `30m`, `24h`, `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let number: u64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "\
version: 1
name: churn
description: Churn classifier
weights: [weights.safetensors]
code: [../../src/preprocess.py, ../../src/postprocess.py]
config: [train.yaml]
environment: [../../uv.lock]
schema: schema.json
data:
  - {name: train, path: ../../data/train}
  - {name: lake, url: s3://lake/churn/2026-11-01/}
  - {name: query, id: q-17, digest: sha256:ab}
evaluation: eval.json
gates:
  require: [weights, data, evaluation]
  metrics:
    - {name: auc, direction: higher, min: 0.90, against: prod, max_drop: 0.002}
stages:
  staging: {}
  canary: {promotes_from: [staging], soak: 24h}
  prod: {promotes_from: [canary], signed: true, approvals: 2}
deploy:
  image: ghcr.io/acme/serve:2@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
  port: 8080
  canary: [{traffic: 5, pause: 30m}, {traffic: 40, pause: 1h}]
  analysis: {business: {name: accepted, query: sum(accepted), min: 0.2}}
  prometheus: http://prometheus:9090
";

    fn parse(text: &str) -> Result<Model> {
        Model::parse(text.as_bytes(), &RepoPath::new("models/churn/model.yaml").unwrap())
    }

    #[test]
    fn a_full_declaration_is_understood() {
        let model = parse(FULL).unwrap();
        assert_eq!(model.files(Role::Weights), [RepoPath::new("models/churn/weights.safetensors").unwrap()]);
        assert_eq!(model.files(Role::Code)[0].as_str(), "src/preprocess.py");
        assert_eq!(model.files(Role::Environment)[0].as_str(), "uv.lock");
        assert_eq!(model.data[1].source, Source::Url("s3://lake/churn/2026-11-01/".to_owned()));
        let stages: Vec<&str> = model.stages.keys().map(StageName::as_str).collect();
        assert_eq!(stages, ["canary", "prod", "staging"]);
        assert_eq!(
            model.stages[&StageName::parse("canary").unwrap()].soak,
            Some(Duration::from_secs(86_400))
        );
    }

    #[test]
    fn mistakes_name_the_line_and_the_reason() {
        for (from, to, line, reason) in [
            ("version: 1", "version: 0", 1, "`version` must be 1"),
            ("name: churn", "name: -x", 2, "name"),
            ("name: churn", "nmae: churn", 2, "unknown field `nmae`"),
            ("name: churn", "name: churn\nname: churn", 3, "duplicate"),
            ("weights: [w", "weights: w #", 4, "expected a sequence"),
            ("[train.yaml]", "[../../../etc/passwd]", 6, "leads out of the repository"),
            ("[train.yaml]", "[/etc/passwd]", 6, "must be relative"),
            ("[train.yaml]", "[.git/config]", 6, "not a usable path"),
            ("[train.yaml]", "[a.yaml, ./a.yaml]", 6, "named twice"),
            ("[train.yaml]", "&x [train.yaml]", 6, "anchors"),
            ("path: ../../data/train", "path: a, url: s3://x/y", 10, "needs either"),
            ("name: lake", "name: train", 10, "there twice"),
            ("s3://lake", "s3://key:secret@lake", 11, "not a usable location"),
            ("min: 0.90", "min: .nan", 17, "must be a number"),
            ("direction: higher", "direction: up", 17, "unknown variant"),
            (", against: prod", "", 17, "`against` must name"),
            ("max_drop: 0.002", "max_relative_increase: 0.1", 17, "for `direction: lower`"),
            ("[staging]", "[stagin]", 20, "no other stage"),
            ("soak: 24h", "soak: 1 day", 20, "not a duration"),
            ("@sha256:e", ":e", 23, "must be pinned"),
            ("@sha256:ee", "@sha256:e", 23, "not 64 hexadecimal digits"),
            ("port: 8080", "port: 0", 24, "must not be 0"),
            ("port: 8080", "prot: 8080", 24, "unknown field `prot`"),
            ("port: 8080", "health: healthz", 24, "an absolute path"),
            ("port: 8080", "namespace: A_b", 24, "a name of Kubernetes"),
            ("port: 8080", "resources: {cpu: much}", 24, "a Kubernetes quantity"),
            ("traffic: 40", "traffic: 4", 25, "must grow"),
            ("pause: 30m", "pause: soon", 25, "not a duration"),
            ("sum(accepted)", "'{{x}}'", 26, "must not have `{{`"),
            (", min: 0.2", "", 26, "needs `min` or `max`"),
            ("http://prom", "file:///prom", 27, "an http URL"),
        ] {
            assert!(FULL.contains(from), "{from}");
            let error = parse(&FULL.replacen(from, to, 1)).unwrap_err().one_line();
            assert!(error.starts_with(&format!("models/churn/model.yaml:{line}")), "{to}: {error}");
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let error = parse(&format!("{FULL}#{}", "x".repeat(MAX_BYTES as usize))).unwrap_err().one_line();
        assert!(error.contains("larger than"), "{error}");
    }
}
