//! Tag names: our two forms, and those that only GTO writes.

use std::fmt;

use super::name::{ModelName, StageName};
use super::version::{Version, parse_number};

/// Highest number of an event: the largest integer that every JSON reader keeps exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The name of a tag that says something about a model, without `refs/tags/`.
///
/// GTO writes the first two forms too; its tags are told apart by their message, which has no payload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagName {
    /// `churn@v1.4.0`
    Release {
        /// The model.
        name: ModelName,
        /// The version.
        version: Version,
    },
    /// `churn#prod#7`
    Event {
        /// The model.
        name: ModelName,
        /// The stage.
        stage: StageName,
        /// Number of the event in this stage, from 1.
        n: u64,
    },
    /// Every other form of GTO's grammar.
    Foreign(GtoTag),
}

/// A tag name that only GTO writes: `[dir=]name`, an action, and for some a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GtoTag {
    /// The folder before `=`; GTO has it in monorepos.
    pub dir: Option<ModelName>,
    /// The model as we call it: `dir/name`, since two folders may hold models of one name.
    pub model: ModelName,
    /// What the tag does.
    pub action: GtoAction,
    /// GTO's counter, which runs over all stages of a model.
    pub counter: Option<u64>,
}

/// What a GTO tag does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GtoAction {
    /// `@v1.0.0`: the commit is this version.
    Register(Version),
    /// `@v1.0.0!`: the version is withdrawn.
    Deregister(Version),
    /// `#prod`: the commit is in this stage.
    Assign(StageName),
    /// `#prod!`: the commit's version is no longer in this stage.
    Unassign(StageName),
    /// `@deprecated`: the model is no longer kept.
    Deprecate,
    /// `@created`: in the grammar, but without meaning.
    Create,
}

/// What a tag is about, whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Release { version: &'a Version, undo: bool },
    Stage { stage: &'a StageName, undo: bool },
    Model { deprecated: bool },
}

impl TagName {
    /// Reads a tag name without `refs/tags/`; `None` when it says nothing about a model.
    pub fn parse(text: &str) -> Option<TagName> {
        let (artifact, rest) = text.split_at(text.find(['@', '#'])?);
        let (dir, name) = match artifact.split_once('=') {
            Some((dir, name)) => (Some(ModelName::parse(dir).ok()?), name),
            None => (None, artifact),
        };
        ModelName::parse(name).ok()?;
        let model = ModelName::parse(&artifact.replace('=', "/")).ok()?;
        let (action, counter) = parse_action(rest)?;
        Some(match (dir, action, counter) {
            (None, GtoAction::Register(version), None) => TagName::Release { name: model, version },
            (None, GtoAction::Assign(stage), Some(n)) => TagName::Event { name: model, stage, n },
            (dir, action, counter) => TagName::Foreign(GtoTag { dir, model, action, counter }),
        })
    }

    /// The model it is about.
    pub fn model(&self) -> &ModelName {
        match self {
            TagName::Release { name, .. } | TagName::Event { name, .. } => name,
            TagName::Foreign(tag) => &tag.model,
        }
    }

    /// The version in its name.
    pub fn version(&self) -> Option<&Version> {
        match self.subject() {
            Subject::Release { version, .. } => Some(version),
            _ => None,
        }
    }

