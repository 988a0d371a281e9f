//! From a heap of tags to a [`History`], and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::finding::Finding;
use super::history::{Event, History, Release, Stage, Tag, find_release};
use super::message::Parsed;
use super::name::{ModelName, StageName};
use super::payload::{Action, EventPayload, Previous};
use super::tag::{Subject, TagName};
use super::version::Version;

/// The tags of one model, by what they are about.
#[derive(Default)]
struct Heap {
    /// Of a version that only a lightweight tag names, no tag.
    versions: BTreeMap<Version, Vec<Tag>>,
    stages: BTreeMap<StageName, StageTags>,
    deprecated_at: Option<i64>,
    last_use: Option<i64>,
    findings: Vec<Finding>,
}

#[derive(Default)]
struct StageTags {
    tags: Vec<Tag>,
    numbers: BTreeMap<u64, Vec<String>>,
}

/// The releases of a model, to look things up in.
struct Releases {
    /// Lowest version first.
    all: Vec<Release>,
    /// Indices into `all`, by commit.
    at_commit: HashMap<String, Vec<usize>>,
}

/// See [`History::new`].
pub(super) fn history(name: &ModelName, mut tags: Vec<Tag>) -> History {
    let folded = name.folded();
    tags.retain(|tag| tag.name.model() == name || tag.name.model().folded() == folded);
    // So that nothing below depends on the order in which git listed them.
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    let mut heap = Heap::default();
    heap.report_same_names(name, &tags);
    for tag in tags.into_iter().filter(|tag| tag.name.model() == name) {
        heap.take(tag);
    }
    let Heap { versions, stages, deprecated_at, last_use, mut findings } = heap;
    let deprecated = deprecated_at.is_some_and(|at| last_use.is_none_or(|last| last <= at));
    let mut taken: BTreeSet<Version> = versions.keys().cloned().collect();
    let all = versions
        .into_iter()
        .filter_map(|(version, tags)| release(version, tags, deprecated, &mut findings))
        .collect();
    let releases = Releases::new(all);
    let stages: BTreeMap<StageName, Stage> = stages
        .into_iter()
        .map(|(stage, StageTags { tags, numbers })| {
            let events = events(tags, &numbers, &releases, &mut findings);
            (stage, Stage { events, numbers })
        })
        .collect();
    let events = stages.values().flat_map(|stage| &stage.events);
    taken.extend(events.filter_map(|event| event.version.clone()));
    findings.sort_by(|a, b| a.tag().cmp(b.tag()));
    History { releases: releases.all, taken: taken.into_iter().collect(), stages, findings }
}

impl Heap {
    /// Reports other models and stages whose names fall together where letter case does not count. All `tags` are of
    /// such models.
    fn report_same_names(&mut self, name: &ModelName, tags: &[Tag]) {
        let names = || tags.iter().map(|tag| &tag.name);
        let models = names().map(|tag| (tag, tag.model().as_str()));
        self.findings.extend(same_names(Some(name.as_str()), models));
        let stages =
            names().filter(|tag| tag.model() == name).filter_map(|tag| Some((tag, tag.stage()?.as_str())));
        self.findings.extend(same_names(None, stages));
    }

    fn take(&mut self, tag: Tag) {
        // An annotated tag has an object of its own.
        let lightweight = tag.oid == tag.target;
        let time = Some(tag.time).filter(|_| !lightweight);
        if lightweight {
            self.findings.push(Finding::Lightweight { tag: tag.name.clone() });
        }
        let tags = match tag.name.subject() {
            Subject::Model { deprecated: true } => {
                self.deprecated_at = self.deprecated_at.max(time);
                return;
            }
            Subject::Model { deprecated: false } => return,
            Subject::Release { version, .. } => self.versions.entry(version.clone()).or_default(),
            Subject::Stage { stage, .. } => {
                let stage = self.stages.entry(stage.clone()).or_default();
                if let Some(n) = tag.name.number() {
                    stage.numbers.entry(n).or_default().push(tag.oid.clone());
                }
                &mut stage.tags
            }
        };
        self.last_use = self.last_use.max(time);
        if !lightweight {
            tags.push(tag);
        }
    }
}

