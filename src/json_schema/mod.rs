//! JSON Schemas of a model's input and output: their fields, and what a new version breaks.
//!
//! The keywords are those of drafts 6 to 2020-12 (<https://json-schema.org/specification>) that describe shapes. Only
//! references into the same document (`#/…`) are followed; others are compared as text.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::{human, values};

mod canonical;
mod compare;
mod fields;
mod rules;
mod view;

/// One field that a schema describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it holds, for people: `string`, `array<number>`, `enum(a|b)`, `integer|null`. Untrusted text; long ones are
    /// cut and end with `…`.
    pub kind: String,
    /// Whether it is always there in the object that holds it.
    pub required: bool,
}

/// The fields of the schema at `path` (for messages) by dotted path; `[]` stands for the items of an array.
///
/// `None` if the document is no JSON Schema: not an object with `$schema`, `type`, `properties` or `$defs`. A schema
/// without properties has one field `.`, the value itself. Of alternatives (`anyOf`, `oneOf`) all fields are listed.
/// A type that contains itself is listed down to where it repeats.
///
/// Fails if the file is not JSON or beyond the limits of [`values::flatten`], or has more than 10,000 fields.
pub fn fields(bytes: &[u8], path: &str) -> Result<Option<BTreeMap<String, Field>>> {
    let root = values::json(bytes, path)?;
    if !is_schema(&root) {
        return Ok(None);
    }
    let fields = fields::list(&root).map_err(|error| error.about(human::escape(path)))?;
    Ok(Some(fields))
}

/// Ways in which callers written for the schema `old` break with `new`, each one line that starts with the dotted path.
/// `path` is for messages about both.
///
/// If a schema has a top-level property `input`, `inputs` or `request` and one named `output`, `outputs` or `response`,
/// what is below the former and any other property follows the input rules, what is below the latter the output rules.
/// A top-level property that is gone is a break, and so is one that became required and is neither of these. The whole of
/// any other schema follows the input rules.
///
/// - Input: what was valid must stay valid. A break is a new required field, a field that became required, a field that
///   was removed or never described where other fields are refused or limited (`additionalProperties`), and a narrowed
///   type, enum, bound, pattern, format or set of alternatives.
/// - Output: what is valid must have been valid. A break is a removed field, a field that is no longer required, and a
///   widened type, enum, bound, pattern, format or set of alternatives. A new field is no break.
///
/// Alternatives (`anyOf`) are matched one by one; those of `oneOf` must be written alike, apart from notes and
/// references. What cannot be judged (a changed `not`, `if`, `patternProperties`, pattern, reference to elsewhere, …) is
/// reported as `cannot be judged: <why>`. Default values, titles and keywords that the specification does not know are
/// no difference, and neither is a field that is new and optional.
///
/// Fails if one of them is no JSON Schema, or as [`fields()`] does.
pub fn incompatibilities(old: &[u8], new: &[u8], path: &str) -> Result<Vec<String>> {
    let parse = |bytes| {
        let root = values::json(bytes, path)?;
        if is_schema(&root) {
            return Ok(root);
        }
        Err(Error::new(format!("{}: not a JSON Schema", human::escape(path)))
            .hint("a schema is an object with `$schema`, `type`, `properties` or `$defs`"))
    };
    Ok(compare::breaks(&parse(old)?, &parse(new)?))
}

fn is_schema(root: &Value) -> bool {
    ["$schema", "type", "properties", "$defs"].iter().any(|key| root.get(key).is_some())
}

/// How many steps one request may take; references can describe far more than they are long.
fn budget() -> Cell<usize> {
    Cell::new(1_000_000)
}

/// A part of a schema by its place in memory, to notice that it contains itself.
type Identity = *const Value;

/// The path of what is in the field `path`: a property, or the items.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() || name == ITEMS { format!("{path}{name}") } else { format!("{path}.{name}") }
}

/// The name of an array's items in a path.
const ITEMS: &str = "[]";

#[cfg(test)]
mod tests;
