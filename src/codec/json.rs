//! JSON maps in which every key counts: a second value for a key is an error, not the one that wins.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::collect::shown;

/// No object has more entries; an index lists the tensors of a whole model.
const MAX_ENTRIES: usize = 1 << 19;

/// A JSON object whose keys differ.
pub(super) struct UniqueMap<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            insert_unique(&mut map, key, &mut entries)?;
        }
        Ok(UniqueMap(map))
    }
}

/// Reads the value of a key into a map that must not have the key, and not too many others.
pub(super) fn insert_unique<'de, V: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut BTreeMap<String, V>,
    key: String,
    entries: &mut A,
) -> Result<(), A::Error> {
    if map.len() >= MAX_ENTRIES {
        return Err(Error::custom(format_args!("more than {MAX_ENTRIES} entries")));
    }
    match map.entry(key) {
        Entry::Occupied(entry) => Err(duplicate(entry.key())),
        Entry::Vacant(entry) => {
            entry.insert(entries.next_value()?);
            Ok(())
        }
    }
}

/// The error for a key that comes twice.
pub(super) fn duplicate<E: Error>(key: &str) -> E {
    E::custom(format_args!("duplicate key `{}`", shown(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_once() {
        let map: UniqueMap<u64> = serde_json::from_str(r#"{"a":1,"b":2}"#).unwrap();
        assert_eq!(map.0.len(), 2);
        let error = serde_json::from_str::<UniqueMap<u64>>(r#"{"a":1,"a":1}"#).err().unwrap();
        assert!(error.to_string().starts_with("duplicate key `a`"), "{error}");
        assert!(serde_json::from_str::<UniqueMap<u64>>("[]").is_err());
    }

    #[test]
    fn the_number_of_keys_has_a_limit() {
        let entries: String = (0..MAX_ENTRIES).map(|key| format!("\"{key}\":0,")).collect();
        let error = serde_json::from_str::<UniqueMap<u8>>(&format!("{{{entries}\"x\":0}}")).err().unwrap();
        assert!(error.to_string().starts_with("more than 524288 entries"), "{error}");
    }
}
