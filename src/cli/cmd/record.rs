use std::path::PathBuf;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::ops::{Ctx, record};

/// Record what the model is made of now in lineage.yaml
///
/// Recording again with nothing changed changes nothing. What is known about the training and the evaluation is bound to the
/// weights and carried unchanged with them.
#[derive(clap::Args, Debug)]
pub(crate) struct RecordArgs {
    /// The model; may be left out when there is only one
    name: Option<String>,
    #[command(flatten)]
    stated: Stated,
    /// Look at data outside of the repository again, though the weights did not change
    #[arg(long)]
    refresh_data: bool,
    /// Say what would be recorded, and write nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What the user states about a training or evaluation.
#[derive(clap::Args, Debug)]
pub(crate) struct Stated {
    /// State that this report judged the weights that are here
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// State a fact about the training; may be given several times
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = key_value)]
    params: Vec<(String, String)>,
    /// Say something about the training in words
    #[arg(long)]
    note: Option<String>,
    /// Name the release that the weights descend from
    #[arg(long, value_name = "RELEASE")]
    parent: Option<String>,
}

impl Stated {
    pub(super) fn options(&self, name: Option<&String>) -> record::Options {
        record::Options {
            name: name.cloned(),
            eval: self.eval.clone(),
            params: self.params.clone(),
            note: self.note.clone(),
            parent: self.parent.clone(),
            ..record::Options::default()
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &RecordArgs) -> Result<()> {
    let options = record::Options {
        refresh_data: args.refresh_data,
        dry_run: args.dry_run,
        ..args.stated.options(args.name.as_ref())
    };
    let report = record::record(ctx, &options)?;
    report.warnings.iter().for_each(|warning: &Error| ui.warn_error(warning));
    if args.json {
        return ui.json("record", render::record_json(&report));
    }
    render::record_text(ui, ctx, &report, args.dry_run);
    Ok(())
}
