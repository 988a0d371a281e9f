//! GGUF: key-value metadata, then a description of every tensor, then their data, each aligned.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Versions 2 and 3, little-endian. Arrays of metadata
//! are skipped. A tensor of a type that is not in the table below keeps its name and shape, but has no known range.

use std::collections::HashSet;

use super::collect::{MAX_RANK, MAX_TENSORS, Metadata, Tensors, about_tensor, elements, shown};
use super::input::Input;
use super::{Format, Header, Tensor};
use crate::error::{Error, Result};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Longest key or tensor name in bytes; the format says so for keys.
const MAX_NAME: u64 = 65_535;
/// No file has more metadata entries; most have fewer than a hundred.
const MAX_PAIRS: u64 = 1 << 16;
/// Arrays in arrays are refused when they are nested deeper.
const MAX_DEPTH: usize = 8;
/// A key-value pair is no shorter: length of the key, type, value.
const MIN_PAIR: u64 = 8 + 4 + 1;
/// A tensor's description is no shorter: length of the name, rank, type, offset.
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;
/// An element of an array of strings is no shorter: its length.
const MIN_STRING: u64 = 8;
/// An element of an array of arrays is no shorter: its type and count.
const MIN_ARRAY: u64 = 4 + 8;

/// Reads the header and checks that the tensors follow each other, aligned and inside the file.
pub(super) fn read(input: &mut Input<'_>) -> Result<Header> {
    if input.array()? != *MAGIC {
        return Err(Error::new("it does not start with `GGUF`"));
    }
    check_version(input.u32()?)?;
    let tensors = input.u64()?;
    let pairs = input.u64()?;
    let (metadata, alignment) = read_metadata(input, pairs)?;
    let infos = read_infos(input, tensors)?;
    let start = input.at().checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    check_layout(&infos, start, alignment, input.size())?;
    let mut tensors = Tensors::default();
    for info in infos {
        let data = info.size.map(|size| start + info.offset..start + info.offset + size);
        tensors.push(Tensor { name: info.name, dtype: info.dtype, shape: info.shape, data })?;
    }
    Ok(Header::new(Format::Gguf, tensors.finish()?, metadata.finish()))
}

fn check_version(version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        _ if matches!(version.swap_bytes(), 1..=3) => Err(Error::new("big-endian files are not supported")),
        _ => Err(Error::new(format!("version {version} is not supported"))),
    }
}

/// Refuses a number of things that cannot fit in the rest of the file, or is larger than `most`.
fn check_count(input: &Input<'_>, count: u64, min_size: u64, most: u64, what: &str) -> Result<()> {
    if count > input.left() / min_size {
        return Err(Error::new(format!("{count} {what} do not fit in the file")));
    }
    if count > most {
        return Err(Error::new(format!("more than {most} {what}")));
    }
    Ok(())
}

fn read_name(input: &mut Input<'_>) -> Result<String> {
    let length = input.u64()?;
    if length > MAX_NAME {
        return Err(Error::new(format!("a name is longer than {MAX_NAME} bytes")));
    }
    input.text(length)
}

/// Reads the key-value pairs. Returns what is kept of them, and the alignment of the tensors.
fn read_metadata(input: &mut Input<'_>, pairs: u64) -> Result<(Metadata, u64)> {
    check_count(input, pairs, MIN_PAIR, MAX_PAIRS, "metadata entries")?;
    let mut metadata = Metadata::default();
    let mut alignment = DEFAULT_ALIGNMENT;
    let mut keys = HashSet::new();
    for _ in 0..pairs {
        let key = read_name(input)?;
        let kind = input.u32()?;
        let value = read_value(input, kind).map_err(|error| error.about(shown(&key)))?;
        if key == ALIGNMENT_KEY {
            alignment = parse_alignment(kind, value.as_deref())?;
        }
        if let Some(value) = value {
            metadata.insert(&key, &value);
        }
        if let Some(twice) = keys.replace(key) {
            return Err(Error::new(format!("{}: listed twice", shown(&twice))));
        }
    }
    Ok((metadata, alignment))
}

fn parse_alignment(kind: u32, value: Option<&str>) -> Result<u64> {
    value
        .filter(|_| kind == kinds::U32)
        .and_then(|text| text.parse().ok())
        .filter(|alignment: &u64| alignment.is_power_of_two())
        .ok_or_else(|| Error::new(format!("{ALIGNMENT_KEY}: not a 32-bit power of two")))
}

