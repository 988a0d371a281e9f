//! Stage events: each is one tag whose number is the compare-and-swap token. Whoever loses a race looks again and decides
//! again; only what no version was named for stays what it was at the first look.

use std::time::Duration;

use super::Ctx;
use super::candidate::{Candidate, require_release};
use super::check::Judge;
use super::policy::{self, Rules};
use super::registry::{Published, Registry};
use super::release::overrides;
use crate::error::{Error, Kind, Result};
use crate::gates::Verdict;
use crate::release::{
    Action, EventPayload, Finding, History, ModelName, Outcome, Policy, Release, StageName, TagName, Version,
    Wanted, format_event,
};

/// How often a lost race is run again.
const ATTEMPTS: u32 = 12;

/// What is to happen in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A release becomes the stage's version; with a share, it becomes a canary beside it.
    Promote {
        /// Which release.
        wanted: Wanted,
        /// Percent of the traffic; `None` for all of it.
        traffic: Option<u8>,
    },
    /// The stage goes back to a version that was good in it.
    Rollback {
        /// Which; the last good one if not given.
        to: Option<Wanted>,
    },
    /// The stage becomes empty.
    Retire,
    /// Somebody approves a release for the stage.
    Approve {
        /// Which release.
        wanted: Wanted,
    },
    /// A rollout ended.
    Outcome {
        /// How.
        outcome: Outcome,
        /// Of which release; the stage's newest if not given.
        of: Option<Wanted>,
    },
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model.
    pub name: ModelName,
    /// The stage.
    pub stage: StageName,
    /// What.
    pub what: What,
    /// Why, in words.
    pub reason: Option<String>,
    /// Who, when that is not the one whose name git has.
    pub actor: Option<String>,
    /// Why gates that fail are passed all the same.
    pub override_reason: Option<String>,
    /// Sign the tag, whether the rules ask for it or not.
    pub sign: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug)]
pub struct Report {
    /// The tag's name.
    pub tag: String,
    /// The tag object; `None` in a dry run, or when nothing had to be done.
    pub oid: Option<String>,
    /// What was done.
    pub action: Action,
    /// The version it was done with.
    pub version: Option<Version>,
    /// What was in the stage before.
    pub before: Option<Version>,
    /// The canary that ends with it.
    pub ended: Option<Version>,
    /// How each gate came out.
    pub verdicts: Vec<Verdict>,
    /// Set when the stage is already as it should be.
    pub nothing_to_do: bool,
    /// How many races were lost before.
    pub lost: u32,
    /// The git remote; `None` when the tag is in this repository only.
    pub git_remote: Option<String>,
    /// What the user should know about, although it was done.
    pub warnings: Vec<Error>,
}

/// What was decided on the present state of a stage.
struct Decision<'h> {
    action: Action,
    /// The release that it is done with; none when the stage is emptied.
    release: Option<&'h Release>,
    nothing_to_do: bool,
}

impl Decision<'_> {
    /// Whether it takes a version out of a stage, or only reports: nothing but the truth of the record may stand in the way.
    fn is_leaving(&self) -> bool {
        matches!(self.action, Action::Rollback | Action::Retire | Action::Outcome)
    }

    /// Whether the canary of this version is none any more, and has not become the stage's version either.
    fn ends(&self, canary: &Version) -> bool {
        let is_other = self.release.is_none_or(|release| release.version != *canary);
        !self.nothing_to_do
            && is_other
            && matches!(self.action, Action::Promote | Action::Canary | Action::Rollback | Action::Retire)
    }
}

/// What was found out about an event before it is made.
#[derive(Default)]
struct Judged {
    verdicts: Vec<Verdict>,
    /// The rules it passed, where there are any.
    policy: Option<Policy>,
    must_sign: bool,
    warnings: Vec<Error>,
}

/// Does what the options say.
pub fn happen(ctx: &Ctx, options: &Options) -> Result<Report> {
    happen_after(ctx, options, None)
}

/// Does a rollback that was looked at before: what `looked` found in the stage is what it may take out.
pub fn roll_back_as_seen(ctx: &Ctx, options: &Options, looked: &Report) -> Result<Report> {
    // Beside a canary, the version to go back to was named.
    happen_after(ctx, options, Some((looked.before.clone(), None)))
}

