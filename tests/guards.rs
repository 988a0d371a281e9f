//! Hooks that guard: commits tell the truth, content goes out before refs, earlier hooks keep their say, merges never
//! mix two artifacts.

use std::os::unix::fs::PermissionsExt;

use crate::hooks::{commit, git, history, in_step, v};
use crate::support::{Repo, Sandbox, sha256};

/// An executable script.
fn script(repo: &Repo, name: &str, text: &str) {
    repo.write(name, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(repo.join(name), PermissionsExt::from_mode(0o755)).unwrap();
}

/// [`history`] with a git remote `up`, which is returned, too.
fn with_upstream(sandbox: &Sandbox) -> (Repo, Repo) {
    let repo = history(sandbox);
    git(&repo, "init -q --bare ../up.git").ok();
    git(&repo, "remote add up ../up.git").ok();
    (repo, sandbox.at("up.git"))
}

/// Branches `other` and `main` that changed `w.bin` to versions 11 and 12; a merge of `other` stops.
fn stopped_merge(sandbox: &Sandbox) -> Repo {
    let repo = history(sandbox);
    git(&repo, "checkout -q -b other").ok();
    repo.commit_artifact("w.bin", v(11), "other");
    git(&repo, "checkout -q main").ok();
    repo.commit_artifact("w.bin", v(12), "main");
    assert_eq!(git(&repo, "merge other").code, 1);
    repo
}

#[test]
fn raw_content_in_the_index_is_refused() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "add -f w.bin").ok();
    let said = git(&repo, "commit -m raw").fails(1, "w.bin: raw content of the artifact w.bin is staged");
    assert!(said.contains("hint: git rm -r --cached -- w.bin"), "{said}");
    git(&repo, "rm -q --cached w.bin").ok();
    commit(&repo, "other", "x");
}

#[test]
fn raw_content_inside_a_directory_artifact_is_refused() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("d/one", "1");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "d"]).ok();
    git(&repo, "add -f d/one").ok();
    git(&repo, "commit -m raw").fails(1, "d/one");
}

#[test]
fn a_stale_pointer_is_refused_when_it_is_part_of_the_commit() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", v(4));
    repo.model(["add", "w.bin"]).ok();
    repo.write("w.bin", v(5));
    git(&repo, "commit -m stale").fails(1, "w.bin: its pointer is stale");
    git(&repo, "reset -q").ok();
    git(&repo, "commit -am stale").fails(1, "w.bin: its pointer is stale");
    git(&repo, "commit -q --no-verify -am stale").ok();
}

#[test]
fn a_stale_pointer_does_not_hinder_other_commits() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", v(4));
    commit(&repo, "code.py", "x");
    repo.write("code.py", "y");
    git(&repo, "commit -q -am code").ok();
}

#[test]
fn a_pointer_whose_content_is_elsewhere_can_be_committed() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", v(4));
    repo.model(["add", "w.bin"]).ok();
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    git(&repo, "commit -q -m elsewhere").ok();
}

#[test]
fn a_push_publishes_content_before_refs() {
    let sandbox = Sandbox::new();
    let (repo, up) = with_upstream(&sandbox);
    script(&up, "hooks/pre-receive", "find ../store/objects -type f > seen");
    git(&repo, "push -q up main").ok();
    assert!(up.text("seen").contains(&sha256(&repo.join("w.bin"))));
    assert_eq!(up.text("seen").lines().count(), 3);
}

#[test]
fn a_push_without_pointers_contacts_no_store() {
    let sandbox = Sandbox::new();
    let (repo, _) = with_upstream(&sandbox);
    git(&repo, "push -q up main").ok();
    std::fs::remove_dir_all(sandbox.join("store")).unwrap();
    commit(&repo, "code.py", "x");
    git(&repo, "push -q up main main:refs/heads/second").ok();
    git(&repo, "push -q up :second").ok();
    git(&repo, "tag -a -m t v1").ok();
    git(&repo, "push -q up v1").ok();
    assert!(!sandbox.join("store").exists());
}

#[test]
fn refs_stay_here_when_the_store_cannot_be_reached() {
    let sandbox = Sandbox::new();
    let (repo, up) = with_upstream(&sandbox);
    git(&repo, "push -q up before:main").ok();
    let before = git(&up, "rev-parse main").ok();
    std::fs::write(sandbox.join("file"), "").unwrap();
    std::fs::remove_dir_all(sandbox.join("store")).ok();
    std::fs::rename(sandbox.join("file"), sandbox.join("store")).unwrap();
    assert_ne!(git(&repo, "push up main").code, 0);
    assert_eq!(git(&up, "rev-parse main").ok(), before);
}

