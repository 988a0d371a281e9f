//! A comparison of two versions as a table for a terminal or for a pull request.

use std::fmt::Write as _;

use super::render;
use crate::human;
use crate::lineage::{Data, Weights};
use crate::ops::compare::{Change, Comparison, DataChange, Side, TensorChange};
use crate::values;

/// Rows of one part; more are counted only.
const MOST: usize = 50;
/// What stands where a side has nothing.
const NOTHING: &str = "-";

/// One part of the comparison: its title, and rows of name, old, new, and what to say about it.
pub(super) struct Section {
    title: &'static str,
    rows: Vec<[String; 4]>,
}

/// The parts in which something differs.
pub(super) fn sections(comparison: &Comparison) -> Vec<Section> {
    let mut sections = vec![
        Section { title: "metrics", rows: metrics(comparison) },
        Section { title: "parameters", rows: comparison.params.iter().map(change).collect() },
        Section { title: "config", rows: comparison.config.iter().map(change).collect() },
        Section { title: "code", rows: comparison.code.iter().map(file).collect() },
        Section { title: "packages", rows: comparison.packages.iter().map(change).collect() },
        Section { title: "schema", rows: comparison.io_schema.iter().map(change).collect() },
        Section { title: "data", rows: comparison.data.iter().map(data).collect() },
        Section { title: "weights", rows: weights(comparison) },
    ];
    sections.retain(|section| !section.rows.is_empty());
    sections
}

fn metrics(comparison: &Comparison) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    for (name, metric) in &comparison.metrics {
        let new = values::number(metric.value);
        let (old, said) = match metric.before.zip(metric.change) {
            None => (NOTHING.to_owned(), "new".to_owned()),
            Some((_, 0.0)) => continue,
            Some((before, change)) => {
                let verdict = metric.better.map_or("", |better| if better { ", better" } else { ", worse" });
                (values::number(before), format!("{}{verdict}", render::change(change)))
            }
        };
        rows.push([name.clone(), old, new, said]);
    }
    let gone = |(name, value): (&String, &f64)| {
        [name.clone(), values::number(*value), NOTHING.to_owned(), "gone".to_owned()]
    };
    rows.extend(comparison.metrics_gone.iter().map(gone));
    rows
}

fn change(change: &Change) -> [String; 4] {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| NOTHING.to_owned());
    let said = match (&change.old, &change.new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    [change.name.clone(), side(&change.old), side(&change.new), said.to_owned()]
}

/// As [`change`], with digests short.
fn file(entry: &Change) -> [String; 4] {
    let short = |side: &Option<String>| side.as_ref().map(|digest| digest.chars().take(12).collect());
    change(&Change { name: entry.name.clone(), old: short(&entry.old), new: short(&entry.new) })
}

fn data(entry: &DataChange) -> [String; 4] {
    let side = |data: &Option<Data>| {
        let Some(data) = data else { return NOTHING.to_owned() };
        let digest: String = data.digest.trim_start_matches("sha256:").chars().take(12).collect();
        let files = data.files.map(|files| format!(", {}", human::count(files, "file"))).unwrap_or_default();
        let size = data.size.map(|size| format!(", {}", human::bytes(size))).unwrap_or_default();
        format!("{digest}{files}{size}")
    };
    let [_, _, _, said] = change(&Change {
        name: String::new(),
        old: entry.old.as_ref().map(|_| String::new()),
        new: entry.new.as_ref().map(|_| String::new()),
    });
    [entry.name.clone(), side(&entry.old), side(&entry.new), said]
}

fn weights(comparison: &Comparison) -> Vec<[String; 4]> {
    let change = &comparison.weights;
    if !change.changed {
        return Vec::new();
    }
    let side = |weights: &Option<Weights>| {
        let Some(weights) = weights else { return NOTHING.to_owned() };
        let format = weights.format.as_deref().unwrap_or("unknown format");
        let parameters = weights.parameters.map(|count| format!(", {}", human::count(count, "parameter")));
        format!(
            "{} {format}, {}{}",
            weights.sha256.short(),
            human::bytes(weights.size),
            parameters.unwrap_or_default()
        )
    };
    let said = match (&change.tensors, &change.unknown) {
        (Some(tensors), _) => {
            let all = tensors.len() as u64 + change.unchanged + change.not_compared;
            let unknown = match change.not_compared {
                0 => String::new(),
                count => format!(", {count} could not be compared"),
            };
            format!("{} of {all} tensors differ{unknown}", tensors.len())
        }
        (None, Some(why)) => format!("tensors unknown: {why}"),
        (None, None) => String::new(),
    };
    let mut rows = vec![["all".to_owned(), side(&change.old), side(&change.new), said]];
    rows.extend(change.tensors.iter().flatten().map(tensor));
    rows
}

fn tensor(entry: &TensorChange) -> [String; 4] {
    let [name, old, new, said] =
        change(&Change { name: entry.name.clone(), old: entry.old.clone(), new: entry.new.clone() });
    let said = match entry.moved {
        None => said,
        Some(moved) => {
            let nan = if moved.nan > 0 { format!(", {} NaN", moved.nan) } else { String::new() };
            format!("moved by {:.3e} (relative L2), at most {:.3e}{nan}", moved.relative_l2, moved.max_abs)
        }
    };
    [name, old, new, said]
}

fn title(side: &Side) -> String {
    let commit = side.commit.as_ref().map(|commit| format!(" ({})", &commit[..10])).unwrap_or_default();
    format!("{}{commit}", human::escape(&side.typed))
}

/// For a terminal.
pub(super) fn text(comparison: &Comparison, sections: &[Section]) -> String {
    let mut out = format!("{}: {} -> {}\n", comparison.model, title(&comparison.old), title(&comparison.new));
    if sections.is_empty() {
        out.push_str("nothing differs\n");
    }
    for section in sections {
        let shown = &section.rows[..section.rows.len().min(MOST)];
        let width = |column: usize| {
            shown.iter().map(|row| human::escape(&row[column]).chars().count()).max().unwrap_or(0)
        };
        let (name, old, new) = (width(0).min(60), width(1).min(40), width(2).min(40));
        let _ = writeln!(out, "\n{}", section.title);
        for row in shown {
            let [a, b, c, d] = row.each_ref().map(|cell| human::escape(cell));
            let _ = writeln!(out, "  {a:<name$}  {b:<old$}  {c:<new$}  {d}");
        }
        more(&mut out, section, "  ");
    }
    for note in &comparison.notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

/// For a pull request.
pub(super) fn markdown(comparison: &Comparison, sections: &[Section]) -> String {
    let mut out =
        format!("### {}: {} → {}\n", comparison.model, title(&comparison.old), title(&comparison.new));
    if sections.is_empty() {
        out.push_str("\nNothing differs.\n");
    }
    let cell = |text: &str| human::escape(text).replace('|', "\\|").replace('<', "&lt;");
    for section in sections {
        let _ = writeln!(out, "\n| {} | old | new | |\n|---|---|---|---|", section.title);
        for row in section.rows.iter().take(MOST) {
            let [a, b, c, d] = row.each_ref().map(|text| cell(text));
            let _ = writeln!(out, "| {a} | {b} | {c} | {d} |");
        }
        more(&mut out, section, "\n");
    }
    for note in &comparison.notes {
        let _ = writeln!(out, "\n> {}", cell(note));
    }
    out
}

fn more(out: &mut String, section: &Section, indent: &str) {
    if section.rows.len() > MOST {
        let _ = writeln!(out, "{indent}and {} more", section.rows.len() - MOST);
    }
}
