use proptest::prelude::*;

use super::*;
use crate::{Class, Encoding, Flags, Header, Id, Kind, Name, Prefix, SessionIds, frame};

const LIMIT: usize = 70_000;

fn publish(app: u64, message: u32, payload: usize) -> Bytes {
    let name = |app, id| Name { prefix: Prefix([1, 2, app]), id: Id::from_u64(id) };
    let header = Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: 1,
        lane: 0,
        source: name(9, 9),
        destination: if app == 0 { name(0, u64::MAX) } else { name(app, app) },
    };
    let payload = vec![message as u8; payload];
    let ids = SessionIds { session: 1, message };
    frame(FrameKind::Publish, &header, ids, b"s", &payload).expect("it is small")
}

fn joined(run: &Run) -> Vec<u8> {
    run.body.concat()
}

#[test]
fn frames_to_one_target_come_as_one_run() {
    let mut reader = FrameReader::new(LIMIT);
    let frames: Vec<_> = [1, 1, 1, 2, 1].iter().map(|app| publish(*app, 0, 10)).collect();
    reader.push(frames.concat().into()).expect("all is well");
    let runs: Vec<_> = std::iter::from_fn(|| reader.next_run().expect("all is well")).collect();
    assert_eq!(runs.iter().map(|run| run.frames).collect::<Vec<_>>(), [3, 1, 1]);
    assert_eq!(runs.iter().flat_map(joined).collect::<Vec<_>>(), frames.concat());
    assert!(runs.iter().all(|run| run.body.len() == 1), "one piece each");
}

#[test]
fn an_anycast_is_a_run_of_its_own() {
    let mut reader = FrameReader::new(LIMIT);
    reader.push([publish(0, 1, 5), publish(0, 2, 5)].concat().into()).expect("all is well");
    let first = reader.next_run().expect("all is well").expect("it is whole");
    assert_eq!((first.frames, joined(&first)), (1, publish(0, 1, 5).to_vec()));
}

#[test]
fn a_run_ends_at_its_limit() {
    let mut reader = FrameReader::new(LIMIT);
    let frame = publish(1, 1, 1000);
    for _ in 0..100 {
        reader.push(frame.clone()).expect("all is well");
    }
    let run = reader.next_run().expect("all is well").expect("it is whole");
    assert_eq!(run.frames as usize, RUN_BYTES.div_ceil(frame.len()));
}

#[test]
fn large_chunks_are_passed_on_and_not_copied() {
    let mut reader = FrameReader::new(LIMIT);
    let chunk = publish(1, 1, 60_000);
    reader.push(chunk.clone()).expect("all is well");
    let run = reader.next_run().expect("all is well").expect("it is whole");
    assert_eq!(run.body[0].as_ptr(), chunk.as_ptr());
}

#[test]
fn a_list_of_pieces_that_is_given_back_is_used_again_unless_it_is_long() {
    let mut reader = FrameReader::new(LIMIT);
    let run_of = |reader: &mut FrameReader, pieces: usize| {
        let frame = publish(1, 1, 1000);
        for piece in frame.chunks(frame.len().div_ceil(pieces)) {
            reader.push(Bytes::copy_from_slice(piece)).expect("all is well");
        }
        let run = reader.next_run().expect("all is well").expect("it is whole");
        assert_eq!(joined(&run), frame);
        run.body
    };
    let first = run_of(&mut reader, 20);
    let list = first.as_ptr();
    reader.reuse(first);
    let second = run_of(&mut reader, 20);
    assert_eq!(second.as_ptr(), list);
    let long = run_of(&mut reader, 2 * SPARE_PIECES);
    reader.reuse(second);
    reader.reuse(long);
    assert_eq!(run_of(&mut reader, 20).as_ptr(), list, "not the long one");
}

#[test]
fn what_has_begun_is_kept_in_memory_of_its_own() {
    let (mut reader, frame) = (FrameReader::new(LIMIT), publish(1, 1, 1000));
    let chunk = Bytes::from(frame.to_vec()).slice(..50);
    reader.push(chunk.clone()).expect("all is well");
    assert_eq!(reader.next_run(), Ok(None));
    assert_eq!(reader.settle(), 50);
    assert!(chunk.is_unique(), "the chunk is not held on to");
    reader.push(frame.slice(50..)).expect("all is well");
    assert_eq!(joined(&reader.next_run().expect("all is well").expect("whole")), frame);
    assert_eq!(reader.settle(), 0);
}

#[test]
fn a_wrong_length_is_reported_before_its_bytes_arrive() {
    let mut wrong = publish(1, 1, 10).to_vec();
    wrong[2] = 0xFF;
    let wrong = Bytes::from(wrong);
    let text = "frame length: expected at most 70000, got 16711795";
    let mut reader = FrameReader::new(LIMIT);
    reader.push(wrong.clone()).expect("not read yet");
    assert_eq!(reader.next_run().expect_err("it is wrong").to_string(), text);
    let mut reader = FrameReader::new(LIMIT);
    reader.push(wrong.slice(..40)).expect("not read yet");
    reader.settle();
    assert_eq!(reader.push(wrong.slice(40..)).expect_err("it is wrong").to_string(), text);
}

#[test]
fn a_good_frame_before_a_wrong_one_still_counts() {
    let (good, mut wrong) = (publish(1, 1, 10), publish(1, 2, 10).to_vec());
    wrong[0] = 1;
    let mut reader = FrameReader::new(LIMIT);
    reader.push([good.clone(), wrong.into()].concat().into()).expect("all is well");
    let run = reader.next_run().expect("it is good").expect("it is whole");
    assert_eq!((run.frames, joined(&run)), (1, good.to_vec()));
    assert!(reader.next_run().is_err());
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_its_frames_are_the_same(
        frames in prop::collection::vec((0_u64..3, 0_usize..3000), 0..20),
        cuts in prop::collection::vec((1_usize..3000, any::<bool>()), 1..20),
    ) {
        let frames: Vec<_> = frames
            .iter()
            .enumerate()
            .map(|(message, (app, len))| publish(*app, message as u32, *len))
            .collect();
        let (stream, mut reader) = (Bytes::from(frames.concat()), FrameReader::new(LIMIT));
        let (mut at, mut read) = (0, Vec::new());
        for (len, settle) in cuts.iter().cycle() {
            let end = stream.len().min(at + len);
            reader.push(stream.slice(at..end)).expect("all is well");
            while let Some(run) = reader.next_run().expect("all is well") {
                let single: Vec<_> = Frames::of(&run.body).map(|(_, frame)| frame.concat()).collect();
                prop_assert_eq!(single.len(), run.frames as usize);
                read.extend(single);
            }
            if *settle {
                reader.settle();
            }
            at = end;
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(read, frames);
        prop_assert_eq!(reader.settle(), 0);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
    ) {
        let mut reader = FrameReader::new(LIMIT);
        'stream: for chunk in chunks {
            if reader.push(chunk.into()).is_err() {
                break;
            }
            loop {
                match reader.next_run() {
                    Ok(Some(run)) => prop_assert!(!run.body.is_empty()),
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
            reader.settle();
        }
    }
}
