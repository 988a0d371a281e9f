//! Swaps that stop half way, for reasons that stay or go: the next command goes on, and what is stuck is in nobody's way.

use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::faults::{RENAME, calm, can_strace, strace};
use crate::support::{BINARY, Repo, Sandbox, run, skip};

/// Runs `git-model <args>`, to be killed at the `when`-th of these system calls. Whether it was.
fn is_killed(repo: &Repo, call: &str, when: usize, args: &[&str]) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={when}");
    strace(repo, &["-o", "/dev/null", "-e", &inject], args).code != 0
}

/// A repository in which `w` and the files `d/a` and `d/b` have two versions, tagged `v1` and `v2`; the worktree has the first,
/// the pointers are the second's.
fn half_way(sandbox: &Sandbox) -> Repo {
    let repo = calm(&sandbox.repo("repo"));
    for version in ["v1", "v2"] {
        repo.write("d/a", format!("a of {version}"));
        repo.write("d/b", format!("b of {version}"));
        repo.model(["add", "d"]).ok();
        repo.commit_artifact("w", format!("w of {version}"), version);
        repo.git(["tag", version]).ok();
    }
    repo.git(["checkout", "-q", "v1"]).ok();
    repo.model(["sync"]).ok();
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.state("w"), "outdated");
    repo
}

#[test]
fn what_was_swapped_in_does_not_pass_for_the_users_change() {
    if !can_strace("what_was_swapped_in_does_not_pass_for_the_users_change") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    // Everything is in its place; what is recorded is still to come.
    assert!(is_killed(&repo, "clock_nanosleep", 1, &["sync"]));
    assert_eq!(repo.text("w"), "w of v2");
    repo.git(["checkout", "-q", "v1"]).ok();
    repo.model(["sync"]).ok();
    assert_eq!((repo.text("w"), repo.text("d/a")), ("w of v1".into(), "a of v1".into()));
    repo.model(["add", "-u"]).ok().contains("unchanged");
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "");
}

#[test]
fn a_directory_emptied_after_an_interrupted_sync_is_not_in_step() {
    if !can_strace("a_directory_emptied_after_an_interrupted_sync_is_not_in_step") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    assert!(is_killed(&repo, RENAME, 3, &["sync"]));
    repo.write("other", "other");
    repo.model(["add", "other"]).ok();
    repo.sh("rm d/a d/b").ok();
    assert_eq!(repo.state("d"), "modified");
    repo.model(["sync", "--force"]).ok();
    assert_eq!(repo.text("d/b"), "b of v2");
}

#[test]
fn a_repository_that_moved_goes_on_where_it_was_stopped() {
    if !can_strace("a_repository_that_moved_goes_on_where_it_was_stopped") {
        return;
    }
    for when in 1..8 {
        let sandbox = Sandbox::new();
        let repo = half_way(&sandbox);
        is_killed(&repo, RENAME, when, &["sync"]);
        std::fs::rename(sandbox.join("repo"), sandbox.join("moved")).unwrap();
        let moved = calm(&sandbox.at("moved"));
        moved.model(["sync"]).ok();
        assert_eq!((moved.text("w"), moved.text("d/b")), ("w of v2".into(), "b of v2".into()), "{when}");
        assert_eq!(moved.json(["status"])["sync_interrupted"], false);
    }
}

#[test]
fn a_repository_below_a_name_that_is_not_utf8_is_synced() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&dir).unwrap();
    let sandbox = Sandbox::below(&dir);
    let repo = half_way(&sandbox);
    repo.model(["sync"]).ok();
    assert_eq!((repo.text("w"), repo.text("d/b")), ("w of v2".into(), "b of v2".into()));
}

#[test]
fn more_directories_than_files_may_be_open_are_swapped() {
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    for version in ["v1", "v2"] {
        repo.sh(&format!("for i in $(seq 300); do mkdir -p d/$i; echo {version} > d/$i/f; done")).ok();
        repo.model(["add", "d"]).ok();
        repo.git(["commit", "-qam", version]).ok();
        repo.git(["tag", version]).ok();
    }
    repo.git(["checkout", "-q", "v1"]).ok();
    repo.sh(&format!("ulimit -n 200; {BINARY} sync")).ok();
    assert_eq!(repo.sh("cat d/*/f | sort | uniq -c").ok().trim(), "300 v1");
}

