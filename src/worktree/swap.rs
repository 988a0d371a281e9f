//! Swapping complete new files in for old ones, with a journal, so that an interrupted swap is finished later.
//!
//! Each step says what it expects to replace. What turns out different was changed by somebody meanwhile and is left
//! alone, so nothing but the content that was meant is ever replaced or removed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::Staging;
use super::root::{Root, stat_at, sync_fd};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, FileStat, Kind};
use crate::repo_path::RepoPath;

/// How the names of journals in a worktree's `model` directory begin. Each swap has its own.
const JOURNAL: &str = "journal-";

/// The journals of swaps that are under way or were interrupted.
pub fn journals(model_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(model_dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(JOURNAL.as_bytes()))
        .map(|entry| entry.path())
        .collect()
}

/// What must be at a path before a step touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    size: u64,
    mtime: i64,
    ino: u64,
}

impl Before {
    /// Expects exactly this file.
    pub fn file(stat: &FileStat) -> Before {
        Before { size: stat.size, mtime: stat.mtime, ino: stat.ino }
    }
}

/// One step of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a directory.
    MakeDir {
        /// Where.
        dest: RepoPath,
    },
    /// Rename a complete staged file or directory to its place.
    Place {
        /// The staged file or directory.
        staged: PathBuf,
        /// Its place.
        dest: RepoPath,
        /// The file that it replaces; `None` where there must be nothing.
        before: Option<Before>,
    },
    /// Remove a file or link.
    Remove {
        /// Which.
        dest: RepoPath,
        /// What it must be.
        before: Before,
    },
    /// Remove a directory if it is empty.
    RemoveDir {
        /// Which.
        dest: RepoPath,
    },
}

/// The content that an artifact has once all steps are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The artifact.
    pub path: String,
    /// The pointer's digest, in hex.
    pub digest: String,
    /// Whether it is a directory.
    pub is_tree: bool,
    /// The pointer's size.
    pub size: u64,
    /// Number of files.
    pub files: u64,
}

/// A step as a line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Line {
    Version(u32),
    Outcome(Outcome),
    MakeDir { dest: String },
    Place { staged: PathBuf, dest: String, before: Option<Before> },
    Remove { dest: String, before: Before },
    RemoveDir { dest: String },
}

/// What a swap did.
#[derive(Debug, Default)]
pub struct Swapped {
    /// Paths that were left alone because somebody changed them meanwhile.
    pub changed_meanwhile: Vec<RepoPath>,
}

/// Carries out the steps of all artifacts: syncs what is staged, writes the journal, swaps, removes the journal.
///
/// After an error or a crash in the swap itself, [`finish`] goes on from where it stopped.
pub fn swap(root: &Root, staging: &Staging, steps: &[Step], outcomes: Vec<Outcome>) -> Result<Swapped> {
    let durability = staging.durability();
    if steps.is_empty() {
        return Ok(Swapped::default());
    }
    sync_staged(steps, staging)?;
    let journal = staging.model_dir().join(format!("{JOURNAL}{}", uuid::Uuid::new_v4().simple()));
    let mut text = serde_json::to_vec(&Line::Version(1)).expect("plain data");
    for line in outcomes.into_iter().map(Line::Outcome).chain(steps.iter().map(to_line)) {
        text.push(b'\n');
        serde_json::to_writer(&mut text, &line).expect("plain data");
    }
    text.push(b'\n');
    fsio::write_atomic(&journal, &text, durability)?;
    let swapped = run(root, steps, durability)?;
    remove_journal(&journal, durability)?;
    Ok(swapped)
}

/// Finishes swaps that were interrupted, and returns what they lead to.
///
/// A swap that another process is just doing is none the worse for it: every step is done once, by whoever comes first.
pub fn finish(root: &Root, model_dir: &Path, durability: Durability) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for journal in journals(model_dir) {
        let bytes = match fs::read(&journal) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(&journal, "read"),
        };
        let (leads_to, steps) = parse_journal(&bytes).map_err(|error| {
            error
                .about(format!("{}: not a journal of this version", journal.display()))
                .hint("if no git-model is running, remove it and run git model sync")
        })?;
        // What somebody changed since is left alone, and shows as modified.
        run(root, &steps, durability)?;
        remove_journal(&journal, durability)?;
        outcomes.extend(leads_to);
    }
    Ok(outcomes)
}

fn parse_journal(bytes: &[u8]) -> Result<(Vec<Outcome>, Vec<Step>)> {
    let damaged = |error: serde_json::Error| Error::new("it is damaged").caused_by(error);
    let mut lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    match lines.next().map(serde_json::from_slice) {
        Some(Ok(Line::Version(1))) => {}
        _ => return Err(Error::new("its header is unknown")),
    }
    let (mut outcomes, mut steps) = (Vec::new(), Vec::new());
    for line in lines {
        match serde_json::from_slice(line).map_err(damaged)? {
            Line::Outcome(outcome) => outcomes.push(outcome),
            line => steps.push(from_line(line)?),
        }
    }
    Ok((outcomes, steps))
}