/// Does what the options say, with what was `seen` in the stage before, if somebody looked.
fn happen_after(ctx: &Ctx, options: &Options, mut seen: Option<InStage>) -> Result<Report> {
    let registry = Registry::open(ctx)?;
    let leaves_what_is_there = seen.is_some() || matches!(options.what, What::Rollback { to: None });
    let mut options = options.clone();
    for lost in 0..ATTEMPTS {
        registry.refresh(&options.name)?;
        let history = registry.history(&options.name)?;
        let passed_over = doubts(&history, &options)?;
        let decision = decide(&history, &options).map_err(|error| with_doubts(error, &passed_over))?;
        let there = versions_in(&history, &options.stage);
        let changed = *seen.get_or_insert_with(|| there.clone()) != there;
        if leaves_what_is_there && changed && !decision.nothing_to_do {
            return Err(Error::new(format!(
                "{}#{}: somebody else put another version there meanwhile",
                options.name, options.stage
            ))
            .of_kind(Kind::Race)
            .hint(
                "nothing was changed; look at git model history, and whether it is still to be rolled back",
            ));
        }
        settle(&mut options.what, &decision);
        let (mut report, published) = attempt(ctx, &registry, &history, &options, &decision)?;
        report.warnings.extend(passed_over);
        match published {
            None => return Ok(Report { lost, ..report }),
            Some(Published::Done { id, not_kept }) => {
                report.warnings.extend(not_kept);
                return Ok(Report { lost, oid: Some(id.as_str().to_owned()), ..report });
            }
            Some(Published::Taken) => {
                ctx.interrupt.check()?;
                // A little patience, of different length for everybody, so that not all come back at once.
                let pause = 10 + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * u64::from(lost + 1) / 4;
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
    }
    Err(Error::new(format!(
        "{}#{}: others were first, {ATTEMPTS} times in a row",
        options.name, options.stage
    ))
    .of_kind(Kind::Race)
    .hint("nothing was changed; look at git model history and run it again"))
}

/// The version in a stage, and the canary beside it.
type InStage = (Option<Version>, Option<Version>);

fn versions_in(history: &History, stage: &StageName) -> InStage {
    let current = history.current(stage);
    let canary = current.and_then(|current| current.canary);
    (current.map(|current| current.version.clone()), canary.map(|canary| canary.version.clone()))
}

/// Names the version that was decided on where none was typed. Decided anew after a lost race, it would be the one before, or
/// the one that stays.
fn settle(what: &mut What, decision: &Decision<'_>) {
    let version = decision.release.map(|release| Wanted::Exact(release.version.clone()));
    match what {
        What::Rollback { to } => *to = version,
        What::Outcome { of, .. } => *of = version,
        _ => {}
    }
}

fn attempt(
    ctx: &Ctx,
    registry: &Registry<'_>,
    history: &History,
    options: &Options,
    decision: &Decision<'_>,
) -> Result<(Report, Option<Published>)> {
    let (name, stage) = (&options.name, &options.stage);
    let next = history.next(stage)?;
    let tag = TagName::Event { name: name.clone(), stage: stage.clone(), n: next.n };
    let current = history.current(stage);
    let mut report = Report {
        tag: tag.to_string(),
        oid: None,
        action: decision.action.clone(),
        version: decision.release.map(|release| release.version.clone()),
        before: current.map(|current| current.version.clone()),
        ended: current
            .and_then(|current| current.canary)
            .map(|canary| canary.version.clone())
            .filter(|canary| decision.ends(canary)),
        verdicts: Vec::new(),
        nothing_to_do: decision.nothing_to_do,
        lost: 0,
        git_remote: registry.remote().map(str::to_owned),
        warnings: Vec::new(),
    };
    if decision.nothing_to_do {
        return Ok((report, None));
    }
    // A stage that becomes empty has no release to point at: the event is about the commit of what leaves it, whatever became
    // of that one's tag.
    let mirror = registry.ctx();
    let (target, candidate) = match (decision.release, current) {
        (Some(release), _) => {
            (mirror.git.parse_id(&release.tag.target)?, Candidate::of_release(mirror, release)?)
        }
        (None, Some(current)) => {
            let commit = mirror.git.parse_id(&current.since.tag.target)?;
            let candidate = Candidate::load(mirror, Some(name.as_str()), &commit)?;
            (commit, candidate)
        }
        (None, None) => return Err(nothing_there(name, stage)),
    };
    let judged = judge(registry, history, &candidate, options, decision)?;
    let overrides = overrides(&judged.verdicts, options.override_reason.as_deref())
        .map_err(|error| error.about(format!("{name}#{stage}: refused")))?;
    report.verdicts = judged.verdicts;
    report.warnings = judged.warnings;
    let payload = EventPayload {
        name: name.clone(),
        stage: stage.clone(),
        n: next.n,
        action: decision.action.clone(),
        version: report.version.clone(),
        digest: decision.release.map(|_| candidate.digest),
        release_tag: decision.release.map(|release| release.tag.oid.clone()),
        traffic: match &options.what {
            What::Promote { traffic, .. } => *traffic,
            _ => None,
        },
        outcome: match &options.what {
            What::Outcome { outcome, .. } => Some(*outcome),
            _ => None,
        },
        reason: options.reason.clone(),
        actor: options.actor.clone(),
        previous: next.previous,
        policy: judged.policy.filter(|_| matches!(decision.action, Action::Promote | Action::Canary)),
        overrides,
    };
    let message = format_event(&payload)?;
    if options.dry_run {
        return Ok((report, None));
    }
    let maker = if registry.remote().is_some() { &mirror.git } else { &ctx.git };
    let sign = (options.sign || judged.must_sign).then_some(true);
    let published = registry.publish(maker, &tag, &target, &message, sign)?;
    Ok((report, Some(published)))
}

/// Judges a release for the event: everything for a promotion; for a way back, that the bytes are there and the tag is signed
/// where it has to be.
fn judge(
    registry: &Registry<'_>,
    history: &History,
    candidate: &Candidate,
    options: &Options,
    decision: &Decision<'_>,
) -> Result<Judged> {
    let rules = match decision.is_leaving() {
        true => Rules::to_leave(registry, candidate),
        false => Rules::to_enter(registry, candidate)?,
    };
    let mut judged = Judged::default();
    judged.warnings.extend(rules.unreadable.as_ref().map(|error| Error::new(policy::stand_in(error))));
    // A stage that is no longer declared can still be left.
    judged.must_sign = match decision.is_leaving() {
        true => rules.signed(&options.stage),
        false => rules.stage(&options.stage)?.signed,
    };
    let judge = Judge::new(registry.ctx(), registry, history, candidate, rules);
    match (&decision.action, decision.release) {
        (Action::Promote | Action::Canary, Some(release)) => {
            judged.verdicts = judge.release()?;
            judged.verdicts.push(judge.stored(Some(release), false)?);
            judged.verdicts.extend(judge.stage(&options.stage, Some(release))?);
        }
        (Action::Rollback, Some(release)) => {
            judged.verdicts.push(judge.stored_if_told(release));
            if judged.must_sign {
                judged.verdicts.push(judge.signed(release)?);
            }
        }
        (Action::Approve, _) if !(options.sign || judged.must_sign) => {
            judged.warnings.push(Error::new("without --sign this approval does not count for a gate"));
        }
        _ => {}
    }
    judged.policy = Some(judge.rules.policy);
    Ok(judged)
}

fn decide<'h>(history: &'h History, options: &Options) -> Result<Decision<'h>> {
    let (name, stage) = (&options.name, &options.stage);
    let current = history.current(stage);
    let typed =
        |wanted: &Wanted| require_release(history, name, wanted, &format!("{name}@{}", shown(wanted)));
    match &options.what {
        What::Promote { wanted, traffic: None } => {
            let release = typed(wanted)?;
            let there = current
                .is_some_and(|current| *current.version == release.version && current.canary.is_none());
            Ok(Decision { action: Action::Promote, release: Some(release), nothing_to_do: there })
        }
        What::Promote { wanted, traffic: Some(share) } => {
            let release = typed(wanted)?;
            let Some(current) = current else {
                return Err(Error::refused(format!(
                    "{name}#{stage}: a canary needs a version to stand beside, and nothing is in this stage"
                ))
                .hint(format!("git model promote {name}@v{} {stage} without --traffic", release.version)));
            };
            if *current.version == release.version {
                return Err(Error::refused(format!(
                    "{name}#{stage}: v{} has all of the traffic already",
                    release.version
                )));
            }
            let same = |canary: &crate::release::Canary<'_>| {
                *canary.version == release.version && canary.traffic == *share
            };
            let there = current.canary.as_ref().is_some_and(same);
            Ok(Decision { action: Action::Canary, release: Some(release), nothing_to_do: there })
        }
        What::Rollback { to } => {
            let version = match (to, current.and_then(|current| Some((current.version, current.canary?)))) {
                (Some(wanted), _) => typed(wanted)?.version.clone(),
                (None, Some((version, canary))) => {
                    return Err(which_of_two(history, options, version, canary.version));
                }
                (None, None) if history.events(stage).is_empty() => return Err(nothing_there(name, stage)),
                (None, None) => history.rollback_target(stage).cloned().ok_or_else(|| {
                    Error::refused(format!("{name}#{stage}: no version before was good in this stage"))
                        .hint("git model retire empties the stage; --to names a version that was in it")
                })?,
            };
            let release = typed(&Wanted::Exact(version.clone()))?;
            if !history.was_in(stage, &version) {
                return Err(Error::refused(format!(
                    "{name}#{stage}: no event says that v{version} was in this stage"
                ))
                .hint(format!("git model promote {name}@v{version} {stage}")));
            }
            let there =
                current.is_some_and(|current| *current.version == version && current.canary.is_none());
            Ok(Decision { action: Action::Rollback, release: Some(release), nothing_to_do: there })
        }
        What::Retire => {
            // The event still says which version it took out, by its commit.
            let nothing_to_do = current.is_none();
            if nothing_to_do && history.events(stage).is_empty() {
                return Err(nothing_there(name, stage));
            }
            Ok(Decision { action: Action::Retire, release: None, nothing_to_do })
        }
        What::Approve { wanted } => {
            Ok(Decision { action: Action::Approve, release: Some(typed(wanted)?), nothing_to_do: false })
        }
        What::Outcome { outcome, of } => {
            let of = of.as_ref().map(typed).transpose()?;
            if let Some(release) = reported(history, stage, *outcome)
                && of.is_none_or(|of| of.version == release.version)
            {
                return Ok(Decision { action: Action::Outcome, release: Some(release), nothing_to_do: true });
            }
            let current = current.ok_or_else(|| nothing_there(name, stage))?;
            // A report that comes late is about the version that was rolled back from.
            let is_back = current.canary.is_none() && current.since.action == Action::Rollback;
            if of.is_none() && is_back && *outcome == Outcome::Aborted {
                return Err(Error::refused(format!(
                    "{name}#{stage}: v{} is there by a rollback; was its own rollout aborted?",
                    current.version
                ))
                .hint("--version names the one that was"));
            }
            let release = match of {
                Some(release) => release,
                None => {
                    let newest = current.canary.map_or(current.version, |canary| canary.version);
                    typed(&Wanted::Exact(newest.clone()))?
                }
            };
            let in_stage = *current.version == release.version
                || current.canary.is_some_and(|canary| *canary.version == release.version);
            if !in_stage {
                return Err(Error::refused(format!(
                    "{name}#{stage}: v{} is not in this stage",
                    release.version
                )));
            }
            Ok(Decision { action: Action::Outcome, release: Some(release), nothing_to_do: false })
        }
    }
}

