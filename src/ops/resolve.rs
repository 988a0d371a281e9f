//! From a name to exact artifacts: what CI asks before it builds, and a pod before it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ctx;
use super::bundle::{self, BundleFile};
use super::candidate::{Candidate, require_release};
use super::compare::commit_of;
use super::policy::{self, Rules};
use super::registry::{self, Registry};
use super::remotes::{self, Purpose};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::git::tags::Signature;
use crate::human;
use crate::id::Digest;
use crate::model_info::ModelInfo;
use crate::model_yaml::Role;
use crate::release::{
    Action, Finding, History, ModelName, Parsed, Reference, Release, StageName, Tag, TagName, Version, Wanted,
};
use crate::remote::{self, MAX_PRESIGN};
use crate::repo_config;
use crate::repo_path::RepoPath;

/// The schema of a lock file.
pub const LOCK_SCHEMA: &str = "git-model/lock/v1";

/// What to resolve, and how much to say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `churn@v1.4.0`, `churn@1.4`, `churn@latest`, `churn#prod`, `churn@prod`, or a commit.
    pub reference: String,
    /// The model, where a commit does not say.
    pub model: Option<String>,
    /// Ask the store for URLs that anybody can use for a while.
    pub presign: Option<Duration>,
    /// Ask the store what was attested about the model.
    pub attestations: bool,
}

/// Everything that a version is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// What was asked for.
    pub reference: String,
    /// The model.
    pub model: String,
    /// The version; `None` of a commit that is no release.
    pub version: Option<String>,
    /// The release's tag.
    pub tag: Option<String>,
    /// The tag object.
    pub tag_oid: Option<String>,
    /// The commit: code as of this version.
    pub commit: String,
    /// The stage that was asked for.
    pub stage: Option<StageInfo>,
    /// The model digest.
    pub digest: Digest,
    /// Bytes of all files.
    pub size: u64,
    /// The store that has the files.
    pub store: Option<String>,
    /// Every file of the bundle.
    pub files: Vec<FileInfo>,
    /// Data snapshots.
    pub data: Vec<crate::lineage::Data>,
    /// One digest over all of them.
    pub data_digest: Option<Digest>,
    /// Metrics of these weights.
    pub metrics: BTreeMap<String, f64>,
    /// What the user's git says about the tag's signature.
    pub signature: Option<SignatureInfo>,
    /// Keys of what was attested in the store; `None` when it was not asked.
    pub attestations: Option<Vec<String>>,
    /// The version that was released before it.
    pub previous: Option<String>,
    /// What whoever asked should know about; no part of the answer.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// How a stage got its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInfo {
    /// Its name.
    pub name: String,
    /// Number of the event.
    pub n: Option<u64>,
    /// What was done.
    pub action: String,
    /// When, in Unix seconds.
    pub at: i64,
    /// Who. Untrusted text.
    pub by: String,
    /// A version with a share of the traffic.
    pub canary: Option<CanaryInfo>,
}

/// A canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryInfo {
    /// The version.
    pub version: String,
    /// Percent of the traffic.
    pub traffic: u8,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Repository path.
    pub path: RepoPath,
    /// What it is: a role, `model` for the declaration or `lineage` for the record.
    pub role: String,
    /// Its content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Where it is in the store.
    pub url: Option<String>,
    /// A URL that anybody can use for a while. A secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presigned_url: Option<String>,
}

/// A signature's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureInfo {
    /// `good`, `bad` or `none`.
    pub state: String,
    /// Who signed, or why it is not good.
    pub said: Option<String>,
}

impl Resolved {
    /// As it stands beside a deployed model.
    pub fn info(&self) -> ModelInfo {
        ModelInfo {
            model: self.model.clone(),
            version: self.version.clone(),
            release: self.tag.clone(),
            digest: self.digest,
            commit: Some(self.commit.clone()),
            data_digest: self.data_digest,
            files: Vec::new(),
        }
    }

