//! Releases from the clones that CI has, and from servers that cannot do everything.

use crate::support::models::{
    WEIGHTS, advance, in_production, in_stage, keeps_only, pod, published, remote_tags, remote_url,
    trusted_clone, weights,
};
use crate::support::{Repo, Sandbox};

/// A clone of one commit without tags, as CI has it.
fn shallow(sandbox: &Sandbox, name: &str) -> Repo {
    let args = ["clone", "-q", "--depth", "1", "--no-tags", &remote_url(sandbox), name];
    sandbox.at("").git(args).ok();
    let clone = sandbox.at(name);
    assert_eq!(clone.git(["tag"]).ok(), "");
    assert_eq!(clone.git(["rev-list", "--count", "HEAD"]).ok().trim(), "1");
    clone.env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string())
}

#[test]
fn a_shallow_clone_without_tags_does_everything() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    advance(&repo, 3.0, r#"{"auc": 0.3}"#, "three");
    let ci = shallow(&sandbox, "ci");
    assert_eq!(ci.json(["resolve", "churn#prod"])["version"], "1.0.0");
    ci.model(["check", "churn"]).ok();
    // The next number is counted from what the remote has.
    ci.model(["release", "churn", "--minor"]).says("released churn@v1.2.0").ok();
    ci.model(["promote", "churn@1.2.0", "staging"]).ok();
    ci.model(["promote", "churn@1.2.0", "prod"]).ok();
    // Of a version whose commit is not here, too.
    ci.model(["rollback", "churn", "prod"]).says("v1.2.0 -> v1.0.0").ok();
    ci.model(["promote", "churn@1.1.0", "staging"]).ok();
    ci.model(["get", "churn#staging", "-o", "../out"]).ok();
    assert_eq!(std::fs::read(sandbox.join("out").join(WEIGHTS)).unwrap(), weights(2.0));
    let history = ci.json(["history", "churn"]);
    assert_eq!(history, repo.json(["history", "churn"]));
    assert_eq!(in_stage(&history, "prod")["version"], "1.0.0");
    assert_eq!(history["findings"], serde_json::json!([]));
    // It stays as shallow as it was, and keeps no tag that the remote does not have.
    assert_eq!(ci.git(["rev-list", "--count", "HEAD"]).ok().trim(), "1");
    keeps_only(&ci, &remote_tags(&repo));
    ci.git(["fsck", "--connectivity-only"]).ok();
}

#[test]
fn a_detached_head_is_a_commit_as_any_other() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    advance(&repo, 2.0, r#"{"auc": 0.2}"#, "two");
    let ci = trusted_clone(&sandbox, "ci");
    ci.git(["checkout", "-q", "--detach", "HEAD"]).ok();
    ci.model(["release", "churn", "1.0.0"]).ok();
    ci.model(["promote", "churn@1.0.0", "staging"]).ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.0.0");
    // An older commit than the default branch's: its rules are the default branch's all the same.
    ci.git(["checkout", "-q", "HEAD~1"]).ok();
    let tip = repo.git(["rev-parse", "main"]).ok();
    let check = ci.json(["check", "churn"]);
    assert_eq!((&check["policy"]["commit"], &check["passed"]), (&tip.trim().into(), &true.into()));
}

#[test]
fn a_linked_worktree_shares_the_registry() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    repo.git(["worktree", "add", "-q", "-b", "other", "../linked"]).ok();
    let linked = sandbox.at("linked");
    linked.model(["pull"]).ok();
    advance(&linked, 3.0, r#"{"auc": 0.3}"#, "three");
    linked.model(["release", "churn", "1.2.0"]).ok();
    linked.model(["promote", "churn@1.2.0", "staging"]).ok();
    assert_eq!(linked.json(["resolve", "churn#staging"]), repo.json(["resolve", "churn#staging"]));
    linked.model(["get", "churn@1.2.0", "-o", "../out"]).ok();
    assert_eq!(std::fs::read(sandbox.join("out").join(WEIGHTS)).unwrap(), weights(3.0));
    // What HEAD is depends on the worktree.
    assert_ne!(linked.json(["resolve", "HEAD"])["commit"], repo.json(["resolve", "HEAD"])["commit"]);
    keeps_only(&linked, &remote_tags(&repo));
}

#[test]
fn a_bare_repository_resolves_and_tells_history() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    // A mirror as a CI server keeps it, and the remote itself.
    sandbox.at("").git(["clone", "-q", "--mirror", "remote.git", "mirror.git"]).ok();
    let store = sandbox.join("store").display().to_string();
    for bare in ["mirror.git", "remote.git"] {
        let bare = sandbox.at(bare).env("GIT_MODEL_TRUST", &store);
        assert_eq!(bare.json(["resolve", "churn#prod"])["version"], "1.0.0");
        assert_eq!(bare.json(["resolve", "churn@latest"])["version"], "1.1.0");
        assert_eq!(bare.json(["history", "churn"]), repo.json(["history", "churn"]));
        bare.model(["history"]).ok();
        bare.model(["check", "churn@1.1.0", "--stage", "staging"]).ok();
        let out = sandbox.join(&format!("out-{}", bare.path.file_name().unwrap().display()));
        bare.model(["get", "churn#prod", "-o", out.to_str().unwrap()]).ok();
        assert_eq!(std::fs::read(out.join(WEIGHTS)).unwrap(), weights(1.0));
    }
}

