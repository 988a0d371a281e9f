//! add, status, diff, ls, rm, mv: every kind of file, and every refusal.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Repo, Sandbox, noise, sha256};

fn files_of(repo: &Repo, artifact: &str) -> u64 {
    let listed = repo.json(["ls"]);
    let artifacts = listed["artifacts"].as_array().unwrap();
    artifacts.iter().find(|found| found["path"] == artifact).unwrap()["files"].as_u64().unwrap()
}

#[test]
fn one_artifact_from_add_to_modified() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w.bin", noise(1, 100_000));
    repo.model(["add", "w.bin"]).ok();
    assert_eq!(repo.text(".gitignore"), "/w.bin\n");
    let digest = sha256(&repo.join("w.bin"));
    assert_eq!(
        repo.text("w.bin.pointer"),
        format!(
            "# The content of this path is kept outside git. Get it with: git model pull\n\
             version: 1\nkind: file\nsha256: {digest}\nsize: 100000\n"
        )
    );
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "A  .gitignore\nA  w.bin.pointer\n");
    assert_eq!(sha256(&repo.join(&format!(".git/model/objects/{}/{digest}", &digest[..2]))), digest);
    assert_eq!(repo.state("w.bin"), "clean");
    repo.model(["status", "--check"]).ok();
    repo.write("w.bin", noise(2, 100_000));
    assert_eq!(repo.state("w.bin"), "modified");
    repo.model(["status", "--check"]).fails(3, "1 artifact not in step");
    std::fs::remove_file(repo.join("w.bin")).unwrap();
    assert_eq!(repo.state("w.bin"), "missing");
}

#[test]
fn adding_again_reads_nothing_that_did_not_change() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("data/a", "a", "one");
    // Unreadable files cannot be read: what succeeds did not try. Root reads everything, so the trace tells as well.
    let log = sandbox.join("trace");
    let traced = repo.sh(&format!(
        "strace -f -y -e trace=openat,read -o {} {} add data/a && {} status",
        log.display(),
        crate::support::BINARY,
        crate::support::BINARY
    ));
    traced.ok();
    let trace = std::fs::read_to_string(log).unwrap();
    assert!(trace.contains("a.pointer"), "the trace shows opened files");
    assert!(!trace.contains("\"a\", O_RDONLY"), "the artifact itself was opened:\n{trace}");
}

#[test]
fn a_touched_file_is_unchanged_and_a_rewritten_one_is_not() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("w", "same size A", "one");
    repo.sh("touch w").ok();
    assert_eq!(repo.state("w"), "clean");
    // Same size, and the old times put back: only the inode's own change time tells.
    repo.sh("touch -r w ref && printf 'same size B' > w && touch -r ref w").ok();
    assert_eq!(repo.state("w"), "modified");
}

#[test]
fn a_write_right_after_adding_is_noticed() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for round in 0..20 {
        repo.write("w", format!("round {round:04} a"));
        repo.model(["add", "-q", "w"]).ok();
        repo.write("w", format!("round {round:04} b"));
        assert_eq!(repo.state("w"), "modified", "round {round}");
    }
}

#[test]
fn directories_keep_everything_that_counts() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("data/empty", "");
    repo.write("data/sub/naïve 模型.bin", "x");
    repo.write("data/run.sh", "#!/bin/sh\n");
    repo.write("data/-rf", "dash");
    repo.write("data/ two  spaces ", "spaces");
    std::fs::create_dir(repo.join("data/nothing in here")).unwrap();
    std::fs::set_permissions(repo.join("data/run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("sub/naïve 模型.bin", repo.join("data/latest")).unwrap();
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "data"]).ok();
    assert_eq!(files_of(&repo, "data"), 6);
    repo.model(["push"]).ok();

    let clone = sandbox.clone_of(&repo, "clone");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    let listing =
        |repo: &Repo| repo.sh("cd data && find . -printf '%P %y %l %s\\n' | grep -v ' d  ' | sort").ok();
    assert_eq!(listing(&clone), listing(&repo));
    assert!(clone.join("data/nothing in here").is_dir());
    let mode = |path: &str| clone.join(path).metadata().unwrap().permissions().mode() & 0o100;
    assert_eq!((mode("data/run.sh"), mode("data/-rf")), (0o100, 0));
    assert_eq!(clone.text("data/latest"), "x");
    assert_eq!(clone.state("data"), "clean");
}