    /// The stage in its name.
    pub fn stage(&self) -> Option<&StageName> {
        match self.subject() {
            Subject::Stage { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// The number in its name: of one of our events in its stage, or GTO's counter.
    pub fn number(&self) -> Option<u64> {
        match self {
            TagName::Release { .. } => None,
            TagName::Event { n, .. } => Some(*n),
            TagName::Foreign(tag) => tag.counter,
        }
    }

    /// Whether it takes back what an earlier tag said.
    pub(super) fn is_undo(&self) -> bool {
        matches!(self.subject(), Subject::Release { undo: true, .. } | Subject::Stage { undo: true, .. })
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        match self {
            TagName::Release { version, .. } => Subject::Release { version, undo: false },
            TagName::Event { stage, .. } => Subject::Stage { stage, undo: false },
            TagName::Foreign(tag) => match &tag.action {
                GtoAction::Register(version) => Subject::Release { version, undo: false },
                GtoAction::Deregister(version) => Subject::Release { version, undo: true },
                GtoAction::Assign(stage) => Subject::Stage { stage, undo: false },
                GtoAction::Unassign(stage) => Subject::Stage { stage, undo: true },
                GtoAction::Deprecate => Subject::Model { deprecated: true },
                GtoAction::Create => Subject::Model { deprecated: false },
            },
        }
    }
}

/// Reads `@v1.0.0!#3` or `#prod!#3`.
fn parse_action(rest: &str) -> Option<(GtoAction, Option<u64>)> {
    let (sign, body) = rest.split_at(1);
    let (body, counter) = match body.split_once('#') {
        Some((body, counter)) => (body, Some(parse_event_number(counter)?)),
        None => (body, None),
    };
    let (word, undo) = match body.strip_suffix('!') {
        Some(word) => (word, true),
        None => (body, false),
    };
    let action = match (sign, word, undo) {
        ("@", "deprecated", false) => GtoAction::Deprecate,
        ("@", "created", false) => GtoAction::Create,
        ("@", version, _) => {
            let version = Version::parse(version.strip_prefix('v')?).ok()?;
            if undo { GtoAction::Deregister(version) } else { GtoAction::Register(version) }
        }
        (_, stage, undo) => {
            let stage = StageName::parse(stage).ok()?;
            if undo { GtoAction::Unassign(stage) } else { GtoAction::Assign(stage) }
        }
    };
    Some((action, counter))
}

fn parse_event_number(text: &str) -> Option<u64> {
    parse_number(text).filter(|n| (1..=MAX_NUMBER).contains(n))
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TagName::Release { name, version } => write!(f, "{name}@v{version}"),
            TagName::Event { name, stage, n } => write!(f, "{name}#{stage}#{n}"),
            TagName::Foreign(tag) => tag.fmt(f),
        }
    }
}

impl fmt::Display for GtoTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.model.as_str();
        match &self.dir {
            Some(dir) => write!(f, "{dir}={}", model.get(dir.as_str().len() + 1..).unwrap_or(model))?,
            None => f.write_str(model)?,
        }
        match &self.action {
            GtoAction::Register(version) => write!(f, "@v{version}")?,
            GtoAction::Deregister(version) => write!(f, "@v{version}!")?,
            GtoAction::Assign(stage) => write!(f, "#{stage}")?,
            GtoAction::Unassign(stage) => write!(f, "#{stage}!")?,
            GtoAction::Deprecate => f.write_str("@deprecated")?,
            GtoAction::Create => f.write_str("@created")?,
        }
        self.counter.map_or(Ok(()), |counter| write!(f, "#{counter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &TagName) -> &'static str {
        match name {
            TagName::Release { .. } => "release",
            TagName::Event { .. } => "event",
            TagName::Foreign(tag) => match tag.action {
                GtoAction::Register(_) => "gto register",
                GtoAction::Deregister(_) => "gto deregister",
                GtoAction::Assign(_) => "gto assign",
                GtoAction::Unassign(_) => "gto unassign",
                GtoAction::Deprecate => "gto deprecate",
                GtoAction::Create => "gto create",
            },
        }
    }

    #[test]
    fn every_form_is_read_and_printed_again() {
        for (text, expected, model, number) in [
            ("churn@v1.4.0", "release", "churn", None),
            ("team/churn@v2.0.0-rc.1", "release", "team/churn", None),
            ("llama-3.1@v1.0.0+cu121", "release", "llama-3.1", None),
            ("churn#prod#7", "event", "churn", Some(7)),
            ("a/b/c#eu-canary#10", "event", "a/b/c", Some(10)),
            ("churn#prod#9007199254740991", "event", "churn", Some(MAX_NUMBER)),
            ("sub/dir=model@v1.2.3", "gto register", "sub/dir/model", None),
            ("results/train=pool-seg#dev#3", "gto assign", "results/train/pool-seg", Some(3)),
            ("m@v1.0.0!", "gto deregister", "m", None),
            ("m@v1.0.0#3", "gto register", "m", Some(3)),
            ("m@v1.0.0!#4", "gto deregister", "m", Some(4)),
            ("m#prod!#3", "gto unassign", "m", Some(3)),
            ("m#prod", "gto assign", "m", None),
            ("m#prod!", "gto unassign", "m", None),
            ("m@deprecated", "gto deprecate", "m", None),
            ("m@deprecated#2", "gto deprecate", "m", Some(2)),
            ("m@created", "gto create", "m", None),
        ] {
            let name = TagName::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (kind(&name), name.model().as_str(), name.number()),
                (expected, model, number),
                "{text}"
            );
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn everything_else_is_not_ours() {
        for text in [
            "",
            "@",
            "#",
            "churn",
            "v1.4.0",
            "@v1.0.0",
            "#prod#1",
            "churn@",
            "churn#",
            "churn@1.4.0",
            "churn@v1.4",
            "churn@vv1.4.0",
            "churn@v01.4.0",
            "churn@latest",
            "churn@prod",
            "churn@v1.4.0-rc.lock",
            "churn@v1.4.0!!",
            "churn#prod#0",
            "churn#prod#07",
            "churn#prod#+7",
            "churn#prod#-1",
            "churn#prod#",
            "churn#prod#7#8",
            "churn#prod#9007199254740992",
            "churn#prod#99999999999999999999999",
            "churn#v1#1",
            "churn#1.4#1",
            "churn#latest#1",
            "churn#prod!!#1",
            "churn#!#1",
            "churn##1",
            "a..b@v1.0.0",
            "a.lock@v1.0.0",
            "=m@v1.0.0",
            "a=@v1.0.0",
            "a=b=c@v1.0.0",
            "../x=m@v1.0.0",
            "./x=m@v1.0.0",
            "churn@deprecated!",
            "churn @v1.0.0",
            "churn@v1.0.0\n",
            "chürn@v1.0.0",
            "churn@é",
            "churn#é#1",
            "é",
        ] {
            assert_eq!(TagName::parse(text), None, "{text:?}");
        }
        let (dir, name) = ("d".repeat(150), "n".repeat(150));
        assert_eq!(TagName::parse(&format!("{dir}={name}@v1.0.0")), None, "longer than a name may be");
    }
}
