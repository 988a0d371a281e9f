//! Packages: what independent tools make of them, and that the same release gives the same bytes everywhere.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::docker_registry::{DockerRegistry, skopeo};
use crate::support::models::{DECLARED, WEIGHTS, churn, record};
use crate::support::{Output, Repo, Sandbox, noise, published, run, sha256};

/// A released model with an executable, an empty file, a directory artifact and a name of more than 100 bytes.
pub(crate) fn released(sandbox: &Sandbox) -> Repo {
    sandbox.at("").git(["init", "-q", "--bare", "remote.git"]).ok();
    sandbox.at("remote.git").git(["config", "uploadpack.allowFilter", "true"]).ok();
    let repo = churn(sandbox.repo("repo"));
    let declared = DECLARED
        .replace("weights: [", "weights: [tokenizer, ")
        .replace("code: [", "code: [../src/__init__.py, ../src/run.sh, ");
    repo.write("m/model.yaml", declared);
    repo.write("src/__init__.py", "");
    repo.write("src/run.sh", "#!/bin/sh\n");
    repo.sh("chmod +x src/run.sh").ok();
    repo.write("m/tokenizer/ä b/vocab.txt", "one\ntwo\n");
    repo.write(&format!("m/tokenizer/{}/{}", "d".repeat(90), "f".repeat(90)), noise(3, 100_000));
    repo.model(["add", "m/tokenizer"]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    record(&repo, "more");
    repo.git(["remote", "add", "origin", "../remote.git"]).ok();
    repo.git(["push", "-q", "-u", "origin", "main"]).ok();
    sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo
}

/// The digest of the manifest that the index of a layout names.
fn manifest_digest(layout: &Path) -> String {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn blob(layout: &Path, digest: &Value) -> Vec<u8> {
    let name = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    std::fs::read(layout.join("blobs/sha256").join(name)).unwrap()
}

fn document(layout: &Path, digest: &Value) -> Value {
    serde_json::from_slice(&blob(layout, digest)).unwrap()
}

fn umoci(at: &Repo, args: &[&str]) -> Output {
    let mut command = at.command("umoci");
    command.args(args);
    run(command)
}

/// Everything below a directory, by path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(top: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(top, &path, found),
                false => {
                    let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
                    drop(found.insert(name, std::fs::read(&path).unwrap()));
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

#[test]
fn independent_tools_read_what_was_packed() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let Some(registry) = DockerRegistry::start(&sandbox, "registry", None) else { return };
    for (format, path, source) in [
        ("modelpack", "mp", "oci:mp"),
        ("modelpack", "mp.tar", "oci-archive:mp.tar"),
        ("image", "img", "oci:img"),
        ("image", "img.tar", "oci-archive:img.tar"),
    ] {
        let out = sandbox.at("");
        let packed = repo.json(["package", "churn@1.0.0", "--format", format, "-o", &format!("../{path}")]);
        let digest = packed["digest"].as_str().unwrap();
        skopeo(&out, &[source, &format!("oci:copy-of-{path}:x")]).ok();
        assert_eq!(manifest_digest(&sandbox.join(&format!("copy-of-{path}"))), digest, "{path}");
        let place = format!("docker://{{}}/{}:x", path.replace('.', "-"));
        registry.skopeo(&out, &[source, &place]).ok();
        registry.skopeo(&out, &[&place, &format!("oci:back-of-{path}:x")]).ok();
        assert_eq!(manifest_digest(&sandbox.join(&format!("back-of-{path}"))), digest, "{path}");
    }
    // What is in the image is what `get` writes, below /models.
    repo.model(["get", "churn@1.0.0", "-o", "../got"]).ok();
    umoci(&sandbox.at(""), &["unpack", "--rootless", "--image", "img:1.0.0", "unpacked"]).ok();
    assert_eq!(files(&sandbox.join("unpacked/rootfs/models")), files(&sandbox.join("got")));
    repo.model(["get", "churn@1.0.0", "-o", "../unpacked/rootfs/models"]).says("there already").ok();
    let image = document(&sandbox.join("img"), &manifest_digest(&sandbox.join("img")).into());
    let config = document(&sandbox.join("img"), &image["config"]["digest"]);
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&"MODEL_VERSION=1.0.0".into()), "{config}");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.0.0");
    assert_eq!(
        config["rootfs"]["diff_ids"].as_array().unwrap().len(),
        image["layers"].as_array().unwrap().len()
    );
}

