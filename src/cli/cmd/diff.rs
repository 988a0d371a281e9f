use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::Ctx;
use crate::ops::diff::{self, FileChange, Item};

/// Show which artifacts differ between two commits, or between a commit and the worktree's pointers
///
/// Without revisions, HEAD is compared with the worktree; with one, that revision with the worktree. Inside directories the
/// files that differ are shown where both lists of files are in the cache.
#[derive(clap::Args, Debug)]
pub(crate) struct DiffArgs {
    /// The old side, and the new side
    #[arg(value_name = "REVISION", num_args = 0..=2)]
    revisions: Vec<String>,
    /// Only these artifacts
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &DiffArgs) -> Result<()> {
    let (old, new) = (args.revisions.first(), args.revisions.get(1));
    let items =
        diff::diff(ctx, old.map(String::as_str), new.map(String::as_str), &ctx.selection(&args.paths)?)?;
    if args.json {
        let artifacts: Vec<_> = items.iter().map(to_json).collect();
        return ui.json("diff", json!({ "artifacts": artifacts }));
    }
    for item in &items {
        let path = render::path(ctx, &item.path);
        ui.out(match (&item.old, &item.new) {
            (None, Some(new)) => format!("added    {path} ({})", new.summary()),
            (Some(old), None) => format!("removed  {path} ({})", old.summary()),
            (Some(old), Some(new)) => format!("changed  {path} ({} -> {})", old.summary(), new.summary()),
            (None, None) => continue,
        })?;
        for change in item.files.iter().flatten() {
            let name = human::escape(&change.path);
            ui.out(match (change.old, change.new) {
                (None, Some(new)) => format!("  added    {name} ({})", human::bytes(new)),
                (Some(old), None) => format!("  removed  {name} ({})", human::bytes(old)),
                (old, new) => {
                    let size = |size: Option<u64>| human::bytes(size.unwrap_or(0));
                    format!("  changed  {name} ({} -> {})", size(old), size(new))
                }
            })?;
        }
    }
    Ok(())
}

fn to_json(item: &Item) -> serde_json::Value {
    let file = |change: &FileChange| json!({ "path": change.path, "old": change.old, "new": change.new });
    json!({
        "path": item.path,
        "old": item.old.as_ref().map(render::pointer_json),
        "new": item.new.as_ref().map(render::pointer_json),
        "files": item.files.as_ref().map(|files| files.iter().map(file).collect::<Vec<_>>()),
    })
}
