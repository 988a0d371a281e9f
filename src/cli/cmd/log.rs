use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::Result;
use crate::human;
use crate::ops::Ctx;
use crate::ops::log::{self, Metric, Version};
use crate::values;

/// Metrics that are shown on a line.
const SHOWN: usize = 3;

/// Show the recorded versions of a model, newest first
///
/// One line a version: commit, day, release and stages where present, metrics with their change, and whether weights (W) and
/// data (D) changed. Release and stage marks come from this clone's tags.
#[derive(clap::Args, Debug)]
pub(crate) struct LogArgs {
    /// The model; may be left out when there is only one
    name: Option<String>,
    /// Where to start; HEAD if not given
    #[arg(long, value_name = "REVISION")]
    from: Option<String>,
    /// Show at most this many versions
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &LogArgs) -> Result<()> {
    let options = log::Options { name: args.name.clone(), revision: args.from.clone(), limit: args.limit };
    let log = log::log(ctx, &options)?;
    log.unreadable.iter().for_each(|error| ui.warn_error(error));
    if args.json {
        let versions: Vec<_> = log.versions.iter().map(to_json).collect();
        return ui.json("log", json!({ "model": log.model.name, "versions": versions }));
    }
    if log.versions.is_empty() && args.limit != Some(0) {
        ui.say(format!("{}: no version is committed yet", log.model.name));
        ui.hint(format!("git model record {} writes lineage.yaml; commit it", log.model.name));
    }
    // The metrics that gates look at say most about a version.
    let gated: Vec<&str> = log.model.gates.metrics.iter().map(|rule| rule.name.as_str()).collect();
    for version in &log.versions {
        ui.out(line(version, &gated))?;
    }
    Ok(())
}

fn line(version: &Version, gated: &[&str]) -> String {
    let mut line = format!("{}  {}", &version.commit.as_str()[..10], render::day(version.time));
    let marks: Vec<String> = version
        .releases
        .iter()
        .cloned()
        .chain(version.stages.iter().map(|stage| format!("#{stage}")))
        .collect();
    if !marks.is_empty() {
        line.push_str(&format!("  {}", marks.join(" ")));
    }
    let changed = |mark: &str, changed: Option<bool>| match changed {
        Some(true) => mark.to_owned(),
        _ => "-".to_owned(),
    };
    line.push_str(&format!(
        "  {}{}",
        changed("W", version.weights_changed),
        changed("D", version.data_changed)
    ));
    let (mut first, mut others): (Vec<_>, Vec<_>) =
        version.metrics.iter().partition(|(name, _)| gated.contains(&name.as_str()));
    first.append(&mut others);
    for (name, metric) in first.into_iter().take(SHOWN) {
        line.push_str(&format!("  {} {}", human::escape(name), shown(metric)));
    }
    format!("{line}  {}", human::escape(&version.subject))
}

fn shown(metric: &Metric) -> String {
    let change = match metric.change {
        Some(change) if change != 0.0 => format!(" ({})", render::change(change)),
        _ => String::new(),
    };
    format!("{}{change}", values::number(metric.value))
}

fn to_json(version: &Version) -> serde_json::Value {
    json!({
        "commit": version.commit.as_str(),
        "time": version.time,
        "subject": version.subject,
        "releases": version.releases,
        "stages": version.stages,
        "weights": version.weights,
        "weights_changed": version.weights_changed,
        "data_changed": version.data_changed,
        "basis": version.basis,
        "metrics": version.metrics,
    })
}