#[test]
fn a_modelpack_is_the_files_as_they_are() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    repo.model(["package", "churn@1.0.0", "-o", "../mp"]).ok();
    let layout = sandbox.join("mp");
    let manifest = document(&layout, &manifest_digest(&layout).into());
    assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    let layers = manifest["layers"].as_array().unwrap();
    let mut seen = BTreeMap::new();
    for layer in layers {
        let path = layer["annotations"]["org.cncf.model.filepath"].as_str().unwrap();
        assert_eq!(layer["annotations"]["org.opencontainers.image.title"], path);
        let metadata: Value =
            serde_json::from_str(layer["annotations"]["org.cncf.model.file.metadata+json"].as_str().unwrap())
                .unwrap();
        seen.insert(path, (layer["mediaType"].as_str().unwrap(), metadata["mode"].as_u64().unwrap()));
        if path != "model-info.json" {
            assert_eq!(blob(&layout, &layer["digest"]), repo.read(path), "{path}");
            assert_eq!(layer["digest"], format!("sha256:{}", sha256(&repo.join(path))), "{path}");
        }
    }
    let kind = |kind: &str| format!("application/vnd.cncf.model.{kind}.v1.raw");
    for (path, media_type, mode) in [
        (WEIGHTS, kind("weight"), 0o644),
        ("m/tokenizer/ä b/vocab.txt", kind("weight"), 0o644),
        ("m/train.yaml", kind("weight.config"), 0o644),
        ("src/run.sh", kind("code"), 0o755),
        ("requirements.txt", kind("code"), 0o644),
        ("m/lineage.yaml", kind("doc"), 0o644),
        ("model-info.json", kind("doc"), 0o644),
    ] {
        assert_eq!(seen[path], (media_type.as_str(), mode), "{path}");
    }
    let config = document(&layout, &manifest["config"]["digest"]);
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    assert_eq!(config["modelfs"]["diffIds"].as_array().unwrap().iter().collect::<Vec<_>>(), digests);
    let test = "a_modelpack_has_the_files_as_layers";
    let Some(schema) = published(test, "schemas/modelpack-config.schema.json") else { return };
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&config), "{config}");
    let mut other = config.clone();
    other["descriptor"]["ours"] = "x".into();
    assert!(!validator.is_valid(&other), "the schema refuses unknown keys");
}

#[test]
fn the_same_release_gives_the_same_bytes_everywhere() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let url = format!("file://{}", sandbox.join("remote.git").display());
    let elsewhere = |at: &Repo, format: &str, path: &str| {
        at.sh(&format!(
            "umask 077; TZ=Asia/Tokyo LC_ALL=C USER=other git-model package churn@1.0.0 --repo {url} --format {format} -o {path}"
        ))
        .ok()
    };
    std::fs::create_dir(sandbox.join("pod")).unwrap();
    let pod = sandbox
        .at("pod")
        .env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string())
        .env("XDG_CACHE_HOME", sandbox.join("xdg").display().to_string());
    for format in ["modelpack", "image", "tar"] {
        let here = format!("../{format}.tar");
        repo.model(["package", "churn@1", "--format", format, "-o", &here]).ok();
        // The times of files, and of day, are others.
        repo.sh("find . -path ./.git -prune -o -type f -exec touch -d 2001-01-01 {} +; sleep 1.1").ok();
        elsewhere(&pod, format, &format!("{format}.tar"));
        assert!(
            pod.read(&format!("{format}.tar"))
                == std::fs::read(sandbox.join(&format!("{format}.tar"))).unwrap()
        );
    }
    elsewhere(&pod, "modelpack", "layout");
    repo.model(["package", "churn@1.0.0", "-o", "../layout"]).ok();
    assert_eq!(files(&pod.join("layout")), files(&sandbox.join("layout")));
    // With a lock file, neither git nor a clone is needed.
    repo.model(["resolve", "churn@1.0.0", "--lock", "../pod/lock.json"]).ok();
    pod.env("PATH", "/nonexistent").model(["package", "--locked", "lock.json", "-o", "locked"]).ok();
    assert_eq!(files(&pod.join("locked")), files(&sandbox.join("layout")));
    // A tar has the files themselves.
    pod.sh("mkdir out && tar xf tar.tar -C out && git-model info out").says("1.0.0").ok();
    assert_eq!(pod.read(&format!("out/{WEIGHTS}")), repo.read(WEIGHTS));
}

