//! Manifests: valid under the published schemas for every target, the same every time, and in step with the tags of their stage.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::fake_server::{FakeServer, reply};
use crate::support::models::{churn, declare, record, train, trusted_clone};
use crate::support::{Repo, Sandbox, prepared, published};

const SERVER: &str =
    "ghcr.io/acme/churn@sha256:1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str =
    "ghcr.io/acme/churn@sha256:2222222222222222222222222222222222222222222222222222222222222222";
const TOOLS: &str =
    "ghcr.io/acme/tools@sha256:3333333333333333333333333333333333333333333333333333333333333333";
const TARGETS: [&str; 4] = ["kserve", "argo-rollouts", "flagger", "kubernetes"];
const RULES: &str = "stages: {staging: {}, prod: {}}\n";

/// Everything that the block can say.
fn full() -> String {
    format!(
        "deploy:
  image: {SERVER}
  tools: {TOOLS}
  port: 8080
  replicas: 4
  resources: {{cpu: '2', memory: 4Gi, gpu: 1}}
  health: /healthz
  smoke: {{path: /predict, body: '{{\"features\": [1, \"$(MODEL_NAME)\"]}}'}}
  namespace: ml
  credentials: churn-store
  ingress: churn
  history: 3
  canary: [{{traffic: 5, pause: 90s}}, {{traffic: 50, pause: 2h}}]
  analysis:
    interval: 30s
    failures: 1
    error_rate: {{max: 0.02}}
    latency_p95: {{max: 0.25}}
    business: {{name: accepted, query: 'sum(accepted{{$new}}) / sum(shown{{namespace=\"$namespace\"}})', min: 0.2, max: 1}}
  prometheus: http://prometheus.monitoring:9090
  loadtester: http://flagger-loadtester.test
  report: http://reporter.ml:8080/
"
    )
}

/// A model with this `deploy` block, released as 1.0.0 and in prod, on a bare remote.
fn in_prod(sandbox: &Sandbox, deploy: &str) -> Repo {
    sandbox.at("").git(["init", "-q", "--bare", "remote.git"]).ok();
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "", &format!("{RULES}{deploy}"));
    record(&repo, "rules");
    repo.git(["remote", "add", "origin", "../remote.git"]).ok();
    repo.git(["push", "-q", "-u", "origin", "main"]).ok();
    sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    repo
}

/// A new version, released.
fn next(repo: &Repo, step: f32, version: &str) {
    train(repo, step);
    repo.write("m/eval.json", json!({"auc": step / 10.0}).to_string());
    record(repo, version);
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", version]).ok();
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Every object in the manifests of a directory.
fn objects(dir: &Path) -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, text) in files(dir) {
        if name.ends_with(".yaml") {
            assert!(text.starts_with("# Made by git model deploy from "), "{name}: {text}");
            let documents = text.split("---\n").map(|text| serde_yaml::from_str::<Value>(text).unwrap());
            objects.extend(documents.filter(|object| object["kind"] != "Kustomization"));
        }
    }
    objects
}

fn of_kind(dir: &Path, kind: &str) -> Vec<Value> {
    objects(dir).into_iter().filter(|object| object["kind"] == kind).collect()
}

/// The published schema of an object, in which what is not named is refused. `None` where it is not at hand.
fn schema(object: &Value) -> Option<Value> {
    let kind = object["kind"].as_str().unwrap();
    let core = match kind {
        "Deployment" => Some("io.k8s.api.apps.v1.Deployment"),
        "Job" => Some("io.k8s.api.batch.v1.Job"),
        "Service" => Some("io.k8s.api.core.v1.Service"),
        "ConfigMap" => Some("io.k8s.api.core.v1.ConfigMap"),
        "ServiceAccount" => Some("io.k8s.api.core.v1.ServiceAccount"),
        "Role" => Some("io.k8s.api.rbac.v1.Role"),
        "RoleBinding" => Some("io.k8s.api.rbac.v1.RoleBinding"),
        "HorizontalPodAutoscaler" => Some("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
        _ => None,
    };
    if let Some(name) = core {
        let path = prepared("kubernetes-schemas-1.33").join("definitions.json");
        let mut schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        schema["$ref"] = format!("#/$defs/{name}").into();
        return Some(schema);
    }
    let file = match kind {
        "Rollout" => "argo-rollout.yaml",
        "AnalysisTemplate" => "argo-analysistemplate.yaml",
        "InferenceService" => "kserve-inferenceservice.yaml",
        "Canary" | "MetricTemplate" => "flagger.yaml",
        other => panic!("no schema for {other}"),
    };
    let text = std::fs::read_to_string(published("deploy", &format!("crds/{file}"))?).unwrap();
    let definitions = text.split("\n---\n").map(|text| serde_yaml::from_str::<Value>(text).unwrap());
    let definition = definitions.into_iter().find(|found| found["spec"]["names"]["kind"] == kind).unwrap();
    let (_, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let served = versions.iter().find(|found| found["name"] == version && found["served"] == true).unwrap();
    let mut schema = strict(served["schema"]["openAPIV3Schema"].clone());
    // The API server checks metadata by itself; the published schemas leave it open.
    let text = json!({"type": "object", "additionalProperties": {"type": "string"}});
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": text, "annotations": text},
    });
    Some(schema)
}

fn strict(schema: Value) -> Value {
    let Value::Object(map) = schema else { return schema };
    let mut out = serde_json::Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.into_iter().map(|(name, schema)| (name, strict(schema))).collect()
            }
            ("items" | "additionalProperties", value) => strict(value),
            (_, value) => value,
        };
        out.insert(key, value);
    }
    let open = out.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into());
    if out.get("type") == Some(&"object".into()) && !open && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), false.into());
    }
    Value::Object(out)
}

