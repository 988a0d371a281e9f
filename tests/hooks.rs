//! Git's hooks: artifacts stay in step with what git does, and nothing that was changed is lost.

use crate::support::{Output, Repo, Sandbox, noise};

/// The content of version `n`.
pub(crate) fn v(n: u64) -> Vec<u8> {
    noise(n, 20_000)
}

/// A repository whose `main` holds versions 1, 2 and 3 of `w.bin` after a commit without it, tagged `before`.
pub(crate) fn history(sandbox: &Sandbox) -> Repo {
    let repo = sandbox.repo("repo");
    commit(&repo, "note", "n\n");
    git(&repo, "tag before").ok();
    (1..=3).for_each(|n| repo.commit_artifact("w.bin", v(n), &format!("v{n}")));
    repo
}

/// `git` with arguments that need no quoting.
pub(crate) fn git(repo: &Repo, args: &str) -> Output {
    repo.git(args.split(' '))
}

pub(crate) fn commit(repo: &Repo, file: &str, content: &str) {
    repo.write(file, content);
    repo.git(["add", file]).ok();
    repo.git(["commit", "-q", "-m", file]).ok();
}

/// The artifact is version `n`, byte for byte, and known to be in step.
#[track_caller]
pub(crate) fn in_step(repo: &Repo, n: u64) {
    assert!(repo.read("w.bin") == v(n), "w.bin is not version {n}");
    assert_eq!(repo.state("w.bin"), "clean");
}

/// Any git command that writes the index finishes what was postponed; this one has to, because a file's stat changed.
fn next_command(repo: &Repo) {
    let text = repo.read("note");
    std::fs::remove_file(repo.join("note")).unwrap();
    repo.write("note", text);
    git(repo, "status").ok();
}

fn postponed(repo: &Repo) -> bool {
    repo.json(["status"])["sync_pending"] == true
}

#[track_caller]
fn nothing_staged(repo: &Repo) {
    assert_eq!(git(repo, "diff --cached --name-only").ok(), "");
}

fn excluded(repo: &Repo) -> bool {
    repo.text(".git/info/exclude").lines().any(|line| line == "/w.bin")
}

/// `main` on top of version 3 stops in a rebase onto `side`, which brings version 20 and conflicts in `note`.
fn stopped_rebase(sandbox: &Sandbox) -> Repo {
    let repo = history(sandbox);
    git(&repo, "checkout -q -b side").ok();
    commit(&repo, "note", "side\n");
    repo.commit_artifact("w.bin", v(20), "v20");
    git(&repo, "checkout -q main").ok();
    commit(&repo, "note", "main\n");
    assert_eq!(git(&repo, "rebase side").code, 1);
    repo
}

#[test]
fn checkout_and_switch_bring_the_version() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q main~1").ok();
    in_step(&repo, 2);
    git(&repo, "switch -q main").ok();
    in_step(&repo, 3);
    git(&repo, "checkout -q main~2 -- w.bin.pointer").ok();
    in_step(&repo, 1);
}

#[test]
fn reset_hard_brings_the_version() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "reset -q --hard main~2").ok();
    in_step(&repo, 1);
    git(&repo, "reset -q --hard ORIG_HEAD").ok();
    in_step(&repo, 3);
}

#[test]
fn stash_takes_an_added_version_away_and_pop_brings_it_back() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", v(4));
    repo.model(["add", "w.bin"]).ok();
    git(&repo, "stash -q").ok();
    in_step(&repo, 3);
    git(&repo, "stash pop -q").ok();
    assert!(repo.read("w.bin") == v(4));
}

#[test]
fn stash_takes_a_new_artifact_away_and_pop_brings_it_back() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b fresh before").ok();
    repo.write("w.bin", v(4));
    repo.model(["add", "w.bin"]).ok();
    git(&repo, "stash -q").ok();
    assert!(!repo.exists("w.bin"));
    git(&repo, "stash pop -q").ok();
    in_step(&repo, 4);
}

#[test]
fn cherry_pick_and_revert_bring_the_version() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b picks main~2").ok();
    git(&repo, "cherry-pick main~1").ok();
    in_step(&repo, 2);
    git(&repo, "revert --no-edit HEAD").ok();
    in_step(&repo, 1);
}

#[test]
fn a_sequence_of_picks_is_finished_by_the_next_command() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b picks main~2").ok();
    git(&repo, "cherry-pick main~2..main").ok();
    next_command(&repo);
    in_step(&repo, 3);
    git(&repo, "revert --no-edit HEAD HEAD~1").ok();
    next_command(&repo);
    in_step(&repo, 1);
    assert!(!postponed(&repo));
}

#[test]
fn fast_forward_and_real_merges_bring_the_version() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b behind main~1").ok();
    git(&repo, "merge -q main").ok();
    in_step(&repo, 3);
    git(&repo, "reset -q --hard main~1").ok();
    commit(&repo, "own", "x");
    git(&repo, "merge -q --no-edit main").ok();
    in_step(&repo, 3);
}

