//! Logging in: Basic, and tokens of a token server (Docker's and OAuth 2's way).

use base64::Engine;
use reqwest::header::HeaderValue;
use reqwest::{Method, Response};
use url::Url;

use super::{MAX_ANSWER, Registry, challenges};
use crate::error::{Error, Result};
use crate::human;
use crate::oci::Credentials;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Registry {
    /// Gets what the registry asked for, so that the next request can be made with it.
    pub(super) async fn log_in(&self, answer: &Response, scope: &[String]) -> Result<()> {
        let asked: Vec<Challenge> = challenges(answer).filter_map(parse).collect();
        let bearer = asked.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match (bearer.or(asked.first()), &self.access.credentials) {
            (Some(Challenge::Bearer { realm, service }), _) => {
                format!("Bearer {}", self.token(realm, service.as_deref(), scope).await?)
            }
            (Some(Challenge::Basic), Some(Credentials::Password { user, secret })) => {
                let pair = format!("{user}:{secret}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            (Some(Challenge::Basic), _) => return Err(self.no_credentials()),
            (None, _) => {
                return Err(Error::new(format!(
                    "{}: it asks for a way to log in that is not known",
                    self.place
                )));
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Error::new(format!("{}: the credentials hold characters that cannot be sent", self.place))
        })?;
        value.set_sensitive(true);
        *self.authorization() = Some(value);
        Ok(())
    }

    fn no_credentials(&self) -> Error {
        Error::new(format!("{}: it asks who you are, and no credentials for it were found", self.place))
            .hint(format!("log in once: docker login {} (or podman, skopeo)", self.place.registry))
    }

    /// A token for these scopes, of the token server that the registry names. It gets the user's credentials: that is how the
    /// protocol works, so it must be reached by https, or be on the registry's own host.
    async fn token(&self, realm: &str, service: Option<&str>, scope: &[String]) -> Result<String> {
        let shown = || human::escape(realm);
        let mut url = Url::parse(realm)
            .map_err(|_| Error::new(format!("{}: its token server {} is no URL", self.place, shown())))?;
        let near = url.host() == self.base.host() && url.scheme() == "http" && self.access.plain_http;
        if url.scheme() != "https" && !near {
            return Err(Error::refused(format!(
                "{}: its token server {} is not reached by https; no credentials are sent there",
                self.place,
                shown()
            )));
        }
        let request = if let Some(Credentials::Identity(token)) = &self.access.credentials {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "git-model");
            service.map(|service| form.append_pair("service", service));
            form.append_pair("scope", &scope.join(" ")).append_pair("refresh_token", token);
            let kind = "application/x-www-form-urlencoded";
            let request = self.client.request(Method::POST, url);
            request.header(reqwest::header::CONTENT_TYPE, kind).body(form.finish())
        } else {
            service.map(|service| {
                url.query_pairs_mut().append_pair("service", service).finish().query().is_some()
            });
            for scope in scope {
                url.query_pairs_mut().append_pair("scope", scope);
            }
            let request = self.client.request(Method::GET, url);
            match &self.access.credentials {
                Some(Credentials::Password { user, secret }) => request.basic_auth(user, Some(secret)),
                _ => request,
            }
        };
        // A redirect is an answer like any other that is no token: credentials follow none.
        let answer = request.timeout(std::time::Duration::from_secs(60)).send().await;
        let answer = answer.map_err(|error| {
            let error = error.without_url();
            Error::new(format!("{}: its token server {} cannot be reached", self.place, shown()))
                .caused_by(error)
        })?;
        if !answer.status().is_success() {
            let status = answer.status();
            let error = Error::new(format!("{}: its token server {} answers {status}", self.place, shown()));
            return Err(error.hint(format!("log in again: docker login {}", self.place.registry)));
        }
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bytes = self.bounded(answer, MAX_ANSWER).await?;
        let found: Option<Answer> = serde_json::from_slice(&bytes).ok();
        found
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| Error::new(format!("{}: its token server {} gave no token", self.place, shown())))
    }
}

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1), as registries send it: one scheme a header.
fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut rest) = (None, None, rest.trim());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            _ => {}
        }
        rest = left.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

/// The text up to the closing quote, and what follows.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (text, found) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth/token\",service=\"h\",scope=\"repository:a:pull,push\"",
                bearer("https://auth/token", Some("h")),
            ),
            ("bearer scope=\"a,b\", realm=https://auth", bearer("https://auth", None)),
            ("Bearer realm=\"a\\\"b\"", bearer("a\"b", None)),
            ("Bearer realm=\"open", None),
            ("Bearer service=\"x\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(parse(text), found, "{text}");
        }
    }
}