#[test]
fn parts_and_places_can_be_chosen() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let listed = |args: &[&str]| {
        drop(std::fs::remove_file(sandbox.join("x.tar")));
        let all = [&["package", "churn@1.0.0", "--format", "tar", "-o", "../x.tar"], args].concat();
        repo.model(all).ok();
        let names = repo.sh("tar tf ../x.tar | grep -v /$ | grep -v tokenizer").ok();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--include", "none"]), [WEIGHTS, "model-info.json"]);
    assert_eq!(
        listed(&["--include", "config,schema", "--root", "m"]),
        ["model-info.json", "schema.json", "train.yaml", "weights.safetensors"]
    );
    assert_eq!(
        listed(&["--include", "record", "--include", "environment"]),
        ["m/lineage.yaml", "m/model.yaml", WEIGHTS, "model-info.json", "requirements.txt"]
    );
    assert_eq!(repo.model(["package", "churn@1.0.0", "-o", "../y", "--include", "weights"]).code, 2);
    assert_eq!(repo.model(["package", "churn@1.0.0", "-o", "../y", "--platform", "here"]).code, 2);
    repo.model(["package", "churn@1.0.0"]).fails(2, "where to?");
    repo.model(["package", "churn@9.0.0", "-o", "../y"]).fails(1, "no such release");
    assert!(!sandbox.join("y").exists());
}

#[test]
fn two_files_for_one_place_are_refused() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.write("train.yaml", "other\n");
    repo.write("m/model.yaml", DECLARED.replace("config: [", "config: [../train.yaml, "));
    record(&repo, "twice");
    repo.model(["package", "HEAD", "-o", "../x.tar", "--root", "m"])
        .fails(3, "has its place train.yaml already");
    repo.model(["package", "HEAD", "--format", "tar", "-o", "../x.tar"]).ok();
}

#[test]
fn damaged_and_missing_content_is_named() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let digest = sha256(&repo.join(WEIGHTS));
    let object = repo.join(".git/model/objects").join(&digest[..2]).join(&digest);
    let good = std::fs::read(&object).unwrap();
    let spoil = || {
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        drop(std::fs::remove_file(&object));
        std::fs::write(&object, bad).unwrap();
    };
    // Noticed on the way into a stream, set aside, and fetched by the next run.
    for (format, path) in [("tar", "../a.tar"), ("image", "../b"), ("modelpack", "../c.tar")] {
        spoil();
        let args = ["package", "churn@1.0.0", "--format", format, "-o", path];
        repo.model(args).fails(3, WEIGHTS);
        assert!(!repo.exists(path) && !object.exists());
        repo.model(args).ok();
    }
    // A layout is made of checked copies, so what is damaged is fetched at once.
    spoil();
    repo.model(["package", "churn@1.0.0", "-o", "../d"]).ok();
    assert!(sandbox.join("d").is_dir());
    // Neither here nor in the store.
    let stored = sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest);
    std::fs::rename(&stored, sandbox.join("aside")).unwrap();
    drop(std::fs::remove_file(&object));
    repo.model(["package", "churn@1.0.0", "-o", "../e"]).fails(1, WEIGHTS);
    repo.model(["package", "churn@1.0.0", "-o", "../e", "--offline"]).fails(1, WEIGHTS);
    // The wrong bytes in the store.
    std::fs::write(&stored, "wrong").unwrap();
    assert_ne!(repo.model(["package", "churn@1.0.0", "-o", "../e"]).code, 0);
    let left: Vec<String> = std::fs::read_dir(sandbox.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name == "e" || name.starts_with(".git-model-package"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_is_overwritten() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    repo.write("../file", "mine");
    repo.write("../dir/file", "mine");
    repo.sh("ln -s nowhere ../link").ok();
    for path in ["../file", "../dir", "../link"] {
        for format in ["modelpack", "image", "tar"] {
            let args = ["package", "churn@1.0.0", "--format", format, "-o", path];
            repo.model(args).fails(3, "something is there already");
        }
    }
    assert_eq!((repo.text("../file"), repo.text("../dir/file")), ("mine".into(), "mine".into()));
    repo.model(["package", "churn@1.0.0", "--dockerfile", "fetch", "-o", "../file"])
        .fails(3, "there already");
}

#[test]
fn offline_needs_only_what_is_here() {
    let sandbox = Sandbox::new();
    released(&sandbox);
    // A clone that has the artifacts, and the files of git in git.
    sandbox.at("").git(["clone", "-q", "remote.git", "clone"]).ok();
    let clone = sandbox.at("clone");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    std::fs::rename(sandbox.join("store"), sandbox.join("gone")).unwrap();
    clone.model(["package", "churn@1.0.0", "--offline", "-o", "../mp"]).ok();
}

#[test]
fn advice_comes_with_figures() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    for number in 0..3 {
        repo.write("src/pre.py", format!("print({number})\n"));
        repo.git(["commit", "-q", "--no-verify", "-am", "code"]).ok();
    }
    record(&repo, "code");
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", "1.1.0"]).ok();
    let told = repo.json(["package", "churn@1.1.0", "--advise", "--replicas", "4", "--bandwidth", "1mb"]);
    assert_eq!(told["schema"], "git-model/advice/v1");
    let advice = &told["advice"];
    assert_eq!(advice["choice"], "embed");
    assert_eq!(advice["weights_changes"]["commits"], 2);
    assert_eq!(advice["code_changes"]["commits"], 5);
    let weights = advice["weights_bytes"].as_u64().unwrap();
    let other = advice["other_bytes"].as_u64().unwrap();
    assert_eq!(advice["weights_change"]["fetch"]["received"], 4 * weights);
    assert_eq!(advice["code_change"]["embed"]["sent"], other);
    assert_eq!(advice["code_change"]["one_layer"]["sent"], other + weights);
    let small = repo.json(["package", "churn@1.1.0", "--advise", "--embed-max", "1KiB"]);
    assert_eq!(small["advice"]["choice"], "fetch");
    repo.model(["package", "churn@1.1.0", "--advise"]).says("what would change the answer").ok();
    assert_eq!(repo.model(["package", "churn@1.1.0", "--advise", "--bandwidth", "0mb"]).code, 2);
    assert_eq!(repo.model(["package", "churn@1.1.0", "--advise", "-o", "x"]).code, 2);
}

