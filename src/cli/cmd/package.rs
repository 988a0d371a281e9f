use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::get::{inside, without_clone};
use super::resolve::Source;
use crate::cli::{Global, Ui};
use crate::error::{Error, Result};
use crate::human;
use crate::oci::Reference;
use crate::oci::image::Platform;
use crate::ops::Ctx;
use crate::ops::get::Origin;
use crate::ops::package::advise::{self, Advice, Assumed, Changes, Choice as Advised};
use crate::ops::package::dockerfile::{self, Model};
use crate::ops::package::{self, Format, Options, Part, Report, Target};
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
    /// Send it to a registry: oci://registry.example.com/team/churn, with a tag if it is not to be the version
    ///
    /// Credentials are those of docker, podman or skopeo login. What the registry has is not sent again. A tag that stands for
    /// something else is not moved without --force.
    // Parsed later: the parser of arguments would print what may hold a password.
    #[arg(long, value_name = "PLACE")]
    push: Option<String>,
    /// Take blobs from this repository of the same registry, where it can do that; may be given several times
    #[arg(long, value_name = "REPOSITORY", requires = "push")]
    mount: Vec<String>,
    /// Move a tag that stands for something else
    #[arg(long, requires = "push")]
    force: bool,
    #[command(flatten)]
    advice: AdviceArgs,
    #[command(flatten)]
    dockerfile: DockerfileArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct AdviceArgs {
    /// Pack nothing; say whether to embed the model in the service's image or to fetch it at the start, with the figures behind it
    #[arg(long, conflicts_with_all = ["output", "push", "dockerfile", "repo"])]
    advise: bool,
    /// Pods that serve the model, for --advise
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    replicas: u64,
    /// From a registry or store to a node, for --advise
    #[arg(long, value_name = "RATE", default_value = "1gbit", value_parser = bandwidth)]
    bandwidth: u64,
    /// Weights up to this size are to be embedded, for --advise
    #[arg(long, value_name = "SIZE", default_value = "500MiB", value_parser = size)]
    embed_max: u64,
}

#[derive(clap::Args, Debug)]
struct DockerfileArgs {
    /// Pack nothing; write a Dockerfile of the service, to -o or standard output
    #[arg(long, value_enum, value_name = "WAY", conflicts_with = "push")]
    dockerfile: Option<Way>,
    /// The image with the model, for --dockerfile embed; a tag is resolved to its digest
    #[arg(long, value_name = "PLACE", requires = "dockerfile")]
    image: Option<String>,
    /// The image that the service runs on
    #[arg(long, value_name = "IMAGE", requires = "dockerfile")]
    base: Option<String>,
}

/// Where a service's weights come from.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Way {
    /// From an image with the model, as a layer
    Embed,
    /// From the store, when the container starts
    Fetch,
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

/// Bits or bytes a second, as bytes.
fn bandwidth(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = |digits: &str, factor: f64| {
        let value = digits.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0)?;
        Some((value * factor) as u64).filter(|bytes| *bytes > 0)
    };
    let units = [("gbit", 1e9 / 8.0), ("mbit", 1e6 / 8.0), ("gb", 1e9), ("mb", 1e6)];
    units
        .into_iter()
        .find_map(|(unit, factor)| number(lower.strip_suffix(unit)?, factor))
        .ok_or_else(|| "write 10gbit, 300mbit (bits) or 100mb (bytes) a second".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let units = [("gib", 1u64 << 30), ("mib", 1 << 20), ("kib", 1 << 10)];
    units
        .into_iter()
        .find_map(|(unit, factor)| lower.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(factor))
        .ok_or_else(|| "write a size such as 500MiB or 2GiB".to_owned())
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

    fn target(&self) -> Result<Option<Target>> {
        let Some(place) = &self.push else { return Ok(None) };
        let place = Reference::parse(place)?;
        for repository in &self.mount {
            Reference::parse(&format!("{}/{repository}", place.registry))?;
        }
        Ok(Some(Target { place, mount_from: self.mount.clone(), force: self.force }))
    }
}

pub(super) fn run_without_clone(ui: &Ui, global: &Global, args: &PackageArgs) -> Result<()> {
    without_clone(ui, global, &args.source, args.reference.as_deref(), |origin, resolved| {
        work(ui, args, origin, resolved)
    })
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &PackageArgs) -> Result<()> {
    inside(ui, ctx, &args.source, args.reference.as_deref().unwrap_or_default(), |origin, resolved| {
        work(ui, args, origin, resolved)
    })
}

fn work(ui: &Ui, args: &PackageArgs, origin: &Origin<'_>, resolved: &Resolved) -> Result<()> {
    if args.advice.advise {
        return advise(ui, args, origin, resolved);
    }
    if let Some(way) = args.dockerfile.dockerfile {
        return write_dockerfile(ui, args, way, origin, resolved);
    }
    let target = args.target()?;
    if args.output.is_none() && target.is_none() {
        return Err(Error::usage("where to? -o PATH writes it, --push oci://… sends it"));
    }
    let report = package::pack(origin, resolved, &args.options(), args.output.as_deref(), target.as_ref())?;
    finish(ui, args, resolved, &report)
}

