//! A stream of frames in segments that may be lost. Every segment says which it is and where in
//! it a frame begins, so that a receiver finds its way again.

use bytes::{Buf, BytesMut};

use super::{Arrival, native};
use crate::ctl::Error;

/// A datagram within an Ethernet packet: the size in which QUIC sends there.
pub(super) const SEGMENT_BYTES: usize = 1452;

/// Number of the segment, and offset of the first frame that begins in it.
const PREFIX_BYTES: usize = 8;
const CONTENT_BYTES: usize = SEGMENT_BYTES - PREFIX_BYTES;

/// The offset where none begins.
const NO_FRAME: u32 = u32::MAX;

/// Packs frames into segments; the last of a batch may be short.
#[derive(Debug, Default)]
pub(super) struct Segmenter {
    number: u32,
}

impl Segmenter {
    /// Adds segments with `frames`, each of `len` bytes, to `out`.
    pub(super) fn pack(&mut self, frames: &[u8], len: usize, out: &mut Vec<u8>) {
        for (index, content) in frames.chunks(CONTENT_BYTES).enumerate() {
            let first = (len - index * CONTENT_BYTES % len) % len;
            let first = if first < content.len() { first as u32 } else { NO_FRAME };
            out.extend_from_slice(&self.number.to_le_bytes());
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(content);
            self.number = self.number.wrapping_add(1);
        }
    }
}

/// Puts frames together again.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    next: u32,
    /// Whether `partial` holds the stream to its last byte.
    in_step: bool,
    partial: BytesMut,
}

impl Reassembler {
    /// Adds the messages that `segment` completes.
    pub(super) fn push(
        &mut self,
        segment: &[u8],
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), Error> {
        let (Some((number, rest)), true) = (segment.split_first_chunk(), segment.len() > 8) else {
            return Err(Error::link(format!("a segment of {} bytes", segment.len())));
        };
        let number = u32::from_le_bytes(*number);
        let (first, mut content) = rest.split_at(4);
        let first = first.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        if !(self.in_step && number == self.next) {
            // What came before the gap cannot be completed.
            self.partial.clear();
            self.in_step = first != NO_FRAME;
            content = content.get(first as usize..).unwrap_or_default();
        }
        self.next = number.wrapping_add(1);
        if !self.in_step {
            return Ok(());
        }
        self.partial.extend_from_slice(content);
        while let Some(len) = native::frame_len(&self.partial)? {
            let Some(frame) = self.partial.get(..len) else { break };
            arrivals.extend(native::arrival(frame));
            self.partial.advance(len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::stamp::{Mark, Stamp};
    use super::super::{Route, Target};
    use super::*;

    /// Segments of frames 0, 1, 2, … in batches, and the length of a frame.
    fn segments(size: usize, batches: &[u64]) -> (Vec<Vec<u8>>, usize) {
        let route = Route { topic: "t", source: 7, target: Target::Id(1) };
        let template = native::template(&route, size);
        let (mut segmenter, mut sequence, mut all) = (Segmenter::default(), 0, Vec::new());
        for &count in batches {
            let mut batch = BytesMut::new();
            for _ in 0..count {
                let stamp = Stamp { due: 0, sender: 0, mark: Mark::Data, sequence };
                template.append(stamp, &mut batch);
                sequence += 1;
            }
            let mut packed = Vec::new();
            segmenter.pack(&batch, template.len(), &mut packed);
            all.extend(packed.chunks(SEGMENT_BYTES).map(<[u8]>::to_vec));
        }
        (all, template.len())
    }

    proptest! {
        #[test]
        fn all_arrive_but_those_that_touch_a_lost_segment(
            size in 16usize..5_000,
            batches in proptest::collection::vec(1u64..40, 1..6),
            lost in proptest::collection::hash_set(0usize..60, 0..6),
        ) {
            let (segments, len) = segments(size, &batches);
            let mut expected = Vec::new();
            let (mut sequence, mut first_segment) = (0, 0);
            for count in batches {
                for index in 0..count as usize {
                    let (start, end) = (index * len, (index + 1) * len - 1);
                    let mut touched = start / CONTENT_BYTES..=end / CONTENT_BYTES;
                    if touched.all(|segment| !lost.contains(&(first_segment + segment))) {
                        expected.push(sequence);
                    }
                    sequence += 1;
                }
                first_segment += (count as usize * len).div_ceil(CONTENT_BYTES);
            }
            let (mut reassembler, mut arrivals) = (Reassembler::default(), Vec::new());
            for (number, segment) in segments.iter().enumerate() {
                if !lost.contains(&number) {
                    reassembler.push(segment, &mut arrivals).expect("valid");
                }
            }
            let got: Vec<u64> = arrivals.iter().map(|arrival| arrival.stamp.sequence).collect();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_segment_without_content_is_refused() {
        assert!(Reassembler::default().push(&[0; 8], &mut Vec::new()).is_err());
    }
}
