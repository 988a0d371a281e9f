//! Running the `git` program.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{ACTIVE_ENV, Git};
use crate::error::{Error, Result};
use crate::human;
use crate::repo_path::RepoPath;

/// Environment variables that say where a repository is.
const PLACES: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
];

/// More lines of what git said are not repeated.
const MOST_REASONS: usize = 8;

/// A `git` command that is about to run.
pub(super) struct Child {
    command: Command,
    input: Vec<u8>,
}

/// Prepares `git <args>`, with untranslated messages and no terminal prompt for anything but credentials.
pub(super) fn git<I, S>(args: I) -> Child
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new("git");
    command.args(args).env("LC_ALL", "C").env(ACTIVE_ENV, "1").stdin(Stdio::null());
    Child { command, input: Vec::new() }
}

impl Child {
    /// Sets an environment variable.
    pub(super) fn env(mut self, name: &str, value: &Path) -> Self {
        self.command.env(name, value);
        self
    }

    /// Writes objects into `dir`, and knows those in the `others`.
    pub(super) fn objects(mut self, dir: &Path, others: &[OsString]) -> Self {
        self.command.env("GIT_OBJECT_DIRECTORY", dir);
        self.alternates(others)
    }

    /// Knows the objects in these folders, too, each written as the environment wants it.
    pub(super) fn alternates(mut self, dirs: &[OsString]) -> Self {
        self.command.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", dirs.join(OsStr::new(":")));
        self
    }

    /// Runs it in a directory.
    pub(super) fn inside(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Keeps away what says where the repository is that git-model was started in.
    pub(super) fn alone(mut self) -> Self {
        for name in PLACES {
            self.command.env_remove(name);
        }
        self
    }

    /// Adds arguments.
    pub(super) fn args<'s>(mut self, args: impl IntoIterator<Item = &'s str>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds paths from the top of the worktree, in which no character is special to git.
    pub(super) fn paths(mut self, paths: &[RepoPath]) -> Self {
        self.command.args(paths.iter().map(|path| format!(":(top,literal){path}")));
        self
    }

    /// Writes `input` to its standard input.
    pub(super) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self.command.stdin(Stdio::piped());
        self
    }

    /// Runs at the top of the worktree. A `GIT_DIR` that is relative to the current directory is resolved before.
    pub(super) fn at_top(mut self, git: &Git) -> Result<Self> {
        self.command.current_dir(git.top()?);
        if std::env::var_os("GIT_DIR").is_some() {
            self.command.env("GIT_DIR", git.git_dir()).env("GIT_WORK_TREE", git.top()?);
        }
        Ok(self)
    }

    /// Runs it and returns its standard output; a failure carries git's own message.
    pub(super) fn output(self) -> Result<Vec<u8>> {
        let name = self.name();
        let output = self.run()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failure(&name, &output))
    }

    /// Runs it and returns everything, whatever its exit code.
    pub(super) fn run(mut self) -> Result<Output> {
        let cannot = |error: std::io::Error| {
            Error::new("git: cannot run it").caused_by(error).hint("install git, or put it on PATH")
        };
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
        let stdin = child.stdin.take();
        // Its input is written while its output is read: neither pipe can fill up and block both.
        let output = std::thread::scope(|scope| {
            if let Some(mut stdin) = stdin {
                // If git stops reading early it fails, and its own message says why.
                scope.spawn(move || stdin.write_all(&self.input).is_ok());
            }
            child.wait_with_output()
        });
        output.map_err(cannot)
    }

    /// Runs it with the terminal's own input and output.
    pub(super) fn interactive(mut self) -> Result<bool> {
        let status = self.command.stdin(Stdio::inherit()).env_remove("LC_ALL").status();
        status
            .map(|status| status.success())
            .map_err(|error| Error::new("git: cannot run it").caused_by(error))
    }

    fn name(&self) -> String {
        // The command is the first word that is no option; `-c` takes the next one along.
        let mut args = self.command.get_args();
        let mut sub = None;
        while let Some(arg) = args.next() {
            if arg == "-c" {
                args.next();
            } else if !arg.as_encoded_bytes().starts_with(b"-") {
                sub = Some(arg);
                break;
            }
        }
        format!("git {}", sub.unwrap_or_default().to_string_lossy())
    }
}

/// The error for a `git` that failed: the last line of what it said, because of the lines right before it.
pub(super) fn failure(name: &str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let is_error = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    let last = lines.iter().rposition(is_error).or(lines.len().checked_sub(1));
    let line = last.map_or("it failed and said nothing", |last| without_prefix(lines[last]));
    let error = Error::new(format!("{name}: {}", human::escape(line)));
    let mut why: Vec<String> = Vec::new();
    // Advice stands apart, behind an empty line. What a remote refused stands in the report of `push --porcelain`.
    let said = lines[..last.unwrap_or_default()].rsplit(|line| line.is_empty()).next().unwrap_or_default();
    let refused = String::from_utf8_lossy(&output.stdout);
    let refused = refused.lines().filter_map(|line| line.strip_prefix("!\t")?.split('\t').nth(1));
    for line in said.iter().copied().chain(refused) {
        let line = without_prefix(line).trim();
        let is_talk = ["hint: ", "warning: ", "To "].iter().any(|start| line.starts_with(start));
        if !is_talk && !matches!(line, "" | "remote:") && !why.iter().any(|before| before == line) {
            why.push(line.to_owned());
        }
    }
    why.truncate(MOST_REASONS);
    match why.is_empty() {
        true => error,
        false => error.caused_by(human::escape(&why.join("; "))),
    }
}

fn without_prefix(line: &str) -> &str {
    line.trim_start_matches("fatal: ").trim_start_matches("error: ")
}
