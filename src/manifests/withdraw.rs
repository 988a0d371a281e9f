//! Taking the traffic from a bad canary where no controller does: what the job that judges asks Kubernetes for, and the rights it needs.

use serde_json::{Value, json};

use super::{Rollout, pod};

/// How the traffic is taken away.
pub(super) struct Withdrawal {
    /// What is asked for first, and must name the version that was judged.
    guard: String,
    /// What is changed.
    path: String,
    /// How it is changed.
    media: &'static str,
    patch: Value,
    /// What the job may do, and nothing else.
    rules: Value,
}

/// A canary's deployment is scaled to none. `None` where there is no canary, or its namespace is not known: an account belongs to
/// one.
pub(super) fn of_deployment(rollout: &Rollout<'_>, canary: &str) -> Option<Withdrawal> {
    let namespace = namespace(rollout)?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{canary}");
    let rule = |resource: &str, verb: &str| json!({"apiGroups": ["apps"], "resourceNames": [canary], "resources": [resource], "verbs": [verb]});
    Some(Withdrawal {
        path: format!("{path}/scale"),
        guard: path,
        media: "application/merge-patch+json",
        patch: json!({"spec": {"replicas": 0}}),
        rules: json!([rule("deployments", "get"), rule("deployments/scale", "patch")]),
    })
}

/// A canary's share becomes 0. Pods of two revisions have names alike: where a query does not tell them apart by the version, the
/// metrics say nothing about the canary, and nothing is done by them.
pub(super) fn of_inference_service(rollout: &Rollout<'_>, name: &str) -> Option<Withdrawal> {
    let namespace = namespace(rollout)?;
    let analysis = &rollout.main.settings.analysis;
    let business = analysis.business.as_ref().map(|business| &business.limit);
    let mut limits = [&analysis.error_rate, &analysis.latency_p95].into_iter().chain(business);
    if !limits.all(|limit| limit.query.as_ref().is_some_and(|query| query.contains("$version"))) {
        return None;
    }
    Some(Withdrawal {
        path: format!("/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}"),
        // The patch tests by itself.
        guard: String::new(),
        media: "application/json-patch+json",
        patch: json!([
            {"op": "test", "path": "/metadata/annotations/git-model~1version", "value": rollout.main.version()},
            {"op": "add", "path": "/spec/predictor/canaryTrafficPercent", "value": 0},
        ]),
        rules: json!([{
            "apiGroups": ["serving.kserve.io"],
            "resourceNames": [name],
            "resources": ["inferenceservices"],
            "verbs": ["patch"],
        }]),
    })
}

/// The namespace of a canary that has a share.
fn namespace<'a>(rollout: &'a Rollout<'_>) -> Option<&'a str> {
    rollout.traffic.filter(|share| *share > 0)?;
    rollout.main.settings.namespace.as_deref()
}

/// The name of the account and of its rights.
pub(super) fn account(rollout: &Rollout<'_>) -> String {
    format!("{}-verify", rollout.name())
}

impl Withdrawal {
    /// What the script is told.
    pub(super) fn variables(&self, rollout: &Rollout<'_>) -> Vec<Value> {
        let env = |name: &str, value: &str| json!({"name": name, "value": pod::literal(value)});
        vec![
            env("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"),
            env("KUBERNETES", "https://kubernetes.default.svc"),
            env("VERSION", rollout.main.version()),
            env("WITHDRAW", &self.path),
            env("WITHDRAW_GUARD", &self.guard),
            env("WITHDRAW_MEDIA", self.media),
            env("WITHDRAW_PATCH", &self.patch.to_string()),
        ]
    }

    /// The account of the job and its rights.
    pub(super) fn objects(&self, rollout: &Rollout<'_>) -> Vec<Value> {
        let name = account(rollout);
        let metadata = rollout.metadata(&rollout.main, &name);
        vec![
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": metadata,
                "automountServiceAccountToken": false,
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": metadata,
                "rules": self.rules,
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": metadata["namespace"]}],
            }),
        ]
    }
}
