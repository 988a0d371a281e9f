//! push, fetch and pull: the same cases over a folder and over a real S3 server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::garage::garage;
use crate::support::proxy::{Fate, Proxy};
use crate::support::stores::{Place, key_of};
use crate::support::{Repo, noise, run, sha256, skip};

/// Runs each case once per kind of store.
macro_rules! on_every_store {
    ($($(#[$attribute:meta])* $case:ident;)*) => {
        mod folder { $(#[test] $(#[$attribute])* fn $case() { super::$case(&super::Place::folder()); })* }
        mod garage { $(#[test] $(#[$attribute])* fn $case() { super::$case(&super::Place::garage()); })* }
    };
}

on_every_store! {
    exact_bytes_come_back_in_a_clone;
    what_is_there_is_neither_sent_nor_asked_for_again;
    any_client_can_read_the_objects;
    large_directories_are_sent_in_shards;
    dry_runs_send_and_fetch_nothing;
    repair_sends_what_was_deleted_or_cut;
    fetch_all_brings_the_history;
    one_path_can_be_pulled_alone;
    a_missing_object_is_named_by_its_path;
    what_the_store_has_comes_although_something_is_missing;
    fetch_all_passes_over_unreadable_pointers;
    wrong_bytes_in_the_store_are_refused;
    repair_replaces_wrong_bytes;
    lost_content_is_reported_and_the_rest_is_sent;
    a_damaged_cached_object_is_not_sent_and_the_rest_is;
    offline_contacts_nothing;
    one_transfer_at_a_time_works;
    pushes_at_the_same_time_agree;
    pushes_of_a_large_object_at_the_same_time_agree;
    a_killed_push_can_be_repeated;
    a_replaced_store_is_filled_again;
}

/// The store's key of a file's content.
fn key(file: &Path) -> String {
    key_of(&sha256(file))
}

/// Adds a directory with one file as an artifact and commits it.
fn commit_dir(repo: &Repo, dir: &str, file: &str, content: impl AsRef<[u8]>) {
    repo.write(&format!("{dir}/{file}"), content);
    repo.model(["add", dir]).ok();
    repo.git(["commit", "-q", "-m", "a directory"]).ok();
}

/// Objects in a clone's cache.
fn cached(repo: &Repo) -> usize {
    repo.sh("find .git/model/objects -type f 2>/dev/null").stdout.lines().count()
}

/// The cache's file for a file's content.
fn cache_file(repo: &Repo, file: &str) -> std::path::PathBuf {
    repo.join(".git/model").join(key(&repo.join(file)).replace("sha256/", ""))
}

fn pushed(repo: &Repo) -> u64 {
    repo.json(["push"])["objects"].as_u64().unwrap()
}

fn same_tree(a: &Path, b: &Path) {
    let mut command = std::process::Command::new("diff");
    command.arg("-r").arg(a).arg(b);
    run(command).ok();
}

fn exact_bytes_come_back_in_a_clone(place: &Place) {
    let repo = place.repo("repo");
    repo.write("w.bin", noise(1, 100_000));
    repo.write("large.bin", noise(2, 40 << 20));
    repo.write("empty.bin", "");
    repo.write("tokens/ünï cödé/-x.json", "{}");
    repo.write("tokens/run.sh", "#!/bin/sh\n");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(repo.join("tokens/run.sh"), executable).unwrap();
    repo.model(["add", "w.bin", "large.bin", "empty.bin", "tokens"]).ok();
    repo.git(["commit", "-q", "-m", "v1"]).ok();
    // Three files, two files in a directory, and two tree objects.
    repo.model(["push"]).says("pushed 7 objects").ok();

    let clone = place.untrusting_clone(&repo, "clone");
    clone.model(["pull"]).fails(1, "was not approved here");
    assert!(!clone.exists("w.bin"));
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    for name in ["w.bin", "large.bin", "empty.bin"] {
        assert_eq!(clone.read(name), repo.read(name), "{name}");
    }
    same_tree(&repo.join("tokens"), &clone.join("tokens"));
    let mode = clone.join("tokens/run.sh").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    clone.model(["status", "--check"]).ok();
    clone.git(["status", "--porcelain"]).never_says("?? ").ok();
}

fn what_is_there_is_neither_sent_nor_asked_for_again(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", noise(1, 10_000), "v1");
    repo.commit_artifact("same.bin", noise(1, 10_000), "the same content");
    commit_dir(&repo, "dir", "a", "a");
    assert_eq!(pushed(&repo), 3);
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    for known in [&repo, &clone] {
        if !place.url.starts_with("s3:") {
            // A folder costs no request, so it is looked at: the right one may not be mounted.
            place.cut_off(known, |known| drop(known.model(["push"]).fails(1, "no such folder")));
            assert_eq!(pushed(known), 0);
            continue;
        }
        place.cut_off(known, |known| {
            assert_eq!(pushed(known), 0);
            known.model(["push"]).says("has everything").ok();
            known.model(["pull"]).ok();
            known.model(["status"]).ok();
        });
    }
    // The cut was one: what is new cannot be sent.
    repo.commit_artifact("w.bin", noise(2, 10_000), "v2");
    place.cut_off(&repo, |repo| assert_eq!(repo.model(["push"]).code, 1));
    assert_eq!(pushed(&repo), 1);
}

fn any_client_can_read_the_objects(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", noise(1, 100_000), "v1");
    repo.commit_artifact("large.bin", noise(2, 20 << 20), "v1");
    repo.commit_artifact("empty.bin", "", "v1");
    repo.model(["push"]).ok();
    let names = ["w.bin", "large.bin", "empty.bin"];
    let mut expected: Vec<String> = names.iter().map(|name| key(&repo.join(name))).collect();
    expected.push("format.json".to_owned());
    expected.sort();
    assert_eq!(place.keys(), expected);
    for name in names {
        place.download(&key(&repo.join(name)), &repo.join("got"));
        assert_eq!(repo.read("got"), repo.read(name), "{name}");
    }
    place.download("format.json", &repo.join("got"));
    let format: serde_json::Value = serde_json::from_slice(&repo.read("got")).unwrap();
    assert_eq!((&format["format"], &format["version"]), (&"git-model-store".into(), &1.into()));
}

fn large_directories_are_sent_in_shards(place: &Place) {
    let repo = place.repo("repo");
    for number in 0..4200 {
        repo.write(&format!("data/{number}"), (number % 10).to_string());
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "v1"]).ok();
    // Ten contents, one shard per first byte of a name's hash, and the root.
    assert_eq!(pushed(&repo), 10 + 256 + 1);
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    same_tree(&repo.join("data"), &clone.join("data"));
    clone.write("data/17", "changed");
    clone.model(["add", "data"]).ok();
    clone.git(["commit", "-q", "-m", "v2"]).ok();
    assert_eq!(pushed(&clone), 3, "the content, its shard, the root");
}

fn dry_runs_send_and_fetch_nothing(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("first", "1", "v1");
    repo.model(["push"]).ok();
    repo.commit_artifact("w.bin", noise(1, 100_000), "v1");
    let before = place.keys();
    repo.model(["push", "--dry-run"]).says("would push 1 object (97.7 KiB)").ok();
    assert_eq!(place.keys(), before);
    let report = repo.json(["push", "-n"]);
    assert_eq!((report["schema"].as_str(), report["objects"].as_u64()), (Some("git-model/push/v1"), Some(1)));
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    clone.model(["fetch", "-n"]).says("would fetch 2 objects").ok();
    clone.model(["pull", "-n"]).ok();
    assert!(!clone.exists("w.bin"));
    clone.model(["sync", "--offline"]).fails(1, "offline");
}

fn repair_sends_what_was_deleted_or_cut(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("deleted.bin", noise(1, 1000), "v1");
    repo.commit_artifact("cut.bin", noise(2, 20 << 20), "v1");
    commit_dir(&repo, "dir", "whole", noise(3, 1000));
    repo.model(["push"]).ok();
    place.delete(&key(&repo.join("deleted.bin")));
    place.put(&key(&repo.join("cut.bin")), &noise(2, 20 << 20)[..1000]);
    let report = repo.json(["push", "--repair"]);
    assert_eq!((report["objects"].as_u64(), report["repaired"].as_u64()), (Some(2), Some(1)));
    assert_eq!(repo.json(["push", "--repair"])["objects"], 0);
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    assert_eq!(clone.read("cut.bin"), repo.read("cut.bin"));
    assert_eq!(clone.read("deleted.bin"), repo.read("deleted.bin"));
}

fn fetch_all_brings_the_history(place: &Place) {
    let repo = place.repo("repo");
    for version in 1..=3 {
        repo.commit_artifact("w.bin", noise(version, 5000), &format!("v{version}"));
        repo.git(["tag", &format!("v{version}")]).ok();
    }
    // The commits in between are pushed, too.
    assert_eq!(pushed(&repo), 3);
    let clone = place.clone_of(&repo, "clone");
    assert_eq!(clone.json(["fetch", "--all"])["objects"], 3);
    place.cut_off(&clone, |clone| {
        for version in 1..=3 {
            clone.model(["checkout", &format!("v{version}")]).ok();
            assert_eq!(clone.read("w.bin"), noise(version, 5000));
        }
    });
}

fn one_path_can_be_pulled_alone(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("models/a.bin", noise(1, 1000), "a");
    repo.commit_artifact("b.bin", noise(2, 1000), "b");
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    let report = clone.json(["pull", "models/a.bin"]);
    assert_eq!(report["fetched"]["objects"], 1);
    assert_eq!(clone.read("models/a.bin"), noise(1, 1000));
    assert!(!clone.exists("b.bin"));
    clone.at("models").model(["pull", "../b.bin"]).ok();
    assert_eq!(clone.read("b.bin"), noise(2, 1000));
    clone.model(["pull", "nothing.bin"]).fails(2, "nothing.bin");
}

fn a_missing_object_is_named_by_its_path(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("models/w.bin", noise(1, 1000), "v1");
    commit_dir(&repo, "data", "x/y.csv", noise(2, 1000));
    repo.model(["push"]).ok();
    for path in ["models/w.bin", "data/x/y.csv"] {
        place.delete(&key(&repo.join(path)));
        let clone = place.clone_of(&repo, path.split('/').next().unwrap());
        for command in ["fetch", "pull"] {
            let error = clone.model([command]).fails(1, path);
            assert!(error.contains("hint: "), "{error}");
        }
        assert!(!clone.exists(path));
        repo.model(["push", "--repair"]).ok();
        clone.model(["pull"]).ok();
        assert_eq!(clone.read(path), repo.read(path));
    }
}

fn what_the_store_has_comes_although_something_is_missing(place: &Place) {
    let repo = place.repo("repo");
    for version in 0..10 {
        repo.commit_artifact("w.bin", noise(version, 5000), "another version");
    }
    repo.commit_artifact("lost.bin", "lost", "will be lost");
    repo.model(["push"]).ok();
    place.delete(&key(&repo.join("lost.bin")));
    let clone = place.clone_of(&repo, "clone");
    clone.model(["fetch", "--all", "--jobs", "1"]).fails(1, "lost.bin");
    assert_eq!(cached(&clone), 10);
    place.cut_off(&clone, |clone| drop(clone.model(["pull", "w.bin"]).ok()));
}

fn fetch_all_passes_over_unreadable_pointers(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "1", "v1");
    repo.write("w.bin.pointer", "<<<<<<< ours\n");
    repo.git(["commit", "-qanm", "a mistake"]).ok();
    repo.commit_artifact("w.bin", "2", "v2");
    repo.model(["push"]).says("warning: ").ok();
    let clone = place.clone_of(&repo, "clone");
    clone.model(["fetch", "--all"]).says("warning: ").says("fetched 2 objects").ok();
}

fn wrong_bytes_in_the_store_are_refused(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "good", "v1");
    repo.model(["push"]).ok();
    for wrong in ["evil", "short"[..3].as_ref(), "much too long", ""] {
        place.put(&key(&repo.join("w.bin")), wrong.as_bytes());
        let clone = place.clone_of(&repo, &format!("clone-{}", wrong.len()));
        for command in ["fetch", "pull"] {
            let error = clone.model([command]).fails(1, "w.bin: ");
            assert!(error.contains("hint: ") || wrong.len() > 4, "{error}");
        }
        assert!(!clone.exists("w.bin"));
        assert_eq!(cached(&clone), 0, "{wrong}");
    }
}

fn repair_replaces_wrong_bytes(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "good", "v1");
    repo.model(["push"]).ok();
    place.put(&key(&repo.join("w.bin")), b"evil");
    repo.model(["push", "--repair"]).says("1 object").ok();
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    assert_eq!(clone.text("w.bin"), "good");
}

#[test]
fn an_object_at_a_wrong_key_counts_as_missing() {
    let place = Place::folder();
    let repo = place.repo("repo");
    // So many that the store is listed.
    for number in 0..300 {
        repo.write(&format!("data/{number}"), number.to_string());
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    repo.model(["push"]).ok();
    let objects = repo.at(Path::new(&place.url).join("objects/sha256"));
    objects.sh("mkdir backup && mv [0-9a-f][0-9a-f] backup").ok();
    assert_eq!(repo.json(["push", "--repair=checksums"])["objects"], 301);
    objects.sh("rm -r backup && mkdir backup && mv [0-9a-f][0-9a-f] backup").ok();
    repo.sh("rm -r .git/model/pushed").ok();
    assert_eq!(pushed(&repo), 301);
    place.clone_of(&repo, "clone").model(["pull"]).ok();
}

#[test]
fn a_repair_that_fails_is_not_called_done() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 20 << 20), "v1");
    repo.model(["push"]).ok();
    let object = key(&repo.join("large.bin"));
    // Of the right size: asking for that says nothing.
    place.put(&object, &noise(2, 20 << 20));
    let proxy = Proxy::start(&garage().endpoint, |line| {
        let is_read = line.starts_with("GET") || line.starts_with("HEAD");
        if is_read { Fate::Pass } else { Fate::Denied }
    });
    let denied = repo.env("AWS_ENDPOINT_URL", proxy.endpoint());
    denied.model(["push", "--repair"]).never_says("pushed").fails(1, "cannot be written to");
    // Nor when the bytes that are here are damaged, too.
    let cached = object.replace("objects/sha256", ".git/model/objects");
    repo.sh(&format!("chmod u+w {cached} && printf evil | dd of={cached} conv=notrunc")).ok();
    repo.model(["push", "--repair"]).never_says("pushed").fails(1, "damaged");
}

