//! Objects that each have a URL of their own, such as a presigned one. No credentials are sent.
//!
//! object_store's client for web servers asks for a path below one host. Here the last part of that path, the object's name,
//! is looked up, and the request goes to the object's own URL instead; ranges, retries and errors are those of every store.

use std::collections::HashMap;
use std::sync::Arc;

use http::Uri;
use object_store::DynObjectStore;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService,
};
use object_store::http::HttpBuilder;

use crate::error::{Error, Result};
use crate::id::Digest;
use crate::remote::credentials::Unavailable;
use crate::remote::explain::explain;
use crate::remote::transfer::{Client, Traffic};
use crate::remote_url::RemoteUrl;

/// Stands for all the hosts; nobody is ever asked for it.
const NOWHERE: &str = "https://links.invalid";

/// `url` is the store that they belong to, for messages.
pub(in crate::remote) fn open(
    url: &RemoteUrl,
    links: &HashMap<Digest, String>,
    traffic: &Traffic,
) -> Result<Arc<DynObjectStore>> {
    let mut uris = Uris::default();
    for (digest, link) in links {
        let web = url::Url::parse(link).is_ok_and(|link| matches!(link.scheme(), "http" | "https"));
        let uri: Option<Uri> = link.parse().ok().filter(|_| web);
        // The link itself may be a secret.
        let unusable = || Error::new(format!("{url}: the URL of object {} cannot be used", digest.short()));
        uris.0.insert(digest.to_hex(), uri.ok_or_else(unusable)?);
    }
    let store = HttpBuilder::new()
        .with_url(NOWHERE)
        .with_retry(super::retry())
        .with_http_connector(Connector { uris: Arc::new(uris), traffic: traffic.clone() })
        .build()
        .map_err(|error| explain(url, "cannot be used", &error))?;
    Ok(Arc::new(store))
}

/// URLs by the names of the objects that they lead to.
#[derive(Default)]
struct Uris(HashMap<String, Uri>);

// The URLs are secrets.
impl std::fmt::Debug for Uris {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uris").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Connector {
    uris: Arc<Uris>,
    traffic: Traffic,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = super::plain_client(false, None)?;
        let client = Client::new(client, self.traffic.clone());
        Ok(HttpClient::new(ByLink { uris: Arc::clone(&self.uris), client }))
    }
}

#[derive(Debug)]
struct ByLink {
    uris: Arc<Uris>,
    client: Client,
}

#[async_trait::async_trait]
impl HttpService for ByLink {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Some(uri) = self.uris.0.get(name) else {
            return Err(final_error(Error::new("no URL is known for it")));
        };
        *request.uri_mut() = uri.clone();
        let answer = self.client.call(request).await?;
        // Where the credentials that signed it expired before it did, S3 answers 400.
        if matches!(answer.status().as_u16(), 400 | 401 | 403) {
            let line = Error::new(format!("the server answers {} to its URL", answer.status()));
            return Err(final_error(
                line.hint("a presigned URL holds for a limited time; resolve again with --presign"),
            ));
        }
        Ok(answer)
    }
}

/// An error that is not worth another try.
fn final_error(error: Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Unavailable(error))
}
