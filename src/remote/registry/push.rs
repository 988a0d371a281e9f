//! Sending an artifact: blobs that the registry lacks, then the manifest, then a look whether the registry has what was sent.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures::future::Either;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::{ATTEMPTS, Registry, backoff, body, may_pass, pinned_text, stated_digest};
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::oci::{MANIFEST, Pinned};
use crate::progress::Step;

/// Blobs on their way at once, unless the user says otherwise.
const JOBS: usize = 4;

/// Why a registry refuses a manifest whose blobs it does not find.
const ABOUT_BLOBS: [&str; 3] = ["BLOB_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"];

/// A blob to send.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The file that holds it; its bytes are checked while they are read.
    pub path: PathBuf,
    /// What it is, for messages.
    pub shown: String,
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the registry took from another repository.
    pub mounted: u64,
    /// Blobs that the repository had already.
    pub present: u64,
    /// Whether the manifest was there already.
    pub up_to_date: bool,
}

/// Why one attempt to send something failed.
enum Failure {
    /// Another attempt may succeed.
    Passing(Error),
    /// It will not get better.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

/// Makes an attempt until it succeeds, or its failure counts.
async fn repeated<T>(attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T> {
    let mut repeats = 0;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(Failure::Passing(_)) if repeats + 1 < ATTEMPTS => {
                repeats += 1;
                tokio::time::sleep(backoff(repeats)).await;
            }
            Err(Failure::Passing(error) | Failure::Final(error)) => return Err(error),
        }
    }
}

/// How a blob came to be there.
#[derive(Clone, Copy)]
enum Way {
    Sent(u64),
    Mounted,
    Present,
}

impl Registry {
    /// Sends an artifact and gives its manifest a tag. Returns once the registry itself has the manifest with our digest.
    ///
    /// A tag that stands for something else is moved only with `force`. Blobs are taken from the repositories `mount_from` where
    /// the registry can do that.
    pub fn push(
        &self,
        manifest: &[u8],
        blobs: &[Blob],
        pinned: &Pinned,
        mount_from: &[String],
        force: bool,
        step: &Arc<dyn Step>,
    ) -> Result<Pushed> {
        let digest = Digest::of(manifest);
        let mut scope = self.scope("pull,push");
        scope.extend(mount_from.iter().map(|repository| format!("repository:{repository}:pull")));
        let scope = &scope[..];
        self.wait(async {
            match self.manifest(pinned, scope).await? {
                Some(found) if found == digest => {
                    return Ok(Pushed { up_to_date: true, present: blobs.len() as u64, ..Pushed::default() });
                }
                Some(found) if !force => {
                    return Err(Error::refused(format!(
                        "{}: {} stands for something else already ({})",
                        self.place,
                        human::escape(&pinned_text(pinned)),
                        found.short()
                    ))
                    .hint("choose another tag, or --force moves it"));
                }
                _ => {}
            }
            let ways: Vec<Way> = futures::stream::iter(blobs)
                .map(|blob| self.bring(blob, mount_from, scope, step))
                .buffer_unordered(self.access.jobs.unwrap_or(JOBS))
                .try_collect()
                .await?;
            repeated(async || self.put_manifest(manifest, pinned, scope).await).await?;
            self.confirm(digest, pinned, scope).await?;
            Ok(ways.into_iter().fold(Pushed::default(), |mut pushed, way| {
                match way {
                    Way::Sent(bytes) => {
                        pushed.sent += 1;
                        pushed.bytes += bytes;
                    }
                    Way::Mounted => pushed.mounted += 1,
                    Way::Present => pushed.present += 1,
                }
                pushed
            }))
        })
    }

    /// Sees to it that the repository has a blob.
    async fn bring(
        &self,
        blob: &Blob,
        mount_from: &[String],
        scope: &[String],
        step: &Arc<dyn Step>,
    ) -> Result<Way> {
        if self.has(blob, scope).await? {
            step.advance(blob.size);
            step.finish_one();
            return Ok(Way::Present);
        }
        let way = repeated(async || self.send(blob, mount_from, scope, step).await).await?;
        step.finish_one();
        Ok(way)
    }