#[test]
fn a_list_that_is_damaged_in_the_store_and_not_here_is_told_of() {
    let place = Place::garage();
    let repo = place.repo("repo");
    commit_dir(&repo, "dir", "a", "first");
    let pointer = repo.text("dir.pointer");
    commit_dir(&repo, "dir", "a", "second");
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    clone.model(["push", "--repair"]).ok();
    let root = pointer.lines().find_map(|line| line.strip_prefix("sha256: ")).unwrap();
    place.put(&key_of(root), b"evil");
    for repair in ["--repair", "--repair=bytes"] {
        clone.model(["push", repair]).fails(3, "dir: the right content is neither here nor in");
    }
    repo.model(["push", "--repair"]).says("of these, 1 ").ok();
    clone.model(["push", "--repair"]).ok();
}

#[test]
fn a_push_that_fails_does_not_forget_that_the_store_was_emptied() {
    let place = Place::garage();
    let denies = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::start(&garage().endpoint, {
        let denies = Arc::clone(&denies);
        move |line| {
            let is_refused =
                denies.load(Ordering::Relaxed) && line.starts_with("PUT") && line.contains("/objects/");
            if is_refused { Fate::Denied } else { Fate::Pass }
        }
    });
    let repo = place.repo("repo").env("AWS_ENDPOINT_URL", proxy.endpoint());
    repo.commit_artifact("w.bin", "first", "v1");
    repo.model(["push"]).says("pushed 1 object").ok();
    place.delete("*");
    repo.commit_artifact("w.bin", "second", "v2");
    denies.store(true, Ordering::Relaxed);
    repo.model(["push"]).fails(1, "cannot be written to");
    denies.store(false, Ordering::Relaxed);
    repo.model(["push", "HEAD~1"]).says("pushed 1 object").ok();
}

