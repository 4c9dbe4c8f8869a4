//! gRPC's length-prefixed messages, cut out of the chunks of an HTTP/2 body.

use bytes::{Buf, Bytes, BytesMut};
use slim_wire::Fault;
use thiserror::Error;

/// Length of the prefix of every gRPC message: a compression flag and a big-endian length.
pub const PREFIX_BYTES: usize = 5;

/// The prefix of an uncompressed message of `len` bytes.
///
/// # Panics
/// If `len` does not fit 32 bits; callers hold messages to a far smaller limit.
pub fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = u32::try_from(len).expect("message within 32 bits").to_be_bytes();
    [0, a, b, c, d]
}

/// Why a stream of gRPC messages cannot be read on. [`Fault::Peer`]; ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// A message announces more bytes than this endpoint accepts.
    #[error("message length: expected at most {limit} bytes, got {got}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The announced length in bytes.
        got: usize,
    },
    /// The compression flag is set, although this endpoint offered no compression.
    #[error("message prefix: expected compression flag 0, got {got}")]
    Compressed {
        /// The flag byte.
        got: u8,
    },
    /// The body ended inside a message.
    #[error("end of stream: expected {expected} more bytes of a message, got none")]
    Cut {
        /// Bytes that were still to come.
        expected: usize,
    },
}

impl FramingError {
    /// Always the peer's.
    pub fn fault(&self) -> Fault {
        Fault::Peer
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "send less in one message",
            Self::Compressed { .. } => "switch compression off in the client",
            Self::Cut { .. } => "the client ended in the middle of a message",
        }
    }
}

/// Cuts gRPC messages out of body chunks.
///
/// A message that lies within one chunk is a slice of it; only one that is cut by a chunk
/// boundary is copied, once. Memory follows what has arrived, never what a prefix announces.
#[derive(Debug)]
pub struct MessageReader {
    limit: usize,
    chunk: Bytes,
    /// Prefix bytes of a message whose prefix is cut by a chunk boundary.
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// The part of a cut message that has arrived, and its full length.
    partial: Option<(BytesMut, usize)>,
}

impl MessageReader {
    /// A reader that refuses messages of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, chunk: Bytes::new(), prefix: [0; PREFIX_BYTES], prefix_len: 0, partial: None }
    }

    /// Adds the next chunk of the body.
    ///
    /// # Panics
    /// If the previous chunk was not read to its end: [`MessageReader::next`] has to have
    /// returned `None` first.
    pub fn push(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "the previous chunk has been read to its end");
        self.chunk = chunk;
    }

    /// The next complete message without its prefix; `None` when another chunk is needed.
    ///
    /// # Errors
    /// [`FramingError`]; the stream cannot be read on after it.
    #[expect(clippy::should_implement_trait, reason = "more input may follow a None")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FramingError> {
        if let Some((mut part, len)) = self.partial.take() {
            if self.continue_message(&mut part, len) {
                return Ok(Some(part.freeze()));
            }
            self.partial = Some((part, len));
            return Ok(None);
        }
        let Some(len) = self.take_prefix()? else {
            return Ok(None);
        };
        if self.chunk.len() >= len {
            return Ok(Some(self.chunk.split_to(len)));
        }
        let mut part = BytesMut::with_capacity(len.min(FIRST_ALLOCATION_BYTES));
        self.continue_message(&mut part, len);
        self.partial = Some((part, len));
        Ok(None)
    }

    /// Whether a message has begun and not ended.
    pub fn is_mid_message(&self) -> bool {
        self.prefix_len > 0 || self.partial.is_some()
    }

    /// Bytes of an incomplete message that are held.
    pub fn held(&self) -> usize {
        self.partial.as_ref().map_or(0, |(part, _)| part.len())
    }

    /// To be called at the end of the body.
    ///
    /// # Errors
    /// [`FramingError::Cut`] if a message has begun and not ended.
    pub fn finish(&self) -> Result<(), FramingError> {
        match &self.partial {
            Some((part, len)) => Err(FramingError::Cut { expected: len - part.len() }),
            None if self.prefix_len > 0 => {
                Err(FramingError::Cut { expected: PREFIX_BYTES - self.prefix_len })
            }
            None => Ok(()),
        }
    }

    fn continue_message(&mut self, part: &mut BytesMut, len: usize) -> bool {
        let take = (len - part.len()).min(self.chunk.len());
        if part.capacity() - part.len() < take {
            // Doubling keeps copies few without trusting the announced length.
            part.reserve(take.max(part.len().min(len - part.len())));
        }
        part.extend_from_slice(&self.chunk[..take]);
        self.chunk.advance(take);
        part.len() == len
    }

    fn take_prefix(&mut self) -> Result<Option<usize>, FramingError> {
        let take = (PREFIX_BYTES - self.prefix_len).min(self.chunk.len());
        self.prefix[self.prefix_len..][..take].copy_from_slice(&self.chunk[..take]);
        self.chunk.advance(take);
        self.prefix_len += take;
        if self.prefix_len < PREFIX_BYTES {
            return Ok(None);
        }
        self.prefix_len = 0;
        let [flag, len @ ..] = self.prefix;
        if flag != 0 {
            return Err(FramingError::Compressed { got: flag });
        }
        let got = u32::from_be_bytes(len) as usize;
        if got > self.limit {
            return Err(FramingError::TooLarge { limit: self.limit, got });
        }
        Ok(Some(got))
    }
}

