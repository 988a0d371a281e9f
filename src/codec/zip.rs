//! The directory of a zip archive, which stands at its end.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>, with ZIP64. Only the directory counts; a member's
//! own header must agree with its name. Members lie side by side: an archive in which they overlap is refused.

use std::io::Read;

use super::collect::{MAX_TENSORS, shown};
use super::input::Input;
use crate::error::{Error, Result};

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const WIDE_END: &[u8] = b"PK\x06\x06";
const WIDE_END_BYTES: u64 = 56;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: u64 = 46;
const MEMBER: &[u8] = b"PK\x03\x04";
const MEMBER_BYTES: u64 = 30;
/// Kind of extra field with the numbers that do not fit 32 bits.
const WIDE_FIELD: u16 = 1;
/// No archive has more members: a tensor has one, and there are few others.
const MAX_MEMBERS: u64 = MAX_TENSORS + 4096;

/// Whether a file starts as an archive does, be it an empty one.
pub(super) fn starts_like(start: &[u8]) -> bool {
    start.starts_with(MEMBER) || start.starts_with(END)
}

/// How a member's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// As they are.
    Stored,
    /// Compressed with Deflate.
    Deflated,
    /// In a way that is not read: encrypted, or compressed otherwise.
    Other,
}

/// One file of an archive.
#[derive(Debug)]
pub(super) struct Member {
    /// Its path; bytes that are not UTF-8 are replaced.
    pub(super) name: String,
    /// How its bytes are stored.
    pub(super) method: Method,
    /// Bytes in the archive.
    pub(super) packed: u64,
    /// Bytes when unpacked.
    pub(super) size: u64,
    /// Where its own header begins.
    offset: u64,
    /// Where the next member, or the directory, begins.
    limit: u64,
}

impl Member {
    /// Where its bytes begin.
    pub(super) fn start(&self, input: &mut Input<'_>) -> Result<u64> {
        let damaged = || Error::new(format!("member `{}`: its header is damaged", shown(&self.name)));
        input.seek(self.offset)?;
        let header: [u8; MEMBER_BYTES as usize] = input.array()?;
        let name = input.read_bytes(u64::from(u16_at(&header, 26)))?;
        input.skip(u64::from(u16_at(&header, 28)))?;
        let start = input.at();
        let inside = start.checked_add(self.packed).is_some_and(|end| end <= self.limit);
        if header.starts_with(MEMBER) && String::from_utf8_lossy(&name) == self.name && inside {
            return Ok(start);
        }
        Err(damaged())
    }
}

/// The members of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    /// Sorted by name, no name twice.
    pub(super) members: Vec<Member>,
}

impl Archive {
    /// Reads the directory.
    pub(super) fn read(input: &mut Input<'_>) -> Result<Archive> {
        let directory = Directory::find(input)?;
        let room = directory.end.checked_sub(directory.start).filter(|room| directory.size <= *room);
        if room.is_none()
            || directory.entries > directory.size / ENTRY_BYTES
            || directory.entries > MAX_MEMBERS
        {
            return Err(Error::new("the archive's directory is larger than its place"));
        }
        input.seek(directory.start)?;
        let mut members = Vec::new();
        for _ in 0..directory.entries {
            members.push(read_entry(input)?);
        }
        if input.at() != directory.start + directory.size {
            return Err(Error::new("the archive's directory has another size than its entries"));
        }
        set_limits(&mut members, directory.start)?;
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::new(format!("member `{}`: listed twice", shown(&pair[0].name))));
        }
        Ok(Archive { members })
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        let found = self.members.binary_search_by(|member| member.name.as_str().cmp(name));
        found.ok().map(|at| &self.members[at])
    }

    /// The bytes of a member; `None` when there is none of this name, or it is compressed or larger than `most` bytes.
    pub(super) fn content(&self, input: &mut Input<'_>, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let stored = |member: &&Member| member.method == Method::Stored && member.size <= most;
        let Some(member) = self.member(name).filter(stored) else { return Ok(None) };
        let start = member.start(input)?;
        input.seek(start)?;
        input.read_bytes(member.size).map(Some)
    }
}

/// Where the directory lies.
struct Directory {
    start: u64,
    size: u64,
    entries: u64,
    /// Where what follows the directory begins.
    end: u64,
}

