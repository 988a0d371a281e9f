//! What the commands about stages share: `promote`, `rollback`, `retire`, `approve`, `outcome`.

use std::path::PathBuf;

use serde_json::json;

use super::deploy::ImageArgs;
use crate::cli::{Ui, render};
use crate::error::{Error, Kind, Result};
use crate::gates::Outcome as GateOutcome;
use crate::human;
use crate::ops::Ctx;
use crate::ops::deploy;
use crate::ops::events::{self, Options, Report, What};
use crate::release::{Action, ModelName, Outcome, Reference, StageName, Wanted};

/// What every event can be given.
#[derive(clap::Args, Debug)]
pub(crate) struct EventArgs {
    /// Say why; it is recorded in the event
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    /// Say who, when git's user is only a machine: a CI run, a rollout controller
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Sign the event as git is configured to (GPG, SSH or X.509)
    #[arg(long, short)]
    sign: bool,
    /// Say what would be done, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Bring a release into a stage
///
/// The gates of the release and of the stage are judged anew, by the rules of the git remote's default branch. With --traffic
/// it becomes a canary beside the stage's version.
#[derive(clap::Args, Debug)]
pub(crate) struct PromoteArgs {
    /// The release, such as churn@v1.4.0
    release: String,
    /// The stage
    stage: String,
    /// Give it this share of the traffic, in percent, beside the stage's version
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    traffic: Option<u8>,
    /// Pass gates of the policy that refuse, for this reason; it is recorded in the event
    #[arg(long = "override", value_name = "REASON")]
    override_reason: Option<String>,
    #[command(flatten)]
    event: EventArgs,
}

/// Bring a stage back to the last version that was good in it
///
/// Never held up by metrics, soak times or approvals: it needs only that the version is whole, that it was in the stage before,
/// and the signature that the stage asks for.
#[derive(clap::Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The model
    name: String,
    /// The stage
    stage: String,
    /// Go back to this version instead; needed beside a canary
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Write its manifests into this directory of git model deploy, too
    #[arg(long, value_name = "DIR")]
    deploy: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    event: EventArgs,
}

/// Empty a stage
#[derive(clap::Args, Debug)]
pub(crate) struct RetireArgs {
    /// The model
    name: String,
    /// The stage
    stage: String,
    #[command(flatten)]
    event: EventArgs,
}

/// Approve a release for a stage
///
/// Only approvals with a verified signature count, one for each signer: use --sign.
#[derive(clap::Args, Debug)]
pub(crate) struct ApproveArgs {
    /// The release, such as churn@v1.4.0
    release: String,
    /// The stage
    stage: String,
    #[command(flatten)]
    event: EventArgs,
}

