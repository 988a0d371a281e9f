//! Versions: SemVer 2.0, and how the next one is chosen.

use std::cmp::Ordering;
use std::fmt;

use semver::{BuildMetadata, Prerelease};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::{ends_with_lock, shown};
use super::wire::checked;
use crate::error::{Error, Result};

/// Longest version in bytes; see [`super::MAX_NAME`].
pub const MAX_VERSION: usize = 48;

/// A SemVer 2.0 version. It prints without the `v` that stands before it in tags.
///
/// The order is SemVer's precedence, and after it build metadata, so that it agrees with equality.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// Which part of the version goes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bump {
    /// Incompatible change.
    Major,
    /// Compatible addition.
    Minor,
    /// Correction.
    Patch,
    /// The next pre-release with this identifier: `rc` makes `-rc.1`, then `-rc.2`.
    Pre(String),
}

impl Version {
    /// Checks the exact form `1.4.0-rc.1+cu121`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| {
            Error::new(format!("{}: not a version: {reason}", shown(text)))
                .hint("write major.minor.patch: 1.4.0 or 1.5.0-rc.1")
        };
        if text.len() > MAX_VERSION {
            return Err(invalid("longer than 48 bytes"));
        }
        if ends_with_lock(text) {
            return Err(invalid("git allows no `.lock` at the end of a tag"));
        }
        semver::Version::parse(text).map(Version).map_err(|error| invalid(&error.to_string()))
    }

    /// As [`Version::parse`], for what a person types: one `v` may come first.
    pub fn parse_typed(text: &str) -> Result<Self> {
        Version::parse(text.strip_prefix('v').unwrap_or(text))
    }

    /// Whether it is a pre-release.
    pub fn is_pre(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// Whether it starts with these numbers.
    pub fn has_prefix(&self, major: u64, minor: Option<u64>) -> bool {
        self.0.major == major && minor.is_none_or(|minor| self.0.minor == minor)
    }

    /// Refuses a version that differs from one of `existing` in build metadata only: SemVer gives both the same rank,
    /// so nobody could say which is newer. The very same version passes; whether it is a no-op is the caller's to say.
    pub fn check_new(&self, existing: &[Version]) -> Result<()> {
        match existing.iter().find(|other| *other != self && self.same_rank(other)) {
            None => Ok(()),
            Some(other) => Err(Error::refused(format!(
                "{self}: differs from the existing {other} in build metadata only"
            ))
            .hint("choose another version; build metadata does not make a version newer")),
        }
    }

    fn same_rank(&self, other: &Version) -> bool {
        self.0.cmp_precedence(&other.0) == Ordering::Equal
    }

    /// The version that follows `existing`, which are all versions that have a tag, withdrawn ones too.
    ///
    /// - The first is 0.1.0, or 1.0.0 for [`Bump::Major`]; the first pre-release is 0.1.0-ID.1.
    /// - When the highest is a pre-release that already leads to the version asked for, that is finished: 1.5.0-rc.2
    ///   becomes 1.5.0 by `Patch` or `Minor`, and 2.0.0 by `Major`.
    /// - `Pre` counts on after the highest pre-release, and starts at the next patch after a final version.
    ///
    /// Fails when a number cannot grow or the identifier is not one.
    pub fn bump(existing: &[Version], kind: &Bump) -> Result<Version> {
        let Some(highest) = existing.iter().max() else {
            return Ok(Version(match kind {
                Bump::Major => semver::Version::new(1, 0, 0),
                Bump::Minor | Bump::Patch => semver::Version::new(0, 1, 0),
                Bump::Pre(id) => with_pre(&semver::Version::new(0, 1, 0), id, 1)?,
            }));
        };
        let next = match kind {
            Bump::Pre(id) => next_pre(existing, highest, id)?,
            _ if highest.leads_to(kind) => core(&highest.0),
            Bump::Major => semver::Version::new(up(highest.0.major)?, 0, 0),
            Bump::Minor => semver::Version::new(highest.0.major, up(highest.0.minor)?, 0),
            Bump::Patch => next_patch(highest)?,
        };
        Version::parse(&next.to_string())
    }

    /// Whether it is a pre-release of the version that `kind` asks for.
    fn leads_to(&self, kind: &Bump) -> bool {
        self.is_pre()
            && match kind {
                Bump::Major => self.0.minor == 0 && self.0.patch == 0,
                Bump::Minor => self.0.patch == 0,
                Bump::Patch | Bump::Pre(_) => true,
            }
    }

    /// The number of a pre-release `id.N` of the version `core`.
    fn pre_number(&self, of: &semver::Version, id: &str) -> Option<u64> {
        let number = self.0.pre.as_str().strip_prefix(id)?.strip_prefix('.')?;
        (core(&self.0) == *of).then(|| parse_number(number)).flatten()
    }
}

fn next_pre(existing: &[Version], highest: &Version, id: &str) -> Result<semver::Version> {
    let of = if highest.is_pre() { core(&highest.0) } else { next_patch(highest)? };
    let last = existing.iter().filter_map(|version| version.pre_number(&of, id)).max().unwrap_or(0);
    with_pre(&of, id, up(last)?)
}

fn next_patch(version: &Version) -> Result<semver::Version> {
    Ok(semver::Version::new(version.0.major, version.0.minor, up(version.0.patch)?))
}

