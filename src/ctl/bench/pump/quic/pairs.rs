use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, Event, Incoming, ReadError, StreamEvent,
    StreamId, VarInt,
};
use slim_wire::CloseCode;
use slim_wire::limits::{LANES, PACKING_THRESHOLD_BYTES};

use super::control::Control;
use crate::link::quic::settings;
use crate::link::quic::transport::{Admit, Application};

/// Connections in pairs: what comes on a lane of one leaves on the same lane of the other.
///
/// A connection that sends something is joined to the last one that subscribed and is not joined
/// yet.
#[derive(Default)]
pub(super) struct Pairs {
    ends: Vec<Option<End>>,
    subscriber: Option<ConnectionHandle>,
    /// Connections to look at though nothing arrived for them.
    ready: Vec<ConnectionHandle>,
}

#[derive(Default)]
struct End {
    control: Control,
    control_readable: bool,
    other: Option<ConnectionHandle>,
    /// Lanes from the client, and which of them have something to read.
    inbound: [Option<StreamId>; LANES as usize],
    readable: u8,
    /// Lanes to the client, what waits for each, and which have no room.
    outbound: Vec<StreamId>,
    waiting: [Waiting; LANES as usize],
    blocked: u8,
}

/// A lane is read while no more than this waits for its counterpart: what has been read is then
/// still in the processor's cache when it leaves.
const WAITING_BYTES: usize = 256 * 1024;

/// Small pieces are copied into buffers of this size: otherwise every packet that leaves looks for
/// its bytes among many of them, which costs as much or more. Large ones leave as they came.
const PACK_BYTES: usize = 16 * 1024;

/// Bytes for one lane.
#[derive(Default)]
struct Waiting {
    full: VecDeque<Bytes>,
    pack: BytesMut,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() > PACKING_THRESHOLD_BYTES {
            self.seal();
            return self.full.push_back(chunk);
        }
        if self.pack.capacity() - self.pack.len() < chunk.len() {
            self.seal();
            self.pack.reserve(PACK_BYTES);
        }
        self.pack.extend_from_slice(&chunk);
    }

    fn seal(&mut self) {
        if !self.pack.is_empty() {
            self.full.push_back(self.pack.split().freeze());
        }
    }
}

impl Pairs {
    fn end(&mut self, id: ConnectionHandle) -> Option<&mut End> {
        self.ends.get_mut(id.0).and_then(Option::as_mut)
    }

    /// Has connections looked at again. Returns whether there were any.
    pub(super) fn take_ready(&mut self, touch: impl FnMut(ConnectionHandle)) -> bool {
        let any = !self.ready.is_empty();
        self.ready.drain(..).for_each(touch);
        any
    }

    /// Reads the lanes of a connection for the other of its pair, as far as there is `room`.
    fn pump(&mut self, id: ConnectionHandle, connection: &mut Connection, room: usize) {
        let Some(end) = self.end(id).filter(|end| end.readable != 0) else {
            return;
        };
        let Some(other) = end.other else {
            return self.join(id, connection, room);
        };
        let Ok([Some(end), Some(sink)]) = self.ends.get_disjoint_mut([id.0, other.0]) else {
            return;
        };
        for lane in 0..usize::from(LANES) {
            let waiting = &mut sink.waiting[lane];
            if let Some(stream) = end.inbound[lane].filter(|_| end.readable & 1 << lane != 0)
                && read(connection, stream, waiting, room)
            {
                end.readable &= !(1 << lane);
            }
        }
        self.ready.push(other);
    }

    /// Finds a connection that sends its other end.
    #[cold]
    fn join(&mut self, id: ConnectionHandle, connection: &mut Connection, room: usize) {
        if let Some(other) = self.subscriber.take_if(|other| *other != id) {
            if let Some(sink) = self.end(other) {
                sink.other = Some(id);
            }
            if let Some(end) = self.end(id) {
                end.other = Some(other);
            }
            self.pump(id, connection, room);
        }
    }

