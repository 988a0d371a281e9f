//! How far two tensors of the same type and shape are apart. The only place where tensor data is read.

use std::io::{self, Read};

/// Elements that are converted and summed up at a time; they stay in the processor's first cache.
const BLOCK: usize = 1024;
/// Bytes that are read at a time: a whole number of blocks of every type.
const BUFFER: usize = 64 * 1024;
/// Sums that are kept side by side, so that the compiler can use vector instructions.
const LANES: usize = 4;

/// An element type whose values can be compared; all are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 with 32 bits.
    F32,
    /// IEEE 754 with 16 bits.
    F16,
    /// The upper half of [`Dtype::F32`].
    Bf16,
}

impl Dtype {
    /// The type with this name in any of the formats, when it is one of these.
    pub fn from_name(name: &str) -> Option<Dtype> {
        match name {
            "F32" | "FLOAT" | "float32" => Some(Dtype::F32),
            "F16" | "FLOAT16" | "float16" => Some(Dtype::F16),
            "BF16" | "BFLOAT16" | "bfloat16" => Some(Dtype::Bf16),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// The distance of a tensor b from a tensor a.
///
/// Elements that are not a number in a or b are counted and otherwise left out. Equal infinities have no distance and do
/// not count for the norm of a; an infinity that has become another value makes both distances infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// ‖a − b‖ / ‖a‖ in the Euclidean norm. When ‖a‖ is 0: 0 if nothing differs, else infinite.
    pub relative_l2: f64,
    /// The largest |aᵢ − bᵢ|.
    pub max_abs: f64,
    /// Elements that are not a number in a, in b or in both.
    pub nan: u64,
}

/// Reads `bytes` bytes of both tensors and compares them. Fails when either ends before, or when `bytes` is not a whole
/// number of elements.
pub fn distance(a: &mut impl Read, b: &mut impl Read, bytes: u64, dtype: Dtype) -> io::Result<Distance> {
    if !bytes.is_multiple_of(dtype.bytes() as u64) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a whole number of elements"));
    }
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut sums = Sums::default();
    let mut rest = bytes;
    while rest > 0 {
        let length = rest.min(BUFFER as u64) as usize;
        let (left, right) = (&mut left[..length], &mut right[..length]);
        a.read_exact(left)?;
        b.read_exact(right)?;
        sums.add(left, right, dtype);
        rest -= length as u64;
    }
    Ok(sums.finish())
}

/// What is summed up, in lanes.
#[derive(Default)]
struct Sums {
    /// Squares of a.
    norm: [f64; LANES],
    /// Squares of the differences.
    difference: [f64; LANES],
    /// The largest difference.
    max: [f64; LANES],
    nan: u64,
}

impl Sums {
    fn add(&mut self, left: &[u8], right: &[u8], dtype: Dtype) {
        let equal = left == right;
        let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
        let block = BLOCK * dtype.bytes();
        for (left, right) in left.chunks(block).zip(right.chunks(block)) {
            let count = left.len() / dtype.bytes();
            // Zeros change no sum, so a last block that is not full is filled up with them.
            a[count..].fill(0.0);
            decode(left, &mut a[..count], dtype);
            if equal {
                self.add_equal(&a);
            } else {
                b[count..].fill(0.0);
                decode(right, &mut b[..count], dtype);
                self.add_different(&a, &b);
            }
        }
    }

    /// Adds elements that are the same in a and b.
    fn add_equal(&mut self, a: &[f32; BLOCK]) {
        if !is_finite(a) {
            return self.add_each(a, a);
        }
        for a in a.as_chunks::<LANES>().0 {
            for (norm, &a) in self.norm.iter_mut().zip(a) {
                *norm += square(a.into());
            }
        }
    }