const FIRST_ALLOCATION_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&prefix(m.len())[..], m].concat()).collect()
    }

    fn read_all(reader: &mut MessageReader, chunk: &[u8]) -> Result<Vec<Bytes>, FramingError> {
        reader.push(Bytes::copy_from_slice(chunk));
        let mut messages = Vec::new();
        while let Some(message) = reader.next()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn a_whole_message_is_a_slice_of_its_chunk() {
        let chunk = Bytes::from(framed(&[vec![7; 100]]));
        let mut reader = MessageReader::new(100);
        reader.push(chunk.clone());
        let message = reader.next().expect("valid").expect("whole");
        assert_eq!(message.as_ptr(), chunk[PREFIX_BYTES..].as_ptr());
    }

    #[test]
    fn a_message_above_the_limit_is_refused_before_its_bytes_arrive() {
        let error = read_all(&mut MessageReader::new(10), &prefix(11)).expect_err("too large");
        assert_eq!(error, FramingError::TooLarge { limit: 10, got: 11 });
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let error = read_all(&mut MessageReader::new(10), &[1, 0, 0, 0, 0]).expect_err("flag");
        assert_eq!(error, FramingError::Compressed { got: 1 });
    }

    #[test]
    fn an_announced_length_alone_takes_no_memory() {
        let mut reader = MessageReader::new(usize::MAX);
        read_all(&mut reader, &prefix(1 << 30)).expect("within the limit");
        assert!(reader.is_mid_message());
        let (part, _) = reader.partial.as_ref().expect("begun");
        assert!(part.capacity() <= FIRST_ALLOCATION_BYTES);
        assert_eq!(reader.finish(), Err(FramingError::Cut { expected: 1 << 30 }));
    }

    proptest! {
        #[test]
        fn messages_survive_any_chunking(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in proptest::collection::vec(1usize..200, 1..50),
        ) {
            let bytes = framed(&messages);
            let mut reader = MessageReader::new(300);
            let (mut rest, mut got) = (&bytes[..], Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, tail) = rest.split_at(rest.len().min(*cut));
                got.extend(read_all(&mut reader, chunk).expect("valid"));
                rest = tail;
            }
            prop_assert_eq!(got, messages);
            prop_assert!(reader.finish().is_ok());
            prop_assert!(!reader.is_mid_message());
        }

        #[test]
        fn any_bytes_are_read_or_refused(chunks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut reader = MessageReader::new(64);
            for chunk in chunks {
                if read_all(&mut reader, &chunk).is_err() { break }
            }
        }
    }
}
