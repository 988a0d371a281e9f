//! Repositories, pointers, tree objects and configurations made by somebody with bad intentions: nothing is written outside
//! the worktree, nothing is sent to or read from where the user did not agree, and every refusal is one clear line.

use std::io::Write as _;

use crate::support::{Output, Repo, Sandbox, run, sha256};

pub(crate) const CONTENT: &str = "hostile content";

/// A repository with an approved store, canaries around it, and git's hooks off.
pub(crate) struct Target {
    pub(crate) sandbox: Sandbox,
    pub(crate) repo: Repo,
}

impl Target {
    pub(crate) fn new() -> Target {
        let sandbox = Sandbox::new();
        let repo = sandbox.repo("repo").env("GIT_MODEL_HOOKS", "off").env("RUST_BACKTRACE", "0");
        for canary in ["outside/canary", "x", "etc/passwd"] {
            repo.write(&format!("../{canary}"), "canary");
        }
        let target = Target { sandbox, repo };
        // Every store has a format.json, which the first push writes.
        target.repo.commit_artifact("honest.bin", "honest", "honest");
        target.repo.model(["push"]).ok();
        target
    }

    /// Puts an object into the store as if somebody had pushed it; returns its digest.
    pub(crate) fn store(&self, bytes: impl AsRef<[u8]>) -> String {
        self.repo.write("../object", bytes);
        let digest = sha256(&self.sandbox.join("object"));
        let dir = format!("../store/objects/sha256/{}", &digest[..2]);
        self.repo.sh(&format!("mkdir -p {dir} && mv ../object {dir}/{digest}")).ok();
        digest
    }

    /// Everything that a hostile repository must not change: all but the worktree and git-model's own data.
    pub(crate) fn surroundings(&self) -> String {
        let script = "find .. -path ../store -prune -o -path ../repo -prune -o -print | sort; \
                      find .. -path ../store -prune -o -path ../repo -prune -o -type f -exec sha256sum {} + | sort; \
                      find .git/hooks .git/config .git/HEAD .git/info -type f -exec sha256sum {} + | sort";
        self.repo.sh(script).ok()
    }

    /// Runs every command that reads pointers; none may panic, hang or touch the surroundings.
    #[track_caller]
    pub(crate) fn withstands(&self, case: &str, commands: &[&[&str]]) -> Vec<Output> {
        let before = self.surroundings();
        let mut outputs = Vec::new();
        for command in commands {
            let output = self.limited(command);
            assert!((0..=4).contains(&output.code), "{case}: {output}");
            assert!(!output.stderr.contains("panicked"), "{case}: {output}");
            let errors = output.stderr.lines().filter(|line| line.starts_with("error: ")).count();
            assert!(errors <= 1 && (errors == 1) == (output.code != 0 && errors == 1), "{case}: {output}");
            let raw = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{2028}".contains(c);
            assert!(!output.stderr.contains(raw) && !output.stdout.contains(raw), "{case}: {output:?}");
            assert_eq!(self.surroundings(), before, "{case}: {output}");
            outputs.push(output);
        }
        outputs
    }

    /// One command with bounded memory and time.
    fn limited(&self, args: &[&str]) -> Output {
        let mut command = self.repo.command("sh");
        let script = "ulimit -v 4000000; exec timeout -s KILL 20 \"$@\"";
        command.args(["-c", script, "sh", crate::support::BINARY]).args(args);
        run(command)
    }

    /// Writes a pointer file and puts it into the index.
    pub(crate) fn pointer(&self, path: &str, text: &str) {
        self.repo.write(path, text);
        let blob = self.blob(text);
        self.index_info(&format!("100644 {blob}\t{path}\0"));
    }

    fn index_info(&self, lines: &str) {
        self.feed(&["update-index", "-z", "--add", "--index-info"], lines.as_bytes());
    }

    fn blob(&self, text: &str) -> String {
        self.feed(&["hash-object", "-w", "--stdin"], text.as_bytes())
    }

