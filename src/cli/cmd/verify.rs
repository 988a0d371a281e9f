use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::human;
use crate::ops::{Ctx, verify};

/// Read every byte of the cached content and of the worktree's artifacts, and check it
///
/// Damaged cached objects are moved into quarantine, so that the next sync brings them again. Exits with code 3 when damage
/// is found.
#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Only these artifacts
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &VerifyArgs) -> Result<()> {
    let report = verify::verify(ctx, &ctx.selection(&args.paths)?)?;
    if args.json {
        let value = json!({
            "artifacts": report.artifacts,
            "objects": report.objects,
            "bytes": report.bytes,
            "damage": report.damage,
            "absent": report.absent,
            "modified": report.modified,
        });
        ui.json("verify", value)?;
    } else {
        for damage in &report.damage {
            ui.out(format!("damaged  {}: {}", render::path(ctx, &damage.path), human::escape(&damage.what)))?;
        }
        for path in &report.modified {
            ui.say(format!(
                "{}: changed by you, so only its cached version was checked",
                render::path(ctx, path)
            ));
        }
        for path in &report.absent {
            ui.say(format!("{}: not here, nothing to check", render::path(ctx, path)));
        }
        let (artifacts, objects) =
            (human::count(report.artifacts, "artifact"), human::count(report.objects, "cached object"));
        ui.say(format!("checked {artifacts}: {objects} ({}) are right", human::bytes(report.bytes)));
    }
    if report.damage.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!("{} found", human::count(report.damage.len() as u64, "damaged item")))
        .hint("git model sync --force restores damaged files from the cache or the remote"))
}
