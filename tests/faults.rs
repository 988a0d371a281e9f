//! Killed, failing and full: whatever happens, old or new complete content, no wrong object, and a rerun just works.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use crate::filesystems::Mount;
use crate::support::{BINARY, Output, Repo, Sandbox, noise, run, skip};

pub(crate) const RENAME: &str = "rename,renameat,renameat2,link,linkat";
pub(crate) const SYNC: &str = "fsync,fdatasync";
pub(crate) const REMOVE: &str = "unlink,unlinkat,rmdir";
pub(crate) const MKDIR: &str = "mkdir,mkdirat";

/// The same repository without git's hooks, and with one worker, so that system calls come in a fixed order.
pub(crate) fn calm(repo: &Repo) -> Repo {
    repo.env("GIT_MODEL_HOOKS", "off").env("RAYON_NUM_THREADS", "1").env("RUST_BACKTRACE", "0")
}

/// Runs `git-model <args>` under strace.
pub(crate) fn strace(repo: &Repo, options: &[&str], args: &[&str]) -> Output {
    let mut command = repo.command("strace");
    command.args(["-f", "--seccomp-bpf", "-qq"]).args(options).arg(BINARY).args(args);
    run(command)
}

/// Whether strace works here.
pub(crate) fn can_strace(test: &str) -> bool {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.join("x")).unwrap();
    let works = std::process::Command::new("strace").args(["-V"]).output().is_ok()
        && strace(&sandbox.at("x"), &["-o", "/dev/null", "-e", "trace=openat"], &["--version"]).code == 0;
    if !works {
        skip(test, "strace is missing or may not trace");
    }
    works
}

/// Every file below `dir` is named by the SHA-256 of its bytes.
#[track_caller]
fn names_are_true(dir: &Path) {
    if !dir.exists() {
        return;
    }
    let mut command = std::process::Command::new("sh");
    let script = "find . -type f -regextype posix-extended -regex '.*/[0-9a-f]{64}' -exec sha256sum {} +";
    command.args(["-c", script]).current_dir(dir);
    for line in run(command).ok().lines() {
        assert!(line.ends_with(&line[..64]), "{}: {line}", dir.display());
    }
}

/// No object under a final name is wrong, and nothing strange lies in the worktree.
#[track_caller]
fn sound(repo: &Repo, store: Option<&Path>) {
    names_are_true(&repo.join(".git/model/objects"));
    if let Some(store) = store {
        names_are_true(&store.join("objects"));
    }
}

/// Nothing in the worktree that git would take for a new file.
#[track_caller]
fn tidy(repo: &Repo) {
    let status = repo.git(["status", "--porcelain"]).ok();
    assert!(!status.lines().any(|line| line.starts_with("??") && !line.contains(".pointer")), "{status}");
}

/// Git's own lock, which a killed `git` leaves behind, is git's own affair.
fn unlock_index(repo: &Repo) {
    drop(std::fs::remove_file(repo.join(".git/index.lock")));
}

/// Runs `work(n)` for n = 1, 2, … (in steps) until it says that nothing was killed any more.
pub(crate) fn at_every(step: usize, mut work: impl FnMut(usize) -> Output) {
    for at in (1..2000).step_by(step) {
        if work(at).code == 0 {
            assert!(at > 1, "nothing was ever killed");
            return;
        }
    }
    panic!("it never came to an end");
}

