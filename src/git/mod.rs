//! The user's git repository. The only module that names git2 or runs `git`.
//!
//! Reading goes through libgit2, in this process. Where libgit2 refuses (sparse or split index, reftable, SHA-256, blobs
//! that a partial clone has not fetched), the `git` program takes over on the first refusal. Whatever changes the
//! repository is left to `git`, so that the user's filters, hooks, locks and index format are obeyed exactly.

mod child;
pub mod files;
pub mod hooks;
pub mod mirror;
mod read;
pub mod tags;
mod write;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::repo_path::RepoPath;

pub use read::{Commit, IndexPointer, PointerBlob, RangeEnd};
pub use write::Staging;

/// Set for every `git` that this program runs, so that hooks started by it know to stay quiet.
pub const ACTIVE_ENV: &str = "GIT_MODEL_ACTIVE";

/// The object id of a blob or commit, in hex, as git prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(String);

impl Oid {
    fn new(hex: &str) -> Result<Oid> {
        let valid = matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| Oid(hex.to_owned())).ok_or_else(|| Error::new(format!("not a git object id: {hex:?}")))
    }

    /// Git's "no object", in the length of SHA-1.
    fn null() -> Oid {
        Oid("0".repeat(40))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is git's "no object" (all zeros).
    pub fn is_null(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

/// An open repository.
pub struct Git {
    git_dir: PathBuf,
    common_dir: PathBuf,
    top: Option<PathBuf>,
    lib: Option<git2::Repository>,
    config: OnceCell<Vec<(String, String)>>,
    /// Set when this is another repository than the one that the current directory and the environment lead to: where its
    /// commands run, which is what relative URLs are relative to.
    elsewhere: Option<PathBuf>,
    /// Whether its commands may contact no git remote, not even for objects that a partial clone lacks.
    offline: bool,
    /// Objects that are only looked at, once there are some.
    scratch: OnceCell<tempfile::TempDir>,
}

impl std::fmt::Debug for Git {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Git").field("git_dir", &self.git_dir).field("top", &self.top).finish_non_exhaustive()
    }
}

impl Git {
    /// Opens the repository of the current directory, or the one named by git's environment variables.
    pub fn discover() -> Result<Git> {
        match git2::Repository::open_from_env() {
            Ok(lib) => Git::from_lib(lib),
            Err(_) => Git::from_child(),
        }
    }

    fn from_lib(lib: git2::Repository) -> Result<Git> {
        Ok(Git {
            git_dir: absolute(lib.path())?,
            common_dir: absolute(lib.commondir())?,
            // libgit2 takes a relative GIT_WORK_TREE from the git dir; git takes it from the current directory.
            top: match std::env::var_os("GIT_WORK_TREE") {
                Some(_) => top_by_child()?,
                None => lib.workdir().map(absolute).transpose()?,
            },
            lib: Some(lib),
            config: OnceCell::new(),
            elsewhere: None,
            offline: false,
            scratch: OnceCell::new(),
        })
    }

    fn from_child() -> Result<Git> {
        let answer =
            child::git(["rev-parse", "--is-bare-repository", "--absolute-git-dir", "--git-common-dir"])
                .output()
                .map_err(|error| match error.one_line().contains("not a git repository") {
                    true => error.hint("run this inside a git repository; git init makes one"),
                    false => error,
                })?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let mut lines = text.lines();
        let (Some(bare), Some(git_dir), Some(common_dir)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Error::new("git rev-parse: unexpected answer"));
        };
        Ok(Git {
            git_dir: absolute(Path::new(git_dir))?,
            common_dir: absolute(Path::new(common_dir))?,
            top: if bare == "true" { None } else { top_by_child()? },
            lib: None,
            config: OnceCell::new(),
            elsewhere: None,
            offline: false,
            scratch: OnceCell::new(),
        })
    }

    /// Opens a bare repository by its git dir, whatever the current directory is.
    fn open_bare(git_dir: &Path) -> Result<Git> {
        let git_dir = absolute(git_dir)?;
        let lib = git2::Repository::open_bare(&git_dir).ok();
        let elsewhere = Some(git_dir.clone());
        Ok(Git {
            common_dir: git_dir.clone(),
            git_dir,
            top: None,
            lib,
            config: OnceCell::new(),
            elsewhere,
            offline: false,
            scratch: OnceCell::new(),
        })
    }

    /// A `git` command in this repository.
    fn git<I, S>(&self, args: I) -> child::Child
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut child = child::git(args);
        if self.offline {
            // A list of the protocols that are allowed; every git knows it, and asks it for whatever contacts a remote.
            child = child.env("GIT_ALLOW_PROTOCOL", Path::new(""));
        }
        match &self.elsewhere {
            Some(base) => child.alone().env("GIT_DIR", &self.git_dir).inside(base),
            None => child,
        }
    }

    /// From here on its commands contact no git remote.
    pub fn stay_offline(&mut self) {
        self.offline = true;
    }

    /// This worktree's own git dir.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The git dir that all worktrees share.
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// The top of the worktree; an error in a bare repository.
    pub fn top(&self) -> Result<&Path> {
        self.top.as_deref().ok_or_else(|| {
            Error::new(format!("{}: this needs a worktree, and there is none here", self.git_dir.display()))
                .hint(
                    "run it in a clone that is not bare; ls, fetch and push with a commit work in a bare one",
                )
        })
    }

    /// Whether there is no worktree.
    pub fn is_bare(&self) -> bool {
        self.top.is_none()
    }

    /// A path as the user typed it, relative to the top of the worktree. `None` means the top itself.
    pub fn repo_path(&self, typed: &Path) -> Result<Option<RepoPath>> {
        let top = self.top()?;
        let cwd = std::env::current_dir().context(".", "find the current directory")?;
        let full = normalise(&cwd.join(typed));
        let relative = full.strip_prefix(top).map_err(|_| {
            Error::usage(format!("{}: outside the repository {}", typed.display(), top.display()))
        })?;
        if relative.as_os_str().is_empty() {
            return Ok(None);
        }
        use std::os::unix::ffi::OsStrExt;
        RepoPath::from_bytes(relative.as_os_str().as_bytes()).map(Some)
    }

    /// The directory below the top of the worktree in which the user is, also when git runs a hook at the top.
    pub fn user_dir(&self) -> Option<RepoPath> {
        use std::os::unix::ffi::OsStrExt;
        let cwd = std::env::current_dir().ok()?;
        let inside = cwd.strip_prefix(self.top.as_deref()?).ok()?;
        let dir = match inside.as_os_str().is_empty() {
            true => std::env::var_os("GIT_PREFIX")?,
            false => inside.as_os_str().to_owned(),
        };
        RepoPath::from_bytes(dir.as_bytes().strip_suffix(b"/").unwrap_or(dir.as_bytes())).ok()
    }

    /// A name for `path` relative to the current directory, for messages and hints.
    pub fn shown(&self, path: &RepoPath) -> String {
        let relative = || {
            let cwd = std::env::current_dir().ok()?;
            let inside = cwd.strip_prefix(self.top.as_deref()?).ok()?.to_str()?.to_owned();
            let mut up = String::new();
            let mut base = inside.as_str();
            loop {
                match path.as_str().strip_prefix(base).map(|rest| rest.strip_prefix('/').unwrap_or(rest)) {
                    Some(rest)
                        if base.is_empty() || path.as_str().as_bytes().get(base.len()) == Some(&b'/') =>
                    {
                        return Some(format!("{up}{rest}"));
                    }
                    _ => {
                        up.push_str("../");
                        base = base.rsplit_once('/').map_or("", |(parent, _)| parent);
                    }
                }
            }
        };
        relative().unwrap_or_else(|| path.as_str().to_owned())
    }

    /// Whether a rebase, am, or sequence of cherry-picks or reverts is in progress and will change more.
    pub fn sequence_in_progress(&self) -> bool {
        let rebasing = ["rebase-merge", "rebase-apply"].iter().any(|name| self.git_dir.join(name).exists());
        // A sequencer at its last item changes nothing after it, and runs no hook at its end.
        let todo = std::fs::read_to_string(self.git_dir.join("sequencer/todo")).unwrap_or_default();
        rebasing || todo.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count() > 1
    }
}

/// The top of the worktree as git finds it. `None` where there is none, as inside of a git dir.
fn top_by_child() -> Result<Option<PathBuf>> {
    let answer = child::git(["rev-parse", "--show-toplevel"]).run()?;
    if !answer.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    absolute(Path::new(text.trim_end_matches('\n'))).map(Some)
}

/// An absolute path with symlinks in directories resolved, without a trailing slash.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).context(path, "resolve")
}

/// Removes `.` and resolves `..` by text, except that the longest existing directory is resolved for real, so that a
/// path typed through a symlinked directory still names the file inside the repository.
pub fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            part => out.push(part),
        }
    }
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else { return out };
    let mut missing = vec![name.to_owned()];
    let mut existing = parent.to_path_buf();
    loop {
        if let Ok(resolved) = std::fs::canonicalize(&existing) {
            return missing.iter().rev().fold(resolved, |path, name| path.join(name));
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                existing = parent.to_path_buf();
            }
            _ => return out,
        }
    }
}
