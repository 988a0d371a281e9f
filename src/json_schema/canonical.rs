//! Text that is the same for schemas that say the same in the same way.

use serde_json::Value;

use super::view::{KEYWORDS, Schema, Target};

/// No text is written of what is nested deeper.
const MAX_DEPTH: usize = 64;
/// Keywords whose value is an object with names of its own.
const WITH_NAMES: [&str; 5] =
    ["dependencies", "dependentRequired", "dependentSchemas", "patternProperties", "properties"];

impl<'a> Schema<'a> {
    /// Plain data as text; its keys are sorted.
    pub(super) fn data(&self, data: &Value) -> String {
        let text = data.to_string();
        self.spend(text.len() / 16);
        text
    }

    /// Text that is the same for schemas that differ only in notes, order of keys and references; `None` if it would be too long.
    pub(super) fn canonical(&self, schema: &'a Value) -> Option<String> {
        let mut writer = Writer { schema: *self, references: Vec::new(), text: String::new() };
        writer.write(schema, false, 0)?;
        Some(writer.text)
    }

    /// As [`Schema::canonical`], for the value of a keyword.
    pub(super) fn canonical_word(&self, word: &str, value: &'a Value) -> Option<String> {
        let mut writer = Writer { schema: *self, references: Vec::new(), text: String::new() };
        writer.write_word(word, value, 0)?;
        Some(writer.text)
    }
}

/// Writes canonical text.
struct Writer<'a> {
    schema: Schema<'a>,
    /// The references that are being followed.
    references: Vec<&'a str>,
    text: String,
}

impl<'a> Writer<'a> {
    /// Writes a schema, or if `is_names` an object whose keys are names instead of keywords.
    fn write(&mut self, schema: &'a Value, is_names: bool, depth: usize) -> Option<()> {
        self.schema.spend(1);
        if depth > MAX_DEPTH || self.schema.is_exhausted() {
            return None;
        }
        match schema {
            Value::Object(map) => {
                let counts =
                    |key: &str| KEYWORDS.contains(&key) || ["allOf", "properties", "required"].contains(&key);
                let entries: Vec<_> = map.iter().filter(|(key, _)| is_names || counts(key)).collect();
                match entries[..] {
                    [(key, Value::String(reference))] if key == "$ref" && !is_names => {
                        self.write_target(reference, depth)
                    }
                    _ => self.write_object(&entries, is_names, depth),
                }
            }
            Value::Array(items) => {
                self.text.push('[');
                for item in items {
                    self.write(item, false, depth + 1)?;
                    self.text.push(',');
                }
                self.text.push(']');
                Some(())
            }
            _ => {
                self.write_data(schema);
                Some(())
            }
        }
    }

    fn write_object(
        &mut self,
        entries: &[(&'a String, &'a Value)],
        is_names: bool,
        depth: usize,
    ) -> Option<()> {
        self.text.push('{');
        for &(key, value) in entries {
            self.text.push_str(&Value::from(key.as_str()).to_string());
            self.text.push(':');
            match is_names {
                true => self.write(value, false, depth + 1)?,
                false => self.write_word(key, value, depth)?,
            }
            self.text.push(',');
        }
        self.text.push('}');
        Some(())
    }

    fn write_word(&mut self, word: &str, value: &'a Value, depth: usize) -> Option<()> {
        match (word, value) {
            ("enum" | "required" | "type", Value::Array(set)) => {
                let mut set: Vec<&Value> = set.iter().collect();
                set.sort_by_cached_key(|value| value.to_string());
                set.into_iter().for_each(|value| self.write_data(value));
            }
            ("const" | "enum", _) => self.write_data(value),
            ("$ref", Value::String(reference)) => self.write_target(reference, depth)?,
            _ => self.write(value, WITH_NAMES.contains(&word), depth + 1)?,
        }
        Some(())
    }

    /// Writes what a reference points at; the reference itself where that contains it.
    fn write_target(&mut self, reference: &'a str, depth: usize) -> Option<()> {
        match self.schema.target(reference) {
            Target::Here(target) if !self.references.contains(&reference) => {
                self.references.push(reference);
                self.write(target, false, depth + 1)?;
                self.references.pop();
            }
            _ => self.write_data(&Value::from(reference)),
        }
        Some(())
    }

    fn write_data(&mut self, data: &Value) {
        self.text.push_str(&self.schema.data(data));
    }
}