#[test]
fn bisect_walks_through_the_versions() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "bisect start HEAD HEAD~2").ok();
    in_step(&repo, 2);
    git(&repo, "bisect reset").ok();
    in_step(&repo, 3);
}

#[test]
fn a_linked_worktree_is_filled_and_has_its_own_state() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "worktree add -q ../linked -b linked main~2").ok();
    let linked = sandbox.at("linked");
    in_step(&linked, 1);
    git(&linked, "checkout -q main~1").ok();
    in_step(&linked, 2);
    in_step(&repo, 3);
}

#[test]
fn a_rebase_is_finished_by_the_next_command() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q -b topic main~2").ok();
    commit(&repo, "topic", "x");
    git(&repo, "rebase -q main").ok();
    next_command(&repo);
    in_step(&repo, 3);
}

#[test]
fn nothing_is_materialised_while_a_rebase_is_stopped() {
    let sandbox = Sandbox::new();
    let repo = stopped_rebase(&sandbox);
    next_command_in_conflict(&repo);
    assert!(repo.read("w.bin") == v(3));
    assert_eq!(repo.state("w.bin"), "outdated");
    assert!(postponed(&repo));
}

/// As [`next_command`] where `note` is in conflict.
fn next_command_in_conflict(repo: &Repo) {
    repo.write("any", "x");
    git(repo, "add any").ok();
    git(repo, "rm -q -f --cached any").ok();
}

#[test]
fn a_continued_rebase_ends_in_step() {
    let sandbox = Sandbox::new();
    let repo = stopped_rebase(&sandbox);
    repo.write("note", "both\n");
    git(&repo, "add note").ok();
    git(&repo, "rebase --continue").ok();
    next_command(&repo);
    in_step(&repo, 20);
}

#[test]
fn an_aborted_rebase_ends_in_step() {
    let sandbox = Sandbox::new();
    let repo = stopped_rebase(&sandbox);
    repo.model(["sync"]).ok();
    assert!(repo.read("w.bin") == v(20));
    git(&repo, "rebase --abort").ok();
    next_command(&repo);
    in_step(&repo, 3);
    assert!(!postponed(&repo));
}

#[test]
fn am_is_finished_by_the_next_command() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "format-patch -q -2 -o ../patches").ok();
    git(&repo, "reset -q --hard main~2").ok();
    repo.sh("git am -q ../patches/*").ok();
    next_command(&repo);
    in_step(&repo, 3);
}

#[test]
fn changed_content_survives_whatever_git_does() {
    for script in [
        "git checkout -q main~1",
        "git switch -q --detach main~1",
        "git reset -q --hard main~2",
        "echo x >> note; git stash -q; git stash pop -q; git checkout -q note",
        "git revert --no-edit HEAD",
        "git checkout -q -b t before; git merge -q main",
        "git checkout -q -b t main~2; git cherry-pick main~1",
        "git checkout -q -b t main~2; git cherry-pick main~1 main",
        "git checkout -q -b t main~2; echo t > t; git add t; git commit -q -m t; git rebase -q main",
        "git format-patch -q -1 -o ../p; git checkout -q main~1; git am -q ../p/*",
        "git bisect start HEAD HEAD~2; git bisect reset",
        "git checkout -q before; git checkout -q main",
    ] {
        let sandbox = Sandbox::new();
        let repo = history(&sandbox);
        repo.write("w.bin", "mine");
        repo.sh(&format!("set -e; {script}")).ok();
        next_command(&repo);
        assert_eq!(repo.text("w.bin"), "mine", "{script}");
        assert_eq!(repo.state("w.bin"), "modified", "{script}");
    }
}

#[test]
fn leaving_a_branch_removes_what_is_safe_and_returning_brings_it() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "checkout -q before").ok();
    assert!(!repo.exists("w.bin"));
    assert_eq!(git(&repo, "status --porcelain").ok(), "");
    git(&repo, "checkout -q main").ok();
    in_step(&repo, 3);
}

#[test]
fn leaving_a_branch_keeps_changed_content_out_of_gits_sight() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", "mine");
    git(&repo, "checkout -q before").says("warning: w.bin: kept").ok();
    assert!(excluded(&repo));
    assert_eq!(git(&repo, "status --porcelain").ok(), "");
    git(&repo, "add .").ok();
    nothing_staged(&repo);
    git(&repo, "checkout -q main").ok();
    assert_eq!(repo.text("w.bin"), "mine");
    assert_eq!(repo.state("w.bin"), "modified");
}

#[test]
fn content_that_is_not_in_the_cache_is_not_removed() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    std::fs::remove_dir_all(repo.join(".git/model/objects")).unwrap();
    git(&repo, "checkout -q before").says("warning: w.bin: kept").ok();
    assert!(repo.read("w.bin") == v(3));
    git(&repo, "add .").ok();
    nothing_staged(&repo);
}

