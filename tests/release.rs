//! Releases and stages, with a real git remote: what is released, promoted, rolled back, resolved and written out.

use crate::support::Sandbox;
use crate::support::models::{
    RULES, WEIGHTS, declare, in_production, in_stage, next, published, record, remote_tags, train,
};

#[test]
fn a_model_goes_to_production_and_back() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["check", "churn"]).says("every gate passed").ok();
    repo.model(["release", "churn", "--dry-run"]).says("would release churn@v0.1.0").ok();
    assert!(remote_tags(&repo).is_empty());
    repo.model(["release", "churn", "1.0.0"]).says("released churn@v1.0.0").ok();
    repo.model(["release", "churn"]).says("released already").ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "promotes from");
    assert_eq!(remote_tags(&repo).len(), 1, "a refused promotion leaves nothing");
    repo.model(["promote", "churn@1", "staging"]).ok();
    repo.model(["promote", "churn@v1.0.0", "prod", "--reason", "launch"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.model(["promote", "churn@latest", "staging"]).ok();
    repo.model(["promote", "churn@1.1", "prod", "--traffic", "10"]).says("canary").ok();
    assert_eq!(repo.json(["resolve", "churn#prod"])["version"], "1.0.0");
    repo.model(["promote", "churn@1.1", "prod"]).ok();
    next(&repo, 3.0, "0.11", "1.2.0");
    repo.model(["promote", "churn@1.2.0", "staging"]).ok();
    repo.model(["outcome", "churn", "prod", "aborted"]).ok();
    repo.model(["rollback", "churn", "prod", "--reason", "bad"]).says("v1.1.0 -> v1.0.0 (rollback)").ok();

    // A second clone sees the same, and the first keeps no tag that the remote does not have.
    let clone = sandbox.clone_of(&repo, "clone");
    clone.git(["remote", "set-url", "origin", "../remote.git"]).ok();
    let history = clone.json(["history", "churn"]);
    let prod = history["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "prod").unwrap();
    assert_eq!((&prod["version"], &prod["reason"]), (&"1.0.0".into(), &"bad".into()));
    assert_eq!(history["findings"], serde_json::json!([]));
    clone.model(["retire", "churn", "prod"]).ok();
    repo.model(["resolve", "churn#prod"]).fails(3, "nothing is in this stage");
    repo.model(["history", "churn", "--at", "2001-01-01"]).says("").ok();
    let there = remote_tags(&repo);
    for name in repo.git(["tag"]).ok().lines() {
        assert!(there.contains_key(name), "{name}");
    }
}

#[test]
fn gates_refuse_and_are_overridden_in_the_open() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    train(&repo, 2.0);
    repo.write("m/eval.json", r#"{"auc": 0.05}"#);
    record(&repo, "worse");
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", "1.0.0"]).fails(3, "0.05 is below the minimum 0.1");
    repo.model(["release", "churn", "1.0.0", "--override", "a test"]).ok();
    repo.model(["history", "churn"]).ok().contains("override metric auc: a test").then_some(()).unwrap();
    // What is not committed is never released, whatever anybody says.
    repo.write("m/train.yaml", "lr: 9\n");
    repo.model(["release", "churn", "1.5.0", "--override", "a test"]).fails(3, "committed");
    repo.git(["checkout", "-q", "m/train.yaml"]).ok();
    // A release candidate of this very model becomes final; other content does not take its number.
    next(&repo, 3.0, "0.3", "2.0.0-rc.1");
    repo.model(["release", "churn", "2.0.0"]).says("released churn@v2.0.0").ok();
    train(&repo, 4.0);
    repo.write("m/eval.json", r#"{"auc": 0.3}"#);
    record(&repo, "other");
    repo.model(["release", "churn", "2.0.0"]).fails(3, "released already, with other content");
    // A weaker rule in the released commit has no say: the default branch's counts.
    repo.git(["checkout", "-q", "-b", "weak"]).ok();
    declare(&repo, "", &RULES.replace("min: 0.1", "min: 0.0"));
    repo.write("m/eval.json", r#"{"auc": 0.05}"#);
    record(&repo, "weak");
    repo.model(["release", "churn", "3.0.0"]).fails(3, "below the minimum");
}

#[test]
fn resolve_and_get_need_no_clone() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    next(&repo, 2.0, "0.2", "1.0.0");
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    std::fs::create_dir(sandbox.join("pod")).unwrap();
    let url = format!("file://{}", sandbox.join("remote.git").display());
    let store = sandbox.join("store").display().to_string();
    let pod = sandbox
        .at("pod")
        .env("GIT_MODEL_TRUST", store)
        .env("XDG_CACHE_HOME", sandbox.join("xdg").display().to_string());
    let resolved = pod.json(["resolve", "churn#staging", "--repo", &url, "--lock", "lock.json"]);
    assert_eq!((&resolved["version"], &resolved["stage"]["n"]), (&"1.0.0".into(), &1.into()));
    let mirrors = sandbox.join("xdg/git-model/registry");
    let mirror = std::fs::read_dir(mirrors).unwrap().next().unwrap().unwrap().path();
    let count = pod
        .sh(&format!("git --git-dir {} count-objects -v | sed -n 's/^in-pack: //p'", mirror.display()))
        .ok();
    assert!(count.trim().parse::<u32>().unwrap() < 20, "{count} git objects");

    pod.model(["get", "churn@staging", "--repo", &url, "-o", "model"]).ok();
    assert_eq!(pod.read(&format!("model/{WEIGHTS}")), repo.read(WEIGHTS));
    pod.model(["get", "churn@staging", "--repo", &url, "-o", "model"]).says("there already").ok();
    pod.model(["info", "model"]).says("churn").ok();
    // A damaged file is made right again; one of somebody else's is left alone.
    pod.write(&format!("model/{WEIGHTS}"), "damaged");
    pod.model(["get", "--locked", "lock.json", "-o", "model"]).ok();
    assert_eq!(pod.read(&format!("model/{WEIGHTS}")), repo.read(WEIGHTS));
    pod.write("mine/src/pre.py", "mine");
    pod.model(["get", "--locked", "lock.json", "-o", "mine"]).fails(3, "in the way");
    assert_eq!(pod.text("mine/src/pre.py"), "mine");
    // Wrong bytes in the store never become a model.
    let digest = crate::support::sha256(&repo.join(WEIGHTS));
    std::fs::write(sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest), "wrong").unwrap();
    assert_ne!(pod.model(["get", "--locked", "lock.json", "-o", "other"]).code, 0);
    assert!(!pod.exists("other/model-info.json") && !pod.exists("other"));
}

#[test]
fn a_new_directory_holds_nothing_of_another_version() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    // As a run of another version leaves it that was killed.
    repo.write("../.out.git-model-part/src/old.py", "old");
    repo.write("../.out.git-model-part/src/.new-part", "half");
    repo.model(["get", "churn@1.0.0", "-o", "../out"]).ok();
    assert_eq!(repo.text("../out/src/pre.py"), repo.text("src/pre.py"));
    assert!(!repo.exists("../out/src/old.py") && !repo.exists("../out/src/.new-part"));
}

#[test]
fn many_commands_share_one_mirror() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    let url = format!("file://{}", sandbox.join("remote.git").display());
    let here = sandbox
        .at("")
        .env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string())
        .env("XDG_CACHE_HOME", sandbox.join("xdg").display().to_string());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| here.model(["resolve", "churn#staging", "--repo", &url]).ok());
        }
    });
}

