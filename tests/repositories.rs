//! Every kind of repository that git supports: an artifact goes in, comes out elsewhere, and has exactly its bytes.

use crate::support::{Repo, Sandbox, noise};

/// The content of version `n`.
fn v(n: u64) -> Vec<u8> {
    noise(n, 20_000)
}

/// `git` with arguments that need no quoting.
fn git(repo: &Repo, args: &str) -> String {
    repo.git(args.split(' ')).ok()
}

/// A repository from `git init <options>`, set up, with the store beside it.
fn init(sandbox: &Sandbox, options: &str) -> Repo {
    std::fs::create_dir(sandbox.join("repo")).unwrap();
    let repo = sandbox.at("repo");
    repo.sh(&format!("git init -q {options}")).ok();
    repo.model(["init", "../store"]).ok();
    git(&repo, "commit -q -m init");
    repo
}

/// Commits two versions of a file below `models`, and of a directory; checks that git can go back and forth; pushes.
#[track_caller]
fn fill(repo: &Repo) {
    for n in 1..=2 {
        repo.write("models/w.bin", v(n));
        repo.write("data/same", "same");
        repo.write("data/sub/changing", v(n + 10));
        repo.model(["add", "models/w.bin", "data"]).ok();
        git(repo, "commit -q -m version");
    }
    holds(repo, 2);
    git(repo, "checkout -q HEAD~1");
    holds(repo, 1);
    git(repo, "checkout -q -");
    holds(repo, 2);
    repo.model(["push"]).ok();
    assert_eq!(git(repo, "status --porcelain"), "");
}

/// Both artifacts have version `n`, exactly, and `status` agrees.
#[track_caller]
fn holds(repo: &Repo, n: u64) {
    assert!(repo.read("models/w.bin") == v(n), "not version {n}");
    assert!(repo.read("data/sub/changing") == v(n + 10), "not version {n}");
    assert_eq!(repo.text("data/same"), "same");
    assert_eq!((repo.state("models/w.bin"), repo.state("data")), ("clean".to_owned(), "clean".to_owned()));
}

/// The environment in which the committed store is approved.
fn trusting(sandbox: &Sandbox, repo: &Repo) -> Repo {
    repo.env("GIT_MODEL_TRUST", sandbox.join("store").display().to_string())
}

/// `git clone <options>` of `repo`, set up.
fn clone(sandbox: &Sandbox, options: &str) -> Repo {
    let url = format!("file://{}", sandbox.join("repo").display());
    sandbox.at("").sh(&format!("git clone -q {options} {url} clone")).ok();
    let clone = trusting(sandbox, &sandbox.at("clone"));
    clone.model(["init"]).ok();
    clone
}

/// A clone pulls, goes back, and adds a version that it can push.
#[track_caller]
fn works_in(clone: &Repo) {
    clone.model(["pull"]).ok();
    holds(clone, 2);
    clone.write("models/w.bin", v(3));
    clone.model(["add", "models/w.bin"]).ok();
    git(clone, "commit -q -m third");
    git(clone, "push -q origin HEAD:refs/heads/third");
    git(clone, "checkout -q HEAD~1");
    holds(clone, 2);
    clone.model(["ls", "HEAD"]).says("models/w.bin").ok();
    clone.model(["fetch", "HEAD"]).ok();
    clone.model(["push", "HEAD"]).ok();
}

#[test]
fn plain() {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, ""));
    works_in(&clone(&sandbox, ""));
}

#[test]
fn sha256_ids() {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, "--object-format=sha256"));
    works_in(&clone(&sandbox, ""));
}

#[test]
fn reftable() {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, "--ref-format=reftable"));
    works_in(&clone(&sandbox, "--ref-format=reftable"));
}

#[test]
fn shallow_clone() {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, ""));
    let clone = clone(&sandbox, "--depth 1");
    works_in(&clone);
    git(&clone, "fetch -q --unshallow");
    git(&clone, "checkout -q HEAD~1");
    holds(&clone, 1);
}

#[test]
fn partial_clone() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    git(&repo, "config uploadpack.allowFilter true");
    fill(&repo);
    let clone = clone(&sandbox, "--filter=blob:none");
    works_in(&clone);
    git(&clone, "checkout -q HEAD~1");
    holds(&clone, 1);
}

