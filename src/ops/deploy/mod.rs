//! From what is in a stage to manifests in a directory, and whether the two still agree. See `docs/rollout.md`.

mod folder;
mod share;

use std::path::{Path, PathBuf};

use super::Ctx;
use super::events::{self, What};
use super::registry::Registry;
use super::resolve::{self, Loaded, Resolved};
use crate::error::{Error, Result};
use crate::human;
use crate::manifests::{self, Rollout, Target, Workload};
use crate::model_yaml::{Deploy, ImageRef, Supply};
use crate::release::{Action, ModelName, Reference, StageName, Version, Wanted};

pub use folder::{Deployed, RECORD, Record};

use folder::Plan;

/// What to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The release, or the stage itself.
    pub reference: String,
    /// The stage, where the reference does not say.
    pub stage: Option<StageName>,
    /// What the manifests are for; as before if not given.
    pub target: Option<Target>,
    /// The directory.
    pub dir: PathBuf,
    /// Images, where neither `model.yaml` nor the directory knows them.
    pub images: Images,
    /// Replace files that somebody changed.
    pub force: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Images of a version.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// The server.
    pub server: Option<ImageRef>,
    /// The model under `/models`.
    pub model: Option<ImageRef>,
    /// git-model and curl.
    pub tools: Option<ImageRef>,
}

/// What was written, or would be.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub model: String,
    /// The stage.
    pub stage: String,
    /// What the manifests are for.
    pub target: Target,
    /// The version that they name.
    pub version: String,
    /// Its share of the traffic, where the manifests say one.
    pub traffic: Option<u8>,
    /// Files that were written.
    pub files: Vec<String>,
    /// Files of former runs that were removed.
    pub removed: Vec<String>,
    /// What else is in the directory.
    pub foreign: Vec<String>,
    /// Set when everything was there already.
    pub nothing_to_do: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Whether a directory and a stage agree.
#[derive(Debug)]
pub struct Checked {
    /// What is in the directory.
    pub record: Record,
    /// The version that the stage wants; `None` when it is empty.
    pub wanted: Option<String>,
    /// Its share of the traffic, when it is a canary.
    pub traffic: Option<u8>,
    /// What does not agree, each on a line.
    pub disagreements: Vec<String>,
}

/// Writes the manifests of what is in a stage.
pub fn deploy(ctx: &Ctx, options: &Options) -> Result<Report> {
    let (name, wanted, stage) = asked(options)?;
    let state = State::of_stage(ctx, &name, &stage)?;
    if let Some(wanted) = wanted {
        let typed = human::escape(&options.reference);
        let resolved = at(ctx, &options.reference)?.resolved;
        if resolved.version.as_deref() != Some(state.version()) {
            let version = resolved.version.as_deref().unwrap_or_default();
            let hint = match state.canary {
                Some(_) => format!("git model outcome {name} {stage} aborted ends the canary"),
                None => format!("git model promote {name}@v{version} {stage}"),
            };
            return Err(Error::refused(format!(
                "{typed}: manifests for {stage} must name what is wanted there, which is v{}{}",
                state.version(),
                if matches!(wanted, Wanted::Exact(_)) { String::new() } else { format!(", not v{version}") }
            ))
            .hint(hint));
        }
    }
    let old = Record::read(&options.dir)?;
    let (plan, report) = plan(options, &name, &stage, &state, old.as_ref())?;
    if !options.dry_run {
        plan.write()?;
    }
    Ok(report)
}

/// Rolls a stage back, and writes the manifests of the version that it goes back to: these are made first, then the event is
/// pushed, then the directory is changed. `options.reference` and `options.stage` are not used.
pub fn rollback(ctx: &Ctx, event: &events::Options, options: &Options) -> Result<(events::Report, Report)> {
    let (name, stage) = (&event.name, &event.stage);
    let old = Record::read(&options.dir)?.ok_or_else(|| unknown(&options.dir))?;
    let would = events::happen(ctx, &events::Options { dry_run: true, ..event.clone() })?;
    let version = would.version.clone().ok_or_else(|| Error::new("a rollback without a version"))?;
    let wanted = at(ctx, &release_of(name, &version))?;
    let state = State { wanted, canary: None, stable: None, is_back: true };
    let (plan, report) = plan(options, name, stage, &state, Some(&old))?;
    if event.dry_run {
        return Ok((would, report));
    }
    // Exactly the version whose manifests are ready, whatever happened in the meantime.
    let what = What::Rollback { to: Some(Wanted::Exact(version)) };
    let exact = events::Options { what, ..event.clone() };
    let done = match event.what {
        What::Rollback { to: None } => events::roll_back_as_seen(ctx, &exact, &would)?,
        _ => events::happen(ctx, &exact)?,
    };
    plan.write().map_err(|error| {
        error
            .about(format!(
                "{}: the stage was rolled back ({}), its manifests were not",
                options.dir.display(),
                done.tag
            ))
            .hint(format!(
                "git model deploy '{name}#{stage}' -o {} writes them",
                human::shell_quote(&options.dir.to_string_lossy())
            ))
    })?;
    Ok((done, report))
}

