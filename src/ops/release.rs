//! Releasing a version: gates, objects in the store, then one annotated tag.

use std::collections::BTreeMap;

use super::Ctx;
use super::candidate::Candidate;
use super::check::Judge;
use super::declared;
use super::models::Place;
use super::policy::Rules;
use super::push::{self, Wanted};
use super::registry::{Published, Registry};
use super::remotes;
use crate::error::{Error, Kind, Result};
use crate::gates::{Outcome, Verdict};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::model_yaml::Role;
use crate::pointer::{Content, Pointer};
use crate::release::{
    Bump, History, ModelName, Override, ReleasePayload, RemoteNote, TagName, Version, format_release,
};
use crate::repo_path::RepoPath;

/// How often a version is chosen anew when somebody else takes it.
const ATTEMPTS: u32 = 5;

/// Which version to make.
#[derive(Clone, Debug)]
pub enum Which {
    /// This one.
    Exact(Version),
    /// The next of this kind.
    Next(Bump),
}

/// What to release.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model; the only one if not given.
    pub name: Option<String>,
    /// The version.
    pub which: Which,
    /// The commit; HEAD if not given.
    pub commit: Option<String>,
    /// Whether to sign the tag; if not given, it is signed when a stage of the model asks for signed releases, or git's
    /// configuration does.
    pub sign: Option<bool>,
    /// Why gates that fail are passed all the same.
    pub override_reason: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What releasing did, or would do.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// The tag's name.
    pub tag: String,
    /// The tag object; `None` in a dry run.
    pub oid: Option<String>,
    /// The commit.
    pub commit: String,
    /// The model digest.
    pub digest: Digest,
    /// How each gate came out.
    pub verdicts: Vec<Verdict>,
    /// What was sent to the store.
    pub pushed: Option<push::Report>,
    /// Set when nothing was done, because this very model is released already.
    pub exists: bool,
    /// The git remote; `None` when the tag is in this repository only.
    pub git_remote: Option<String>,
    /// Why this clone could not be given the tag that was published, if so.
    pub not_kept: Option<Error>,
}