/// Refuses to add to a stage whose record is broken. Ways out that this does not touch are open all the same; what is wrong is
/// returned.
fn doubts(history: &History, options: &Options) -> Result<Vec<Error>> {
    let (name, stage) = (&options.name, &options.stage);
    let is_spelled_so = |other: &&StageName| other.as_str().eq_ignore_ascii_case(stage.as_str());
    if history.stages().all(|other| other != stage)
        && let Some(other) = history.stages().find(is_spelled_so)
    {
        return Err(Error::refused(format!("{name}#{stage}: {name}#{other} differs in letter case only"))
            .hint("give each stage its own name, also ignoring letter case"));
    }
    let mut passed_over = Vec::new();
    for finding in history.findings().iter().filter(|finding| finding.tag().stage() == Some(stage)) {
        let error = Error::refused(format!("{name}#{stage}: {finding}")).hint(finding.remedy());
        if !is_passed_over(history, options, finding) {
            let error = error.hint("git model history shows all; nothing is added before that is settled");
            return Err(match (&options.what, history.rollback_target(stage)) {
                (What::Rollback { to: None }, Some(version))
                    if finding.is_about_a_release() && !finding.concerns(version) =>
                {
                    error.hint(format!("git model rollback {name} {stage} --to {version} passes over it"))
                }
                _ => error,
            });
        }
        passed_over.push(error);
    }
    Ok(passed_over)
}

