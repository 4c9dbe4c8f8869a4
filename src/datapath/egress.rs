use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slim_compat_grpc::LinkKey;
use slim_wire::limits::{HEADER_BYTES, LANES, PACKING_THRESHOLD_BYTES};
use slim_wire::{Class, Encoding, Envelope, FrameHeader, FrameKind, Frames, Pieces, SessionIds};

use super::port::{Framing, Port, charge};

/// What waits for one link, in order, already framed.
///
/// Small pieces are copied into a packed buffer and leave together, and those of a long run into
/// one of its own; large ones leave as the bytes that came. Room is taken at the link's [`Port`]
/// before a message is pushed, and given back here when its bytes leave.
#[derive(Debug)]
pub struct Egress {
    port: Arc<Port>,
    /// One for a gRPC stream; one per lane for a native link, and one for datagrams.
    queues: Box<[Queue]>,
    /// Longest datagram that the link takes now, in bytes.
    datagram_bytes: usize,
    messages: u64,
    /// By which headers are authenticated on this link (D20).
    key: Option<Arc<LinkKey>>,
}

/// One queue in order.
#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Segment>,
    /// The open packed buffer at the tail.
    pack: BytesMut,
    pack_messages: u64,
    pack_charge: usize,
}

#[derive(Debug)]
struct Segment {
    bytes: Bytes,
    /// Messages that are written when the last byte of this segment leaves.
    messages: u64,
    charge: usize,
}

/// Bytes on their way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Framed messages, or a part of one; a datagram is always one message.
    pub bytes: Bytes,
    /// Messages that end in it.
    pub messages: u64,
}

/// The queue of a native link's datagrams; those before it are its lanes.
pub const DATAGRAMS: u8 = LANES;

/// A packed buffer holds no more: the largest HTTP/2 frame that published clients take.
const PACK_BYTES: usize = 16 * 1024;

/// Packs that leave one by one share buffers of this size: two of the largest pieces, since to
/// share a buffer takes an allocation of its own.
const SPARSE_BYTES: usize = 2 * PACKING_THRESHOLD_BYTES;

/// The largest piece handed to a transport at once, so that what a stuck transport holds beside
/// the queue stays small.
const CHUNK_BYTES: usize = 64 * 1024;

impl Egress {
    /// An empty queue of the link behind `port`.
    pub fn new(port: Arc<Port>) -> Self {
        let queues = match port.framing() {
            Framing::Grpc | Framing::PublishedNode { .. } => 1,
            Framing::Native | Framing::Node(..) => DATAGRAMS + 1,
        };
        let queues = (0..queues).map(|_| Queue::default()).collect();
        Self { port, queues, datagram_bytes: 0, messages: 0, key: None }
    }

    /// The port whose room the messages take.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Messages that wait.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// From now on best effort of up to so many bytes leaves as datagrams.
    pub fn allow_datagrams(&mut self, bytes: usize) {
        self.datagram_bytes = bytes;
    }

    /// From now on headers leave with the code of this key.
    pub fn authenticate(&mut self, key: Arc<LinkKey>) {
        self.key = Some(key);
    }

    /// Adds what the node itself has to say on a gRPC stream, if [`Port::admit`] admitted it.
    pub fn push_answer(&mut self, answer: &Bytes) {
        let queue = &mut self.queues[0];
        queue.pack.extend_from_slice(&slim_compat_grpc::prefix(answer.len()));
        queue.push_piece(answer, 0);
    }

    /// Adds what [`Port::admit`] admitted.
    #[inline]
    pub fn push(&mut self, envelope: &Envelope) {
        self.messages += u64::from(envelope.messages);
        let datagrams = self.datagram_bytes > 0 && envelope.header.class == Class::BestEffort;
        match self.port.framing() {
            Framing::Grpc | Framing::PublishedNode { .. } => self.push_grpc(envelope),
            Framing::Native if !datagrams => {
                let queue = &mut self.queues[usize::from(envelope.header.lane % LANES)];
                queue.push(&envelope.body, envelope.messages);
            }
            Framing::Native | Framing::Node(..) => self.push_each(envelope),
        }
    }

    fn push_grpc(&mut self, envelope: &Envelope) {
        let queue = &mut self.queues[0];
        let prefix = slim_compat_grpc::prefix(envelope.len());
        match (&self.key, envelope.body.as_slice()) {
            (Some(key), [head, rest @ ..]) => {
                if queue.pack.len() + head.len() > PACK_BYTES {
                    queue.close_pack();
                }
                queue.pack.extend_from_slice(&prefix);
                key.sign(head, &mut queue.pack);
                queue.pack_charge += charge(head.len(), 0);
                queue.push(rest, envelope.messages);
            }
            (_, pieces) => {
                queue.pack.extend_from_slice(&prefix);
                queue.push(pieces, envelope.messages);
            }
        }
    }

    /// The way of messages that do not leave as they came, one by one.
    fn push_each(&mut self, envelope: &Envelope) {
        let hop = matches!(self.port.framing(), Framing::Node(..));
        let ttl = envelope.header.ttl.saturating_sub(u8::from(hop));
        if envelope.header.encoding != Encoding::Native {
            let header = slim_wire::Header { ttl, ..envelope.header };
            let (kind, ids) = (FrameKind::Publish, SessionIds::default());
            let head = FrameHeader::new(kind, &header, ids, 0, envelope.len());
            // No dialect has messages that are longer than a frame can be.
            let head = head.expect("a message fits a frame");
            return self.push_frame(envelope, &head, envelope.body.clone());
        }
        for (head, mut frame) in Frames::of(&envelope.body) {
            if hop {
                skip(&mut frame, HEADER_BYTES);
                self.push_frame(envelope, &head.with_ttl(ttl), frame);
            } else {
                self.push_whole(envelope, frame);
            }
        }
    }

