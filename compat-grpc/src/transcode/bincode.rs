//! Names in the bincode form of release 0.6: little endian, integers of variable length.
//!
//! Reading accepts only what writing produces, so that what was read can be written back.

use slim_wire::limits::NAME_COMPONENT_BYTES;
use slim_wire::session::{ArchivedFullName, FullName};
use slim_wire::{Id, Name, Prefix};

use super::TranscodeError;

const U16: u8 = 0xFB;
const U32: u8 = 0xFC;
const U64: u8 = 0xFD;

/// The name at the start of `bytes`, which move on behind it.
pub(super) fn read_name(bytes: &mut &[u8]) -> Option<FullName> {
    let mut numbers = [0; 4];
    for number in &mut numbers {
        *number = read_integer(bytes)?;
    }
    let [org, namespace, app, id] = numbers;
    let name = Name { prefix: Prefix([org, namespace, app]), id: Id::from_u64(id) };
    let texts = match read_bool(bytes)? {
        false => None,
        true => Some([read_text(bytes)?, read_text(bytes)?, read_text(bytes)?]),
    };
    Some(FullName { name, texts: texts.map(|texts| texts.map(Box::from)) })
}

/// The name that `bytes` are, and nothing else.
pub(super) fn read_only_name(mut bytes: &[u8]) -> Option<FullName> {
    read_name(&mut bytes).filter(|_| bytes.is_empty())
}

pub(super) fn read_bool(bytes: &mut &[u8]) -> Option<bool> {
    match take(bytes, 1)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

pub(super) fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(read_integer(bytes)?).ok()?;
    let text = str::from_utf8(take(bytes, length)?).ok()?;
    (length <= NAME_COMPONENT_BYTES).then_some(text)
}

/// An integer in its shortest form.
pub(super) fn read_integer(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let width = match first {
        U16 => 2,
        U32 => 4,
        U64 => 8,
        short if short < U16 => return Some(short.into()),
        _ => return None,
    };
    let mut little_endian = [0; 8];
    little_endian[..width].copy_from_slice(take(bytes, width)?);
    let value = u64::from_le_bytes(little_endian);
    (width_of(value) == width).then_some(value)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Bytes that an integer takes behind the first; 0 if it is the first.
fn width_of(value: u64) -> usize {
    match value {
        short if short < u64::from(U16) => 0,
        0..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    }
}

/// Appends a name; `field` is what it is in the message.
pub(super) fn write_name(
    name: &ArchivedFullName,
    field: &'static str,
    out: &mut Vec<u8>,
) -> Result<(), TranscodeError> {
    let Name { prefix, id } = name.name();
    let id = id.to_u64().ok_or(TranscodeError::WideId { field, got: id })?;
    write_parts(prefix, id, name.texts(), out);
    Ok(())
}

/// Appends a name with an id of 64 bits.
pub(crate) fn write_parts(prefix: Prefix, id: u64, texts: Option<[&str; 3]>, out: &mut Vec<u8>) {
    prefix.0.into_iter().chain([id]).for_each(|number| write_integer(number, out));
    out.push(texts.is_some().into());
    for text in texts.into_iter().flatten() {
        write_integer(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends an integer.
pub(super) fn write_integer(value: u64, out: &mut Vec<u8>) {
    let width = width_of(value);
    out.push(match width {
        2 => U16,
        4 => U32,
        8 => U64,
        _ => value as u8,
    });
    out.extend_from_slice(&value.to_le_bytes()[..width]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_reads_as_an_integer_is_what_writing_it_gives(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0xFA..=0xFFu8], 0..12)
        ) {
            let mut rest = &bytes[..];
            if let Some(value) = read_integer(&mut rest) {
                let mut written = Vec::new();
                write_integer(value, &mut written);
                prop_assert_eq!(&written[..], &bytes[..bytes.len() - rest.len()]);
            }
        }

        #[test]
        fn every_integer_survives(value: u64, shift in 0..64u32) {
            let mut written = Vec::new();
            write_integer(value >> shift, &mut written);
            prop_assert_eq!(read_integer(&mut &written[..]), Some(value >> shift));
        }
    }

    #[test]
    fn integers_have_the_captured_forms() {
        for (value, form) in [
            (250, &[250][..]),
            (251, &[0xFB, 251, 0]),
            (0x1_0000, &[0xFC, 0, 0, 1, 0]),
            (0x873e_5803_76ea_963b, &[0xFD, 0x3B, 0x96, 0xEA, 0x76, 3, 0x58, 0x3E, 0x87]),
        ] {
            let mut written = Vec::new();
            write_integer(value, &mut written);
            assert_eq!(written, form);
        }
    }
}
