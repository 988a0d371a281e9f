//! The use cases: each file is one. They compose the modules below, return data, and print nothing.

pub mod add;
pub mod artifacts;
pub mod attestations;
pub mod bundle;
mod candidate;
pub mod check;
pub mod checkout;
pub mod compare;
mod declared;
pub mod deploy;
pub mod diff;
pub mod events;
pub mod fetch;
pub mod get;
pub mod history;
pub mod hook;
pub mod info;
pub mod init;
mod kept;
pub mod list;
pub mod log;
pub mod merge;
pub mod models;
pub mod mv;
pub mod new;
mod observation;
mod observe;
pub mod package;
mod policy;
pub mod protect;
pub mod push;
pub mod pushed;
pub mod record;
pub mod registry;
pub mod release;
pub mod remotes;
pub mod remove;
pub mod resolve;
pub mod run;
pub mod scan;
pub mod sign;
pub mod snapshot;
mod stage;
pub mod statements;
pub mod status;
pub mod sync;
pub mod verify;
mod weights;

use std::path::PathBuf;

use crate::cache::Cache;
use crate::config::{Link, Settings};
use crate::error::Result;
use crate::fsio::{self, Durability};
use crate::git::Git;
use crate::id::Digest;
use crate::progress::{Interrupt, Progress};
use crate::repo_path::RepoPath;
use crate::worktree::{LinkMode, Record, Records, Root, Staging, swap};
use std::sync::Arc;

/// What every use case works with.
pub struct Ctx {
    /// The repository.
    pub git: Git,
    /// The user's settings.
    pub settings: Settings,
    /// The local objects.
    pub cache: Cache,
    /// Where progress is reported.
    pub progress: Box<dyn Progress>,
    /// Set when the user wants to stop.
    pub interrupt: Interrupt,
    /// Whether stores and git remotes may be contacted.
    pub offline: bool,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("git", &self.git).field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Ctx {
    /// Takes a repository with the user's settings.
    pub fn open(git: Git, progress: Box<dyn Progress>, interrupt: Interrupt) -> Result<Ctx> {
        let settings = Settings::new(git.config()?)?;
        let root = settings.cache.clone().unwrap_or_else(|| git.common_dir().join("model"));
        let cache = Cache::new(root, settings.durability);
        Ok(Ctx { git, settings, cache, progress, interrupt, offline: false })
    }

    /// Git-model's directory in this worktree's git dir, made if it is missing.
    pub fn model_dir(&self) -> Result<PathBuf> {
        let dir = self.git.git_dir().join("model");
        fsio::create_dir_all(&dir, Durability::Off)?;
        Ok(dir)
    }

    /// The worktree.
    pub fn root(&self) -> Result<Root> {
        Root::open(self.git.top()?)
    }

    /// What is known about the worktree's artifacts.
    pub fn records(&self) -> Result<Records> {
        Ok(Records::new(&self.git.git_dir().join("model")))
    }

    /// A fresh staging area for this worktree.
    pub fn staging(&self) -> Result<Staging> {
        Staging::new(&self.model_dir()?, self.settings.durability)
    }

    fn link_mode(&self) -> LinkMode {
        match self.settings.link {
            Link::Auto => LinkMode::Auto,
            Link::Copy => LinkMode::Copy,
            Link::Hardlink => LinkMode::Hardlink,
        }
    }

    /// Finishes swaps that earlier runs did not.
    pub fn finish_interrupted(&self) -> Result<Interrupted> {
        let model_dir = self.git.git_dir().join("model");
        if swap::journals(&model_dir).is_empty() {
            return Ok(Interrupted::default());
        }
        let records = self.records()?;
        // Without entries nothing is taken for granted: the files are read when they matter.
        let mut record = |outcome: &swap::Outcome| match Digest::from_hex(&outcome.digest) {
            Some(digest) => records.save(&Record {
                path: RepoPath::new(&outcome.path)?,
                is_tree: outcome.is_tree,
                base: digest,
                current: digest,
                size: outcome.size,
                files: outcome.files,
                entries: Arc::default(),
            }),
            None => Ok(()),
        };
        let stuck = swap::finish(&self.root()?, &model_dir, self.settings.durability, &mut record)?;
        Ok(Interrupted { there_were: true, stuck })
    }

    /// Typed paths as repository paths; a pointer's path stands for its artifact. Empty means everything.
    pub fn selection(&self, typed: &[PathBuf]) -> Result<Selection> {
        let mut paths = Vec::new();
        for path in typed {
            match self.git.repo_path(path)? {
                Some(path) => paths.push(path.artifact().unwrap_or(path)),
                None => return Ok(Selection(Vec::new())),
            }
        }
        Ok(Selection(paths))
    }
}

/// What there was of swaps that earlier runs did not finish.
#[derive(Debug, Default)]
pub struct Interrupted {
    /// Whether there were any.
    pub there_were: bool,
    /// What cannot be finished for now.
    pub stuck: Vec<swap::Stuck>,
}

impl Interrupted {
    /// Fails if something at, above or below one of these paths is stuck. What is stuck elsewhere is in nobody's way.
    pub fn require_free<'p>(self, paths: impl IntoIterator<Item = &'p RepoPath>) -> Result<()> {
        match paths.into_iter().find_map(|path| self.stuck.iter().position(|stuck| stuck.concerns(path))) {
            Some(at) => Err(self.stuck.into_iter().nth(at).expect("it was found there").error),
            None => Ok(()),
        }
    }
}

/// Which artifacts a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection(Vec<RepoPath>);

impl Selection {
    /// Everything.
    pub fn all() -> Selection {
        Selection(Vec::new())
    }

    /// Exactly these, and what lies below them.
    pub fn of(paths: Vec<RepoPath>) -> Selection {
        Selection(paths)
    }

    /// Whether an artifact belongs to it.
    pub fn contains(&self, artifact: &RepoPath) -> bool {
        self.0.is_empty() || self.0.iter().any(|path| artifact.is_within(path))
    }

    /// The first selected path that none of these artifacts belongs to.
    pub fn unmatched<'s>(&'s self, artifacts: &[RepoPath]) -> Option<&'s RepoPath> {
        self.0.iter().find(|path| !artifacts.iter().any(|artifact| artifact.is_within(path)))
    }
}
