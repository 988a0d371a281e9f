//! Tokens of a service account for somebody who may act as it: `generateAccessToken` of Google's IAM Credentials API.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::google::AuthorizedUser;
use super::web::{self, Clients};
use super::{ExternalAccount, Fresh, Source};
use crate::error::{Error, Result};
use crate::remote::Access;

pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long a token holds unless the file says otherwise, in seconds.
const LIFETIME: u64 = 3600;

/// A service account that somebody acts as.
pub(super) struct ServiceAccount {
    url: Url,
    delegates: Vec<String>,
    lifetime: u64,
}

impl ServiceAccount {
    /// `url` ends in `/serviceAccounts/EMAIL:generateAccessToken`; `delegates` are accounts on the way, by resource name.
    pub(super) fn new(url: &str, delegates: Vec<String>, lifetime: Option<u64>) -> Result<ServiceAccount> {
        let url = web::secure(url, "service_account_impersonation_url")?;
        Ok(ServiceAccount { url, delegates, lifetime: lifetime.unwrap_or(LIFETIME) })
    }

    /// Its address.
    pub(super) fn email(&self) -> Option<String> {
        let email = self.url.path().split_once("/serviceAccounts/")?.1.split_once(':')?.0;
        Some(email.to_owned())
    }

    /// A token of the account for whoever has `token`.
    pub(super) async fn token(&self, clients: &Clients, token: &str) -> Result<Fresh<GcpCredential>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            access_token: String,
            expire_time: String,
        }
        const WHAT: &str = "impersonation of the service account";
        let mut body = json!({ "scope": [SCOPE], "lifetime": format!("{}s", self.lifetime) });
        if !self.delegates.is_empty() {
            body["delegates"] = json!(self.delegates);
        }
        let client = clients.of(&self.url);
        let request = client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .bearer_auth(token)
            .body(body.to_string());
        let bytes = web::send(client, request, WHAT).await?;
        let unreadable = || Error::new(format!("{WHAT}: the answer holds no token"));
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        let expires = DateTime::parse_from_rfc3339(&answer.expire_time).map_err(|_| unreadable())?;
        let seconds = u64::try_from(expires.timestamp()).map_err(|_| unreadable())?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Fresh { credential: GcpCredential { bearer: answer.access_token }, expires })
    }
}

/// What `gcloud auth application-default login --impersonate-service-account` leaves.
pub(super) struct Impersonated {
    source: Origin,
    account: ServiceAccount,
    clients: Clients,
}

/// Whoever acts as the account.
enum Origin {
    User(AuthorizedUser),
    External(Box<ExternalAccount>),
}

// Credentials must never be printed, not even by accident.
impl std::fmt::Debug for Impersonated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Impersonated").finish_non_exhaustive()
    }
}

impl Impersonated {
    /// Reads a credentials file.
    pub(super) fn parse(text: &str, access: &Access) -> Result<Impersonated> {
        #[derive(Deserialize)]
        struct File {
            service_account_impersonation_url: String,
            #[serde(default)]
            delegates: Vec<String>,
            source_credentials: serde_json::Value,
        }
        let file: File = serde_json::from_str(text)
            // The parser's own words could quote a secret.
            .map_err(|_| {
                Error::new("not an impersonated_service_account that can be used").hint(
                    "log in again: gcloud auth application-default login --impersonate-service-account=EMAIL",
                )
            })?;
        let text = file.source_credentials.to_string();
        let source = match file.source_credentials["type"].as_str() {
            Some("authorized_user") => Origin::User(AuthorizedUser::parse(&text)?),
            Some("external_account") => Origin::External(Box::new(ExternalAccount::parse(&text, access)?)),
            _ => {
                return Err(Error::new("its source_credentials are of a kind that is not supported")
                    .hint("authorized_user and external_account are"));
            }
        };
        Ok(Impersonated {
            source,
            account: ServiceAccount::new(&file.service_account_impersonation_url, file.delegates, None)?,
            clients: Clients::new()?,
        })
    }

    /// The account that is acted as.
    pub(super) fn email(&self) -> Option<String> {
        self.account.email()
    }
}

impl Source for Impersonated {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Fresh<GcpCredential>> {
        let own = match &self.source {
            Origin::User(user) => user.fetch().await?,
            Origin::External(account) => account.fetch().await?,
        };
        self.account.token(&self.clients, &own.credential.bearer).await.map_err(|error| {
            error.hint("whoever is logged in needs the role Service Account Token Creator on the account")
        })
    }
}
