//! Stores of objects: the only module that names object_store or runs async code. Layout: `docs/formats/store-layout.md`.
//!
//! Outward everything is synchronous. Several objects move at once, each on a thread of its own that drives one request
//! after the other; a budget in bytes, not the number of threads, bounds the memory.

mod connect;
mod layout;
mod transfer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::{DynObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::remote_url::RemoteUrl;

pub use connect::Access;
pub use transfer::{Download, Receive, Upload};

/// Up to this many objects are asked for one by one; for more, the store is listed.
const LIST_FROM: usize = 256;
/// Requests for an object's size at once.
const HEADS_AT_ONCE: usize = 32;

/// An open store.
pub struct Remote {
    url: RemoteUrl,
    store: Arc<DynObjectStore>,
    runtime: Runtime,
    jobs: usize,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What `git model remote check` found out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Checked {
    /// The store's id.
    pub store: Option<String>,
    /// Whether a new object could be written, read back and removed.
    pub writable: bool,
    /// Whether the store refuses to overwrite when asked to create only.
    pub conditional_writes: bool,
}

impl Remote {
    /// Opens a store. No request is made yet.
    pub fn open(url: &RemoteUrl, access: &Access) -> Result<Remote> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
        let store = connect::connect(url, access)?;
        Ok(Remote { url: url.clone(), store, runtime, jobs: access.jobs.unwrap_or(16) })
    }

    /// Where it is.
    pub fn url(&self) -> &RemoteUrl {
        &self.url
    }

    /// The store's id. `None` when nothing was ever pushed to it.
    pub fn id(&self) -> Result<Option<String>> {
        let key = layout::format_key(&self.url);
        let bytes = self.runtime.block_on(async {
            match self.store.get(&key).await {
                Ok(answer) => Ok(Some(answer.bytes().await?)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        match bytes.map_err(|error| self.failed("cannot be read", &error))? {
            Some(bytes) => layout::parse_format(&bytes, &self.url).map(Some),
            None => Ok(None),
        }
    }

    /// The store's id; a store that has none becomes one.
    pub fn id_or_create(&self) -> Result<String> {
        if let Some(id) = self.id()? {
            return Ok(id);
        }
        let (id, bytes) = layout::new_format();
        let key = layout::format_key(&self.url);
        let written = self.runtime.block_on(async {
            self.store.put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await
        });
        match written {
            Ok(_) => Ok(id),
            // Somebody else was first, or our own lost answer was retried: what the store says now counts.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.id()?.ok_or_else(|| Error::new(format!("{}: format.json vanished", self.url)))
            }
            Err(error) => Err(self.failed("cannot be written to", &error)),
        }
    }

    /// The sizes of those of these objects that the store has.
    pub fn sizes(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        let found = match digests.len() {
            0 => Ok(HashMap::new()),
            1..=LIST_FROM => self.runtime.block_on(self.head_all(digests)),
            _ => self.runtime.block_on(self.list_all(digests)),
        };
        found.map_err(|error| self.failed("cannot be read", &error))
    }

    async fn head_all(&self, digests: &[Digest]) -> object_store::Result<HashMap<Digest, u64>> {
        futures::stream::iter(digests.to_vec())
            .map(|digest| async move {
                match self.store.head(&layout::object_key(&self.url, &digest)).await {
                    Ok(meta) => Ok(Some((digest, meta.size))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(HEADS_AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    async fn list_all(&self, digests: &[Digest]) -> object_store::Result<HashMap<Digest, u64>> {
        let wanted: std::collections::HashSet<&Digest> = digests.iter().collect();
        let mut found = HashMap::new();
        // An error anywhere in the listing is an error of the whole: half a listing would read as "missing".
        let mut listing = self.store.list(Some(&layout::objects_key(&self.url)));
        while let Some(meta) = listing.try_next().await? {
            if let Some(digest) = meta.location.filename().and_then(Digest::from_hex)
                && wanted.contains(&digest)
            {
                found.insert(digest, meta.size);
            }
        }
        Ok(found)
    }

    /// Tries everything that push and fetch need, with a small object of its own that it removes again.
    pub fn check(&self) -> Result<Checked> {
        let key = layout::probe_key(&self.url);
        let probe = PutPayload::from_static(b"git-model check");
        let conditional = self.runtime.block_on(async {
            self.store.put(&key, probe.clone()).await?;
            let back = self.store.get(&key).await?.bytes().await?;
            let again = self.store.put_opts(&key, probe.clone(), PutMode::Create.into()).await;
            self.store.delete(&key).await?;
            Ok((back.as_ref() == b"git-model check", again.is_err()))
        });
        let (writable, conditional_writes) =
            conditional.map_err(|error| self.failed("cannot be used", &error))?;
        Ok(Checked { store: self.id()?, writable, conditional_writes })
    }

    /// Turns a store's error into one line, with advice for the usual reasons.
    fn failed(&self, what: &str, error: &object_store::Error) -> Error {
        connect::explain(&self.url, what, error)
    }

    /// Waits before a negative answer is believed: some stores know a new object a moment later.
    fn pause_before_retry(attempt: u32) {
        std::thread::sleep(Duration::from_millis(300 << attempt));
    }

    /// Fails unless the store has all of these with the right size.
    fn confirm(&self, uploads: &[Upload]) -> Result<()> {
        let mut left: Vec<&Upload> = uploads.iter().collect();
        for attempt in 0..4 {
            let digests: Vec<Digest> = left.iter().map(|upload| upload.digest).collect();
            let sizes = self.sizes(&digests)?;
            left.retain(|upload| sizes.get(&upload.digest) != Some(&upload.size));
            if left.is_empty() {
                return Ok(());
            }
            Self::pause_before_retry(attempt);
        }
        Err(Error::new(format!(
            "{}: the store does not have {} of the objects it accepted, or with another size (first: {})",
            self.url,
            left.len(),
            left[0].digest
        ))
        .hint("run git model push --repair; if it happens again, the store or something before it is broken"))
    }
}

/// The error for an object that should be in the store and is not.
fn absent(url: &RemoteUrl, download: &Download) -> Error {
    Error::new(format!(
        "{}: its content is not in {url} (object {})",
        human::escape(&download.path),
        download.digest.short()
    ))
    .hint("push it from a clone that has it: git model push")
}
