//! The journal of a swap: what it leads to and its steps, as JSON lines. Format: `docs/formats/local-layout.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::swap::{Before, Step};
use crate::error::{Context, Error, Result};
use crate::fsio::{self, Durability};
use crate::repo_path::RepoPath;

/// How the names of journals in a worktree's `model` directory begin. Each swap has its own.
const PREFIX: &str = "journal-";
const VERSION: u32 = 2;

/// The journals of swaps that are under way or were interrupted.
pub fn journals(model_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(model_dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .collect()
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
    Place { staged: At, dest: String, before: Option<Before> },
    Remove { dest: String, before: Before },
    RemoveDir { dest: String },
}

/// Where something staged is. Never by its whole path: the repository may have moved when the swap is finished, and what
/// is above it need not be UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    /// Below the worktree's `model` directory.
    ModelDir(String),
    /// Below the top of the worktree.
    Top(String),
}

/// A swap's journal.
#[derive(Debug)]
pub(super) struct Journal<'a> {
    path: PathBuf,
    model_dir: &'a Path,
    top: &'a Path,
    durability: Durability,
}

impl<'a> Journal<'a> {
    /// The name of a new one.
    pub(super) fn create(model_dir: &'a Path, top: &'a Path, durability: Durability) -> Journal<'a> {
        let path = model_dir.join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
        Journal::open(path, model_dir, top, durability)
    }

    /// One that an earlier run left.
    pub(super) fn open(
        path: PathBuf,
        model_dir: &'a Path,
        top: &'a Path,
        durability: Durability,
    ) -> Journal<'a> {
        Journal { path, model_dir, top, durability }
    }

    /// Writes it, in place of what it said.
    pub(super) fn write(&self, outcomes: &[Outcome], steps: &[Step]) -> Result<()> {
        let mut text = Vec::new();
        let mut put = |line: Line| {
            serde_json::to_writer(&mut text, &line).map_err(|error| self.error("write").caused_by(error))?;
            text.push(b'\n');
            Ok(())
        };
        put(Line::Version(VERSION))?;
        outcomes.iter().cloned().map(Line::Outcome).try_for_each(&mut put)?;
        steps.iter().try_for_each(|step| put(self.line(step)?))?;
        fsio::write_atomic(&self.path, &text, self.durability)
    }

    /// What it says. `None` when it is gone: another process finished it.
    pub(super) fn read(&self) -> Result<Option<(Vec<Outcome>, Vec<Step>)>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(&self.path, "read"),
        };
        if bytes.iter().all(|&byte| byte == 0) {
            // A power cut without durability left the name and no content. Nothing tells what was to be done; the records
            // tell what is there.
            return Ok(Some((Vec::new(), Vec::new())));
        }
        self.parse(&bytes).map(Some).map_err(|error| {
            error
                .about(format!("{}: not a journal of this version", self.path.display()))
                .hint("if no git-model is running, remove it and run git model sync")
        })
    }

    /// Removes it, durably.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(&self.path, "remove"),
            _ => self.durability.sync_dir(self.model_dir),
        }
    }

    fn error(&self, verb: &str) -> Error {
        Error::new(format!("{}: cannot {verb}", self.path.display()))
    }

    fn parse(&self, bytes: &[u8]) -> Result<(Vec<Outcome>, Vec<Step>)> {
        let damaged = |error: serde_json::Error| Error::new("it is damaged").caused_by(error);
        let mut lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        match lines.next().map(serde_json::from_slice) {
            Some(Ok(Line::Version(VERSION))) => {}
            _ => return Err(Error::new("its header is unknown")),
        }
        let (mut outcomes, mut steps) = (Vec::new(), Vec::new());
        for line in lines {
            match serde_json::from_slice(line).map_err(damaged)? {
                Line::Outcome(outcome) => outcomes.push(outcome),
                line => steps.push(self.step(line)?),
            }
        }
        Ok((outcomes, steps))
    }

    fn line(&self, step: &Step) -> Result<Line> {
        let text = |path: &RepoPath| path.as_str().to_owned();
        Ok(match step {
            Step::MakeDir { dest } => Line::MakeDir { dest: text(dest) },
            Step::Place { staged, dest, before } => {
                Line::Place { staged: self.at(staged)?, dest: text(dest), before: *before }
            }
            Step::Remove { dest, before } => Line::Remove { dest: text(dest), before: *before },
            Step::RemoveDir { dest } => Line::RemoveDir { dest: text(dest) },
        })
    }

    fn at(&self, staged: &Path) -> Result<At> {
        let below = |dir: &Path| staged.strip_prefix(dir).ok()?.to_str().map(str::to_owned);
        match (below(self.model_dir), below(self.top)) {
            (Some(relative), _) => Ok(At::ModelDir(relative)),
            (None, Some(relative)) => Ok(At::Top(relative)),
            (None, None) => Err(self.error("write").about(format!("{}", staged.display()))),
        }
    }

    fn step(&self, line: Line) -> Result<Step> {
        Ok(match line {
            Line::Version(_) | Line::Outcome(_) => return Err(Error::new("journal: not a step")),
            Line::MakeDir { dest } => Step::MakeDir { dest: RepoPath::new(&dest)? },
            Line::Place { staged, dest, before } => {
                let staged = match staged {
                    At::ModelDir(relative) => self.model_dir.join(relative),
                    At::Top(relative) => self.top.join(relative),
                };
                Step::Place { staged, dest: RepoPath::new(&dest)?, before }
            }
            Line::Remove { dest, before } => Step::Remove { dest: RepoPath::new(&dest)?, before },
            Line::RemoveDir { dest } => Step::RemoveDir { dest: RepoPath::new(&dest)? },
        })
    }
}
