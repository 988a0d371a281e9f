//! Google Cloud Storage.

use object_store::ClientOptions;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};

use super::{Access, NoRedirects};
use crate::error::Result;
use crate::remote::credentials::google::{self, Login};
use crate::remote::explain::explain;
use crate::remote_url::RemoteUrl;

/// Stated always, because a key file could name another one.
const ENDPOINT: &str = "https://storage.googleapis.com";

pub(super) async fn open(url: &RemoteUrl, bucket: &str, access: &Access) -> Result<GoogleCloudStorage> {
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_base_url(access.endpoint.as_deref().unwrap_or(ENDPOINT))
        .with_client_options(ClientOptions::new().with_allow_http(access.allow_http))
        .with_retry(super::retry())
        .with_http_connector(NoRedirects::new(access));
    let builder = match google::login(url, access).await? {
        // The empty token keeps it from looking for credentials.
        Login::Anonymous => builder
            .with_skip_signature(true)
            .with_bearer_token("")
            .with_signing_credentials(google::cannot_sign(url)),
        Login::ServiceAccountKey(json) => builder.with_service_account_key(json),
        Login::Provider(provider, signing) => builder
            .with_credentials(provider)
            .with_signing_credentials(signing.unwrap_or_else(|| google::cannot_sign(url))),
    };
    builder.build().map_err(|error| explain(url, "cannot be used", &error))
}
