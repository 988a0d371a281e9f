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

use super::journal::Journal;
pub use super::journal::{Outcome, journals};
use super::place::{Staging, remove_beside_of};
use super::root::{Root, rename_to_nothing, stat_at, sync_fd};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability, FileStat, Kind};
use crate::human;
use crate::repo_path::RepoPath;

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

impl Step {
    /// Where it changes something.
    fn dest(&self) -> &RepoPath {
        match self {
            Step::MakeDir { dest }
            | Step::Place { dest, .. }
            | Step::Remove { dest, .. }
            | Step::RemoveDir { dest } => dest,
        }
    }
}

/// A swap whose steps are done, and whose journal is still there.
#[must_use = "its journal stays until the swap is settled"]
#[derive(Debug)]
pub struct Swapped<'a> {
    /// Paths that were left alone because somebody changed them meanwhile.
    pub changed_meanwhile: Vec<RepoPath>,
    journal: Option<Journal<'a>>,
}

impl Swapped<'_> {
    /// Removes the journal. By now the records say what is at each artifact's path: without them and without a journal, what
    /// was just placed would pass for the user's own change.
    pub fn settle(self) -> Result<()> {
        self.journal.map_or(Ok(()), |journal| journal.remove())
    }
}

/// Carries out the steps of all artifacts: syncs what is staged, writes the journal, swaps.
///
/// After an error or a crash, [`finish`] goes on from where it stopped. A step that fails does not keep the others from being
/// done.
pub fn swap<'a>(
    root: &'a Root,
    staging: &'a Staging,
    steps: &[Step],
    outcomes: &[Outcome],
) -> Result<Swapped<'a>> {
    if steps.is_empty() {
        return Ok(Swapped { changed_meanwhile: Vec::new(), journal: None });
    }
    sync_staged(steps, staging)?;
    let durability = staging.durability();
    let journal = Journal::create(staging.model_dir(), root.path(), durability);
    journal.write(outcomes, steps)?;
    let ran = run(root, steps, durability)?;
    if let Some((_, error)) = ran.failed.into_iter().next() {
        return Err(error);
    }
    if let Some(&at) = ran.lost.first() {
        let shown = human::escape(steps[at].dest().as_str());
        return Err(
            Error::new(format!("{shown}: what was to be placed is gone")).hint("run git model sync again")
        );
    }
    let changed_meanwhile = ran.changed.into_iter().map(|at| steps[at].dest().clone()).collect();
    Ok(Swapped { changed_meanwhile, journal: Some(journal) })
}

/// What is left of interrupted swaps that could not be finished.
#[derive(Debug)]
pub struct Stuck {
    /// What still has to change.
    pub dests: Vec<RepoPath>,
    /// Why it cannot.
    pub error: Error,
}

impl Stuck {
    /// Whether it has to do with what is at this path, above or below it.
    pub fn concerns(&self, path: &RepoPath) -> bool {
        self.dests.iter().any(|dest| dest.is_within(path) || path.is_within(dest))
    }
}

/// Finishes swaps that were interrupted. `record` is told what each artifact has now, before the journal goes.
///
/// A swap that another process is just doing is none the worse for it: every step is done once, by whoever comes first.
/// What cannot be done stays in the journal, and everything else is done.
pub fn finish(
    root: &Root,
    model_dir: &Path,
    durability: Durability,
    record: &mut dyn FnMut(&Outcome) -> Result<()>,
) -> Result<Vec<Stuck>> {
    let mut stuck = Vec::new();
    for path in journals(model_dir) {
        let journal = Journal::open(path, model_dir, root.path(), durability);
        let Some((outcomes, steps)) = journal.read()? else { continue };
        let ran = run(root, &steps, durability)?;
        // What somebody changed since is left alone, and shows as modified; so does what stands where a directory should be.
        let failed: Vec<(usize, Error)> =
            ran.failed.into_iter().filter(|(at, _)| !is_in_the_way(root, &steps[*at])).collect();
        let (open, done): (Vec<Outcome>, Vec<Outcome>) = outcomes
            .into_iter()
            .filter(|outcome| !ran.lost.iter().any(|&at| leads_to(&steps[at], outcome)))
            .partition(|outcome| failed.iter().any(|(at, _)| leads_to(&steps[*at], outcome)));
        done.iter().try_for_each(&mut *record)?;
        let Some((first, _)) = failed.first() else {
            journal.remove()?;
            for step in &steps {
                if let Step::Place { staged, .. } = step {
                    remove_beside_of(staged);
                }
            }
            continue;
        };
        // From the first that failed on, in order: later ones may build on it, and those that are done do no harm.
        let is_open = |step: &&Step| !done.iter().any(|outcome| leads_to(step, outcome));
        let rest: Vec<Step> = steps[*first..].iter().filter(is_open).cloned().collect();
        journal.write(&open, &rest)?;
        let dests = failed.iter().map(|(at, _)| steps[*at].dest().clone()).collect();
        stuck.extend(failed.into_iter().next().map(|(_, error)| Stuck { dests, error }));
    }
    Ok(stuck)
}

