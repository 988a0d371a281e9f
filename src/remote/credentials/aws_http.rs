//! The HTTP client of `aws-config`: ours, so that proxies, private certificates and the rule about redirects hold here too.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use reqwest::Client;

use super::web;

/// How long the token services of AWS are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes requests for `aws-config`.
#[derive(Clone, Debug)]
pub(super) struct AwsHttp {
    services: Client,
    metadata: Client,
    patience: Duration,
}

impl AwsHttp {
    pub(super) fn new() -> reqwest::Result<AwsHttp> {
        Ok(AwsHttp {
            services: crate::remote::connect::http_client(false)?,
            metadata: web::metadata_client()?,
            patience: PATIENCE,
        })
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let user = |text: &str| ConnectorError::user(text.to_owned().into());
        let url = url::Url::parse(request.uri()).map_err(|error| ConnectorError::user(error.into()))?;
        let beside = web::is_beside(&url);
        if url.scheme() != "https" && !beside {
            return Err(user("credentials are asked for by https only"));
        }
        let method = request
            .method()
            .parse::<reqwest::Method>()
            .map_err(|error| ConnectorError::user(error.into()))?;
        let client = if beside { &self.metadata } else { &self.services };
        let mut builder = client.request(method, url);
        for (name, value) in request.headers() {
            builder = builder.header(name, value);
        }
        let body = request.body().bytes().ok_or_else(|| user("a body that is not at hand"))?.to_vec();
        let work = async {
            let answer = builder.body(body).send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            reqwest::Result::Ok((status, headers, web::read(answer).await?))
        };
        let done = tokio::time::timeout(self.patience, work).await;
        let done = done.map_err(|_| ConnectorError::timeout("no answer".into()))?;
        let (status, headers, bytes) = done.map_err(|error| {
            let (timeout, error) = (error.is_timeout(), error.without_url());
            if timeout { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
        })?;
        let bytes = bytes.ok_or_else(|| user("an answer that is too large"))?;
        let status =
            StatusCode::try_from(status.as_u16()).map_err(|error| ConnectorError::user(error.into()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(bytes));
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                // A header that cannot be kept is one that nobody here reads.
                drop(response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned()));
            }
        }
        Ok(response)
    }
}

impl HttpConnector for AwsHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for AwsHttp {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let limits = [settings.connect_timeout(), settings.read_timeout()];
        let patience = limits.into_iter().flatten().max().map_or(PATIENCE, |limit| limit.min(PATIENCE));
        SharedHttpConnector::new(AwsHttp { patience, ..self.clone() })
    }
}
