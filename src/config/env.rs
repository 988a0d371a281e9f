//! Every environment variable that git-model itself reads. `docs/configuration.md` lists the same ones.

/// URLs of remotes that may be used, separated by commas or line breaks, besides those approved with `git model remote trust`; for CI.
pub const TRUST: &str = "GIT_MODEL_TRUST";
/// `off` keeps the git hooks from doing anything.
pub const HOOKS: &str = "GIT_MODEL_HOOKS";
/// Endpoint of an S3-compatible server, for remotes without an endpoint of their own in the user's git config.
pub const AWS_ENDPOINT: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
/// Region of the bucket, for remotes without one in the user's git config.
pub const AWS_REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// The file of registry credentials, instead of Podman's and Docker's own.
pub const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// Docker's directory of settings.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Credentials, and where to get them.
const AWS_CREDENTIALS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// The user's own cache directory: `XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache_dir() -> Option<std::path::PathBuf> {
    let absolute = |path: String| Some(std::path::PathBuf::from(path)).filter(|path| path.is_absolute());
    let home = || first(&["HOME"]).and_then(absolute).map(|home| home.join(".cache"));
    first(&["XDG_CACHE_HOME"]).and_then(absolute).or_else(home)
}

/// The credential variables that are set.
pub fn credentials() -> Vec<(&'static str, String)> {
    AWS_CREDENTIALS.iter().filter_map(|name| Some((*name, first(&[name])?))).collect()
}

/// The first of these variables that is set and not empty.
pub fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}
