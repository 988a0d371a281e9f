//! A NumPy array: a short description as the text of a Python dictionary, then the elements.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3. The text is parsed as
//! exactly the three entries that the format has; it is never evaluated. Little-endian numbers and truth values get NumPy's
//! name (`float32`); anything else keeps its description (`>f4`, `<U8`), and a structured array is `void`. A file with more
//! than one array is refused.

use std::collections::BTreeMap;
use std::io::Read;

use super::collect::{MAX_RANK, Tensors, elements};
use super::input::{Input, cannot_read};
use super::{Format, Header, Tensor};
use crate::error::{Error, Result};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// What every array's file name ends with.
pub(super) const EXTENSION: &str = ".npy";

/// Longest description in bytes. NumPy itself refuses to parse more than 10,000 unless it is told to trust the file.
const MAX_DESCRIPTION: usize = 65_535;

/// Reads the header and checks that the elements fill the rest of the file.
pub(super) fn read(input: &mut Input<'_>, name: &str) -> Result<Header> {
    let array = Array::read(input)?;
    let start = input.at();
    let mut tensors = Tensors::default();
    tensors.push(array.into_tensor(array_name(name), input.size(), Some(start))?)?;
    Ok(Header::new(Format::Npy, tensors.finish()?, BTreeMap::new()))
}

/// The array's name: its file's name without directories and extension.
fn array_name(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.strip_suffix(EXTENSION).unwrap_or(name)
}

/// What the description of an array says.
#[derive(Debug, PartialEq)]
pub(super) struct Array {
    dtype: String,
    /// Bytes of an element; unknown for Python objects and structures.
    item: Option<u64>,
    shape: Vec<u64>,
    /// Whether the last dimension is the fastest and the bytes are little-endian.
    plain: bool,
    /// Bytes in front of the elements.
    header: u64,
}

impl Array {
    /// Reads everything in front of the elements, and nothing of them.
    pub(super) fn read(reader: &mut impl Read) -> Result<Array> {
        let [magic @ .., major, _minor]: [u8; 8] = array(reader)?;
        if magic != MAGIC {
            return Err(Error::new("it does not start as a NumPy array"));
        }
        let (prefix, length) = match major {
            1 => (10, usize::from(u16::from_le_bytes(array(reader)?))),
            2 | 3 => (12, u32::from_le_bytes(array(reader)?) as usize),
            _ => return Err(Error::new(format!("version {major} is not supported"))),
        };
        if length > MAX_DESCRIPTION {
            return Err(Error::new(format!("its description is longer than {MAX_DESCRIPTION} bytes")));
        }
        let mut description = vec![0; length];
        reader.read_exact(&mut description).map_err(cannot_read)?;
        // Names of fields may be Latin-1; what is looked at is ASCII, so the others only have to be some character.
        parse(&String::from_utf8_lossy(&description), prefix + length as u64)
            .ok_or_else(|| Error::new("its description is not the one of an array"))
    }

    /// Whether what follows may be a pickle: of objects, or of structures that have some.
    pub(super) fn may_hold_objects(&self) -> bool {
        self.item.is_none()
    }

    /// Bytes in front of the elements.
    pub(super) fn header(&self) -> u64 {
        self.header
    }

    /// The tensor, checked against the size of the array's file. `start` is the position of the elements, when they are
    /// stored as they are.
    pub(super) fn into_tensor(self, name: &str, file: u64, start: Option<u64>) -> Result<Tensor> {
        let size = match self.item {
            Some(item) => elements(&self.shape).and_then(|count| count.checked_mul(item)),
            None => Some(file.saturating_sub(self.header)),
        };
        let size = size
            .filter(|size| size.checked_add(self.header) == Some(file))
            .ok_or_else(|| Error::new("its elements have another size than its shape"))?;
        let data = start.filter(|_| self.plain).map(|start| start..start + size);
        Ok(Tensor { name: name.to_owned(), dtype: self.dtype, shape: self.shape, data })
    }
}

fn array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(cannot_read)?;
    Ok(bytes)
}