/// Everything that reads without a clone.
fn reads_without_a_clone(sandbox: &Sandbox, pod: &Repo) {
    let url = remote_url(sandbox);
    for (reference, version, step) in
        [("churn#prod", "1.0.0", 1.0), ("churn@1", "1.1.0", 2.0), ("churn", "1.1.0", 2.0)]
    {
        let resolved = pod.json(["resolve", reference, "--repo", &url]);
        assert_eq!(resolved["version"], version, "{reference}");
        assert_eq!(resolved["files"].as_array().unwrap().len(), 8, "{reference}");
        pod.model(["get", reference, "--repo", &url, "-o", "out", "--force"]).ok();
        assert_eq!(pod.read(&format!("out/{WEIGHTS}")), weights(step), "{reference}");
    }
    pod.model(["resolve", "churn@7", "--repo", &url]).fails(1, "churn@7: there is no such release");
    pod.model(["resolve", "HEAD~1", "--repo", &url]).fails(2, "without a clone, name a release or a stage");
}

#[test]
fn a_server_without_filters_is_no_obstacle() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    let remote = sandbox.at("remote.git");
    remote.git(["config", "uploadpack.allowFilter", "false"]).ok();
    reads_without_a_clone(&sandbox, &pod(&sandbox, "pod"));
    // Nor for a clone that promotes.
    let ci = shallow(&sandbox, "ci");
    ci.model(["promote", "churn@1.1.0", "staging"]).ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
}

#[test]
fn nor_is_one_without_filters_that_speaks_an_old_protocol() {
    let sandbox = Sandbox::new();
    in_production(&sandbox);
    sandbox.at("").git(["config", "--global", "protocol.version", "0"]).ok();
    sandbox.at("remote.git").git(["config", "uploadpack.allowFilter", "false"]).ok();
    reads_without_a_clone(&sandbox, &pod(&sandbox, "pod"));
    let ci = shallow(&sandbox, "ci");
    ci.model(["promote", "churn@1.1.0", "staging"]).ok();
    assert_eq!(ci.json(["resolve", "churn#staging"])["version"], "1.1.0");
}

#[test]
fn a_url_that_is_no_repository_is_named() {
    let sandbox = Sandbox::new();
    let pod = pod(&sandbox, "pod");
    let url = format!("file://{}", sandbox.join("nothing.git").display());
    pod.model(["resolve", "churn#prod", "--repo", &url]).fails(1, "nothing.git");
    pod.model(["get", "churn#prod", "--repo", &url, "-o", "out"]).fails(1, "nothing.git");
    pod.model(["resolve", "churn#prod", "--repo", "--upload-pack=touch x"]).fails(2, "");
    assert!(!pod.exists("x") && !pod.exists("out"));
    pod.model(["resolve", "churn#prod"]).fails(1, "git repository");
}

/// The mirrors that a pod has of URLs.
fn mirrors(sandbox: &Sandbox, pod: &str) -> Vec<std::path::PathBuf> {
    let dir = sandbox.join(&format!("{pod}-cache/git-model/registry"));
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn offline_what_was_read_before_counts_and_nothing_is_asked() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    let pod = pod(&sandbox, "pod");
    let url = remote_url(&sandbox);
    let resolve = |reference: &str, more: &[&str]| {
        pod.model([&["resolve", reference, "--repo", &url, "--json"], more].concat())
    };
    resolve("churn#prod", &["--offline"]).fails(1, "nothing is known about it here");
    // Only the events that decide are here: those before them are missing in nobody's record.
    let online = ["churn#prod", "churn@latest"].map(|reference| resolve(reference, &[]).ok());
    pod.model(["get", "churn#prod", "--repo", &url, "-o", "model"]).ok();
    std::fs::rename(sandbox.join("remote.git"), sandbox.join("gone.git")).unwrap();
    assert_eq!(["churn#prod", "churn@latest"].map(|name| resolve(name, &["--offline"]).ok()), online);
    pod.model(["get", "churn#prod", "--repo", &url, "-o", "model", "--offline"]).says("there already").ok();
    resolve("churn@1.0.0", &["--offline"]).fails(1, "there is no such release");
    resolve("churn#prod", &[]).fails(1, "remote.git: cannot be read");
    // Of a release that is known by its tag alone, nothing is fetched behind anybody's back.
    std::fs::rename(sandbox.join("gone.git"), sandbox.join("remote.git")).unwrap();
    sandbox.at("remote.git").git(["update-ref", "refs/tags/churn@v9.0.0", "refs/heads/main"]).ok();
    resolve("churn@latest", &[]).ok();
    resolve("churn@1.0.0", &["--offline"]).fails(1, "churn@v1.0.0: not all of it is here, and --offline");
    resolve("churn@1.0.0", &[]).ok();
    resolve("churn@1.0.0", &["--offline"]).ok();
}

