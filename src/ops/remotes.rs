//! Which store a command means, and whether it may be used.
//!
//! A committed URL can come from anybody who can open a pull request. So nothing is pushed to one that the user did not
//! approve in this clone, and one that is not on a cloud's own endpoint is not even contacted.

use serde::{Serialize, Serializer};
use url::Url;

use super::Ctx;
use super::pushed::Pushed;
use crate::config::{RemoteSettings, env};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::remote::{self, Access, AwsProfile, Checked, Remote, Traffic};
use crate::remote_url::{self, RemoteUrl};
use crate::repo_config::{self, RepoConfig, check_remote_name};
use crate::repo_path::RepoPath;

/// Git's configuration key for approved URLs.
const TRUST_KEY: &str = "model.trust";

/// A remote that was found by its name.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: RemoteUrl,
    /// Whether the user approved it in this clone.
    pub trusted: bool,
    /// Whether it is used when no name is given.
    pub default: bool,
    /// Where its URL comes from.
    pub source: Source,
    /// The custom endpoint that would be used, if any.
    #[serde(serialize_with = "redacted")]
    pub endpoint: Option<String>,
}

/// What is printed of an endpoint: it may hold a password.
fn redacted<S: Serializer>(endpoint: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    endpoint.as_deref().map(remote_url::redact).serialize(serializer)
}

/// Where a remote's URL comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The user's git configuration.
    Config,
    /// `.git-model.yaml` of the worktree, or of HEAD.
    Repository,
    /// `.git-model.yaml` of the commit at hand.
    Commit,
}

/// What is to be done with a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Only read.
    Fetch,
    /// Write.
    Push,
}

/// The committed configuration that counts: the worktree's, else the one of HEAD.
pub(super) fn repo_config(ctx: &Ctx) -> Result<Option<RepoConfig>> {
    if !ctx.git.is_bare() {
        let path = RepoPath::new(repo_config::FILE_NAME)?;
        if let Some(bytes) = ctx.root()?.read_small(&path, repo_config::MAX_BYTES)? {
            return RepoConfig::parse(&bytes, repo_config::FILE_NAME).map(Some);
        }
    }
    match ctx.git.commit("HEAD")? {
        Some(head) => config_of_commit(ctx, &head),
        None => Ok(None),
    }
}

fn config_of_commit(ctx: &Ctx, commit: &Oid) -> Result<Option<RepoConfig>> {
    let bytes = ctx.git.blob_at(commit, repo_config::FILE_NAME, repo_config::MAX_BYTES)?;
    let source = format!("{}:{}", &commit.as_str()[..12], repo_config::FILE_NAME);
    bytes.map(|bytes| RepoConfig::parse(&bytes, &source)).transpose()
}

/// The name of the default remote, if there is one.
pub fn default_name(ctx: &Ctx) -> Result<Option<String>> {
    let committed = repo_config(ctx)?;
    let named =
        committed.and_then(|config| config.default_remote.or_else(|| sole(config.remotes.into_keys())));
    Ok(named.or_else(|| sole(ctx.settings.remote_names().map(str::to_owned))))
}

fn sole(mut names: impl Iterator<Item = String>) -> Option<String> {
    let first = names.next()?;
    names.next().is_none().then_some(first)
}

/// Finds a remote: in the user's configuration, then on the current branch, then in the commit at hand.
pub fn find(ctx: &Ctx, name: Option<&str>, commit: Option<&Oid>) -> Result<Found> {
    let default = default_name(ctx)?;
    let of_commit = || commit.map(|commit| config_of_commit(ctx, commit)).transpose().map(Option::flatten);
    let name = match name {
        Some(name) => name.to_owned(),
        None => match &default {
            Some(name) => name.clone(),
            None => of_commit()?
                .and_then(|config| config.default_remote)
                .map_or_else(|| Err(no_default(ctx)), Ok)?,
        },
    };
    check_remote_name(&name)?;
    let settings = ctx.settings.remote(&name);
    let in_repository =
        || Ok::<_, Error>(repo_config(ctx)?.and_then(|config| config.remotes.get(&name).cloned()));
    let in_commit = || Ok::<_, Error>(of_commit()?.and_then(|config| config.remotes.get(&name).cloned()));
    let (url, source) = if let Some(url) = &settings.url {
        let url = RemoteUrl::parse(url)
            .map_err(|error| error.about(format!("git config model.remote.{name}.url")))?;
        (url, Source::Config)
    } else if let Some(url) = in_repository()? {
        (url, Source::Repository)
    } else if let Some(url) = in_commit()? {
        (url, Source::Commit)
    } else {
        return Err(Error::usage(format!("{}: no such remote", human::escape(&name)))
            .hint("git model remote list shows them; git model remote add NAME URL makes one"));
    };
    let trusted = source == Source::Config || ctx.settings.trusts(&url);
    let endpoint = endpoint(&settings, &url)?;
    Ok(Found { default: default.as_deref() == Some(&name), name, url, trusted, source, endpoint })
}