fn parse(description: &str, header: u64) -> Option<Array> {
    let mut text = Text(description);
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    text.expect("{")?;
    while !text.take("}") {
        let key = text.string()?;
        text.expect(":")?;
        let first = match key {
            "descr" => dtype.replace(text.dtype()?).is_none(),
            "fortran_order" => fortran.replace(text.truth()?).is_none(),
            "shape" => shape.replace(text.shape()?).is_none(),
            _ => false,
        };
        if !first || !(text.take(",") || text.0.trim_start().starts_with('}')) {
            return None;
        }
    }
    let dtype = dtype?;
    let plain = !fortran? && dtype.item.is_some() && dtype.little_endian;
    text.0.trim().is_empty().then_some(Array {
        dtype: dtype.name,
        item: dtype.item,
        shape: shape?,
        plain,
        header,
    })
}

/// An element type.
struct Dtype {
    name: String,
    item: Option<u64>,
    little_endian: bool,
}

/// Understands a description such as `<f4`: the order of bytes, the kind, the size.
fn parse_dtype(descr: &str) -> Option<Dtype> {
    let order = descr.chars().next().filter(|order| "<>|=".contains(*order))?;
    let kind = descr.chars().nth(1)?;
    let mut size = &descr[1 + kind.len_utf8()..];
    if matches!(kind, 'm' | 'M') {
        // A unit of time follows in brackets.
        size = size.split('[').next()?;
    }
    if !size.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let item: Option<u64> = match kind {
        'O' => None,
        // A text has four bytes for each character.
        'U' => Some(size.parse::<u64>().ok()?.checked_mul(4)?),
        'b' | 'i' | 'u' | 'f' | 'c' | 'm' | 'M' | 'S' | 'V' => Some(size.parse().ok()?),
        _ => return None,
    };
    let little_endian = matches!(order, '<' | '|');
    let bits = item.unwrap_or(0).checked_mul(8)?;
    let name = match kind {
        'b' if little_endian => "bool".to_owned(),
        'i' if little_endian => format!("int{bits}"),
        'u' if little_endian => format!("uint{bits}"),
        'f' if little_endian => format!("float{bits}"),
        'c' if little_endian => format!("complex{bits}"),
        _ => descr.to_owned(),
    };
    Some(Dtype { name, item, little_endian })
}

/// What is left of the description; each method takes one thing from its front, or nothing and fails.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.take(token).then_some(())
    }

    /// A quoted text without escapes, of which the format needs none outside structures.
    fn string(&mut self) -> Option<&'a str> {
        let quote = if self.take("'") { '\'' } else { self.expect("\"").map(|()| '"')? };
        let (string, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        (!string.contains('\\')).then_some(string)
    }

    fn truth(&mut self) -> Option<bool> {
        if self.take("True") { Some(true) } else { self.expect("False").map(|()| false) }
    }

    fn dtype(&mut self) -> Option<Dtype> {
        if self.0.trim_start().starts_with('[') {
            self.skip_list()?;
            return Some(Dtype { name: "void".to_owned(), item: None, little_endian: false });
        }
        parse_dtype(self.string()?)
    }

    /// The fields of a structure: everything to the bracket that closes the first one, outside of quoted texts.
    fn skip_list(&mut self) -> Option<()> {
        let mut depth = 0usize;
        let mut quote = None;
        let mut characters = self.0.char_indices();
        while let Some((at, c)) = characters.next() {
            match (quote, c) {
                (Some(_), '\\') => drop(characters.next()?),
                (Some(open), _) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '[' | '(') => depth += 1,
                (None, ']' | ')') => depth = depth.checked_sub(1)?,
                (None, _) => {}
            }
            if depth == 0 && matches!((quote, c), (None, ']' | ')')) {
                self.0 = &self.0[at + 1..];
                return Some(());
            }
        }
        None
    }

    /// A tuple of lengths: `()`, `(3,)`, `(3, 4)`.
    fn shape(&mut self) -> Option<Vec<u64>> {
        self.expect("(")?;
        let mut shape = Vec::new();
        while !self.take(")") {
            shape.push(self.number()?);
            let comma = self.take(",");
            let closed = self.0.trim_start().starts_with(')');
            // One length without a comma is a number in parentheses, not a tuple.
            if shape.len() > MAX_RANK || (!comma && (!closed || shape.len() == 1)) {
                return None;
            }
        }
        Some(shape)
    }

    fn number(&mut self) -> Option<u64> {
        let text = self.0.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit())?;
        let number = text[..end].parse().ok()?;
        self.0 = &text[end..];
        // Python 2 marked long integers.
        self.take("L");
        Some(number)
    }
}

#[cfg(test)]
mod tests;
