use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::human;
use crate::ops::Ctx;
use crate::ops::status::{self, Item, State};

/// Show which artifacts differ from their pointers, and what is not pushed
///
/// Content whose size and times did not change is not read.
#[derive(clap::Args, Debug)]
pub(crate) struct StatusArgs {
    /// Only these artifacts
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit with code 3 unless everything is in step and staged
    #[arg(long)]
    check: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &StatusArgs) -> Result<()> {
    let report = status::status(ctx, &ctx.selection(&args.paths)?)?;
    if args.json {
        ui.json("status", to_json(&report))?;
    } else {
        text(ui, ctx, &report)?;
    }
    if args.check && !report.is_clean() {
        let count = report.items.iter().filter(|item| item.state != State::Clean || !item.staged).count();
        return Err(Error::refused(format!("{} not in step", human::count(count as u64, "artifact"))));
    }
    Ok(())
}

fn text(ui: &Ui, ctx: &Ctx, report: &status::Report) -> Result<()> {
    if report.sync_interrupted {
        ui.warn("a sync was interrupted");
        ui.hint("git model sync finishes it");
    }
    if report.sync_pending && !ctx.git.sequence_in_progress() {
        ui.hint("a sync was postponed; git model sync does it now");
    }
    if report.items.is_empty() {
        ui.say("no artifacts are tracked here; git model add PATH tracks one");
        return Ok(());
    }
    let mut advice = Vec::new();
    for item in &report.items {
        let Some((word, hint)) = describe(item) else { continue };
        ui.out(format!("{word:<12} {}", render::path(ctx, &item.path)))?;
        if let Some(problem) = &item.problem {
            ui.say(format!("{:<12} {}", "", human::escape(&problem.one_line())));
            problem.hints().iter().for_each(|hint| ui.hint(human::escape(hint)));
        }
        if let Some(hint) = hint.filter(|hint| !advice.contains(hint)) {
            advice.push(hint);
        }
    }
    advice.iter().for_each(|hint| ui.hint(hint));
    let clean = report.items.iter().filter(|item| item.state == State::Clean && item.staged).count() as u64;
    let not_pushed = report.items.iter().filter(|item| item.pushed == Some(false)).count() as u64;
    let sizes = report.items.iter().filter_map(|item| item.pointer).map(|pointer| pointer.size);
    let size = sizes.fold(0, u64::saturating_add);
    ui.say(format!(
        "{} ({}), {clean} in step{}",
        human::count(report.items.len() as u64, "artifact"),
        human::bytes(size),
        match (&report.remote, not_pushed) {
            (None, _) => ", no remote".to_owned(),
            (Some(_), 0) => String::new(),
            (Some(name), count) => format!(", {count} not known to be in {name}"),
        }
    ));
    Ok(())
}

/// The word for what deserves attention, and the advice that goes with it.
fn describe(item: &Item) -> Option<(&'static str, Option<&'static str>)> {
    Some(match item.state {
        State::Modified => {
            ("modified", Some("git model add takes modified content (its pointer is stale until then)"))
        }
        State::Missing => ("missing", Some("git model pull brings missing content")),
        State::Outdated => {
            ("outdated", Some("git model sync brings outdated artifacts in step with their pointers"))
        }
        State::Conflict => ("conflict", None),
        State::Unreadable => ("unreadable", None),
        State::Clean if !item.staged => ("not staged", Some("git add the .pointer files to stage them")),
        State::Clean if item.pushed == Some(false) => {
            ("not pushed", Some("git model push sends what is not pushed"))
        }
        State::Clean => return None,
    })
}

fn to_json(report: &status::Report) -> serde_json::Value {
    json!({
        "artifacts": report.items.iter().map(|item| {
            let mut value = item.pointer.as_ref().map_or(json!({}), render::pointer_json);
            value["path"] = json!(item.path);
            value["state"] = json!(item.state);
            value["staged"] = json!(item.staged);
            value["pushed"] = json!(item.pushed);
            value["problem"] = json!(item.problem.as_ref().map(Error::one_line));
            value
        }).collect::<Vec<_>>(),
        "clean": report.is_clean(),
        "remote": report.remote,
        "sync_interrupted": report.sync_interrupted,
        "sync_pending": report.sync_pending,
    })
}
