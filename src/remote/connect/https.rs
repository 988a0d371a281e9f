//! Stores behind a web server or a CDN, which are only read. No credentials are sent.

use std::sync::Arc;

use object_store::DynObjectStore;
use object_store::http::HttpBuilder;

use super::{Access, NoRedirects};
use crate::error::Result;
use crate::remote::explain::explain;
use crate::remote_url::RemoteUrl;

pub(super) fn open(url: &RemoteUrl, access: &Access) -> Result<Arc<DynObjectStore>> {
    let store = HttpBuilder::new()
        .with_url(url.to_string())
        .with_retry(super::retry())
        .with_http_connector(NoRedirects {
            allow_http: false,
            endpoint: None,
            traffic: access.traffic.clone(),
        })
        .build()
        .map_err(|error| explain(url, "cannot be used", &error))?;
    Ok(Arc::new(store))
}