#[test]
fn a_large_push_is_refused_with_the_way_out() {
    let sandbox = Sandbox::new();
    let (repo, up) = with_upstream(&sandbox);
    git(&repo, "config model.prepushLimit 30000").ok();
    let refused = git(&repo, "push up main").says("hint: git model push && git push");
    assert_eq!(refused.code, 1, "{refused}");
    assert_eq!(git(&up, "branch").ok(), "");
    repo.sh("git model push && git push -q up main").ok();
}

#[test]
fn content_that_only_the_store_has_can_be_pushed() {
    let sandbox = Sandbox::new();
    let (repo, _) = with_upstream(&sandbox);
    repo.model(["push"]).ok();
    std::fs::remove_dir_all(repo.join(".git/model/objects")).unwrap();
    std::fs::remove_dir_all(repo.join(".git/model/pushed")).unwrap();
    git(&repo, "push -q up main").ok();
}

#[test]
fn content_that_nobody_has_cannot_be_pushed() {
    let sandbox = Sandbox::new();
    let (repo, up) = with_upstream(&sandbox);
    std::fs::remove_dir_all(repo.join(".git/model/objects")).unwrap();
    let refused = git(&repo, "push up main").says("the content is neither here nor in");
    assert_eq!(refused.code, 1, "{refused}");
    assert_eq!(git(&up, "branch").ok(), "");
}

#[test]
fn earlier_hooks_get_their_arguments_and_input() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    script(&repo, ".git/hooks/pre-push", "echo \"$*\" > args; cat > input");
    script(&repo, ".git/hooks/post-checkout", "echo \"$3\" > args");
    repo.model(["init", "../store"]).says("post-checkout, pre-push").ok();
    repo.git(["commit", "-q", "-m", "init"]).ok();
    git(&repo, "init -q --bare ../up.git").ok();
    git(&repo, "push -q ../up.git main").ok();
    assert_eq!(repo.text("args"), "../up.git ../up.git\n");
    let head = git(&repo, "rev-parse HEAD").ok();
    assert!(repo.text("input").starts_with(&format!("refs/heads/main {} refs/heads/main 000", head.trim())));
    git(&repo, "checkout -q -b new").ok();
    assert_eq!(repo.text("args"), "1\n");
}

#[test]
fn an_earlier_hook_gets_empty_input_when_nothing_is_pushed() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    script(&repo, ".git/hooks/pre-push", "cat > input");
    repo.model(["init", "../store"]).ok();
    repo.git(["commit", "-q", "-m", "init"]).ok();
    git(&repo, "init -q --bare ../up.git").ok();
    git(&repo, "push -q ../up.git main").ok();
    git(&repo, "push -q ../up.git main").ok();
    assert_eq!(repo.text("input"), "");
}

#[test]
fn earlier_hooks_can_veto() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    script(&repo, ".git/hooks/pre-commit", "[ ! -e veto ]");
    script(&repo, ".git/hooks/pre-push", "exit 1");
    repo.model(["init", "../store"]).ok();
    repo.commit_artifact("w.bin", v(1), "v1");
    git(&repo, "init -q --bare ../up.git").ok();
    assert_eq!(git(&repo, "push ../up.git main").code, 1);
    assert!(!sandbox.join("store").exists(), "nothing was sent");
    repo.write("veto", "");
    assert_eq!(git(&repo, "commit --allow-empty -m no").code, 1);
}

#[test]
fn no_earlier_hook_is_ever_overwritten() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    for text in ["echo first", "echo second"] {
        script(&repo, ".git/hooks/pre-commit", text);
        // Refusing would be as good.
        drop(repo.model(["init"]));
    }
    repo.sh("grep -r 'echo first' .git/hooks").ok();
    repo.sh("grep -r 'echo second' .git/hooks").ok();
}

#[test]
fn hooks_in_the_worktree_are_used() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    git(&repo, "config core.hooksPath .githooks").ok();
    repo.model(["init", "../store"]).says("commit them, or ignore them").ok();
    (1..=2).for_each(|n| repo.commit_artifact("w.bin", v(n), "v"));
    git(&repo, "checkout -q main~1").ok();
    in_step(&repo, 1);
}