fn no_default(ctx: &Ctx) -> Error {
    match list(ctx).is_ok_and(|remotes| !remotes.is_empty()) {
        true => Error::usage("there are several remotes and none is the default")
            .hint("name one with --remote, or choose one: git model remote default NAME"),
        false => Error::usage("no remote is set up").hint(
            "git model remote add origin URL, such as a folder, s3://bucket/prefix or gs://bucket/prefix",
        ),
    }
}

/// The custom endpoint that a store would be reached by: of the user's git config, else of the environment, else of the user's
/// profile of `~/.aws`.
pub(super) fn endpoint(settings: &RemoteSettings, url: &RemoteUrl) -> Result<Option<String>> {
    let elsewhere = match url {
        RemoteUrl::Folder(_) | RemoteUrl::Https { .. } => return Ok(None),
        RemoteUrl::S3 { .. } => env::first(&env::AWS_ENDPOINT),
        RemoteUrl::Gcs { .. } => env::first(&[env::GCS_ENDPOINT]).map(|host| match host.contains("://") {
            true => host,
            false => format!("http://{host}"),
        }),
        RemoteUrl::Azure { account, .. } => env::first(&[env::AZURE_ENDPOINT]).or_else(|| {
            let text = env::first(&[env::AZURE_CONNECTION])?;
            let field = |name: &str| remote::connection_field(&text, name);
            let is_ours = field("AccountName").is_none_or(|found| found == account);
            field("BlobEndpoint").filter(|_| is_ours).map(str::to_owned)
        }),
    };
    match settings.endpoint.clone().or(elsewhere) {
        None if matches!(url, RemoteUrl::S3 { .. }) => Ok(profile(settings)?.endpoint),
        found => Ok(found),
    }
}

fn profile(settings: &RemoteSettings) -> Result<AwsProfile> {
    let name = settings.profile.clone().or_else(|| env::first(&[env::AWS_PROFILE]));
    let mut profile = remote::aws_profile(name.as_deref())?;
    profile.endpoint = profile.endpoint.filter(|_| !env::ignores_profile_endpoints());
    Ok(profile)
}

/// Opens a remote if it may be used for this.
pub fn open(ctx: &Ctx, found: &Found, purpose: Purpose) -> Result<Remote> {
    require_approval(ctx, found, purpose)?;
    let settings = ctx.settings.remote(&found.name);
    let create = purpose == Purpose::Push && !Pushed::load(ctx.git.common_dir(), found)?.is_known();
    let access = Access {
        durability: ctx.settings.durability,
        traffic: Traffic::new(ctx.settings.jobs, ctx.settings.limit_rate),
        create,
        ..access(&settings, &found.url, found.endpoint.clone())?
    };
    Remote::open(&found.url, &access, ctx.interrupt.clone())
}

/// How the user's settings and environment say that a store is reached.
fn access(settings: &RemoteSettings, url: &RemoteUrl, endpoint: Option<String>) -> Result<Access> {
    let region = match settings.region.clone().or_else(|| env::first(&env::AWS_REGION)) {
        None if matches!(url, RemoteUrl::S3 { .. }) => profile(settings)?.region,
        region => region,
    };
    // An emulator that the environment names knows no accounts.
    let emulated = matches!(url, RemoteUrl::Gcs { .. }) && settings.endpoint.is_none() && endpoint.is_some();
    Ok(Access {
        allow_http: settings.allow_http || local_endpoint(endpoint.as_deref()),
        endpoint,
        region,
        profile: settings.profile.clone(),
        anonymous: settings.anonymous || emulated,
        checksum: settings.checksum,
        credentials: env::credentials(),
        durability: crate::fsio::Durability::Full,
        traffic: Traffic::new(None, None),
        create: false,
    })
}

/// Opens a store that the user stated by its URL, without a repository: a lock file's.
pub fn open_stated(url: &str, traffic: Traffic, interrupt: crate::progress::Interrupt) -> Result<Remote> {
    let url = RemoteUrl::parse(url)?;
    let settings = RemoteSettings { checksum: true, ..RemoteSettings::default() };
    let endpoint = endpoint(&settings, &url)?;
    let access = Access { traffic, ..access(&settings, &url, endpoint)? };
    Remote::open(&url, &access, interrupt)
}

