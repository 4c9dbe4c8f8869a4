//! The fixed header of a native frame, read in place.

use bytes::{BufMut, Bytes, BytesMut};
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::envelope::{Class, Encoding, Flags, Header, Kind};
use crate::error::DecodeError;
use crate::limits::{FRAME_BYTES, HEADER_BYTES, LANES, SESSION_PART_BYTES};
use crate::name::{Id, Name, Prefix};

/// What a native frame is. Data lanes carry [`FrameKind::Publish`] only, the control stream the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A message for who subscribed to the destination.
    Publish = 1,
    /// From now on, what goes to the destination also goes to this link.
    Subscribe = 2,
    /// Take a subscription back.
    Unsubscribe = 3,
    /// The first frame of each side; its payload is a [`Hello`](crate::Hello).
    Hello = 4,
    /// The answer to the control frame with the same message id. With [`Flags::ERROR`] it was
    /// refused, and the payload says why.
    Ack = 5,
}

/// The header of a native frame as it travels: little endian, at any alignment.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 4 | length of the frame with this header |
/// | 4 | 1 | kind |
/// | 5 | 1 | bits 0–1 class (0 control, 1 reliable, 2 best effort), bit 2 error, others 0 |
/// | 6 | 1 | ttl: nodes that the frame may still pass on to other nodes |
/// | 7 | 1 | bits 0–3 encoding of the body (0 native, 1 P, 2 D6, 3 D7, 4 D20), others 0 |
/// | 8 | 4 | fanout |
/// | 12 | 4 | length of the session part |
/// | 16 | 40 | destination: three component hashes of 8 bytes, id of 16 |
/// | 56 | 40 | source, in the same form |
/// | 96 | 4 | session id; of a subscription that a node tells of, how recent it is |
/// | 100 | 4 | message id |
///
/// The session part and the payload follow. With a foreign encoding the payload is a whole
/// message of that dialect, and there is no session part.
///
/// A subscription's payload is the texts of its name, `org/namespace/app`, if they are known. Between
/// nodes that exchange names, subscriptions have the encoding of the clients whose names they are.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct FrameHeader {
    length: U32,
    kind: u8,
    flags: u8,
    ttl: u8,
    encoding: u8,
    fanout: U32,
    session_length: U32,
    destination: FrameName,
    source: FrameName,
    session_id: U32,
    message_id: U32,
}

/// A name as it travels.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
struct FrameName {
    prefix: [U64; 3],
    id: U128,
}

const _: () = assert!(size_of::<FrameName>() == 40 && align_of::<FrameName>() == 1);
const _: () = assert!(size_of::<FrameHeader>() == HEADER_BYTES && align_of::<FrameHeader>() == 1);
const _: () = assert!(std::mem::offset_of!(FrameHeader, kind) == 4);
const _: () = assert!(std::mem::offset_of!(FrameHeader, ttl) == TTL_OFFSET);
const _: () = assert!(std::mem::offset_of!(FrameHeader, fanout) == 8);
const _: () = assert!(std::mem::offset_of!(FrameHeader, session_length) == 12);
const _: () = assert!(std::mem::offset_of!(FrameHeader, destination) == 16);
const _: () = assert!(std::mem::offset_of!(FrameHeader, source) == 56);
const _: () = assert!(std::mem::offset_of!(FrameHeader, session_id) == 96);

const TTL_OFFSET: usize = 6;

const CLASS_BITS: u8 = 0b011;
const ERROR_BIT: u8 = 0b100;
const ENCODING_BITS: u8 = 0x0F;

impl From<Name> for FrameName {
    fn from(name: Name) -> Self {
        Self { prefix: name.prefix.0.map(U64::new), id: U128::new(name.id.as_u128()) }
    }
}

impl From<FrameName> for Name {
    fn from(name: FrameName) -> Self {
        Self { prefix: Prefix(name.prefix.map(U64::get)), id: Id::new(name.id.get()) }
    }
}

/// Numbers of a frame that only endpoints act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionIds {
    /// The session.
    pub session: u32,
    /// The message within the session; of a control frame, the request.
    pub message: u32,
}

impl FrameHeader {
    /// The header of a frame with a session part and a payload of these lengths, in bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] if a length exceeds what a frame can hold.
    pub fn new(
        kind: FrameKind,
        header: &Header,
        ids: SessionIds,
        session_length: usize,
        payload_length: usize,
    ) -> Result<Self, DecodeError> {
        let length = HEADER_BYTES.saturating_add(session_length).saturating_add(payload_length);
        Ok(Self {
            length: within("frame length", length, FRAME_BYTES)?.into(),
            kind: kind as u8,
            flags: class_bits(header.class)
                | if header.flags.contains(Flags::ERROR) { ERROR_BIT } else { 0 },
            ttl: header.ttl,
            encoding: encoding_bits(header.encoding),
            fanout: header.fanout.into(),
            session_length: within("session part", session_length, SESSION_PART_BYTES)?.into(),
            destination: header.destination.into(),
            source: header.source.into(),
            session_id: ids.session.into(),
            message_id: ids.message.into(),
        })
    }

