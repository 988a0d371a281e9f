use super::super::tests::{check_flips, read_bytes, refused};
use super::*;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [&varint(field << 3 | 2), &varint(value.len() as u64), value].concat()
}

fn pair(field: u64, key: &str, value: &str) -> Vec<u8> {
    bytes(field, [bytes(1, key), bytes(2, value)].concat())
}

/// An initializer without data.
fn tensor(name: &str, code: u64, shape: &[u64]) -> Vec<u8> {
    let dimensions: Vec<u8> = shape.iter().flat_map(|&length| number(1, length)).collect();
    [dimensions, number(2, code), bytes(8, name)].concat()
}

fn model(tensors: &[Vec<u8>]) -> Vec<u8> {
    let node = bytes(1, bytes(4, "Conv"));
    let graph: Vec<u8> = tensors.iter().flat_map(|tensor| bytes(5, tensor)).collect();
    [number(1, 8), bytes(7, [node, graph].concat())].concat()
}

fn sample() -> Vec<u8> {
    let packed = [bytes(1, [2, 1]), number(2, 1), bytes(8, "typed"), bytes(4, [0; 8])].concat();
    let external = [
        tensor("big", 16, &[1 << 20, 1 << 20]),
        pair(13, "offset", "4096"),
        pair(13, "location", "model.onnx.data"),
        number(14, 1),
    ]
    .concat();
    let tensors = [
        [tensor("w", 1, &[2, 3]), bytes(9, [0; 24])].concat(),
        [tensor("half bytes", 22, &[3]), bytes(9, [0; 2])].concat(),
        [tensor("unknown", 99, &[3]), bytes(9, [0; 7])].concat(),
        packed,
        external,
    ];
    let opsets = [bytes(8, number(2, 17)), bytes(8, [bytes(1, "com.microsoft"), number(2, 1)].concat())];
    [model(&tensors), bytes(2, "pytorch"), opsets.concat(), pair(14, "author", "me"), pair(14, "domain", "x")]
        .concat()
}

#[test]
fn reads_initializers_and_metadata() {
    let file = sample();
    let header = read_bytes(&file, "dir/m.onnx").unwrap().unwrap();
    assert_eq!(header.format, Format::Onnx);
    let metadata: Vec<_> = header.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expected = [
        "author=me",
        "domain=x",
        "external_data=model.onnx.data",
        "external_tensors=1",
        "ir_version=8",
        "opset=17",
        "opset.com.microsoft=1",
        "producer_name=pytorch",
    ];
    assert_eq!(metadata, expected);
    let tensors: Vec<_> = header
        .tensors
        .iter()
        .map(|tensor| {
            format!("{} {} {:?} {}", tensor.name, tensor.dtype, tensor.shape, tensor.data.is_some())
        })
        .collect();
    let expected = [
        "big BFLOAT16 [1048576, 1048576] false",
        "half bytes INT4 [3] true",
        "typed FLOAT [2, 1] false",
        "unknown type-99 [3] true",
        "w FLOAT [2, 3] true",
    ];
    assert_eq!(tensors, expected);
    let w = header.tensors[4].data.clone().unwrap();
    assert_eq!(w.end - w.start, 24);
    assert_eq!(file[w.start as usize - 2..w.start as usize], [9 << 3 | 2, 24]);
}

#[test]
fn only_the_name_tells_the_format() {
    assert!(read_bytes(&sample(), "model").unwrap().is_none());
}

#[test]
fn prefixes_and_changes_never_panic() {
    let file = sample();
    let graph = model(&[]).len() as u64;
    for length in 0..file.len() {
        // A cut between two fields of the model leaves a shorter valid message.
        let cut = read_bytes(&file[..length], "m.onnx");
        assert!(cut.is_err() || length as u64 > graph, "{length}");
    }
    check_flips(&file, "m.onnx");
}

#[test]
fn refuses_damage() {
    let with = |tensor: Vec<u8>, field: Vec<u8>| model(&[[tensor, field].concat()]);
    let w = |shape: &[u64]| tensor("w", 1, shape);
    let long = |field: u64| [varint(field << 3 | 2), varint(1 << 40)].concat();
    let deep =
        (0..100_000).fold(Vec::new(), |inner, _| if inner.len() < 1 << 16 { bytes(7, inner) } else { inner });
    let cases = [
        (number(1, 8), "no graph"),
        (deep[..deep.len() - 1].to_vec(), "beyond the end of its message"),
        (with(w(&[2]), bytes(9, [0; 7])), "another size"),
        (with(w(&[2]), bytes(9, [0; 12])), "another size"),
        (with(w(&[1 << 62, 16]), bytes(9, [0; 8])), "another size"),
        (with(tensor("w", 99, &[1 << 62, 16]), bytes(9, [0; 8])), "too many elements"),
        (with(w(&[1 << 62, 16]), number(14, 1)), "too many elements"),
        (with(w(&[2]), Vec::new()), "less data"),
        (with(w(&[1 << 40]), bytes(4, [0; 8])), "less data"),
        (with(w(&[u64::MAX]), bytes(9, [0; 4])), "negative dimension"),
        (with(w(&[1; 65]), bytes(9, [0; 4])), "too many of them"),
        (with(w(&[]), bytes(1, [1; 65])), "too many of them"),
        (with(w(&[1]), long(9)), "beyond the end of its message"),
        (with(w(&[1]), long(8)), "beyond the end of its message"),
        (with(w(&[1]), bytes(8, [0xff])), "not UTF-8"),
        ([number(1, 8), long(7)].concat(), "beyond the end of its message"),
        (
            model(&[[w(&[0]), bytes(9, [])].concat(), [w(&[0]), bytes(9, [])].concat()]),
            "tensor `w`: listed twice",
        ),
    ];
    for (file, reason) in cases {
        let error = refused(&file, "m.onnx");
        assert!(error.contains(reason), "{reason}\n{error}");
    }
}
