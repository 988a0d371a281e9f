//! Names of models and stages, as they stand in tags.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::wire::checked;
use crate::error::{Error, Result};
use crate::human;

/// Longest model name in bytes. With the longest version or stage and number, and git's `.lock`, one component of the
/// tag's path still fits the 255 bytes that file systems allow.
pub const MAX_NAME: usize = 200;
/// Longest stage name in bytes; see [`MAX_NAME`].
pub const MAX_STAGE: usize = 32;

/// Words that mean something else behind `@`: a choice of ours, and two tag names of GTO.
const RESERVED_STAGES: [&str; 3] = ["latest", "deprecated", "created"];

/// The name of a model: parts of letters, digits, `.`, `_` and `-`, joined by `/`, each a valid component of a git ref.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ModelName(String);

impl ModelName {
    /// Checks a name from a user, a committed file or a tag.
    pub fn parse(text: &str) -> Result<Self> {
        let reason = if text.len() > MAX_NAME {
            Some("longer than 200 bytes")
        } else {
            text.split('/').find_map(|part| check_part(part).err())
        };
        match reason {
            None => Ok(ModelName(text.to_owned())),
            Some(reason) => Err(Error::new(format!("{}: not a model name: {reason}", shown(text)))
                .hint("use letters, digits, `.`, `_` and `-`, and `/` between parts: team/churn")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which names are compared for uniqueness: two models may not differ in letter case only.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The name of a stage: letters, digits, `_` and `-`. No dot and no leading digit, so that it is never taken for a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StageName(String);

impl StageName {
    /// Checks a name from a user, a committed file or a tag.
    pub fn parse(text: &str) -> Result<Self> {
        let reason = if text.len() > MAX_STAGE {
            Some("longer than 32 bytes")
        } else if text.contains(['.', '/']) {
            Some("a stage has no dot and no slash")
        } else if looks_like_version(text) {
            Some("it looks like a version")
        } else if RESERVED_STAGES.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            Some("the word is reserved")
        } else {
            check_part(text).err()
        };
        match reason {
            None => Ok(StageName(text.to_owned())),
            Some(reason) => Err(Error::new(format!("{}: not a stage name: {reason}", shown(text)))
                .hint("use letters, digits, `_` and `-`, and a letter first: prod, staging, eu-canary")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why one part of a name may not be used.
fn check_part(part: &str) -> Result<(), &'static str> {
    let at_edges = part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.ends_with(|c: char| c.is_ascii_alphanumeric());
    if !part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Err("a character that is not allowed");
    }
    if !at_edges {
        return Err("every part starts and ends with a letter or digit");
    }
    if part.contains("..") {
        return Err("git allows no `..` in a tag");
    }
    if ends_with_lock(part) {
        return Err("git allows no `.lock` at the end");
    }
    Ok(())
}

/// Whether git would refuse a ref component with this end; in any letter case, since some file systems ignore it.
pub(super) fn ends_with_lock(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".lock")
}

fn looks_like_version(text: &str) -> bool {
    text.strip_prefix(['v', 'V']).unwrap_or(text).starts_with(|c: char| c.is_ascii_digit())
}

/// Refused text for a message: escaped, and cut where it could fill a screen.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let start: String = text.chars().take(LONGEST).collect();
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", human::escape(&start))
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, ModelName::parse)
    }
}

impl<'de> Deserialize<'de> for StageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, StageName::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names() {
        for good in ["a", "churn", "team/churn", "llama-3.1", "a/b/c", "A_b-C.d9", "7b", "lock", "a.locks"] {
            assert_eq!(ModelName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".a",
            "a.",
            "-a",
            "a-",
            "_a",
            "a/-b",
            "a..b",
            "a.lock",
            "a.LOCK/b",
            "a b",
            "a@b",
            "a#b",
            "a=b",
            "a:b",
            "a~1",
            "a^",
            "a*",
            "a?",
            "a[",
            "a\\b",
            "a\nb",
            "a\u{1b}[31m",
            "modèle",
            "a@{1}",
        ] {
            assert!(ModelName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ModelName::parse(&"a".repeat(MAX_NAME)).is_ok());
        assert!(ModelName::parse(&"a".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn stage_names() {
        for good in ["prod", "Prod", "eu-canary", "a_b", "v", "vault", "p1", "latest-ok"] {
            assert_eq!(StageName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "latest",
            "LATEST",
            "deprecated",
            "created",
            "v1",
            "V2",
            "1",
            "1.4",
            "v1-rc",
            "2fa",
            "a.b",
            "a/b",
            "-a",
            "a-",
            "prod!",
            "prod#1",
            "a b",
            "pröd",
            "a\n",
        ] {
            assert!(StageName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(StageName::parse(&"a".repeat(MAX_STAGE)).is_ok());
        assert!(StageName::parse(&"a".repeat(MAX_STAGE + 1)).is_err());
    }

    #[test]
    fn refusals_are_short_and_safe_for_a_terminal() {
        let error = ModelName::parse(&"\u{1b}".repeat(1_000_000)).unwrap_err().one_line();
        assert!(error.len() < 1000 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn a_refusal_in_a_file_names_its_line() {
        type Names = std::collections::BTreeMap<String, ModelName>;
        let error = crate::yaml::from_slice::<Names>(b"a: churn\nb: -x\n", "m.yaml").unwrap_err().one_line();
        assert!(error.starts_with("m.yaml:2:4: ") && error.contains("not a model name"), "{error}");
        assert!(serde_json::from_str::<Vec<StageName>>("[\"v1\"]").is_err());
    }

    #[test]
    fn case_does_not_make_a_name_new() {
        let folded = |name| ModelName::parse(name).unwrap().folded();
        assert_eq!(folded("Team/Churn"), folded("team/churn"));
    }

    #[test]
    fn longest_tag_fits_a_file_name() {
        let number = super::super::MAX_NUMBER.to_string().len();
        assert!(MAX_NAME + "#".len() + MAX_STAGE + "#".len() + number + ".lock".len() <= 255);
        assert!(MAX_NAME + "@v".len() + super::super::MAX_VERSION + ".lock".len() <= 255);
    }
}
