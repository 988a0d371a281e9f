use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Ui;
use crate::error::{Error, Result};
use crate::human;
use crate::manifests::Target;
use crate::model_yaml::ImageRef;
use crate::ops::Ctx;
use crate::ops::deploy::{self, Images, Options, Report};
use crate::release::StageName;

/// Write Kubernetes manifests for what is in a stage, or check that they still agree with it
///
/// Image and model are pinned by digest; rollout steps, analysis and probes come from `deploy` in model.yaml. Equal releases give
/// equal bytes. Files in the directory that git-model did not write are left alone.
#[derive(clap::Args, Debug)]
pub(crate) struct DeployArgs {
    /// churn#prod, or the release that is in the stage
    #[arg(required_unless_present = "check")]
    reference: Option<String>,
    /// What the manifests are for; as before if the directory holds some
    #[arg(long, value_enum, conflicts_with = "check")]
    target: Option<Kind>,
    /// The stage, where the reference is a release
    #[arg(long, conflicts_with = "check")]
    stage: Option<String>,
    /// The directory
    #[arg(
        long = "output",
        short = 'o',
        value_name = "DIR",
        required_unless_present = "check",
        conflicts_with = "check"
    )]
    dir: Option<PathBuf>,
    /// Write nothing; say whether the manifests in this directory are those of what is in their stage
    #[arg(long, value_name = "DIR", conflicts_with_all = ["reference", "force", "dry_run"])]
    check: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Replace files that somebody changed
    #[arg(long, short)]
    force: bool,
    /// Say what would be written, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Images that the manifests name, each pinned by digest.
#[derive(clap::Args, Debug)]
pub(crate) struct ImageArgs {
    /// The server's image; else the one that was deployed with this version, else that of model.yaml
    #[arg(long, value_name = "NAME@sha256:…", value_parser = ImageRef::parse)]
    image: Option<ImageRef>,
    /// An image that holds the model under /models, mounted instead of fetching the model
    #[arg(long, value_name = "NAME@sha256:…", value_parser = ImageRef::parse)]
    model_image: Option<ImageRef>,
    /// The image with git-model, curl and sh, for init containers and jobs; else the server's
    #[arg(long, value_name = "NAME@sha256:…", value_parser = ImageRef::parse)]
    tools: Option<ImageRef>,
}

impl ImageArgs {
    pub(super) fn is_empty(&self) -> bool {
        self.image.is_none() && self.model_image.is_none() && self.tools.is_none()
    }

    pub(super) fn images(&self) -> Images {
        Images { server: self.image.clone(), model: self.model_image.clone(), tools: self.tools.clone() }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    /// An InferenceService of KServe
    Kserve,
    /// A Rollout of Argo Rollouts
    ArgoRollouts,
    /// A Canary of Flagger
    Flagger,
    /// Deployments alone
    Kubernetes,
}

impl From<Kind> for Target {
    fn from(kind: Kind) -> Target {
        match kind {
            Kind::Kserve => Target::Kserve,
            Kind::ArgoRollouts => Target::ArgoRollouts,
            Kind::Flagger => Target::Flagger,
            Kind::Kubernetes => Target::Kubernetes,
        }
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &DeployArgs) -> Result<()> {
    if let Some(dir) = &args.check {
        return check(ui, ctx, args, dir);
    }
    let stage = args.stage.as_deref().map(StageName::parse).transpose();
    let options = Options {
        reference: args.reference.clone().unwrap_or_default(),
        stage: stage.map_err(|error| error.of_kind(crate::error::Kind::Usage))?,
        target: args.target.map(Target::from),
        dir: args.dir.clone().unwrap_or_default(),
        images: args.images.images(),
        force: args.force,
        dry_run: args.dry_run,
    };
    let report = deploy::deploy(ctx, &options)?;
    if args.json {
        return ui.json("deploy", to_json(&report, &options.dir, args.dry_run));
    }
    say(ui, &report, &options.dir, args.dry_run);
    Ok(())
}

/// Says what was written.
pub(super) fn say(ui: &Ui, report: &Report, dir: &Path, dry_run: bool) {
    let shown = human::escape(&dir.to_string_lossy());
    let what = format!("{}@v{} for {}", report.model, report.version, report.stage);
    report.warnings.iter().for_each(|warning| ui.warn(warning));
    if !report.foreign.is_empty() {
        let names: Vec<String> = report.foreign.iter().map(|name| human::escape(name)).collect();
        ui.say(format!("{shown}: left alone: {}", names.join(", ")));
    }
    if report.nothing_to_do {
        ui.say(format!("{shown}: nothing to do, it is {what} already"));
        return;
    }
    let share = report.traffic.map(|share| format!(" at {share} %")).unwrap_or_default();
    let would = if dry_run { "would be " } else { "" };
    let files = human::count(report.files.len() as u64, "file");
    ui.say(format!("{shown}: {would}{what}{share} ({}), {files}", report.target.as_str()));
    for name in &report.removed {
        ui.say(format!("{shown}: {would}removed: {name}"));
    }
}

pub(super) fn to_json(report: &Report, dir: &Path, dry_run: bool) -> serde_json::Value {
    json!({
        "directory": dir,
        "model": report.model,
        "stage": report.stage,
        "target": report.target,
        "version": report.version,
        "traffic": report.traffic,
        "files": report.files,
        "removed": report.removed,
        "left_alone": report.foreign,
        "warnings": report.warnings,
        "nothing_to_do": report.nothing_to_do,
        "dry_run": dry_run,
    })
}

fn check(ui: &Ui, ctx: &Ctx, args: &DeployArgs, dir: &Path) -> Result<()> {
    let checked = deploy::check(ctx, dir)?;
    let record = &checked.record;
    let shown = human::escape(&dir.to_string_lossy());
    if args.json {
        ui.json(
            "deploy-check",
            json!({
                "directory": dir,
                "model": record.model,
                "stage": record.stage,
                "target": record.target,
                "manifests": {"version": record.version, "traffic": record.traffic},
                "wanted": checked.wanted.as_ref().map(|version| json!({"version": version, "traffic": checked.traffic})),
                "agrees": checked.disagreements.is_empty(),
                "disagreements": checked.disagreements,
            }),
        )?;
    }
    let Some(first) = checked.disagreements.first() else {
        ui.say(format!(
            "{shown}: agrees with {}: v{}",
            human::escape(&format!("{}#{}", record.model, record.stage)),
            human::escape(&record.version)
        ));
        return Ok(());
    };
    let rest = checked.disagreements.len() - 1;
    let more = if rest > 0 { format!(" (and {rest} more)") } else { String::new() };
    let reference = human::shell_quote(&format!("{}#{}", record.model, record.stage));
    let dir = human::shell_quote(&dir.to_string_lossy());
    Err(Error::refused(format!("{shown}: {first}{more}"))
        .hint(format!("git model deploy {reference} -o {dir} writes what is wanted")))
}