    fn add_different(&mut self, a: &[f32; BLOCK], b: &[f32; BLOCK]) {
        if !(is_finite(a) && is_finite(b)) {
            return self.add_each(a, b);
        }
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let (a, b) = (f64::from(a[lane]), f64::from(b[lane]));
                let difference = (a - b).abs();
                self.norm[lane] += square(a);
                self.difference[lane] += square(difference);
                self.max[lane] = if difference > self.max[lane] { difference } else { self.max[lane] };
            }
        }
    }

    /// Adds a block in which something is infinite or not a number, with all the care that takes.
    fn add_each(&mut self, a: &[f32; BLOCK], b: &[f32; BLOCK]) {
        for (&a, &b) in a.iter().zip(b) {
            if a.is_nan() || b.is_nan() {
                self.nan += 1;
                continue;
            }
            if a.is_finite() {
                self.norm[0] += square(a.into());
            }
            // The difference of equal infinities would not be a number.
            if a != b {
                let difference = (f64::from(a) - f64::from(b)).abs();
                self.difference[0] += square(difference);
                self.max[0] = self.max[0].max(difference);
            }
        }
    }

    fn finish(self) -> Distance {
        let norm: f64 = self.norm.iter().sum();
        let difference: f64 = self.difference.iter().sum();
        let relative_l2 = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
        Distance { relative_l2, max_abs: self.max.into_iter().fold(0.0, f64::max), nan: self.nan }
    }
}

/// Looks at every element, since stopping early would keep the compiler from using vector instructions.
fn is_finite(values: &[f32; BLOCK]) -> bool {
    values.iter().fold(true, |finite, value| finite & value.is_finite())
}

fn square(value: f64) -> f64 {
    value * value
}

fn decode(bytes: &[u8], values: &mut [f32], dtype: Dtype) {
    match dtype {
        Dtype::F32 => decode_each(bytes, values, f32::from_le_bytes),
        Dtype::F16 => decode_each(bytes, values, |pair| half_to_single(u16::from_le_bytes(pair))),
        Dtype::Bf16 => {
            decode_each(bytes, values, |pair| f32::from_bits(u32::from(u16::from_le_bytes(pair)) << 16));
        }
    }
}

fn decode_each<const N: usize>(bytes: &[u8], values: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = decode(*bytes);
    }
}

