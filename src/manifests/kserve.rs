//! KServe: an `InferenceService`, which keeps the version before it as long as this one has a share of the traffic only. Shares are
//! Knative's, so its mode is set: what Knative takes of a pod is less than what Kubernetes does.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Rollout, Workload, checks, kubernetes, pod, withdraw};
use crate::error::Result;

pub(super) fn objects(rollout: &Rollout<'_>) -> Result<BTreeMap<String, Vec<Value>>> {
    let name = rollout.name();
    let predictor = format!("{name}-predictor");
    // Knative's gateway knows full names only. The tag leads to the newest revision that is ready, whatever its share is.
    let namespace = rollout.main.settings.namespace.as_deref().unwrap_or(checks::NAMESPACE);
    let host = format!("latest-{predictor}.{namespace}.svc.cluster.local");
    let withdrawal = withdraw::of_inference_service(rollout, &name);
    let verify = kubernetes::verify(rollout, &host, &format!("{predictor}-.*"), withdrawal.as_ref())?;
    Ok(BTreeMap::from([
        ("inferenceservice.yaml".to_owned(), vec![service(rollout, &name)]),
        ("verify.yaml".to_owned(), verify),
    ]))
}

fn service(rollout: &Rollout<'_>, name: &str) -> Value {
    let workload = &rollout.main;
    let settings = &workload.settings;
    let mut predictor = match (&workload.image, &workload.model_image) {
        (None, Some(_)) => json!({"model": runtime(rollout, workload)}),
        _ => pod::spec(rollout, workload, "kserve-container"),
    };
    if let (Some(_), Some(_)) = (&workload.image, &workload.model_image) {
        // KServe mounts it as an image volume, as for its own runtimes; Knative would refuse one in the pod here.
        if let Some(predictor) = predictor.as_object_mut() {
            predictor.remove("volumes");
        }
        let container = &mut predictor["containers"][0];
        container["volumeMounts"] = Value::Null;
        if let Some(env) = container["env"].as_array_mut() {
            env.retain(|pair| pair["name"] != "MODEL_DIR");
            env.push(json!({"name": "MODEL_DIR", "value": "/mnt/models"}));
            env.push(json!({"name": "STORAGE_URI", "value": storage_uri(workload)}));
        }
    }
    let annotations = rollout.annotations(workload);
    predictor["annotations"] = annotations;
    predictor["labels"] = rollout.labels(workload, Some("server"));
    predictor["canaryTrafficPercent"] = rollout.traffic.into();
    predictor["minReplicas"] = settings.replicas.into();
    let mut metadata = rollout.metadata(workload, name);
    metadata["annotations"]["serving.kserve.io/deploymentMode"] = "Knative".into();
    // Always, not for a canary only: another annotation would make another revision.
    metadata["annotations"]["serving.kserve.io/enable-tag-routing"] = "true".into();
    json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    })
}

/// A runtime of KServe's own that loads the image of the model.
fn runtime(rollout: &Rollout<'_>, workload: &Workload) -> Value {
    json!({
        "env": pod::env(rollout, workload),
        "modelFormat": {"name": workload.settings.format},
        "resources": pod::resources(workload),
        "storageUri": storage_uri(workload),
    })
}

/// As an image volume: plain `oci://` runs a shell in the image, and one of git-model's has none.
fn storage_uri(workload: &Workload) -> Option<String> {
    workload.model_image.as_ref().map(|image| format!("oci+native://{image}"))
}
