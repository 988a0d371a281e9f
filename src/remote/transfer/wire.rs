//! What all requests to a store have in common: how many there are at once, how fast their bytes flow, and when they count
//! as stalled.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep};

use super::pace::{Gate, Turn};
use crate::remote::moved::Moved;

/// Requests at once, until the store asks for less, unless the user says otherwise. Small objects are a matter of round trips,
/// so far more than cores are worth while, and stores take many together with less work for each.
pub(in crate::remote) const REQUESTS: usize = 256;
/// A request on which nothing moves for so long has failed. Not for the whole of it: that would cut long transfers off.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes that are handed to the connection at once.
const SLICE: usize = 64 * 1024;
/// What is read as a whole is no longer: the reason of a failure,
const MAX_REASON: u64 = 1024 * 1024;
/// and every other answer but an object, such as a page of a listing.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// What a request weighs besides its bytes when the rate is measured: small objects are a matter of requests.
const REQUEST_WEIGHT: u64 = 256 * 1024;

/// The rules that all connections to one store share.
#[derive(Clone, Debug)]
pub struct Traffic(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs: Option<usize>,
    limit_rate: Option<u64>,
    /// Requests at once at most.
    most: usize,
    requests: Arc<Gate>,
    throttle: Option<Throttle>,
}

impl Traffic {
    /// At most `jobs` requests at once, and in both directions together at most `limit_rate` bytes per second.
    pub fn new(jobs: Option<usize>, limit_rate: Option<u64>) -> Traffic {
        // At a rate that is limited, no more than get a slice every second: a server gives up a connection that rests for long.
        let enough = limit_rate.map_or(REQUESTS, |rate| (rate as usize / SLICE).max(2));
        let most = jobs.unwrap_or(REQUESTS).min(enough);
        let requests = Gate::new(most, most, 0);
        let throttle = limit_rate.map(Throttle::new);
        Traffic(Arc::new(Shared { jobs, limit_rate, most, requests, throttle }))
    }

    /// Transfers at once, if the user said.
    pub(in crate::remote) fn jobs(&self) -> Option<usize> {
        self.0.jobs
    }

    /// Requests at once at most. What waits for its turn as a request is signed already, and a signature does not last.
    pub(super) fn most_requests(&self) -> usize {
        self.0.most
    }

    /// Bytes per second at most, if the user said.
    pub(super) fn limit_rate(&self) -> Option<u64> {
        self.0.limit_rate
    }

    /// Waits until these bytes may flow.
    pub(super) async fn wait_for(&self, bytes: usize) {
        if let Some(throttle) = &self.0.throttle {
            tokio::time::sleep_until(throttle.reserve(bytes)).await;
        }
    }

    /// When these bytes may flow, if not at once.
    fn reserve(&self, bytes: usize) -> Option<Pin<Box<Sleep>>> {
        let at = self.0.throttle.as_ref()?.reserve(bytes);
        (at > Instant::now()).then(|| Box::pin(tokio::time::sleep_until(at)))
    }
}

/// Spreads bytes evenly over time.
#[derive(Debug)]
struct Throttle {
    rate: f64,
    free_at: Mutex<Instant>,
}

impl Throttle {
    fn new(rate: u64) -> Throttle {
        Throttle { rate: rate.max(1) as f64, free_at: Mutex::new(Instant::now()) }
    }

    /// Books time for these bytes; returns when it begins.
    fn reserve(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().expect("no thread panicked");
        let start = (*free_at).max(Instant::now());
        *free_at = start + Duration::from_secs_f64(bytes as f64 / self.rate);
        start
    }
}

/// A client whose requests follow the rules.
#[derive(Debug)]
pub(in crate::remote) struct Client {
    inner: reqwest::Client,
    traffic: Traffic,
}

impl Client {
    pub(in crate::remote) fn new(inner: reqwest::Client, traffic: Traffic) -> Client {
        Client { inner, traffic }
    }
}

#[async_trait::async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let turn = self.traffic.0.requests.turn().await;
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse::<reqwest::Url>();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let is_for_object = parts.method == Method::GET && !is_listing(&url);
        let mut out = reqwest::Request::new(parts.method, url);
        *out.headers_mut() = parts.headers;
        let moved = Arc::new(Moved::new());
        let sent = body.content_length() as u64;
        *out.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(Outgoing::new(body, self.traffic.clone(), Arc::clone(&moved))),
        });
        let answer = match select(Box::pin(self.inner.execute(out)), Box::pin(moved.stalled(STALLED))).await {
            Either::Left((answer, _)) => answer.map_err(http_error),
            Either::Right(_) => Err(stalled()),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // Also where a connection is refused: there may be too many of them.
                if matches!(error.kind(), HttpErrorKind::Timeout | HttpErrorKind::Connect) {
                    turn.overloaded();
                }
                return Err(error);
            }
        };
        if matches!(answer.status().as_u16(), 429 | 503) {
            turn.overloaded();
        }
        let (mut status, version) = (answer.status(), answer.version());
        let headers = answer.headers().clone();
        let limit = match status.is_success() {
            true if is_for_object => None,
            true => Some(MAX_ANSWER),
            false => Some(MAX_REASON),
        };
        let body = Incoming {
            inner: answer.into(),
            turn: Some(turn),
            traffic: self.traffic.clone(),
            work: sent + REQUEST_WEIGHT,
            left: limit,
            held: None,
            stalled: Box::pin(tokio::time::sleep(STALLED)),
        };
        let mut body = HttpResponseBody::new(body);
        // S3 says so that a body came too slowly. By its proper status it is sent again.
        if status == StatusCode::BAD_REQUEST {
            let reason = body.bytes().await?;
            if String::from_utf8_lossy(&reason).contains("<Code>RequestTimeout</Code>") {
                status = StatusCode::REQUEST_TIMEOUT;
            }
            body = reason.into();
        }
        let mut response = HttpResponse::new(body);
        (*response.status_mut(), *response.version_mut()) = (status, version);
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Whether a GET asks for a page of a listing, of S3 and Google or of Azure.
fn is_listing(url: &reqwest::Url) -> bool {
    url.query_pairs().any(|(name, value)| name == "list-type" || (name == "comp" && value == "list"))
}

