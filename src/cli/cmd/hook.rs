use std::io::Read;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::git::Git;
use crate::ops::{Ctx, hook};

/// Run by the git hooks that `git model init` installs
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct HookArgs {
    /// The hook's name
    name: String,
    /// What git passes to the hook
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Hooks that only bring artifacts in step end here when they are.
pub(super) fn is_idle(args: &HookArgs, git: &Git) -> Result<bool> {
    match args.name.as_str() {
        "post-checkout" | "post-merge" | "post-rewrite" | "post-index-change" => {
            // What cannot be found out cheaply is found out, and reported, the long way.
            Ok(hook::is_idle(git).unwrap_or(false))
        }
        _ => Ok(false),
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &HookArgs) -> Result<()> {
    match args.name.as_str() {
        "post-checkout" | "post-merge" | "post-rewrite" | "post-index-change" => {
            // Git has done its work; whatever goes wrong here must not look as if it had not.
            let rewritten = args.args.first().filter(|_| args.name == "post-rewrite").map(String::as_str);
            match hook::after_index_change(ctx, rewritten) {
                Ok(report) => {
                    render::sync_text(ui, ctx, &report.sync);
                    report.warnings.iter().for_each(|warning| ui.warn_error(warning));
                }
                Err(error) => ui.warn_error(&error),
            }
            Ok(())
        }
        "pre-commit" => hook::pre_commit(ctx),
        "pre-push" => {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).map_err(|error| {
                Error::new("standard input: cannot read what git is pushing").caused_by(error)
            })?;
            let remote = args.args.first().map_or("", String::as_str);
            if let Some(pushed) = hook::pre_push(ctx, remote, &input)?.push {
                render::push_text(ui, &pushed, false);
            }
            Ok(())
        }
        name => Err(Error::usage(format!("{name}: not a hook of git-model"))),
    }
}
