//! Writing a release into a directory: parts of it, killed at any moment, again, and among files of somebody else.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

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
    written_out(sandbox)
}

/// A pod with the lock files of both releases, and both written out as `old` and `new`.
fn written_out(sandbox: &Sandbox) -> Repo {
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

/// The same of releases that have this file of code each.
fn two_of_code(sandbox: &Sandbox, first: &str, second: &str) -> Repo {
    let repo = published(sandbox);
    for (version, path) in [("1.0.0", first), ("1.1.0", second)] {
        repo.sh("git rm -r -q --ignore-unmatch lib && rm -rf lib").ok();
        repo.write(path, format!("print('{version}')\n"));
        declare(&repo, "../src/pre.py", &format!("../{path}"));
        repo.git(["add", "."]).ok();
        advance(&repo, 2.0, r#"{"auc": 0.2}"#, version);
        repo.model(["release", "churn", version]).ok();
    }
    written_out(sandbox)
}

fn file_then_folder(sandbox: &Sandbox) -> Repo {
    two_of_code(sandbox, "lib", "lib/a/b.py")
}

fn folder_then_file(sandbox: &Sandbox) -> Repo {
    two_of_code(sandbox, "lib/a/b.py", "lib")
}

/// A directory that says what it is has exactly that.
#[track_caller]
fn is_what_it_says(dir: &Path) {
    let Ok(info) = std::fs::read(dir.join("model-info.json")) else { return };
    let info: Value = serde_json::from_slice(&info).unwrap();
    for file in info["files"].as_array().unwrap() {
        let path = dir.join(file["path"].as_str().unwrap());
        assert_eq!(file["sha256"], Value::from(sha256(&path)), "{}", path.display());
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
    // Folders above it are made.
    get("new.json", "some/where/model").ok();
    same(&pod, "some/where/model", "new");
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
    get("d", &[]).fails(3, "d/src: a file that git model get did not write is in the way");
    assert_eq!(pod.text("d/src"), "a file");
    assert_eq!(pod.sh("find d").ok().lines().count(), 2, "nothing else came");
    get("d", &["--force"]).ok();
    same(&pod, "d", "new");
    // A folder where a file should be.
    pod.write(&format!("f/{WEIGHTS}/notes.txt"), "mine");
    get("f", &[]).fails(3, &format!("f/{WEIGHTS}/notes.txt: a file that git model get did not write"));
    assert_eq!(pod.text(&format!("f/{WEIGHTS}/notes.txt")), "mine");
    get("f", &["--force"]).ok();
    same(&pod, "f", "new");
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

#[test]
fn a_file_becomes_a_folder_and_a_folder_a_file() {
    let sandbox = Sandbox::new();
    let pod = file_then_folder(&sandbox);
    let get =
        |lock: &str, more: &[&str]| pod.model([&["get", "--locked", lock, "-o", "model"], more].concat());
    for (lock, like) in [("old.json", "old"), ("new.json", "new"), ("old.json", "old")] {
        get(lock, &[]).ok();
        same(&pod, "model", like);
    }
    // What somebody changed is in the way as files of somebody else are, and the version before stays what it was.
    pod.write("model/lib", "mine");
    get("new.json", &[]).fails(3, "model/lib: it was changed since git model get wrote it");
    assert_eq!(pod.json(["info", "model"])["info"]["version"], "1.0.0");
    get("new.json", &["--force"]).ok();
    same(&pod, "model", "new");
    pod.write("model/lib/notes.txt", "mine");
    get("old.json", &[]).fails(3, "model/lib/notes.txt: a file that git model get did not write");
    assert_eq!(pod.text("model/lib/notes.txt"), "mine");
    std::fs::remove_file(pod.join("model/lib/notes.txt")).unwrap();
    pod.write("model/lib/a/b.py", "mine");
    get("old.json", &[]).fails(3, "model/lib/a/b.py: it was changed");
    get("old.json", &["--force"]).ok();
    same(&pod, "model", "old");
}

#[test]
fn what_was_changed_is_not_replaced_by_another_version() {
    let sandbox = Sandbox::new();
    let pod = two_of_code(&sandbox, "src/pre.py", "src/pre.py");
    let get =
        |lock: &str, more: &[&str]| pod.model([&["get", "--locked", lock, "-o", "model"], more].concat());
    get("old.json", &[]).ok();
    pod.write("model/src/pre.py", "print('mine')\n");
    let said = get("new.json", &[]).fails(3, "model/src/pre.py: it was changed");
    assert!(said.contains("--force replaces it"), "{said}");
    assert_eq!(pod.text("model/src/pre.py"), "print('mine')\n");
    assert_eq!(pod.read(&format!("model/{WEIGHTS}")), pod.read(&format!("old/{WEIGHTS}")));
    // A file that both versions have is no less changed.
    pod.write("model/src/pre.py", pod.read("old/src/pre.py"));
    pod.write("model/m/schema.json", "{}");
    get("new.json", &[]).fails(3, "model/m/schema.json: it was changed");
    get("new.json", &["--force"]).ok();
    same(&pod, "model", "new");
}

#[test]
fn a_lock_file_that_was_edited_is_refused() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    let lock: Value = serde_json::from_slice(&pod.read("new.json")).unwrap();
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut lock = lock.clone();
        edit(&mut lock);
        pod.write("edited.json", lock.to_string());
        pod.model(["get", "--locked", "edited.json", "-o", "model"])
    };
    let other = "edited.json: it was changed: its model digest is not that of the files";
    let digest = "0".repeat(64);
    edited(&|lock| lock["digest"] = digest.as_str().into()).fails(3, other);
    let place = lock["files"].as_array().unwrap().iter().position(|file| file["role"] == "weights").unwrap();
    edited(&|lock| lock["files"][place]["sha256"] = digest.as_str().into()).fails(3, other);
    let twice = |lock: &mut Value| {
        let mut again = lock["files"][place].clone();
        again["sha256"] = digest.as_str().into();
        lock["files"].as_array_mut().unwrap().push(again);
    };
    edited(&twice).fails(3, "listed twice, with different content");
    // What is no part of the digest may not be where files of ours are.
    for path in ["model-info.json", "Model-Info.json", ".git-model-part/x", ".git-model-pieces/x"] {
        let place =
            lock["files"].as_array().unwrap().iter().position(|file| file["role"] == "lineage").unwrap();
        edited(&|lock| lock["files"][place]["path"] = path.into())
            .fails(3, &format!("{path}: git model get keeps files of its own there"));
    }
    let said = edited(&|lock| lock["schema"] = "git-model/lock/v9".into()).fails(1, "is not known");
    assert!(said.contains("hint: update git-model"), "{said}");
    for (text, reason) in [(Some("{"), "not a lock file"), (None, "no such file")] {
        pod.sh("rm edited.json").ok();
        text.into_iter().for_each(|text| pod.write("edited.json", text));
        let said = pod.model(["get", "--locked", "edited.json", "-o", "model"]).fails(1, reason);
        assert!(said.contains("hint: git model resolve REF --lock FILE"), "{said}");
        pod.write("edited.json", "");
    }
    assert!(!pod.exists("model"));
}

#[test]
fn a_model_that_is_written_out_inside_the_repository_is_no_second_one() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["get", "churn@latest", "-o", "out/deployed"]).ok();
    for args in
        [&["record"][..], &["log"], &["info"], &["history"], &["record", "churn"], &["compare", "HEAD"]]
    {
        repo.model(args).ok();
    }
    // A file of that name which says nothing about the model hides none.
    repo.write("m/model-info.json", "{}");
    repo.model(["log"]).ok();
}

