//! The whole story of two models in one repository: ten releases, three stages, a refused gate, a canary, a bad version in
//! production, the way back, and the end. Every step is seen from a second clone and without a clone.

use serde_json::{Value, json};

use crate::support::models::{
    RULES, WEIGHTS, advance, bare, churn, connect, declare, in_stage, keeps_only, pod, record, remote_tags,
    remote_url, train, trusted_clone, weights,
};
use crate::support::{Repo, Sandbox};

const STAGES: &str =
    "stages: {staging: {}, canary: {promotes_from: [staging]}, prod: {promotes_from: [canary]}}\n";

/// A person at a keyboard at a time of choice.
fn by(repo: &Repo, person: &str, date: &str) -> Repo {
    repo.env("GIT_COMMITTER_NAME", person)
        .env("GIT_COMMITTER_EMAIL", format!("{}@example.com", person.to_lowercase()))
        .env("GIT_COMMITTER_DATE", format!("{date}:00Z"))
}

/// Everybody who looks.
struct World {
    sandbox: Sandbox,
    /// Where models are trained and released.
    ada: Repo,
    /// Another clone, from which things are promoted.
    bo: Repo,
    /// No clone at all.
    pod: Repo,
}

impl World {
    fn new() -> World {
        let sandbox = Sandbox::new();
        bare(&sandbox);
        let ada = churn(sandbox.repo("ada"));
        declare(&ada, "", &format!("{}{STAGES}", RULES.split_once("stages").unwrap().0));
        record(&ada, "churn");
        // A second model shares the code; its name has a folder in it.
        ada.write("r/w.safetensors", weights(9.0));
        ada.write("r/eval.json", r#"{"ndcg": 0.5}"#);
        let declared = "version: 1\nname: team/ranker\nweights: [w.safetensors]\ncode: [../src/pre.py]\nevaluation: eval.json\n";
        ada.write("r/model.yaml", format!("{declared}{STAGES}"));
        ada.model(["add", "r/w.safetensors"]).ok();
        ada.git(["add", "."]).ok();
        ada.model(["record", "team/ranker"]).ok();
        ada.git(["add", "."]).ok();
        ada.git(["commit", "-q", "-m", "ranker"]).ok();
        connect(&sandbox, &ada);
        let bo = trusted_clone(&sandbox, "bo");
        let pod = pod(&sandbox, "pod");
        World { sandbox, ada, bo, pod }
    }

    fn rank(&self, step: f32, date: &str, version: &str) {
        self.ada.write("r/w.safetensors", weights(step));
        self.ada.model(["add", "r/w.safetensors"]).ok();
        self.ada.write("r/eval.json", format!(r#"{{"ndcg": 0.{}}}"#, step as u32));
        self.ada.model(["record", "team/ranker"]).ok();
        self.ada.git(["add", "."]).ok();
        self.ada.git(["commit", "-q", "-m", version]).ok();
        self.ada.git(["push", "-q", "origin", "main"]).ok();
        by(&self.ada, "Ada", date).model(["release", "team/ranker", version]).ok();
        self.released("team/ranker", version);
    }

    fn train(&self, step: f32, auc: &str, date: &str, version: &str) {
        advance(&self.ada, step, &format!("{{\"auc\": {auc}}}"), version);
        by(&self.ada, "Ada", date).model(["release", "churn", version]).ok();
        self.released("churn", version);
    }

    /// The release is the same thing for everybody.
    #[track_caller]
    fn released(&self, model: &str, version: &str) {
        let reference = format!("{model}@v{version}");
        let commit = self.ada.git(["rev-parse", "HEAD"]).ok();
        for resolved in self.all(&reference) {
            assert_eq!((&resolved["version"], &resolved["commit"]), (&version.into(), &commit.trim().into()));
        }
    }

    /// A reference as each of them sees it.
    fn all(&self, reference: &str) -> [Value; 3] {
        let url = remote_url(&self.sandbox);
        let seen = [
            self.ada.json(["resolve", reference]),
            self.bo.json(["resolve", reference]),
            self.pod.json(["resolve", reference, "--repo", &url]),
        ];
        for other in &seen[1..] {
            let pins = |of: &Value| {
                ["tag_oid", "commit", "digest", "files", "stage", "previous"].map(|key| of[key].clone())
            };
            assert_eq!(pins(&seen[0]), pins(other), "{reference}");
        }
        seen
    }

    /// What everybody finds in a stage.
    #[track_caller]
    fn sees(&self, stage: &str, version: &str, canary: &Value) {
        let (model, _) = stage.split_once('#').unwrap();
        let resolved = self.all(stage);
        assert_eq!((&resolved[1]["model"], &resolved[1]["version"]), (&model.into(), &version.into()));
        assert_eq!(&resolved[2]["stage"]["canary"], canary, "{stage}");
        self.tags();
    }

    #[track_caller]
    fn sees_nothing_in(&self, stage: &str) {
        let why = "nothing is in this stage";
        self.ada.model(["resolve", stage]).fails(3, why);
        self.bo.model(["resolve", stage]).fails(3, why);
        self.pod.model(["resolve", stage, "--repo", &remote_url(&self.sandbox)]).fails(3, why);
        self.tags();
    }

    fn tags(&self) {
        let there = remote_tags(&self.ada);
        keeps_only(&self.ada, &there);
        keeps_only(&self.bo, &there);
    }
}

#[test]
fn two_models_from_the_first_release_to_the_end() {
    let world = World::new();
    let (ada, bo) = (&world.ada, &world.bo);
    let on = |day: &str, args: &[&str]| by(bo, "Bo", day).model(args);

    // March: first versions; the way to production has no short cut.
    by(ada, "Ada", "2026-03-01T10:00").model(["release", "churn", "1.0.0"]).ok();
    world.released("churn", "1.0.0");
    by(ada, "Ada", "2026-03-01T11:00").model(["release", "team/ranker", "0.1.0"]).ok();
    world.released("team/ranker", "0.1.0");
    on("2026-03-02T09:00", &["promote", "churn@1.0.0", "prod"])
        .fails(3, "promotes from: it is not in canary");
    world.sees_nothing_in("churn#prod");
    on("2026-03-02T10:00", &["promote", "churn@1.0.0", "staging"]).ok();
    on("2026-03-03T10:00", &["promote", "churn@1.0.0", "canary"]).ok();
    on("2026-03-04T10:00", &["promote", "churn@1.0.0", "prod", "--reason", "launch"]).ok();
    world.sees("churn#prod", "1.0.0", &Value::Null);
    world.sees_nothing_in("team/ranker#prod");

    // April: a candidate becomes final, goes through a canary, and replaces the first.
    world.train(2.0, "0.2", "2026-04-01T10:00", "1.1.0-rc.1");
    by(ada, "Ada", "2026-04-01T12:00").model(["release", "churn", "1.1.0"]).ok();
    world.released("churn", "1.1.0");
    on("2026-04-02T10:00", &["promote", "churn@1.1.0", "staging"]).ok();
    on("2026-04-03T10:00", &["promote", "churn@1.1.0", "canary"]).ok();
    on("2026-04-04T10:00", &["promote", "churn@1.1.0", "prod", "--traffic", "10"]).ok();
    world.sees("churn#prod", "1.0.0", &json!({"version": "1.1.0", "traffic": 10}));
    on("2026-04-05T10:00", &["outcome", "churn", "prod", "ok", "--actor", "argo"]).ok();
    on("2026-04-06T10:00", &["promote", "churn@1.1.0", "prod", "--traffic", "50"]).ok();
    world.sees("churn#prod", "1.0.0", &json!({"version": "1.1.0", "traffic": 50}));
    on("2026-04-07T10:00", &["promote", "churn@1.1.0", "prod"]).ok();
    world.sees("churn#prod", "1.1.0", &Value::Null);

    // Meanwhile the other model moves on by itself.
    world.rank(6.0, "2026-04-10T10:00", "0.2.0");
    on("2026-04-11T10:00", &["promote", "team/ranker@latest", "staging"]).ok();
    world.sees("team/ranker#staging", "0.2.0", &Value::Null);
    world.rank(7.0, "2026-04-12T10:00", "0.2.1");
    world.sees("team/ranker#staging", "0.2.0", &Value::Null);

    // May: a version that drops too far is refused; the next one is good on paper, and bad in production.
    train(ada, 3.0);
    ada.write("m/eval.json", r#"{"auc": 0.05}"#);
    record(ada, "dropped");
    ada.git(["push", "-q", "origin", "main"]).ok();
    by(ada, "Ada", "2026-05-01T09:00")
        .model(["release", "churn", "1.2.0"])
        .fails(3, "metric auc: 0.05 is below");
    world.train(4.0, "0.25", "2026-05-01T10:00", "1.2.0");
    world.train(5.0, "0.21", "2026-05-01T11:00", "1.3.0");
    for (day, stage) in [("2026-05-02", "staging"), ("2026-05-02", "canary"), ("2026-05-03", "prod")] {
        on(&format!("{day}T12:00"), &["promote", "churn@1.3.0", stage, "--reason", "spring"]).ok();
    }
    world.sees("churn#prod", "1.3.0", &Value::Null);
    on("2026-05-03T20:00", &["outcome", "churn", "prod", "aborted", "--actor", "argo", "--reason", "p95"])
        .ok();
    on("2026-05-03T22:00", &["rollback", "churn", "prod", "--reason", "p95 doubled"]).ok();
    world.sees("churn#prod", "1.1.0", &Value::Null);
    // What is bad there is not where the next way back leads.
    on("2026-05-04T10:00", &["rollback", "churn", "prod"]).ok();
    world.sees("churn#prod", "1.0.0", &Value::Null);
    on("2026-05-04T11:00", &["rollback", "churn", "prod"]).fails(3, "no version before was good");

    // June: the other model is retired, after its own last version.
    world.rank(8.0, "2026-05-31T10:00", "1.0.0-rc.1");
    by(ada, "Ada", "2026-06-01T10:00").model(["release", "team/ranker", "--patch"]).ok();
    world.released("team/ranker", "1.0.0");
    assert_eq!(remote_tags(ada).keys().filter(|tag| tag.contains("@v")).count(), 10, "ten releases");
    on("2026-06-02T10:00", &["promote", "team/ranker@1", "staging"]).ok();
    on("2026-06-03T10:00", &["retire", "team/ranker", "staging", "--reason", "end of life"]).ok();
    world.sees_nothing_in("team/ranker#staging");
    world.sees("churn#prod", "1.0.0", &Value::Null);
    history_tells_it_all(&world);
    a_fresh_clone_gets_the_bytes(&world);
}

fn history_tells_it_all(world: &World) {
    let (ada, bo) = (&world.ada, &world.bo);
    let history = ada.json(["history", "churn"]);
    assert_eq!(history, bo.json(["history", "churn"]));
    assert_eq!((&history["schema"], &history["findings"]), (&"git-model/history/v1".into(), &json!([])));
    let prod = in_stage(&history, "prod");
    assert_eq!((&prod["version"], &prod["by"]), (&"1.0.0".into(), &"Bo <bo@example.com>".into()));
    let at = |date: &str| {
        let then = bo.json(["history", "churn", "--at", date]);
        (in_stage(&then, "prod")["version"].clone(), in_stage(&then, "prod")["reason"].clone())
    };
    let is = |version: &str, reason: &str| (Value::from(version), Value::from(reason));
    assert_eq!(at("2026-03-03"), (Value::Null, Value::Null));
    assert_eq!(at("2026-03-04"), is("1.0.0", "launch"));
    assert_eq!(at("2026-04-06"), is("1.0.0", "launch"), "a canary is not what is in the stage");
    assert_eq!(at("2026-04-07").0, "1.1.0");
    assert_eq!(at("2026-05-03T19:59:59Z"), is("1.3.0", "spring"));
    assert_eq!(at("2026-05-03"), is("1.1.0", "p95 doubled"));
    assert_eq!(at("2026-05-03T23:59:00+02:00"), is("1.3.0", "spring"), "22:00 UTC is a minute later");
    assert_eq!(at("2030-01-01").0, "1.0.0");
    bo.model(["history", "churn", "--at", "3 May"]).fails(2, "not a date");
    let then = bo.json(["history", "churn", "--at", "2026-04-05"]);
    assert_eq!(in_stage(&then, "prod")["canary"], json!(["1.1.0", 10]));
    let newest = &then["entries"][0];
    assert_eq!((&newest["action"], &newest["by"]), (&"outcome".into(), &"argo, Bo <bo@example.com>".into()));

    let text = bo.model(["history", "churn", "--stage", "prod"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "prod is v1.0.0 (since 2026-05-04 by Bo <bo@example.com>)");
    assert_eq!(lines[3], "2026-05-03 22:00  rollback v1.1.0 prod: p95 doubled  Bo <bo@example.com>");
    assert_eq!(lines[4], "2026-05-03 20:00  outcome v1.3.0 prod aborted: p95  argo, Bo <bo@example.com>");
    assert_eq!(lines.last(), Some(&"2026-03-04 10:00  promote v1.0.0 prod: launch  Bo <bo@example.com>"));
    assert_eq!(lines.len(), 2 + 9, "{text}");
    assert!(!text.contains("ranker"));

    let ranker = bo.json(["history", "team/ranker"]);
    let told: Vec<String> = ranker["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            format!("{} {}", entry["tag"].as_str().unwrap(), entry["reason"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        told.iter().map(|line| line.trim_end()).collect::<Vec<_>>(),
        [
            "team/ranker#staging#3 end of life",
            "team/ranker#staging#2",
            "team/ranker@v1.0.0",
            "team/ranker@v1.0.0-rc.1",
            "team/ranker@v0.2.1",
            "team/ranker#staging#1",
            "team/ranker@v0.2.0",
            "team/ranker@v0.1.0"
        ]
    );
    bo.model(["history"]).fails(2, "");
    bo.model(["history", "nobody"]).says("nothing is released yet").ok();
}

/// A third clone, made at the end, and a folder that is none, agree about every release and its bytes.
fn a_fresh_clone_gets_the_bytes(world: &World) {
    let url = remote_url(&world.sandbox);
    let fresh = trusted_clone(&world.sandbox, "fresh");
    assert_eq!(fresh.json(["history", "churn"]), world.ada.json(["history", "churn"]));
    for (reference, step) in
        [("churn#prod", 1.0), ("churn@1.1", 2.0), ("churn@1.2.0", 4.0), ("churn@latest", 5.0)]
    {
        let dir = format!("out-{step}");
        world.pod.model(["get", reference, "--repo", &url, "-o", &dir]).ok();
        assert_eq!(world.pod.read(&format!("{dir}/{WEIGHTS}")), weights(step), "{reference}");
        fresh.model(["get", reference, "-o", &dir]).ok();
        let same = format!("diff -r {dir} {}", world.pod.join(&dir).display());
        fresh.sh(&same).ok();
    }
    world.pod.model(["get", "team/ranker@0.2", "--repo", &url, "-o", "ranker"]).ok();
    assert_eq!(world.pod.read("ranker/r/w.safetensors"), weights(7.0));
    let offline = fresh.json(["resolve", "churn#prod", "--offline"]);
    assert_eq!(offline["version"], "1.0.0");
}
