//! Damaged objects, concurrent writers, and what the user changed: nothing wrong is used, nothing right is lost.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{BINARY, Repo, Sandbox, noise, sha256};

/// Ways in which a file can go wrong: name, and the shell command that does it to `$1`.
const DAMAGES: [(&str, &str); 7] = [
    ("first byte", r"printf '\377' | dd of=$1 bs=1 seek=0 conv=notrunc status=none"),
    ("middle byte", r"printf '\377' | dd of=$1 bs=1 seek=25 conv=notrunc status=none"),
    ("last byte", r"printf '\377' | dd of=$1 bs=1 seek=$(($(stat -c %s $1) - 1)) conv=notrunc status=none"),
    ("truncated by one", "truncate -s -1 $1"),
    ("emptied", "truncate -s 0 $1"),
    ("extended", "echo more >> $1"),
    ("deleted", "rm -f $1"),
];

fn damage(repo: &Repo, file: &str, how: &str) {
    repo.sh(&format!("set -- {file}; chmod u+w $1; {how}")).ok();
}

fn object(base: &str, digest: &str) -> String {
    format!("{base}/{}/{digest}", &digest[..2])
}

fn digest_of(repo: &Repo, pointer: &str) -> String {
    repo.text(pointer).lines().find_map(|line| line.strip_prefix("sha256: ").map(str::to_owned)).unwrap()
}

/// A file and a directory, pushed; and the digests of the file, the directory's tree object and a file in it.
fn pushed(sandbox: &Sandbox) -> (Repo, [String; 3]) {
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.write("d/inner.bin", noise(1, 5_000));
    repo.commit_artifact("w.bin", noise(2, 5_000), "w");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "d"]).ok();
    repo.model(["push"]).ok();
    let digests =
        [digest_of(&repo, "w.bin.pointer"), digest_of(&repo, "d.pointer"), sha256(&repo.join("d/inner.bin"))];
    (repo, digests)
}

#[test]
fn damaged_cached_objects_are_healed_from_the_store() {
    let sandbox = Sandbox::new();
    let (repo, digests) = pushed(&sandbox);
    for (name, how) in DAMAGES {
        for digest in &digests {
            damage(&repo, &object(".git/model/objects", digest), how);
            repo.sh("rm -rf w.bin d .git/model/quarantine").ok();
            repo.model(["sync"]).ok();
            assert!(
                repo.read("w.bin") == noise(2, 5_000) && repo.read("d/inner.bin") == noise(1, 5_000),
                "{name}"
            );
            assert_eq!(sha256(&repo.join(&object(".git/model/objects", digest))), *digest, "{name}");
            if name.ends_with("byte") {
                assert!(repo.exists(".git/model/quarantine"), "{name}: the damaged object is kept aside");
            }
        }
    }
}

#[test]
fn damaged_cached_objects_never_reach_the_worktree() {
    let sandbox = Sandbox::new();
    let (repo, digests) = pushed(&sandbox);
    std::fs::rename(sandbox.join("store"), sandbox.join("away")).unwrap();
    repo.sh("cp -a .git/model/objects ../good").ok();
    for (name, how) in DAMAGES {
        for (digest, path) in digests.iter().zip(["w.bin", "d", "d/inner.bin"]) {
            repo.sh("rm -rf w.bin d .git/model/objects && cp -a ../good .git/model/objects").ok();
            damage(&repo, &object(".git/model/objects", digest), how);
            let failed = repo.model(["sync"]);
            assert!([1, 3].contains(&failed.code), "{name}: {failed}");
            assert!(!repo.exists(path), "{name}: {failed}");
        }
    }
}