/// What is missing from a record can be why nothing else was found in it.
fn with_doubts(error: Error, doubts: &[Error]) -> Error {
    let lines =
        doubts.iter().flat_map(|doubt| std::iter::once(doubt.one_line()).chain(doubt.hints().to_vec()));
    lines.fold(error, Error::hint)
}

/// Whether a finding says nothing about the version that a stage goes back to, nor, where that was not named, about the one that
/// it leaves. A stage that becomes empty holds no version that could be the wrong one.
fn is_passed_over(history: &History, options: &Options, finding: &Finding) -> bool {
    let stage = &options.stage;
    let matter: Vec<&Version> = match &options.what {
        What::Rollback { .. } if finding.is_about_the_past() => return true,
        // Another stage's name changes nothing about what is in this one.
        What::Rollback { .. } | What::Retire if matches!(finding, Finding::SameName { .. }) => return true,
        What::Rollback { to: Some(to) } => {
            history.find(to).map(|release| &release.version).into_iter().collect()
        }
        What::Rollback { to: None } => {
            let current = history.current(stage).map(|current| current.version);
            current.into_iter().chain(history.rollback_target(stage)).collect()
        }
        What::Retire => Vec::new(),
        _ => return false,
    };
    finding.is_about_a_release() && !matter.iter().any(|version| finding.concerns(version))
}

