//! What a model's declared paths hold: files of git by the bytes of their blobs, artifacts by their pointers.

use std::collections::BTreeMap;

use super::Ctx;
use super::artifacts::check_path;
use super::fetch::listing;
use super::models::{Place, lineage_path};
use crate::error::{Error, Result};
use crate::fsio::Kind;
use crate::git::files::{GitFile, GitFiles, Mode};
use crate::human;
use crate::id::Digest;
use crate::lineage::{self, FileEntry};
use crate::model_yaml::{Model, Role, Source};
use crate::pointer::{self, Content, Pointer};
use crate::repo_path::RepoPath;
use crate::values;
use crate::worktree::Root;

/// Files that git itself holds are read whole; larger ones belong outside of git.
const MAX_GIT_FILE: u64 = 100 * 1024 * 1024;
/// What a file that Git LFS holds starts with.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What is at the declared paths of one version.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// By role, sorted by path.
    pub files: BTreeMap<Role, Vec<FileEntry>>,
    /// Data snapshots that are tracked here, by name.
    pub data: BTreeMap<String, FileEntry>,
    /// The artifacts among all of these.
    pub artifacts: Vec<(RepoPath, Pointer)>,
    /// Declared files of the worktree that git does not know yet. They are recorded.
    pub untracked: Vec<RepoPath>,
    /// Files in declared directories that git does not know, so that they are no part of the version.
    pub left_out: Vec<RepoPath>,
}

impl Declared {
    /// The files of a role.
    pub(super) fn role(&self, role: Role) -> &[FileEntry] {
        self.files.get(&role).map_or(&[], Vec::as_slice)
    }
}

