//! Weights files, read by their headers: which tensors they hold, of which type and shape.
//!
//! One file per format; what they share is in `input` (bounded reading), `collect` (bounded results) and `zip`. Tensor
//! data is read by [`distance`] only, and a pickle is never executed. Files are untrusted: a length is compared with the
//! size of the file before anything is allocated or skipped, and all results have limits.

mod collect;
pub mod distance;
mod gguf;
mod index;
mod input;
mod json;
mod npy;
mod npz;
mod onnx;
mod pickle;
mod protobuf;
mod safetensors;
pub mod scan;
mod summary;
mod torch;
mod zip;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek};
use std::ops::Range;

pub use index::{Index, parse_index};
pub use summary::{Summary, summarize};

use crate::error::{Error, Result};
use input::Input;

/// What the headers of one weights file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format of the file.
    pub format: Format,
    /// All tensors, sorted by the bytes of their names, no name twice.
    pub tensors: Vec<Tensor>,
    /// What the file says about itself: the first 64 entries whose key and value have at most 256 characters each.
    /// Longer ones are left out, never cut. As untrusted as everything else in the file.
    pub metadata: BTreeMap<String, String>,
    /// Members of the archive when its tensors are not known, which happens with [`Format::Torch`] only; else 0.
    pub entries: u64,
}

impl Header {
    /// The header of a file whose tensors are known.
    fn new(format: Format, tensors: Vec<Tensor>, metadata: BTreeMap<String, String>) -> Header {
        Header { format, tensors, metadata, entries: 0 }
    }
}

/// A format of weights files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// A JSON header, then the tensors: <https://huggingface.co/docs/safetensors>.
    Safetensors,
    /// llama.cpp's format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
    Gguf,
    /// A protocol buffer: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.
    Onnx,
    /// A zip archive of NumPy arrays.
    Npz,
    /// One NumPy array: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
    Npy,
    /// A zip archive as `torch.save` writes it since PyTorch 1.6.
    Torch,
}

impl Format {
    /// The format's name in lowercase letters.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Gguf => "gguf",
            Format::Onnx => "onnx",
            Format::Npz => "npz",
            Format::Npy => "npy",
            Format::Torch => "torch",
        }
    }

    /// What the first bytes of a file show. ONNX has no mark, and a zip archive's members must be known first.
    fn of_content(start: &[u8], size: u64) -> Option<Format> {
        if start.starts_with(gguf::MAGIC) {
            Some(Format::Gguf)
        } else if start.starts_with(npy::MAGIC) {
            Some(Format::Npy)
        } else if safetensors::starts_like(start, size) {
            Some(Format::Safetensors)
        } else {
            None
        }
    }

    /// What the name of a file promises.
    fn of_name(name: &str) -> Option<Format> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "safetensors" => Some(Format::Safetensors),
            "gguf" => Some(Format::Gguf),
            "onnx" => Some(Format::Onnx),
            "npz" => Some(Format::Npz),
            "npy" => Some(Format::Npy),
            "pt" | "pth" | "ckpt" | "bin" => Some(Format::Torch),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name; of a plain `.npy` file, the file's name without the extension, as an `.npz` would call it.
    pub name: String,
    /// The element type by the format's own name: `F32`, `Q4_K`, `FLOAT`, `float32`.
    pub dtype: String,
    /// The dimensions in the order in which the file lists them; GGUF lists the fastest first, all others last.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the file, when they lie there as plain, gapless little-endian data.
    pub data: Option<Range<u64>>,
}

impl Tensor {
    /// Number of elements; `u64::MAX` when there are more.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &length| product.saturating_mul(length))
    }
}

/// Reads the header of a weights file of `size` bytes. `name` is its path or file name.
///
/// The content decides first, the extension second. `None` when it is none of these formats; that includes a PyTorch
/// file that is a bare pickle (before 1.6), which cannot be told from any other pickle without running it, and a zip
/// archive of anything else. An error when the file cannot be read, or is damaged, hostile or not what its extension
/// promises; the caller adds the path.
pub fn read(file: &mut (impl Read + Seek), size: u64, name: &str) -> Result<Option<Header>> {
    let mut input = Input::new(file, size)?;
    let start = input.peek()?;
    let promised = Format::of_name(name);
    if zip::starts_like(&start) {
        return read_archive(&mut input, promised);
    }
    let Some(format) = Format::of_content(&start, size).or(promised) else { return Ok(None) };
    let header = match format {
        Format::Safetensors => safetensors::read(&mut input),
        Format::Gguf => gguf::read(&mut input),
        Format::Onnx => onnx::read(&mut input),
        Format::Npy => npy::read(&mut input, name),
        Format::Npz => Err(Error::new("not a zip archive")),
        Format::Torch => return Ok(None),
    };
    header.map(Some).map_err(|error| about_header(error, format))
}

/// Reads a zip archive, which only its members show to be weights.
fn read_archive(input: &mut Input<'_>, promised: Option<Format>) -> Result<Option<Header>> {
    let archive = match (zip::Archive::read(input), promised) {
        (Ok(archive), _) => archive,
        // Nobody said that these are weights, so there is nothing to complain about.
        (Err(_), None) => return Ok(None),
        (Err(error), Some(format)) => return Err(about_header(error, format)),
    };
    let (format, header) = if torch::is_checkpoint(&archive) {
        (Format::Torch, torch::read(input, &archive))
    } else if npz::has_arrays(&archive) || promised == Some(Format::Npz) {
        (Format::Npz, npz::read(input, &archive))
    } else {
        return Ok(None);
    };
    header.map(Some).map_err(|error| about_header(error, format))
}

fn about_header(error: Error, format: Format) -> Error {
    error.about(format!("cannot read its {format} header"))
}

#[cfg(test)]
mod tests;
