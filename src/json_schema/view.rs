//! What a schema says, with its references followed and its `allOf` merged, one level at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// References and `allOf` nested deeper than this are not followed.
const MAX_HOPS: usize = 32;
/// What following a pointer takes from the budget.
const POINTER_STEPS: usize = 8;
/// The keywords that change what is valid, but for those that [`View`] has fields for. All others are ignored.
pub(super) const KEYWORDS: [&str; 40] = [
    "$dynamicRef",
    "$recursiveRef",
    "$ref",
    "additionalItems",
    "additionalProperties",
    "anyOf",
    "const",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// A schema document.
#[derive(Clone, Copy)]
pub(super) struct Schema<'a> {
    root: &'a Value,
    steps: &'a Cell<usize>,
}

/// Where a `$ref` points.
pub(super) enum Target<'a> {
    /// At this part of the document.
    Here(&'a Value),
    /// At a part that the document does not have.
    Nowhere,
    /// At another document, or in a way that is not followed.
    Elsewhere,
}

/// What one schema says about the value itself. Schemas of what is in it are left as they are written.
#[derive(Default)]
pub(super) struct View<'a> {
    /// Other keywords that change what is valid, with their values.
    pub(super) words: BTreeMap<&'a str, &'a Value>,
    /// Schemas of the properties.
    pub(super) properties: BTreeMap<&'a str, &'a Value>,
    /// Names of the properties that must be there.
    pub(super) required: BTreeSet<&'a str>,
    /// Whether nothing is valid.
    pub(super) never: bool,
    /// Why the schema cannot be judged.
    pub(super) doubt: Option<String>,
    /// How many merged schemas describe an object.
    objects: usize,
}

impl<'a> Schema<'a> {
    pub(super) fn new(root: &'a Value, steps: &'a Cell<usize>) -> Self {
        Schema { root, steps }
    }

    /// The document's own schema.
    pub(super) fn root(&self) -> &'a Value {
        self.root
    }

    /// Whether the budget is used up; then views and texts are not complete.
    pub(super) fn is_exhausted(&self) -> bool {
        self.steps.get() == 0
    }

    /// Takes steps from the budget.
    pub(super) fn spend(&self, steps: usize) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }

    /// What `schema`, a part of this document, says.
    pub(super) fn view(&self, schema: &'a Value) -> View<'a> {
        let mut view = View::default();
        self.collect(schema, 0, &mut view);
        if view.objects > 1 && view.words.get("additionalProperties").is_some_and(|value| **value != true) {
            // There it means the properties of its own part only, which the merged ones do not tell.
            view.doubt("`additionalProperties` in `allOf` or beside `$ref`");
        }
        view
    }

    fn collect(&self, schema: &'a Value, hops: usize, view: &mut View<'a>) {
        self.spend(1 + schema.as_object().map_or(0, Map::len));
        if hops > MAX_HOPS || self.is_exhausted() {
            return view.doubt("references go in circles or too far");
        }
        let map = match schema {
            Value::Bool(valid) => return view.never |= !valid,
            Value::Object(map) => map,
            _ => return view.doubt("not a schema"),
        };
        view.objects +=
            usize::from(map.contains_key("properties") || map.contains_key("additionalProperties"));
        for (word, value) in map {
            match (word.as_str(), value) {
                ("$ref", Value::String(reference)) => match self.target(reference) {
                    Target::Here(target) => self.collect(target, hops + 1, view),
                    Target::Nowhere => view.doubt(&format!("`{reference}` does not exist")),
                    Target::Elsewhere => view.add_word(word, value),
                },
                ("allOf", Value::Array(parts)) => {
                    parts.iter().for_each(|part| self.collect(part, hops + 1, view));
                }
                ("properties", Value::Object(properties)) => {
                    self.spend(properties.len());
                    properties.iter().for_each(|(name, property)| view.add_property(name, property));
                }
                ("required", Value::Array(names)) => {
                    self.spend(names.len());
                    view.required.extend(names.iter().filter_map(Value::as_str));
                }
                (known, _) if KEYWORDS.contains(&known) => {
                    self.spend(value.as_array().map_or(0, Vec::len));
                    view.add_word(word, value);
                }
                _ => {}
            }
        }
    }

    /// Follows a JSON pointer (RFC 6901). Percent-encoded ones are not followed.
    pub(super) fn target(&self, reference: &str) -> Target<'a> {
        self.spend(POINTER_STEPS);
        match reference.strip_prefix('#') {
            Some(pointer) if (pointer.is_empty() || pointer.starts_with('/')) && !pointer.contains('%') => {
                self.root.pointer(pointer).map_or(Target::Nowhere, Target::Here)
            }
            _ => Target::Elsewhere,
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn doubt(&mut self, why: &str) {
        self.doubt.get_or_insert_with(|| why.to_owned());
    }

    fn add_word(&mut self, word: &'a str, value: &'a Value) {
        if self.words.insert(word, value).is_some_and(|other| !is_same(other, value)) {
            self.doubt(&format!("`allOf` gives `{word}` twice"));
        }
    }

    fn add_property(&mut self, name: &'a str, schema: &'a Value) {
        if self.properties.insert(name, schema).is_some_and(|other| !is_same(other, schema)) {
            self.doubt(&format!("`allOf` describes `{name}` twice"));
        }
    }

    /// Whether everything is valid.
    pub(super) fn is_open(&self) -> bool {
        self.words.is_empty()
            && self.properties.is_empty()
            && self.required.is_empty()
            && !self.never
            && self.doubt.is_none()
    }

    /// The alternatives, if the schema is nothing but a choice between some.
    pub(super) fn choice(&self) -> Option<(&'a str, &'a [Value])> {
        let (word, value) = self.words.first_key_value()?;
        let only = self.words.len() == 1 && self.properties.is_empty() && self.required.is_empty();
        let alternatives = value.as_array()?;
        (only && ["anyOf", "oneOf"].contains(word)).then_some((word, alternatives))
    }

    /// The names of the types that are valid; empty if any.
    pub(super) fn types(&self) -> BTreeSet<&'a str> {
        match self.words.get("type") {
            Some(Value::String(name)) => BTreeSet::from([name.as_str()]),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => self.values().unwrap_or_default().into_iter().map(type_of).collect(),
        }
    }

    /// The only values that are valid, from `const` or `enum`.
    pub(super) fn values(&self) -> Option<Vec<&'a Value>> {
        if let Some(value) = self.words.get("const") {
            return Some(vec![value]);
        }
        Some(self.words.get("enum")?.as_array()?.iter().collect())
    }
}

/// Whether two values are the same without looking into them, which could take long.
fn is_same(one: &Value, other: &Value) -> bool {
    std::ptr::eq(one, other) || (!one.is_object() && !one.is_array() && one == other)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
