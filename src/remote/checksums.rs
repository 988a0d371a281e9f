//! Checksums that a store keeps beside its objects: what it says about their bytes without sending them.
//!
//! S3 keeps the SHA-256 that came with an upload, and returns it for `x-amz-checksum-mode: ENABLED`: of an object that was
//! sent at once, its own; of one in parts, the SHA-256 of those of its parts, with their number behind a hyphen. Other
//! stores keep MD5 or CRC-32C at most, which say nothing about a SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;

use super::credentials::Renew;
use super::{HEADS_AT_ONCE, Remote, layout, transfer};
use crate::error::{Context, Error, Result};
use crate::id::{Digest, Hasher};

/// How often a request is made, at most.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What a store keeps about the bytes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// The SHA-256 of all of them.
    Whole(Digest),
    /// The SHA-256 of those of so many parts.
    Parts(Digest, u64),
}

impl Kept {
    /// Reads the values of `x-amz-checksum-sha256` and `etag`. Some servers tell the number of parts only in the latter.
    fn parse(checksum: &str, etag: &str) -> Option<Kept> {
        let (digest, count) = match checksum.split_once('-') {
            Some((digest, count)) => (digest, Some(count)),
            None => (checksum, etag.trim_matches('"').split_once('-').map(|(_, count)| count)),
        };
        let digest = Digest::from_bytes(BASE64_STANDARD.decode(digest).ok()?.try_into().ok()?);
        match count {
            Some(count) => Some(Kept::Parts(digest, count.parse().ok()?)),
            None => Some(Kept::Whole(digest)),
        }
    }
}

/// Asks S3, or a server that speaks its protocol.
pub(super) struct Checksums {
    pub(super) s3: Arc<AmazonS3>,
    /// Makes the client once it is needed.
    pub(super) connector: Box<dyn HttpConnector>,
    pub(super) region: String,
    pub(super) anonymous: bool,
    /// Credentials that may end before they say so.
    pub(super) credentials: Option<Arc<dyn Renew>>,
}

impl Checksums {
    /// The SHA-256 that the store keeps of an object. `None` when it has no such object, or keeps none.
    async fn of(&self, client: &HttpClient, key: &Path) -> object_store::Result<Option<Kept>> {
        let started = Instant::now();
        let mut answer = self.ask(client, key).await?;
        // What answers HEAD has no body that could say why.
        if answer == Err(400)
            && let Some(credentials) = &self.credentials
        {
            credentials.renew(started).await;
            answer = self.ask(client, key).await?;
        }
        match answer {
            Ok(kept) => Ok(kept),
            Err(404) => Ok(None),
            Err(status) => {
                let source = format!("status code: {status}").into();
                Err(object_store::Error::Generic { store: "S3", source })
            }
        }
    }

