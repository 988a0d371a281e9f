use crate::cli::Ui;
use crate::error::Result;
use crate::ops::Ctx;

use super::sync::{self, SyncArgs};

/// Fetch what the worktree's pointers name, and put it in place
///
/// This is `fetch` and `sync` in one; git itself is not asked to pull.
#[derive(clap::Args, Debug)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    sync: SyncArgs,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &PullArgs) -> Result<()> {
    sync::run(ui, ctx, &args.sync)?;
    if !ctx.git.hooks_installed()? {
        ui.hint(
            "git model init installs hooks in this clone, which keep artifacts in step with git checkout",
        );
    }
    Ok(())
}
