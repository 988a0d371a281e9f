//! A store's errors in one line for people, without what must not be shown.
//!
//! A server's answer is not repeated as it is: S3 answers a wrong signature with the whole request, session token included.

use std::error::Error as _;

use super::credentials::Unavailable;
use crate::error::Error;
use crate::human;
use crate::remote_url::RemoteUrl;

/// Whether the store answered that there is no such object; no such bucket or container is something else.
pub(super) fn is_absent_object(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !texts(error).any(|text| is_absent_bucket(&text))
}

fn is_absent_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|word| text.contains(word))
}

/// Whether the store's answer, or what failed before there was one, holds this word.
pub(super) fn says(error: &object_store::Error, word: &str) -> bool {
    texts(error).any(|text| text.contains(word))
}

/// Whether something is there already that was not to be replaced, or is being written.
pub(super) fn is_taken(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

/// Whether the store does not know how to do what it was asked for, such as a condition on a write.
pub(super) fn is_not_implemented(error: &object_store::Error) -> bool {
    says(error, "status code: 501")
}

/// Whether the store refused because the credentials are not good any more.
pub(super) fn is_expired(error: &object_store::Error) -> bool {
    ["ExpiredToken", "TokenRefreshRequired", "token has expired", "token is expired"]
        .iter()
        .any(|word| says(error, word))
}

/// One line for an error of a store, with a hint where the reason is a usual one.
pub(super) fn explain(url: &RemoteUrl, what: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    if let Some(Unavailable(error)) = unavailable(error) {
        let (url, line) = (url.to_string(), error.one_line());
        let line = Error::new(if line.starts_with(&url) { line } else { format!("{url}: {line}") });
        return error.hints().iter().fold(line, |line, hint| line.hint(hint.clone()));
    }
    let reason = human::escape(&reason(error));
    let line = Error::new(format!("{url}: {what}: {reason}"));
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if is_expired(error) {
        line.hint("the credentials expired: get new ones (aws sso login, or new AWS_* variables)")
    } else if has(&["Quota", "quota", "InsufficientStorage", "StorageFull", "XMinioStorageFull", "507"]) {
        line.hint(
            "the store is full: have its quota raised, or remove what nobody needs; what was sent is kept",
        )
    } else if has(&["RequestTimeTooSkewed"]) {
        line.hint("the clock of this machine is wrong: set it")
    } else if has(&["AuthorizationHeaderMalformed", "PermanentRedirect", "region"]) {
        line.hint("set the bucket's region: git config model.remote.NAME.region REGION, or AWS_REGION")
    } else if is_absent_bucket(&reason) {
        line.hint("check the bucket or container and the endpoint: git model remote list")
    } else if matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. })
        || has(&["invalid_grant", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed"])
    {
        line.hint("check that the credentials in the environment belong to this store and may do this")
    } else if has(&["refused", "dns", "resolve", "unreachable", "timed out", "lookup address"]) {
        line.hint("check the endpoint and the network; git model remote check tries them")
    } else {
        line
    }
}

/// Credentials that could not be had, somewhere among the causes.
fn unavailable(error: &object_store::Error) -> Option<&Unavailable> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The texts of an error and its causes, outermost first.
fn texts(error: &object_store::Error) -> impl Iterator<Item = String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.into_iter()
}

/// Status, code and message of a server's answer; or the innermost cause, which names what the system said.
fn reason(error: &object_store::Error) -> String {
    let texts: Vec<String> = texts(error).collect();
    let all = &texts[0];
    let element = |name: &str| {
        let (_, rest) = all.split_once(&format!("<{name}>"))?;
        // Azure adds a request id and the time on lines of their own.
        Some(rest.split_once('<')?.0.trim().lines().next().unwrap_or_default().to_owned())
    };
    let status = all.split_once("status code: ").map(|(_, rest)| {
        let end = rest.find([':', '<', '\n']).unwrap_or(rest.len());
        rest[..end].trim().to_owned()
    });
    let parts: Vec<String> = [status, element("Code"), element("Message")].into_iter().flatten().collect();
    if !parts.is_empty() {
        return parts.join(": ");
    }
    let innermost = texts.last().cloned().unwrap_or_default();
    // Nothing that a server sent is left here, but an answer could still be quoted by a library.
    innermost.split('<').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
