//! A PyTorch checkpoint: a zip archive with one pickle, and one member for each storage.
//!
//! Source: `torch.save` since PyTorch 1.6, <https://pytorch.org/docs/stable/notes/serialization.html>. The pickle is read by
//! `pickle` and never executed. The tensors are known when the pickle holds nothing but what is understood: every storage
//! of the archive then belongs to a listed tensor. Otherwise no tensor is listed, and only the number of members is told;
//! that is so for whole pickled modules, TorchScript, quantised and sparse tensors, and types newer than `bfloat16`.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::collect::{MAX_RANK, Metadata, Tensors, about_tensor, elements};
use super::input::Input;
use super::pickle::{self, Described};
use super::zip::{Archive, Method};
use super::{Format, Header, Tensor};
use crate::error::Result;

const PICKLE: &str = "/data.pkl";
/// A larger pickle is not looked into. It has some 200 bytes for a tensor.
const MAX_PICKLE: u64 = 32 << 20;
/// Members with a word about the file, which goes to the metadata.
const WORDS: [&str; 2] = ["version", "byteorder"];
/// Longest word in bytes.
const MAX_WORD: u64 = 16;

/// Whether `torch.save` wrote an archive.
pub(super) fn is_checkpoint(archive: &Archive) -> bool {
    folders(archive).next().is_some()
}

/// Whether it is a program of TorchScript: PyTorch takes every archive with constants for one, and reads it without Python.
pub(super) fn is_script(archive: &Archive) -> bool {
    folders(archive).any(|folder| {
        let constants = format!("{folder}/constants.pkl");
        archive.members.iter().any(|member| member.name == constants)
    })
}

/// Whether a name in a pickle of such a program is one of its own classes, or of the functions that build its lists.
pub(super) fn is_of_script(global: &str) -> bool {
    let module = global.split(' ').next().unwrap_or_default();
    module == "torch.jit._pickle" || module == "__torch__" || module.starts_with("__torch__.")
}

/// The folders at the top with a pickle.
fn folders(archive: &Archive) -> impl Iterator<Item = &str> {
    archive
        .members
        .iter()
        .filter_map(|member| member.name.strip_suffix(PICKLE))
        .filter(|folder| !folder.contains('/'))
}

/// Reads the tensors, where they are known.
pub(super) fn read(input: &mut Input<'_>, archive: &Archive) -> Result<Header> {
    let mut header = Header::new(Format::Torch, Vec::new(), BTreeMap::new());
    let mut folders = folders(archive);
    if let (Some(folder), None) = (folders.next(), folders.next()) {
        header.metadata = read_words(input, archive, folder)?;
        let little_endian = header.metadata.get("byteorder").is_none_or(|order| order == "little");
        if let Some(tensors) = read_tensors(input, archive, folder, little_endian)? {
            header.tensors = tensors;
            return Ok(header);
        }
    }
    header.entries = archive.members.len() as u64;
    Ok(header)
}

fn read_words(input: &mut Input<'_>, archive: &Archive, folder: &str) -> Result<BTreeMap<String, String>> {
    let mut metadata = Metadata::default();
    for key in WORDS {
        let word = archive.content(input, &format!("{folder}/{key}"), MAX_WORD)?;
        if let Some(word) = word.and_then(|word| String::from_utf8(word).ok()) {
            metadata.insert(key, word.trim_end());
        }
    }
    Ok(metadata.finish())
}

/// `None` when it is not sure that these are all tensors.
fn read_tensors(
    input: &mut Input<'_>,
    archive: &Archive,
    folder: &str,
    little_endian: bool,
) -> Result<Option<Vec<Tensor>>> {
    let pickle = archive.content(input, &format!("{folder}{PICKLE}"), MAX_PICKLE)?;
    let Some(described) = pickle.and_then(|pickle| pickle::tensors(&pickle)) else { return Ok(None) };
    let storages = read_storages(input, archive, folder)?;
    if !is_complete(&described, &storages) {
        return Ok(None);
    }
    let mut tensors = Tensors::default();
    for described in described {
        let (dtype, item) = match dtype(&described.class) {
            Some(known) if described.shape.len() <= MAX_RANK => known,
            _ => return Ok(None),
        };
        let place = place(&described, item, &storages).map_err(|what| about_tensor(&described.name, what))?;
        let data = place.filter(|_| little_endian);
        tensors.push(Tensor {
            name: described.name,
            dtype: dtype.to_owned(),
            shape: described.shape,
            data,
        })?;
    }
    tensors.finish().map(Some)
}

