//! Many clones change one stage at once: each event has its own number, is based on the one before, and no loser keeps anything.

use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex};

use serde_json::Value;

use crate::support::models::{
    in_stage, keeps_only, next, payload, published, record, remote_tags, train, trusted_clone,
};
use crate::support::{Repo, Sandbox};

const CLONES: usize = 12;

/// Rounds of all clones at once; `GIT_MODEL_RACE_ROUNDS=50` makes it a long test.
fn rounds() -> usize {
    std::env::var("GIT_MODEL_RACE_ROUNDS").map_or(3, |text| text.parse().unwrap())
}

/// What a clone does in a round. The actor tells events apart that would else be the same within a second.
fn work(clone: &Repo, number: usize, round: usize) -> Vec<String> {
    let what: &[&str] = match (number + round) % 4 {
        0 => &["promote", "churn@1.0.0", "staging"],
        1 => &["promote", "churn@1.1.0", "staging"],
        2 => &["rollback", "churn", "staging", "--to", "1.0.0"],
        _ => &["retire", "churn", "staging"],
    };
    let actor = format!("clone {number}, round {round}");
    let output = clone.model(what.iter().chain(&["--actor", &actor, "--json"]));
    match output.code {
        // Only whoever won tells what was done.
        0 => vec![output.stdout],
        4 => {
            output.fails(4, "others were first, 12 times in a row");
            Vec::new()
        }
        _ => panic!("{output}"),
    }
}

