//! Files as git has them, and as it would have them after `git add`: in the bytes of their blobs, which no line-ending setting
//! changes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::read::{current_index, records, split_tab};
use super::{Git, Oid, child};
use crate::error::{Context, Error, Result};
use crate::repo_path::RepoPath;

/// Lists what git tracks, or would track.
const LIST_ALL: [&str; 6] = ["ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard"];

/// What git records about a path besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link.
    Link,
    /// A submodule.
    Submodule,
}

/// A path in git's index or in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitFile {
    /// What it is.
    pub mode: Mode,
    /// Its blob; of a submodule, its commit.
    pub blob: Oid,
}

/// Files by path.
pub type GitFiles = BTreeMap<RepoPath, GitFile>;

impl Mode {
    fn from_raw(mode: u32) -> Option<Mode> {
        match mode {
            0o100_644 => Some(Mode::File),
            0o100_755 => Some(Mode::Executable),
            0o120_000 => Some(Mode::Link),
            0o160_000 => Some(Mode::Submodule),
            _ => None,
        }
    }
}

impl Git {
    /// Files of the index at or below these paths. Of an unmerged path, our side.
    pub fn index_files(&self, below: &[RepoPath]) -> Result<GitFiles> {
        if let Some(found) = self.lib.as_ref().and_then(|lib| index_files_lib(lib, below)) {
            return found;
        }
        let listed = self.git(["ls-files", "-s", "-z", "--full-name", "--"]).paths(below).output()?;
        // `<mode> <id> <stage>\t<path>`
        parse(&listed, 1)
    }

    /// Files of a commit at or below these paths.
    pub fn commit_files(&self, commit: &Oid, below: &[RepoPath]) -> Result<GitFiles> {
        let tree =
            self.git(["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit.as_str(), "--"]);
        // `<mode> <type> <id>\t<path>`
        let listed = tree.args(below.iter().map(RepoPath::as_str)).output()?;
        parse(&listed, 2)
    }

    /// Tracked paths, at or below these, whose worktree file may differ from the index: with the mode that it has now, or
    /// `None` where it is gone. Never reads a file.
    pub fn changed_files(&self, below: &[RepoPath]) -> Result<Vec<(RepoPath, Option<Mode>)>> {
        let args = ["diff-files", "--raw", "-z", "--no-ext-diff", "--diff-filter=ADMT", "--"];
        let listed = self.git(args).at_top(self)?.paths(below).output()?;
        // `:<old mode> <new mode> <old id> <new id> <status>`, then the path.
        let mut fields = records(&listed);
        let mut changed = Vec::new();
        while let (Some(head), Some(path)) = (fields.next(), fields.next()) {
            let head = String::from_utf8_lossy(head);
            let mode = head.split(' ').nth(1).and_then(|mode| u32::from_str_radix(mode, 8).ok());
            changed.push((RepoPath::from_bytes(path)?, mode.and_then(Mode::from_raw)));
        }
        Ok(changed)
    }

    /// Whether the worktree or the index differs from a commit at or below any of these paths.
    pub fn differs_from(&self, commit: &Oid, below: &[RepoPath]) -> Result<bool> {
        let args = ["diff", "--quiet", "--no-ext-diff", commit.as_str(), "--"];
        let output = self.git(args).at_top(self)?.paths(below).run()?;
        match output.status.code() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(child::failure("git diff", &output)),
        }
    }

    /// The blobs that `git add` would make of these files, in their order. [`Git::blob`] can read them, while the repository
    /// itself stays as it is: they go into a scratch folder that lives as long as this value.
    pub fn hash_files(&self, paths: &[RepoPath]) -> Result<Vec<Oid>> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let input = paths.iter().flat_map(|path| input_line(path).into_bytes()).collect();
        let hash = self.git(["hash-object", "-w", "--stdin-paths"]).at_top(self)?;
        let hash = hash.objects(self.scratch()?, &self.object_dirs()).input(input);
        let output = hash.output()?;
        let ids: Vec<Oid> = String::from_utf8_lossy(&output).lines().map(Oid::new).collect::<Result<_>>()?;
        match ids.len() == paths.len() {
            true => Ok(ids),
            false => Err(Error::new("git hash-object: unexpected answer")),
        }
    }

    /// The folder for objects that are only looked at.
    fn scratch(&self) -> Result<&Path> {
        if let Some(scratch) = self.scratch.get() {
            return Ok(scratch.path());
        }
        let dir = std::env::temp_dir();
        let scratch =
            tempfile::Builder::new().prefix("git-model-").tempdir().context(&dir, "create a folder in")?;
        if let Some(lib) = &self.lib
            && let (Ok(odb), Some(path)) = (lib.odb(), scratch.path().to_str())
        {
            // Where libgit2 cannot take it, `git cat-file` reads what is in there.
            drop(odb.add_disk_alternate(path));
        }
        Ok(self.scratch.get_or_init(|| scratch).path())
    }

