//! Releases and stages as tags of a git repository: read from a mirror of its remote, written by pushing one tag at a time.

use std::cell::RefCell;
use std::path::PathBuf;

use super::Ctx;
use crate::cache::Cache;
use crate::config::env;
use crate::error::{Context, Error, Result};
use crate::fsio;
use crate::git::mirror::{self, Depth, Listed};
use crate::git::tags::{Pushed, RawTag, Signature};
use crate::git::{Git, Oid, normalise};
use crate::human;
use crate::id::Digest;
use crate::progress::Silent;
use crate::release::{History, ModelName, Parsed, Tag, TagName, parse_message};
use crate::remote_url::redact;

/// What to do about a URL that git cannot read.
const CHECK_URL: &str = "check the URL, and that git may read it: git ls-remote URL";

/// Where tags are asked for and pushed to.
pub(super) enum Registry<'c> {
    /// This repository itself: with `--offline`, or where there is no git remote at all.
    Local(&'c Ctx),
    /// A git remote, through a mirror.
    Remote {
        /// The user's own clone, when there is one.
        own: Option<&'c Ctx>,
        /// Works on the mirror.
        ctx: Box<Ctx>,
        /// The remote's name in the mirror.
        remote: String,
        /// What the remote listed last.
        listed: RefCell<Listed>,
    },
}

/// What became of publishing a tag.
#[derive(Debug)]
pub(super) enum Published {
    /// It is there, with this object.
    Done {
        /// The tag object.
        id: Oid,
        /// Why the user's own clone could not be given the tag, if so.
        not_kept: Option<Error>,
    },
    /// Somebody else was first with this name.
    Taken,
}

impl<'c> Registry<'c> {
    /// The registry of this clone: its git remote (`model.gitRemote`, else `origin`, else the only one).
    pub(super) fn open(ctx: &'c Ctx) -> Result<Registry<'c>> {
        let Some(remote) = git_remote(ctx)? else { return Ok(Registry::Local(ctx)) };
        if ctx.offline {
            return Ok(Registry::Local(ctx));
        }
        let url = ctx.git.git_remote_url(&remote).map_err(|error| match &ctx.settings.git_remote {
            Some(name) => error
                .about(format!("model.gitRemote: there is no git remote `{}`", human::escape(name)))
                .hint("git remote lists them; git config model.gitRemote NAME says which one holds releases"),
            None => error,
        })?;
        let dir = ctx.git.common_dir().join("model/registry").join(short(&url));
        let format = if ctx.git.commit("HEAD")?.is_some_and(|head| head.as_str().len() == 64) {
            "sha256"
        } else {
            "sha1"
        };
        let git = ctx.git.open_mirror(&dir, format, &remote)?;
        let ctx_of_mirror = Box::new(beside(ctx, git));
        Ok(Registry::Remote { own: Some(ctx), ctx: ctx_of_mirror, remote, listed: RefCell::default() })
    }

    /// The registry at a URL, without a clone; `ctx` is what [`open_url`] made.
    pub(super) fn at_url(ctx: Ctx) -> Registry<'static> {
        let (ctx, remote) = (Box::new(ctx), "origin".to_owned());
        Registry::Remote { own: None, ctx, remote, listed: RefCell::default() }
    }

    /// Reads commits and files of versions, from the mirror or from the repository itself.
    pub(super) fn ctx(&self) -> &Ctx {
        match self {
            Registry::Local(ctx) => ctx,
            Registry::Remote { ctx, .. } => ctx,
        }
    }

    /// The git remote's name, if one is asked.
    pub(super) fn remote(&self) -> Option<&str> {
        match self {
            Registry::Local(_) => None,
            Registry::Remote { remote, .. } => Some(remote),
        }
    }

    /// Asks the remote what it has of a model, and at its default branch; offline, what the mirror has counts. `None` where
    /// there is neither.
    pub(super) fn list(&self, name: &ModelName) -> Result<Option<Listed>> {
        let Registry::Remote { own, ctx, remote, listed } = self else { return Ok(None) };
        let found = match ctx.offline {
            true => ctx.git.list_mirror(&prefixes(name))?,
            false => ctx
                .git
                .list_remote(remote, &prefixes(name))
                .map_err(|error| unread(error, ctx, own.is_some(), remote))?,
        };
        if own.is_none() {
            require_same_format(&ctx.git, remote, &found)?;
        }
        listed.replace(found.clone());
        Ok(Some(found))
    }

    /// Brings all tags of a model.
    pub(super) fn refresh(&self, name: &ModelName) -> Result<()> {
        let Registry::Remote { ctx, remote, .. } = self else { return Ok(()) };
        let Some(listed) = self.list(name)? else { return Ok(()) };
        ctx.git.mirror_tags(remote, &prefixes(name), &listed, Depth::Commit)
    }