    /// Whether the repository has a blob of this digest and size.
    async fn has(&self, blob: &Blob, scope: &[String]) -> Result<bool> {
        let url = self.url(&format!("blobs/sha256:{}", blob.digest))?;
        let answer = self.ask(Method::HEAD, &url, scope, |request| request).await?;
        match answer.status() {
            StatusCode::OK => {
                let length = answer.headers().get(CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                Ok(length.is_none_or(|length| length == blob.size))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused(answer, "a blob cannot be asked for").await),
        }
    }

    /// One attempt: begins an upload, unless the registry has the blob in another repository, and sends the blob as a whole.
    async fn send(
        &self,
        blob: &Blob,
        mount_from: &[String],
        scope: &[String],
        step: &Arc<dyn Step>,
    ) -> Result<Way, Failure> {
        let mut begun = None;
        // Without a name, the registry may know by itself where it has the blob.
        let sources = mount_from.iter().map(Some).chain(mount_from.is_empty().then_some(None));
        for source in sources {
            if let Some((url, answer)) = begun.take() {
                self.abandon(&url, &answer, scope).await;
            }
            let mut url = self.url("blobs/uploads/")?;
            url.query_pairs_mut().append_pair("mount", &format!("sha256:{}", blob.digest));
            if let Some(source) = source {
                url.query_pairs_mut().append_pair("from", source);
            }
            let empty = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
            let answer = self.ask(Method::POST, &url, scope, empty).await?;
            match answer.status() {
                StatusCode::CREATED => {
                    step.advance(blob.size);
                    return match self.has(blob, scope).await? {
                        true => Ok(Way::Mounted),
                        false => Err(Failure::Final(self.lost(blob))),
                    };
                }
                StatusCode::ACCEPTED => begun = Some((url, answer)),
                _ => return Err(Failure::Final(self.refused(answer, "no upload can be begun").await)),
            }
        }
        let (url, answer) = begun.expect("one source at least was tried");
        let mut target = self.location(&answer, &url)?;
        target.query_pairs_mut().append_pair("digest", &format!("sha256:{}", blob.digest));
        let sent = self.put_blob(blob, target, step).await?;
        match self.has(blob, scope).await? {
            true => Ok(Way::Sent(sent)),
            false => Err(Failure::Passing(self.lost(blob))),
        }
    }

    async fn put_blob(&self, blob: &Blob, target: Url, step: &Arc<dyn Step>) -> Result<u64, Failure> {
        let told = Arc::clone(step);
        let (body, watch) = body::body(&self.runtime, blob, Arc::new(move |bytes| told.advance(bytes)));
        let request = self
            .client
            .request(Method::PUT, target.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size)
            .body(body);
        let request = self.authorized(request, &target);
        let shown = human::escape(&blob.shown);
        let sending = request.send();
        let answer = match futures::future::select(pin!(sending), pin!(watch.stalled())).await {
            Either::Left((Ok(answer), _)) => answer,
            _ if watch.is_damaged() => {
                return Err(Failure::Final(
                    Error::refused(format!("{shown}: its content here is damaged, and was not sent"))
                        .hint("git model verify sets damaged content aside; then run it again"),
                ));
            }
            Either::Left((Err(error), _)) => {
                let error = Error::new(format!("{shown}: cannot be sent to {}", self.place))
                    .caused_by(error.without_url());
                return Err(Failure::Passing(error));
            }
            Either::Right(_) => {
                return Err(Failure::Passing(Error::new(format!(
                    "{shown}: cannot be sent to {}: nothing moved for minutes",
                    self.place
                ))));
            }
        };
        let status = answer.status();
        if status == StatusCode::CREATED {
            return match stated_digest(&answer).is_none_or(|stated| stated == blob.digest) {
                true => Ok(watch.sent()),
                false => Err(Failure::Final(self.lost(blob))),
            };
        }
        let error = self.refused(answer, &format!("{shown} cannot be sent")).await;
        // A token may have ended on the way; the next attempt gets a new one.
        Err(match may_pass(status) || status == StatusCode::UNAUTHORIZED && self.forget_token() {
            true => Failure::Passing(error),
            false => Failure::Final(error),
        })
    }

    fn forget_token(&self) -> bool {
        self.authorization().take().is_some()
    }

    /// Ends an upload that is not needed. That it cannot be ended does not matter: the registry forgets it in time.
    async fn abandon(&self, url: &Url, answer: &Response, scope: &[String]) {
        if let Ok(target) = self.location(answer, url) {
            drop(self.ask(Method::DELETE, &target, scope, |request| request).await);
        }
    }

    /// One attempt: gives the registry the manifest.
    ///
    /// A registry looks whether it has every blob that a manifest names. The CNCF distribution server with its file system driver
    /// now and then refuses one as `DIGEST_INVALID` while another push of the same content is on its way, probably because it
    /// reads a file that is just being written. It has confirmed every one of these blobs, so that is not its last word.
    async fn put_manifest(&self, manifest: &[u8], pinned: &Pinned, scope: &[String]) -> Result<(), Failure> {
        let url = self.url(&format!("manifests/{}", pinned_text(pinned)))?;
        let prepare = |request: reqwest::RequestBuilder| {
            request
                .header(CONTENT_TYPE, MANIFEST)
                .header(CONTENT_LENGTH, manifest.len())
                .body(manifest.to_vec())
        };
        let answer = self.ask(Method::PUT, &url, scope, prepare).await?;
        let status = answer.status();
        if matches!(status, StatusCode::CREATED | StatusCode::OK) {
            return Ok(());
        }
        let said = self.said(answer).await;
        let error = self.refusal(status, said.as_ref(), "the manifest is not taken");
        Err(match said.is_some_and(|said| ABOUT_BLOBS.contains(&said.code.as_str())) {
            true => Failure::Passing(error),
            false => Failure::Final(error),
        })
    }

    /// Asks the registry what it has now.
    async fn confirm(&self, digest: Digest, pinned: &Pinned, scope: &[String]) -> Result<()> {
        match self.manifest(pinned, scope).await? {
            Some(found) if found == digest => Ok(()),
            Some(found) => Err(Error::new(format!(
                "{}: the registry holds another manifest ({}) than was sent ({})",
                self.place,
                found.short(),
                digest.short()
            ))
            .hint("somebody else pushed at the same time, or the registry changes what it is given")),
            None => Err(Error::new(format!("{}: the registry does not have what it accepted", self.place))),
        }
    }

    fn lost(&self, blob: &Blob) -> Error {
        let shown = human::escape(&blob.shown);
        Error::new(format!("{}: the registry does not have {shown} as it was sent", self.place))
    }
}
