use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::{Ctx, new};
use crate::release::ModelName;

/// Draft a model.yaml from what is in the repository
///
/// Weights, code, configuration, dependency lock, schema, data and evaluation report are found by their names. Edit the draft
/// before you record.
#[derive(clap::Args, Debug)]
pub(crate) struct NewArgs {
    /// The model's name, such as churn or team/churn
    name: String,
    /// Where to write it; the current directory if not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &NewArgs) -> Result<()> {
    let name = ModelName::parse(&args.name).map_err(|error| error.of_kind(crate::error::Kind::Usage))?;
    let draft = new::new(ctx, &name, args.dir.clone())?;
    if args.json {
        let found: serde_json::Map<_, _> =
            draft.found.iter().map(|(key, paths)| ((*key).to_owned(), json!(paths))).collect();
        return ui.json("new", json!({ "model": name, "path": draft.path, "found": found }));
    }
    for (key, paths) in &draft.found {
        match paths.is_empty() {
            true => ui.say(format!("{key:<12} nothing found")),
            false => ui.say(format!("{key:<12} {}", human::escape(&paths.join(", ")))),
        }
    }
    ui.say(format!("drafted {}; edit it, then: git model record {name}", render::path(ctx, &draft.path)));
    Ok(())
}
