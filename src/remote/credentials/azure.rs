//! Credentials for Azure Blob Storage: keys, SAS, service principals, workload and managed identities, and the Azure CLI.

use std::time::{Duration, SystemTime};

use object_store::azure::{AzureCredential, AzureCredentialProvider};
use serde::Deserialize;

use super::google::Token;
use super::{Fresh, Renewed, Source, web};
use crate::error::{Error, Result};
use crate::human;
use crate::remote::Access;
use crate::remote_url::RemoteUrl;

const RESOURCE: &str = "https://storage.azure.com";
/// The metadata server of a machine in Azure.
const METADATA_HOST: &str = "http://169.254.169.254";

/// How to log in.
pub(in crate::remote) enum Login {
    /// Not at all.
    Anonymous,
    /// With a key of the storage account.
    AccessKey(String),
    /// With a shared access signature.
    Sas(String),
    /// As an application with a secret.
    ClientSecret { tenant: String, client: String, secret: String, authority: Option<String> },
    /// As an application, with a token of another identity provider from a file.
    WorkloadIdentity { tenant: String, client: String, token_file: String, authority: Option<String> },
    /// With tokens that are renewed.
    Provider(AzureCredentialProvider),
}

/// Finds out how to log in.
pub(in crate::remote) async fn login(url: &RemoteUrl, account: &str, access: &Access) -> Result<Login> {
    if access.anonymous {
        return Ok(Login::Anonymous);
    }
    let get = |name: &str| access.variable(name).map(str::to_owned);
    let text = get("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let of_text = |name: &str| connection_field(&text, name).map(str::to_owned);
    // A key or signature is for one account, and is never sent to another.
    let stated = get("AZURE_STORAGE_ACCOUNT").or_else(|| of_text("AccountName"));
    if stated.is_none_or(|stated| stated == account) {
        if let Some(key) = get("AZURE_STORAGE_KEY").or_else(|| of_text("AccountKey")) {
            return Ok(Login::AccessKey(key));
        }
        if let Some(token) = get("AZURE_STORAGE_SAS_TOKEN").or_else(|| of_text("SharedAccessSignature")) {
            return Ok(Login::Sas(token));
        }
    }
    let authority = get("AZURE_AUTHORITY_HOST");
    if let Some(authority) = &authority {
        web::secure(authority, "AZURE_AUTHORITY_HOST").map_err(|error| error.about(url.to_string()))?;
    }
    if let (Some(tenant), Some(client)) = (get("AZURE_TENANT_ID"), get("AZURE_CLIENT_ID")) {
        if let Some(token_file) = get("AZURE_FEDERATED_TOKEN_FILE") {
            return Ok(Login::WorkloadIdentity { tenant, client, token_file, authority });
        }
        if let Some(secret) = get("AZURE_CLIENT_SECRET") {
            return Ok(Login::ClientSecret { tenant, client, secret, authority });
        }
    }
    let app_service = get("IDENTITY_ENDPOINT").zip(get("IDENTITY_HEADER"));
    let provider: AzureCredentialProvider = match app_service {
        Some((endpoint, secret)) => {
            let identity = ManagedIdentity::new(endpoint, Some(secret), get("AZURE_CLIENT_ID"))?;
            Renewed::start(identity).await.map_err(|error| error.about(url.to_string()))?
        }
        None => machine_or_person(url, access).await?,
    };
    Ok(Login::Provider(provider))
}

/// A person who logged in with the Azure CLI, else the machine's own identity.
async fn machine_or_person(url: &RemoteUrl, access: &Access) -> Result<AzureCredentialProvider> {
    let nothing = |reason: Option<Error>| {
        let error = match reason {
            Some(reason) => reason.about(format!("{url}: no Azure credentials were found")),
            None => Error::new(format!("{url}: no Azure credentials were found")),
        };
        error.hint("run az login, or set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN")
    };
    let person = match Renewed::start(AzureCli).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let client = access.variable("AZURE_CLIENT_ID").map(str::to_owned);
    let host = access.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or(METADATA_HOST);
    let endpoint = format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/'));
    match Renewed::start(ManagedIdentity::new(endpoint, None, client)?).await {
        Ok(found) => Ok(found),
        Err(_) => Err(nothing(Some(person).filter(|error| !error.is_io(std::io::ErrorKind::NotFound)))),
    }
}

/// A field of a connection string: `Name=value;Name=value`.
pub fn connection_field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let fields = text.split(';').filter_map(|field| field.trim().split_once('='));
    fields.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The identity that Azure gave to a machine, container or function.
struct ManagedIdentity {
    client: reqwest::Client,
    /// Endpoint and secret of an App Service; or the metadata server, without one.
    endpoint: String,
    secret: Option<String>,
    client_id: Option<String>,
}

// Credentials must never be printed, not even by accident.
impl std::fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagedIdentity").finish_non_exhaustive()
    }
}