/// Everything in the directory must be as the schemas want it, and every label as Kubernetes does.
#[track_caller]
fn must_be_valid(dir: &Path) {
    let objects = objects(dir);
    assert!(objects.len() > 1, "{objects:?}");
    for object in &objects {
        if let Some(schema) = schema(object) {
            let validator = jsonschema::validator_for(&schema).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(object)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}\n{object:#}", errors.join("\n"));
        }
        labels_fit(object);
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63 || object["kind"] == "ConfigMap", "{name}");
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }
}

fn labels_fit(value: &Value) {
    let ends = |text: &str, at: fn(&str) -> Option<char>| at(text).is_none_or(|c| c.is_ascii_alphanumeric());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                for label in
                    value.as_object().filter(|_| key == "labels").into_iter().flat_map(|map| map.values())
                {
                    let text = label.as_str().unwrap();
                    assert!(text.len() <= 63, "{text}");
                    assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{text}");
                    assert!(ends(text, |t| t.chars().next()) && ends(text, |t| t.chars().last()), "{text}");
                }
                labels_fit(value);
            }
        }
        Value::Array(items) => items.iter().for_each(labels_fit),
        _ => {}
    }
}

#[test]
fn manifests_of_every_target_are_valid() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    for target in TARGETS {
        let dir = format!("../{target}");
        repo.model(["deploy", "churn#prod", "--target", target, "-o", &dir])
            .says("churn@v1.1.0 for prod")
            .ok();
        let dir = sandbox.join(target);
        must_be_valid(&dir);
        // What is served is pinned and named everywhere.
        let text: String = files(&dir).into_values().collect();
        assert!(text.contains(SERVER) && text.contains("git-model/release: churn@v1.1.0"), "{text}");
        assert!(
            text.contains("- name: MODEL_VERSION\n") && text.contains("app.kubernetes.io/version: \"1.1.0\""),
            "{text}"
        );
        assert!(!text.contains(":latest"));
        let lock = files(&dir)["lock-1.1.0.yaml"].clone();
        assert!(lock.contains("immutable: true") && lock.contains("git-model/lock/v1"), "{lock}");
    }

    let rollout = of_kind(&sandbox.join("argo-rollouts"), "Rollout").remove(0);
    let canary = &rollout["spec"]["strategy"]["canary"];
    assert_eq!(
        canary["steps"],
        json!([
            {"setWeight": 5},
            {"analysis": {"templates": [{"templateName": "churn-prod-smoke"}]}},
            {"pause": {"duration": "90s"}},
            {"setWeight": 50},
            {"pause": {"duration": "2h"}},
        ])
    );
    assert_eq!(canary["trafficRouting"], json!({"nginx": {"stableIngress": "churn"}}));
    assert_eq!(rollout["spec"]["rollbackWindow"], json!({"revisions": 3}));
    assert_eq!(rollout["spec"]["progressDeadlineAbort"], true);
    let templates = of_kind(&sandbox.join("argo-rollouts"), "AnalysisTemplate");
    let metrics =
        templates.iter().find(|template| template["metadata"]["name"] == "churn-prod-metrics").unwrap();
    let metrics = metrics["spec"]["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), 3);
    assert_eq!(metrics[2]["successCondition"], "len(result) == 1 && result[0] >= 0.2 && result[0] <= 1");
    assert_eq!(
        metrics[2]["provider"]["prometheus"]["query"],
        r#"sum(accepted{namespace="ml",pod=~"churn-prod-{{args.hash}}-.*"}) / sum(shown{namespace="ml"})"#
    );

    let canary = of_kind(&sandbox.join("flagger"), "Canary").remove(0);
    assert_eq!(canary["spec"]["analysis"]["stepWeights"], json!([5, 50]));
    assert_eq!(
        canary["spec"]["analysis"]["webhooks"][1]["metadata"],
        json!({"model": "churn", "stage": "prod", "version": "1.1.0"})
    );
    // The load tester answers within a minute or not at all.
    let webhooks = canary["spec"]["analysis"]["webhooks"].as_array().unwrap();
    assert!(webhooks.iter().all(|webhook| webhook["timeout"] == "60s"), "{webhooks:?}");
    let command = webhooks[0]["metadata"]["cmd"].as_str().unwrap();
    assert!(command.contains("--max-time 15 --retry 2 --retry-delay 3 "), "{command}");
    assert!(command.ends_with(" http://churn-prod-canary.ml/predict"), "{command}");
    // Flagger scales the deployment to none; what GitOps puts back must not undo that.
    let deployment = of_kind(&sandbox.join("flagger"), "Deployment").remove(0);
    assert!(deployment["spec"]["replicas"].is_null());
    let autoscaler = of_kind(&sandbox.join("flagger"), "HorizontalPodAutoscaler").remove(0);
    let bounds = (&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]);
    assert_eq!(bounds, (&4.into(), &4.into()));
    assert_eq!(autoscaler["spec"]["scaleTargetRef"], canary["spec"]["targetRef"]);
    assert_eq!(autoscaler["metadata"]["name"], canary["spec"]["autoscalerRef"]["name"]);

    let service = of_kind(&sandbox.join("kserve"), "InferenceService").remove(0);
    let predictor = &service["spec"]["predictor"];
    assert_eq!(predictor["canaryTrafficPercent"], 10);
    assert_eq!(service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"], "Knative");
    // Knative refuses a security context of the pod.
    assert!(predictor["securityContext"].is_null());
    for container in [&predictor["containers"][0], &predictor["initContainers"][0]] {
        let context = &container["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(context["allowPrivilegeEscalation"], false);
    }
    // Knative's gateway knows full names only; the tag is that of the new revision.
    let url = variable(&sandbox.join("kserve"), "SMOKE_URL");
    assert_eq!(url, "http://latest-churn-prod-predictor.ml.svc.cluster.local/predict");
    assert_eq!(service["metadata"]["annotations"]["serving.kserve.io/enable-tag-routing"], "true");

    // Kubernetes alone: the versions stand side by side, and their numbers make the shares.
    let deployments = of_kind(&sandbox.join("kubernetes"), "Deployment");
    let versions: Vec<_> = deployments
        .iter()
        .map(|object| (&object["metadata"]["annotations"]["git-model/version"], &object["spec"]["replicas"]))
        .collect();
    assert_eq!(versions, [(&"1.1.0".into(), &1.into()), (&"1.0.0".into(), &4.into())]);
    assert!(files(&sandbox.join("kubernetes")).contains_key("lock-1.0.0.yaml"));
}

#[test]
fn the_strict_schemas_do_refuse() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    for (target, kind, place) in [
        ("argo-rollouts", "Rollout", "/spec/strategy/canary"),
        ("argo-rollouts", "AnalysisTemplate", "/spec"),
        ("flagger", "Canary", "/spec/analysis"),
        ("flagger", "MetricTemplate", "/spec"),
        ("flagger", "HorizontalPodAutoscaler", "/spec"),
        ("kserve", "InferenceService", "/spec/predictor"),
        ("kubernetes", "Deployment", "/spec/template/spec"),
        ("kubernetes", "Job", "/spec"),
        ("kubernetes", "Service", "/spec"),
    ] {
        let dir = format!("../{target}");
        repo.model(["deploy", "churn#prod", "--target", target, "-o", &dir]).ok();
        let mut object = of_kind(&sandbox.join(target), kind).remove(0);
        let Some(schema) = schema(&object) else { continue };
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(validator.is_valid(&object));
        object.pointer_mut(place).unwrap()["replicaz"] = 1.into();
        assert!(!validator.is_valid(&object), "{kind}");
    }
}