/// Releases a version.
pub fn release(ctx: &Ctx, options: &Options) -> Result<Report> {
    let commit = ctx.git.require_commit(options.commit.as_deref().unwrap_or("HEAD"))?;
    let candidate = Candidate::load(ctx, options.name.as_deref(), &commit)?;
    let registry = Registry::open(ctx)?;
    let name = candidate.model.name.clone();
    let mut pushed = None;
    for _ in 0..ATTEMPTS {
        // Looked at first: what the remote lacks then is not what another process published meanwhile.
        let own = ctx.git.tag_refs(&[format!("{name}@v")])?;
        registry.refresh(&name)?;
        let history = registry.history(&name)?;
        refuse_other_spelling(&registry, &history, &name)?;
        let (version, exists) = choose(&history, &name, &candidate, &options.which)?;
        let tag = TagName::Release { name: name.clone(), version: version.clone() };
        let mut report = Report {
            model: name.clone(),
            version: version.clone(),
            tag: tag.to_string(),
            oid: None,
            commit: commit.as_str().to_owned(),
            digest: candidate.digest,
            verdicts: Vec::new(),
            pushed: None,
            exists,
            not_kept: None,
            git_remote: registry.remote().map(str::to_owned),
        };
        // Where nothing is let in, rules that cannot be read are no obstacle.
        let rules = match exists {
            true => Rules::to_leave(&registry, &candidate),
            false => Rules::to_enter(&registry, &candidate)?,
        };
        let judge = Judge::new(ctx, &registry, &history, &candidate, rules);
        if options.commit.is_none() {
            report.verdicts = judge.committed(ctx)?;
        }
        if exists {
            // What is not recorded would look like what was released before.
            report.verdicts.push(judge.recorded()?);
            overrides(&report.verdicts, None)
                .map_err(|error| error.about(format!("{tag}: what is here is not what was released")))?;
            report.oid = history.release(&version).map(|release| release.tag.oid.clone());
            return Ok(report);
        }
        if let Some(remote) = registry.remote()
            && own.iter().any(|(own, _)| *own == report.tag)
        {
            return Err(Error::refused(format!("{tag}: this clone has the tag, and {remote} does not"))
                .hint(format!("if it was released before: git push {remote} 'refs/tags/{tag}'"))
                .hint(format!("if it never was: git tag -d '{tag}'")));
        }
        report.verdicts.extend(judge.release()?);
        let overrides = overrides(&report.verdicts, options.override_reason.as_deref())
            .map_err(|error| error.about(format!("{name} v{version}: not released")))?;
        let payload = ReleasePayload {
            name: name.clone(),
            version: version.clone(),
            digest: candidate.digest,
            lineage: candidate.lineage_sha256,
            model: candidate.model_sha256,
            policy: judge.rules.policy.clone(),
            oms: candidate.oms_root(),
            manifest: candidate.model.path.clone(),
            remote: Some(store(ctx, &commit)?),
            commit: commit.as_str().to_owned(),
            overrides,
            previous: history
                .releases()
                .iter()
                .rev()
                .find(|release| !release.version.is_pre())
                .map(|release| release.version.clone()),
        };
        let message = format_release(&payload)?;
        if pushed.is_none() {
            pushed = Some(send(ctx, &candidate, options.dry_run)?);
        }
        if options.dry_run {
            report.pushed = pushed;
            return Ok(report);
        }
        let sign = options.sign.or_else(|| judge.rules.any_signed().then_some(true));
        let published =
            registry.publish(&ctx.git, &tag, &commit, &message, sign).map_err(|error| {
                match sign.is_some() && options.sign.is_none() {
                    true => {
                        error.hint("a stage takes signed releases only; --no-sign releases for the others")
                    }
                    false => error,
                }
            })?;
        match published {
            Published::Done { id, not_kept } => {
                report.oid = Some(id.as_str().to_owned());
                report.pushed = pushed;
                report.not_kept = not_kept;
                return Ok(report);
            }
            // Somebody else took the version just now. A chosen one is refused above, if it is of another model.
            Published::Taken => {}
        }
    }
    Err(Error::new(format!("{name}: others released first, {ATTEMPTS} times in a row"))
        .of_kind(Kind::Race)
        .hint("nothing was changed; run it again"))
}

/// Refuses the first tag of a model whose name differs from another's in letter case only: file systems that do not tell them
/// apart take their tags for the same.
fn refuse_other_spelling(registry: &Registry<'_>, history: &History, name: &ModelName) -> Result<()> {
    if !history.taken().is_empty() || history.stages().next().is_some() {
        return Ok(());
    }
    // Without a remote, the repository lists its own tags.
    let listed = registry.ctx().git.list_remote(registry.remote().unwrap_or("."), &[String::new()])?;
    let tags = listed.tags.keys().filter_map(|tag| TagName::parse(tag));
    let mut others = tags.filter(|tag| tag.model() != name && tag.model().folded() == name.folded());
    match others.next() {
        None => Ok(()),
        Some(tag) => {
            Err(Error::refused(format!("{name}: there is {tag}, whose name differs in letter case only"))
                .hint(format!("call the model {}, or give it a name of its own", tag.model())))
        }
    }
}

/// The version to make, and whether this very model has it already.
fn choose(
    history: &History,
    name: &ModelName,
    candidate: &Candidate,
    which: &Which,
) -> Result<(Version, bool)> {
    let is_this = |version: &Version| {
        let payload = history.release(version).and_then(|release| release.payload());
        payload.is_some_and(|payload| payload.digest == candidate.digest)
    };
    match which {
        Which::Exact(version) if is_this(version) => Ok((version.clone(), true)),
        Which::Exact(version) if history.taken().contains(version) => Err(taken(history, name, version)),
        Which::Exact(version) => {
            version.check_new(history.taken()).map_err(|error| error.of_kind(Kind::Refused))?;
            Ok((version.clone(), false))
        }
        Which::Next(kind) => {
            let next = Version::bump(history.taken(), kind)?;
            // The same model again is no new version, unless a release candidate becomes final.
            let newest = history
                .releases()
                .iter()
                .rev()
                .map(|release| &release.version)
                .find(|version| is_this(version));
            let becomes_final = |found: &Version| found.is_pre() && !next.is_pre();
            match newest {
                Some(found) if !becomes_final(found) => Ok((found.clone(), true)),
                _ => Ok((next, false)),
            }
        }
    }
}

