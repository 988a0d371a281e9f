use std::path::PathBuf;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::ops::Ctx;
use crate::ops::remove::{self, Content};

/// Stop tracking artifacts
///
/// Removes the pointer, its line in `.gitignore`, and the content in the worktree, if the cache has it. Versions that were
/// committed stay in the history and in the cache.
#[derive(clap::Args, Debug)]
pub(crate) struct RmArgs {
    /// Artifacts
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Leave the content where it is; git sees it as an ordinary file again
    #[arg(long, conflicts_with = "force")]
    keep: bool,
    /// Remove the content even if it exists nowhere else
    #[arg(long, short)]
    force: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &RmArgs) -> Result<()> {
    let content = match (args.keep, args.force) {
        (true, _) => Content::Keep,
        (_, true) => Content::Force,
        _ => Content::Remove,
    };
    for path in remove::remove(ctx, &ctx.selection(&args.paths)?, content)? {
        ui.say(format!("{}: no longer tracked", render::path(ctx, &path)));
    }
    Ok(())
}