    /// The text of a lock file; equal answers give equal text. Format: `docs/formats/lock.md`.
    pub fn to_lock(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            schema: &'a str,
            #[serde(flatten)]
            resolved: &'a Resolved,
        }
        let document = Document { schema: LOCK_SCHEMA, resolved: self };
        let mut text = serde_json::to_string_pretty(&document).expect("plain data");
        text.push('\n');
        text
    }

    /// Refuses an answer, such as one from a lock file that was edited, whose digest is not that of its files.
    pub fn require_digest_of_files(&self) -> Result<()> {
        let mut contents = BTreeMap::new();
        let mut files = Vec::new();
        for file in &self.files {
            if contents.insert(&file.path, file.sha256).is_some_and(|other| other != file.sha256) {
                return Err(Error::refused(format!("{}: listed twice, with different content", file.path)));
            }
            let FileInfo { path, sha256, size, executable, .. } = file.clone();
            let role = Role::ALL.into_iter().find(|role| role.key() == file.role);
            files.extend(role.map(|role| BundleFile { role, path, sha256, size, executable }));
        }
        match bundle::model_digest(&files) == self.digest {
            true => Ok(()),
            false => Err(Error::refused("its model digest is not that of the files that it lists")),
        }
    }

    /// What must be the same for two answers to mean the same artifacts.
    pub fn pins(&self) -> (&str, Option<&str>, &str, Digest) {
        (&self.model, self.tag_oid.as_deref(), &self.commit, self.digest)
    }
}

/// Resolves from this clone: its git remote is asked, unless `--offline`.
pub fn resolve(ctx: &Ctx, options: &Options) -> Result<Resolved> {
    resolve_in(&Registry::open(ctx)?, Some(ctx), options)
}

/// Resolves from the mirror of a URL; `ctx` works on that.
pub fn resolve_at_url(ctx: Ctx, options: &Options) -> Result<(Resolved, Ctx)> {
    let registry = Registry::at_url(ctx);
    let resolved = resolve_in(&registry, None, options)?;
    match registry {
        Registry::Remote { ctx, .. } => Ok((resolved, *ctx)),
        Registry::Local(_) => unreachable!("it was opened at a URL"),
    }
}

fn resolve_in(registry: &Registry<'_>, own: Option<&Ctx>, options: &Options) -> Result<Resolved> {
    Ok(load(registry, own, options)?.resolved)
}

/// What a reference means, with everything that is recorded about it.
pub(super) struct Loaded {
    pub(super) resolved: Resolved,
    pub(super) candidate: Candidate,
    /// When it was released, in Unix seconds; `None` of a commit, which only the clone itself can read.
    pub(super) released: Option<i64>,
}

/// Resolves, and keeps what had to be read for it.
pub(super) fn load(registry: &Registry<'_>, own: Option<&Ctx>, options: &Options) -> Result<Loaded> {
    let typed = &options.reference;
    let (name, wanted) = match Reference::parse(typed)? {
        Reference::Release { name, wanted } => (name, Asked::Release(wanted)),
        Reference::Stage { name, stage } => (name, Asked::Stage(stage)),
        // What git knows under a name is that; what it does not know is a model.
        Reference::Model(name)
            if own.is_none_or(|ctx| !ctx.git.commit(typed).is_ok_and(|found| found.is_some())) =>
        {
            (name, Asked::Release(Wanted::Latest))
        }
        Reference::Model(_) | Reference::Commit(_) => {
            let ctx = own.ok_or_else(|| {
                Error::usage(format!("{}: without a clone, name a release or a stage", human::escape(typed)))
            })?;
            let commit = commit_of(ctx, typed)?;
            let candidate = Candidate::load(ctx, options.model.as_deref(), &commit)?;
            let resolved = describe(ctx, options, &candidate, None, None, None)?;
            return Ok(Loaded { resolved, candidate, released: None });
        }
    };
    let history = needed(registry, &name, &wanted)?;
    if let (Some(ctx), Reference::Model(_)) = (own, Reference::parse(typed)?)
        && history.taken().is_empty()
    {
        // Neither git nor the registry knows the word.
        commit_of(ctx, typed)?;
    }
    let (release, stage) = match &wanted {
        Asked::Release(wanted) => (require_release(&history, &name, wanted, typed)?, None),
        Asked::Stage(stage) => in_stage(&history, &name, stage)?,
    };
    let ctx = registry.ctx();
    prepare(registry, release, stage.is_some())?;
    let candidate = Candidate::of_release(ctx, release)?;
    let signature = registry::signature(&ctx.git, &release.tag)?;
    let warning = match &wanted {
        Asked::Stage(stage) => believe(registry, &history, &candidate, stage, &signature)?,
        Asked::Release(_) => None,
    };
    let mut resolved = describe(ctx, options, &candidate, Some(release), stage, Some(signature))?;
    resolved.warnings.extend(warning);
    Ok(Loaded { resolved, candidate, released: Some(release.tag.time) })
}