#[test]
fn ways_of_supply() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, "deploy: {model: embedded, format: sklearn}\n");
    let args = ["deploy", "churn@1.0.0", "--stage", "prod", "-o", "../out", "--target"];
    let deploy = |target: &str, more: &[&str]| {
        let dir = sandbox.join("out");
        if dir.exists() {
            std::fs::remove_dir_all(dir).unwrap();
        }
        let all: Vec<&str> = args.iter().copied().chain([target]).chain(more.iter().copied()).collect();
        repo.model(all)
    };
    for target in TARGETS {
        deploy(target, &[]).fails(3, "no image of its server is known");
        assert!(!sandbox.join("out").exists());
        // Everything in one image.
        deploy(target, &["--image", SERVER]).ok();
        must_be_valid(&sandbox.join("out"));
        let text: String = files(&sandbox.join("out")).into_values().collect();
        assert!(!text.contains("initContainers") && !text.contains("lock-"), "{text}");
        // An image of the model beside the server's.
        deploy(target, &["--image", SERVER, "--model-image", OTHER]).ok();
        must_be_valid(&sandbox.join("out"));
        let text: String = files(&sandbox.join("out")).into_values().collect();
        assert!(text.contains(OTHER) && !text.contains("initContainers"), "{text}");
    }
    // A runtime of KServe's own.
    deploy("kserve", &["--model-image", OTHER]).fails(3, "no image for its jobs");
    deploy("kserve", &["--model-image", OTHER, "--tools", TOOLS]).ok();
    must_be_valid(&sandbox.join("out"));
    let model = &of_kind(&sandbox.join("out"), "InferenceService")[0]["spec"]["predictor"]["model"];
    // Not modelcar's `oci://`, which needs a shell in the image.
    assert_eq!(model["storageUri"], format!("oci+native://{OTHER}"));
    deploy("kubernetes", &["--image", "ghcr.io/acme/churn:latest"]).fails_value();
}

/// A variable of the job that judges.
fn variable(dir: &Path, name: &str) -> String {
    let job = of_kind(dir, "Job").remove(0);
    let variables = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.unwrap_or_else(|| panic!("{variables:?}"))["value"].as_str().unwrap().to_owned()
}

