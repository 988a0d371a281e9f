//! What is in a stage, by replaying its events.

use std::collections::BTreeSet;

use super::history::{Event, History};
use super::payload::{Action, Outcome};
use super::version::Version;

/// What is in a stage.
///
/// - A promotion or rollback sets the version and ends a canary. A retirement empties the stage.
/// - A canary stands beside the version; in an empty stage it shows nothing.
/// - An outcome `aborted` ends the canary of the version it names. Approvals and unknown actions change nothing.
/// - GTO's undo takes one version out, and the one that was assigned before it shows again, as in `gto show`. So it is
///   with a version that GTO withdrew.
///
/// A version is bad in a stage when its rollout was aborted there, when it was rolled back from or undone there; until
/// it is promoted there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current<'a> {
    /// The version.
    pub version: &'a Version,
    /// The event that put it there.
    pub since: &'a Event,
    /// The version that has a share of the traffic.
    pub canary: Option<Canary<'a>>,
}

/// A version that has a share of a stage's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary<'a> {
    /// The version.
    pub version: &'a Version,
    /// Its share, in percent.
    pub traffic: u8,
    /// The event that set the share.
    pub since: &'a Event,
}

/// A stage after some of its events.
pub(super) struct State<'a> {
    history: &'a History,
    /// The time that withdrawals are looked at; `None` is now.
    time: Option<i64>,
    /// One event per version in the stage. The last one is current; those below it come back when it is undone.
    holders: Vec<&'a Event>,
    canary: Option<Canary<'a>>,
    /// Every version that became current, in order.
    past: Vec<&'a Version>,
    bad: BTreeSet<&'a Version>,
}

impl<'a> State<'a> {
    pub(super) fn new(history: &'a History, time: Option<i64>) -> Self {
        State { history, time, holders: Vec::new(), canary: None, past: Vec::new(), bad: BTreeSet::new() }
    }

    pub(super) fn apply(&mut self, event: &'a Event) {
        match event.action {
            Action::Promote => self.enter(event),
            Action::Rollback => {
                self.leave();
                self.enter(event);
            }
            Action::Canary => self.canary = canary(event),
            Action::Retire => self.holders.clear(),
            Action::Outcome => self.judge(event),
            Action::Unassign => {
                self.bad.extend(&event.version);
                self.holders.retain(|holder| !is_same(holder, event));
            }
            Action::Approve | Action::Other(_) => {}
        }
    }

    fn enter(&mut self, event: &'a Event) {
        self.canary = None;
        self.holders.retain(|holder| !is_same(holder, event));
        self.holders.push(event);
        if let Some(version) = &event.version {
            self.bad.remove(version);
            self.past.push(version);
        }
    }

    /// Takes the current version out, as one that was not good.
    fn leave(&mut self) {
        if let Some(at) = self.holders.iter().rposition(|holder| !self.is_hidden(holder)) {
            self.bad.extend(&self.holders[at].version);
            self.holders.truncate(at);
        }
    }

    fn judge(&mut self, event: &'a Event) {
        if event.payload().and_then(|payload| payload.outcome) != Some(Outcome::Aborted) {
            return;
        }
        self.bad.extend(&event.version);
        self.canary = self.canary.filter(|canary| event.version.as_ref() != Some(canary.version));
    }

    /// What is in the stage. Nothing, too, where GTO assigned a commit that has no version.
    pub(super) fn current(&self) -> Option<Current<'a>> {
        let since = self.holders.iter().rfind(|holder| !self.is_hidden(holder))?;
        Some(Current { version: since.version.as_ref()?, since, canary: self.canary })
    }

    pub(super) fn rollback_target(&self) -> Option<&'a Version> {
        let current = self.current().map(|current| current.version);
        let mut earlier = self.past.iter().rev().copied();
        earlier.find(|version| {
            let release = self.history.release(version);
            Some(*version) != current
                && !self.bad.contains(version)
                && release.is_some_and(|release| release.undone.is_none())
        })
    }

    pub(super) fn was_in(&self, version: &Version) -> bool {
        self.past.contains(&version)
    }

    /// Whether GTO had withdrawn the version of an event.
    fn is_hidden(&self, event: &Event) -> bool {
        let release = event.version.as_ref().and_then(|version| self.history.release(version));
        let undone = release.and_then(|release| release.undone);
        undone.is_some_and(|undone| self.time.is_none_or(|time| undone <= time))
    }
}

fn canary(event: &Event) -> Option<Canary<'_>> {
    let traffic = event.payload()?.traffic?;
    Some(Canary { version: event.version.as_ref()?, traffic, since: event })
}

/// Whether two events are about the same version, or about the same commit where it has none.
fn is_same(a: &Event, b: &Event) -> bool {
    a.version == b.version && (a.version.is_some() || a.tag.target == b.tag.target)
}