#[test]
fn partial_clone_without_checkout() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    git(&repo, "config uploadpack.allowFilter true");
    fill(&repo);
    sandbox.at("").sh("git clone -q --no-checkout --filter=blob:none file://$PWD/repo clone").ok();
    let clone = trusting(&sandbox, &sandbox.at("clone"));
    clone.model(["ls", "HEAD~1"]).says("models/w.bin").ok();
    clone.model(["fetch", "HEAD", "HEAD~1"]).ok();
    clone.model(["push", "HEAD"]).ok();
}

#[test]
fn sparse_checkout() {
    sparse("--no-sparse-index");
}

#[test]
fn sparse_index() {
    sparse("--sparse-index");
}

fn sparse(index: &str) {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, ""));
    let clone = clone(&sandbox, "--sparse");
    git(&clone, &format!("sparse-checkout set {index} models"));
    clone.model(["pull"]).ok();
    assert!(clone.read("models/w.bin") == v(2));
    assert!(clone.exists("data/same"), "its pointer is a file of the top level");
    clone.write("models/w.bin", v(3));
    clone.model(["add", "models/w.bin"]).ok();
    git(&clone, "commit -q -m third");
    git(&clone, "checkout -q HEAD~2");
    holds(&clone, 1);
    git(&clone, &format!("sparse-checkout set {index} elsewhere"));
    clone.model(["sync"]).ok();
    assert!(!clone.exists("models/w.bin"), "its pointer is left out");
    assert_eq!(clone.state("models/w.bin"), "untracked");
    git(&clone, "checkout -q -");
    assert!(!clone.exists("models/w.bin"));
    assert_eq!(git(&clone, "status --porcelain"), "");
    git(&clone, "sparse-checkout disable");
    clone.model(["sync"]).ok();
    assert!(clone.read("models/w.bin") == v(3));
}

#[test]
fn changed_content_outside_a_sparse_checkout_stays() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    repo.write("models/w.bin", "mine");
    // In cone mode git itself removes ignored files with their folder.
    git(&repo, "sparse-checkout set --no-cone /* !/models/");
    repo.model(["sync"]).ok();
    assert_eq!(repo.text("models/w.bin"), "mine");
    assert_eq!(git(&repo, "status --porcelain"), "");
}

#[test]
fn split_index() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    git(&repo, "config core.splitIndex true");
    git(&repo, "update-index --split-index");
    fill(&repo);
    assert!(repo.sh("ls .git/sharedindex.*").code == 0);
    works_in(&clone(&sandbox, ""));
}

#[test]
fn linked_worktrees() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    git(&repo, "worktree add -q ../linked -b linked HEAD~1");
    let linked = sandbox.at("linked");
    holds(&linked, 1);
    linked.write("models/w.bin", v(3));
    linked.model(["add", "models/w.bin"]).ok();
    git(&linked, "commit -q -m third");
    linked.model(["push"]).ok();
    git(&linked, "checkout -q HEAD~1");
    holds(&linked, 1);
    holds(&repo, 2);
    git(&repo, "worktree remove ../linked");
    repo.model(["verify"]).ok();
}

#[test]
fn submodule() {
    let sandbox = Sandbox::new();
    fill(&init(&sandbox, ""));
    let outer = sandbox.git_repo("outer");
    git(&outer, "submodule add -q ../repo lib");
    git(&outer, "commit -q -m lib");
    let lib = trusting(&sandbox, &outer.at("lib"));
    lib.model(["init"]).ok();
    works_in(&lib);
    git(&lib, "checkout -q HEAD~1");
    holds(&lib, 1);
    git(&trusting(&sandbox, &outer), "submodule update -q");
    holds(&lib, 2);
    assert!(outer.exists(".git/modules/lib/model") && !outer.exists(".git/model"));
}

#[test]
fn subfolder() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    let models = repo.at("models");
    models.write("w.bin", v(3));
    models.model(["add", "w.bin", "../data"]).ok();
    models.model(["status"]).says("w.bin").never_says("models/w.bin").ok();
    git(&models, "commit -q -m third");
    std::fs::remove_file(repo.join("models/w.bin")).unwrap();
    std::fs::remove_dir_all(repo.join("data")).unwrap();
    models.model(["sync", "w.bin.pointer", "../data"]).ok();
    assert!(models.read("w.bin") == v(3));
    git(&models, "checkout -q HEAD~1");
    holds(&repo, 2);
    repo.at("data/sub").model(["status", ".."]).ok();
}

