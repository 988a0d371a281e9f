//! ONNX: one protocol buffer, read only as far as it leads to the initializers of the main graph.
//!
//! Source: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>. Not listed: constants that are attributes of nodes,
//! initializers of subgraphs and sparse initializers. Values that lie in another file have no range; the entries
//! `external_tensors` and `external_data` of the metadata tell how many there are, and in which files. A file that was cut
//! between two fields of the model looks whole.

use std::collections::BTreeSet;
use std::ops::Range;

use super::collect::{MAX_RANK, Metadata, Tensors, about_tensor, bytes_of};
use super::input::Input;
use super::protobuf::{Value, fields, packed};
use super::{Format, Header, Tensor};
use crate::error::{Error, Result};

/// A byte of typed data describes at most so many elements: a packed number holds up to four of two bits.
const MOST_PER_BYTE: u64 = 4;
/// More names of external files are not kept.
const MAX_LOCATIONS: usize = 64;

/// Reads the model. The format has no mark, so what has no graph is not a model.
pub(super) fn read(input: &mut Input<'_>) -> Result<Header> {
    let mut model = Model::default();
    let end = input.size();
    fields(input, end, |input, field, value| model.read_field(input, field, value))?;
    if !model.has_graph {
        return Err(Error::new("there is no graph in it"));
    }
    model.finish()
}

/// What is gathered of a model.
#[derive(Default)]
struct Model {
    has_graph: bool,
    tensors: Tensors,
    metadata: Metadata,
    /// The author's own entries, which come after those of the format.
    properties: Metadata,
    external: u64,
    locations: BTreeSet<String>,
}

impl Model {
    /// A field of `ModelProto`.
    fn read_field(&mut self, input: &mut Input<'_>, field: u64, value: Value) -> Result<()> {
        match (field, value) {
            (1, Value::Number(version)) => self.metadata.insert("ir_version", &version.to_string()),
            (2, Value::Bytes(length)) => self.read_text(input, "producer_name", length)?,
            (3, Value::Bytes(length)) => self.read_text(input, "producer_version", length)?,
            (4, Value::Bytes(length)) => self.read_text(input, "domain", length)?,
            (5, Value::Number(version)) => self.metadata.insert("model_version", &version.to_string()),
            (7, Value::Bytes(length)) => self.read_graph(input, length)?,
            (8, Value::Bytes(length)) => self.read_opset(input, length)?,
            (14, Value::Bytes(length)) => {
                let (key, value) = read_pair(input, length)?;
                self.properties.insert(&key, &value);
            }
            _ => {}
        }
        Ok(())
    }

    fn read_text(&mut self, input: &mut Input<'_>, key: &str, length: u64) -> Result<()> {
        if let Some(text) = input.short_text(length)?.filter(|text| !text.is_empty()) {
            self.metadata.insert(key, &text);
        }
        Ok(())
    }

    /// `OperatorSetIdProto`: a domain, which is empty for ONNX's own operators, and a version.
    fn read_opset(&mut self, input: &mut Input<'_>, length: u64) -> Result<()> {
        let mut key = "opset".to_owned();
        let mut version = 0;
        let end = input.at() + length;
        fields(input, end, |input, field, value| {
            match (field, value) {
                (1, Value::Bytes(length)) => {
                    let domain = input.short_text(length)?.unwrap_or_default();
                    key = if domain.is_empty() { "opset".to_owned() } else { format!("opset.{domain}") };
                }
                (2, Value::Number(number)) => version = number,
                _ => {}
            }
            Ok(())
        })?;
        self.metadata.insert(&key, &version.to_string());
        Ok(())
    }

    /// `GraphProto`: its initializers.
    fn read_graph(&mut self, input: &mut Input<'_>, length: u64) -> Result<()> {
        self.has_graph = true;
        let end = input.at() + length;
        fields(input, end, |input, field, value| match (field, value) {
            (5, Value::Bytes(length)) => self.read_initializer(input, length),
            _ => Ok(()),
        })
    }

    fn read_initializer(&mut self, input: &mut Input<'_>, length: u64) -> Result<()> {
        let mut tensor = Initializer::default();
        let end = input.at() + length;
        fields(input, end, |input, field, value| tensor.read_field(input, field, value))?;
        if tensor.external {
            self.external += 1;
            if self.locations.len() < MAX_LOCATIONS {
                self.locations.insert(std::mem::take(&mut tensor.location));
            }
        }
        self.tensors.push(tensor.finish()?)
    }

    fn finish(mut self) -> Result<Header> {
        if self.external > 0 {
            let locations = Vec::from_iter(self.locations).join(", ");
            self.metadata.insert("external_tensors", &self.external.to_string());
            self.metadata.insert("external_data", &locations);
        }
        for (key, value) in self.properties.finish() {
            self.metadata.insert(&key, &value);
        }
        Ok(Header::new(Format::Onnx, self.tensors.finish()?, self.metadata.finish()))
    }
}

