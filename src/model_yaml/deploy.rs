//! The `deploy:` block: how a model is served in a cluster. Format: `docs/formats/model-yaml.md`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::{Checker, parse_duration};
use crate::error::Result;
use crate::human;

/// A query is not longer.
const MAX_QUERY: usize = 4096;
/// More steps make no sense.
const MAX_STEPS: usize = 20;
/// Longer pauses are typing mistakes.
const MAX_PAUSE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How the files of a model get to its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supply {
    /// An init container gets them from the store.
    #[default]
    Fetched,
    /// They are in the server's image.
    Embedded,
}

/// An image, pinned by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef(String);

impl ImageRef {
    /// Parses `registry/name@sha256:…`; a tag before the digest may be there.
    pub fn parse(text: &str) -> std::result::Result<ImageRef, String> {
        let (name, digest) = text.split_once('@').ok_or("must be pinned: NAME@sha256:…")?;
        let hex = digest.strip_prefix("sha256:").ok_or("must be pinned by its sha256 digest")?;
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if hex.len() != 64 || !hex.chars().all(is_hex) {
            return Err("its digest is not 64 hexadecimal digits".to_owned());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._/:-".contains(c);
        if name.len() > 400
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(fits)
        {
            return Err("not the name of an image".to_owned());
        }
        Ok(ImageRef(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A step of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Percent of the traffic.
    pub traffic: u8,
    /// How long it stays so.
    pub pause: Duration,
}

/// What a metric must be for a rollout to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// At least this.
    pub min: Option<f64>,
    /// At most this.
    pub max: Option<f64>,
    /// PromQL that gives one number; `None` for the usual one.
    pub query: Option<String>,
}

/// A metric that says what the model is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Business {
    /// What it is called.
    pub name: String,
    /// What it must be.
    pub limit: Limit,
}

/// How a rollout is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// Time between two looks.
    pub interval: Duration,
    /// How many looks at a metric may fail before the rollout is taken back.
    pub failures: u32,
    /// Share of requests that fail.
    pub error_rate: Limit,
    /// Seconds within which 95 of 100 requests are answered.
    pub latency_p95: Limit,
    /// What the model is worth.
    pub business: Option<Business>,
}

/// The request that a new version must answer before it gets traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smoke {
    /// Where it goes.
    pub path: String,
    /// JSON to post; a plain GET without.
    pub body: Option<String>,
}

/// What a server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPUs that are asked for, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory, as a Kubernetes quantity.
    pub memory: String,
    /// GPUs (`nvidia.com/gpu`).
    pub gpu: u32,
}

/// How a model is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// How its files get to the server.
    pub model: Supply,
    /// The server's image.
    pub image: Option<ImageRef>,
    /// The image with git-model and curl for init containers and jobs; the server's if not given.
    pub tools: Option<ImageRef>,
    /// The port that the server listens on.
    pub port: u16,
    /// How many servers.
    pub replicas: u32,
    /// What each needs.
    pub resources: Resources,
    /// The path that answers 200 when the server is ready.
    pub health: String,
    /// The request that a new version must answer.
    pub smoke: Smoke,
    /// The namespace; left to who applies the manifests if not given.
    pub namespace: Option<String>,
    /// The secret with the store's credentials, as environment variables.
    pub credentials: Option<String>,
    /// The NGINX ingress that splits the traffic.
    pub ingress: Option<String>,
    /// The format that a runtime of KServe loads, where that serves the model.
    pub format: Option<String>,
    /// How many former versions can be gone back to.
    pub history: u32,
    /// The steps of a rollout.
    pub canary: Vec<Step>,
    /// How it is judged.
    pub analysis: Analysis,
    /// Address of Prometheus.
    pub prometheus: String,
    /// Address of Flagger's load tester.
    pub loadtester: String,
    /// Where the end of a rollout is reported.
    pub report: Option<String>,
}