    /// Where this repository's objects are, as the environment says it.
    fn object_dirs(&self) -> Vec<OsString> {
        let own = std::env::var_os("GIT_OBJECT_DIRECTORY");
        let own = own.unwrap_or_else(|| quoted(&self.common_dir.join("objects")));
        std::iter::once(own).chain(std::env::var_os("GIT_ALTERNATE_OBJECT_DIRECTORIES")).collect()
    }

    /// `git cat-file`, which also sees what [`Git::hash_files`] made.
    pub(super) fn cat_file(&self, args: [&str; 2]) -> child::Child {
        let child = self.git(["cat-file"]).args(args);
        match self.scratch.get() {
            None => child,
            Some(scratch) => {
                let more = std::env::var_os("GIT_ALTERNATE_OBJECT_DIRECTORIES");
                child.alternates(&std::iter::once(quoted(scratch.path())).chain(more).collect::<Vec<_>>())
            }
        }
    }

    /// Paths at or below these that git does not track and that no pattern ignores. A repository inside is one path.
    pub fn untracked_files(&self, below: &[RepoPath]) -> Result<Vec<RepoPath>> {
        if below.is_empty() {
            return Ok(Vec::new());
        }
        let list = self.git(["ls-files", "-z", "--full-name", "--others", "--exclude-standard", "--"]);
        let listed = list.at_top(self)?.paths(below).output()?;
        records(&listed).map(|path| RepoPath::from_bytes(path.strip_suffix(b"/").unwrap_or(path))).collect()
    }

    /// Paths of files of this name, anywhere: in the index, or in the worktree where no pattern ignores them.
    pub fn find_by_name(&self, name: &str) -> Result<Vec<RepoPath>> {
        let patterns = [format!(":(top,literal){name}"), format!(":(top,glob)**/{name}")];
        let list = self.git(LIST_ALL).at_top(self)?;
        let listed = list.args(["--"]).args(patterns.iter().map(String::as_str)).output()?;
        let mut found: Vec<RepoPath> = records(&listed).map(RepoPath::from_bytes).collect::<Result<_>>()?;
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Every file that git tracks, or would track.
    pub fn list_files(&self) -> Result<Vec<RepoPath>> {
        let listed = self.git(LIST_ALL).at_top(self)?.output()?;
        // Names that could not be declared are no use here.
        Ok(records(&listed).filter_map(|path| RepoPath::from_bytes(path).ok()).collect())
    }

    /// Paths of files of this name in a commit.
    pub fn find_in_commit(&self, commit: &Oid, name: &str) -> Result<Vec<RepoPath>> {
        let args = ["ls-tree", "-r", "-z", "--full-tree", "--name-only", commit.as_str()];
        let listed = self.git(args).output()?;
        let suffix = format!("/{name}");
        records(&listed)
            .filter(|path| *path == name.as_bytes() || path.ends_with(suffix.as_bytes()))
            .map(RepoPath::from_bytes)
            .collect()
    }
}

/// A path as a line that git reads: one that starts with a quote would be taken for a quoted one.
fn input_line(path: &RepoPath) -> String {
    match path.as_str().starts_with('"') {
        // Paths hold neither backslashes nor control characters.
        true => format!("\"{}\"\n", path.as_str().replace('"', "\\\"")),
        false => format!("{path}\n"),
    }
}

/// A folder as one entry of a list that is split at colons.
fn quoted(dir: &Path) -> OsString {
    match dir.to_str() {
        Some(text) if text.contains(':') || text.starts_with('"') => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into()
        }
        _ => dir.as_os_str().to_owned(),
    }
}

/// Splits git's records into paths and the words before the tab: the mode is the first, the id the one at `id_at`.
fn parse(listed: &[u8], id_at: usize) -> Result<GitFiles> {
    let mut files = GitFiles::new();
    for record in records(listed) {
        let Some((head, path)) = split_tab(record) else { continue };
        let words: Vec<&str> = head.split(' ').collect();
        let (Some(mode), Some(id)) = (words.first(), words.get(id_at)) else { continue };
        let mode = u32::from_str_radix(mode, 8).ok().and_then(Mode::from_raw);
        let Some(mode) = mode else { continue };
        files.insert(RepoPath::from_bytes(path)?, GitFile { mode, blob: Oid::new(id)? });
    }
    Ok(files)
}

/// `None` when libgit2 cannot read this index.
fn index_files_lib(lib: &git2::Repository, below: &[RepoPath]) -> Option<Result<GitFiles>> {
    let index = current_index(lib)?;
    let wanted = |path: &[u8]| {
        below.iter().any(|top| {
            let rest = path.strip_prefix(top.as_str().as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    };
    let files = index.iter().filter(|entry| wanted(&entry.path)).filter_map(|entry| {
        let mode = Mode::from_raw(entry.mode)?;
        let file = || {
            Ok((RepoPath::from_bytes(&entry.path)?, GitFile { mode, blob: Oid::new(&entry.id.to_string())? }))
        };
        Some(file())
    });
    Some(files.collect())
}
