use super::super::tests::{check_prefixes, read_bytes, refused};
use super::*;

fn file(description: &str, data: usize) -> Vec<u8> {
    let length = description.len() as u16;
    let mut bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), description.as_bytes()].concat();
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn description(descr: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}   \n")
}

#[test]
fn reads_type_shape_and_range() {
    let bytes = file(&description("'<f4'", "(2, 3)"), 24);
    let header = read_bytes(&bytes, "dir/weights.npy").unwrap().unwrap();
    let size = bytes.len() as u64;
    let expected = Tensor {
        name: "weights".to_owned(),
        dtype: "float32".to_owned(),
        shape: vec![2, 3],
        data: Some(size - 24..size),
    };
    assert_eq!((header.format, header.tensors), (Format::Npy, vec![expected]));
    check_prefixes(&bytes, "weights.npy");
}

#[test]
fn types_have_numpys_names() {
    let known = [
        ("<f2", "float16", 2, true),
        ("<f8", "float64", 8, true),
        ("|b1", "bool", 1, true),
        ("|u1", "uint8", 1, true),
        ("<i8", "int64", 8, true),
        ("<c16", "complex128", 16, true),
        (">f4", ">f4", 4, false),
        ("<U3", "<U3", 12, true),
        ("|S5", "|S5", 5, true),
        ("<M8[ns]", "<M8[ns]", 8, true),
    ];
    for (descr, name, item, plain) in known {
        let array = parse(&description(&format!("'{descr}'"), "(7L,)"), 0).unwrap();
        assert_eq!((array.dtype.as_str(), array.item, array.plain), (name, Some(item), plain), "{descr}");
        assert_eq!(array.shape, [7]);
    }
    for descr in ["'|O'", "[('a)]', '<f4'), ('b\\'[', [('c', '|u1', (2,))])]"] {
        let array = parse(&description(descr, "()"), 0).unwrap();
        assert_eq!((array.item, array.plain, array.shape.len()), (None, false, 0), "{descr}");
    }
}

#[test]
fn fortran_order_is_not_plain() {
    let text = description("'<f4'", "(2, 3)").replace("False", "True");
    let header = read_bytes(&file(&text, 24), "a.npy").unwrap().unwrap();
    assert_eq!(header.tensors[0].data, None);
}

#[test]
fn nothing_but_the_three_entries_is_understood() {
    let good = description("'<f4'", "(1,)");
    assert!(parse(&good, 0).is_some());
    let bad = [
        good.replace("'shape'", "'shapes'"),
        good.replace("'shape': (1,), ", ""),
        good.replace("'shape'", "'descr': '<f4', 'shape'"),
        good.replace("False", "false"),
        good.replace("False", "__import__('os')"),
        good.replace("False,", "False"),
        good.replace("(1,)", "(1)"),
        good.replace("(1,)", "(1 2)"),
        good.replace("(1,)", "(-1,)"),
        good.replace("(1,)", "(,)"),
        good.replace("(1,)", "[1]"),
        good.replace("(1,)", "(18446744073709551616,)"),
        good.replace("(1,)", &format!("({})", "1,".repeat(65))),
        good.replace("(1,)", "(1"),
        good.replace("'<f4'", "'f4'"),
        good.replace("'<f4'", "'<f'"),
        good.replace("'<f4'", "'<é4'"),
        good.replace("'<f4'", "'<f9999999999999999999'"),
        good.replace("'<f4'", "'<f4\\''"),
        good.replace("'<f4'", "'<f4[s]'"),
        good.replace("'<f4'", "'<f+4'"),
        good.replace("'<f4'", "'<M8[\\s]'"),
        good.replace("'<f4'", "('<f4', (2,))"),
        good.replace("'<f4'", "[("),
        good.replace("'<f4'", "[']"),
        good.replace("'<f4'", &"[(".repeat(30_000)),
        good.replace('}', ""),
        good.clone() + "1",
    ];
    for text in bad {
        assert_eq!(parse(&text, 0), None, "{text}");
    }
}

#[test]
fn refuses_damage() {
    let long = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes(), &[0; 100]].concat();
    let cases = [
        (file(&description("'<f4'", "(2, 3)"), 23), "another size"),
        (file(&description("'<f4'", "(2, 3)"), 25), "another size"),
        (file(&description("'<f4'", "(4611686018427387904, 4)"), 0), "another size"),
        (file(&description("'<f4'", "(4611686018427387904,)"), 0), "another size"),
        (file(&description("'|O'", "(4611686018427387904, 4)"), 0), "too many elements"),
        (file("{}", 0), "not the one of an array"),
        (long, "longer than 65535"),
        ([MAGIC, &[9, 0, 0, 0]].concat(), "version 9"),
        ([MAGIC, &[1, 0, 255, 255]].concat(), "cannot read"),
    ];
    for (bytes, reason) in cases {
        let error = refused(&bytes, "a.npy");
        assert!(error.contains(reason), "{reason}\n{error}");
    }
}