/// Compares a directory with its stage.
pub fn check(ctx: &Ctx, dir: &Path) -> Result<Checked> {
    let record = Record::read(dir)?.ok_or_else(|| unknown(dir))?;
    let name = ModelName::parse(&record.model)?;
    let stage = StageName::parse(&record.stage)?;
    let mut disagreements: Vec<String> =
        folder::changes(dir, &record)?.into_iter().map(|(name, what)| format!("{name} {what}")).collect();
    let state = match is_empty(ctx, &name, &stage)? {
        true => None,
        false => Some(State::of_stage(ctx, &name, &stage)?),
    };
    match &state {
        None => disagreements.push(format!("the manifests name v{}, {stage} is empty", record.version)),
        Some(state) if state.version() != record.version => disagreements.push(format!(
            "the manifests name v{}, {stage} wants v{}{}",
            record.version,
            state.version(),
            state.canary.map(|share| format!(" (canary at {share} %)")).unwrap_or_default()
        )),
        Some(state) if state.wanted.resolved.digest != record.digest => disagreements.push(format!(
            "both name v{}, but of other content: sha256:{} in the manifests, sha256:{} in its tag",
            record.version, record.digest, state.wanted.resolved.digest
        )),
        Some(state) if share_in(record.target, state.canary) != record.traffic.filter(|share| *share > 0) => {
            let shown = |share: Option<u8>| share.map_or("all".to_owned(), |share| format!("{share} %"));
            disagreements.push(format!(
                "the manifests give v{} {} of the traffic, {stage} {}",
                record.version,
                shown(record.traffic),
                shown(state.canary)
            ));
        }
        // The record could be edited, too: what it states must be what it gives.
        Some(state) if disagreements.is_empty() => {
            let options = Options { dir: dir.to_path_buf(), force: true, ..Options::default() };
            let (plan, _) = plan(&options, &name, &stage, state, Some(&record))?;
            if !plan.same {
                disagreements.push(format!(
                    "the manifests are not those of v{}; git model deploy writes them",
                    record.version
                ));
            }
        }
        Some(_) => {}
    }
    Ok(Checked {
        record,
        wanted: state.as_ref().map(|state| state.version().to_owned()),
        traffic: state.and_then(|state| state.canary),
        disagreements,
    })
}

/// What a stage wants.
struct State {
    /// The version that is rolled out: the canary, if there is one.
    wanted: Loaded,
    /// Percent of the traffic, of a canary.
    canary: Option<u8>,
    /// The version beside a canary.
    stable: Option<Loaded>,
    /// Whether the stage was rolled back to this version.
    is_back: bool,
}

impl State {
    fn of_stage(ctx: &Ctx, name: &ModelName, stage: &StageName) -> Result<State> {
        let there = at(ctx, &format!("{name}#{stage}"))?;
        match there.resolved.stage.as_ref().and_then(|stage| stage.canary.clone()) {
            None => {
                let since = there.resolved.stage.as_ref().map(|stage| stage.action.as_str());
                let is_back = since == Some(Action::Rollback.as_str());
                Ok(State { wanted: there, canary: None, stable: None, is_back })
            }
            Some(canary) => {
                let wanted = at(ctx, &format!("{name}@v{}", canary.version))?;
                Ok(State { wanted, canary: Some(canary.traffic), stable: Some(there), is_back: false })
            }
        }
    }

    fn version(&self) -> &str {
        self.wanted.resolved.version.as_deref().unwrap_or_default()
    }
}

fn is_empty(ctx: &Ctx, name: &ModelName, stage: &StageName) -> Result<bool> {
    let registry = Registry::open(ctx)?;
    registry.refresh(name)?;
    let history = registry.history(name)?;
    Ok(history.current(stage).is_none() && history.findings().is_empty())
}

