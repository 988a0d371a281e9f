//! The listing of an outside data location: its fingerprint. Format: `docs/formats/listing.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::{Error, Result};

/// Larger locations are refused: a fingerprint of them would not fit in memory.
pub const MAX_ENTRIES: usize = 1_000_000;
/// No listing is larger; larger ones are never read.
pub const MAX_BYTES: u64 = 1 << 30;

const HEADER: &str = "git-model listing 1\n";

/// One object or file of the location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// What the store calls its content (an ETag), or `sha256:<hex>`; empty where it says nothing.
    pub tag: String,
    /// Its version, where the store keeps versions; else empty.
    pub version: String,
}

/// Everything at a location, by key below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(pub BTreeMap<String, Listed>);

/// How two listings of one location differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Keys that only the later one has.
    pub added: Vec<String>,
    /// Keys whose size, tag or version differs.
    pub changed: Vec<String>,
    /// Keys that only the earlier one has.
    pub removed: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Listing {
    /// Sum of all sizes.
    pub fn size(&self) -> u64 {
        self.0.values().map(|listed| listed.size).fold(0, u64::saturating_add)
    }

    /// The canonical bytes: sorted by key, one line each; texts as JSON strings, because keys may hold anything.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = HEADER.to_owned();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        for (key, listed) in &self.0 {
            let (tag, version) = (quoted(&listed.tag), quoted(&listed.version));
            let _ = writeln!(text, "{} {tag} {version} {}", listed.size, quoted(key));
        }
        text.into_bytes()
    }

    /// Parses what [`Listing::to_bytes`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Listing> {
        let damaged = |line: usize| Error::new(format!("damaged listing: line {line}"));
        let text = std::str::from_utf8(bytes).map_err(|_| damaged(1))?;
        let body = text.strip_prefix(HEADER).ok_or_else(|| damaged(1))?;
        let mut listing = Listing::default();
        for (at, line) in body.lines().enumerate() {
            let (key, listed) = parse_line(line).ok_or_else(|| damaged(at + 2))?;
            if listing.0.insert(key, listed).is_some() || listing.0.len() > MAX_ENTRIES {
                return Err(damaged(at + 2));
            }
        }
        Ok(listing)
    }

    /// What differs in `later`.
    pub fn changes(&self, later: &Listing) -> Changes {
        let mut changes = Changes::default();
        for (key, listed) in &self.0 {
            match later.0.get(key) {
                None => changes.removed.push(key.clone()),
                Some(now) if now != listed => changes.changed.push(key.clone()),
                Some(_) => {}
            }
        }
        changes.added = later.0.keys().filter(|key| !self.0.contains_key(*key)).cloned().collect();
        changes
    }
}

fn parse_line(line: &str) -> Option<(String, Listed)> {
    let (size, rest) = line.split_once(' ')?;
    let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let mut text = || texts.next()?.ok();
    let (tag, version, key) = (text()?, text()?, text()?);
    texts.next().is_none().then_some((key, Listed { size: size.parse().ok()?, tag, version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(entries: &[(&str, u64, &str)]) -> Listing {
        let listed = |&(key, size, tag): &(&str, u64, &str)| {
            (key.to_owned(), Listed { size, tag: tag.to_owned(), version: String::new() })
        };
        Listing(entries.iter().map(listed).collect())
    }

    #[test]
    fn any_key_survives() {
        let all = listing(&[
            ("a b", 1, "\"e\""),
            ("line\nbreak", 2, ""),
            ("\"quoted\" \\", 3, "x y"),
            ("模型", 4, "t"),
        ]);
        assert_eq!(Listing::parse(&all.to_bytes()).unwrap(), all);
    }

    #[test]
    fn damage_is_refused() {
        for text in [
            "",
            "git-model listing 2\n",
            "git-model listing 1\nx \"\" \"\" \"k\"\n",
            "git-model listing 1\n1 \"\" \"k\"\n",
        ] {
            assert!(Listing::parse(text.as_bytes()).unwrap_err().one_line().contains("damaged"), "{text}");
        }
        let twice = "git-model listing 1\n1 \"\" \"\" \"k\"\n2 \"\" \"\" \"k\"\n";
        assert!(Listing::parse(twice.as_bytes()).is_err());
    }

    #[test]
    fn changes_are_told_apart() {
        let changes = listing(&[("a", 1, "x"), ("b", 1, "x"), ("c", 1, "x")]).changes(&listing(&[
            ("a", 1, "x"),
            ("b", 1, "y"),
            ("d", 1, "x"),
        ]));
        assert_eq!(changes.added, ["d"]);
        assert_eq!(changes.changed, ["b"]);
        assert_eq!(changes.removed, ["c"]);
    }
}