/// The release that a stage's newest event reports this outcome of. Controllers send a report again, and where it took a canary
/// out, the same words would be about the version that stays. Approvals are about what may come later.
fn reported<'h>(history: &'h History, stage: &StageName, outcome: Outcome) -> Option<&'h Release> {
    let newest = history.events(stage).iter().rfind(|event| event.action != Action::Approve)?;
    let same = newest.payload()?.outcome == Some(outcome);
    history.release(newest.version.as_ref().filter(|_| same)?)
}

/// Refuses a rollback that does not say which of two versions is the bad one: it would take out the one that may be good.
fn which_of_two(history: &History, options: &Options, version: &Version, canary: &Version) -> Error {
    let (name, stage) = (&options.name, &options.stage);
    let error = Error::refused(format!(
        "{name}#{stage}: v{canary} is a canary beside v{version}; which one is bad?"
    ))
    .hint(format!(
        "git model outcome {name} {stage} aborted --version {canary} ends the canary, and v{version} stays"
    ));
    match history.rollback_target(stage) {
        Some(before) => error.hint(format!("git model rollback {name} {stage} --to {before} takes both out")),
        None => error,
    }
}

fn nothing_there(name: &ModelName, stage: &StageName) -> Error {
    Error::refused(format!("{name}#{stage}: nothing is in this stage"))
        .hint(format!("git model history {name} --stage {stage}"))
}

fn shown(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Exact(version) => format!("v{version}"),
        Wanted::Prefix { major, minor: Some(minor) } => format!("{major}.{minor}"),
        Wanted::Prefix { major, minor: None } => format!("{major}"),
        Wanted::Latest => "latest".to_owned(),
    }
}
