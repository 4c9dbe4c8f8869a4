//! Native frames cut out of a stream of bytes, several at a time.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::envelope::Pieces;
use crate::error::DecodeError;
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::{HEADER_BYTES, RUN_BYTES};

/// Takes the chunks of a stream as they come, and gives back *runs*: consecutive frames whose
/// headers are the same for routing, in the pieces in which they arrived.
///
/// A forwarder then looks each run up once and moves it as a whole. Reading a header allocates
/// nothing; only one that is cut by the end of a chunk is copied, to the stack.
#[derive(Debug)]
pub struct FrameReader {
    chunks: VecDeque<Bytes>,
    buffered: usize,
    /// The start of a frame that was not complete at the last [`FrameReader::settle`], in memory
    /// of its own.
    begun: BytesMut,
    /// An empty list for the pieces of the next run.
    spare: Pieces,
    limit: usize,
}

/// A longer list is not kept. This one holds the longest run in packets of an Ethernet path.
const SPARE_PIECES: usize = 64;

/// Consecutive frames that routing treats alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first frame's header.
    pub header: FrameHeader,
    /// How many frames there are.
    pub frames: u32,
    /// Their bytes, headers included.
    pub body: Pieces,
}

impl FrameReader {
    /// A reader of frames of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let (chunks, begun, spare) = (VecDeque::new(), BytesMut::new(), Pieces::new());
        Self { chunks, buffered: 0, begun, spare, limit }
    }

    /// Takes the next chunk of the stream.
    ///
    /// # Errors
    /// [`DecodeError`] if a frame that had begun has a length that cannot be true; nothing after
    /// it can be read.
    pub fn push(&mut self, mut chunk: Bytes) -> Result<(), DecodeError> {
        while !self.begun.is_empty() && !chunk.is_empty() {
            let missing = self.missing()?;
            let part = missing.min(chunk.len());
            self.begun.extend_from_slice(&chunk[..part]);
            chunk.advance(part);
            if self.missing()? == 0 {
                let frame = self.begun.split().freeze();
                self.enqueue(frame);
            }
        }
        if !chunk.is_empty() {
            self.enqueue(chunk);
        }
        Ok(())
    }

    fn enqueue(&mut self, chunk: Bytes) {
        self.buffered += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// How many bytes the begun frame needs next: first the rest of its header, then of itself.
    fn missing(&self) -> Result<usize, DecodeError> {
        let Some(header) = FrameHeader::prefix_of(&self.begun) else {
            return Ok(HEADER_BYTES - self.begun.len());
        };
        header.check_lengths(self.limit)?;
        Ok(header.length() - self.begun.len())
    }

    /// The next run, if a whole frame is there.
    ///
    /// # Errors
    /// [`DecodeError`] if the next frame cannot be one; nothing after it can be read.
    #[inline]
    pub fn next_run(&mut self) -> Result<Option<Run>, DecodeError> {
        let mut cursor = Cursor { reader: self, chunk: 0, offset: 0 };
        let Some(first) = cursor.header() else {
            return Ok(None);
        };
        first.check_lengths(self.limit)?;
        if first.length() > self.buffered {
            return Ok(None);
        }
        let (mut frames, mut length) = (1, first.length());
        cursor.skip(first.length());
        if !first.is_anycast() {
            while length < RUN_BYTES
                && let Some(next) = cursor.header()
                // One with a wrong length is reported when it comes first.
                && next.check_lengths(self.limit).is_ok()
                && length + next.length() <= self.buffered
                && first.routes_like(&next)
            {
                cursor.skip(next.length());
                length += next.length();
                frames += 1;
            }
        }
        let chunks = cursor.chunk + 1;
        Ok(Some(Run { header: first, frames, body: self.take(length, chunks) }))
    }

    /// Takes back the pieces of a [`Run`] that has been forwarded: their list is used again, so
    /// that a reader that gets all of them back allocates none.
    #[inline]
    pub fn reuse(&mut self, mut pieces: Pieces) {
        if pieces.spilled() && pieces.capacity() <= SPARE_PIECES {
            pieces.clear();
            self.spare = pieces;
        }
    }

    /// Cuts `length` bytes off the front, which lie in about `chunks` chunks.
    fn take(&mut self, length: usize, chunks: usize) -> Pieces {
        let (mut pieces, mut rest) = (std::mem::take(&mut self.spare), length);
        pieces.reserve(chunks);
        self.buffered -= length;
        while rest > 0 {
            let Some(front) = self.chunks.front_mut() else {
                break;
            };
            if front.len() > rest {
                pieces.push(front.split_to(rest));
                break;
            }
            rest -= front.len();
            pieces.extend(self.chunks.pop_front());
        }
        pieces
    }

    /// To be called when no more chunks are at hand: what has begun of a frame gets memory of its
    /// own, so that it does not keep whole receive buffers while the rest is awaited. Returns how
    /// many bytes that is.
    pub fn settle(&mut self) -> usize {
        for chunk in self.chunks.drain(..) {
            self.begun.extend_from_slice(&chunk);
        }
        self.buffered = 0;
        self.begun.len()
    }
}

