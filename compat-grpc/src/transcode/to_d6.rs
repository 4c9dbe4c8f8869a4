//! A native publish as release 0.6 sends it.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use slim_wire::limits::{FRAME_BYTES, GRPC_MESSAGE_BYTES, HEADER_BYTES};
use slim_wire::session::{self, ArchivedSession, ArchivedTextName, SessionKind};
use slim_wire::{
    DecodeError, Encoding, Flags, FrameHeader, FrameKind, Header, Id, Name, SessionIds,
};

use super::TranscodeError;
use super::control::{self, Written};
use super::remainder::{Place, Remainder};
use crate::layout::{
    BODY_HEADER, HEADER_DESTINATION, HEADER_ERROR, HEADER_FANOUT, HEADER_SOURCE, MESSAGE_METADATA,
    PUBLISH, PUBLISH_CONTENT, PUBLISH_SESSION, SESSION_ID, SESSION_MESSAGE_TYPE,
};

/// One whole native frame, a publish, as a message of release 0.6, which [`D6`](crate::D6) reads
/// with the same header. Its class follows from the content alone.
///
/// # Errors
/// [`TranscodeError`]: the frame or its session part is wrong, or not a native publish; an id is
/// too wide; the result would exceed 4 MiB.
pub fn native_to_d6(frame: &[u8]) -> Result<Bytes, TranscodeError> {
    let head = whole_frame(frame)?;
    let header = native_publish(head)?;
    let (part, payload) = head.parts(frame);
    let session = session::access(part)?;
    let written = control::write(session, payload)?;
    let remainder = Remainder::read(&session.remainder)?;
    check_remainder(&remainder, &header, session, payload.len() + written.length())?;
    let message = Message { ids: head.ids(), header, session, written, remainder, payload };
    message.encode()
}

fn whole_frame(frame: &[u8]) -> Result<&FrameHeader, DecodeError> {
    let Some(head) = FrameHeader::prefix_of(frame) else {
        let (expected, got) = (HEADER_BYTES - frame.len(), frame.len());
        return Err(DecodeError::Truncated { field: "frame header", expected, got });
    };
    head.check_lengths(FRAME_BYTES)?;
    if head.length() != frame.len() {
        let (field, expected) = ("frame length", "the length of the frame");
        return Err(DecodeError::Unexpected { field, expected, got: head.length() as u64 });
    }
    Ok(head)
}

fn native_publish(head: &FrameHeader) -> Result<Header, TranscodeError> {
    let kind = head.kind()?;
    if kind != FrameKind::Publish {
        let (expected, got) = ("1 (publish)", kind as u64);
        return Err(TranscodeError::NotTaken { field: "frame kind", expected, got });
    }
    let header = head.header(0)?;
    if header.encoding != Encoding::Native {
        let (expected, got) = ("0 (native)", header.encoding as u64);
        return Err(TranscodeError::NotTaken { field: "encoding", expected, got });
    }
    Ok(header)
}

/// Whether the remainder says nothing that contradicts the rest, or would be lost.
fn check_remainder(
    remainder: &Remainder<'_>,
    header: &Header,
    session: &ArchivedSession,
    content_length: usize,
) -> Result<(), DecodeError> {
    let has_content = content_length + remainder.at(Place::Content).len() > 0;
    let is_lost = |place, is_absent| is_absent && !remainder.at(place).is_empty();
    let contradictions = [
        remainder.error_is_false && header.flags.contains(Flags::ERROR),
        remainder.content_is_absent && has_content,
        is_lost(Place::SessionSource, session.source.is_none()),
        is_lost(Place::SessionDestination, session.destination.is_none()),
    ];
    match contradictions.into_iter().position(|contradicts| contradicts) {
        None => Ok(()),
        Some(which) => Err(DecodeError::Unexpected {
            field: "remainder",
            expected: "what agrees with the rest of the frame",
            got: which as u64,
        }),
    }
}

/// All that a message is made of.
struct Message<'a> {
    ids: SessionIds,
    header: Header,
    session: &'a ArchivedSession,
    written: Written<'a>,
    remainder: Remainder<'a>,
    payload: &'a [u8],
}

