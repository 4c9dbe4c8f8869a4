use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{Connection, StreamId, WriteError};
use slim_wire::limits::HEADER_BYTES;
use slim_wire::{Flags, FrameHeader, FrameKind, FrameReader, Header, Name, SessionIds};

use super::exchange::{encoding_of, head_of};
use super::lane::LaneStopped;
use crate::datapath::Announcement;

/// The control stream of a link.
pub(super) struct Control {
    pub(super) stream: Option<StreamId>,
    pub(super) frames: FrameReader,
    out: BytesMut,
    blocked: bool,
    /// Requests that wait until all cores know of their change, and those that came after them.
    pub(super) submitted: Vec<u32>,
    pub(super) waiting: Vec<u32>,
}

/// Longest control frame in bytes: a subscription with the texts of its name.
const CONTROL_FRAME_BYTES: usize = 8 * 1024;

/// Answers that a peer may leave unread before its requests are left unread.
const UNREAD_BYTES: usize = 64 * 1024;

/// Requests that may wait for the cores before more are read.
const WAITING: usize = 4096;

impl Control {
    pub(super) fn new() -> Self {
        Self {
            stream: None,
            frames: FrameReader::new(CONTROL_FRAME_BYTES),
            out: BytesMut::new(),
            blocked: false,
            submitted: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether the peer has taken enough of its answers to be asked for more.
    pub(super) fn may_read(&self) -> bool {
        self.out.len() < UNREAD_BYTES && self.waiting.len() < WAITING
    }

    pub(super) fn send_hello(&mut self, hello: &[u8]) {
        self.send(FrameKind::Hello, Flags::empty(), 0, hello);
    }

    /// Answers a request; `refused` says why it was not done.
    pub(super) fn acknowledge(&mut self, request: u32, refused: Option<&str>) {
        let flags = if refused.is_some() { Flags::ERROR } else { Flags::empty() };
        self.send(FrameKind::Ack, flags, request, refused.unwrap_or_default().as_bytes());
    }

    /// Tells another node of a name.
    pub(super) fn announce(&mut self, announcement: &Announcement, request: u32) {
        let Announcement { space, name, text, .. } = announcement;
        let header = Header::control(Flags::empty(), Name::NOBODY, *name);
        let header = Header { encoding: encoding_of(*space), ..header };
        let (kind, ids) = head_of(announcement, request);
        let text = text.as_ref().map(|text| text.components().join("/")).unwrap_or_default();
        self.write_frame(kind, &header, ids, text.as_bytes());
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len()
    }

    fn send(&mut self, kind: FrameKind, flags: Flags, request: u32, payload: &[u8]) {
        let header = Header::control(flags, Name::NOBODY, Name::NOBODY);
        self.write_frame(kind, &header, SessionIds { session: 0, message: request }, payload);
    }

    fn write_frame(&mut self, kind: FrameKind, header: &Header, ids: SessionIds, payload: &[u8]) {
        let head = FrameHeader::new(kind, header, ids, 0, payload.len());
        self.out.reserve(HEADER_BYTES + payload.len());
        self.out.extend_from_slice(head.expect("what a node says is short").as_bytes());
        self.out.extend_from_slice(payload);
    }

    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Writes answers as far as there is room.
    pub(super) fn write(&mut self, connection: &mut Connection) -> Result<(), LaneStopped> {
        let Some(id) = self.stream else {
            return Ok(());
        };
        while !self.out.is_empty() && !self.blocked {
            match connection.send_stream(id).write(&self.out) {
                Ok(written) => self.out.advance(written),
                Err(WriteError::Blocked) => self.blocked = true,
                Err(_) => return Err(LaneStopped),
            }
        }
        Ok(())
    }
}

/// The texts of a subscription's name, if they are what its hashes were made from. They only
/// show in logs and metrics.
pub(super) fn texts_of<'a>(payload: &'a [u8], name: &Name) -> Option<[&'a str; 3]> {
    let text = str::from_utf8(payload).ok()?;
    let mut parts = text.splitn(3, '/');
    let texts = [parts.next()?, parts.next()?, parts.next()?];
    (texts.map(slim_wire::hash_component) == name.prefix.0).then_some(texts)
}

/// A frame's payload in one piece.
pub(super) fn payload_of(header: &FrameHeader, pieces: &[Bytes]) -> Bytes {
    let frame: Bytes = match pieces {
        [whole] => whole.clone(),
        pieces => pieces.concat().into(),
    };
    frame.slice(HEADER_BYTES + header.session_length()..)
}
