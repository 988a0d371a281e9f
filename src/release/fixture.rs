//! Payloads and tags of a model `churn`, for the tests of this module.

use super::*;
use crate::id::Digest;
use crate::repo_path::RepoPath;

pub(super) fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

pub(super) fn model(text: &str) -> ModelName {
    ModelName::parse(text).unwrap()
}

pub(super) fn stage(text: &str) -> StageName {
    StageName::parse(text).unwrap()
}

/// An object id that stands for `what`.
pub(super) fn oid(what: &str) -> String {
    Digest::of(what.as_bytes()).to_hex()
}

pub(super) fn policy() -> Policy {
    Policy { sha256: Digest::of(b"rules"), source: PolicySource::DefaultBranch, commit: oid("main") }
}

pub(super) fn release_payload(text: &str) -> ReleasePayload {
    ReleasePayload {
        name: model("churn"),
        version: version(text),
        digest: Digest::of(text.as_bytes()),
        lineage: Digest::of(b"lineage.yaml"),
        model: Digest::of(b"model.yaml"),
        policy: policy(),
        oms: Digest::of(b"oms"),
        manifest: RepoPath::new("models/churn/model.yaml").unwrap(),
        remote: Some(RemoteNote { name: "origin".to_owned(), url: "s3://acme-models/churn".to_owned() }),
        commit: oid(&format!("commit {text}")),
        overrides: Vec::new(),
        previous: None,
    }
}

/// An event of `prod` by what it does: `promote 1.0.0`, `canary 1.1.0 10`, `outcome 1.1.0 aborted`, `retire`.
pub(super) fn event_payload(n: u64, what: &str) -> EventPayload {
    let words: Vec<&str> = what.split(' ').collect();
    let named = words.get(1).copied();
    let last = words.get(2).copied();
    let action = serde_json::from_value(words[0].into()).unwrap();
    EventPayload {
        name: model("churn"),
        stage: stage("prod"),
        n,
        traffic: last.filter(|_| action == Action::Canary).map(|share| share.parse().unwrap()),
        outcome: last
            .filter(|_| action == Action::Outcome)
            .map(|word| serde_json::from_value(word.into()).unwrap()),
        action,
        version: named.map(version),
        digest: named.map(|text| Digest::of(text.as_bytes())),
        release_tag: named.map(|text| oid(&format!("churn@v{text}"))),
        reason: None,
        actor: None,
        previous: (n > 1)
            .then(|| Previous { n: n - 1, oid: oid(&format!("churn#prod#{}", n.saturating_sub(1))) }),
        policy: Some(policy()),
        overrides: Vec::new(),
    }
}

/// A tag on the commit of a version, whose object id stands for its name.
pub(super) fn tag(name: &str, on: &str, time: i64, message: Parsed) -> Tag {
    Tag {
        name: TagName::parse(name).unwrap_or_else(|| panic!("{name}")),
        oid: oid(name),
        target: oid(&format!("commit {on}")),
        tagger: "Ada <ada@example.org>".to_owned(),
        time,
        message,
    }
}

/// The tag that we make for a release, at second 1.
pub(super) fn release(text: &str) -> Tag {
    tag(&format!("churn@v{text}"), text, 1, Parsed::Release(release_payload(text)))
}

/// The tag that we make for an event of `prod`; see [`event_payload`].
pub(super) fn event(n: u64, what: &str, time: i64) -> Tag {
    let on = what.split(' ').nth(1).unwrap_or("1.0.0");
    tag(&format!("churn#prod#{n}"), on, time, Parsed::Event(event_payload(n, what)))
}

/// A tag that GTO makes.
pub(super) fn gto(name: &str, on: &str, time: i64) -> Tag {
    tag(name, on, time, Parsed::Plain)
}

/// Releases 1.0.0 to 1.4.0 and these events of `prod`, one a second from second 101.
pub(super) fn history(events: &[&str]) -> History {
    History::new(&model("churn"), tags(events))
}

/// The tags of [`history`].
pub(super) fn tags(events: &[&str]) -> Vec<Tag> {
    let releases = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"].map(release);
    let events = (1..).zip(events).map(|(n, what)| event(n, what, 100 + n as i64));
    releases.into_iter().chain(events).collect()
}
