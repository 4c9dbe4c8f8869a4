use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use slim_wire::limits::{HEADER_BYTES, LANES};
use slim_wire::{CloseCode, DecodeError, FrameHeader, FrameKind, FrameReader, Frames, Pieces, Run};
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::client::link::error::one_line;
use crate::client::link::{LinkError, Message, Place};

/// Chunks that are read at once; as many packets as the system hands over in one call.
const CHUNKS: usize = 64;

/// A stream's frames, one by one.
pub(super) struct FrameStream {
    stream: RecvStream,
    place: Place,
    reader: FrameReader,
    /// Frames that were cut out together.
    run: Option<Frames>,
    chunks: [Bytes; CHUNKS],
    /// Nothing more is at hand.
    drained: bool,
}

impl FrameStream {
    /// Of a stream whose frames have up to `limit` bytes.
    pub(super) fn new(stream: RecvStream, place: Place, limit: usize) -> Self {
        let chunks = [const { Bytes::new() }; CHUNKS];
        let reader = FrameReader::new(limit);
        Self { stream, place, reader, run: None, chunks, drained: false }
    }

    /// The next frame of those that were read.
    pub(super) fn next(&mut self) -> Result<Option<(FrameHeader, Pieces)>, LinkError> {
        loop {
            if let Some(frame) = self.run.as_mut().and_then(Iterator::next) {
                return Ok(Some(frame));
            }
            self.run = None;
            match self.reader.next_run().map_err(|source| self.wrong(source))? {
                None => return Ok(None),
                Some(Run { header, frames: 1, body }) => return Ok(Some((header, body))),
                Some(run) => self.run = Some(Frames::of(&run.body)),
            }
        }
    }

    /// Reads what has arrived, once there is something. Whether there was: not if the stream has
    /// ended after a whole frame, or the link is lost.
    pub(super) async fn read(&mut self) -> Result<bool, LinkError> {
        if self.drained {
            self.reader.settle();
        }
        let broken = |how| LinkError::Broken { place: self.place, how };
        let count = match self.stream.read_chunks(&mut self.chunks).await {
            Ok(Some(count)) => count,
            Ok(None) if self.reader.settle() == 0 => return Ok(false),
            Ok(None) => return Err(broken("ended it inside a frame")),
            Err(ReadError::Reset(_)) => return Err(broken("reset it")),
            // The task that watches the connection knows why.
            Err(_) => return Ok(false),
        };
        self.drained = count < CHUNKS;
        for chunk in &mut self.chunks[..count] {
            let pushed = self.reader.push(mem::take(chunk));
            pushed.map_err(|source| LinkError::Wrong { place: self.place, source })?;
        }
        Ok(true)
    }

    pub(super) fn wrong(&self, source: DecodeError) -> LinkError {
        LinkError::Wrong { place: self.place, source }
    }

    /// Messages of all frames that were read, for the end of `batch`.
    fn messages(&mut self, batch: &mut Vec<Message>) -> Result<(), LinkError> {
        while let Some((head, frame)) = self.next()? {
            batch.push(Message::from_frame(&head, frame).map_err(|source| self.wrong(source))?);
        }
        Ok(())
    }
}

/// Reads the lanes that the node opens.
pub(super) async fn read_lanes(shared: Arc<Shared>, readers: TaskTracker, limit: usize) {
    while let Ok(stream) = shared.connection.accept_uni().await {
        let place = Place::Lane(stream.id().index());
        if stream.id().index() >= LANES.into() {
            let (field, expected) = ("number of a lane", "0 to 7");
            let source = DecodeError::Unexpected { field, expected, got: stream.id().index() };
            return shared.fail(LinkError::Wrong { place, source }, CloseCode::Protocol);
        }
        let frames = FrameStream::new(stream, place, limit);
        readers.spawn(read_lane(Arc::clone(&shared), frames));
    }
}

/// Reads a lane to its end. While the app is behind, it is left unread.
async fn read_lane(shared: Arc<Shared>, mut frames: FrameStream) {
    let mut batch = Vec::new();
    loop {
        let read = frames.messages(&mut batch);
        // What came before a wrong frame is as good as ever.
        if !batch.is_empty() && !shared.inbound.push(&mut batch).await {
            return;
        }
        let more = match read {
            Ok(()) => frames.read().await,
            Err(error) => Err(error),
        };
        match more {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return shared.fail(error, CloseCode::Protocol),
        }
    }
}

/// Reads the answers to requests. After the stream's end there are none, and the link goes on:
/// a node that stops still hands over what it has.
pub(super) async fn read_control(shared: Arc<Shared>, mut frames: FrameStream) {
    loop {
        let more = match answer_all(&shared, &mut frames) {
            Ok(()) => frames.read().await,
            Err(error) => Err(error),
        };
        match more {
            Ok(true) => {}
            Ok(false) => return shared.requests.end(),
            Err(error) => return shared.fail(error, CloseCode::Protocol),
        }
    }
}

fn answer_all(shared: &Shared, frames: &mut FrameStream) -> Result<(), LinkError> {
    while let Some((head, frame)) = frames.next()? {
        let kind = head.kind().map_err(|source| frames.wrong(source))?;
        if kind != FrameKind::Ack {
            let (field, expected) = ("kind on the control stream", "5 (ack)");
            let got = kind as u64;
            return Err(frames.wrong(DecodeError::Unexpected { field, expected, got }));
        }
        let number = head.ids().message;
        let answer =
            if head.is_error() { Err(one_line(head.parts(&frame.concat()).1)) } else { Ok(()) };
        if !shared.requests.answer(number, answer) {
            let (field, expected) = ("message id of an ack", "that of a request that waits");
            let got = number.into();
            return Err(frames.wrong(DecodeError::Unexpected { field, expected, got }));
        }
    }
    Ok(())
}

/// Reads datagrams. While the app is behind, they are dropped.
pub(super) async fn read_datagrams(shared: Arc<Shared>, limit: usize) {
    while let Ok(datagram) = shared.connection.read_datagram().await {
        match message_of(datagram, limit) {
            Ok(message) => {
                if !shared.inbound.offer(message) {
                    shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(source) => {
                let error = LinkError::Wrong { place: Place::Datagram, source };
                return shared.fail(error, CloseCode::Protocol);
            }
        }
    }
}

/// The message in a datagram, which holds one whole frame.
fn message_of(datagram: Bytes, limit: usize) -> Result<Message, DecodeError> {
    let Some(head) = FrameHeader::prefix_of(&datagram).copied() else {
        let (expected, got) = (HEADER_BYTES, datagram.len());
        return Err(DecodeError::Truncated { field: "header", expected, got });
    };
    head.check_lengths(limit)?;
    if head.length() != datagram.len() {
        let (field, expected) = ("frame length", "that of the datagram");
        return Err(DecodeError::Unexpected { field, expected, got: head.length() as u64 });
    }
    let mut frame = Pieces::new();
    frame.push(datagram);
    Message::from_frame(&head, frame)
}
