use std::path::PathBuf;

use serde_json::json;

use super::scan;
use super::sign::Of;
use super::signature::Signature;
use crate::cli::{Global, Ui, render};
use crate::error::{Error, Result};
use crate::human;
use crate::ops::{Ctx, snapshot, verify};

/// Read every byte of the cached content and of the worktree's artifacts, and check it
///
/// Damaged cached objects are moved into quarantine, so that the next sync brings them again. With --signature, a release or a
/// directory is compared with what was signed. Exits with code 3 when something is not as it should be.
#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Only these artifacts; with --signature, one release, stage, commit or directory; with --scan, any of these, or files
    #[arg(value_name = "PATH|REF")]
    paths: Vec<PathBuf>,
    /// Check a signature of OpenSSF Model Signing: of a release, the one in its store; of a directory, model.sig in it
    #[arg(long, requires = "public_key", conflicts_with = "data", group = "about")]
    signature: bool,
    /// The ECDSA key that must have signed, in PEM
    #[arg(long, value_name = "FILE", requires = "signature")]
    public_key: Option<PathBuf>,
    /// The signature, if it is elsewhere
    #[arg(long, value_name = "FILE", requires = "signature")]
    bundle: Option<PathBuf>,
    /// Write the signature of the release that holds to this file
    #[arg(long, short, value_name = "FILE", requires = "signature")]
    output: Option<PathBuf>,
    /// Tell what loading these files, or the weights of these releases, may run; pickles are read, never loaded
    #[arg(long, group = "about", conflicts_with_all = ["signature", "data"])]
    scan: bool,
    /// Read the repository at this URL instead of this clone
    #[arg(long, value_name = "URL", requires = "about", conflicts_with = "data")]
    repo: Option<String>,
    /// Look at this outside data snapshot of a model instead, and tell what changed there since it was recorded
    #[arg(long, value_name = "NAME", conflicts_with = "paths", group = "about")]
    data: Option<String>,
    /// The model whose data that is, or that a commit is of; may be left out when there is only one
    #[arg(long, requires = "about")]
    model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Keys that are listed of each kind; more are counted only.
const SHOWN: usize = 50;

fn run_data(ui: &Ui, ctx: &Ctx, args: &VerifyArgs, name: &str) -> Result<()> {
    let (data, changes) = snapshot::verify(ctx, args.model.as_deref(), name)?;
    if args.json {
        ui.json("verify-data", json!({ "data": data, "changes": changes }))?;
    } else {
        for (word, keys) in
            [("added", &changes.added), ("changed", &changes.changed), ("removed", &changes.removed)]
        {
            for key in keys.iter().take(SHOWN) {
                ui.out(format!("{word:<8} {}", human::escape(key)))?;
            }
            if keys.len() > SHOWN {
                ui.out(format!("{word:<8} {} more", keys.len() - SHOWN))?;
            }
        }
    }
    let count = changes.added.len() + changes.changed.len() + changes.removed.len();
    if count == 0 {
        let files = human::count(data.files.unwrap_or(0), "file");
        ui.say(format!("{}: as it was recorded ({files})", human::escape(name)));
        return Ok(());
    }
    Err(Error::refused(format!(
        "{}: {} since it was recorded",
        human::escape(name),
        human::count(count as u64, "change")
    ))
    .hint("git model record --refresh-data records it as it is now"))
}

impl VerifyArgs {
    /// The signature that is to be checked, if it is about one.
    fn signature(&self) -> Option<Result<Signature<'_>>> {
        let key = self.public_key.as_deref().filter(|_| self.signature)?;
        let one = match self.paths.as_slice() {
            [one] => one.to_str(),
            _ => None,
        };
        let signature = |target| Signature {
            target,
            key,
            bundle: self.bundle.as_deref(),
            output: self.output.as_ref(),
            json: self.json,
        };
        Some(one.map(signature).ok_or_else(|| Error::usage("--signature: name one release or directory")))
    }

    fn of(&self) -> Of {
        Of { repo: self.repo.clone(), model: self.model.clone() }
    }
}

/// Checks what needs no repository around. `None` when it does need one.
pub(super) fn run_anywhere(ui: &Ui, global: &Global, args: &VerifyArgs) -> Option<Result<()>> {
    if args.scan {
        return scan::run_anywhere(ui, global, &args.paths, &args.of(), args.json);
    }
    match args.signature()? {
        Ok(signature) => signature.run_anywhere(ui, global, &args.of()),
        Err(error) => Some(Err(error)),
    }
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &VerifyArgs) -> Result<()> {
    if args.scan {
        return scan::run(ui, ctx, &args.paths, &args.of(), args.json);
    }
    if let Some(signature) = args.signature() {
        return signature?.run(ui, ctx, &args.of());
    }
    if let Some(name) = &args.data {
        return run_data(ui, ctx, args, name);
    }
    let report = verify::verify(ctx, &ctx.selection(&args.paths)?)?;
    if args.json {
        let value = json!({
            "artifacts": report.artifacts,
            "objects": report.objects,
            "bytes": report.bytes,
            "damage": report.damage,
            "absent": report.absent,
            "modified": report.modified,
        });
        ui.json("verify", value)?;
    } else {
        for damage in &report.damage {
            ui.out(format!("damaged  {}: {}", render::path(ctx, &damage.path), human::escape(&damage.what)))?;
        }
        for path in &report.modified {
            ui.say(format!(
                "{}: changed by you, so only its cached version was checked",
                render::path(ctx, path)
            ));
        }
        for path in &report.absent {
            ui.say(format!("{}: not here, nothing to check", render::path(ctx, path)));
        }
        let (artifacts, objects) =
            (human::count(report.artifacts, "artifact"), human::count(report.objects, "cached object"));
        ui.say(format!("checked {artifacts}: {objects} ({}) are right", human::bytes(report.bytes)));
    }
    if report.damage.is_empty() {
        return Ok(());
    }
    Err(Error::refused(format!("{} found", human::count(report.damage.len() as u64, "damaged item")))
        .hint("git model sync --force restores damaged files from the cache or the remote"))
}
