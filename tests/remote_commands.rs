//! `git model remote`, which remote a command means, and what may be done with one that nobody approved.

use crate::support::fake_server::{FakeServer, reply};
use crate::support::{Repo, Sandbox};

fn urls(repo: &Repo) -> Vec<String> {
    let listed = repo.json(["remote", "list"]);
    assert_eq!(listed["schema"], "git-model/remote-list/v1");
    let remotes = listed["remotes"].as_array().unwrap().clone();
    remotes.iter().map(|remote| format!("{}={}", text(&remote["name"]), text(&remote["url"]))).collect()
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap()
}

/// The remote that a push would go to.
fn target(repo: &Repo) -> String {
    text(&repo.json(["push"])["url"]).to_owned()
}

#[test]
fn remotes_are_added_listed_chosen_and_removed() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    let error = repo.model(["remote", "add", "origin", "../store"]).fails(1, "not set up");
    assert!(error.contains("hint: run git model init"), "{error}");
    repo.model(["init"]).ok();
    repo.model(["remote", "list"]).ok();
    repo.model(["remote", "add", "first", "../one"]).ok();
    repo.model(["remote", "add", "my-second.store", "s3://bucket/a/b/"]).ok();
    let one = sandbox.join("one").canonicalize().unwrap_or_else(|_| sandbox.join("one"));
    assert_eq!(
        urls(&repo),
        [format!("first={}", one.display()), "my-second.store=s3://bucket/a/b".to_owned()]
    );
    repo.model(["remote", "list"]).says("first  ").says("(default)").ok();
    repo.git(["diff", "--cached", "--name-only"]).says(".git-model.yaml").ok();

    repo.model(["remote", "add", "first", "../two"]).fails(2, "exists already");
    repo.model(["remote", "add", "--force", "first", "../two"]).ok();
    assert!(urls(&repo)[0].ends_with("/two"));

    repo.model(["remote", "default", "my-second.store"]).ok();
    assert!(repo.json(["remote", "list"])["remotes"][1]["default"].as_bool().unwrap());
    repo.model(["remote", "remove", "first"]).ok();
    assert_eq!(urls(&repo), ["my-second.store=s3://bucket/a/b"]);
    assert_eq!(repo.json(["remote", "list"])["remotes"][0]["trusted"], true);
}

#[test]
fn unknown_names_and_bad_urls_are_wrong_usage() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    let before = repo.text(".git-model.yaml");
    for command in [
        &["remote", "default", "nope"][..],
        &["remote", "remove", "nope"],
        &["remote", "trust", "nope"],
        &["remote", "check", "nope"],
        &["push", "--remote", "nope"],
        &["push", "--remote", "no pe"],
    ] {
        repo.model(command).fails(2, command.last().unwrap());
    }
    for name in ["-x", "", "a b", "a/b", "ä", "..", "a\nb"] {
        repo.model(["remote", "add", "--", name, "../x"]).fails(2, "not a remote name");
    }
    for url in [
        "",
        "http://host/x",
        "https://host/x?token=1",
        "https://Host/x",
        "gs://b",
        "az://account",
        "ssh://host/x",
        "file://host/x",
        "s3://",
        "s3://UPPER/x",
        "s3://bucket/../x",
        "s3://bucket?endpoint=http://evil",
        "s3://bucket//x",
        "/",
        "ext://sh -c id",
    ] {
        let error = repo.model(["remote", "add", "x", url]).fails(2, "not a usable remote URL");
        assert!(error.contains("hint: "), "{error}");
    }
    assert_eq!(repo.text(".git-model.yaml"), before);
}

#[test]
fn a_secret_in_a_url_is_refused_and_not_shown() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for url in ["s3://key:canary@bucket/x", "https://user:canary@host/x", "s3://bucket/x?token=canary"] {
        repo.model(["remote", "add", "x", url]).never_says("canary").fails(2, "not a usable remote URL");
    }
    let repo = repo.env("AWS_ENDPOINT_URL", "http://user:canary@127.0.0.1:9");
    repo.model(["remote", "add", "x", "s3://bucket/x"]).ok();
    repo.model(["remote", "list"]).never_says("canary").ok();
    repo.model(["remote", "list", "--json"]).never_says("canary").says("http://***@127.0.0.1:9").ok();
}

#[test]
fn check_tries_what_push_and_fetch_need() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let checked = repo.json(["remote", "check"]);
    assert_eq!(checked["schema"], "git-model/remote-check/v1");
    assert_eq!(
        checked["check"],
        serde_json::json!({"store": null, "writable": true, "conditional_writes": true})
    );
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    repo.model(["remote", "check", "origin"]).says("can be read and written").says("store id: ").ok();
    let left = repo.sh("find ../store -type f").stdout;
    assert_eq!(left.lines().count(), 2, "the probe was removed: {left}");
}

