//! A hermetic place for one test: its own home, git configuration and repositories, and the real binary on PATH.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

pub mod docker_registry;
pub mod fake_server;
pub mod garage;
pub mod models;
pub mod proxy;
pub mod servers;
pub mod stores;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_git-model");

/// A scratch folder with a home of its own.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// A git worktree in a sandbox; commands run there.
#[derive(Clone)]
pub struct Repo {
    /// The worktree.
    pub path: PathBuf,
    sandbox: PathBuf,
    env: Vec<(String, String)>,
}

/// What a command printed, and its exit code.
#[must_use]
#[derive(Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; -1 after a signal.
    pub code: i32,
}

impl Sandbox {
    /// A fresh sandbox in the system's temporary folder.
    pub fn new() -> Sandbox {
        Sandbox::below(&std::env::temp_dir())
    }

    /// A fresh sandbox in a folder of choice, such as a mounted file system.
    pub fn below(dir: &Path) -> Sandbox {
        let dir = tempfile::Builder::new().prefix("git-model-test-").tempdir_in(dir).unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let config = "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n\
                      [advice]\n\tdetachedHead = false\n[protocol \"file\"]\n\tallow = always\n";
        std::fs::write(dir.path().join("gitconfig"), config).unwrap();
        Sandbox { dir }
    }

    /// The sandbox's folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A folder in it, whether it exists or not.
    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A handle for commands in a folder that exists.
    pub fn at(&self, name: &str) -> Repo {
        Repo { path: self.join(name), sandbox: self.path().to_path_buf(), env: Vec::new() }
    }

    /// A new git repository.
    pub fn git_repo(&self, name: &str) -> Repo {
        std::fs::create_dir_all(self.join(name)).unwrap();
        let repo = self.at(name);
        repo.git(["init", "-q"]).ok();
        repo
    }

    /// A new git repository that is set up for git-model, with the folder `store` as its remote and a first commit.
    pub fn repo(&self, name: &str) -> Repo {
        let repo = self.git_repo(name);
        repo.model(["init", "../store"]).ok();
        repo.git(["commit", "-q", "-m", "init"]).ok();
        repo
    }

    /// A clone, without hooks and with nothing approved.
    pub fn clone_of(&self, source: &Repo, name: &str) -> Repo {
        let clone = Repo { path: self.path().to_path_buf(), ..self.at("") };
        clone.git(["clone", "-q", source.path.to_str().unwrap(), name]).ok();
        self.at(name)
    }
}

impl Repo {
    /// The same folder with one more environment variable.
    pub fn env(&self, key: &str, value: impl Into<String>) -> Repo {
        let mut repo = self.clone();
        repo.env.push((key.to_owned(), value.into()));
        repo
    }