fn kill_adds(test: &str, calls: &str, step: usize) {
    if !can_strace(test) {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    repo.commit_artifact("w.bin", "first", "first");
    at_every(step, |at| {
        let (file, inner) = (noise(at as u64, 9_000), noise(1000 + at as u64, 20_000));
        repo.write("w.bin", &file);
        repo.write("d/x/inner.bin", &inner);
        let inject = format!("inject={calls}:signal=SIGKILL:when={at}");
        let killed = strace(&repo, &["-o", "/dev/null", "-e", &inject], &["add", "w.bin", "d"]);
        assert!(repo.read("w.bin") == file && repo.read("d/x/inner.bin") == inner, "{killed}");
        sound(&repo, None);
        unlock_index(&repo);
        repo.model(["add", "w.bin", "d"]).ok();
        sound(&repo, None);
        tidy(&repo);
        assert_eq!((repo.state("w.bin"), repo.state("d")), ("clean".into(), "clean".into()));
        repo.git(["commit", "-q", "--allow-empty", "-m", "next"]).ok();
        repo.model(["verify"]).ok();
        killed
    });
}

#[test]
fn add_survives_a_kill_at_every_rename() {
    kill_adds("add_survives_a_kill_at_every_rename", RENAME, 1);
}

#[test]
fn add_survives_a_kill_at_every_sync() {
    kill_adds("add_survives_a_kill_at_every_sync", SYNC, 1);
}

#[test]
fn add_survives_a_kill_at_every_removal_and_new_directory() {
    kill_adds("add_survives_a_kill_at_every_removal", REMOVE, 1);
    kill_adds("add_survives_a_kill_at_every_new_directory", MKDIR, 1);
}

#[test]
fn add_survives_a_kill_at_every_eleventh_open() {
    kill_adds("add_survives_a_kill_at_every_eleventh_open", "openat", 11);
}

/// Two versions: a file artifact, and a directory with changed, new, removed files, and a file that was a directory.
fn two_versions(sandbox: &Sandbox) -> Repo {
    let repo = calm(&sandbox.repo("repo"));
    repo.write("d/same", "same");
    repo.write("d/changed", noise(1, 9_000));
    repo.write("d/gone/deep", "gone");
    repo.write("d/turned/x", "directory");
    repo.commit_artifact("w.bin", noise(2, 30_000), "w");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "v1"]).ok();
    repo.git(["tag", "v1"]).ok();
    repo.sh("rm -r d/gone d/turned").ok();
    repo.write("d/changed", noise(3, 9_500));
    repo.write("d/new/deep", "new");
    repo.write("d/turned", "file");
    repo.write("w.bin", noise(4, 31_000));
    repo.model(["add", "d", "w.bin"]).ok();
    repo.git(["commit", "-q", "-m", "v2"]).ok();
    repo.git(["tag", "v2"]).ok();
    repo.model(["push"]).ok();
    repo
}

/// The content of both artifacts, as one text.
fn content(repo: &Repo) -> String {
    repo.sh("find d w.bin -type f -exec sha256sum {} + | sort -k2").ok()
}

fn kill_syncs(test: &str, calls: &str, step: usize) {
    if !can_strace(test) {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = two_versions(&sandbox);
    let second = content(&repo);
    repo.git(["checkout", "-q", "v1"]).ok();
    repo.model(["sync"]).ok();
    let first = content(&repo);
    let whole: Vec<&str> = first.lines().chain(second.lines()).collect();
    at_every(step, |at| {
        repo.git(["checkout", "-q", "v2"]).ok();
        let inject = format!("inject={calls}:signal=SIGKILL:when={at}");
        let killed = strace(&repo, &["-o", "/dev/null", "-e", &inject], &["sync"]);
        let torn = content(&repo);
        assert!(torn.lines().all(|line| whole.contains(&line)), "only whole files: {torn}\n{killed}");
        assert!(repo.exists("w.bin"), "old or new, never none: {killed}");
        sound(&repo, None);
        repo.model(["sync"]).ok();
        assert_eq!(content(&repo), second, "{killed}");
        assert!(!repo.exists(".git/model/journal"));
        assert_eq!((repo.state("w.bin"), repo.state("d")), ("clean".into(), "clean".into()));
        repo.git(["checkout", "-q", "v1"]).ok();
        repo.model(["sync"]).ok();
        assert_eq!(content(&repo), first);
        killed
    });
}

#[test]
fn sync_survives_a_kill_at_every_rename() {
    kill_syncs("sync_survives_a_kill_at_every_rename", RENAME, 1);
}

#[test]
fn sync_survives_a_kill_at_every_sync_call() {
    kill_syncs("sync_survives_a_kill_at_every_sync_call", SYNC, 1);
}

#[test]
fn sync_survives_a_kill_at_every_removal_and_new_directory() {
    kill_syncs("sync_survives_a_kill_at_every_removal", REMOVE, 1);
    kill_syncs("sync_survives_a_kill_at_every_new_directory", MKDIR, 1);
}

#[test]
fn sync_survives_a_kill_at_every_eleventh_open() {
    kill_syncs("sync_survives_a_kill_at_every_eleventh_open", "openat", 11);
}

/// One file artifact: whatever call is the last one, its content is whole and the next sync finishes.
#[test]
fn sync_of_a_file_survives_a_kill_anywhere() {
    if !can_strace("sync_of_a_file_survives_a_kill_anywhere") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    let versions = [noise(1, 9_000), noise(2, 9_500)];
    for (name, bytes) in ["v0", "v1"].into_iter().zip(&versions) {
        repo.commit_artifact("w.bin", bytes, name);
        repo.git(["tag", name]).ok();
    }
    let mut now = 1;
    for calls in [RENAME, SYNC, REMOVE, MKDIR] {
        at_every(1, |at| {
            now = 1 - now;
            repo.git(["checkout", "-q", ["v0", "v1"][now]]).ok();
            let inject = format!("inject={calls}:signal=SIGKILL:when={at}");
            let killed = strace(&repo, &["-o", "/dev/null", "-e", &inject], &["sync"]);
            assert!(versions.contains(&repo.read("w.bin")), "{killed}");
            repo.model(["sync"]).ok();
            assert!(repo.read("w.bin") == versions[now], "{killed}");
            assert!(!repo.exists(".git/model/journal"));
            sound(&repo, None);
            killed
        });
    }
}

#[test]
fn a_killed_sync_leaves_nothing_in_the_worktree() {
    if !can_strace("a_killed_sync_leaves_nothing_in_the_worktree") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    repo.commit_artifact("w.bin", noise(1, 9_000), "w");
    at_every(1, |at| {
        std::fs::remove_file(repo.join("w.bin")).unwrap();
        let inject = format!("inject={REMOVE}:signal=SIGKILL:when={at}");
        let killed = strace(&repo, &["-o", "/dev/null", "-e", &inject], &["sync"]);
        tidy(&repo);
        repo.model(["sync"]).ok();
        killed
    });
}

/// Kills `args` after each of a few pseudo-random delays; `check` looks at what is left and runs it again.
fn kill_at_random(repo: &Repo, args: &[&str], mut prepare: impl FnMut(u64), mut check: impl FnMut(u64)) {
    for round in 0..8u64 {
        prepare(round);
        let mut command = repo.command(BINARY);
        command.args(args).stderr(std::process::Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(noise(round, 1)[0]) / 2));
        drop(child.kill());
        child.wait().unwrap();
        // A git that it had started lives on and finishes what it does.
        while repo.sh(&format!("kill -0 -{}", child.id())).code == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        unlock_index(repo);
        check(round);
    }
}

