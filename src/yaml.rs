//! The only module that names the YAML library: typed reading of small, untrusted documents, and writing of documents for others.

mod document;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::human;

pub use document::document;

/// Deserializes one YAML document; errors name `path` and, where known, line and column.
///
/// Anchors, aliases and tags have no use in these files and are refused, so a small file cannot grow in memory.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], path: &str) -> Result<T> {
    let shown = human::escape(path);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::new(format!("{shown}: not UTF-8")).caused_by(error))?;
    if let Some(line) = References::find(text) {
        return Err(Error::new(format!(
            "{shown}:{}: YAML anchors, aliases and tags are not allowed here",
            line + 1
        ))
        .hint("write out what they stand for; quote a text that starts with & * or !"));
    }
    serde_yaml::from_str(text).map_err(|error| {
        let reason = error.to_string();
        // The library appends the place, which is already in front.
        let reason = reason.split(" at line ").next().unwrap_or(&reason);
        let place = error.location().map(|at| {
            let (line, column) = place_of(text, reason, at.line(), at.column());
            format!(":{line}:{column}")
        });
        let place = place.unwrap_or_default();
        Error::new(format!("{shown}{place}: {}", human::escape(reason)))
    })
}

/// Finds where a node starts with the character of an anchor, alias or tag; where that is hard to tell, rather too often.
struct References {
    /// Lists and mappings in brackets that are open.
    depth: u32,
    /// Whether a node may start here.
    starts: bool,
    /// Set by text that goes on over several lines: from there on, a quote may be part of it.
    is_unsure: bool,
}

impl References {
    /// The first line with one, counted from zero.
    fn find(text: &str) -> Option<usize> {
        let mut references = References { depth: 0, starts: true, is_unsure: false };
        // What YAML takes for the end of a line, and Rust does not.
        let breaks = ['\r', '\u{85}', '\u{2028}', '\u{2029}'];
        text.lines().position(|line| line.split(breaks).any(|line| references.on(line)))
    }

    fn on(&mut self, line: &str) -> bool {
        let mut rest = line.trim_start_matches([' ', '\t', '\u{feff}']);
        self.starts |= self.depth == 0;
        let mut before = ' ';
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '#' if matches!(before, ' ' | '\t') => break,
                '&' | '*' | '!' if self.starts => return true,
                '"' | '\'' if self.starts && !self.is_unsure => match after_quote(rest, c) {
                    Some(after) => rest = after,
                    None => self.is_unsure = true,
                },
                '|' | '>' if self.starts && self.depth == 0 => self.is_unsure = true,
                '[' | '{' if self.starts => self.depth += 1,
                ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            let ends_word = rest.is_empty() || rest.starts_with([' ', '\t']);
            let in_brackets = self.depth > 0 || self.is_unsure;
            self.starts = match c {
                ' ' | '\t' => self.starts,
                '-' => self.starts && (ends_word || rest.starts_with('-')),
                '?' => self.starts && ends_word,
                ':' => ends_word || in_brackets,
                '[' | '{' | ',' => in_brackets,
                _ => false,
            };
            before = c;
        }
        false
    }
}

/// What follows the end of a quoted text that began with `quote`; `None` when it does not end on this line.
fn after_quote(text: &str, quote: char) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let rest = &text[at + c.len_utf8()..];
        match (c, quote) {
            ('\\', '"') => drop(chars.next()),
            ('\'', '\'') if rest.starts_with('\'') => drop(chars.next()),
            _ if c == quote => return Some(rest),
            _ => {}
        }
    }
    None
}

/// Where an error is. Of a key that is there twice the library tells the beginning of its mapping.
fn place_of(text: &str, reason: &str, line: usize, column: usize) -> (usize, usize) {
    let key = reason.rsplit_once("duplicate field `").and_then(|(_, rest)| rest.split_once('`'));
    let Some((key, _)) = key else { return (line, column) };
    let has_key = |line: &str| {
        let rest = line.get(column - 1..).and_then(|rest| rest.strip_prefix(key));
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let twice = text.lines().enumerate().skip(line - 1).filter(|(_, line)| has_key(line)).nth(1);
    twice.map_or((line, column), |(at, _)| (at + 1, column))
}

/// Takes a mapping in which no key is there twice; without this, the last one would win.
pub fn unique_map<'de, D, K, V>(deserializer: D) -> std::result::Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Debug,
    V: Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);
    impl<'de, K, V> Visitor<'de> for Unique<K, V>
    where
        K: Deserialize<'de> + Ord + fmt::Debug,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = entries.next_key::<K>()? {
                let shown = format!("{key:?}");
                if map.insert(key, entries.next_value()?).is_some() {
                    return Err(A::Error::custom(format!("duplicate key {shown}")));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique(PhantomData))
}

/// The number of the first line that holds this text, if possible as words of their own, counted from one.
pub fn line_of(document: &str, text: &str) -> Option<usize> {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || "._-".contains(c));
    let as_words = |line: &str| line.match_indices(text).any(|(at, _)| ends(&line[at + text.len()..]));
    let line = document.lines().position(as_words);
    line.or_else(|| document.lines().position(|line| line.contains(text))).map(|at| at + 1)
}

/// A scalar as it can stand behind `key: `, quoted where plain text would mean something else.
pub fn scalar(text: &str) -> String {
    serde_yaml::to_string(text).map(|line| line.trim_end().to_owned()).unwrap_or_else(|_| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only parsed")]
        a: u32,
    }

    #[test]
    fn errors_name_the_place() {
        let error = from_slice::<Sample>(b"a: 1\nb: 2\n", "x.yaml").unwrap_err().one_line();
        assert!(error.starts_with("x.yaml:2:1: "), "{error}");
        assert!(error.contains("unknown field `b`"), "{error}");
        let error = from_slice::<Sample>(b"a: 1\na: 2\n", "x.yaml").unwrap_err().one_line();
        assert!(error.starts_with("x.yaml:2:1: duplicate"), "{error}");
    }

    #[test]
    fn references_are_refused() {
        for text in [
            "a: &x 1\n",
            "a: *x\n",
            "a: !!int 1\n",
            "{a: &x 1}\n",
            "{\"a\":&x 1}\n",
            "- &x 1\n",
            "--- &x {a: 1}\n",
            "a: 1 # b\rb: &x 1\n",
            "a: |\n  \"b\nb: \"c\", &x 1\n",
            "x:\"y: &x 1\"\n",
            "a, \"b: &x 1\"\n",
            "[a\n \"b, &x 1\"]\n",
            "{\"a\n\": &x 1}\n",
        ] {
            let error = from_slice::<Sample>(text.as_bytes(), "x.yaml").unwrap_err().one_line();
            assert!(error.contains("not allowed"), "{text}: {error}");
        }
    }

    #[test]
    fn text_may_hold_their_characters() {
        for text in [
            "a: R & D, *bold*, 5! \"&x\"\n",
            "a: '&x, it''s *x'\n",
            "{a: \"\\\" &x\", b: '!x'} # &x\n",
            "# a: &x\na: b:&x\n",
            "- -!x\n- a && b\n",
        ] {
            assert_eq!(References::find(text), None, "{text}");
        }
    }

    #[test]
    fn scalars_survive() {
        assert_eq!(scalar("s3://bucket/x"), "s3://bucket/x");
        assert_eq!(scalar("/a b: c"), "'/a b: c'");
    }
}