/// Refuses what a stage holds if the rules ask for signatures there and those of the event or the release are not good.
fn believe(
    registry: &Registry<'_>,
    history: &History,
    candidate: &Candidate,
    stage: &StageName,
    signature: &Signature,
) -> Result<Option<String>> {
    let rules = Rules::to_leave(registry, candidate);
    let place = || format!("{}#{stage}", candidate.model.name);
    let known =
        "import the key, or for SSH set gpg.ssh.allowedSignersFile, so that git verify-tag accepts it";
    if let Some(current) = history.current(stage)
        && let Some(why) = rules.distrust(registry, stage, current.since)?
    {
        return Err(Error::refused(format!("{}: {why}", place())).hint(known));
    }
    if rules.signed(stage) && !matches!(signature, Signature::Good { .. }) {
        let said = match signature {
            Signature::Bad { reason } => format!("its release's signature is not good here: {reason}"),
            _ => "its release is not signed, and this stage asks for it".to_owned(),
        };
        return Err(Error::refused(format!("{}: {said}", place())).hint(known));
    }
    Ok(rules.unreadable.as_ref().map(policy::stand_in))
}

enum Asked {
    Release(Wanted),
    Stage(StageName),
}

fn in_stage<'h>(
    history: &'h History,
    name: &ModelName,
    stage: &StageName,
) -> Result<(&'h Release, Option<StageInfo>)> {
    let current = history.current(stage).ok_or_else(|| {
        Error::refused(format!("{name}#{stage}: nothing is in this stage"))
            .hint(format!("git model history {name} --stage {stage}"))
    })?;
    let release =
        require_release(history, name, &Wanted::Exact(current.version.clone()), &format!("{name}#{stage}"))?;
    let pinned = current.since.payload().and_then(|payload| payload.release_tag.as_deref());
    if pinned.is_some_and(|oid| oid != release.tag.oid) {
        return Err(Error::refused(format!(
            "{name}#{stage}: the tag of v{} was moved after it was promoted",
            current.version
        )));
    }
    let info = StageInfo {
        name: stage.as_str().to_owned(),
        n: current.since.n,
        action: current.since.action.as_str().to_owned(),
        at: current.since.tag.time,
        by: current.since.tag.tagger.clone(),
        canary: current
            .canary
            .map(|canary| CanaryInfo { version: canary.version.to_string(), traffic: canary.traffic }),
    };
    Ok((release, Some(info)))
}

/// As much of the history as the answer needs: offline all that is here; else the few tags that decide, unless tags of GTO are
/// among them, which only make sense together.
fn needed(registry: &Registry<'_>, name: &ModelName, asked: &Asked) -> Result<History> {
    let (Some(remote), Some(listed)) = (registry.remote(), registry.list(name)?) else {
        let history = registry.history(name)?;
        refuse_doubt(&history, asked, None)?;
        return Ok(history);
    };
    let named = |(name, id): (String, Oid)| Some((TagName::parse(&name)?, id));
    let names: BTreeMap<TagName, Oid> = listed.tags.into_iter().filter_map(named).collect();
    let partial = if names.keys().any(|tag| matches!(tag, TagName::Foreign(_))) {
        None
    } else {
        // The rules for a stage are those of the default branch.
        let head = listed.head.as_ref().filter(|_| matches!(asked, Asked::Stage(_)));
        Partial { registry, names: &names, remote, head }.history(name, asked)?
    };
    match partial {
        Some((history, lowest)) => {
            refuse_doubt(&history, asked, lowest)?;
            Ok(history)
        }
        None => {
            registry.refresh(name)?;
            let history = registry.history(name)?;
            refuse_doubt(&history, asked, None)?;
            Ok(history)
        }
    }
}

/// Refuses an answer about a stage whose chain is broken. What comes before the `lowest` event was not looked at.
fn refuse_doubt(history: &History, asked: &Asked, lowest: Option<u64>) -> Result<()> {
    let Asked::Stage(stage) = asked else { return Ok(()) };
    let known = |finding: &&Finding| {
        finding.tag().stage() == Some(stage)
            && !(lowest.is_some()
                && finding.tag().number() == lowest
                && matches!(finding, Finding::Gap { .. } | Finding::Rewritten { .. }))
    };
    match history.findings().iter().find(known) {
        None => Ok(()),
        Some(finding) => Err(Error::refused(finding.to_string())
            .hint(finding.remedy())
            .hint("git model history shows all; nobody should deploy from it before that is settled")),
    }
}