/// A storage's member.
struct Storage {
    /// Bytes when unpacked.
    size: u64,
    /// Where they begin, when they are stored as they are.
    start: Option<u64>,
}

fn read_storages<'a>(
    input: &mut Input<'_>,
    archive: &'a Archive,
    folder: &str,
) -> Result<BTreeMap<&'a str, Storage>> {
    let prefix = format!("{folder}/data/");
    let mut storages = BTreeMap::new();
    for member in &archive.members {
        if let Some(key) = member.name.strip_prefix(&prefix) {
            let start = member.start(input)?;
            let start = (member.method == Method::Stored).then_some(start);
            storages.insert(key, Storage { size: member.size, start });
        }
    }
    Ok(storages)
}

/// Whether every storage belongs to a tensor, and no two tensors have the same name. Names are joined from keys, so keys
/// with dots can make two paths look alike.
fn is_complete(described: &[Described], storages: &BTreeMap<&str, Storage>) -> bool {
    let names: HashSet<&str> = described.iter().map(|tensor| tensor.name.as_str()).collect();
    let used: HashSet<&str> = described.iter().map(|tensor| tensor.storage.as_str()).collect();
    names.len() == described.len() && storages.keys().all(|key| used.contains(key))
}

/// Checks a tensor against its storage. Returns where its bytes lie, when they have no gaps and are not compressed.
fn place(
    tensor: &Described,
    item: u64,
    storages: &BTreeMap<&str, Storage>,
) -> std::result::Result<Option<Range<u64>>, &'static str> {
    let storage = storages.get(tensor.storage.as_str()).ok_or("its storage is missing")?;
    if tensor.count.checked_mul(item) != Some(storage.size) {
        return Err("its storage has another size than it says");
    }
    let count = elements(&tensor.shape).ok_or("its shape has too many elements")?;
    let end =
        if count == 0 { Some(tensor.offset) } else { last(tensor).and_then(|last| last.checked_add(1)) };
    if end.is_none_or(|end| end > tensor.count) {
        return Err("it lies beyond the end of its storage");
    }
    // The storage has these elements, so their bytes can be counted, and the storage lies in the file.
    let range = |start: u64| start + tensor.offset * item..start + (tensor.offset + count) * item;
    Ok(storage.start.filter(|_| count == 0 || is_gapless(tensor)).map(range))
}

/// The highest index into the storage.
fn last(tensor: &Described) -> Option<u64> {
    tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, |last, (&length, &stride)| {
        length.saturating_sub(1).checked_mul(stride).and_then(|step| last.checked_add(step))
    })
}

/// Whether the elements follow each other in the order of the shape.
fn is_gapless(tensor: &Described) -> bool {
    let mut expected = 1u64;
    tensor.shape.iter().zip(&tensor.strides).rev().all(|(&length, &stride)| {
        let follows = length == 1 || stride == expected;
        expected = expected.saturating_mul(length);
        follows
    })
}

/// PyTorch's name of an element type, and its bytes, by the class of the storage.
fn dtype(class: &str) -> Option<(&'static str, u64)> {
    Some(match class {
        "DoubleStorage" => ("float64", 8),
        "FloatStorage" => ("float32", 4),
        "HalfStorage" => ("float16", 2),
        "BFloat16Storage" => ("bfloat16", 2),
        "LongStorage" => ("int64", 8),
        "IntStorage" => ("int32", 4),
        "ShortStorage" => ("int16", 2),
        "CharStorage" => ("int8", 1),
        "ByteStorage" => ("uint8", 1),
        "BoolStorage" => ("bool", 1),
        "ComplexFloatStorage" => ("complex64", 8),
        "ComplexDoubleStorage" => ("complex128", 16),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
