//! Results that several commands show, as text and as JSON.

use serde_json::{Value, json};

use super::Ui;
use crate::gates::{Outcome, Verdict};
use crate::human;
use crate::ops::{Ctx, fetch, push, record, sync};
use crate::pointer::{Content, Pointer};
use crate::release::{Policy, PolicySource};
use crate::repo_path::RepoPath;

/// An artifact's path relative to the current directory, safe for a terminal.
pub(super) fn path(ctx: &Ctx, path: &RepoPath) -> String {
    human::escape(&ctx.git.shown(path))
}

/// A pointer's values.
pub(super) fn pointer_json(pointer: &Pointer) -> Value {
    let mut value = json!({ "sha256": pointer.digest, "size": pointer.size });
    match pointer.content {
        Content::File { executable } => {
            value["kind"] = json!("file");
            value["executable"] = json!(executable);
        }
        Content::Tree { files } => {
            value["kind"] = json!("tree");
            value["files"] = json!(files);
        }
    }
    value
}

/// The day of a time in Unix seconds, UTC.
pub(super) fn day(time: i64) -> String {
    chrono::DateTime::from_timestamp(time, 0)
        .map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d").to_string())
}

/// A time in Unix seconds to the minute, UTC.
pub(super) fn minute(time: i64) -> String {
    chrono::DateTime::from_timestamp(time, 0)
        .map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string())
}

/// How a gate came out, on a line.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let word = match verdict.outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Skip => "skip",
    };
    format!("{word}  {:<22} {}", human::escape(&verdict.gate), human::escape(&verdict.said))
}

/// Whose rules were applied.
pub(super) fn policy(policy: &Policy) -> String {
    let source = match policy.source {
        PolicySource::DefaultBranch => "the default branch",
        PolicySource::ReleaseCommit => {
            "the version's own commit, because the default branch does not have the model yet"
        }
    };
    format!("model.yaml of {source} ({})", &policy.commit[..10.min(policy.commit.len())])
}

/// A difference with its sign.
pub(super) fn change(change: f64) -> String {
    // More digits than the values have would only show how computers subtract.
    let rounded = format!("{change:+.6}");
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    if matches!(short, "+0" | "-0") { format!("{change:+.1e}") } else { short.to_owned() }
}

/// What recording wrote.
pub(super) fn record_json(report: &record::Report) -> Value {
    json!({
        "model": report.model.name,
        "path": report.path,
        "changed": report.changed,
        "taken_up": report.taken_up,
        "weights": report.lineage.weights.as_ref().map(|weights| weights.sha256),
        "training_basis": report.lineage.training.as_ref().map(|training| training.basis),
        "evaluation_bound": report.lineage.metrics().is_some(),
        "metrics": report.lineage.metrics(),
        "data": report.lineage.data,
        "warnings": report.warnings.iter().map(crate::error::Error::one_line).collect::<Vec<_>>(),
    })
}

/// Says what recording wrote.
pub(super) fn record_text(ui: &Ui, ctx: &Ctx, report: &record::Report, dry_run: bool) {
    let shown = path(ctx, &report.path);
    if !report.changed {
        ui.say(format!("{shown}: nothing changed"));
        return;
    }
    for run in &report.taken_up {
        let command = human::escape(&run.command.join(" "));
        ui.say(format!("taken up what git model run saw of `{command}` ({})", run.started));
    }
    if let Some(weights) = &report.lineage.weights {
        let format = weights.format.as_deref().unwrap_or("format unknown");
        let parameters = weights.parameters.map(|count| format!(", {}", human::count(count, "parameter")));
        ui.say(format!(
            "weights {} ({format}, {}{})",
            weights.sha256.short(),
            human::bytes(weights.size),
            parameters.unwrap_or_default()
        ));
    }
    for (name, value) in report.lineage.metrics().into_iter().flatten().take(10) {
        ui.say(format!("{} {}", human::escape(name), crate::values::number(*value)));
    }
    let verb = if dry_run { "would be recorded" } else { "recorded (staged)" };
    ui.say(format!("{shown}: {verb}"));
}

