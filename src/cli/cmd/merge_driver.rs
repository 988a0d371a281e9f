use std::path::PathBuf;

use crate::cli::Ui;
use crate::error::{Error, Result};
use crate::ops::merge;
use crate::pointer;

/// Run by git to merge two versions of a pointer
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct MergeDriverArgs {
    base: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
    /// The pointer's path in the repository
    path: String,
}

pub(super) fn run(ui: &Ui, args: &MergeDriverArgs) -> Result<()> {
    if merge::merge(&args.base, &args.ours, &args.theirs)? {
        return Ok(());
    }
    let conflict = pointer::conflict(&args.path);
    conflict.hints().iter().for_each(|hint| ui.hint(hint));
    // A failing exit code is how git learns of the conflict.
    Err(Error::new(conflict.one_line()))
}
