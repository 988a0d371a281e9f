//! Making object_store's clients from URLs and the user's settings; one file per kind of store.

mod azure;
mod folder;
mod gcs;
mod https;
pub(super) mod links;
mod renewing;
mod s3;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::multipart::MultipartStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, DynObjectStore, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;
use url::Url;

use crate::error::{Error, Result};
use crate::fsio::Durability;
use crate::human;
use crate::remote_url::{self, RemoteUrl};

use super::checksums::Checksums;
use super::credentials::Renew;
use super::transfer::{self, Client, Traffic};
use renewing::Renewing;

/// Files that may be open at once: a connection and a file for each request, and some more.
const OPEN_FILES: u64 = 4 * transfer::REQUESTS as u64;

/// How a store is to be reached: everything that comes from the user, not from the repository.
#[derive(Clone)]
pub struct Access {
    /// Custom endpoint: of an S3-compatible server, or of an emulator. The cloud itself otherwise.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Profile of `~/.aws` that the user chose for this remote.
    pub profile: Option<String>,
    /// Whether requests are sent without credentials.
    pub anonymous: bool,
    /// Whether the endpoint may be plain http.
    pub allow_http: bool,
    /// Whether uploads carry a SHA-256 that the server checks.
    pub checksum: bool,
    /// Names and values of the environment variables that hold credentials, or say where to get them.
    pub credentials: Vec<(&'static str, String)>,
    /// Whether a folder store syncs what it is given.
    pub durability: Durability,
    /// How many requests there are at once, and how fast their bytes flow.
    pub traffic: Traffic,
    /// Whether a folder that does not exist is to be made.
    pub create: bool,
}

impl Access {
    /// A credential variable's value.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.credentials.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

// Credentials must never be printed, not even by accident.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("region", &self.region).finish_non_exhaustive()
    }
}

/// A store's client.
pub(super) struct Connected {
    pub(super) store: Arc<DynObjectStore>,
    /// Makes presigned URLs, where the store has any.
    pub(super) signer: Option<Arc<dyn Signer>>,
    /// Sends an object in parts that can be gone on with, where the store has that.
    pub(super) multipart: Option<Arc<dyn MultipartStore>>,
    /// Asks for the checksums that the store keeps, where it keeps any of use.
    pub(super) checksums: Option<Checksums>,
}

impl Connected {
    /// The client of one of the clouds.
    fn cloud<S: ObjectStore + Signer + MultipartStore>(store: Arc<S>) -> Connected {
        let signer: Arc<dyn Signer> = Arc::<S>::clone(&store);
        let multipart: Arc<dyn MultipartStore> = Arc::<S>::clone(&store);
        Connected { store, signer: Some(signer), multipart: Some(multipart), checksums: None }
    }

    /// As [`Connected::cloud`], with credentials that may end before they say so.
    fn renewing<S>(store: Arc<S>, credentials: Arc<dyn Renew>) -> Connected
    where
        S: ObjectStore + Signer + MultipartStore,
    {
        let renewing = Arc::new(Renewing { store: Arc::clone(&store), credentials });
        let multipart: Arc<dyn MultipartStore> = Arc::<Renewing<S>>::clone(&renewing);
        Connected { store: renewing, multipart: Some(multipart), ..Connected::cloud(store) }
    }

    /// The client of something that is no cloud.
    fn plain(store: Arc<DynObjectStore>) -> Connected {
        Connected { store, signer: None, multipart: None, checksums: None }
    }
}

/// Makes a client. Credentials that have to be asked for are asked for here, so that their lack is said at once.
pub(super) async fn connect(url: &RemoteUrl, access: &Access) -> Result<Connected> {
    let odd = |name: &&&str| access.variable(name).is_some_and(|value| !is_header_text(value));
    if let Some(name) = sent(url).iter().find(odd) {
        return Err(Error::new(format!("{url}: {name} holds a line break or another odd character"))
            .hint("CI systems often keep a line break at the end of a secret; remove it"));
    }
    if let Some(endpoint) = &access.endpoint {
        check_endpoint(url, endpoint, access.allow_http)?;
    }
    match url {
        RemoteUrl::Folder(path) => Ok(Connected::plain(folder::open(url, path, access)?)),
        RemoteUrl::S3 { bucket, .. } => s3::open(url, bucket, access).await,
        RemoteUrl::Gcs { bucket, .. } => {
            Ok(Connected::cloud(Arc::new(gcs::open(url, bucket, access).await?)))
        }
        RemoteUrl::Azure { account, container, .. } => {
            Ok(Connected::cloud(Arc::new(azure::open(url, account, container, access).await?)))
        }
        RemoteUrl::Https { .. } => Ok(Connected::plain(https::open(url, access)?)),
    }
}

