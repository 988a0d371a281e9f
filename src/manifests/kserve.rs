//! KServe: an `InferenceService`, which keeps the version before it as long as this one has a share of the traffic only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Rollout, Workload, kubernetes, pod};
use crate::error::Result;

pub(super) fn objects(rollout: &Rollout<'_>) -> Result<BTreeMap<String, Vec<Value>>> {
    let name = rollout.name();
    let host = format!("{name}-predictor");
    let verify = kubernetes::verify(rollout, &host, &format!("{host}-.*"))?;
    Ok(BTreeMap::from([
        ("inferenceservice.yaml".to_owned(), vec![service(rollout, &name)]),
        ("verify.yaml".to_owned(), vec![verify]),
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
        // KServe's storage initializer mounts it, as for its own runtimes.
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
    json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": rollout.metadata(workload, name),
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

fn storage_uri(workload: &Workload) -> Option<String> {
    workload.model_image.as_ref().map(|image| format!("oci://{image}"))
}