#[test]
fn without_a_namespace() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &format!("deploy: {{image: {SERVER}}}\n"));
    repo.model(["deploy", "churn#prod", "--target", "kserve", "-o", "../kserve"]).ok();
    // The job puts in its own.
    let url = variable(&sandbox.join("kserve"), "SMOKE_URL");
    assert_eq!(url, "http://latest-churn-prod-predictor.$(NAMESPACE).svc.cluster.local/healthz");
    let job = of_kind(&sandbox.join("kserve"), "Job").remove(0);
    let first = &job["spec"]["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(first["valueFrom"]["fieldRef"]["fieldPath"], "metadata.namespace");
    repo.model(["deploy", "churn#prod", "--target", "flagger", "-o", "../flagger"])
        .says("`namespace` is not set")
        .ok();
    let loadtester = |dir: &str| {
        let canary = of_kind(&sandbox.join(dir), "Canary").remove(0);
        canary["spec"]["analysis"]["webhooks"][0]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(loadtester("flagger"), "http://flagger-loadtester");
    // An account belongs to a namespace, so nothing is taken from a canary here.
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    repo.model(["deploy", "churn#prod", "--target", "kubernetes", "-o", "../kubernetes"]).ok();
    assert!(of_kind(&sandbox.join("kubernetes"), "Role").is_empty());
    // Flagger would look for a bare name in its own namespace.
    let sandbox = Sandbox::new();
    let repo = in_prod(
        &sandbox,
        &format!("deploy: {{image: {SERVER}, namespace: ml, loadtester: 'http://tester:8080/'}}\n"),
    );
    repo.model(["deploy", "churn#prod", "--target", "flagger", "-o", "../flagger"]).ok();
    let canary = of_kind(&sandbox.join("flagger"), "Canary").remove(0);
    assert_eq!(canary["spec"]["analysis"]["webhooks"][0]["url"], "http://tester.ml:8080/");
}

#[test]
fn the_end_of_a_canary_of_kserve_leaves_the_traffic_where_it_was() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    let dir = sandbox.join("out");
    let deploy = || repo.model(["deploy", "churn#prod", "--target", "kserve", "-o", "../out"]);
    let share = || {
        let service = of_kind(&dir, "InferenceService").remove(0);
        let version = service["metadata"]["annotations"]["git-model/version"].as_str().unwrap().to_owned();
        (version, service["spec"]["predictor"]["canaryTrafficPercent"].as_u64())
    };
    deploy().ok();
    assert_eq!(share(), ("1.0.0".to_owned(), None));
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    deploy().ok();
    assert_eq!(share(), ("1.1.0".to_owned(), Some(10)));
    repo.model(["outcome", "churn", "prod", "aborted"]).ok();
    repo.model(["deploy", "--check", "../out"]).fails(3, "the manifests name v1.1.0, prod wants v1.0.0");
    // All traffic to the newest revision that is ready would be all to the canary, until other pods are ready.
    deploy().says("churn@v1.0.0 for prod (kserve)").never_says("until the pods").ok();
    assert_eq!(share(), ("1.0.0".to_owned(), Some(0)));
    repo.model(["deploy", "--check", "../out"]).ok();
    deploy().says("nothing to do").ok();
    // Other pods of this version must get the traffic, too.
    repo.model(["deploy", "churn#prod", "-o", "../out", "--image", OTHER]).ok();
    assert_eq!(share(), ("1.0.0".to_owned(), None));

    next(&repo, 3.0, "1.2.0");
    repo.model(["promote", "churn@1.2.0", "prod", "--traffic", "10"]).ok();
    deploy().ok();
    repo.model(["rollback", "churn", "prod", "--to", "1.0.0", "--deploy", "../out"]).ok();
    assert_eq!(share(), ("1.0.0".to_owned(), Some(0)));
    // A canary that takes over, and the way back from there: nothing keeps the traffic.
    repo.model(["promote", "churn@1.2.0", "prod"]).ok();
    deploy().ok();
    assert_eq!(share(), ("1.2.0".to_owned(), None));
    repo.model(["rollback", "churn", "prod", "--deploy", "../out"]).ok();
    assert_eq!(share(), ("1.0.0".to_owned(), None));
    // From a canary to a version that it does not stand beside.
    repo.model(["promote", "churn@1.2.0", "prod", "--traffic", "10"]).ok();
    deploy().ok();
    next(&repo, 4.0, "1.3.0");
    repo.model(["promote", "churn@1.3.0", "prod"]).ok();
    deploy().says("until the pods of v1.3.0 are ready, KServe gives all traffic to v1.2.0").ok();
    assert_eq!(share(), ("1.3.0".to_owned(), None));
}

#[test]
fn a_way_back_with_flagger_is_not_analysed_again() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    let skips = || of_kind(&sandbox.join("out"), "Canary").remove(0)["spec"]["skipAnalysis"].clone();
    repo.model(["deploy", "churn#prod", "--target", "flagger", "-o", "../out"]).ok();
    assert!(skips().is_null());
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).ok();
    assert!(skips().is_null());
    repo.model(["rollback", "churn", "prod", "--deploy", "../out"]).ok();
    assert_eq!(skips(), true);
    must_be_valid(&sandbox.join("out"));
    repo.model(["deploy", "--check", "../out"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).says("nothing to do").ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).ok();
    assert!(skips().is_null());
}

#[test]
fn equal_releases_give_equal_bytes() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    let clone = sandbox.clone_of(&repo, "clone");
    clone.git(["remote", "set-url", "origin", "../remote.git"]).ok();
    for target in TARGETS {
        for (from, name) in [(&repo, "one"), (&clone, "two")] {
            let dir = format!("../{target}-{name}");
            from.env("TZ", "Asia/Tokyo").model(["deploy", "churn#prod", "--target", target, "-o", &dir]).ok();
        }
        let [one, two] = ["one", "two"].map(|name| files(&sandbox.join(&format!("{target}-{name}"))));
        assert_eq!(one, two);
        let dir = format!("../{target}-one");
        repo.model(["deploy", "churn@1.0.0", "--stage", "prod", "-o", &dir]).says("nothing to do").ok();
    }
}

