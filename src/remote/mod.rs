//! Stores of objects: the only module that names object_store or runs async code. Layout: `docs/formats/store-layout.md`.
//!
//! Outward everything is synchronous. Several objects move at once, each on a thread of its own that drives one request
//! after the other; a budget in bytes, not the number of threads, bounds the memory.

mod connect;
mod explain;
mod layout;
mod links;
mod outside;
pub mod registry;
mod transfer;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{DynObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::id::Digest;
use crate::progress::Interrupt;
use crate::remote_url::RemoteUrl;

pub use connect::Access;
pub use links::{Link, MAX_PRESIGN, fetch_links, object_url};
pub use outside::head_url;
pub use transfer::{Download, Receive, Upload};

/// Up to this many objects are asked for one by one; for more, the store is listed.
const LIST_FROM: usize = 256;
/// Requests for an object's size at once.
const HEADS_AT_ONCE: usize = 32;
/// How often a waiting request looks whether the user wants to stop.
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// An open store.
pub struct Remote {
    url: RemoteUrl,
    store: Arc<DynObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    runtime: Runtime,
    jobs: usize,
    interrupt: Interrupt,
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
    pub fn open(url: &RemoteUrl, access: &Access, interrupt: Interrupt) -> Result<Remote> {
        let runtime = connect::runtime()?;
        let connect::Connected { store, signer } = connect::connect(url, access)?;
        // Small objects are a matter of round trips, so far more requests than cores are worth while.
        let default_jobs = if matches!(url, RemoteUrl::Folder(_)) { 16 } else { 64 };
        Ok(Remote {
            url: url.clone(),
            store,
            signer,
            runtime,
            jobs: access.jobs.unwrap_or(default_jobs),
            interrupt,
        })
    }

    /// Where it is.
    pub fn url(&self) -> &RemoteUrl {
        &self.url
    }

    /// Waits for requests, or for the user to stop them.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            let interrupted = async {
                while !self.interrupt.is_raised() {
                    tokio::time::sleep(INTERRUPT_POLL).await;
                }
            };
            match futures::future::select(pin!(work), pin!(interrupted)).await {
                Either::Left((done, _)) => done,
                Either::Right(_) => self.interrupt.check().and(Err(Error::new("interrupted"))),
            }
        })
    }

    /// Turns a store's error into one line, with advice for the usual reasons.
    fn failed(&self, what: &str, error: &object_store::Error) -> Error {
        explain::explain(&self.url, what, error)
    }

    /// The store's id. `None` when nothing was ever pushed to it.
    pub fn id(&self) -> Result<Option<String>> {
        let key = layout::format_key(&self.url)?;
        match self.wait(self.read_small(&key, layout::MAX_FORMAT))? {
            Some(bytes) => layout::parse_format(&bytes, &self.url).map(Some),
            None => Ok(None),
        }
    }

    /// A small object's bytes. A larger one is refused before, or while, it is read.
    async fn read_small(&self, key: &Path, max: usize) -> Result<Option<Vec<u8>>> {
        let cannot = |error: object_store::Error| self.failed("cannot be read", &error);
        let too_large = || Error::new(format!("{}: {key} is larger than it may be", self.url));
        let answer = match self.store.get(key).await {
            Ok(answer) => answer,
            Err(error) if explain::is_absent_object(&error) => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        if answer.meta.size > max as u64 {
            return Err(too_large());
        }
        let (mut bytes, mut stream) = (Vec::new(), answer.into_stream());
        while let Some(chunk) = stream.try_next().await.map_err(cannot)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > max {
                return Err(too_large());
            }
        }
        Ok(Some(bytes))
    }

    /// The store's id; a store that has none becomes one.
    pub fn id_or_create(&self) -> Result<String> {
        if let Some(id) = self.id()? {
            return Ok(id);
        }
        let (id, bytes) = layout::new_format();
        let key = layout::format_key(&self.url)?;
        let written = self.wait(async {
            Ok(self.store.put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await)
        })?;
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
        match digests.len() {
            0 => Ok(HashMap::new()),
            1..=LIST_FROM => self.wait(self.head_all(digests)),
            _ => self.wait(self.list_all(digests)),
        }
    }

    async fn head(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.store.head(&layout::object_key(&self.url, digest)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if explain::is_absent_object(&error) => Ok(None),
            Err(error) => Err(self.failed("cannot be read", &error)),
        }
    }

    async fn head_all(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        futures::stream::iter(digests.to_vec())
            .map(|digest| async move { Ok(self.head(&digest).await?.map(|size| (digest, size))) })
            .buffer_unordered(HEADS_AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    async fn list_all(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        let wanted: HashSet<&Digest> = digests.iter().collect();
        let mut found = HashMap::new();
        // An error anywhere in the listing is an error of the whole: half a listing would read as "missing".
        let objects = layout::objects_key(&self.url)?;
        let mut listing = self.store.list(Some(&objects));
        while let Some(meta) =
            listing.try_next().await.map_err(|error| self.failed("cannot be listed", &error))?
        {
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
        const PROBE: &[u8] = b"git-model check";
        let key = layout::probe_key(&self.url)?;
        let probe = PutPayload::from_static(PROBE);
        let (writable, conditional_writes) = self.wait(async {
            let cannot = |error: object_store::Error| self.failed("cannot be used", &error);
            self.store.put(&key, probe.clone()).await.map_err(cannot)?;
            let back = self.read_small(&key, PROBE.len()).await?;
            let again = self.store.put_opts(&key, probe.clone(), PutMode::Create.into()).await;
            self.store.delete(&key).await.map_err(cannot)?;
            Ok((back.as_deref() == Some(PROBE), again.is_err()))
        })?;
        Ok(Checked { store: self.id()?, writable, conditional_writes })
    }

    /// Fails unless the store has all of these with the right size.
    fn confirm(&self, uploads: &[&Upload]) -> Result<()> {
        let mut left = uploads.to_vec();
        for attempt in 0..4 {
            let digests: Vec<Digest> = left.iter().map(|upload| upload.digest).collect();
            let sizes = self.sizes(&digests)?;
            left.retain(|upload| sizes.get(&upload.digest) != Some(&upload.size));
            if left.is_empty() {
                return Ok(());
            }
            // Some stores know a new object only a moment later, so a negative answer is asked for again.
            std::thread::sleep(Duration::from_millis(300 << attempt));
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
