use std::path::PathBuf;

use crate::cli::Ui;
use crate::error::Result;
use crate::git::Git;
use crate::ops::{Ctx, merge};
use crate::progress::{Interrupt, Silent};

/// Run by git to show a pointer in diffs
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct TextconvArgs {
    file: PathBuf,
}

pub(super) fn run(ui: &Ui, args: &TextconvArgs) -> Result<()> {
    // Outside of a repository there is no cache to look into, and the pointer itself is still worth showing.
    let ctx = Git::discover().and_then(|git| Ctx::open(git, Box::new(Silent), Interrupt::default())).ok();
    ui.raw(merge::text(ctx.as_ref(), &args.file)?.as_bytes())
}
