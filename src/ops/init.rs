//! Setting a repository, or a fresh clone of one, up for git-model.

use std::path::PathBuf;

use super::{Ctx, remotes};
use crate::error::{Error, Result};
use crate::git::hooks::Installed;
use crate::remote_url::RemoteUrl;
use crate::repo_config::{self, RepoConfig};
use crate::repo_path::RepoPath;
use crate::worktree::{Root, Staging};

/// The name of the remote that `init URL` makes.
pub const DEFAULT_REMOTE: &str = "origin";

/// The lines that `.gitattributes` must have.
const ATTRIBUTES: [&str; 3] = [
    "*.pointer text eol=lf merge=git-model diff=git-model",
    "lineage.yaml merge=binary",
    ".gitignore merge=union",
];

/// What initializing did.
#[derive(Debug)]
pub struct Report {
    /// Whether the repository had a configuration already.
    pub existed: bool,
    /// Files that were written and staged.
    pub files: Vec<RepoPath>,
    /// The hooks; `None` when the user did not want them.
    pub hooks: Option<Installed>,
    /// The remote that was added.
    pub remote: Option<RemoteUrl>,
}

/// Writes what is missing, and leaves alone what is there.
pub fn init(ctx: &Ctx, url: Option<&str>, hooks: bool) -> Result<Report> {
    let root = ctx.root()?;
    let staging = ctx.staging()?;
    let cwd = std::env::current_dir().map_err(|error| Error::new("no current directory").caused_by(error))?;
    // A URL that cannot be used is refused before anything is written.
    let url = url.map(|url| RemoteUrl::parse_typed(url, &cwd)).transpose()?;
    let mut files = Vec::new();
    let config = RepoPath::new(repo_config::FILE_NAME)?;
    let existing = root.read_small(&config, repo_config::MAX_BYTES)?;
    if let Some(bytes) = &existing {
        RepoConfig::parse(bytes, repo_config::FILE_NAME)?;
    } else {
        let text = RepoConfig::new(uuid::Uuid::new_v4().to_string()).to_text();
        root.write_small(&config, text.as_bytes(), &staging)?;
        files.push(config);
    }
    files.extend(attributes(&root, &staging)?);
    ctx.git.stage(&files)?;
    if let Some(url) = &url {
        // The same URL again is not a conflict: setup scripts run twice.
        let known = remotes::find(ctx, Some(DEFAULT_REMOTE), None).is_ok_and(|found| found.url == *url);
        if known {
            remotes::approve(ctx, url)?;
        } else {
            remotes::add(ctx, DEFAULT_REMOTE, &url.to_string(), false)?;
        }
    }
    drivers(ctx)?;
    let hooks = hooks.then(|| ctx.git.install_hooks(&program()?)).transpose()?;
    Ok(Report { existed: existing.is_some(), files, hooks, remote: url })
}

/// This program's own path, for hooks and drivers.
fn program() -> Result<PathBuf> {
    std::env::current_exe()
        .map_err(|error| Error::new("git-model: cannot find its own path").caused_by(error))
}

fn attributes(root: &Root, staging: &Staging) -> Result<Option<RepoPath>> {
    let path = RepoPath::new(".gitattributes")?;
    let mut text = root.read_small(&path, 1 << 20)?.unwrap_or_default();
    let has = |text: &[u8], wanted: &str| {
        text.split(|&b| b == b'\n').any(|line| line.trim_ascii_end() == wanted.as_bytes())
    };
    let missing: Vec<&str> = ATTRIBUTES.into_iter().filter(|line| !has(&text, line)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    for line in missing {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    root.write_small(&path, &text, staging)?;
    Ok(Some(path))
}

/// Tells git how to merge and show pointers. In the clone's own configuration, because git takes commands from nowhere else.
fn drivers(ctx: &Ctx) -> Result<()> {
    let program = crate::human::shell_quote(&program()?.to_string_lossy());
    for (key, value) in [
        ("merge.git-model.name", "pointers of git-model artifacts".to_owned()),
        ("merge.git-model.driver", format!("{program} merge-driver %O %A %B %P")),
        ("diff.git-model.textconv", format!("{program} textconv")),
    ] {
        if ctx.git.config_value(key)?.as_deref() != Some(&value) {
            ctx.git.set_config(key, &value)?;
        }
    }
    Ok(())
}