fn finish(ui: &Ui, args: &PackageArgs, resolved: &Resolved, report: &Report) -> Result<()> {
    if args.json {
        let pushed = report.pushed.as_ref().map(|(place, pushed)| {
            json!({
                "reference": place.to_string(),
                "image": place.image(),
                "sent": pushed.sent,
                "bytes": pushed.bytes,
                "mounted": pushed.mounted,
                "present": pushed.present,
                "up_to_date": pushed.up_to_date,
            })
        });
        let value = json!({
            "model": resolved.model,
            "version": resolved.version,
            "format": report.format.name(),
            "digest": format!("sha256:{}", report.digest),
            "bytes": report.bytes,
            "files": report.files,
            "fetched": report.fetched,
            "path": report.path,
            "pushed": pushed,
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
    match &report.pushed {
        Some((place, pushed)) if pushed.up_to_date => ui.say(format!("{place}: it is there already")),
        Some((place, pushed)) => ui.say(format!(
            "{place}: sent {} ({}), {} there already, {} taken from other repositories",
            human::count(pushed.sent, "blob"),
            human::bytes(pushed.bytes),
            pushed.present,
            pushed.mounted
        )),
        None => {}
    }
    match &report.pushed {
        Some((place, _)) => ui.out(place.image()),
        None => ui.out(format!("sha256:{}", report.digest)),
    }
}

fn write_dockerfile(
    ui: &Ui,
    args: &PackageArgs,
    way: Way,
    origin: &Origin<'_>,
    resolved: &Resolved,
) -> Result<()> {
    let model = match (way, &args.dockerfile.image) {
        (Way::Embed, Some(image)) => Model::Embed(package::digest_of(origin, &Reference::parse(image)?)?),
        (Way::Embed, None) => {
            return Err(Error::usage("name the image with the model: --image oci://…")
                .hint("git model package REF --format image --push oci://… makes one"));
        }
        (Way::Fetch, None) => Model::Fetch,
        (Way::Fetch, Some(_)) => return Err(Error::usage("--image is for --dockerfile embed")),
    };
    let text = dockerfile::dockerfile(resolved, &model, args.dockerfile.base.as_deref())?;
    match &args.output {
        None => ui.raw(text.as_bytes()),
        Some(path) => {
            package::write_new(path, text.as_bytes())?;
            ui.say(format!("{}: written", human::escape(&path.to_string_lossy())));
            Ok(())
        }
    }
}

fn advise(ui: &Ui, args: &PackageArgs, origin: &Origin<'_>, resolved: &Resolved) -> Result<()> {
    let Origin::Store(ctx) = origin else {
        return Err(Error::usage("--advise needs a clone: it looks at the history of weights and code"));
    };
    let AdviceArgs { replicas, bandwidth, embed_max, .. } = args.advice;
    let advice = advise::advise(ctx, resolved, Assumed { replicas, bandwidth, embed_max })?;
    if args.json {
        return ui.json(
            "advice",
            json!({ "model": resolved.model, "version": resolved.version, "advice": advice }),
        );
    }
    render_advice(ui, &advice)
}

fn render_advice(ui: &Ui, advice: &Advice) -> Result<()> {
    let Assumed { replicas, bandwidth, embed_max } = advice.assumed;
    let (weights, limit) = (human::bytes(advice.weights_bytes), human::bytes(embed_max));
    match advice.choice {
        Advised::Embed => ui.out(format!("embed: the weights are {weights}, not more than {limit}"))?,
        Advised::Fetch => ui.out(format!("fetch: the weights are {weights}, more than {limit}"))?,
    }
    let often = |changes: &Changes| match changes.per_month {
        Some(rate) => format!("{} ({rate:.1} a month)", human::count(changes.commits, "commit")),
        None => human::count(changes.commits, "commit"),
    };
    ui.out(format!("weights  {:>10}  changed in {}", weights, often(&advice.weights_changes)))?;
    ui.out(format!(
        "the rest {:>10}  changed in {}",
        human::bytes(advice.other_bytes),
        often(&advice.code_changes)
    ))?;
    let rate = human::bytes(bandwidth);
    ui.out(format!("\nfor {} at {rate} a second each:", human::count(replicas, "pod")))?;
    ui.out(format!("{:<46} {:>11} {:>11} {:>9}", "", "sent", "received", "time"))?;
    for (what, costs) in [
        ("code changes", &advice.code_change),
        ("weights change", &advice.weights_change),
        ("pod starts on a warm node", &advice.warm_start),
    ] {
        for (way, cost) in
            [("embed", &costs.embed), ("embed in one layer", &costs.one_layer), ("fetch", &costs.fetch)]
        {
            let (sent, received) = (human::bytes(cost.sent), human::bytes(cost.received));
            let label = format!("{what}: {way}");
            ui.out(format!("{label:<46} {sent:>11} {received:>11} {:>9}", seconds(cost.seconds)))?;
        }
    }
    ui.out("\nwhat would change the answer:")?;
    match advice.choice {
        Advised::Embed => {
            ui.out(format!("- weights above {limit} (--embed-max)"))?;
            ui.out("- a registry that is slower than the store, or limits the size of a layer")?;
        }
        Advised::Fetch => {
            ui.out(format!("- weights of {limit} or less, or a larger --embed-max"))?;
            ui.out(format!(
                "- pods that often start on nodes that have the image already: each saves {}",
                seconds(advice.warm_start.fetch.seconds)
            ))?;
        }
    }
    ui.out("- either way, keep weights in a layer of their own below the code, or a code change costs as much as new weights")
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_are_read() {
        assert_eq!(bandwidth("1gbit"), Ok(125_000_000));
        assert_eq!(bandwidth("1.5GB"), Ok(1_500_000_000));
        assert_eq!(size("500MiB"), Ok(500 << 20));
        for wrong in ["", "gbit", "1", "-1gbit", "0mb", "nangbit"] {
            assert!(bandwidth(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "1", "MiB", "-1MiB", "99999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