fn remove_journal(journal: &Path, durability: Durability) -> Result<()> {
    match fs::remove_file(journal) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(journal, "remove");
        }
        _ => {}
    }
    journal.parent().map_or(Ok(()), |dir| durability.sync_dir(dir))
}

fn to_line(step: &Step) -> Line {
    let text = |path: &RepoPath| path.as_str().to_owned();
    match step {
        Step::MakeDir { dest } => Line::MakeDir { dest: text(dest) },
        Step::Place { staged, dest, before } => {
            Line::Place { staged: staged.clone(), dest: text(dest), before: *before }
        }
        Step::Remove { dest, before } => Line::Remove { dest: text(dest), before: *before },
        Step::RemoveDir { dest } => Line::RemoveDir { dest: text(dest) },
    }
}

fn from_line(line: Line) -> Result<Step> {
    Ok(match line {
        Line::Version(_) | Line::Outcome(_) => return Err(Error::new("journal: not a step")),
        Line::MakeDir { dest } => Step::MakeDir { dest: RepoPath::new(&dest)? },
        Line::Place { staged, dest, before } => Step::Place { staged, dest: RepoPath::new(&dest)?, before },
        Line::Remove { dest, before } => Step::Remove { dest: RepoPath::new(&dest)?, before },
        Line::RemoveDir { dest } => Step::RemoveDir { dest: RepoPath::new(&dest)? },
    })
}

/// Makes everything staged durable, with its names: files, then their directories, then those of the staging area.
fn sync_staged(steps: &[Step], staging: &Staging) -> Result<()> {
    let durability = staging.durability();
    if durability == Durability::Off {
        return Ok(());
    }
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    for step in steps {
        if let Step::Place { staged, .. } = step {
            collect_staged(staged, &mut files, &mut dirs)?;
        }
    }
    fsio::sync_files(&files, durability)?;
    fsio::sync_dirs(&dirs, durability)?;
    staging.dirs().iter().try_for_each(|dir| durability.sync_dir(dir))
}

fn collect_staged(path: &Path, files: &mut Vec<PathBuf>, dirs: &mut Vec<PathBuf>) -> Result<()> {
    let metadata = fs::symlink_metadata(path).context(path, "read")?;
    if metadata.is_file() {
        files.push(path.to_path_buf());
    } else if metadata.is_dir() {
        for entry in fs::read_dir(path).context(path, "list")? {
            collect_staged(&entry.context(path, "list")?.path(), files, dirs)?;
        }
        dirs.push(path.to_path_buf());
    }
    Ok(())
}

/// Runs steps, each of which does nothing where it was done already.
fn run(root: &Root, steps: &[Step], durability: Durability) -> Result<Swapped> {
    let mut swapped = Swapped::default();
    // Each directory is synced once, at the end.
    let mut touched = Touched::default();
    for step in steps {
        let (dest, done) = match step {
            Step::MakeDir { dest } => (dest, root.make_dir(dest, durability).map(|_| true)?),
            Step::Place { staged, dest, before } => {
                (dest, place(root, &mut touched, staged, dest, before.as_ref(), durability)?)
            }
            Step::Remove { dest, before } => (dest, remove(root, &mut touched, dest, before)?),
            Step::RemoveDir { dest } => (dest, root.remove_empty_dir(dest).map(|_| true)?),
        };
        if !done {
            swapped.changed_meanwhile.push(dest.clone());
        }
    }
    touched.sync(root, durability)?;
    Ok(swapped)
}

/// Directories that a swap touches, opened once each.
#[derive(Default)]
struct Touched(HashMap<Option<RepoPath>, OwnedFd>);

impl Touched {
    fn parent(
        &mut self,
        dest: &RepoPath,
        open: impl FnOnce() -> Result<Option<OwnedFd>>,
    ) -> Result<Option<&OwnedFd>> {
        Ok(match self.0.entry(dest.parent()) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => open()?.map(|fd| &*entry.insert(fd)),
        })
    }

    fn sync(&self, root: &Root, durability: Durability) -> Result<()> {
        for (dir, fd) in &self.0 {
            let shown = dir.as_ref().map_or_else(|| root.path().to_path_buf(), |dir| root.full(dir));
            sync_fd(fd, durability).context(shown, "sync the directory")?;
        }
        Ok(())
    }
}