#[test]
fn the_executable_bit_of_a_single_file_is_kept() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("tool", "#!/bin/sh\necho hi\n");
    repo.sh("chmod +x tool").ok();
    repo.model(["add", "tool"]).ok();
    assert!(repo.text("tool.pointer").ends_with("executable: true\n"));
    repo.sh("rm tool").ok();
    repo.model(["sync"]).ok();
    assert_eq!(repo.sh("./tool").ok(), "hi\n");
    repo.sh("chmod -x tool").ok();
    assert_eq!(repo.state("tool"), "modified");
}

#[test]
fn empty_files_and_directories_are_artifacts_too() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("empty", "");
    std::fs::create_dir(repo.join("hollow")).unwrap();
    repo.model(["add", "empty", "hollow"]).ok();
    repo.git(["commit", "-q", "-m", "x"]).ok();
    repo.sh("rm empty && rmdir hollow").ok();
    repo.model(["sync"]).ok();
    assert_eq!(repo.read("empty"), b"");
    assert!(repo.join("hollow").is_dir());
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_path() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let cases = [
        ("mkdir d && mkfifo d/pipe", "d", "d/pipe: not a file or directory but a FIFO"),
        ("mkfifo pipe", "pipe", "pipe: not a file or directory but a FIFO"),
        ("mkdir d && ln -s /etc/passwd d/link", "d", "d/link: a symbolic link that leads out"),
        ("mkdir d && ln -s ../x d/link", "d", "d/link: a symbolic link that leads out"),
        ("ln -s target link", "link", "link: a symbolic link, which is not followed"),
        ("mkdir real && echo x > real/f && ln -s real by", "by/f", "real/f"),
        ("mkdir d && touch \"$(printf 'd/a\\nb')\"", "d", "control character"),
        ("mkdir d && touch \"$(printf 'd/caf\\351')\"", "d", "not UTF-8"),
        ("mkdir d && touch d/a d/A", "d", "same name as"),
        ("mkdir -p d/.git", "d", "may take for `.git`"),
        ("mkdir d && touch d/.Git", "d", "may take for `.git`"),
        ("true", "absent", "absent: no such file or directory"),
        ("true", "..", "outside the repository"),
        ("true", ".", "the repository itself"),
        ("true", ".git/config", "may take for `.git`"),
        ("true", ".gitattributes", "belongs in git"),
    ];
    for (setup, path, reason) in cases {
        repo.sh(setup).ok();
        let output = repo.model(["add", path]);
        match reason {
            // A path through a symlinked directory names the file itself.
            "real/f" => {
                output.says("real/f: new").ok();
                repo.model(["rm", "real/f"]).ok();
            }
            _ => {
                let code = output.code;
                assert!(code == 1 || code == 2, "{output}");
                output.fails(code, reason);
            }
        }
        assert_eq!(repo.git(["status", "--porcelain", "--", ":(glob)**/*.pointer"]).ok(), "", "{setup}");
        repo.sh("rm -rf d real by link pipe && git reset -q --hard").ok();
    }
}

#[test]
fn an_unreadable_file_is_refused() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("d/secret", "x");
    repo.sh("chmod 000 d/secret").ok();
    let mut add = format!("{} add d", crate::support::BINARY);
    if repo.sh("cat d/secret").code == 0 {
        // Root may read everything, so somebody else has to try.
        repo.sh(&format!("chown -R 65534:65534 {}", sandbox.path().display())).ok();
        add = format!("setpriv --reuid=65534 --regid=65534 --clear-groups {add}");
        if repo.sh(&format!("{} --version", add.trim_end_matches(" add d"))).code != 0 {
            return crate::support::skip("an_unreadable_file_is_refused", "no other user can run the binary");
        }
    }
    repo.sh(&add).fails(1, "d/secret: cannot open: Permission denied");
    assert!(!repo.exists("d.pointer"));
}

