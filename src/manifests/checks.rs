//! What a rollout is judged by: metrics as PromQL, and the job that asks for them where no controller does.

use serde_json::{Value, json};

use super::withdraw::{self, Withdrawal};
use super::{Rollout, Workload, pod};
use crate::error::{Error, Result};
use crate::model_yaml::{Deploy, Limit};
use crate::values::number;

/// Failing answers of servers that count requests as Prometheus' client libraries suggest. No failure at all is no series, not 0.
const ERROR_RATE: &str = "(sum(rate(http_requests_total{$new,code=~\"5..\"}[5m])) or vector(0))\n/\n\
                          sum(rate(http_requests_total{$new}[5m]))";
const LATENCY: &str =
    "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{$new}[5m])))";

/// In a host's name, the namespace that the job runs in.
pub(super) const NAMESPACE: &str = "$(NAMESPACE)";

/// Runs as `sh -c SCRIPT sh NAME CONDITION …`. No `$(` and no `$$`: Kubernetes would take them for its own.
const SCRIPT: &str = include_str!("verify.sh");

/// Seconds that the smoke request of the script may take, and one look at all metrics.
const LONGEST_SMOKE: u64 = 21 * 33;
const LONGEST_LOOK: u64 = 3 * 30;
/// Seconds for which the traffic is kept from a bad canary: somebody has to tell GitOps of another version.
const HOLD: u64 = 24 * 60 * 60;

/// A metric and its bounds.
pub(super) struct Check {
    /// Its name, as Kubernetes allows it.
    pub(super) name: String,
    /// PromQL that gives one number.
    pub(super) query: String,
    /// At least.
    pub(super) min: Option<f64>,
    /// At most.
    pub(super) max: Option<f64>,
}

/// Everything that the settings ask for. `pods` is a regular expression, or what a controller makes into one, for the pods of the
/// new version.
pub(super) fn checks(workload: &Workload, pods: &str) -> Result<Vec<Check>> {
    let settings = &workload.settings;
    let analysis = &settings.analysis;
    let check = |name: &str, limit: &Limit, usual: &str| -> Result<Check> {
        let query = limit.query.as_deref().unwrap_or(usual);
        let query = fill(query, settings, workload, pods)
            .map_err(|why| Error::refused(format!("deploy: the query of `{name}` {why}")))?;
        Ok(Check { name: name.to_owned(), query, min: limit.min, max: limit.max })
    };
    let mut checks = vec![
        check("error-rate", &analysis.error_rate, ERROR_RATE)?,
        check("latency-p95", &analysis.latency_p95, LATENCY)?,
    ];
    if let Some(business) = &analysis.business {
        checks.push(check(&business.name, &business.limit, "")?);
    }
    Ok(checks)
}

/// Puts what is known into a query.
fn fill(query: &str, settings: &Deploy, workload: &Workload, pods: &str) -> Result<String, &'static str> {
    let namespace = settings.namespace.as_deref();
    if query.contains("$namespace") && namespace.is_none() {
        return Err("has `$namespace`, and `namespace` is not set");
    }
    let selector = match namespace {
        Some(namespace) => format!("namespace=\"{namespace}\",pod=~\"{pods}\""),
        None => format!("pod=~\"{pods}\""),
    };
    Ok(query
        .trim_end()
        .replace("$new", &selector)
        .replace("$pods", pods)
        .replace("$namespace", namespace.unwrap_or_default())
        .replace("$version", workload.info.version.as_deref().unwrap_or_default()))
}

impl Check {
    /// PromQL that is 1 when the metric is as it must be, and 0 when it is not.
    fn condition(&self) -> String {
        let bound = |sign: &str, bound: f64| format!("(\n{}\n) {sign} bool {}", self.query, number(bound));
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("({}) * ({})", bound(">=", min), bound("<=", max)),
            (Some(min), None) => bound(">=", min),
            (None, max) => bound("<=", max.unwrap_or(f64::MAX)),
        }
    }
}

/// How long a smoke request may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Seconds for each attempt.
    pub(super) each: u32,
    /// Attempts after the first one, three seconds apart.
    pub(super) more: u32,
}

