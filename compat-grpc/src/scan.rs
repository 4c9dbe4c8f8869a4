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
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.take_varint()?;
        let number = tag >> 3;
        if number == 0 || number > MAX_FIELD_NUMBER {
            let expected = "a field number from 1 to 536870911";
            return Err(self.unexpected(expected, number));
        }
        let value = match tag & 7 {
            WIRE_VARINT => Value::Varint(self.take_varint()?),
            WIRE_BYTES => {
                let len = self.take_varint()?;
                Value::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            WIRE_FIXED64 => self.take(8).map(|_| Value::Fixed)?,
            WIRE_FIXED32 => self.take(4).map(|_| Value::Fixed)?,
            got => return Err(self.unexpected("wire type 0, 1, 2 or 5", got)),
        };
        Ok(Some((number as u32, value)))
    }

    #[inline(always)]
    fn take_varint(&mut self) -> Result<u64, DecodeError> {
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let decoded = match self.rest.first_chunk() {
            Some(bytes) => decode_long_varint(bytes),
            None => self.decode_last_varint(),
        };
        let Some((value, len)) = decoded else { return Err(self.broken_varint()) };
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Decodes a varint near the end of the input, where less than the longest may be left.
    #[cold]
    fn decode_last_varint(&self) -> Option<(u64, usize)> {
        let mut bytes = [0; MAX_VARINT_BYTES];
        bytes[..self.rest.len()].copy_from_slice(self.rest);
        decode_long_varint(&bytes).filter(|(_, len)| *len <= self.rest.len())
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.truncated(len));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[cold]
    fn broken_varint(&self) -> DecodeError {
        match self.rest.get(MAX_VARINT_BYTES - 1) {
            Some(byte) => self.unexpected("a varint of at most 64 bits", u64::from(*byte)),
            None => self.truncated(self.rest.len() + 1),
        }
    }

    #[cold]
    fn truncated(&self, expected: usize) -> DecodeError {
        DecodeError::Truncated { field: self.message, expected, got: self.rest.len() }
    }

    #[cold]
    fn unexpected(&self, expected: &'static str, got: u64) -> DecodeError {
        DecodeError::Unexpected { field: self.message, expected, got }
    }
}

/// Decodes a varint at the start of `bytes`: its value and length; `None` if it exceeds 64 bits.
///
/// The hashes of names are nearly always nine or ten bytes long, eight of them in each message,
/// so this is most of reading a header: eight bytes are taken together and their 7-bit groups
/// moved together in three steps, instead of a byte at a time.
#[inline(always)]
fn decode_long_varint(bytes: &[u8; MAX_VARINT_BYTES]) -> Option<(u64, usize)> {
    const LAST_BYTE_MARKS: u64 = 0x8080_8080_8080_8080;
    let [low @ .., ninth, tenth] = bytes;
    let low = u64::from_le_bytes(*low);
    let ends = !low & LAST_BYTE_MARKS;
    if ends != 0 {
        let bits = ends.trailing_zeros() + 1;
        return Some((join_groups(low & (u64::MAX >> (64 - bits))), bits as usize / 8));
    }
    let value = join_groups(low) | u64::from(*ninth & 0x7F) << 56;
    match (ninth, tenth) {
        (..0x80, _) => Some((value, 9)),
        (_, 0 | 1) => Some((value | u64::from(*tenth) << 63, 10)),
        _ => None,
    }
}

/// Eight groups of 7 bits, each in a byte, moved together to 56 bits.
#[inline(always)]
const fn join_groups(bytes: u64) -> u64 {
    let x = bytes & 0x7F7F_7F7F_7F7F_7F7F;
    let x = (x & 0x007F_007F_007F_007F) | (x & 0x7F00_7F00_7F00_7F00) >> 1;
    let x = (x & 0x0000_3FFF_0000_3FFF) | (x & 0x3FFF_0000_3FFF_0000) >> 2;
    (x & 0x0FFF_FFFF) | (x & 0x0FFF_FFFF_0000_0000) >> 4
}

const MAX_VARINT_BYTES: usize = 10;
const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;

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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn varints_of_every_length_read_as_the_generated_encoder_writes_them(
            value: u64, shift in 0..64u32, tail in proptest::collection::vec(any::<u8>(), 0..12)
        ) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            prost::encoding::encode_key(1, prost::encoding::WireType::Varint, &mut bytes);
            prost::encoding::encode_varint(value, &mut bytes);
            let len = bytes.len();
            bytes.extend(&tail);
            let mut fields = Fields::new("message", &bytes);
            prop_assert_eq!(fields.next(), Ok(Some((1, Value::Varint(value)))));
            prop_assert_eq!(fields.remaining(), tail.len());
            let cut = Fields::new("message", &bytes[..len - 1]).next();
            prop_assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{:?}", cut);
        }
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
