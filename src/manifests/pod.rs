//! The pod of a model's server: where its files come from, what it says it serves, and when it is ready.

use serde_json::{Value, json};

use super::{Rollout, Target, Workload};
use crate::model_yaml::Supply;

/// Where a server finds the model.
const MODEL_DIR: &str = "/models";
/// The key of the lock file in its config map.
pub(super) const LOCK_KEY: &str = "model.lock.json";

/// Text that a container gets as it is: Kubernetes replaces `$(NAME)` in commands and variables, and takes `$$` for `$`.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// What Kubernetes' restricted profile asks of a container.
pub(super) fn restricted() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

/// The same for a container of a server. Knative refuses a `securityContext` of the pod, so there the container has it all.
fn restricted_server(target: Target) -> Value {
    let mut context = restricted();
    if target == Target::Kserve
        && let Value::Object(of_pod) = nonroot()
    {
        of_pod.into_iter().for_each(|(key, value)| context[key] = value);
    }
    context
}

/// What it asks of a pod.
pub(super) fn nonroot() -> Value {
    json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// What a job or an init container needs.
pub(super) fn small() -> Value {
    json!({"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}})
}

/// What a server and its traces say that they serve.
pub(super) fn env(rollout: &Rollout<'_>, workload: &Workload) -> Vec<Value> {
    let mut pairs: Vec<(String, String)> = workload
        .info
        .pairs()
        .into_iter()
        .map(|(name, value)| (format!("MODEL_{}", name.to_ascii_uppercase()), value))
        .collect();
    pairs.push(("MODEL_STAGE".to_owned(), rollout.stage.to_string()));
    pairs.push(("MODEL_DIR".to_owned(), MODEL_DIR.to_owned()));
    let traces = format!("{},deployment.environment.name={}", workload.info.to_otel(), rollout.stage);
    pairs.push(("OTEL_RESOURCE_ATTRIBUTES".to_owned(), traces));
    pairs.sort();
    pairs.into_iter().map(|(name, value)| json!({"name": name, "value": literal(&value)})).collect()
}

/// The server's container, for a workload that has an image.
pub(super) fn server(rollout: &Rollout<'_>, workload: &Workload, name: &str) -> Value {
    let settings = &workload.settings;
    let probe = |period: u32, failures: u32| {
        json!({
            "failureThreshold": failures,
            "httpGet": {"path": settings.health, "port": settings.port},
            "periodSeconds": period,
            "timeoutSeconds": 5,
        })
    };
    let mounts = (workload.lock.is_some() || workload.model_image.is_some())
        .then(|| json!([{"mountPath": MODEL_DIR, "name": "models", "readOnly": true, "subPath": sub_path(workload)}]));
    json!({
        "name": name,
        "image": workload.image.as_ref().map(|image| image.as_str()),
        "env": env(rollout, workload),
        "livenessProbe": probe(20, 6),
        "ports": [{"containerPort": settings.port, "name": port_name(rollout.target), "protocol": "TCP"}],
        "readinessProbe": probe(5, 3),
        // Loading weights takes its time: ten minutes.
        "startupProbe": probe(5, 120),
        "resources": resources(workload),
        "securityContext": restricted_server(rollout.target),
        "volumeMounts": mounts,
    })
}

/// An image of a model has its files under `/models`.
fn sub_path(workload: &Workload) -> Option<&'static str> {
    workload.model_image.as_ref().map(|_| "models")
}

pub(super) fn resources(workload: &Workload) -> Value {
    let resources = &workload.settings.resources;
    let mut limits = json!({"memory": resources.memory});
    let mut requests = json!({"cpu": resources.cpu, "memory": resources.memory});
    if resources.gpu > 0 {
        limits["nvidia.com/gpu"] = resources.gpu.into();
        requests["nvidia.com/gpu"] = resources.gpu.into();
    }
    json!({"limits": limits, "requests": requests})
}

/// The rest of the pod: the init container that gets the model, and volumes.
pub(super) fn spec(rollout: &Rollout<'_>, workload: &Workload, container: &str) -> Value {
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "containers": [server(rollout, workload, container)],
        "securityContext": (rollout.target != Target::Kserve).then(nonroot),
    });
    if let Some(image) = &workload.model_image {
        spec["volumes"] =
            json!([{"name": "models", "image": {"pullPolicy": "IfNotPresent", "reference": image.as_str()}}]);
    }
    if workload.settings.model == Supply::Fetched
        && let Some(lock) = rollout.lock_name(workload)
    {
        let secret = workload.settings.credentials.as_ref();
        spec["initContainers"] = json!([{
            "name": "model",
            "image": super::tools(workload),
            "command": ["git-model", "get", "--locked", format!("/lock/{LOCK_KEY}"), "-o", MODEL_DIR],
            "env": [{"name": "HOME", "value": "/tmp"}],
            "envFrom": secret.map(|name| json!([{"secretRef": {"name": name}}])),
            "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "500m", "memory": "256Mi"}},
            "securityContext": restricted_server(rollout.target),
            "volumeMounts": [
                {"mountPath": "/lock", "name": "lock", "readOnly": true},
                {"mountPath": MODEL_DIR, "name": "models"},
            ],
        }]);
        // What is fetched lies there once; a little more for directories and papers.
        let mebibytes = workload.size.div_ceil(1 << 20);
        let limit = format!("{}Mi", mebibytes + mebibytes / 10 + 64);
        spec["volumes"] = json!([
            {"name": "lock", "configMap": {"name": lock}},
            {"name": "models", "emptyDir": {"sizeLimit": limit}},
        ]);
    }
    spec
}

/// Knative takes the protocol from the port's name.
fn port_name(target: Target) -> &'static str {
    if target == Target::Kserve { "http1" } else { "http" }
}
