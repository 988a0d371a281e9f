//! What is wrong with the tags of a model.

use std::fmt;

use super::tag::TagName;
use super::version::Version;

/// One thing that is wrong. It prints as one line, safe for a terminal, that starts with the tag's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The tag has no object of its own, so neither author nor date nor message: it is ignored, but its name is taken.
    Lightweight {
        /// The tag.
        tag: TagName,
    },
    /// A model or stage whose name differs from another in letter case only.
    SameName {
        /// A tag of the one.
        tag: TagName,
        /// The name of the other.
        other: String,
    },
    /// The message's payload cannot be trusted; the tag is ignored.
    Damaged {
        /// The tag.
        tag: TagName,
        /// Why; one line, safe to print.
        reason: String,
    },
    /// The payload says something else than the tag's name, its commit or the release; the tag is ignored.
    Disagrees {
        /// The tag.
        tag: TagName,
        /// What it disagrees about.
        about: &'static str,
    },
    /// A second tag gives the same version to another commit; it is ignored.
    OtherCommit {
        /// The second tag.
        tag: TagName,
    },
    /// The number before this event's is missing: that event was deleted.
    Gap {
        /// The event behind the gap.
        tag: TagName,
    },
    /// The event before it, as it stands, is not the one it was made after: deleted and made again, or moved.
    Rewritten {
        /// The event that remembers another one.
        tag: TagName,
    },
    /// The release that the event names is not the one it was made with: its tag was moved.
    Moved {
        /// The event.
        tag: TagName,
        /// Name of the release's tag.
        release: String,
    },
    /// There is no release for the version or commit that the event names.
    NoRelease {
        /// The event.
        tag: TagName,
        /// Name of the release's tag, where the event names a version.
        release: Option<String>,
    },
}

impl Finding {
    /// The tag it is about; [`TagName::stage`] and [`TagName::version`] say what that concerns.
    pub fn tag(&self) -> &TagName {
        match self {
            Finding::Lightweight { tag }
            | Finding::SameName { tag, .. }
            | Finding::Damaged { tag, .. }
            | Finding::Disagrees { tag, .. }
            | Finding::OtherCommit { tag }
            | Finding::Gap { tag }
            | Finding::Rewritten { tag }
            | Finding::Moved { tag, .. }
            | Finding::NoRelease { tag, .. } => tag,
        }
    }

    /// Whether it is about the release of this version: about its own tag, or what an event says about it.
    pub fn concerns(&self, version: &Version) -> bool {
        match self {
            Finding::Moved { release, .. } | Finding::NoRelease { release: Some(release), .. } => {
                TagName::parse(release).is_some_and(|tag| tag.version() == Some(version))
            }
            _ => self.tag().version() == Some(version),
        }
    }

    /// How whoever looks after the git remote can mend it.
    pub fn remedy(&self) -> String {
        let again = |tag: &str| {
            format!("a clone that still has it can bring it back: git push REMOTE 'refs/tags/{tag}'")
        };
        match self {
            Finding::Gap { tag } => match tag.number() {
                Some(n) if n > 1 => again(&format!("{}#{}#{}", tag.model(), stage_of(tag), n - 1)),
                _ => "it is lost; git model history still tells the rest".to_owned(),
            },
            Finding::NoRelease { release: Some(release), .. } => again(release),
            Finding::NoRelease { release: None, .. } => {
                "register the version: git model release, or GTO's own command for its tags".to_owned()
            }
            Finding::Moved { release, .. } => {
                format!("a clone that has the tag as it was can put it back: git push --force REMOTE 'refs/tags/{release}'")
            }
            Finding::Rewritten { .. } => {
                "a clone that has the event before it as it was can put it back: git push --force REMOTE 'refs/tags/NAME'"
                    .to_owned()
            }
            Finding::SameName { .. } => "give each model and stage its own name, also ignoring letter case".to_owned(),
            Finding::Lightweight { tag }
            | Finding::Damaged { tag, .. }
            | Finding::Disagrees { tag, .. }
            | Finding::OtherCommit { tag } => format!(
                "if a clone has the right tag: git push --force REMOTE 'refs/tags/{tag}'; if there never was one: git push --delete REMOTE 'refs/tags/{tag}'"
            ),
        }
    }

    /// Whether an event and the release that it names do not agree: what happened holds, and which version is what is in doubt.
    pub fn is_about_a_release(&self) -> bool {
        matches!(self, Finding::Moved { .. } | Finding::NoRelease { .. })
    }

    /// Whether only the past is incomplete: what the newest events say holds all the same.
    pub fn is_about_the_past(&self) -> bool {
        matches!(self, Finding::Gap { .. } | Finding::Rewritten { .. })
    }
}

fn stage_of(tag: &TagName) -> &str {
    tag.stage().map_or("", |stage| stage.as_str())
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.tag())?;
        match self {
            Finding::Lightweight { .. } => f.write_str("a lightweight tag: no author, date or payload"),
            Finding::SameName { other, .. } => write!(f, "its name differs from {other} in letter case only"),
            Finding::Damaged { reason, .. } => write!(f, "damaged payload: {reason}"),
            Finding::Disagrees { about, .. } => write!(f, "its payload disagrees about the {about}"),
            Finding::OtherCommit { .. } => f.write_str("an earlier tag gives this version to another commit"),
            Finding::Gap { .. } => f.write_str("the event before it is missing"),
            Finding::Rewritten { .. } => f.write_str("the event before it was rewritten"),
            Finding::Moved { release, .. } => write!(f, "{release} was moved after this event"),
            Finding::NoRelease { release: Some(release), .. } => {
                write!(f, "the release that it names, {release}, is missing or damaged")
            }
            Finding::NoRelease { release: None, .. } => f.write_str("its commit has no release"),
        }
    }
}