/// Types of metadata values that are named more than once.
mod kinds {
    pub(super) const U32: u32 = 4;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

/// Reads a value. `None` for what is not kept: arrays and long texts.
fn read_value(input: &mut Input<'_>, kind: u32) -> Result<Option<String>> {
    let text = match kind {
        0 => input.u8()?.to_string(),
        1 => i8::from_le_bytes(input.array()?).to_string(),
        2 => u16::from_le_bytes(input.array()?).to_string(),
        3 => i16::from_le_bytes(input.array()?).to_string(),
        kinds::U32 => input.u32()?.to_string(),
        5 => i32::from_le_bytes(input.array()?).to_string(),
        6 => f32::from_le_bytes(input.array()?).to_string(),
        7 => match input.u8()? {
            0 => "false".to_owned(),
            1 => "true".to_owned(),
            _ => return Err(Error::new("neither true nor false")),
        },
        kinds::STRING => {
            let length = input.u64()?;
            return input.short_text(length);
        }
        kinds::ARRAY => return skip_array(input, 1).map(|()| None),
        10 => input.u64()?.to_string(),
        11 => i64::from_le_bytes(input.array()?).to_string(),
        12 => f64::from_le_bytes(input.array()?).to_string(),
        _ => return Err(Error::new(format!("unknown type {kind}"))),
    };
    Ok(Some(text))
}

fn skip_array(input: &mut Input<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("arrays nested deeper than {MAX_DEPTH}")));
    }
    let kind = input.u32()?;
    let count = input.u64()?;
    let size = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        kinds::U32 | 5 | 6 => 4,
        10..=12 => 8,
        kinds::STRING => {
            check_count(input, count, MIN_STRING, u64::MAX, "texts")?;
            return (0..count).try_for_each(|_| {
                let length = input.u64()?;
                input.skip(length)
            });
        }
        kinds::ARRAY => {
            check_count(input, count, MIN_ARRAY, u64::MAX, "arrays")?;
            return (0..count).try_for_each(|_| skip_array(input, depth + 1));
        }
        _ => return Err(Error::new(format!("unknown type {kind}"))),
    };
    input.skip(count.saturating_mul(size))
}

/// A tensor's description.
struct Info {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    /// First byte, counted from the start of the data.
    offset: u64,
    /// Bytes, when the type is known.
    size: Option<u64>,
}

fn read_infos(input: &mut Input<'_>, tensors: u64) -> Result<Vec<Info>> {
    check_count(input, tensors, MIN_TENSOR, MAX_TENSORS, "tensors")?;
    // Grows as the descriptions turn out to be there.
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(read_info(input)?);
    }
    Ok(infos)
}

fn read_info(input: &mut Input<'_>) -> Result<Info> {
    let name = read_name(input)?;
    let rank = input.u32()?;
    if rank as usize > MAX_RANK {
        return Err(about_tensor(&name, format!("more than {MAX_RANK} dimensions")));
    }
    let shape = (0..rank).map(|_| input.u64()).collect::<Result<Vec<_>>>()?;
    let code = input.u32()?;
    let offset = input.u64()?;
    let (dtype, size) = match layout(code) {
        Some((dtype, block, bytes)) => {
            let size = size_of(&shape, block, bytes)
                .ok_or_else(|| about_tensor(&name, "its shape does not suit its type"))?;
            (dtype.to_owned(), Some(size))
        }
        None => (format!("type-{code}"), None),
    };
    Ok(Info { name, dtype, shape, offset, size })
}

/// Bytes of a tensor. A block never spans rows, so the first dimension holds whole blocks.
fn size_of(shape: &[u64], block: u64, bytes: u64) -> Option<u64> {
    if !shape.first().unwrap_or(&1).is_multiple_of(block) {
        return None;
    }
    (elements(shape)? / block).checked_mul(bytes)
}

/// Checks that every tensor starts where the one before it ends, rounded up to the alignment, and lies in the file.
fn check_layout(infos: &[Info], start: u64, alignment: u64, file: u64) -> Result<()> {
    let mut by_offset: Vec<&Info> = infos.iter().collect();
    by_offset.sort_by_key(|info| (info.offset, info.size));
    // Unknown behind a tensor of an unknown type.
    let mut expected = Some(0);
    for info in by_offset {
        if expected.is_some_and(|expected| info.offset != expected) || !info.offset.is_multiple_of(alignment)
        {
            return Err(about_tensor(&info.name, "does not follow the tensor before it"));
        }
        let end = info.offset.checked_add(info.size.unwrap_or(0));
        if end.and_then(|end| end.checked_add(start)).is_none_or(|end| end > file) {
            return Err(about_tensor(&info.name, "lies beyond the end of the file"));
        }
        expected = info.size.and(end).and_then(|end| end.checked_next_multiple_of(alignment));
    }
    Ok(())
}

/// Name, elements of a block and bytes of a block of a tensor type.
fn layout(code: u32) -> Option<(&'static str, u64, u64)> {
    Some(match code {
        0 => ("F32", 1, 4),
        1 => ("F16", 1, 2),
        2 => ("Q4_0", 32, 18),
        3 => ("Q4_1", 32, 20),
        6 => ("Q5_0", 32, 22),
        7 => ("Q5_1", 32, 24),
        8 => ("Q8_0", 32, 34),
        9 => ("Q8_1", 32, 40),
        10 => ("Q2_K", 256, 84),
        11 => ("Q3_K", 256, 110),
        12 => ("Q4_K", 256, 144),
        13 => ("Q5_K", 256, 176),
        14 => ("Q6_K", 256, 210),
        15 => ("Q8_K", 256, 292),
        16 => ("IQ2_XXS", 256, 66),
        17 => ("IQ2_XS", 256, 74),
        18 => ("IQ3_XXS", 256, 98),
        19 => ("IQ1_S", 256, 50),
        20 => ("IQ4_NL", 32, 18),
        21 => ("IQ3_S", 256, 110),
        22 => ("IQ2_S", 256, 82),
        23 => ("IQ4_XS", 256, 136),
        24 => ("I8", 1, 1),
        25 => ("I16", 1, 2),
        26 => ("I32", 1, 4),
        27 => ("I64", 1, 8),
        28 => ("F64", 1, 8),
        29 => ("IQ1_M", 256, 56),
        30 => ("BF16", 1, 2),
        34 => ("TQ1_0", 256, 54),
        35 => ("TQ2_0", 256, 66),
        39 => ("MXFP4", 32, 17),
        40 => ("NVFP4", 64, 36),
        41 => ("Q1_0", 128, 18),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
