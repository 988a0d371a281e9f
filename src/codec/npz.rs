//! A zip archive of NumPy arrays, as `numpy.savez` and `numpy.savez_compressed` write it.
//!
//! Of a compressed member only the description is unpacked. Members that are not arrays are left out.

use std::collections::BTreeMap;

use super::collect::{Tensors, shown};
use super::input::Input;
use super::npy::{Array, EXTENSION};
use super::zip::{Archive, Member, Method, unpack};
use super::{Format, Header, Tensor};
use crate::error::{Error, Result};

/// Whether there is an array in an archive.
pub(super) fn has_arrays(archive: &Archive) -> bool {
    archive.members.iter().any(|member| member.name.ends_with(EXTENSION))
}

/// Reads the description of every array.
pub(super) fn read(input: &mut Input<'_>, archive: &Archive) -> Result<Header> {
    let mut tensors = Tensors::default();
    for member in &archive.members {
        if let Some(name) = member.name.strip_suffix(EXTENSION) {
            let tensor = read_array(input, member, name)
                .map_err(|error| error.about(format!("member `{}`", shown(&member.name))))?;
            tensors.push(tensor)?;
        }
    }
    Ok(Header::new(Format::Npz, tensors.finish()?, BTreeMap::new()))
}

fn read_array(input: &mut Input<'_>, member: &Member, name: &str) -> Result<Tensor> {
    let start = member.start(input)?;
    input.seek(start)?;
    let mut unpacked =
        unpack(input, member).ok_or_else(|| Error::new("encrypted, or compressed in a rare way"))?;
    let array = Array::read(&mut unpacked)?;
    drop(unpacked);
    let elements = (member.method == Method::Stored).then_some(input.at());
    array.into_tensor(name, member.size, elements)
}

#[cfg(test)]
mod tests {
    use super::super::npy::MAGIC;
    use super::super::tests::{check_prefixes, read_bytes, refused};
    use super::super::zip::tests::{archive, deflated, stored};
    use super::*;

    fn array(descr: &str, shape: &str, data: usize) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        bytes.resize(bytes.len() + data, 5);
        bytes
    }

    fn sample() -> Vec<u8> {
        archive(&[
            stored("w.npy", &array("<f4", "(2, 3)", 24)),
            deflated("big.npy", &array("<f2", "(500, 100)", 100_000)),
            stored("notes.txt", b"not an array"),
        ])
    }

    #[test]
    fn reads_stored_and_compressed_arrays() {
        let bytes = sample();
        for name in ["m.npz", "m"] {
            let header = read_bytes(&bytes, name).unwrap().unwrap();
            assert_eq!(header.format, Format::Npz);
            let [big, w] = &header.tensors[..] else { panic!("{header:?}") };
            assert_eq!((big.name.as_str(), big.dtype.as_str(), big.data.clone()), ("big", "float16", None));
            assert_eq!((w.name.as_str(), w.shape.as_slice()), ("w", &[2, 3][..]));
            let data = w.data.clone().unwrap();
            assert_eq!(bytes[data.start as usize - 1..data.end as usize][..2], [b'\n', 5]);
            assert_eq!(data.end - data.start, 24);
        }
        assert!(read_bytes(&archive(&[]), "m.npz").unwrap().unwrap().tensors.is_empty());
        assert!(read_bytes(&archive(&[stored("a.txt", b"")]), "m.zip").unwrap().is_none());
    }

    #[test]
    fn every_prefix_is_refused() {
        check_prefixes(&sample(), "m.npz");
    }

    #[test]
    fn refuses_damage() {
        let bomb = array("<f4", "(1000000000000,)", 1000);
        let mut cut = deflated("w.npy", &array("<f4", "(1,)", 4));
        cut.cut(4);
        let cases = [
            (archive(&[stored("w.npy", &array("<f4", "(2, 3)", 23))]), "member `w.npy`: its elements"),
            (archive(&[stored("w.npy", &array("<f4", "(2, 3)", 25))]), "another size"),
            (archive(&[deflated("w.npy", &bomb)]), "another size"),
            (archive(&[stored("w.npy", b"\x93NUMPY\x02\0\xff\xff\0\0")]), "cannot read"),
            (archive(&[stored("w.npy", b"text")]), "cannot read"),
            (archive(&[cut]), "cannot read"),
        ];
        for (bytes, reason) in cases {
            let error = refused(&bytes, "m.npz");
            assert!(error.contains(reason), "{reason}\n{error}");
        }
    }
}
