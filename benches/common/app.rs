//! The least of an app that a node lets in: a hello, a subscription, and one lane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, Event, Incoming, ServerConfig, StreamEvent,
    StreamId,
};
use slim_quic::link::quic::settings;
use slim_quic::link::quic::transport::{Admit, Application};
use slim_wire::limits::FRAME_BYTES;
use slim_wire::{Flags, FrameKind, FrameReader, Header, Hello, HelloFlags, Name, Role, SessionIds};

/// One app. What it has received is counted, and not looked at.
pub(crate) struct App {
    control: Option<StreamId>,
    /// What is to be said on the control stream.
    to_say: Vec<u8>,
    answers: FrameReader,
    greeted: bool,
    subscribed: bool,
    lane: Option<StreamId>,
    to_publish: Bytes,
    inbound: Vec<StreamId>,
    received: usize,
}

impl Default for App {
    fn default() -> Self {
        let frame_bytes = FRAME_BYTES as u32;
        let hello = Hello { role: Role::App, node: 0, flags: HelloFlags::empty(), frame_bytes };
        Self {
            control: None,
            to_say: control(FrameKind::Hello, Name::NOBODY, &hello.encode()),
            answers: FrameReader::new(FRAME_BYTES),
            greeted: false,
            subscribed: false,
            lane: None,
            to_publish: Bytes::new(),
            inbound: Vec::new(),
            received: 0,
        }
    }
}

impl App {
    /// Subscribes to `name`, once it is connected.
    pub(crate) fn subscribe(&mut self, name: Name) {
        self.to_say.extend(control(FrameKind::Subscribe, name, &[]));
    }

    /// Publishes whole frames.
    pub(crate) fn publish(&mut self, frames: Bytes) {
        assert!(self.has_published(), "what was published before has left");
        self.to_publish = frames;
    }

    /// Whether all that was published has left.
    pub(crate) fn has_published(&self) -> bool {
        self.to_publish.is_empty()
    }

    pub(crate) fn may_publish(&self) -> bool {
        self.greeted && self.lane.is_some()
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// How many bytes have come on lanes since the last call.
    pub(crate) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    fn hear(&mut self, chunk: Bytes) {
        self.answers.push(chunk).expect("valid");
        while let Some(run) = self.answers.next_run().expect("valid") {
            match run.header.kind().expect("a kind") {
                FrameKind::Hello => self.greeted = true,
                FrameKind::Ack => self.subscribed = true,
                kind => panic!("the node says {kind:?}"),
            }
        }
        self.answers.settle();
    }
}

/// A frame for the control stream.
fn control(kind: FrameKind, destination: Name, payload: &[u8]) -> Vec<u8> {
    let header = Header::control(Flags::empty(), Name::NOBODY, destination);
    let frame = slim_wire::frame(kind, &header, SessionIds::default(), &[], payload);
    frame.expect("a payload that fits").to_vec()
}

impl Application for App {
    fn admit(&mut self, _incoming: &Incoming) -> Admit {
        Admit::Refuse
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        None
    }

    fn accepted(&mut self, _id: ConnectionHandle, _remote: SocketAddr, _now: Instant) {}

    fn event(
        &mut self,
        _id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        _now: Instant,
    ) {
        match event {
            Event::Connected => {
                settings::allow_lanes(connection);
                self.control = connection.streams().open(Dir::Bi);
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                self.inbound.extend(std::iter::from_fn(|| connection.streams().accept(Dir::Uni)));
            }
            Event::ConnectionLost { reason } => panic!("the connection ended: {reason}"),
            _ => {}
        }
    }

    fn read(&mut self, _id: ConnectionHandle, connection: &mut Connection, _now: Instant) -> bool {
        for id in self.control.into_iter().chain(self.inbound.iter().copied()).collect::<Vec<_>>() {
            let mut stream = connection.recv_stream(id);
            let mut chunks = stream.read(true).expect("it is open");
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                match id.dir() {
                    Dir::Bi => self.hear(chunk.bytes),
                    Dir::Uni => self.received += chunk.bytes.len(),
                }
            }
            let _ = chunks.finalize();
        }
        false
    }

    fn write(&mut self, _id: ConnectionHandle, connection: &mut Connection, _now: Instant) {
        if let Some(control) = self.control
            && let Ok(written) = connection.send_stream(control).write(&self.to_say)
        {
            self.to_say.drain(..written);
        }
        if self.greeted && self.lane.is_none() {
            self.lane = connection.streams().open(Dir::Uni);
        }
        if let Some(lane) = self.lane
            && !self.to_publish.is_empty()
        {
            // What finds no room now is written in a later turn.
            let pieces = std::slice::from_mut(&mut self.to_publish);
            let _ = connection.send_stream(lane).write_chunks(pieces);
        }
    }

    fn gone(&mut self, _id: ConnectionHandle) {}

    fn rejected(&mut self, remote: SocketAddr, reason: &ConnectionError) {
        panic!("{remote} was rejected: {reason}");
    }

    fn stray(&mut self, remote: SocketAddr) {
        panic!("{remote} sent what belongs to no connection");
    }
}
