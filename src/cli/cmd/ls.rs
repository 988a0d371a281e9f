use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::{Ctx, Selection, list};

/// List artifacts, of the worktree or of a commit
#[derive(clap::Args, Debug)]
pub(crate) struct LsArgs {
    /// A commit, branch or tag
    #[arg(value_name = "REVISION")]
    revision: Option<String>,
    /// Only these artifacts
    #[arg(last = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// List the files inside directories, too
    #[arg(long)]
    files: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &LsArgs) -> Result<()> {
    let selection = if ctx.git.is_bare() { Selection::all() } else { ctx.selection(&args.paths)? };
    let items = list::list(ctx, args.revision.as_deref(), &selection, args.files)?;
    if args.json {
        let artifacts: Vec<_> = items.iter().map(to_json).collect();
        return ui.json("ls", json!({ "artifacts": artifacts }));
    }
    for item in &items {
        let digest = item.pointer.digest.short();
        ui.out(format!(
            "{digest}  {:>10}  {}",
            human::bytes(item.pointer.size),
            render::path(ctx, &item.path)
        ))?;
        for file in item.files.iter().flatten() {
            ui.out(format!(
                "{}  {:>10}    {}",
                file.digest.short(),
                human::bytes(file.size),
                human::escape(&file.path)
            ))?;
        }
    }
    Ok(())
}

fn to_json(item: &list::Item) -> serde_json::Value {
    let mut value = render::pointer_json(&item.pointer);
    value["path"] = json!(item.path);
    if let Some(files) = &item.files {
        let file = |file: &crate::tree::FlatEntry| json!({ "path": file.path, "sha256": file.digest, "size": file.size });
        value["content"] = json!(files.iter().map(file).collect::<Vec<_>>());
    }
    value
}
