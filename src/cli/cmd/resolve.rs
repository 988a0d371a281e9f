use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Global, Ui, context};
use crate::error::{Error, Result};
use crate::fsio::{self, Durability};
use crate::human;
use crate::model_yaml::parse_duration;
use crate::ops::resolve::{self, Options, Resolved};
use crate::ops::{Ctx, registry};

/// Larger lock files are refused.
const MAX_LOCK: u64 = 64 * 1024 * 1024;
/// What to do about a lock file that is none.
const WRITE_LOCK: &str = "git model resolve REF --lock FILE writes one";

/// Turn a name into exact artifacts: commit, digests, sizes, and where the files are
///
/// What moves is asked of the git remote, unless --offline. With --repo no clone is needed: a few git objects are fetched into a
/// cache, with git's own credentials.
#[derive(clap::Args, Debug)]
pub(crate) struct ResolveArgs {
    /// churn@v1.4.0, churn@1.4, churn@latest, churn#prod, churn@prod, or a commit
    reference: String,
    #[command(flatten)]
    source: Source,
    /// The model, where a commit does not say
    #[arg(long)]
    model: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Add URLs that anybody can use for so long (15m, 12h, 7d at most); they are secrets
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    presign: Option<Duration>,
    /// Ask the store what was attested about the model
    #[arg(long)]
    attestations: bool,
    /// Write what was resolved to this file
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Where releases are read.
#[derive(clap::Args, Debug)]
pub(crate) struct Source {
    /// Read the repository at this URL instead of this clone
    #[arg(long, value_name = "URL")]
    pub(super) repo: Option<String>,
    /// Fail if anything is not what this lock file says
    #[arg(long, value_name = "FILE")]
    pub(super) locked: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// MODEL_NAME=… lines for a shell or an env file
    Env,
    /// name=value lines for $GITHUB_OUTPUT
    Github,
    /// One URL a line
    Urls,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write 900s, 15m, 12h or 7d".to_owned())
}

impl ResolveArgs {
    fn options(&self) -> Options {
        Options {
            reference: self.reference.clone(),
            model: self.model.clone(),
            presign: self.presign,
            attestations: self.attestations,
        }
    }

