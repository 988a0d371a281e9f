use super::super::pickle::tests::{dictionary, map, tensor};
use super::super::tests::{check_flips, read_bytes, refused};
use super::super::zip::tests::{Packed, archive, deflated, stored};
use super::*;

fn floats(key: &str) -> Vec<u8> {
    tensor("FloatStorage", key, 6, 0, &[2, 3], &[3, 1])
}

/// A checkpoint with this pickle and a storage of 24 bytes, `0`.
fn checkpoint(pickle: &[u8], more: Vec<Packed<'_>>) -> Vec<u8> {
    let mut members =
        vec![stored("m/data.pkl", pickle), stored("m/data/0", &[5; 24]), stored("m/version", b"3\n")];
    members.extend(more);
    archive(&members)
}

fn read(bytes: &[u8]) -> Header {
    read_bytes(bytes, "model").unwrap().unwrap()
}

fn sample() -> Vec<u8> {
    let pickle = dictionary(&[
        ("w", floats("0")),
        ("tail", tensor("FloatStorage", "0", 6, 4, &[2], &[1])),
        ("turned", tensor("FloatStorage", "0", 6, 0, &[3, 2], &[1, 3])),
        ("packed", tensor("HalfStorage", "1", 50, 0, &[50], &[1])),
        ("none", tensor("LongStorage", "2", 0, 0, &[0], &[1])),
    ]);
    let more = [deflated("m/data/1", &[0; 100]), stored("m/data/2", b""), stored("m/byteorder", b"little")];
    checkpoint(&pickle, more.into())
}

#[test]
fn reads_tensors_and_their_ranges() {
    let bytes = sample();
    let header = read(&bytes);
    assert_eq!((header.format, header.entries), (Format::Torch, 0));
    assert_eq!((header.metadata["version"].as_str(), header.metadata["byteorder"].as_str()), ("3", "little"));
    let [none, packed, tail, turned, w] = &header.tensors[..] else { panic!("{header:?}") };
    assert_eq!((none.dtype.as_str(), none.parameters()), ("int64", 0));
    assert_eq!((packed.dtype.as_str(), packed.data.clone()), ("float16", None));
    assert_eq!((turned.shape.as_slice(), turned.data.clone()), (&[3, 2][..], None));
    let data = w.data.clone().unwrap();
    assert_eq!(bytes[data.start as usize..data.end as usize], [5; 24]);
    assert_ne!(bytes[data.start as usize - 1], 5);
    assert_eq!(tail.data, Some(data.start + 16..data.end));
}

#[test]
fn what_is_not_sure_is_left_out() {
    let unsure = [
        // A storage that no known tensor uses.
        checkpoint(&dictionary(&[("w", floats("0"))]), vec![stored("m/data/1", b"")]),
        checkpoint(
            &dictionary(&[("w", floats("0")), ("x", b"cevil\nf\n)R".to_vec())]),
            vec![stored("m/data/x", b"")],
        ),
        // Two paths that look alike.
        checkpoint(&dictionary(&[("a.b", floats("0")), ("a", map(&[("b", floats("0"))]))]), vec![]),
        // A type, a rank and a pickle that are not known.
        checkpoint(&dictionary(&[("w", tensor("QInt8Storage", "0", 24, 0, &[24], &[1]))]), vec![]),
        checkpoint(&dictionary(&[("w", tensor("FloatStorage", "0", 6, 0, &[1; 65], &[1; 65]))]), vec![]),
        checkpoint(b"I1\n.", vec![]),
        archive(&[deflated("m/data.pkl", &dictionary(&[]))]),
        archive(&[stored("m/data.pkl", &dictionary(&[])), stored("n/data.pkl", &dictionary(&[]))]),
    ];
    for bytes in unsure {
        let header = read(&bytes);
        assert!(header.tensors.is_empty() && header.entries > 0, "{header:?}");
    }
    assert_eq!(read(&archive(&[stored("m/data.pkl", &dictionary(&[]))])).entries, 0, "known to be empty");
    let nested = archive(&[stored("m/code/data.pkl", b"")]);
    assert!(read_bytes(&nested, "m.pt").unwrap().is_none());
}

#[test]
fn big_endian_data_is_not_plain() {
    let pickle = dictionary(&[("w", floats("0"))]);
    let header = read(&checkpoint(&pickle, vec![stored("m/byteorder", b"big")]));
    assert_eq!(header.tensors[0].data, None);
}

#[test]
fn prefixes_and_changes_never_panic() {
    let bytes = sample();
    for length in 0..bytes.len() {
        // Without the mark of an archive it may be a checkpoint of old, which is not read.
        assert_eq!(read_bytes(&bytes[..length], "m.pt").is_err(), length >= 4, "{length}");
    }
    check_flips(&bytes, "m.pt");
}

#[test]
fn refuses_damage() {
    let float = |count, offset, shape: &[u64], strides: &[u64]| {
        dictionary(&[("w", tensor("FloatStorage", "0", count, offset, shape, strides))])
    };
    let cases = [
        (float(7, 0, &[6], &[1]), "another size than it says"),
        (float(1 << 62, 0, &[6], &[1]), "another size than it says"),
        (float(6, 1, &[6], &[1]), "beyond the end of its storage"),
        (float(6, 7, &[0], &[1]), "beyond the end of its storage"),
        (float(6, 0, &[2, 3], &[4, 1]), "beyond the end of its storage"),
        (float(6, 0, &[1 << 62], &[1]), "beyond the end of its storage"),
        (float(6, 0, &[1 << 40, 2], &[1 << 40, 1]), "beyond the end of its storage"),
        (float(6, 0, &[1 << 40, 1 << 40], &[0, 0]), "too many elements"),
        (dictionary(&[("w", floats("0")), ("x", floats("9"))]), "tensor `x`: its storage is missing"),
    ];
    for (pickle, reason) in cases {
        let error = refused(&checkpoint(&pickle, vec![]), "m");
        assert!(error.contains(reason), "{reason}\n{error}");
    }
}
