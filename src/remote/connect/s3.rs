//! S3 and servers that speak its protocol.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::{ClientOptions, StaticCredentialProvider};

use super::{Access, Connected, NoRedirects};
use crate::error::{Error, Result};
use crate::human;
use crate::remote::checksums::Checksums;
use crate::remote::credentials::aws::{self, Chain, Login};
use crate::remote::credentials::{Renew, Renewed};
use crate::remote::explain::explain;
use crate::remote_url::RemoteUrl;

pub(super) async fn open(url: &RemoteUrl, bucket: &str, access: &Access) -> Result<Connected> {
    // Not `from_env`, which would take endpoints and switches from variables that the trust rules do not look at.
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(access.allow_http))
        .with_retry(super::retry())
        .with_http_connector(NoRedirects::new(access));
    if access.checksum {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &access.region {
        if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(Error::new(format!("{url}: `{}` is not a region", human::escape(region))));
        }
        builder = builder.with_region(region);
    }
    let mut renewable: Option<Arc<dyn Renew>> = None;
    builder = match access.anonymous {
        true => builder.with_skip_signature(true),
        false => match aws::login(url, access).await? {
            Login::Keys(keys) => builder.with_credentials(Arc::new(StaticCredentialProvider::new(keys))),
            Login::Chain(chain) => {
                renewable = Some(Arc::<Renewed<Chain>>::clone(&chain) as Arc<dyn Renew>);
                builder.with_credentials(chain)
            }
        },
    };
    let s3 = Arc::new(builder.build().map_err(|error| explain(url, "cannot be used", &error))?);
    let region = access.region.clone().unwrap_or_else(|| aws::USUAL_REGION.to_owned());
    let checksums = Checksums {
        s3: Arc::clone(&s3),
        connector: Box::new(NoRedirects::new(access)),
        region,
        anonymous: access.anonymous,
        credentials: renewable.clone(),
    };
    let connected = match renewable {
        Some(credentials) => Connected::renewing(s3, credentials),
        None => Connected::cloud(s3),
    };
    Ok(Connected { checksums: Some(checksums), ..connected })
}
