//! The strict way into JSON, YAML and TOML: size, depth and count limited, no key twice, no number that is not finite.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{MAX_BYTES, MAX_KEY, not_finite};
use crate::error::{Error, Result};
use crate::human;
use crate::yaml;

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 64;
/// More values, lists and mappings are refused; a node can take some 350 bytes of memory.
const MAX_NODES: usize = 250_000;
/// The YAML and TOML libraries hold a whole document as events or tokens, some 150 bytes each, before they hand out
/// the first. Nearly each begins at one of these bytes, so counting them limits the memory.
const YAML_MARKS: (&[u8], usize) = (b"\n[]{},:-?", 250_000);
const TOML_MARKS: (&[u8], usize) = (b" \t\r\n[]{}=,.", 1_000_000);
/// The only key of the mapping as which the TOML library hands over a date or time.
const TOML_DATETIME: &str = "$__toml_private_datetime";

/// The text of a small file, without a byte order mark. Fails if it is larger than [`MAX_BYTES`] or not UTF-8.
pub(crate) fn text<'a>(bytes: &'a [u8], path: &str) -> Result<&'a str> {
    let shown = human::escape(path);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(format!("{shown}: larger than {}", human::bytes(MAX_BYTES))));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::new(format!("{shown}: not UTF-8")).caused_by(error))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Parses JSON. Errors name `path` and the line.
pub(crate) fn json(bytes: &[u8], path: &str) -> Result<Value> {
    let text = text(bytes, path)?;
    let mut progress = Progress::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let root = NodeSeed(&mut progress).deserialize(&mut reader).and_then(|root| reader.end().map(|()| root));
    root.map_err(|error| {
        let reason = match python_number(text, error.line(), error.column()) {
            Some(word) => not_finite(&progress.key(), word),
            None => {
                let reason = error.to_string();
                // The library appends the place, which goes in front.
                let reason =
                    human::escape(reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason));
                match reason.as_str() {
                    "number out of range" => reason,
                    _ if error.is_syntax() || error.is_eof() => format!("not JSON: {reason}"),
                    _ => reason,
                }
            }
        };
        Error::new(format!("{}:{}: {reason}", human::escape(path), error.line()))
    })
}

/// Parses YAML. Errors name `path` and, where known, line and column.
pub(super) fn yaml(bytes: &[u8], path: &str) -> Result<Value> {
    check_marks(text(bytes, path)?, YAML_MARKS, path)?;
    yaml::from_slice::<Document>(bytes, path).map(|document| document.0)
}

/// Parses TOML. Errors name `path` and, where known, the line.
pub(crate) fn toml(bytes: &[u8], path: &str) -> Result<Value> {
    let text = text(bytes, path)?;
    check_marks(text, TOML_MARKS, path)?;
    toml::from_str::<Document>(text).map(|document| document.0).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = before.map(|text| format!(":{}", text.matches('\n').count() + 1)).unwrap_or_default();
        Error::new(format!("{}{place}: {}", human::escape(path), human::escape(error.message().trim_end())))
    })
}

fn check_marks(text: &str, (marks, most): (&[u8], usize), path: &str) -> Result<()> {
    if text.bytes().filter(|byte| marks.contains(byte)).count() > most {
        return Err(Error::new(format!("{}: too many values to be read", human::escape(path))));
    }
    Ok(())
}

/// What Python's `json` writes for a number that JSON cannot express, if that is what is at this place.
fn python_number(text: &str, line: usize, column: usize) -> Option<&'static str> {
    let line = text.split('\n').nth(line.checked_sub(1)?)?;
    // The library points at the first or second byte of the word.
    let near = line.get(column.saturating_sub(2)..)?.trim_start_matches([' ', ':', ',', '[']);
    ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| near.starts_with(word))
}

/// A document read by a library that takes only a type, not a seed.
struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NodeSeed(&mut Progress::default()).deserialize(deserializer).map(Document)
    }
}

/// How far the reading of a document has come.
#[derive(Default)]
struct Progress {
    nodes: usize,
    /// Keys and indices down to the current node. They stay when reading it fails, for the message.
    keys: Vec<String>,
}

impl Progress {
    fn key(&self) -> String {
        self.keys.join(".")
    }
}

/// Reads one node and what is below it.
struct NodeSeed<'a>(&'a mut Progress);

impl NodeSeed<'_> {
    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.0.keys.len() >= MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.nodes += 1;
        if self.0.nodes > MAX_NODES {
            return Err(D::Error::custom("too many values to be read"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// What the YAML library makes of an empty document.
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // 1.0 and 1 are the same number in JSON, so they must be the same node.
        if value.fract() == 0.0 && value.abs() < 2f64.powi(53) {
            return Ok((value as i64).into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| {
            let word = match value {
                f64::INFINITY => "Infinity",
                f64::NEG_INFINITY => "-Infinity",
                _ => "NaN",
            };
            E::custom(not_finite(&self.0.key(), word))
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        self.0.keys.push(0.to_string());
        while let Some(item) = items.next_element_seed(NodeSeed(self.0))? {
            list.push(item);
            self.0.keys.pop();
            self.0.keys.push(list.len().to_string());
        }
        self.0.keys.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(KeySeed)? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key `{}`", human::escape(&key))));
            }
            self.0.keys.push(key.clone());
            let value = entries.next_value_seed(NodeSeed(self.0))?;
            self.0.keys.pop();
            map.insert(key, value);
        }
        match (map.len(), map.get_mut(TOML_DATETIME)) {
            (1, Some(Value::String(datetime))) => Ok(Value::String(std::mem::take(datetime))),
            _ => Ok(Value::Object(map)),
        }
    }
}

/// Reads a key; those of YAML need not be text.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text, a number or a truth value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(super::number(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        if value.len() > MAX_KEY {
            return Err(E::custom(format_args!("a key is longer than {MAX_KEY} bytes")));
        }
        Ok(value.to_owned())
    }
}
