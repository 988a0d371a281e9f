//! What somebody did to tags or to the store behind everybody's back is named and refused.

use crate::support::models::{
    WEIGHTS, advance, in_production, next, payload, pod, published, record, remote_tags, remote_url, train,
    trusted_clone, weights,
};
use crate::support::{Repo, Sandbox, sha256};

/// 1.0.0 in staging and production, then 1.1.0 in staging.
fn released(sandbox: &Sandbox) -> Repo {
    let repo = in_production(sandbox);
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    repo
}

/// Makes a tag again on the remote, with something replaced in its object.
fn edit(sandbox: &Sandbox, tag: &str, from: &str, to: &str) {
    let remote = sandbox.at("remote.git");
    let text = remote.git(["cat-file", "tag", &format!("refs/tags/{tag}")]).ok();
    assert!(text.contains(from), "{text}");
    std::fs::write(sandbox.join("edited"), text.replace(from, to)).unwrap();
    let script =
        format!("git update-ref 'refs/tags/{tag}' $(git hash-object --literally -t tag -w ../edited)");
    remote.sh(&script).ok();
}

/// Nobody takes the answer: neither a clone that knew better, nor a new one, nor whoever has none. No event is added.
#[track_caller]
fn nobody_resolves(sandbox: &Sandbox, repo: &Repo, reference: &str, why: &str) {
    let fresh = trusted_clone(sandbox, &format!("fresh-{}", reference.replace(['#', '@'], "-")));
    let nowhere = pod(sandbox, &format!("pod-{}", reference.replace(['#', '@'], "-")));
    for clone in [repo, &fresh] {
        clone.model(["resolve", reference]).fails(3, why);
        clone.model(["get", reference, "-o", "../out"]).fails(3, why);
    }
    let url = remote_url(sandbox);
    nowhere.model(["resolve", reference, "--repo", &url]).fails(3, why);
    nowhere.model(["get", reference, "--repo", &url, "-o", "../out"]).fails(3, why);
    assert!(!sandbox.join("out").exists());
}

#[test]
fn a_moved_release() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let locked = pod(&sandbox, "locked");
    let url = remote_url(&sandbox);
    locked.model(["resolve", "churn@1.1.0", "--repo", &url, "--lock", "lock.json"]).ok();
    // The very same payload on another commit.
    let (old, new) = ("churn@v1.0.0^{commit}", "churn@v1.1.0^{commit}");
    let id = |name: &str| repo.git(["rev-parse", name]).ok().trim().to_owned();
    edit(&sandbox, "churn@v1.1.0", &format!("object {}", id(new)), &format!("object {}", id(old)));
    nobody_resolves(&sandbox, &repo, "churn#staging", "churn");
    let get = ["get", "churn@1.1.0", "--repo", &url, "--locked", "lock.json", "-o", "out"];
    assert_eq!(locked.model(get).code, 3);
    assert!(!locked.exists("out"));
    repo.model(["history", "churn"]).says("churn@v1.1.0").fails(3, "its record is broken");
    let tags = remote_tags(&repo);
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(3, "churn");
    repo.model(["rollback", "churn", "staging"]).fails(3, "churn#staging");
    assert_eq!(remote_tags(&repo), tags);
    // The other stage is not concerned: a way back must not depend on it.
    assert_eq!(repo.json(["resolve", "churn#prod"])["version"], "1.0.0");
}

#[test]
fn a_release_that_was_tagged_again() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    advance(&repo, 2.0, r#"{"auc": 0.2}"#, "two");
    sandbox.at("remote.git").git(["tag", "-f", "-a", "-m", "moved", "churn@v1.0.0", "main"]).ok();
    // Nothing is wrong with the tag itself: only the event remembers the one before.
    let (moved, tags) = ("churn#staging#1: churn@v1.0.0 was moved after this event", remote_tags(&repo));
    for args in [&["check", "churn@1.0.0"][..], &["check", "churn@1.0.0", "--stage", "prod"]] {
        repo.model(args).says("git push --force REMOTE 'refs/tags/churn@v1.0.0'").fails(3, moved);
    }
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, moved);
    repo.model(["approve", "churn@1.0.0", "prod"]).fails(3, moved);
    assert_eq!(remote_tags(&repo), tags);
    repo.git(["fetch", "-q", "--tags", "--force"]).ok();
    repo.model(["resolve", "churn@1.0.0", "--offline"]).fails(3, moved);
    nobody_resolves(&sandbox, &repo, "churn#staging", "churn");
}

