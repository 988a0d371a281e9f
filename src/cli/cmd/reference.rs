use crate::cli::Ui;
use crate::error::Result;

/// Print the reference of all commands as Markdown, as it is in docs/cli-reference.md
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct ReferenceArgs {}

pub(super) fn run(ui: &Ui) -> Result<()> {
    ui.raw(crate::cli::reference::markdown(&crate::cli::command()).as_bytes())
}
