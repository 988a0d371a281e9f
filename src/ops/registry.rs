//! What tags say about a model, read from this clone.

use super::Ctx;
use crate::error::Result;
use crate::git::Git;
use crate::git::tags::RawTag;
use crate::release::{History, ModelName, Tag, TagName, parse_message};

/// What this clone's own tags say about a model.
pub fn local_history(ctx: &Ctx, name: &ModelName) -> Result<History> {
    history_in(&ctx.git, name)
}

/// What the tags of a repository say about a model. Tags of other models are not read.
pub(super) fn history_in(git: &Git, name: &ModelName) -> Result<History> {
    let tags = read_tags(git, name)?;
    Ok(History::new(name, tags.into_iter().filter_map(to_tag)))
}

/// All tags of a model in a repository.
pub(super) fn read_tags(git: &Git, name: &ModelName) -> Result<Vec<RawTag>> {
    let refs = git.tag_refs(&prefixes(name))?;
    let ours = |name: &String| TagName::parse(name).is_some();
    let refs: Vec<_> = refs.into_iter().filter(|(name, _)| ours(name)).collect();
    git.read_tags(&refs)
}

/// How the names of a model's tags start: ours, and GTO's with a folder before `=`.
pub(super) fn prefixes(name: &ModelName) -> Vec<String> {
    let mut prefixes = vec![format!("{name}@"), format!("{name}#")];
    for (at, _) in name.as_str().match_indices('/') {
        let (dir, rest) = (&name.as_str()[..at], &name.as_str()[at + 1..]);
        prefixes.push(format!("{dir}={rest}@"));
        prefixes.push(format!("{dir}={rest}#"));
    }
    prefixes
}

fn to_tag(raw: RawTag) -> Option<Tag> {
    Some(Tag {
        name: TagName::parse(&raw.name)?,
        oid: raw.id.as_str().to_owned(),
        target: raw.target.as_str().to_owned(),
        tagger: raw.tagger,
        time: raw.time,
        message: parse_message(&raw.message),
    })
}
