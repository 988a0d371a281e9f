//! gzip without compression (RFC 1952, stored blocks of RFC 1951): weights do not compress, tools that would compress a plain tar
//! again leave this as it is, and its bytes depend on no library's idea of good compression.

use std::io::{self, Write};

use flate2::Crc;

/// The longest stored block.
const BLOCK: usize = 65_535;
/// Magic, method, no flags, no time, no level, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Writes what it is given as a gzip stream.
#[derive(Debug)]
pub struct StoredGzip<W: Write> {
    to: W,
    block: Vec<u8>,
    crc: Crc,
    begun: bool,
}

impl<W: Write> StoredGzip<W> {
    /// A stream to `to`.
    pub fn new(to: W) -> Self {
        StoredGzip { to, block: Vec::with_capacity(BLOCK), crc: Crc::new(), begun: false }
    }

    /// Ends the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_block(true)?;
        self.to.write_all(&self.crc.sum().to_le_bytes())?;
        self.to.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.to)
    }

    fn write_block(&mut self, last: bool) -> io::Result<()> {
        if !self.begun {
            self.to.write_all(&HEADER)?;
            self.begun = true;
        }
        let length = u16::try_from(self.block.len()).expect("a block is no longer than its length can say");
        let [low, high] = length.to_le_bytes();
        self.to.write_all(&[u8::from(last), low, high, !low, !high])?;
        self.to.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for StoredGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        self.crc.update(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.write_block(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A block is cut by its length alone, or the bytes would depend on who flushes when.
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_gzip_reader_takes_it_and_pieces_do_not_matter() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut whole = StoredGzip::new(Vec::new());
            whole.write_all(&bytes).unwrap();
            let whole = whole.finish().unwrap();
            let mut pieces = StoredGzip::new(Vec::new());
            for piece in bytes.chunks(1000) {
                pieces.write_all(piece).unwrap();
                pieces.flush().unwrap();
            }
            assert_eq!(pieces.finish().unwrap(), whole);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, bytes);
        }
    }
}