fn stalled() -> HttpError {
    let error = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("timed out: nothing moved for {} seconds", STALLED.as_secs()),
    );
    HttpError::new(HttpErrorKind::Timeout, error)
}

/// Not to be tried again.
fn too_long() -> HttpError {
    HttpError::new(HttpErrorKind::Decode, std::io::Error::other("the store's answer is too long"))
}

/// Says what object_store needs to know: whether the request may be sent again.
fn http_error(error: reqwest::Error) -> HttpError {
    let kind = match &error {
        error if error.is_timeout() => HttpErrorKind::Timeout,
        error if error.is_connect() => HttpErrorKind::Connect,
        error if error.is_decode() => HttpErrorKind::Decode,
        error if error.is_builder() => HttpErrorKind::Unknown,
        // A connection that broke, before the answer or in it.
        _ => HttpErrorKind::Interrupted,
    };
    HttpError::new(kind, error.without_url())
}

/// What is sent, slice by slice.
struct Outgoing {
    inner: HttpRequestBody,
    rest: Bytes,
    left: u64,
    traffic: Traffic,
    moved: Arc<Moved>,
    /// Until the next slice may go.
    wait: Option<Pin<Box<Sleep>>>,
    booked: bool,
}

impl Outgoing {
    fn new(inner: HttpRequestBody, traffic: Traffic, moved: Arc<Moved>) -> Outgoing {
        let left = inner.content_length() as u64;
        Outgoing { inner, rest: Bytes::new(), left, traffic, moved, wait: None, booked: false }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            }
        }
        let length = this.rest.len().min(SLICE);
        if !this.booked {
            (this.booked, this.wait) = (true, this.traffic.reserve(length));
        }
        if let Some(wait) = &mut this.wait {
            // Waiting for its turn is not stalling, and the turn may be far away when many wait.
            this.moved.now();
            ready!(wait.as_mut().poll(context));
        }
        (this.booked, this.wait) = (false, None);
        this.moved.now();
        this.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(length)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What comes, with the turn of its request.
struct Incoming {
    inner: reqwest::Body,
    turn: Option<Turn>,
    traffic: Traffic,
    work: u64,
    /// Bytes that may still come, if what comes is read as a whole.
    left: Option<u64>,
    /// Bytes that came and must wait for their time.
    held: Option<(Bytes, Pin<Box<Sleep>>)>,
    stalled: Pin<Box<Sleep>>,
}

impl Drop for Incoming {
    /// Also where nobody reads to the end: of most answers only the headers matter.
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.done(self.work);
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Some((_, wait)) = &mut this.held {
            ready!(wait.as_mut().poll(context));
            let bytes = this.held.take().map(|(bytes, _)| bytes).unwrap_or_default();
            this.stalled.as_mut().reset(Instant::now() + STALLED);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.stalled.as_mut().poll(context));
                if let Some(turn) = this.turn.take() {
                    turn.overloaded();
                }
                return Poll::Ready(Some(Err(stalled())));
            }
        };
        this.stalled.as_mut().reset(Instant::now() + STALLED);
        match frame {
            None => {
                if let Some(turn) = this.turn.take() {
                    turn.done(this.work);
                }
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                this.turn = None;
                Poll::Ready(Some(Err(http_error(error))))
            }
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { return self.poll_frame(context) };
                this.work += bytes.len() as u64;
                if let Some(left) = &mut this.left {
                    let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                        this.turn = None;
                        return Poll::Ready(Some(Err(too_long())));
                    };
                    *left = rest;
                }
                match this.traffic.reserve(bytes.len()) {
                    None => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Some(wait) => {
                        this.held = Some((bytes, wait));
                        self.poll_frame(context)
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        if let Some((bytes, _)) = &self.held {
            let (lower, upper) = (hint.lower(), hint.upper());
            hint = SizeHint::new();
            hint.set_lower(lower + bytes.len() as u64);
            if let Some(upper) = upper {
                hint.set_upper(upper + bytes.len() as u64);
            }
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time() {
        let throttle = Throttle::new(1_000_000);
        let first = throttle.reserve(100_000);
        let second = throttle.reserve(50_000);
        assert!(second - first >= Duration::from_millis(100));
        assert!(throttle.reserve(1) - second >= Duration::from_millis(50));
    }
}