fn place(
    root: &Root,
    touched: &mut Touched,
    staged: &Path,
    dest: &RepoPath,
    before: Option<&Before>,
    durability: Durability,
) -> Result<bool> {
    let Some(parent) = touched.parent(dest, || root.make_parent(dest, durability).map(Some))? else {
        return Ok(false);
    };
    if fs::symlink_metadata(staged).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        // An earlier run renamed it already.
        return Ok(true);
    }
    let found = stat_at(parent, OsStr::new(dest.name())).context(root.full(dest), "read")?;
    if found.map(|stat| Before::file(&stat)).as_ref() != before {
        return Ok(false);
    }
    match rename_into(staged, parent, dest.name(), before.is_none()) {
        Ok(()) => Ok(true),
        // It appeared between the look and the rename.
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(errno).context(root.full(dest), "swap in"),
    }
}

/// Renames; where there must be nothing, the file system itself sees to it if it can.
fn rename_into(staged: &Path, parent: &OwnedFd, name: &str, to_nothing: bool) -> rustix::io::Result<()> {
    #[cfg(target_os = "linux")]
    if to_nothing {
        match rustix::fs::renameat_with(CWD, staged, parent, name, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return done,
        }
    }
    rustix::fs::renameat(CWD, staged, parent, name)
}

fn remove(root: &Root, touched: &mut Touched, dest: &RepoPath, before: &Before) -> Result<bool> {
    let Some(parent) = touched.parent(dest, || root.parent(dest))? else { return Ok(true) };
    match stat_at(parent, OsStr::new(dest.name())).context(root.full(dest), "read")? {
        None => Ok(true),
        Some(stat) if stat.kind == Kind::Tree || Before::file(&stat) != *before => Ok(false),
        Some(_) => match rustix::fs::unlinkat(parent, dest.name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(errno).context(root.full(dest), "remove"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        root: Root,
        model: PathBuf,
        staging: Staging,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let (top, model) = (dir.path().join("top"), dir.path().join("model"));
        fs::create_dir(&top).unwrap();
        fs::create_dir(&model).unwrap();
        let staging = Staging::new(&model, Durability::Full).unwrap();
        Fixture { root: Root::open(&top).unwrap(), staging, model, _dir: dir }
    }

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text).unwrap()
    }

    fn staged(fixture: &Fixture, dest: &str, content: &str) -> PathBuf {
        let mut file = fixture.staging.file_for(&fixture.root, &path(dest)).unwrap();
        file.file.write_all(content.as_bytes()).unwrap();
        file.path
    }

    fn before(fixture: &Fixture, dest: &str) -> Before {
        Before::file(&fixture.root.stat(&path(dest)).unwrap().unwrap())
    }

    #[test]
    fn swaps_and_is_a_fixed_point() {
        let f = fixture();
        fs::write(f.root.path().join("old"), "old").unwrap();
        fs::write(f.root.path().join("gone"), "gone").unwrap();
        let steps = vec![
            Step::Place {
                staged: staged(&f, "old", "new"),
                dest: path("old"),
                before: Some(before(&f, "old")),
            },
            Step::MakeDir { dest: path("d/e") },
            Step::Place { staged: staged(&f, "d/e/x", "x"), dest: path("d/e/x"), before: None },
            Step::Remove { dest: path("gone"), before: before(&f, "gone") },
        ];
        assert!(swap(&f.root, &f.staging, &steps, Vec::new()).unwrap().changed_meanwhile.is_empty());
        assert!(
            run(&f.root, &steps, Durability::Full).unwrap().changed_meanwhile.is_empty(),
            "steps repeat harmlessly"
        );
        assert_eq!(fs::read_to_string(f.root.path().join("old")).unwrap(), "new");
        assert_eq!(fs::read_to_string(f.root.path().join("d/e/x")).unwrap(), "x");
        assert!(!f.root.path().join("gone").exists());
        assert!(journals(&f.model).is_empty());
    }

    #[test]
    fn leaves_alone_what_changed_meanwhile() {
        let f = fixture();
        fs::write(f.root.path().join("a"), "planned").unwrap();
        let expected = before(&f, "a");
        fs::write(f.root.path().join("a"), "the user's new work").unwrap();
        fs::write(f.root.path().join("b"), "appeared").unwrap();
        let steps = vec![
            Step::Place { staged: staged(&f, "a", "x"), dest: path("a"), before: Some(expected) },
            Step::Place { staged: staged(&f, "b", "x"), dest: path("b"), before: None },
            Step::Remove { dest: path("a"), before: expected },
        ];
        let swapped = swap(&f.root, &f.staging, &steps, Vec::new()).unwrap();
        assert_eq!(swapped.changed_meanwhile, [path("a"), path("b"), path("a")]);
        assert_eq!(fs::read_to_string(f.root.path().join("a")).unwrap(), "the user's new work");
        assert_eq!(fs::read_to_string(f.root.path().join("b")).unwrap(), "appeared");
    }

    #[test]
    fn symlinked_directories_are_not_entered() {
        let f = fixture();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), f.root.path().join("link")).unwrap();
        let steps = vec![Step::Place { staged: staged(&f, "x", "x"), dest: path("link/x"), before: None }];
        let error = swap(&f.root, &f.staging, &steps, Vec::new()).unwrap_err().one_line();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
