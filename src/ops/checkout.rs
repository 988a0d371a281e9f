//! `git checkout` and `pull` in one, for clones without hooks.

use super::fetch::{Limit, ensure};
use super::{Ctx, Selection, sync};
use crate::error::{Error, Result};
use crate::repo_path::RepoPath;

/// Checks a revision out and brings its artifacts in step. With paths, only these artifacts take that revision's version.
///
/// Everything is fetched before git changes anything, so a store that cannot be reached leaves the worktree as it was.
pub fn checkout(
    ctx: &Ctx,
    revision: &str,
    paths: &[std::path::PathBuf],
    force: bool,
    remote: Option<&str>,
) -> Result<sync::Report> {
    let selection = ctx.selection(paths)?;
    let commit = ctx.git.require_commit(revision)?;
    let wanted = ctx.commit_artifacts(&commit, &selection)?;
    let names: Vec<RepoPath> = wanted.iter().map(|(path, _)| path.clone()).collect();
    if let Some(path) = selection.unmatched(&names) {
        return Err(Error::usage(format!("{path}: {revision} has no such artifact"))
            .hint(format!("git model ls {revision} lists them")));
    }
    let fetched = ensure(ctx, &wanted, remote, Some(&commit), Limit::None)?;
    let mut args = vec![revision.to_owned()];
    if !paths.is_empty() {
        args.push("--".to_owned());
        args.extend(names.iter().map(|path| format!(":(top,literal){}", path.pointer())));
    } else {
        args.push("--".to_owned());
    }
    if !ctx.git.checkout(&args)? {
        return Err(Error::new(format!(
            "git checkout {revision}: git refused, see above; no artifact was changed"
        )));
    }
    let options = sync::Options {
        selection: if paths.is_empty() { Selection::all() } else { selection },
        force,
        remote: remote.map(str::to_owned),
        commit: Some(commit),
        ..sync::Options::default()
    };
    let mut report = sync::sync(ctx, &options)?;
    report.fetched.objects += fetched.objects;
    report.fetched.bytes += fetched.bytes;
    report.fetched.time += fetched.time;
    Ok(report)
}