/// One finding for each further spelling of a name. `known` is a spelling that counts as the first.
fn same_names<'a>(
    known: Option<&'a str>,
    names: impl Iterator<Item = (&'a TagName, &'a str)>,
) -> Vec<Finding> {
    let mut first: HashMap<String, &str> =
        known.map(|name| (name.to_ascii_lowercase(), name)).into_iter().collect();
    let mut seen: HashSet<&str> = known.into_iter().collect();
    let mut findings = Vec::new();
    for (tag, name) in names {
        if !seen.insert(name) {
            continue;
        }
        let first = *first.entry(name.to_ascii_lowercase()).or_insert(name);
        if first != name {
            findings.push(Finding::SameName { tag: tag.clone(), other: first.to_owned() });
        }
    }
    findings
}

/// The release that the tags of one version make, if one of them is sound.
fn release(
    version: Version,
    mut tags: Vec<Tag>,
    deprecated: bool,
    findings: &mut Vec<Finding>,
) -> Option<Release> {
    tags.sort_by_key(|tag| (tag.time, tag.name.number()));
    tags.retain(|tag| {
        let finding = check_release(tag);
        let sound = finding.is_none();
        findings.extend(finding);
        sound
    });
    let undone = tags.last().filter(|tag| tag.name.is_undo()).map(|tag| tag.time);
    tags.retain(|tag| !tag.name.is_undo());
    let ours = tags.iter().position(|tag| matches!(tag.message, Parsed::Release(_)));
    let tag = if tags.is_empty() { return None } else { tags.remove(ours.unwrap_or(0)) };
    let others = tags.into_iter().filter(|other| other.target != tag.target);
    findings.extend(others.map(|other| Finding::OtherCommit { tag: other.name }));
    Some(Release { version, tag, undone, deprecated })
}

/// Whether a tag can be believed to be the release that its name says.
fn check_release(tag: &Tag) -> Option<Finding> {
    match (&tag.message, &tag.name) {
        (Parsed::Plain, _) => None,
        (Parsed::Damaged(reason), _) => Some(damaged(tag, reason)),
        (Parsed::Release(payload), TagName::Release { name, version }) => {
            if payload.name != *name {
                Some(disagrees(tag, "name"))
            } else if payload.version != *version {
                Some(disagrees(tag, "version"))
            } else if payload.commit != tag.target {
                Some(disagrees(tag, "commit"))
            } else {
                None
            }
        }
        _ => Some(disagrees(tag, "kind of tag")),
    }
}

/// The events of one stage, in order.
fn events(
    tags: Vec<Tag>,
    numbers: &BTreeMap<u64, Vec<String>>,
    releases: &Releases,
    findings: &mut Vec<Finding>,
) -> Vec<Event> {
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for tag in tags {
        if tag.message == Parsed::Plain {
            foreign.push(foreign_event(tag, releases, findings));
        } else if let Some(payload) = own_payload(&tag, findings) {
            findings.extend(check_chain(&tag, payload, numbers));
            findings.extend(check_named_release(&tag, payload, releases));
            let (action, version) = (payload.action.clone(), payload.version.clone());
            ours.push(Event { n: Some(payload.n), action, version, tag });
        }
    }
    in_order(ours, foreign)
}

/// The payload of a tag, if it is about this very event.
fn own_payload<'a>(tag: &'a Tag, findings: &mut Vec<Finding>) -> Option<&'a EventPayload> {
    let finding = match (&tag.message, &tag.name) {
        (Parsed::Damaged(reason), _) => damaged(tag, reason),
        (Parsed::Event(payload), TagName::Event { name, stage, n }) => {
            if payload.name != *name {
                disagrees(tag, "name")
            } else if payload.stage != *stage {
                disagrees(tag, "stage")
            } else if payload.n != *n {
                disagrees(tag, "number")
            } else {
                return Some(payload);
            }
        }
        _ => disagrees(tag, "kind of tag"),
    };
    findings.push(finding);
    None
}