#[test]
fn files_that_git_tracks_are_refused_with_the_way_out() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("d/code.py", "x");
    repo.git(["add", "d"]).ok();
    repo.model(["add", "d"]).fails(2, "d/code.py: git itself tracks it");
    repo.git(["rm", "-q", "-r", "--cached", "--", "d"]).ok();
    repo.model(["add", "d"]).ok();
}

#[test]
fn artifacts_do_not_nest() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("a/inner", "x", "inner");
    repo.model(["add", "a"]).fails(2, "a/inner: an artifact inside a");
    repo.commit_artifact("b/c/file", "x", "other");
    repo.write("b/d", "y");
    repo.write("t/x", "y");
    repo.model(["add", "t"]).ok();
    repo.model(["add", "t/x"]).fails(2, "t/x: it is part of the artifact t");
    repo.write("u/x", "y");
    repo.model(["add", "u", "u/x"]).fails(2, "u/x: an artifact inside u");
    // A pointer that came from elsewhere and is not tracked here is seen, too.
    repo.write("v/x", "y");
    repo.sh("cp b/c/file.pointer v/x.pointer").ok();
    repo.model(["add", "v"]).fails(1, "v/x.pointer: an artifact inside the directory");
}

#[test]
fn a_file_becomes_a_directory_and_back() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("m", "one file", "file");
    repo.sh("rm m && mkdir -p m/sub && echo a > m/a && echo b > m/sub/b").ok();
    assert_eq!(repo.state("m"), "modified");
    repo.model(["add", "m"]).ok();
    repo.git(["commit", "-q", "-m", "directory"]).ok();
    repo.git(["checkout", "-q", "HEAD~1"]).ok();
    assert_eq!(repo.text("m"), "one file");
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.text("m/sub/b"), "b\n");
    assert_eq!(repo.state("m"), "clean");
}

#[test]
fn an_ignored_parent_is_told_with_lines_that_work() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write(".gitignore", "models/\n");
    repo.git(["add", ".gitignore"]).ok();
    repo.write("models/deep/w.bin", "x");
    let output = repo.model(["add", "models/deep/w.bin"]);
    let stderr = output.says("a pattern hides this pointer").stderr;
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with(['!', '/'])).collect();
    assert!(!lines.is_empty(), "{stderr}");
    repo.write(".gitignore", format!("models/\n{}\n", lines.join("\n")));
    assert_eq!(
        repo.git(["check-ignore", "-q", "models/deep/w.bin.pointer"]).code,
        1,
        "visible now: {lines:?}"
    );
    assert_eq!(repo.git(["check-ignore", "-q", "models/deep/w.bin"]).code, 0, "still ignored: {lines:?}");
    repo.model(["add", "models/deep/w.bin"]).never_says("hides").ok();
}

#[test]
fn ignore_lines_hold_for_odd_names_and_are_written_once() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let names = ["-dash", "star*.bin", "[x]", "q?", "#hash", "!bang", "back ", "two words"];
    for name in names {
        repo.write(name, "x");
    }
    repo.model(["add", "--"].into_iter().chain(names)).ok();
    repo.model(["add", "--"].into_iter().chain(names)).ok();
    assert_eq!(repo.text(".gitignore").lines().count(), names.len());
    repo.git(["commit", "-q", "-m", "odd"]).ok();
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "");
    for name in names {
        repo.sh("rm -f -- * 2>/dev/null; git checkout -q -- .").ok();
        repo.model(["sync"]).ok();
        assert_eq!(repo.text(name), "x");
    }
}

#[test]
fn no_stage_and_dry_run_leave_the_index_alone() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("w", "x");
    repo.model(["add", "--dry-run", "w"]).says("w: new").ok();
    assert!(!repo.exists("w.pointer"));
    repo.model(["add", "--no-stage", "w"]).ok();
    assert_eq!(repo.git(["diff", "--cached", "--name-only"]).ok(), "");
    assert!(repo.exists("w.pointer"));
    repo.model(["status", "--check"]).says("not staged").fails(3, "not in step");
    repo.git(["add", "w.pointer", ".gitignore"]).ok();
    repo.model(["status", "--check"]).ok();
}

