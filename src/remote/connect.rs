//! Making object_store's clients from URLs and settings, and its errors readable.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, DynObjectStore, RetryConfig};

use crate::error::{Context, Error, Result};
use crate::fsio::Durability;
use crate::human;
use crate::remote_url::RemoteUrl;

/// How a store is to be reached: everything that comes from the user, not from the repository.
#[derive(Clone, Debug)]
pub struct Access {
    /// Endpoint of an S3-compatible server; AWS itself otherwise.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Whether the endpoint may be plain http.
    pub allow_http: bool,
    /// Whether uploads carry a SHA-256 that the server checks.
    pub checksum: bool,
    /// Whether the environment offers credentials without asking a metadata server.
    pub has_credentials: bool,
    /// Whether a folder store syncs what it is given.
    pub durability: Durability,
    /// Transfers at once.
    pub jobs: Option<usize>,
    /// Whether a folder that does not exist is to be made.
    pub create: bool,
}

pub(super) fn connect(url: &RemoteUrl, access: &Access) -> Result<Arc<DynObjectStore>> {
    match url {
        RemoteUrl::Folder(path) => folder(url, path, access),
        RemoteUrl::S3 { bucket, .. } => s3(url, bucket, access),
    }
}

fn folder(url: &RemoteUrl, path: &Path, access: &Access) -> Result<Arc<DynObjectStore>> {
    if access.create {
        crate::fsio::create_dir_all(path, access.durability)?;
    }
    if !path.is_dir() {
        return Err(Error::new(format!("{}: no such folder", path.display()))
            .hint("mount it, or correct the URL with git model remote add NAME URL --force"));
    }
    // Resolved once: links inside the store are never made by git-model.
    let path = std::fs::canonicalize(path).context(path, "resolve")?;
    let store =
        LocalFileSystem::new_with_prefix(&path).map_err(|error| explain(url, "cannot be opened", &error))?;
    Ok(Arc::new(store.with_fsync(access.durability == Durability::Full)))
}

fn s3(url: &RemoteUrl, bucket: &str, access: &Access) -> Result<Arc<DynObjectStore>> {
    if !access.has_credentials {
        return Err(Error::new(format!("{url}: no AWS credentials in the environment")).hint(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; with an AWS profile: eval \"$(aws configure export-credentials --format env)\"",
        ));
    }
    let options = ClientOptions::new()
        // A whole-request timeout would cut long transfers off; one between bytes does not.
        .with_timeout_disabled()
        .with_read_timeout(Duration::from_secs(60))
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(access.allow_http);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(8),
            base: 2.,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(180),
    };
    let mut builder =
        AmazonS3Builder::from_env().with_bucket_name(bucket).with_client_options(options).with_retry(retry);
    if access.checksum {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(endpoint) = &access.endpoint {
        let http = endpoint.starts_with("http://");
        if http && !access.allow_http {
            return Err(Error::new(format!("{url}: the endpoint {} is plain http", human::escape(endpoint)))
                .hint("use https, or allow it with git config model.remote.NAME.allowHttp true"));
        }
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &access.region {
        builder = builder.with_region(region);
    }
    let store = builder.build().map_err(|error| explain(url, "cannot be used", &error))?;
    Ok(Arc::new(store))
}

/// One line for an error of a store, with a hint where the reason is a usual one.
pub(super) fn explain(url: &RemoteUrl, what: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    let reason = human::escape(&innermost(error));
    let error_line = Error::new(format!("{url}: {what}: {reason}"));
    match error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => error_line
            .hint("check that the credentials in the environment belong to this store and may do this"),
        E::NotFound { .. } => error_line.hint("check the bucket and the endpoint with git model remote list"),
        _ if reason.contains("onnect") || reason.contains("dns") => {
            error_line.hint("check the endpoint and the network; git model remote check tries it")
        }
        _ => error_line,
    }
}

/// The most telling part of a chain of errors whose texts contain each other.
fn innermost(error: &object_store::Error) -> String {
    let mut best = error.to_string();
    let mut source = std::error::Error::source(error);
    let mut depth = 0;
    while let Some(cause) = source {
        let text = cause.to_string();
        // The texts above the transport repeat the ones below; a server's own message is worth more than its wrapper.
        if !text.is_empty() && best.len() > 200 {
            best = text;
        }
        source = cause.source();
        depth += 1;
        if depth > 8 {
            break;
        }
    }
    best.split_whitespace().collect::<Vec<_>>().join(" ")
}