impl Patience {
    /// Where nobody waits for the answer.
    pub(super) const LONG: Patience = Patience { each: 30, more: 20 };
}

/// The command of a container that sends the smoke request to a service, waiting a while for it.
pub(super) fn smoke_command(workload: &Workload, host: &str, patience: Patience) -> Vec<String> {
    let smoke = &workload.settings.smoke;
    let [each, more] = [patience.each, patience.more].map(|number| number.to_string());
    let mut command: Vec<String> = [
        "curl",
        "--fail",
        "--silent",
        "--show-error",
        "--max-time",
        &each,
        "--retry",
        &more,
        "--retry-delay",
        "3",
        "--retry-all-errors",
        "--output",
        "/dev/null",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(body) = &smoke.body {
        command.extend(["--header".to_owned(), "Content-Type: application/json".to_owned()]);
        command.extend(["--data-raw".to_owned(), pod::literal(body)]);
    }
    command.push(pod::literal(&format!("http://{host}{}", smoke.path)));
    command
}

/// A job that sends the smoke request, looks at the metrics for as long as the steps take, takes the traffic from a canary that is bad
/// where it may, and reports how it ended.
pub(super) fn job(
    rollout: &Rollout<'_>,
    host: &str,
    pods: &str,
    withdrawal: Option<&Withdrawal>,
) -> Result<Value> {
    let workload = &rollout.main;
    let settings = &workload.settings;
    let analysis = &settings.analysis;
    let pauses: u64 = settings.canary.iter().map(|step| step.pause.as_secs()).sum();
    let interval = analysis.interval.as_secs();
    let rounds = pauses.div_ceil(interval).max(1);
    let mut args = Vec::new();
    for check in checks(workload, pods)? {
        args.extend([check.name.clone(), pod::literal(&check.condition())]);
    }
    let report = |outcome: &str| pod::literal(&outcome_of(rollout, outcome).to_string());
    let env = |name: &str, value: String| json!({"name": name, "value": value});
    let smoke = &settings.smoke;
    let mut variables = Vec::new();
    if host.contains(NAMESPACE) {
        variables.push(
            json!({"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
        );
    }
    variables.extend([
        env("SMOKE_URL", format!("http://{host}{}", pod::literal(&smoke.path))),
        env("SMOKE_BODY", pod::literal(smoke.body.as_deref().unwrap_or_default())),
        env("PROMETHEUS", pod::literal(&settings.prometheus)),
        env("ROUNDS", rounds.to_string()),
        env("INTERVAL", interval.to_string()),
        env("FAILURES", analysis.failures.to_string()),
        env("REPORT_URL", pod::literal(settings.report.as_deref().unwrap_or_default())),
        env("REPORT_OK", report("ok")),
        env("REPORT_ABORTED", report("aborted")),
    ]);
    variables.extend(withdrawal.into_iter().flat_map(|withdrawal| withdrawal.variables(rollout)));
    let container = json!({
        "name": "verify",
        "image": super::tools(workload),
        "command": ["sh", "-c", SCRIPT, "verify"],
        "args": args,
        "env": variables,
        "resources": pod::small(),
        "securityContext": pod::restricted(),
    });
    Ok(json!({
        "activeDeadlineSeconds": withdrawal.map(|_| LONGEST_SMOKE + rounds * (interval + LONGEST_LOOK) + HOLD),
        "backoffLimit": 0,
        "template": {
            "metadata": {"labels": rollout.labels(workload, Some("verify"))},
            "spec": {
                "automountServiceAccountToken": withdrawal.is_some(),
                "containers": [container],
                "restartPolicy": "Never",
                "securityContext": pod::nonroot(),
                "serviceAccountName": withdrawal.map(|_| withdraw::account(rollout)),
            },
        },
    }))
}

/// What the receiver of reports takes.
pub(super) fn outcome_of(rollout: &Rollout<'_>, outcome: &str) -> Value {
    let info = &rollout.main.info;
    json!({"model": info.model, "stage": rollout.stage, "version": info.version, "outcome": outcome})
}