#[test]
fn hostile_text_stays_text() {
    let sandbox = Sandbox::new();
    let query = r#"sum(a{b=\"'\"})\n---\nkind: Secret\n# $(HOME) `id` ; 'no' \\"#;
    let block = format!(
        "deploy:\n  image: {SERVER}\n  report: http://r/$(id)\n  smoke: {{path: \"/p?a=$(HOME)&b=';id\", body: '\"$$\\u2028 ''; id\"'}}\n  \
         analysis: {{business: {{name: \"no\", query: \"{query}\", max: 1}}}}\n"
    );
    let repo = in_prod(&sandbox, &block);
    let expected = "sum(a{b=\"'\"})\n---\nkind: Secret\n# $(HOME) `id` ; 'no' \\";
    for target in TARGETS {
        repo.model(["deploy", "churn#prod", "--target", target, "-o", "../out"]).ok();
        let dir = sandbox.join("out");
        // A document separator of a query must not become one of the file; so the files are not split here.
        let mut kinds = Vec::new();
        for (name, text) in files(&dir).into_iter().filter(|(name, _)| name.ends_with(".yaml")) {
            let python = repo.sh(&format!(
                "python3 -c 'import json, yaml; print(json.dumps(list(yaml.safe_load_all(open(\"../out/{name}\")))))'"
            ));
            let documents: Vec<Value> = serde_json::from_str(&python.ok()).unwrap();
            for object in documents {
                kinds.push(object["kind"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned());
                if object["kind"] == "MetricTemplate" && object["metadata"]["name"] == "churn-prod-no" {
                    assert_eq!(object["spec"]["query"], expected);
                }
                if object["kind"] == "Job" {
                    let container = &object["spec"]["template"]["spec"]["containers"][0];
                    let args = container["args"].as_array().unwrap();
                    assert_eq!(args[4], "no");
                    // As Kubernetes hands it on: `$$` is `$`.
                    let condition = args[5].as_str().unwrap().replace("$$", "$");
                    assert_eq!(condition, format!("(\n{expected}\n) <= bool 1"));
                    assert!(!args[5].as_str().unwrap().replace("$$", "").contains("$("));
                }
            }
        }
        assert!(!kinds.contains(&"Secret".to_owned()), "{kinds:?}");
    }
    // Names that fit git do not all fit Kubernetes.
    let sandbox = Sandbox::new();
    let long = format!("Team/{}.x", "Very-long_".repeat(15) + "name");
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "name: churn", &format!("name: {long}"));
    let text = repo.text("m/model.yaml");
    repo.write("m/model.yaml", format!("{text}{RULES}deploy: {{image: {SERVER}}}\n"));
    repo.model(["record", &long]).ok();
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "long"]).ok();
    let version = format!("1.0.0-{}+build.7", "rc-1.".repeat(6) + "1");
    repo.model(["release", &long, &version]).ok();
    repo.model(["promote", &format!("{long}@v{version}"), "prod"]).ok();
    for target in TARGETS {
        repo.model(["deploy", &format!("{long}#prod"), "--target", target, "-o", "../out"]).ok();
        must_be_valid(&sandbox.join("out"));
        repo.model(["deploy", "--check", "../out"]).says("agrees").ok();
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    repo.write("../out/patch.yaml", "mine");
    repo.write("../out/kustomization.yaml", "mine, too");
    let args = ["deploy", "churn#prod", "--target", "flagger", "-o", "../out"];
    repo.model(args).fails(3, "kustomization.yaml: is in the way");
    std::fs::remove_file(sandbox.join("out/kustomization.yaml")).unwrap();
    repo.model(args).says("left alone: patch.yaml").ok();
    // Another target: its files replace the former ones, which were ours.
    let other = repo.json(["deploy", "churn#prod", "--target", "argo-rollouts", "-o", "../out"]);
    assert_eq!(
        other["removed"],
        json!(["autoscaler.yaml", "canary.yaml", "deployment.yaml", "metrics.yaml"])
    );
    assert_eq!(other["left_alone"], json!(["patch.yaml"]));
    assert_eq!(repo.text("../out/patch.yaml"), "mine");
    assert!(!repo.exists("../out/canary.yaml"));
    // What somebody changed is not lost.
    repo.write("../out/rollout.yaml", "edited");
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).fails(3, "rollout.yaml: was changed by hand");
    assert_eq!(repo.text("../out/rollout.yaml"), "edited");
    repo.model(["deploy", "churn#prod", "-o", "../out", "--force"]).ok();
    // Pods of the former version may start again: they need their lock.
    assert!(repo.exists("../out/lock-1.0.0.yaml"));
    assert!(repo.text("../out/kustomization.yaml").contains("- lock-1.0.0.yaml\n- lock-1.1.0.yaml\n"));
    // A directory belongs to one model and stage; a record that leads elsewhere is refused.
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    repo.model(["deploy", "churn#staging", "-o", "../out"]).fails(3, "holds the manifests of churn#prod");
    let hostile = repo.text("../out/.git-model-deploy").replace("rollout.yaml", "../rollout.yaml");
    repo.write("../out/.git-model-deploy", hostile);
    repo.model(["deploy", "churn#prod", "-o", "../out"]).fails(3, "which is no file beside it");
    // Links are not followed.
    std::fs::remove_dir_all(sandbox.join("out")).unwrap();
    repo.write("../victim", "safe");
    std::fs::create_dir(sandbox.join("out")).unwrap();
    std::os::unix::fs::symlink("../victim", sandbox.join("out/rollout.yaml")).unwrap();
    repo.model(["deploy", "churn#prod", "--target", "argo-rollouts", "-o", "../out", "--force"])
        .fails(3, "not a regular file");
    assert_eq!(repo.text("../victim"), "safe");
}

#[test]
fn disagreements_are_named() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    next(&repo, 2.0, "1.1.0");
    repo.model(["deploy", "--check", "../out"]).fails(1, "holds no manifests");
    repo.model(["deploy", "churn@1.1.0", "--stage", "prod", "--target", "kserve", "-o", "../out"])
        .fails(3, "must name what is wanted there, which is v1.0.0");
    repo.model(["deploy", "churn#prod", "--target", "kserve", "-o", "../out"]).ok();
    repo.model(["deploy", "--check", "../out"]).says("agrees with churn#prod: v1.0.0").ok();
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    repo.model(["deploy", "--check", "../out"])
        .fails(3, "the manifests name v1.0.0, prod wants v1.1.0 (canary at 10 %)");
    let said = repo.json(["deploy", "--check", "../out"]);
    assert_eq!(
        (&said["manifests"]["version"], &said["wanted"]["version"]),
        (&"1.0.0".into(), &"1.1.0".into())
    );
    assert_eq!((&said["schema"], &said["agrees"]), (&"git-model/deploy-check/v1".into(), &false.into()));
    repo.model(["deploy", "churn#prod", "-o", "../out"]).ok();
    repo.model(["deploy", "--check", "../out"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "--check", "../out"]).fails(3, "give v1.1.0 10 % of the traffic, prod all");
    repo.model(["deploy", "churn#prod", "-o", "../out"]).ok();
    // Edited files, an edited record, and both.
    let (service, record) =
        (repo.text("../out/inferenceservice.yaml"), repo.text("../out/.git-model-deploy"));
    let edited = service.replace(SERVER, OTHER);
    repo.write("../out/inferenceservice.yaml", &edited);
    repo.model(["deploy", "--check", "../out"]).fails(3, "inferenceservice.yaml was changed by hand");
    let digest = |text: &str| {
        repo.write("../digest", text);
        crate::support::sha256(&sandbox.join("digest"))
    };
    repo.write("../out/.git-model-deploy", record.replace(&digest(&service), &digest(&edited)));
    repo.model(["deploy", "--check", "../out"]).fails(3, "are not those of v1.1.0");
    repo.model(["deploy", "churn#prod", "-o", "../out", "--force"]).ok();
    repo.model(["deploy", "--check", "../out"]).ok();
    repo.model(["retire", "churn", "prod"]).ok();
    repo.model(["deploy", "--check", "../out"]).fails(3, "the manifests name v1.1.0, prod is empty");
    repo.model(["deploy", "churn#prod", "-o", "../out"]).fails(3, "nothing is in this stage");
    repo.model(["deploy", "churn#prod", "--stage", "staging", "-o", "../out"])
        .fails(2, "--stage says staging");
    repo.model(["deploy", "churn@1.0.0", "-o", "../out"]).fails(2, "for which stage?");
}

