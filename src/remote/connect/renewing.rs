//! A store whose credentials may end before they say so: what it refuses for that reason is sent again with new ones, once.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::remote::credentials::Renew;
use crate::remote::explain;

/// A store and the credentials that it uses.
#[derive(Debug)]
pub(super) struct Renewing<S> {
    pub(super) store: Arc<S>,
    pub(super) credentials: Arc<dyn Renew>,
}

impl<S> Renewing<S> {
    async fn tried<T, F: Future<Output = Result<T>>>(&self, send: impl Fn() -> F) -> Result<T> {
        self.tried_if(explain::is_expired, send).await
    }

    /// Sends again what was refused in such a way.
    async fn tried_if<T, F: Future<Output = Result<T>>>(
        &self,
        refused: impl Fn(&Error) -> bool,
        send: impl Fn() -> F,
    ) -> Result<T> {
        let started = Instant::now();
        let answer = send().await;
        match &answer {
            Err(error) if refused(error) => {
                self.credentials.renew(started).await;
                send().await
            }
            _ => answer,
        }
    }
}

impl<S: fmt::Display> fmt::Display for Renewing<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait::async_trait]
impl<S: ObjectStore> ObjectStore for Renewing<S> {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.tried(|| self.store.put_opts(key, payload.clone(), options.clone())).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.tried(|| self.store.put_multipart_opts(key, options.clone())).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let refused = |error: &Error| {
            // What answers HEAD has no body that could say why.
            explain::is_expired(error) || (options.head && explain::says(error, "400 Bad Request"))
        };
        self.tried_if(refused, || self.store.get_opts(key, options.clone())).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, credentials) = (Arc::clone(&self.store), Arc::clone(&self.credentials));
        let prefix = prefix.cloned();
        let listing = async move {
            let started = Instant::now();
            let mut listing = store.list(prefix.as_ref()).peekable();
            // Behind the first page nothing can be begun again.
            match Pin::new(&mut listing).peek().await {
                Some(Err(error)) if explain::is_expired(error) => {
                    credentials.renew(started).await;
                    store.list(prefix.as_ref())
                }
                _ => listing.boxed(),
            }
        };
        futures::stream::once(listing).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.tried(|| self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.tried(|| self.store.copy_opts(from, to, options.clone())).await
    }
}

#[async_trait::async_trait]
impl<S: MultipartStore> MultipartStore for Renewing<S> {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        self.tried(|| self.store.create_multipart(key)).await
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, at: usize, part: PutPayload) -> Result<PartId> {
        self.tried(|| self.store.put_part(key, id, at, part.clone())).await
    }

    async fn complete_multipart(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.tried(|| self.store.complete_multipart(key, id, parts.clone())).await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        self.tried(|| self.store.abort_multipart(key, id)).await
    }
}