#[test]
fn a_pull_reads_what_it_brings_once() {
    let place = Place::folder();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", noise(1, 40 << 20), "v1");
    repo.model(["push"]).ok();
    let clone = place.clone_of(&repo, "clone");
    let Some(read) = clone.bytes_read(&["pull"]) else {
        return skip("a_pull_reads_what_it_brings_once", "no strace to count what is read with");
    };
    assert!(read < 50 << 20, "{read} bytes");
    assert_eq!(sha256(&clone.join("w.bin")), sha256(&repo.join("w.bin")));
    // Another process did not check it, so it does.
    std::fs::remove_file(clone.join("w.bin")).unwrap();
    assert!(clone.bytes_read(&["sync"]).unwrap() > 40 << 20);
}

/// Objects of the right size: one that was sent at once and one in parts, each right, then wrong, then without a checksum.
#[test]
fn repair_compares_checksums_that_the_store_keeps() {
    let place = Place::garage();
    let repo = place.repo("repo");
    repo.commit_artifact("small.bin", "good", "v1");
    repo.commit_artifact("large.bin", noise(1, 40 << 20), "v1");
    repo.model(["push"]).ok();
    let repair = ["push", "--repair=checksums"];
    let report = repo.json(repair);
    assert_eq!((&report["objects"], &report["unchecked"]), (&0.into(), &0.into()), "{report}");
    let wrong = [("small.bin", b"evil".to_vec()), ("large.bin", noise(2, 40 << 20))];
    place.put_with_checksum(&key(&repo.join("small.bin")), &wrong[0].1);
    let report = repo.json(repair);
    assert_eq!((&report["repaired"], &report["unchecked"]), (&1.into(), &0.into()), "{report}");
    place.verify();
    // An upload of these parts by somebody else, whose cache was damaged.
    let object = key(&repo.join("large.bin"));
    let other = place.repo("other");
    other.commit_artifact("large.bin", &wrong[1].1, "v1");
    other.model(["push"]).ok();
    place.copy(&key(&other.join("large.bin")), &object);
    let report = repo.json(repair);
    assert_eq!(report["objects"], u64::from(report["unchecked"] == 0), "{report}");
    for (name, bytes) in wrong {
        place.put(&key(&repo.join(name)), &bytes);
    }
    repo.model(repair).says("has everything").says("it keeps no checksum to compare of 2 objects").ok();
    repo.model(["push", "--repair"]).says("2 objects").ok();
    assert_eq!(place.verify(), 3);
}