#[test]
fn add_and_push_survive_kills_at_random_moments() {
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    let store = sandbox.join("store");
    // Each round's content differs in its first bytes.
    let mut bytes = noise(1, 8_000_000);
    let mut content = move |round: u64| {
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        bytes.clone()
    };
    let mut again = content.clone();
    let prepare = |round: u64| repo.write("w.bin", content(round));
    kill_at_random(&repo, &["add", "w.bin"], prepare, |round| {
        assert!(repo.read("w.bin") == again(round), "the user's file is as it was");
        sound(&repo, None);
        repo.model(["add", "w.bin"]).ok();
        sound(&repo, None);
        repo.git(["commit", "-q", "--allow-empty", "-m", "round"]).ok();
    });
    kill_at_random(
        &repo,
        &["push"],
        |_| (),
        |_| {
            sound(&repo, Some(&store));
            repo.model(["push"]).ok();
            sound(&repo, Some(&store));
            repo.sh("rm -rf ../store .git/model/pushed").ok();
        },
    );
    assert_eq!(repo.state("w.bin"), "clean");
}

#[test]
fn sync_and_checkout_survive_kills_at_random_moments() {
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    let versions = [noise(1, 8_000_000), noise(2, 8_000_001)];
    for (name, bytes) in ["v0", "v1"].into_iter().zip(&versions) {
        repo.commit_artifact("w.bin", bytes, name);
        repo.git(["tag", name]).ok();
    }
    for command in [&["sync"][..], &["checkout", "main"]] {
        let prepare = |_| {
            repo.model(["checkout", "v0"]).ok();
            if command[0] == "sync" {
                repo.git(["checkout", "-q", "v1"]).ok();
            }
        };
        kill_at_random(&repo, command, prepare, |_| {
            assert!(versions.contains(&repo.read("w.bin")), "old or new");
            sound(&repo, None);
            repo.model(command).ok();
            assert!(repo.read("w.bin") == versions[1]);
            assert_eq!(repo.state("w.bin"), "clean");
        });
    }
}

