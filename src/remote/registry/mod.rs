//! OCI registries, by the OCI distribution protocol 1.1: what a push needs.
//!
//! Credentials go to the registry itself, and to the token server that it names; never to where an answer points otherwise.

mod auth;
mod body;
mod push;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use url::Url;

use super::connect;
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;
use crate::oci::{Credentials, INDEX, MANIFEST, MAX_MANIFEST, Pinned, Reference, parse_digest};
use crate::progress::Interrupt;

pub use push::{Blob, Pushed};

/// How often a request is made before its failure counts.
const ATTEMPTS: u32 = 5;
/// How long the longest wait between two attempts is.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Longer answers that are no manifest are cut off.
const MAX_ANSWER: usize = 64 * 1024;
/// How many redirects of a question are followed.
const REDIRECTS: usize = 3;

/// How a registry is to be reached: everything that comes from the user.
#[derive(Clone, Debug)]
pub struct Access {
    /// What lets the user in.
    pub credentials: Option<Credentials>,
    /// Whether it is spoken to in plain http.
    pub plain_http: bool,
    /// Blobs sent at once.
    pub jobs: Option<usize>,
}

/// One error as a registry tells of it.
#[derive(serde::Deserialize)]
struct Said {
    code: String,
    #[serde(default)]
    message: String,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{} {}", self.code, self.message);
        f.write_str(&human::escape(&text.trim().chars().take(300).collect::<String>()))
    }
}

/// A repository of a registry.
pub struct Registry {
    place: Reference,
    base: Url,
    access: Access,
    client: Client,
    runtime: connect::Threads,
    interrupt: Interrupt,
    /// What is sent as `Authorization`, once the registry asked for it.
    authorization: Mutex<Option<HeaderValue>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens a repository. No request is made yet.
    pub fn open(place: &Reference, access: Access, interrupt: Interrupt) -> Result<Registry> {
        let scheme = if access.plain_http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/{}/", place.registry, place.repository))
            .map_err(|error| Error::usage(format!("{place}: not a place in a registry")).caused_by(error))?;
        // An upload has no answer before its last byte, however large it is: no timeout for the whole, none between bytes read.
        let client = connect::client_builder(!access.plain_http, Some(&base))
            .build()
            .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
        Ok(Registry {
            place: place.clone(),
            base,
            access,
            client,
            runtime: connect::runtime()?,
            interrupt,
            authorization: Mutex::default(),
        })
    }

    /// The digest of the manifest that a tag or digest stands for, as its bytes have it. `None` when there is none.
    pub fn manifest_digest(&self, pinned: &Pinned) -> Result<Option<Digest>> {
        self.wait(self.manifest(pinned, &self.scope("pull")))
    }