fn lost_content_is_reported_and_the_rest_is_sent(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("lost.bin", "lost", "v1");
    commit_dir(&repo, "dir", "lost.txt", "in a directory");
    repo.commit_artifact("kept.bin", "kept", "v1");
    for name in ["lost.bin", "dir/lost.txt"] {
        std::fs::remove_file(cache_file(&repo, name)).unwrap();
        std::fs::remove_file(repo.join(name)).unwrap();
    }
    for round in 0..2 {
        let error = repo.model(["push"]).fails(3, "the content is neither here nor in");
        assert!(error.contains("lost.bin") || error.contains("dir"), "{error}");
        assert!(error.contains("hint: "), "{error}");
        assert_eq!(place.objects(), [key(&repo.join("kept.bin"))], "round {round}");
    }
    repo.model(["push", "--dry-run"]).fails(3, "neither here nor in");
}

fn a_damaged_cached_object_is_not_sent_and_the_rest_is(place: &Place) {
    let repo = place.repo("repo");
    for number in 0..20 {
        repo.commit_artifact(&format!("{number}.bin"), number.to_string(), "v1");
    }
    let damaged = key(&repo.join("10.bin"));
    std::fs::remove_file(cache_file(&repo, "10.bin")).unwrap();
    std::fs::write(cache_file(&repo, "10.bin"), "xx").unwrap();
    let error = repo.model(["push", "--jobs", "1"]).fails(1, "damaged");
    assert!(error.contains("10.bin"), "{error}");
    assert!(!place.keys().contains(&damaged));
    assert_eq!(place.objects().len(), 19);
}