/// Every path that git must be asked about to resolve the declared ones.
pub(super) fn paths_of(model: &Model) -> Vec<RepoPath> {
    let declared = Role::ALL.iter().flat_map(|role| model.files(*role));
    let data = model.data.iter().filter_map(|data| match &data.source {
        Source::Path(path) => Some(path),
        _ => None,
    });
    let mut paths = Vec::new();
    for path in declared.chain(data) {
        paths.push(path.clone());
        let mut dir = Some(path.clone());
        while let Some(path) = dir {
            paths.push(path.pointer());
            dir = path.parent();
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// What a training reads, besides data.
pub(super) const INPUTS: [Role; 3] = [Role::Code, Role::Config, Role::Environment];

/// Looks up what the model declares for these roles, and its data.
///
/// An evaluation report that is not there yet is no mistake; anything else that is missing is.
pub(super) fn look_up(ctx: &Ctx, model: &Model, place: Place<'_>, roles: &[Role]) -> Result<Declared> {
    let paths = paths_of(model);
    let mut declared = Declared::default();
    let files = match place {
        Place::Commit(commit) => ctx.git.commit_files(commit, &paths)?,
        Place::Worktree => {
            let files = worktree_files(ctx, model, &paths, &mut declared.untracked)?;
            declared.left_out = left_out(ctx, model, roles, &files)?;
            files
        }
    };
    let mut finder = Finder { ctx, model, place, files: &files, artifacts: BTreeMap::new() };
    let record = lineage_path(model)?;
    for &role in roles {
        let mut entries = Vec::new();
        for path in model.files(role) {
            if *path == record {
                return Err(finder
                    .refuse(role.key(), path, "the record itself, which cannot hold its own digest")
                    .hint("leave it out; git model record writes it"));
            }
            if role == Role::Evaluation && !finder.exists(path) {
                continue;
            }
            entries.extend(finder.find(role.key(), path)?);
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        if !entries.is_empty() {
            declared.files.insert(role, entries);
        }
    }
    for data in &model.data {
        let Source::Path(path) = &data.source else { continue };
        let what = format!("data `{}`", data.name);
        let mut entries = finder.find(&what, path)?;
        let [_only] = &entries[..] else {
            return Err(finder
                .refuse(&what, path, "a directory in git itself")
                .hint(format!("git model add {}", human::shell_quote(path.as_str()))));
        };
        declared.data.insert(data.name.clone(), entries.remove(0));
    }
    declared.artifacts = finder.artifacts.into_iter().collect();
    Ok(declared)
}

/// Files as the next commit would have them if everything at these paths were added.
fn worktree_files(
    ctx: &Ctx,
    model: &Model,
    paths: &[RepoPath],
    untracked: &mut Vec<RepoPath>,
) -> Result<GitFiles> {
    let root = ctx.root()?;
    let mut files = ctx.git.index_files(paths)?;
    let mut modes = Vec::new();
    for (path, mode) in ctx.git.changed_files(paths)? {
        match mode {
            Some(mode @ (Mode::File | Mode::Executable)) => modes.push((path, mode)),
            Some(mode) => drop(files.get_mut(&path).map(|file| file.mode = mode)),
            None => drop(files.remove(&path)),
        }
    }
    for path in paths.iter().filter(|path| !files.contains_key(*path)) {
        // An artifact's content is not for git, whatever its pointer's state.
        let is_content = files.contains_key(&path.pointer()) || root.stat(&path.pointer())?.is_some();
        if is_content {
            continue;
        }
        let mode = match root.stat(path)?.map(|stat| stat.kind) {
            Some(Kind::File) => Mode::File,
            Some(Kind::Executable) => Mode::Executable,
            _ => continue,
        };
        modes.push((path.clone(), mode));
        untracked.push(path.clone());
    }
    refuse_in_submodules(ctx, model, untracked)?;
    let changed: Vec<RepoPath> = modes.iter().map(|(path, _)| path.clone()).collect();
    changed.iter().try_for_each(|path| check_readable(&root, model, path))?;
    for ((path, mode), blob) in modes.into_iter().zip(ctx.git.hash_files(&changed)?) {
        files.insert(path, GitFile { mode, blob });
    }
    Ok(files)
}

/// Files in declared directories of the worktree that git neither tracks nor ignores: a command may read them, and no commit
/// would bring them back.
pub(super) fn untracked_inside(ctx: &Ctx, model: &Model) -> Result<Vec<RepoPath>> {
    let files = ctx.git.index_files(&paths_of(model))?;
    left_out(ctx, model, &Role::ALL, &files)
}

fn left_out(ctx: &Ctx, model: &Model, roles: &[Role], files: &GitFiles) -> Result<Vec<RepoPath>> {
    let root = ctx.root()?;
    // What is in an artifact is its content, and not for git.
    let in_artifact = |path: &RepoPath| {
        let mut above = std::iter::successors(Some(path.clone()), RepoPath::parent);
        above.any(|above| files.contains_key(&above.pointer()))
    };
    let mut dirs = Vec::new();
    for path in roles.iter().flat_map(|role| model.files(*role)) {
        if !in_artifact(path) && root.stat(path)?.is_some_and(|stat| stat.kind == Kind::Tree) {
            dirs.push(path.clone());
        }
    }
    let mut found = ctx.git.untracked_files(&dirs)?;
    found.retain(|path| !is_own(path) && !in_artifact(path));
    found.dedup();
    Ok(found)
}

/// Whether git-model writes this file itself: a record that held its own digest could never be right.
fn is_own(path: &RepoPath) -> bool {
    matches!(path.name(), ".gitignore" | lineage::FILE_NAME)
}

/// Another repository's files are in no commit of this one.
fn refuse_in_submodules(ctx: &Ctx, model: &Model, untracked: &[RepoPath]) -> Result<()> {
    let parents: Vec<RepoPath> = untracked.iter().filter_map(RepoPath::parent).collect();
    if parents.is_empty() {
        return Ok(());
    }
    let tops: Vec<RepoPath> =
        parents.iter().flat_map(|path| std::iter::successors(Some(path.clone()), RepoPath::parent)).collect();
    let files = ctx.git.index_files(&tops)?;
    for path in untracked {
        let mut above = std::iter::successors(path.parent(), RepoPath::parent);
        if above.any(|dir| files.get(&dir).is_some_and(|file| file.mode == Mode::Submodule)) {
            let (declaration, shown) = (human::escape(model.path.as_str()), human::escape(path.as_str()));
            return Err(Error::new(format!("{declaration}: {shown}: in a submodule"))
                .hint("name files of this repository"));
        }
    }
    Ok(())
}

/// Refuses what git would have to read and keep whole, or could wait for, before it does.
fn check_readable(root: &Root, model: &Model, path: &RepoPath) -> Result<()> {
    let is_report = model.files(Role::Evaluation).contains(path);
    let most = if is_report { values::MAX_BYTES } else { MAX_GIT_FILE };
    let Some(stat) = root.stat(path)? else { return Ok(()) };
    if stat.kind == Kind::Special {
        let shown = human::escape(path.as_str());
        return Err(Error::new(format!("{shown}: neither a file nor a directory"))
            .hint("replace it by a regular file"));
    }
    if stat.size <= most {
        return Ok(());
    }
    let hint = match is_report {
        true => "keep metrics in the report, and everything else in files of their own".to_owned(),
        false => format!("git model add {}", human::shell_quote(path.as_str())),
    };
    let shown = human::escape(path.as_str());
    Err(Error::new(format!("{shown}: larger than {}", human::bytes(most))).hint(hint))
}

struct Finder<'a> {
    ctx: &'a Ctx,
    model: &'a Model,
    place: Place<'a>,
    files: &'a GitFiles,
    artifacts: BTreeMap<RepoPath, Pointer>,
}

impl Finder<'_> {
    /// The files that a declared path stands for.
    fn find(&mut self, what: &str, path: &RepoPath) -> Result<Vec<FileEntry>> {
        check_path(path)?;
        if let Some(file) = self.files.get(&path.pointer()) {
            let pointer = self.pointer(path, file)?;
            return Ok(vec![of_pointer(path, &pointer)]);
        }
        if let Some(file) = self.files.get(path) {
            return Ok(vec![self.git_file(what, path, file)?]);
        }
        let mut dir = path.parent();
        while let Some(artifact) = dir {
            if let Some(file) = self.files.get(&artifact.pointer()) {
                return self.inside(what, &artifact, file, path);
            }
            dir = artifact.parent();
        }
        let below: Vec<_> = self.files.iter().filter(|(file, _)| file.is_within(path)).collect();
        let mut entries = Vec::new();
        for (file_path, file) in below {
            match file_path.artifact() {
                _ if is_own(file_path) => {}
                Some(artifact) => {
                    let pointer = self.pointer(&artifact, file)?;
                    entries.push(of_pointer(&artifact, &pointer));
                }
                None => entries.push(self.git_file(what, file_path, file)?),
            }
        }
        match entries.is_empty() {
            true => Err(self.missing(what, path)),
            false => Ok(entries),
        }
    }

    fn exists(&self, path: &RepoPath) -> bool {
        self.files.contains_key(path) || self.files.contains_key(&path.pointer())
    }

    fn pointer(&mut self, artifact: &RepoPath, file: &GitFile) -> Result<Pointer> {
        let bytes = self.ctx.git.blob(&file.blob, 4 * pointer::MAX_BYTES)?;
        let pointer = Pointer::parse(&bytes, artifact.pointer().as_str())?;
        self.artifacts.insert(artifact.clone(), pointer);
        Ok(pointer)
    }

    fn git_file(&self, what: &str, path: &RepoPath, file: &GitFile) -> Result<FileEntry> {
        match file.mode {
            Mode::File | Mode::Executable => {}
            Mode::Link => {
                return Err(self.refuse(what, path, "a symbolic link").hint("name what it leads to"));
            }
            Mode::Submodule => {
                return Err(self.refuse(what, path, "a submodule").hint("name files of this repository"));
            }
        }
        let bytes = self.ctx.git.blob(&file.blob, MAX_GIT_FILE).map_err(|error| {
            let hint =
                format!("git rm --cached it, then git model add {}", human::shell_quote(path.as_str()));
            self.refuse(what, path, "cannot be read").caused_by(error).hint(hint)
        })?;
        if bytes.starts_with(LFS) {
            let hint =
                format!("git lfs untrack it, then git model add {}", human::shell_quote(path.as_str()));
            return Err(self.refuse(what, path, "held by Git LFS").hint(hint));
        }
        Ok(FileEntry {
            path: path.clone(),
            sha256: Digest::of(&bytes),
            size: bytes.len() as u64,
            executable: file.mode == Mode::Executable,
            files: None,
        })
    }

    /// What is at `path`, which lies inside a directory artifact.
    fn inside(
        &mut self,
        what: &str,
        artifact: &RepoPath,
        file: &GitFile,
        path: &RepoPath,
    ) -> Result<Vec<FileEntry>> {
        let pointer = self.pointer(artifact, file)?;
        if !pointer.is_tree() {
            return Err(self.missing(what, path));
        }
        let relative = &path.as_str()[artifact.as_str().len() + 1..];
        let mut entries = Vec::new();
        for entry in
            listing(self.ctx, &pointer, &mut Vec::new()).map_err(|error| error.about(path.as_str()))?
        {
            let below = entry
                .path
                .strip_prefix(relative)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            match entry.kind {
                _ if !below => {}
                Kind::File | Kind::Executable => entries.push(FileEntry {
                    path: artifact.join(&entry.path)?,
                    sha256: entry.digest,
                    size: entry.size,
                    executable: entry.kind == Kind::Executable,
                    files: None,
                }),
                Kind::Link => {
                    return Err(self.refuse(what, path, "a symbolic link").hint("name what it leads to"));
                }
                _ => {}
            }
        }
        if entries.is_empty() { Err(self.missing(what, path)) } else { Ok(entries) }
    }

    fn refuse(&self, what: &str, path: &RepoPath, why: &str) -> Error {
        let (declaration, path) = (human::escape(self.model.path.as_str()), human::escape(path.as_str()));
        Error::new(format!("{declaration}: {what}: {path}: {why}"))
    }

    fn missing(&self, what: &str, path: &RepoPath) -> Error {
        let found = match self.place {
            Place::Worktree => self.ctx.root().and_then(|root| root.stat(path)).ok().flatten(),
            Place::Commit(_) => None,
        };
        let quoted = human::shell_quote(path.as_str());
        match found.map(|stat| stat.kind) {
            Some(Kind::Link) => self.refuse(what, path, "a symbolic link").hint("name what it leads to"),
            Some(Kind::Special) => {
                self.refuse(what, path, "neither a file nor a directory").hint("replace it by a regular file")
            }
            Some(Kind::Tree) => self
                .refuse(what, path, "a directory in which git tracks no file, and no artifact")
                .hint(format!("git add {quoted}, or git model add {quoted}")),
            _ => self
                .refuse(what, path, "there is no such file in git, and no artifact")
                .hint(format!("git add it, or git model add {quoted}, or correct the path")),
        }
    }
}

fn of_pointer(path: &RepoPath, pointer: &Pointer) -> FileEntry {
    let (executable, files) = match pointer.content {
        Content::File { executable } => (executable, None),
        Content::Tree { files } => (false, Some(files)),
    };
    FileEntry { path: path.clone(), sha256: pointer.digest, size: pointer.size, executable, files }
}
