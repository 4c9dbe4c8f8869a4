//! Native frames do not depend on how a stream is cut into chunks, and every run is made of whole
//! frames that route alike.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use slim_wire::limits::{FRAME_BYTES, HEADER_BYTES, RUN_BYTES, SESSION_PART_BYTES};
use slim_wire::{FrameReader, Frames, Pieces};

/// A limit that some frames exceed.
const LOW_LIMIT: usize = 1024;

// First which limit; then how many cuts, and as many chunk lengths, used over and over; an odd
// one ends a read. The rest is the stream.
fuzz_target!(|input: &[u8]| {
    let [limit, count, rest @ ..] = input else { return };
    let limit = if limit % 2 == 0 { FRAME_BYTES } else { LOW_LIMIT };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let (expected, is_valid) = plain_frames(stream, limit);
    let (found, was_valid) = read(stream, cuts, limit);
    assert_eq!(found, expected);
    assert_eq!(was_valid, is_valid);
});

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
}

/// The whole frames of a stream, and whether it may go on.
fn plain_frames(stream: &[u8], limit: usize) -> (Vec<&[u8]>, bool) {
    let (mut frames, mut rest) = (Vec::new(), stream);
    while rest.len() >= HEADER_BYTES {
        let (length, session) = (number(&rest[..4]), number(&rest[12..16]));
        let session_limit = SESSION_PART_BYTES.min(length.saturating_sub(HEADER_BYTES));
        if length < HEADER_BYTES || length > limit || session > session_limit {
            return (frames, false);
        }
        let Some((frame, tail)) = rest.split_at_checked(length) else { break };
        frames.push(frame);
        rest = tail;
    }
    (frames, true)
}

fn read(stream: &[u8], cuts: &[u8], limit: usize) -> (Vec<Vec<u8>>, bool) {
    let mut reader = FrameReader::new(limit);
    let (mut frames, mut rest) = (Vec::new(), stream);
    for cut in cuts.iter().chain([&u8::MAX]).cycle() {
        let (chunk, tail) = rest.split_at(rest.len().min(usize::from(*cut).max(1)));
        rest = tail;
        if reader.push(Bytes::copy_from_slice(chunk)).is_err() {
            return (frames, false);
        }
        if cut % 2 == 0 && !rest.is_empty() {
            continue;
        }
        loop {
            match reader.next_run() {
                Ok(Some(run)) => frames.extend(frames_of(&run)),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
        if rest.is_empty() {
            break;
        }
        assert!(reader.settle() <= stream.len());
    }
    (frames, true)
}

fn frames_of(run: &slim_wire::Run) -> Vec<Vec<u8>> {
    let frames: Vec<_> = Frames::of(&run.body).map(|(_, pieces)| join(&pieces)).collect();
    assert_eq!(frames.len(), run.frames as usize);
    assert_eq!(frames.concat(), join(&run.body));
    let [before @ .., _] = &frames[..] else { panic!("a run without frames") };
    assert!(before.iter().map(Vec::len).sum::<usize>() < RUN_BYTES);
    for frame in &frames {
        assert_eq!(frame[4..12], frames[0][4..12]);
        assert_eq!(frame[16..96], frames[0][16..96]);
    }
    let is_anycast = frames[0][8..12] == [1, 0, 0, 0] && frames[0][40..56] == [0xFF; 16];
    assert!(!is_anycast || frames.len() == 1);
    frames
}

fn join(pieces: &Pieces) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.to_vec()).collect()
}