fn offline_contacts_nothing(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push", "--offline"]).fails(1, "--offline");
    assert_eq!(place.keys(), [""; 0]);
    repo.model(["push"]).ok();
    repo.model(["push", "--offline"]).says("has everything").ok();
    let clone = place.clone_of(&repo, "clone");
    for command in [vec!["fetch"], vec!["pull"], vec!["remote", "check"], vec!["push", "--repair"]] {
        clone.model(command.iter().copied().chain(["--offline"])).fails(1, "--offline");
    }
    clone.model(["status", "--offline"]).ok();
}

fn one_transfer_at_a_time_works(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(2, 40 << 20), "v1");
    repo.commit_artifact("small.bin", "x", "v1");
    repo.model(["push", "--jobs", "1"]).says("pushed 2 objects").ok();
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull", "--jobs", "1"]).ok();
    assert_eq!(clone.read("large.bin"), repo.read("large.bin"));
}

fn pushes_at_the_same_time_agree(place: &Place) {
    push_three_times_at_once(place, 100_000);
}

fn pushes_of_a_large_object_at_the_same_time_agree(place: &Place) {
    push_three_times_at_once(place, 20 << 20);
}

fn push_three_times_at_once(place: &Place, size: usize) {
    let repo = place.repo("repo");
    for number in 0..20 {
        repo.write(&format!("data/{number}"), noise(number, 5000));
    }
    commit_dir(&repo, "data", "largest", noise(99, size));
    let clone = place.clone_of(&repo, "clone");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| drop(repo.model(["push"]).ok()));
        }
    });
    assert_eq!(place.verify(), 22);
    assert_eq!(pushed(&repo), 0);
    clone.model(["pull"]).ok();
    same_tree(&repo.join("data"), &clone.join("data"));
}

