use serde_json::json;

use super::event::require_words;
use crate::cli::{Ui, render};
use crate::error::Result;
use crate::gates::Outcome;
use crate::ops::Ctx;
use crate::ops::release::{self, Report, Which};
use crate::release::{Bump, Version};

/// Release the committed version of a model: gates, objects to the store, then one annotated tag
///
/// Without a version the next patch is made. The same model under the same version again is no change; an automatic bump of a
/// model that is released already says so and does nothing.
#[derive(clap::Args, Debug)]
pub(crate) struct ReleaseArgs {
    /// The model; may be left out when there is only one
    name: Option<String>,
    /// The version, such as 1.4.0
    version: Option<String>,
    /// Make the next major version
    #[arg(long, group = "which", conflicts_with = "version")]
    major: bool,
    /// Make the next minor version
    #[arg(long, group = "which", conflicts_with = "version")]
    minor: bool,
    /// Make the next patch version (the default)
    #[arg(long, group = "which", conflicts_with = "version")]
    patch: bool,
    /// Make the next pre-release of this kind, such as rc
    #[arg(long, value_name = "ID", group = "which", conflicts_with = "version")]
    pre: Option<String>,
    /// Release this commit; HEAD if not given
    #[arg(long, value_name = "REVISION")]
    commit: Option<String>,
    /// Sign the tag as git is configured to (GPG, SSH or X.509); the default where a stage takes signed releases only
    #[arg(long, short)]
    sign: bool,
    /// Do not sign the tag, whatever tag.gpgSign says; stages that take signed releases only will refuse it
    #[arg(long, conflicts_with = "sign")]
    no_sign: bool,
    /// Pass gates of the policy that refuse, for this reason; it is recorded in the tag
    #[arg(long = "override", value_name = "REASON")]
    override_reason: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl ReleaseArgs {
    /// One word alone is a version when it looks like one, and a model's name else.
    fn parts(&self) -> Result<(Option<String>, Which)> {
        let (name, version) = match (&self.name, &self.version) {
            (Some(only), None) if Version::parse_typed(only).is_ok() => (None, Some(only)),
            (name, version) => (name.clone(), version.as_ref()),
        };
        let which = match version {
            Some(version) => Which::Exact(
                Version::parse_typed(version).map_err(|error| error.of_kind(crate::error::Kind::Usage))?,
            ),
            None if self.major => Which::Next(Bump::Major),
            None if self.minor => Which::Next(Bump::Minor),
            None => Which::Next(self.pre.clone().map_or(Bump::Patch, Bump::Pre)),
        };
        Ok((name, which))
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &ReleaseArgs) -> Result<()> {
    require_words(args.override_reason.as_deref())?;
    let (name, which) = args.parts()?;
    let options = release::Options {
        name,
        which,
        commit: args.commit.clone(),
        sign: if args.no_sign { Some(false) } else { args.sign.then_some(true) },
        override_reason: args.override_reason.clone(),
        dry_run: args.dry_run,
    };
    let report = release::release(ctx, &options)?;
    if let Some(error) = &report.not_kept {
        ui.warn_error(error);
    }
    if args.json {
        return ui.json("release", to_json(&report, args.dry_run));
    }
    if report.exists {
        ui.say(format!("{}: this very model is released already ({})", report.tag, report.digest.short()));
        return Ok(());
    }
    for verdict in report.verdicts.iter().filter(|verdict| args.dry_run || verdict.outcome == Outcome::Fail) {
        ui.say(render::verdict(verdict));
    }
    if let Some(pushed) = &report.pushed {
        render::push_text(ui, pushed, args.dry_run);
    }
    let place =
        report.git_remote.as_deref().map_or("in this repository".to_owned(), |remote| format!("on {remote}"));
    match args.dry_run {
        true => ui.say(format!("would release {} ({}) {place}", report.tag, report.digest.short())),
        false => ui.say(format!("released {} ({}) {place}", report.tag, report.digest.short())),
    }
    Ok(())
}

fn to_json(report: &Report, dry_run: bool) -> serde_json::Value {
    json!({
        "model": report.model,
        "version": report.version,
        "tag": report.tag,
        "tag_oid": report.oid,
        "commit": report.commit,
        "digest": report.digest,
        "verdicts": report.verdicts,
        "pushed": report.pushed.as_ref().map(|pushed| render::push_json(pushed, dry_run)),
        "exists": report.exists,
        "git_remote": report.git_remote,
        "dry_run": dry_run,
    })
}