#[test]
fn tampering_is_named_and_refused() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    let remote = sandbox.at("remote.git");
    // A release's tag is moved to another commit.
    let (old, new) = ("refs/tags/churn@v1.0.0", "refs/tags/churn@v1.1.0");
    let tag = remote.git(["cat-file", "tag", new]).ok();
    remote.write("../tag", tag.replace("tag churn@v1.1.0", "tag churn@v1.0.0"));
    remote.sh(&format!("git update-ref {new} $(git rev-parse {old})")).ok();
    repo.model(["resolve", "churn#staging"]).fails(3, "churn@v1.1.0");
    remote.sh(&format!("git update-ref {new} $(git --git-dir ../repo/.git rev-parse {new})")).ok();
    repo.model(["resolve", "churn#staging"]).ok();
    // An earlier event is deleted: the chain shows it, and nothing is added before that is settled.
    remote.git(["update-ref", "-d", "refs/tags/churn#staging#1"]).ok();
    repo.model(["history", "churn"]).fails(3, "its record is broken");
    repo.model(["retire", "churn", "staging"]).fails(3, "churn#staging");
}

#[test]
fn locks_and_tags_that_a_kill_or_a_stranger_left_are_no_obstacle() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    // A git that was killed leaves its lock; nobody has to remove it by hand.
    let mirror = std::fs::read_dir(repo.join(".git/model/registry")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    let remote = sandbox.at("remote.git");
    remote.git(["update-ref", "refs/tags/churn@v9.0.0", "refs/heads/main"]).ok();
    // Nor does a lightweight tag, or one that is no tag at all, hide the releases that there are.
    remote.sh("git update-ref refs/tags/churn@v8.0.0 $(git rev-parse 'main^{tree}')").ok();
    assert_eq!(repo.json(["resolve", "churn@latest"])["version"], "1.1.0");
    repo.model(["resolve", "churn@9.0.0"]).fails(3, "a lightweight tag");
    repo.model(["resolve", "churn@8.0.0"]).fails(3, "leads to a tree");
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    // A local tag in the way does not make a published event look failed.
    repo.git(["tag", "churn#staging#2", "HEAD"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"])
        .says("published, but this clone's tag is another one")
        .ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.0.0");
}

#[test]
fn a_way_back_is_open_when_the_past_or_the_rules_are_broken() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    for version in ["1.0.0", "1.1.0", "1.0.0", "1.1.0"] {
        repo.model(["promote", &format!("churn@{version}"), "staging"]).ok();
    }
    let remote = sandbox.at("remote.git");
    remote.git(["update-ref", "-d", "refs/tags/churn#staging#2"]).ok();
    let refused = repo.model(["promote", "churn@1.0.0", "staging"]);
    refused.says("git push REMOTE 'refs/tags/churn#staging#2'").fails(3, "the event before it is missing");
    repo.write("m/model.yaml", "version: [broken");
    repo.git(["commit", "-qam", "broken"]).ok();
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "the rules on the default branch cannot be read");
    let back = repo.model(["rollback", "churn", "staging"]);
    back.says("the rules on the default branch cannot be read").says("v1.1.0 -> v1.0.0 (rollback)").ok();
    // What is asked about a stage is answered, and whoever asks is told.
    repo.model(["resolve", "churn#staging"]).says("the version's own count").ok();
    // A way back to bytes that are gone is none.
    let digest = crate::support::sha256(&repo.join(WEIGHTS));
    std::fs::remove_file(sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest)).unwrap();
    repo.model(["rollback", "churn", "staging", "--to", "1.1.0"]).fails(3, "does not have it");
}