#[test]
fn a_rollback_writes_event_and_manifests() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, "deploy: {model: embedded}\n");
    repo.model(["deploy", "churn#prod", "--target", "argo-rollouts", "-o", "../out", "--image", SERVER]).ok();
    let first = files(&sandbox.join("out"));
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).fails(3, "no image of its server is known");
    repo.model(["deploy", "churn#prod", "-o", "../out", "--image", OTHER]).ok();
    let second = files(&sandbox.join("out"));
    let events =
        || repo.git(["ls-remote", "--refs", "origin", "refs/tags/churn#prod#*"]).ok().lines().count();
    let before = events();

    let rollback = ["rollback", "churn", "prod", "--reason", "p95", "--deploy", "../out"];
    // Manifests that cannot be written: no event.
    let record = repo.text("../out/.git-model-deploy");
    repo.write("../out/.git-model-deploy", record.replace(SERVER, "ghcr.io/acme/churn:latest"));
    repo.model(rollback).fails(3, "must be pinned");
    repo.write("../out/.git-model-deploy", &record);
    repo.write("../out/rollout.yaml", "edited");
    repo.model(rollback).fails(3, "was changed by hand");
    repo.write("../out/rollout.yaml", &second["rollout.yaml"]);
    repo.model(["rollback", "churn", "prod", "--deploy", "../nothing"]).fails(1, "holds no manifests");
    repo.model(["rollback", "churn", "prod", "--image", SERVER]).fails(2, "--deploy");
    assert_eq!(events(), before);
    // An event that the remote refuses: the directory stays as it is.
    let hook = sandbox.join("remote.git/hooks/update");
    std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_ne!(repo.model(rollback).code, 0);
    assert_eq!((files(&sandbox.join("out")), events()), (second.clone(), before));
    std::fs::remove_file(&hook).unwrap();
    repo.model(rollback.into_iter().chain(["--dry-run"])).says("would be").ok();
    assert_eq!((files(&sandbox.join("out")), events()), (second, before));

    // The image that was deployed with the former version is known.
    repo.model(rollback).says("v1.1.0 -> v1.0.0 (rollback)").says("churn@v1.0.0 for prod").ok();
    let mut now = files(&sandbox.join("out"));
    assert_eq!(events(), before + 1);
    repo.model(["deploy", "--check", "../out"]).ok();
    let record: Value = serde_json::from_str(&now.remove(".git-model-deploy").unwrap()).unwrap();
    assert_eq!(record["versions"][0]["version"], "1.0.0");
    assert!(
        first.iter().filter(|(name, _)| *name != ".git-model-deploy").all(|(name, text)| now[name] == *text)
    );
}

#[test]
fn a_rollback_takes_out_only_the_version_that_its_manifests_were_made_for() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    repo.model(["deploy", "churn#prod", "--target", "kubernetes", "-o", "../out"]).ok();
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../out"]).ok();
    next(&repo, 3.0, "1.2.0");
    let other = trusted_clone(&sandbox, "other");
    // While the event is on its way, somebody else promotes a good version.
    let hook = sandbox.join("remote.git/hooks/update");
    let script = format!(
        "#!/bin/sh\nrm hooks/update\nunset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n\
         cd {} && git-model promote churn@1.2.0 prod >&2\n",
        other.path.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let before = files(&sandbox.join("out"));
    repo.model(["rollback", "churn", "prod", "--deploy", "../out"])
        .fails(4, "somebody else put another version there meanwhile");
    assert_eq!(files(&sandbox.join("out")), before);
    assert_eq!(repo.json(["resolve", "churn#prod"])["version"], "1.2.0");
}

#[test]
fn a_rollback_that_could_not_write_is_finished_by_deploy() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    repo.model(["deploy", "churn#prod", "--target", "kubernetes", "-o", "../gitops/out"]).ok();
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../gitops/out"]).ok();
    // A hook of the remote that takes the place of the directory between the event and the manifests.
    let hook = sandbox.join("remote.git/hooks/post-update");
    std::fs::write(&hook, format!("#!/bin/sh\ncd {} && mv gitops/out moved && mkdir -p gitops/out/rollout && mkdir gitops/out/deployment.yaml\n", sandbox.path().display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = repo
        .model(["rollback", "churn", "prod", "--deploy", "../gitops/out"])
        .fails(1, "the stage was rolled back (churn#prod#3), its manifests were not");
    assert!(said.contains("git model deploy 'churn#prod' -o ../gitops/out"), "{said}");
    std::fs::remove_file(&hook).unwrap();
    std::fs::remove_dir_all(sandbox.join("gitops/out")).unwrap();
    std::fs::rename(sandbox.join("moved"), sandbox.join("gitops/out")).unwrap();
    repo.model(["deploy", "--check", "../gitops/out"])
        .fails(3, "the manifests name v1.1.0, prod wants v1.0.0");
    repo.model(["deploy", "churn#prod", "-o", "../gitops/out"]).ok();
    repo.model(["deploy", "--check", "../gitops/out"]).ok();
}

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/rollout").join(name)
}