impl Message<'_> {
    fn encode(&self) -> Result<Bytes, TranscodeError> {
        // All of the publish before the payload, so that the length in front of it is known.
        let mut head = Vec::with_capacity(512);
        put_message(BODY_HEADER, &mut head, |out| self.put_header(out))?;
        put_message(PUBLISH_SESSION, &mut head, |out| self.put_session(out))?;
        if !self.remainder.content_is_absent {
            self.put_content_head(&mut head);
        }
        let tail = [self.remainder.at(Place::Content), self.remainder.at(Place::Publish)];
        let publish = head.len() + self.payload.len() + tail.map(<[u8]>::len).iter().sum::<usize>();
        let metadata: usize = self.metadata().map(|(key, value)| entry_field_len(key, value)).sum();
        let unknown = self.remainder.at(Place::Message);
        let length = field_len(publish) + metadata + unknown.len();
        if length > GRPC_MESSAGE_BYTES {
            let (field, limit) = ("message of release 0.6", GRPC_MESSAGE_BYTES as u64);
            return Err(TranscodeError::TooLarge { field, limit, got: length as u64 });
        }
        let mut message = BytesMut::with_capacity(length);
        put_length(PUBLISH, publish, &mut message);
        message.put_slice(&head);
        message.put_slice(self.payload);
        tail.into_iter().for_each(|fields| message.put_slice(fields));
        for (key, value) in self.metadata() {
            put_length(MESSAGE_METADATA, entry_len(key, value), &mut message);
            put_text(1, key, &mut message);
            put_text(2, value, &mut message);
        }
        message.put_slice(unknown);
        debug_assert_eq!(message.len(), length);
        Ok(message.freeze())
    }

    fn put_header(&self, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
        let Header { source, destination, fanout, flags, .. } = self.header;
        put_message(HEADER_SOURCE, out, |out| self.put_name(Place::Source, source, out))?;
        put_message(HEADER_DESTINATION, out, |out| {
            self.put_name(Place::Destination, destination, out)
        })?;
        put_varint(HEADER_FANOUT, fanout.into(), out);
        if flags.contains(Flags::ERROR) || self.remainder.error_is_false {
            let error = flags.contains(Flags::ERROR);
            prost::encoding::bool::encode(HEADER_ERROR, &error, out);
        }
        out.put_slice(self.remainder.at(Place::Header));
        Ok(())
    }

    fn put_name(&self, place: Place, name: Name, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
        let field = if place == Place::Source { "source" } else { "destination" };
        let id = narrow(name.id, field)?;
        for (number, component) in (1..).zip(name.prefix.0.into_iter().chain([id])) {
            put_varint(number, component, out);
        }
        out.put_slice(self.remainder.at(place));
        Ok(())
    }

    fn put_session(&self, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
        let kind = match self.session.kind() {
            SessionKind::Unspecified => 0,
            SessionKind::PointToPoint => 1,
            SessionKind::Group => 2,
            SessionKind::Other(number) => number,
        };
        put_varint(1, kind.into(), out);
        put_varint(SESSION_MESSAGE_TYPE, self.written.message_type.into(), out);
        put_varint(SESSION_ID, self.ids.session.into(), out);
        put_varint(4, self.ids.message.into(), out);
        if let Some(name) = self.session.source.as_ref() {
            put_message(5, out, |out| self.put_session_name(Place::SessionSource, name, out))?;
        }
        if let Some(name) = self.session.destination.as_ref() {
            put_message(6, out, |out| self.put_session_name(Place::SessionDestination, name, out))?;
        }
        out.put_slice(self.remainder.at(Place::Session));
        Ok(())
    }

    fn put_session_name(
        &self,
        place: Place,
        name: &ArchivedTextName,
        out: &mut Vec<u8>,
    ) -> Result<(), TranscodeError> {
        let field =
            if place == Place::SessionSource { "session source" } else { "session destination" };
        for (number, text) in (1..).zip(name.components()) {
            put_text(number, text, out);
        }
        put_varint(4, narrow(name.id(), field)?, out);
        out.put_slice(self.remainder.at(place));
        Ok(())
    }

    /// The content up to the payload: published clients expect it even when it is empty.
    fn put_content_head(&self, out: &mut Vec<u8>) {
        let Written { content_type, blob_start, .. } = &self.written;
        let blob = blob_start.len() + self.payload.len();
        let length = text_len(content_type)
            + if blob > 0 { field_len(blob) } else { 0 }
            + self.remainder.at(Place::Content).len();
        put_length(PUBLISH_CONTENT, length, out);
        put_text(1, content_type, out);
        if blob > 0 {
            put_length(2, blob, out);
            out.put_slice(blob_start);
        }
    }

    fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let typed = self.written.metadata.iter().map(|(key, value)| (*key, &**value));
        typed.chain(self.session.metadata())
    }
}

fn narrow(id: Id, field: &'static str) -> Result<u64, TranscodeError> {
    id.to_u64().ok_or(TranscodeError::WideId { field, got: id })
}

// All field numbers here are below 16, so that a key is one byte. Fields that hold their default
// are left out, as published clients do.

fn put_length(number: u32, length: usize, out: &mut impl BufMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_varint(number: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn put_text(number: u32, text: &str, out: &mut impl BufMut) {
    if !text.is_empty() {
        put_length(number, text.len(), out);
        out.put_slice(text.as_bytes());
    }
}

/// A message whose length is known only behind it; it is rarely longer than one byte can say.
fn put_message(
    number: u32,
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), TranscodeError>,
) -> Result<(), TranscodeError> {
    encode_key(number, WireType::LengthDelimited, out);
    let start = out.len();
    out.push(0);
    put(out)?;
    let length = out.len() - start - 1;
    match u8::try_from(length) {
        Ok(short @ ..0x80) => out[start] = short,
        _ => {
            let mut prefix = Vec::with_capacity(5);
            encode_varint(length as u64, &mut prefix);
            out.splice(start..=start, prefix);
        }
    }
    Ok(())
}

fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_len(text.len()) }
}

fn entry_len(key: &str, value: &str) -> usize {
    text_len(key) + text_len(value)
}

fn entry_field_len(key: &str, value: &str) -> usize {
    field_len(entry_len(key, value))
}
