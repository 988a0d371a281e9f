//! Workload identity federation: a token of another identity provider, such as a CI system's, is exchanged for one of
//! Google's (RFC 8693). The format of the file is Google's AIP-4117.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use url::Url;

use super::google::Token;
use super::impersonation::{SCOPE, ServiceAccount};
use super::subject::{self, Purpose, Subject};
use super::web::{self, Clients};
use super::{Fresh, Source};
use crate::error::{Error, Result};
use crate::remote::Access;

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
    credential_source: subject::Fields,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<String>,
}

#[derive(Deserialize)]
struct Impersonation {
    token_lifetime_seconds: Option<u64>,
}

/// An account of another identity provider.
pub(super) struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    subject: Subject,
    token_url: Url,
    /// Name and password of the client, where the token service wants them.
    login: Option<(String, String)>,
    impersonated: Option<ServiceAccount>,
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
    pub(super) fn parse(text: &str, access: &Access) -> Result<ExternalAccount> {
        let file: File = serde_json::from_str(text)
            // The parser's own words could quote a secret.
            .map_err(|_| {
                Error::new("not an external_account that can be used")
                    .hint("make it again: gcloud iam workload-identity-pools create-cred-config")
            })?;
        let lifetime =
            file.service_account_impersonation.as_ref().and_then(|found| found.token_lifetime_seconds);
        let impersonated = file
            .service_account_impersonation_url
            .as_deref()
            .map(|url| ServiceAccount::new(url, Vec::new(), lifetime))
            .transpose()?;
        Ok(ExternalAccount {
            audience: file.audience,
            subject_token_type: file.subject_token_type,
            subject: Subject::new(file.credential_source, access)?,
            token_url: web::secure(&file.token_url, "token_url")?,
            login: file.client_id.zip(file.client_secret),
            impersonated,
            clients: Clients::new()?,
        })
    }

    /// The service account whose tokens are used, if it is one.
    pub(super) fn impersonated(&self) -> Option<String> {
        self.impersonated.as_ref()?.email()
    }

    async fn subject_token(&self) -> Result<String> {
        let email = self.impersonated();
        let purpose = Purpose {
            audience: &self.audience,
            token_type: &self.subject_token_type,
            email: email.as_deref(),
        };
        self.subject.token(&self.clients, &purpose).await
    }

    async fn exchange(&self, subject_token: &str) -> Result<Token> {
        let client = self.clients.of(&self.token_url);
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &self.audience),
            ("scope", SCOPE),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", subject_token),
            ("subject_token_type", &self.subject_token_type),
        ];
        let mut request =
            client.post(self.token_url.clone()).header("content-type", web::FORM).body(web::form(&fields));
        if let Some((id, secret)) = &self.login {
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