#[test]
fn damaged_objects_of_the_store_are_refused() {
    let sandbox = Sandbox::new();
    let (repo, digests) = pushed(&sandbox);
    repo.sh("cp -a ../store ../good").ok();
    for (name, how) in DAMAGES {
        for (digest, path) in digests.iter().zip(["w.bin", "d", "d/inner.bin"]) {
            repo.sh("rm -rf ../store .git/model/objects .git/model/pushed w.bin d && cp -a ../good ../store")
                .ok();
            damage(&repo, &object("../store/objects/sha256", digest), how);
            repo.model(["sync"]).fails(1, "");
            assert!(!repo.exists(&object(".git/model/objects", digest)), "{name}: not published");
            assert!(!repo.exists(path), "{name}");
            assert_eq!(repo.sh("ls .git/model/tmp").ok(), "", "{name}");
        }
    }
}

#[test]
fn errors_of_fetching_name_the_path() {
    let sandbox = Sandbox::new();
    let (repo, [digest, ..]) = pushed(&sandbox);
    repo.sh("rm -rf .git/model/objects .git/model/pushed w.bin d").ok();
    for how in ["echo more >> $1", "truncate -s -1 $1", "rm $1"] {
        damage(&repo, &object("../store/objects/sha256", &digest), how);
        repo.model(["sync", "w.bin"]).fails(1, "w.bin");
    }
    std::fs::rename(sandbox.join("store"), sandbox.join("away")).unwrap();
    repo.model(["sync", "w.bin"]).fails(1, "w.bin");
}

#[test]
fn a_damaged_cached_object_is_not_pushed() {
    let sandbox = Sandbox::new();
    let (repo, digests) = pushed(&sandbox);
    repo.sh("cp -a .git/model/objects ../good").ok();
    for (name, how) in DAMAGES {
        for digest in &digests {
            repo.sh(
                "rm -rf ../store .git/model/objects .git/model/pushed && cp -a ../good .git/model/objects",
            )
            .ok();
            damage(&repo, &object(".git/model/objects", digest), how);
            let refused = repo.model(["push"]);
            assert!([1, 3].contains(&refused.code), "{name}: {refused}");
            assert!(!repo.exists(&object("../store/objects/sha256", digest)), "{name}: {refused}");
        }
    }
}

#[test]
fn repair_replaces_what_the_store_has_in_another_size() {
    let sandbox = Sandbox::new();
    let (repo, digests) = pushed(&sandbox);
    for digest in &digests {
        let file = object("../store/objects/sha256", digest);
        damage(&repo, &file, "truncate -s -1 $1");
        repo.model(["push", "--repair"]).ok();
        assert_eq!(sha256(&repo.join(&file)), *digest);
    }
}

/// Unpushed: the worktree's file is the only good copy when the cached one is gone or damaged.
fn last_copy(damage_to_cache: &str) -> (Sandbox, Repo) {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.git(["branch", "without"]).ok();
    repo.commit_artifact("w.bin", noise(1, 5_000), "1");
    repo.git(["tag", "v1"]).ok();
    repo.commit_artifact("w.bin", noise(2, 6_000), "2");
    repo.model(["checkout", "v1"]).ok();
    damage(&repo, &object(".git/model/objects", &sha256(&repo.join("w.bin"))), damage_to_cache);
    (sandbox, repo)
}

/// The bytes of `v1` can still be had, from the worktree or the cache.
fn survives(repo: &Repo) -> bool {
    repo.git(["checkout", "-q", "v1"]).ok();
    drop(repo.model(["sync"]));
    repo.exists("w.bin") && repo.read("w.bin") == noise(1, 5_000)
}

#[test]
fn sync_keeps_the_last_copy_when_the_cache_has_lost_it() {
    let (_sandbox, repo) = last_copy("rm -f $1");
    repo.git(["checkout", "-q", "main"]).ok();
    drop(repo.model(["sync"]));
    assert!(survives(&repo));
}

#[test]
fn sync_keeps_the_last_copy_when_the_cached_one_is_damaged() {
    let (_sandbox, repo) = last_copy(DAMAGES[0].1);
    repo.git(["checkout", "-q", "main"]).ok();
    drop(repo.model(["sync"]));
    assert!(survives(&repo));
}

#[test]
fn leaving_a_branch_keeps_the_last_copy_when_the_cache_has_lost_it() {
    let (_sandbox, repo) = last_copy("rm -f $1");
    repo.git(["checkout", "-q", "without"]).ok();
    repo.model(["sync"]).ok();
    assert!(survives(&repo));
}

