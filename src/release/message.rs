//! The message of an annotated tag: one line for people, the payload as JSON, trailers, and behind it a signature.
//!
//! It survives git's default clean-up of messages: no line starts with `#`, ends in a space or follows another empty one.

use serde::{Deserialize, Serialize};

use super::payload::{Action, EventPayload, Outcome, ReleasePayload};
use crate::error::{Error, Result};
use crate::human;
use crate::id::Digest;

/// Largest message in bytes, without its signature; larger ones are neither written nor read.
pub const MAX_MESSAGE: usize = 64 * 1024;

const RELEASE_SCHEMA: &str = "git-model/release/v1";
const EVENT_SCHEMA: &str = "git-model/event/v1";
const TRAILERS: [&str; 3] = ["Model-Name", "Model-Version", "Model-Digest"];

/// The lines that start a signature, as git knows them: OpenPGP (two forms), SSH, X.509.
const SIGNATURES: [&str; 4] = [
    "-----BEGIN PGP SIGNATURE-----",
    "-----BEGIN PGP MESSAGE-----",
    "-----BEGIN SSH SIGNATURE-----",
    "-----BEGIN SIGNED MESSAGE-----",
];

/// What a tag's message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A release.
    Release(ReleasePayload),
    /// A stage event.
    Event(EventPayload),
    /// No payload: GTO's tags, and what people write.
    Plain,
    /// A payload that cannot be trusted, and why: one line, safe to print.
    Damaged(String),
}

/// Values of [`TRAILERS`].
type TrailerValues = [Option<String>; 3];

/// The message of a release tag. Fails when it is larger than [`MAX_MESSAGE`].
pub fn format_release(payload: &ReleasePayload) -> Result<String> {
    let subject = format!("Release {} v{}", payload.name, payload.version);
    write(&subject, RELEASE_SCHEMA, payload, &release_trailers(payload))
}

/// The message of a stage event's tag. Fails when it is larger than [`MAX_MESSAGE`] or its fields do not fit the action.
pub fn format_event(payload: &EventPayload) -> Result<String> {
    payload.check()?;
    write(&event_subject(payload), EVENT_SCHEMA, payload, &event_trailers(payload))
}

/// Reads the message of a tag, as git stores it.
///
/// Unknown fields, actions and trailers are tolerated. A message that carries our schema or our trailers, but is not
/// whole, is [`Parsed::Damaged`], never [`Parsed::Plain`].
pub fn parse(message: &str) -> Parsed {
    let text = without_signature(message);
    if !is_ours(text) {
        return Parsed::Plain;
    }
    read(text).unwrap_or_else(|error| Parsed::Damaged(human::escape(&error.one_line())))
}

fn write<T: Serialize>(subject: &str, schema: &str, payload: &T, trailers: &TrailerValues) -> Result<String> {
    #[derive(Serialize)]
    struct Document<'a, T> {
        schema: &'a str,
        #[serde(flatten)]
        payload: &'a T,
    }
    let json = serde_json::to_string_pretty(&Document { schema, payload })
        .map_err(|error| Error::new("cannot make the tag's payload").caused_by(error))?;
    let mut text = format!("{subject}\n\n{json}\n\n");
    for (key, value) in TRAILERS.iter().zip(trailers) {
        if let Some(value) = value {
            text.push_str(&format!("{key}: {value}\n"));
        }
    }
    if text.len() > MAX_MESSAGE {
        return Err(Error::usage("the tag's message would be larger than 64 KiB").hint("shorten the reason"));
    }
    Ok(text)
}

fn event_subject(payload: &EventPayload) -> String {
    let EventPayload { name, stage, n, .. } = payload;
    let version = payload.version.as_ref().map(|version| format!("v{version}")).unwrap_or_default();
    match payload.action {
        Action::Promote => format!("Promote {name} {version} to {stage}"),
        Action::Canary => {
            format!("Canary {name} {version} in {stage} at {}%", payload.traffic.unwrap_or_default())
        }
        Action::Rollback => format!("Roll back {name} in {stage} to {version}"),
        Action::Retire => format!("Retire {name} from {stage}"),
        Action::Approve => format!("Approve {name} {version} for {stage}"),
        Action::Outcome => {
            let word = if payload.outcome == Some(Outcome::Ok) { "ok" } else { "aborted" };
            format!("Outcome of {name} {version} in {stage}: {word}")
        }
        Action::Unassign | Action::Other(_) => format!("Event {n} of {name} in {stage}"),
    }
}

