//! Reading checked values from JSON and YAML.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

use crate::error::Result;

/// Reads text and checks it with `check`.
///
/// The check runs while the parser stands at the text, not after, so that a refusal names the right line.
pub(super) fn checked<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    check: fn(&str) -> Result<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Checked(check))
}

struct Checked<T>(fn(&str) -> Result<T>);

impl<T> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(|error| E::custom(error.one_line()))
    }
}
