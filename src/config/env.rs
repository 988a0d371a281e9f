//! Every environment variable that git-model itself reads. `docs/configuration.md` lists the same ones.

/// URLs of remotes that may be used, separated by commas or line breaks, besides those approved with `git model remote trust`; for CI.
pub const TRUST: &str = "GIT_MODEL_TRUST";
/// `off` keeps the git hooks from doing anything.
pub const HOOKS: &str = "GIT_MODEL_HOOKS";
/// Endpoint of an S3-compatible server, for remotes without an endpoint of their own in the user's git config.
pub const AWS_ENDPOINT: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
/// Region of the bucket, for remotes without one in the user's git config.
pub const AWS_REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// Profile of `~/.aws`.
pub const AWS_PROFILE: &str = "AWS_PROFILE";
/// Whether endpoints of profiles are passed over.
const AWS_IGNORE_ENDPOINTS: &str = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS";
/// An emulator of Google Cloud Storage, which is used without credentials, as by Google's own libraries.
pub const GCS_ENDPOINT: &str = "STORAGE_EMULATOR_HOST";
/// Endpoint of Azure Blob Storage, for remotes without an endpoint of their own in the user's git config.
pub const AZURE_ENDPOINT: &str = "AZURE_STORAGE_SERVICE_ENDPOINT";
/// Account, key and endpoint of Azure Blob Storage in one.
pub const AZURE_CONNECTION: &str = "AZURE_STORAGE_CONNECTION_STRING";
/// The file of registry credentials, instead of Podman's and Docker's own.
pub const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// Docker's directory of settings.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Credentials, and where to get them. What `aws-config` reads besides is in `docs/configuration.md`.
const CREDENTIALS: [&str; 24] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    AWS_PROFILE,
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
    "CLOUDSDK_CONFIG",
    "HOME",
    "GCE_METADATA_HOST",
    AZURE_CONNECTION,
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
];

/// The user's own cache directory: `XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache_dir() -> Option<std::path::PathBuf> {
    let absolute = |path: String| Some(std::path::PathBuf::from(path)).filter(|path| path.is_absolute());
    let home = || first(&["HOME"]).and_then(absolute).map(|home| home.join(".cache"));
    first(&["XDG_CACHE_HOME"]).and_then(absolute).or_else(home)
}

/// Whether endpoints of AWS profiles are passed over.
pub fn ignores_profile_endpoints() -> bool {
    first(&[AWS_IGNORE_ENDPOINTS]).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The credential variables that are set.
pub fn credentials() -> Vec<(&'static str, String)> {
    CREDENTIALS.iter().filter_map(|name| Some((*name, first(&[name])?))).collect()
}

/// The first of these variables that is set and not empty.
pub fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}