/// Fetches only the tags that decide.
struct Partial<'a> {
    registry: &'a Registry<'a>,
    names: &'a BTreeMap<TagName, Oid>,
    remote: &'a str,
    /// The tip of the default branch, if it matters.
    head: Option<&'a Oid>,
}

impl Partial<'_> {
    /// The history as far as it matters, and the lowest event that was looked at. `None` when everything has to be looked at.
    fn history(&self, name: &ModelName, asked: &Asked) -> Result<Option<(History, Option<u64>)>> {
        let mut tags = Vec::new();
        let mut lowest = None;
        let wanted = match asked {
            Asked::Release(wanted) => wanted.clone(),
            Asked::Stage(stage) => match self.events(stage, &mut tags)? {
                None => return Ok(None),
                Some(Deciding { version, n }) => {
                    lowest = n;
                    match version {
                        Some(version) => Wanted::Exact(version),
                        None => return Ok(Some((History::new(name, tags), lowest))),
                    }
                }
            },
        };
        // Of a canary beside it, too: an event without its release would look like a broken record.
        let mut versions: BTreeSet<Version> = tags.iter().filter_map(version_of).collect();
        versions.extend(self.version(&wanted));
        let releases: Vec<TagName> =
            versions.into_iter().map(|version| TagName::Release { name: name.clone(), version }).collect();
        let there: Vec<&TagName> = releases.iter().filter(|tag| self.names.contains_key(*tag)).collect();
        tags.extend(self.read(&there)?);
        let history = History::new(name, tags);
        // The highest tag may be none that counts; then the one below it does.
        let hidden = matches!(asked, Asked::Release(Wanted::Latest | Wanted::Prefix { .. }))
            && history.find(&wanted).is_none();
        Ok((!hidden).then_some((history, lowest)))
    }

    /// Reads events from the newest back to the one that decides.
    fn events(&self, stage: &StageName, tags: &mut Vec<Tag>) -> Result<Option<Deciding>> {
        let mut events: Vec<&TagName> = self.names.keys().filter(|tag| tag.stage() == Some(stage)).collect();
        events.sort_by_key(|tag| std::cmp::Reverse(tag.number()));
        let mut rest = &events[..];
        let mut batch = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            for tag in self.read(now)? {
                let n = tag.name.number();
                let decides = match &tag.message {
                    Parsed::Event(event) => match event.action {
                        Action::Promote | Action::Rollback => Some(event.version.clone()),
                        Action::Retire => Some(None),
                        _ => None,
                    },
                    // GTO's, or damaged: only all of them together say what that means.
                    _ => return Ok(None),
                };
                tags.push(tag);
                if let Some(version) = decides {
                    // Events of the batch that are older do not matter.
                    return Ok(Some(Deciding { version, n }));
                }
            }
            (rest, batch) = (later, batch * 4);
        }
        Ok(None)
    }

    fn version(&self, wanted: &Wanted) -> Option<Version> {
        let mut versions: Vec<&Version> = self
            .names
            .keys()
            .filter_map(|tag| match tag {
                TagName::Release { version, .. } => Some(version),
                _ => None,
            })
            .collect();
        versions.sort();
        let mut finals = versions.iter().rev().filter(|version| !version.is_pre());
        let found = match wanted {
            Wanted::Exact(wanted) => versions.iter().find(|version| **version == wanted),
            Wanted::Prefix { major, minor } => finals.find(|version| version.has_prefix(*major, *minor)),
            Wanted::Latest => finals.next().or_else(|| versions.last()),
        };
        found.map(|version| (*version).clone())
    }

    /// Tags with their commits' trees, in the order of the names. What the mirror has already is not asked for.
    fn read(&self, names: &[&TagName]) -> Result<Vec<Tag>> {
        let git = &self.registry.ctx().git;
        let tags: Vec<(String, &Oid)> =
            names.iter().filter_map(|name| Some((name.to_string(), self.names.get(*name)?))).collect();
        let wanted: Vec<(&str, &Oid)> = tags.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        git.mirror_exactly(self.remote, &wanted, self.head)?;
        Ok(tags.iter().filter_map(|(name, id)| registry::read_tag(git, name, id)).collect())
    }
}

fn version_of(tag: &Tag) -> Option<Version> {
    match &tag.message {
        Parsed::Event(event) => event.version.clone(),
        _ => None,
    }
}

struct Deciding {
    version: Option<Version>,
    n: Option<u64>,
}

