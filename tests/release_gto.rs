//! GTO and git-model read each other's tags, as far as GTO's grammar goes.

use serde_json::{Value, json};

use crate::support::models::{in_stage, published_with, record, train};
use crate::support::{Output, Repo, Sandbox, prepared};

/// GTO knows nothing of the sandbox's configuration.
fn repository(sandbox: &Sandbox) -> Repo {
    let repo = published_with(sandbox, "stages: {staging: {}, prod: {}}\n");
    repo.git(["config", "user.name", "Test"]).ok();
    repo.git(["config", "user.email", "test@example.com"]).ok();
    repo
}

/// GTO orders by time in whole seconds, and takes the time from the clock: what it writes is a second apart.
fn gto_writes(repo: &Repo, args: &[&str]) {
    gto(repo, args).ok();
    std::thread::sleep(std::time::Duration::from_millis(1100));
}

fn gto(repo: &Repo, args: &[&str]) -> Output {
    let mut command = repo.command(prepared("gto-1.10.1/bin/gto"));
    command.args(args);
    crate::support::run(command)
}

fn gto_json(repo: &Repo, args: &[&str]) -> Value {
    serde_json::from_str(&gto(repo, &[args, &["--json"]].concat()).ok()).unwrap()
}

/// The same repository with the clock at this minute of the past.
fn at(repo: &Repo, minute: u32) -> Repo {
    repo.env("GIT_COMMITTER_DATE", format!("2026-05-03T10:{minute:02}:00Z"))
}

/// A new version of the model in a commit of its own.
fn advance(repo: &Repo, step: f32) {
    train(repo, step);
    repo.write("m/eval.json", format!("{{\"auc\": 0.{}}}", step as u32));
    record(repo, "next");
    repo.git(["push", "-q", "origin", "main"]).ok();
}

#[test]
fn gto_reads_what_we_wrote() {
    let sandbox = Sandbox::new();
    let repo = repository(&sandbox);
    let run = |minute: u32, args: &[&str]| at(&repo, minute).model(args).ok();
    run(1, &["release", "churn", "1.0.0"]);
    run(2, &["promote", "churn@1.0.0", "staging"]);
    run(3, &["promote", "churn@1.0.0", "prod"]);
    advance(&repo, 2.0);
    run(4, &["release", "churn", "1.1.0"]);
    run(5, &["promote", "churn@1.1.0", "staging"]);
    run(6, &["promote", "churn@1.1.0", "prod"]);
    run(7, &["rollback", "churn", "prod", "--reason", "bad"]);

    // The latest version, the greatest, and what is in each stage.
    let shown = gto_json(&repo, &["show"]);
    let stages = &shown["churn"]["stage"];
    assert_eq!(shown["churn"]["version"], "v1.1.0", "{shown:#}");
    assert_eq!((&stages["staging"], &stages["prod"]), (&"v1.1.0".into(), &"v1.0.0".into()), "{shown:#}");
    let text = gto(&repo, &["show", "churn@latest", "--version"]).ok();
    assert_eq!(text.trim(), "v1.1.0");
    assert_eq!(gto(&repo, &["show", "churn#prod", "--version"]).ok().trim(), "v1.0.0");
    // The history has every tag, with version and stage.
    let history = gto_json(&repo, &["history", "churn", "--asc"]);
    let told: Vec<(Value, Value)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["event"].clone(), event["version"].clone()))
        .filter(|(event, _)| event != "commit")
        .collect();
    let pair = |event: &str, version: &str| (Value::from(event), Value::from(version));
    assert_eq!(
        told,
        [
            pair("registration", "v1.0.0"),
            pair("assignment", "v1.0.0"),
            pair("assignment", "v1.0.0"),
            pair("registration", "v1.1.0"),
            pair("assignment", "v1.1.0"),
            pair("assignment", "v1.1.0"),
            pair("assignment", "v1.0.0"),
        ],
        "{history:#}"
    );
    // What it makes of one tag, as CI asks it.
    let reference = gto_json(&repo, &["check-ref", "churn#prod#3"]);
    assert!(reference.to_string().contains("v1.0.0"), "{reference:#}");
    // GTO goes on where we are, and we go on where GTO is.
    gto_writes(&repo, &["assign", "churn", "--version", "v1.1.0", "--stage", "prod", "--force"]);
    assert!(repo.git(["tag"]).ok().contains("churn#prod#4"), "GTO counts on from our number");
    assert_eq!(repo.json(["resolve", "churn#prod", "--offline"])["version"], "1.1.0");
    repo.model(["retire", "churn", "prod", "--offline"]).ok();
    repo.model(["resolve", "churn#prod", "--offline"]).fails(3, "nothing is in this stage");
}

