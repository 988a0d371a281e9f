//! Fingerprints of data outside of the repository: its listing is kept as an object, its bytes stay where they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use rayon::prelude::*;

use super::Ctx;
use super::fetch::ensure_small;
use super::models::Place;
use super::remotes::{self, Found, Purpose, Source};
use crate::error::{Context, Error, Result};
use crate::fsio;
use crate::human;
use crate::id::Digest;
use crate::lineage::Data;
use crate::listing::{Changes, Listed, Listing, MAX_BYTES, MAX_ENTRIES};
use crate::remote;
use crate::remote_url::RemoteUrl;

/// A fingerprint that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Of the listing.
    pub digest: Digest,
    /// Objects or files that are listed.
    pub files: u64,
    /// Their bytes.
    pub size: u64,
}

/// Lists a location, and keeps the listing if the fingerprint is going to be recorded.
pub(super) fn take(ctx: &Ctx, url: &str, keep: bool) -> Result<Taken> {
    let listing = look(ctx, url)?;
    if listing.0.is_empty() {
        return Err(Error::new(format!("{}: nothing is there", human::escape(url)))
            .hint("check the location; a prefix ends with a slash"));
    }
    let bytes = listing.to_bytes();
    if keep {
        let batch = ctx.cache.batch()?;
        batch.add_bytes(&bytes)?;
        batch.commit()?;
    }
    Ok(Taken { digest: Digest::of(&bytes), files: listing.0.len() as u64, size: listing.size() })
}

/// A recorded snapshot of a model, and what changed at its location since.
pub fn verify(ctx: &Ctx, model: Option<&str>, name: &str) -> Result<(Data, Changes)> {
    let model = ctx.model(model, Place::Worktree)?;
    let data = ctx.lineage(&model, Place::Worktree)?.into_iter().flat_map(|lineage| lineage.data);
    let data = data.into_iter().find(|data| data.name == name).ok_or_else(|| {
        Error::usage(format!(
            "{}: no data snapshot of this name is recorded for {}",
            human::escape(name),
            model.name
        ))
        .hint("lineage.yaml lists them under `data`")
    })?;
    let changes = changes(ctx, &data)?;
    Ok((data, changes))
}

/// What changed at a location since its fingerprint was recorded.
fn changes(ctx: &Ctx, data: &Data) -> Result<Changes> {
    let shown = human::escape(&data.name);
    let Some(url) = &data.url else {
        return Err(Error::usage(format!("data `{shown}`: it is not an outside location"))
            .hint("git model verify PATH checks a tracked artifact"));
    };
    let digest =
        data.sha256().ok_or_else(|| Error::new(format!("data `{shown}`: its digest is not a SHA-256")))?;
    let bytes = ensure_small(ctx, &data.name, digest, MAX_BYTES)?;
    let recorded = Listing::parse(&bytes).map_err(|error| error.about(format!("data `{shown}`")))?;
    Ok(recorded.changes(&look(ctx, url)?))
}

/// Everything that is at a location now.
fn look(ctx: &Ctx, url: &str) -> Result<Listing> {
    if url.starts_with('/') {
        require_trust(ctx, url)?;
        return folder(ctx, Path::new(url));
    }
    if ctx.offline {
        return Err(Error::new(format!("{}: not contacted because of --offline", human::escape(url)))
            .hint("run it without --offline"));
    }
    if url.starts_with("https://") {
        require_trust(ctx, url)?;
        let listed = remote::head_url(url, &ctx.interrupt)?;
        let name = url.rsplit('/').next().unwrap_or(url);
        return Ok(Listing(BTreeMap::from([(name.to_owned(), listed)])));
    }
    // The location comes from a committed file: the same rules as for a store's URL.
    let location = RemoteUrl::parse(url)?;
    let trusted = ctx.settings.trusts(&location);
    let found = Found {
        name: "data".to_owned(),
        endpoint: remotes::endpoint(&ctx.settings.remote("data"), &location)?,
        url: location,
        trusted,
        default: false,
        source: Source::Repository,
    };
    let opened = remotes::open(ctx, &found, Purpose::Fetch).map_err(|error| {
        if trusted {
            error
        } else {
            error.hint(format!("git config --add model.trust {}", human::shell_quote(url)))
        }
    })?;
    Ok(Listing(opened.list_everything(MAX_ENTRIES)?))
}

/// Refuses a location that the user did not approve here: it comes from a committed file, and its names and digests are pushed.
fn require_trust(ctx: &Ctx, url: &str) -> Result<()> {
    let plain = url.trim_end_matches('/');
    if ctx.settings.trusted.iter().any(|trusted| trusted.trim_end_matches('/') == plain) {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: this location comes from a committed file and was not approved here",
        human::escape(url)
    ))
    .hint(format!("if it is yours: git config --add model.trust {}", human::shell_quote(plain))))
}

/// The files below a folder, by their content.
fn folder(ctx: &Ctx, top: &Path) -> Result<Listing> {
    let mut files = Vec::new();
    let mut dirs = vec![top.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        ctx.interrupt.check()?;
        for entry in fs::read_dir(&dir).context(&dir, "list")? {
            let path = entry.context(&dir, "list")?.path();
            match fs::symlink_metadata(&path).context(&path, "read")? {
                found if found.is_dir() => dirs.push(path),
                found if found.is_file() || found.is_symlink() => files.push((path, found.len())),
                _ => {
                    return Err(Error::new(format!("{}: not a file or directory", path.display())));
                }
            }
        }
        if files.len() > MAX_ENTRIES {
            return Err(Error::new(format!("{}: more than {MAX_ENTRIES} files", top.display())));
        }
    }
    let bytes = files.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
    let step = ctx.progress.step("reading", files.len() as u64, bytes);
    let interrupt = &ctx.interrupt;
    let listed = files.par_iter().map(|(path, _)| {
        let key = key_below(top, path)?;
        let metadata = fs::symlink_metadata(path).context(path, "read")?;
        if metadata.is_symlink() {
            let target = fs::read_link(path).context(path, "read")?;
            let tag = format!("link:{}", target.to_string_lossy());
            return Ok((key, Listed { size: 0, tag, version: String::new() }));
        }
        let file = File::open(path).context(path, "open")?;
        let on_bytes = |bytes| {
            step.advance(bytes);
            interrupt.check_io()
        };
        let (digest, size) = fsio::hash_file(&file, &on_bytes).context(path, "read")?;
        step.finish_one();
        Ok((key, Listed { size, tag: format!("sha256:{digest}"), version: String::new() }))
    });
    Ok(Listing(listed.collect::<Result<_>>()?))
}

fn key_below(top: &Path, path: &Path) -> Result<String> {
    let relative = path.strip_prefix(top).unwrap_or(path);
    let text =
        relative.to_str().ok_or_else(|| Error::new(format!("{}: its name is not UTF-8", path.display())))?;
    Ok(text.to_owned())
}
