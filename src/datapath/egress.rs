use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slim_wire::limits::PACKING_THRESHOLD_BYTES;

use super::port::{Port, charge};

/// How a link frames a message: what goes before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// gRPC's five-byte prefix.
    Grpc,
}

/// What waits for one link, in order, already framed.
///
/// Small messages are copied into a packed buffer and leave together; large ones leave as the
/// bytes that came. Room is taken at the link's [`Port`] before a message is pushed, and given
/// back here when its bytes leave.
#[derive(Debug)]
pub struct Egress {
    port: Arc<Port>,
    framing: Framing,
    segments: VecDeque<Segment>,
    /// The open packed buffer at the tail.
    pack: BytesMut,
    pack_messages: u64,
    pack_charge: usize,
    messages: u64,
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
    /// Framed messages, or a part of one.
    pub bytes: Bytes,
    /// Messages that end in it.
    pub messages: u64,
}

/// A packed buffer is closed at this size: the largest HTTP/2 frame that published clients take.
const PACK_BYTES: usize = 16 * 1024;

/// The largest piece handed to a transport at once, so that what a stuck transport holds beside
/// the queue stays small.
const CHUNK_BYTES: usize = 64 * 1024;

impl Egress {
    /// An empty queue of the link behind `port`.
    pub fn new(port: Arc<Port>, framing: Framing) -> Self {
        Self {
            port,
            framing,
            segments: VecDeque::new(),
            pack: BytesMut::new(),
            pack_messages: 0,
            pack_charge: 0,
            messages: 0,
        }
    }

    /// The port whose room the messages take.
    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Messages that wait.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Adds a message that [`Port::admit`] admitted.
    pub fn push(&mut self, body: &Bytes) {
        let Framing::Grpc = self.framing;
        let prefix = slim_compat_grpc::prefix(body.len());
        self.messages += 1;
        self.pack.extend_from_slice(&prefix);
        if body.len() <= PACKING_THRESHOLD_BYTES {
            self.pack.extend_from_slice(body);
            self.pack_messages += 1;
            self.pack_charge += charge(body.len());
            if self.pack.len() >= PACK_BYTES {
                self.close_pack();
            }
        } else {
            self.close_pack();
            let (bytes, charge) = (body.clone(), charge(body.len()));
            self.segments.push_back(Segment { bytes, messages: 1, charge });
        }
    }

    /// The next bytes to leave; `None` when nothing waits.
    pub fn pop(&mut self) -> Option<Chunk> {
        if self.segments.is_empty() {
            self.close_pack();
        }
        let front = self.segments.front_mut()?;
        if front.bytes.len() > CHUNK_BYTES {
            let bytes = front.bytes.split_to(CHUNK_BYTES);
            front.charge -= bytes.len();
            self.port.release(bytes.len());
            return Some(Chunk { bytes, messages: 0 });
        }
        let Segment { bytes, messages, charge } = self.segments.pop_front()?;
        self.port.release(charge);
        self.messages -= messages;
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
}

/// Room that is still taken is given back, for what another core may yet hold of the port.
impl Drop for Egress {
    fn drop(&mut self) {
        let waiting = self.segments.iter().map(|segment| segment.charge).sum::<usize>();
        self.port.release(waiting + self.pack_charge);
    }
}

#[cfg(test)]
mod tests;
