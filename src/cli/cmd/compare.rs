use crate::cli::Ui;
use crate::cli::comparison;
use crate::error::Result;
use crate::ops::{Ctx, compare};

/// Show what differs between two versions of a model
///
/// Versions are commits, branches, or releases and stages of this clone's tags (churn@v1.4.0, churn@1.4, churn#prod). Without
/// a second one, the worktree is compared. Where both weights are in the cache, tensors are compared by their numbers.
///
/// `git model compare main churn` compares the model churn on main with the worktree, if no commit, branch or tag is called churn.
#[derive(clap::Args, Debug)]
pub(crate) struct CompareArgs {
    /// The old version
    old: String,
    /// The new version; the worktree if not given, or if this names a model
    new: Option<String>,
    /// The model; may be left out when there is only one, or a version names it
    name: Option<String>,
    /// The model, where its name is also that of a branch or tag
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    model: Option<String>,
    /// Print Markdown, as for a pull request comment
    #[arg(long, conflicts_with = "json")]
    md: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &CompareArgs) -> Result<()> {
    let options = compare::Options {
        old: args.old.clone(),
        new: args.new.clone(),
        name: args.name.clone().or_else(|| args.model.clone()),
    };
    let comparison = compare::compare(ctx, &options)?;
    if args.json {
        return ui.json("compare", &comparison);
    }
    let sections = comparison::sections(&comparison);
    match args.md {
        true => ui.raw(comparison::markdown(&comparison, &sections).as_bytes()),
        false => ui.raw(comparison::text(&comparison, &sections).as_bytes()),
    }
}