#[test]
fn a_way_back_beside_a_canary_says_which_of_the_two_is_bad() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    next(&repo, 3.0, "0.25", "1.2.0");
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    let back = ["rollback", "churn", "staging"];
    let state = || in_stage(&repo.json(["history", "churn"]), "staging");
    repo.model(["promote", "churn@1.2.0", "staging", "--traffic", "10"]).ok();
    let tags = remote_tags(&repo);
    for _ in 0..2 {
        repo.model(back)
            .says("git model outcome churn staging aborted --version 1.2.0 ends the canary, and v1.1.0 stays")
            .says("git model rollback churn staging --to 1.0.0 takes both out")
            .fails(3, "churn#staging: v1.2.0 is a canary beside v1.1.0; which one is bad?");
    }
    assert_eq!(remote_tags(&repo), tags);
    repo.model(["outcome", "churn", "staging", "aborted", "--version", "1.2.0"]).ok();
    assert_eq!((&state()["version"], &state()["canary"]), (&"1.1.0".into(), &serde_json::Value::Null));
    repo.model(["promote", "churn@1.2.0", "staging", "--traffic", "10"]).ok();
    repo.model(["rollback", "churn", "staging", "--to", "1.0.0"])
        .says("v1.1.0 -> v1.0.0 (rollback), the canary v1.2.0 ends")
        .ok();
    assert_eq!((&state()["version"], &state()["canary"]), (&"1.0.0".into(), &serde_json::Value::Null));
    // Nothing was there before: the way out is still no retirement.
    repo.model(["promote", "churn@1.2.0", "prod", "--traffic", "10", "--override", "a test"]).ok();
    let only = repo.model(["rollback", "churn", "prod"]).says("outcome churn prod aborted --version 1.2.0");
    only.never_says("retire").fails(3, "v1.2.0 is a canary beside v1.0.0");
}

