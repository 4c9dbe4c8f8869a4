use bytes::{Buf, BufMut, Bytes, BytesMut};
use slim_wire::limits::{FRAME_BYTES, HEADER_BYTES, SESSION_PART_BYTES};
use slim_wire::{
    Class, DecodeError, Encoding, Flags, FrameHeader, FrameKind, Header, Kind, Name, Pieces,
    SessionIds,
};

use super::LinkError;

/// A message as it travels: header, session part, payload.
///
/// A received one shares the memory it arrived in, which may be much larger than itself; what is
/// kept for long had better be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub source: Name,
    /// Whom it is for.
    pub destination: Name,
    /// 1: one of those who subscribed to the destination gets it; any other number: all.
    pub fanout: u32,
    /// How it is treated where room is short. Best effort that fits into a packet travels outside
    /// of the lanes, and may be lost or overtaken.
    pub class: Class,
    /// Marks for the other end.
    pub flags: Flags,
    /// Session and message number, for the other end. Messages of one source and session arrive
    /// in the order of publishing.
    pub ids: SessionIds,
    /// What the sessions at both ends tell each other, up to 64 KiB.
    pub session: Bytes,
    /// What the apps tell each other.
    pub payload: Bytes,
}

impl Message {
    /// The fanout for all who subscribed.
    pub const TO_ALL: u32 = u32::MAX;

    /// A reliable message for one receiver, outside of any session.
    pub fn new(source: Name, destination: Name, payload: impl Into<Bytes>) -> Self {
        Self {
            source,
            destination,
            fanout: 1,
            class: Class::Reliable,
            flags: Flags::empty(),
            ids: SessionIds::default(),
            session: Bytes::new(),
            payload: payload.into(),
        }
    }

    /// The message for every subscriber of its destination.
    #[must_use]
    pub fn to_all(self) -> Self {
        Self { fanout: Self::TO_ALL, ..self }
    }

    /// Its length as a frame, in bytes.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.session.len() + self.payload.len()
    }

    /// Its frame's header, for a node that takes frames of up to `limit` bytes.
    pub(super) fn head(&self, limit: usize) -> Result<FrameHeader, LinkError> {
        let session = self.session.len();
        if session > SESSION_PART_BYTES {
            let (field, limit) = ("session part", SESSION_PART_BYTES);
            return Err(LinkError::TooLarge { field, limit, got: session });
        }
        let too_large =
            |limit| LinkError::TooLarge { field: "frame", limit, got: self.frame_bytes() };
        if self.frame_bytes() > limit {
            return Err(too_large(limit));
        }
        let header = Header {
            kind: Kind::Publish,
            class: self.class,
            encoding: Encoding::Native,
            flags: self.flags,
            ttl: Header::DEFAULT_TTL,
            fanout: self.fanout,
            lane: 0,
            source: self.source,
            destination: self.destination,
        };
        FrameHeader::new(FrameKind::Publish, &header, self.ids, session, self.payload.len())
            .map_err(|_| too_large(FRAME_BYTES))
    }

    /// The message as one piece of memory.
    pub(super) fn to_frame(&self, head: &FrameHeader) -> Bytes {
        let mut frame = BytesMut::with_capacity(self.frame_bytes());
        frame.put_slice(head.as_bytes());
        frame.put_slice(&self.session);
        frame.put_slice(&self.payload);
        frame.freeze()
    }

    /// The message in a whole frame whose lengths were checked. Session part and payload are
    /// copied only if they arrived in several pieces.
    pub(super) fn from_frame(head: &FrameHeader, mut frame: Pieces) -> Result<Self, DecodeError> {
        head.check_publish()?;
        let header = head.header(0)?;
        if header.encoding != Encoding::Native {
            return Err(DecodeError::Unexpected {
                field: "encoding of a message for an app",
                expected: "0 (native)",
                got: header.encoding as u64,
            });
        }
        cut(&mut frame, HEADER_BYTES);
        let session = cut(&mut frame, head.session_length());
        let rest = frame.iter().map(Bytes::len).sum();
        Ok(Self {
            source: header.source,
            destination: header.destination,
            fanout: header.fanout,
            class: header.class,
            flags: header.flags,
            ids: head.ids(),
            session,
            payload: cut(&mut frame, rest),
        })
    }
}

/// Cuts `length` bytes off the front of `pieces`, which are at least as long.
fn cut(pieces: &mut Pieces, length: usize) -> Bytes {
    while pieces.first().is_some_and(Bytes::is_empty) {
        pieces.remove(0);
    }
    match pieces.first_mut() {
        _ if length == 0 => Bytes::new(),
        Some(first) if first.len() >= length => first.split_to(length),
        _ => {
            let mut whole = BytesMut::with_capacity(length);
            for piece in pieces.iter_mut() {
                let part = piece.len().min(length - whole.len());
                whole.put_slice(&piece[..part]);
                piece.advance(part);
            }
            pieces.retain(|piece| !piece.is_empty());
            whole.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slim_wire::TextName;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn name(text: &str) -> Name {
        text.parse::<TextName>().expect("a name").to_name()
    }

    fn message(session: Vec<u8>, payload: Vec<u8>) -> Message {
        Message {
            ids: SessionIds { session: 7, message: 9 },
            session: session.into(),
            ..Message::new(name("org/ns/a/1"), name("org/ns/b"), payload)
        }
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_in_however_many_pieces_its_frame_arrives(
            session in proptest::collection::vec(any::<u8>(), 0..300),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(1..200_usize, 0..8),
        ) {
            let sent = message(session, payload);
            let head = sent.head(LIMIT).expect("it fits");
            let mut rest = sent.to_frame(&head);
            let mut pieces = Pieces::new();
            for length in cuts {
                pieces.push(rest.split_to(length.min(rest.len())));
            }
            pieces.push(rest);
            prop_assert_eq!(Message::from_frame(&head, pieces), Ok(sent));
        }
    }

    #[test]
    fn a_payload_that_arrives_in_one_piece_is_not_copied() {
        let sent = message(vec![1], vec![2; 5000]);
        let head = sent.head(LIMIT).expect("it fits");
        let frame = sent.to_frame(&head);
        let there = frame[HEADER_BYTES + 1..].as_ptr();
        let mut pieces = Pieces::new();
        pieces.extend([frame.slice(..50), frame.slice(50..)]);
        let received = Message::from_frame(&head, pieces).expect("a message");
        assert_eq!(received.payload.as_ptr(), there);
    }

    #[test]
    fn a_message_that_is_too_long_names_the_limit() {
        let error = message(vec![], vec![0; 500]).head(600).expect_err("604 bytes");
        assert_eq!(error.to_string(), "frame: expected at most 600 bytes, got 604");
        let error = message(vec![0; 70_000], vec![]).head(LIMIT).expect_err("a long session part");
        assert_eq!(error.to_string(), "session part: expected at most 65536 bytes, got 70000");
    }
}
