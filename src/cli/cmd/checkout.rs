use std::path::PathBuf;

use crate::cli::Ui;
use crate::error::Result;
use crate::ops::{Ctx, checkout};

/// Check out a commit, branch or tag, and bring its artifacts in step
///
/// Fetches first, then runs `git checkout`, then puts the content in place. Hooks are not needed.
#[derive(clap::Args, Debug)]
pub(crate) struct CheckoutArgs {
    /// A commit, branch or tag
    #[arg(value_name = "REVISION")]
    revision: String,
    /// Only these artifacts take the version of that revision
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Replace artifacts that you changed, too; your version is put into the cache first
    #[arg(long, short)]
    force: bool,
    /// Fetch from this remote instead of the default
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &CheckoutArgs) -> Result<()> {
    let report = checkout::checkout(ctx, &args.revision, &args.paths, args.force, args.remote.as_deref())?;
    super::sync::finish(ui, ctx, &report, args.json, false)
}