/// What a sync did.
pub(super) fn sync_json(report: &sync::Report) -> Value {
    json!({
        "synced": report.synced.iter().map(|(path, pointer)| {
            let mut value = pointer_json(pointer);
            value["path"] = json!(path);
            value
        }).collect::<Vec<_>>(),
        "removed": report.removed,
        "modified": report.modified,
        "kept": report.kept,
        "saved": report.saved.iter().map(|(path, digest)| json!({ "path": path, "sha256": digest })).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(crate::error::Error::one_line).collect::<Vec<_>>(),
        "fetched": fetch_json(&report.fetched),
        "resumed": report.resumed,
    })
}

/// What a fetch brought.
pub(super) fn fetch_json(report: &fetch::Report) -> Value {
    let seconds = report.time.as_secs_f64();
    json!({ "objects": report.objects, "bytes": report.bytes, "seconds": seconds, "remote": report.remote })
}

/// Says what a fetch brought, if it had to ask a store.
pub(super) fn fetch_text(ui: &Ui, report: &fetch::Report) {
    if let Some(remote) = &report.remote {
        if report.objects == 0 {
            ui.say(format!("nothing came from {remote} that is new: another command brought it meanwhile"));
            return;
        }
        let (objects, moved) =
            (human::count(report.objects, "object"), human::moved(report.bytes, report.time));
        ui.say(format!("fetched {objects} ({moved}) from {remote}"));
    }
}

/// Says what a sync did.
pub(super) fn sync_text(ui: &Ui, ctx: &Ctx, report: &sync::Report) {
    if report.resumed {
        ui.say("finished a sync that was interrupted");
    }
    fetch_text(ui, &report.fetched);
    for (saved, digest) in &report.saved {
        ui.say(format!("saved your version of {} in the cache as {}", path(ctx, saved), digest.short()));
    }
    for (synced, pointer) in &report.synced {
        ui.say(format!("{}: {}", path(ctx, synced), pointer.summary()));
    }
    for removed in &report.removed {
        ui.say(format!("{}: removed, it is not part of this version (the cache has it)", path(ctx, removed)));
    }
    for kept in &report.kept {
        ui.warn(format!(
            "{}: kept, though it is not part of this version, because its content is nowhere else; git ignores it here",
            path(ctx, kept)
        ));
    }
    for modified in &report.modified {
        ui.warn(format!("{}: changed by you, left alone", path(ctx, modified)));
    }
    if !report.modified.is_empty() {
        ui.hint("git model add keeps your changes; git model sync --force replaces them");
    }
    report.problems.iter().for_each(|problem| ui.warn_error(problem));
}

/// Says what a push did.
pub(super) fn push_text(ui: &Ui, report: &push::Report, dry_run: bool) {
    report.unreadable.iter().for_each(|error| ui.warn_error(error));
    let Some((name, url)) = &report.remote else {
        ui.say("nothing to push: no artifact is tracked");
        return;
    };
    if report.store_replaced {
        ui.warn(format!(
            "{url}: this is another store than was pushed to before, so everything is sent that it lacks"
        ));
    }
    if report.unchecked > 0 {
        ui.warn(format!(
            "{url}: it keeps no checksum to compare of {}, so only sizes were; git model push --repair reads them",
            human::count(report.unchecked, "object")
        ));
    }
    if report.objects == 0 {
        ui.say(format!("{name} ({url}) has everything"));
        return;
    }
    let objects = human::count(report.objects, "object");
    match dry_run {
        true => ui.say(format!("would push {objects} ({}) to {name} ({url})", human::bytes(report.bytes))),
        false => {
            let moved = human::moved(report.bytes, report.time);
            ui.say(format!("pushed {objects} ({moved}) to {name} ({url})"));
        }
    }
    if report.repaired > 0 {
        ui.say(format!("of these, {} had wrong bytes in the store", human::count(report.repaired, "object")));
    }
}

/// What a push sent.
pub(super) fn push_json(report: &push::Report, dry_run: bool) -> Value {
    json!({
        "remote": report.remote.as_ref().map(|(name, _)| name),
        "url": report.remote.as_ref().map(|(_, url)| url),
        "objects": report.objects,
        "bytes": report.bytes,
        "seconds": report.time.as_secs_f64(),
        "repaired": report.repaired,
        "unchecked": report.unchecked,
        "store_replaced": report.store_replaced,
        "versions": report.versions,
        "dry_run": dry_run,
    })
}
