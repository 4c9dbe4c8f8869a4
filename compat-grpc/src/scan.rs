//! A strict reader of protobuf fields in place: no allocation, no copy.

use slim_wire::DecodeError;

/// The value of one field as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed-width values; no published SLIM schema has any, so they are only skipped.
    Fixed,
}

impl<'a> Value<'a> {
    pub(crate) fn varint(self, field: &'static str) -> Result<u64, DecodeError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.wrong_type(field, "a varint")),
        }
    }

    pub(crate) fn bytes(self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong_type(field, "a length-delimited value")),
        }
    }

    pub(crate) fn text(self, field: &'static str) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes(field)?)
            .map_err(|error| DecodeError::NotUtf8 { field, offset: error.valid_up_to() })
    }

    fn wrong_type(self, field: &'static str, expected: &'static str) -> DecodeError {
        let got = match self {
            Self::Varint(_) => WIRE_VARINT,
            Self::Bytes(_) => WIRE_BYTES,
            Self::Fixed => WIRE_FIXED64,
        };
        DecodeError::Unexpected { field, expected, got }
    }
}

const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

/// The fields of one message, in the order of the wire.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `message` names the message in errors.
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    /// Bytes not read yet; with the input's length this tells where a field lies.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.take_varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > MAX_FIELD_NUMBER {
            return Err(DecodeError::Unexpected {
                field: self.message,
                expected: "a field number from 1 to 536870911",
                got: tag >> 3,
            });
        }
        let value = match tag & 7 {
            WIRE_VARINT => Value::Varint(self.take_varint()?),
            WIRE_BYTES => {
                let len = self.take_varint()?;
                Value::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            WIRE_FIXED64 => self.take(8).map(|_| Value::Fixed)?,
            WIRE_FIXED32 => self.take(4).map(|_| Value::Fixed)?,
            got => {
                let expected = "wire type 0, 1, 2 or 5";
                return Err(DecodeError::Unexpected { field: self.message, expected, got });
            }
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn take_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (index, &byte) in self.rest.iter().enumerate().take(MAX_VARINT_BYTES) {
            let bits = u64::from(byte & 0x7F);
            if index == MAX_VARINT_BYTES - 1 && byte > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        if self.rest.len() < MAX_VARINT_BYTES {
            return Err(DecodeError::Truncated { field: self.message, expected: 1, got: 0 });
        }
        let expected = "a varint of at most 64 bits";
        let got = u64::from(self.rest[MAX_VARINT_BYTES - 1]);
        Err(DecodeError::Unexpected { field: self.message, expected, got })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let got = self.rest.len();
            return Err(DecodeError::Truncated { field: self.message, expected: len, got });
        };
        self.rest = rest;
        Ok(taken)
    }
}

const MAX_VARINT_BYTES: usize = 10;
const MAX_FIELD_NUMBER: u32 = (1 << 29) - 1;

/// Sets `slot`, and refuses a second value: protobuf would merge the two, and a node that reads
/// one while the receiver reads the other could be steered.
pub(crate) fn set_once<T>(
    slot: &mut Option<T>,
    value: T,
    field: &'static str,
) -> Result<(), DecodeError> {
    if slot.replace(value).is_some() {
        return Err(DecodeError::Unexpected { field, expected: "one value", got: 2 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_field(bytes: &[u8]) -> Result<Option<(u32, Value<'_>)>, DecodeError> {
        Fields::new("message", bytes).next()
    }

    #[test]
    fn a_varint_may_use_all_64_bits_and_no_more() {
        let mut bytes = vec![0x08];
        bytes.extend([0xFF; 9]);
        bytes.push(1);
        assert_eq!(only_field(&bytes), Ok(Some((1, Value::Varint(u64::MAX)))));
        *bytes.last_mut().expect("not empty") = 2;
        assert!(matches!(only_field(&bytes), Err(DecodeError::Unexpected { .. })));
    }

    #[test]
    fn a_length_beyond_the_end_is_truncation_not_a_panic() {
        for bytes in [&[0x0A, 5, 1][..], &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0x0A], &[0x80]] {
            let error = only_field(bytes).expect_err("truncated");
            assert!(matches!(error, DecodeError::Truncated { .. }), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn groups_and_field_number_zero_are_refused() {
        for bytes in [&[0x0B][..], &[0x0C], &[0x00, 0x00], &[0x02, 0x00]] {
            assert!(matches!(only_field(bytes), Err(DecodeError::Unexpected { .. })), "{bytes:?}");
        }
    }
}
