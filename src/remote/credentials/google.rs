//! Credentials for Google Cloud Storage: application-default credentials in all their forms.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::StaticCredentialProvider;
use object_store::gcp::{
    GcpCredential, GcpCredentialProvider, GcpSigningCredential, GcpSigningCredentialProvider,
};
use serde::Deserialize;

use super::ExternalAccount;
use super::impersonation::Impersonated;
use super::{Fresh, Renewed, Source, web};
use crate::error::{Context, Error, Result};
use crate::human;
use crate::remote::Access;
use crate::remote_url::RemoteUrl;

/// No credentials file is larger.
const MAX_FILE: u64 = 256 * 1024;
const METADATA_HOST: &str = "metadata.google.internal";
/// Google's token service for people.
const USER_TOKENS: &str = "https://oauth2.googleapis.com/token";
const NO_CREDENTIALS: &str =
    "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a credentials file";

/// How to log in.
pub(in crate::remote) enum Login {
    /// Not at all.
    Anonymous,
    /// With the content of a key file.
    ServiceAccountKey(String),
    /// With tokens that are renewed; and, where URLs can be signed, the account that signs.
    Provider(GcpCredentialProvider, Option<GcpSigningCredentialProvider>),
}

/// The part of a credentials file that says what it is.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// Finds out how to log in: a token, a credentials file, what gcloud left, or the metadata server.
pub(in crate::remote) async fn login(url: &RemoteUrl, access: &Access) -> Result<Login> {
    if access.anonymous {
        return Ok(Login::Anonymous);
    }
    if let Some(token) = access.variable("GOOGLE_OAUTH_ACCESS_TOKEN") {
        let credential = GcpCredential { bearer: token.to_owned() };
        return Ok(Login::Provider(Arc::new(StaticCredentialProvider::new(credential)), None));
    }
    let stated = access.variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
    let file = match stated {
        Some(file) => Some(file),
        None => well_known(access).filter(|file| file.exists()),
    };
    let found = match file {
        Some(file) => from_file(&file, access).await,
        None => metadata(access).await,
    };
    found.map_err(|error| error.about(url.to_string()))
}

/// Where gcloud keeps application-default credentials.
fn well_known(access: &Access) -> Option<PathBuf> {
    let dir = match access.variable("CLOUDSDK_CONFIG") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(access.variable("HOME")?).join(".config/gcloud"),
    };
    Some(dir.join("application_default_credentials.json"))
}

async fn from_file(file: &Path, access: &Access) -> Result<Login> {
    let text = read(file)?;
    let shown = file.display();
    let parsed: Kind = serde_json::from_str(&text).map_err(|_| {
        Error::new(format!("{shown}: not a credentials file of Google Cloud")).hint(NO_CREDENTIALS)
    })?;
    match parsed.kind.as_str() {
        "service_account" => Ok(Login::ServiceAccountKey(text)),
        "authorized_user" => {
            let user = AuthorizedUser::parse(&text).map_err(|error| error.about(shown.to_string()))?;
            Ok(Login::Provider(Renewed::start(user).await?, None))
        }
        "external_account" => {
            let account =
                ExternalAccount::parse(&text, access).map_err(|error| error.about(shown.to_string()))?;
            let signing = account.impersonated().map(signer);
            Ok(Login::Provider(Renewed::start(account).await?, signing))
        }
        "impersonated_service_account" => {
            let account =
                Impersonated::parse(&text, access).map_err(|error| error.about(shown.to_string()))?;
            let signing = account.email().map(signer);
            Ok(Login::Provider(Renewed::start(account).await?, signing))
        }
        other => Err(Error::new(format!(
            "{shown}: credentials of the kind `{}` are not supported",
            human::escape(other)
        ))
        .hint("service_account, authorized_user, impersonated_service_account and external_account are")),
    }
}

/// A service account that signs by a request to Google.
fn signer(email: String) -> GcpSigningCredentialProvider {
    Arc::new(StaticCredentialProvider::new(GcpSigningCredential { email, private_key: None }))
}

fn read(file: &Path) -> Result<String> {
    let found = std::fs::metadata(file).context(file, "read")?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(Error::new(format!("{}: not a credentials file of Google Cloud", file.display()))
            .hint(NO_CREDENTIALS));
    }
    std::fs::read_to_string(file).context(file, "read")
}

async fn metadata(access: &Access) -> Result<Login> {
    let host = access.variable("GCE_METADATA_HOST").unwrap_or(METADATA_HOST);
    let tokens = Renewed::start(MetadataServer::new(host)?).await?;
    Ok(Login::Provider(tokens, Some(Renewed::later(MachineSigner(MetadataServer::new(host)?)))))
}

