//! safetensors: eight bytes with the header's length, the header as JSON, the tensors without gaps.
//!
//! Source: <https://github.com/huggingface/safetensors#format>. A tensor of a type that is not in the table below is kept
//! with its name and range, but its size is not compared with its shape.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::collect::{MAX_RANK, Metadata, Tensors, about_tensor, elements, shown};
use super::input::{Input, MAX_HEADER};
use super::json::{UniqueMap, duplicate, insert_unique};
use super::{Format, Header, Tensor};
use crate::error::{Error, Result};

const METADATA_KEY: &str = "__metadata__";
/// Bytes in front of the JSON header.
const LENGTH_BYTES: u64 = 8;

/// Whether a file starts as this format does: a length that is possible, then a JSON object.
pub(super) fn starts_like(start: &[u8], size: u64) -> bool {
    let Some((&length, rest)) = start.split_first_chunk() else { return false };
    let length = u64::from_le_bytes(length);
    rest.first() == Some(&b'{') && length <= MAX_HEADER && length <= size.saturating_sub(LENGTH_BYTES)
}

/// Reads the header and checks that the tensors fill the rest of the file exactly.
pub(super) fn read(input: &mut Input<'_>) -> Result<Header> {
    let length = input.u64()?;
    let json = input.read_bytes(length)?;
    if !json.starts_with(b"{") {
        return Err(Error::new("it does not start with `{`"));
    }
    let listing: Listing =
        serde_json::from_slice(&json).map_err(|error| Error::new(shown(&error.to_string())))?;
    check_layout(&listing, input.left())?;
    let start = input.at();
    let mut tensors = Tensors::default();
    for (name, Info { dtype, shape: Shape(shape), data_offsets: (from, to) }) in listing.tensors {
        tensors.push(Tensor { name, dtype, shape, data: Some(start + from..start + to) })?;
    }
    let mut metadata = Metadata::default();
    for (key, value) in &listing.metadata {
        metadata.insert(key, value);
    }
    Ok(Header::new(Format::Safetensors, tensors.finish()?, metadata.finish()))
}

/// Checks that the tensors have the sizes of their shapes, and follow each other from byte 0 to `size`.
fn check_layout(listing: &Listing, size: u64) -> Result<()> {
    let mut by_offset: Vec<_> = listing.tensors.iter().collect();
    by_offset.sort_by_key(|(_, info)| info.data_offsets);
    let mut expected = 0;
    for (name, info) in by_offset {
        let (from, to) = info.data_offsets;
        if from != expected || to < from || to > size {
            return Err(about_tensor(
                name,
                format!("bytes {from} to {to} do not follow byte {expected} of {size}"),
            ));
        }
        check_size(info, to - from).map_err(|what| about_tensor(name, what))?;
        expected = to;
    }
    if expected != size {
        return Err(Error::new(format!("the tensors end at byte {expected} of {size}")));
    }
    Ok(())
}

fn check_size(info: &Info, size: u64) -> std::result::Result<(), String> {
    let Some(bits) = bits(&info.dtype) else { return Ok(()) };
    match elements(&info.shape.0).and_then(|count| count.checked_mul(bits)) {
        // Types smaller than a byte must still fill whole bytes.
        Some(total) if Some(total) == size.checked_mul(8) => Ok(()),
        _ => Err(format!("{size} bytes are not the size of its type and shape")),
    }
}

/// Bits of an element.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The JSON header.
struct Listing {
    tensors: BTreeMap<String, Info>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListingVisitor)
    }
}

struct ListingVisitor;

impl<'de> Visitor<'de> for ListingVisitor {
    type Value = Listing;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Listing, A::Error> {
        let mut tensors = BTreeMap::new();
        let mut metadata = None;
        while let Some(key) = entries.next_key::<String>()? {
            if key == METADATA_KEY {
                let UniqueMap(map) = entries.next_value()?;
                if metadata.replace(map).is_some() {
                    return Err(duplicate(METADATA_KEY));
                }
            } else {
                insert_unique(&mut tensors, key, &mut entries)?;
            }
        }
        Ok(Listing { tensors, metadata: metadata.unwrap_or_default() })
    }
}