    /// Everything that the tags of a model say.
    pub(super) fn history(&self, name: &ModelName) -> Result<History> {
        history_in(&self.ctx().git, name)
    }

    /// The tip of the default branch, whose rules count, as it was when the remote was last asked.
    pub(super) fn default_branch(&self) -> Result<Oid> {
        match self {
            Registry::Local(ctx) => ctx.git.require_commit("HEAD"),
            Registry::Remote { ctx, remote, listed, .. } => {
                let listed = listed.borrow();
                let head = listed.head.as_ref().ok_or_else(|| {
                    Error::new(format!("{}: its HEAD names no branch that is there", human::escape(remote)))
                        .hint("choose the default branch at the host of the git remote")
                })?;
                ctx.git.mirror_exactly(remote, &[], Some(head))?;
                Ok(head.clone())
            }
        }
    }

    /// Makes an annotated tag and publishes it under its name, if that is free. Only then the user's clone gets it, too.
    ///
    /// `maker` is the repository that has the commit.
    pub(super) fn publish(
        &self,
        maker: &Git,
        name: &TagName,
        target: &Oid,
        message: &str,
        sign: Option<bool>,
    ) -> Result<Published> {
        let name = name.to_string();
        let id = maker.make_tag(&name, target, message, sign)?;
        let done = |id| Published::Done { id, not_kept: None };
        match self {
            Registry::Local(ctx) => match ctx.git.resolve(&format!("refs/tags/{name}"))? {
                Some(there) if there == id => Ok(done(id)),
                Some(_) => Ok(Published::Taken),
                None => match ctx.git.keep_tag(&name, &id) {
                    Ok(()) => Ok(done(id)),
                    // Between the look and the creation somebody else was first.
                    Err(_) if ctx.git.resolve(&format!("refs/tags/{name}"))?.is_some() => {
                        Ok(Published::Taken)
                    }
                    Err(error) => Err(error),
                },
            },
            Registry::Remote { own, remote, .. } => {
                if maker.push_tag(remote, &name, &id)? == Pushed::Taken {
                    return Ok(Published::Taken);
                }
                // The event is published whatever becomes of the clone's own copy of the tag.
                let not_kept = own.and_then(|own| keep(own, maker, &name, target, &id).err()).map(|error| {
                    error
                        .about(format!(
                            "{}: published, but this clone's tag is another one",
                            human::escape(&name)
                        ))
                        .hint(format!("git fetch {remote} +refs/tags/{name}:refs/tags/{name} replaces it"))
                });
                Ok(Published::Done { id, not_kept })
            }
        }
    }
}

/// Why a git remote could not be asked, with its URL, and its name where somebody gave it one.
fn unread(error: Error, mirror: &Ctx, is_named: bool, remote: &str) -> Error {
    let url = shown_url(&mirror.git, remote);
    match is_named {
        true => error.about(format!("git remote {} ({url}): cannot be read", human::escape(remote))).hint(
            format!("git ls-remote {remote} shows whether git may read it; --offline takes what is here"),
        ),
        false => error.about(format!("{url}: cannot be read")).hint(CHECK_URL),
    }
}

fn shown_url(git: &Git, remote: &str) -> String {
    human::escape(&redact(&git.git_remote_url(remote).unwrap_or_default()))
}

/// Refuses a mirror of a URL at which another repository is now, with other object ids: nothing could be fetched into it. It is
/// only a cache, so it goes.
fn require_same_format(mirror: &Git, remote: &str, listed: &Listed) -> Result<()> {
    let is_long = format_of(mirror.git_dir()) == "sha256";
    if listed.head.as_ref().is_none_or(|head| (head.as_str().len() == 64) == is_long) {
        return Ok(());
    }
    let url = shown_url(mirror, remote);
    fsio::remove_all_if_there(mirror.git_dir())?;
    Err(Error::new(format!("{url}: another repository was here before"))
        .hint("what was kept of it is removed; run it again"))
}

/// Gives the user's clone the tag, where it has the commit.
fn keep(own: &Ctx, maker: &Git, name: &str, target: &Oid, id: &Oid) -> Result<()> {
    if own.git.common_dir() != maker.common_dir() {
        if !own.git.has_object(target)? {
            return Ok(());
        }
        maker.copy_object_to(id, "tag", &own.git)?;
    }
    own.git.keep_tag(name, id)
}

/// The git remote that holds releases. `None` when there is none at all.
pub(super) fn git_remote(ctx: &Ctx) -> Result<Option<String>> {
    if let Some(name) = &ctx.settings.git_remote {
        return Ok(Some(name.clone()));
    }
    let remotes = ctx.git.git_remotes()?;
    match &remotes[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several if several.iter().any(|name| name == "origin") => Ok(Some("origin".to_owned())),
        several => Err(Error::usage("there are several git remotes and none is called origin").hint(
            format!("git config model.gitRemote NAME says which one holds releases: {}", several.join(", ")),
        )),
    }
}