#[test]
fn hooks_of_others_are_left_alone() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    std::fs::create_dir(sandbox.join("shared")).unwrap();
    git(&repo, "config core.hooksPath ../shared").ok();
    repo.model(["init", "../store"]).says("no hook was installed").ok();
    assert_eq!(std::fs::read_dir(sandbox.join("shared")).unwrap().count(), 0);
}

#[test]
fn hooks_of_others_are_not_made_either() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    git(&repo, "config core.hooksPath ../shared").ok();
    repo.model(["init", "../store"]).says("no hook was installed").ok();
    assert!(!sandbox.join("shared").exists());
}

#[test]
fn a_second_init_changes_nothing() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let before = repo.sh("find . -type f ! -path './.git/index' -exec sha256sum {} + | sort").ok();
    repo.model(["init"]).says("this repository is set up").ok();
    assert_eq!(repo.sh("find . -type f ! -path './.git/index' -exec sha256sum {} + | sort").ok(), before);
}

#[test]
fn a_second_init_with_the_same_store_changes_nothing() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.model(["init", "../store"]).ok();
    assert_eq!(git(&repo, "status --porcelain").ok(), "");
}

#[test]
fn a_merge_takes_the_side_that_changed() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b other").ok();
    repo.commit_artifact("w.bin", v(11), "other");
    git(&repo, "checkout -q main").ok();
    commit(&repo, "own", "x");
    git(&repo, "merge -q --no-edit other").ok();
    in_step(&repo, 11);
}

#[test]
fn two_versions_conflict_and_the_hint_settles_it() {
    let sandbox = Sandbox::new();
    let repo = stopped_merge(&sandbox);
    assert_eq!(repo.state("w.bin"), "conflict");
    assert!(repo.read("w.bin") == v(12));
    let hint = "git checkout --theirs -- w.bin.pointer, then git add w.bin.pointer && git model sync w.bin";
    repo.model(["status"]).says(hint).ok();
    repo.sh("git checkout --theirs -- w.bin.pointer && git add w.bin.pointer && git model sync w.bin").ok();
    git(&repo, "commit -q -m merged").ok();
    in_step(&repo, 11);
}

#[test]
fn a_conflict_can_be_committed_before_the_sync() {
    let sandbox = Sandbox::new();
    let repo = stopped_merge(&sandbox);
    repo.sh("git checkout --theirs -- w.bin.pointer && git add w.bin.pointer && git commit -q -m merged")
        .ok();
    repo.model(["sync"]).ok();
    in_step(&repo, 11);
}

#[test]
fn an_aborted_merge_ends_in_step() {
    let sandbox = Sandbox::new();
    let repo = stopped_merge(&sandbox);
    git(&repo, "merge --abort").ok();
    in_step(&repo, 12);
}

#[test]
fn conflict_markers_are_explained_without_the_driver() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "config --remove-section merge.git-model").ok();
    git(&repo, "checkout -q -b other").ok();
    repo.commit_artifact("w.bin", v(11), "other");
    git(&repo, "checkout -q main").ok();
    repo.commit_artifact("w.bin", v(12), "main");
    assert_eq!(git(&repo, "merge other").code, 1);
    assert_eq!(repo.state("w.bin"), "conflict");
    // Staged by mistake, it is still explained.
    git(&repo, "add w.bin.pointer").ok();
    repo.model(["status"]).says("both sides of a merge changed this artifact").ok();
    let refused = repo.model(["sync"]).says("both sides of a merge");
    assert_eq!(refused.code, 1, "{refused}");
    assert!(repo.read("w.bin") == v(12));
}

#[test]
fn neighbours_from_two_branches_merge() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b other").ok();
    repo.commit_artifact("a.bin", v(5), "a");
    git(&repo, "checkout -q main").ok();
    repo.commit_artifact("b.bin", v(6), "b");
    git(&repo, "merge -q --no-edit other").ok();
    let mut ignored: Vec<String> = repo.text(".gitignore").lines().map(str::to_owned).collect();
    ignored.sort();
    assert_eq!(ignored, ["/a.bin", "/b.bin", "/w.bin"]);
    assert!(repo.read("a.bin") == v(5) && repo.read("b.bin") == v(6));
}

#[test]
fn a_diff_shows_the_files_of_a_directory() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("d/one", "1");
    repo.model(["add", "d"]).ok();
    repo.git(["commit", "-q", "-m", "d"]).ok();
    repo.write("d/two", "22");
    repo.model(["add", "d"]).ok();
    let shown = git(&repo, "diff --cached").ok();
    assert!(shown.contains("\n+2 files, 3 B\n"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with('+') && line.ends_with(" two")), "{shown}");
}
