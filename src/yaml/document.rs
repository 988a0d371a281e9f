//! Writing documents for others to read: Kubernetes manifests.
//!
//! The library leaves `no`, `1_000` and `12:30` bare; readers of YAML 1.1, of which Kubernetes has one, take them for something else
//! than text. Here text is bare only when no version of YAML can take it for anything but text.

use std::fmt::Write as _;

use serde_json::Value;

/// A value as one YAML document in block style, keys in order, equal text for equal values.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        scalar => {
            let _ = writeln!(out, "{}", inline(scalar));
        }
    }
    out
}

fn mapping(map: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
    for (at, (key, value)) in map.iter().enumerate() {
        // The first key of a mapping in a list stands behind its dash.
        if at > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        out.push_str(&text(key));
        out.push(':');
        entry(value, indent, out);
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut String) {
    for item in items {
        pad(indent, out);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => {
                out.truncate(out.len() - 1);
                out.push('\n');
                sequence(inner, indent + 2, out);
            }
            Value::String(lines) if is_block(lines) => block(lines, indent + 2, out),
            scalar => {
                let _ = writeln!(out, "{}", inline(scalar));
            }
        }
    }
}

/// What follows `key:`.
fn entry(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(map, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(items, indent, out);
        }
        Value::String(lines) if is_block(lines) => {
            out.push(' ');
            block(lines, indent + 2, out);
        }
        scalar => {
            let _ = writeln!(out, " {}", inline(scalar));
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// Whether several lines can stand as they are, indented.
fn is_block(lines: &str) -> bool {
    let plain = |c: char| c == '\n' || (c >= ' ' && is_printable(c));
    lines.trim_end_matches('\n').contains('\n')
        && !lines.ends_with("\n\n")
        && !lines.starts_with([' ', '\n'])
        && lines.chars().all(plain)
        // Spaces at the end of a line are lost to editors.
        && !lines.lines().any(|line| line.ends_with(' '))
}

fn block(lines: &str, indent: usize, out: &mut String) {
    out.push_str(if lines.ends_with('\n') { "|\n" } else { "|-\n" });
    for line in lines.lines() {
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// What every version of YAML takes as it is, except line breaks.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Text as it stands in one line.
fn text(string: &str) -> String {
    if is_bare(string) {
        return string.to_owned();
    }
    let mut out = String::from("\"");
    for c in string.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

fn is_bare(string: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !string.ends_with(':')
        && string.chars().all(|c| c.is_ascii_alphanumeric() || "_./@:+-".contains(c))
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_nest() {
        let value = json!({"b": [{"x": 1, "y": {"z": []}}, "no", [1, "two"]], "a": "one\n  two\n", "c": {}, "d": ["a\nb"]});
        let expected = "a: |\n  one\n    two\nb:\n- x: 1\n  \"y\":\n    z: []\n- \"no\"\n-\n  - 1\n  - two\nc: {}\nd:\n- |-\n  a\n  b\n";
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn text_stays_text() {
        let hostile = [
            "no",
            "Yes",
            "~",
            "null",
            "1.10",
            "1e3",
            "0x1f",
            "0o7",
            "1_000",
            "12:30:45",
            "2001-01-01",
            ".inf",
            "=",
            "<<",
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "- a",
            "? a",
            "&x",
            "*x",
            "!x",
            "%x",
            "@x",
            "`x",
            "{a}",
            "[a]",
            "|",
            ">",
            "\"q\"",
            "'q'",
            "a\nb",
            "a\n b: c\n",
            "\na",
            "a\r\nb",
            "a\tb\n",
            "x \ny",
            "a\n\n",
            "\u{0}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}x\n",
            "\u{feff}",
            "\u{1f600}",
            "a\\b",
            "---\na: 1",
            "...\n",
            "a\n---\nb",
            "key:",
            "1.4.0",
            "http://a/b?c=d&e#f",
        ];
        for string in hostile {
            let value = json!({"k": string, "list": [string, {"in": string}], "after": 1, string: 2});
            let written = document(&value);
            let read: Value =
                serde_yaml::from_str(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(read, value, "{written}");
        }
    }
}
