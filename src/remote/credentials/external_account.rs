//! Workload identity federation: a token of another identity provider, such as a CI system's, is exchanged for one of
//! Google's (RFC 8693). The format of the file is Google's AIP-4117.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::DateTime;
use object_store::gcp::GcpCredential;
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use url::Url;

use super::google::Token;
use super::{Fresh, Source, web};
use crate::error::{Context, Error, Result};
use crate::human;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const HOUR: u64 = 3600;

/// What the credentials file holds.
#[derive(Deserialize)]
struct File {
    audience: String,
    subject_token_type: String,
    token_url: String,
    #[serde(default)]
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Option<Impersonation>,
    credential_source: SubjectSource,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<String>,
}

#[derive(Deserialize)]
struct Impersonation {
    token_lifetime_seconds: Option<u64>,
}

/// Where the other provider's token is.
#[derive(Deserialize)]
struct SubjectSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
}

#[derive(Deserialize, Default)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// An account of another identity provider.
pub(super) struct ExternalAccount {
    file: File,
    token_url: Url,
    impersonation_url: Option<Url>,
    subject_url: Option<Url>,
    client: Client,
    metadata: Client,
}

// Credentials must never be printed, not even by accident.
impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").finish_non_exhaustive()
    }
}

impl ExternalAccount {
    /// Reads a credentials file. Every place that a secret will go to is checked here.
    pub(super) fn parse(text: &str) -> Result<ExternalAccount> {
        let file: File = serde_json::from_str(text)
            // The parser's own words could quote a secret.
            .map_err(|_| Error::new("not an external_account that can be used"))?;
        if file.credential_source.file.is_some() == file.credential_source.url.is_some() {
            return Err(Error::new("its credential_source is neither a file nor a URL")
                .hint("sources that run programs or sign requests to AWS are not supported"));
        }
        let optional =
            |url: &Option<String>, what: &str| url.as_deref().map(|url| web::secure(url, what)).transpose();
        let failed = |error: reqwest::Error| Error::new("cannot start the transfer threads").caused_by(error);
        Ok(ExternalAccount {
            token_url: web::secure(&file.token_url, "token_url")?,
            impersonation_url: optional(
                &file.service_account_impersonation_url,
                "service_account_impersonation_url",
            )?,
            subject_url: optional(&file.credential_source.url, "credential_source.url")?,
            client: web::client()?,
            metadata: web::metadata_client().map_err(failed)?,
            file,
        })
    }

    /// The service account whose tokens are used, if it is one.
    pub(super) fn impersonated(&self) -> Option<String> {
        let path = self.impersonation_url.as_ref()?.path();
        let email = path.split_once("/serviceAccounts/")?.1.split_once(':')?.0;
        Some(email.to_owned())
    }

    /// Whoever answers on this machine is not asked through a proxy.
    fn client_for(&self, url: &Url) -> &Client {
        if web::is_beside(url) { &self.metadata } else { &self.client }
    }

    /// The other provider's token. It is read anew each time, because it is short-lived itself.
    async fn subject_token(&self) -> Result<String> {
        let source = &self.file.credential_source;
        let bytes = match (&source.file, &self.subject_url) {
            (Some(path), _) => {
                let size = std::fs::metadata(path).context(path, "read")?.len();
                if size > web::MAX_ANSWER as u64 {
                    return Err(Error::new(format!("{}: too large for a token", path.display())));
                }
                std::fs::read(path).context(path, "read")?
            }
            (None, Some(url)) => {
                let client = self.client_for(url);
                let mut request = client.get(url.clone());
                for (name, value) in &source.headers {
                    request = request.header(name, value);
                }
                send(client, request, "identity provider").await?
            }
            (None, None) => return Err(Error::new("its credential_source is neither a file nor a URL")),
        };
        let unreadable = || Error::new("credential_source: no token in what it gives");
        if source.format.kind.as_deref() != Some("json") {
            let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
            return Some(text.trim().to_owned()).filter(|text| !text.is_empty()).ok_or_else(unreadable);
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        let field = source.format.subject_token_field_name.as_deref().unwrap_or("access_token");
        value[field].as_str().map(str::to_owned).ok_or_else(unreadable)
    }

    async fn exchange(&self, subject_token: &str) -> Result<Token> {
        let client = self.client_for(&self.token_url);
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &self.file.audience),
            ("scope", SCOPE),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", subject_token),
            ("subject_token_type", &self.file.subject_token_type),
        ];
        let mut request =
            client.post(self.token_url.clone()).header("content-type", web::FORM).body(web::form(&fields));
        if let (Some(id), Some(secret)) = (&self.file.client_id, &self.file.client_secret) {
            let login = BASE64_STANDARD.encode(format!("{id}:{secret}"));
            request = request.header("authorization", format!("Basic {login}"));
        }
        let bytes = send(client, request, "token service of Google Cloud").await?;
        serde_json::from_slice(&bytes)
            .map_err(|_| Error::new("token service of Google Cloud: the answer holds no token"))
    }

    async fn impersonate(&self, url: &Url, token: &Token) -> Result<Fresh<GcpCredential>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            access_token: String,
            expire_time: String,
        }
        let lifetime =
            self.file.service_account_impersonation.as_ref().and_then(|found| found.token_lifetime_seconds);
        let body = json!({ "scope": [SCOPE], "lifetime": format!("{}s", lifetime.unwrap_or(HOUR)) });
        let client = self.client_for(url);
        let request = client
            .post(url.clone())
            .header("content-type", "application/json")
            .bearer_auth(&token.access_token)
            .body(body.to_string());
        let bytes = send(client, request, "impersonation of the service account").await?;
        let unreadable = || Error::new("impersonation of the service account: the answer holds no token");
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        let expires = DateTime::parse_from_rfc3339(&answer.expire_time).map_err(|_| unreadable())?;
        let seconds = u64::try_from(expires.timestamp()).map_err(|_| unreadable())?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Fresh { credential: GcpCredential { bearer: answer.access_token }, expires })
    }
}

async fn send(client: &Client, request: RequestBuilder, what: &str) -> Result<Vec<u8>> {
    let request = request.build().map_err(|error| {
        Error::new(format!("{what}: cannot be asked"))
            .caused_by(human::escape(&error.without_url().to_string()))
    })?;
    web::ask(client, request, what).await
}

impl Source for ExternalAccount {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Fresh<GcpCredential>> {
        let fetched = async {
            let token = self.exchange(&self.subject_token().await?).await?;
            match &self.impersonation_url {
                Some(url) => self.impersonate(url, &token).await,
                None => {
                    let expires = token.expires();
                    Ok(Fresh { credential: GcpCredential { bearer: token.access_token }, expires })
                }
            }
        };
        fetched.await.map_err(|error: Error| {
            error
                .about("workload identity federation")
                .hint("check the credentials file, and whether the identity provider's token is still valid")
        })
    }
}