fn at(ctx: &Ctx, reference: &str) -> Result<Loaded> {
    let options = resolve::Options { reference: reference.to_owned(), ..Default::default() };
    resolve::load(&Registry::open(ctx)?, Some(ctx), &options)
}

fn release_of(name: &ModelName, version: &Version) -> String {
    format!("{name}@v{version}")
}

fn unknown(dir: &Path) -> Error {
    Error::new(format!("{}: holds no manifests of git model deploy", dir.display()))
        .hint("git model deploy REF --target TARGET --stage STAGE -o DIR writes some")
}

fn asked(options: &Options) -> Result<(ModelName, Option<Wanted>, StageName)> {
    let typed = human::escape(&options.reference);
    let (name, wanted, stage) = match Reference::parse(&options.reference)? {
        Reference::Stage { name, stage } => (name, None, Some(stage)),
        Reference::Release { name, wanted } => (name, Some(wanted), None),
        _ => {
            return Err(Error::usage(format!("{typed}: not a release or a stage"))
                .hint("name one: churn@v1.4.0, or churn#prod for what is in it"));
        }
    };
    match (stage, &options.stage) {
        (Some(stage), Some(typed)) if stage != *typed => {
            Err(Error::usage(format!("{}: --stage says {typed}", human::escape(&options.reference))))
        }
        (Some(stage), _) => Ok((name, wanted, stage)),
        (None, Some(stage)) => Ok((name, wanted, stage.clone())),
        (None, None) => Err(Error::usage(format!("{typed}: for which stage?")).hint("--stage prod")),
    }
}

/// The share of the traffic that the manifests of a target say; the others have steps of their own.
fn share_in(target: Target, canary: Option<u8>) -> Option<u8> {
    canary.filter(|_| matches!(target, Target::Kserve | Target::Kubernetes))
}

fn plan(
    options: &Options,
    name: &ModelName,
    stage: &StageName,
    state: &State,
    old: Option<&Record>,
) -> Result<(Plan, Report)> {
    let dir = options.dir.display();
    if let Some(old) = old.filter(|old| old.model != name.as_str() || old.stage != stage.as_str()) {
        return Err(Error::refused(format!(
            "{dir}: holds the manifests of {}#{}",
            human::escape(&old.model),
            human::escape(&old.stage)
        ))
        .hint("use a directory for each model and stage"));
    }
    let target = options.target.or(old.map(|old| old.target)).ok_or_else(|| {
        Error::usage(format!("{dir}: manifests for what?"))
            .hint("--target kserve, argo-rollouts, flagger or kubernetes")
    })?;
    let maker = Maker { target, old };
    let main = maker.workload(&state.wanted, Some(&options.images))?;
    let traffic = share_in(target, state.canary);
    let stable = match (target, traffic, &state.stable) {
        (Target::Kubernetes, Some(_), Some(stable)) => Some(maker.workload(stable, None)?),
        _ => None,
    };
    let mut record = Record::new(name.as_str(), stage.as_str(), target, state.version(), main.info.digest);
    record.versions = versions(&main, stable.as_ref(), old);
    let mut warnings = state.wanted.resolved.warnings.clone();
    record.traffic = traffic;
    if target == Target::Kserve {
        warnings.extend(share::of_kserve(&mut record, old, traffic));
    }
    let mut kept = kept_locks(&record, old);
    // Beside a canary, the former version's is written anew.
    kept.retain(|name| stable.as_ref().is_none_or(|stable| *name != manifests::lock_file(stable.version())));
    if target == Target::Flagger && main.settings.namespace.is_none() {
        warnings.push(
            "`namespace` is not set: Flagger and its load tester look for bare names in their own namespaces"
                .to_owned(),
        );
    }
    let store = state.wanted.resolved.store.as_deref().unwrap_or_default();
    if main.lock.is_some() && (store.starts_with('/') || store.starts_with("file:")) {
        warnings.push(format!(
            "the store is a folder ({}); pods need it mounted at this very path",
            human::escape(store)
        ));
    }
    let rollout = Rollout {
        target,
        model: name,
        stage,
        main,
        stable,
        traffic: record.traffic,
        is_back: state.is_back,
        kept: &kept,
    };
    let files = manifests::render(&rollout)?;
    let plan = Plan::new(&options.dir, old, record, files, &kept, options.force)?;
    let report = Report {
        model: name.to_string(),
        stage: stage.to_string(),
        target,
        version: state.version().to_owned(),
        traffic,
        files: plan.names(),
        removed: plan.stale().to_vec(),
        foreign: plan.foreign.clone(),
        nothing_to_do: plan.same,
        warnings,
    };
    Ok((plan, report))
}