/// Kills `get` at every call of a kind while it makes a directory, or changes the one of the version before.
fn kill_gets(test: &str, calls: &str, releases: fn(&Sandbox) -> Repo, upgrade: bool) {
    if !can_strace(test) {
        return;
    }
    let sandbox = Sandbox::new();
    let pod = calm(&releases(&sandbox));
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
    kill_gets("a_new_directory_survives_a_kill_at_every_rename", RENAME, two_releases, false);
}

#[test]
fn a_new_directory_survives_a_kill_at_every_removal_and_new_folder() {
    kill_gets("a_new_directory_survives_a_kill_at_every_new_folder", MKDIR, two_releases, false);
}

#[test]
fn an_upgrade_survives_a_kill_at_every_rename() {
    kill_gets("an_upgrade_survives_a_kill_at_every_rename", RENAME, two_releases, true);
}

#[test]
fn an_upgrade_survives_a_kill_at_every_removal_and_new_folder() {
    kill_gets("an_upgrade_survives_a_kill_at_every_removal", REMOVE, two_releases, true);
    kill_gets("an_upgrade_survives_a_kill_at_every_new_folder", MKDIR, two_releases, true);
}

#[test]
fn a_file_that_becomes_a_folder_survives_a_kill_at_every_step() {
    for calls in [RENAME, REMOVE, MKDIR] {
        kill_gets("a_file_that_becomes_a_folder_survives_a_kill", calls, file_then_folder, true);
        kill_gets("a_folder_that_becomes_a_file_survives_a_kill", calls, folder_then_file, true);
    }
}

#[test]
fn what_a_killed_run_left_is_in_no_other_version_s_way() {
    if !can_strace("what_a_killed_run_left_is_in_no_other_version_s_way") {
        return;
    }
    for releases in [file_then_folder, folder_then_file] {
        let sandbox = Sandbox::new();
        let pod = calm(&releases(&sandbox));
        at_every(1, |at| {
            let dir = format!("model-{at}");
            let inject = format!("inject={RENAME}:signal=SIGKILL:when={at}");
            let first = ["get", "--locked", "old.json", "-o", &dir];
            let killed = strace(&pod, &["-o", "/dev/null", "-e", &inject], &first);
            pod.model(["get", "--locked", "new.json", "-o", &dir]).ok();
            same(&pod, &dir, "new");
            killed
        });
    }
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

#[test]
fn two_versions_at_once_do_not_mix() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    for round in 0..6 {
        let runs: Vec<_> = ["old", "new"]
            .iter()
            .map(|name| {
                let lock = format!("{name}.json");
                let mut command = pod.command(BINARY);
                command.args(["get", "--locked", &lock, "-o", "model", "--limit-rate", "20m"]);
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            assert!(output.status.success(), "{round}: {}", String::from_utf8_lossy(&output.stderr));
        }
        pod.sh("diff -r model old >/dev/null || diff -r model new").ok();
        assert_eq!(pod.sh("find . -name '*git-model-part*'").ok(), "");
        if round % 2 == 0 {
            pod.sh("rm -r model").ok();
        }
    }
}

#[test]
fn another_get_into_the_same_directory_is_waited_for() {
    let sandbox = Sandbox::new();
    let pod = two_releases(&sandbox);
    pod.sh("cp -r old model && mkdir model/.git-model-part").ok();
    let script = format!(
        "exec 9< model/.git-model-part; flock -x 9
        {BINARY} get --locked new.json -o model 9<&- & sleep 1
        diff -r -x .git-model-part model old && exec 9<&- && wait $!"
    );
    pod.sh(&script).ok();
    same(&pod, "model", "new");
}
