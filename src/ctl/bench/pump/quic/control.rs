use bytes::{Buf, BytesMut};
use quinn_proto::{Connection, StreamId};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::{
    DecodeError, Flags, FrameKind, FrameReader, Frames, Header, Hello, HelloFlags, Name, Role,
    SessionIds,
};

/// The control stream of one end: as much of the protocol as its client needs to begin.
pub(super) struct Control {
    stream: Option<StreamId>,
    frames: FrameReader,
    answers: BytesMut,
}

/// Longest control frame.
const FRAME_BYTES: usize = 8 * 1024;

impl Default for Control {
    fn default() -> Self {
        let frames = FrameReader::new(FRAME_BYTES);
        Self { stream: None, frames, answers: BytesMut::new() }
    }
}

impl Control {
    pub(super) fn opened(&mut self, stream: StreamId) {
        self.stream = Some(stream);
    }

    /// Reads what has come, and answers all of it. Returns whether it holds a subscription.
    pub(super) fn read(&mut self, connection: &mut Connection) -> Result<bool, DecodeError> {
        let Some(id) = self.stream else {
            return Ok(false);
        };
        if let Ok(mut chunks) = connection.recv_stream(id).read(true) {
            while let Ok(Some(chunk)) = chunks.next(FRAME_BYTES) {
                self.frames.push(chunk.bytes)?;
            }
            let _ = chunks.finalize();
        }
        let mut subscribes = false;
        while let Some(run) = self.frames.next_run()? {
            for (header, _) in Frames::of(&run.body) {
                let kind = header.kind()?;
                subscribes |= kind == FrameKind::Subscribe;
                match kind {
                    FrameKind::Hello => {
                        let frame_bytes = GRPC_MESSAGE_BYTES as u32;
                        let flags = HelloFlags::empty();
                        let hello = Hello { role: Role::Node, node: 1, flags, frame_bytes };
                        self.answer(FrameKind::Hello, 0, &hello.encode());
                    }
                    _ => self.answer(FrameKind::Ack, header.ids().message, &[]),
                }
            }
        }
        self.write(connection);
        Ok(subscribes)
    }

    fn answer(&mut self, kind: FrameKind, message: u32, payload: &[u8]) {
        let header = Header::control(Flags::empty(), Name::NOBODY, Name::NOBODY);
        let ids = SessionIds { session: 0, message };
        let frame = slim_wire::frame(kind, &header, ids, &[], payload);
        self.answers.extend_from_slice(&frame.expect("an answer is short"));
    }

    /// Writes answers as far as there is room.
    pub(super) fn write(&mut self, connection: &mut Connection) {
        while let Some(id) = self.stream
            && !self.answers.is_empty()
            && let Ok(written) = connection.send_stream(id).write(&self.answers)
        {
            self.answers.advance(written);
        }
    }
}
