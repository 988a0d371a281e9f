//! A store's errors in one line for people, without what must not be shown.
//!
//! A server's answer is not repeated as it is: S3 answers a wrong signature with the whole request, session token included.

use std::error::Error as _;

use crate::error::Error;
use crate::human;
use crate::remote_url::RemoteUrl;

/// Whether the store answered that there is no such object; no such bucket is something else.
pub(super) fn is_absent_object(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && !texts(error).any(|text| text.contains("NoSuchBucket"))
}

/// Whether the store's answer, or what failed before there was one, holds this word.
pub(super) fn says(error: &object_store::Error, word: &str) -> bool {
    texts(error).any(|text| text.contains(word))
}

/// One line for an error of a store, with a hint where the reason is a usual one.
pub(super) fn explain(url: &RemoteUrl, what: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    let reason = human::escape(&reason(error));
    let line = Error::new(format!("{url}: {what}: {reason}"));
    let credentials = "check that the credentials in the environment belong to this store and may do this";
    match error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => line.hint(credentials),
        _ if reason.contains("NoSuchBucket") => {
            line.hint("check the bucket and the endpoint: git model remote list")
        }
        _ if ["refused", "dns", "resolve", "unreachable", "timed out"]
            .iter()
            .any(|word| reason.contains(word)) =>
        {
            line.hint("check the endpoint and the network; git model remote check tries them")
        }
        _ => line,
    }
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
        Some(rest.split_once('<')?.0.trim().to_owned())
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