#[test]
fn the_examples_go_to_production_and_back() {
    let sandbox = Sandbox::new();
    let here = sandbox.at("");
    for (example_name, targets) in [("embedded", &TARGETS[..2]), ("fetched", &TARGETS[2..])] {
        for target in targets {
            let dir = format!("{example_name}-{target}");
            here.sh(&format!("{} {example_name} {target} {dir}", example("walk.sh").display()))
                .says("rollback v1.0.0 prod: p95 doubled")
                .ok();
            must_be_valid(&sandbox.join(&format!("{dir}/gitops/prod")));
        }
    }
}

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The receiver of reports, and its URL.
fn reporter(repo: &Repo) -> (Running, String) {
    use std::io::BufRead as _;
    let mut command = repo.command("python3");
    command.arg(example("reporter.py")).env("REPORTER_REPO", &repo.path).env("REPORTER_ALLOW", "churn#prod");
    command.env("REPORTER_HOST", "127.0.0.1").env("REPORTER_PORT", "0").stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    (Running(child), format!("http://127.0.0.1:{port}/"))
}

#[test]
fn reports_come_back() {
    let sandbox = Sandbox::new();
    let repo = in_prod(&sandbox, &full());
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    let (_running, url) = reporter(&repo);
    let post = |body: &Value| {
        let mut command = repo.command("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--data-raw", &body.to_string(), &url]);
        crate::support::run(command).ok()
    };
    let facts = json!({"model": "churn", "stage": "prod", "version": "1.1.0"});
    let flagger =
        |phase: &str| json!({"name": "churn-prod", "namespace": "ml", "phase": phase, "metadata": facts});
    assert_eq!(post(&flagger("Progressing")), "200");
    assert_eq!(
        post(&json!({"model": "churn", "stage": "staging", "version": "1.1.0", "outcome": "ok"})),
        "403"
    );
    assert_eq!(
        post(&json!({"model": "--help", "stage": "prod", "version": "1.1.0", "outcome": "ok"})),
        "400"
    );
    assert_eq!(post(&json!({"model": "churn", "stage": "prod", "version": "7.0.0", "outcome": "ok"})), "503");
    assert_eq!(post(&json!([])), "400");
    let outcomes = || repo.model(["history", "churn", "--stage", "prod"]).ok().matches("outcome ").count();
    assert_eq!(outcomes(), 0);
    // Controllers notify more than once.
    assert_eq!((post(&flagger("Failed")), post(&flagger("Failed"))), ("200".into(), "200".into()));
    assert_eq!(outcomes(), 1);
    repo.model(["history", "churn", "--stage", "prod"]).says("outcome v1.1.0 prod aborted  rollout").ok();
}

/// The process of the job that judges, as Kubernetes would start it.
fn the_job(repo: &Repo, dir: &Path) -> std::process::Command {
    let job = of_kind(dir, "Job").remove(0);
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    // As Kubernetes hands words on: `$$` is `$`.
    let words = |key: &str| -> Vec<String> {
        let words = container[key].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().replace("$$", "$")).collect()
    };
    let command = words("command");
    let text = container["command"].to_string();
    assert!(!text.contains("$(") && !text.contains("$$"));
    let mut process = repo.command(&command[0]);
    process.args(&command[1..]).args(words("args"));
    for pair in container["env"].as_array().unwrap() {
        process.env(pair["name"].as_str().unwrap(), pair["value"].as_str().unwrap().replace("$$", "$"));
    }
    process
}

