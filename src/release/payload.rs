//! The payloads that annotated tags carry as JSON. Field order is the order in the text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::{ModelName, StageName};
use super::tag::MAX_NUMBER;
use super::version::Version;
use super::wire::checked;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::repo_path::RepoPath;

/// What a release tag says, schema `git-model/release/v1`. When and by whom is the tagger's line of the tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePayload {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// The model digest: of the list of the model's files.
    pub digest: Digest,
    /// Digest of `lineage.yaml`.
    pub lineage: Digest,
    /// Digest of `model.yaml`.
    pub model: Digest,
    /// The rules it passed.
    pub policy: Policy,
    /// Root digest of the bundle as OpenSSF Model Signing computes it.
    pub oms: Digest,
    /// Path of `model.yaml`.
    pub manifest: RepoPath,
    /// The store that held every object when the tag was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteNote>,
    /// The commit that the tag points at, in hex.
    #[serde(deserialize_with = "object_id")]
    pub commit: String,
    /// Gates that were passed by a person's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// The version before it, at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
}

/// What a stage event's tag says, schema `git-model/event/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPayload {
    /// The model.
    pub name: ModelName,
    /// The stage.
    pub stage: StageName,
    /// Number of the event in this stage, from 1.
    pub n: u64,
    /// What was done.
    pub action: Action,
    /// The version it was done with; absent for [`Action::Retire`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Model digest of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Object id of the tag of that version, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_object_id")]
    pub release_tag: Option<String>,
    /// Share of the traffic in percent, 1 to 100; only for [`Action::Canary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<u8>,
    /// How it went; only for [`Action::Outcome`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why, in the words of whoever did it. Untrusted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did it, when that is not the tagger: a CI run. Untrusted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The event before it in this stage; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// The rules it passed; absent where none apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Gates that were passed by a person's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

/// The rules that a release or an event was checked against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Digest of the `model.yaml` that held them.
    pub sha256: Digest,
    /// Where that was read.
    pub source: PolicySource,
    /// The commit it was read from, in hex.
    #[serde(deserialize_with = "object_id")]
    pub commit: String,
}

/// Where the rules were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicySource {
    /// The default branch of the git remote.
    DefaultBranch,
    /// The released commit, because the default branch did not have the model yet.
    ReleaseCommit,
}

/// A store, as a note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteNote {
    /// Its name in the repository's configuration.
    pub name: String,
    /// Its URL. Untrusted text.
    pub url: String,
}

/// A gate that was passed by a person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The gate's name.
    pub gate: String,
    /// Why. Untrusted text.
    pub reason: String,
}

/// The event before: what makes the events of a stage a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its number.
    pub n: u64,
    /// Object id of its tag, in hex.
    #[serde(deserialize_with = "object_id")]
    pub oid: String,
}

/// How a rollout went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It went well.
    Ok,
    /// It was stopped.
    Aborted,
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The version is in the stage. An assignment by GTO is one too.
    Promote,
    /// The version gets a share of the stage's traffic.
    Canary,
    /// An earlier version is in the stage again.
    Rollback,
    /// The stage is empty.
    Retire,
    /// Somebody agrees that the version enters the stage.
    Approve,
    /// A rollout controller reports how it went.
    Outcome,
    /// GTO's undo of an assignment. Never in a payload.
    Unassign,
    /// An action that this version of git-model does not know. Untrusted text.
    Other(String),
}

impl Action {
    /// The word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Action::Promote => "promote",
            Action::Canary => "canary",
            Action::Rollback => "rollback",
            Action::Retire => "retire",
            Action::Approve => "approve",
            Action::Outcome => "outcome",
            Action::Unassign => "unassign",
            Action::Other(word) => word,
        }
    }

    fn from_word(word: String) -> Action {
        use Action::{Approve, Canary, Outcome, Promote, Retire, Rollback};
        [Promote, Canary, Rollback, Retire, Approve, Outcome]
            .into_iter()
            .find(|action| action.as_str() == word)
            .unwrap_or(Action::Other(word))
    }
}

impl EventPayload {
    /// Checks that the fields fit the action and each other.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |reason: &str| Err(Error::new(format!("not a valid event: {reason}")));
        let named = [self.version.is_some(), self.digest.is_some(), self.release_tag.is_some()];
        match self.action {
            Action::Other(_) => return Ok(()),
            Action::Unassign => return invalid("only GTO writes `unassign`"),
            Action::Retire if named.contains(&true) => return invalid("`retire` names no version"),
            Action::Retire => {}
            _ if named.contains(&false) => {
                return invalid("`version`, `digest` and `release_tag` are needed");
            }
            _ => {}
        }
        if !(1..=MAX_NUMBER).contains(&self.n) {
            return invalid("`n` is out of range");
        }
        if self.traffic.is_some() != (self.action == Action::Canary) {
            return invalid("`traffic` belongs to `canary`");
        }
        if self.traffic.is_some_and(|share| !(1..=100).contains(&share)) {
            return invalid("`traffic` must be 1 to 100");
        }
        if self.outcome.is_some() != (self.action == Action::Outcome) {
            return invalid("`outcome` belongs to the action `outcome`");
        }
        Ok(())
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Action::from_word)
    }
}

fn object_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |hex| {
        let valid =
            matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| hex.to_owned()).ok_or_else(|| Error::new("not a git object id"))
    })
}

fn some_object_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    object_id(deserializer).map(Some)
}
