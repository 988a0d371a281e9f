//! Sending a package to an OCI registry.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::get::Origin;
use super::super::resolve::Resolved;
use super::Package;
use crate::config::registries;
use crate::error::{Error, Kind, Result};
use crate::oci::{self, Pinned, Reference};
use crate::progress::{Interrupt, Step};
use crate::remote::registry::{Access, Blob, Pushed, Registry};

/// Where to send a package.
#[derive(Clone, Debug)]
pub struct Target {
    /// The repository; without a tag, the version is the tag.
    pub place: Reference,
    /// Repositories of the same registry that may have some of the blobs.
    pub mount_from: Vec<String>,
    /// Whether a tag that stands for something else is moved.
    pub force: bool,
}

/// A registry that is ready to be sent to.
pub(super) struct Connection {
    registry: Registry,
    place: Reference,
    pinned: Pinned,
    mount_from: Vec<String>,
    force: bool,
}

/// Opens a registry with the user's settings.
fn open(origin: &Origin<'_>, place: &Reference) -> Result<Registry> {
    let (plain_http, jobs) = match origin {
        Origin::Store(ctx) if ctx.offline => {
            return Err(Error::new(format!("{place}: not contacted because of --offline"))
                .hint("run it without --offline"));
        }
        Origin::Store(ctx) => (ctx.settings.allows_http(place), ctx.settings.jobs),
        Origin::Lock { .. } => (place.is_loopback(), None),
    };
    let access = Access { credentials: registries::credentials(place)?, plain_http, jobs };
    Registry::open(place, access, interrupt(origin))
}

fn interrupt(origin: &Origin<'_>) -> Interrupt {
    origin.interrupt().clone()
}

pub(super) fn connect(origin: &Origin<'_>, resolved: &Resolved, target: &Target) -> Result<Connection> {
    let place = &target.place;
    let pinned = match (&place.pinned, &resolved.version) {
        (Some(pinned @ Pinned::Tag(_)), _) => pinned.clone(),
        (None, Some(version)) => Pinned::Tag(oci::tag_of(version)),
        (Some(Pinned::Digest(_)), _) => {
            return Err(Error::usage(format!("{place}: name a tag; the digest follows from the release")));
        }
        (None, None) => {
            return Err(Error::usage(format!("{place}: name a tag; this commit is no release")));
        }
    };
    Ok(Connection {
        registry: open(origin, place)?,
        place: place.clone(),
        pinned,
        mount_from: target.mount_from.clone(),
        force: target.force,
    })
}

/// A directory for what is made only to be sent: beside the cache, where blocks can be shared with it.
pub(super) fn scratch(origin: &Origin<'_>) -> Result<PathBuf> {
    Ok(match origin.cache() {
        Some(cache) => cache.root().join("tmp"),
        None => std::env::temp_dir(),
    })
}

/// The digest that a place in a registry stands for now.
pub fn digest_of(origin: &Origin<'_>, place: &Reference) -> Result<Reference> {
    let pinned = match &place.pinned {
        Some(Pinned::Digest(_)) => return Ok(place.clone()),
        Some(pinned) => pinned.clone(),
        None => return Err(Error::usage(format!("{place}: name a tag or a digest"))),
    };
    let found = open(origin, place)?.manifest_digest(&pinned)?;
    found.map(|digest| place.at(digest)).ok_or_else(|| {
        Error::new(format!("{place}: the registry has no such image"))
            .hint("send it first: git model package REF --format image --push oci://…")
    })
}

impl Package<'_> {
    /// Sends what was built.
    pub(super) fn push(&self, to: &Connection) -> Result<(Reference, Pushed)> {
        let artifact = self.built();
        let blob = |blob: &super::blobs::Blob| Blob {
            digest: blob.digest,
            size: blob.size,
            path: blob.path.clone(),
            shown: blob.shown.clone(),
        };
        let blobs: Vec<Blob> = artifact.blobs.iter().map(blob).collect();
        let step: Arc<dyn Step> =
            self.origin.progress().step("pushing", blobs.len() as u64, artifact.bytes()).into();
        let pushed = to
            .registry
            .push(&artifact.manifest, &blobs, &to.pinned, &to.mount_from, to.force, &step)
            .map_err(|error| self.about_damage(error))?;
        Ok((to.place.at(artifact.digest()), pushed))
    }

    /// After a refusal: what is damaged in the cache goes out of the way, so that the next run fetches it.
    fn about_damage(&self, error: Error) -> Error {
        let Some(cache) = self.origin.cache().filter(|_| error.kind() == Kind::Refused) else { return error };
        for blob in &self.built().blobs {
            if blob.path == cache.object_path(&blob.digest)
                && matches!(cache.verify(&blob.digest, &|_| Ok(())), Ok(Some(false)))
                && let Err(other) = cache.quarantine(&blob.digest)
            {
                return other;
            }
        }
        error
    }
}
