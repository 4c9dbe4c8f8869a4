use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, Event, Incoming, ReadError, StreamEvent,
    StreamId, VarInt,
};
use slim_wire::limits::{FRAME_BYTES, GRPC_MESSAGE_BYTES, LANES};
use slim_wire::{
    CloseCode, DecodeError, Flags, FrameKind, FrameReader, Frames, Header, Hello, HelloFlags, Name,
    Role, SessionIds, TextName,
};

use super::super::messages::Messages;
use super::Shared;
use crate::link::quic::transport::{Admit, Application, Datagram};

/// One link, as an app has it.
pub(super) struct Client {
    /// What is to be subscribed to.
    name: Option<TextName>,
    shared: Rc<Shared>,
    connection: Option<ConnectionHandle>,
    control: Option<StreamId>,
    requests: BytesMut,
    answers: FrameReader,
    inbound: Vec<Inbound>,
    outbound: Vec<StreamId>,
    /// The lane has no room.
    blocked: bool,
    ended: bool,
    closing: bool,
    /// What one receive brought.
    pub(super) batch: Vec<Datagram>,
}

struct Inbound {
    stream: StreamId,
    readable: bool,
    messages: Messages,
}

impl Client {
    pub(super) fn new(name: Option<TextName>, shared: Rc<Shared>) -> Self {
        Self {
            name,
            shared,
            connection: None,
            control: None,
            requests: BytesMut::new(),
            answers: FrameReader::new(FRAME_BYTES),
            inbound: Vec::new(),
            outbound: Vec::new(),
            blocked: false,
            ended: false,
            closing: false,
            batch: Vec::new(),
        }
    }

    /// Whether a turn is due though nothing arrived.
    pub(super) fn has_more(&self) -> bool {
        let state = self.shared.state.borrow();
        let open = state.ready && state.ended.is_none();
        open && !self.blocked && (!state.waiting.is_empty() || (state.finishing && !self.ended))
    }

    pub(super) fn touch(&self, touch: impl FnOnce(ConnectionHandle)) {
        if let Some(id) = self.connection.filter(|_| self.has_more()) {
            touch(id);
        }
    }

    /// Has the connection closed with the next write.
    pub(super) fn close(&mut self, touch: impl FnOnce(ConnectionHandle)) {
        self.closing = true;
        self.connection.map(touch);
    }

    fn begin(&mut self, connection: &mut Connection) {
        self.control = connection.streams().open(Dir::Bi);
        let frame_bytes = GRPC_MESSAGE_BYTES as u32;
        let hello = Hello { role: Role::App, node: 0, flags: HelloFlags::empty(), frame_bytes };
        self.request(FrameKind::Hello, Name::NOBODY, &hello.encode());
    }

    fn request(&mut self, kind: FrameKind, name: Name, payload: &[u8]) {
        let header = Header::control(Flags::empty(), Name::NOBODY, name);
        let frame = slim_wire::frame(kind, &header, SessionIds::default(), &[], payload);
        self.requests.extend_from_slice(&frame.expect("a request is short"));
    }

