//! Credentials for S3: environment, profiles, SSO, credential_process, web identity, containers and instances, by `aws-config`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds::{self, region::ImdsRegionProvider};
use aws_config::profile::{Profile, ProfileFileCredentialsProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError,
};
use aws_runtime::env_config::EnvConfigValue;
use aws_types::os_shim_internal::{Env, Fs};
use object_store::aws::AwsCredential;

use super::aws_http::AwsHttp;
use super::{Fresh, Renewed, Source};
use crate::error::{Error, Result};
use crate::human;
use crate::remote::Access;
use crate::remote_url::RemoteUrl;

/// How long credentials are waited for, as by AWS's own tools where a program gives them.
const PATIENCE: Duration = Duration::from_secs(60);
/// The region that token services are asked in when none is known.
pub(in crate::remote) const USUAL_REGION: &str = "us-east-1";

/// What a profile of `~/.aws` says about where a bucket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsProfile {
    /// Region.
    pub region: Option<String>,
    /// Endpoint for S3.
    pub endpoint: Option<String>,
}

/// Reads a profile of `~/.aws/config` and `~/.aws/credentials`: this one, else `default`.
pub fn aws_profile(name: Option<&str>) -> Result<AwsProfile> {
    let set = profiles(name)?;
    let Some(profile) = set.get_profile(set.selected_profile()) else { return Ok(AwsProfile::default()) };
    let text = |key: &str| profile.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(AwsProfile { region: text("region"), endpoint: endpoint(&set, profile) })
}

/// The endpoint for S3: of the profile's `services` section, else of the profile.
fn endpoint(set: &ProfileSet, profile: &Profile) -> Option<String> {
    let ignored = profile.get("ignore_configured_endpoint_urls");
    if ignored.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    // The environment's own endpoints were looked at before, so here it is an empty one.
    let value = EnvConfigValue::new().profile("endpoint_url").service_id("s3");
    let environment = Env::from_slice(&[]);
    let (endpoint, _) = value.load(&environment, Some(set))?;
    Some(endpoint.into_owned()).filter(|endpoint| !endpoint.is_empty())
}

fn profiles(name: Option<&str>) -> Result<ProfileSet> {
    let chosen = name.map(|name| Cow::Owned(name.to_owned()));
    let load = async move {
        aws_config::profile::load(&Fs::real(), &Env::real(), &Default::default(), chosen).await
    };
    // Only reads files, and never waits; so the place where it is called may be asynchronous itself.
    let set = futures::FutureExt::now_or_never(load)
        .ok_or_else(|| Error::new("~/.aws: cannot be read at once"))?
        .map_err(|error| Error::new("~/.aws: cannot be read").caused_by(human::escape(&causes(&error))))?;
    match name {
        Some(name) if set.get_profile(name).is_none() => {
            let shown = human::escape(name);
            Err(Error::new(format!("{shown}: there is no such AWS profile in ~/.aws"))
                .hint(format!("make it with aws configure --profile {}", human::shell_quote(name))))
        }
        _ => Ok(set),
    }
}

/// Where requests to a bucket take their credentials from.
pub(in crate::remote) enum Login {
    /// Keys of the environment, which nobody can renew.
    Keys(AwsCredential),
    /// Everything else.
    Chain(Arc<Renewed<Chain>>),
}

/// Finds credentials for a bucket, and asks for them once.
pub(in crate::remote) async fn login(url: &RemoteUrl, access: &Access) -> Result<Login> {
    let keys = (access.variable("AWS_ACCESS_KEY_ID"), access.variable("AWS_SECRET_ACCESS_KEY"));
    // A profile that was chosen for this remote is meant, whatever the environment says.
    if access.profile.is_none() {
        require_whole(access).map_err(|error| error.about(url.to_string()))?;
        if let (Some(key_id), Some(secret_key)) = keys {
            let token = access.variable("AWS_SESSION_TOKEN").map(str::to_owned);
            let credential =
                AwsCredential { key_id: key_id.to_owned(), secret_key: secret_key.to_owned(), token };
            return Ok(Login::Keys(credential));
        }
    }
    let set = profiles(access.profile.as_deref().or(access.variable("AWS_PROFILE")))
        .map_err(|error| error.about(url.to_string()))?;
    let region = Region::new(access.region.clone().unwrap_or_else(|| USUAL_REGION.to_owned()));
    let (profile, shown, advice) = (access.profile.clone(), url.to_string(), Advice::new(&set));
    Ok(Login::Chain(Renewed::start(Chain { profile, region, shown, advice }).await?))
}

fn config() -> Result<ProviderConfig> {
    let http =
        AwsHttp::new().map_err(|error| Error::new("cannot start the transfer threads").caused_by(error))?;
    Ok(ProviderConfig::without_region().with_http_client(http))
}

/// Environment, profile, web identity, container, machine: whatever comes first.
async fn usual_chain(config: ProviderConfig, region: &Region) -> DefaultCredentialsChain {
    let config = config.with_region(Some(region.clone()));
    let chain = DefaultCredentialsChain::builder().imds_client(metadata(&config)).region(region.clone());
    chain.configure(config).build().await
}

/// A machine's metadata server, which answers at once or is not there.
fn metadata(config: &ProviderConfig) -> imds::Client {
    let second = Duration::from_secs(1);
    imds::Client::builder()
        .configure(config)
        .connect_timeout(second)
        .read_timeout(second)
        .max_attempts(1)
        .build()
}

