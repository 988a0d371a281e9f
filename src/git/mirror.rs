//! A small bare repository that mirrors the tags of models as a git remote has them, with their commits and, on demand, single
//! files. So no question about a release needs a full clone, and the user's own clone keeps its depth and its tags.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tags::glob_escape;
use super::{Git, Oid, child};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::repo_path::RepoPath;

/// Where the remote's default branch is kept.
const DEFAULT_BRANCH: &str = "refs/git-model/default";

/// How often a fetch is tried while other processes have the mirror: for about ten seconds.
const ATTEMPTS: u64 = 25;

/// What a remote has.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The tip of its default branch; `None` where it is empty.
    pub head: Option<Oid>,
    /// Ids of tags, by name without `refs/tags/`.
    pub tags: BTreeMap<String, Oid>,
}

/// A lock file of git.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    path: PathBuf,
    inode: u64,
    changed: (i64, i64),
}

impl Lock {
    fn at(path: PathBuf) -> Option<Lock> {
        let found = fs::symlink_metadata(&path).ok()?;
        Some(Lock { path, inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }

    /// The one that git says is in its way, in quotes, if it is in the repository `dir`.
    fn named_in(message: &str, dir: &Path) -> Option<Lock> {
        let path = message.split('\'').find(|part| part.ends_with(".lock"))?;
        let path = dir.join(path);
        path.starts_with(dir).then(|| Lock::at(path)).flatten()
    }
}

/// How much comes with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The commit alone.
    Commit,
    /// Its trees, too, so that files can be found without more requests.
    Trees,
}

impl Depth {
    fn filter(self) -> &'static str {
        match self {
            Depth::Commit => "--filter=tree:0",
            Depth::Trees => "--filter=blob:none",
        }
    }
}

impl Git {
    /// Names of the git remotes, in git's order.
    pub fn git_remotes(&self) -> Result<Vec<String>> {
        let listed = self.git(["remote"]).output()?;
        Ok(String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect())
    }

    /// The URL that git would fetch from.
    pub fn git_remote_url(&self, name: &str) -> Result<String> {
        let url = self.git(["remote", "get-url", "--", name]).output()?;
        Ok(String::from_utf8_lossy(&url).trim_end_matches('\n').to_owned())
    }

    /// Opens the mirror in `dir` of a remote of this repository, and makes it if there is none. Credentials, proxies and
    /// whatever else git needs to reach the remote come from this repository's configuration.
    pub fn open_mirror(&self, dir: &Path, object_format: &str, remote: &str) -> Result<Git> {
        let base = self.top.clone().unwrap_or_else(|| self.common_dir.clone());
        let mut borrowed = vec![self.common_dir.join("config")];
        borrowed.push(self.git_dir.join("config.worktree"));
        make_mirror(dir, object_format, &borrowed, remote, None)?;
        Git::open_elsewhere(dir, base)
    }

    /// Opens the mirror in `dir` of any URL, and makes it if there is none.
    pub fn open_mirror_of(dir: &Path, url: &str, object_format: &str) -> Result<Git> {
        make_mirror(dir, object_format, &[], "origin", Some(url))?;
        let base = std::env::current_dir().context(".", "find the current directory")?;
        Git::open_elsewhere(dir, base)
    }

    fn open_elsewhere(dir: &Path, base: PathBuf) -> Result<Git> {
        let mut git = Git::open_bare(dir)?;
        git.elsewhere = Some(base);
        Ok(git)
    }

    /// What a remote has of the tags whose names start with these prefixes, and at the tip of its default branch.
    pub fn list_remote(&self, remote: &str, prefixes: &[String]) -> Result<Listed> {
        let pattern = |prefix: &String| format!("refs/tags/{}*", glob_escape(prefix));
        let patterns: Vec<String> = prefixes.iter().map(pattern).collect();
        let list = self.git(["ls-remote", "--end-of-options", remote, "HEAD"]);
        let list = list.args(patterns.iter().map(String::as_str));
        let mut listed = Listed::default();
        for (name, id) in list_refs(&list.output()?)? {
            match name.strip_prefix("refs/tags/") {
                None if name == "HEAD" => listed.head = Some(id),
                // What an annotated tag leads to stands on a line of its own.
                Some(tag) if !tag.ends_with("^{}") => drop(listed.tags.insert(tag.to_owned(), id)),
                _ => {}
            }
        }
        Ok(listed)
    }

    /// What this mirror has of them, as the remote had it when it was last asked.
    pub fn list_mirror(&self, prefixes: &[String]) -> Result<Listed> {
        let tags = self.tag_refs(prefixes)?.into_iter().collect();
        Ok(Listed { head: self.resolve(DEFAULT_BRANCH)?, tags })
    }

