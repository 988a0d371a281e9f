//! Kubernetes alone: a `Deployment`, beside it another one for a canary, and a `Job` that judges and reports.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::withdraw::{self, Withdrawal};
use super::{Rollout, Workload, checks};
use crate::error::Result;
use crate::id::Digest;

pub(super) fn objects(rollout: &Rollout<'_>) -> Result<BTreeMap<String, Vec<Value>>> {
    let name = rollout.name();
    let (main, canary) = (&rollout.main, format!("{name}-canary"));
    let track = |track: &str| json!({"app": name, "git-model/track": track});
    let stable = rollout.stable.as_ref().unwrap_or(main);
    let mut files = BTreeMap::from([
        (
            "deployment.yaml".to_owned(),
            vec![deployment(rollout, stable, &name, Some("stable"), Some(stable.settings.replicas))],
        ),
        ("service.yaml".to_owned(), vec![rollout.service(stable, &name, &rollout.selector())]),
    ]);
    let mut judged = (name.clone(), format!("{name}-[0-9a-z]+-[0-9a-z]+"));
    let mut withdrawal = None;
    if rollout.stable.is_some() {
        // The service sends to all pods alike, so their numbers make the shares.
        let share = u32::from(rollout.traffic.unwrap_or(50)).clamp(1, 99);
        let replicas = (stable.settings.replicas * share).div_ceil(100 - share).max(1);
        files.insert(
            "canary.yaml".to_owned(),
            vec![
                deployment(rollout, main, &canary, Some("canary"), Some(replicas)),
                rollout.service(main, &canary, &track("canary")),
            ],
        );
        withdrawal = withdraw::of_deployment(rollout, &canary);
        judged = (canary.clone(), format!("{canary}-[0-9a-z]+-[0-9a-z]+"));
    }
    let verify = verify(rollout, &judged.0, &judged.1, withdrawal.as_ref())?;
    files.insert("verify.yaml".to_owned(), verify);
    Ok(files)
}

/// A deployment that replaces its pods one by one, each only after another one is ready. Without `replicas`, somebody else scales it.
pub(super) fn deployment(
    rollout: &Rollout<'_>,
    workload: &Workload,
    name: &str,
    track: Option<&str>,
    replicas: Option<u32>,
) -> Value {
    let more: Vec<(&str, &str)> = track.map(|track| ("git-model/track", track)).into_iter().collect();
    let mut selector = rollout.selector();
    more.iter().for_each(|(key, value)| selector[*key] = (*value).into());
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": rollout.metadata(workload, name),
        "spec": {
            "minReadySeconds": 10,
            "progressDeadlineSeconds": 1800,
            "replicas": replicas,
            "revisionHistoryLimit": workload.settings.history,
            "selector": {"matchLabels": selector},
            "strategy": {
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                "type": "RollingUpdate",
            },
            "template": rollout.template(workload, &more),
        },
    })
}

/// The job that judges, behind its rights. Jobs cannot be changed, so each content has its own name; Argo CD runs it after the rest is
/// healthy.
pub(super) fn verify(
    rollout: &Rollout<'_>,
    host: &str,
    pods: &str,
    withdrawal: Option<&Withdrawal>,
) -> Result<Vec<Value>> {
    let spec = checks::job(rollout, host, pods, withdrawal)?;
    let digest = Digest::of(spec.to_string().as_bytes()).to_hex();
    let mut metadata =
        rollout.metadata(&rollout.main, &format!("{}-verify-{}", rollout.name(), &digest[..8]));
    metadata["annotations"]["argocd.argoproj.io/hook"] = "PostSync".into();
    metadata["annotations"]["argocd.argoproj.io/hook-delete-policy"] = "BeforeHookCreation".into();
    let mut objects = withdrawal.map(|withdrawal| withdrawal.objects(rollout)).unwrap_or_default();
    objects.push(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}));
    Ok(objects)
}
