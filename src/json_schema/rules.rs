//! The opposite rules for what callers send and what they get, and the bounds of sizes and numbers.

use super::view::View;
use crate::values::number;

/// Whose values a schema describes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    /// The caller's: what was valid must stay valid.
    Input,
    /// The model's: what is valid must have been valid.
    Output,
}

impl Side {
    /// The pair in the order "every value of this … must be one of that".
    pub(super) fn order<T>(self, old: T, new: T) -> (T, T) {
        match self {
            Side::Input => (old, new),
            Side::Output => (new, old),
        }
    }

    /// What is said of values that only one schema has.
    pub(super) fn lost(self) -> &'static str {
        match self {
            Side::Input => "no longer valid",
            Side::Output => "can be there now",
        }
    }

    /// How a change that breaks is called.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Side::Input => "narrowed",
            Side::Output => "widened",
        }
    }
}

/// Keywords whose change is not understood.
pub(super) const OPAQUE: [&str; 21] = [
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "not",
    "if",
    "then",
    "else",
    "patternProperties",
    "prefixItems",
    "additionalItems",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "pattern",
    "multipleOf",
];

/// A limit of a size or number.
pub(super) struct Bound {
    /// The keyword.
    pub(super) word: &'static str,
    /// The keyword for the same limit without the value itself.
    exclusive: Option<&'static str>,
    /// 1 for a lower limit, -1 for an upper one: multiplied with it, a stricter limit is larger.
    sign: f64,
    /// The type of value that is limited.
    pub(super) limits: &'static str,
}

/// All bounds.
pub(super) const BOUNDS: [Bound; 8] = [
    Bound { word: "minimum", exclusive: Some("exclusiveMinimum"), sign: 1.0, limits: "number" },
    Bound { word: "maximum", exclusive: Some("exclusiveMaximum"), sign: -1.0, limits: "number" },
    Bound { word: "minLength", exclusive: None, sign: 1.0, limits: "string" },
    Bound { word: "maxLength", exclusive: None, sign: -1.0, limits: "string" },
    Bound { word: "minItems", exclusive: None, sign: 1.0, limits: "array" },
    Bound { word: "maxItems", exclusive: None, sign: -1.0, limits: "array" },
    Bound { word: "minProperties", exclusive: None, sign: 1.0, limits: "object" },
    Bound { word: "maxProperties", exclusive: None, sign: -1.0, limits: "object" },
];

impl Bound {
    /// The strictest limit times the sign, and whether it is exclusive.
    pub(super) fn of(&self, view: &View<'_>) -> Option<(f64, bool)> {
        let limit = |word: &str| view.words.get(word)?.as_f64().map(|limit| limit * self.sign);
        let inclusive = limit(self.word).map(|limit| (limit, false));
        let exclusive = self.exclusive.and_then(limit).map(|limit| (limit, true));
        // No size is below zero.
        let natural = (self.exclusive.is_none() && self.sign > 0.0).then_some((0.0, false));
        [inclusive, exclusive, natural]
            .into_iter()
            .flatten()
            .max_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// A limit from [`Bound::of`] as the schema states it.
    pub(super) fn show(&self, limit: Option<(f64, bool)>) -> String {
        match limit {
            None => "none".to_owned(),
            Some((limit, false)) => number(limit * self.sign),
            Some((limit, true)) => format!("{} (exclusive)", number(limit * self.sign)),
        }
    }
}