/// What GTO says is in the stages of a model, for the same question to us.
fn compare(repo: &Repo, name: &str, stages: &[&str]) {
    let shown = gto_json(repo, &["show"]);
    let key = shown.as_object().unwrap().keys().find(|key| key.replace(':', "/") == name).unwrap().clone();
    let history = repo.json(["history", name, "--offline"]);
    for stage in stages {
        let theirs = match shown[&key]["stage"][stage].as_str() {
            None | Some("-") => Value::Null,
            Some(version) => version.trim_start_matches('v').into(),
        };
        assert_eq!(in_stage(&history, stage)["version"], theirs, "{name}#{stage}: {shown:#} {history:#}");
    }
}

#[test]
fn we_read_what_gto_wrote() {
    let sandbox = Sandbox::new();
    let repo = repository(&sandbox);
    let run = |args: &[&str]| gto_writes(&repo, args);
    run(&["register", "churn", "--version", "v1.0.0"]);
    run(&["assign", "churn", "--version", "v1.0.0", "--stage", "staging"]);
    run(&["assign", "churn", "--version", "v1.0.0", "--stage", "prod"]);
    compare(&repo, "churn", &["staging", "prod"]);
    advance(&repo, 2.0);
    run(&["register", "churn", "--bump-minor"]);
    run(&["assign", "churn", "--version", "v1.1.0", "--stage", "prod"]);
    compare(&repo, "churn", &["staging", "prod"]);
    repo.git(["push", "-q", "origin", "--tags"]).ok();
    // From the remote as from here, though none of these tags says what it is about.
    for args in [&["resolve", "churn#prod"][..], &["resolve", "churn#prod", "--offline"]] {
        let resolved = repo.json(args.iter());
        assert_eq!(
            (&resolved["version"], &resolved["stage"]["action"]),
            (&"1.1.0".into(), &"promote".into())
        );
    }
    assert_eq!(repo.json(["resolve", "churn@1.0.0"])["tag"], "churn@v1.0.0");
    assert_eq!(repo.json(["resolve", "churn@latest"])["version"], "1.1.0");

    // Taken out of the stage: what was there before shows again.
    run(&["deprecate", "churn", "v1.1.0", "prod"]);
    assert!(repo.git(["tag"]).ok().contains("churn#prod!#"), "{}", repo.git(["tag"]).ok());
    compare(&repo, "churn", &["staging", "prod"]);
    let resolved = repo.json(["resolve", "churn#prod", "--offline"]);
    assert_eq!(resolved["version"], "1.0.0");
    // Withdrawn, and then everything is.
    run(&["deprecate", "churn", "v1.1.0"]);
    assert!(repo.git(["tag"]).ok().contains("churn@v1.1.0!"));
    compare(&repo, "churn", &["staging", "prod"]);
    assert_eq!(repo.json(["resolve", "churn@latest", "--offline"])["version"], "1.0.0");
    let history = repo.json(["history", "churn", "--offline"]);
    assert!(history.to_string().contains("release (withdrawn)"), "{history:#}");
    assert_eq!(history["findings"], json!([]));
    run(&["deprecate", "churn"]);
    repo.model(["history", "churn", "--offline"]).ok();
}

#[test]
fn models_in_folders_of_gto_are_models_with_a_slash() {
    let sandbox = Sandbox::new();
    let repo = repository(&sandbox);
    let run = |args: &[&str]| gto_writes(&repo, args);
    run(&["register", "team/x:ranker", "--version", "v0.1.0"]);
    run(&["assign", "team/x:ranker", "--version", "v0.1.0", "--stage", "prod"]);
    assert!(repo.git(["tag"]).ok().contains("team/x=ranker@v0.1.0"));
    compare(&repo, "team/x/ranker", &["prod"]);
    repo.git(["push", "-q", "origin", "--tags"]).ok();
    let history = repo.json(["history", "team/x/ranker"]);
    assert_eq!(history["entries"].as_array().unwrap().len(), 2, "{history:#}");
    // The neighbour's tags are not among them.
    repo.model(["history", "ranker"]).says("nothing is released yet").ok();
    repo.model(["history", "x/ranker"]).says("nothing is released yet").ok();
}

#[test]
fn an_odd_tag_stops_nobody() {
    let sandbox = Sandbox::new();
    let repo = repository(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    for name in
        ["churn@created", "churn@", "churn#", "churn@vx", "churn#prod#01", "churn#prod#0", "churn-2@v9.9.9"]
    {
        repo.git(["tag", "-m", "odd", name]).ok();
    }
    repo.git(["push", "-q", "origin", "--tags"]).ok();
    for more in [&[][..], &["--offline"]] {
        let args = |reference: &'static str| [&["resolve", reference][..], more].concat();
        assert_eq!(repo.json(args("churn#prod"))["version"], "1.0.0");
        assert_eq!(repo.json(args("churn@1.0.0"))["version"], "1.0.0");
    }
}
