use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::get::{inside, without_clone};
use super::resolve::Source;
use crate::cli::{Global, Ui};
use crate::error::{Error, Result};
use crate::human;
use crate::oci::image::Platform;
use crate::ops::Ctx;
use crate::ops::get::Origin;
use crate::ops::package::{self, Format, Options, Part, Report};
use crate::ops::resolve::Resolved;
use crate::repo_path::RepoPath;

/// Pack a release into an OCI artifact, an image or a tar, the same bytes everywhere
///
/// `modelpack` is a CNCF ModelPack artifact whose layers are the files as they are; `image` has them below /models, for KServe
/// and Kubernetes image volumes; `tar` is an archive of the files. PATH becomes an OCI layout directory, or an archive of one when
/// it ends in .tar. Nothing is overwritten.
#[derive(clap::Args, Debug)]
pub(crate) struct PackageArgs {
    /// churn@v1.4.0, churn@1.4, churn@latest, churn#prod or churn@prod; may be left out with --locked
    #[arg(required_unless_present = "locked")]
    reference: Option<String>,
    /// The form
    #[arg(long, value_enum, default_value_t = Form::Modelpack)]
    format: Form,
    /// Where to write it
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// What to pack beside the weights, instead of everything that the release has
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = parts())]
    include: Option<Vec<Choice>>,
    /// Put what is below this directory of the repository at the top of the package
    #[arg(long, value_name = "DIR", value_parser = directory)]
    root: Option<RepoPath>,
    /// What an image says that it runs on
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platform)]
    platform: Platform,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Form {
    /// A CNCF ModelPack artifact
    Modelpack,
    /// A plain image
    Image,
    /// A tar
    Tar,
}

impl Form {
    fn format(self) -> Format {
        match self {
            Form::Modelpack => Format::ModelPack,
            Form::Image => Format::Image,
            Form::Tar => Format::Tar,
        }
    }
}

/// A part, or `none`.
#[derive(Clone, Copy, Debug)]
struct Choice(Option<Part>);

fn parts() -> impl TypedValueParser<Value = Choice> {
    let names = Part::CHOICES.map(Part::key).into_iter().chain(["none"]);
    PossibleValuesParser::new(names)
        .map(|key| Choice(Part::CHOICES.into_iter().find(|part| part.key() == key)))
}

fn directory(text: &str) -> Result<RepoPath, String> {
    RepoPath::new(text.trim_end_matches('/')).map_err(|error| error.one_line())
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "write linux/amd64 or linux/arm64".to_owned())
}

impl PackageArgs {
    /// Whether no repository is needed around: with a URL, or with a lock file alone.
    pub(super) fn needs_no_clone(&self) -> bool {
        self.source.repo.is_some() || self.reference.is_none()
    }

    fn options(&self) -> Options {
        let chosen = |choices: &Vec<Choice>| choices.iter().filter_map(|choice| choice.0).collect();
        Options {
            format: self.format.format(),
            include: self.include.as_ref().map(chosen),
            root: self.root.clone(),
            platform: self.platform.clone(),
        }
    }
}

pub(super) fn run_without_clone(ui: &Ui, global: &Global, args: &PackageArgs) -> Result<()> {
    without_clone(ui, global, &args.source, args.reference.as_deref(), |origin, resolved| {
        work(ui, args, origin, resolved)
    })
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &PackageArgs) -> Result<()> {
    inside(ctx, &args.source, args.reference.as_deref().unwrap_or_default(), |origin, resolved| {
        work(ui, args, origin, resolved)
    })
}

fn work(ui: &Ui, args: &PackageArgs, origin: &Origin<'_>, resolved: &Resolved) -> Result<()> {
    let path = args.output.as_deref().ok_or_else(|| Error::usage("where to? name a path with -o"))?;
    let report = package::write(origin, resolved, &args.options(), path)?;
    finish(ui, args, resolved, &report)
}

fn finish(ui: &Ui, args: &PackageArgs, resolved: &Resolved, report: &Report) -> Result<()> {
    if args.json {
        let value = json!({
            "model": resolved.model,
            "version": resolved.version,
            "format": report.format.name(),
            "digest": format!("sha256:{}", report.digest),
            "bytes": report.bytes,
            "files": report.files,
            "fetched": report.fetched,
            "path": report.path,
        });
        return ui.json("package", value);
    }
    if let Some(path) = &report.path {
        let name = resolved.tag.as_deref().unwrap_or(&resolved.model);
        ui.say(format!(
            "{}: {} as {}, {} ({})",
            human::escape(&path.to_string_lossy()),
            human::escape(name),
            report.format.name(),
            human::count(report.files, "file"),
            human::bytes(report.bytes)
        ));
    }
    ui.out(format!("sha256:{}", report.digest))
}
