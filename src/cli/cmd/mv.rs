use std::path::PathBuf;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::ops::{Ctx, mv};
use crate::repo_path::RepoPath;

/// Rename an artifact together with its pointer
#[derive(clap::Args, Debug)]
pub(crate) struct MvArgs {
    /// The artifact
    source: PathBuf,
    /// Its new path, or a directory to move it into
    destination: PathBuf,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &MvArgs) -> Result<()> {
    let from = path(ctx, &args.source)?;
    let from = from.artifact().unwrap_or(from);
    let mut to = path(ctx, &args.destination)?;
    if args.destination.is_dir() {
        to = to.join(from.name())?;
    }
    mv::mv(ctx, &from, &to)?;
    ui.say(format!("{} -> {}", render::path(ctx, &from), render::path(ctx, &to)));
    Ok(())
}

fn path(ctx: &Ctx, typed: &std::path::Path) -> Result<RepoPath> {
    ctx.git
        .repo_path(typed)?
        .ok_or_else(|| Error::usage(format!("{}: the repository itself", typed.display())))
}
