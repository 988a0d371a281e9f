use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Ui;
use crate::error::Result;
use crate::human;
use crate::model_info::ModelInfo;
use crate::ops::{Ctx, info};

/// Show which version of a model this checkout, or a directory written by get, is
///
/// Says so when files differ from what is recorded. The other formats are for shells, metrics and traces.
#[derive(clap::Args, Debug)]
pub(crate) struct InfoArgs {
    /// A model's name, or a directory with a model-info.json; the only model if not given
    #[arg(value_name = "NAME|DIR")]
    target: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// MODEL_NAME=… lines for a shell or an env file
    Env,
    /// A model_info metric
    Prometheus,
    /// OpenTelemetry resource attributes
    Otel,
}

impl InfoArgs {
    /// The directory that is asked about, when it is one that `get` wrote. That needs no repository.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        let dir = Path::new(self.target.as_deref()?);
        dir.join(crate::model_info::FILE_NAME).is_file().then(|| dir.to_path_buf())
    }
}

/// Outside of a repository: a deployed directory.
pub(super) fn run_directory(ui: &Ui, args: &InfoArgs, dir: &Path) -> Result<()> {
    match info::of_directory(dir)? {
        Some(found) => print(ui, args, &found, &[]),
        None => Ok(()),
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &InfoArgs) -> Result<()> {
    let found = info::of_checkout(ctx, args.target.as_deref())?;
    print(ui, args, &found.info, &found.differences)
}

fn print(ui: &Ui, args: &InfoArgs, info: &ModelInfo, differences: &[String]) -> Result<()> {
    let format = if args.json { Format::Json } else { args.format };
    if !matches!(format, Format::Json) {
        for difference in differences {
            ui.warn(format!("differs from what is recorded: {difference}"));
        }
    }
    match format {
        Format::Text => {
            for (name, value) in info.pairs() {
                ui.out(format!("{:<12} {}", name.replace('_', " "), human::escape(&value)))?;
            }
            Ok(())
        }
        Format::Json => {
            let value = serde_json::to_value(info).unwrap_or_default();
            ui.json("info", json!({ "info": value, "differences": differences }))
        }
        Format::Env => ui.raw(info.to_env().as_bytes()),
        Format::Prometheus => ui.raw(info.to_prometheus().as_bytes()),
        Format::Otel => ui.out(info.to_otel()),
    }
}
