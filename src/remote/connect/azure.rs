//! Azure Blob Storage.

use object_store::ClientOptions;
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};

use super::{Access, NoRedirects};
use crate::error::Result;
use crate::remote::credentials::azure::{self, Login};
use crate::remote::explain::explain;
use crate::remote_url::RemoteUrl;

pub(super) async fn open(
    url: &RemoteUrl,
    account: &str,
    container: &str,
    access: &Access,
) -> Result<MicrosoftAzure> {
    let builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_client_options(ClientOptions::new().with_allow_http(access.allow_http))
        .with_retry(super::retry())
        .with_http_connector(NoRedirects::new(access));
    let builder = match &access.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.clone()),
        None => builder,
    };
    let builder = match azure::login(url, account, access).await? {
        Login::Anonymous => builder.with_skip_signature(true),
        Login::AccessKey(key) => builder.with_access_key(key).with_credential_type("access_key"),
        Login::Sas(token) => builder
            .with_config(object_store::azure::AzureConfigKey::SasKey, token)
            .with_credential_type("sas_token"),
        Login::ClientSecret { tenant, client, secret, authority } => {
            let builder = builder.with_client_secret_authorization(client, secret, tenant);
            authority_of(builder, authority).with_credential_type("client_secret")
        }
        Login::WorkloadIdentity { tenant, client, token_file, authority } => {
            let builder =
                builder.with_tenant_id(tenant).with_client_id(client).with_federated_token_file(token_file);
            authority_of(builder, authority).with_credential_type("workload_identity")
        }
        Login::Provider(provider) => builder.with_credentials(provider),
    };
    builder.build().map_err(|error| explain(url, "cannot be used", &error))
}

fn authority_of(builder: MicrosoftAzureBuilder, authority: Option<String>) -> MicrosoftAzureBuilder {
    match authority {
        Some(authority) => builder.with_authority_host(authority.trim_end_matches('/')),
        None => builder,
    }
}
