//! Kubernetes manifests for a version in a stage, as a pure function of what is known: equal input gives equal bytes.
//!
//! Fields are those of KServe v0.20 (`serving.kserve.io/v1beta1`), Argo Rollouts v1.9 (`argoproj.io/v1alpha1`), Flagger v1.44
//! (`flagger.app/v1beta1`) and Kubernetes 1.33. What a manifest does is said in `docs/rollout.md`.

mod argo;
mod checks;
mod flagger;
mod kserve;
mod kubernetes;
mod names;
mod pod;
mod withdraw;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::id::Digest;
use crate::model_info::ModelInfo;
use crate::model_yaml::{Deploy, ImageRef};
use crate::release::{ModelName, StageName};
use crate::yaml;

/// The file that lists the others for Kustomize.
pub const KUSTOMIZATION: &str = "kustomization.yaml";
/// The largest config map that Kubernetes takes, less some room for its metadata.
const MAX_LOCK: usize = 1024 * 1024 - 16 * 1024;

/// What the manifests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// An `InferenceService` of KServe.
    Kserve,
    /// A `Rollout` of Argo Rollouts.
    ArgoRollouts,
    /// A `Canary` of Flagger.
    Flagger,
    /// Deployments alone.
    Kubernetes,
}

impl Target {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Target::Kserve => "kserve",
            Target::ArgoRollouts => "argo-rollouts",
            Target::Flagger => "flagger",
            Target::Kubernetes => "kubernetes",
        }
    }
}

/// A version and how it is served.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What it is.
    pub info: ModelInfo,
    /// How it is served.
    pub settings: Deploy,
    /// The server's image.
    pub image: Option<ImageRef>,
    /// The image that holds the model under `/models`, if one does.
    pub model_image: Option<ImageRef>,
    /// The image with git-model and curl; the server's if not given.
    pub tools: Option<ImageRef>,
    /// The lock file's text, where an init container gets the model.
    pub lock: Option<String>,
    /// Bytes of all files.
    pub size: u64,
}

/// What is to be served in a stage.
#[derive(Debug)]
pub struct Rollout<'a> {
    /// What the manifests are for.
    pub target: Target,
    /// The model.
    pub model: &'a ModelName,
    /// The stage.
    pub stage: &'a StageName,
    /// The version that is rolled out.
    pub main: Workload,
    /// The version that it stands beside, for targets that need both.
    pub stable: Option<Workload>,
    /// Percent of the traffic that it gets beside the stage's version; `None` for all. KServe knows 0, too: the version is the one
    /// that had all before a canary, and it keeps that in the pods that it has.
    pub traffic: Option<u8>,
    /// Whether the stage was rolled back to this version.
    pub is_back: bool,
    /// Files with locks of former versions, which their pods need until they are gone.
    pub kept: &'a [String],
}

/// The name of the file with a version's lock.
pub fn lock_file(version: &str) -> String {
    format!("lock-{}.yaml", names::label(version))
}

/// All manifests, by the name of their file.
pub fn render(rollout: &Rollout<'_>) -> Result<BTreeMap<String, String>> {
    let mut files: BTreeMap<String, Vec<Value>> = match rollout.target {
        Target::Kserve => kserve::objects(rollout)?,
        Target::ArgoRollouts => argo::objects(rollout)?,
        Target::Flagger => flagger::objects(rollout)?,
        Target::Kubernetes => kubernetes::objects(rollout)?,
    };
    for workload in std::iter::once(&rollout.main).chain(&rollout.stable) {
        if let (Some(lock), Some(name)) = (&workload.lock, rollout.lock_name(workload)) {
            if lock.len() > MAX_LOCK {
                return Err(Error::refused(format!(
                    "{}: its lock file is too large for a config map ({} bytes)",
                    workload.release(),
                    lock.len()
                ))
                .hint("a model of so many files is better embedded: `model: embedded` in `deploy`, or --model-image"));
            }
            files.insert(lock_file(workload.version()), vec![lock_map(rollout, workload, &name, lock)]);
        }
    }
    let mut resources: Vec<&str> = files.keys().chain(rollout.kept).map(String::as_str).collect();
    resources.sort_unstable();
    resources.dedup();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    files.insert(KUSTOMIZATION.to_owned(), vec![kustomization]);
    Ok(files.into_iter().map(|(name, objects)| (name, rollout.text(objects))).collect())
}