/// What is gathered of a `TensorProto`.
#[derive(Default)]
struct Initializer {
    name: String,
    shape: Vec<u64>,
    code: u64,
    raw: Option<Range<u64>>,
    /// Bytes in the fields for values of one type.
    typed: u64,
    external: bool,
    location: String,
}

impl Initializer {
    fn read_field(&mut self, input: &mut Input<'_>, field: u64, value: Value) -> Result<()> {
        match (field, value) {
            (1, Value::Number(length)) => self.push_dimension(length)?,
            (1, Value::Bytes(length)) => packed(input, length, |length| self.push_dimension(length))?,
            (2, Value::Number(code)) => self.code = code,
            // Values that are not packed have a key each, so that each counts for at least a byte.
            (4..=7 | 10 | 11, Value::Number(_)) => self.typed += 1,
            (4..=7 | 10 | 11, Value::Bytes(length)) => self.typed += length.max(1),
            (8, Value::Bytes(length)) => self.name = input.text(length)?,
            (9, Value::Bytes(length)) => self.raw = Some(input.at()..input.at() + length),
            (13, Value::Bytes(length)) => {
                let (key, value) = read_pair(input, length)?;
                if key == "location" {
                    self.location = value;
                }
            }
            (14, Value::Number(location)) => self.external = location == 1,
            _ => {}
        }
        Ok(())
    }

    fn push_dimension(&mut self, length: u64) -> Result<()> {
        // The format's dimensions are signed.
        if length > i64::MAX as u64 || self.shape.len() >= MAX_RANK {
            return Err(about_tensor(&self.name, "a negative dimension, or too many of them"));
        }
        self.shape.push(length);
        Ok(())
    }

    fn finish(self) -> Result<Tensor> {
        let (dtype, bits) = match data_type(self.code) {
            Some((name, bits)) => (name.to_owned(), bits),
            None => (format!("type-{}", self.code), None),
        };
        let tensor = Tensor { name: self.name, dtype, shape: self.shape, data: None };
        let data = match self.raw {
            _ if self.external => None,
            Some(raw) => {
                let fits = bits.is_none_or(|bits| bytes_of(&tensor.shape, bits) == Some(raw.end - raw.start));
                if !fits {
                    return Err(about_tensor(&tensor.name, "its data has another size than its shape"));
                }
                Some(raw)
            }
            None if tensor.parameters() > self.typed.saturating_mul(MOST_PER_BYTE) => {
                return Err(about_tensor(&tensor.name, "it has less data than its shape"));
            }
            None => None,
        };
        Ok(Tensor { data, ..tensor })
    }
}

/// `StringStringEntryProto`. What is too long to be kept is empty.
fn read_pair(input: &mut Input<'_>, length: u64) -> Result<(String, String)> {
    let mut pair = (String::new(), String::new());
    let end = input.at() + length;
    fields(input, end, |input, field, value| {
        match (field, value) {
            (1, Value::Bytes(length)) => pair.0 = input.short_text(length)?.unwrap_or_default(),
            (2, Value::Bytes(length)) => pair.1 = input.short_text(length)?.unwrap_or_default(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(pair)
}

/// Name of an element type (`TensorProto.DataType`), and the bits of an element in `raw_data`, where that is known.
fn data_type(code: u64) -> Option<(&'static str, Option<u64>)> {
    Some(match code {
        1 => ("FLOAT", Some(32)),
        2 => ("UINT8", Some(8)),
        3 => ("INT8", Some(8)),
        4 => ("UINT16", Some(16)),
        5 => ("INT16", Some(16)),
        6 => ("INT32", Some(32)),
        7 => ("INT64", Some(64)),
        8 => ("STRING", None),
        9 => ("BOOL", Some(8)),
        10 => ("FLOAT16", Some(16)),
        11 => ("DOUBLE", Some(64)),
        12 => ("UINT32", Some(32)),
        13 => ("UINT64", Some(64)),
        14 => ("COMPLEX64", Some(64)),
        15 => ("COMPLEX128", Some(128)),
        16 => ("BFLOAT16", Some(16)),
        17 => ("FLOAT8E4M3FN", Some(8)),
        18 => ("FLOAT8E4M3FNUZ", Some(8)),
        19 => ("FLOAT8E5M2", Some(8)),
        20 => ("FLOAT8E5M2FNUZ", Some(8)),
        21 => ("UINT4", Some(4)),
        22 => ("INT4", Some(4)),
        23 => ("FLOAT4E2M1", Some(4)),
        24 => ("FLOAT8E8M0", Some(8)),
        25 => ("UINT2", Some(2)),
        26 => ("INT2", Some(2)),
        27 => ("FLOAT6E2M3", None),
        28 => ("FLOAT6E3M2", None),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