/// Versions that were deployed, newest first, as many as can be gone back to.
fn versions(main: &Workload, stable: Option<&Workload>, old: Option<&Record>) -> Vec<Deployed> {
    let text = |image: &Option<ImageRef>| image.as_ref().map(ToString::to_string);
    let deployed = |workload: &Workload| Deployed {
        version: workload.info.version.clone().unwrap_or_default(),
        digest: workload.info.digest,
        image: text(&workload.image),
        model_image: text(&workload.model_image),
        tools: text(&workload.tools),
    };
    let mut versions: Vec<Deployed> = std::iter::once(main).chain(stable).map(deployed).collect();
    for former in old.iter().flat_map(|old| &old.versions) {
        if versions.iter().all(|known| known.version != former.version) {
            versions.push(former.clone());
        }
    }
    versions.truncate(main.settings.history as usize + 1);
    versions
}

/// Lock files of former versions that stay: their pods may start again as long as the controller can go back to them.
fn kept_locks(record: &Record, old: Option<&Record>) -> Vec<String> {
    let Some(old) = old else { return Vec::new() };
    let names = record.versions.iter().skip(1).map(|former| manifests::lock_file(&former.version));
    names.filter(|name| old.files.contains_key(name)).collect()
}

/// Makes workloads of versions.
struct Maker<'a> {
    target: Target,
    old: Option<&'a Record>,
}

impl Maker<'_> {
    /// `images` are those that were typed. The settings are those at the version's own commit: the same release always gives the
    /// same manifests.
    fn workload(&self, of: &Loaded, images: Option<&Images>) -> Result<Workload> {
        let resolved = &of.resolved;
        let settings = of.candidate.model.deploy.clone();
        let version = resolved.version.clone().unwrap_or_default();
        let shown = resolved.tag.clone().unwrap_or_else(|| version.clone());
        let former = self.old.into_iter().flat_map(|old| &old.versions);
        let former =
            former.into_iter().find(|former| former.version == version && former.digest == resolved.digest);
        let recorded = |pick: fn(&Deployed) -> &Option<String>| -> Result<Option<ImageRef>> {
            let text = former.and_then(|former| pick(former).as_ref());
            let parse = |text: &String| {
                ImageRef::parse(text)
                    .map_err(|why| Error::refused(format!("{RECORD}: `{}`: {why}", human::escape(text))))
            };
            text.map(parse).transpose()
        };
        let typed = |pick: fn(&Images) -> &Option<ImageRef>| images.and_then(|images| pick(images).clone());
        let image = typed(|images| &images.server)
            .or(recorded(|former| &former.image)?)
            .or_else(|| settings.image.clone());
        let model_image = typed(|images| &images.model).or(recorded(|former| &former.model_image)?);
        let tools = typed(|images| &images.tools)
            .or(recorded(|former| &former.tools)?)
            .or_else(|| settings.tools.clone());
        self.require(&shown, &settings, image.as_ref(), model_image.as_ref(), tools.as_ref())?;
        let is_fetched = model_image.is_none() && settings.model == Supply::Fetched;
        Ok(Workload {
            info: resolved.info(),
            lock: is_fetched.then(|| lock(resolved)),
            size: resolved.size,
            settings,
            image,
            model_image,
            tools,
        })
    }

    fn require(
        &self,
        shown: &str,
        settings: &Deploy,
        image: Option<&ImageRef>,
        model_image: Option<&ImageRef>,
        tools: Option<&ImageRef>,
    ) -> Result<()> {
        let served_by_runtime =
            self.target == Target::Kserve && model_image.is_some() && settings.format.is_some();
        if image.is_none() && !served_by_runtime {
            return Err(Error::refused(format!("{shown}: no image of its server is known"))
                .hint("--image NAME@sha256:…, or `image` under `deploy` in its model.yaml"));
        }
        if image.is_none() && tools.is_none() {
            return Err(Error::refused(format!("{shown}: no image for its jobs is known")).hint(
                "--tools NAME@sha256:…, or `tools` under `deploy` in its model.yaml: git-model, curl and sh",
            ));
        }
        Ok(())
    }
}

/// The lock file of a release, without what depends on who asks, how and when.
fn lock(resolved: &Resolved) -> String {
    let reference = resolved.tag.clone().unwrap_or_else(|| resolved.reference.clone());
    let plain = Resolved { reference, stage: None, signature: None, attestations: None, ..resolved.clone() };
    plain.to_lock()
}
