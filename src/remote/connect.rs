//! Making object_store's clients from URLs and the user's settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, DynObjectStore, RetryConfig};
use tokio::runtime::Runtime;

use crate::error::{Context, Error, Result};
use crate::fsio::Durability;
use crate::human;
use crate::remote_url::{self, RemoteUrl};

use super::explain::explain;
use super::transfer::{Client, Traffic};

/// How a store is to be reached: everything that comes from the user, not from the repository.
#[derive(Clone)]
pub struct Access {
    /// Endpoint of an S3-compatible server; AWS itself otherwise.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
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
}

pub(super) fn connect(url: &RemoteUrl, access: &Access) -> Result<Connected> {
    match url {
        RemoteUrl::Folder(path) => {
            Ok(Connected { store: folder(url, path, access)?, signer: None, multipart: None })
        }
        RemoteUrl::S3 { bucket, .. } => {
            let store = s3(url, bucket, access)?;
            let signer: Arc<dyn Signer> = Arc::<AmazonS3>::clone(&store);
            let multipart: Arc<dyn MultipartStore> = Arc::<AmazonS3>::clone(&store);
            Ok(Connected { store, signer: Some(signer), multipart: Some(multipart) })
        }
    }
}

fn folder(url: &RemoteUrl, path: &Path, access: &Access) -> Result<Arc<DynObjectStore>> {
    if access.create {
        crate::fsio::create_dir_all(path, access.durability)?;
    }
    if !path.is_dir() {
        return Err(Error::new(format!("{}: no such folder", path.display()))
            .hint("mount it, or correct the URL: git model remote add --force NAME URL"));
    }
    // Resolved once: links inside the store are never made by git-model.
    let path = std::fs::canonicalize(path).context(path, "resolve")?;
    let store =
        LocalFileSystem::new_with_prefix(&path).map_err(|error| explain(url, "cannot be opened", &error))?;
    Ok(Arc::new(store.with_fsync(access.durability == Durability::Full)))
}

fn s3(url: &RemoteUrl, bucket: &str, access: &Access) -> Result<Arc<AmazonS3>> {
    require_credentials(url, access)?;
    let options = ClientOptions::new().with_allow_http(access.allow_http);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(8),
            base: 2.,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(180),
    };
    // Not `from_env`, which would take endpoints and switches from variables that the trust rules do not look at.
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_client_options(options)
        .with_retry(retry)
        .with_http_connector(NoRedirects { allow_http: access.allow_http, traffic: access.traffic.clone() });
    for (name, value) in &access.credentials {
        let key: AmazonS3ConfigKey =
            name.to_ascii_lowercase().parse().map_err(|error| explain(url, "cannot be used", &error))?;
        builder = builder.with_config(key, value);
    }
    if access.checksum {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(endpoint) = &access.endpoint {
        check_endpoint(url, endpoint, access.allow_http)?;
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &access.region {
        if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(Error::new(format!("{url}: `{}` is not a region", human::escape(region))));
        }
        builder = builder.with_region(region);
    }
    let store = builder.build().map_err(|error| explain(url, "cannot be used", &error))?;
    Ok(Arc::new(store))
}

/// Refuses at once what would otherwise end in a long wait for a metadata server, or in a header that cannot be sent.
fn require_credentials(url: &RemoteUrl, access: &Access) -> Result<()> {
    let has = |name: &str| access.credentials.iter().any(|(found, _)| *found == name);
    let complete = has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY")
        || has("AWS_WEB_IDENTITY_TOKEN_FILE") && has("AWS_ROLE_ARN")
        || has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || has("AWS_CONTAINER_CREDENTIALS_FULL_URI") && has("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    if !complete {
        return Err(Error::new(format!("{url}: no complete AWS credentials in the environment")).hint(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; with an AWS profile: eval \"$(aws configure export-credentials --format env)\"",
        ));
    }
    match access
        .credentials
        .iter()
        .find(|(_, value)| !value.chars().all(|c| c.is_ascii_graphic() || c == ' '))
    {
        Some((name, _)) => {
            Err(Error::new(format!("{url}: {name} holds a line break or another odd character"))
                .hint("CI systems often keep a line break at the end of a secret; remove it"))
        }
        None => Ok(()),
    }
}

fn check_endpoint(url: &RemoteUrl, endpoint: &str, allow_http: bool) -> Result<()> {
    let shown = human::escape(&remote_url::redact(endpoint));
    let parsed = url::Url::parse(endpoint).ok().filter(|parsed| parsed.host().is_some());
    match parsed.as_ref().map(url::Url::scheme) {
        Some("https") => Ok(()),
        Some("http") if allow_http => Ok(()),
        Some("http") => Err(Error::new(format!("{url}: the endpoint {shown} is plain http"))
            .hint("use https, or allow it with git config model.remote.NAME.allowHttp true")),
        _ => Err(Error::new(format!("{url}: the endpoint {shown} is not an http or https URL"))
            .hint("it looks like https://s3.example.com")),
    }
}

/// The threads on which requests run.
pub(super) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))
}

/// A client that follows no redirect: it would take credentials along to wherever the answer says.
pub(super) fn http_client(https_only: bool) -> reqwest::Result<reqwest::Client> {
    // Between bytes, not for the whole request: that would cut long transfers off.
    client_builder(https_only).read_timeout(Duration::from_secs(60)).build()
}

fn client_builder(https_only: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
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
    traffic: Traffic,
}

impl HttpConnector for NoRedirects {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Its read timeout would run while a large part is sent; the rules for traffic know what stalls.
        let client = client_builder(!self.allow_http)
            .build()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(HttpClient::new(Client::new(client, self.traffic.clone())))
    }
}
