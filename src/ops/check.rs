//! The gates that a version must pass to be released, or to come into a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::candidate::{Candidate, require_release};
use super::declared;
use super::models::Place;
use super::policy::Rules;
use super::push;
use super::registry::{self, Registry};
use super::remotes::{self, Purpose};
use super::status;
use super::{Ctx, Selection};
use crate::error::{Error, Kind, Result};
use crate::gates::{self, Outcome, Verdict};
use crate::git::Oid;
use crate::git::tags::Signature;
use crate::human;
use crate::id::Digest;
use crate::json_schema;
use crate::lineage::FileEntry;
use crate::model_yaml::{Part, Role, Stage};
use crate::release::{Event, History, Policy, Reference, Release, StageName};
use crate::repo_path::RepoPath;

/// Schemas are small.
const MAX_SCHEMA: u64 = 16 * 1024 * 1024;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A model (its version at HEAD), or a release; the only model if not given.
    pub target: Option<String>,
    /// The stage that it is to come into.
    pub stage: Option<String>,
    /// Read every object in the store, and not only ask for its size.
    pub bytes: bool,
}

/// How a version stands.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub model: String,
    /// What was judged: a version, or a commit.
    pub subject: String,
    /// The stage, if one was named.
    pub stage: Option<String>,
    /// The model digest.
    pub digest: Digest,
    /// Whose rules were applied.
    pub policy: Policy,
    /// How each rule came out.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// Whether nothing stands in the way.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.outcome != Outcome::Fail)
    }
}

/// Judges a version.
pub fn check(ctx: &Ctx, options: &Options) -> Result<Report> {
    let stage = options.stage.as_deref().map(StageName::parse).transpose();
    let stage = stage.map_err(|error| error.of_kind(Kind::Usage))?;
    let registry = Registry::open(ctx)?;
    let (candidate, release_of, subject) =
        match options.target.as_deref().map(Reference::parse).transpose()? {
            Some(Reference::Release { name, wanted }) => {
                registry.refresh(&name)?;
                let history = registry.history(&name)?;
                let release =
                    require_release(&history, &name, &wanted, options.target.as_deref().unwrap_or_default())?;
                let subject = format!("{name}@v{}", release.version);
                (Candidate::of_release(registry.ctx(), release)?, Some(release.version.clone()), subject)
            }
            Some(Reference::Model(name)) => head(ctx, Some(name.as_str()))?,
            None => head(ctx, None)?,
            Some(_) => {
                return Err(Error::usage("check takes a model, or a release such as churn@v1.4.0"));
            }
        };
    let name = candidate.model.name.clone();
    if release_of.is_none() {
        registry.refresh(&name)?;
    }
    let history = registry.history(&name)?;
    // A release is read from the registry; what is checked out may not have been pushed yet.
    let at = if release_of.is_some() { registry.ctx() } else { ctx };
    let judge = Judge::new(at, &registry, &history, &candidate, Rules::to_enter(&registry, &candidate)?);
    let mut verdicts = match &release_of {
        None => judge.committed(ctx)?,
        Some(_) => Vec::new(),
    };
    verdicts.extend(judge.release()?);
    let release = release_of.and_then(|version| history.release(&version));
    verdicts.push(judge.stored(release, options.bytes)?);
    if let Some(stage) = &stage {
        verdicts.extend(judge.stage(stage, release)?);
    }
    Ok(Report {
        model: name.as_str().to_owned(),
        subject,
        stage: options.stage.clone(),
        digest: candidate.digest,
        policy: judge.rules.policy,
        verdicts,
    })
}

fn head(ctx: &Ctx, name: Option<&str>) -> Result<(Candidate, Option<crate::release::Version>, String)> {
    let commit = ctx.git.require_commit("HEAD")?;
    let candidate = Candidate::load(ctx, name, &commit)?;
    let subject = format!("{} at {}", candidate.model.name, &commit.as_str()[..10]);
    Ok((candidate, None, subject))
}

/// Judges one version by rules.
pub(super) struct Judge<'a> {
    ctx: &'a Ctx,
    registry: &'a Registry<'a>,
    history: &'a History,
    candidate: &'a Candidate,
    /// The rules that are applied.
    pub(super) rules: Rules,
}

