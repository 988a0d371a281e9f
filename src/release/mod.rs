//! Releases and stages: their names, the tags that hold them, and what a list of tags says about a model.
//!
//! Only rules; no git, files, network or clock. Tags are read by [`TagName::parse`] and [`parse_message`], put together
//! by [`History::new`], and written with [`format_release`] and [`format_event`].
//!
//! Two grammars are read: ours, and that of GTO (`gto/constants.py` and `gto/base.py` at 1.10.1), whose tags carry no payload.

mod assemble;
mod finding;
mod history;
mod message;
mod name;
mod payload;
mod reference;
mod stage;
mod tag;
mod version;
mod wire;

pub use finding::Finding;
pub use history::{Event, History, Next, Release, Tag};
pub use message::{MAX_MESSAGE, Parsed, format_event, format_release, parse as parse_message};
pub use name::{MAX_NAME, MAX_STAGE, ModelName, StageName};
pub use payload::{
    Action, EventPayload, Outcome, Override, Policy, PolicySource, Previous, ReleasePayload, RemoteNote,
};
pub use reference::{Reference, Wanted};
pub use stage::{Canary, Current};
pub use tag::{GtoAction, GtoTag, MAX_NUMBER, TagName};
pub use version::{Bump, MAX_VERSION, Version};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