/// Converts a half without branches, and without the slow arithmetic on subnormal numbers.
fn half_to_single(half: u16) -> f32 {
    /// What the exponent of a single is larger by, in place.
    const REBIAS: u32 = (127 - 15) << 23;
    /// 2⁻¹⁴, the smallest normal half: what a subnormal one lacks is its leading one, which is added and taken away.
    const SMALLEST: u32 = REBIAS + (1 << 23);
    let half = u32::from(half);
    let magnitude = (half & 0x7fff) << 13;
    let exponent = half & 0x7c00;
    let normal = magnitude + if exponent == 0x7c00 { 2 * REBIAS } else { REBIAS };
    let subnormal = f32::from_bits(magnitude + SMALLEST) - f32::from_bits(SMALLEST);
    let magnitude = if exponent == 0 { subnormal.to_bits() } else { normal };
    f32::from_bits(magnitude | (half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_singles(a: &[f32], b: &[f32]) -> Distance {
        let bytes =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        distance(&mut &bytes(a)[..], &mut &bytes(b)[..], 4 * a.len() as u64, Dtype::F32).unwrap()
    }

    #[test]
    fn every_half_is_converted_exactly() {
        for half in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 1023) / 1024.0);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-14),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let expected = if half & 0x8000 == 0 { magnitude } else { -magnitude };
            let single = f64::from(half_to_single(half));
            assert!(single == expected || single.is_nan() && expected.is_nan(), "{half:#x}: {single}");
            assert_eq!(single.is_sign_negative(), half & 0x8000 != 0, "{half:#x}");
        }
    }

    #[test]
    fn measures() {
        let distance = of_singles(&[3.0, 4.0, 0.0], &[3.0, 4.0, 1.0]);
        assert_eq!(distance, Distance { relative_l2: 0.2, max_abs: 1.0, nan: 0 });
        assert_eq!(of_singles(&[1.0; 5], &[1.0; 5]), Distance { relative_l2: 0.0, max_abs: 0.0, nan: 0 });
        assert_eq!(of_singles(&[0.0, -0.0], &[-0.0, 0.0]).relative_l2, 0.0);
        assert_eq!(of_singles(&[0.0], &[1.0]).relative_l2, f64::INFINITY);
        assert_eq!(of_singles(&[], &[]), Distance { relative_l2: 0.0, max_abs: 0.0, nan: 0 });
        // Squares that no single can hold.
        assert_eq!(of_singles(&[f32::MAX], &[-f32::MAX]).relative_l2, 2.0);
    }

    #[test]
    fn what_is_not_a_number_is_counted_and_left_out() {
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        let expected = Distance { relative_l2: 0.5, max_abs: 1.0, nan: 3 };
        assert_eq!(of_singles(&[nan, nan, 9.0, 2.0, infinite], &[nan, 7.0, nan, 1.0, infinite]), expected);
        assert_eq!(of_singles(&[1.0, 2.0], &[nan, 1.0]), Distance { nan: 1, ..expected });
        let same = [nan, 2.0, infinite];
        assert_eq!(of_singles(&same, &same), Distance { relative_l2: 0.0, max_abs: 0.0, nan: 1 });
        for (a, b) in [(infinite, 1.0), (1.0, infinite), (infinite, -infinite)] {
            let distance = of_singles(&[a, 2.0], &[b, 2.0]);
            assert_eq!((distance.relative_l2, distance.max_abs), (f64::INFINITY, f64::INFINITY), "{a} {b}");
        }
    }

    #[test]
    fn equal_chunks_count_for_the_norm() {
        // The first buffers are equal, the last ones, which are not full, differ in one element.
        let a = vec![1.0; BUFFER / 2 + 13];
        let mut b = a.clone();
        *b.last_mut().unwrap() = 3.0;
        let distance = of_singles(&a, &b);
        let expected = (4.0 / a.len() as f64).sqrt();
        assert!((distance.relative_l2 - expected).abs() < 1e-12, "{distance:?}");
        assert_eq!(distance.max_abs, 2.0);
    }

    #[test]
    fn a_block_that_is_not_full_holds_nothing_of_the_one_before() {
        let a = [[5.0; BLOCK].as_slice(), &[1.0; 13]].concat();
        let b = [[5.0; BLOCK].as_slice(), &[2.0; 13]].concat();
        let norm = (25 * BLOCK + 13) as f64;
        assert_eq!(of_singles(&a, &b).relative_l2, (13.0 / norm).sqrt());
    }

    #[test]
    fn halves_are_compared_by_value() {
        // 1 and 2 as halves and as the upper halves of singles; the signs of zero are equal.
        for (dtype, one, two) in [(Dtype::F16, 0x3c00u16, 0x4000u16), (Dtype::Bf16, 0x3f80, 0x4000)] {
            let bytes = |values: [u16; 3]| values.map(u16::to_le_bytes).concat();
            let (a, b) = (bytes([one, two, 0]), bytes([two, two, 0x8000]));
            let distance = distance(&mut &a[..], &mut &b[..], 6, dtype).unwrap();
            assert_eq!((distance.max_abs, distance.relative_l2), (1.0, 0.2f64.sqrt()), "{dtype:?}");
        }
    }

    #[test]
    fn a_part_of_an_element_or_a_short_file_is_an_error() {
        let read =
            |bytes, length| distance(&mut &[0u8; 8][..], &mut &vec![0u8; length][..], bytes, Dtype::F32);
        assert_eq!(read(6, 8).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read(12, 12).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(8, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read(8, 8).is_ok());
    }

    #[test]
    fn names_of_all_formats_are_known() {
        for (name, dtype) in [("F32", Dtype::F32), ("FLOAT16", Dtype::F16), ("bfloat16", Dtype::Bf16)] {
            assert_eq!(Dtype::from_name(name), Some(dtype));
        }
        assert_eq!(Dtype::from_name("F64"), None);
    }
}