/// Refuses what `--offline` or the lack of an approval forbids.
pub(super) fn require_approval(ctx: &Ctx, found: &Found, purpose: Purpose) -> Result<()> {
    if ctx.offline {
        return Err(Error::new(format!("{}: not contacted because of --offline", found.url))
            .hint("run it without --offline"));
    }
    if purpose == Purpose::Push && found.url.is_read_only() {
        return Err(Error::usage(format!("{}: a store on a web server can only be read", found.url))
            .hint("push to the bucket or folder behind it: git model push --remote NAME"));
    }
    let on_cloud = found.url.is_cloud() && found.endpoint.is_none();
    if !found.trusted && (purpose == Purpose::Push || !on_cloud) {
        let what = match purpose {
            Purpose::Push => "nothing is pushed to it",
            Purpose::Fetch => "it is not contacted",
        };
        return Err(Error::new(format!(
            "{}: this remote comes from a committed file and was not approved here, so {what}",
            found.url
        ))
        .hint(format!(
            "if it is yours: git model remote trust {} (in CI: {}={})",
            human::shell_quote(&found.name),
            env::TRUST,
            human::shell_quote(&found.url.to_string())
        )));
    }
    Ok(())
}

/// Plain http never leaves the machine when the endpoint is on it.
fn local_endpoint(endpoint: Option<&str>) -> bool {
    let url = endpoint.and_then(|endpoint| Url::parse(endpoint).ok());
    url.is_some_and(|url| url.scheme() == "http" && remote_url::is_here(&url))
}

/// All remotes, in name order.
pub fn list(ctx: &Ctx) -> Result<Vec<Found>> {
    let mut names: Vec<String> =
        repo_config(ctx)?.map(|config| config.remotes.into_keys().collect()).unwrap_or_default();
    names.extend(ctx.settings.remote_names().map(str::to_owned));
    // Git's configuration may hold names that could not be used.
    names.retain(|name| check_remote_name(name).is_ok());
    names.sort();
    names.dedup();
    names.iter().map(|name| find(ctx, Some(name), None)).collect()
}

/// Writes a remote into `.git-model.yaml`, stages the file, and approves the URL that the user typed.
pub fn add(ctx: &Ctx, name: &str, url: &str, replace: bool) -> Result<RemoteUrl> {
    check_remote_name(name)?;
    let cwd = std::env::current_dir().map_err(|error| Error::new("no current directory").caused_by(error))?;
    let url = RemoteUrl::parse_typed(url, &cwd)?;
    edit(ctx, |config| {
        if config.remotes.contains_key(name) && !replace {
            return Err(Error::usage(format!("{name}: this remote exists already"))
                .hint("git model remote add --force replaces its URL"));
        }
        config.remotes.insert(name.to_owned(), url.clone());
        config.default_remote.get_or_insert_with(|| name.to_owned());
        Ok(())
    })?;
    approve(ctx, &url)?;
    Ok(url)
}

/// Takes a remote out of `.git-model.yaml`. The store itself is not touched.
pub fn remove(ctx: &Ctx, name: &str) -> Result<()> {
    edit(ctx, |config| {
        if config.remotes.remove(name).is_none() {
            return Err(Error::usage(format!(
                "{}: no such remote in {}",
                human::escape(name),
                repo_config::FILE_NAME
            )));
        }
        if config.default_remote.as_deref() == Some(name) {
            config.default_remote = None;
        }
        Ok(())
    })
}

/// Makes a remote the default.
pub fn set_default(ctx: &Ctx, name: &str) -> Result<()> {
    edit(ctx, |config| {
        if !config.remotes.contains_key(name) {
            return Err(Error::usage(format!(
                "{}: no such remote in {}",
                human::escape(name),
                repo_config::FILE_NAME
            )));
        }
        config.default_remote = Some(name.to_owned());
        Ok(())
    })
}

/// Approves a remote's committed URL in this clone.
pub fn trust(ctx: &Ctx, name: Option<&str>) -> Result<Found> {
    let found = find(ctx, name, None)?;
    if !found.trusted {
        approve(ctx, &found.url)?;
    }
    Ok(found)
}

/// Tries everything that push and fetch need.
pub fn check(ctx: &Ctx, name: Option<&str>) -> Result<(Found, Checked)> {
    let found = find(ctx, name, None)?;
    let purpose = if found.url.is_read_only() { Purpose::Fetch } else { Purpose::Push };
    let checked = open(ctx, &found, purpose)?.check()?;
    Ok((found, checked))
}

pub(super) fn approve(ctx: &Ctx, url: &RemoteUrl) -> Result<()> {
    if ctx.settings.trusts(url) {
        return Ok(());
    }
    ctx.git.add_config(TRUST_KEY, &url.to_string())
}

fn edit(ctx: &Ctx, change: impl FnOnce(&mut RepoConfig) -> Result<()>) -> Result<()> {
    let root = ctx.root()?;
    let path = RepoPath::new(repo_config::FILE_NAME)?;
    let bytes = root.read_small(&path, repo_config::MAX_BYTES)?.ok_or_else(|| {
        Error::new(format!("{path}: git-model is not set up in this repository"))
            .hint("run git model init once")
    })?;
    let mut config = RepoConfig::parse(&bytes, repo_config::FILE_NAME)?;
    change(&mut config)?;
    let text = config.to_text();
    if root.write_small(&path, text.as_bytes(), &ctx.staging()?)? {
        ctx.git.stage(&[path])?;
    }
    Ok(())
}