    /// Makes the mirror's tags what the remote listed for these prefixes, whatever they were before. Only what differs is
    /// fetched.
    pub fn mirror_tags(
        &self,
        remote: &str,
        prefixes: &[String],
        listed: &Listed,
        depth: Depth,
    ) -> Result<()> {
        let mut gone = String::new();
        let mut here = BTreeMap::new();
        for (name, id) in self.tag_refs(prefixes)? {
            if listed.tags.contains_key(&name) {
                here.insert(name, id);
            } else {
                gone.push_str(&format!("delete refs/tags/{name}\n"));
            }
        }
        if !gone.is_empty() {
            self.run_patiently(&["update-ref", "--stdin"], gone.as_bytes())?;
        }
        let changed = listed.tags.iter().filter(|(name, id)| here.get(*name) != Some(*id));
        let refspecs: String = changed.map(|(name, _)| tag_refspec(name)).collect();
        self.fetch_refspecs(remote, depth, &refspecs)
    }

    /// Brings exactly these tags of the remote, and the tip of its default branch, with their commits' trees. What is here
    /// already is not asked for.
    pub fn mirror_exactly(&self, remote: &str, tags: &[(&str, &Oid)], head: Option<&Oid>) -> Result<()> {
        let mut refspecs = String::new();
        for (name, id) in tags {
            if self.resolve(&format!("refs/tags/{name}"))?.as_ref() != Some(*id) {
                refspecs.push_str(&tag_refspec(name));
            }
        }
        if head.is_some() && self.resolve(DEFAULT_BRANCH)?.as_ref() != head {
            refspecs.push_str(&format!("+HEAD:{DEFAULT_BRANCH}\n"));
        }
        self.fetch_refspecs(remote, Depth::Trees, &refspecs)
    }

    /// Refspecs come on standard input, where there may be thousands.
    fn fetch_refspecs(&self, remote: &str, depth: Depth, refspecs: &str) -> Result<()> {
        if refspecs.is_empty() {
            return Ok(());
        }
        let args = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--depth=1",
            depth.filter(),
            "--stdin",
            "--end-of-options",
            remote,
        ];
        self.run_patiently(&args, refspecs.as_bytes())
    }

    /// Commands that share a mirror can be at its list of shallow commits, or at a ref, at the same time; each tries again. A
    /// lock that is still the same after all of that was left by one that was killed, and goes: fetches into a mirror are small.
    fn run_patiently(&self, args: &[&str], input: &[u8]) -> Result<()> {
        let run = || self.git(args).input(input.to_vec()).output().map(drop);
        let mut first_lock = None;
        for attempt in 1..ATTEMPTS {
            match run() {
                Err(error) if error.one_line().contains("reference broken") => {
                    // A power cut left some empty; what they were is fetched again.
                    remove_empty_refs(&self.common_dir.join("refs"))?;
                }
                Err(error)
                    if ["shallow", "cannot lock ref", ".lock'", "could not set"]
                        .iter()
                        .any(|word| error.one_line().contains(word)) =>
                {
                    let lock = Lock::named_in(&error.one_line(), &self.common_dir);
                    first_lock.get_or_insert(lock);
                    let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
                    std::thread::sleep(Duration::from_millis(20 * attempt + jitter));
                }
                done => return done,
            }
        }
        if let Some(Some(lock)) = first_lock
            && Lock::at(lock.path.clone()).as_ref() == Some(&lock)
        {
            fs::remove_file(&lock.path).context(&lock.path, "remove")?;
        }
        run()
    }

    /// Brings objects by their ids, all in one request, where this is a mirror that has not got them.
    pub fn prefetch(&self, remote: &str, ids: &[Oid]) -> Result<()> {
        let mut missing: Vec<&str> = Vec::new();
        for id in ids {
            if !self.has_locally(id) {
                missing.push(id.as_str());
            }
        }
        if missing.is_empty() || self.elsewhere.is_none() {
            return Ok(());
        }
        // As git itself asks for what a promise covers: what is here says nothing about single objects.
        let args = [
            "-c",
            "fetch.negotiationAlgorithm=noop",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--filter=blob:none",
            "--stdin",
            "--end-of-options",
            remote,
        ];
        let input: Vec<u8> = missing.iter().flat_map(|id| format!("{id}\n").into_bytes()).collect();
        self.run_patiently(&args, &input)
    }

    /// Whether an object is here; a promise that it can be fetched does not count.
    fn has_locally(&self, id: &Oid) -> bool {
        let found = self.lib.as_ref().and_then(|lib| {
            let odb = lib.odb().ok()?;
            Some(odb.exists(git2::Oid::from_str(id.as_str()).ok()?))
        });
        found.unwrap_or(false)
    }

    /// Copies an object into another repository of the same object format.
    pub fn copy_object_to(&self, id: &Oid, kind: &str, to: &Git) -> Result<()> {
        let bytes = self.git(["cat-file", kind, id.as_str()]).output()?;
        to.git(["hash-object", "-t", kind, "-w", "--stdin"]).input(bytes).output().map(drop)
    }

    /// The commit's own tree of files, as far as blobs' ids go.
    pub fn blob_id(&self, commit: &Oid, path: &RepoPath) -> Result<Option<Oid>> {
        self.resolve(&format!("{}:{path}", commit.as_str()))
    }
}

