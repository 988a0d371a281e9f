//! Changing the index, the worktree and the configuration: always through `git` itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use super::read::current_index;
use super::{Git, child};
use crate::error::{Error, Result};
use crate::repo_path::RepoPath;

/// What became of a request to stage paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    /// The index has them.
    Done,
    /// Another process held the index all the time; nothing was staged.
    Busy,
}

/// How often, and with what pauses, a locked index is tried again: about three seconds in all.
const PAUSES_MS: [u64; 8] = [20, 50, 100, 200, 300, 500, 800, 1000];

/// Larger files are not compared with the index before they are given to git.
const MAX_COMPARED: u64 = 64 * 1024;

impl Git {
    /// Puts the worktree's version of these paths into the index, or removes them from it where the file is gone.
    ///
    /// `git update-index` runs the user's filters, keeps the index's format and extensions, and does not care
    /// whether a pattern ignores the path. What the index has already is not given to it.
    pub fn stage(&self, paths: &[RepoPath]) -> Result<Staging> {
        let staged = self.staged_already(paths);
        let paths: Vec<&RepoPath> = paths.iter().filter(|path| !staged.contains(path)).collect();
        if paths.is_empty() {
            return Ok(Staging::Done);
        }
        let input: Vec<u8> = paths.iter().flat_map(|path| format!("{path}\0").into_bytes()).collect();
        for pause in PAUSES_MS.map(Some).into_iter().chain([None]) {
            let args = ["update-index", "--add", "--remove", "-z", "--stdin"];
            let output = self.git(args).at_top(self)?.input(input.clone()).run()?;
            if output.status.success() {
                return Ok(Staging::Done);
            }
            if !String::from_utf8_lossy(&output.stderr).contains("index.lock': File exists") {
                return Err(child::failure("git update-index", &output));
            }
            if let Some(pause) = pause {
                thread::sleep(Duration::from_millis(pause));
            }
        }
        Ok(Staging::Busy)
    }

    /// Those of these small files that the index has as they are in the worktree, as far as libgit2 can tell.
    fn staged_already<'p>(&self, paths: &'p [RepoPath]) -> Vec<&'p RepoPath> {
        let (Some(lib), Ok(top)) = (&self.lib, self.top()) else { return Vec::new() };
        let Some(index) = current_index(lib) else { return Vec::new() };
        let is_staged = |path: &&RepoPath| {
            let entry = index.get_path(path.as_path(), 0)?;
            let file = top.join(path.as_path());
            let found = fs::symlink_metadata(&file).ok()?;
            let plain = found.is_file() && found.permissions().mode() & 0o111 == 0 && entry.mode == 0o100_644;
            let bytes = (plain && found.len() <= MAX_COMPARED).then(|| fs::read(&file).ok()).flatten()?;
            Some(git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).ok()? == entry.id)
        };
        paths.iter().filter(|path| is_staged(path) == Some(true)).collect()
    }

    /// Runs `git checkout <args>` with the user's terminal, without git-model's hooks. `false` when git refused.
    pub fn checkout(&self, args: &[String]) -> Result<bool> {
        self.git(std::iter::once("checkout").chain(args.iter().map(String::as_str))).interactive()
    }

    /// Sets a key of the repository's own configuration.
    pub fn set_config(&self, key: &str, value: &str) -> Result<()> {
        self.git(["config", "--local", key, value]).output().map(drop)
    }

    /// Adds one more value to a key of the repository's own configuration.
    pub fn add_config(&self, key: &str, value: &str) -> Result<()> {
        self.git(["config", "--local", "--add", key, value]).output().map(drop)
    }

    /// Where git looks for hooks; `core.hooksPath` may have put that anywhere.
    pub(super) fn hooks_dir(&self) -> Result<std::path::PathBuf> {
        let answer = self.git(["rev-parse", "--git-path", "hooks"]).output()?;
        let text = String::from_utf8(answer)
            .map_err(|error| Error::new("core.hooksPath: not UTF-8").caused_by(error))?;
        let cwd =
            std::env::current_dir().map_err(|error| Error::new("no current directory").caused_by(error))?;
        Ok(super::normalise(&cwd.join(text.trim_end_matches('\n'))))
    }
}