fn leads_to(step: &Step, outcome: &Outcome) -> bool {
    RepoPath::new(&outcome.path).is_ok_and(|artifact| step.dest().is_within(&artifact))
}

/// Whether something that is no directory stands where this step needs one.
fn is_in_the_way(root: &Root, step: &Step) -> bool {
    let innermost = match step {
        Step::MakeDir { dest } => Some(dest.clone()),
        other => other.dest().parent(),
    };
    std::iter::successors(innermost, RepoPath::parent)
        .any(|dir| matches!(root.stat(&dir), Ok(Some(stat)) if stat.kind != Kind::Tree))
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

/// What running steps came to, by their numbers.
#[derive(Debug, Default)]
struct Ran {
    /// Left alone, because somebody changed what is there.
    changed: Vec<usize>,
    /// What was to be placed is gone, and what it was to replace is still there.
    lost: Vec<usize>,
    /// Could not be done.
    failed: Vec<(usize, Error)>,
}

/// How a step ended.
enum Done {
    Yes,
    Changed,
    Lost,
}

impl Done {
    fn unless_changed(done: bool) -> Done {
        if done { Done::Yes } else { Done::Changed }
    }
}

/// Runs steps, each of which does nothing where it was done already.
fn run(root: &Root, steps: &[Step], durability: Durability) -> Result<Ran> {
    let mut ran = Ran::default();
    let mut touched = Touched::default();
    for (at, step) in steps.iter().enumerate() {
        touched.make_room(root, durability)?;
        let done = match step {
            Step::MakeDir { dest } => root.make_dir(dest, durability).map(|_| Done::Yes),
            Step::Place { staged, dest, before } => {
                place(root, &mut touched, staged, dest, before.as_ref(), durability)
            }
            Step::Remove { dest, before } => {
                remove(root, &mut touched, dest, before).map(Done::unless_changed)
            }
            Step::RemoveDir { dest } => root.remove_empty_dir(dest).map(|_| Done::Yes),
        };
        match done {
            Ok(Done::Yes) => {}
            Ok(Done::Changed) => ran.changed.push(at),
            Ok(Done::Lost) => ran.lost.push(at),
            Err(error) => ran.failed.push((at, error)),
        }
    }
    touched.sync(root, durability)?;
    Ok(ran)
}

/// Directories that a swap touches, opened and synced once each as long as they are few: steps come in the order of paths.
#[derive(Default)]
struct Touched(HashMap<Option<RepoPath>, OwnedFd>);

impl Touched {
    /// Many systems allow a process no more than 256 open files.
    const OPEN: usize = 64;

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

    fn make_room(&mut self, root: &Root, durability: Durability) -> Result<()> {
        if self.0.len() >= Self::OPEN {
            self.sync(root, durability)?;
            self.0.clear();
        }
        Ok(())
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
) -> Result<Done> {
    let Some(parent) = touched.parent(dest, || root.make_parent(dest, durability).map(Some))? else {
        return Ok(Done::Changed);
    };
    let found = stat_at(parent, OsStr::new(dest.name())).context(root.full(dest), "read")?;
    let as_before = found.map(|stat| Before::file(&stat)).as_ref() == before;
    match (is_gone(staged), as_before) {
        // Somebody renamed it already: an earlier run, or one beside this.
        (true, false) => return Ok(Done::Yes),
        (true, true) => return Ok(Done::Lost),
        (false, false) => return Ok(Done::Changed),
        (false, true) => {}
    }
    let renamed = match before {
        None => rename_to_nothing(CWD, staged, parent, dest.name()),
        Some(_) => rustix::fs::renameat(CWD, staged, parent, dest.name()),
    };
    match renamed {
        Ok(()) => Ok(Done::Yes),
        // Another process did it between the look and the rename, or the directory went.
        Err(Errno::NOENT) => Ok(Done::unless_changed(is_gone(staged))),
        // It appeared between the look and the rename.
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Done::Changed),
        Err(errno) => Err(errno).context(root.full(dest), "swap in"),
    }
}

fn is_gone(staged: &Path) -> bool {
    fs::symlink_metadata(staged).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
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
        let swapped = swap(&f.root, &f.staging, &steps, &[]).unwrap();
        assert!(swapped.changed_meanwhile.is_empty());
        assert_eq!(journals(&f.model).len(), 1);
        swapped.settle().unwrap();
        assert!(
            run(&f.root, &steps, Durability::Full).unwrap().changed.is_empty(),
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
        let swapped = swap(&f.root, &f.staging, &steps, &[]).unwrap();
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
        let error = swap(&f.root, &f.staging, &steps, &[]).unwrap_err().one_line();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
