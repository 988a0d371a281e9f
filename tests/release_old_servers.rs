//! Servers that speak an old protocol or lose their filters, and repositories of unusual kinds.

use crate::support::models::{WEIGHTS, next, pod, published, remote_url, trusted_clone, weights};
use crate::support::{Repo, Sandbox};

fn released(sandbox: &Sandbox) -> Repo {
    let repo = published(sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo
}

fn gets(sandbox: &Sandbox, pod: &Repo) {
    let url = remote_url(sandbox);
    pod.model(["get", "churn#staging", "--repo", &url, "-o", "out"]).ok();
    assert_eq!(pod.read(&format!("out/{WEIGHTS}")), weights(1.0));
}

#[test]
fn a_server_with_filters_that_speaks_an_old_protocol() {
    let sandbox = Sandbox::new();
    released(&sandbox);
    sandbox.at("").git(["config", "--global", "protocol.version", "0"]).ok();
    gets(&sandbox, &pod(&sandbox, "pod"));
}

#[test]
fn a_server_that_no_longer_has_filters() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    // The mirror of this clone is partial; now what it lacks cannot be asked for by its id.
    sandbox.at("").git(["config", "--global", "protocol.version", "0"]).ok();
    sandbox.at("remote.git").git(["config", "uploadpack.allowFilter", "false"]).ok();
    let clone = trusted_clone(&sandbox, "clone");
    clone.model(["promote", "churn@1.1.0", "staging"]).ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
}

#[test]
fn a_mirror_clone_promotes() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    sandbox.at("").git(["clone", "-q", "--mirror", "remote.git", "mirror.git"]).ok();
    let store = sandbox.join("store").display().to_string();
    let mirror = sandbox.at("mirror.git").env("GIT_MODEL_TRUST", &store);
    mirror.model(["promote", "churn@1.1.0", "staging"]).ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
}

#[test]
fn a_file_where_the_directory_should_be_is_named() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    repo.write("../out", "a file");
    repo.model(["get", "churn#staging", "-o", "../out"]).fails(1, "out: not a directory");
}
