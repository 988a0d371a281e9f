use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::human;
use crate::ops::{Ctx, sync};

/// Bring the worktree in step with its pointers
///
/// Takes content from the cache, and fetches what is missing there. Everything is checked and complete before anything is
/// replaced. What you changed is left alone.
#[derive(clap::Args, Debug)]
pub(crate) struct SyncArgs {
    /// Only these artifacts
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Replace what you changed, too; your version is put into the cache first
    #[arg(long, short)]
    pub(super) force: bool,
    /// Fetch from this remote instead of the default
    #[arg(long, value_name = "NAME")]
    pub(super) remote: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long, short = 'n')]
    pub(super) dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &SyncArgs) -> Result<()> {
    let options = sync::Options {
        selection: ctx.selection(&args.paths)?,
        force: args.force,
        remote: args.remote.clone(),
        dry_run: args.dry_run,
        ..sync::Options::default()
    };
    finish(ui, ctx, &sync::sync(ctx, &options)?, args.json, args.dry_run)
}

/// Shows what a sync did. Artifacts that were left alone make it a failure.
pub(super) fn finish(ui: &Ui, ctx: &Ctx, report: &sync::Report, json: bool, dry_run: bool) -> Result<()> {
    if json {
        let mut value = render::sync_json(report);
        value["dry_run"] = json!(dry_run);
        ui.json("sync", value)?;
    } else if dry_run {
        if report.fetched.objects > 0 {
            let (objects, bytes) = (report.fetched.objects, report.fetched.bytes);
            ui.out(format!("would fetch   {} ({})", human::count(objects, "object"), human::bytes(bytes)))?;
        }
        for (path, pointer) in &report.synced {
            ui.out(format!("would place   {} ({})", render::path(ctx, path), pointer.summary()))?;
        }
        for path in &report.removed {
            ui.out(format!("would remove  {}", render::path(ctx, path)))?;
        }
        for path in &report.modified {
            ui.out(format!("would leave   {} (changed by you)", render::path(ctx, path)))?;
        }
    } else {
        render::sync_text(ui, ctx, report);
        if report.is_complete() && report.synced.is_empty() && report.removed.is_empty() {
            ui.say("everything is in step");
        }
    }
    if !report.is_complete() {
        return Err(Error::new("some artifacts are not in step, see above"));
    }
    Ok(())
}
