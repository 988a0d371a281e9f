//! One suite for all stores: the same checks over a folder, Garage (which ignores conditions on writes), moto (which honours
//! them), moto by the XML API of Google Cloud Storage, and Azurite; and over a web server what can be read there.
//!
//! What an emulator cannot show is listed in `docs/remotes.md`.

use std::path::Path;

use crate::support::models::{WEIGHTS, churn, declare, record};
use crate::support::servers::{WebServer, moto};
use crate::support::stores::{Place, key_of};
use crate::support::{Repo, noise, run, sha256, skip};

macro_rules! on_every_store {
    ($($case:ident;)*) => {
        mod folder { $(#[test] fn $case() { super::$case(&super::Place::folder()); })* }
        mod garage { $(#[test] fn $case() { super::$case(&super::Place::garage()); })* }
        mod moto { $(#[test] fn $case() { super::$case(&super::Place::moto()); })* }
        mod gcs { $(#[test] fn $case() { super::$case(&super::Place::gcs()); })* }
        mod azure {
            $(#[test] fn $case() {
                if super::azurite_is_there(stringify!($case)) {
                    super::$case(&super::Place::azure());
                }
            })*
        }
    };
}

on_every_store! {
    objects_of_all_sizes_come_back_and_others_can_read_them;
    what_is_there_is_found_by_asking_and_by_listing;
    an_absent_object_is_named_and_an_absent_bucket_is_something_else;
    repair_overwrites_what_is_wrong;
    the_store_says_whether_it_honours_conditions;
    first_pushes_at_the_same_time_agree_on_one_store;
    presigned_urls_work_without_git_model;
    data_beside_the_store_is_listed;
    nothing_goes_to_a_committed_url;
}

/// Without npm there is no Azurite.
fn azurite_is_there(test: &str) -> bool {
    let found = run({
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "command -v npm"]);
        command
    });
    if found.code != 0 {
        skip(test, "no npm to install Azurite with");
    }
    found.code == 0
}

fn objects_of_all_sizes_come_back_and_others_can_read_them(place: &Place) {
    let repo = place.repo("repo");
    let sizes =
        [("empty.bin", 0), ("small.bin", 1000), ("edge.bin", 16 << 20), ("large.bin", (40 << 20) + 1)];
    for (seed, (name, size)) in (1..).zip(sizes) {
        repo.commit_artifact(name, noise(seed, size), name);
    }
    repo.model(["push"]).says("pushed 4 objects").ok();
    assert_eq!(place.verify(), 4, "every key holds the bytes that it names");
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    for (name, _) in sizes {
        assert_eq!(sha256(&clone.join(name)), sha256(&repo.join(name)), "{name}");
    }
    place.download("format.json", &repo.join("got"));
    assert!(repo.text("got").contains("git-model-store"));
}

fn what_is_there_is_found_by_asking_and_by_listing(place: &Place) {
    let repo = place.repo("repo");
    // More than are asked for one by one.
    for number in 0..300 {
        repo.write(&format!("data/{number}"), number.to_string());
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    assert_eq!(repo.json(["push"])["objects"], 301);
    repo.commit_artifact("one.bin", "one", "one more");
    assert_eq!(repo.json(["push"])["objects"], 1);
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    clone.sh("rm -rf .git/model/pushed").ok();
    assert_eq!(clone.json(["push"])["objects"], 0, "a clone that knows nothing asks the store");
    place.delete(&key_of(&sha256(&repo.join("data/7"))));
    clone.sh("rm -rf .git/model/pushed").ok();
    assert_eq!(clone.json(["push"])["objects"], 1);
}

fn an_absent_object_is_named_and_an_absent_bucket_is_something_else(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    place.delete(&key_of(&sha256(&repo.join("w.bin"))));
    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).fails(1, "w.bin: its content is not in");
    let (bucket, reason) = match place.url.split_once("://") {
        Some(("s3", _)) => ("s3://no-such-bucket/x", "NoSuchBucket"),
        Some(("gs", _)) => ("gs://no-such-bucket/x", "NoSuchBucket"),
        Some(("az", _)) => ("az://devstoreaccount1/no-such-container/x", "ContainerNotFound"),
        _ => ("/no/such/folder", "no such folder"),
    };
    repo.model(["remote", "add", "--force", "origin", bucket]).ok();
    // The first push would make a folder.
    let command = if bucket.starts_with('/') { "fetch" } else { "push" };
    if command == "fetch" {
        repo.sh("rm -rf .git/model/objects").ok();
    }
    let error = repo.model([command]).fails(1, reason);
    assert!(error.contains("hint: "), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
}

fn repair_overwrites_what_is_wrong(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("small.bin", "good", "v1");
    repo.commit_artifact("large.bin", noise(2, 20 << 20), "v1");
    repo.model(["push"]).ok();
    place.put(&key_of(&sha256(&repo.join("small.bin"))), b"evil");
    place.put(&key_of(&sha256(&repo.join("large.bin"))), b"evil");
    place.clone_of(&repo, "before").model(["pull"]).fails(1, ".bin");
    repo.model(["push", "--repair"]).says("2 objects").ok();
    assert_eq!(place.verify(), 2);
    place.clone_of(&repo, "after").model(["pull"]).ok();
}

fn the_store_says_whether_it_honours_conditions(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    repo.model(["push"]).ok();
    let checked = repo.json(["remote", "check"]);
    assert_eq!(checked["check"]["writable"], true);
    assert_eq!(checked["check"]["conditional_writes"], place.honours_conditions());
    assert_eq!(place.keys().len(), 2, "the probe was removed");
}

fn first_pushes_at_the_same_time_agree_on_one_store(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    let clones: Vec<Repo> = (0..4)
        .map(|number| {
            let clone = place.clone_of(&repo, &format!("clone-{number}"));
            clone.commit_artifact("w.bin", number.to_string(), "mine");
            clone
        })
        .collect();
    std::thread::scope(|scope| {
        for clone in &clones {
            scope.spawn(|| clone.model(["push", "HEAD"]));
        }
    });
    // A store that ignores conditions may have been made twice; whoever notices says so and sends again.
    for clone in &clones {
        drop(clone.model(["push", "--repair", "HEAD"]));
    }
    let ids: Vec<String> =
        clones.iter().map(|clone| clone.json(["remote", "check"])["check"]["store"].to_string()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() > 30), "{ids:?}");
    let keys = place.keys();
    for clone in &clones {
        assert!(keys.contains(&key_of(&sha256(&clone.join("w.bin")))), "{keys:?}");
    }
}

/// A release whose files are in the store.
fn released(place: &Place) -> Repo {
    place.sandbox.at("").git(["init", "-q", "--bare", "remote.git"]).ok();
    let repo = churn(place.repo("repo"));
    declare(&repo, "", "stages: {prod: {}}\n");
    record(&repo, "stages");
    repo.git(["remote", "add", "origin", "../remote.git"]).ok();
    repo.git(["push", "-q", "-u", "origin", "main"]).ok();
    place.sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo
}

fn presigned_urls_work_without_git_model(place: &Place) {
    let repo = released(place);
    let presign = ["resolve", "churn@1.0.0", "--presign", "10m"];
    if place.url.starts_with('/') {
        repo.model(presign).fails(2, "a folder has no presigned URLs");
        return;
    }
    if place.url.starts_with("gs://") {
        // A bare token cannot sign. What Google makes of a signature no emulator can show.
        repo.model(presign).fails(1, "cannot be signed for");
        return;
    }
    let resolved = repo.json(presign);
    let files = resolved["files"].as_array().unwrap();
    let weights = files.iter().find(|file| file["path"] == WEIGHTS).unwrap();
    let url = weights["presigned_url"].as_str().unwrap();
    repo.sh(&format!("curl -sSf '{url}' -o got")).ok();
    assert_eq!(repo.read("got"), repo.read(WEIGHTS));
    let forged = url.replace("/objects/", "/other/");
    assert_ne!(repo.sh(&format!("curl -sSf '{forged}' -o got")).code, 0);
}

fn data_beside_the_store_is_listed(place: &Place) {
    let repo = churn(place.repo("repo"));
    repo.model(["push"]).ok();
    let url = format!("{}/", place.url);
    declare(&repo, "{name: train, path: ../data}", &format!("{{name: lake, url: \"{url}\"}}"));
    if place.url.starts_with("gs://") {
        repo.git(["config", "model.remote.data.endpoint", &moto().url()]).ok();
    }
    repo.git(["config", "--add", "model.trust", &place.url]).ok();
    repo.model(["record", "--refresh-data"]).ok();
    let lineage = repo.text("m/lineage.yaml");
    assert!(lineage.contains("lake"), "{lineage}");
    place.put("another", b"new");
    let said = repo.model(["verify", "--data", "lake"]);
    assert_eq!(said.code, 3, "{said}");
    drop(said.says("another"));
}

fn nothing_goes_to_a_committed_url(place: &Place) {
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", "w", "v1");
    let clone = place.untrusting_clone(&repo, "clone");
    clone.write("w.bin", "w");
    clone.model(["add", "w.bin"]).ok();
    clone.model(["push"]).fails(1, "nothing is pushed to it");
    // Each place here has an endpoint of its own, or is a folder.
    clone.sh("rm -rf .git/model/objects").ok();
    clone.model(["fetch"]).fails(1, "it is not contacted");
    assert_eq!(place.keys(), [""; 0]);
}

/// A store in a folder, and a clone that reaches it over https.
fn behind_a_web_server(start: fn(&Path) -> WebServer) -> (Place, Repo, WebServer, Repo) {
    let place = Place::folder();
    let repo = place.repo("repo");
    repo.commit_artifact("w.bin", noise(1, 100_000), "v1");
    repo.commit_artifact("large.bin", noise(2, 40 << 20), "v1");
    for number in 0..300 {
        repo.write(&format!("data/{number}"), number.to_string());
    }
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    repo.model(["push"]).ok();
    let server = start(place.sandbox.path());
    let url = format!("{}/the store", server.url());
    repo.model(["remote", "add", "web", &url]).ok();
    repo.model(["remote", "default", "web"]).ok();
    repo.git(["commit", "-qam", "the web server"]).ok();
    let clone = place.untrusting_clone(&repo, "clone");
    let clone = clone.env("SSL_CERT_FILE", server.certificate.display().to_string());
    (place, repo, server, clone)
}

#[test]
fn a_web_server_without_ranges_gives_the_whole() {
    let (_place, repo, server, clone) = behind_a_web_server(WebServer::start_without_ranges);
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("large.bin")), sha256(&repo.join("large.bin")));
    // It was asked for a part, and said that it has none.
    let digest = sha256(&repo.join("large.bin"));
    assert!(server.requests().matches(&digest).count() > 1, "{}", server.requests());
}

#[test]
fn a_store_behind_a_web_server_can_be_read() {
    let (_place, repo, server, clone) = behind_a_web_server(WebServer::start);
    clone.model(["pull"]).fails(1, "it is not contacted");
    assert_eq!(server.requests(), "", "not until it is approved");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    for name in ["w.bin", "large.bin", "data/17"] {
        assert_eq!(sha256(&clone.join(name)), sha256(&repo.join(name)), "{name}");
    }
    clone.model(["remote", "check"]).says("can be read").never_says("written").ok();
    assert_eq!(clone.json(["remote", "check"])["check"]["writable"], serde_json::Value::Null);
    let methods = server.requests();
    assert!(
        methods.contains("GET ") && !methods.contains("PROPFIND") && !methods.contains("PUT"),
        "{methods}"
    );
}

#[test]
fn nothing_can_be_pushed_to_a_web_server() {
    let (_place, repo, server, clone) = behind_a_web_server(WebServer::start);
    clone.model(["remote", "trust"]).ok();
    clone.commit_artifact("new.bin", "new", "v2");
    for command in [&["push"][..], &["push", "--dry-run"], &["push", "--repair"]] {
        let error = clone.model(command).fails(2, "can only be read");
        assert!(error.contains("hint: "), "{error}");
    }
    assert_eq!(server.requests(), "");
    // The folder behind it still takes everything.
    repo.commit_artifact("new.bin", "new", "v2");
    repo.model(["push", "--remote", "origin"]).says("pushed 1 object").ok();
}

#[test]
fn a_web_server_is_believed_only_with_its_certificate_and_what_it_lacks_is_named() {
    let (place, repo, _server, clone) = behind_a_web_server(WebServer::start);
    clone.model(["remote", "trust"]).ok();
    place.sandbox.at("clone").model(["pull"]).fails(1, "certificate");
    place.delete(&key_of(&sha256(&repo.join("w.bin"))));
    clone.model(["pull"]).fails(1, "w.bin: its content is not in");
    let nowhere =
        format!("{}/nothing", clone.json(["remote", "list"])["remotes"][1]["url"].as_str().unwrap());
    clone.git(["config", "model.remote.web.url", &nowhere]).ok();
    clone.model(["remote", "check"]).fails(3, "no store of git-model is there");
}
