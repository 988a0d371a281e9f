//! What the tests of all formats share, and the tests of recognising a format.

use std::io::Cursor;

use super::*;

/// Reads a file that is in memory.
pub(super) fn read_bytes(bytes: &[u8], name: &str) -> Result<Option<Header>> {
    read(&mut Cursor::new(bytes), bytes.len() as u64, name)
}

/// The reason why a file is refused.
pub(super) fn refused(bytes: &[u8], name: &str) -> String {
    read_bytes(bytes, name).unwrap_err().one_line()
}

/// Checks that a valid file is refused when it is cut, at whatever byte, and never makes the reader panic; and that no
/// changed byte does either.
pub(super) fn check_prefixes(bytes: &[u8], name: &str) {
    assert!(read_bytes(bytes, name).unwrap().is_some());
    for length in 0..bytes.len() {
        assert!(read_bytes(&bytes[..length], name).is_err(), "{name}: {length} of {} bytes", bytes.len());
    }
    check_flips(bytes, name);
}

/// Checks that no changed byte makes the reader panic.
pub(super) fn check_flips(bytes: &[u8], name: &str) {
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            damaged[at] ^= flip;
            // Some changes leave a valid file, so only a panic is a failure.
            drop(read_bytes(&damaged, name));
            damaged[at] ^= flip;
        }
    }
}

#[test]
fn other_files_are_none() {
    let files: [(&[u8], &str); 6] = [
        (b"", "empty"),
        (b"hello", "README.md"),
        (b"\x80\x02}q\x00.", "old.pt"),
        (b"\x80\x02}q\x00.", "data.pkl"),
        (b"PK\x03\x04 and no directory", "notes.docx"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "empty.zip"),
    ];
    for (bytes, name) in files {
        assert!(read_bytes(bytes, name).unwrap().is_none(), "{name}");
    }
}

#[test]
fn a_promise_must_be_kept() {
    for name in ["m.safetensors", "m.gguf", "m.onnx", "m.npz", "m.npy", "dir/M.NPZ"] {
        for bytes in [&b""[..], b"not this format, but long enough to look into", b"PK\x03\x04"] {
            let error = refused(bytes, name);
            assert!(error.starts_with("cannot read its "), "{name}: {error}");
        }
    }
    assert!(refused(b"PK\x03\x04", "m.pt").starts_with("cannot read its torch header: "));
}

#[test]
fn parameters_saturate() {
    let tensor = |shape: &[u64]| Tensor {
        name: String::new(),
        dtype: String::new(),
        shape: shape.to_vec(),
        data: None,
    };
    assert_eq!(tensor(&[]).parameters(), 1);
    assert_eq!(tensor(&[2, 3]).parameters(), 6);
    assert_eq!(tensor(&[u64::MAX, 2]).parameters(), u64::MAX);
}
