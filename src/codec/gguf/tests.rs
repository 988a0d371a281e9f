use super::super::tests::{check_prefixes, read_bytes, refused};
use super::*;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

fn info(name: &str, shape: &[u64], code: u32, offset: u64) -> Vec<u8> {
    let dimensions: Vec<u8> = shape.iter().flat_map(|length| length.to_le_bytes()).collect();
    let rank = shape.len() as u32;
    [&text(name), &rank.to_le_bytes()[..], &dimensions, &code.to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn start(version: u32, tensors: u64, pairs: u64) -> Vec<u8> {
    [&MAGIC[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat()
}

/// A file with this metadata, these tensors and so many bytes of data.
fn file(pairs: &[Vec<u8>], infos: &[Vec<u8>], alignment: usize, data: usize) -> Vec<u8> {
    let mut bytes = start(3, infos.len() as u64, pairs.len() as u64);
    bytes.extend(pairs.concat());
    bytes.extend(infos.concat());
    bytes.resize(bytes.len().next_multiple_of(alignment) + data, 0);
    bytes
}

fn sample() -> Vec<u8> {
    let strings = [text("<s>"), text("")].concat();
    let inner = [array(0, 2, &[1, 2]), array(0, 0, &[])].concat();
    let pairs = [
        pair("general.architecture", 8, &text("llama")),
        pair(ALIGNMENT_KEY, 4, &64u32.to_le_bytes()),
        pair("rope", 6, &0.5f32.to_le_bytes()),
        pair("flag", 7, &[1]),
        pair("big", 11, &(-5i64).to_le_bytes()),
        pair("tokens", 9, &array(8, 2, &strings)),
        pair("nested", 9, &array(9, 2, &inner)),
        pair("scores", 9, &array(6, 3, &[0; 12])),
        pair("long", 8, &text(&"x".repeat(300))),
    ];
    let infos = [info("w", &[256, 2], 12, 64), info("b", &[3], 0, 0)];
    file(&pairs, &infos, 64, 64 + 288)
}

#[test]
fn reads_metadata_and_tensors() {
    let bytes = sample();
    let header = read_bytes(&bytes, "anything").unwrap().unwrap();
    assert_eq!(header.format, Format::Gguf);
    let metadata: Vec<_> = header.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expected = ["big=-5", "flag=true", "general.alignment=64", "general.architecture=llama", "rope=0.5"];
    assert_eq!(metadata, expected);
    let [b, w] = &header.tensors[..] else { panic!("{header:?}") };
    let data = bytes.len() as u64 - 64 - 288;
    assert_eq!((b.dtype.as_str(), b.data.clone()), ("F32", Some(data..data + 12)));
    assert_eq!((w.dtype.as_str(), w.shape.as_slice()), ("Q4_K", &[256, 2][..]));
    assert_eq!(w.data, Some(data + 64..bytes.len() as u64));
}

#[test]
fn every_prefix_is_refused() {
    check_prefixes(&sample(), "m.gguf");
}

#[test]
fn unknown_types_have_no_range() {
    let infos = [info("a", &[7], 4, 0), info("b", &[1], 24, 96)];
    let header = read_bytes(&file(&[], &infos, 32, 97), "m").unwrap().unwrap();
    let [a, b] = &header.tensors[..] else { panic!("{header:?}") };
    assert_eq!((a.dtype.as_str(), a.data.clone()), ("type-4", None));
    assert!(b.data.is_some());
}

#[test]
fn refuses_damage() {
    let nested = (0..MAX_DEPTH).fold(array(0, 0, &[]), |inner, _| array(9, 1, &inner));
    let cases = [
        (start(1, 0, 0), "version 1 is not supported"),
        (start(3u32.swap_bytes(), 0, 0), "big-endian"),
        (start(3, 1_000_000, 0), "1000000 tensors do not fit"),
        (start(3, 0, 1_000_000), "1000000 metadata entries do not fit"),
        (start(3, u64::MAX, u64::MAX), "do not fit"),
        ([start(3, 0, 1 << 17), vec![0; 13 << 17]].concat(), "more than 65536 metadata entries"),
        ([start(3, 1 << 19, 0), vec![0; 24 << 19]].concat(), "more than 262144 tensors"),
        (file(&[pair("k", 13, &[])], &[], 32, 0), "k: unknown type 13"),
        (file(&[pair("k", 7, &[2])], &[], 32, 0), "neither true nor false"),
        (file(&[pair("k", 8, &u64::MAX.to_le_bytes())], &[], 32, 0), "beyond the end"),
        (file(&[pair("k", 9, &array(12, u64::MAX, &[]))], &[], 32, 0), "beyond the end"),
        (file(&[pair("k", 9, &array(12, 1 << 61, &[]))], &[], 32, 0), "beyond the end"),
        (file(&[pair("k", 9, &array(8, 1_000_000, &[]))], &[], 32, 0), "texts do not fit"),
        (file(&[pair("k", 9, &array(9, 1_000_000, &[]))], &[], 32, 0), "arrays do not fit"),
        (file(&[pair("k", 9, &nested)], &[], 32, 0), "nested deeper"),
        (file(&[pair("k", 0, &[1]), pair("k", 0, &[1])], &[], 32, 0), "k: listed twice"),
        (file(&[pair(&"k".repeat(65_536), 0, &[1])], &[], 32, 0), "longer than 65535"),
        (file(&[pair(ALIGNMENT_KEY, 4, &[0; 4])], &[], 32, 0), "power of two"),
        (file(&[pair(ALIGNMENT_KEY, 4, &[24, 0, 0, 0])], &[], 32, 0), "power of two"),
        (file(&[pair(ALIGNMENT_KEY, 0, &[32])], &[], 32, 0), "power of two"),
        (file(&[], &[info("w", &[1; 65], 24, 0)], 32, 1), "more than 64 dimensions"),
        (file(&[], &[info("w", &[u64::MAX, 2], 24, 0)], 32, 1), "does not suit"),
        (file(&[], &[info("w", &[u64::MAX, 2], 4, 0)], 32, 1), "too many elements"),
        (file(&[], &[info("w", &[1 << 62], 0, 0)], 32, 1), "does not suit"),
        (file(&[], &[info("w", &[16, 2], 2, 0)], 32, 18), "does not suit"),
        (file(&[], &[info("w", &[9], 24, 0)], 32, 8), "beyond the end"),
        (file(&[], &[info("w", &[9], 4, 32)], 32, 8), "does not follow"),
        (file(&[], &[info("w", &[8], 24, 32)], 32, 64), "does not follow"),
        (file(&[], &[info("w", &[1], 24, u64::MAX - 31)], 32, 64), "does not follow"),
        (file(&[], &[info("a", &[8], 4, 0), info("b", &[8], 24, 8)], 32, 64), "does not follow"),
        (file(&[], &[info("a", &[8], 4, 0), info("b", &[8], 24, u64::MAX - 31)], 32, 64), "beyond the end"),
        (file(&[], &[info("a", &[8], 24, 0), info("b", &[8], 24, 0)], 32, 64), "does not follow"),
        (file(&[], &[info("a", &[40], 24, 0), info("b", &[8], 24, 32)], 32, 64), "does not follow"),
        (file(&[], &[info("a", &[8], 24, 0), info("b", &[8], 24, 64)], 32, 96), "does not follow"),
        (file(&[], &[info("a", &[32], 24, 0), info("a", &[8], 24, 32)], 32, 64), "tensor `a`: listed twice"),
    ];
    for (bytes, reason) in cases {
        let error = refused(&bytes, "m.gguf");
        assert!(error.contains(reason), "{reason}\n{error}");
    }
}
