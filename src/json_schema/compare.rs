//! What a new schema breaks for callers written for the old one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{kind, plain};
use super::rules::{BOUNDS, OPAQUE, Side};
use super::view::{Schema, View};
use super::{ITEMS, Identity, below, budget};
use crate::human;

const INPUTS: [&str; 3] = ["input", "inputs", "request"];
const OUTPUTS: [&str; 3] = ["output", "outputs", "response"];
/// What is nested deeper is not compared; references can nest without end.
const MAX_DEPTH: usize = 64;
/// More lines help nobody.
const MAX_LINES: usize = 1_000;

/// All breaks, in the order of the fields.
pub(super) fn breaks(old: &Value, new: &Value) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (old_steps, new_steps) = (budget(), budget());
    let mut comparison = Comparison {
        old: Schema::new(old, &old_steps),
        new: Schema::new(new, &new_steps),
        lines: Vec::new(),
        active: Vec::new(),
        doubts: 0,
    };
    comparison.compare_roots();
    if comparison.is_exhausted() {
        comparison.lines.truncate(MAX_LINES);
        comparison.doubt("", "there is too much to compare");
    }
    comparison.lines.dedup();
    comparison.lines
}

struct Comparison<'a> {
    old: Schema<'a>,
    new: Schema<'a>,
    lines: Vec<String>,
    /// The pairs that are being compared. Meeting one again adds nothing: recursive types are compared once.
    active: Vec<(Identity, Identity)>,
    /// How often something could not be judged.
    doubts: usize,
}

/// Two views of the same field.
struct Pair<'v, 'a> {
    old: &'v View<'a>,
    new: &'v View<'a>,
    side: Side,
    path: &'v str,
}

impl<'v, 'a> Pair<'v, 'a> {
    /// The views in the order of [`Side::order`].
    fn ordered(&self) -> (&'v View<'a>, &'v View<'a>) {
        self.side.order(self.old, self.new)
    }

    /// The values of a keyword in that order.
    fn words(&self, word: &str) -> (Option<&'a Value>, Option<&'a Value>) {
        let (from, to) = self.ordered();
        (from.words.get(word).copied(), to.words.get(word).copied())
    }

    /// Whether a keyword about values of this type matters.
    fn can_be(&self, name: &str) -> bool {
        let types = self.ordered().0.types();
        types.is_empty() || types.contains(name) || (name == "number" && types.contains("integer"))
    }
}

impl<'a> Comparison<'a> {
    fn is_exhausted(&self) -> bool {
        self.lines.len() > MAX_LINES || self.old.is_exhausted() || self.new.is_exhausted()
    }

    fn report(&mut self, path: &str, what: &str) {
        let path = if path.is_empty() { "." } else { path };
        self.lines.push(human::escape(&format!("{path}: {what}")));
    }

    fn doubt(&mut self, path: &str, why: &str) {
        self.doubts += 1;
        self.report(path, &format!("cannot be judged: {why}"));
    }

    fn compare_roots(&mut self) {
        let (old, new) = (self.old.root(), self.new.root());
        let views = (self.old.view(old), self.new.view(new));
        let defines_other_parts = ["$defs", "definitions"].iter().any(|word| old.get(word) != new.get(word));
        if views.0.is_open() && views.1.is_open() && defines_other_parts {
            return self.doubt("", "only definitions that nothing refers to changed");
        }
        let has_side = |names: &[&str]| {
            names
                .iter()
                .any(|name| views.0.properties.contains_key(name) || views.1.properties.contains_key(name))
        };
        if !has_side(&INPUTS) || !has_side(&OUTPUTS) {
            return self.compare(old, new, Side::Input, "");
        }
        for (&name, part) in &views.0.properties {
            let side = if OUTPUTS.contains(&name) { Side::Output } else { Side::Input };
            match views.1.properties.get(name) {
                Some(other) => self.compare(part, other, side, name),
                None => self.report(name, "removed"),
            }
        }
        let is_side = |name: &&&str| INPUTS.contains(name) || OUTPUTS.contains(name);
        for name in views.1.required.difference(&views.0.required).filter(|name| !is_side(name)) {
            self.report(name, "now required");
        }
        let doubts = [views.0.doubt, views.1.doubt];
        doubts.into_iter().flatten().for_each(|why| self.doubt("", &why));
    }

    fn compare(&mut self, old: &'a Value, new: &'a Value, side: Side, path: &str) {
        let pair: (Identity, Identity) = (old, new);
        if self.is_exhausted() || self.active.contains(&pair) {
            return;
        }
        if self.active.len() >= MAX_DEPTH {
            return self.doubt(path, "nested too deep");
        }
        self.active.push(pair);
        let (old_view, new_view) = (self.old.view(old), self.new.view(new));
        let views = Pair { old: &old_view, new: &new_view, side, path };
        if let Some(why) = old_view.doubt.as_deref().or(new_view.doubt.as_deref()) {
            self.doubt(path, why);
        } else if old_view.choice().is_some() || new_view.choice().is_some() {
            self.compare_choices(old, new, &views);
        } else if self.compare_types(&views) {
            self.compare_values(&views);
            self.compare_bounds(&views);
            self.compare_words(&views);
            self.compare_items(&views);
            self.compare_properties(&views);
        }
        self.active.pop();
    }

