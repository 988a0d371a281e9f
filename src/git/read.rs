//! Reading pointers, commits and configuration.

use std::collections::BTreeSet;

use super::{Git, Oid, child};
use crate::error::{Error, Result};
use crate::human;
use crate::lineage;
use crate::repo_path::{POINTER_SUFFIX, RepoPath};

/// An index entry whose path ends like a pointer's.
#[derive(Clone, Debug)]
pub struct IndexPointer {
    /// The pointer's path.
    pub path: RepoPath,
    /// Its blob.
    pub blob: Oid,
    /// Whether it is an unmerged entry (stage 1 to 3).
    pub unmerged: bool,
    /// Whether a sparse checkout keeps it out of the worktree.
    pub skipped: bool,
}

/// A pointer, or another file that says what is to be stored, in a commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PointerBlob {
    /// Its path.
    pub path: RepoPath,
    /// Its blob.
    pub blob: Oid,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: Oid,
    /// When it was made, in Unix seconds.
    pub time: i64,
    /// The first line of its message.
    pub subject: String,
    /// The commits before it that changed the same file, its own line first.
    pub parents: Vec<Oid>,
}

/// One end of a range of commits.
#[derive(Clone, Debug)]
pub enum RangeEnd {
    /// Commits reachable from this revision.
    Include(String),
    /// Not those reachable from this one.
    Exclude(String),
    /// Not those reachable from any remote-tracking branch of this git remote.
    ExcludeRemote(String),
}

const SKIP_WORKTREE: u16 = 1 << 14;
const REGULAR: [u32; 2] = [0o100_644, 0o100_755];

impl Git {
    /// All pointers of the index, in path order; `GIT_INDEX_FILE` is honoured.
    ///
    /// Symlinks and submodules that are named like pointers are not pointers. A path that could not be used safely is
    /// an error.
    pub fn index_pointers(&self) -> Result<Vec<IndexPointer>> {
        if let Some(found) = self.lib.as_ref().and_then(index_pointers_lib) {
            return found;
        }
        let pattern = format!(":(top,glob)**/*{POINTER_SUFFIX}");
        let staged = self.git(["ls-files", "-s", "-t", "-z", "--full-name", "--", &pattern]).output()?;
        records(&staged).filter_map(parse_ls_files).collect()
    }

