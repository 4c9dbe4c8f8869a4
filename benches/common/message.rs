//! Messages as routing sees them, and as they arrive on a native link.

use bytes::{Bytes, BytesMut};
use slim_wire::{Class, Encoding, Flags, FrameKind, Header, Id, Kind, Name, Prefix, SessionIds};

/// A reliable publish; what a bench is not about is the same everywhere.
pub(crate) fn publish(encoding: Encoding, destination: Name, fanout: u32) -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout,
        lane: 0,
        source: Name { prefix: Prefix([9, 9, 9]), id: Id::new(1) },
        destination,
    }
}

/// What a packet of an Ethernet path holds of a stream.
#[allow(dead_code, reason = "not every bench reads frames")]
const PACKET_BYTES: usize = 1404;

/// Frames with `headers` and payloads of `size` bytes, in the pieces in which packets bring them.
#[allow(dead_code, reason = "not every bench reads frames")]
pub(crate) fn arrived(headers: impl Iterator<Item = Header>, size: usize) -> Vec<Bytes> {
    let mut stream = BytesMut::new();
    for header in headers {
        let (ids, payload) = (SessionIds::default(), vec![0x5A; size]);
        let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], &payload);
        stream.extend_from_slice(&frame.expect("a payload that fits"));
    }
    let mut stream = stream.freeze();
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        pieces.push(stream.split_to(PACKET_BYTES.min(stream.len())));
    }
    pieces
}
