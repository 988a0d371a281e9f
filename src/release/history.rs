//! What the tags of one model say: its releases, and the events of each stage in order.
//!
//! Our events are ordered by number, never by clock. GTO's stand between them by number too; where they follow each
//! other, they are ordered as GTO does it, by time, and within a second by counter (GTO itself puts `#10` before `#9`).

use std::collections::BTreeMap;

use super::assemble;
use super::finding::Finding;
use super::message::Parsed;
use super::name::{ModelName, StageName};
use super::payload::{Action, EventPayload, Previous, ReleasePayload};
use super::reference::Wanted;
use super::stage::{Current, State};
use super::tag::{MAX_NUMBER, TagName};
use super::version::Version;
use crate::error::{Error, Result};

/// A tag, as git has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: TagName,
    /// Id of the tag object, in hex; of a lightweight tag, the same as `target`.
    pub oid: String,
    /// Id of the commit, in hex.
    pub target: String,
    /// Who made it: name and address. Untrusted text.
    pub tagger: String,
    /// When, in Unix seconds, by the tagger's clock.
    pub time: i64,
    /// Its message.
    pub message: Parsed,
}

/// A version that has a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version.
    pub version: Version,
    /// The tag; of several, ours, else the first.
    pub tag: Tag,
    /// When GTO withdrew it, in Unix seconds, if that still holds.
    pub undone: Option<i64>,
    /// Whether GTO marked the whole model as deprecated, and nothing was tagged since.
    pub deprecated: bool,
}

impl Release {
    /// What the tag carries; nothing when GTO made it.
    pub fn payload(&self) -> Option<&ReleasePayload> {
        match &self.tag.message {
            Parsed::Release(payload) => Some(payload),
            _ => None,
        }
    }

    fn is_withdrawn(&self) -> bool {
        self.undone.is_some() || self.deprecated
    }
}

/// Something that happened in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The tag.
    pub tag: Tag,
    /// Its number; GTO can omit its counter.
    pub n: Option<u64>,
    /// What was done.
    pub action: Action,
    /// The version it was done with; of GTO's tags, the one of the commit, if it has one.
    pub version: Option<Version>,
}

impl Event {
    /// What the tag carries; nothing when GTO made it.
    pub fn payload(&self) -> Option<&EventPayload> {
        match &self.tag.message {
            Parsed::Event(payload) => Some(payload),
            _ => None,
        }
    }
}

/// Place of the next event in its stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its number.
    pub n: u64,
    /// The event before it.
    pub previous: Option<Previous>,
}

/// All that the tags of one model say.
///
/// Tags that cannot be trusted are left out and reported by [`History::findings`]. Whoever acts on an answer about a
/// stage or a version first looks at the findings whose tag concerns it.
#[derive(Debug)]
pub struct History {
    pub(super) releases: Vec<Release>,
    pub(super) taken: Vec<Version>,
    pub(super) stages: BTreeMap<StageName, Stage>,
    pub(super) findings: Vec<Finding>,
}

/// The events of one stage.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) events: Vec<Event>,
    /// Ids of the tags that have a number, by that number, whatever their state.
    pub(super) numbers: BTreeMap<u64, Vec<String>>,
}

impl History {
    /// Sorts out the tags of the model `name`; those of other models are passed over.
    pub fn new(name: &ModelName, tags: impl IntoIterator<Item = Tag>) -> History {
        assemble::history(name, tags.into_iter().collect())
    }

    /// All releases, withdrawn ones too, lowest version first.
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The release of a version.
    pub fn release(&self, version: &Version) -> Option<&Release> {
        find_release(&self.releases, version)
    }

    /// The release that was asked for. A version that is named exactly is found also when it is withdrawn; a prefix
    /// matches final versions only, and `latest` takes a pre-release where there is no final one.
    pub fn find(&self, wanted: &Wanted) -> Option<&Release> {
        let usable = || self.releases.iter().rev().filter(|release| !release.is_withdrawn());
        let mut finals = usable().filter(|release| !release.version.is_pre());
        match wanted {
            Wanted::Exact(version) => self.release(version),
            Wanted::Prefix { major, minor } => {
                finals.find(|release| release.version.has_prefix(*major, *minor))
            }
            Wanted::Latest => finals.next().or_else(|| usable().next()),
        }
    }

    /// All versions whose name is taken, also by a tag that is damaged, or by an event whose release was deleted; lowest first:
    /// what a bump starts from.
    pub fn taken(&self) -> &[Version] {
        &self.taken
    }

    /// The stages that ever had an event.
    pub fn stages(&self) -> impl Iterator<Item = &StageName> {
        self.stages.keys()
    }

    /// The events of a stage, in order.
    pub fn events(&self, stage: &StageName) -> &[Event] {
        self.stages.get(stage).map_or(&[], |stage| &stage.events)
    }

    /// What is wrong, in the order of tag names.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What is in the stage.
    pub fn current(&self, stage: &StageName) -> Option<Current<'_>> {
        self.replay(stage, None).current()
    }

    /// What was in the stage at a time, in Unix seconds, as far as the taggers' clocks tell.
    ///
    /// Events count in their order up to the first that is later; one behind it with an earlier time does not count,
    /// because its clock was wrong or the other one's was.
    pub fn at(&self, stage: &StageName, time: i64) -> Option<Current<'_>> {
        self.replay(stage, Some(time)).current()
    }

    /// Where a rollback of the stage goes: the last version that was in it before the current one, has a release, and
    /// is not known to be bad there; see [`Current`] for what makes it bad. In an empty stage, the last one that was in it.
    pub fn rollback_target(&self, stage: &StageName) -> Option<&Version> {
        self.replay(stage, None).rollback_target()
    }

    /// Whether the version ever was in the stage; a canary's share alone does not count.
    pub fn was_in(&self, stage: &StageName, version: &Version) -> bool {
        self.replay(stage, None).was_in(version)
    }

    /// Who approved the version for the stage.
    pub fn approvals(&self, stage: &StageName, version: &Version) -> Vec<&Event> {
        let approves =
            |event: &&Event| event.action == Action::Approve && event.version.as_ref() == Some(version);
        self.events(stage).iter().filter(approves).collect()
    }

    /// Number of the next event of the stage, and the event before it. A number counts as used whatever the state of
    /// its tag, since no second tag can have that name. Fails when there is no higher number.
    pub fn next(&self, stage: &StageName) -> Result<Next> {
        let last = self.stages.get(stage).and_then(|stage| stage.numbers.last_key_value());
        let previous = last.and_then(|(&n, oids)| Some(Previous { n, oid: oids.first()?.clone() }));
        let n = previous.as_ref().map_or(0, |previous| previous.n) + 1;
        if n > MAX_NUMBER {
            return Err(Error::new(format!("{stage}: no number is left for another event")).hint(
                "the tag with the highest number was not made by git-model; delete it at the git remote",
            ));
        }
        Ok(Next { n, previous })
    }

    fn replay(&self, stage: &StageName, until: Option<i64>) -> State<'_> {
        let mut state = State::new(self, until);
        self.events(stage)
            .iter()
            .take_while(|event| until.is_none_or(|time| event.tag.time <= time))
            .for_each(|event| state.apply(event));
        state
    }
}

/// The release of a version, among releases with the lowest version first.
pub(super) fn find_release<'a>(releases: &'a [Release], version: &Version) -> Option<&'a Release> {
    let at = releases.binary_search_by(|release| release.version.cmp(version)).ok()?;
    releases.get(at)
}