    /// All pointers of a commit, in path order.
    pub fn commit_pointers(&self, commit: &Oid) -> Result<Vec<PointerBlob>> {
        if let Some(found) = self.lib.as_ref().and_then(|lib| commit_pointers_lib(lib, commit)) {
            return found;
        }
        let listed = self.git(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]).output()?;
        records(&listed)
            .filter_map(|record| {
                let (head, path) = split_tab(record)?;
                let mut words = head.split(' ');
                let mode = u32::from_str_radix(words.next()?, 8).ok()?;
                let blob = words.nth(1)?;
                is_pointer(path, mode)
                    .then(|| Ok(PointerBlob { path: RepoPath::from_bytes(path)?, blob: Oid::new(blob)? }))
            })
            .collect()
    }

    /// Every pointer and every `lineage.yaml` that some commit of the range added or changed, each once.
    ///
    /// In a shallow clone the oldest commits count as adding everything they hold.
    pub fn range_blobs(&self, range: &[RangeEnd]) -> Result<Vec<PointerBlob>> {
        let mut args = vec![
            "-c".to_owned(),
            "log.showRoot=true".to_owned(),
            "log".to_owned(),
            "--format=".to_owned(),
            "--raw".to_owned(),
            "-z".to_owned(),
            "-m".to_owned(),
            "--no-renames".to_owned(),
            "--no-abbrev".to_owned(),
            "--diff-filter=AMT".to_owned(),
            "--no-show-signature".to_owned(),
        ];
        for end in range {
            match end {
                RangeEnd::Include(rev) => args.push(rev.clone()),
                RangeEnd::Exclude(rev) => args.push(format!("^{rev}")),
                RangeEnd::ExcludeRemote(name) => {
                    args.extend(["--not".to_owned(), format!("--remotes={name}"), "--not".to_owned()]);
                }
            }
        }
        args.push("--".to_owned());
        args.push(format!(":(top,glob)**/*{POINTER_SUFFIX}"));
        args.push(format!(":(top,glob)**/{}", lineage::FILE_NAME));
        let raw = self.git(args).output()?;
        let mut found = BTreeSet::new();
        let mut fields = records(&raw);
        while let Some(head) = fields.next() {
            // `:<old mode> <new mode> <old id> <new id> <status>`, then the path.
            let Some(head) = head.iter().position(|&b| b == b':').map(|at| &head[at + 1..]) else { continue };
            let path = fields.next().ok_or_else(|| Error::new("git log: unexpected answer"))?;
            let head = String::from_utf8_lossy(head);
            let mut words = head.split(' ');
            let mode = words.nth(1).and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0);
            if let Some(blob) = words.nth(1).filter(|_| is_pointer(path, mode) || is_record(path, mode)) {
                found.insert(PointerBlob { path: RepoPath::from_bytes(path)?, blob: Oid::new(blob)? });
            }
        }
        Ok(found.into_iter().collect())
    }

    /// A blob's bytes, if it is not larger than `max`.
    pub fn blob(&self, id: &Oid, max: u64) -> Result<Vec<u8>> {
        if let Some(bytes) = self.lib.as_ref().and_then(|lib| blob_lib(lib, id, max)) {
            return bytes;
        }
        let size = self.cat_file(["-s", id.as_str()]).output()?;
        let size: u64 = String::from_utf8_lossy(&size).trim().parse().unwrap_or(u64::MAX);
        if size > max {
            return Err(too_large(id, max));
        }
        self.cat_file(["blob", id.as_str()]).output()
    }

    /// The blob at `path` in a commit, if there is one.
    pub fn blob_at(&self, commit: &Oid, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
        match self.resolve_object(&format!("{}:{path}", commit.as_str()))? {
            Some(id) => self.blob(&id, max).map(Some),
            None => Ok(None),
        }
    }

    /// The commit that a revision names; `None` when it names none.
    pub fn commit(&self, revision: &str) -> Result<Option<Oid>> {
        self.resolve_object(&format!("{revision}^{{commit}}"))
    }

    /// As [`Git::commit`], with an error for the user when there is none.
    pub fn require_commit(&self, revision: &str) -> Result<Oid> {
        self.commit(revision)?.ok_or_else(|| {
            let error =
                Error::usage(format!("{}: no such commit, branch or tag here", human::escape(revision)));
            match revision {
                "HEAD" => error.hint("nothing is committed yet: git commit"),
                _ => error.hint("git fetch --tags brings what the git remote has"),
            }
        })
    }

    /// The object that an expression names, if there is one.
    pub fn resolve(&self, expression: &str) -> Result<Option<Oid>> {
        self.resolve_object(expression)
    }

    fn resolve_object(&self, expression: &str) -> Result<Option<Oid>> {
        if expression.starts_with('-') {
            return Err(Error::usage(format!("{}: not a revision", human::escape(expression))));
        }
        if let Some(lib) = &self.lib
            && let Ok(object) = lib.revparse_single(expression)
        {
            return Oid::new(&object.id().to_string()).map(Some);
        }
        let output = self.git(["rev-parse", "--quiet", "--verify", "--end-of-options", expression]).run()?;
        match output.status.success() {
            true => Oid::new(String::from_utf8_lossy(&output.stdout).trim()).map(Some),
            false => Ok(None),
        }
    }

    /// Commits that changed the file at `path`, on any line of the history, each before its parents and one line after the
    /// other; and the merges that join them.
    pub fn file_history(&self, start: &Oid, path: &RepoPath) -> Result<Vec<Commit>> {
        self.commits(&["--simplify-merges", "--topo-order"], start, std::slice::from_ref(path))
    }

    /// Commits that changed something at or below one of these paths, newest first.
    pub fn history_of(&self, start: &Oid, paths: &[RepoPath], most: Option<usize>) -> Result<Vec<Commit>> {
        let most = most.map(|most| format!("--max-count={most}"));
        self.commits(most.as_slice(), start, paths)
    }

    fn commits<S: AsRef<str>>(&self, how: &[S], start: &Oid, paths: &[RepoPath]) -> Result<Vec<Commit>> {
        let args = ["-c", "log.follow=false", "log", "--no-show-signature"];
        let format = ["--format=%H %ct%x09%P%x09%s", start.as_str(), "--"];
        let log = self.git(args).args(how.iter().map(AsRef::as_ref)).args(format).paths(paths);
        let listed = log.output()?;
        let commit = |line: &str| {
            let mut fields = line.splitn(3, '\t');
            let (id, time) = fields.next()?.split_once(' ')?;
            let (parents, subject) = (fields.next()?, fields.next()?);
            let time = time.parse().ok()?;
            let parents = parents.split_whitespace().map(Oid::new).collect::<Result<_>>();
            let subject = subject.to_owned();
            Some(Oid::new(id).and_then(|id| Ok(Commit { id, time, subject, parents: parents? })))
        };
        String::from_utf8_lossy(&listed).lines().filter_map(commit).collect()
    }

    /// Paths that git tracks at or below `path`.
    pub fn tracked_below(&self, path: &RepoPath) -> Result<Vec<RepoPath>> {
        if let Some(index) = self.lib.as_ref().and_then(current_index) {
            let is_below = |found: &[u8]| {
                let rest = found.strip_prefix(path.as_str().as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            };
            let below = index.iter().filter(|entry| is_below(&entry.path));
            return below.map(|entry| RepoPath::from_bytes(&entry.path)).collect();
        }
        let pattern = format!(":(top,literal){path}");
        let listed = self.git(["ls-files", "-z", "--full-name", "--", &pattern]).output()?;
        records(&listed).map(RepoPath::from_bytes).collect()
    }

    /// Paths that the next commit would add or change. Names that could not be an artifact's are left out.
    pub fn staged_paths(&self) -> Result<Vec<RepoPath>> {
        let args =
            ["diff", "--cached", "--name-only", "-z", "--no-renames", "--diff-filter=ACMT", "--no-ext-diff"];
        let listed = self.git(args).output()?;
        Ok(records(&listed).filter_map(|path| RepoPath::from_bytes(path).ok()).collect())
    }

    /// Whether this object is in the repository.
    pub fn has_object(&self, id: &Oid) -> Result<bool> {
        Ok(self.git(["cat-file", "-e", id.as_str()]).run()?.status.success())
    }

    /// Takes an object id from what git passes to a hook.
    pub fn parse_id(&self, hex: &str) -> Result<Oid> {
        Oid::new(hex)
    }

    /// For each path that git ignores: the path, and the file, line and pattern that ignore it.
    pub fn ignored(&self, paths: &[RepoPath]) -> Result<Vec<(RepoPath, String)>> {
        let input = paths.iter().flat_map(|path| format!("{path}\0").into_bytes()).collect();
        let args = ["check-ignore", "-z", "-v", "--no-index", "--stdin"];
        let output = self.git(args).at_top(self)?.input(input).run()?;
        // Exit code 1 only means that nothing is ignored.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(child::failure("git check-ignore", &output));
        }
        let fields: Vec<&[u8]> = records(&output.stdout).collect();
        let mut found = Vec::new();
        for answer in fields.chunks_exact(4) {
            let [source, line, pattern, path] =
                [answer[0], answer[1], answer[2], answer[3]].map(String::from_utf8_lossy);
            // The last matching pattern may be a negation, which means that the path is not ignored.
            if !pattern.starts_with('!') {
                found.push((RepoPath::new(&path)?, format!("{source}:{line}: {pattern}")));
            }
        }
        Ok(found)
    }

    /// All `model.*` entries of the user's configuration, in git's order of precedence, names in lower case except for
    /// the part between the first and last dot.
    pub fn config(&self) -> Result<&[(String, String)]> {
        if let Some(entries) = self.config.get() {
            return Ok(entries);
        }
        let output = self.git(["config", "-z", "--get-regexp", "^model\\."]).run()?;
        // Exit code 1 only means that there are none.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(child::failure("git config", &output));
        }
        let entries = records(&output.stdout)
            .map(|record| {
                let text = String::from_utf8_lossy(record);
                // A key without a value is git's way of saying true.
                let (key, value) = text.split_once('\n').unwrap_or((&text, "true"));
                (key.to_owned(), value.to_owned())
            })
            .collect();
        Ok(self.config.get_or_init(|| entries))
    }

    /// One value of the user's configuration, of any key.
    pub fn config_value(&self, key: &str) -> Result<Option<String>> {
        let output = self.git(["config", "--get", key]).run()?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
    }
}