impl ManagedIdentity {
    fn new(endpoint: String, secret: Option<String>, client_id: Option<String>) -> Result<ManagedIdentity> {
        let client = web::metadata_client()
            .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
        Ok(ManagedIdentity { client, endpoint, secret, client_id })
    }
}

impl Source for ManagedIdentity {
    type Credential = AzureCredential;

    async fn fetch(&self) -> Result<Fresh<AzureCredential>> {
        let what = "managed identity";
        let (version, header) = match &self.secret {
            Some(secret) => ("2019-08-01", ("x-identity-header", secret.as_str())),
            None => ("2018-02-01", ("metadata", "true")),
        };
        let mut url = url::Url::parse(&self.endpoint).map_err(|error| Error::new(what).caused_by(error))?;
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", RESOURCE);
        if let Some(client_id) = &self.client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        let request = self.client.get(url).header(header.0, header.1).build();
        let request = request.map_err(|error| Error::new(what).caused_by(error.without_url()))?;
        let bytes = web::ask(&self.client, request, what).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| Error::new(format!("{what}: the answer holds no token")))?;
        // An App Service gives only the time, as seconds since 1970.
        #[derive(Deserialize)]
        struct At {
            expires_on: String,
        }
        let at = || {
            let at: At = serde_json::from_slice(&bytes).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at.expires_on.parse().ok()?))
        };
        let expires = token.expires().or_else(at);
        Ok(Fresh { credential: AzureCredential::BearerToken(token.access_token), expires })
    }
}

/// How long `az` is waited for. It starts slowly, and asks by the network.
const CLI_PATIENCE: Duration = Duration::from_secs(30);

/// Whoever logged in with `az login`.
#[derive(Debug)]
struct AzureCli;

impl Source for AzureCli {
    type Credential = AzureCredential;

    async fn fetch(&self) -> Result<Fresh<AzureCredential>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "accessToken")]
            access_token: String,
            /// Seconds since 1970; versions before 2.54 do not tell, and their tokens hold for an hour at most.
            expires_on: Option<i64>,
        }
        let what = "az account get-access-token";
        let mut az = tokio::process::Command::new("az");
        az.args(["account", "get-access-token", "--output", "json", "--resource", RESOURCE])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(CLI_PATIENCE, az.output()).await;
        let output = output
            .map_err(|_| Error::new(format!("{what}: gave no token within {} s", CLI_PATIENCE.as_secs())))?
            .map_err(|error| Error::new(what).caused_by(error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").to_owned();
            return Err(Error::new(format!("{what}: {}", human::escape(&said))));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::new(format!("{what}: the answer holds no token")))?;
        let at = answer.expires_on.and_then(|at| u64::try_from(at).ok());
        let expires = match at {
            Some(at) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)),
            // Asked for again soon; the CLI keeps the token itself.
            None => SystemTime::now().checked_add(Duration::from_secs(300)),
        };
        Ok(Fresh { credential: AzureCredential::BearerToken(answer.access_token), expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_taken_apart() {
        let text =
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a+b/c==;BlobEndpoint=https://x/y;";
        assert_eq!(connection_field(text, "accountname"), Some("acme"));
        assert_eq!(connection_field(text, "AccountKey"), Some("a+b/c=="));
        assert_eq!(connection_field(text, "BlobEndpoint"), Some("https://x/y"));
        assert_eq!(connection_field("", "AccountKey"), None);
    }
}
