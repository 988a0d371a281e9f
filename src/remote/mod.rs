//! Stores of objects: the only module that names object_store or runs async code. Layout: `docs/formats/store-layout.md`.
//!
//! Outward everything is synchronous. Many objects move at once: a large one on a thread of its own, that hashes it, small ones
//! many to a thread. A budget in bytes, not the number of either, bounds the memory of what is sent.

mod checksums;
mod connect;
mod credentials;
mod explain;
mod layout;
mod links;
mod moved;
mod outside;
pub mod registry;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{DynObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};
use crate::id::Digest;
use crate::progress::Interrupt;
use crate::remote_url::RemoteUrl;

pub use checksums::{Compared, Suspect};
pub use connect::Access;
use connect::Threads;
pub use credentials::aws::{AwsProfile, aws_profile};
pub use credentials::azure::connection_field;
pub use links::{MAX_PRESIGN, object_url};
pub use outside::head_url;
use transfer::Engine;
pub use transfer::{Download, Receive, Traffic, Upload};

/// Up to this many objects are asked for one by one; for more, the store is listed.
const LIST_FROM: usize = 256;
/// Requests for an object's size at once.
const HEADS_AT_ONCE: usize = 32;
/// Objects in one page of a listing.
const LIST_PAGE: usize = 1000;
/// How often a waiting request looks whether it is to be given up: whether the user wants to stop, for one.
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// An open store.
pub struct Remote {
    url: RemoteUrl,
    store: Arc<DynObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    multipart: Option<Arc<dyn MultipartStore>>,
    checksums: Option<checksums::Checksums>,
    runtime: Threads,
    engine: Engine,
    interrupt: Interrupt,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Waits for requests, or for the user to stop them.
fn wait<T>(runtime: &Runtime, interrupt: &Interrupt, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        let interrupted = until(|| interrupt.is_raised());
        match futures::future::select(pin!(work), pin!(interrupted)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => interrupt.check().and(Err(Error::new("interrupted"))),
        }
    })
}

/// Returns soon after this is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(INTERRUPT_POLL).await;
    }
}

/// What `git model remote check` found out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Checked {
    /// The store's id.
    pub store: Option<String>,
    /// Whether a new object could be written, read back and removed. `None` for a store that is only read.
    pub writable: Option<bool>,
    /// Whether the store refuses to overwrite when asked to create only. `None` for a store that is only read.
    pub conditional_writes: Option<bool>,
}

impl Remote {
    /// Opens a store. No request is made to it yet; credentials are asked for where that takes a request.
    pub fn open(url: &RemoteUrl, access: &Access, interrupt: Interrupt) -> Result<Remote> {
        let runtime = connect::runtime()?;
        let connect::Connected { store, signer, multipart, checksums } =
            wait(&runtime, &interrupt, connect::connect(url, access))?;
        let engine = Engine::new(&access.traffic, matches!(url, RemoteUrl::Folder(_)));
        Ok(Remote { url: url.clone(), store, signer, multipart, checksums, runtime, engine, interrupt })
    }

    /// Where it is.
    pub fn url(&self) -> &RemoteUrl {
        &self.url
    }

