//! What a lane of the native protocol brings, as far as the generator looks at it.

use bytes::{Buf, Bytes, BytesMut};
use slim_wire::limits::{FRAME_BYTES, HEADER_BYTES};
use slim_wire::{DecodeError, FrameHeader};

use super::super::stamp::{STAMP_BYTES, Stamp};
use super::Arrival;

/// Reads the heads of frames, up to their stamps, and passes over all else.
#[derive(Default)]
pub(super) struct Messages {
    /// A head that was cut by the end of a chunk.
    head: BytesMut,
    /// What is left of the last frame.
    rest: usize,
}

impl Messages {
    /// Adds the messages whose heads end in `chunk` to `arrivals`.
    pub(super) fn take(
        &mut self,
        mut chunk: Bytes,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), DecodeError> {
        loop {
            let passed = self.rest.min(chunk.len());
            chunk.advance(passed);
            self.rest -= passed;
            if chunk.is_empty() {
                return Ok(());
            }
            if self.head.is_empty()
                && let Some((arrival, length)) = head_of(&chunk)?
            {
                arrivals.extend(arrival);
                self.rest = length;
                continue;
            }
            // One byte of a head at a time would do; its parts come in two or three chunks.
            let wanted = match FrameHeader::prefix_of(&self.head) {
                Some(header) => header_and_stamp(header),
                None => HEADER_BYTES,
            };
            let part = (wanted - self.head.len()).min(chunk.len());
            self.head.extend_from_slice(&chunk.split_to(part));
            if let Some((arrival, length)) = head_of(&self.head)? {
                arrivals.extend(arrival);
                self.rest = length - self.head.len();
                self.head.clear();
            }
        }
    }
}

/// What is read of a frame.
fn header_and_stamp(header: &FrameHeader) -> usize {
    (HEADER_BYTES + header.session_length() + STAMP_BYTES).min(header.length())
}

/// The message whose frame begins here, and the length of the frame; `None` if too little of it
/// is there.
fn head_of(bytes: &[u8]) -> Result<Option<(Option<Arrival>, usize)>, DecodeError> {
    let Some(header) = FrameHeader::prefix_of(bytes) else {
        return Ok(None);
    };
    header.check_lengths(FRAME_BYTES)?;
    let head = header_and_stamp(header);
    if bytes.len() < head {
        return Ok(None);
    }
    let payload = HEADER_BYTES + header.session_length();
    let stamp = Stamp::read(&bytes[payload..head]);
    let arrival = stamp.map(|stamp| Arrival { stamp, bytes: header.length() - payload });
    Ok(Some((arrival, header.length())))
}

#[cfg(test)]
mod tests {
    use super::super::super::stamp::Mark;
    use super::super::{Route, Target, native};
    use super::*;

    fn batch(sizes: &[usize]) -> Bytes {
        let mut batch = BytesMut::new();
        for (sequence, size) in (0..).zip(sizes) {
            let route = Route { topic: "t", source: 7, target: Target::Id(1) };
            let stamp = Stamp { due: 1, sender: 2, mark: Mark::Data, sequence };
            native::template(&route, *size).append(stamp, &mut batch);
        }
        batch.freeze()
    }

    #[test]
    fn messages_are_found_however_their_frames_are_cut() {
        let sizes = [16, 64, 5_000, 17, 1_024];
        let batch = batch(&sizes);
        for cut in [1, 7, 103, 104, 119, 120, 121, 1_400, batch.len()] {
            let (mut messages, mut arrivals) = (Messages::default(), Vec::new());
            for chunk in batch.chunks(cut) {
                let taken = messages.take(Bytes::copy_from_slice(chunk), &mut arrivals);
                taken.expect("frames");
            }
            let found: Vec<_> = arrivals.iter().map(|a| (a.stamp.sequence, a.bytes)).collect();
            assert_eq!(found, (0..).zip(sizes).collect::<Vec<_>>(), "chunks of {cut}");
        }
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_link() {
        let mut messages = Messages::default();
        assert!(messages.take(Bytes::from_static(&[0xFF; 200]), &mut Vec::new()).is_err());
    }
}