#[test]
fn the_job_judges_and_reports() {
    let sandbox = Sandbox::new();
    let repo = in_prod(
        &sandbox,
        &format!(
            "deploy: {{image: {SERVER}, report: http://r, canary: [{{traffic: 9, pause: 2s}}], analysis: {{interval: 1s, failures: 0}}}}\n"
        ),
    );
    repo.model(["deploy", "churn#prod", "--target", "kubernetes", "-o", "../out"]).ok();
    // Nothing stands beside this version, so there is nothing to take away.
    assert!(of_kind(&sandbox.join("out"), "Role").is_empty());
    let (_running, url) = reporter(&repo);
    fn answer(stream: &mut std::net::TcpStream, body: &str) {
        use std::io::Write as _;
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        drop(stream.write_all((head + body).as_bytes()));
    }
    let good = FakeServer::start(|_, stream| {
        answer(stream, r#"{"data":{"result":[{"metric":{},"value":[1.5,"1"]}]}}"#);
    });
    let bad = FakeServer::start(|_, stream| {
        answer(stream, r#"{"data":{"result":[{"metric":{},"value":[1.5,"0"]}]}}"#);
    });
    let none = FakeServer::start(|_, stream| answer(stream, r#"{"data":{"result":[]}}"#));
    let run = |prometheus: &FakeServer| {
        let mut process = the_job(&repo, &sandbox.join("out"));
        process
            .env("SMOKE_URL", good.endpoint())
            .env("PROMETHEUS", prometheus.endpoint())
            .env("REPORT_URL", &url);
        crate::support::run(process)
    };
    run(&good).says("ok").ok();
    repo.model(["history", "churn", "--stage", "prod"]).says("outcome v1.0.0 prod ok  rollout").ok();
    assert!(good.requests().iter().filter(|request| request.contains("/api/v1/query?query=")).count() == 4);
    for (prometheus, reason) in [(&bad, "error-rate: out of bounds"), (&none, "error-rate: no answer")] {
        let output = run(prometheus).says(reason).says("aborted: metrics");
        assert_eq!(output.code, 1, "{output}");
    }
    repo.model(["history", "churn", "--stage", "prod"]).says("outcome v1.0.0 prod aborted  rollout").ok();
}

/// What a cluster and a receiver of reports were asked, in order.
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Whether the objects are Flux's.
static FLUX: AtomicBool = AtomicBool::new(false);

/// Remembers a request with its body. Returns how many of this kind there were.
fn ask(head: &str, stream: &mut TcpStream) -> usize {
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    let asked = format!("{line} {}", String::from_utf8(body).unwrap());
    let mut all = ASKED.lock().unwrap();
    all.push(asked.trim_end().to_owned());
    let method = line.split(' ').next().unwrap();
    all.iter().filter(|asked| asked.starts_with(method)).count()
}

/// A cluster in which the canary is another version after two changes.
fn cluster(head: &str, stream: &mut TcpStream) {
    let count = ask(head, stream);
    let header = |line: &str| head.lines().any(|found| found.eq_ignore_ascii_case(line));
    let flux = match FLUX.load(Ordering::Relaxed) {
        true => r#""labels": {"kustomize.toolkit.fluxcd.io/name": "prod"}, "#,
        false => "",
    };
    let version = if count > 2 { "1.2.0" } else { "1.1.0" };
    let object = format!(
        "{{\n  \"metadata\": {{{flux}\"annotations\": {{\"git-model/version\": \"{version}\"}}}}\n}}\n"
    );
    let status = match head {
        _ if !header("authorization: Bearer a-token") => "401 Unauthorized",
        head if head.starts_with("GET ") => "200 OK",
        _ if header("content-type: application/merge-patch+json") => "200 OK",
        // The test of the patch says that the version is another one.
        _ if count > 1 => "422 Unprocessable Entity",
        _ if header("content-type: application/json-patch+json") => "200 OK",
        _ => "415 Unsupported Media Type",
    };
    reply(stream, status, "", &object);
}

#[test]
fn the_job_takes_the_traffic_from_a_bad_canary() {
    let sandbox = Sandbox::new();
    let block = |queries: &str| {
        format!(
            "deploy: {{image: {SERVER}, namespace: ml, report: http://r, canary: [{{traffic: 9, pause: 1s}}], \
             analysis: {{interval: 1s, failures: 0{queries}}}}}\n"
        )
    };
    let by_version = ", error_rate: {max: 1, query: 'e{v=\"$version\"}'}, latency_p95: {max: 1, query: 'l{v=\"$version\"}'}";
    let repo = in_prod(&sandbox, &block(""));
    next(&repo, 2.0, "1.1.0");
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    let fine = FakeServer::start(|_, stream| reply(stream, "200 OK", "", "{}"));
    let receiver = FakeServer::start(|head, stream| {
        ask(head, stream);
        reply(stream, "200 OK", "", "");
    });
    let api = FakeServer::start(cluster);
    repo.write("../account/token", "a-token");
    repo.write("../account/ca.crt", "");
    let run = |dir: &str, flux: bool| -> Vec<String> {
        ASKED.lock().unwrap().clear();
        FLUX.store(flux, Ordering::Relaxed);
        let mut process = the_job(&repo, &sandbox.join(dir));
        process
            .env("SMOKE_URL", fine.endpoint())
            .env("PROMETHEUS", fine.endpoint())
            .env("REPORT_URL", receiver.endpoint())
            .env("KUBERNETES", api.endpoint())
            .env("ACCOUNT", sandbox.join("account"));
        let output = crate::support::run(process).says("aborted: metrics").says("its traffic was taken away");
        assert_eq!(output.code, 1, "{output}");
        ASKED.lock().unwrap().clone()
    };
    let report = r#"POST / {"model":"churn","outcome":"aborted","stage":"prod","version":"1.1.0"}"#;

    repo.model(["deploy", "churn#prod", "--target", "kubernetes", "-o", "../kubernetes"]).ok();
    must_be_valid(&sandbox.join("kubernetes"));
    let look = "GET /apis/apps/v1/namespaces/ml/deployments/churn-prod-canary";
    let patch =
        "PATCH /apis/apps/v1/namespaces/ml/deployments/churn-prod-canary/scale {\"spec\":{\"replicas\":0}}";
    assert_eq!(run("kubernetes", false), [look, patch, report]);
    assert_eq!(run("kubernetes", true), [look, patch, report, look, patch, look]);
    // The account may do this and nothing else, and only the job has it.
    let role = of_kind(&sandbox.join("kubernetes"), "Role").remove(0);
    let rule = |resource: &str, verb: &str| json!({"apiGroups": ["apps"], "resourceNames": ["churn-prod-canary"], "resources": [resource], "verbs": [verb]});
    assert_eq!(role["rules"], json!([rule("deployments", "get"), rule("deployments/scale", "patch")]));
    for object in objects(&sandbox.join("kubernetes")) {
        let pod = &object["spec"]["template"]["spec"];
        let is_job = object["kind"] == "Job";
        if pod.is_object() {
            assert_eq!(pod["automountServiceAccountToken"], is_job);
            assert_eq!(pod["serviceAccountName"] == "churn-prod-verify", is_job);
        }
    }

    // The usual queries cannot tell KServe's revisions apart.
    repo.model(["deploy", "churn#prod", "--target", "kserve", "-o", "../kserve"]).ok();
    assert!(of_kind(&sandbox.join("kserve"), "Role").is_empty());
    let text = repo.text("m/model.yaml").replace(", failures: 0}", &format!(", failures: 0{by_version}}}"));
    repo.write("m/model.yaml", text);
    next(&repo, 3.0, "1.1.1");
    repo.model(["promote", "churn@1.1.1", "prod", "--traffic", "10"]).ok();
    repo.model(["deploy", "churn#prod", "-o", "../kserve"]).ok();
    must_be_valid(&sandbox.join("kserve"));
    let report = report.replace("1.1.0", "1.1.1");
    let patch = "PATCH /apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/churn-prod \
                 [{\"op\":\"test\",\"path\":\"/metadata/annotations/git-model~1version\",\"value\":\"1.1.1\"},\
                 {\"op\":\"add\",\"path\":\"/spec/predictor/canaryTrafficPercent\",\"value\":0}]";
    assert_eq!(run("kserve", false), [patch, &report]);
    assert_eq!(run("kserve", true), [patch, &report, patch]);
}
