//! Writing a release into a directory: parts of it, killed at any moment, again, and among files of somebody else.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::faults::{MKDIR, REMOVE, RENAME, at_every, calm, can_strace, strace};
use crate::support::models::{WEIGHTS, advance, declare, pod, published, remote_url, weights};
use crate::support::{BINARY, Output, Repo, Sandbox, noise, sha256};

/// Two releases that differ in weights, code and data, a pod, the lock files of both, and both written out as `old` and `new`.
/// A file of the first is gone in the second.
fn two_releases(sandbox: &Sandbox) -> Repo {
    let repo = published(sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.write("src/post.py", "print('post')\n");
    repo.write("data/more.csv", noise(1, 3_000_000));
    repo.model(["add", "data"]).ok();
    declare(&repo, "../src/pre.py", "../src/post.py");
    repo.git(["add", "."]).ok();
    advance(&repo, 2.0, r#"{"auc": 0.2}"#, "two");
    repo.model(["release", "churn", "1.1.0"]).ok();
    let pod = pod(sandbox, "pod");
    let url = remote_url(sandbox);
    for (version, name) in [("1.0.0", "old"), ("1.1.0", "new")] {
        let reference = format!("churn@{version}");
        let lock = format!("{name}.json");
        pod.model(["resolve", &reference, "--repo", &url, "--lock", &lock]).ok();
        pod.model(["get", &reference, "--repo", &url, "--locked", &lock, "-o", name]).ok();
    }
    pod
}

/// A directory that says what it is has exactly that.
#[track_caller]
fn is_what_it_says(dir: &Path) {
    let Ok(info) = std::fs::read(dir.join("model-info.json")) else { return };
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    for file in info["files"].as_array().unwrap() {
        let path = dir.join(file["path"].as_str().unwrap());
        assert_eq!(file["sha256"], serde_json::Value::from(sha256(&path)), "{}", path.display());
    }
}

/// Two directories hold the same, and nothing was left beside them.
#[track_caller]
fn same(pod: &Repo, one: &str, other: &str) {
    pod.sh(&format!("diff -r {one} {other}")).ok();
    let left = pod.sh("find . -name '*git-model-part*' -o -name '.new-*'").ok();
    assert_eq!(left, "", "left behind");
}

#[test]
fn parts_of_a_release_and_its_data() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    let url = remote_url(&sandbox);
    let files = |dir: &str| pod.sh(&format!("cd {dir} && find . -type f | sort")).ok();
    let get = |more: &[&str], dir: &str| {
        pod.model([&["get", "churn@1.1.0", "--repo", &url, "-o", dir], more].concat())
    };
    get(&["--only", "weights"], "weights").ok();
    assert_eq!(files("weights"), "./m/weights.safetensors\n./model-info.json\n");
    get(&["--only", "code", "--only", "schema"], "some").ok();
    assert_eq!(files("some"), "./m/schema.json\n./model-info.json\n./src/post.py\n");
    get(&["--only", "weights", "--with", "data"], "both").ok();
    assert_eq!(
        files("both"),
        "./data/more.csv\n./data/rows.csv\n./m/weights.safetensors\n./model-info.json\n"
    );
    assert_eq!(pod.read("both/data/more.csv"), noise(1, 3_000_000));
    get(&["--only", "everything"], "none").says("possible values").fails(2, "");
    // The whole, then less of it, then the whole again: a directory is what was asked for last.
    get(&["--with", "data"], "model").ok();
    get(&["--with", "data"], "model").says("there already").ok();
    get(&[], "model").ok();
    same(&pod, "model", "new");
    // The digest is of the model, whatever part of it is here.
    let digest = |dir: &str| pod.json(["info", dir])["info"]["digest"].clone();
    assert_eq!(digest("weights"), digest("new"));
    // A lock file lists no data.
    pod.model(["get", "--locked", "new.json", "-o", "data", "--with", "data"])
        .fails(2, "--with data needs the repository");
}

#[test]
fn again_and_from_version_to_version() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    let get = |lock: &str, dir: &str| pod.model(["get", "--locked", lock, "-o", dir]);
    get("old.json", "model").ok();
    same(&pod, "model", "old");
    let time = |name: &str| pod.join(name).metadata().unwrap().modified().unwrap();
    let before = (time(&format!("model/{WEIGHTS}")), time("model/model-info.json"));
    get("old.json", "model").says("there already").ok();
    assert_eq!(before, (time(&format!("model/{WEIGHTS}")), time("model/model-info.json")));
    for (lock, like) in [("new.json", "new"), ("old.json", "old"), ("new.json", "new")] {
        get(lock, "model").ok();
        same(&pod, "model", like);
    }
    // Whatever is wrong is made right: bytes, length, mode, a missing file, a folder gone.
    for damage in [
        format!("printf x >>{WEIGHTS}"),
        format!("printf y | dd of={WEIGHTS} bs=1 seek=20 conv=notrunc status=none"),
        "chmod +x src/post.py".to_owned(),
        "rm m/schema.json".to_owned(),
        "rm -r src".to_owned(),
        "rm model-info.json".to_owned(),
    ] {
        pod.sh(&format!("cd model && {damage}")).ok();
        get("new.json", "model").never_says("there already").ok();
        same(&pod, "model", "new");
    }
    // What somebody else put beside it stays.
    pod.write("model/notes.txt", "mine");
    get("old.json", "model").ok();
    assert_eq!(pod.text("model/notes.txt"), "mine");
}

