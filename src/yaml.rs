//! The only file that names the YAML library: typed reading of small, untrusted documents.

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::human;

/// Deserializes one YAML document; errors name `path` and, where known, line and column.
///
/// Anchors, aliases and tags have no use in these files and are refused, so a small file cannot grow in memory.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], path: &str) -> Result<T> {
    let shown = human::escape(path);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::new(format!("{shown}: not UTF-8")).caused_by(error))?;
    if let Some(line) = text.lines().position(uses_references) {
        return Err(Error::new(format!(
            "{shown}:{}: YAML anchors, aliases and tags are not allowed here",
            line + 1
        )));
    }
    serde_yaml::from_str(text).map_err(|error| {
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let reason = error.to_string();
        // The library appends the place, which is already in front.
        let reason = reason.split(" at line ").next().unwrap_or(&reason);
        Error::new(format!("{shown}{place}: {}", human::escape(reason)))
    })
}

/// Whether a value on this line starts with a YAML reference or tag character.
fn uses_references(line: &str) -> bool {
    let content = line.split(" #").next().unwrap_or_default();
    if content.trim_start().starts_with('#') {
        return false;
    }
    content
        .split([' ', '\t', '[', '{', ',', '(', ':'])
        .any(|word| word.len() > 1 && word.starts_with(['&', '*', '!']))
}

/// The number of the first line that holds this text, counted from one.
pub fn line_of(document: &str, text: &str) -> Option<usize> {
    document.lines().position(|line| line.contains(text)).map(|at| at + 1)
}

/// A scalar as it can stand behind `key: `, quoted where plain text would mean something else.
pub fn scalar(text: &str) -> String {
    serde_yaml::to_string(text).map(|line| line.trim_end().to_owned()).unwrap_or_else(|_| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only parsed")]
        a: u32,
    }

    #[test]
    fn errors_name_the_place() {
        let error = from_slice::<Sample>(b"a: 1\nb: 2\n", "x.yaml").unwrap_err().one_line();
        assert!(error.starts_with("x.yaml:2:1: "), "{error}");
        assert!(error.contains("unknown field `b`"), "{error}");
        let error = from_slice::<Sample>(b"a: 1\na: 2\n", "x.yaml").unwrap_err().one_line();
        assert!(error.contains("duplicate"), "{error}");
    }

    #[test]
    fn references_are_refused() {
        for text in ["a: &x 1\n", "a: *x\n", "a: !!int 1\n", "{a: &x 1}\n"] {
            let error = from_slice::<Sample>(text.as_bytes(), "x.yaml").unwrap_err().one_line();
            assert!(error.contains("not allowed"), "{text}: {error}");
        }
    }

    #[test]
    fn scalars_survive() {
        assert_eq!(scalar("s3://bucket/x"), "s3://bucket/x");
        assert_eq!(scalar("/a b: c"), "'/a b: c'");
    }
}
