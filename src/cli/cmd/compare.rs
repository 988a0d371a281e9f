use crate::cli::Ui;
use crate::cli::comparison;
use crate::error::Result;
use crate::ops::{Ctx, compare};

/// Show what differs between two versions of a model
///
/// Versions are commits, branches, or releases and stages of this clone's tags (churn@v1.4.0, churn@1.4, churn#prod). Without
/// a second one, the worktree is compared. Where both weights are in the cache, tensors are compared by their numbers.
#[derive(clap::Args, Debug)]
pub(crate) struct CompareArgs {
    /// The old version
    old: String,
    /// The new version; the worktree if not given
    new: Option<String>,
    /// The model; may be left out when there is only one, or a version names it
    name: Option<String>,
    /// Print Markdown, as for a pull request comment
    #[arg(long, conflicts_with = "json")]
    md: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &CompareArgs) -> Result<()> {
    let comparison = compare::compare(ctx, &args.old, args.new.as_deref(), args.name.as_deref())?;
    if args.json {
        return ui.json("compare", &comparison);
    }
    let sections = comparison::sections(&comparison);
    match args.md {
        true => ui.raw(comparison::markdown(&comparison, &sections).as_bytes()),
        false => ui.raw(comparison::text(&comparison, &sections).as_bytes()),
    }
}
