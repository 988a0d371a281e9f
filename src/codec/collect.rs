//! What the readers gather, with limits: tensors and metadata.

use std::collections::BTreeMap;

use super::Tensor;
use crate::error::{Error, Result};
use crate::human;

/// No file has more tensors. The largest published models have about a hundred thousand in all their files.
pub(super) const MAX_TENSORS: u64 = 1 << 18;
/// No tensor has more dimensions; NumPy and PyTorch have the same limit.
pub(super) const MAX_RANK: usize = 64;
/// No type has a longer name, in bytes.
const MAX_DTYPE: usize = 64;
/// Most entries of metadata.
const MAX_METADATA: usize = 64;
/// Most characters of a key or value of metadata.
pub(super) const MAX_TEXT: usize = 256;
/// Most characters of untrusted text in a message.
const MAX_SHOWN: usize = 100;

/// The tensors of one file.
#[derive(Default)]
pub(super) struct Tensors(Vec<Tensor>);

impl Tensors {
    /// Adds a tensor, unless there are too many or it is larger than can be counted.
    pub(super) fn push(&mut self, tensor: Tensor) -> Result<()> {
        if self.0.len() as u64 >= MAX_TENSORS {
            return Err(Error::new(format!("more than {MAX_TENSORS} tensors")));
        }
        if tensor.shape.len() > MAX_RANK {
            return Err(about_tensor(&tensor.name, format!("more than {MAX_RANK} dimensions")));
        }
        if tensor.dtype.is_empty()
            || tensor.dtype.len() > MAX_DTYPE
            || !tensor.dtype.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(about_tensor(
                &tensor.name,
                format!("`{}` is not the name of a type", shown(&tensor.dtype)),
            ));
        }
        if elements(&tensor.shape).is_none() {
            return Err(about_tensor(&tensor.name, "its shape has too many elements"));
        }
        self.0.push(tensor);
        Ok(())
    }

    /// The tensors by name, unless two have the same.
    pub(super) fn finish(mut self) -> Result<Vec<Tensor>> {
        self.0.sort_by(|a, b| a.name.cmp(&b.name));
        match self.0.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(about_tensor(&pair[0].name, "listed twice")),
            None => Ok(self.0),
        }
    }
}

/// What a file says about itself.
#[derive(Default)]
pub(super) struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Adds an entry, unless it is too long, there are too many, or the key has a value.
    pub(super) fn insert(&mut self, key: &str, value: &str) {
        if self.0.len() < MAX_METADATA && is_short(key) && is_short(value) && !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), value.to_owned());
        }
    }

    /// The entries.
    pub(super) fn finish(self) -> BTreeMap<String, String> {
        self.0
    }
}

fn is_short(text: &str) -> bool {
    text.chars().nth(MAX_TEXT).is_none()
}

/// The product of the dimensions; `None` when it does not fit.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length))
}

/// Bytes of `shape` with `bits` for an element, the last byte filled up; `None` when they do not fit.
pub(super) fn bytes_of(shape: &[u64], bits: u64) -> Option<u64> {
    Some(elements(shape)?.checked_mul(bits)?.div_ceil(8))
}

/// The error about one tensor.
pub(super) fn about_tensor(name: &str, what: impl AsRef<str>) -> Error {
    Error::new(format!("tensor `{}`: {}", shown(name), what.as_ref()))
}

/// Untrusted text as it can stand in a message: escaped, and cut when it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", human::escape(&text[..end])),
        None => human::escape(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[u64]) -> Tensor {
        Tensor { name: name.to_owned(), dtype: "F32".to_owned(), shape: shape.to_owned(), data: None }
    }

    #[test]
    fn tensors_are_sorted_and_differ() {
        let mut tensors = Tensors::default();
        for name in ["b", "a", "B"] {
            tensors.push(tensor(name, &[1])).unwrap();
        }
        let names: Vec<_> = tensors.finish().unwrap().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["B", "a", "b"]);
        let twice = Tensors(vec![tensor("a", &[]), tensor("b", &[]), tensor("a", &[])]);
        assert_eq!(twice.finish().unwrap_err().one_line(), "tensor `a`: listed twice");
    }

    #[test]
    fn tensors_have_limits() {
        let mut tensors = Tensors(vec![tensor("a", &[]); MAX_TENSORS as usize - 1]);
        assert!(tensors.push(tensor("a", &[1; MAX_RANK + 1])).is_err());
        assert!(tensors.push(tensor("a", &[u64::MAX, 2])).is_err());
        for dtype in ["", "F 32", "F32\n", "É", &"F".repeat(MAX_DTYPE + 1)] {
            let unnamed = Tensor { dtype: dtype.to_owned(), ..tensor("a", &[]) };
            assert!(tensors.push(unnamed).is_err(), "{dtype}");
        }
        tensors.push(tensor("a", &[1; MAX_RANK])).unwrap();
        assert!(tensors.push(tensor("a", &[])).is_err());
    }

    #[test]
    fn metadata_is_short_and_small() {
        let mut metadata = Metadata::default();
        metadata.insert("k", &"é".repeat(MAX_TEXT + 1));
        metadata.insert(&"k".repeat(MAX_TEXT + 1), "v");
        assert!(metadata.0.is_empty());
        metadata.insert("k", &"é".repeat(MAX_TEXT));
        metadata.insert("k", "second");
        assert_eq!(metadata.0["k"].chars().count(), MAX_TEXT);
        for key in 0..100 {
            metadata.insert(&key.to_string(), "v");
        }
        assert_eq!(metadata.finish().len(), MAX_METADATA);
    }

    #[test]
    fn long_names_are_cut_in_messages() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"é".repeat(101)), "é".repeat(100) + "…");
        assert_eq!(shown(&"é".repeat(100)), "é".repeat(100));
    }

    #[test]
    fn sizes_round_up_and_do_not_overflow() {
        assert_eq!(bytes_of(&[3, 3], 4), Some(5));
        assert_eq!(bytes_of(&[], 32), Some(4));
        assert_eq!(bytes_of(&[u64::MAX], 8), None);
        assert_eq!(bytes_of(&[u64::MAX, 2], 1), None);
    }
}
