use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::Ctx;
use crate::ops::add::{self, Change, Staged};

/// Track files or directories, or take their new content
///
/// The content is copied into the local cache (sharing blocks where the file system can), the pointer and `.gitignore`
/// are written and staged. Your files are never moved. What did not change is not read.
#[derive(clap::Args, Debug)]
pub(crate) struct AddArgs {
    /// Files or directories
    #[arg(required_unless_present = "update", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Take the new content of everything that is tracked already
    #[arg(long, short)]
    update: bool,
    /// Leave git's index alone
    #[arg(long)]
    no_stage: bool,
    /// Say what would be done, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &AddArgs) -> Result<()> {
    let options = add::Options {
        paths: args.paths.clone(),
        update: args.update,
        stage: !args.no_stage,
        dry_run: args.dry_run,
    };
    let report = add::add(ctx, &options)?;
    for (path, pattern, negation) in &report.ignored {
        ui.warn(format!(
            "{}: a pattern hides this pointer from git ({})",
            render::path(ctx, path),
            human::escape(pattern)
        ));
        ui.hint(format!("add these lines to the end of .gitignore at the top level:\n{negation}"));
    }
    for path in &report.outdated {
        let shown = render::path(ctx, path);
        match report.items.iter().any(|item| item.path == *path) {
            true => {
                ui.warn(format!(
                    "{shown}: its pointer was newer than the content here, and is the old one again"
                ));
                ui.hint(format!("to have the newer content instead: git restore --staged --worktree {shown}.pointer, then git model sync"));
            }
            false => {
                ui.warn(format!("{shown}: left out, for its pointer is newer than the content here"));
                ui.hint("git model sync brings the newer content");
            }
        }
    }
    if report.staged == Staged::IndexBusy {
        ui.warn("another git process holds the index; the pointers are written but not staged");
        ui.hint("git add the .pointer and .gitignore files, or run git model add again");
    }
    if args.json {
        return ui.json("add", to_json(&report, args.dry_run));
    }
    for item in &report.items {
        let change = match item.change {
            Change::New => "new",
            Change::Updated => "updated",
            Change::Unchanged => "unchanged",
        };
        ui.say(format!("{}: {change}, {}", render::path(ctx, &item.path), item.pointer.summary()));
    }
    if report.stored.objects > 0 {
        ui.say(format!(
            "stored {}; the cache holds {} ({})",
            human::bytes(report.stored.bytes),
            human::bytes(report.cache.bytes),
            human::count(report.cache.objects, "object")
        ));
    }
    Ok(())
}

fn to_json(report: &add::Report, dry_run: bool) -> serde_json::Value {
    json!({
        "artifacts": report.items.iter().map(|item| {
            let mut value = render::pointer_json(&item.pointer);
            value["path"] = json!(item.path);
            value["change"] = json!(item.change);
            value
        }).collect::<Vec<_>>(),
        "outdated": report.outdated,
        "stored": { "objects": report.stored.objects, "bytes": report.stored.bytes },
        "cache": { "objects": report.cache.objects, "bytes": report.cache.bytes },
        "staged": report.staged,
        "dry_run": dry_run,
    })
}