impl Default for Deploy {
    fn default() -> Deploy {
        let at_most = |max| Limit { min: None, max: Some(max), query: None };
        let pause = Duration::from_secs(600);
        Deploy {
            model: Supply::Fetched,
            image: None,
            tools: None,
            port: 8000,
            replicas: 2,
            resources: Resources { cpu: "500m".to_owned(), memory: "1Gi".to_owned(), gpu: 0 },
            health: "/healthz".to_owned(),
            smoke: Smoke { path: "/healthz".to_owned(), body: None },
            namespace: None,
            credentials: None,
            ingress: None,
            format: None,
            history: 5,
            canary: vec![Step { traffic: 10, pause }, Step { traffic: 50, pause }],
            analysis: Analysis {
                interval: Duration::from_secs(60),
                failures: 2,
                error_rate: at_most(0.01),
                latency_p95: at_most(0.5),
                business: None,
            },
            prometheus: "http://prometheus.monitoring:9090".to_owned(),
            loadtester: "http://flagger-loadtester".to_owned(),
            report: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    model: Supply,
    image: Option<String>,
    tools: Option<String>,
    port: Option<u16>,
    replicas: Option<u32>,
    resources: RawResources,
    health: Option<String>,
    smoke: RawSmoke,
    namespace: Option<String>,
    credentials: Option<String>,
    ingress: Option<String>,
    format: Option<String>,
    history: Option<u32>,
    canary: Option<Vec<RawStep>>,
    analysis: RawAnalysis,
    prometheus: Option<String>,
    loadtester: Option<String>,
    report: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawResources {
    cpu: Option<String>,
    memory: Option<String>,
    gpu: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSmoke {
    path: Option<String>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    traffic: u8,
    pause: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAnalysis {
    interval: Option<String>,
    failures: Option<u32>,
    error_rate: Option<RawMost>,
    latency_p95: Option<RawMost>,
    business: Option<RawBusiness>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMost {
    max: f64,
    query: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBusiness {
    name: String,
    query: String,
    min: Option<f64>,
    max: Option<f64>,
}

impl Checker<'_> {
    /// The block with its defaults, checked.
    pub(super) fn deploy(&self, raw: Raw) -> Result<Deploy> {
        let usual = Deploy::default();
        let health = self.or(raw.health, "health", usual.health, is_path, "an absolute path")?;
        let smoke = Smoke {
            path: self.or(raw.smoke.path, "path", health.clone(), is_path, "an absolute path")?,
            body: self.perhaps(raw.smoke.body, "body", is_json, "JSON of at most 4096 bytes without `{{`")?,
        };
        let replicas = raw.replicas.unwrap_or(usual.replicas);
        let history = raw.history.unwrap_or(usual.history);
        self.require((1..=1000).contains(&replicas), "replicas", "must be from 1 to 1000")?;
        self.require((1..=20).contains(&history), "history", "must be from 1 to 20")?;
        self.require(raw.port != Some(0), "port", "must not be 0")?;
        self.require(raw.resources.gpu <= 64, "gpu", "must be at most 64")?;
        let quantity = "a Kubernetes quantity such as 500m or 2Gi";
        Ok(Deploy {
            model: raw.model,
            image: self.image(raw.image.as_deref(), "image")?,
            tools: self.image(raw.tools.as_deref(), "tools")?,
            port: raw.port.unwrap_or(usual.port),
            replicas,
            resources: Resources {
                cpu: self.or(raw.resources.cpu, "cpu", usual.resources.cpu, is_quantity, quantity)?,
                memory: self.or(
                    raw.resources.memory,
                    "memory",
                    usual.resources.memory,
                    is_quantity,
                    quantity,
                )?,
                gpu: raw.resources.gpu,
            },
            health,
            smoke,
            namespace: self.perhaps(raw.namespace, "namespace", is_label, "a name of Kubernetes")?,
            credentials: self.perhaps(raw.credentials, "credentials", is_name, "a name of Kubernetes")?,
            ingress: self.perhaps(raw.ingress, "ingress", is_name, "a name of Kubernetes")?,
            format: self.perhaps(raw.format, "format", is_label, "a model format of KServe")?,
            history,
            canary: raw.canary.map_or(Ok(usual.canary), |steps| self.steps(steps))?,
            analysis: self.analysis(raw.analysis, usual.analysis)?,
            prometheus: self.or(raw.prometheus, "prometheus", usual.prometheus, is_url, "an http URL")?,
            loadtester: self.or(raw.loadtester, "loadtester", usual.loadtester, is_url, "an http URL")?,
            report: self.perhaps(raw.report, "report", is_url, "an http URL")?,
        })
    }

    fn require(&self, holds: bool, key: &str, why: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(self.refuse(&format!("{key}:"), &format!("`deploy`: `{key}` {why}"))) }
    }

    /// A value that may be absent.
    fn perhaps(
        &self,
        value: Option<String>,
        key: &str,
        fits: fn(&str) -> bool,
        what: &str,
    ) -> Result<Option<String>> {
        match value {
            Some(value) if !fits(&value) => {
                let why = format!("`deploy`: `{key}: {}` is not {what}", human::escape(&value));
                Err(self.refuse(&format!("{key}:"), &why))
            }
            value => Ok(value),
        }
    }

    fn or(
        &self,
        value: Option<String>,
        key: &str,
        usual: String,
        fits: fn(&str) -> bool,
        what: &str,
    ) -> Result<String> {
        Ok(self.perhaps(value, key, fits, what)?.unwrap_or(usual))
    }

    fn image(&self, value: Option<&str>, key: &str) -> Result<Option<ImageRef>> {
        let parse = |text: &str| {
            ImageRef::parse(text).map_err(|why| {
                let why = format!("`deploy`: `{key}: {}`: {why}", human::escape(text));
                self.refuse(&format!("{key}:"), &why)
            })
        };
        value.map(parse).transpose()
    }

    fn duration(&self, text: &str, key: &str) -> Result<Duration> {
        let duration = parse_duration(text).filter(|duration| !duration.is_zero() && *duration <= MAX_PAUSE);
        duration.ok_or_else(|| {
            let why = format!("`deploy`: `{key}: {}` is not a duration", human::escape(text));
            self.refuse(text, &why).hint("write 90s, 10m or 24h; at most 30d")
        })
    }

    fn steps(&self, raw: Vec<RawStep>) -> Result<Vec<Step>> {
        self.require((1..=MAX_STEPS).contains(&raw.len()), "canary", "must have from 1 to 20 steps")?;
        let mut steps: Vec<Step> = Vec::with_capacity(raw.len());
        for step in raw {
            let more = steps.last().is_none_or(|before| step.traffic > before.traffic);
            if !(1..=99).contains(&step.traffic) || !more {
                let why = "`deploy`: the traffic of the steps must grow, from 1 to 99 percent";
                return Err(self.refuse(&format!("traffic: {}", step.traffic), why));
            }
            steps.push(Step { traffic: step.traffic, pause: self.duration(&step.pause, "pause")? });
        }
        Ok(steps)
    }

    fn analysis(&self, raw: RawAnalysis, usual: Analysis) -> Result<Analysis> {
        let failures = raw.failures.unwrap_or(usual.failures);
        self.require(failures <= 1000, "failures", "must be at most 1000")?;
        let business = raw.business.map(|business| {
            self.perhaps(Some(business.name.clone()), "name", is_label, "a name of Kubernetes")?;
            let taken = ["error-rate", "latency-p95", "smoke"].contains(&business.name.as_str());
            self.require(!taken, "business", "has a name that is taken")?;
            let limit = self.limit("business", business.min, business.max, Some(business.query))?;
            Ok(Business { name: business.name, limit })
        });
        let most = |key, raw: Option<RawMost>, usual| match raw {
            Some(raw) => self.limit(key, None, Some(raw.max), raw.query),
            None => Ok(usual),
        };
        Ok(Analysis {
            interval: raw.interval.map_or(Ok(usual.interval), |text| self.duration(&text, "interval"))?,
            failures,
            error_rate: most("error_rate", raw.error_rate, usual.error_rate)?,
            latency_p95: most("latency_p95", raw.latency_p95, usual.latency_p95)?,
            business: business.transpose()?,
        })
    }

    fn limit(&self, key: &str, min: Option<f64>, max: Option<f64>, query: Option<String>) -> Result<Limit> {
        let bounds = [min, max];
        self.require(bounds.iter().any(Option::is_some), key, "needs `min` or `max`")?;
        self.require(bounds.iter().flatten().all(|bound| bound.is_finite()), key, "needs numbers as bounds")?;
        if let Some(query) = &query {
            self.require(is_text(query, MAX_QUERY), key, "needs a query of at most 4096 bytes of text")?;
            // Argo Rollouts and Flagger would fill these in.
            let is_template = query.contains("{{") || query.contains("}}");
            self.require(!is_template, key, "must not have `{{` or `}}` in its query")?;
        }
        Ok(Limit { min, max, query })
    }
}

/// Whether it is text without control characters except line breaks and tabs.
fn is_text(text: &str, max: usize) -> bool {
    !text.trim().is_empty()
        && text.len() <= max
        && !text.chars().any(|c| c.is_control() && !"\n\t".contains(c))
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 1024
        && text.chars().all(|c| c.is_ascii_graphic() && !"{}".contains(c))
}

fn is_json(text: &str) -> bool {
    // Argo Rollouts would fill in what is between `{{` and `}}`.
    text.len() <= MAX_QUERY && !text.contains("{{") && serde_json::from_str::<serde_json::Value>(text).is_ok()
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && text.len() <= 1024
        && text.chars().all(|c| c.is_ascii_graphic() && !"@\"'\\<>{}".contains(c))
}

/// A DNS label, as of a namespace.
fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63
        && text.starts_with(fits)
        && text.ends_with(fits)
        && text.chars().all(|c| fits(c) || c == '-')
}

/// Labels joined by dots, as of a secret.
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(part) && ["", "m", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti"].contains(&unit)
}