#[test]
fn a_relative_path_means_another_repository_in_every_directory() {
    let sandbox = Sandbox::new();
    in_production(&sandbox);
    let pod = pod(&sandbox, "pod");
    let script = "git clone -q --bare ../remote.git one/host.git && git init -q --object-format=sha256 two/new && \
                  git -C two/new commit -q --allow-empty -m x && git clone -q --bare two/new two/host.git && mkdir one/in two/in";
    pod.sh(script).ok();
    let latest = |at: &str| pod.at(at).model(["resolve", "churn@latest", "--repo", "../host.git"]);
    latest("one/in").says("1.1.0").ok();
    latest("two/in").fails(1, "there is no such release");
    latest("one/in").says("1.1.0").ok();
    // From wherever it is named, it is the same one.
    pod.model(["resolve", "churn@latest", "--repo", "one/../one/host.git", "--offline"]).ok();
    assert_eq!(mirrors(&sandbox, "pod").len(), 2);
    // Another repository in its place: what was kept of the first is no obstacle for long.
    pod.sh("rm -rf one/host.git && cp -r two/host.git one/host.git").ok();
    latest("one/in").fails(1, "another repository was here before");
    latest("one/in").fails(1, "there is no such release");
}

#[test]
fn a_damaged_mirror_or_tag_is_no_obstacle() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    let pod = pod(&sandbox, "pod");
    let url = remote_url(&sandbox);
    let of_pod = ["resolve", "churn#prod", "--repo", &url];
    pod.model(of_pod).ok();
    let own = repo.sh("echo .git/model/registry/*.git").ok();
    let own = sandbox.join("repo").join(own.trim());
    for mirror in [&mirrors(&sandbox, "pod")[0], &own] {
        for damage in
            ["rm HEAD", "rm -r objects", ": >HEAD", "find refs/tags -type f -exec sh -c ': >\"$0\"' {} ';'"]
        {
            repo.at(mirror).sh(damage).ok();
            pod.model(of_pod).ok();
            assert_eq!(repo.json(["resolve", "churn#prod"])["version"], "1.0.0", "{damage}");
            repo.model(["history", "churn"]).ok();
        }
    }
    // A tag of the clone that a power cut left empty hides itself only.
    std::fs::write(repo.join(".git/refs/tags/churn@v1.0.0"), "").unwrap();
    let damaged = "churn@v1.0.0: its file in refs/tags names no object";
    repo.model(["log", "churn"]).says("1.1.0").says(damaged).ok();
    repo.model(["info", "churn"]).says("1.1.0").ok();
    let offline = repo.model(["history", "churn", "--offline"]);
    assert_eq!(offline.code, 3, "{offline}");
    assert!(offline.stderr.contains(damaged), "{offline}");
    repo.model(["history", "churn"]).ok();
}

#[test]
fn what_git_said_is_told_with_what_to_do() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    let remote = sandbox.at("remote.git");
    remote.write("hooks/update", "#!/bin/sh\necho 'tags are frozen until Monday'\nexit 1\n");
    remote.sh("chmod +x hooks/update").ok();
    let said = repo.model(["release", "churn", "1.0.0"]).fails(1, "tags are frozen until Monday");
    assert!(said.contains("[remote rejected] (hook declined)"), "{said}");
    remote.sh("rm hooks/update").ok();
    repo.git(["remote", "set-url", "origin", "../gone.git"]).ok();
    let said =
        repo.model(["resolve", "churn@latest"]).fails(1, "git remote origin (../gone.git): cannot be read");
    assert!(
        said.contains("does not appear to be a git repository")
            && said.contains("hint: git ls-remote origin"),
        "{said}"
    );
    repo.git(["remote", "set-url", "origin", "../remote.git"]).ok();
    repo.git(["config", "user.useConfigOnly", "true"]).ok();
    let nobody = repo.env("GIT_CONFIG_GLOBAL", "/dev/null");
    let said = nobody.model(["release", "churn", "1.0.0"]).fails(1, "git tag: ");
    assert!(said.contains("hint: git config user.name and user.email"), "{said}");
    repo.git(["config", "model.gitRemote", "zz"]).ok();
    let said =
        repo.model(["resolve", "churn@latest"]).fails(1, "model.gitRemote: there is no git remote `zz`");
    assert!(said.contains("hint: git remote lists them"), "{said}");
}
