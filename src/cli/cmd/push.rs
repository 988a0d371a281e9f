use std::path::PathBuf;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::ops::push::Repair;
use crate::ops::{Ctx, push};

/// Send content to a remote
///
/// By default, everything that the history of HEAD and the staged pointers name and that the remote does not have. Success
/// means that the store itself confirmed every object.
#[derive(clap::Args, Debug)]
pub(crate) struct PushArgs {
    /// Commits, branches or tags whose history is pushed
    #[arg(value_name = "REVISION")]
    revisions: Vec<String>,
    /// Only these artifacts
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Send to this remote instead of the default
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Send again what is missing in the store or wrong there: reads every object, or with `=checksums` only asks about each
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "bytes")]
    repair: Option<How>,
    /// Say what would be sent, and send nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum How {
    /// Read every object and hash it
    Bytes,
    /// Ask for the size of every object and, on S3, for the SHA-256 that it keeps
    Checksums,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &PushArgs) -> Result<()> {
    let options = push::Options {
        revisions: args.revisions.clone(),
        paths: args.paths.clone(),
        remote: args.remote.clone(),
        repair: args.repair.map(|how| match how {
            How::Bytes => Repair::Bytes,
            How::Checksums => Repair::Checksums,
        }),
        dry_run: args.dry_run,
        ..push::Options::default()
    };
    let report = push::push(ctx, &options)?;
    if args.json {
        return ui.json("push", render::push_json(&report, args.dry_run));
    }
    render::push_text(ui, &report, args.dry_run);
    Ok(())
}