fn a_killed_push_can_be_repeated(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("large.bin", noise(1, 60 << 20), "v1");
    for number in 0..30 {
        repo.write(&format!("data/{number}"), noise(number + 10, 50_000));
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    for delay in [20, 60, 120, 200, 300] {
        let mut push = repo.command(crate::support::BINARY).arg("push").spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        push.kill().unwrap();
        push.wait().unwrap();
        place.verify();
    }
    repo.model(["push"]).ok();
    place.verify();
    assert_eq!(repo.json(["push", "--repair"])["objects"], 0);
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    assert_eq!(clone.read("large.bin"), repo.read("large.bin"));
    same_tree(&repo.join("data"), &clone.join("data"));
}

fn a_replaced_store_is_filled_again(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("a.bin", "a", "v1");
    commit_dir(&repo, "dir", "b", "b");
    assert_eq!(pushed(&repo), 3);
    place.delete("*");
    if !place.url.starts_with("s3:") {
        repo.model(["push"]).says("hint: mount it").fails(1, "no such folder");
        std::fs::create_dir_all(&place.url).unwrap();
    }
    // The next push that has something to send meets another store, and sends everything that it does not have.
    repo.commit_artifact("c.bin", "c", "v2");
    repo.model(["push"]).says("another store than was pushed to before").says("pushed 4 objects").ok();
    place.clone_of(&repo, "clone").model(["pull"]).ok();
}
