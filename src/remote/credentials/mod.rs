//! Where credentials come from, kept and renewed before they expire. Nothing here is reached for stores in folders.

pub(super) mod aws;
mod aws_http;
pub(super) mod azure;
mod external_account;
pub(super) mod google;
mod impersonation;
mod subject;
mod web;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use object_store::CredentialProvider;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use external_account::ExternalAccount;

/// Credentials are renewed this long before they expire, or when a quarter of their time is left if that is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// So long after a source failed it is asked again, while what it gave before is still good.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Credentials with the time at which they expire, if they do.
pub(super) struct Fresh<C> {
    credential: C,
    expires: Option<SystemTime>,
}

/// Somewhere that gives out credentials.
pub(super) trait Source: fmt::Debug + Send + Sync + 'static {
    /// What it gives out.
    type Credential: fmt::Debug + Send + Sync + 'static;

    /// Asks for credentials.
    fn fetch(&self) -> impl Future<Output = Result<Fresh<Self::Credential>>> + Send;
}

/// Asks a source when there is need, and only one request at a time.
pub(super) struct Renewed<S: Source> {
    source: S,
    held: Mutex<Option<Held<S::Credential>>>,
}

struct Held<C> {
    credential: Arc<C>,
    asked: Instant,
    renew: Option<SystemTime>,
    expires: Option<SystemTime>,
}

impl<S: Source> Renewed<S> {
    /// Asks when there is need for the first time.
    fn later(source: S) -> Arc<Self> {
        Arc::new(Renewed { source, held: Mutex::new(None) })
    }

    /// Asks once, so that what is missing is said before anything else is done.
    async fn start(source: S) -> Result<Arc<Self>> {
        let renewed = Renewed::later(source);
        renewed.current().await?;
        Ok(renewed)
    }

    async fn current(&self) -> Result<Arc<S::Credential>> {
        let mut held = self.held.lock().await;
        let (now, asked) = (SystemTime::now(), Instant::now());
        if let Some(held) = &*held
            && held.renew.is_none_or(|renew| now < renew)
        {
            return Ok(Arc::clone(&held.credential));
        }
        match self.source.fetch().await {
            Ok(Fresh { credential, expires }) => {
                let credential = Arc::new(credential);
                *held = Some(Held {
                    credential: Arc::clone(&credential),
                    asked,
                    renew: expires.map(|expires| renewal(now, expires)),
                    expires,
                });
                Ok(credential)
            }
            // What is held is still good for a while; the source may answer the next time. Not every request is to wait for that.
            Err(error) => match &mut *held {
                Some(held) if held.expires.is_some_and(|expires| now < expires) => {
                    let again = SystemTime::now() + ASK_AGAIN;
                    held.renew = held.expires.map(|expires| again.min(expires));
                    Ok(Arc::clone(&held.credential))
                }
                _ => Err(error),
            },
        }
    }
}

/// Credentials that may be asked for again before they said they end.
#[async_trait::async_trait]
pub(super) trait Renew: fmt::Debug + Send + Sync {
    /// A request that started at this time was refused because they are not good any more. The next one gets new ones; many
    /// requests that are refused at once lead to one question.
    async fn renew(&self, started: Instant);
}

#[async_trait::async_trait]
impl<S: Source> Renew for Renewed<S> {
    async fn renew(&self, started: Instant) {
        drop(self.held.lock().await.take_if(|held| held.asked <= started));
    }
}

/// When credentials that are good until `expires` are to be renewed.
fn renewal(now: SystemTime, expires: SystemTime) -> SystemTime {
    let left = expires.duration_since(now).unwrap_or_default();
    expires.checked_sub(RENEW_BEFORE.min(left / 4)).unwrap_or(expires)
}

// Credentials must never be printed, not even by accident.
impl<S: Source> fmt::Debug for Renewed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").finish_non_exhaustive()
    }
}

impl<S: Source> CredentialProvider for Renewed<S> {
    type Credential = S::Credential;

    fn get_credential<'s, 'f>(&'s self) -> BoxFuture<'f, object_store::Result<Arc<S::Credential>>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            self.current().await.map_err(|error| object_store::Error::Generic {
                store: "credentials",
                source: Box::new(Unavailable(error)),
            })
        })
    }
}

/// Credentials could not be had, in the middle of a transfer.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) Error);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.one_line())
    }
}

impl std::error::Error for Unavailable {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Gives out numbers that are good for some milliseconds; after three it fails.
    #[derive(Debug)]
    struct Counter(AtomicU64, u64);

    impl Source for Counter {
        type Credential = u64;

        async fn fetch(&self) -> Result<Fresh<u64>> {
            let credential = self.0.fetch_add(1, Ordering::Relaxed);
            if credential == 3 {
                return Err(Error::new("no more"));
            }
            let expires = Some(SystemTime::now() + Duration::from_millis(self.1));
            Ok(Fresh { credential, expires })
        }
    }

    #[test]
    fn credentials_are_renewed_before_they_expire_and_only_then() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(renewal(now, after(3600)), after(3480));
        assert_eq!(renewal(now, after(40)), after(30));
        assert_eq!(renewal(now, now), now);
        assert_eq!(renewal(after(9), now), now);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lasting = Renewed::start(Counter(AtomicU64::new(0), 3_600_000)).await.unwrap();
            assert_eq!((*lasting.current().await.unwrap(), *lasting.current().await.unwrap()), (0, 0));
            let brief = Renewed::start(Counter(AtomicU64::new(0), 0)).await.unwrap();
            assert_eq!((*brief.current().await.unwrap(), *brief.current().await.unwrap()), (1, 2));
            assert_eq!(brief.current().await.unwrap_err().one_line(), "no more");
            // What is held still holds: the source, which has no more, is not asked for each request.
            let held = Renewed::start(Counter(AtomicU64::new(2), 3_600_000)).await.unwrap();
            held.held.lock().await.as_mut().unwrap().renew = Some(now);
            assert_eq!((*held.current().await.unwrap(), *held.current().await.unwrap()), (2, 2));
            assert_eq!(held.source.0.load(Ordering::Relaxed), 4);
        });
    }
}