/// The object format and refs of a remote that nobody has cloned.
pub fn list_url(url: &str, patterns: &[String]) -> Result<Vec<(String, Oid)>> {
    let list = child::git(["ls-remote", "--refs", "--end-of-options", url]);
    list_refs(&list.args(patterns.iter().map(String::as_str)).output()?)
}

fn tag_refspec(name: &str) -> String {
    format!("+refs/tags/{name}:refs/tags/{name}\n")
}

fn list_refs(listed: &[u8]) -> Result<Vec<(String, Oid)>> {
    let text = String::from_utf8_lossy(listed);
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, name)| Ok((name.to_owned(), Oid::new(id)?)))
        .collect()
}

/// Removes refs that are empty files. A lock of git may be one, while a ref never is.
fn remove_empty_refs(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).context(dir, "list")? {
        let path = entry.context(dir, "list")?.path();
        let found = fs::symlink_metadata(&path).context(&path, "read")?;
        if found.is_dir() {
            remove_empty_refs(&path)?;
        } else if found.len() == 0 && path.extension().is_none_or(|end| end != "lock") {
            fs::remove_file(&path).context(&path, "remove")?;
        }
    }
    Ok(())
}

/// Whether git would take a directory for a repository.
pub fn is_whole(dir: &Path) -> bool {
    let head = fs::read_to_string(dir.join("HEAD")).unwrap_or_default();
    head.starts_with("ref: ") && ["objects", "refs"].iter().all(|name| dir.join(name).is_dir())
}

fn make_mirror(
    dir: &Path,
    object_format: &str,
    borrowed: &[PathBuf],
    remote: &str,
    url: Option<&str>,
) -> Result<()> {
    if !is_whole(dir) {
        let parent =
            dir.parent().ok_or_else(|| Error::new(format!("{}: has no directory", dir.display())))?;
        fsio::create_dir_all(parent, Durability::Off)?;
        let format = format!("--object-format={object_format}");
        // Made beside its place, so that nobody ever finds half of one.
        let new = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(parent)
            .context(parent, "create a directory in")?;
        let at = new.path().to_string_lossy().into_owned();
        child::git(["init", "--quiet", "--bare", "--template=", &format, &at]).alone().output()?;
        let mut placed = fs::rename(new.path(), dir);
        if placed.is_err() && !is_whole(dir) {
            // What a power cut left of one. All of it can be fetched again.
            fsio::remove_all_if_there(dir)?;
            placed = fs::rename(new.path(), dir);
        }
        match placed {
            Ok(()) => drop(new.keep()),
            // Another process was first.
            Err(_) if is_whole(dir) => {}
            Err(error) => return Err(error).context(dir, "create"),
        }
    }
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from("[core]\n\trepositoryformatversion = 1\n\tbare = true\n");
    if object_format == "sha256" {
        text.push_str("[extensions]\n\tobjectFormat = sha256\n");
    }
    for file in borrowed {
        text.push_str(&format!("[include]\n\tpath = {}\n", quote(&file.to_string_lossy())));
    }
    text.push_str(&format!("[remote {}]\n", quote(remote)));
    if let Some(url) = url {
        text.push_str(&format!("\turl = {}\n", quote(url)));
    }
    // The remote is asked for what is missing. Git would write this itself, in the way of others that do at the same time.
    text.push_str("\tpromisor = true\n\tpartialclonefilter = blob:none\n");
    // Files are asked for by their ids, which needs this protocol; and of a `git clone --mirror`, tags go one by one.
    text.push_str("\tmirror = false\n[protocol]\n\tversion = 2\n");
    // What the borrowed configuration says about bareness does not count.
    text.push_str("[core]\n\tbare = true\n");
    let config = dir.join("config");
    let mine = fs::read_to_string(&config).unwrap_or_default();
    if !mine.starts_with(&text) {
        fsio::write_atomic(&config, text.as_bytes(), Durability::Off)?;
    }
    Ok(())
}