#[test]
fn a_deleted_release_does_not_give_its_version_away() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    next(&repo, 3.0, "0.3", "1.2.0");
    let remote = sandbox.at("remote.git");
    remote.git(["tag", "-d", "churn@v1.1.0", "churn@v1.2.0"]).ok();
    advance(&repo, 4.0, r#"{"auc": 0.4}"#, "four");
    let tags = remote_tags(&repo);
    // An event names 1.1.0. Of 1.2.0 only the clone knows that released it.
    let named = "churn@v1.1.0: this version counts as released already, but churn#staging#2: the release that it names";
    repo.model(["release", "churn", "1.1.0"])
        .says("git push REMOTE 'refs/tags/churn@v1.1.0'")
        .fails(3, named);
    for args in [&["release", "churn", "1.2.0"][..], &["release", "churn", "--minor"]] {
        let own = "churn@v1.2.0: this clone has the tag, and origin does not";
        repo.model(args).says("git push origin 'refs/tags/churn@v1.2.0'").fails(3, own);
    }
    assert_eq!(remote_tags(&repo), tags);
    let clone = trusted_clone(&sandbox, "clone");
    clone.model(["release", "churn", "1.1.0", "--commit", "HEAD"]).fails(3, named);
    // What is advised brings it back.
    repo.git(["push", "-q", "origin", "refs/tags/churn@v1.1.0", "refs/tags/churn@v1.2.0"]).ok();
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
    repo.model(["release", "churn", "--minor"]).says("released churn@v1.3.0").ok();
}

#[test]
fn a_way_back_that_is_not_found_for_a_deleted_event() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    sandbox.at("remote.git").git(["tag", "-d", "churn#staging#1"]).ok();
    for (to, why) in [
        (&[][..], "churn#staging: no version before was good in this stage"),
        (&["--to", "1.0.0"], "churn#staging: no event says that v1.0.0 was in this stage"),
    ] {
        repo.model(["rollback", "churn", "staging"].iter().chain(to))
            .says("hint: churn#staging: churn#staging#2: the event before it is missing")
            .says("bring it back: git push REMOTE 'refs/tags/churn#staging#1'")
            .fails(3, why);
    }
    repo.git(["push", "-q", "origin", "refs/tags/churn#staging#1"]).ok();
    repo.model(["rollback", "churn", "staging"]).says("v1.1.0 -> v1.0.0 (rollback)").ok();
}

#[test]
fn ways_out_of_a_version_whose_tag_is_gone_or_moved() {
    for spoil in ["git tag -d churn@v1.2.0", "git tag -f -a -m moved churn@v1.2.0 churn@v1.1.0^{commit}"] {
        let sandbox = Sandbox::new();
        let repo = released(&sandbox);
        next(&repo, 3.0, "0.3", "1.2.0");
        repo.model(["promote", "churn@1.2.0", "staging"]).ok();
        let remote = sandbox.at("remote.git");
        remote.sh(spoil).ok();
        repo.git(["tag", "-d", "churn@v1.2.0"]).ok();
        // What is to be promoted waits, and so does a way back that nobody named; it says how to.
        repo.model(["promote", "churn@1.0.0", "staging"]).fails(3, "churn@v1.2.0");
        repo.model(["rollback", "churn", "staging"])
            .says("git model rollback churn staging --to 1.1.0 passes over it")
            .fails(3, "churn#staging: churn#staging#3: ");
        let back = repo.model(["rollback", "churn", "staging", "--to", "1.1.0"]);
        back.says("warning: churn#staging: churn#staging#3: ").says("v1.2.0 -> v1.1.0 (rollback)").ok();
        assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
        // A finding about neither of the two that matter is none of this one's business.
        repo.model(["rollback", "churn", "staging"]).says("v1.1.0 -> v1.0.0 (rollback)").ok();
        repo.model(["rollback", "churn", "staging", "--to", "1.2.0"]).fails(3, "churn@v1.2.0");
        // Without anything to go back to, the stage can at least be emptied.
        remote.git(["tag", "-d", "churn@v1.0.0"]).ok();
        repo.model(["rollback", "churn", "prod"]).fails(3, "churn#prod: churn#prod#1: ");
        for said in ["v1.0.0 -> empty", "nothing to do, it is empty already"] {
            repo.model(["retire", "churn", "prod"]).says(said).ok();
        }
        repo.model(["resolve", "churn#prod"]).fails(3, "nothing is in this stage");
    }
}

#[test]
fn an_edited_release() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let digest = payload(&sandbox.at("remote.git"), "churn@v1.1.0")["digest"].as_str().unwrap().to_owned();
    edit(&sandbox, "churn@v1.1.0", &digest, &"0".repeat(64));
    nobody_resolves(&sandbox, &repo, "churn#staging", "churn");
    nobody_resolves(&sandbox, &repo, "churn@1.1.0", "churn@v1.1.0");
    repo.model(["history", "churn"]).fails(3, "its record is broken");
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(3, "churn");
}