#[test]
fn update_takes_everything_that_is_tracked() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("a", "1", "a");
    repo.commit_artifact("d/b", "1", "b");
    repo.write("a", "2");
    repo.at("d").write("b", "22");
    repo.at("d").model(["add", "--update"]).says("b: updated").says("../a: updated").ok();
    repo.model(["status", "--check"]).ok();
    repo.model(["add"]).fails_usage();
}

#[test]
fn add_needs_init() {
    let sandbox = Sandbox::new();
    let repo = sandbox.git_repo("bare");
    repo.write("w", "x");
    repo.model(["add", "w"]).says("hint: run git model init").fails(1, "not set up");
    let outside = sandbox.at("");
    outside.model(["status"]).fails(1, "not a git repository");
}

#[test]
fn diff_tells_what_changed_inside_directories() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("data/keep", "k");
    repo.write("data/change", "1");
    repo.write("data/drop", "d");
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "one"]).ok();
    repo.sh("echo 22 > data/change; rm data/drop; echo n > data/new").ok();
    repo.model(["add", "data"]).ok();
    let text = repo.model(["diff"]).ok();
    for line in [
        "changed  data (3 files, 3 B -> 3 files, 6 B)",
        "  changed  change",
        "  removed  drop",
        "  added    new",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("keep"));
    repo.git(["commit", "-q", "-m", "two"]).ok();
    let json = repo.json(["diff", "HEAD~1", "HEAD"]);
    assert_eq!(json["schema"], "git-model/diff/v1");
    assert_eq!(json["artifacts"][0]["files"].as_array().unwrap().len(), 3);
    repo.model(["diff", "no-such-revision"]).fails(2, "no such commit");
}

#[test]
fn rm_removes_what_is_safe_and_keeps_what_is_not() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("a", "1", "a");
    repo.commit_artifact("b", "1b", "b");
    repo.write("a", "changed and nowhere else");
    repo.model(["rm", "a"]).fails(1, "its content is nowhere else");
    assert!(repo.exists("a") && repo.exists("a.pointer"));
    repo.model(["rm", "--keep", "a"]).ok();
    assert_eq!(repo.text("a"), "changed and nowhere else");
    repo.model(["rm", "b"]).ok();
    assert!(!repo.exists("b") && !repo.exists("b.pointer") && !repo.exists(".gitignore"));
    assert_eq!(
        repo.git(["status", "--porcelain"]).ok(),
        "D  .gitignore\nD  a.pointer\nD  b.pointer\n?? a\n",
        "an ordinary file again"
    );
    repo.model(["rm", "nothing"]).fails(2, "no artifact is tracked here");
}

#[test]
fn mv_takes_pointer_content_and_ignore_line_along() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.commit_artifact("old/w", noise(1, 1000), "one");
    repo.model(["mv", "old/w", "new/place/w2"]).ok();
    assert_eq!(repo.read("new/place/w2"), noise(1, 1000));
    assert!(!repo.exists("old"));
    assert_eq!(repo.text("new/place/.gitignore"), "/w2\n");
    repo.git(["commit", "-q", "-m", "moved"]).ok();
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "");
    assert_eq!(repo.state("new/place/w2"), "clean");
    repo.commit_artifact("x", "x", "x");
    repo.model(["mv", "x", "new/place/w2"]).fails(1, "exists already");
    repo.git(["checkout", "-q", "HEAD~2"]).ok();
    assert_eq!(repo.read("old/w"), noise(1, 1000));
}

#[test]
fn a_directory_with_more_than_one_shard_survives_a_round_trip() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.sh("mkdir data && cd data && for i in $(seq 5000); do echo $i > f$i; done").ok();
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "one"]).ok();
    repo.sh("echo changed > data/f777; rm data/f778").ok();
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-m", "two"]).ok();
    repo.git(["checkout", "-q", "HEAD~1"]).ok();
    assert_eq!((repo.text("data/f777"), repo.text("data/f778")), ("777\n".into(), "778\n".into()));
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.text("data/f777"), "changed\n");
    assert!(!repo.exists("data/f778"));
    repo.model(["verify"]).ok();
}