    /// Whether no repository is needed around.
    pub(super) fn has_url(&self) -> bool {
        self.source.repo.is_some()
    }
}

/// Resolves at a URL.
pub(super) fn run_at_url(ui: &Ui, global: &Global, args: &ResolveArgs) -> Result<()> {
    let url = args.source.repo.as_deref().unwrap_or_default();
    let (resolved, _) = at_url(ui, global, url, &args.options())?;
    finish(ui, args, &resolved)
}

pub(super) fn at_url(ui: &Ui, global: &Global, url: &str, options: &Options) -> Result<(Resolved, Ctx)> {
    resolve::resolve_at_url(open_url(ui, global, url)?, options)
}

/// Opens the mirror of a URL.
pub(super) fn open_url(ui: &Ui, global: &Global, url: &str) -> Result<Ctx> {
    let git = registry::open_url(url, global.offline)?;
    context(ui, git, global, true)
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &ResolveArgs) -> Result<()> {
    let resolved = resolve::resolve(ctx, &args.options())?;
    finish(ui, args, &resolved)
}

fn finish(ui: &Ui, args: &ResolveArgs, resolved: &Resolved) -> Result<()> {
    resolved.warnings.iter().for_each(|warning| ui.warn(warning));
    if let Some(path) = &args.source.locked {
        require_same(&read_lock(path)?, resolved, path)?;
    }
    if let Some(path) = &args.lock {
        fsio::write_atomic(path, resolved.to_lock().as_bytes(), Durability::Full)?;
    }
    match if args.json { Format::Json } else { args.format } {
        Format::Text => text(ui, resolved),
        Format::Json => ui.json("resolve", resolved),
        Format::Env => {
            let mut lines = resolved.info().to_env();
            for (name, value) in extras(resolved) {
                let _ = writeln!(lines, "MODEL_{}={}", name.to_ascii_uppercase(), human::shell_quote(&value));
            }
            ui.raw(lines.as_bytes())
        }
        Format::Github => {
            let mut lines = String::new();
            for (name, value) in resolved.info().pairs().into_iter().chain(extras(resolved)) {
                // A line break would begin another output.
                let _ = writeln!(lines, "{name}={}", human::escape(&value));
            }
            ui.raw(lines.as_bytes())
        }
        Format::Urls => {
            for file in &resolved.files {
                let url = file.presigned_url.as_ref().or(file.url.as_ref());
                ui.out(url.ok_or_else(|| Error::new(format!("{}: no store has it", file.path)))?)?;
            }
            Ok(())
        }
    }
}

fn extras(resolved: &Resolved) -> Vec<(&'static str, String)> {
    let mut extras = vec![("size", resolved.size.to_string())];
    extras.extend(resolved.stage.as_ref().map(|stage| ("stage", stage.name.clone())));
    extras.extend(resolved.store.clone().map(|store| ("store", store)));
    extras.extend(resolved.previous.clone().map(|previous| ("previous", previous)));
    extras
}

fn text(ui: &Ui, resolved: &Resolved) -> Result<()> {
    for (name, value) in resolved.info().pairs() {
        ui.out(format!("{:<12} {}", name.replace('_', " "), human::escape(&value)))?;
    }
    if let Some(stage) = &resolved.stage {
        let canary = stage
            .canary
            .as_ref()
            .map(|canary| format!(", canary v{} at {} %", canary.version, canary.traffic));
        ui.out(format!("{:<12} {}{}", "stage", stage.name, canary.unwrap_or_default()))?;
    }
    if let Some(signature) = &resolved.signature {
        let said =
            signature.said.as_deref().map(|said| format!(" ({})", human::escape(said))).unwrap_or_default();
        ui.out(format!("{:<12} {}{said}", "signature", signature.state))?;
    }
    for key in resolved.attestations.iter().flatten() {
        ui.out(format!("{:<12} {}", "attested", human::escape(key)))?;
    }
    for file in &resolved.files {
        ui.out(format!(
            "{}  {:>10}  {:<11} {}",
            file.sha256.short(),
            human::bytes(file.size),
            file.role,
            human::escape(file.path.as_str())
        ))?;
    }
    Ok(())
}

pub(super) fn read_lock(path: &Path) -> Result<Resolved> {
    let bytes = fsio::read_bounded(path, MAX_LOCK)?
        .ok_or_else(|| Error::new(format!("{}: no such file", path.display())).hint(WRITE_LOCK))?;
    #[derive(serde::Deserialize)]
    struct Document {
        schema: String,
        #[serde(flatten)]
        resolved: Resolved,
    }
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(format!("{}: not a lock file", path.display())).caused_by(error).hint(WRITE_LOCK)
    })?;
    let other = document.schema.as_str();
    if other != resolve::LOCK_SCHEMA {
        return Err(Error::new(format!(
            "{}: schema `{}` is not known",
            path.display(),
            human::escape(other)
        ))
        .hint("update git-model"));
    }
    let whole = document.resolved.require_digest_of_files();
    whole.map_err(|error| error.about(format!("{}: it was changed", path.display())).hint(WRITE_LOCK))?;
    Ok(document.resolved)
}

pub(super) fn require_same(locked: &Resolved, resolved: &Resolved, path: &Path) -> Result<()> {
    if locked.pins() == resolved.pins() {
        return Ok(());
    }
    let name = |resolved: &Resolved| {
        let tag = resolved.tag.clone().unwrap_or_else(|| resolved.commit.clone());
        format!("{tag} ({})", resolved.digest.short())
    };
    Err(Error::refused(format!(
        "{}: {} is now {}, the lock file says {}",
        path.display(),
        human::escape(&resolved.reference),
        name(resolved),
        name(locked)
    ))
    .hint("git model resolve --lock writes the new state, if that is wanted"))
}