/// Dimensions, refused while they are read when there are too many.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut dimensions: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(length) = dimensions.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::custom(format_args!("more than {MAX_RANK} dimensions")));
            }
            shape.push(length);
        }
        Ok(Shape(shape))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_prefixes, read_bytes, refused};
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn one(dtype: &str, shape: &str, from: u64, to: u64) -> String {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    }

    fn sample() -> Vec<u8> {
        let json = format!(
            r#"{{"__metadata__":{{"format":"pt"}},"w":{},"b":{},"e":{}}}  "#,
            one("F32", "[2,3]", 4, 28),
            one("BF16", "[2]", 0, 4),
            one("F4", "[0,7]", 4, 4)
        );
        file(&json, 28)
    }

    #[test]
    fn reads_names_types_shapes_and_ranges() {
        let bytes = sample();
        // The content decides, whatever the name promises.
        for name in ["model.safetensors", "model", "model.gguf"] {
            let header = read_bytes(&bytes, name).unwrap().unwrap();
            assert_eq!(header.format, Format::Safetensors);
            assert_eq!(header.metadata["format"], "pt");
            let start = bytes.len() as u64 - 28;
            let [b, e, w] = &header.tensors[..] else { panic!("{header:?}") };
            assert_eq!((b.name.as_str(), b.dtype.as_str(), b.parameters()), ("b", "BF16", 2));
            assert_eq!((w.shape.as_slice(), w.data.clone()), (&[2, 3][..], Some(start + 4..start + 28)));
            assert_eq!((e.parameters(), e.data.clone()), (0, Some(start + 4..start + 4)));
        }
    }

    #[test]
    fn unknown_types_are_kept_without_a_size_check() {
        let header = read_bytes(&file(&format!(r#"{{"w":{}}}"#, one("X9", "[5]", 0, 3)), 3), "").unwrap();
        assert_eq!(header.unwrap().tensors[0].dtype, "X9");
    }

    #[test]
    fn refuses_damage() {
        let w = |dtype, shape, from, to| format!(r#"{{"w":{}}}"#, one(dtype, shape, from, to));
        let two = |a, b| format!(r#"{{"a":{a},"b":{b}}}"#);
        let u8s = |from, to| one("U8", &format!("[{}]", to - from), from, to);
        let cases = [
            (w("F32", "[1]", 0, 3), 3, "not the size"),
            (w("F4", "[1]", 0, 1), 1, "not the size"),
            (w("F32", "[4294967296,4294967296]", 0, 0), 0, "not the size"),
            (w("X9", "[4294967296,4294967296]", 0, 0), 0, "too many elements"),
            (w("F32", "[2305843009213693952]", 0, 0), 0, "not the size"),
            (w("U8", "[8]", 0, 8), 7, "do not follow"),
            (w("U8", "[8]", 8, 0), 8, "do not follow"),
            (w("U8", "[18446744073709551615]", 0, u64::MAX), 8, "do not follow"),
            (w("U8", "[8]", 0, 8), 9, "end at byte 8 of 9"),
            ("{}".to_owned(), 1, "end at byte 0 of 1"),
            (two(u8s(0, 4), u8s(3, 8)), 8, "do not follow"),
            (two(u8s(0, 4), u8s(5, 8)), 8, "do not follow"),
            (two(u8s(1, 4), u8s(4, 8)), 8, "do not follow"),
            (two(u8s(0, 4), one("U8", "[0]", 4, 2)), 4, "do not follow"),
            (two(u8s(0, 4), u8s(0, 4)), 4, "do not follow"),
            (w("U8", "[-1]", 0, 0), 0, "invalid value"),
            (w("U8", &format!("[{}1]", "1,".repeat(64)), 0, 1), 1, "more than 64 dimensions"),
            (format!(r#"{{"w":{0},"w":{0}}}"#, u8s(0, 4)), 4, "duplicate key `w`"),
            (r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(), 0, "duplicate key `__metadata__`"),
            (r#"{"__metadata__":{"a":"","a":""}}"#.to_owned(), 0, "duplicate key `a`"),
            (r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "invalid type"),
            (format!(r#"{{"w":{}"#, "[".repeat(100_000)), 0, "invalid type"),
            (format!(r#"{{"w":{{"x":{}"#, "[".repeat(100_000)), 0, "EOF"),
            (" {}".to_owned(), 0, "does not start with `{`"),
        ];
        for (json, data, reason) in cases {
            let error = refused(&file(&json, data), "m.safetensors");
            assert!(error.contains(reason), "{}\n{error}", shown(&json));
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_not_allocated() {
        for length in [3, 100_000_001, u64::MAX] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(b"{}");
            assert!(refused(&bytes, "m.safetensors").contains("beyond the end"));
            assert!(read_bytes(&bytes, "m").unwrap().is_none(), "nothing shows the format");
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        check_prefixes(&sample(), "m.safetensors");
    }
}
