use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamEvent, StreamId};
use slim_wire::limits::{GRPC_MESSAGE_BYTES, LANES};
use slim_wire::{
    DecodeError, Flags, FrameKind, FrameReader, Frames, Header, Hello, HelloFlags, Name, Role,
    SessionIds,
};

/// One link of the swarm: as much of an app as it takes to subscribe, to publish and to count.
pub(crate) struct Client {
    control: Option<StreamId>,
    frames: FrameReader,
    out: BytesMut,
    /// The node has said hello.
    pub(super) open: bool,
    /// Subscriptions that the node has acknowledged, and those that it has refused.
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    requests: u32,
    /// Bytes of messages that have come.
    pub(super) received: u64,
    lane: Option<StreamId>,
    publishes: Bytes,
    inbound: [Option<StreamId>; LANES as usize],
    readable: u8,
    control_readable: bool,
}

/// Longest control frame.
const FRAME_BYTES: usize = 8 * 1024;

impl Default for Client {
    fn default() -> Self {
        Self {
            control: None,
            frames: FrameReader::new(FRAME_BYTES),
            out: BytesMut::new(),
            open: false,
            acknowledged: 0,
            refused: 0,
            requests: 0,
            received: 0,
            lane: None,
            publishes: Bytes::new(),
            inbound: [None; LANES as usize],
            readable: 0,
            control_readable: false,
        }
    }
}

impl Client {
    /// Says hello as soon as it may.
    pub(super) fn connected(&mut self, connection: &mut Connection) {
        self.control = connection.streams().open(Dir::Bi);
        let (flags, frame_bytes) = (HelloFlags::empty(), GRPC_MESSAGE_BYTES as u32);
        let hello = Hello { role: Role::App, node: 0, flags, frame_bytes };
        self.say(FrameKind::Hello, Name::NOBODY, &hello.encode());
    }

    /// Asks for a name; counts as acknowledged once every core of the node knows.
    pub(super) fn subscribe(&mut self, name: Name) {
        self.say(FrameKind::Subscribe, name, &[]);
    }

    /// Sends frames, as soon as there is room. What was given before has to have left.
    pub(super) fn publish(&mut self, frames: Bytes) {
        debug_assert!(self.publishes.is_empty(), "one batch at a time");
        self.publishes = frames;
    }

    /// Whether all that was published has left.
    pub(super) fn has_published(&self) -> bool {
        self.publishes.is_empty()
    }

    /// Subscriptions that are not acknowledged.
    pub(super) fn outstanding(&self) -> u64 {
        u64::from(self.requests.saturating_sub(1)) - self.acknowledged - self.refused
    }

    fn say(&mut self, kind: FrameKind, name: Name, payload: &[u8]) {
        let header = Header::control(Flags::empty(), Name::NOBODY, name);
        let ids = SessionIds { session: 0, message: self.requests };
        self.requests += 1;
        let frame = slim_wire::frame(kind, &header, ids, &[], payload);
        self.out.extend_from_slice(&frame.expect("what a client says is short"));
    }

    pub(super) fn stream_event(&mut self, connection: &mut Connection, event: StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = connection.streams().accept(Dir::Uni) {
                    let lane = stream.index() as usize % usize::from(LANES);
                    self.inbound[lane] = Some(stream);
                    self.readable |= 1 << lane;
                }
            }
            StreamEvent::Readable { id } if id.dir() == Dir::Bi => self.control_readable = true,
            StreamEvent::Readable { id } => {
                self.readable |= 1 << (id.index() % u64::from(LANES));
            }
            _ => {}
        }
    }

    pub(super) fn read(&mut self, connection: &mut Connection) -> Result<(), DecodeError> {
        if std::mem::take(&mut self.control_readable) {
            self.read_control(connection)?;
        }
        for lane in 0..usize::from(LANES) {
            if self.readable & 1 << lane != 0
                && let Some(stream) = self.inbound[lane]
            {
                self.received += drain(connection, stream, |_| Ok(()))?;
            }
        }
        self.readable = 0;
        Ok(())
    }

    fn read_control(&mut self, connection: &mut Connection) -> Result<(), DecodeError> {
        let Some(stream) = self.control else {
            return Ok(());
        };
        let frames = &mut self.frames;
        drain(connection, stream, |chunk| frames.push(chunk))?;
        while let Some(run) = self.frames.next_run()? {
            for (header, _) in Frames::of(&run.body) {
                match header.kind()? {
                    FrameKind::Hello => self.open = true,
                    FrameKind::Ack if header.is_error() => self.refused += 1,
                    FrameKind::Ack => self.acknowledged += 1,
                    _ => {}
                }
            }
        }
        self.frames.settle();
        Ok(())
    }

    pub(super) fn write(&mut self, connection: &mut Connection) {
        while let Some(stream) = self.control
            && !self.out.is_empty()
            && let Ok(written) = connection.send_stream(stream).write(&self.out)
        {
            self.out.advance(written);
        }
        if self.publishes.is_empty() {
            return;
        }
        if self.lane.is_none() {
            self.lane = connection.streams().open(Dir::Uni);
        }
        while let Some(stream) = self.lane
            && !self.publishes.is_empty()
            && let publishes = std::slice::from_mut(&mut self.publishes)
            && connection.send_stream(stream).write_chunks(publishes).is_ok()
        {}
    }
}

/// Reads all that has arrived of a stream. Returns how many bytes that is.
fn drain(
    connection: &mut Connection,
    stream: StreamId,
    mut take: impl FnMut(Bytes) -> Result<(), DecodeError>,
) -> Result<u64, DecodeError> {
    let mut stream = connection.recv_stream(stream);
    let Ok(mut chunks) = stream.read(true) else {
        return Ok(0);
    };
    let mut read = 0;
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        read += chunk.bytes.len() as u64;
        take(chunk.bytes)?;
    }
    // What this makes due is sent at the end of the turn.
    let _ = chunks.finalize();
    Ok(read)
}
