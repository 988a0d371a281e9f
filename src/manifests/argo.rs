//! Argo Rollouts: a `Rollout` with steps, judged all the while by an `AnalysisTemplate`, taken back by itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checks::{self, Check};
use super::{Rollout, pod, span};
use crate::error::Result;
use crate::values::number;

pub(super) fn objects(rollout: &Rollout<'_>) -> Result<BTreeMap<String, Vec<Value>>> {
    let (name, workload) = (rollout.name(), &rollout.main);
    let (stable, canary) = (format!("{name}-stable"), format!("{name}-canary"));
    let selector = rollout.selector();
    Ok(BTreeMap::from([
        ("rollout.yaml".to_owned(), vec![the_rollout(rollout, &name, &stable, &canary)]),
        (
            "service.yaml".to_owned(),
            vec![
                rollout.service(workload, &stable, &selector),
                rollout.service(workload, &canary, &selector),
            ],
        ),
        ("analysis.yaml".to_owned(), vec![smoke(rollout, &name, &canary), metrics(rollout, &name)?]),
    ]))
}

fn the_rollout(rollout: &Rollout<'_>, name: &str, stable: &str, canary: &str) -> Value {
    let settings = &rollout.main.settings;
    let mut steps = Vec::new();
    for (at, step) in settings.canary.iter().enumerate() {
        steps.push(json!({"setWeight": step.traffic}));
        if at == 0 {
            steps.push(json!({"analysis": {"templates": [{"templateName": format!("{name}-smoke")}]}}));
        }
        steps.push(json!({"pause": {"duration": span(step.pause)}}));
    }
    let mut metadata = rollout.metadata(&rollout.main, name);
    if settings.report.is_some() {
        for trigger in ["on-rollout-completed", "on-rollout-aborted"] {
            metadata["annotations"][format!("notifications.argoproj.io/subscribe.{trigger}.git-model")] =
                "".into();
        }
    }
    let routing = settings.ingress.as_ref().map(|ingress| json!({"nginx": {"stableIngress": ingress}}));
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": metadata,
        "spec": {
            "progressDeadlineAbort": true,
            "progressDeadlineSeconds": 1800,
            "replicas": settings.replicas,
            "revisionHistoryLimit": settings.history,
            "rollbackWindow": {"revisions": settings.history},
            "selector": {"matchLabels": rollout.selector()},
            "strategy": {"canary": {
                // From the first pause on: before that the new version has no traffic to be judged by.
                "analysis": {
                    "args": [{"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}}],
                    "startingStep": 2,
                    "templates": [{"templateName": format!("{name}-metrics")}],
                },
                "canaryMetadata": {"labels": {"git-model/track": "canary"}},
                "canaryService": canary,
                "maxSurge": 1,
                "maxUnavailable": 0,
                "stableMetadata": {"labels": {"git-model/track": "stable"}},
                "stableService": stable,
                "steps": steps,
                "trafficRouting": routing,
            }},
            "template": rollout.template(&rollout.main, &[]),
        },
    })
}

fn smoke(rollout: &Rollout<'_>, name: &str, canary: &str) -> Value {
    let workload = &rollout.main;
    let job = json!({
        "backoffLimit": 1,
        "template": {
            "metadata": {"labels": rollout.labels(workload, Some("smoke"))},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "smoke",
                    "image": super::tools(workload),
                    "command": checks::smoke_command(workload, canary, checks::Patience::LONG),
                    "resources": pod::small(),
                    "securityContext": pod::restricted(),
                }],
                "restartPolicy": "Never",
                "securityContext": pod::nonroot(),
            },
        },
    });
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": rollout.metadata(workload, &format!("{name}-smoke")),
        "spec": {"metrics": [{"name": "smoke", "provider": {"job": {"spec": job}}}]},
    })
}

fn metrics(rollout: &Rollout<'_>, name: &str) -> Result<Value> {
    let workload = &rollout.main;
    let analysis = &workload.settings.analysis;
    let checks = checks::checks(workload, &format!("{name}-{{{{args.hash}}}}-.*"))?;
    let metric = |check: &Check| {
        json!({
            "name": check.name,
            "failureLimit": analysis.failures,
            "interval": span(analysis.interval),
            "initialDelay": span(analysis.interval),
            "provider": {"prometheus": {"address": workload.settings.prometheus, "query": check.query}},
            "successCondition": condition(check),
        })
    };
    Ok(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": rollout.metadata(workload, &format!("{name}-metrics")),
        "spec": {"args": [{"name": "hash"}], "metrics": checks.iter().map(metric).collect::<Vec<_>>()},
    }))
}

/// No answer, several, and what is not a number fail.
fn condition(check: &Check) -> String {
    let mut condition = "len(result) == 1".to_owned();
    for (sign, bound) in [(">=", check.min), ("<=", check.max)] {
        if let Some(bound) = bound {
            condition.push_str(&format!(" && result[0] {sign} {}", number(bound)));
        }
    }
    condition
}
