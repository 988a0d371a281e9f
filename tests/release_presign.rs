//! Presigned URLs of a real S3 server: anybody can use them, without git, without credentials, and for a while.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::support::garage::garage;
use crate::support::models::{WEIGHTS, bare, churn, connect, weights};
use crate::support::{BINARY, Output, Repo, Sandbox, sha256};

/// A release whose files are in a bucket; the environment has the credentials.
fn in_a_bucket(sandbox: &Sandbox) -> Repo {
    let server = garage();
    bare(sandbox);
    let repo = server.env(&sandbox.git_repo("repo"));
    repo.model(["init", &format!("s3://{}/models", server.bucket())]).ok();
    repo.git(["commit", "-q", "-m", "init"]).ok();
    let repo = churn(repo);
    connect(sandbox, &repo);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo
}

/// A machine that has neither git nor credentials, and nothing else that could help.
struct Machine(Repo);

impl Machine {
    fn new(sandbox: &Sandbox, name: &str) -> Machine {
        let bin = sandbox.join(&format!("{name}-bin"));
        std::fs::create_dir(&bin).unwrap();
        symlink(BINARY, bin.join("git-model")).unwrap();
        std::fs::create_dir(sandbox.join(name)).unwrap();
        Machine(sandbox.at(name))
    }

    fn model(&self, args: &[&str]) -> Output {
        let bin = format!("{}-bin", self.0.path.display());
        let mut command = self.0.command(format!("{bin}/git-model"));
        command.env_clear().env("PATH", &bin).env("HOME", "/nonexistent").args(args);
        crate::support::run(command)
    }
}

#[test]
fn anybody_gets_a_release_by_presigned_urls() {
    let sandbox = Sandbox::new();
    let repo = in_a_bucket(&sandbox);
    let resolved = repo.json(["resolve", "churn@1.0.0", "--presign", "10m", "--lock", "../lock.json"]);
    let files = resolved["files"].as_array().unwrap();
    assert_eq!(files.len(), 8);
    for file in files {
        let url = file["presigned_url"].as_str().unwrap();
        assert!(url.contains("X-Amz-Expires=600") && url.contains("X-Amz-Signature="), "{url}");
        let out = sandbox.join("file");
        let curl = format!("curl -sS --fail -o {} '{url}'", out.display());
        sandbox.at("").sh(&curl).ok();
        assert_eq!(file["sha256"], Value::from(sha256(&out)), "{}", file["path"]);
        // Without its signature the URL is worth nothing.
        let bare = format!("curl -sS --fail -o {} '{}'", out.display(), url.split_once('?').unwrap().0);
        assert_ne!(sandbox.at("").sh(&bare).code, 0);
    }
    let urls = repo.model(["resolve", "churn@1.0.0", "--presign", "10m", "--format", "urls"]).ok();
    assert_eq!(urls.lines().filter(|line| line.contains("X-Amz-Signature=")).count(), 8, "{urls}");

    let pod = Machine::new(&sandbox, "pod");
    pod.model(&["get", "--locked", "../lock.json", "-o", "model"]).ok();
    assert_eq!(pod.0.read(&format!("model/{WEIGHTS}")), weights(1.0));
    repo.model(["get", "churn@1.0.0", "-o", "../same"]).ok();
    sandbox.at("").sh("diff -r same pod/model").ok();
    pod.model(&["get", "--locked", "../lock.json", "-o", "model"]).says("there already").ok();
    pod.model(&["info", "model", "--format", "env"]).says("MODEL_VERSION=1.0.0").ok();
    pod.model(&["get", "--locked", "../lock.json", "-o", "only", "--only", "weights"]).ok();
    assert!(pod.0.exists(&format!("only/{WEIGHTS}")) && !pod.0.exists("only/src"));
    // Whoever asks for a release by name needs git, and is told.
    pod.model(&["get", "churn@1.0.0", "-o", "other"]).fails(1, "git");
    assert!(!pod.0.exists("other"));
}

#[test]
fn urls_that_do_not_work_make_no_model() {
    let sandbox = Sandbox::new();
    let repo = in_a_bucket(&sandbox);
    repo.json(["resolve", "churn@1.0.0", "--presign", "1s", "--lock", "../old.json"]);
    repo.json(["resolve", "churn@1.0.0", "--presign", "10m", "--lock", "../lock.json"]);
    repo.json(["resolve", "churn@1.0.0", "--lock", "../plain.json"]);
    let pod = Machine::new(&sandbox, "pod");
    // Too late. The secret is not in what is said.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let late = pod.model(&["get", "--locked", "../old.json", "-o", "model"]);
    late.never_says("X-Amz-Signature").fails(1, "");
    // Not presigned, and no credentials.
    assert_ne!(pod.model(&["get", "--locked", "../plain.json", "-o", "model"]).code, 0);
    // Another file's URL brings the wrong bytes.
    let mut lock: Value = serde_json::from_slice(&std::fs::read(sandbox.join("lock.json")).unwrap()).unwrap();
    let other = lock["files"][0]["presigned_url"].clone();
    for file in lock["files"].as_array_mut().unwrap() {
        file["presigned_url"] = other.clone();
    }
    std::fs::write(sandbox.join("mixed.json"), lock.to_string()).unwrap();
    pod.model(&["get", "--locked", "../mixed.json", "-o", "model"])
        .never_says("X-Amz-Signature")
        .fails(3, "");
    // So does an object that was replaced: the URL is right, the bytes are not.
    let digest = sha256(&repo.join(WEIGHTS));
    let bytes = weights(3.0);
    assert_eq!(bytes.len(), weights(1.0).len());
    std::fs::write(sandbox.join("bytes"), bytes).unwrap();
    let bucket = repo.json(["resolve", "churn@1.0.0"])["store"].as_str().unwrap().to_owned();
    let key = format!("{bucket}/objects/sha256/{}/{digest}", &digest[..2]);
    garage().s5cmd(&["cp", sandbox.join("bytes").to_str().unwrap(), &key]).unwrap();
    pod.model(&["get", "--locked", "../lock.json", "-o", "model"]).fails(3, WEIGHTS);
    assert!(!pod.0.exists("model"));
    // The same is said where the store is read with credentials.
    let clone = garage().env(&sandbox.clone_of(&repo, "clone"));
    clone.model(["remote", "trust"]).ok();
    clone.git(["remote", "set-url", "origin", "../remote.git"]).ok();
    clone.model(["get", "churn@1.0.0", "-o", "model"]).fails(3, WEIGHTS);
    assert!(!clone.exists("model"));
}

#[test]
fn a_duration_or_a_store_that_cannot_be_presigned_is_refused() {
    let sandbox = Sandbox::new();
    let repo = in_a_bucket(&sandbox);
    repo.model(["resolve", "churn@1.0.0", "--presign", "8d"]).fails(2, "7");
    assert_eq!(repo.model(["resolve", "churn@1.0.0", "--presign", "soon"]).says("15m").code, 2);
    let other = Sandbox::new();
    let folder = crate::support::models::published(&other);
    folder.model(["release", "churn", "1.0.0"]).ok();
    let output = folder.model(["resolve", "churn@1.0.0", "--presign", "10m"]);
    assert!(output.code != 0 && output.stderr.contains("presign"), "{output}");
}
