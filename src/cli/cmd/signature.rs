//! `git model verify --signature`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::sign::Of;
use crate::cli::{Global, Ui, progress_and_interrupt};
use crate::error::{Error, Result};
use crate::fsio::{self, Durability};
use crate::human;
use crate::ops::Ctx;
use crate::ops::attestations::Version;
use crate::ops::sign::{self, Verified};

/// What a signature is checked with.
#[derive(Debug)]
pub(super) struct Signature<'a> {
    /// A directory or a reference.
    pub(super) target: &'a str,
    pub(super) key: &'a Path,
    pub(super) bundle: Option<&'a Path>,
    pub(super) output: Option<&'a PathBuf>,
    pub(super) json: bool,
}

impl Signature<'_> {
    /// Checks what needs no repository around. `None` when it does need one.
    pub(super) fn run_anywhere(&self, ui: &Ui, global: &Global, of: &Of) -> Option<Result<()>> {
        if Path::new(self.target).is_dir() {
            return Some(self.directory(ui));
        }
        let version = of.at_url(ui, global, self.target)?;
        Some(version.and_then(|version| self.release(ui, &version)))
    }

    pub(super) fn run(&self, ui: &Ui, ctx: &Ctx, of: &Of) -> Result<()> {
        self.release(ui, &of.in_clone(ctx, self.target)?)
    }

    fn directory(&self, ui: &Ui) -> Result<()> {
        if self.output.is_some() {
            return Err(Error::usage("-o gets the signature of a release; a directory's is a file already"));
        }
        let key = sign::public_key(self.key)?;
        let (progress, interrupt) = progress_and_interrupt(ui)?;
        let dir = Path::new(self.target);
        let verified = sign::verify_directory(dir, &key, self.bundle, progress.as_ref(), &interrupt)?;
        self.report(ui, self.target, &verified)
    }

    fn release(&self, ui: &Ui, version: &Version<'_>) -> Result<()> {
        let key = sign::public_key(self.key)?;
        let verified = match self.bundle {
            Some(path) => sign::verify_version_with(version, &key, path)?,
            None => sign::verify_version(version, &key)?,
        };
        if let Some(path) = self.output {
            fsio::write_atomic(path, &verified.bundle, Durability::Full)?;
        }
        self.report(ui, &version.shown(), &verified)
    }

    fn report(&self, ui: &Ui, shown: &str, verified: &Verified) -> Result<()> {
        if self.json {
            let value = json!({
                "target": shown,
                "root": verified.manifest.root(),
                "files": verified.manifest.files.len(),
                "key": verified.key,
                "signature": verified.place,
            });
            return ui.json("verify-signature", value);
        }
        let files = human::count(verified.manifest.files.len() as u64, "file");
        ui.say(format!("{}: {files} as signed with key {}", human::escape(shown), verified.key.short()));
        Ok(())
    }
}
