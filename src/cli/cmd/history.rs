use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::cli::{Ui, render};
use crate::error::{Error, Kind, Result};
use crate::human;
use crate::ops::Ctx;
use crate::ops::history::{self, Entry, InStage};
use crate::release::{ModelName, StageName};

/// Tell what happened to a model: releases and stages, who, when and why
///
/// With --at it answers what was in each stage then. A broken record (an event deleted or rewritten, a moved tag) is named, and
/// the exit code is 3.
#[derive(clap::Args, Debug)]
pub(crate) struct HistoryArgs {
    /// The model; may be left out when there is only one
    name: Option<String>,
    /// Only this stage
    #[arg(long)]
    stage: Option<String>,
    /// How things were at this time: 2026-05-03, or 2026-05-03T14:00:00Z
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &HistoryArgs) -> Result<()> {
    let usage = |error: Error| error.of_kind(Kind::Usage);
    let options = history::Options {
        name: args.name.as_deref().map(ModelName::parse).transpose().map_err(usage)?,
        stage: args.stage.as_deref().map(StageName::parse).transpose().map_err(usage)?,
        at: args.at.as_deref().map(time).transpose()?,
    };
    let report = history::history(ctx, &options)?;
    if args.json {
        ui.json("history", &report)?;
    } else {
        for stage in &report.stages {
            ui.out(stage_line(stage, args.at.is_some()))?;
        }
        if !report.stages.is_empty() && !report.entries.is_empty() {
            ui.out("")?;
        }
        for entry in &report.entries {
            ui.out(line(entry))?;
        }
        if report.entries.is_empty() {
            let what = match (args.at.is_some(), &args.stage) {
                (true, _) => "nothing had happened by then",
                (false, Some(_)) => "nothing happened in this stage yet",
                (false, None) => "nothing is released yet",
            };
            ui.say(format!("{}: {what}", report.model));
        }
    }
    for finding in &report.findings {
        ui.warn(finding);
    }
    match report.findings.len() {
        0 => Ok(()),
        count => Err(Error::refused(format!(
            "{}: its record is broken in {}",
            report.model,
            human::count(count as u64, "place")
        ))
        .hint("compare with other clones; tags that are protected at the host cannot be moved or deleted")),
    }
}

/// The end of a day, or a moment, in Unix seconds.
fn time(text: &str) -> Result<i64> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.timestamp());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let end =
        day.and_then(|day| Some(day.and_time(NaiveTime::from_hms_opt(23, 59, 59)?).and_utc().timestamp()));
    end.ok_or_else(|| {
        Error::usage(format!("{}: not a date", human::escape(text)))
            .hint("write 2026-05-03 (the end of that day, UTC) or 2026-05-03T14:00:00Z")
    })
}

fn stage_line(stage: &InStage, past: bool) -> String {
    let is = if past { "was" } else { "is" };
    let Some(version) = &stage.version else { return format!("{} {is} empty", stage.stage) };
    let since = stage.since.map(render::day).unwrap_or_default();
    let by = stage.by.as_deref().map(|by| format!(" by {}", human::escape(by))).unwrap_or_default();
    let canary = stage
        .canary
        .as_ref()
        .map(|(version, share)| format!(", canary v{version} at {share} %"))
        .unwrap_or_default();
    let reason =
        stage.reason.as_deref().map(|reason| format!(": {}", human::escape(reason))).unwrap_or_default();
    format!("{} {is} v{version}{canary} (since {since}{by}{reason})", stage.stage)
}

fn line(entry: &Entry) -> String {
    let version = entry.version.as_deref().map(|version| format!(" v{version}")).unwrap_or_default();
    let stage = entry.stage.as_deref().map(|stage| format!(" {stage}")).unwrap_or_default();
    let mut more = String::new();
    if let Some(share) = entry.traffic {
        more.push_str(&format!(" at {share} %"));
    }
    if let Some(outcome) = &entry.outcome {
        more.push_str(&format!(" {outcome}"));
    }
    if let Some(reason) = &entry.reason {
        more.push_str(&format!(": {}", human::escape(reason)));
    }
    for passed in &entry.overrides {
        more.push_str(&format!(" [override {}]", human::escape(passed)));
    }
    let action = human::escape(&entry.action);
    format!("{}  {action}{version}{stage}{more}  {}", render::minute(entry.time), human::escape(&entry.by))
}
