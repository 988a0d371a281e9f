//! Listing what is on disk at an artifact's path, on all cores, without reading any content.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use rayon::slice::ParallelSliceMut;
use rustix::fs::{Dir, Mode, OFlags};

use super::root::{Root, stat_at};
use crate::error::{Context, Error, Result};
use crate::fsio::{FileStat, Kind};
use crate::repo_path::{RepoPath, check_name};

/// One thing on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Path relative to the artifact; empty for the artifact itself.
    pub path: String,
    /// Its stat.
    pub stat: FileStat,
}

/// What is on disk at an artifact's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The artifact itself.
    pub top: FileStat,
    /// Everything below it if it is a directory, else the file alone with an empty path; sorted by path bytes.
    pub entries: Vec<Scanned>,
}

impl Scan {
    /// Whether the artifact is a directory.
    pub fn is_tree(&self) -> bool {
        self.top.kind == Kind::Tree
    }
}

/// Lists the artifact at `path`. `None` when there is nothing.
///
/// Names that cannot be kept are an error that names the path.
pub fn scan(root: &Root, path: &RepoPath) -> Result<Option<Scan>> {
    let Some(top) = root.stat(path)? else { return Ok(None) };
    if top.kind != Kind::Tree {
        let entry = Scanned { path: String::new(), stat: top };
        return Ok(Some(Scan { top, entries: vec![entry] }));
    }
    let Some(dir) = root.open_dir(path)? else { return Ok(None) };
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    rayon::in_place_scope(|scope| {
        scan_dir(&Walk { artifact: path, root, found: &found, failed: &failed }, scope, &dir, "");
    });
    if let Some(error) = failed.into_inner().expect("no thread panicked") {
        return Err(error);
    }
    let mut entries = found.into_inner().expect("no thread panicked");
    entries.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(Scan { top, entries }))
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    artifact: &'a RepoPath,
    root: &'a Root,
    found: &'a Mutex<Vec<Scanned>>,
    failed: &'a Mutex<Option<Error>>,
}

fn scan_dir<'a>(walk: &Walk<'a>, scope: &rayon::Scope<'a>, dir: &OwnedFd, prefix: &str) {
    let result = read_dir(walk, dir, prefix);
    let subdirs = match result {
        Ok(mut entries) => {
            let subdirs: Vec<String> = entries
                .iter()
                .filter(|entry| entry.stat.kind == Kind::Tree)
                .map(|entry| entry.path.clone())
                .collect();
            walk.found.lock().expect("no thread panicked").append(&mut entries);
            subdirs
        }
        Err(error) => return walk.fail(error),
    };
    for path in subdirs {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::openat(dir, name, flags, Mode::empty()).context(walk.full(&path), "open") {
            Ok(sub) => {
                let walk = *walk;
                scope.spawn(move |scope| scan_dir(&walk, scope, &sub, &format!("{path}/")));
            }
            Err(error) => return walk.fail(error),
        }
    }
}

fn read_dir(walk: &Walk<'_>, dir: &OwnedFd, prefix: &str) -> Result<Vec<Scanned>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir).context(walk.full(prefix), "list")? {
        let name: CString = entry.context(walk.full(prefix), "list")?.file_name().to_owned();
        let bytes = name.as_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let path = walk.entry_path(prefix, bytes)?;
        // A file that vanished since the directory was read is as good as never seen.
        if let Some(stat) = stat_at(dir, OsStr::from_bytes(bytes)).context(walk.full(&path), "read")? {
            entries.push(Scanned { path, stat });
        }
    }
    Ok(entries)
}

impl Walk<'_> {
    fn entry_path(&self, prefix: &str, name: &[u8]) -> Result<String> {
        let refused = |reason: &str| {
            let path = [self.artifact.as_str().as_bytes(), b"/", prefix.as_bytes(), name].concat();
            Error::new(format!("{}: cannot be kept: {reason}", path.escape_ascii()))
                .hint("rename it, or move it out of the artifact")
        };
        let name = std::str::from_utf8(name).map_err(|_| refused("its name is not UTF-8"))?;
        check_name(name).map_err(refused)?;
        Ok(format!("{prefix}{name}"))
    }

    fn full(&self, below: &str) -> std::path::PathBuf {
        self.root.full(self.artifact).join(below)
    }

    fn fail(&self, error: Error) {
        self.failed.lock().expect("no thread panicked").get_or_insert(error);
    }
}