    async fn manifest(&self, pinned: &Pinned, scope: &[String]) -> Result<Option<Digest>> {
        let url = self.url(&format!("manifests/{}", pinned_text(pinned)))?;
        let accept = format!("{MANIFEST}, {INDEX}");
        let answer = self
            .ask(Method::GET, &url, scope, |request| request.header(reqwest::header::ACCEPT, &accept))
            .await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                let bytes = self.bounded(answer, usize::try_from(MAX_MANIFEST).unwrap_or(usize::MAX)).await?;
                Ok(Some(Digest::of(&bytes)))
            }
            _ => Err(self.refused(answer, "the manifest cannot be read").await),
        }
    }

    fn url(&self, rest: &str) -> Result<Url> {
        self.base
            .join(rest)
            .map_err(|error| Error::new(format!("{}: cannot be asked", self.place)).caused_by(error))
    }

    /// What is asked of a token server for this repository.
    fn scope(&self, actions: &str) -> Vec<String> {
        vec![format!("repository:{}:{actions}", self.place.repository)]
    }

    /// Waits for requests, or for the user to stop them.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        super::wait(&self.runtime, &self.interrupt, work)
    }

    /// Makes a request without a body until it has an answer that counts: logs in where that is asked for, tries again what may
    /// pass, and follows redirects of questions, without credentials when they lead elsewhere.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        scope: &[String],
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let (mut url, mut redirects, mut attempt, mut logged_in) = (url.clone(), 0, 0, false);
        loop {
            // A question has a short answer; a blob on its way is watched by whoever sends it.
            let request = self.client.request(method.clone(), url.clone()).timeout(Duration::from_secs(120));
            let answer = match self.authorized(prepare(request), &url).send().await {
                Ok(answer) => answer,
                Err(error) if attempt + 1 < ATTEMPTS && !error.is_builder() => {
                    attempt += 1;
                    tokio::time::sleep(backoff(attempt)).await;
                    continue;
                }
                Err(error) => return Err(self.unreachable(error)),
            };
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && !logged_in && self.is_own(&url) {
                logged_in = true;
                self.log_in(&answer, scope).await?;
            } else if may_pass(status) && attempt + 1 < ATTEMPTS {
                attempt += 1;
                tokio::time::sleep(retry_after(&answer).unwrap_or_else(|| backoff(attempt))).await;
            } else if status.is_redirection() && matches!(method, Method::GET | Method::HEAD) {
                redirects += 1;
                if redirects > REDIRECTS {
                    return Err(Error::new(format!("{}: it redirects without end", self.place)));
                }
                url = self.location(&answer, &url)?;
            } else if status.is_redirection() {
                let to = self.location(&answer, &url)?;
                return Err(Error::refused(format!(
                    "{}: it wants this request sent to {} instead",
                    self.place,
                    human::escape(to.host_str().unwrap_or("another place"))
                ))
                .hint("if that is the registry, name it"));
            } else {
                return Ok(answer);
            }
        }
    }

    /// Adds credentials where they belong: to requests to the registry itself.
    fn authorized(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        match self.authorization().as_ref().filter(|_| self.is_own(url)) {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    fn authorization(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().expect("no thread panicked")
    }

    /// Whether a URL is on the registry itself: same scheme, host and port.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Where an answer points to. Plain http is followed only on a registry that is spoken to in plain http anyway.
    fn location(&self, answer: &Response, from: &Url) -> Result<Url> {
        let header = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let to = header
            .and_then(|text| from.join(text).ok())
            .ok_or_else(|| Error::new(format!("{}: its answer names no usable location", self.place)))?;
        let fits = to.scheme() == "https" || to.scheme() == "http" && self.access.plain_http;
        match fits && to.host().is_some() {
            true => Ok(to),
            false => Err(Error::refused(format!(
                "{}: it points to {}, which is not https",
                self.place,
                human::escape(&format!("{}://{}", to.scheme(), to.host_str().unwrap_or_default()))
            ))),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        let error = Error::new(format!("{}: cannot be reached", self.place)).caused_by(error.without_url());
        match self.access.plain_http {
            true => error.hint("is the registry running there, and does it speak plain http?"),
            false => error.hint(format!(
                "a registry without https needs: git config model.registry.{}.allowHttp true",
                self.place.registry
            )),
        }
    }

    /// The error for an answer that is none of those that were hoped for.
    async fn refused(&self, answer: Response, what: &str) -> Error {
        let status = answer.status();
        let said = self.said(answer).await;
        self.refusal(status, said.as_ref(), what)
    }

    fn refusal(&self, status: StatusCode, said: Option<&Said>, what: &str) -> Error {
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        let error = Error::new(format!("{}: {what}: the registry answers {status}{said}", self.place));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => error.hint(format!(
                "log in with an account that may do that: docker login {} (or podman, skopeo)",
                self.place.registry
            )),
            _ => error,
        }
    }

    /// The registry's own words about an error.
    async fn said(&self, answer: Response) -> Option<Said> {
        #[derive(serde::Deserialize)]
        struct Errors {
            errors: Vec<Said>,
        }
        let bytes = self.bounded(answer, MAX_ANSWER).await.ok()?;
        let errors: Errors = serde_json::from_slice(&bytes).ok()?;
        errors.errors.into_iter().next()
    }

    /// The bytes of an answer, which must not be longer than `max`.
    async fn bounded(&self, mut answer: Response, max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match answer.chunk().await.map_err(|error| self.unreachable(error))? {
                Some(chunk) if bytes.len() + chunk.len() <= max => bytes.extend_from_slice(&chunk),
                Some(_) => return Err(Error::new(format!("{}: its answer is too long", self.place))),
                None => return Ok(bytes),
            }
        }
    }
}

fn pinned_text(pinned: &Pinned) -> String {
    match pinned {
        Pinned::Tag(tag) => tag.clone(),
        Pinned::Digest(digest) => format!("sha256:{digest}"),
    }
}

/// Whether another attempt may have another answer.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(6)).min(MAX_WAIT)
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// The header in which the registry says what it has.
fn stated_digest(answer: &Response) -> Option<Digest> {
    parse_digest(answer.headers().get("docker-content-digest")?.to_str().ok()?)
}

/// The header in which the registry says how it wants to be asked.
fn challenges(answer: &Response) -> impl Iterator<Item = &str> {
    answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok())
}
