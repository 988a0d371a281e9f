//! What a person types to name a version.

use super::name::{ModelName, StageName, shown};
use super::tag::TagName;
use super::version::{Version, parse_number};
use crate::error::{Error, Result};

/// Longest text that is handed to git as a revision, in bytes.
const MAX_REVISION: usize = 1024;

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `churn@v1.4.0`, `churn@1.4` or `churn@latest`.
    Release {
        /// The model.
        name: ModelName,
        /// Which version.
        wanted: Wanted,
    },
    /// `churn#prod`, or `churn@prod` for shells and URLs where `#` is awkward.
    Stage {
        /// The model.
        name: ModelName,
        /// The stage.
        stage: StageName,
    },
    /// `churn`: the model if there is one of this name, else a revision.
    Model(ModelName),
    /// A revision for git, such as `HEAD~2`, `main@{1}` or the exact name of any tag. It never starts with `-`.
    Commit(String),
}

/// Which version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Exact(Version),
    /// The highest final version that starts with these numbers.
    Prefix {
        /// Major number.
        major: u64,
        /// Minor number, if given.
        minor: Option<u64>,
    },
    /// The highest final version; the highest pre-release where there is no other.
    Latest,
}

impl Reference {
    /// Parses what was typed.
    ///
    /// `@` and `#` behind a model's name must be followed by a version, a stage or `latest`; git's own `@{…}` and the
    /// names of other tags stay revisions.
    pub fn parse(text: &str) -> Result<Reference> {
        let Some(at) = text.find(['@', '#']) else {
            return ModelName::parse(text).map(Reference::Model).or_else(|_| revision(text));
        };
        let (left, rest) = (&text[..at], &text[at + 1..]);
        let Ok(name) = ModelName::parse(left) else { return revision(text) };
        let is_version = text[at..].starts_with('@');
        if let Some(wanted) = Wanted::parse(rest).filter(|_| is_version) {
            return Ok(Reference::Release { name, wanted });
        }
        if let Ok(stage) = StageName::parse(rest) {
            return Ok(Reference::Stage { name, stage });
        }
        if TagName::parse(text).is_some() || (is_version && rest.starts_with('{')) {
            return revision(text);
        }
        Err(Error::usage(format!("{}: neither a version nor a stage of {name}", shown(text))).hint(format!(
            "write {name}@v1.4.0, {name}@1.4, {name}@latest or {name}#prod; name a commit by its id"
        )))
    }
}

impl Wanted {
    /// Parses what stands behind `@`: `v1.4.0`, `1.4`, `1` or `latest`.
    pub fn parse(text: &str) -> Option<Wanted> {
        if text == "latest" {
            return Some(Wanted::Latest);
        }
        if let Ok(version) = Version::parse_typed(text) {
            return Some(Wanted::Exact(version));
        }
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let (major, minor) = match numbers.split_once('.') {
            Some((major, minor)) => (major, Some(parse_number(minor)?)),
            None => (numbers, None),
        };
        Some(Wanted::Prefix { major: parse_number(major)?, minor })
    }
}

/// A revision that is safe to hand to git.
fn revision(text: &str) -> Result<Reference> {
    let reason = if text.is_empty() {
        "it is empty"
    } else if text.len() > MAX_REVISION {
        "longer than 1,024 bytes"
    } else if text.starts_with('-') {
        "git would take it for an option"
    } else if text.chars().any(char::is_control) {
        "it holds control characters"
    } else {
        return Ok(Reference::Commit(text.to_owned()));
    };
    Err(Error::usage(format!("{}: not a reference: {reason}", shown(text)))
        .hint("name a model, a release, a stage or a commit: churn, churn@v1.4.0, churn#prod, HEAD"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(text: &str) -> String {
        match Reference::parse(text) {
            Ok(Reference::Release { name, wanted: Wanted::Exact(version) }) => {
                format!("{name} exact {version}")
            }
            Ok(Reference::Release { name, wanted: Wanted::Prefix { major, minor } }) => {
                format!("{name} prefix {major} {minor:?}")
            }
            Ok(Reference::Release { name, wanted: Wanted::Latest }) => format!("{name} latest"),
            Ok(Reference::Stage { name, stage }) => format!("{name} in {stage}"),
            Ok(Reference::Model(name)) => format!("model {name}"),
            Ok(Reference::Commit(text)) => format!("commit {text}"),
            Err(error) => format!("error {:?}", error.kind()),
        }
    }

    #[test]
    fn what_people_type() {
        for (text, expected) in [
            ("churn@v1.4.0", "churn exact 1.4.0"),
            ("churn@1.4.0", "churn exact 1.4.0"),
            ("team/churn@v2.0.0-rc.1+cu1", "team/churn exact 2.0.0-rc.1+cu1"),
            ("churn@1.4", "churn prefix 1 Some(4)"),
            ("churn@v1", "churn prefix 1 None"),
            ("churn@0", "churn prefix 0 None"),
            ("churn@latest", "churn latest"),
            ("churn#prod", "churn in prod"),
            ("churn@prod", "churn in prod"),
            ("churn", "model churn"),
            ("main", "model main"),
            ("a/b", "model a/b"),
            ("HEAD~2", "commit HEAD~2"),
            ("@", "commit @"),
            ("@~1", "commit @~1"),
            ("main@{1}", "commit main@{1}"),
            ("main@{upstream}", "commit main@{upstream}"),
            ("HEAD^{/fix me}", "commit HEAD^{/fix me}"),
            ("churn#prod#7", "commit churn#prod#7"),
            ("m@v1.0.0!", "commit m@v1.0.0!"),
            ("churn@deprecated", "commit churn@deprecated"),
        ] {
            assert_eq!(describe(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "--upload-pack=x",
            "-@{1}",
            "churn@",
            "churn#",
            "churn@v1.4.x",
            "churn@01.4",
            "churn@1.04",
            "churn@1.",
            "churn@v1-rc",
            "churn@LATEST",
            "churn#v1",
            "churn#1.4",
            "churn#latest",
            "churn#prod#0",
            "churn#{1}",
            "churn@pr od",
            "churn@99999999999999999999",
            "HEAD\n",
            "a\u{1b}[2J",
        ] {
            assert_eq!(describe(text), "error Usage", "{text:?}");
        }
        assert_eq!(describe(&"~".repeat(MAX_REVISION + 1)), "error Usage");
    }
}