fn release_trailers(payload: &ReleasePayload) -> TrailerValues {
    [Some(payload.name.to_string()), Some(payload.version.to_string()), Some(payload.digest.to_hex())]
}

fn event_trailers(payload: &EventPayload) -> TrailerValues {
    [
        Some(payload.name.to_string()),
        payload.version.as_ref().map(ToString::to_string),
        payload.digest.map(Digest::to_hex),
    ]
}

/// Everything before the signature, which git finds at the last line that can start one.
fn without_signature(message: &str) -> &str {
    let (mut at, mut cut) = (0, message.len());
    for line in message.split_inclusive('\n') {
        if SIGNATURES.iter().any(|start| line.starts_with(start)) {
            cut = at;
        }
        at += line.len();
    }
    &message[..cut]
}

/// Whether a message claims to carry one of our payloads.
fn is_ours(text: &str) -> bool {
    text.contains("\"git-model/") || text.lines().any(|line| trailer_index(line).is_some())
}

fn read(text: &str) -> Result<Parsed> {
    if text.len() > MAX_MESSAGE {
        return Err(Error::new("larger than 64 KiB"));
    }
    let (_, body) = text.split_once("\n\n").ok_or_else(|| Error::new("no payload"))?;
    let (schema, json, rest) = split(body)?;
    let (parsed, expected) = match schema.as_str() {
        RELEASE_SCHEMA => {
            let payload: ReleasePayload = from_json(json)?;
            let trailers = release_trailers(&payload);
            (Parsed::Release(payload), trailers)
        }
        EVENT_SCHEMA => {
            let payload: EventPayload = from_json(json)?;
            payload.check()?;
            let trailers = event_trailers(&payload);
            (Parsed::Event(payload), trailers)
        }
        newer if newer.starts_with("git-model/") => {
            return Err(Error::new(format!("written by a newer git-model (schema {newer})")));
        }
        _ => return Err(Error::new("the payload is of another schema")),
    };
    check_trailers(rest, &expected)?;
    Ok(parsed)
}

/// Schema and text of the JSON document that `body` starts with, and what follows it.
fn split(body: &str) -> Result<(String, &str, &str)> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let mut documents = serde_json::Deserializer::from_str(body).into_iter::<Head>();
    let head = documents.next().ok_or_else(|| Error::new("no payload"))?.map_err(bad_json)?;
    let (json, rest) = body.split_at(documents.byte_offset());
    Ok((head.schema, json, rest))
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(bad_json)
}

fn bad_json(error: serde_json::Error) -> Error {
    Error::new("the payload cannot be read").caused_by(error)
}

/// Checks that nothing but trailers follows the payload, and that ours say what it says, once each.
fn check_trailers(rest: &str, expected: &TrailerValues) -> Result<()> {
    let mut found: [Vec<&str>; 3] = Default::default();
    for line in rest.lines().filter(|line| !line.is_empty()) {
        let (_, value) =
            line.split_once(": ").ok_or_else(|| Error::new("text that is no trailer follows the payload"))?;
        if let Some(index) = trailer_index(line) {
            found[index].push(value);
        }
    }
    for (index, key) in TRAILERS.iter().enumerate() {
        if found[index] != expected[index].as_deref().into_iter().collect::<Vec<_>>() {
            return Err(Error::new(format!("the trailer {key} disagrees with the payload")));
        }
    }
    Ok(())
}

/// Which of our trailers a line is; git ignores the letter case of a trailer's key.
fn trailer_index(line: &str) -> Option<usize> {
    let (key, _) = line.split_once(':')?;
    TRAILERS.iter().position(|ours| ours.eq_ignore_ascii_case(key.trim_end()))
}

#[cfg(test)]
mod tests;