#[test]
fn leaving_a_branch_keeps_the_last_copy_when_the_cached_one_is_damaged() {
    let (_sandbox, repo) = last_copy(DAMAGES[0].1);
    repo.git(["checkout", "-q", "without"]).ok();
    repo.model(["sync"]).ok();
    assert!(survives(&repo));
}

#[test]
fn adding_again_heals_a_cached_object_of_the_wrong_size() {
    let (_sandbox, repo) = last_copy("truncate -s -1 $1");
    repo.model(["add", "w.bin"]).ok();
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    assert!(survives(&repo));
}

#[test]
fn a_file_that_keeps_changing_is_refused() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w.bin", vec![7; 32 << 20]);
    let (file, stop) = (repo.join("w.bin"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"more").unwrap();
                std::thread::yield_now();
            }
        });
        let output = repo.model(["add", "w.bin"]);
        stop.store(true, Ordering::Relaxed);
        output.fails(1, "w.bin: it keeps changing while it is read");
    });
    assert!(!repo.exists("w.bin.pointer"));
    repo.model(["add", "w.bin"]).ok();
}

/// Starts one `git-model add` per path at once, and waits for all to succeed.
fn add_at_once(repo: &Repo, paths: &[String]) {
    let start = |path: &String| -> Child {
        let mut command = repo.command(BINARY);
        command.args(["add", path]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<Child> = paths.iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn many_processes_add_the_same_path_at_once() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w.bin", noise(1, 200_000));
    add_at_once(&repo, &vec!["w.bin".to_owned(); 8]);
    repo.model(["add", "w.bin"]).ok();
    assert_eq!(repo.state("w.bin"), "clean");
    assert!(repo.text(".gitignore").contains("/w.bin\n"));
    repo.model(["verify"]).ok();
}

#[test]
fn many_processes_add_different_paths_of_one_folder_at_once() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let paths: Vec<String> = (0..8).map(|at| format!("m/w{at}.bin")).collect();
    for (at, path) in paths.iter().enumerate() {
        repo.write(path, noise(at as u64, 50_000));
    }
    add_at_once(&repo, &paths);
    let ignored = repo.text("m/.gitignore");
    let staged = repo.git(["ls-files"]).ok();
    for path in &paths {
        let name = path.strip_prefix('m').unwrap();
        assert_eq!(ignored.lines().filter(|line| *line == name).count(), 1, "{ignored}");
        assert!(staged.contains(&format!("{path}.pointer")), "{staged}");
        assert_eq!(repo.state(path), "clean");
    }
}

#[test]
fn a_busy_index_does_not_stop_add() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w.bin", "w");
    repo.write(".git/index.lock", "");
    let output = repo.model(["add", "w.bin"]).says("warning: another git process holds the index");
    assert_eq!(output.code, 0, "{output}");
    assert!(repo.exists("w.bin.pointer"));
    std::fs::remove_file(repo.join(".git/index.lock")).unwrap();
    assert!(!repo.git(["ls-files"]).ok().contains("w.bin.pointer"));
    repo.model(["add", "w.bin"]).ok();
    assert!(repo.git(["ls-files"]).ok().contains("w.bin.pointer"));
}

fn mode_and_links(path: PathBuf) -> (u32, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.mode() & 0o777, metadata.nlink())
}

#[test]
fn hard_links_are_read_only_and_copies_are_not() {
    let sandbox = Sandbox::new();
    let (repo, [digest, ..]) = pushed(&sandbox);
    for (setting, expected) in [("hardlink", (0o444, 2)), ("copy", (0o644, 1)), ("auto", (0o644, 1))] {
        repo.git(["config", "model.link", setting]).ok();
        std::fs::remove_file(repo.join("w.bin")).unwrap();
        repo.model(["sync"]).ok();
        assert_eq!(mode_and_links(repo.join("w.bin")), expected, "{setting}");
        assert_eq!(repo.state("w.bin"), "clean");
    }
    repo.sh("printf X | dd of=w.bin bs=1 seek=9 conv=notrunc status=none").ok();
    assert_eq!(repo.state("w.bin"), "modified");
    assert_eq!(
        sha256(&repo.join(&object(".git/model/objects", &digest))),
        digest,
        "the cache has its own bytes"
    );
}

