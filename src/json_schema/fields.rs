//! The fields of a schema, with a short description of each.

use std::collections::BTreeMap;

use serde_json::Value;

use super::view::{Schema, View};
use super::{Field, ITEMS, Identity, below, budget};
use crate::error::{Error, Result};

/// More fields are refused.
const MAX_FIELDS: usize = 10_000;
/// Longer paths, in bytes, are refused.
const MAX_PATH: usize = 1024;
/// Fields nested deeper than this are not listed.
const MAX_DEPTH: usize = 64;
/// Descriptions of types nested deeper than this are cut.
const MAX_KIND_DEPTH: usize = 4;
/// Longer descriptions, in characters, are cut.
const MAX_KIND: usize = 120;

/// All fields by their path.
pub(super) fn list(root: &Value) -> Result<BTreeMap<String, Field>> {
    let steps = budget();
    let schema = Schema::new(root, &steps);
    let mut listing = Listing { schema, fields: BTreeMap::new(), active: Vec::new() };
    listing.add_below(root, "")?;
    if listing.fields.is_empty() && !schema.view(root).is_open() {
        listing.add_field(".", root, true)?;
    }
    Ok(listing.fields)
}

struct Listing<'a> {
    schema: Schema<'a>,
    fields: BTreeMap<String, Field>,
    /// The schemas whose fields are being listed.
    active: Vec<Identity>,
}

impl<'a> Listing<'a> {
    fn add_field(&mut self, path: &str, schema: &'a Value, required: bool) -> Result<()> {
        if self.fields.len() >= MAX_FIELDS || path.len() > MAX_PATH || self.schema.is_exhausted() {
            return Err(Error::new("describes too many fields to be listed, or one too deep"));
        }
        if !self.fields.contains_key(path) {
            let field = Field { kind: kind(self.schema, schema), required };
            self.fields.insert(path.to_owned(), field);
        }
        Ok(())
    }

    /// Adds the fields of what `path` holds.
    fn add_below(&mut self, schema: &'a Value, path: &str) -> Result<()> {
        let identity: Identity = schema;
        if self.active.len() >= MAX_DEPTH || self.active.contains(&identity) {
            return Ok(());
        }
        self.active.push(identity);
        let view = self.schema.view(schema);
        for (name, property) in &view.properties {
            let path = below(path, name);
            self.add_field(&path, property, view.required.contains(name))?;
            self.add_below(property, &path)?;
        }
        if let Some(items) = view.words.get("items").filter(|items| items.is_object()) {
            self.add_below(items, &below(path, ITEMS))?;
        }
        for alternative in alternatives(&view) {
            self.add_below(alternative, path)?;
        }
        self.active.pop();
        Ok(())
    }
}

fn alternatives<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|word| view.words.get(word)?.as_array()).flatten()
}

/// What a schema describes, for people.
pub(super) fn kind<'a>(schema: Schema<'a>, part: &'a Value) -> String {
    let kind = kind_at(schema, part, 0);
    match kind.char_indices().nth(MAX_KIND) {
        Some((end, _)) => format!("{}…", &kind[..end]),
        None => kind,
    }
}

fn kind_at<'a>(schema: Schema<'a>, part: &'a Value, depth: usize) -> String {
    if depth > MAX_KIND_DEPTH {
        return "…".to_owned();
    }
    let view = schema.view(part);
    if view.never {
        return "never".to_owned();
    }
    if let Some(Value::String(reference)) = view.words.get("$ref") {
        return format!("ref({reference})");
    }
    if let Some(values) = view.values() {
        let word = if view.words.contains_key("const") { "const" } else { "enum" };
        return format!("{word}({})", join(values.into_iter().map(plain)));
    }
    let types = view.types();
    if types.is_empty() {
        let kinds = join(alternatives(&view).map(|alternative| kind_at(schema, alternative, depth + 1)));
        let unsaid = if view.properties.is_empty() { "any" } else { "object" };
        return if kinds.is_empty() { unsaid.to_owned() } else { kinds };
    }
    join(types.into_iter().map(|name| match (name, view.words.get("items"), view.words.get("format")) {
        ("array", Some(items), _) if !items.is_array() => {
            format!("array<{}>", kind_at(schema, items, depth + 1))
        }
        ("string", _, Some(Value::String(format))) => format!("string({format})"),
        _ => name.to_owned(),
    }))
}

/// The first of many, joined with `|`: more than are shown, each once.
fn join(kinds: impl Iterator<Item = String>) -> String {
    let mut joined: Vec<String> = Vec::new();
    for kind in kinds.take(MAX_KIND) {
        if !joined.contains(&kind) {
            joined.push(kind);
        }
    }
    joined.join("|")
}

/// A value as it stands in a description.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(MAX_KIND).collect(),
        Value::Array(_) => "[…]".to_owned(),
        Value::Object(_) => "{…}".to_owned(),
        _ => value.to_string(),
    }
}
