//! Artifacts that stayed when their branch was left, because their content is nowhere else. They are hidden from git in
//! `info/exclude`, which all worktrees share, so each worktree notes which lines it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Ctx;
use crate::error::Result;
use crate::fsio::{self, Durability};
use crate::repo_path::RepoPath;
use crate::worktree::ignore;

/// The list of a worktree, in its `model` directory: one path per line.
pub(super) const KEPT: &str = "kept";
/// Larger lists are refused.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The artifacts that a worktree hides, by its `model` directory.
pub(super) fn list(model_dir: &Path) -> Result<BTreeSet<RepoPath>> {
    let bytes = fsio::read_bounded(&model_dir.join(KEPT), MAX_BYTES)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| RepoPath::new(line).ok()).collect())
}

/// Hides an artifact from git. `false` when this worktree did that before.
pub(super) fn hide(ctx: &Ctx, path: &RepoPath) -> Result<bool> {
    let model_dir = ctx.model_dir()?;
    let mut paths = list(&model_dir)?;
    ignore::exclude(ctx.git.common_dir(), path)?;
    if !paths.insert(path.clone()) {
        return Ok(false);
    }
    save(&model_dir, &paths)?;
    Ok(true)
}

/// Shows artifacts that are tracked again to git again, as far as no other worktree hides them.
pub(super) fn release(ctx: &Ctx, tracked: &BTreeSet<RepoPath>) -> Result<()> {
    let model_dir = ctx.model_dir()?;
    let mut paths = list(&model_dir)?;
    let is_tracked = |path: &&RepoPath| tracked.iter().any(|artifact| path.is_within(artifact));
    let mut released: BTreeSet<RepoPath> = paths.iter().filter(is_tracked).cloned().collect();
    if released.is_empty() {
        return Ok(());
    }
    paths.retain(|path| !released.contains(path));
    save(&model_dir, &paths)?;
    for other in other_model_dirs(ctx, &model_dir) {
        for path in list(&other)? {
            released.remove(&path);
        }
    }
    ignore::unexclude(ctx.git.common_dir(), &released)
}

fn save(model_dir: &Path, paths: &BTreeSet<RepoPath>) -> Result<()> {
    let text: String = paths.iter().map(|path| format!("{path}\n")).collect();
    fsio::write_atomic(&model_dir.join(KEPT), text.as_bytes(), Durability::Off)
}

fn other_model_dirs(ctx: &Ctx, own: &Path) -> Vec<PathBuf> {
    let linked = fs::read_dir(ctx.git.common_dir().join("worktrees"));
    let linked = linked.into_iter().flatten().flatten().map(|entry| entry.path());
    let dirs = linked.chain([ctx.git.common_dir().to_path_buf()]).map(|dir| dir.join("model"));
    dirs.filter(|dir| dir != own).collect()
}
