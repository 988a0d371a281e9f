use crate::cli::Ui;
use crate::error::Result;

/// Print the completion script for a shell
#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArgs {
    shell: clap_complete::Shell,
}

pub(super) fn run(ui: &Ui, args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "git-model", &mut script);
    ui.raw(&script)
}
