use std::io::Cursor;

use super::*;

/// What an archive in a test is made of.
pub(crate) struct Packed<'a> {
    name: &'a str,
    method: u16,
    bytes: Vec<u8>,
    size: u64,
    wide: bool,
}

impl Packed<'_> {
    /// Keeps only the first bytes, as if the rest were lost.
    pub(crate) fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
    }
}

/// A member that is stored as it is.
pub(crate) fn stored<'a>(name: &'a str, bytes: &[u8]) -> Packed<'a> {
    Packed { name, method: 0, bytes: bytes.to_vec(), size: bytes.len() as u64, wide: false }
}

/// A member that is compressed.
pub(crate) fn deflated<'a>(name: &'a str, bytes: &[u8]) -> Packed<'a> {
    let mut packed = Vec::new();
    let mut encoder = flate2::read::DeflateEncoder::new(bytes, flate2::Compression::default());
    encoder.read_to_end(&mut packed).unwrap();
    Packed { name, method: 8, bytes: packed, size: bytes.len() as u64, wide: false }
}

/// The same member with its sizes and position in the ZIP64 field.
fn wide(member: Packed<'_>) -> Packed<'_> {
    Packed { wide: true, ..member }
}

fn entry(member: &Packed<'_>, offset: u64) -> Vec<u8> {
    let mut entry = vec![0; ENTRY_BYTES as usize];
    entry[..4].copy_from_slice(ENTRY);
    entry[10..12].copy_from_slice(&member.method.to_le_bytes());
    entry[28..30].copy_from_slice(&(member.name.len() as u16).to_le_bytes());
    let numbers = [(24, member.size), (20, member.bytes.len() as u64), (42, offset)];
    let mut extra = vec![9, 9, 1, 0, 0];
    if member.wide {
        extra.extend([1, 0, 24, 0]);
    }
    for (at, number) in numbers {
        let narrow = if member.wide { u32::MAX } else { number as u32 };
        entry[at..at + 4].copy_from_slice(&narrow.to_le_bytes());
        if member.wide {
            extra.extend(number.to_le_bytes());
        }
    }
    entry[30..32].copy_from_slice(&(extra.len() as u16).to_le_bytes());
    [&entry[..], member.name.as_bytes(), &extra].concat()
}

fn end(entries: u16, size: u32, start: u32) -> Vec<u8> {
    let count = entries.to_le_bytes();
    [END, &[0; 4], &count, &count, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat()
}

fn wide_end(entries: u64, size: u64, start: u64, at: u64) -> Vec<u8> {
    let record = [entries, entries, size, start].map(u64::to_le_bytes);
    [WIDE_END, &[0; 20], &record.concat(), LOCATOR, &[0; 4], &at.to_le_bytes(), &[0; 4]].concat()
}

/// The local headers and bytes of members, and their directory.
fn parts(members: &[Packed<'_>]) -> (Vec<u8>, Vec<u8>) {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        directory.extend(entry(member, bytes.len() as u64));
        let name = member.name.as_bytes();
        bytes.extend([MEMBER, &[0; 22], &(name.len() as u16).to_le_bytes(), &[3, 0], name, b"pad"].concat());
        bytes.extend(&member.bytes);
    }
    (bytes, directory)
}

/// An archive without ZIP64 records.
pub(crate) fn archive(members: &[Packed<'_>]) -> Vec<u8> {
    let (bytes, directory) = parts(members);
    let end = end(members.len() as u16, directory.len() as u32, bytes.len() as u32);
    [bytes, directory, end].concat()
}

fn wide_archive(members: &[Packed<'_>]) -> Vec<u8> {
    let (bytes, directory) = parts(members);
    let (start, size) = (bytes.len() as u64, directory.len() as u64);
    let wide_end = wide_end(members.len() as u64, size, start, start + size);
    [bytes, directory, wide_end, end(u16::MAX, u32::MAX, u32::MAX)].concat()
}

fn read(bytes: &[u8]) -> Result<Archive> {
    Archive::read(&mut Input::new(&mut Cursor::new(bytes), bytes.len() as u64)?)
}

fn members() -> [Packed<'static>; 3] {
    [stored("b", b"content"), deflated("a/c", &[7; 1000]), wide(stored("a/b", b"xy"))]
}

#[test]
fn reads_members_and_their_bytes() {
    let commented = |mut bytes: Vec<u8>| {
        let length = bytes.len();
        bytes[length - 2] = 3;
        [&bytes[..], b"abc"].concat()
    };
    for bytes in [archive(&members()), wide_archive(&members()), commented(archive(&members()))] {
        let archive = read(&bytes).unwrap();
        let names: Vec<_> = archive.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a/b", "a/c", "b"]);
        let mut file = Cursor::new(&bytes);
        let mut input = Input::new(&mut file, bytes.len() as u64).unwrap();
        assert_eq!(archive.content(&mut input, "b", 7).unwrap().unwrap(), b"content");
        assert_eq!(archive.content(&mut input, "b", 6).unwrap(), None);
        assert_eq!(archive.content(&mut input, "a/c", 1000).unwrap(), None);
        assert_eq!(archive.content(&mut input, "nothing", 7).unwrap(), None);
        let member = archive.member("a/c").unwrap();
        let start = member.start(&mut input).unwrap();
        input.seek(start).unwrap();
        let mut first = [0; 10];
        unpack(&mut input, member).unwrap().read_exact(&mut first).unwrap();
        assert_eq!((first, member.size), ([7; 10], 1000));
    }
}

#[test]
fn every_prefix_is_refused() {
    for bytes in [archive(&members()), wide_archive(&members())] {
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
    }
}

#[test]
fn refuses_damage() {
    let (bytes, directory) = parts(&members());
    let (start, size) = (bytes.len() as u64, directory.len() as u64);
    let narrow = |entries, size, start| [&bytes[..], &directory, &end(entries, size, start)].concat();
    let wide = |entries, size, start, at| {
        [&bytes[..], &directory, &wide_end(entries, size, start, at), &end(3, 0, 0)].concat()
    };
    // The last number of the record would be taken from the locator.
    let short_record = {
        let mut record = wide_end(3, size, start, start + size);
        record.drain(48..56);
        [&bytes[..], &directory, &record, &end(3, 0, 0)].concat()
    };
    let twice = || [stored("a", b""), stored("a", b"")];
    let overlapping = || {
        let (bytes, _) = parts(&members());
        let directory = [entry(&members()[0], 0), entry(&stored("z", b""), 1)].concat();
        let end = end(2, directory.len() as u32, bytes.len() as u32);
        [bytes, directory, end].concat()
    };
    let unequal = Packed { size: 8, ..stored("b", b"content") };
    let cases = [
        (narrow(u16::MAX, size as u32, start as u32), "larger than its place"),
        (narrow(2, size as u32, start as u32), "another size than its entries"),
        (narrow(3, size as u32 + 1, start as u32), "larger than its place"),
        (narrow(3, size as u32, u32::MAX), "larger than its place"),
        (narrow(3, size as u32 - 1, start as u32 + 1), "directory is damaged"),
        (wide(1_000_000, size, start, start + size), "larger than its place"),
        (wide(3, u64::MAX, start, start + size), "larger than its place"),
        (wide(3, size, u64::MAX, start + size), "larger than its place"),
        (wide(3, size, start, start), "ZIP64 record is damaged"),
        (wide(3, size, start, u64::MAX), "beyond the end"),
        (short_record, "ZIP64 record is damaged"),
        (archive(&twice()), "listed twice"),
        (archive(&[unequal]), "sizes are damaged"),
        (overlapping(), "overlaps"),
    ];
    for (bytes, reason) in cases {
        let error = read(&bytes).unwrap_err().one_line();
        assert!(error.contains(reason), "{reason}\n{error}");
    }
}

#[test]
fn numbers_that_are_missing_or_too_large_are_refused() {
    let member = wide(stored("b", b"content"));
    let good = entry(&member, 0);
    let with_entry = |entry: &[u8]| {
        let (bytes, _) = parts(&[stored("b", b"content")]);
        [&bytes[..], entry, &end(1, entry.len() as u32, bytes.len() as u32)].concat()
    };
    assert!(read(&with_entry(&good)).is_ok());
    let mut missing = good.clone();
    missing[ENTRY_BYTES as usize + 1 + 5] = 2;
    assert!(read(&with_entry(&missing)).unwrap_err().one_line().contains("sizes are damaged"));
    let mut far = good.clone();
    let offset = far.len() - 8;
    far[offset..].fill(0xff);
    assert!(read(&with_entry(&far)).unwrap_err().one_line().contains("overlaps"));
}

#[test]
fn a_members_own_header_must_agree() {
    let good = archive(&[stored("b", b"content")]);
    let start = |bytes: &[u8]| {
        let member = &read(bytes).unwrap().members[0];
        member.start(&mut Input::new(&mut Cursor::new(bytes), bytes.len() as u64)?)
    };
    assert_eq!(start(&good).unwrap(), MEMBER_BYTES + 4);
    // The mark, the name, and a name and padding that push the bytes into the directory.
    for (at, value) in [(0, b'X'), (30, b'x'), (28, 200), (28, 4)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(start(&bytes).is_err(), "{at}");
    }
}