    /// One request, made again while the store is busy. The inner error is the status of an answer without success.
    async fn ask(&self, client: &HttpClient, key: &Path) -> object_store::Result<Result<Option<Kept>, u16>> {
        let (mut left, mut pause) = (TRIES, FIRST_PAUSE);
        loop {
            left -= 1;
            match self.ask_once(client, key).await? {
                Err(429 | 500..) if left > 0 => {}
                answer => return Ok(answer),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// One request. The inner error is the status of an answer without success.
    async fn ask_once(
        &self,
        client: &HttpClient,
        key: &Path,
    ) -> object_store::Result<Result<Option<Kept>, u16>> {
        let generic = |source| object_store::Error::Generic { store: "S3", source };
        // Only the place is of use: a presigned URL takes no more headers.
        let mut url = self.s3.signed_url(reqwest::Method::HEAD, key, Duration::from_secs(60)).await?;
        url.set_query(None);
        let request = http::Request::head(url.as_str()).header("x-amz-checksum-mode", "ENABLED");
        let mut request = request.body(HttpRequestBody::empty()).map_err(|error| generic(Box::new(error)))?;
        if !self.anonymous {
            let credential = self.s3.credentials().get_credential().await?;
            AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        }
        let answer = client.execute(request).await.map_err(|error| generic(Box::new(error)))?;
        if !answer.status().is_success() {
            return Ok(Err(answer.status().as_u16()));
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = header("etag").unwrap_or_default();
        Ok(Ok(header("x-amz-checksum-sha256").and_then(|checksum| Kept::parse(checksum, etag))))
    }
}

/// An object whose bytes are compared with what the store keeps about them.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// The right bytes, if they are here: without them nothing can be said about an object that was sent in parts.
    pub file: Option<PathBuf>,
}

/// What came out of comparing checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Objects of which the store keeps another checksum than that of the right bytes.
    pub wrong: Vec<Digest>,
    /// How many objects it keeps no checksum of that could be compared.
    pub unknown: u64,
}

impl Remote {
    /// Compares objects with the checksums that the store keeps of them.
    pub fn compare_checksums(&self, suspects: &[Suspect]) -> Result<Compared> {
        let Some(checksums) = &self.checksums else {
            return Ok(Compared { wrong: Vec::new(), unknown: suspects.len() as u64 });
        };
        let client = checksums.connector.connect(&ClientOptions::new());
        let client = &client.map_err(|error| self.failed("cannot be asked", &error))?;
        let kept: Vec<(usize, Option<Kept>)> = self.wait(
            futures::stream::iter(0..suspects.len())
                .map(|at| async move {
                    let key = layout::object_key(&self.url, &suspects[at].digest)?;
                    let kept = checksums.of(client, &key).await;
                    Ok::<_, Error>((at, kept.map_err(|error| self.failed("cannot be read", &error))?))
                })
                .buffer_unordered(HEADS_AT_ONCE)
                .try_collect(),
        )?;
        let mut compared = Compared::default();
        for (at, kept) in kept {
            let suspect = &suspects[at];
            match is_right(suspect, kept.as_ref(), &|| self.interrupt.check())? {
                Some(true) => {}
                Some(false) => compared.wrong.push(suspect.digest),
                None => compared.unknown += 1,
            }
        }
        compared.wrong.sort_unstable();
        Ok(compared)
    }
}

/// Whether the store keeps the right checksum. `None` when it cannot be told.
fn is_right(
    suspect: &Suspect,
    kept: Option<&Kept>,
    interrupted: &dyn Fn() -> Result<()>,
) -> Result<Option<bool>> {
    match (kept, &suspect.file) {
        (Some(Kept::Whole(digest)), _) => Ok(Some(*digest == suspect.digest)),
        // Parts of another size are another program's, and say nothing.
        (Some(Kept::Parts(kept, count)), Some(file))
            if *count == suspect.size.div_ceil(transfer::part_size(suspect.size)) =>
        {
            Ok(Some(of_parts(file, transfer::part_size(suspect.size), interrupted)? == *kept))
        }
        _ => Ok(None),
    }
}

/// The SHA-256 of those of a file's parts.
fn of_parts(path: &FilePath, part_size: u64, interrupted: &dyn Fn() -> Result<()>) -> Result<Digest> {
    let mut file = File::open(path).context(path, "open")?;
    let mut whole = Hasher::default();
    loop {
        interrupted()?;
        let mut part = Hasher::default();
        if io::copy(&mut (&mut file).take(part_size), &mut part).context(path, "read")? == 0 {
            return Ok(whole.finish());
        }
        whole.update(part.finish().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let digest = Digest::of(b"part");
        let text = BASE64_STANDARD.encode(digest.as_bytes());
        assert_eq!(Kept::parse(&text, "\"0123\""), Some(Kept::Whole(digest)));
        assert_eq!(Kept::parse(&format!("{text}-7"), ""), Some(Kept::Parts(digest, 7)));
        assert_eq!(Kept::parse(&text, "\"0123-7\""), Some(Kept::Parts(digest, 7)));
        for odd in ["", "-7", "AAAA", &format!("{text}-"), &format!("{text}-x")] {
            assert_eq!(Kept::parse(odd, "\"0123\""), None, "{odd}");
        }
    }

    #[test]
    fn parts_are_hashed_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"aabbc").unwrap();
        let expected: Vec<u8> =
            [&b"aa"[..], b"bb", b"c"].iter().flat_map(|part| *Digest::of(part).as_bytes()).collect();
        assert_eq!(of_parts(&path, 2, &|| Ok(())).unwrap(), Digest::of(&expected));
        let suspect = Suspect { digest: Digest::of(b"aabbc"), size: 5, file: Some(path.clone()) };
        let right = |kept: Kept| is_right(&suspect, Some(&kept), &|| Ok(())).unwrap();
        let one = Digest::of(Digest::of(b"aabbc").as_bytes());
        assert_eq!(right(Kept::Parts(one, 1)), Some(true));
        assert_eq!(right(Kept::Parts(Digest::of(&expected), 1)), Some(false));
        assert_eq!(right(Kept::Parts(Digest::of(&expected), 3)), None, "of another size");
        assert_eq!(right(Kept::Whole(suspect.digest)), Some(true));
        assert_eq!(right(Kept::Whole(one)), Some(false));
        assert_eq!(is_right(&suspect, None, &|| Ok(())).unwrap(), None);
    }
}
