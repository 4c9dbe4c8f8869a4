//! Copies of a message with its routing header changed.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use slim_wire::{DecodeError, Pieces};

use crate::layout::{BODY_HEADER, D20, Layout, PUBLISH};
use crate::scan::{Fields, Value};

/// The message without the header fields that steer a node.
pub(crate) fn clear_steering<L: Layout>(message: &[u8]) -> Result<Bytes, DecodeError> {
    let placed = Placed::find(message)?;
    let mut header = BytesMut::with_capacity(placed.header.value.len());
    copy_header::<L>(message, &placed, &[], &mut header)?;
    let mut cleared = BytesMut::with_capacity(message.len());
    cleared.put_slice(&message[..placed.publish.whole.start]);
    encode_key(PUBLISH, WireType::LengthDelimited, &mut cleared);
    let publish = placed.publish_without_header() + header_field_len(header.len());
    encode_varint(publish as u64, &mut cleared);
    cleared.put_slice(&message[placed.publish.value.start..placed.header.whole.start]);
    put_header(&header, &mut cleared);
    cleared.put_slice(&message[placed.header.whole.end..]);
    Ok(cleared.freeze())
}

/// Length of a header's authentication code in bytes.
pub(crate) const MAC_BYTES: usize = 32;

/// A publish of D20 as a node forwards it: the routing header by itself, with the hop limit set
/// to `ttl`, without what steers a node, and ending in room for an authentication code; then all
/// the rest as it came. Copies the header only, if it comes first as clients write it.
///
/// # Errors
/// [`DecodeError`] if the message is no publish that a dialect could read.
pub fn prepare(message: &Bytes, ttl: u8) -> Result<Pieces, DecodeError> {
    let known = const { D20::HEADER };
    let placed = Placed::find(message)?;
    let mut header = BytesMut::with_capacity(placed.header.value.len() + MAC_BYTES + 16);
    copy_header::<D20>(
        message,
        &placed,
        &[known.ttl, known.mac, known.incoming_conn],
        &mut header,
    )?;
    prost::encoding::uint32::encode(known.ttl, &u32::from(ttl), &mut header);
    encode_key(known.mac, WireType::LengthDelimited, &mut header);
    encode_varint(MAC_BYTES as u64, &mut header);
    header.put_bytes(0, MAC_BYTES);

    let mut head = BytesMut::with_capacity(header.len() + HEAD_TAGS_BYTES);
    encode_key(PUBLISH, WireType::LengthDelimited, &mut head);
    let publish = placed.publish_without_header() + header_field_len(header.len());
    encode_varint(publish as u64, &mut head);
    put_header(&header, &mut head);
    let mut pieces = Pieces::new();
    pieces.push(head.freeze());
    pieces.push(placed.rest(message));
    Ok(pieces)
}

/// Room for the tags and lengths before a header.
const HEAD_TAGS_BYTES: usize = 16;

/// The header of a prepared publish, which ends with its authentication code.
pub(crate) fn prepared_header(head: &[u8]) -> Option<&[u8]> {
    let mut rest = head;
    for _ in 0..2 {
        prost::encoding::decode_varint(&mut rest).ok()?;
        prost::encoding::decode_varint(&mut rest).ok()?;
    }
    (rest.len() > MAC_BYTES).then_some(rest)
}

/// Copies the fields of the header but those that steer a node, and those in `without`.
fn copy_header<L: Layout>(
    message: &[u8],
    placed: &Placed,
    without: &[u32],
    copy: &mut BytesMut,
) -> Result<(), DecodeError> {
    let known = const { L::HEADER };
    let header = &message[placed.header.value.clone()];
    let mut fields = Fields::new("header", header);
    let mut start = 0;
    while let Some((number, _)) = fields.next()? {
        let end = header.len() - fields.remaining();
        let steers = number == known.recv_from || number == known.forward_to;
        if !steers && !without.contains(&number) {
            copy.put_slice(&header[start..end]);
        }
        start = end;
    }
    Ok(())
}

fn header_field_len(header: usize) -> usize {
    1 + encoded_len_varint(header as u64) + header
}

fn put_header(header: &[u8], to: &mut BytesMut) {
    encode_key(BODY_HEADER, WireType::LengthDelimited, to);
    encode_varint(header.len() as u64, to);
    to.put_slice(header);
}

/// Where a publish and its header lie in their message.
struct Placed {
    publish: Field,
    header: Field,
}

/// Where a field lies: with its tag and length, and its value.
struct Field {
    whole: Range<usize>,
    value: Range<usize>,
}

impl Placed {
    fn find(message: &[u8]) -> Result<Self, DecodeError> {
        let publish = Field::find(message, 0, "message", PUBLISH, "publish")?;
        let (body, at) = (&message[publish.value.clone()], publish.value.start);
        let header = Field::find(body, at, "publish", BODY_HEADER, "header")?;
        Ok(Self { publish, header })
    }

    fn publish_without_header(&self) -> usize {
        self.publish.value.len() - self.header.whole.len()
    }

    /// All but the header, in an order that means the same after it.
    fn rest(&self, message: &Bytes) -> Bytes {
        let Self { publish, header } = self;
        if publish.whole.start == 0 && header.whole.start == publish.value.start {
            return message.slice(header.whole.end..);
        }
        let mut rest = BytesMut::with_capacity(message.len());
        rest.put_slice(&message[publish.value.start..header.whole.start]);
        rest.put_slice(&message[header.whole.end..publish.value.end]);
        rest.put_slice(&message[..publish.whole.start]);
        rest.put_slice(&message[publish.whole.end..]);
        rest.freeze()
    }
}

impl Field {
    /// The first field of this number in `bytes`, which lie at `at` in their message.
    fn find(
        bytes: &[u8],
        at: usize,
        name: &'static str,
        wanted: u32,
        field: &'static str,
    ) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(name, bytes);
        let mut start = 0;
        while let Some((number, value)) = fields.next()? {
            let end = bytes.len() - fields.remaining();
            if number == wanted
                && let Value::Bytes(value) = value
            {
                let (whole, value) = (at + start..at + end, at + end - value.len()..at + end);
                return Ok(Self { whole, value });
            }
            start = end;
        }
        Err(DecodeError::Missing { field })
    }
}
