//! Asking a token service or a metadata server: small requests, small answers, no redirects.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, Request, RequestBuilder, Response};
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::human;
use crate::remote::connect;
use crate::remote_url;

/// No token is longer; longer answers are not read to their end.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;
/// How long a metadata server is waited for. Where there is one it answers in milliseconds; elsewhere nobody answers.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
/// How long a token service is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The type of a body that [`form`] makes.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A form's body.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A client for token services.
pub(super) fn client() -> Result<Client> {
    connect::http_client(false)
        .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))
}

/// A client for metadata servers: what is on this machine or beside it is never behind a proxy.
pub(super) fn metadata_client() -> reqwest::Result<Client> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .no_proxy()
        .connect_timeout(METADATA_PATIENCE)
        .read_timeout(METADATA_PATIENCE)
        .build()
}

/// Clients for services wherever they are.
pub(super) struct Clients {
    far: Client,
    beside: Client,
}

impl Clients {
    pub(super) fn new() -> Result<Clients> {
        let failed = |error: reqwest::Error| Error::new("cannot start the transfer threads").caused_by(error);
        Ok(Clients { far: client()?, beside: metadata_client().map_err(failed)? })
    }

    /// Whoever answers on this machine is not asked through a proxy.
    pub(super) fn of(&self, url: &Url) -> &Client {
        if is_beside(url) { &self.beside } else { &self.far }
    }
}

/// Whether a URL leads to this machine or its metadata server, where plain http is the rule.
pub(super) fn is_beside(url: &Url) -> bool {
    let is_beside = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_link_local(),
        // The metadata server of AWS by IPv6.
        Some(Host::Ipv6(ip)) => IpAddr::from([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]) == ip,
        Some(Host::Domain(name)) => name == "metadata.google.internal",
        None => false,
    };
    is_beside || remote_url::is_here(url)
}

/// A URL to which a secret may be sent: https, or on this machine.
pub(super) fn secure(text: &str, what: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" || is_beside(url));
    url.ok_or_else(|| {
        Error::new(format!("{what}: `{}` is not an https URL", human::escape(&text_of(text))))
            .hint("secrets go to https URLs and to this machine only; correct it where it is set")
    })
}

fn text_of(text: &str) -> String {
    remote_url::redact(text)
}

/// As [`ask`], with a request that is still to be built.
pub(super) async fn send(client: &Client, request: RequestBuilder, what: &str) -> Result<Vec<u8>> {
    let request = request.build().map_err(|error| {
        Error::new(format!("{what}: cannot be asked"))
            .caused_by(human::escape(&error.without_url().to_string()))
    })?;
    ask(client, request, what).await
}

/// Sends a request and reads the whole answer. Another status than success is an error, with what a JSON answer says about it.
pub(super) async fn ask(client: &Client, request: Request, what: &str) -> Result<Vec<u8>> {
    let cannot =
        |error: reqwest::Error| Error::new(what.to_owned()).caused_by(innermost(&error.without_url()));
    let answer = tokio::time::timeout(PATIENCE, client.execute(request)).await;
    let answer = answer
        .map_err(|_| Error::new(format!("{what}: no answer within {} s", PATIENCE.as_secs())))?
        .map_err(cannot)?;
    let status = answer.status();
    let bytes = read(answer).await.map_err(cannot)?;
    let bytes = bytes.ok_or_else(|| Error::new(format!("{what}: the answer is too large")))?;
    if !status.is_success() {
        let said = said(&bytes).map(|said| format!(": {}", human::escape(&said))).unwrap_or_default();
        return Err(Error::new(format!("{what}: {status}{said}")));
    }
    Ok(bytes)
}

/// An answer's bytes, if they are not too many.
pub(super) async fn read(mut answer: Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// The error's last cause, which names what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    human::escape(&innermost.to_string())
}

/// The usual fields in which token services say what is wrong.
fn said(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let nested = || text(&value["error"]["message"]);
    let said = match (text(&value["error"]), text(&value["error_description"])) {
        (Some(error), Some(description)) => Some(format!("{error}: {description}")),
        (error, description) => error.or(description),
    };
    let said = said.or_else(nested)?;
    Some(said.lines().next().unwrap_or_default().chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_over_https_or_stay_here() {
        for good in
            ["https://sts.googleapis.com/v1/token", "http://127.0.0.1:9/x", "http://169.254.169.254/x"]
        {
            assert!(secure(good, "x").is_ok(), "{good}");
        }
        for bad in ["http://sts.example/x", "http://127.0.0.1.example/", "file:///etc/passwd", "", "x"] {
            assert!(secure(bad, "x").is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_service_says_is_told() {
        assert_eq!(
            said(br#"{"error":"invalid_grant","error_description":"expired"}"#).unwrap(),
            "invalid_grant: expired"
        );
        assert_eq!(said(br#"{"error":{"code":403,"message":"denied"}}"#).unwrap(), "denied");
        assert_eq!(said(b"<html>"), None);
    }
}