#[test]
fn what_cannot_be_replaced_holds_nothing_else_up() {
    if !can_strace("what_cannot_be_replaced_holds_nothing_else_up") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    let directory = repo.join("d").display().to_string();
    // As in a directory that this user may not write to.
    let denied = |args: &[&str]| {
        let inject = ["trace=renameat,renameat2", "inject=renameat,renameat2:error=EACCES"];
        let options = ["-o", "/dev/null", "-P", &directory, "-e", inject[0], "-e", inject[1]];
        strace(&repo, &options, args)
    };
    denied(&["sync"]).fails(1, "d/a: cannot swap in");
    repo.write("new", "new");
    denied(&["add", "new"]).ok();
    denied(&["sync", "w"]).ok();
    assert_eq!(repo.text("w"), "w of v2");
    repo.write("w", "later work");
    denied(&["add", "w"]).ok();
    denied(&["add", "d"]).fails(1, "d/a: cannot swap in");
    denied(&["sync"]).says("d/a: cannot swap in").fails(1, "not in step");
    repo.model(["sync"]).ok();
    assert_eq!((repo.text("d/a"), repo.text("d/b")), ("a of v2".into(), "b of v2".into()));
    // What was finished long ago is not recorded again.
    assert_eq!((repo.text("w"), repo.state("w")), ("later work".into(), "clean".into()));
}

#[test]
fn a_file_where_a_directory_should_come_is_the_users() {
    if !can_strace("a_file_where_a_directory_should_come_is_the_users") {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    repo.model(["sync"]).ok();
    repo.write("d/sub/c", "c");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-qam", "v3"]).ok();
    repo.git(["checkout", "-q", "v2"]).ok();
    repo.model(["sync"]).ok();
    repo.git(["checkout", "-q", "main"]).ok();
    // The journal is written, and the directory is not made yet.
    assert!(is_killed(&repo, "mkdirat", 1, &["sync"]));
    repo.write("d/sub", "mine");
    repo.write("new", "new");
    repo.model(["add", "new"]).ok();
    assert_eq!((repo.state("d"), repo.text("d/sub")), ("modified".into(), "mine".into()));
    assert_eq!(repo.json(["status"])["sync_interrupted"], false);
}

#[test]
fn an_empty_journal_is_one_that_was_never_begun() {
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    repo.write(".git/model/journal-0", "");
    repo.model(["sync"]).ok();
    assert_eq!(repo.text("w"), "w of v2");
    assert!(!repo.exists(".git/model/journal-0"));
}

#[test]
fn the_ranks_of_one_job_sync_at_once() {
    let sandbox = Sandbox::new();
    let repo = calm(&sandbox.repo("repo"));
    for version in ["v1", "v2"] {
        repo.sh(&format!("mkdir -p d; for i in $(seq 200); do echo {version} $i > d/$i; done")).ok();
        repo.model(["add", "d"]).ok();
        repo.git(["commit", "-qam", version]).ok();
        repo.git(["tag", version]).ok();
    }
    for version in ["v1", "v2", "v1", "v2"] {
        repo.git(["checkout", "-q", version]).ok();
        let ranks: Vec<_> = (0..4)
            .map(|_| repo.command(BINARY).args(["sync"]).stderr(Stdio::piped()).spawn().unwrap())
            .collect();
        for rank in ranks {
            let output = rank.wait_with_output().unwrap();
            assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(repo.state("d"), "clean");
        assert_eq!(repo.sh("cat d/* | cut -d' ' -f1 | sort | uniq -c").ok().trim(), format!("200 {version}"));
    }
}

#[test]
fn an_interrupted_move_is_gone_on_with() {
    if !can_strace("an_interrupted_move_is_gone_on_with") {
        return;
    }
    for when in 1..6 {
        let sandbox = Sandbox::new();
        let repo = half_way(&sandbox);
        repo.write("w", "work that is nowhere else");
        if is_killed(&repo, RENAME, when, &["mv", "w", "v"]) && !repo.exists("v") {
            repo.model(["mv", "w", "v"]).ok();
        }
        assert_eq!(repo.text("v"), "work that is nowhere else", "{when}");
        assert!(repo.exists("v.pointer") && !repo.exists("w") && !repo.exists("w.pointer"), "{when}");
    }
}

#[test]
fn a_crash_leaves_nothing_inside_an_artifact_on_a_mount_of_its_own() {
    const TEST: &str = "a_crash_leaves_nothing_inside_an_artifact_on_a_mount_of_its_own";
    if !can_strace(TEST) {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = half_way(&sandbox);
    let script = format!(
        "mkdir kept && cp d/* kept && mount -t tmpfs none d && cp kept/* d && rm -r kept || exit 77
        strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=1 {BINARY} sync && exit 1
        ls -A d | grep -c tmp
        {BINARY} sync --force && cat d/a d/b && {BINARY} ls --files && {BINARY} add d
        touch -d '2 days ago' .git/model/staging/* && {BINARY} add d
        ls -A d"
    );
    let mut command = repo.command("unshare");
    command.args(["-rm", "sh", "-c", &script]);
    let output = run(command);
    if output.code == 77 || output.stderr.contains("unshare") {
        skip(TEST, "no mount can be made");
        return;
    }
    let text = output.ok();
    assert!(text.starts_with("1\na of v2b of v2") && text.ends_with("\na\nb\n"), "{text}");
    assert!(!text.contains("git-model-tmp"), "{text}");
}