/// The metadata server of a machine in Google's cloud.
#[derive(Debug)]
struct MetadataServer {
    host: String,
    client: reqwest::Client,
}

impl MetadataServer {
    fn new(host: &str) -> Result<MetadataServer> {
        let client = web::metadata_client()
            .map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
        Ok(MetadataServer { host: host.to_owned(), client })
    }
}

/// A token as Google's and Microsoft's services give it.
#[derive(Deserialize)]
pub(super) struct Token {
    pub(super) access_token: String,
    /// Seconds from now; Microsoft's metadata server writes them as text.
    #[serde(default)]
    pub(super) expires_in: serde_json::Value,
}

impl Token {
    pub(super) fn expires(&self) -> Option<SystemTime> {
        let seconds = match &self.expires_in {
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        };
        seconds.and_then(|seconds| SystemTime::now().checked_add(Duration::from_secs(seconds)))
    }
}

impl MetadataServer {
    /// What the server says about the machine's service account.
    async fn ask(&self, what: &str) -> Result<Vec<u8>> {
        let nothing = || Error::new("no Google Cloud credentials were found").hint(NO_CREDENTIALS);
        let url = format!("http://{}/computeMetadata/v1/instance/service-accounts/default/{what}", self.host);
        let request = self.client.get(url).header("Metadata-Flavor", "Google").build();
        let request = request.map_err(|_| nothing())?;
        web::ask(&self.client, request, "metadata server").await.map_err(|_| nothing())
    }
}

/// The machine's service account, which signs by a request to Google.
#[derive(Debug)]
struct MachineSigner(MetadataServer);

impl Source for MachineSigner {
    type Credential = GcpSigningCredential;

    async fn fetch(&self) -> Result<Fresh<GcpSigningCredential>> {
        let email = String::from_utf8(self.0.ask("email").await?)
            .map_err(|_| Error::new("metadata server: the account's name is not text"))?;
        let credential = GcpSigningCredential { email: email.trim().to_owned(), private_key: None };
        Ok(Fresh { credential, expires: None })
    }
}

/// For credentials that cannot sign: without this, object_store would ask a metadata server for somebody who can.
pub(in crate::remote) fn cannot_sign(url: &RemoteUrl) -> GcpSigningCredentialProvider {
    Renewed::later(NoSigner(url.to_string()))
}

#[derive(Debug)]
struct NoSigner(String);

impl Source for NoSigner {
    type Credential = GcpSigningCredential;

    async fn fetch(&self) -> Result<Fresh<GcpSigningCredential>> {
        Err(Error::new(format!("{}: cannot be signed for: these credentials cannot sign", self.0))
            .hint("a service account can: use its key, or federation with it"))
    }
}

/// Somebody who logged in with gcloud.
pub(super) struct AuthorizedUser {
    login: UserFile,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct UserFile {
    client_id: String,
    client_secret: String,
    refresh_token: String,
}

// Credentials must never be printed, not even by accident.
impl std::fmt::Debug for AuthorizedUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizedUser").finish_non_exhaustive()
    }
}

impl AuthorizedUser {
    /// Reads a credentials file.
    pub(super) fn parse(text: &str) -> Result<AuthorizedUser> {
        // The parser's own words could quote a secret.
        let login = serde_json::from_str(text)
            .map_err(|_| Error::new("not an authorized_user that can be used").hint(NO_CREDENTIALS))?;
        Ok(AuthorizedUser { login, client: web::client()? })
    }
}

impl Source for AuthorizedUser {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Fresh<GcpCredential>> {
        let what = "the login of gcloud cannot be renewed";
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.login.client_id),
            ("client_secret", &self.login.client_secret),
            ("refresh_token", &self.login.refresh_token),
        ];
        let request =
            self.client.post(USER_TOKENS).header("content-type", web::FORM).body(web::form(&fields));
        let request = request.build().map_err(|_| Error::new(what))?;
        let again = |error: Error| error.hint("log in again: gcloud auth application-default login");
        let bytes = web::ask(&self.client, request, what).await.map_err(again)?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| Error::new(format!("{what}: the answer holds no token")))?;
        let expires = token.expires();
        Ok(Fresh { credential: GcpCredential { bearer: token.access_token }, expires })
    }
}

impl Source for MetadataServer {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Fresh<GcpCredential>> {
        let bytes = self.ask("token").await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| Error::new("metadata server: the answer holds no token"))?;
        let expires = token.expires();
        Ok(Fresh { credential: GcpCredential { bearer: token.access_token }, expires })
    }
}