#[test]
fn returning_takes_the_exclude_line_out() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.write("w.bin", "mine");
    git(&repo, "checkout -q before").ok();
    git(&repo, "checkout -q main").ok();
    assert!(!excluded(&repo));
}

#[test]
fn a_sync_in_another_worktree_leaves_kept_content_hidden() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    git(&repo, "worktree add -q ../linked -b linked main").ok();
    repo.write("w.bin", "mine");
    git(&repo, "checkout -q before").ok();
    sandbox.at("linked").model(["sync"]).ok();
    git(&repo, "add .").ok();
    nothing_staged(&repo);
}

/// `raw` tracks `w.bin` in git itself; `main` converted it into an artifact with the same content.
fn converted(sandbox: &Sandbox) -> Repo {
    let repo = sandbox.repo("repo");
    repo.write("w.bin", v(1));
    git(&repo, "add w.bin").ok();
    git(&repo, "commit -q -m raw").ok();
    git(&repo, "branch raw").ok();
    git(&repo, "rm -q --cached w.bin").ok();
    repo.commit_artifact("w.bin", v(1), "converted");
    repo
}

#[test]
fn a_file_that_git_tracks_on_the_other_branch_is_not_removed() {
    let sandbox = Sandbox::new();
    let repo = converted(&sandbox);
    git(&repo, "checkout -q raw").ok();
    assert!(repo.read("w.bin") == v(1));
    assert_eq!(git(&repo, "status --porcelain").ok(), "");
}

#[test]
fn a_file_that_git_tracks_on_the_other_branch_can_be_committed() {
    let sandbox = Sandbox::new();
    let repo = converted(&sandbox);
    repo.commit_artifact("w.bin", v(2), "v2");
    git(&repo, "checkout -q raw").ok();
    repo.write("w.bin", "other");
    git(&repo, "commit -q -am other").ok();
    git(&repo, "checkout -q main").ok();
    git(&repo, "checkout -q raw").ok();
    repo.write("w.bin", "third");
    git(&repo, "commit -q -am third").ok();
}

#[test]
fn the_switch_turns_hooks_off() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox).env("GIT_MODEL_HOOKS", "off");
    git(&repo, "checkout -q main~1").ok();
    assert!(repo.read("w.bin") == v(3));
    assert_eq!(repo.state("w.bin"), "outdated");
    repo.write("w.bin", "raw");
    git(&repo, "add -f w.bin").ok();
    git(&repo, "commit -q -m raw").ok();
}

#[test]
fn a_hook_fetches_up_to_its_limit_only() {
    let sandbox = Sandbox::new();
    let repo = history(&sandbox);
    repo.model(["push"]).ok();
    std::fs::remove_dir_all(repo.join(".git/model/objects")).unwrap();
    git(&repo, "config model.autofetch 1000").ok();
    git(&repo, "checkout -q main~1").says("git model pull").ok();
    assert!(repo.read("w.bin") == v(3));
    git(&repo, "config model.autofetch 1M").ok();
    git(&repo, "checkout -q main~2").ok();
    in_step(&repo, 1);
}

#[test]
fn a_directory_in_which_git_has_files_on_the_other_branch_keeps_no_raw_content() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("data/README.md", "read me");
    repo.git(["add", "data"]).ok();
    repo.git(["commit", "-qm", "plain"]).ok();
    repo.git(["branch", "plain"]).ok();
    repo.git(["rm", "-rq", "data"]).ok();
    repo.write("data/a/train.bin", noise(1, 9_000));
    repo.write("data/b/test.bin", noise(2, 9_000));
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-qm", "data"]).ok();
    repo.git(["checkout", "-q", "plain"]).ok();
    assert_eq!(repo.sh("find data -type f").ok(), "data/README.md\n");
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.read("data/a/train.bin"), noise(1, 9_000));
    assert!(!repo.exists("data/README.md"));
    // What was changed here stays, and git does not see it.
    repo.write("data/b/test.bin", "changed");
    repo.git(["checkout", "-q", "plain"]).ok();
    assert_eq!(repo.sh("find data -type f | sort").ok(), "data/README.md\ndata/b/test.bin\n");
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "");
    assert_eq!(repo.text("data/b/test.bin"), "changed");
}

#[test]
fn the_directory_in_which_the_user_is_stays() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.git(["branch", "without"]).ok();
    repo.commit_artifact("models/a/w", "w", "w");
    let script = "cd models/a && git checkout -q without && git status --porcelain && cd ../.. && git checkout -q main";
    assert_eq!(repo.sh(script).ok(), "");
    assert_eq!(repo.text("models/a/w"), "w");
    repo.git(["checkout", "-q", "without"]).ok();
    assert!(!repo.exists("models"));
}