#[test]
fn bare_repository() {
    for options in ["", "--object-format=sha256", "--ref-format=reftable"] {
        let sandbox = Sandbox::new();
        fill(&init(&sandbox, options));
        sandbox.at("").sh("git clone -q --bare repo bare.git").ok();
        let bare = trusting(&sandbox, &sandbox.at("bare.git"));
        bare.model(["ls", "HEAD~1"]).says("models/w.bin").ok();
        bare.model(["fetch", "HEAD", "HEAD~1"]).ok();
        std::fs::remove_dir_all(sandbox.join("store/objects")).unwrap();
        bare.model(["push", "HEAD", "--repair"]).ok();
        assert!(sandbox.join("store/objects").exists());
        for args in [&["add", "x"][..], &["sync"], &["status"], &["pull"], &["init"]] {
            bare.model(args).fails(1, "this needs a worktree");
        }
    }
}

#[test]
fn named_by_the_environment() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    let path = |name: &str| repo.join(name).display().to_string();
    let outside = sandbox.at("").env("GIT_DIR", path(".git")).env("GIT_WORK_TREE", path(""));
    outside.model(["status", "--check"]).says("2 artifacts").ok();
    repo.write("models/w.bin", v(3));
    outside.model(["add", &path("models/w.bin")]).ok();
    git(&outside, "commit -q -m third");
    assert_eq!(repo.state("models/w.bin"), "clean");
}

#[test]
fn named_by_gits_options() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    // Git gives its hooks GIT_DIR=.git and GIT_WORK_TREE=. here.
    git(&sandbox.at(""), "--git-dir=repo/.git --work-tree=repo checkout -q HEAD~1");
    holds(&repo, 1);
    let inside = repo.env("GIT_DIR", ".git").env("GIT_WORK_TREE", ".");
    inside.model(["status", "--check"]).says("2 artifacts").ok();
}

#[test]
fn named_by_a_relative_environment_in_a_subfolder() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    let models = repo.at("models").env("GIT_DIR", "../.git").env("GIT_WORK_TREE", "..");
    models.write("w.bin", v(3));
    models.model(["add", "w.bin"]).ok();
    assert_eq!(git(&repo, "diff --cached --name-only"), "models/w.bin.pointer\n");
}

#[test]
fn named_by_the_environment_where_libgit2_refuses() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "--object-format=sha256");
    fill(&repo);
    let path = |name: &str| repo.join(name).display().to_string();
    let outside = sandbox.at("").env("GIT_DIR", path(".git")).env("GIT_WORK_TREE", path(""));
    outside.model(["status", "--check"]).says("2 artifacts").ok();
}

#[test]
fn carriage_returns() {
    let sandbox = Sandbox::new();
    let repo = init(&sandbox, "");
    fill(&repo);
    let clone = clone(&sandbox, "-c core.autocrlf=true");
    assert!(clone.text(".git-model.yaml").contains("\r\n"));
    works_in(&clone);
    // Without the attribute, pointers get them as well.
    clone.write(".gitattributes", "");
    git(&clone, "commit -q -am attributes");
    git(&clone, "rm -q --cached models/w.bin.pointer");
    git(&clone, "reset -q --hard");
    let pointer = clone.text("models/w.bin.pointer").replace("\r\n", "\n").replace('\n', "\r\n");
    clone.write("models/w.bin.pointer", pointer);
    clone.model(["sync"]).ok();
    holds(&clone, 2);
    clone.write("models/w.bin", v(4));
    clone.model(["add", "models/w.bin"]).ok();
    git(&clone, "commit -q -m fourth");
    git(&clone, "checkout -q HEAD~1");
    holds(&clone, 2);
}

#[test]
fn unborn_head() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("repo");
    repo.model(["init", "../store"]).ok();
    repo.write("w.bin", v(1));
    repo.model(["add", "w.bin"]).ok();
    assert_eq!(repo.state("w.bin"), "clean");
    repo.model(["ls"]).says("w.bin").ok();
    repo.model(["diff"]).says("w.bin").ok();
    repo.model(["push"]).ok();
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    repo.model(["sync"]).ok();
    assert!(repo.read("w.bin") == v(1));
    repo.model(["ls", "HEAD"]).fails(2, "HEAD: no such commit");
    git(&repo, "commit -q -m first");
    assert_eq!(git(&repo, "status --porcelain"), "");
    git(&repo, "checkout -q --orphan fresh");
    assert_eq!(repo.state("w.bin"), "clean");
}
