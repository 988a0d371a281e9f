//! The rules that keep tags as they are: the hook in a real bare repository, and what the hosts' interfaces take.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::models::{next, published, remote_tags};
use crate::support::{Repo, Sandbox};

/// A remote that is guarded by the hook, with one release in staging.
fn guarded(sandbox: &Sandbox) -> Repo {
    let repo = published(sandbox);
    let hook = repo.model(["protect", "--print", "hook"]).ok();
    let path = sandbox.join("remote.git/hooks/update");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, hook).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    repo
}

#[test]
fn the_hook_lets_new_tags_in_and_keeps_old_ones() {
    let sandbox = Sandbox::new();
    let repo = guarded(&sandbox);
    next(&repo, 2.0, "0.2", "1.1.0");
    let before = remote_tags(&repo);
    let refused = |args: &[&str], why: &str| {
        let output = repo.git([&["push", "--no-verify", "origin"], args].concat()).says(why);
        assert_ne!(output.code, 0, "{output}");
        assert_eq!(remote_tags(&repo), before, "{args:?}");
    };
    for tag in ["churn@v1.0.0", "churn#staging#1"] {
        refused(&["--delete", &format!("refs/tags/{tag}")], "is never deleted");
        refused(&["--force", &format!("churn@v1.1.0:refs/tags/{tag}")], "is never moved");
        refused(&["--force", &format!("HEAD:refs/tags/{tag}")], "is never moved");
    }
    for tag in ["churn@v9.0.0", "churn#staging#2", "team/churn@v1.0.0", "team/churn#prod#1", "x=churn@v1.0.0"]
    {
        refused(&[&format!("HEAD:refs/tags/{tag}")], "is an annotated tag");
    }
    // A push of many refs at once: the others still go through, these do not.
    repo.git(["tag", "v1"]).ok();
    repo.git(["branch", "other"]).ok();
    let output =
        repo.git(["push", "--no-verify", "--force", "origin", "v1", "other", "HEAD:refs/tags/churn@v1.0.0"]);
    assert_ne!(output.code, 0, "{output}");
    let after = remote_tags(&repo);
    assert_eq!(after.get("churn@v1.0.0"), before.get("churn@v1.0.0"));
    // What is no release is nobody's business: it comes, moves and goes.
    assert!(after.contains_key("v1"));
    repo.git(["push", "-q", "--no-verify", "--force", "origin", "HEAD~1:refs/tags/v1"]).ok();
    repo.git(["push", "-q", "--no-verify", "origin", "--delete", "v1", "other"]).ok();

    // The whole way of a version is open.
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    repo.model(["retire", "churn", "prod"]).ok();
    // A name that is taken is a lost race or the same release, not an error of the hook.
    repo.model(["release", "churn", "1.1.0"]).says("released already").ok();
    repo.model(["history", "churn"]).ok();
}

#[test]
fn a_refusal_of_the_host_is_told_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let repo = guarded(&sandbox);
    let hook = "#!/bin/sh\necho 'policy: releases only from CI' >&2\nexit 1\n";
    std::fs::write(sandbox.join("remote.git/hooks/update"), hook).unwrap();
    let before = remote_tags(&repo);
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(1, "git push");
    repo.model(["retire", "churn", "staging"]).fails(1, "git push");
    assert_eq!(remote_tags(&repo), before);
    assert!(!repo.git(["tag"]).ok().contains("#prod#"));
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.0.0");
}

#[test]
fn the_hook_is_good_in_other_shells() {
    let sandbox = Sandbox::new();
    let repo = guarded(&sandbox);
    let (none, some) = ("0".repeat(40), "1".repeat(40));
    for shell in ["sh", "bash", "bash --posix"] {
        let run = |args: &str| repo.sh(&format!("{shell} ../remote.git/hooks/update {args}")).code;
        assert_eq!(run(&format!("refs/heads/main {some} {none}")), 0, "{shell}");
        assert_eq!(run(&format!("refs/tags/churn@v1.0.0 {some} {none}")), 1, "{shell}");
        assert_eq!(run(&format!("'refs/tags/a/b#c#1' {some} {some}")), 1, "{shell}");
        assert_eq!(
            run(&format!("refs/tags/churn@v1.0.0 {none} $(git rev-parse churn@v1.0.0)")),
            0,
            "{shell}"
        );
        assert_eq!(run(&format!("refs/tags/churn@v1.0.0 {none} HEAD")), 1, "{shell}");
        // Longer ids, and an object that is not there.
        assert_eq!(
            run(&format!("refs/tags/churn@v1.0.0 {} {}", "1".repeat(64), "0".repeat(64))),
            1,
            "{shell}"
        );
        assert_eq!(run(&format!("refs/tags/churn@v1.0.0 {none} {some}")), 1, "{shell}");
    }
}

#[test]
fn what_the_hosts_take_is_json() {
    let sandbox = Sandbox::new();
    let anywhere = sandbox.at("");
    let github: Value = serde_json::from_str(&anywhere.model(["protect", "--print", "github"]).ok()).unwrap();
    assert_eq!((&github["target"], &github["enforcement"]), (&"tag".into(), &"active".into()));
    let kinds: Vec<&str> =
        github["rules"].as_array().unwrap().iter().map(|rule| rule["type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"update") && kinds.contains(&"deletion"), "{kinds:?}");
    assert!(github["bypass_actors"].as_array().unwrap().is_empty());
    let gitlab = anywhere.model(["protect", "--print", "gitlab"]).ok();
    let lines: Vec<Value> = gitlab.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["*@v*", "*#*#*"]);
    assert!(lines.iter().all(|line| line["create_access_level"] == 40));
    assert_eq!(anywhere.model(["protect", "--print", "bitbucket"]).says("github, gitlab, hook").code, 2);
    anywhere.model(["protect"]).fails_usage();
}
