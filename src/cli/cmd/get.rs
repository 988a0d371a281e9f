use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::resolve::{Source, at_url, read_lock, require_same};
use crate::cli::{Global, Ui};
use crate::error::{Error, Result};
use crate::human;
use crate::model_yaml::Role;
use crate::ops::Ctx;
use crate::ops::get::{self, Origin, Report};
use crate::ops::resolve::{self, Options, Resolved};

/// Write the files of a release into a directory, verified, with model-info.json beside them
///
/// Complete or not there; run again, it checks every byte and changes nothing. With --repo no clone is needed. With --locked and no
/// repository around, the files come from the store or the presigned URLs that the lock file names, without git.
#[derive(clap::Args, Debug)]
pub(crate) struct GetArgs {
    /// churn@v1.4.0, churn@1.4, churn@latest, churn#prod or churn@prod; may be left out with --locked
    #[arg(required_unless_present = "locked")]
    reference: Option<String>,
    /// The directory
    #[arg(long = "output", short = 'o', value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Only files of this kind; may be given several times
    #[arg(long, value_name = "ROLE", value_parser = roles())]
    only: Vec<Role>,
    /// Also what is no part of the bundle
    #[arg(long, value_enum, value_name = "WHAT")]
    with: Vec<Extra>,
    /// Replace what is in the way: files of somebody else, files that were changed, and folders where files go
    #[arg(long, short)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Takes a role by its key in `model.yaml`.
fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::key))
        .map(|key| Role::ALL.into_iter().find(|role| role.key() == key).expect("only keys of roles pass"))
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Extra {
    /// Tracked data snapshots
    Data,
}

impl GetArgs {
    fn options(&self) -> get::Options {
        get::Options {
            dir: self.dir.clone(),
            only: self.only.clone(),
            data: self.with.iter().any(|extra| matches!(extra, Extra::Data)),
            force: self.force,
        }
    }

    /// Whether no repository is needed around: with a URL, or with a lock file alone.
    pub(super) fn needs_no_clone(&self) -> bool {
        self.source.repo.is_some() || self.reference.is_none()
    }
}

pub(super) fn run_without_clone(ui: &Ui, global: &Global, args: &GetArgs) -> Result<()> {
    without_clone(ui, global, &args.source, args.reference.as_deref(), |origin, resolved| {
        finish(ui, args, &get::get(origin, resolved, &args.options())?)
    })
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &GetArgs) -> Result<()> {
    inside(ui, ctx, &args.source, args.reference.as_deref().unwrap_or_default(), |origin, resolved| {
        finish(ui, args, &get::get(origin, resolved, &args.options())?)
    })
}

/// Does `work` with a version of a repository at a URL, or with what a lock file says.
pub(super) fn without_clone(
    ui: &Ui,
    global: &Global,
    source: &Source,
    reference: Option<&str>,
    work: impl FnOnce(&Origin<'_>, &Resolved) -> Result<()>,
) -> Result<()> {
    if let Some(url) = &source.repo {
        let reference =
            reference.ok_or_else(|| Error::usage("--repo needs a release or a stage to look for"))?;
        let options = Options { reference: reference.to_owned(), ..Options::default() };
        let (resolved, ctx) = at_url(ui, global, url, &options)?;
        check_lock(ui, source, &resolved)?;
        return work(&Origin::Store(&ctx), &resolved);
    }
    let path = source
        .locked
        .as_deref()
        .ok_or_else(|| Error::usage("name a release, or a lock file with --locked"))?;
    let resolved = read_lock(path)?;
    let (progress, interrupt) = crate::cli::progress_and_interrupt(ui)?;
    let traffic = &global.traffic();
    work(&Origin::Lock { traffic, progress: progress.as_ref(), interrupt: &interrupt }, &resolved)
}

/// Does `work` with a version of this clone.
pub(super) fn inside(
    ui: &Ui,
    ctx: &Ctx,
    source: &Source,
    reference: &str,
    work: impl FnOnce(&Origin<'_>, &Resolved) -> Result<()>,
) -> Result<()> {
    let options = Options { reference: reference.to_owned(), ..Options::default() };
    let resolved = resolve::resolve(ctx, &options)?;
    check_lock(ui, source, &resolved)?;
    work(&Origin::Store(ctx), &resolved)
}

fn check_lock(ui: &Ui, source: &Source, resolved: &Resolved) -> Result<()> {
    resolved.warnings.iter().for_each(|warning| ui.warn(warning));
    match &source.locked {
        Some(path) => require_same(&read_lock(path)?, resolved, path),
        None => Ok(()),
    }
}

fn finish(ui: &Ui, args: &GetArgs, report: &Report) -> Result<()> {
    if args.json {
        let value = json!({
            "directory": args.dir,
            "info": report.info,
            "files": report.files,
            "bytes": report.bytes,
            "fetched": report.fetched,
            "up_to_date": report.up_to_date,
        });
        return ui.json("get", value);
    }
    let name = report.info.release.clone().unwrap_or_else(|| report.info.model.clone());
    let what = format!("{} ({})", human::count(report.files, "file"), human::bytes(report.bytes));
    let dir = human::escape(&args.dir.to_string_lossy());
    match report.up_to_date {
        true => ui.say(format!("{dir}: {name} is there already, {what} verified")),
        false => ui.say(format!("{dir}: {name}, {what}, {} fetched", human::bytes(report.fetched))),
    }
    Ok(())
}