#[test]
fn what_is_said_is_what_is_the_case() {
    let sandbox = Sandbox::new();
    let repo = in_production(&sandbox);
    let canary = ["promote", "churn@1.1.0", "staging", "--traffic", "10"];
    repo.model(canary).ok();
    repo.model(canary).says("churn#staging: nothing to do, v1.1.0 is the canary already").ok();
    // A stage or a model that nobody ever had is a typing mistake, not one without a way back.
    for (name, stage) in [("nope", "prod"), ("churn", "prd")] {
        repo.model(["rollback", name, stage])
            .says(&format!("hint: git model history {name} --stage {stage}"))
            .never_says("retire")
            .fails(3, "nothing is in this stage");
    }
    // A tag that is no release has the name all the same.
    sandbox.at("remote.git").git(["tag", "churn@v1.2.0", "main"]).ok();
    repo.model(["release", "churn", "1.2.0"])
        .says("git push --delete REMOTE 'refs/tags/churn@v1.2.0'")
        .fails(3, "counts as released already, but churn@v1.2.0: a lightweight tag");
    repo.model(["log", "churn", "-n", "0"]).never_says("no version is committed").ok();
}

#[test]
fn a_program_that_reads_json_is_told_the_same() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    // While the tag is on its way, somebody makes another one of its name in the clone.
    let hook = sandbox.join("remote.git/hooks/update");
    let script = format!(
        "#!/bin/sh\nunset $(git rev-parse --local-env-vars)\ngit -C {} tag churn@v1.0.0\n",
        repo.path.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let released = repo.model(["release", "churn", "1.0.0", "--json"]);
    let released =
        released.says("warning: churn@v1.0.0: published, but this clone's tag is another one").ok();
    std::fs::remove_file(&hook).unwrap();
    let released: serde_json::Value = serde_json::from_str(&released).unwrap();
    assert_eq!(released["tag_oid"], remote_tags(&repo)["churn@v1.0.0"]);
    let again = repo.json(["release", "churn", "1.0.0"]);
    assert_eq!((&again["exists"], &again["tag_oid"]), (&true.into(), &released["tag_oid"]));
    for args in [&["check", "churn", "--stage", "a b"][..], &["promote", "churn@1.0.0", "a b"]] {
        repo.model(args).fails(2, "a b");
    }
}

#[test]
fn check_reads_the_store_when_asked() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["check", "churn@1.0.0", "--bytes"]).says("every byte read").ok();
    let digest = crate::support::sha256(&repo.join("src/pre.py"));
    let object = sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest);
    let wrong = vec![b'x'; std::fs::metadata(&object).unwrap().len() as usize];
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, wrong).unwrap();
    repo.model(["check", "churn@1.0.0"]).ok();
    repo.model(["check", "churn@1.0.0", "--bytes"])
        .says("src/pre.py: origin has other bytes")
        .fails(3, "refused");
    std::fs::remove_file(&object).unwrap();
    repo.model(["check", "churn@1.0.0"]).says("src/pre.py: origin does not have it").fails(3, "refused");
}

#[test]
fn an_upgrade_that_was_killed_goes_on() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.git(["mv", "src/pre.py", "src/prepare.py"]).ok();
    repo.write("m/model.yaml", repo.text("m/model.yaml").replace("pre.py", "prepare.py"));
    next(&repo, 2.0, "0.2", "1.1.0");
    next(&repo, 3.0, "0.21", "1.2.0");
    if repo.sh("command -v strace").code != 0 {
        return crate::support::skip("an_upgrade_that_was_killed_goes_on", "strace is missing");
    }
    let binary = env!("CARGO_BIN_EXE_git-model");
    for n in 1.. {
        let out = format!("../out-{n}");
        repo.model(["get", "churn@1.0.0", "-o", &out]).ok();
        // Killed at each rename: no note any more, some files new, some old.
        let inject = format!("-e inject=rename,renameat,renameat2:signal=SIGKILL:when={n}");
        let killed = repo.sh(&format!("strace -f -o /dev/null {inject} {binary} get churn@1.1.0 -o {out}"));
        if killed.code == 0 {
            assert!(n > 5, "killed only {n} times");
            break;
        }
        repo.model(["get", "churn@1.2.0", "-o", &out]).ok();
        assert!(
            !repo.exists(&format!("{out}/src/pre.py")) && !repo.exists(&format!("{out}/.git-model-part"))
        );
        assert_eq!(repo.read(&format!("{out}/{WEIGHTS}")), repo.read(WEIGHTS));
        repo.model(["get", "churn@1.2.0", "-o", &out]).says("there already").ok();
    }
}
