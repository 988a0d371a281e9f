//! `git model verify --scan`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::sign::Of;
use crate::cli::{Global, Ui, progress_and_interrupt};
use crate::error::{Error, Result};
use crate::human;
use crate::ops::Ctx;
use crate::ops::scan::{self, Report};

/// Looks into what needs no repository around. `None` when it does need one.
pub(super) fn run_anywhere(
    ui: &Ui,
    global: &Global,
    targets: &[PathBuf],
    of: &Of,
    json: bool,
) -> Option<Result<()>> {
    if let [reference] = targets
        && !reference.exists()
        && let Some(version) = of.at_url(ui, global, &reference.to_string_lossy())
    {
        let report = version.and_then(|version| scan::scan_version(&version));
        return Some(report.and_then(|report| show(ui, json, &report)));
    }
    if targets.is_empty() || !targets.iter().all(|target| target.exists()) {
        return None;
    }
    let scanned = || {
        let (_, interrupt) = progress_and_interrupt(ui)?;
        let look = |report: Report, path: &PathBuf| Ok(report.and(scan::scan_path(path, &interrupt)?));
        targets.iter().try_fold(Report::default(), look)
    };
    Some(scanned().and_then(|report| show(ui, json, &report)))
}

/// Looks into paths and versions.
pub(super) fn run(ui: &Ui, ctx: &Ctx, targets: &[PathBuf], of: &Of, json: bool) -> Result<()> {
    if targets.is_empty() {
        return Err(Error::usage("--scan: name files, directories or releases"));
    }
    let look = |report: Report, target: &PathBuf| -> Result<Report> {
        let path: &Path = target;
        let one = match path.exists() {
            true => scan::scan_path(path, &ctx.interrupt)?,
            false => {
                let version = of.in_clone(ctx, &path.to_string_lossy());
                scan::scan_version(
                    &version.map_err(|error| error.hint("there is no such file here, either"))?,
                )?
            }
        };
        Ok(report.and(one))
    };
    show(ui, json, &targets.iter().try_fold(Report::default(), look)?)
}

fn show(ui: &Ui, json: bool, report: &Report) -> Result<()> {
    if json {
        let executable: Vec<_> =
            report.executable.iter().map(|(path, format)| json!({"path": path, "format": format})).collect();
        let finding = |(path, finding): &(String, crate::codec::scan::Finding)| {
            json!({
                "path": path,
                "member": finding.member,
                "global": finding.global,
                "position": finding.position,
                "what": finding.what,
            })
        };
        let findings: Vec<_> = report.findings.iter().map(finding).collect();
        ui.json(
            "verify-scan",
            json!({"files": report.files, "executable": executable, "findings": findings}),
        )?;
    } else {
        for (path, finding) in &report.findings {
            let member = finding.member.as_deref().map(|member| format!("!{member}")).unwrap_or_default();
            let position = finding.position.map(|at| format!(" at byte {at}")).unwrap_or_default();
            let global = finding.global.as_deref().map(|global| format!("{global}: ")).unwrap_or_default();
            ui.out(human::escape(&format!("{path}{member}{position}: {global}{}", finding.what)))?;
        }
        for (path, format) in &report.executable {
            ui.say(format!("{}: {format}, which can run code when it is loaded", human::escape(path)));
        }
        ui.say(format!("looked into {}", human::count(report.files, "file")));
    }
    match report.findings.len() {
        0 => Ok(()),
        count => Err(Error::refused(format!(
            "{} that loading may run something",
            human::count(count as u64, "sign")
        ))
        .hint("ask for safetensors, GGUF or ONNX; or load it where it can do no harm")),
    }
}
