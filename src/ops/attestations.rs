//! What is stated about a version after its release, and kept in its store: which version that is, and the store itself.

use super::Ctx;
use super::candidate::Candidate;
use super::registry::Registry;
use super::remotes::{self, Purpose};
use super::resolve::{self, Options, Resolved};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::id::Digest;
use crate::remote::Remote;
use crate::repo_path::RepoPath;

/// Where versions are looked up.
pub enum Source<'c> {
    /// A clone; its git remote is asked, unless `--offline`.
    Clone(&'c Ctx),
    /// The mirror of a URL, which this works on.
    Url(Box<Ctx>),
}

/// A version with everything that is recorded about it.
pub struct Version<'c> {
    registry: Registry<'c>,
    own: Option<&'c Ctx>,
    /// What it is.
    pub resolved: Resolved,
    pub(super) candidate: Candidate,
    /// When it was released, in Unix seconds; `None` of a commit.
    pub(super) released: Option<i64>,
}

impl std::fmt::Debug for Version<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("resolved", &self.resolved).finish_non_exhaustive()
    }
}

impl<'c> Version<'c> {
    /// Finds what a reference means.
    pub fn find(source: Source<'c>, reference: &str, model: Option<&str>) -> Result<Version<'c>> {
        let options = Options {
            reference: reference.to_owned(),
            model: model.map(str::to_owned),
            ..Options::default()
        };
        let (registry, own) = match source {
            Source::Clone(ctx) => (Registry::open(ctx)?, Some(ctx)),
            Source::Url(ctx) => (Registry::at_url(*ctx), None),
        };
        let loaded = resolve::load(&registry, own, &options)?;
        let (resolved, candidate, released) = (loaded.resolved, loaded.candidate, loaded.released);
        Ok(Version { registry, own, resolved, candidate, released })
    }

    /// What can read its commit.
    pub(super) fn ctx(&self) -> &Ctx {
        match (self.released, self.own) {
            (None, Some(own)) => own,
            _ => self.registry.ctx(),
        }
    }

    /// Its commit.
    pub(super) fn commit(&self) -> &Oid {
        &self.candidate.commit
    }

    /// How messages call it.
    pub fn shown(&self) -> String {
        let resolved = &self.resolved;
        resolved.tag.clone().unwrap_or_else(|| format!("{} at {}", resolved.model, &resolved.commit[..10]))
    }

    /// What has the cache, and may contact the store.
    pub(super) fn store_ctx(&self) -> &Ctx {
        self.own.unwrap_or_else(|| self.registry.ctx())
    }

    /// The bytes of a file that git has at its commit; `None` when it has none with this digest.
    pub(super) fn file_of_git(&self, path: &RepoPath, sha256: Digest, max: u64) -> Result<Option<Vec<u8>>> {
        let git = &self.ctx().git;
        if let (Some(remote), Some(id)) = (self.registry.remote(), git.blob_id(self.commit(), path)?)
            && self.released.is_some()
        {
            git.prefetch(remote, &[id])?;
        }
        let bytes = git.blob_at(self.commit(), path.as_str(), max)?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == sha256))
    }

    /// Opens its store.
    pub(super) fn store(&self, purpose: Purpose) -> Result<Remote> {
        let ctx = self.store_ctx();
        let found = remotes::find(self.ctx(), None, Some(self.commit()))
            .map_err(|error| error.about("no store is set up for this version"))?;
        remotes::open(ctx, &found, purpose)
    }

    /// Keeps something that was attested about it in its store; returns the key.
    pub fn attach(&self, bytes: Vec<u8>) -> Result<String> {
        self.store(Purpose::Push)?.attest(&self.resolved.digest, bytes)
    }

    /// What its store has about it: keys and bytes, each checked. Larger ones than `max` are left out.
    pub(super) fn attested(&self, max: u64) -> Result<Vec<(String, Vec<u8>)>> {
        /// Nobody attests more about one model; without a limit, a stranger with access could keep a reader busy.
        const MOST: usize = 1024;
        let store = self.store(Purpose::Fetch)?;
        let keys = store.attestations(&self.resolved.digest)?;
        if keys.len() > MOST {
            return Err(Error::new(format!("{}: more than {MOST} attestations in its store", self.shown())));
        }
        let mut found = Vec::new();
        for key in keys {
            found.extend(store.attestation(&key, max)?.map(|bytes| (key, bytes)));
        }
        Ok(found)
    }
}