/// A place in the buffered bytes.
struct Cursor<'a> {
    reader: &'a FrameReader,
    chunk: usize,
    offset: usize,
}

impl Cursor<'_> {
    /// The header here; `None` if it is not all there.
    #[inline]
    fn header(&self) -> Option<FrameHeader> {
        let chunk = self.reader.chunks.get(self.chunk)?;
        match FrameHeader::prefix_of(&chunk[self.offset..]) {
            Some(header) => Some(*header),
            None => self.cut_header(),
        }
    }

    #[cold]
    fn cut_header(&self) -> Option<FrameHeader> {
        let mut bytes = [0; HEADER_BYTES];
        let (mut filled, mut offset) = (0, self.offset);
        for chunk in self.reader.chunks.range(self.chunk..) {
            let part = (HEADER_BYTES - filled).min(chunk.len() - offset);
            bytes[filled..filled + part].copy_from_slice(&chunk[offset..offset + part]);
            (filled, offset) = (filled + part, 0);
            if filled == HEADER_BYTES {
                return FrameHeader::prefix_of(&bytes).copied();
            }
        }
        None
    }

    /// Moves on by `length` bytes that are buffered, or to the end.
    #[inline]
    fn skip(&mut self, length: usize) {
        self.offset += length;
        while let Some(chunk) = self.reader.chunks.get(self.chunk)
            && self.offset >= chunk.len()
        {
            self.offset -= chunk.len();
            self.chunk += 1;
        }
    }
}

/// The frames of a run one by one, each in its pieces.
#[derive(Debug)]
pub struct Frames(FrameReader);

impl Frames {
    /// The frames in `body`, which is a [`Run`]'s or one frame.
    pub fn of(body: &Pieces) -> Self {
        let mut reader = FrameReader::new(usize::MAX);
        body.iter().for_each(|piece| reader.enqueue(piece.clone()));
        Self(reader)
    }
}

impl Iterator for Frames {
    type Item = (FrameHeader, Pieces);

    fn next(&mut self) -> Option<Self::Item> {
        let header = Cursor { reader: &self.0, chunk: 0, offset: 0 }.header()?;
        let length = header.length();
        (HEADER_BYTES..=self.0.buffered).contains(&length).then(|| (header, self.0.take(length, 1)))
    }
}

/// The parts of a control frame that stands in one piece: header, session part, payload.
impl FrameHeader {
    /// Splits a whole frame whose lengths were checked into its session part and payload.
    pub fn parts<'a>(&self, frame: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        frame[HEADER_BYTES..].split_at(self.session_length())
    }

    /// Whether it is a publish, the only kind that data lanes and datagrams carry.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not.
    #[inline]
    pub fn check_publish(&self) -> Result<(), DecodeError> {
        match self.kind()? {
            FrameKind::Publish => Ok(()),
            other => Err(DecodeError::Unexpected {
                field: "kind on a data lane",
                expected: "1 (publish)",
                got: other as u64,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