/// The variables whose values are sent to a store as they are, or signed with.
fn sent(url: &RemoteUrl) -> &'static [&'static str] {
    match url {
        RemoteUrl::Folder(_) | RemoteUrl::Https { .. } => &[],
        RemoteUrl::S3 { .. } => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        RemoteUrl::Gcs { .. } => &["GOOGLE_OAUTH_ACCESS_TOKEN"],
        RemoteUrl::Azure { .. } => &[
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_CLIENT_SECRET",
            "IDENTITY_HEADER",
        ],
    }
}

/// What can be sent in a header.
fn is_header_text(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

fn check_endpoint(url: &RemoteUrl, endpoint: &str, allow_http: bool) -> Result<()> {
    let shown = human::escape(&remote_url::redact(endpoint));
    let parsed = Url::parse(endpoint).ok().filter(|parsed| parsed.host().is_some());
    match parsed.as_ref().map(Url::scheme) {
        Some("https") => Ok(()),
        Some("http") if allow_http => Ok(()),
        Some("http") => Err(Error::new(format!("{url}: the endpoint {shown} is plain http"))
            .hint("use https, or allow it with git config model.remote.NAME.allowHttp true")),
        _ => Err(Error::new(format!("{url}: the endpoint {shown} is not an http or https URL"))
            .hint("it looks like https://s3.example.com")),
    }
}

/// A request is not repeated any more after so long, what was spent on its own body included.
pub(super) const REPEATED_FOR: Duration = Duration::from_secs(180);

/// How failed requests are repeated.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(8),
            base: 2.,
        },
        max_retries: 5,
        retry_timeout: REPEATED_FOR,
    }
}

/// How long a thread that is blocked is waited for in the end.
const BLOCKED_PATIENCE: Duration = Duration::from_secs(1);

/// The threads on which requests run. One that the system keeps in a call that does not return, such as on a pipe or a share that
/// hangs, does not keep the process.
pub(super) struct Threads(Option<Runtime>);

impl Deref for Threads {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(BLOCKED_PATIENCE);
        }
    }
}

/// Starts them.
pub(super) fn runtime() -> Result<Threads> {
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime =
        runtime.map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
    Ok(Threads(Some(runtime)))
}

/// Lets this process have as many files open as hundreds of requests need, with what arrives by them: some systems begin with
/// far fewer than they allow.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        // Where that is refused, what is there may do.
        setrlimit(Resource::Nofile, limit).ok();
    }
}

/// A client that follows no redirect: it would take credentials along to wherever the answer says.
pub(super) fn http_client(https_only: bool) -> reqwest::Result<reqwest::Client> {
    // Between bytes, not for the whole request: that would cut long transfers off.
    client_builder(https_only, None).read_timeout(Duration::from_secs(60)).build()
}

/// As [`http_client`], but for its timeout between bytes, which would also run while a large body is sent. What is on this
/// machine, as far as that is known, is not asked through a proxy, which would see plain http.
pub(super) fn client_builder(https_only: bool, place: Option<&Url>) -> reqwest::ClientBuilder {
    let builder = match place.is_some_and(remote_url::is_here) {
        true => reqwest::Client::builder().no_proxy(),
        false => reqwest::Client::builder(),
    };
    builder
        .redirect(reqwest::redirect::Policy::none())
        .https_only(https_only)
        .http1_only()
        .connect_timeout(Duration::from_secs(10))
        // Bytes must arrive as they are stored.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
}

/// Makes object_store's clients like that.
#[derive(Debug)]
struct NoRedirects {
    allow_http: bool,
    endpoint: Option<Url>,
    traffic: Traffic,
}

impl NoRedirects {
    fn new(access: &Access) -> NoRedirects {
        let endpoint = access.endpoint.as_deref().and_then(|endpoint| Url::parse(endpoint).ok());
        NoRedirects { allow_http: access.allow_http, endpoint, traffic: access.traffic.clone() }
    }
}

impl HttpConnector for NoRedirects {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = plain_client(!self.allow_http, self.endpoint.as_ref())?;
        Ok(HttpClient::new(Client::new(client, self.traffic.clone())))
    }
}

/// A client without a read timeout, which would run while a large part is sent; the rules for traffic know what stalls.
fn plain_client(https_only: bool, place: Option<&Url>) -> object_store::Result<reqwest::Client> {
    client_builder(https_only, place)
        .build()
        .map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })
}
