//! The gates that a version must pass to be released, or to come into a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Ctx;
use super::candidate::{Candidate, require_release};
use super::declared;
use super::models::Place;
use super::registry::{self, Registry};
use super::remotes::{self, Purpose};
use crate::error::{Error, Result};
use crate::gates::{self, Outcome, Verdict};
use crate::git::Oid;
use crate::git::tags::Signature;
use crate::human;
use crate::id::Digest;
use crate::json_schema;
use crate::lineage::FileEntry;
use crate::model_yaml::{self, Model, Part, Role, Stage};
use crate::release::{History, Policy, PolicySource, Reference, Release, StageName};
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
    let stage = options.stage.as_deref().map(StageName::parse).transpose()?;
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
    let judge = Judge::new(at, &registry, &history, &candidate)?;
    let mut verdicts = match &release_of {
        None => judge.committed(ctx)?,
        Some(_) => Vec::new(),
    };
    verdicts.extend(judge.release()?);
    verdicts.push(judge.stored()?);
    if let Some(stage) = &stage {
        let release = release_of.and_then(|version| history.release(&version));
        verdicts.extend(judge.stage(stage, release)?);
    }
    Ok(Report {
        model: name.as_str().to_owned(),
        subject,
        stage: options.stage.clone(),
        digest: candidate.digest,
        policy: judge.policy.clone(),
        verdicts,
    })
}

fn head(ctx: &Ctx, name: Option<&str>) -> Result<(Candidate, Option<crate::release::Version>, String)> {
    let commit = ctx.git.require_commit("HEAD")?;
    let candidate = Candidate::load(ctx, name, &commit)?;
    let subject = format!("{} at {}", candidate.model.name, &commit.as_str()[..10]);
    Ok((candidate, None, subject))
}

/// Judges one version by the rules of the default branch.
pub(super) struct Judge<'a> {
    ctx: &'a Ctx,
    registry: &'a Registry<'a>,
    history: &'a History,
    candidate: &'a Candidate,
    rules: Model,
    /// Whose rules are applied.
    pub(super) policy: Policy,
}

