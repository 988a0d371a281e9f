use std::fmt::Write as _;

use serde_json::json;

use crate::cli::{Ui, render};
use crate::error::{Error, Result};
use crate::gates::{Outcome, Verdict};
use crate::ops::Ctx;
use crate::ops::check::{self, Report};

/// Judge a version by the model's gates
///
/// Without a version, what is committed at HEAD is judged as it would be released. The rules are those of the git remote's
/// default branch. Exits with code 3 when a gate refuses.
#[derive(clap::Args, Debug)]
pub(crate) struct CheckArgs {
    /// A model, or a release such as churn@v1.4.0; the only model if not given
    target: Option<String>,
    /// Judge what the release needs to come into this stage, too
    #[arg(long)]
    stage: Option<String>,
    /// Read every object of the version in the store, and not only ask for its size
    #[arg(long)]
    bytes: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "junit")]
    json: bool,
    /// Print the result as JUnit XML
    #[arg(long)]
    junit: bool,
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &CheckArgs) -> Result<()> {
    let (target, stage, bytes) = (args.target.clone(), args.stage.clone(), args.bytes);
    let report = check::check(ctx, &check::Options { target, stage, bytes })?;
    if args.json {
        ui.json("check", to_json(&report))?;
    } else if args.junit {
        ui.raw(junit(&report).as_bytes())?;
    } else {
        for verdict in &report.verdicts {
            ui.out(render::verdict(verdict))?;
        }
        ui.say(format!("rules: {}", render::policy(&report.policy)));
    }
    let failed = report.verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail).count();
    if report.passed() {
        ui.say(format!("{}: every gate passed", report.subject));
        return Ok(());
    }
    Err(Error::refused(format!("{}: {} refused", report.subject, crate::human::count(failed as u64, "gate"))))
}

fn to_json(report: &Report) -> serde_json::Value {
    json!({
        "model": report.model,
        "subject": report.subject,
        "stage": report.stage,
        "digest": report.digest,
        "policy": report.policy,
        "passed": report.passed(),
        "verdicts": report.verdicts,
    })
}

fn junit(report: &Report) -> String {
    let escape = |text: &str| {
        let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        visible.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let count =
        |outcome: Outcome| report.verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
        escape(&report.subject),
        report.verdicts.len(),
        count(Outcome::Fail),
        count(Outcome::Skip)
    );
    for Verdict { gate, outcome, said, .. } in &report.verdicts {
        let (gate, said) = (escape(gate), escape(said));
        let inside = match outcome {
            Outcome::Pass => format!("<system-out>{said}</system-out>"),
            Outcome::Fail => format!("<failure message=\"{said}\"/>"),
            Outcome::Skip => format!("<skipped message=\"{said}\"/>"),
        };
        let _ = writeln!(
            xml,
            "  <testcase classname=\"{}\" name=\"{gate}\">{inside}</testcase>",
            escape(&report.model)
        );
    }
    xml.push_str("</testsuite>\n");
    xml
}
