//! The wire format of protocol buffers: <https://protobuf.dev/programming-guides/encoding/>.

use super::input::Input;
use crate::error::{Error, Result};

/// The value of a field.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// A number of variable length.
    Number(u64),
    /// So many bytes, which begin at the position: a message, a text, packed numbers or a number of fixed length.
    Bytes(u64),
}

/// Calls `each` with the number and value of each field of the message from the position to `end`.
///
/// `each` may leave the position anywhere. It never gets more bytes than the message has, so messages nest only as deep as
/// the code that reads them.
pub(super) fn fields<'a>(
    input: &mut Input<'a>,
    end: u64,
    mut each: impl FnMut(&mut Input<'a>, u64, Value) -> Result<()>,
) -> Result<()> {
    while input.at() < end {
        let key = varint(input)?;
        let (field, wire) = (key >> 3, key & 7);
        let value = match wire {
            0 => Value::Number(varint(input)?),
            1 => Value::Bytes(8),
            2 => Value::Bytes(varint(input)?),
            5 => Value::Bytes(4),
            _ => return Err(Error::new(format!("wire type {wire} at position {}", input.at()))),
        };
        let length = match value {
            Value::Number(_) => 0,
            Value::Bytes(length) => length,
        };
        let next = input.at().checked_add(length).filter(|&next| next <= end && field > 0);
        let Some(next) = next else {
            return Err(Error::new(format!("field {field} runs beyond the end of its message")));
        };
        each(input, field, value)?;
        input.seek(next)?;
    }
    Ok(())
}

/// Calls `each` with every number that is packed into the next `length` bytes.
pub(super) fn packed(
    input: &mut Input<'_>,
    length: u64,
    mut each: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let end = input.at() + length;
    while input.at() < end {
        each(varint(input)?)?;
    }
    if input.at() > end {
        return Err(Error::new(format!("a packed number runs beyond position {end}")));
    }
    Ok(())
}

/// A number of variable length: seven bits in each byte, the lowest first.
fn varint(input: &mut Input<'_>) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = input.u8()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::new(format!("a number that ends at position {} is larger than 64 bits", input.at())))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn number(bytes: &[u8]) -> Result<u64> {
        varint(&mut Input::new(&mut Cursor::new(bytes), bytes.len() as u64)?)
    }

    #[test]
    fn numbers_have_64_bits() {
        assert_eq!(number(&[0x96, 0x01]).unwrap(), 150);
        assert_eq!(number(&[&[0xff; 9][..], &[1]].concat()).unwrap(), u64::MAX);
        for bad in [&[][..], &[0x80], &[0xff; 10], &[&[0xff; 9][..], &[2]].concat(), &[0x80; 11]] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn packed_numbers_end_with_their_field() {
        let mut file = Cursor::new([1, 0x80, 1, 7]);
        let mut input = Input::new(&mut file, 4).unwrap();
        let mut found = Vec::new();
        packed(&mut input, 3, |number| {
            found.push(number);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [1, 128]);
        input.seek(0).unwrap();
        assert!(packed(&mut input, 2, |_| Ok(())).is_err());
    }

    #[test]
    fn a_field_ends_in_its_message() {
        let message = [0x08, 1, 0x12, 2, 9, 9, 0x1d, 0, 0, 0, 0];
        let mut found = Vec::new();
        let mut file = Cursor::new(message);
        let mut input = Input::new(&mut file, 11).unwrap();
        fields(&mut input, 11, |_, field, _| {
            found.push(field);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [1, 2, 3]);
        for end in [1, 3, 5, 8] {
            input.seek(0).unwrap();
            assert!(fields(&mut input, end, |_, _, _| Ok(())).is_err(), "{end}");
        }
        for bad in [[0x0b, 0], [0x00, 0], [0x0f, 0]] {
            let mut file = Cursor::new(bad);
            let mut input = Input::new(&mut file, 2).unwrap();
            assert!(fields(&mut input, 2, |_, _, _| Ok(())).is_err(), "{bad:?}");
        }
    }
}