/// Report how a rollout ended, as a rollout controller does
///
/// An aborted rollout ends the canary, and keeps a rollback from going to that version.
#[derive(clap::Args, Debug)]
pub(crate) struct OutcomeArgs {
    /// The model
    name: String,
    /// The stage
    stage: String,
    /// How it ended
    #[arg(value_enum)]
    outcome: Ended,
    /// Which version, where that is not the stage's newest
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    event: EventArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Ended {
    /// It is served as wanted
    Ok,
    /// It was stopped or taken back
    Aborted,
}

pub(super) fn promote(ui: &Ui, ctx: &Ctx, args: &PromoteArgs) -> Result<()> {
    let (name, wanted) = release(&args.release)?;
    require_words(args.override_reason.as_deref())?;
    let what = What::Promote { wanted, traffic: args.traffic.filter(|share| *share < 100) };
    let options = Options {
        override_reason: args.override_reason.clone(),
        ..options(name, &args.stage, what, &args.event)?
    };
    happen(ui, ctx, &options, &args.event)
}

pub(super) fn rollback(ui: &Ui, ctx: &Ctx, args: &RollbackArgs) -> Result<()> {
    let what = What::Rollback { to: args.to.as_deref().map(version).transpose()? };
    let options = options(model(&args.name)?, &args.stage, what, &args.event)?;
    let Some(dir) = &args.deploy else {
        return match args.images.is_empty() {
            true => happen(ui, ctx, &options, &args.event),
            false => Err(Error::usage("images are for the manifests: name their directory with --deploy")),
        };
    };
    let manifests =
        deploy::Options { dir: dir.clone(), images: args.images.images(), ..deploy::Options::default() };
    let (report, written) = deploy::rollback(ctx, &options, &manifests)?;
    if args.event.json {
        let mut value = to_json(&report, &options);
        value["deploy"] = super::deploy::to_json(&written, dir, options.dry_run);
        return ui.json("event", value);
    }
    say(ui, &report, &options);
    super::deploy::say(ui, &written, dir, options.dry_run);
    Ok(())
}

pub(super) fn retire(ui: &Ui, ctx: &Ctx, args: &RetireArgs) -> Result<()> {
    happen(ui, ctx, &options(model(&args.name)?, &args.stage, What::Retire, &args.event)?, &args.event)
}

pub(super) fn approve(ui: &Ui, ctx: &Ctx, args: &ApproveArgs) -> Result<()> {
    let (name, wanted) = release(&args.release)?;
    happen(ui, ctx, &options(name, &args.stage, What::Approve { wanted }, &args.event)?, &args.event)
}

pub(super) fn outcome(ui: &Ui, ctx: &Ctx, args: &OutcomeArgs) -> Result<()> {
    let outcome = match args.outcome {
        Ended::Ok => Outcome::Ok,
        Ended::Aborted => Outcome::Aborted,
    };
    let what = What::Outcome { outcome, of: args.version.as_deref().map(version).transpose()? };
    happen(ui, ctx, &options(model(&args.name)?, &args.stage, what, &args.event)?, &args.event)
}

/// Refuses an override without a reason.
pub(super) fn require_words(reason: Option<&str>) -> Result<()> {
    match reason {
        Some(reason) if reason.trim().is_empty() => Err(Error::usage("--override needs a reason in words")),
        _ => Ok(()),
    }
}

fn options(name: ModelName, stage: &str, what: What, event: &EventArgs) -> Result<Options> {
    Ok(Options {
        name,
        stage: StageName::parse(stage).map_err(usage)?,
        what,
        reason: event.reason.clone(),
        actor: event.actor.clone(),
        override_reason: None,
        sign: event.sign,
        dry_run: event.dry_run,
    })
}

fn usage(error: Error) -> Error {
    error.of_kind(Kind::Usage)
}

fn model(name: &str) -> Result<ModelName> {
    ModelName::parse(name).map_err(usage)
}

fn version(text: &str) -> Result<Wanted> {
    Wanted::parse(text).ok_or_else(|| {
        Error::usage(format!("{}: not a version", human::escape(text))).hint("write 1.4.0 or 1.4")
    })
}

fn release(text: &str) -> Result<(ModelName, Wanted)> {
    match Reference::parse(text)? {
        Reference::Release { name, wanted } => Ok((name, wanted)),
        _ => Err(Error::usage(format!("{}: not a release", human::escape(text)))
            .hint("name one: churn@v1.4.0, churn@1.4 or churn@latest")),
    }
}

fn happen(ui: &Ui, ctx: &Ctx, options: &Options, args: &EventArgs) -> Result<()> {
    let report = events::happen(ctx, options)?;
    report.warnings.iter().for_each(|warning| ui.warn_error(warning));
    if args.json {
        return ui.json("event", to_json(&report, options));
    }
    say(ui, &report, options);
    Ok(())
}

fn say(ui: &Ui, report: &Report, options: &Options) {
    let (name, stage) = (&options.name, &options.stage);
    let version = report.version.as_ref().map(|version| format!("v{version}")).unwrap_or_default();
    let before = report.before.as_ref().map_or("empty".to_owned(), |version| format!("v{version}"));
    if report.nothing_to_do {
        let there = match report.action {
            Action::Canary => format!("{version} is the canary already"),
            Action::Outcome => format!("that is recorded of {version} already"),
            _ => format!("it is {before} already"),
        };
        ui.say(format!("{name}#{stage}: nothing to do, {there}"));
        return;
    }
    for verdict in
        report.verdicts.iter().filter(|verdict| options.dry_run || verdict.outcome == GateOutcome::Fail)
    {
        ui.say(render::verdict(verdict));
    }
    let did = match &report.action {
        Action::Promote => format!("{before} -> {version}"),
        Action::Canary => format!("{version} as a canary beside {before}"),
        Action::Rollback => format!("{before} -> {version} (rollback)"),
        Action::Retire => format!("{before} -> empty"),
        Action::Approve => format!("{version} approved"),
        Action::Outcome => format!("{version}: outcome recorded"),
        other => other.as_str().to_owned(),
    };
    let ended = report.ended.as_ref().map(|ended| format!(", the canary v{ended} ends")).unwrap_or_default();
    let would = if options.dry_run { "would be: " } else { "" };
    let place = report.git_remote.as_deref().map(|remote| format!(" on {remote}")).unwrap_or_default();
    ui.say(format!("{name}#{stage}: {would}{did}{ended} ({}{place})", report.tag));
}

fn to_json(report: &Report, options: &Options) -> serde_json::Value {
    json!({
        "tag": report.tag,
        "tag_oid": report.oid,
        "model": options.name,
        "stage": options.stage,
        "action": report.action.as_str(),
        "version": report.version,
        "before": report.before,
        "canary_ended": report.ended,
        "verdicts": report.verdicts,
        "nothing_to_do": report.nothing_to_do,
        "lost_races": report.lost,
        "git_remote": report.git_remote,
        "dry_run": options.dry_run,
    })
}
