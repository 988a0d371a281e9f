//! Listing what is on disk at an artifact's path, on all cores, without reading any content.

use std::os::fd::OwnedFd;

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::place::is_beside;
use super::root::{Root, stat_at};
use crate::error::{Context, Error, Result};
use crate::fsio::{FileStat, Kind};
use crate::human;
use crate::repo_path::{RepoPath, check_name};
use crate::tree::MAX_DEPTH;

/// Bytes of a directory's listing per system call.
const LISTING_BYTES: usize = 32 * 1024;

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
    let entries = Walk { artifact: path, root }.list(&dir, "")?;
    Ok(Some(Scan { top, entries }))
}

struct Walk<'a> {
    artifact: &'a RepoPath,
    root: &'a Root,
}

impl Walk<'_> {
    /// Everything in and below a directory, in order. Each directory is opened when its turn comes, so that only few are open
    /// at once, however many there are.
    fn list(&self, dir: &OwnedFd, prefix: &str) -> Result<Vec<Scanned>> {
        // Each level takes some of the stack, and no artifact can have more.
        if prefix.bytes().filter(|byte| *byte == b'/').count() > MAX_DEPTH {
            let path = human::escape(&format!("{}/{}", self.artifact, prefix.trim_end_matches('/')));
            return Err(Error::new(format!("{path}: nested deeper than {MAX_DEPTH} directories"))
                .hint("move it out of the artifact"));
        }
        let mut here = self.read(dir, prefix)?;
        here.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut trees: Vec<&str> = here
            .iter()
            .filter(|entry| entry.stat.kind == Kind::Tree)
            .map(|entry| entry.path.as_str())
            .collect();
        if trees.is_empty() {
            return Ok(here);
        }
        // In the order of what is below them: `a-b/c` comes before `a/c`.
        trees.sort_unstable_by(|a, b| below(a).cmp(below(b)));
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let listed = trees.par_iter().map(|path| {
            let sub = rustix::fs::openat(dir, &path[prefix.len()..], flags, Mode::empty());
            self.list(&sub.context(self.full(path), "open")?, &format!("{path}/"))
        });
        let listed: Vec<Vec<Scanned>> = listed.collect::<Result<_>>()?;
        let places: Vec<usize> = trees
            .iter()
            .map(|tree| here.partition_point(|entry| entry.path.bytes().lt(below(tree))))
            .collect();
        let mut all = Vec::with_capacity(here.len() + listed.iter().map(Vec::len).sum::<usize>());
        let (mut own, mut taken) = (here.into_iter(), 0);
        for (place, mut block) in places.into_iter().zip(listed) {
            all.extend(own.by_ref().take(place - taken));
            taken = place;
            all.append(&mut block);
        }
        all.extend(own);
        Ok(all)
    }

    /// What is in a directory that was just opened, in no order.
    fn read(&self, dir: &OwnedFd, prefix: &str) -> Result<Vec<Scanned>> {
        let mut entries = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed since it was opened.
                Err(Errno::NOENT) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context(self.full(prefix), "list"),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." || name.to_str().is_ok_and(is_beside) {
                continue;
            }
            let path = self.entry_path(prefix, name.to_bytes())?;
            // A file that vanished since the directory was read is as good as never seen.
            if let Some(stat) = stat_at(dir, name).context(self.full(&path), "read")? {
                entries.push(Scanned { path, stat });
            }
        }
        Ok(entries)
    }

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
}

/// What the paths of everything in a directory begin with.
fn below(dir: &str) -> impl Iterator<Item = u8> {
    dir.bytes().chain(std::iter::once(b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_too_deep_is_refused_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d").join("n/".repeat(MAX_DEPTH));
        std::fs::create_dir_all(&path).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let artifact = RepoPath::new("d").unwrap();
        assert_eq!(scan(&root, &artifact).unwrap().unwrap().entries.len(), MAX_DEPTH);
        std::fs::create_dir_all(path.join("n/".repeat(200))).unwrap();
        let error = scan(&root, &artifact).unwrap_err();
        assert!(error.one_line().contains("nested deeper than 128"), "{}", error.one_line());
    }

    #[test]
    fn everything_comes_in_the_order_of_path_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "d/a/x",
            "d/a/b/y",
            "d/a-b/z",
            "d/a-b/.k",
            "d/a.txt",
            "d/a0",
            "d/ab/c",
            "d/b",
            "d/\u{e4}/q",
            "d/e/",
        ];
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match name.ends_with('/') {
                true => std::fs::create_dir_all(&path).unwrap(),
                false => std::fs::write(&path, name).unwrap(),
            }
        }
        let root = Root::open(dir.path()).unwrap();
        let scan = scan(&root, &RepoPath::new("d").unwrap()).unwrap().unwrap();
        let found: Vec<&str> = scan.entries.iter().map(|entry| entry.path.as_str()).collect();
        let mut expected = found.clone();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(found.len(), names.len() + 5, "{found:?}");
    }
}
