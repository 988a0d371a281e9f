//! One description over all weights files of a model.

use std::collections::BTreeMap;

use super::{Header, Tensor};
use crate::id::{Digest, Hasher};

/// What the headers of a model say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The name of the files' format; `mixed` when they have several.
    pub format: String,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of elements of all tensors; `u64::MAX` when there are more.
    pub parameters: u64,
    /// The same for each element type.
    pub dtypes: BTreeMap<String, u64>,
    /// Files whose tensors are not known and therefore not counted; see [`Header::entries`].
    pub unknown: u64,
    /// SHA-256 of one line for each tensor: `<dtype> <shape> <name>`, the dimensions joined with commas, the lines sorted
    /// by name and then by what is left, each ended by a line feed. In a name, a backslash is written `\\` and a line feed
    /// `\n`. It does not depend on how tensors are spread over files.
    pub shapes: Digest,
    /// The metadata of all files, without the keys for which two files have different values.
    pub metadata: BTreeMap<String, String>,
}

/// Sums up the headers of a model's files, in any order. `None` when there are none.
pub fn summarize(headers: &[&Header]) -> Option<Summary> {
    let (first, others) = headers.split_first()?;
    let same = others.iter().all(|header| header.format == first.format);
    let mut tensors: Vec<&Tensor> = headers.iter().flat_map(|header| &header.tensors).collect();
    tensors.sort_by_key(|tensor| (&tensor.name, &tensor.dtype, &tensor.shape));
    let mut dtypes = BTreeMap::new();
    for tensor in &tensors {
        let count: &mut u64 = dtypes.entry(tensor.dtype.clone()).or_default();
        *count = count.saturating_add(tensor.parameters());
    }
    Some(Summary {
        format: if same { first.format.name() } else { "mixed" }.to_owned(),
        tensors: tensors.len() as u64,
        parameters: dtypes.values().fold(0, |sum: u64, &count| sum.saturating_add(count)),
        dtypes,
        unknown: headers.iter().filter(|header| header.entries > 0).count() as u64,
        shapes: digest(&tensors),
        metadata: common_metadata(headers),
    })
}

fn digest(tensors: &[&Tensor]) -> Digest {
    let mut hasher = Hasher::default();
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let name = tensor.name.replace('\\', "\\\\").replace('\n', "\\n");
        hasher.update(format!("{} {} {name}\n", tensor.dtype, shape.join(",")).as_bytes());
    }
    hasher.finish()
}

/// The entries of all files that no other file contradicts.
fn common_metadata(headers: &[&Header]) -> BTreeMap<String, String> {
    let mut common: BTreeMap<&String, Option<&String>> = BTreeMap::new();
    for (key, value) in headers.iter().flat_map(|header| &header.metadata) {
        let kept = common.entry(key).or_insert(Some(value));
        *kept = kept.filter(|kept| *kept == value);
    }
    common.into_iter().filter_map(|(key, value)| Some((key.clone(), value?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    fn tensor(name: &str, dtype: &str, shape: &[u64]) -> Tensor {
        Tensor { name: name.to_owned(), dtype: dtype.to_owned(), shape: shape.to_vec(), data: None }
    }

    fn header(format: Format, tensors: &[Tensor], metadata: &[(&str, &str)]) -> Header {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Header::new(format, tensors.to_vec(), metadata.iter().map(owned).collect())
    }

    #[test]
    fn counts_and_hashes_all_files() {
        let [a, b, c] = [tensor("a", "F32", &[2, 3]), tensor("b", "BF16", &[]), tensor("c\n\\", "F32", &[4])];
        let one = header(Format::Safetensors, &[a.clone(), c.clone()], &[("format", "pt"), ("part", "1")]);
        let two = header(
            Format::Safetensors,
            std::slice::from_ref(&b),
            &[("format", "pt"), ("part", "2"), ("x", "y")],
        );
        let summary = summarize(&[&one, &two]).unwrap();
        assert_eq!((summary.format.as_str(), summary.tensors, summary.parameters), ("safetensors", 3, 11));
        assert_eq!(Vec::from_iter(&summary.dtypes), [(&"BF16".to_owned(), &1), (&"F32".to_owned(), &10)]);
        assert_eq!(summary.shapes, Digest::of(b"F32 2,3 a\nBF16  b\nF32 4 c\\n\\\\\n"));
        assert_eq!(Vec::from_iter(summary.metadata.keys()), ["format", "x"]);
        assert_eq!(summarize(&[&two, &one]).unwrap(), summary, "whatever the order");
        let whole = header(Format::Safetensors, &[a, b, c], &[]);
        assert_eq!(summarize(&[&whole]).unwrap().shapes, summary.shapes, "however they are spread");
    }

    #[test]
    fn says_what_it_does_not_know() {
        let mut torch = header(Format::Torch, &[], &[]);
        torch.entries = 7;
        let huge = header(Format::Gguf, &[tensor("a", "F32", &[u64::MAX, 2]), tensor("b", "I8", &[1])], &[]);
        let summary = summarize(&[&torch, &huge]).unwrap();
        assert_eq!((summary.format.as_str(), summary.unknown, summary.parameters), ("mixed", 1, u64::MAX));
        assert_eq!(summarize(&[]), None);
    }

    #[test]
    fn three_files_that_disagree_stay_in_disagreement() {
        let headers = ["1", "2", "1"].map(|part| header(Format::Gguf, &[], &[("part", part)]));
        assert!(summarize(&headers.each_ref()).unwrap().metadata.is_empty());
    }
}
