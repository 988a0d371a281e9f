//! `git model sbom` and `git model provenance`.

use std::path::PathBuf;

use super::sign::Of;
use crate::cli::{Global, Ui};
use crate::error::Result;
use crate::fsio::{self, Durability};
use crate::human;
use crate::ops::Ctx;
use crate::ops::attestations::Version;
use crate::ops::statements;

/// Print the bill of materials of a version: CycloneDX 1.6
///
/// The model with its card, its files, data sets and the packages of its locks; the same bytes for the same release, wherever it
/// is made.
#[derive(clap::Args, Debug)]
pub(crate) struct SbomArgs {
    #[command(flatten)]
    about: About,
}

/// Print how the weights of a version came about: an in-toto statement with a SLSA provenance predicate
///
/// It holds what the record knows and tells what was observed from what was declared. It is refused when nothing is recorded.
#[derive(clap::Args, Debug)]
pub(crate) struct ProvenanceArgs {
    #[command(flatten)]
    about: About,
}

/// What a statement is about, and where it goes.
#[derive(clap::Args, Debug)]
struct About {
    /// churn@v1.4.0, churn@latest, churn#prod, or a commit
    reference: String,
    #[command(flatten)]
    of: Of,
    /// Write it to this file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also keep it in the store, where git model resolve --attestations lists it
    #[arg(long)]
    attach: bool,
}

type Make = fn(&Version<'_>) -> Result<String>;

pub(super) fn sbom(ui: &Ui, ctx: &Ctx, args: &SbomArgs) -> Result<()> {
    args.about.run(ui, &args.about.of.in_clone(ctx, &args.about.reference)?, statements::bill)
}

pub(super) fn sbom_anywhere(ui: &Ui, global: &Global, args: &SbomArgs) -> Option<Result<()>> {
    args.about.run_anywhere(ui, global, statements::bill)
}

pub(super) fn provenance(ui: &Ui, ctx: &Ctx, args: &ProvenanceArgs) -> Result<()> {
    args.about.run(ui, &args.about.of.in_clone(ctx, &args.about.reference)?, statements::provenance)
}

pub(super) fn provenance_anywhere(ui: &Ui, global: &Global, args: &ProvenanceArgs) -> Option<Result<()>> {
    args.about.run_anywhere(ui, global, statements::provenance)
}

impl About {
    fn run_anywhere(&self, ui: &Ui, global: &Global, make: Make) -> Option<Result<()>> {
        let version = self.of.at_url(ui, global, &self.reference)?;
        Some(version.and_then(|version| self.run(ui, &version, make)))
    }

    fn run(&self, ui: &Ui, version: &Version<'_>, make: Make) -> Result<()> {
        let text = make(version)?;
        match &self.output {
            Some(path) => fsio::write_atomic(path, text.as_bytes(), Durability::Full)?,
            None => ui.raw(text.as_bytes())?,
        }
        if self.attach {
            let key = version.attach(text.into_bytes())?;
            ui.say(format!("{}: kept as {}", human::escape(&version.shown()), human::escape(&key)));
        }
        Ok(())
    }
}
