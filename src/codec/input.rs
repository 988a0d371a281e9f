//! A file that is read from front to back, with every length checked against what is left of it.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::collect::MAX_TEXT;
use crate::error::{Error, Result};

/// No more bytes of one file are taken into memory. The safetensors format has the same limit for its header.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// How many bytes tell the formats apart.
const START: u64 = 9;

/// What can be read at any position; the formats are compiled once, not once for every type of file.
pub(super) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// The file and the position in it.
pub(super) struct Input<'a> {
    file: BufReader<&'a mut dyn Source>,
    size: u64,
    at: u64,
    taken: u64,
}

impl<'a> Input<'a> {
    /// Starts at the beginning of a file of `size` bytes.
    pub(super) fn new(file: &'a mut impl Source, size: u64) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(cannot_read)?;
        // Positions in a file are signed, so no file is larger.
        Ok(Input { file: BufReader::new(file), size: size.min(i64::MAX as u64), at: 0, taken: 0 })
    }

    /// The first bytes of the file, or all of a shorter one; the position stays at the beginning.
    pub(super) fn peek(&mut self) -> Result<Vec<u8>> {
        let mut start = vec![0; self.size.min(START) as usize];
        self.read_exact(&mut start).map_err(cannot_read)?;
        self.seek(0)?;
        Ok(start)
    }

    /// Size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The position.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes from here to the end of the file.
    pub(super) fn left(&self) -> u64 {
        self.size - self.at
    }

    /// Goes to a position, at most the end of the file.
    pub(super) fn seek(&mut self, to: u64) -> Result<()> {
        if to > self.size {
            return Err(Error::new(format!("position {to} lies beyond the end of the file")));
        }
        // Both positions fit an `i64`; a relative step keeps what is buffered.
        self.file.seek_relative(to as i64 - self.at as i64).map_err(cannot_read)?;
        self.at = to;
        Ok(())
    }

    /// Leaves out the next `length` bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        self.check(length)?;
        self.seek(self.at + length)
    }

    /// The next `length` bytes.
    pub(super) fn read_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.check(length)?;
        self.taken = self.taken.saturating_add(length);
        if self.taken > MAX_HEADER {
            return Err(Error::new(format!("larger than {MAX_HEADER} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact(&mut bytes).map_err(cannot_read)?;
        Ok(bytes)
    }

    /// The next `length` bytes, which must be UTF-8.
    pub(super) fn text(&mut self, length: u64) -> Result<String> {
        String::from_utf8(self.read_bytes(length)?).map_err(|_| Error::new("a text is not UTF-8"))
    }

    /// The next `length` bytes as a text for the metadata; `None` when they are too long for it, or not UTF-8.
    pub(super) fn short_text(&mut self, length: u64) -> Result<Option<String>> {
        // A character has at most four bytes.
        if length > 4 * MAX_TEXT as u64 {
            return self.skip(length).map(|()| None);
        }
        Ok(String::from_utf8(self.read_bytes(length)?).ok())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.check(N as u64)?;
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map_err(cannot_read)?;
        Ok(bytes)
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next four bytes as a little-endian number.
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a little-endian number.
    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn check(&self, length: u64) -> Result<()> {
        if length > self.left() {
            return Err(Error::new(format!(
                "{length} bytes at position {} run beyond the end of the file",
                self.at
            )));
        }
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What was appended since the size was taken does not belong to the file.
        let most = buffer.len().min(usize::try_from(self.left()).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..most])?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The error for a failed read.
pub(super) fn cannot_read(error: io::Error) -> Error {
    Error::new("cannot read").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn nothing_beyond_the_end_is_taken_or_skipped() {
        let mut file = Cursor::new(vec![1, 0, 0, 0, 7]);
        let mut input = Input::new(&mut file, 5).unwrap();
        assert_eq!(input.u32().unwrap(), 1);
        assert!(input.u32().unwrap_err().one_line().contains("beyond the end"));
        for length in [2, u64::MAX] {
            assert!(input.read_bytes(length).is_err());
            assert!(input.skip(length).is_err());
        }
        assert!(input.seek(6).is_err());
        assert_eq!((input.at(), input.u8().unwrap(), input.left()), (4, 7, 0));
    }

    #[test]
    fn memory_has_a_limit_for_the_whole_file() {
        let mut file = Cursor::new(vec![0; 1 << 20]);
        let mut input = Input::new(&mut file, 1 << 20).unwrap();
        let taken =
            (0..200).map_while(|_| input.seek(0).and_then(|()| input.read_bytes(1 << 20)).ok()).count();
        assert_eq!(taken as u64, MAX_HEADER >> 20);
    }

    #[test]
    fn what_a_file_grew_by_is_not_read() {
        let mut file = Cursor::new([1, 2, 3, 4]);
        let mut input = Input::new(&mut file, 2).unwrap();
        let mut all = Vec::new();
        input.read_to_end(&mut all).unwrap();
        assert_eq!((all, input.left()), (vec![1, 2], 0));
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut file = Cursor::new(vec![0; 8]);
        let mut input = Input::new(&mut file, u64::MAX).unwrap();
        assert!(input.read_bytes(16).unwrap_err().one_line().starts_with("cannot read: "));
    }
}