fn foreign_event(tag: Tag, releases: &Releases, findings: &mut Vec<Finding>) -> Event {
    let version = releases.version_at(&tag.target, tag.time).cloned();
    let action = if tag.name.is_undo() { Action::Unassign } else { Action::Promote };
    if version.is_none() {
        findings.push(Finding::NoRelease { tag: tag.name.clone(), release: None });
    }
    Event { n: tag.name.number(), action, version, tag }
}

/// Compares the event that this one remembers with the one that stands before it.
fn check_chain(tag: &Tag, payload: &EventPayload, numbers: &BTreeMap<u64, Vec<String>>) -> Option<Finding> {
    let before = payload.n.saturating_sub(1);
    let tag = tag.name.clone();
    match (&payload.previous, numbers.get(&before)) {
        (None, None) if before == 0 => None,
        (_, None) if before > 0 => Some(Finding::Gap { tag }),
        (Some(Previous { n, oid }), Some(oids)) if *n == before && oids.contains(oid) => None,
        _ => Some(Finding::Rewritten { tag }),
    }
}

/// Compares the release that an event names with the one that there is.
fn check_named_release(tag: &Tag, payload: &EventPayload, releases: &Releases) -> Option<Finding> {
    let version = payload.version.as_ref()?;
    let Some(release) = releases.get(version) else {
        let release = TagName::Release { name: payload.name.clone(), version: version.clone() }.to_string();
        return Some(Finding::NoRelease { tag: tag.name.clone(), release: Some(release) });
    };
    let named = payload.release_tag.as_deref();
    if tag.target != release.tag.target || named.is_some_and(|oid| oid != release.tag.oid) {
        return Some(Finding::Moved { tag: tag.name.clone(), release: release.tag.name.to_string() });
    }
    let digest = release.payload().map(|payload| payload.digest);
    let differs = payload.digest.zip(digest).is_some_and(|(named, digest)| named != digest);
    differs.then(|| disagrees(tag, "model digest"))
}

/// Our events by number. GTO's between them by their own number, or time where they have none; of one number, ours
/// stands. Where only GTO's follow each other, in GTO's order.
fn in_order(mut ours: Vec<Event>, foreign: Vec<Event>) -> Vec<Event> {
    ours.sort_by_key(|event| event.n);
    let is_before = |own: &Event, event: &Event| match event.n {
        Some(_) => own.n < event.n,
        None => own.tag.time < event.tag.time,
    };
    let place = |event: &Event| ours.iter().take_while(|own| is_before(own, event)).count();
    let mut placed: Vec<(usize, Event)> = foreign.into_iter().map(|event| (place(&event), event)).collect();
    // Where two clones chose one number in the same second, the assignment stands.
    placed.sort_by_key(|(place, event)| (*place, event.tag.time, event.n, event.action != Action::Unassign));
    let mut ordered = Vec::with_capacity(ours.len() + placed.len());
    let mut placed = placed.into_iter().peekable();
    for (index, own) in ours.into_iter().enumerate() {
        while let Some((_, before)) = placed.next_if(|(place, _)| *place <= index) {
            ordered.push(before);
        }
        ordered.push(own);
    }
    ordered.extend(placed.map(|(_, event)| event));
    ordered
}

fn damaged(tag: &Tag, reason: &str) -> Finding {
    Finding::Damaged { tag: tag.name.clone(), reason: reason.to_owned() }
}

fn disagrees(tag: &Tag, about: &'static str) -> Finding {
    Finding::Disagrees { tag: tag.name.clone(), about }
}

impl Releases {
    fn new(all: Vec<Release>) -> Self {
        let mut at_commit: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, release) in all.iter().enumerate() {
            at_commit.entry(release.tag.target.clone()).or_default().push(index);
        }
        Releases { all, at_commit }
    }

    fn get(&self, version: &Version) -> Option<&Release> {
        find_release(&self.all, version)
    }

    /// The version of a commit, for a tag that names only that: the highest that it had by then; else the highest that
    /// it ever got, because GTO counts a version that was registered after its commit was assigned.
    fn version_at(&self, commit: &str, time: i64) -> Option<&Version> {
        let here = || self.at_commit.get(commit).into_iter().flatten().rev().map(|&at| &self.all[at]);
        let by_then = here().find(|release| release.tag.time <= time);
        by_then.or_else(|| here().next()).map(|release| &release.version)
    }
}
