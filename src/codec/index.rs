//! The index of a model in several files: `model.safetensors.index.json`.
//!
//! Source: `save_pretrained` of Hugging Face's libraries: `{"metadata": {"total_size": …}, "weight_map": {tensor: file}}`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Header;
use super::collect::{about_tensor, shown};
use super::json::UniqueMap;
use crate::error::{Error, Result};
use crate::human;
use crate::repo_path::check_name;

/// Which file holds which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// For each tensor, the name of its file, which lies beside the index.
    pub weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors, when the index states a whole number. It is not checked: writers do not agree on how often
    /// a tensor counts that has two names.
    pub total_size: Option<u64>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Option<Metadata>,
    weight_map: UniqueMap<String>,
}

#[derive(Deserialize)]
struct Metadata {
    total_size: Option<serde_json::Number>,
}

/// Parses the bytes of the index at `path` (for messages). Every file must be a plain name, and no tensor may come twice.
pub fn parse_index(bytes: &[u8], path: &str) -> Result<Index> {
    let path = human::escape(path);
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
        Error::new(format!("{path}: not an index of weights: {}", shown(&error.to_string())))
    })?;
    let UniqueMap(weight_map) = raw.weight_map;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    for shard in shards {
        check_name(shard).map_err(|reason| {
            Error::new(format!("{path}: `{}` is not a file's name: {reason}", shown(shard)))
        })?;
    }
    let total_size = raw.metadata.and_then(|metadata| metadata.total_size?.as_u64());
    Ok(Index { weight_map, total_size })
}

impl Index {
    /// Checks the headers of the files, by name, against the map: every tensor where the map says, none missing, none
    /// besides. The error names the first difference.
    pub fn check(&self, shards: &BTreeMap<String, Header>) -> Result<()> {
        for (shard, header) in shards {
            for tensor in &header.tensors {
                match self.weight_map.get(&tensor.name) {
                    Some(expected) if expected == shard => {}
                    Some(expected) => {
                        return Err(misplaced(
                            &tensor.name,
                            shard,
                            &format!("the index says `{}`", shown(expected)),
                        ));
                    }
                    None => return Err(misplaced(&tensor.name, shard, "the index does not list it")),
                }
            }
        }
        for (name, shard) in &self.weight_map {
            let header = shards
                .get(shard)
                .ok_or_else(|| about_tensor(name, format!("its file `{}` is missing", shown(shard))))?;
            if header.tensors.binary_search_by(|tensor| tensor.name.cmp(name)).is_err() {
                return Err(about_tensor(
                    name,
                    format!("not in `{}`, where the index says it is", shown(shard)),
                ));
            }
        }
        Ok(())
    }
}

fn misplaced(tensor: &str, shard: &str, what: &str) -> Error {
    about_tensor(tensor, format!("in `{}`, but {what}", shown(shard)))
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Tensor};
    use super::*;

    fn header(names: &[&str]) -> Header {
        let tensor = |name: &&str| Tensor {
            name: (*name).to_owned(),
            dtype: "F32".to_owned(),
            shape: vec![1],
            data: None,
        };
        Header::new(Format::Safetensors, names.iter().map(tensor).collect(), BTreeMap::new())
    }

    fn index() -> Index {
        let text = r#"{"metadata":{"total_size":12,"x":[]},"weight_map":{"a":"1.st","b":"2.st","c":"1.st"}}"#;
        parse_index(text.as_bytes(), "i.json").unwrap()
    }

    #[test]
    fn parses_the_map() {
        assert_eq!((index().weight_map["b"].as_str(), index().total_size), ("2.st", Some(12)));
        for text in [r#"{"weight_map":{}}"#, r#"{"weight_map":{},"metadata":{"total_size":1.5}}"#] {
            assert_eq!(parse_index(text.as_bytes(), "i").unwrap().total_size, None);
        }
    }

    #[test]
    fn refuses_what_is_not_an_index() {
        let deep = "[".repeat(100_000);
        let cases = [
            ("", "not an index"),
            ("{}", "missing field `weight_map`"),
            (r#"{"weight_map":{"a":"1","a":"1"}}"#, "duplicate key `a`"),
            (r#"{"weight_map":{},"weight_map":{}}"#, "duplicate field"),
            (r#"{"weight_map":{"a":1}}"#, "invalid type"),
            (r#"{"weight_map":{"a":"../1"}}"#, "is not a file's name"),
            (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "is not a file's name"),
            (r#"{"weight_map":{"a":"d\\1"}}"#, "is not a file's name"),
            (r#"{"weight_map":{"a":".."}}"#, "is not a file's name"),
            (r#"{"weight_map":{"a":""}}"#, "is not a file's name"),
            (&format!(r#"{{"weight_map":{{"a":{deep}"#), "invalid type"),
            (&format!(r#"{{"x":{deep}"#), "EOF"),
        ];
        for (text, reason) in cases {
            let error = parse_index(text.as_bytes(), "i.json").unwrap_err().one_line();
            assert!(error.starts_with("i.json: ") && error.contains(reason), "{reason}\n{error}");
        }
    }

    #[test]
    fn headers_must_agree() {
        let check = |first: &[&str], second: &[&str]| {
            let shards = [("1.st".to_owned(), header(first)), ("2.st".to_owned(), header(second))];
            index().check(&BTreeMap::from(shards)).map_err(|error| error.one_line())
        };
        assert_eq!(check(&["a", "c"], &["b"]), Ok(()));
        let cases = [
            (check(&["a", "b"], &["b", "c"]), "tensor `b`: in `1.st`, but the index says `2.st`"),
            (check(&["a", "c"], &["b", "d"]), "tensor `d`: in `2.st`, but the index does not list it"),
            (check(&["a"], &["b"]), "tensor `c`: not in `1.st`, where the index says it is"),
        ];
        for (result, expected) in cases {
            assert_eq!(result.unwrap_err(), expected);
        }
        let error = index().check(&BTreeMap::from([("1.st".to_owned(), header(&["a", "c"]))])).unwrap_err();
        assert_eq!(error.one_line(), "tensor `b`: its file `2.st` is missing");
    }
}
