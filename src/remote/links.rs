//! Where objects can be had without git-model: their URLs, presigned ones, and fetching by URL alone.

use std::collections::HashMap;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::transfer::{Engine, Traffic};
use super::{Remote, connect, layout};
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::progress::Interrupt;
use crate::remote_url::RemoteUrl;

/// Signatures of S3 and Google Cloud Storage hold at most this long.
pub const MAX_PRESIGN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The plain URL of an object in a store; whoever uses it needs access to the store.
pub fn object_url(store: &RemoteUrl, digest: &Digest) -> String {
    format!("{store}/{}", layout::object_name(digest))
}

impl Remote {
    /// A store whose objects are only had by these URLs: no credentials are sent, and nothing but downloads can work.
    pub fn open_links(
        url: &RemoteUrl,
        links: &HashMap<Digest, String>,
        traffic: &Traffic,
        interrupt: Interrupt,
    ) -> Result<Remote> {
        Ok(Remote {
            url: url.clone(),
            store: connect::links::open(url, links, traffic)?,
            signer: None,
            multipart: None,
            checksums: None,
            runtime: connect::runtime()?,
            engine: Engine::new(traffic, false),
            interrupt,
        })
    }

    /// A URL with which anybody can get this object for a while. It is a secret, unless the store is on a web server.
    pub fn presign(&self, digest: &Digest, valid: Duration) -> Result<String> {
        if self.url.is_read_only() {
            // Whoever can reach the server can read the object.
            return Ok(object_url(&self.url, digest));
        }
        let Some(signer) = &self.signer else {
            return Err(Error::usage(format!("{}: a folder has no presigned URLs", self.url))
                .hint("leave --presign out; whoever can read the folder can read the files"));
        };
        let key = layout::object_key(&self.url, digest)?;
        let url = self.wait(async {
            let signed = signer.signed_url(reqwest::Method::GET, &key, valid).await;
            signed.map_err(|error| self.failed("cannot be signed for", &error))
        })?;
        Ok(url.to_string())
    }

    /// Keys of what was attested about a model after its release: signatures, bills of materials, provenance.
    pub fn attestations(&self, model: &Digest) -> Result<Vec<String>> {
        if self.url.is_read_only() {
            return Err(Error::usage(format!("{}: a store on a web server cannot be listed", self.url))
                .hint("ask the bucket or folder behind it: --remote NAME"));
        }
        let prefix = layout::attest_key(&self.url, model)?;
        self.wait(async {
            let listing = self.store.list(Some(&prefix));
            let keys = listing.map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await;
            let mut keys: Vec<String> = keys
                .map_err(|error| self.failed("cannot be listed", &error))?
                .into_iter()
                .map(|key| key.to_string())
                .collect();
            keys.sort();
            Ok(keys)
        })
    }
}

impl Remote {
    /// Keeps something that was attested about a model after its release; returns its key. The same bytes again change nothing.
    pub fn attest(&self, model: &Digest, bytes: Vec<u8>) -> Result<String> {
        let key = layout::attest_key(&self.url, model)?.join(Digest::of(&bytes).to_hex());
        self.wait(async {
            let put = self.store.put(&key, PutPayload::from(bytes)).await;
            put.map(|_| key.to_string()).map_err(|error| self.failed("cannot be written to", &error))
        })
    }

    /// What was attested under a key of [`Remote::attestations`], checked against it. `None` when it is larger than `max`.
    pub fn attestation(&self, key: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let path = Path::parse(key)
            .map_err(|error| Error::new(format!("{}: not a key", self.url)).caused_by(error))?;
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        let size = self.wait(async {
            self.store.head(&path).await.map_err(|error| self.failed("cannot be read", &error))
        })?;
        if size.size > max {
            return Ok(None);
        }
        let bytes = self.wait(self.read_small(&path, most))?;
        match bytes.filter(|bytes| path.filename() == Some(Digest::of(bytes).to_hex().as_str())) {
            Some(bytes) => Ok(Some(bytes)),
            None => {
                let key = human::escape(key);
                Err(Error::refused(format!("{}: {key} does not hold what its name says", self.url)))
            }
        }
    }
}
