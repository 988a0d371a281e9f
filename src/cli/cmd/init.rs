use crate::cli::Ui;
use crate::error::Result;
use crate::ops::{Ctx, init};

/// Set up git-model in this repository, or in a fresh clone of one
///
/// Writes `.git-model.yaml` and `.gitattributes` where they are missing and stages them, and installs the git hooks
/// and the merge and diff drivers for pointers. What exists is left alone, so running it again is harmless.
#[derive(clap::Args, Debug)]
pub(crate) struct InitArgs {
    /// Store to use as the remote `origin`: a folder, or a URL such as s3://bucket/prefix
    url: Option<String>,
    /// Install no git hooks
    #[arg(long)]
    no_hooks: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &InitArgs) -> Result<()> {
    let report = init::init(ctx, args.url.as_deref(), !args.no_hooks)?;
    for file in &report.files {
        ui.say(format!("wrote and staged {file}"));
    }
    if let Some(url) = &report.remote {
        ui.say(format!("remote {}: {url}", init::DEFAULT_REMOTE));
    }
    if let Some(hooks) = &report.hooks {
        let dir = hooks.dir.display();
        if hooks.foreign {
            ui.warn(format!(
                "{dir}: core.hooksPath names a directory outside of this repository; no hook was installed"
            ));
            ui.hint("git config core.hooksPath .git/hooks, then git model init; or use git model checkout instead of git checkout");
        } else if hooks.changed {
            ui.say(format!("installed git hooks in {dir}"));
        }
        if !hooks.chained.is_empty() {
            ui.say(format!("hooks that were there still run, before ours: {}", hooks.chained.join(", ")));
        }
        for name in &hooks.left_alone {
            ui.warn(format!("{dir}/{name}: this hook is a file of your worktree and was left as it is"));
            ui.hint(format!(
                "add this line to it, or to the file that your hook manager runs: git model hook {name} \"$@\""
            ));
        }
        if hooks.in_worktree && hooks.changed {
            ui.hint("these hooks are files of your worktree: commit them, or ignore them");
        }
    }
    if report.existed && report.files.is_empty() {
        ui.say("this repository is set up");
    }
    Ok(())
}