#[test]
fn a_release_whose_payload_is_no_json_or_disagrees_with_its_trailers() {
    for (from, to, why) in [
        ("\"schema\": \"git-model/release/v1\",", "\"schema\": \"git-model/release/v1\"", "damaged payload"),
        ("\nModel-Version: 1.1.0\n", "\nModel-Version: 1.1.1\n", "damaged payload"),
        ("git-model/release/v1", "git-model/release/v9", "newer git-model"),
        ("\"version\": \"1.1.0\"", "\"version\": \"1.0.0\"", "churn@v1.1.0"),
    ] {
        let sandbox = Sandbox::new();
        let repo = released(&sandbox);
        edit(&sandbox, "churn@v1.1.0", from, to);
        let told = repo.model(["history", "churn"]).says(why).fails(3, "its record is broken");
        assert!(told.contains("churn@v1.1.0"), "{told}");
        assert_eq!(repo.model(["resolve", "churn#staging"]).code, 3);
        assert_ne!(repo.model(["resolve", "churn@1.1.0"]).code, 0);
        // The number stays taken.
        train(&repo, 5.0);
        repo.write("m/eval.json", r#"{"auc": 0.3}"#);
        record(&repo, "five");
        repo.model(["release", "churn", "1.1.0"]).fails(3, "released already");
    }
}

#[test]
fn an_edited_event() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    // The last one: nothing after it remembers it, but it must agree with the release that it names.
    let digest = payload(&sandbox.at("remote.git"), "churn#staging#2")["digest"].as_str().unwrap().to_owned();
    edit(&sandbox, "churn#staging#2", &digest, &"1".repeat(64));
    nobody_resolves(&sandbox, &repo, "churn#staging", "churn#staging#2");
    repo.model(["retire", "churn", "staging"]).fails(3, "churn#staging");
    // An earlier one: the next remembers it.
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    repo.model(["rollback", "churn", "staging"]).ok();
    edit(&sandbox, "churn#staging#2", "\"action\": \"promote\"", "\"action\": \"approve\"");
    repo.model(["history", "churn"])
        .says("the event before it was rewritten")
        .fails(3, "its record is broken");
    repo.model(["promote", "churn@1.1.0", "staging"]).fails(3, "was rewritten");
    // A number that was used for another stage.
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let remote = sandbox.at("remote.git");
    remote.sh("git update-ref 'refs/tags/churn#prod#2' $(git rev-parse 'refs/tags/churn#staging#2')").ok();
    assert_eq!(repo.model(["resolve", "churn#prod"]).says("churn#prod#2").code, 3);
    assert_eq!(repo.json(["resolve", "churn#staging"])["version"], "1.1.0");
}

#[test]
fn a_replaced_object_is_never_written() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let digest = sha256(&repo.join(WEIGHTS));
    let object = sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest);
    std::fs::write(&object, weights(7.0)).unwrap();
    assert_eq!(weights(7.0).len(), weights(2.0).len());
    let clone = trusted_clone(&sandbox, "clone");
    clone.model(["get", "churn#staging", "-o", "../out"]).fails(3, WEIGHTS);
    let pod = pod(&sandbox, "pod");
    let url = remote_url(&sandbox);
    pod.model(["get", "churn#staging", "--repo", &url, "-o", "../out"]).fails(3, WEIGHTS);
    pod.model(["resolve", "churn#staging", "--repo", &url, "--lock", "lock.json"]).ok();
    pod.model(["get", "--locked", "lock.json", "-o", "../out"]).fails(3, WEIGHTS);
    assert!(!sandbox.join("out").exists());
    // The version before is not concerned, and a directory with it stays as it was when the next one cannot be had.
    pod.model(["get", "churn#prod", "--repo", &url, "-o", "model"]).ok();
    pod.sh("cp -r model before").ok();
    pod.model(["get", "churn#staging", "--repo", &url, "-o", "model"]).fails(3, WEIGHTS);
    pod.sh("diff -r --exclude='.git-model-part' before model").ok();
    repo.model(["push", "--repair"]).ok();
    pod.model(["get", "churn#staging", "--repo", &url, "-o", "model"]).ok();
    assert_eq!(pod.read(&format!("model/{WEIGHTS}")), weights(2.0));
    assert!(!pod.exists("model/.git-model-part"));
}

#[test]
fn a_release_brings_back_what_the_store_lost() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["push"]).ok();
    // The store confirmed it once, and somebody removed it since.
    let object = |path: &str| {
        let digest = sha256(&repo.join(path));
        sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest)
    };
    for path in [WEIGHTS, "data/rows.csv"] {
        std::fs::remove_file(object(path)).unwrap();
    }
    repo.model(["release", "churn", "1.0.0"]).ok();
    assert_eq!(sha256(&object(WEIGHTS)), sha256(&repo.join(WEIGHTS)));
    assert!(object("data/rows.csv").exists());
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    // Where nobody has it any more, there is no release.
    train(&repo, 3.0);
    repo.write("m/eval.json", r#"{"auc": 0.3}"#);
    record(&repo, "three");
    repo.model(["push"]).ok();
    repo.git(["push", "-q", "origin", "main"]).ok();
    let clone = trusted_clone(&sandbox, "clone");
    std::fs::remove_file(object(WEIGHTS)).unwrap();
    clone
        .model(["release", "churn", "1.1.0"])
        .fails(3, "m/weights.safetensors: the content is neither here nor in");
    assert!(!remote_tags(&repo).contains_key("churn@v1.1.0"));
}