/// Who this process is to AWS, and in which region, where that is wanted for something else than a bucket.
pub(super) struct Machine {
    config: ProviderConfig,
    /// The region that the environment or a profile states.
    region: Option<String>,
}

impl Machine {
    pub(super) fn new(access: &Access) -> Result<Machine> {
        require_whole(access)?;
        let region = match &access.region {
            Some(region) => Some(region.clone()),
            None => aws_profile(access.variable("AWS_PROFILE"))?.region,
        };
        Ok(Machine { config: config()?, region })
    }

    /// Credentials of environment, profile, container or machine; and the region.
    pub(super) async fn identity(&self) -> Result<(Credentials, String)> {
        let advice = "set AWS_REGION and the AWS credentials, or run where AWS provides them";
        let region = match &self.region {
            Some(region) => Region::new(region.clone()),
            None => {
                let asked = ImdsRegionProvider::builder().configure(&self.config);
                let asked = asked.imds_client(metadata(&self.config));
                let found = asked.build().region().await;
                found.ok_or_else(|| Error::new("no AWS region was found").hint(advice))?
            }
        };
        if !region.as_ref().chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Error::new(format!("`{}` is not an AWS region", human::escape(region.as_ref()))));
        }
        let credentials = provide(&usual_chain(self.config.clone(), &region).await).await;
        let credentials = credentials.map_err(|error| {
            let reason: String = human::escape(&causes(&error)).chars().take(400).collect();
            Error::new(format!("no AWS credentials were found: {reason}")).hint(advice)
        })?;
        Ok((credentials, region.as_ref().to_owned()))
    }
}

/// Asks for credentials. What a profile says may run a program, which could wait for ever.
async fn provide(source: &impl ProvideCredentials) -> Result<Credentials, CredentialsError> {
    let answer = tokio::time::timeout(PATIENCE, source.provide_credentials()).await;
    answer.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE)))
}

/// Refuses at once what is half there: the chain would pass over it, and end at a metadata server.
fn require_whole(access: &Access) -> Result<()> {
    for (half, other) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ] {
        if access.variable(half).is_some() && access.variable(other).is_none() {
            return Err(Error::new(format!("incomplete AWS credentials: {half} is set and {other} is not"))
                .hint(format!("set {other} too, or unset {half}")));
        }
    }
    Ok(())
}

/// `aws-config`'s chain of providers.
#[derive(Debug)]
pub(in crate::remote) struct Chain {
    /// The profile that was chosen for this remote.
    profile: Option<String>,
    region: Region,
    shown: String,
    advice: Advice,
}

impl Source for Chain {
    type Credential = AwsCredential;

    async fn fetch(&self) -> Result<Fresh<AwsCredential>> {
        let found = provide(&self.source().await?).await;
        let found = found.map_err(|error| self.explain(&error))?;
        let expires = found.expiry();
        if expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Error::new(format!("{}: the AWS credentials expired", self.shown))
                .hint(self.advice.command()));
        }
        let credential = AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        };
        Ok(Fresh { credential, expires })
    }
}

impl Chain {
    /// A new one each time, and of a new configuration: both keep what they read from `~/.aws`, and a login may have changed that.
    async fn source(&self) -> Result<SharedCredentialsProvider> {
        let config = config()?;
        Ok(match &self.profile {
            Some(name) => SharedCredentialsProvider::new(
                ProfileFileCredentialsProvider::builder()
                    .configure(&config.with_region(Some(self.region.clone())))
                    .profile_name(name)
                    .build(),
            ),
            None => SharedCredentialsProvider::new(usual_chain(config, &self.region).await),
        })
    }

    fn explain(&self, error: &CredentialsError) -> Error {
        let reason = causes(error);
        // Every provider had nothing: the chain ends at a machine's metadata server, which is not there or gives nothing.
        if matches!(error, CredentialsError::CredentialsNotLoaded(_)) || reason.contains("IMDS") {
            return Error::new(format!("{}: no AWS credentials were found", self.shown))
                .hint(self.advice.command());
        }
        let reason: String = human::escape(&reason).chars().take(400).collect();
        Error::new(format!("{}: the AWS credentials cannot be used: {reason}", self.shown))
            .hint(self.advice.command())
    }
}

/// What the user can run.
#[derive(Debug)]
struct Advice {
    profile: String,
    sso: bool,
    process: bool,
    known: bool,
}

impl Advice {
    fn new(set: &ProfileSet) -> Advice {
        let name = set.selected_profile();
        let profile = set.get_profile(name);
        let has = |key: &str| profile.is_some_and(|profile| profile.get(key).is_some());
        Advice {
            profile: name.to_owned(),
            sso: has("sso_session") || has("sso_start_url"),
            process: has("credential_process"),
            known: ["aws_access_key_id", "role_arn", "source_profile", "credential_source"]
                .into_iter()
                .any(has),
        }
    }

    fn command(&self) -> String {
        let profile = human::shell_quote(&self.profile);
        match self {
            Advice { sso: true, .. } => format!("log in again: aws sso login --profile {profile}"),
            Advice { process: true, .. } => {
                format!("run the credential_process of profile {profile} by hand to see what is wrong")
            }
            Advice { known: true, .. } => {
                format!("see what is wrong: aws sts get-caller-identity --profile {profile}")
            }
            _ => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure or aws sso login"
                .to_owned(),
        }
    }
}

/// An error's causes on one line, without what repeats itself.
fn causes(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    // The outermost only says that a provider failed.
    let from = usize::from(texts.len() > 1);
    texts[from..].join(": ")
}