impl Directory {
    /// Looks for the record at the end of the file, which only a comment may follow.
    fn find(input: &mut Input<'_>) -> Result<Directory> {
        let longest = END_BYTES + u64::from(u16::MAX);
        let begin = input.size().saturating_sub(longest);
        input.seek(begin)?;
        let tail = input.read_bytes(input.left())?;
        let found = tail.windows(END_BYTES as usize).enumerate().rev().find(|(at, record)| {
            let comment = tail.len() - at - record.len();
            record.starts_with(END) && usize::from(u16_at(record, 20)) == comment
        });
        let (at, record) = found.ok_or_else(|| Error::new("the archive's directory is missing"))?;
        let end = begin + at as u64;
        match Directory::find_wide(input, end)? {
            Some(directory) => Ok(directory),
            None => Ok(Directory {
                start: u64::from(u32_at(record, 16)),
                size: u64::from(u32_at(record, 12)),
                entries: u64::from(u16_at(record, 10)),
                end,
            }),
        }
    }

    /// Reads the ZIP64 record, which a locator in front of the other record points to.
    fn find_wide(input: &mut Input<'_>, end: u64) -> Result<Option<Directory>> {
        let Some(at) = end.checked_sub(LOCATOR_BYTES) else { return Ok(None) };
        input.seek(at)?;
        let locator: [u8; LOCATOR_BYTES as usize] = input.array()?;
        if !locator.starts_with(LOCATOR) {
            return Ok(None);
        }
        let start = u64_at(&locator, 8);
        input.seek(start)?;
        let record: [u8; WIDE_END_BYTES as usize] = input.array()?;
        if !record.starts_with(WIDE_END) || input.at() > at {
            return Err(Error::new("the archive's ZIP64 record is damaged"));
        }
        Ok(Some(Directory {
            start: u64_at(&record, 48),
            size: u64_at(&record, 40),
            entries: u64_at(&record, 32),
            end: start,
        }))
    }
}

fn read_entry(input: &mut Input<'_>) -> Result<Member> {
    let entry: [u8; ENTRY_BYTES as usize] = input.array()?;
    if !entry.starts_with(ENTRY) {
        return Err(Error::new("the archive's directory is damaged"));
    }
    let name = input.read_bytes(u64::from(u16_at(&entry, 28)))?;
    let extra = input.read_bytes(u64::from(u16_at(&entry, 30)))?;
    input.skip(u64::from(u16_at(&entry, 32)))?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let damaged = || Error::new(format!("member `{}`: its sizes are damaged", shown(&name)));
    let mut wide = wide_numbers(&extra);
    let mut number = |at| match u32_at(&entry, at) {
        u32::MAX => wide.next().ok_or_else(damaged),
        number => Ok(u64::from(number)),
    };
    // The order in which the wide numbers come.
    let (size, packed, offset) = (number(24)?, number(20)?, number(42)?);
    let encrypted = u16_at(&entry, 8) & 1 != 0;
    let method = match u16_at(&entry, 10) {
        0 if !encrypted && size == packed => Method::Stored,
        0 if !encrypted => return Err(damaged()),
        8 if !encrypted => Method::Deflated,
        _ => Method::Other,
    };
    Ok(Member { name, method, packed, size, offset, limit: 0 })
}

/// The 64-bit numbers in the extra fields of an entry.
fn wide_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut numbers: &[u8] = &[];
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((field, rest)) = rest.split_at_checked(usize::from(u16_at(head, 2))) else { break };
        if u16_at(head, 0) == WIDE_FIELD {
            numbers = field;
            break;
        }
        extra = rest;
    }
    numbers.chunks_exact(8).map(|number| u64_at(number, 0))
}

/// Tells each member where the next one begins, and checks that it can end there.
fn set_limits(members: &mut [Member], directory: u64) -> Result<()> {
    members.sort_by_key(|member| member.offset);
    let mut limit = directory;
    for member in members.iter_mut().rev() {
        let end = member.offset.checked_add(MEMBER_BYTES).and_then(|end| end.checked_add(member.packed));
        if end.is_none_or(|end| end > limit) {
            return Err(Error::new(format!("member `{}`: it overlaps what follows it", shown(&member.name))));
        }
        member.limit = limit;
        limit = member.offset;
    }
    Ok(())
}

/// A reader for the first bytes of a member that starts at the position, unpacked; `None` when it cannot be unpacked.
pub(super) fn unpack<'a>(input: &'a mut Input<'_>, member: &Member) -> Option<Box<dyn Read + 'a>> {
    let packed = input.take(member.packed);
    match member.method {
        Method::Stored => Some(Box::new(packed)),
        Method::Deflated => Some(Box::new(flate2::read::DeflateDecoder::new(packed))),
        Method::Other => None,
    }
}

fn u16_at(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(record, at))
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(record, at))
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(record, at))
}

/// A field of a record whose size is known, so that the field is always there.
fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record[at..at + N].try_into().expect("the range has this size")
}

#[cfg(test)]
pub(super) mod tests;
