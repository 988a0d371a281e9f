use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::{Ctx, fetch};

/// Bring content from a remote into the cache, without touching the worktree
#[derive(clap::Args, Debug)]
pub(crate) struct FetchArgs {
    /// Commits, branches or tags; by default, what the worktree's pointers name
    #[arg(value_name = "REVISION")]
    revisions: Vec<String>,
    /// Only these artifacts
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Every version in the history of the revisions, too
    #[arg(long)]
    all: bool,
    /// Fetch from this remote instead of the default
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Say what would be fetched, and fetch nothing but lists of files
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &FetchArgs) -> Result<()> {
    let options = fetch::Options {
        revisions: args.revisions.clone(),
        history: args.all,
        paths: args.paths.clone(),
        remote: args.remote.clone(),
        dry_run: args.dry_run,
    };
    let report = fetch::fetch(ctx, &options)?;
    report.unreadable.iter().for_each(|error| ui.warn_error(error));
    if args.json {
        let mut value = render::fetch_json(&report);
        value["dry_run"] = json!(args.dry_run);
        return ui.json("fetch", value);
    }
    let objects = human::count(report.objects, "object");
    match (&report.remote, args.dry_run) {
        (_, true) => ui.out(format!("would fetch {objects} ({})", human::bytes(report.bytes)))?,
        (Some(_), _) => render::fetch_text(ui, &report),
        (None, _) => ui.say("the cache has everything"),
    }
    Ok(())
}