    /// Waits for requests, or for the user to stop them.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        wait(&self.runtime, &self.interrupt, work)
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
        const ATTEMPTS: u32 = 5;
        let key = layout::format_key(&self.url)?;
        let (new, bytes) = layout::new_format();
        let bytes = PutPayload::from(bytes);
        let put = |mode: PutMode| {
            self.wait(async { Ok(self.store.put_opts(&key, bytes.clone(), mode.into()).await) })
        };
        for attempt in 1..=ATTEMPTS {
            if let Some(id) = self.id()? {
                return Ok(id);
            }
            let mut written = put(PutMode::Create)?;
            let is_safe = !written.as_ref().is_err_and(explain::is_not_implemented);
            if !is_safe {
                written = put(PutMode::Overwrite)?;
            }
            match written {
                Ok(_) if is_safe => return Ok(new),
                // Somebody else may overwrite it, too.
                Ok(_) => {}
                // Somebody else was first or is still at it, or our own lost answer was retried.
                Err(error) if explain::is_taken(&error) && attempt < ATTEMPTS => {}
                Err(error) => return Err(self.failed("cannot be written to", &error)),
            }
            // What the store says a moment later counts.
            std::thread::sleep(Duration::from_millis(100 << attempt));
        }
        self.id()?.ok_or_else(|| Error::new(format!("{}: format.json vanished", self.url)))
    }

    /// The sizes of those of these objects that the store has.
    pub fn sizes(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        match digests.len() {
            0 => Ok(HashMap::new()),
            _ if self.url.is_read_only() => self.wait(self.head_all(digests)),
            1..=LIST_FROM => self.wait(self.head_all(digests)),
            _ => self.wait(self.list_or_head(digests)),
        }
    }

    async fn head(&self, digest: &Digest) -> Result<Option<u64>> {
        self.size_at(&layout::object_key(&self.url, digest)?).await
    }

    async fn size_at(&self, key: &Path) -> Result<Option<u64>> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if explain::is_absent_object(&error) => Ok(None),
            Err(error) => {
                let failed = self.failed("cannot be read", &error);
                let is_denied = matches!(error, object_store::Error::PermissionDenied { .. });
                Err(match is_denied && matches!(self.url, RemoteUrl::S3 { .. }) {
                    // What answers HEAD has no body that could say why.
                    true => failed.hint(
                        "S3 says so of what is not there, too, to whoever may not list the bucket: allow s3:ListBucket",
                    ),
                    false => failed,
                })
            }
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

    /// Lists the store, unless it holds so much that asking for each object takes fewer round trips.
    async fn list_or_head(&self, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        let wanted: HashSet<&Digest> = digests.iter().collect();
        let mut found = HashMap::new();
        // A listing comes page after page, while requests for sizes run beside each other.
        let pages = digests.len() / HEADS_AT_ONCE + 1;
        let mut left = if self.engine.is_folder() { usize::MAX } else { pages * LIST_PAGE };
        // An error anywhere in the listing is an error of the whole: half a listing would read as "missing".
        let objects = layout::objects_key(&self.url)?;
        let mut listing = self.store.list(Some(&objects));
        while let Some(meta) =
            listing.try_next().await.map_err(|error| self.failed("cannot be listed", &error))?
        {
            // Only at its own key: what lies elsewhere under that name, such as in a copy of the store, is never fetched.
            if let Some(digest) = meta.location.filename().and_then(Digest::from_hex)
                && wanted.contains(&digest)
                && meta.location == layout::object_key(&self.url, &digest)?
            {
                found.insert(digest, meta.size);
            }
            left -= 1;
            if left == 0 {
                drop(listing);
                let rest: Vec<Digest> =
                    digests.iter().filter(|digest| !found.contains_key(digest)).copied().collect();
                found.extend(self.head_all(&rest).await?);
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Tries everything that push and fetch need, with a small object of its own that it removes again.
    pub fn check(&self) -> Result<Checked> {
        const PROBE: &[u8] = b"git-model check";
        if self.url.is_read_only() {
            return Ok(Checked { store: self.id()?, writable: None, conditional_writes: None });
        }
        let key = layout::probe_key(&self.url)?;
        let probe = PutPayload::from_static(PROBE);
        let (writable, conditional_writes) = self.wait(async {
            let cannot = |error: object_store::Error| self.failed("cannot be used", &error);
            self.store.put(&key, probe.clone()).await.map_err(cannot)?;
            let back = self.read_small(&key, PROBE.len()).await;
            let again = self.store.put_opts(&key, probe.clone(), PutMode::Create.into()).await;
            // Before anything is judged, or it would stay.
            let deleted = self.store.delete(&key).await;
            let back = back?;
            deleted.map_err(cannot)?;
            let is_refused = match again {
                Ok(_) => false,
                Err(error) if explain::is_taken(&error) => true,
                Err(error) if explain::is_not_implemented(&error) => false,
                Err(error) => return Err(cannot(error)),
            };
            // A push begins with asking for what is not there.
            self.size_at(&key).await?;
            Ok((Some(back.as_deref() == Some(PROBE)), Some(is_refused)))
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