    /// Another folder with the same environment.
    pub fn at(&self, path: impl AsRef<Path>) -> Repo {
        Repo { path: self.path.join(path), ..self.clone() }
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A command that is about to run here, hermetically.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let binary_dir = Path::new(BINARY).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", format!("{binary_dir}:{path}:/usr/sbin:/sbin"))
            .env("HOME", self.sandbox.join("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.sandbox.join("gitconfig"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_EDITOR", "true")
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// The most memory that `git-model <args>`, which must succeed, has in use, in bytes; or Python's own, if that is more.
    pub fn peak_memory(&self, args: &[&str]) -> u64 {
        let measure = "import resource, subprocess, sys; \
                       subprocess.run(['git-model', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL); \
                       print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
        let mut python = self.command("python3");
        python.args(["-c", measure]).args(args);
        run(python).ok().trim().parse::<u64>().unwrap() * 1024
    }

    /// The bytes that `git-model <args>` itself reads, by its system calls. `None` without strace.
    pub fn bytes_read(&self, args: &[&str]) -> Option<u64> {
        let mut strace = self.command("strace");
        strace
            .args(["-f", "-o", "../calls", "-e", "trace=read,pread64,readv,preadv,recvfrom", BINARY])
            .args(args);
        let traced = strace.output().ok()?;
        assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stderr));
        let calls = self.text("../calls");
        Some(calls.lines().filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok()).sum())
    }

    /// Runs `git <args>`.
    pub fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = self.command("git");
        command.args(args);
        run(command)
    }

    /// Runs `git-model <args>`.
    pub fn model<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = self.command(BINARY);
        command.args(args);
        run(command)
    }

    /// Runs a shell script.
    pub fn sh(&self, script: &str) -> Output {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        run(command)
    }

    /// `git-model <args> --json`, parsed.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        let mut command = self.command(BINARY);
        command.args(args).arg("--json");
        let output = run(command);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    /// Writes a file, making its folders.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A file's text.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Whether there is something (a link counts itself).
    pub fn exists(&self, name: &str) -> bool {
        self.join(name).symlink_metadata().is_ok()
    }

    /// Adds an artifact with this content and commits it.
    pub fn commit_artifact(&self, name: &str, content: impl AsRef<[u8]>, message: &str) {
        self.write(name, content);
        self.model(["add", name]).ok();
        self.git(["commit", "-q", "-m", message]).ok();
    }

    /// The state that `status --json` gives an artifact.
    pub fn state(&self, name: &str) -> String {
        let status = self.json(["status"]);
        let artifacts = status["artifacts"].as_array().unwrap();
        let found = artifacts.iter().find(|artifact| artifact["path"] == name);
        found.map_or("untracked".to_owned(), |artifact| artifact["state"].as_str().unwrap().to_owned())
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    Output {
        command: shown,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

impl Output {
    /// It must have succeeded; returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// It must have failed with this code and one error line that holds `reason`; returns standard error.
    #[track_caller]
    pub fn fails(self, code: i32, reason: &str) -> String {
        assert_eq!(self.code, code, "{self}");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "exactly one error line: {self}");
        assert!(errors[0].contains(reason), "expected {reason:?}: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self.stderr
    }

    /// The arguments themselves must have been refused.
    #[track_caller]
    pub fn fails_usage(self) {
        assert_eq!(self.code, 2, "{self}");
        assert!(self.stderr.contains("Usage: git model"), "{self}");
    }

    /// The value of an option must have been refused.
    #[track_caller]
    pub fn fails_value(self) {
        assert_eq!(self.code, 2, "{self}");
        assert!(self.stderr.contains("invalid value"), "{self}");
    }

    /// Standard output or standard error must hold this.
    #[track_caller]
    pub fn says(self, text: &str) -> Output {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "expected {text:?}: {self}");
        self
    }

    /// Neither may hold this.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Output {
        assert!(!self.stdout.contains(text) && !self.stderr.contains(text), "unexpected {text:?}: {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n------- stdout -------\n{}------- stderr -------\n{}[exit code: {}]",
            self.command, self.stdout, self.stderr, self.code
        )
    }
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The SHA-256 of a file, by the system's own tool.
pub fn sha256(path: &Path) -> String {
    let output = run({
        let mut command = Command::new("sha256sum");
        command.arg(path);
        command
    });
    output.ok().trim_start_matches('\\')[..64].to_owned()
}

/// Notes that a test could not do what it should; `tests/run` shows these at its end.
pub fn skip(test: &str, reason: &str) {
    if let Some(file) = std::env::var_os("GIT_MODEL_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the test's own output")]
    {
        eprintln!("SKIPPED: {test}: {reason}");
    }
}

/// A file of the folder `shared/data` beside the checkout (`GIT_MODEL_PUBLISHED` names another place): schemas and test vectors
/// as their projects publish them. Without it, a test does what it can without, and says so.
pub fn published(test: &str, name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = std::env::var_os("GIT_MODEL_PUBLISHED").map_or_else(beside, PathBuf::from).join(name);
    if !path.exists() {
        skip(test, "the folder of published schemas and test vectors is not there");
        return None;
    }
    Some(path)
}

/// Something that `tests/setup` put into the cache outside the checkout.
pub fn prepared(name: &str) -> PathBuf {
    let cache = std::env::var_os("GIT_MODEL_TEST_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
        let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        base.join("git-model-tests")
    });
    let path = cache.join(name);
    assert!(path.exists(), "{}: not there; tests/run prepares it", path.display());
    path
}