#[test]
fn a_dockerfile_is_pinned() {
    let sandbox = Sandbox::new();
    let repo = released(&sandbox);
    let image = format!("registry.example.com/churn@sha256:{}", "a".repeat(64));
    let embed = repo
        .model([
            "package",
            "churn@1.0.0",
            "--dockerfile",
            "embed",
            "--image",
            &image,
            "--base",
            "python:3.12-slim",
        ])
        .ok();
    for line in [
        format!("FROM {image} AS model"),
        "ARG BASE=python:3.12-slim".to_owned(),
        "COPY --from=model /models /models".to_owned(),
        "LABEL org.opencontainers.image.version=\"1.0.0\"".to_owned(),
        "ENV MODEL_VERSION=\"1.0.0\"".to_owned(),
        "RUN pip install --no-cache-dir -r requirements.txt".to_owned(),
        "COPY [\"src/pre.py\", \"src/pre.py\"]".to_owned(),
    ] {
        assert!(embed.lines().any(|found| found == line), "{line}\n{embed}");
    }
    let at = |text: &str| embed.find(text).unwrap();
    assert!(at("COPY --from=model") < at("src/pre.py"), "the code is above the weights: {embed}");
    // The variables are those that `info` prints.
    repo.model(["get", "churn@1.0.0", "-o", "../got"]).ok();
    let env = repo.model(["info", "../got", "--format", "env"]).ok();
    for line in env.lines().filter(|line| line.starts_with("MODEL_")) {
        let (name, value) = line.split_once('=').unwrap();
        assert!(embed.contains(&format!("ENV {name}=\"{}\"", value.trim_matches('\''))), "{line}\n{embed}");
    }
    // The start of the fetching one, as a shell runs it.
    let fetch = repo.model(["package", "churn@1.0.0", "--dockerfile", "fetch"]).ok();
    let entry = fetch.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let words: Vec<String> = serde_json::from_str(entry).unwrap();
    repo.model(["resolve", "churn@1.0.0", "--lock", "../model.lock.json"]).ok();
    let script = words[2]
        .replace("/etc/git-model/", &format!("{}/", sandbox.path().display()))
        .replace("/models", &sandbox.join("models").display().to_string());
    let mut command = repo.command(&words[0]);
    command.args(["-c", &script, "sh", "cat"]).arg(sandbox.join("models").join(WEIGHTS));
    assert!(run(command).code == 0 && sandbox.join("models/model-info.json").is_file());

    repo.model(["package", "churn@1.0.0", "--dockerfile", "embed"]).fails(2, "--image");
    repo.model(["package", "churn@1.0.0", "--dockerfile", "fetch", "--image", &image]).fails(2, "--image");
    repo.model(["package", "churn@1.0.0", "--dockerfile", "fetch", "--base", "a\nRUN evil"])
        .fails(2, "not the name of an image");
}
