use std::path::{Path, PathBuf};

use serde_json::json;

use super::resolve::open_url;
use crate::cli::{Global, Ui, progress_and_interrupt};
use crate::error::{Error, Result};
use crate::fsio::{self, Durability};
use crate::human;
use crate::ops::Ctx;
use crate::ops::attestations::{Source, Version};
use crate::ops::sign::{self, Signed};

/// Sign the files of a release, or of a directory, as OpenSSF Model Signing defines it
///
/// The signature of a release goes to its store, where `git model verify --signature` finds it; no file is read for it. That of a
/// directory is written to `model.sig` in it. The key is an ECDSA key on P-256, P-384 or P-521 in PEM, not encrypted.
#[derive(clap::Args, Debug)]
pub(crate) struct SignArgs {
    /// A directory, or churn@v1.4.0, churn@latest, churn#prod, or a commit
    #[arg(value_name = "REF|DIR")]
    target: String,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    of: Of,
    /// Write the signature to this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only write the signature to the file of -o, and leave the store alone
    #[arg(long, requires = "output")]
    no_attach: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Where a version is looked up.
#[derive(clap::Args, Debug)]
pub(crate) struct Of {
    /// Read the repository at this URL instead of this clone
    #[arg(long, value_name = "URL")]
    pub(super) repo: Option<String>,
    /// The model, where a commit does not say
    #[arg(long)]
    pub(super) model: Option<String>,
}

impl Of {
    /// Finds a version at the URL. `None` when there is none, and the clone is meant.
    pub(super) fn at_url(
        &self,
        ui: &Ui,
        global: &Global,
        reference: &str,
    ) -> Option<Result<Version<'static>>> {
        let url = self.repo.as_deref()?;
        Some(
            open_url(ui, global, url)
                .and_then(|ctx| Version::find(Source::Url(Box::new(ctx)), reference, self.model.as_deref())),
        )
    }

    /// Finds a version in the clone.
    pub(super) fn in_clone<'c>(&self, ctx: &'c Ctx, reference: &str) -> Result<Version<'c>> {
        Version::find(Source::Clone(ctx), reference, self.model.as_deref())
    }
}

/// Signs what needs no repository around. `None` when it does need one.
pub(super) fn run_anywhere(ui: &Ui, global: &Global, args: &SignArgs) -> Option<Result<()>> {
    let dir = Path::new(&args.target);
    if dir.is_dir() {
        return Some(directory(ui, args, dir));
    }
    let version = args.of.at_url(ui, global, &args.target)?;
    Some(version.and_then(|version| release(ui, args, &version)))
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &SignArgs) -> Result<()> {
    release(ui, args, &args.of.in_clone(ctx, &args.target)?)
}

fn directory(ui: &Ui, args: &SignArgs, dir: &Path) -> Result<()> {
    let key = sign::private_key(&args.key)?;
    let (progress, interrupt) = progress_and_interrupt(ui)?;
    let output = args.output.clone().unwrap_or_else(|| dir.join(crate::attest::oms::FILE_NAME));
    let signed = sign::sign_directory(dir, &key, &output, progress.as_ref(), &interrupt)?;
    fsio::write_atomic(&output, &signed.bundle, Durability::Full)?;
    report(ui, args, &args.target, &signed, None, Some(&output))
}

fn release(ui: &Ui, args: &SignArgs, version: &Version<'_>) -> Result<()> {
    let key = sign::private_key(&args.key)?;
    let signed = sign::sign_version(version, &key)?;
    if let Some(path) = &args.output {
        fsio::write_atomic(path, &signed.bundle, Durability::Full)?;
    }
    let stored = match args.no_attach {
        true => None,
        false => Some(version.attach(signed.bundle.clone())?),
    };
    report(ui, args, &version.shown(), &signed, stored.as_deref(), args.output.as_deref())
}

fn report(
    ui: &Ui,
    args: &SignArgs,
    shown: &str,
    signed: &Signed,
    stored: Option<&str>,
    output: Option<&Path>,
) -> Result<()> {
    if args.json {
        let value = json!({
            "target": shown,
            "root": signed.manifest.root(),
            "files": signed.manifest.files.len(),
            "key": signed.key,
            "stored": stored,
            "output": output,
        });
        return ui.json("sign", value);
    }
    let files = human::count(signed.manifest.files.len() as u64, "file");
    let place = match (stored, output) {
        (Some(key), _) => human::escape(key),
        (None, Some(path)) => human::escape(&path.to_string_lossy()),
        (None, None) => return Err(Error::new("the signature went nowhere")),
    };
    ui.say(format!("{}: signed {files} with key {}: {place}", human::escape(shown), signed.key.short()));
    if signed.git_paths {
        ui.hint(
            "it has files that git uses by name; model_signing verifies them with --no-ignore-git-paths only",
        );
    }
    Ok(())
}
