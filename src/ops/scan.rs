//! What loading a model's files could run: looked for without loading any.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::attestations::Version;
use super::fetch::{Limit, ensure};
use crate::codec::scan::{Finding, scan};
use crate::error::{Context, Error, Result};
use crate::model_yaml::Role;
use crate::pointer::{Content, Pointer};
use crate::progress::Interrupt;

/// Larger files of weights are not in git.
const MAX_IN_GIT: u64 = 100 * 1024 * 1024;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files that were looked at.
    pub files: u64,
    /// Those whose format can run code when it is loaded, with the format.
    pub executable: Vec<(String, &'static str)>,
    /// What is not known to be harmless, with the file.
    pub findings: Vec<(String, Finding)>,
}

impl Report {
    fn of(results: Vec<(String, crate::codec::scan::Scanned)>) -> Report {
        let mut report = Report { files: results.len() as u64, ..Report::default() };
        for (path, scanned) in results {
            report.executable.extend(scanned.format.map(|format| (path.clone(), format)));
            report.findings.extend(scanned.findings.into_iter().map(|finding| (path.clone(), finding)));
        }
        report
    }

    /// Both together.
    pub fn and(mut self, other: Report) -> Report {
        self.files += other.files;
        self.executable.extend(other.executable);
        self.findings.extend(other.findings);
        self
    }
}

/// Looks into a file, or all files below a directory. Symbolic links and git's own directory are left out.
pub fn scan_path(path: &Path, interrupt: &Interrupt) -> Result<Report> {
    let mut files = Vec::new();
    if path.is_dir() {
        list(path, &mut files)?;
        files.sort();
    } else {
        files.push(path.to_path_buf());
    }
    let look = |path: &PathBuf| -> Result<_> {
        interrupt.check()?;
        let shown = path.to_string_lossy().into_owned();
        let mut file = File::open(path).context(path, "open")?;
        let size = file.metadata().context(path, "read")?.len();
        let scanned = scan(&mut file, size, &shown).map_err(|error| error.about(shown.clone()))?;
        Ok((shown, scanned))
    };
    files.par_iter().map(look).collect::<Result<Vec<_>>>().map(Report::of)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).context(dir, "list")? {
        let path = entry.context(dir, "list")?.path();
        let found = fs::symlink_metadata(&path).context(&path, "read")?;
        if found.is_dir() && path.file_name().is_some_and(|name| name != ".git") {
            list(&path, files)?;
        } else if found.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Looks into the weights of a version. What is not here is fetched into the cache.
pub fn scan_version(version: &Version<'_>) -> Result<Report> {
    let ctx = version.store_ctx();
    let weights: Vec<_> = version.candidate.files.iter().filter(|file| file.role == Role::Weights).collect();
    let mut small = Vec::new();
    let mut stored = Vec::new();
    for file in weights {
        if !ctx.cache.holds(&file.sha256, file.size)
            && file.size <= MAX_IN_GIT
            && let Some(bytes) = version.file_of_git(&file.path, file.sha256, MAX_IN_GIT)?
        {
            let shown = file.path.to_string();
            let size = bytes.len() as u64;
            small.push((shown.clone(), scan(&mut Cursor::new(bytes), size, &shown)?));
        } else {
            stored.push(file);
        }
    }
    let wanted: Vec<_> = stored
        .iter()
        .map(|file| {
            let content = Content::File { executable: file.executable };
            (file.path.clone(), Pointer { content, digest: file.sha256, size: file.size })
        })
        .collect();
    ensure(ctx, &wanted, None, Some(version.commit()), Limit::None)?;
    let (cache, interrupt) = (&ctx.cache, &ctx.interrupt);
    let look = |file: &&super::bundle::BundleFile| -> Result<_> {
        let shown = file.path.to_string();
        let on_bytes = |_| interrupt.check_io();
        if cache.verify(&file.sha256, &on_bytes)? == Some(false) {
            return Err(Error::new(format!("{shown}: its cached content is damaged"))
                .hint("git model verify moves damaged objects away; then run this again"));
        }
        let opened = cache.open(&file.sha256)?;
        let mut object = opened.ok_or_else(|| Error::new(format!("{shown}: its content is not here")))?;
        let scanned = scan(&mut object, file.size, &shown).map_err(|error| error.about(shown.clone()))?;
        Ok((shown, scanned))
    };
    let mut results = stored.par_iter().map(look).collect::<Result<Vec<_>>>()?;
    results.extend(small);
    results.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Report::of(results))
}