#[test]
fn local_changes_are_never_overwritten_unasked() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.write("d/a", "a1");
    repo.model(["add", "d"]).ok();
    repo.commit_artifact("w.bin", "one", "1");
    repo.write("d/a", "a2");
    repo.model(["add", "d"]).ok();
    repo.commit_artifact("w.bin", "two", "2");
    repo.write("w.bin", "the user's own work");
    repo.write("d/new", "mine");
    repo.git(["checkout", "-q", "HEAD~1"]).ok();
    for command in [&["sync"][..], &["pull"], &["checkout", "HEAD"]] {
        let output = repo.model(command).says("w.bin: changed by you, left alone");
        drop(output.says("d: changed by you, left alone"));
        assert_eq!((repo.text("w.bin"), repo.text("d/new")), ("the user's own work".into(), "mine".into()));
    }
    let mine = sha256(&repo.join("w.bin"));
    drop(repo.model(["sync", "--force"]).says(&mine[..12]));
    assert_eq!(
        (repo.text("w.bin"), repo.text("d/a"), repo.exists("d/new")),
        ("one".into(), "a1".into(), false)
    );
    assert_eq!(repo.text(&object(".git/model/objects", &mine)), "the user's own work");
}

#[test]
fn removing_keeps_the_only_good_copy() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.write("d/inner.bin", noise(1, 5_000));
    repo.commit_artifact("w.bin", noise(2, 5_000), "w");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "d"]).ok();
    for digest in [sha256(&repo.join("w.bin")), sha256(&repo.join("d/inner.bin"))] {
        damage(&repo, &object(".git/model/objects", &digest), DAMAGES[1].1);
    }
    repo.model(["rm", "w.bin", "d"]).ok();
    assert!(!repo.exists("w.bin") && !repo.exists("d"));
    repo.git(["reset", "-q", "--hard"]).ok();
    repo.model(["sync"]).ok();
    assert!(repo.read("w.bin") == noise(2, 5_000) && repo.read("d/inner.bin") == noise(1, 5_000));
}

#[test]
fn that_something_was_sent_once_is_not_enough_to_drop_it() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w.bin", "one", "1");
    repo.git(["tag", "v1"]).ok();
    repo.model(["push"]).ok();
    repo.commit_artifact("w.bin", "second", "2");
    repo.git(["checkout", "-q", "v1"]).ok();
    // The store is emptied, and so is the cache: what is in the worktree is all there is.
    std::fs::remove_dir_all(sandbox.join("store")).unwrap();
    let digest = sha256(&repo.join("w.bin"));
    std::fs::remove_file(repo.join(&object(".git/model/objects", &digest))).unwrap();
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.text("w.bin"), "second");
    repo.git(["checkout", "-q", "v1"]).ok();
    assert_eq!(repo.text("w.bin"), "one");
}

#[test]
fn stores_through_a_mapping_that_outlives_the_add_are_noticed() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let script = format!(
        r#"
import mmap, subprocess, time
open('w', 'wb').write(b'A' * 8192)
file = open('w', 'r+b')
pages = mmap.mmap(file.fileno(), 0)
file.close()
pages[0:4] = b'BBBB'
time.sleep(0.1)
subprocess.run(['{BINARY}', 'add', '-q', 'w'], check=True)
pages[0:4] = b'CCCC'
pages.close()
"#
    );
    std::fs::write(sandbox.join("store.py"), script).unwrap();
    repo.sh("python3 ../store.py").ok();
    assert_eq!(repo.state("w"), "modified");
    repo.model(["add", "w"]).ok();
    repo.sh("rm w && git model sync").ok();
    assert_eq!(repo.text("w")[..4], *"CCCC");
}