    fn feed(&self, args: &[&str], input: &[u8]) -> String {
        let mut command = self.repo.command("git");
        let pipe = std::process::Stdio::piped;
        let mut child = command.args(args).stdin(pipe()).stdout(pipe()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {args:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Replaces the index by one that holds exactly this path, whatever git thinks of it.
    fn raw_index(&self, path: &[u8], blob: &str) {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let mut index = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        index.extend([[0u8; 24].as_slice(), &0o100_644u32.to_be_bytes(), &[0; 12]].concat());
        index.extend(hex(blob));
        index.extend((path.len().min(0xfff) as u16).to_be_bytes());
        index.extend(path);
        index.resize(index.len() + 8 - (62 + path.len()) % 8, 0);
        self.repo.write(".git/unsummed", &index);
        index.extend(hex(&self.repo.sh("sha1sum .git/unsummed").ok()[..40]));
        self.repo.write(".git/index", &index);
    }

    /// A commit with one file, at a path that git itself would refuse to check out.
    fn raw_commit(&self, path: &[u8], blob: &str) -> String {
        let mut names: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
        let mut id = self.feed(&["mktree", "-z"], &entry("100644 blob", blob, names.pop().unwrap()));
        while let Some(name) = names.pop() {
            id = self.feed(&["mktree", "-z"], &entry("040000 tree", &id, name));
        }
        self.repo.git(["commit-tree", "-m", "evil", &id]).ok().trim().to_owned()
    }
}

fn entry(head: &str, id: &str, name: &[u8]) -> Vec<u8> {
    [format!("{head} {id}\t").as_bytes(), name, b"\0"].concat()
}

pub(crate) fn file_pointer(digest: &str, size: impl std::fmt::Display) -> String {
    format!("version: 1\nkind: file\nsha256: {digest}\nsize: {size}\n")
}

pub(crate) fn tree_pointer(digest: &str, size: u64, files: u64) -> String {
    format!("version: 1\nkind: tree\nsha256: {digest}\nsize: {size}\nfiles: {files}\n")
}

pub(crate) const READERS: [&[&str]; 6] =
    [&["status"], &["sync"], &["fetch"], &["ls"], &["diff"], &["push", "--dry-run"]];

/// Pointer paths that must never lead anywhere, as raw bytes of an index or a commit.
const PATHS: [&[u8]; 26] = [
    b"../x.pointer",
    b"a/../../x.pointer",
    b"../../../../../../tmp/x.pointer",
    b"/tmp/x.pointer",
    b"a//x.pointer",
    b"./x.pointer",
    b"a/./x.pointer",
    b".git/x.pointer",
    b".git/hooks/post-checkout.pointer",
    b".GIT/hooks/post-checkout.pointer",
    b".gIt/config.pointer",
    b"a/.git/config.pointer",
    b"git~1/config.pointer",
    b"GIT~1/config.pointer",
    b".git./config.pointer",
    b".git /config.pointer",
    b".git. . /config.pointer",
    b".git::$INDEX_ALLOCATION/config.pointer",
    b".g\xe2\x80\x8cit/config.pointer",
    b"\xef\xbb\xbf.git/config.pointer",
    b"..\\x.pointer",
    b".git\\hooks\\post-checkout.pointer",
    b"a\nb.pointer",
    b"a\x1b[31mb.pointer",
    b"a\x7fb.pointer",
    b"not-\xff-utf8.pointer",
];

#[test]
fn paths_in_the_index_lead_nowhere() {
    let target = Target::new();
    let blob = target.blob(&file_pointer(&target.store(CONTENT), CONTENT.len()));
    for path in PATHS {
        target.raw_index(path, &blob);
        let case = path.escape_ascii().to_string();
        let outputs = target.withstands(&case, &READERS);
        assert_ne!(outputs[1].code, 0, "{case}: {}", outputs[1]);
    }
}

#[test]
fn paths_in_a_commit_lead_nowhere() {
    let target = Target::new();
    let blob = target.blob(&file_pointer(&target.store(CONTENT), CONTENT.len()));
    for path in
        PATHS.into_iter().filter(|path| !path.starts_with(b"/") && !path.windows(2).any(|p| p == b"//"))
    {
        let commit = target.raw_commit(path, &blob);
        let case = path.escape_ascii().to_string();
        let commands =
            [&["ls", &commit][..], &["fetch", &commit], &["diff", &commit], &["checkout", &commit]];
        for output in target.withstands(&case, &commands) {
            assert_ne!(output.code, 0, "{case}: {output}");
        }
        target.withstands(&case, &[&["push", &commit]]);
    }
}

/// Pointer files whose own names are harmless, but whose artifacts are not.
#[test]
fn artifacts_with_names_of_git_are_refused() {
    for name in [
        "..pointer",
        "...pointer",
        ".pointer",
        "a/...pointer",
        "a/.pointer",
        ".git.pointer",
        "a/.GIT.pointer",
    ] {
        let target = Target::new();
        let digest = target.store(CONTENT);
        target.pointer(name, &file_pointer(&digest, CONTENT.len()));
        target.withstands(name, &READERS);
        target.pointer(
            name,
            &tree_pointer(&target.store(format!("git-model tree 1\nfile {digest} 15 canary\n")), 15, 1),
        );
        target.withstands(name, &READERS);
        assert!(!target.repo.exists(".git/canary") && !target.repo.exists("canary"), "{name}");
    }
}

#[test]
fn files_that_configure_git_or_git_model_cannot_be_artifacts() {
    for name in [".git-model.yaml", ".gitattributes", ".gitignore", "sub/.gitattributes", "sub/.gitignore"] {
        let target = Target::new();
        target.repo.sh(&format!("rm -f {name}")).ok();
        target.pointer(&format!("{name}.pointer"), &file_pointer(&target.store(CONTENT), CONTENT.len()));
        target.withstands(name, &[&["sync"]]);
        assert!(!target.repo.exists(name), "{name}");
    }
}

/// What is on the way to an artifact, or in its place, and leads elsewhere.
#[test]
fn links_are_not_followed() {
    for (case, script) in [
        ("a parent that is a link", "ln -s ../outside dir"),
        ("a parent's parent that is a link", "mkdir dir && ln -s ../../outside dir/sub"),
        ("a parent that is an absolute link", "ln -s $(realpath ../outside) dir"),
        ("a link into .git", "ln -s .git dir"),
        ("the artifact is a link to a file", "mkdir -p dir/sub && ln -s ../../../x dir/sub/w.bin"),
        ("the artifact is a link to a directory", "mkdir -p dir/sub && ln -s ../../../outside dir/sub/w.bin"),
        ("the artifact is a dangling link", "mkdir -p dir/sub && ln -s ../../../new dir/sub/w.bin"),
        ("a parent that is a file", "echo file > dir"),
        ("the artifact is a FIFO", "mkdir -p dir/sub && mkfifo dir/sub/w.bin"),
    ] {
        let target = Target::new();
        target.pointer("dir/sub/w.bin.pointer", &file_pointer(&target.store(CONTENT), CONTENT.len()));
        target.pointer("dir/w.bin.pointer", &file_pointer(&target.store(CONTENT), CONTENT.len()));
        target.repo.sh(&format!("rm -rf dir && {script}")).ok();
        target.withstands(case, &READERS);
        target
            .withstands(case, &[&["sync", "--force"], &["add", "-u"], &["verify"], &["rm", "dir/sub/w.bin"]]);
    }
}

#[test]
fn a_pointer_that_is_a_link_is_no_pointer() {
    let target = Target::new();
    let text = file_pointer(&target.store(CONTENT), CONTENT.len());
    target.repo.write("../outside/p", &text);
    target.repo.sh("ln -s ../outside/p w.bin.pointer && git add -f w.bin.pointer").ok();
    target.withstands("committed as a link", &READERS);
    assert!(!target.repo.exists("w.bin"));
    target.pointer("v.bin.pointer", &text);
    target.repo.sh("rm v.bin.pointer && ln -s ../outside/p v.bin.pointer").ok();
    target.withstands("turned into a link", &READERS);
    assert!(!target.repo.exists("v.bin"));
    target.repo.write("v.bin", "mine");
    target.withstands("added over a link", &[&["add", "v.bin"]]);
}

#[test]
fn a_committed_ignore_file_that_is_a_link_is_not_written_through() {
    let target = Target::new();
    target.repo.write("m/w.bin", "w");
    target.repo.sh("ln -s ../../outside/canary m/.gitignore && git add m/.gitignore").ok();
    target.withstands("add", &[&["add", "m/w.bin"]]);
    target
        .repo
        .sh("rm .gitattributes && ln -s ../outside/canary .gitattributes && ln -sf ../x .git-model.yaml")
        .ok();
    target.withstands("init and remote", &[&["init"], &["remote", "add", "o", "/tmp/s"], &["status"]]);
}

#[test]
fn pointers_that_lie_are_refused() {
    let target = Target::new();
    let (big, good) = ("9".repeat(19), target.store(CONTENT));
    let bomb: String = (0..9).map(|at| format!("a{at}: &a{at} [*a{0},*a{0}]\n", at + 1)).collect();
    for (case, text) in [
        ("size too small", file_pointer(&good, 3)),
        ("size too large", file_pointer(&good, 16)),
        ("size beyond any disk", file_pointer(&good, i64::MAX)),
        ("size beyond i64", file_pointer(&good, &big)),
        ("size beyond u64", file_pointer(&good, format!("{big}{big}"))),
        ("size negative", file_pointer(&good, "-1")),
        ("size a fraction", file_pointer(&good, "1.5")),
        ("size infinite", file_pointer(&good, ".inf")),
        ("digest of a path", file_pointer("../../../../x", 15)),
        ("digest in capitals", file_pointer(&good.to_uppercase(), 15)),
        ("digest too long", file_pointer(&format!("{good}0"), 15)),
        ("not in the store", file_pointer(&"0".repeat(64), 15)),
        ("duplicate key", file_pointer(&good, 15) + "size: 15\n"),
        ("unknown key", file_pointer(&good, 15) + "url: http://169.254.169.254/\n"),
        ("merge key", format!("<<: {{size: 15}}\nversion: 1\nkind: file\nsha256: {good}\n")),
        ("alias", format!("version: &v 1\nkind: file\nsha256: {good}\nsize: *v\n")),
        ("alias bomb", bomb),
        ("tag", file_pointer(&good, "!!int 15")),
        ("foreign tag", file_pointer(&good, "!!python/object/apply:os.system [id]")),
        ("two documents", format!("{0}---\n{0}", file_pointer(&good, 15))),
        ("deep nesting", "[".repeat(1000)),
        ("deep mapping", "{a: ".repeat(250)),
        ("too large", format!("{}# {}\n", file_pointer(&good, 15), "x".repeat(2000))),
        ("far too large", "x".repeat(3_000_000)),
        ("empty", String::new()),
        ("binary", "\0\u{1}\u{2}".to_owned()),
        ("escape sequence", file_pointer("\"\\e[31m\"", 15)),
        ("escape in a key", file_pointer(&good, 15) + "\"\\e]0;owned\\a\": 1\n"),
        ("version of the future", "version: 99\nkind: x\n".to_owned()),
        ("version beyond u64", format!("version: {big}{big}\n")),
        ("tree that is a file", tree_pointer(&good, 15, 1)),
        ("kind unknown", file_pointer(&good, 15).replace("file", "link")),
    ] {
        target.pointer("w.bin.pointer", &text);
        let outputs = target.withstands(case, &READERS);
        assert_ne!(outputs[1].code, 0, "{case}: {}", outputs[1]);
        assert!(!target.repo.exists("w.bin"), "{case}");
    }
}