#[test]
fn a_file_with_a_pointers_name_is_not_replaced() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for make in ["echo notes > w.pointer", "ln -s notes w.pointer", "mkdir w.pointer", ": > w.pointer"] {
        repo.sh(make).ok();
        repo.write("w", "x");
        let before = repo.sh("ls -l w.pointer").ok();
        repo.model(["add", "w"]).fails(2, "w.pointer: this file is no pointer");
        assert_eq!(repo.sh("ls -l w.pointer").ok(), before, "{make}");
        repo.sh("rm -r w.pointer").ok();
    }
    // One of ours that was damaged is written again.
    repo.model(["add", "w"]).ok();
    repo.write("w.pointer", "dam");
    repo.model(["add", "w"]).ok();
    assert_eq!(repo.state("w"), "clean");
}

#[test]
fn an_update_leaves_out_what_others_changed_and_nobody_here() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off");
    repo.commit_artifact("v", "v", "v");
    repo.commit_artifact("w", "one", "1");
    repo.git(["tag", "v1"]).ok();
    repo.commit_artifact("w", "two", "2");
    repo.git(["checkout", "-q", "v1"]).ok();
    repo.model(["sync"]).ok();
    repo.git(["checkout", "-q", "main"]).ok();
    assert_eq!(repo.state("w"), "outdated");
    repo.write("v", "newer");
    drop(repo.model(["add", "-u"]).says("w: left out, for its pointer is newer"));
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), "M  v.pointer\n");
    // Whoever names it means it, and is told.
    drop(repo.model(["add", "w"]).says("is the old one again"));
    assert_eq!(repo.state("w"), "clean");
}

#[test]
fn a_path_inside_a_submodule_is_refused() {
    let sandbox = Sandbox::new();
    let (inner, repo) = (sandbox.repo("inner"), sandbox.repo("repo"));
    repo.git(["submodule", "--quiet", "add", &inner.join("").display().to_string(), "sub"]).ok();
    repo.write("sub/w", "x");
    repo.model(["add", "sub/w"]).fails(2, "sub/w: inside the submodule sub");
    assert!(!repo.exists("sub/w.pointer") && !repo.exists("sub/.gitignore"));
}

#[test]
fn an_empty_directory_that_is_there_is_filled() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("data/x", "x");
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-qm", "data"]).ok();
    repo.sh("rm -r data .git/model/stat && mkdir data").ok();
    repo.model(["sync"]).ok();
    assert_eq!(repo.text("data/x"), "x");
}

#[test]
fn a_full_disk_leaves_no_half_of_an_ignore_line() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let others = "/some-other-name\n".repeat(8_000);
    repo.write(".gitignore", &others[..256 * 512 - 5]);
    repo.write("weights.bin", "x");
    // A limit on the size of files stands for the disk: `/wei` would fit.
    repo.sh("trap '' XFSZ; ulimit -f 256; git model add weights.bin")
        .fails(1, ".gitignore: cannot append to");
    assert_eq!(repo.read(".gitignore").len(), 256 * 512 - 5);
    repo.model(["add", "weights.bin"]).ok();
    assert!(repo.text(".gitignore").ends_with("/weights.bin\n"));
}

#[test]
fn artifacts_whose_paths_differ_in_letter_case_only_are_refused() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.write("models/W", "W");
    repo.write("Models/w", "w");
    repo.model(["add", "models/W", "Models/w"]).fails(2, "only in letter case or Unicode form");
    assert!(!repo.exists("models/W.pointer") && !repo.exists("Models/w.pointer"));
    repo.model(["add", "models/W"]).ok();
    repo.model(["add", "Models/w"]).fails(2, "Models/w: differs from models/W only in letter case");
    repo.model(["add", "models/W"]).ok();
}
