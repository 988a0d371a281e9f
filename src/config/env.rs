//! Every environment variable that git-model itself reads. `docs/configuration.md` lists the same ones.

/// URLs of remotes that may be used, separated by white space, besides those approved with `git model remote trust`; for CI.
pub const TRUST: &str = "GIT_MODEL_TRUST";
/// `off` keeps the git hooks from doing anything.
pub const HOOKS: &str = "GIT_MODEL_HOOKS";
/// Endpoint of an S3-compatible server, for remotes without an endpoint of their own in the user's git config.
pub const AWS_ENDPOINT: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// Region of the bucket, for remotes without one in the user's git config.
pub const AWS_REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// Variables of which at least one is set wherever credentials can be had without asking a metadata server.
pub const AWS_CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// The first of these variables that is set and not empty.
pub fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}