impl<'a> Judge<'a> {
    /// Reads the rules: from the default branch; where the model is not there yet, from the version's own commit.
    ///
    /// `ctx` is on the repository that has the version's commit.
    pub(super) fn new(
        ctx: &'a Ctx,
        registry: &'a Registry<'a>,
        history: &'a History,
        candidate: &'a Candidate,
    ) -> Result<Judge<'a>> {
        let (rules, policy) = policy(registry, candidate)?;
        Ok(Judge { ctx, registry, history, candidate, rules, policy })
    }

    /// What the rules ask of a stage.
    pub(super) fn stage_rules(&self, stage: &StageName) -> Result<&Stage> {
        self.rules.stages.get(stage).ok_or_else(|| {
            let known: Vec<&str> = self.rules.stages.keys().map(StageName::as_str).collect();
            let error = Error::usage(format!("{stage}: {} declares no such stage", self.rules.path));
            match known.is_empty() {
                true => error.hint("add it under `stages` on the default branch"),
                false => error.hint(format!("declared: {}", known.join(", "))),
            }
        })
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
        let verdict = match clean {
            true if !unknown.is_empty() => {
                let first = human::escape(unknown[0].as_str());
                let many = human::count(unknown.len() as u64, "file");
                let said =
                    format!("{first}: in a declared directory, and not in git ({many}); commit or ignore it");
                Verdict::fail("committed", said)
            }
            true => Verdict::pass("committed", "every declared file is as it is committed"),
            false => {
                Verdict::fail("committed", "declared files differ from the commit; commit or stash them")
            }
        };
        Ok(vec![verdict.of_integrity()])
    }

    /// What any release must pass, but for its bytes being in the store.
    pub(super) fn release(&self) -> Result<Vec<Verdict>> {
        let mut verdicts = vec![self.recorded()?, self.evaluated()];
        verdicts.extend(self.rules.gates.require.iter().map(|part| self.required(*part)));
        verdicts.extend(self.formats());
        for rule in &self.rules.gates.metrics {
            let baseline = rule.against.as_ref().map(|stage| self.in_stage(stage)).transpose()?.flatten();
            let baseline =
                baseline.as_ref().map(|version| version.lineage.metrics().cloned().unwrap_or_default());
            verdicts.push(gates::metric(rule, self.candidate.lineage.metrics(), baseline.as_ref()));
        }
        if let Some(rule) = &self.rules.gates.schema {
            verdicts.push(self.schema(&rule.against)?);
        }
        Ok(verdicts)
    }

    /// What a stage asks of a release that is to come into it. Without a release, what can be told without one.
    pub(super) fn stage(&self, stage: &StageName, release: Option<&Release>) -> Result<Vec<Verdict>> {
        let rules = self.stage_rules(stage)?;
        let mut verdicts = Vec::new();
        let Some(release) = release else {
            verdicts
                .push(Verdict::skip("stage", "release it first; the stage's own rules are about a release"));
            return Ok(verdicts);
        };
        if !rules.promotes_from.is_empty() {
            verdicts.push(self.promotes_from(rules, release));
        }
        if let Some(needed) = rules.soak {
            let since = self.stage_before(rules, release).map(|(_, since)| since);
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
    fn recorded(&self) -> Result<Verdict> {
        let (ctx, candidate) = (self.ctx, self.candidate);
        let gate = "recorded";
        if candidate.lineage.model != candidate.model.name.as_str() {
            let said = format!("lineage.yaml is of the model `{}`", human::escape(&candidate.lineage.model));
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

    /// Whether the store has all artifacts of the version.
    pub(super) fn stored(&self) -> Result<Verdict> {
        let (gate, ctx) = ("stored", self.ctx);
        let needed = self.artifacts()?;
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
        let missing: Vec<&RepoPath> = needed
            .iter()
            .filter(|(digest, (size, _))| sizes.get(*digest) != Some(size))
            .map(|(_, (_, path))| path)
            .collect();
        Ok(match missing.first() {
            None => {
                let bytes = needed.values().map(|(size, _)| *size).fold(0, u64::saturating_add);
                let count = human::count(needed.len() as u64, "object");
                Verdict::pass(gate, format!("{} has {count} ({})", found.name, human::bytes(bytes)))
            }
            Some(first) => {
                let path = human::escape(first.as_str());
                Verdict::fail(
                    gate,
                    format!(
                        "{}: {} does not have it, or with another size ({} in all); git model push",
                        path,
                        found.name,
                        missing.len()
                    ),
                )
            }
        }
        .of_integrity())
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
            let closure = super::fetch::closure(ctx, &pointer);
            match closure {
                Ok(closure) => {
                    objects.extend(closure.files.iter().map(|file| (file.digest, (file.size, path.clone()))));
                    objects.extend(closure.trees.iter().map(|tree| (tree.digest, (tree.size, path.clone()))));
                }
                // A directory whose list is not here: the list itself must be there, and it is sent last.
                Err(error) => return Err(error.about(human::escape(path.as_str()))),
            }
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
        let allowed = &self.rules.gates.formats;
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

    /// Whether callers of the version in a stage can call this one.
    fn schema(&self, stage: &StageName) -> Result<Verdict> {
        let gate = "schema";
        let Some(current) = self.in_stage(stage)? else {
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

    /// The version that is in a stage now.
    fn in_stage(&self, stage: &StageName) -> Result<Option<Candidate>> {
        let Some(current) = self.history.current(stage) else { return Ok(None) };
        match self.history.release(current.version) {
            None => Ok(None),
            Some(release) => Candidate::of_release(self.registry.ctx(), release).map(Some),
        }
    }

    fn promotes_from(&self, rules: &Stage, release: &Release) -> Verdict {
        let names: Vec<&str> = rules.promotes_from.iter().map(StageName::as_str).collect();
        match self.stage_before(rules, release) {
            Some((stage, _)) => Verdict::pass("promotes from", format!("it is in {stage}")),
            None => Verdict::fail("promotes from", format!("it is not in {}", names.join(" or "))),
        }
    }

    /// The stage, of those that it may come from, that the release is in now, alone or as a canary, and since when.
    fn stage_before<'r>(&self, rules: &'r Stage, release: &Release) -> Option<(&'r StageName, i64)> {
        rules.promotes_from.iter().find_map(|stage| {
            let current = self.history.current(stage)?;
            if *current.version == release.version {
                return Some((stage, current.since.tag.time));
            }
            let canary = current.canary.filter(|canary| *canary.version == release.version)?;
            Some((stage, canary.since.tag.time))
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

/// The rules of the default branch; the version's own where the default branch does not have the model yet.
fn policy(registry: &Registry<'_>, candidate: &Candidate) -> Result<(Model, Policy)> {
    let ctx = registry.ctx();
    let cannot = |error: Error| {
        Error::refused("the rules on the default branch cannot be read, so nothing is released")
            .caused_by(error)
    };
    let default = registry.default_branch().map_err(cannot)?;
    let place = Place::Commit(&default);
    let at_same_path = ctx.model_at(&candidate.model.path, place).map_err(cannot)?;
    let of_this_name = |model: &Model| model.name == candidate.model.name;
    let there = match at_same_path.filter(of_this_name) {
        Some(model) => Some(model),
        None => {
            let (models, failed) = ctx.models(place).map_err(cannot)?;
            let found = models.into_iter().find(of_this_name);
            // An unreadable declaration may be the very one whose rules count.
            match (found, failed.into_iter().next()) {
                (None, Some(error)) => return Err(cannot(error)),
                (found, _) => found,
            }
        }
    };
    let (rules, source, commit) = match there {
        Some(rules) => (rules, PolicySource::DefaultBranch, default),
        None => (candidate.model.clone(), PolicySource::ReleaseCommit, candidate.commit.clone()),
    };
    let bytes = ctx.file_at(&rules.path, model_yaml::MAX_BYTES, Place::Commit(&commit)).map_err(cannot)?;
    let sha256 = Digest::of(&bytes.unwrap_or_default());
    Ok((rules, Policy { sha256, source, commit: commit.as_str().to_owned() }))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
