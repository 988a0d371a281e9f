//! SHA-256 digests: the names of objects.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::Sha256;

/// The SHA-256 of an object's bytes, which is its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes 32 bytes that already are a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// Parses 64 lowercase hex digits; nothing else is a digest.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Digest(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lowercase hex digits.
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(DIGITS[usize::from(byte >> 4)] as char);
            hex.push(DIGITS[usize::from(byte & 15)] as char);
        }
        hex
    }

    /// The first twelve hex digits, for people.
    pub fn short(self) -> String {
        let mut hex = self.to_hex();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.to_hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        Digest::from_hex(&hex)
            .ok_or_else(|| serde::de::Error::custom("a SHA-256 is written as 64 lowercase hex digits"))
    }
}

/// Hashes bytes as they pass.
#[derive(Clone)]
pub struct Hasher(Engine);

/// Who computes.
#[derive(Clone)]
enum Engine {
    /// `sha2`, by the processor's own instructions for SHA-256 wherever it has some.
    Instructions(Sha256),
    /// AWS-LC's vector code: without such instructions twice as fast as `sha2`.
    Vectors(aws_lc_rs::digest::Context),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Engine::Instructions(engine) => engine.update(bytes),
            Engine::Vectors(engine) => engine.update(bytes),
        }
    }

    /// The digest of everything so far.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            Engine::Instructions(engine) => engine.finalize().into(),
            Engine::Vectors(engine) => engine.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"),
        })
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(if prefers_vectors() { Engine::vectors() } else { Engine::Instructions(Sha256::new()) })
    }
}

impl Engine {
    fn vectors() -> Engine {
        Engine::Vectors(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

/// Whether this processor has no instructions for SHA-256 and AWS-LC has code for it.
fn prefers_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::arch::is_x86_feature_detected!("sha");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_is_strict() {
        let empty = Digest::of(b"");
        assert_eq!(empty.to_hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::from_hex(&empty.to_hex()), Some(empty));
        assert_eq!(Digest::from_hex(&empty.to_hex().to_uppercase()), None);
        assert_eq!(Digest::from_hex("e3"), None);
        assert_eq!(empty.short(), "e3b0c44298fc");
    }

    #[test]
    fn whoever_computes_the_digest_is_the_same() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        for cut in [0, 1, 63, 64, 65, 4_096, 99_999, 100_000] {
            let digest = |engine: Engine| {
                let mut hasher = Hasher(engine);
                hasher.update(&bytes[..cut]);
                let first = hasher.clone().finish();
                hasher.update(&bytes[cut..]);
                (first, hasher.finish())
            };
            let instructions = digest(Engine::Instructions(Sha256::new()));
            assert_eq!(instructions, digest(Engine::vectors()), "{cut}");
            assert_eq!(instructions.1, Digest::of(&bytes));
        }
    }
}