    /// Reports types that no longer fit. Returns whether the rest is worth comparing.
    fn compare_types(&mut self, pair: &Pair<'_, 'a>) -> bool {
        let (from, to) = pair.ordered();
        let (from_types, to_types) = (from.types(), to.types());
        let fits =
            |name: &&str| to_types.contains(name) || (*name == "integer" && to_types.contains("number"));
        let all_fit = to_types.is_empty() || (!from_types.is_empty() && from_types.iter().all(fits));
        let fits = from.never || (all_fit && !to.never);
        // Where the values themselves say the type, they are compared instead.
        if fits || (!to.never && !to.words.contains_key("type") && from_types.is_empty()) {
            return !from.never;
        }
        let show = |view: &View<'_>| match (view.never, view.types()) {
            (true, _) => "never".to_owned(),
            (_, types) if types.is_empty() => "any".to_owned(),
            (_, types) => types.into_iter().collect::<Vec<_>>().join("|"),
        };
        self.changed(pair, "type", &show(pair.old), &show(pair.new));
        false
    }

    fn changed(&mut self, pair: &Pair<'_, '_>, word: &str, old: &str, new: &str) {
        self.report(pair.path, &format!("`{word}` {} from {old} to {new}", pair.side.verb()));
    }

    fn compare_values(&mut self, pair: &Pair<'_, 'a>) {
        let (from, to) = pair.ordered();
        let Some(to) = to.values() else { return };
        let Some(from) = from.values() else {
            let what = match pair.side {
                Side::Input => "only some values are valid now",
                Side::Output => "no longer limited to some values",
            };
            return self.report(pair.path, what);
        };
        let (from_schema, to_schema) = pair.side.order(self.old, self.new);
        let to: BTreeSet<String> = to.into_iter().map(|value| to_schema.data(value)).collect();
        let extra: Vec<_> = from.into_iter().filter(|value| !to.contains(&from_schema.data(value))).collect();
        if !extra.is_empty() {
            let names: Vec<_> = extra.iter().take(8).map(|value| format!("`{}`", plain(value))).collect();
            let more = if extra.len() > names.len() { ", …" } else { "" };
            self.report(pair.path, &format!("{}: {}{more}", pair.side.lost(), names.join(", ")));
        }
    }

    fn compare_bounds(&mut self, pair: &Pair<'_, 'a>) {
        let (from, to) = pair.ordered();
        for bound in BOUNDS.iter().filter(|bound| pair.can_be(bound.limits)) {
            let (from, to) = (bound.of(from), bound.of(to));
            // A pair of limit and exclusiveness orders as the strictness does, and none comes first.
            if to > from {
                let (old, new) = pair.side.order(from, to);
                self.changed(pair, bound.word, &bound.show(old), &bound.show(new));
            }
        }
    }

    /// Compares the keywords that can only be equal or not.
    fn compare_words(&mut self, pair: &Pair<'_, 'a>) {
        for word in ["format", "uniqueItems"] {
            let (from, to) = pair.words(word);
            if let Some(value) = to.filter(|to| Some(*to) != from && **to != false) {
                let other = from.map_or("none".to_owned(), plain);
                let (old, new) = pair.side.order(other, plain(value));
                self.changed(pair, word, &old, &new);
            }
        }
        for word in OPAQUE.into_iter().chain(["anyOf", "oneOf"]) {
            self.compare_opaque(pair, word);
        }
    }

    fn compare_opaque(&mut self, pair: &Pair<'_, 'a>, word: &str) {
        let text = |schema: Schema<'a>, view: &View<'a>| {
            view.words.get(word).map(|value| schema.canonical_word(word, value))
        };
        let (old, new) = (text(self.old, pair.old), text(self.new, pair.new));
        // No text at all is no proof that both are the same.
        if old == new && old != Some(None) {
            return;
        }
        let show = |view: &View<'_>| view.words.get(word).map_or("none".to_owned(), |value| plain(value));
        match (word, pair.words(word)) {
            ("pattern" | "multipleOf", (_, None)) => {}
            ("pattern" | "multipleOf", (None, _)) => {
                self.changed(pair, word, &show(pair.old), &show(pair.new));
            }
            _ => self.doubt(pair.path, &format!("`{word}` changed")),
        }
    }

    fn compare_items(&mut self, pair: &Pair<'_, 'a>) {
        let (old, new) = (pair.old.words.get("items"), pair.new.words.get("items"));
        if old.or(new).is_none() || !pair.can_be("array") {
            return;
        }
        let (old, new) = (old.copied().unwrap_or(&OPEN), new.copied().unwrap_or(&OPEN));
        if old.is_array() || new.is_array() {
            // Drafts before 2020-12 wrote `prefixItems` like this.
            return self.compare_opaque(pair, "items");
        }
        self.compare(old, new, pair.side, &below(pair.path, ITEMS));
    }

    fn compare_properties(&mut self, pair: &Pair<'_, 'a>) {
        if !pair.can_be("object") {
            return;
        }
        for (name, old) in &pair.old.properties {
            let path = below(pair.path, name);
            match pair.new.properties.get(name) {
                Some(new) => self.compare(old, new, pair.side, &path),
                None => self.compare_removed(pair, old, &path),
            }
        }
        let (from, to) = pair.ordered();
        for name in to.required.difference(&from.required) {
            let (in_old, in_new) =
                (pair.old.properties.contains_key(name), pair.new.properties.contains_key(name));
            let what = match pair.side {
                Side::Input if in_old => "now required",
                Side::Input => "new required field",
                // Reported as removed.
                Side::Output if in_old && !in_new => continue,
                Side::Output => "no longer required",
            };
            self.report(&below(pair.path, name), what);
        }
        self.compare_additional(pair);
    }

    fn compare_removed(&mut self, pair: &Pair<'_, 'a>, old: &'a Value, path: &str) {
        match pair.new.words.get("additionalProperties") {
            _ if pair.side == Side::Output => self.report(path, "removed"),
            Some(Value::Bool(false)) => self.report(path, "removed, and other fields are refused"),
            Some(new) => self.compare(old, new, pair.side, path),
            None => {
                let others = ["patternProperties", "unevaluatedProperties"];
                if let Some(word) = others.iter().find(|word| pair.new.words.contains_key(*word)) {
                    self.doubt(path, &format!("removed where there is `{word}`"));
                }
            }
        }
    }

    /// Compares what may be in fields that are not described.
    fn compare_additional(&mut self, pair: &Pair<'_, 'a>) {
        const WORD: &str = "additionalProperties";
        let (old, new) = (pair.old.words.get(WORD), pair.new.words.get(WORD));
        if old.or(new).is_none() {
            return;
        }
        let (old, new) = (old.copied().unwrap_or(&OPEN), new.copied().unwrap_or(&OPEN));
        match (pair.side, old, new) {
            // New fields break nobody, not even a reader of an output that had no others.
            (_, Value::Bool(false), _) => {}
            (Side::Input, _, Value::Bool(false)) => {
                self.report(pair.path, "fields that are not described are refused now");
            }
            _ => self.compare(old, new, pair.side, &below(pair.path, "*")),
        }
    }

    /// Matches alternatives; a schema that is no choice is the only one.
    fn compare_choices(&mut self, old: &'a Value, new: &'a Value, pair: &Pair<'_, 'a>) {
        let (old_choice, new_choice) = (pair.old.choice(), pair.new.choice());
        let of = |choice: Option<(&'a str, &'a [Value])>, whole| {
            choice.map_or(std::slice::from_ref(whole), |(_, alternatives)| alternatives)
        };
        let (from, to) = pair.side.order(of(old_choice, old), of(new_choice, new));
        let (from_schema, to_schema) = pair.side.order(self.old, self.new);
        let to_texts: BTreeSet<String> = to.iter().filter_map(|other| to_schema.canonical(other)).collect();
        let is_one_of = [old_choice, new_choice].iter().flatten().any(|(word, _)| *word == "oneOf");
        for part in from {
            let doubts = self.doubts;
            let is_written_alike = from_schema.canonical(part).is_some_and(|text| to_texts.contains(&text));
            let mut is_compatible = |other| {
                let (old, new) = pair.side.order(part, other);
                self.is_compatible(old, new, pair.side)
            };
            if is_written_alike || (!is_one_of && to.iter().any(&mut is_compatible)) {
                continue;
            }
            let kind = kind(from_schema, part);
            // Several types at once may well be covered by several alternatives.
            if is_one_of || self.doubts > doubts || from_schema.view(part).types().len() > 1 {
                self.doubt(pair.path, &format!("no alternative is known to cover {kind}"));
            } else {
                self.report(pair.path, &format!("{}: {kind}", pair.side.lost()));
            }
        }
    }

    /// Compares without reporting.
    fn is_compatible(&mut self, old: &'a Value, new: &'a Value, side: Side) -> bool {
        let before = self.lines.len();
        self.compare(old, new, side, "");
        let is_compatible = self.lines.len() == before && !self.is_exhausted();
        self.lines.truncate(before);
        is_compatible
    }
}

/// The schema of everything.
static OPEN: Value = Value::Bool(true);