    /// The header at the start of `bytes`; `None` if they are too few.
    #[inline]
    pub fn prefix_of(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// The header as it travels.
    pub fn as_bytes(&self) -> &[u8; HEADER_BYTES] {
        zerocopy::transmute_ref!(self)
    }

    /// Length of the whole frame in bytes, as the peer says; see [`FrameHeader::check_lengths`].
    #[inline]
    pub fn length(&self) -> usize {
        self.length.get() as usize
    }

    /// Length of the session part in bytes.
    #[inline]
    pub fn session_length(&self) -> usize {
        self.session_length.get() as usize
    }

    /// The session and message numbers.
    #[inline]
    pub fn ids(&self) -> SessionIds {
        SessionIds { session: self.session_id.get(), message: self.message_id.get() }
    }

    /// The destination's routing name.
    #[inline]
    pub fn destination(&self) -> Name {
        self.destination.into()
    }

    /// The source's routing name.
    #[inline]
    pub fn source(&self) -> Name {
        self.source.into()
    }

    /// Whether the frame is marked with [`Flags::ERROR`].
    pub fn is_error(&self) -> bool {
        self.flags & ERROR_BIT != 0
    }

    /// Whether the lengths can be true, for a reader that takes frames of up to `limit` bytes.
    ///
    /// # Errors
    /// [`DecodeError`] naming the length that cannot.
    #[inline]
    pub fn check_lengths(&self, limit: usize) -> Result<(), DecodeError> {
        let (length, session) = (self.length(), self.session_length());
        if length < HEADER_BYTES {
            let (field, expected) = ("frame length", "at least 104");
            return Err(DecodeError::Unexpected { field, expected, got: length as u64 });
        }
        within("frame length", length, limit)?;
        within("session part", session, SESSION_PART_BYTES)?;
        within("session part", session, length - HEADER_BYTES)?;
        Ok(())
    }

    /// The kind.
    ///
    /// # Errors
    /// [`DecodeError`] if there is no such kind.
    #[inline]
    pub fn kind(&self) -> Result<FrameKind, DecodeError> {
        Ok(match self.kind {
            1 => FrameKind::Publish,
            2 => FrameKind::Subscribe,
            3 => FrameKind::Unsubscribe,
            4 => FrameKind::Hello,
            5 => FrameKind::Ack,
            other => return Err(unexpected("kind", "1 to 5", other)),
        })
    }

    /// What routing needs of a publish that arrived on lane `lane`.
    ///
    /// # Errors
    /// [`DecodeError`] naming the field that holds a value it cannot.
    #[inline]
    pub fn header(&self, lane: u8) -> Result<Header, DecodeError> {
        let class = match self.flags & CLASS_BITS {
            0 => Class::Control,
            1 => Class::Reliable,
            2 => Class::BestEffort,
            other => return Err(unexpected("class", "0 to 2", other)),
        };
        if self.flags & !(CLASS_BITS | ERROR_BIT) != 0 {
            return Err(unexpected("flags", "reserved bits to be 0", self.flags));
        }
        let encoding = match self.encoding {
            0 => Encoding::Native,
            1 => Encoding::P,
            2 => Encoding::D6,
            3 => Encoding::D7,
            4 => Encoding::D20,
            other if other & !ENCODING_BITS != 0 => {
                return Err(unexpected("encoding", "reserved bits to be 0", other));
            }
            other => return Err(unexpected("encoding", "0 to 4", other)),
        };
        Ok(Header {
            kind: Kind::Publish,
            class,
            encoding,
            flags: if self.is_error() { Flags::ERROR } else { Flags::empty() },
            ttl: self.ttl,
            fanout: self.fanout.get(),
            lane,
            source: self.source(),
            destination: self.destination(),
        })
    }

    /// Whether a frame with the header `next` can travel in one piece with this one: all that
    /// routing looks at is the same.
    #[inline]
    pub(crate) fn routes_like(&self, next: &Self) -> bool {
        let (a, b) = (self.as_bytes(), next.as_bytes());
        a[4..12] == b[4..12] && a[16..96] == b[16..96]
    }

    /// Whether each such frame wants a target chosen for it alone.
    #[inline]
    pub(crate) fn is_anycast(&self) -> bool {
        self.fanout.get() == 1 && self.destination.id.get() == Id::ANY.as_u128()
    }

    /// The header with another ttl.
    #[must_use]
    pub fn with_ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
}

fn class_bits(class: Class) -> u8 {
    match class {
        Class::Control => 0,
        Class::Reliable => 1,
        Class::BestEffort => 2,
    }
}

fn encoding_bits(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Native => 0,
        Encoding::P => 1,
        Encoding::D6 => 2,
        Encoding::D7 => 3,
        Encoding::D20 => 4,
    }
}

fn unexpected(field: &'static str, expected: &'static str, got: u8) -> DecodeError {
    DecodeError::Unexpected { field, expected, got: got.into() }
}

fn within(field: &'static str, got: usize, limit: usize) -> Result<u32, DecodeError> {
    match u32::try_from(got) {
        Ok(length) if got <= limit => Ok(length),
        _ => Err(DecodeError::TooLarge { field, limit: limit as u64, got: got as u64 }),
    }
}

/// A whole frame in one piece of memory.
///
/// # Errors
/// [`DecodeError::TooLarge`] if a part exceeds what a frame can hold.
pub fn frame(
    kind: FrameKind,
    header: &Header,
    ids: SessionIds,
    session: &[u8],
    payload: &[u8],
) -> Result<Bytes, DecodeError> {
    let head = FrameHeader::new(kind, header, ids, session.len(), payload.len())?;
    let mut bytes = BytesMut::with_capacity(head.length());
    bytes.put_slice(head.as_bytes());
    bytes.put_slice(session);
    bytes.put_slice(payload);
    Ok(bytes.freeze())
}

/// The lane of a native link that keeps the messages of a session and a source in order.
pub fn lane(session: u32, source: &Name) -> u8 {
    // The hashes are well mixed already, an id need not be.
    let id = source.id.as_u128();
    let mut mixed = source.prefix.0[2] ^ u64::from(session) ^ (id as u64) ^ ((id >> 64) as u64);
    mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u8 % LANES
}

#[cfg(test)]
mod tests;
