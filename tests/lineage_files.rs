//! Which files belong to a version: what git does not know is said, and looking writes nothing.

use crate::support::models::{LINEAGE, WEIGHTS, churn, declare, is_fixed, lineage, record, train};
use crate::support::stores::Place;
use crate::support::{Repo, Sandbox, sha256};

fn code_paths(repo: &Repo) -> Vec<String> {
    let lineage = lineage(repo);
    let code = lineage["files"]["code"].as_array().unwrap();
    code.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

/// Every object that git and git-model hold.
fn objects(repo: &Repo) -> String {
    repo.sh("find .git -path '*objects*' -type f | sort").ok()
}

#[test]
fn untracked_files_in_declared_directories_are_said() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "../src/pre.py", "../src");
    record(&repo, "a directory of code");
    repo.write("src/helper.py", "help\n");
    repo.write("src/ignored.log", "x\n");
    repo.write("src/.gitignore", "*.log\n");
    repo.write("src/deep/more.py", "more\n");
    let told = repo.model(["record"]).says("src/helper.py: not in git, so not recorded");
    told.says("src/deep/more.py").says("hint: git add src/helper.py").never_says("ignored").ok();
    assert_eq!(code_paths(&repo), ["src/pre.py"]);
    is_fixed(&repo);
    repo.model(["info"]).says("src/helper.py: not in git, so not recorded").ok();
    // What a training could read, and no commit brings back, is no committed input.
    repo.write("../weights2", crate::support::models::weights(2.0));
    let script = format!("cat ../weights2 > {WEIGHTS}");
    repo.model(["run", "churn", "--", "sh", "-c", &script]).says("src/helper.py: not in git").ok();
    assert_eq!(lineage(&repo)["training"]["dirty"], true);
    repo.git(["add", "src"]).ok();
    repo.model(["record"]).never_says("not in git").ok();
    assert_eq!(code_paths(&repo), ["src/deep/more.py", "src/helper.py", "src/pre.py"]);
    // A directory artifact's content is none of git's files.
    declare(&repo, "../src/pre.py", "../src, ../data");
    repo.write("data/untracked", "x");
    repo.model(["add", "data"]).ok();
    repo.model(["record"]).never_says("not in git").ok();
    // A build that leaves a thousand files makes no thousand lines.
    for at in 0..40 {
        repo.write(&format!("src/build/{at}"), "x");
    }
    let told = repo.model(["record"]).says("30 files more in declared directories are not in git");
    assert_eq!(told.stderr.matches("not in git, so not recorded").count(), 10, "{told}");
}

#[test]
fn a_release_needs_every_file_of_a_declared_directory_in_git() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    sandbox.at("").git(["init", "-q", "--bare", "origin"]).ok();
    repo.git(["remote", "add", "origin", "../origin"]).ok();
    declare(&repo, "../src/pre.py", "../src");
    record(&repo, "a directory of code");
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["push"]).ok();
    repo.model(["check"]).ok();
    repo.write("src/helper.py", "help\n");
    repo.model(["check"]).says("src/helper.py: in a declared directory, and not in git").fails(3, "churn");
    repo.write(".gitignore", "helper.py\n");
    repo.model(["check"]).ok();
}

#[test]
fn any_name_that_git_takes_can_be_declared() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let names = ["\"odd\".py", "\"", "a \"b\".py", " lead.py", "-x.py", "ü:$*?.py", "#.py"];
    for name in names {
        repo.write(&format!("src/{name}"), name);
        repo.write(&format!("{name}.top"), name);
    }
    let list: String = names
        .iter()
        .map(|name| {
            let quoted = |path: String| serde_json::to_string(&path).unwrap();
            format!("{}, {}, ", quoted(format!("../src/{name}")), quoted(format!("../{name}.top")))
        })
        .collect();
    declare(&repo, "../src/pre.py", list.trim_end_matches(", "));
    // Not in git yet, staged, changed since: each time git itself is asked for the bytes.
    repo.model(["record"]).ok();
    let check = |repo: &Repo| {
        let lineage = lineage(repo);
        for file in lineage["files"]["code"].as_array().unwrap() {
            assert_eq!(file["sha256"], sha256(&repo.join(file["path"].as_str().unwrap())));
        }
        assert_eq!(code_paths(repo).len(), 2 * names.len());
    };
    check(&repo);
    repo.git(["add", "."]).ok();
    is_fixed(&repo);
    repo.write("\"odd\".py.top", "changed");
    repo.model(["record"]).says("recorded").ok();
    check(&repo);
}

#[test]
fn looking_writes_no_objects() {
    let place = Place::folder();
    let repo = churn(place.repo("repo"));
    let lake = place.sandbox.at("");
    lake.write("lake/a.csv", "1");
    let url = place.sandbox.join("lake").display().to_string();
    declare(&repo, "[{name: train, path: ../data}]", &format!("[{{name: lake, url: \"{url}\"}}]"));
    repo.git(["config", "--add", "model.trust", &url]).ok();
    repo.write("src/pre.py", "changed, not staged\n");
    train(&repo, 2.0);
    let before = objects(&repo);
    repo.model(["record", "--dry-run"]).says("would be recorded").ok();
    repo.model(["info"]).says("differs").ok();
    repo.model(["compare", "HEAD"]).ok();
    assert_eq!(objects(&repo), before);
    assert_eq!(repo.git(["diff", "--name-only", "--", LINEAGE]).ok(), "");
    // Recording keeps the listing, and leaves the files of git to git.
    repo.model(["record"]).ok();
    let listing =
        lineage(&repo)["data"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let after = objects(&repo);
    let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    assert!(new.iter().any(|path| path.ends_with(&listing)), "{new:?}");
    assert_eq!(new.len(), 2, "the listing and the staged record: {new:?}");
    // Where git keeps its objects elsewhere, or libgit2 gives up, the bytes are the same.
    repo.git(["read-tree", "HEAD"]).ok();
    repo.write("src/pre.py", "changed again\n");
    repo.git(["update-index", "--split-index"]).ok();
    repo.model(["record"]).ok();
    assert_eq!(lineage(&repo)["files"]["code"][0]["sha256"], sha256(&repo.join("src/pre.py")));
}