#[test]
fn a_failed_system_call_is_one_clear_error_and_a_retry_works() {
    if !can_strace("a_failed_system_call_is_one_clear_error_and_a_retry_works") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = two_versions(&sandbox);
    let mut failures = 0;
    for (calls, error) in
        [("rename,renameat", "ENOSPC"), ("rename,renameat", "EIO"), (SYNC, "EIO"), (SYNC, "ENOSPC")]
    {
        for at in [1, 2, 3, 5] {
            let inject = format!("inject={calls}:error={error}:when={at}");
            let options = ["-o", "/dev/null", "-e", inject.as_str()];
            let bytes = noise(at + failures, 9_000);
            repo.write("w.bin", &bytes);
            let add = strace(&repo, &options, &["add", "w.bin"]);
            assert!(repo.read("w.bin") == bytes);
            failures += one_error(&add);
            tidy(&repo);
            unlock_index(&repo);
            repo.model(["add", "w.bin"]).ok();
            repo.sh("rm -r w.bin d").ok();
            failures += one_error(&strace(&repo, &options, &["sync"]));
            tidy(&repo);
            repo.model(["sync"]).ok();
            assert!(repo.read("w.bin") == bytes);
            sound(&repo, None);
        }
    }
    assert!(failures >= 20, "the injections did hit: {failures}");
}

/// 1 if the command failed, and then in the agreed way.
#[track_caller]
fn one_error(output: &Output) -> u64 {
    let errors = output.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(!output.stderr.contains("panicked"), "{output}");
    assert!((output.code, errors) == (0, 0) || (output.code, errors) == (1, 1), "{output}");
    errors as u64
}

#[test]
fn a_failed_write_never_reaches_the_cache_or_the_worktree() {
    if !can_strace("a_failed_write_never_reaches_the_cache_or_the_worktree") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = two_versions(&sandbox);
    for at in 1..12 {
        let inject = format!("inject=write,copy_file_range:error=ENOSPC:when={at}");
        let options = ["-o", "/dev/null", "-e", inject.as_str()];
        let bytes = noise(at, 5_000_000);
        repo.write("w.bin", &bytes);
        let add = strace(&repo, &options, &["add", "w.bin"]);
        assert!([0, 1].contains(&add.code), "{add}");
        sound(&repo, None);
        unlock_index(&repo);
        repo.model(["add", "w.bin"]).ok();
        std::fs::remove_file(repo.join("w.bin")).unwrap();
        let sync = strace(&repo, &options, &["sync"]);
        assert!([0, 1].contains(&sync.code), "{sync}");
        assert!(!repo.exists("w.bin") || repo.read("w.bin") == bytes, "{sync}");
        tidy(&repo);
        repo.model(["sync"]).ok();
        assert!(repo.read("w.bin") == bytes);
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(mount) = Mount::tmpfs("a_full_disk_loses_nothing", 24) else { return };
    let sandbox = Sandbox::below(&mount.path);
    let repo = calm(&sandbox.repo("repo"));
    let bytes = noise(1, 15 << 20);
    repo.write("w.bin", &bytes);
    let refusal = repo.model(["add", "w.bin"]).fails(1, "pace");
    assert!(refusal.contains("hint: free some space"), "{refusal}");
    assert!(repo.read("w.bin") == bytes && !repo.exists("w.bin.pointer"));
    assert_eq!(repo.sh("find .git/model/objects .git/model/tmp -type f | wc -l").ok(), "0\n");
    mount.resize(36);
    repo.model(["add", "w.bin"]).ok();
    repo.git(["commit", "-q", "-m", "w"]).ok();
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    repo.write("filler", noise(2, 12 << 20));
    repo.model(["sync"]).fails(1, "not enough space");
    assert!(!repo.exists("w.bin"));
    std::fs::remove_file(repo.join("filler")).unwrap();
    repo.model(["sync"]).ok();
    assert!(repo.read("w.bin") == bytes);
}

#[test]
fn a_fetch_that_does_not_fit_is_refused_before_it_starts() {
    let Some(mount) = Mount::tmpfs("a_fetch_that_does_not_fit_is_refused_before_it_starts", 16) else {
        return;
    };
    let (outside, inside) = (Sandbox::new(), Sandbox::below(&mount.path));
    let repo = calm(&outside.repo("repo"));
    repo.commit_artifact("w.bin", noise(1, 20 << 20), "w");
    repo.model(["push"]).ok();
    let clone =
        inside.clone_of(&repo, "clone").env("GIT_MODEL_TRUST", outside.join("store").to_str().unwrap());
    clone.model(["pull"]).fails(1, "not enough space");
    assert_eq!(clone.sh("find .git/model -size +1M | wc -l").ok(), "0\n");
}