#[test]
fn the_users_config_wins_over_the_branch_and_the_branch_over_the_commit() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", "old", "old");
    repo.git(["tag", "old"]).ok();
    repo.model(["push"]).ok();
    repo.model(["remote", "add", "--force", "origin", "../new"]).ok();
    repo.commit_artifact("w.bin", "new", "new");
    assert!(target(&repo).ends_with("/new"));
    repo.git(["config", "model.remote.origin.url", sandbox.join("mine").to_str().unwrap()]).ok();
    assert!(target(&repo).ends_with("/mine"));
    assert_eq!(repo.json(["remote", "list"])["remotes"][0]["source"], "config");
    repo.git(["config", "--unset", "model.remote.origin.url"]).ok();

    // The branch's store was never given the old version; a remote that only the old commit knows still is found.
    repo.model(["remote", "add", "other", "../store"]).ok();
    repo.git(["commit", "-qam", "other"]).ok();
    repo.git(["tag", "-f", "old"]).ok();
    repo.model(["remote", "remove", "other"]).ok();
    repo.git(["commit", "-qam", "other is gone"]).ok();
    std::fs::remove_dir_all(repo.join(".git/model/objects")).unwrap();
    repo.model(["fetch", "--remote", "other"]).fails(1, "other: no such remote");
    repo.model(["fetch", "--remote", "other", "old"]).fails(1, "w.bin");
    repo.model(["fetch", "--remote", "other", "old~1"]).fails(1, "no such remote");
}

#[test]
fn nothing_goes_to_a_remote_that_nobody_approved() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    let clone = sandbox.clone_of(&repo, "clone");
    clone.model(["pull"]).says("git model remote trust").fails(1, "was not approved here");
    clone.model(["remote", "list"]).says("not approved here").ok();
    clone.model(["remote", "check"]).fails(1, "was not approved here");
    // The same folder, however it is written; others do not count.
    let url = sandbox.join("store").display().to_string();
    for wrong in [format!("{url}x"), format!("{url}/x"), "*".to_owned()] {
        clone.env("GIT_MODEL_TRUST", wrong).model(["fetch"]).fails(1, "was not approved here");
    }
    clone.env("GIT_MODEL_TRUST", format!("s3://other, {url}/")).model(["pull"]).ok();
    assert_eq!(clone.text("w.bin"), "w");

    // A pull request that changes the line sends nothing to the stranger.
    clone.model(["remote", "trust"]).ok();
    clone.model(["add", "w.bin"]).ok();
    let config = clone.text(".git-model.yaml").replace("/store", "/stranger");
    clone.write(".git-model.yaml", config);
    clone.commit_artifact("w.bin", "private", "v2");
    clone.model(["push"]).fails(1, "nothing is pushed to it");
    clone.model(["push", "--dry-run"]).fails(1, "was not approved here");
    assert!(!sandbox.join("stranger").exists());
}

#[test]
fn a_folder_with_a_space_can_be_approved_as_the_hint_says() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "../my store"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    let clone = sandbox.clone_of(&repo, "clone");
    let error = clone.model(["pull"]).fails(1, "was not approved here");
    let command = error.split("in CI: ").nth(1).unwrap().trim_end_matches(['\n', ')']).to_owned();
    clone.sh(&format!("{command} git model pull")).ok();
}

#[test]
fn an_unapproved_custom_endpoint_is_not_even_contacted() {
    let server = FakeServer::start(|_, stream| reply(stream, "404 Not Found", "", ""));
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let clone = sandbox.clone_of(&repo, "clone");
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let clone = server.env(&clone).env("AWS_ENDPOINT_URL", "").env(variable, server.endpoint());
        for command in ["fetch", "pull", "push"] {
            clone.model([command]).fails(1, "was not approved here");
        }
    }
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(server.env(&repo).model(["push"]).code, 1);
    assert!(!server.requests().is_empty());
}

#[test]
fn every_variable_that_names_an_endpoint_counts() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let clone =
        sandbox.clone_of(&repo, "clone").env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
    // https, because object_store refuses http for this one.
    clone.env("AWS_ENDPOINT", "https://127.0.0.1:9").model(["fetch"]).never_says("127.0.0.1").fails(1, "");
}

#[test]
fn the_endpoint_of_the_git_config_wins() {
    let (right, wrong) = (FakeServer::start(not_found), FakeServer::start(not_found));
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    repo.git(["config", "model.remote.origin.endpoint", &right.endpoint()]).ok();
    let repo = wrong.env(&repo).env("AWS_ENDPOINT_URL_S3", wrong.endpoint());
    assert_eq!(repo.model(["push"]).code, 1);
    assert!(!right.requests().is_empty() && wrong.requests().is_empty());
}

fn not_found(_: &str, stream: &mut std::net::TcpStream) {
    reply(stream, "404 Not Found", "", "");
}

#[test]
fn plain_http_stays_on_this_machine() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "s3://bucket/x"]).ok();
    repo.commit_artifact("w.bin", "w", "v1");
    let repo = repo.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
    for endpoint in [
        "http://store.example",
        "http://localhost.example:9",
        "http://127.0.0.1.example/",
        "http://localhost:x@store.example/",
    ] {
        let error = repo.env("AWS_ENDPOINT_URL", endpoint).model(["push"]).fails(1, "is plain http");
        assert!(error.contains("allowHttp"), "{error}");
    }
}

#[test]
fn an_odd_name_in_the_config_hides_no_remote() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.git(["config", "model.remote.-x.url", "/srv/x"]).ok();
    repo.model(["remote", "list"]).says("origin  ").ok();
}

#[test]
fn without_a_default_the_message_asks_for_one() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["remote", "add", "one", "../one"]).ok();
    repo.model(["remote", "add", "two", "../two"]).ok();
    repo.model(["remote", "remove", "origin"]).ok();
    repo.model(["push"]).says("git model remote default").fails(2, "");
}
