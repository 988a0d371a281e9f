//! Flagger: a `Deployment` that it copies, an autoscaler that says how many pods, a `Canary` with steps, and a `MetricTemplate` for
//! each metric.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::checks::Patience;
use super::{Rollout, checks, kubernetes};
use crate::error::Result;
use crate::model_yaml::Deploy;

pub(super) fn objects(rollout: &Rollout<'_>) -> Result<BTreeMap<String, Vec<Value>>> {
    let name = rollout.name();
    // Flagger's own pattern: the pods of the target, not those of its copy.
    let checks = checks::checks(&rollout.main, "{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)")?;
    let template = |check: &checks::Check| {
        json!({
            "apiVersion": "flagger.app/v1beta1",
            "kind": "MetricTemplate",
            "metadata": rollout.metadata(&rollout.main, &format!("{name}-{}", check.name)),
            "spec": {
                "provider": {"type": "prometheus", "address": rollout.main.settings.prometheus},
                "query": check.query,
            },
        })
    };
    Ok(BTreeMap::from([
        (
            "deployment.yaml".to_owned(),
            vec![kubernetes::deployment(rollout, &rollout.main, &name, None, None)],
        ),
        ("autoscaler.yaml".to_owned(), vec![autoscaler(rollout, &name)]),
        ("canary.yaml".to_owned(), vec![canary(rollout, &name, &checks)]),
        ("metrics.yaml".to_owned(), checks.iter().map(template).collect()),
    ]))
}

/// Says how many pods there are. Flagger scales the deployment to none between two rollouts; `replicas` in it would bring pods of the
/// canary back with each sync of GitOps.
fn autoscaler(rollout: &Rollout<'_>, name: &str) -> Value {
    let replicas = rollout.main.settings.replicas;
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": rollout.metadata(&rollout.main, name),
        "spec": {
            "maxReplicas": replicas,
            // It must have one; it never decides, since both bounds are the same.
            "metrics": [{
                "resource": {"name": "cpu", "target": {"averageUtilization": 80, "type": "Utilization"}},
                "type": "Resource",
            }],
            "minReplicas": replicas,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        },
    })
}

/// The load tester's address. Flagger calls it from its own namespace, so a bare name gets the model's.
fn loadtester(settings: &Deploy) -> String {
    let url = &settings.loadtester;
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest.split_at(rest.find(['/', ':', '?', '#']).unwrap_or(rest.len()));
    match &settings.namespace {
        Some(namespace) if !host.contains('.') => format!("{scheme}://{host}.{namespace}{path}"),
        _ => url.clone(),
    }
}

fn canary(rollout: &Rollout<'_>, name: &str, checks: &[checks::Check]) -> Value {
    let workload = &rollout.main;
    let settings = &workload.settings;
    // One look for each step: Flagger knows one interval only, so the longest pause holds for all.
    let interval = settings.canary.iter().map(|step| step.pause).max().unwrap_or(settings.analysis.interval);
    let weights: Vec<u8> = settings.canary.iter().map(|step| step.traffic).collect();
    let metric = |check: &checks::Check| {
        json!({
            "name": check.name,
            "interval": minutes(interval),
            "templateRef": {"name": format!("{name}-{}", check.name)},
            "thresholdRange": {"max": check.max, "min": check.min},
        })
    };
    let host = match &settings.namespace {
        Some(namespace) => format!("{name}-canary.{namespace}"),
        None => format!("{name}-canary"),
    };
    // The load tester gives it to a shell, and must answer within a minute. The pods are ready before it is asked.
    let patience = Patience { each: 15, more: 2 };
    let command = checks::smoke_command(workload, &host, patience);
    let command: Vec<String> = command.iter().map(|word| quoted(&word.replace("$$", "$"))).collect();
    let mut webhooks = vec![json!({
        "name": "smoke",
        "type": "pre-rollout",
        "url": loadtester(settings),
        "timeout": "60s",
        "metadata": {"type": "bash", "cmd": command.join(" ")},
    })];
    if let Some(url) = &settings.report {
        let info = &workload.info;
        webhooks.push(json!({
            "name": "git-model",
            "type": "post-rollout",
            "url": url,
            "retries": 5,
            // The receiver pushes a tag; Flagger would give up after ten seconds.
            "timeout": "60s",
            "metadata": {"model": info.model, "stage": rollout.stage.as_str(), "version": info.version},
        }));
    }
    let ingress = settings.ingress.as_ref();
    json!({
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": rollout.metadata(workload, name),
        "spec": {
            "analysis": {
                "interval": minutes(interval),
                "metrics": checks.iter().map(metric).collect::<Vec<_>>(),
                "stepWeights": weights,
                "threshold": settings.analysis.failures + 1,
                "webhooks": webhooks,
            },
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": name},
            "ingressRef": ingress
                .map(|name| json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": name})),
            "progressDeadlineSeconds": 1800,
            "provider": ingress.map(|_| "nginx"),
            // What was good in this stage need not wait for all the steps once more.
            "skipAnalysis": rollout.is_back.then_some(true),
            "service": {"port": 80, "targetPort": settings.port},
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        },
    })
}

/// A span as Flagger's schema takes it: minutes or seconds.
fn minutes(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A word for a shell; unlike a path, it may be an option.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_load_tester_is_in_the_models_namespace() {
        let address = |url: &str, namespace: Option<&str>| {
            let namespace = namespace.map(str::to_owned);
            loadtester(&Deploy { loadtester: url.to_owned(), namespace, ..Deploy::default() })
        };
        assert_eq!(address("http://tester", Some("ml")), "http://tester.ml");
        assert_eq!(address("https://tester:8080/a?b=c.d", Some("ml")), "https://tester.ml:8080/a?b=c.d");
        assert_eq!(address("http://tester/a.b", Some("ml")), "http://tester.ml/a.b");
        assert_eq!(address("http://tester.test:80/", Some("ml")), "http://tester.test:80/");
        assert_eq!(address("http://tester", None), "http://tester");
    }
}