    fn stream_event(
        &mut self,
        id: ConnectionHandle,
        connection: &mut Connection,
        event: StreamEvent,
    ) {
        let Some(end) = self.end(id) else {
            return;
        };
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                if let Some(stream) = connection.streams().accept(Dir::Bi) {
                    end.control.opened(stream);
                    end.control_readable = true;
                }
            }
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = connection.streams().accept(Dir::Uni) {
                    // The settings allow as many streams as there are lanes.
                    end.inbound[stream.index() as usize % usize::from(LANES)] = Some(stream);
                    end.readable |= 1 << (stream.index() % u64::from(LANES));
                }
            }
            StreamEvent::Readable { id } if id.dir() == Dir::Bi => end.control_readable = true,
            StreamEvent::Readable { id } => end.readable |= 1 << (id.index() % u64::from(LANES)),
            StreamEvent::Writable { id } if id.dir() == Dir::Bi => end.control.write(connection),
            StreamEvent::Writable { id } => end.blocked &= !(1 << (id.index() % u64::from(LANES))),
            StreamEvent::Finished { .. }
            | StreamEvent::Stopped { .. }
            | StreamEvent::Available { .. } => {}
        }
    }
}

/// Moves what has arrived on a stream to what waits, as far as there is `room`. Returns whether
/// that was all.
fn read(connection: &mut Connection, stream: StreamId, waiting: &mut Waiting, room: usize) -> bool {
    let mut stream = connection.recv_stream(stream);
    let Ok(mut chunks) = stream.read(true) else {
        return true;
    };
    let mut all = false;
    while waiting.bytes < room && !all {
        match chunks.next(room - waiting.bytes) {
            Ok(Some(chunk)) => waiting.push(chunk.bytes),
            Ok(None) | Err(ReadError::Blocked | ReadError::Reset(_)) => all = true,
        }
    }
    // What this makes due is sent at the end of the turn.
    let _ = chunks.finalize();
    all
}

impl End {
    /// Writes what waits, as far as there is room. Returns whether any of it left.
    fn write(&mut self, connection: &mut Connection) -> bool {
        while self.outbound.len() < usize::from(LANES)
            && let Some(stream) = connection.streams().open(Dir::Uni)
        {
            self.outbound.push(stream);
        }
        let mut wrote = false;
        for (lane, (stream, waiting)) in self.outbound.iter().zip(&mut self.waiting).enumerate() {
            waiting.seal();
            while self.blocked & 1 << lane == 0
                && let Some(front) = waiting.full.front_mut()
            {
                match connection.send_stream(*stream).write_chunks(std::slice::from_mut(front)) {
                    Ok(written) => {
                        wrote = true;
                        waiting.bytes -= written.bytes;
                        if front.is_empty() {
                            waiting.full.pop_front();
                        }
                    }
                    Err(_) => self.blocked |= 1 << lane,
                }
            }
        }
        wrote
    }
}

impl Application for Pairs {
    fn admit(&mut self, _incoming: &Incoming) -> Admit {
        Admit::Accept
    }

    fn accepted(&mut self, id: ConnectionHandle, _remote: SocketAddr, _now: Instant) {
        if self.ends.len() <= id.0 {
            self.ends.resize_with(id.0 + 1, || None);
        }
        self.ends[id.0] = Some(End::default());
    }

    fn rejected(&mut self, _remote: SocketAddr, _reason: &ConnectionError) {}

    fn event(
        &mut self,
        id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        _now: Instant,
    ) {
        match event {
            Event::Stream(event) => self.stream_event(id, connection, event),
            // What has arrived is still handed on: the client knows that it has.
            Event::ConnectionLost { .. } => self.pump(id, connection, usize::MAX),
            Event::Connected => settings::allow_lanes(connection),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self, id: ConnectionHandle, connection: &mut Connection, now: Instant) -> bool {
        if let Some(end) = self.end(id)
            && std::mem::take(&mut end.control_readable)
        {
            match end.control.read(connection) {
                Ok(true) => self.subscriber = Some(id),
                Ok(false) => {}
                Err(error) => {
                    let code = VarInt::from_u32(CloseCode::Protocol as u32);
                    connection.close(now, code, error.to_string().into());
                }
            }
        }
        self.pump(id, connection, WAITING_BYTES);
        false
    }

    fn write(&mut self, id: ConnectionHandle, connection: &mut Connection, _now: Instant) {
        let wrote = self.end(id).is_some_and(|end| end.write(connection));
        // The other end may have been left unread.
        if let Some(other) = self.end(id).and_then(|end| end.other).filter(|_| wrote)
            && self.end(other).is_some_and(|end| end.readable != 0)
        {
            self.ready.push(other);
        }
    }

    fn gone(&mut self, id: ConnectionHandle) {
        let end = self.ends.get_mut(id.0).and_then(Option::take);
        if let Some(other) = end.and_then(|end| end.other)
            && let Some(other) = self.end(other)
        {
            other.other = None;
        }
        self.subscriber.take_if(|subscriber| *subscriber == id);
    }

    fn stray(&mut self, _remote: SocketAddr) {}
}
