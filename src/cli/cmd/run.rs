use serde_json::json;

use super::record::Stated;
use crate::cli::{Ui, render};
use crate::error::Result;
use crate::ops::{Ctx, run};

/// Run a training or evaluation, and record what it read and wrote
///
/// The command has the terminal, gets all signals, and its exit code becomes git model's. When it succeeds, artifacts that
/// changed are added and lineage.yaml is recorded as observed. When it fails, nothing is recorded and nothing is lost.
#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    /// The model
    name: String,
    #[command(flatten)]
    stated: Stated,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &RunArgs) -> Result<()> {
    let ran = run::run(ctx, &args.stated.options(Some(&args.name)), &args.command)?;
    ran.record.warnings.iter().for_each(|warning| ui.warn_error(warning));
    if args.json {
        let added: Vec<_> = ran.added.iter().map(|item| &item.path).collect();
        let mut value = render::record_json(&ran.record);
        value["added"] = json!(added);
        value["wrote_weights"] = json!(ran.wrote_weights);
        value["wrote_report"] = json!(ran.wrote_report);
        return ui.json("run", value);
    }
    for item in &ran.added {
        ui.say(format!("added {}: {}", render::path(ctx, &item.path), item.pointer.summary()));
    }
    if !ran.wrote_weights && !ran.wrote_report {
        ui.warn("the command wrote neither declared weights nor the declared evaluation report, so nothing is recorded about it");
    }
    render::record_text(ui, ctx, &ran.record, false);
    Ok(())
}
