use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ReadError, StreamId};
use slim_wire::limits::LANES;
use slim_wire::{DecodeError, Envelope, FrameReader};

use crate::datapath::Port;
use crate::link::flow::Flow;
use crate::link::host::{Host, PartialRoom};

/// One lane from a peer: what has arrived of it, and whether it may go on.
pub(super) struct Inbound {
    pub(super) stream: Option<StreamId>,
    pub(super) frames: FrameReader,
    pub(super) flow: Flow,
    pub(super) pause: Option<Pause>,
    /// What waits for the end of the pause, already cut out of the stream.
    pub(super) held: Option<Envelope>,
    /// Since when a frame is incomplete.
    pub(super) begun: Option<Instant>,
    partial: PartialRoom,
}

/// A lane that is not read until its only target has caught up.
pub(super) struct Pause {
    pub(super) port: Arc<Port>,
    pub(super) until: Instant,
}

/// Bytes of one lane that are read before others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// Begun frames of up to this many bytes do not count in `limits.partial_bytes`.
const SMALL_BYTES: usize = 64 * 1024;

/// How a read of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All that has arrived is read.
    Drained,
    /// More is there.
    More,
    /// The peer has sent its last byte, or has given the stream up.
    Ended,
}

impl Inbound {
    pub(super) fn new(host: &Host) -> Self {
        Self {
            stream: None,
            frames: FrameReader::new(host.limits.message_bytes),
            flow: Flow::default(),
            pause: None,
            held: None,
            begun: None,
            partial: host.places.partial_room(),
        }
    }

    /// To be called when no more is at hand: notes since when a frame is incomplete. Returns
    /// whether there is room for what has begun.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let begun = self.frames.settle();
        self.begun = if begun == 0 { None } else { self.begun.or(Some(now)) };
        // What a small frame has begun is less than what QUIC itself keeps for the lane; so links
        // that begin large ones never cost others their small ones.
        self.partial.resize(if begun <= SMALL_BYTES { 0 } else { begun })
    }

    /// Whether all that the peer sent has been forwarded, up to the end of the stream.
    pub(super) fn is_done(&self) -> bool {
        self.stream.is_none() && self.pause.is_none() && self.held.is_none()
    }

    /// Whether the pause, if there is one, is over.
    pub(super) fn may_go_on(&mut self, enough: usize, now: Instant) -> bool {
        let Some(Pause { port, until }) = &self.pause else {
            return true;
        };
        if port.queued() > enough && !port.is_closed() {
            if now < *until {
                return false;
            }
            self.flow.give_up();
        }
        self.pause = None;
        true
    }
}

/// Reads what has arrived of a stream into `frames`, up to a limit.
pub(super) fn read_stream(
    connection: &mut quinn_proto::Connection,
    id: StreamId,
    frames: &mut FrameReader,
) -> Result<Read, DecodeError> {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else {
        return Ok(Read::Ended);
    };
    let mut room = TURN_BYTES;
    let read = loop {
        if room == 0 {
            break Ok(Read::More);
        }
        match chunks.next(room) {
            Ok(Some(chunk)) => {
                room -= chunk.bytes.len();
                if let Err(error) = frames.push(chunk.bytes) {
                    break Err(error);
                }
            }
            Ok(None) | Err(ReadError::Reset(_)) => break Ok(Read::Ended),
            Err(ReadError::Blocked) => break Ok(Read::Drained),
        }
    };
    // The caller sends whatever this makes due at the end of its turn.
    let _ = chunks.finalize();
    read
}

/// The lanes to a peer.
#[derive(Default)]
pub(super) struct Outbound {
    streams: Vec<StreamId>,
    rest: [Bytes; LANES as usize],
    /// Lanes that the peer, or the congestion of the path, has no room for now.
    blocked: u8,
    /// The lane that is written first, so that none of them gets all the room.
    turn: u8,
    /// Lanes of a link that ends whose last byte has not been acknowledged.
    finishing: Option<u8>,
}

/// A peer that does not take a lane.
#[derive(Debug)]
pub(super) struct LaneStopped;

impl Outbound {
    fn lane_of(&self, id: StreamId) -> Option<u8> {
        self.streams.iter().position(|stream| *stream == id).map(|lane| lane as u8)
    }

    /// The stream may have room again. Returns whether it is a lane.
    pub(super) fn unblock(&mut self, id: StreamId) -> bool {
        let lane = self.lane_of(id);
        self.blocked &= !lane.map_or(0, |lane| 1 << lane);
        lane.is_some()
    }

    /// The stream's last byte has been acknowledged.
    pub(super) fn finished(&mut self, id: StreamId) {
        let lane = self.lane_of(id);
        if let Some(left) = &mut self.finishing {
            *left &= !lane.map_or(0, |lane| 1 << lane);
        }
    }

    /// Writes what `pop` gives for each lane, as far as there is room. Returns whether there was.
    pub(super) fn write(
        &mut self,
        connection: &mut quinn_proto::Connection,
        mut pop: impl FnMut(u8) -> Option<Bytes>,
    ) -> Result<bool, LaneStopped> {
        let mut written = false;
        while self.streams.len() < usize::from(LANES) {
            // A peer that allows fewer streams than there are lanes gets nothing on the others.
            let Some(id) = connection.streams().open(quinn_proto::Dir::Uni) else {
                break;
            };
            self.streams.push(id);
        }
        self.turn = (self.turn + 1) % LANES;
        for step in 0..LANES {
            let lane = (self.turn + step) % LANES;
            let Some(id) = self.streams.get(usize::from(lane)) else {
                continue;
            };
            let rest = &mut self.rest[usize::from(lane)];
            while self.blocked & (1 << lane) == 0 {
                if rest.is_empty() {
                    match pop(lane) {
                        Some(bytes) => *rest = bytes,
                        None => break,
                    }
                }
                let stream = &mut connection.send_stream(*id);
                match stream.write_chunks(std::slice::from_mut(rest)) {
                    Ok(_) => written = true,
                    Err(quinn_proto::WriteError::Blocked) => self.blocked |= 1 << lane,
                    Err(_) => return Err(LaneStopped),
                }
            }
        }
        Ok(written)
    }

    /// Whether something that was taken waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        self.rest.iter().any(|rest| !rest.is_empty())
    }

    /// Ends all lanes once what was written has arrived. Returns whether it has.
    pub(super) fn finish(&mut self, connection: &mut quinn_proto::Connection) -> bool {
        if self.finishing.is_none() {
            let mut left = 0;
            for (lane, id) in self.streams.iter().enumerate() {
                if connection.send_stream(*id).finish().is_ok() {
                    left |= 1 << lane;
                }
            }
            self.finishing = Some(left);
        }
        self.finishing == Some(0)
    }
}
