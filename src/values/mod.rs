//! Configurations and evaluation reports as flat lists of values: JSON, YAML, TOML and CSV.

use std::collections::BTreeMap;

use serde_json::Value as Node;

use crate::error::{Error, Result};
use crate::human;

mod document;
mod table;

pub(crate) use document::{json, text, toml};

/// Larger files are never read: the caller refuses them by their size, in bytes.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file with more values is no configuration or report.
const MAX_KEYS: usize = 10_000;
/// Longer keys, in bytes, are refused.
const MAX_KEY: usize = 512;

/// One value of a configuration or report.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A finite number. Integers beyond 2^53 are rounded to the nearest one that a double holds.
    Number(f64),
    /// Text; a date of TOML is text too.
    Text(String),
    /// True or false.
    Bool(bool),
    /// Known to be nothing: `null`, or an empty cell.
    Null,
}

/// The values of the file at `path` (for its extension and for messages) by key, sorted.
///
/// Keys of nested mappings are joined with dots, items of a list are keyed by their index from 0. A key that holds a dot
/// is kept as it is, and an error if it then equals another. Empty mappings and lists have no values. Of a CSV file only
/// the last row counts; the header row names its cells, and a column without a name is left out.
///
/// Fails for an extension other than `json`, `yaml`, `yml`, `toml` and `csv`, for syntax errors, keys given twice,
/// numbers that are not finite, and files beyond the limits: [`MAX_BYTES`], 64 levels, 10,000 keys of 512 bytes.
pub fn flatten(bytes: &[u8], path: &str) -> Result<BTreeMap<String, Value>> {
    let about = |error: Error| error.about(human::escape(path));
    let root = match extension(path).as_str() {
        "json" => json(bytes, path)?,
        "yaml" | "yml" => document::yaml(bytes, path)?,
        "toml" => toml(bytes, path)?,
        "csv" => return table::last_row(bytes, path),
        _ => {
            return Err(about(Error::new("values are not read from this kind of file"))
                .hint("name a .json, .yaml, .toml or .csv file"));
        }
    };
    if !root.is_object() && !root.is_array() {
        return Err(about(Error::new("has no keys: it must be a mapping or a list")));
    }
    let mut flat = BTreeMap::new();
    add_node(&mut flat, None, root).map_err(about)?;
    Ok(flat)
}

/// Only the numbers of a report, by key; everything else as for [`flatten`].
pub fn metrics(bytes: &[u8], path: &str) -> Result<BTreeMap<String, f64>> {
    let numbers = flatten(bytes, path)?.into_iter().filter_map(|(key, value)| match value {
        Value::Number(number) => Some((key, number)),
        _ => None,
    });
    Ok(numbers.collect())
}

/// The shortest text that reads back as the same number: `0.1`, `12`, `1e-7`.
///
/// Only magnitudes below 0.0001 and from 1e15 have an exponent.
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-4..1e15).contains(&value.abs()) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

fn extension(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
}

/// Adds a parsed node, whose depth the parser has limited, under `key`; the root has none.
fn add_node(flat: &mut BTreeMap<String, Value>, key: Option<String>, node: Node) -> Result<()> {
    let below = |name: &str| match &key {
        Some(key) => format!("{key}.{name}"),
        None => name.to_owned(),
    };
    let value = match node {
        Node::Object(map) => {
            return map.into_iter().try_for_each(|(name, node)| add_node(flat, Some(below(&name)), node));
        }
        Node::Array(items) => {
            let mut items = items.into_iter().enumerate();
            return items.try_for_each(|(at, node)| add_node(flat, Some(below(&at.to_string())), node));
        }
        Node::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        Node::String(text) => Value::Text(text),
        Node::Bool(value) => Value::Bool(value),
        Node::Null => Value::Null,
    };
    add(flat, key.unwrap_or_default(), value)
}

/// Adds one value, within the limits and only once.
fn add(flat: &mut BTreeMap<String, Value>, key: String, value: Value) -> Result<()> {
    if key.len() > MAX_KEY {
        return Err(Error::new(format!("a key is longer than {MAX_KEY} bytes")));
    }
    if flat.contains_key(&key) {
        return Err(Error::new(format!("two values have the key `{}`", human::escape(&key))));
    }
    if flat.len() >= MAX_KEYS {
        return Err(Error::new(format!("more than {MAX_KEYS} values")));
    }
    flat.insert(key, value);
    Ok(())
}

/// The explanation of a number that has no place in a comparison.
fn not_finite(key: &str, value: &str) -> String {
    format!("`{}` is {value}, which cannot be compared", human::escape(key))
}

#[cfg(test)]
mod tests;
