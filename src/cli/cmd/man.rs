use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// Write the man pages into a directory
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct ManArgs {
    /// The directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &ManArgs) -> Result<()> {
    // `git model --help` looks for `git-model.1`; `git model-add` never exists, but `man git-model-add` does.
    write(&args.out, &crate::cli::command().disable_help_flag(true), "git-model")
}

fn write(dir: &Path, command: &clap::Command, name: &str) -> Result<()> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(
        command.clone().name(name.to_owned()).bin_name(name.replacen("git-", "git ", 1)),
    );
    let path = dir.join(format!("{name}.1"));
    man.render(&mut page).context(&path, "render")?;
    std::fs::write(&path, page).context(&path, "write")?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write(dir, sub, &format!("{name}-{}", sub.get_name()))?;
    }
    Ok(())
}
