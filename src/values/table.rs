//! The last row of a CSV file, as training loops append them.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::{Value, add, not_finite, text};
use crate::error::{Error, Result};
use crate::human;

/// The cells of the last row by the names in the header row.
pub(super) fn last_row(bytes: &[u8], path: &str) -> Result<BTreeMap<String, Value>> {
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(text(bytes, path)?.as_bytes());
    let (mut row, mut last) = (StringRecord::new(), StringRecord::new());
    while reader.read_record(&mut row).map_err(|error| about(&error, path))? {
        std::mem::swap(&mut row, &mut last);
    }
    let line = last.position().map_or(0, csv::Position::line);
    if line == 0 {
        return Err(Error::new(format!("{}: no row below the header", human::escape(path))));
    }
    let names = reader.headers().map_err(|error| about(&error, path))?;
    let mut flat = BTreeMap::new();
    for (name, cell) in names.iter().zip(&last).filter(|(name, _)| !name.is_empty()) {
        parse_cell(name, cell)
            .and_then(|value| add(&mut flat, name.to_owned(), value))
            .map_err(|error| error.about(format!("{}:{line}", human::escape(path))))?;
    }
    Ok(flat)
}

fn parse_cell(name: &str, cell: &str) -> Result<Value> {
    if cell.is_empty() {
        return Ok(Value::Null);
    }
    match cell.parse::<f64>() {
        Ok(number) if number.is_finite() => return Ok(Value::Number(number)),
        Ok(_) => return Err(Error::new(not_finite(name, cell))),
        Err(_) => {}
    }
    Ok(match cell {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => Value::Text(cell.to_owned()),
    })
}

fn about(error: &csv::Error, path: &str) -> Error {
    let place = error.position().map(|at| format!(":{}", at.line())).unwrap_or_default();
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{} where the header has {expected_len}", human::count(*len, "cell"))
        }
        _ => human::escape(&error.to_string()),
    };
    Error::new(format!("{}{place}: {reason}", human::escape(path)))
}