/// A context on another repository, with the user's settings and cache.
fn beside(ctx: &Ctx, git: Git) -> Ctx {
    Ctx {
        git,
        settings: ctx.settings.clone(),
        cache: Cache::new(ctx.cache.root().to_path_buf(), ctx.settings.durability),
        progress: Box::new(Silent),
        interrupt: ctx.interrupt.clone(),
        offline: ctx.offline,
    }
}

/// Opens the mirror of a URL in the user's own cache directory, and says which refs it has of these patterns.
pub fn open_url(url: &str, offline: bool) -> Result<Git> {
    if url.starts_with('-') || url.chars().any(char::is_control) {
        return Err(Error::usage(format!("{}: not a repository URL", human::escape(url))));
    }
    let base = env::cache_dir()
        .ok_or_else(|| Error::new("there is no place for caches").hint("set HOME or XDG_CACHE_HOME"))?;
    let full = absolute(url)?;
    let url = full.as_str();
    let dir = base.join("git-model/registry").join(short(url));
    if mirror::is_whole(&dir) {
        return Git::open_mirror_of(&dir, url, &format_of(&dir));
    }
    if offline {
        return Err(Error::new(format!(
            "{}: nothing is known about it here, and --offline forbids asking",
            human::escape(&redact(url))
        ))
        .hint("run it once without --offline"));
    }
    let heads = mirror::list_url(url, &["refs/heads/*".to_owned()]).map_err(|error| {
        error.about(format!("{}: cannot be read", human::escape(&redact(url)))).hint(CHECK_URL)
    })?;
    let long = heads.first().is_some_and(|(_, id)| id.as_str().len() == 64);
    Git::open_mirror_of(&dir, url, if long { "sha256" } else { "sha1" })
}

/// A path, which means another repository in every directory, from the root; a URL as it is. What is a path, git decides so.
fn absolute(url: &str) -> Result<String> {
    let is_path = url.find(':').is_none_or(|colon| url.find('/').is_some_and(|slash| slash < colon));
    if !is_path {
        return Ok(url.to_owned());
    }
    let here = std::env::current_dir().context(".", "find the current directory")?;
    normalise(&here.join(url)).into_os_string().into_string().map_err(|path| {
        Error::usage(format!("{}: a path that is not UTF-8", human::escape(&path.to_string_lossy())))
            .hint("give its file:// URL")
    })
}

fn format_of(dir: &std::path::Path) -> String {
    let config = std::fs::read_to_string(dir.join("config")).unwrap_or_default();
    if config.contains("objectFormat = sha256") { "sha256" } else { "sha1" }.to_owned()
}

fn short(url: &str) -> PathBuf {
    PathBuf::from(format!("{}.git", &Digest::of(url.as_bytes()).to_hex()[..16]))
}

/// What this clone's own tags say about a model.
pub fn local_history(ctx: &Ctx, name: &ModelName) -> Result<History> {
    history_in(&ctx.git, name)
}

/// What the tags of a repository say about a model. Tags of other models are not read.
fn history_in(git: &Git, name: &ModelName) -> Result<History> {
    let refs = git.tag_refs(&prefixes(name))?;
    Ok(History::new(name, refs.iter().filter_map(|(name, id)| read_tag(git, name, id))))
}

/// A tag of ours or of GTO. One that cannot be read is damaged, and says nothing about the others.
pub(super) fn read_tag(git: &Git, name: &str, id: &Oid) -> Option<Tag> {
    let parsed = TagName::parse(name)?;
    Some(match git.read_tag(name, id) {
        Ok(raw) => to_tag(parsed, raw),
        Err(error) => Tag {
            name: parsed,
            oid: id.as_str().to_owned(),
            target: String::new(),
            tagger: String::new(),
            time: 0,
            message: Parsed::Damaged(human::escape(&error.one_line())),
        },
    })
}

/// What the user's git says about the signature of one tag.
pub(super) fn signature(git: &Git, tag: &Tag) -> Result<Signature> {
    git.signature(&git.read_tag(&tag.name.to_string(), &git.parse_id(&tag.oid)?)?)
}

/// How the names of a model's tags start: ours, and GTO's with a folder before `=`.
pub(super) fn prefixes(name: &ModelName) -> Vec<String> {
    let mut prefixes = vec![format!("{name}@"), format!("{name}#")];
    for (at, _) in name.as_str().match_indices('/') {
        let (dir, rest) = (&name.as_str()[..at], &name.as_str()[at + 1..]);
        prefixes.push(format!("{dir}={rest}@"));
        prefixes.push(format!("{dir}={rest}#"));
    }
    prefixes
}

fn to_tag(name: TagName, raw: RawTag) -> Tag {
    Tag {
        name,
        oid: raw.id.as_str().to_owned(),
        target: raw.target.as_str().to_owned(),
        tagger: raw.tagger,
        time: raw.time,
        message: parse_message(&raw.message),
    }
}