#[test]
fn files_of_somebody_else_are_in_the_way() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    let get =
        |dir: &str, more: &[&str]| pod.model([&["get", "--locked", "new.json", "-o", dir], more].concat());
    pod.write("a/src/post.py", "mine");
    get("a", &[]).fails(3, "a/src/post.py: a file that git model get did not write is in the way");
    assert_eq!(pod.text("a/src/post.py"), "mine");
    assert_eq!(pod.sh("find a").ok().lines().count(), 3, "nothing else came");
    get("a", &["--force"]).ok();
    same(&pod, "a", "new");
    // The same bytes are in nobody's way.
    pod.write(&format!("b/{WEIGHTS}"), weights(2.0));
    get("b", &[]).ok();
    same(&pod, "b", "new");
    // A file where the directory should be, and one where a folder of it should be.
    pod.write("c", "a file");
    assert_eq!(get("c", &[]).code, 1);
    assert_eq!(pod.text("c"), "a file");
    pod.write("d/src", "a file");
    assert_ne!(get("d", &[]).code, 0);
    assert_eq!(pod.text("d/src"), "a file");
    assert!(!pod.exists("d/model-info.json"));
    // A link that leads elsewhere is not followed.
    pod.write("elsewhere/post.py", "mine");
    pod.write("e/x", "");
    std::os::unix::fs::symlink("../../elsewhere/post.py", pod.join("e/src.py")).unwrap();
    std::fs::create_dir(pod.join("e/src")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere/post.py", pod.join("e/src/post.py")).unwrap();
    get("e", &[]).fails(3, "in the way");
    get("e", &["--force"]).ok();
    assert_eq!(pod.text("elsewhere/post.py"), "mine");
}

/// Kills `get` at every call of a kind while it makes a directory, or changes the one of the version before.
fn kill_gets(test: &str, calls: &str, upgrade: bool) {
    if !can_strace(test) {
        return;
    }
    let sandbox = Sandbox::new();
    let pod = calm(&two_releases(&sandbox));
    at_every(1, |at| {
        let dir = format!("model-{at}");
        if upgrade {
            pod.sh(&format!("cp -r old {dir}")).ok();
        }
        let args = ["get", "--locked", "new.json", "-o", &dir];
        let inject = format!("inject={calls}:signal=SIGKILL:when={at}");
        let killed = strace(&pod, &["-o", "/dev/null", "-e", &inject], &args);
        is_what_it_says(&pod.join(&dir));
        let again: Output = pod.model(args);
        assert_eq!(again.code, 0, "killed at {calls} {at}: {again}");
        same(&pod, &dir, "new");
        killed
    });
}

#[test]
fn a_new_directory_survives_a_kill_at_every_rename() {
    kill_gets("a_new_directory_survives_a_kill_at_every_rename", RENAME, false);
}

#[test]
fn a_new_directory_survives_a_kill_at_every_removal_and_new_folder() {
    kill_gets("a_new_directory_survives_a_kill_at_every_new_folder", MKDIR, false);
}

#[test]
fn an_upgrade_survives_a_kill_at_every_rename() {
    kill_gets("an_upgrade_survives_a_kill_at_every_rename", RENAME, true);
}

#[test]
fn an_upgrade_survives_a_kill_at_every_removal_and_new_folder() {
    kill_gets("an_upgrade_survives_a_kill_at_every_removal", REMOVE, true);
    kill_gets("an_upgrade_survives_a_kill_at_every_new_folder", MKDIR, true);
}

/// Kills whole runs, with git and data, after a time that differs from run to run.
#[test]
fn kills_at_any_moment_end_with_a_whole_model() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    let url = remote_url(&sandbox);
    let args =
        |dir: &str| ["get", "churn@1.1.0", "--repo", &url, "--with", "data", "-o", dir].map(str::to_owned);
    let started = Instant::now();
    pod.model(args("whole")).ok();
    let whole = started.elapsed();
    let mut killed = 0;
    for round in 0..12u32 {
        // A cache of its own, so that git has to be asked every time.
        let pod = pod.env("XDG_CACHE_HOME", sandbox.join(&format!("cache-{round}")).display().to_string());
        let dir = format!("model-{round}");
        for part in 0..3u32 {
            let mut child = pod.command(BINARY).args(args(&dir)).spawn().unwrap();
            let step = (round * 7 + part * 5) % 12;
            std::thread::sleep(whole * step / 10 + Duration::from_millis(1));
            child.kill().unwrap();
            killed += u32::from(!child.wait().unwrap().success());
            is_what_it_says(&pod.join(&dir));
        }
        pod.model(args(&dir)).ok();
        pod.sh(&format!("diff -r whole {dir}")).ok();
    }
    assert!(killed > 6, "hardly anything was killed: {killed}");
}