    fn push_frame(&mut self, envelope: &Envelope, head: &FrameHeader, rest: Pieces) {
        let mut frame = Pieces::with_capacity(rest.len() + 1);
        frame.push(Bytes::copy_from_slice(head.as_bytes()));
        frame.extend(rest);
        self.push_whole(envelope, frame);
    }

    fn push_whole(&mut self, envelope: &Envelope, frame: Pieces) {
        let len: usize = frame.iter().map(Bytes::len).sum();
        if envelope.header.class == Class::BestEffort && len <= self.datagram_bytes {
            let bytes = match frame.as_slice() {
                // A small one would hold on to the receive buffer that it came in.
                [whole] if len > PACKING_THRESHOLD_BYTES => whole.clone(),
                pieces => pieces.concat().into(),
            };
            let queue = &mut self.queues[usize::from(DATAGRAMS)];
            queue.segments.push_back(Segment { bytes, messages: 1, charge: charge(len, 1) });
        } else {
            self.queues[usize::from(envelope.header.lane % LANES)].push(&frame, 1);
        }
    }

    /// The next bytes of a queue to leave; `None` when nothing waits there.
    pub fn pop(&mut self, queue: u8) -> Option<Chunk> {
        let chunk = self.queues.get_mut(usize::from(queue))?.pop(&self.port)?;
        self.messages -= chunk.messages;
        Some(chunk)
    }
}

impl Queue {
    #[inline]
    fn push(&mut self, pieces: &[Bytes], messages: u32) {
        let Some((last, others)) = pieces.split_last() else {
            return;
        };
        if !others.is_empty() && self.is_better_joined(pieces) {
            return self.push_joined(pieces, messages);
        }
        others.iter().for_each(|piece| self.push_piece(piece, 0));
        self.push_piece(last, messages);
    }

    /// Whether all pieces are to be copied, and are together more than a pack takes.
    fn is_better_joined(&self, pieces: &[Bytes]) -> bool {
        let room = match self.pack.len() {
            0 => PACKING_THRESHOLD_BYTES,
            packed => PACK_BYTES.saturating_sub(packed),
        };
        pieces.iter().all(|piece| piece.len() <= PACKING_THRESHOLD_BYTES)
            && pieces.iter().map(Bytes::len).sum::<usize>() > room
    }

    /// Adds the pieces in a buffer of their own, made to measure: packs would take an allocation
    /// for every few of them.
    fn push_joined(&mut self, pieces: &[Bytes], messages: u32) {
        self.close_pack();
        let bytes = Bytes::from(pieces.concat());
        let charge = charge(bytes.len(), messages);
        self.segments.push_back(Segment { bytes, messages: messages.into(), charge });
    }

    #[inline]
    fn push_piece(&mut self, piece: &Bytes, messages: u32) {
        let charge = charge(piece.len(), messages);
        if piece.len() <= PACKING_THRESHOLD_BYTES {
            if self.pack.len() + piece.len() > PACK_BYTES {
                self.close_pack();
            }
            if self.pack.is_empty() {
                self.make_room(piece.len());
            }
            self.pack.extend_from_slice(piece);
            self.pack_messages += u64::from(messages);
            self.pack_charge += charge;
        } else {
            self.close_pack();
            let (bytes, messages) = (piece.clone(), messages.into());
            self.segments.push_back(Segment { bytes, messages, charge });
        }
    }

    /// Makes room for a pack that begins with so many bytes.
    #[inline]
    fn make_room(&mut self, length: usize) {
        if !self.segments.is_empty() {
            // More is under way than a small buffer will hold.
            self.pack.reserve(PACK_BYTES);
        } else if self.pack.capacity() < length {
            self.pack.reserve(SPARSE_BYTES);
        }
    }

    fn pop(&mut self, port: &Port) -> Option<Chunk> {
        if self.segments.is_empty() {
            self.close_pack();
        }
        let front = self.segments.front_mut()?;
        if front.bytes.len() > CHUNK_BYTES {
            let bytes = front.bytes.split_to(CHUNK_BYTES);
            // The prefixes in a packed buffer were not charged.
            let charge = bytes.len().min(front.charge);
            front.charge -= charge;
            port.release(charge);
            return Some(Chunk { bytes, messages: 0 });
        }
        let Segment { bytes, messages, charge } = self.segments.pop_front()?;
        port.release(charge);
        Some(Chunk { bytes, messages })
    }

    fn close_pack(&mut self) {
        if self.pack.is_empty() {
            return;
        }
        self.segments.push_back(Segment {
            bytes: self.pack.split().freeze(),
            messages: std::mem::take(&mut self.pack_messages),
            charge: std::mem::take(&mut self.pack_charge),
        });
    }

    fn waiting(&self) -> usize {
        self.pack_charge + self.segments.iter().map(|segment| segment.charge).sum::<usize>()
    }
}

/// Cuts `length` bytes off the front of the pieces.
fn skip(pieces: &mut Pieces, mut length: usize) {
    pieces.retain(|piece| {
        let cut = length.min(piece.len());
        length -= cut;
        bytes::Buf::advance(piece, cut);
        !piece.is_empty()
    });
}

/// Room that is still taken is given back, for what another core may yet hold of the port.
impl Drop for Egress {
    fn drop(&mut self) {
        self.port.release(self.queues.iter().map(Queue::waiting).sum());
    }
}

#[cfg(test)]
mod tests;