#[test]
fn of_many_at_once_each_event_has_its_own_number() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    let clones: Vec<Repo> =
        (0..CLONES).map(|number| trusted_clone(&sandbox, &format!("clone-{number}"))).collect();

    let done: Mutex<Vec<Value>> = Mutex::default();
    let (start, seen) = (Barrier::new(CLONES), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for (number, clone) in clones.iter().enumerate() {
            let (repo, done, start, seen) = (&repo, &done, &start, &seen);
            scope.spawn(move || {
                for round in 0..rounds() {
                    start.wait();
                    let told = work(clone, number, round);
                    done.lock().unwrap().extend(told.iter().map(|text| serde_json::from_str(text).unwrap()));
                    // When all have ended, no clone has more than the remote has.
                    if start.wait().is_leader() {
                        *seen.lock().unwrap() = remote_tags(repo);
                    }
                    start.wait();
                    keeps_only(clone, &seen.lock().unwrap());
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    judge(&repo, &clones[0], &done);
}

/// Every success is on the remote, once; numbers have no gap; and each event was decided on the one before it.
fn judge(repo: &Repo, clone: &Repo, done: &[Value]) {
    let there = remote_tags(repo);
    clone.git(["fetch", "-q", "--tags"]).ok();
    let count = there.keys().filter(|name| name.starts_with("churn#")).count() as u64;
    let wins: BTreeMap<&str, &Value> = done
        .iter()
        .filter(|done| done["nothing_to_do"] == false)
        .map(|done| (done["tag"].as_str().unwrap(), done))
        .collect();
    let won = done.iter().filter(|done| done["nothing_to_do"] == false).count() as u64;
    assert_eq!((won, wins.len() as u64), (count - 1, count - 1), "one tag for every success");
    let mut before = Value::from("1.0.0");
    for n in 2..=count {
        let tag = format!("churn#staging#{n}");
        let event = payload(clone, &tag);
        let win = wins.get(&tag[..]).unwrap_or_else(|| panic!("nobody made {tag}"));
        assert_eq!(win["tag_oid"], Value::from(there[&tag].clone()), "{tag}");
        let previous = there[&format!("churn#staging#{}", n - 1)].clone();
        assert_eq!(event["previous"], serde_json::json!({"n": n - 1, "oid": previous}), "{tag}");
        // The command saw what the event before it left: no update was lost.
        assert_eq!(win["before"], before, "{tag}");
        before = event["version"].clone();
    }
    let races: u64 = done.iter().map(|done| done["lost_races"].as_u64().unwrap()).sum();
    assert!(races > 0, "nobody ever lost a race, so this tested nothing");
    repo.model(["history", "churn"]).ok();
    let resolved = repo.model(["resolve", "churn#staging", "--json"]);
    match before.as_str() {
        Some(version) => {
            assert_eq!(serde_json::from_str::<Value>(&resolved.ok()).unwrap()["version"], version);
        }
        None => drop(resolved.fails(3, "nothing is in this stage")),
    }
}

#[test]
fn of_many_that_release_at_once_each_has_its_own_version() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    let clones: Vec<Repo> =
        (0..4).map(|number| trusted_clone(&sandbox, &format!("clone-{number}"))).collect();
    // Each has a model of its own, and asks for the next patch and for one certain version.
    for (number, clone) in clones.iter().enumerate() {
        clone.model(["pull"]).ok();
        train(clone, 10.0 + number as f32);
        clone.write("m/eval.json", r#"{"auc": 0.2}"#);
        record(clone, "mine");
        clone.git(["push", "-q", "origin", &format!("HEAD:refs/heads/branch-{number}")]).ok();
    }
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let run = |clone: Repo| {
            let next = clone.model(["release", "churn", "--json"]);
            (next, clone.model(["release", "churn", "5.0.0", "--json"]))
        };
        let threads: Vec<_> = clones.iter().map(|clone| scope.spawn(move || run(clone.clone()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut certain = 0;
    for (next, exact) in outputs {
        assert!(matches!(next.code, 0 | 4), "{next}");
        match exact.code {
            0 => certain += 1,
            _ => drop(exact.fails(3, "released already, with other content")),
        }
    }
    assert_eq!(certain, 1, "one version is of one model");
    let there = remote_tags(&repo);
    for clone in &clones {
        keeps_only(clone, &there);
    }
    repo.model(["history", "churn"]).ok();
}

/// Lets somebody else, in a clone of their own, run a command while the next push is on its way.
fn first(sandbox: &Sandbox, command: &str) {
    let clone = sandbox.join("other");
    if !clone.exists() {
        trusted_clone(sandbox, "other");
    }
    let hook = sandbox.join("remote.git/hooks/update");
    let script = format!(
        "#!/bin/sh\nrm hooks/update\nunset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n\
         cd {} && {command} --actor other >&2\n",
        clone.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn whoever_loses_a_race_does_not_take_out_the_next_version() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    for (step, auc, version) in [(2.0, "0.2", "1.1.0"), (3.0, "0.3", "1.2.0")] {
        next(&repo, step, auc, version);
        repo.model(["promote", &format!("churn@{version}"), "staging"]).ok();
    }
    let events = || remote_tags(&repo).keys().filter(|tag| tag.starts_with("churn#staging#")).count();
    let state = || {
        let state = in_stage(&repo.json(["history", "churn"]), "staging");
        (state["version"].as_str().unwrap().to_owned(), state["canary"].clone(), events())
    };
    let nothing = Value::Null;
    // The other one rolled back to the very version.
    first(&sandbox, "git-model rollback churn staging");
    repo.model(["rollback", "churn", "staging"]).says("nothing to do, it is v1.1.0 already").ok();
    assert_eq!(state(), ("1.1.0".to_owned(), nothing.clone(), 4));
    // The other one put a good version there.
    first(&sandbox, "git-model promote churn@1.2.0 staging");
    repo.model(["rollback", "churn", "staging"]).fails(4, "put another version there meanwhile");
    assert_eq!(state(), ("1.2.0".to_owned(), nothing.clone(), 5));
    // A canary that both report as aborted, and that a controller reports once more.
    repo.model(["promote", "churn@1.1.0", "staging", "--traffic", "10"]).ok();
    first(&sandbox, "git-model outcome churn staging aborted");
    for _ in 0..2 {
        let again = repo.model(["outcome", "churn", "staging", "aborted", "--reason", "p95"]);
        again.says("nothing to do, that is recorded of v1.1.0 already").ok();
    }
    assert_eq!(state(), ("1.2.0".to_owned(), nothing.clone(), 7));
    // A report that comes after the rollback is not about the version that is back.
    repo.model(["rollback", "churn", "staging"]).says("v1.2.0 -> v1.0.0").ok();
    repo.model(["outcome", "churn", "staging", "aborted"])
        .says("--version")
        .fails(3, "v1.0.0 is there by a rollback; was its own rollout aborted?");
    repo.model(["outcome", "churn", "staging", "aborted", "--version", "1.0.0"]).ok();
    assert_eq!(state(), ("1.0.0".to_owned(), nothing, 9));
}