fn lock_map(rollout: &Rollout<'_>, workload: &Workload, name: &str, lock: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": rollout.metadata(workload, name),
        "data": {pod::LOCK_KEY: lock},
        "immutable": true,
    })
}

impl Workload {
    /// The version, or the digest of what is none.
    pub fn version(&self) -> &str {
        self.info.version.as_deref().unwrap_or_default()
    }

    fn release(&self) -> &str {
        self.info.release.as_deref().unwrap_or(&self.info.model)
    }
}

impl Rollout<'_> {
    /// The name of the model's objects.
    fn name(&self) -> String {
        names::object_name(self.model, self.stage)
    }

    /// The config map with a version's lock; a new one for new content, so that pods start anew.
    fn lock_name(&self, workload: &Workload) -> Option<String> {
        let lock = workload.lock.as_ref()?;
        let digest = &Digest::of(lock.as_bytes()).to_hex()[..8];
        Some(format!("{}-lock-{}-{digest}", self.name(), names::part(workload.version())))
    }

    /// What does not change while the model is served, and finds its pods.
    fn selector(&self) -> Value {
        json!({"app": self.name()})
    }

    fn labels(&self, workload: &Workload, component: Option<&str>) -> Value {
        json!({
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/instance": self.name(),
            "app.kubernetes.io/managed-by": "git-model",
            "app.kubernetes.io/name": names::label(self.model.as_str()),
            "app.kubernetes.io/version": names::label(workload.version()),
        })
    }

    fn annotations(&self, workload: &Workload) -> Value {
        let info = &workload.info;
        json!({
            "git-model/commit": info.commit,
            "git-model/digest": format!("sha256:{}", info.digest),
            "git-model/model": info.model,
            "git-model/release": info.release,
            "git-model/stage": self.stage.as_str(),
            "git-model/version": info.version,
        })
    }

    fn metadata(&self, workload: &Workload, name: &str) -> Value {
        json!({
            "annotations": self.annotations(workload),
            "labels": self.labels(workload, None),
            "name": name,
            "namespace": self.main.settings.namespace,
        })
    }

    /// Metadata and spec of a server's pods, with more labels.
    fn template(&self, workload: &Workload, more: &[(&str, &str)]) -> Value {
        let mut labels = self.labels(workload, Some("server"));
        labels["app"] = self.name().into();
        more.iter().for_each(|(key, value)| labels[*key] = (*value).into());
        json!({
            "metadata": {"annotations": self.annotations(workload), "labels": labels},
            "spec": pod::spec(self, workload, "server"),
        })
    }

    /// A service on port 80 for the pods with these labels.
    fn service(&self, workload: &Workload, name: &str, selector: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(workload, name),
            "spec": {
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
                "selector": selector,
            },
        })
    }

    fn text(&self, objects: Vec<Value>) -> String {
        let mut text = format!(
            "# Made by git model deploy from {} for {}. Do not edit: the next run replaces it.\n",
            self.main.release(),
            self.stage
        );
        for (at, object) in objects.into_iter().enumerate() {
            if at > 0 {
                text.push_str("---\n");
            }
            text.push_str(&yaml::document(&without_nulls(object)));
        }
        text
    }
}

/// The image for init containers and jobs.
fn tools(workload: &Workload) -> Option<&str> {
    workload.tools.as_ref().or(workload.image.as_ref()).map(ImageRef::as_str)
}

/// What is not known is not written.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// A span as Go and Prometheus read it.
fn span(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