fn is_pointer(path: &[u8], mode: u32) -> bool {
    REGULAR.contains(&mode)
        && path
            .strip_suffix(POINTER_SUFFIX.as_bytes())
            .is_some_and(|stem| !stem.is_empty() && !stem.ends_with(b"/"))
}

fn is_record(path: &[u8], mode: u32) -> bool {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    REGULAR.contains(&mode) && name == lineage::FILE_NAME.as_bytes()
}

pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&b| b == 0).filter(|record| !record.is_empty())
}

pub(super) fn split_tab(record: &[u8]) -> Option<(&str, &[u8])> {
    let at = record.iter().position(|&b| b == b'\t')?;
    Some((std::str::from_utf8(&record[..at]).ok()?, &record[at + 1..]))
}

/// `<tag> <mode> <id> <stage>\t<path>`
fn parse_ls_files(record: &[u8]) -> Option<Result<IndexPointer>> {
    let (head, path) = split_tab(record)?;
    let mut words = head.split(' ');
    let skipped = words.next()? == "S";
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let (id, stage) = (words.next()?, words.next()?);
    is_pointer(path, mode).then(|| {
        Ok(IndexPointer {
            path: RepoPath::from_bytes(path)?,
            blob: Oid::new(id)?,
            unmerged: stage != "0",
            skipped,
        })
    })
}