/// Why a version cannot be given to this model.
fn taken(history: &History, name: &ModelName, version: &Version) -> Error {
    let error = match history.findings().iter().find(|finding| finding.concerns(version)) {
        None => {
            Error::refused(format!("{name}@v{version}: this version is released already, with other content"))
        }
        Some(finding) => Error::refused(format!(
            "{name}@v{version}: this version counts as released already, but {finding}"
        ))
        .hint(finding.remedy()),
    };
    error.hint("a release never changes; choose another version, or --patch")
}

/// Refuses a version whose gates fail; what is passed by a person's word is returned.
pub(super) fn overrides(verdicts: &[Verdict], reason: Option<&str>) -> Result<Vec<Override>> {
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Fail).collect();
    let stands = |verdict: &&&Verdict| verdict.integrity || reason.is_none();
    let Some(first) = failed.iter().find(stands) else {
        let passed = |verdict: &&Verdict| Override {
            gate: verdict.gate.clone(),
            reason: reason.unwrap_or_default().to_owned(),
        };
        return Ok(failed.iter().map(passed).collect());
    };
    let more = match failed.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let error = Error::refused(format!("{}: {}{more}", first.gate, first.said));
    Err(match first.integrity {
        true => error.hint(
            "git model check shows all; this is about the truth of the record, which nothing overrides",
        ),
        false => error
            .hint("git model check shows all; --override REASON passes gates of the policy, and is recorded"),
    })
}

/// The store that holds the release's objects, as a note in the tag.
fn store(ctx: &Ctx, commit: &Oid) -> Result<RemoteNote> {
    let found = remotes::find(ctx, None, Some(commit))
        .map_err(|error| error.about("a release needs a store for its files"))?;
    Ok(RemoteNote { name: found.name, url: found.url.to_string() })
}

/// Makes sure that the store has every file of the release as a plain object: artifacts, and the files of git as well, so that
/// whoever fetches a release needs no git.
fn send(ctx: &Ctx, candidate: &Candidate, dry_run: bool) -> Result<push::Report> {
    let mut wanted = Wanted::default();
    let plain = |digest, size| Pointer { content: Content::File { executable: false }, digest, size };
    let mut of_git: BTreeMap<Digest, (RepoPath, Vec<u8>)> = BTreeMap::new();
    for file in &candidate.files {
        wanted.insert(file.path.clone(), plain(file.sha256, file.size));
        if !ctx.cache.holds(&file.sha256, file.size)
            && let Some(bytes) = ctx.git.blob_at(&candidate.commit, file.path.as_str(), file.size)?
            && Digest::of(&bytes) == file.sha256
        {
            of_git.insert(file.sha256, (file.path.clone(), bytes));
        }
    }
    let place = Place::Commit(&candidate.commit);
    for (path, pointer) in declared::look_up(ctx, &candidate.model, place, &Role::ALL)?.artifacts {
        wanted.insert(path, pointer);
    }
    for (path, bytes) in &candidate.papers {
        wanted.insert(path.clone(), plain(Digest::of(bytes), bytes.len() as u64));
        of_git.insert(Digest::of(bytes), (path.clone(), bytes.clone()));
    }
    let batch = ctx.cache.batch()?;
    for (path, bytes) in of_git.values() {
        batch.add_bytes(bytes).map_err(|error| error.about(human::escape(path.as_str())))?;
    }
    batch.commit()?;
    // The tag says that the store has it all. That it had it once does not count.
    push::send(ctx, wanted, &push::Options { ask_again: true, dry_run, ..push::Options::default() }, None)
}