/// Brings the files of git that describe a release, and the rules where they matter, all in one request.
fn prepare(registry: &Registry<'_>, release: &Release, rules: bool) -> Result<()> {
    let (Some(remote), Some(payload)) = (registry.remote(), release.payload()) else { return Ok(()) };
    let git = &registry.ctx().git;
    let commit = git.parse_id(&release.tag.target)?;
    let lineage = payload.manifest.sibling(crate::lineage::FILE_NAME)?;
    let mut ids = Vec::new();
    for path in [payload.manifest.clone(), lineage, RepoPath::new(repo_config::FILE_NAME)?] {
        ids.extend(git.blob_id(&commit, &path)?);
    }
    if rules && let Ok(default) = registry.default_branch() {
        ids.extend(git.blob_id(&default, &payload.manifest)?);
    }
    if registry.ctx().offline {
        let mut here = !ids.is_empty();
        for id in &ids {
            here = here && git.has_object(id)?;
        }
        let missing = || {
            Error::new(format!("{}: not all of it is here, and --offline forbids asking", release.tag.name))
                .hint("run it once without --offline")
        };
        return here.then_some(()).ok_or_else(missing);
    }
    git.prefetch(remote, &ids)
}

fn describe(
    ctx: &Ctx,
    options: &Options,
    candidate: &Candidate,
    release: Option<&Release>,
    stage: Option<StageInfo>,
    signature: Option<Signature>,
) -> Result<Resolved> {
    let found = remotes::find(ctx, None, Some(&candidate.commit));
    // A release was refused without a store; a commit may have none.
    let found = if release.is_some() { Some(found?) } else { found.ok() };
    let url = found.as_ref().map(|found| found.url.clone());
    let mut files: Vec<FileInfo> = Vec::new();
    let file = |path: &RepoPath, role: &str, sha256: Digest, size: u64, executable: bool| FileInfo {
        path: path.clone(),
        role: role.to_owned(),
        sha256,
        size,
        executable,
        url: url.as_ref().map(|url| remote::object_url(url, &sha256)),
        presigned_url: None,
    };
    for entry in &candidate.files {
        files.push(file(&entry.path, entry.role.key(), entry.sha256, entry.size, entry.executable));
    }
    for ((path, bytes), role) in candidate.papers.iter().zip(["model", "lineage"]) {
        files.push(file(path, role, Digest::of(bytes), bytes.len() as u64, false));
    }
    let mut attestations = None;
    if options.presign.is_some() || options.attestations {
        let found = found.as_ref().ok_or_else(|| Error::new("no store is set up for this version"))?;
        let store = remotes::open(ctx, found, Purpose::Fetch)?;
        if let Some(valid) = options.presign {
            if valid.is_zero() || valid > MAX_PRESIGN {
                return Err(Error::usage("--presign: between 1 second and 7 days"));
            }
            for file in &mut files {
                file.presigned_url = Some(store.presign(&file.sha256, valid)?);
            }
        }
        if options.attestations {
            attestations = Some(store.attestations(&candidate.digest)?);
        }
    }
    let mut unique = BTreeMap::new();
    unique.extend(files.iter().map(|file| (&file.path, file.size)));
    Ok(Resolved {
        reference: options.reference.clone(),
        model: candidate.model.name.as_str().to_owned(),
        version: release.map(|release| release.version.to_string()),
        tag: release.map(|release| release.tag.name.to_string()),
        tag_oid: release.map(|release| release.tag.oid.clone()),
        commit: candidate.commit.as_str().to_owned(),
        stage,
        digest: candidate.digest,
        size: unique.values().copied().fold(0, u64::saturating_add),
        store: url.map(|url| url.to_string()),
        files,
        data: candidate.lineage.data.clone(),
        data_digest: candidate.lineage.data_digest(),
        metrics: candidate.lineage.metrics().cloned().unwrap_or_default(),
        signature: signature.map(signature_info),
        attestations,
        previous: release
            .and_then(|release| release.payload())
            .and_then(|payload| payload.previous.as_ref())
            .map(ToString::to_string),
        warnings: Vec::new(),
    })
}

fn signature_info(signature: Signature) -> SignatureInfo {
    let (state, said) = match signature {
        Signature::None => ("none", None),
        Signature::Good { signer } => ("good", Some(signer)),
        Signature::Bad { reason } => ("bad", Some(reason)),
    };
    SignatureInfo { state: state.to_owned(), said }
}