/// The index as it is on disk now: libgit2 keeps the one that it read first. `None` when it cannot read this index.
pub(super) fn current_index(lib: &git2::Repository) -> Option<git2::Index> {
    let mut index = lib.index().ok()?;
    index.read(false).ok()?;
    Some(index)
}

/// `None` when libgit2 cannot read this index.
fn index_pointers_lib(lib: &git2::Repository) -> Option<Result<Vec<IndexPointer>>> {
    let index = current_index(lib)?;
    let pointers = index.iter().filter(|entry| is_pointer(&entry.path, entry.mode)).map(|entry| {
        Ok(IndexPointer {
            path: RepoPath::from_bytes(&entry.path)?,
            blob: Oid::new(&entry.id.to_string())?,
            unmerged: entry.flags >> 12 & 3 != 0,
            skipped: entry.flags_extended & SKIP_WORKTREE != 0,
        })
    });
    Some(pointers.collect())
}

/// `None` when libgit2 cannot read this commit.
fn commit_pointers_lib(lib: &git2::Repository, commit: &Oid) -> Option<Result<Vec<PointerBlob>>> {
    let id = git2::Oid::from_str(commit.as_str()).ok()?;
    let tree = lib.find_commit(id).ok()?.tree().ok()?;
    let mut found = Vec::new();
    tree.walk(git2::TreeWalkMode::PreOrder, |parent, entry| {
        let path = [parent.as_bytes(), entry.name_bytes()].concat();
        if is_pointer(&path, entry.filemode() as u32) {
            found.push((path, entry.id()));
        }
        git2::TreeWalkResult::Ok
    })
    .ok()?;
    let pointer = |(path, id): (Vec<u8>, git2::Oid)| {
        Ok(PointerBlob { path: RepoPath::from_bytes(&path)?, blob: Oid::new(&id.to_string())? })
    };
    Some(found.into_iter().map(pointer).collect())
}

/// `None` when libgit2 does not have this blob.
fn blob_lib(lib: &git2::Repository, id: &Oid, max: u64) -> Option<Result<Vec<u8>>> {
    let oid = git2::Oid::from_str(id.as_str()).ok()?;
    let odb = lib.odb().ok()?;
    let (size, _) = odb.read_header(oid).ok()?;
    if size as u64 > max {
        return Some(Err(too_large(id, max)));
    }
    Some(Ok(odb.read(oid).ok()?.data().to_vec()))
}

fn too_large(id: &Oid, max: u64) -> Error {
    Error::new(format!("git blob {}: larger than the allowed {max} bytes", id.as_str()))
}