impl<'a> Judge<'a> {
    /// `ctx` is on the repository that has the version's commit.
    pub(super) fn new(
        ctx: &'a Ctx,
        registry: &'a Registry<'a>,
        history: &'a History,
        candidate: &'a Candidate,
        rules: Rules,
    ) -> Judge<'a> {
        Judge { ctx, registry, history, candidate, rules }
    }

    /// Whether what the model declares is committed as it is in the worktree.
    pub(super) fn committed(&self, ctx: &Ctx) -> Result<Vec<Verdict>> {
        if ctx.git.is_bare() {
            return Ok(Vec::new());
        }
        let mut paths = declared::paths_of(&self.candidate.model);
        paths.extend(self.candidate.papers.iter().map(|(path, _)| path.clone()));
        let clean = !ctx.git.differs_from(&self.candidate.commit, &paths)?;
        let unknown = declared::untracked_inside(ctx, &self.candidate.model)?;
        let changed = self.changed_artifacts(ctx)?;
        let about = |paths: &[RepoPath], one: &str| {
            (human::escape(paths[0].as_str()), human::count(paths.len() as u64, one))
        };
        let gate = "committed";
        let verdict = if !clean {
            Verdict::fail(gate, "declared files differ from the commit; commit or stash them")
        } else if !unknown.is_empty() {
            let (first, many) = about(&unknown, "file");
            let said =
                format!("{first}: in a declared directory, and not in git ({many}); commit or ignore it");
            Verdict::fail(gate, said)
        } else if !changed.is_empty() {
            let (first, many) = about(&changed, "artifact");
            let said =
                format!("{first}: its content is not what is committed ({many}); git model status shows all");
            Verdict::fail(gate, said)
        } else {
            Verdict::pass(gate, "every declared file is as it is committed")
        };
        Ok(vec![verdict.of_integrity()])
    }

    /// Declared artifacts whose content here is not the version's. CI needs none of it, so what is not here is none of them.
    fn changed_artifacts(&self, ctx: &Ctx) -> Result<Vec<RepoPath>> {
        let place = Place::Commit(&self.candidate.commit);
        // What cannot be looked up is for `recorded` to say.
        let declared = declared::look_up(ctx, &self.candidate.model, place, &Role::ALL).unwrap_or_default();
        if declared.artifacts.is_empty() {
            return Ok(Vec::new());
        }
        let paths = declared.artifacts.into_iter().map(|(path, _)| path).collect();
        status::changed(ctx, &Selection::of(paths))
    }

    /// What any release must pass, but for its bytes being in the store.
    pub(super) fn release(&self) -> Result<Vec<Verdict>> {
        let mut verdicts = vec![self.recorded()?, self.evaluated()];
        verdicts.extend(self.rules.model.gates.require.iter().map(|part| self.required(*part)));
        verdicts.extend(self.formats());
        let rules = &self.rules.model.gates;
        let mut yardsticks: BTreeMap<&StageName, Option<Candidate>> = BTreeMap::new();
        let of_metrics = rules.metrics.iter().filter_map(|rule| rule.against.as_ref());
        for stage in of_metrics.chain(rules.schema.as_ref().map(|rule| &rule.against)) {
            // Many rules name one stage, and reading a version takes a while.
            if !yardsticks.contains_key(stage) {
                yardsticks.insert(stage, self.in_stage(stage)?);
            }
        }
        let yardstick = |stage: &StageName| yardsticks.get(stage).and_then(Option::as_ref);
        for rule in &rules.metrics {
            let baseline = rule.against.as_ref().and_then(yardstick);
            let baseline = baseline.map(|version| version.lineage.metrics().cloned().unwrap_or_default());
            verdicts.push(gates::metric(rule, self.candidate.lineage.metrics(), baseline.as_ref()));
        }
        if let Some(rule) = &rules.schema {
            verdicts.push(self.schema(&rule.against, yardstick(&rule.against))?);
        }
        Ok(verdicts)
    }

    /// What a stage asks of a release that is to come into it. Without a release, what can be told without one.
    pub(super) fn stage(&self, stage: &StageName, release: Option<&Release>) -> Result<Vec<Verdict>> {
        let rules = self.rules.stage(stage)?;
        let mut verdicts = Vec::new();
        let Some(release) = release else {
            verdicts
                .push(Verdict::skip("stage", "release it first; the stage's own rules are about a release"));
            return Ok(verdicts);
        };
        if !rules.promotes_from.is_empty() {
            verdicts.push(self.promotes_from(rules, release)?);
        }
        if let Some(needed) = rules.soak {
            let since = self.stage_before(rules, release).map(|(_, event)| event.tag.time);
            verdicts.push(gates::soak(needed, since, now()));
        }
        if rules.signed {
            verdicts.push(self.signed(release)?);
        }
        if rules.approvals > 0 {
            verdicts.push(self.approved(stage, rules.approvals, release)?);
        }
        Ok(verdicts)
    }

    /// Whether the record is of this model, and of these files.
    pub(super) fn recorded(&self) -> Result<Verdict> {
        let (ctx, candidate) = (self.ctx, self.candidate);
        let gate = "recorded";
        if candidate.lineage.model != candidate.model.name.as_str() {
            let said = format!("lineage.yaml is of the model `{}`", human::escape(&candidate.lineage.model));
            return Ok(Verdict::fail(gate, said).of_integrity());
        }
        if !candidate.files.iter().any(|file| file.role.is_of_the_model()) {
            let path = human::escape(candidate.model.path.as_str());
            let said = format!("no file belongs to the model; declare its weights in {path}, and record");
            return Ok(Verdict::fail(gate, said).of_integrity());
        }
        let place = Place::Commit(&candidate.commit);
        let declared = match declared::look_up(ctx, &candidate.model, place, &Role::ALL) {
            Ok(declared) => declared,
            Err(error) => return Ok(Verdict::fail(gate, human::escape(&error.one_line())).of_integrity()),
        };
        for role in Role::ALL {
            let (now, recorded) = (declared.role(role), candidate.lineage.role(role));
            if now != recorded {
                let said = format!("{role}: {} since it was recorded", first_difference(now, recorded));
                return Ok(Verdict::fail(gate, said).of_integrity());
            }
        }
        for data in &candidate.lineage.data {
            let same = declared
                .data
                .get(&data.name)
                .is_none_or(|now| format!("sha256:{}", now.sha256) == data.digest);
            if !same {
                let said = format!("data `{}` changed since it was recorded", human::escape(&data.name));
                return Ok(Verdict::fail(gate, said).of_integrity());
            }
        }
        Ok(Verdict::pass(gate, "lineage.yaml agrees with the committed files").of_integrity())
    }

    /// Whether the evaluation that is there judged these weights.
    fn evaluated(&self) -> Verdict {
        let (gate, lineage) = ("evaluation", &self.candidate.lineage);
        let verdict = match (&lineage.evaluation, lineage.metrics()) {
            (None, _) => Verdict::skip(gate, "none is recorded"),
            (Some(_), None) => Verdict::fail(gate, "the report judged other weights, or nobody says which"),
            (Some(evaluation), Some(_)) => {
                let report = lineage.role(Role::Evaluation).first();
                match report.is_some_and(|report| report.sha256 != evaluation.report) {
                    true => Verdict::fail(gate, "the report changed since it was recorded"),
                    false => Verdict::pass(gate, "the report judged exactly these weights"),
                }
            }
        };
        verdict.of_integrity()
    }

    /// Whether the store has all artifacts of the version; of a release, its files of git, too, which releasing put there. With
    /// `bytes`, every object is read; else its size tells.
    pub(super) fn stored(&self, release: Option<&Release>, bytes: bool) -> Result<Verdict> {
        let (gate, ctx) = ("stored", self.ctx);
        let mut needed = self.artifacts()?;
        if release.is_some_and(|release| release.payload().is_some()) {
            needed.extend(
                self.candidate.plain_files().map(|(path, sha256, size)| (sha256, (size, path.clone()))),
            );
        }
        if needed.is_empty() {
            return Ok(Verdict::pass(gate, "the version has no artifacts").of_integrity());
        }
        if ctx.offline {
            return Ok(Verdict::skip(gate, "the store is not asked because of --offline").of_integrity());
        }
        let found = remotes::find(ctx, None, Some(&self.candidate.commit))?;
        let remote = remotes::open(ctx, &found, Purpose::Fetch)?;
        let digests: Vec<Digest> = needed.keys().copied().collect();
        let sizes = remote.sizes(&digests)?;
        let missing = needed.iter().filter(|(digest, (size, _))| sizes.get(*digest) != Some(size));
        let mut wrong: Vec<(&RepoPath, &str)> =
            missing.map(|(_, (_, path))| (path, "does not have it, or with another size")).collect();
        if bytes && wrong.is_empty() {
            let damaged = push::damaged_in_store(ctx, &remote, &sizes)?;
            wrong.extend(
                damaged.iter().filter_map(|digest| Some((&needed.get(digest)?.1, "has other bytes"))),
            );
        }
        Ok(match wrong.first() {
            None => {
                let size = needed.values().map(|(size, _)| *size).fold(0, u64::saturating_add);
                let count = human::count(needed.len() as u64, "object");
                let read = if bytes { ", every byte read" } else { "" };
                Verdict::pass(gate, format!("{} has {count} ({}{read})", found.name, human::bytes(size)))
            }
            Some((path, what)) => Verdict::fail(
                gate,
                format!(
                    "{}: {} {what} ({} in all); git model push{}",
                    human::escape(path.as_str()),
                    found.name,
                    human::count(wrong.len() as u64, "object"),
                    // What this clone pushed before, it would not send again by itself.
                    if release.is_some() { " --repair" } else { "" }
                ),
            ),
        }
        .of_integrity())
    }

    /// As [`Judge::stored`], for a way back, which a store that cannot be asked must not hold up.
    pub(super) fn stored_if_told(&self, release: &Release) -> Verdict {
        self.stored(Some(release), false).unwrap_or_else(|error| {
            let said = format!("the store cannot be asked: {}", human::escape(&error.one_line()));
            Verdict::skip("stored", said).of_integrity()
        })
    }

    /// Objects of artifacts, weights and data alike, with size and path.
    fn artifacts(&self) -> Result<BTreeMap<Digest, (u64, RepoPath)>> {
        let ctx = self.ctx;
        let declared =
            declared::look_up(ctx, &self.candidate.model, Place::Commit(&self.candidate.commit), &Role::ALL)?;
        let mut objects = BTreeMap::new();
        for (path, pointer) in declared.artifacts {
            if pointer.is_tree() {
                // Brings the lists of files where they are not here, and none of the files.
                super::bundle::tree_listing(ctx, &path, &pointer, Some(&self.candidate.commit))?;
            }
            let closure = super::fetch::closure(ctx, &pointer)
                .map_err(|error| error.about(human::escape(path.as_str())))?;
            objects.extend(closure.files.iter().map(|file| (file.digest, (file.size, path.clone()))));
            objects.extend(closure.trees.iter().map(|tree| (tree.digest, (tree.size, path.clone()))));
        }
        Ok(objects)
    }

    fn required(&self, part: Part) -> Verdict {
        let lineage = &self.candidate.lineage;
        let has = |role: Role| !lineage.role(role).is_empty();
        let (name, there) = match part {
            Part::Weights => ("weights", has(Role::Weights)),
            Part::Code => ("code", has(Role::Code)),
            Part::Config => ("config", has(Role::Config)),
            Part::Environment => ("environment", has(Role::Environment)),
            Part::Schema => ("schema", has(Role::Schema)),
            Part::Data => ("data", !lineage.data.is_empty()),
            Part::Evaluation => ("evaluation", lineage.metrics().is_some()),
            Part::License => {
                ("license", self.candidate.model.license.as_ref().is_some_and(|text| !text.trim().is_empty()))
            }
        };
        let gate = format!("requires {name}");
        if there {
            Verdict::pass(gate, "it is there")
        } else {
            Verdict::fail(gate, "it is not declared and recorded")
        }
    }

    fn formats(&self) -> Option<Verdict> {
        let allowed = &self.rules.model.gates.formats;
        if allowed.is_empty() {
            return None;
        }
        let gate = "formats";
        let format = self.candidate.lineage.weights.as_ref().and_then(|weights| weights.format.as_deref());
        Some(match format {
            Some(format) if allowed.iter().any(|allowed| allowed == format) => Verdict::pass(gate, format),
            Some(format) => {
                Verdict::fail(gate, format!("{} is not among {}", human::escape(format), allowed.join(", ")))
            }
            None => Verdict::fail(
                gate,
                format!("the weights are in no known format; allowed: {}", allowed.join(", ")),
            ),
        })
    }

    /// Whether callers of the version that is in a stage now can call this one.
    fn schema(&self, stage: &StageName, current: Option<&Candidate>) -> Result<Verdict> {
        let gate = "schema";
        let Some(current) = current else {
            return Ok(Verdict::pass(gate, format!("nothing is in {stage} to compare with")));
        };
        let (Some(old), Some(new)) =
            (current.lineage.role(Role::Schema).first(), self.candidate.lineage.role(Role::Schema).first())
        else {
            return Ok(match current.lineage.role(Role::Schema).is_empty() {
                true => Verdict::pass(gate, format!("the version in {stage} has none")),
                false => {
                    Verdict::fail(gate, format!("the version in {stage} has one, and this one has none"))
                }
            });
        };
        if old.sha256 == new.sha256 {
            return Ok(Verdict::pass(gate, format!("the same as in {stage}")));
        }
        let read = |ctx: &Ctx, entry: &FileEntry, commit: &Oid| {
            let bytes = ctx.file_at(&entry.path, MAX_SCHEMA, Place::Commit(commit))?;
            bytes.ok_or_else(|| {
                Error::new(format!("{}: it is not in git", human::escape(entry.path.as_str())))
            })
        };
        let old = read(self.registry.ctx(), old, &current.commit)?;
        let new_bytes = read(self.ctx, new, &self.candidate.commit)?;
        let breaks = json_schema::incompatibilities(&old, &new_bytes, new.path.as_str())?;
        Ok(match breaks.first() {
            None => Verdict::pass(gate, format!("compatible with {stage}")),
            Some(first) => {
                let more = if breaks.len() > 1 {
                    format!(" (and {} more)", breaks.len() - 1)
                } else {
                    String::new()
                };
                Verdict::fail(gate, format!("callers of {stage} break: {}{more}", human::escape(first)))
            }
        })
    }

    /// The version that is in a stage now. What was put there by somebody who must not is no yardstick.
    fn in_stage(&self, stage: &StageName) -> Result<Option<Candidate>> {
        let Some(current) = self.history.current(stage) else { return Ok(None) };
        if let Some(why) = self.rules.distrust(self.registry, stage, current.since)? {
            return Err(Error::refused(format!("{}#{stage}: {why}", self.candidate.model.name)).hint(
                format!(
                    "git model rollback {} {stage} puts a version there that can be believed",
                    self.candidate.model.name
                ),
            ));
        }
        match self.history.release(current.version) {
            None => Ok(None),
            Some(release) => Candidate::of_release(self.registry.ctx(), release).map(Some),
        }
    }

    fn promotes_from(&self, rules: &Stage, release: &Release) -> Result<Verdict> {
        let gate = "promotes from";
        let names: Vec<&str> = rules.promotes_from.iter().map(StageName::as_str).collect();
        let Some((stage, event)) = self.stage_before(rules, release) else {
            return Ok(Verdict::fail(gate, format!("it is not in {}", names.join(" or "))));
        };
        Ok(match self.rules.distrust(self.registry, stage, event)? {
            None => Verdict::pass(gate, format!("it is in {stage}")),
            Some(why) => Verdict::fail(gate, why),
        })
    }

    /// The stage, of those that it may come from, that the release is in now, alone or as a canary, and the event that put it there.
    fn stage_before<'r>(&self, rules: &'r Stage, release: &Release) -> Option<(&'r StageName, &Event)> {
        // Under this version's name, another tag or other content may be what is there.
        let is_this = |event: &Event| {
            event.payload().is_none_or(|pinned| {
                pinned.release_tag.as_ref().is_none_or(|oid| *oid == release.tag.oid)
                    && pinned.digest.is_none_or(|digest| digest == self.candidate.digest)
            })
        };
        rules.promotes_from.iter().find_map(|stage| {
            let current = self.history.current(stage)?;
            let canary = current.canary.map(|canary| (canary.version, canary.since));
            let mut there = [Some((current.version, current.since)), canary].into_iter().flatten();
            let found = there.find(|(version, event)| **version == release.version && is_this(event));
            found.map(|(_, event)| (stage, event))
        })
    }

    pub(super) fn signed(&self, release: &Release) -> Result<Verdict> {
        let gate = "signed";
        Ok(match registry::signature(&self.registry.ctx().git, &release.tag)? {
            Signature::Good { signer } => Verdict::pass(gate, format!("by {}", human::escape(&signer))),
            Signature::Bad { reason } => {
                Verdict::fail(gate, format!("the release's signature is not good: {reason}"))
            }
            Signature::None => Verdict::fail(gate, "the release is not signed"),
        }
        .of_integrity())
    }

    fn approved(&self, stage: &StageName, needed: u32, release: &Release) -> Result<Verdict> {
        let (mut signers, mut unverified) = (BTreeSet::new(), 0);
        for event in self.history.approvals(stage, &release.version) {
            // An approval is of a digest: the version could have been released again under its name.
            let of_this = event.payload().and_then(|payload| payload.digest) == Some(self.candidate.digest);
            match registry::signature(&self.registry.ctx().git, &event.tag)? {
                Signature::Good { signer } if of_this => drop(signers.insert(signer)),
                _ => unverified += 1,
            }
        }
        Ok(gates::approvals(needed, signers.len(), unverified))
    }
}

fn first_difference(now: &[FileEntry], recorded: &[FileEntry]) -> String {
    let changed = now.iter().find(|entry| !recorded.contains(entry));
    let gone = recorded.iter().find(|entry| !now.iter().any(|other| other.path == entry.path));
    match (changed, gone) {
        (Some(entry), _) => format!("{} changed", human::escape(entry.path.as_str())),
        (None, Some(entry)) => format!("{} is gone", human::escape(entry.path.as_str())),
        (None, None) => "their order changed".to_owned(),
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