    fn stream_event(&mut self, connection: &mut Connection, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = connection.streams().accept(Dir::Uni) {
                    let messages = Messages::default();
                    self.inbound.push(Inbound { stream, readable: true, messages });
                }
            }
            StreamEvent::Readable { id } => {
                if let Some(lane) = self.inbound.iter_mut().find(|lane| lane.stream == id) {
                    lane.readable = true;
                }
            }
            StreamEvent::Writable { .. } => self.blocked = false,
            _ => {}
        }
    }

    fn read_control(&mut self, connection: &mut Connection) -> Result<(), DecodeError> {
        let Some(id) = self.control else {
            return Ok(());
        };
        read(connection, id, |chunk| self.answers.push(chunk))?;
        while let Some(run) = self.answers.next_run()? {
            for (header, pieces) in Frames::of(&run.body) {
                match (header.kind()?, self.name.take()) {
                    (FrameKind::Hello, Some(name)) => {
                        let text = name.components().join("/");
                        self.request(FrameKind::Subscribe, name.to_name(), text.as_bytes());
                    }
                    _ if header.is_error() => {
                        let frame = pieces.concat();
                        let reason = String::from_utf8_lossy(header.parts(&frame).1).into_owned();
                        self.shared.end(reason);
                    }
                    _ => {
                        self.shared.state.borrow_mut().ready = true;
                        self.shared.arrived.notify_one();
                    }
                }
            }
        }
        Ok(())
    }

    fn read_lanes(&mut self, connection: &mut Connection) -> Result<(), DecodeError> {
        let Self { inbound, shared, .. } = self;
        let mut state = shared.state.borrow_mut();
        for lane in inbound.iter_mut().filter(|lane| lane.readable) {
            lane.readable = false;
            let Inbound { stream, messages, .. } = lane;
            read(connection, *stream, |chunk| messages.take(chunk, &mut state.arrivals))?;
        }
        if !state.arrivals.is_empty() {
            shared.arrived.notify_one();
        }
        Ok(())
    }

    fn write_lane(&mut self, connection: &mut Connection) {
        while self.outbound.len() < usize::from(LANES)
            && let Some(stream) = connection.streams().open(Dir::Uni)
        {
            self.outbound.push(stream);
        }
        let Some(lane) = self.outbound.first() else {
            return;
        };
        let mut state = self.shared.state.borrow_mut();
        while !self.blocked
            && let Some(front) = state.waiting.front_mut()
        {
            let mut stream = connection.send_stream(*lane);
            match stream.write_chunks(std::slice::from_mut(front)) {
                Ok(written) => {
                    if front.is_empty() {
                        state.waiting.pop_front();
                    }
                    state.waiting_bytes -= written.bytes;
                    self.shared.left.notify_one();
                }
                Err(_) => self.blocked = true,
            }
        }
        if state.finishing && state.waiting.is_empty() && !std::mem::replace(&mut self.ended, true)
        {
            for stream in self.outbound.iter().chain(&self.control) {
                // One that the node has stopped needs no end.
                let _ = connection.send_stream(*stream).finish();
            }
        }
    }

    fn fail(&self, connection: &mut Connection, error: &DecodeError, now: Instant) {
        let code = VarInt::from_u32(CloseCode::Protocol as u32);
        connection.close(now, code, error.to_string().into());
        self.shared.end(error.to_string());
    }
}

/// Hands what has arrived on a stream to `take`.
fn read(
    connection: &mut Connection,
    stream: StreamId,
    mut take: impl FnMut(Bytes) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut stream = connection.recv_stream(stream);
    let Ok(mut chunks) = stream.read(true) else {
        return Ok(());
    };
    let read = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => match take(chunk.bytes) {
                Ok(()) => {}
                Err(error) => break Err(error),
            },
            Ok(None) | Err(ReadError::Blocked | ReadError::Reset(_)) => break Ok(()),
        }
    };
    // What this makes due is sent at the end of the turn.
    let _ = chunks.finalize();
    read
}

impl Application for Client {
    fn admit(&mut self, _incoming: &Incoming) -> Admit {
        Admit::Refuse
    }

    fn accepted(&mut self, _id: ConnectionHandle, _remote: SocketAddr, _now: Instant) {}

    fn event(
        &mut self,
        id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        _now: Instant,
    ) {
        self.connection = Some(id);
        match event {
            Event::Connected => self.begin(connection),
            Event::Stream(event) => self.stream_event(connection, event),
            Event::ConnectionLost { reason } => self.shared.end(reason.to_string()),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self, _id: ConnectionHandle, connection: &mut Connection, now: Instant) -> bool {
        let read = self.read_control(connection).and_then(|()| self.read_lanes(connection));
        if let Err(error) = read {
            self.fail(connection, &error, now);
        }
        false
    }

    fn write(&mut self, _id: ConnectionHandle, connection: &mut Connection, now: Instant) {
        if self.closing {
            let code = VarInt::from_u32(CloseCode::Done as u32);
            return connection.close(now, code, Bytes::new());
        }
        while let Some(id) = self.control
            && !self.requests.is_empty()
            && let Ok(written) = connection.send_stream(id).write(&self.requests)
        {
            self.requests.advance(written);
        }
        self.write_lane(connection);
    }

    fn gone(&mut self, _id: ConnectionHandle) {
        self.shared.end("the connection has ended".into());
    }

    fn rejected(&mut self, _remote: SocketAddr, _reason: &ConnectionError) {}

    fn stray(&mut self, _remote: SocketAddr) {}
}
