//! Workload identity federation: a token of another identity provider, such as a CI system's, is exchanged for one of
//! Google's (RFC 8693). The format of the file is Google's AIP-4117.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use url::Url;

use super::google::Token;
use super::impersonation::{SCOPE, ServiceAccount};
use super::web::{self, Clients};
use super::{Fresh, Source};
use crate::error::{Context, Error, Result};

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
    impersonated: Option<ServiceAccount>,
    subject_url: Option<Url>,
    clients: Clients,
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
        let lifetime =
            file.service_account_impersonation.as_ref().and_then(|found| found.token_lifetime_seconds);
        let impersonated = file
            .service_account_impersonation_url
            .as_deref()
            .map(|url| ServiceAccount::new(url, Vec::new(), lifetime))
            .transpose()?;
        let subject_url = file.credential_source.url.as_deref();
        let subject_url = subject_url.map(|url| web::secure(url, "credential_source.url")).transpose()?;
        Ok(ExternalAccount {
            token_url: web::secure(&file.token_url, "token_url")?,
            impersonated,
            subject_url,
            clients: Clients::new()?,
            file,
        })
    }

    /// The service account whose tokens are used, if it is one.
    pub(super) fn impersonated(&self) -> Option<String> {
        self.impersonated.as_ref()?.email()
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
                let client = self.clients.of(url);
                let mut request = client.get(url.clone());
                for (name, value) in &source.headers {
                    request = request.header(name, value);
                }
                web::send(client, request, "identity provider").await?
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
        let client = self.clients.of(&self.token_url);
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
        let bytes = web::send(client, request, "token service of Google Cloud").await?;
        serde_json::from_slice(&bytes)
            .map_err(|_| Error::new("token service of Google Cloud: the answer holds no token"))
    }
}

impl Source for ExternalAccount {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Fresh<GcpCredential>> {
        let fetched = async {
            let token = self.exchange(&self.subject_token().await?).await?;
            match &self.impersonated {
                Some(account) => account.token(&self.clients, &token.access_token).await,
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