fn core(version: &semver::Version) -> semver::Version {
    semver::Version::new(version.major, version.minor, version.patch)
}

fn with_pre(core: &semver::Version, id: &str, number: u64) -> Result<semver::Version> {
    let is_word = id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.len() < MAX_VERSION
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let pre = Prerelease::new(&format!("{id}.{number}")).ok().filter(|_| is_word);
    let pre = pre.ok_or_else(|| {
        Error::usage(format!("{}: not a pre-release identifier", shown(id)))
            .hint("use a word of letters, digits and `-`: alpha, beta, rc")
    })?;
    Ok(semver::Version { pre, build: BuildMetadata::EMPTY, ..core.clone() })
}

fn up(number: u64) -> Result<u64> {
    number.checked_add(1).ok_or_else(|| Error::new("the version's number cannot grow any more"))
}

/// A number as it is written in one way only: digits, no sign, no leading zero.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, Version::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(texts: &[&str]) -> Vec<Version> {
        texts.iter().map(|text| Version::parse(text).unwrap()).collect()
    }

    #[test]
    fn grammar() {
        for good in
            ["0.0.0", "1.4.0", "1.5.0-rc.1", "1.0.0-alpha-x.7.z+cu121.g0f", "18446744073709551615.0.0"]
        {
            assert_eq!(Version::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "1",
            "1.4",
            "v1.4.0",
            "01.4.0",
            "1.4.0-",
            "1.4.0-01",
            "1.4.0+",
            "1.4.0-a..b",
            " 1.4.0",
            "1.4.0\n",
            "1.4.x",
            "18446744073709551616.0.0",
            "1.0.0-rc.lock",
            "1.0.0+x.LOCK",
            "1.0.0-ü",
            "-1.0.0",
        ] {
            assert!(Version::parse(bad).is_err(), "{bad:?}");
        }
        let long = format!("1.0.0+{}", "a".repeat(MAX_VERSION - 6));
        assert!(Version::parse(&long).is_ok());
        assert!(Version::parse(&(long + "a")).is_err());
        assert!(Version::parse_typed("v1.4.0").is_ok() && Version::parse_typed("vv1.4.0").is_err());
    }

    #[test]
    fn bumps() {
        let pre = |id: &str| Bump::Pre(id.to_owned());
        let cases: [(&[&str], Bump, &str); 20] = [
            (&[], Bump::Patch, "0.1.0"),
            (&[], Bump::Minor, "0.1.0"),
            (&[], Bump::Major, "1.0.0"),
            (&[], pre("rc"), "0.1.0-rc.1"),
            (&["1.4.0", "1.3.9"], Bump::Patch, "1.4.1"),
            (&["1.9.9"], Bump::Minor, "1.10.0"),
            (&["1.10.0", "1.9.0"], Bump::Minor, "1.11.0"),
            (&["0.9.3"], Bump::Major, "1.0.0"),
            (&["1.4.0", "1.5.0-rc.2"], Bump::Patch, "1.5.0"),
            (&["1.5.0-rc.2", "1.5.0"], Bump::Patch, "1.5.1"),
            (&["1.5.0-rc.2"], Bump::Minor, "1.5.0"),
            (&["1.5.1-rc.2"], Bump::Minor, "1.6.0"),
            (&["2.0.0-rc.1"], Bump::Major, "2.0.0"),
            (&["1.5.0-rc.2"], Bump::Major, "2.0.0"),
            (&["1.5.0-rc.1"], pre("rc"), "1.5.0-rc.2"),
            (&["1.5.0-rc.9", "1.5.0-rc.10"], pre("rc"), "1.5.0-rc.11"),
            (&["1.5.0"], pre("rc"), "1.5.1-rc.1"),
            (&["1.5.0-beta.3"], pre("rc"), "1.5.0-rc.1"),
            (&["1.5.0-beta.3", "1.5.0-rc.1"], pre("beta"), "1.5.0-beta.4"),
            (&["1.4.0+cu121"], Bump::Patch, "1.4.1"),
        ];
        for (existing, kind, expected) in cases {
            let next = Version::bump(&versions(existing), &kind).unwrap();
            assert_eq!(next.to_string(), expected, "{existing:?} {kind:?}");
            assert!(!versions(existing).contains(&next));
        }
    }

    #[test]
    fn bumps_that_cannot_be() {
        for (top, kind) in [
            ("18446744073709551615.0.0", Bump::Major),
            ("1.18446744073709551615.0", Bump::Minor),
            ("1.0.18446744073709551615", Bump::Patch),
            ("1.0.0-rc.18446744073709551615", Bump::Pre("rc".to_owned())),
        ] {
            assert!(Version::bump(&versions(&[top]), &kind).is_err(), "{top}");
        }
        for id in ["", "1", "01", "rc.1", "r c", "rc+1", "rç", "-", &"a".repeat(60)] {
            assert!(Version::bump(&[], &Bump::Pre(id.to_owned())).is_err(), "{id:?}");
        }
    }

    #[test]
    fn build_metadata_does_not_make_a_version() {
        let existing = versions(&["1.4.0+cu121", "1.3.0"]);
        let check = |text: &str| Version::parse(text).unwrap().check_new(&existing);
        assert!(check("1.4.0").is_err() && check("1.4.0+cu124").is_err());
        assert!(check("1.4.0+cu121").is_ok() && check("1.4.1").is_ok() && check("1.4.0-rc.1").is_ok());
    }
}
