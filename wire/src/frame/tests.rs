use proptest::prelude::*;

use super::*;

fn name(base: u64, id: Id) -> Name {
    Name { prefix: Prefix([base, base + 1, base + 2]), id }
}

fn header() -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::ERROR,
        ttl: 7,
        fanout: 50,
        lane: 3,
        source: name(0x11, Id::from_u64(0xA1)),
        destination: name(0x21, Id::ANY),
    }
}

#[test]
fn a_frame_has_these_bytes() {
    let ids = SessionIds { session: 0x0A0B_0C0D, message: 9 };
    let frame = frame(FrameKind::Publish, &header(), ids, b"se", b"payload").expect("it is small");
    let mut golden = vec![113, 0, 0, 0, 1, 0b101, 7, 0, 50, 0, 0, 0, 2, 0, 0, 0];
    for hash in [0x21, 0x22, 0x23_u8] {
        golden.extend([hash, 0, 0, 0, 0, 0, 0, 0]);
    }
    golden.extend([0xFF; 16]);
    for hash in [0x11, 0x12, 0x13_u8] {
        golden.extend([hash, 0, 0, 0, 0, 0, 0, 0]);
    }
    golden.push(0xA1);
    golden.extend([0; 15]);
    golden.extend([0x0D, 0x0C, 0x0B, 0x0A, 9, 0, 0, 0]);
    golden.extend(b"sepayload");
    assert_eq!(frame, golden);
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    let ids = SessionIds { session: 1, message: u32::MAX };
    let frame = frame(FrameKind::Publish, &header(), ids, b"", b"x").expect("it is small");
    let read = FrameHeader::prefix_of(&frame).expect("it is whole");
    assert_eq!(read.header(3), Ok(header()));
    assert_eq!((read.ids(), read.length(), read.session_length()), (ids, 105, 0));
    assert!(FrameHeader::prefix_of(&frame[..103]).is_none());
}

#[test]
fn a_wrong_byte_names_its_field() {
    let frame =
        frame(FrameKind::Publish, &header(), SessionIds::default(), b"", b"").expect("it is small");
    let with = |at: usize, byte: u8| {
        let mut bytes = frame.to_vec();
        bytes[at] = byte;
        *FrameHeader::prefix_of(&bytes).expect("it is whole")
    };
    let wrong = |at, byte| with(at, byte).header(0).expect_err("it is wrong").to_string();
    assert_eq!(wrong(5, 0b11), "class: expected 0 to 2, got 3");
    assert_eq!(wrong(5, 0b1001), "flags: expected reserved bits to be 0, got 9");
    assert_eq!(wrong(7, 5), "encoding: expected 0 to 4, got 5");
    assert_eq!(wrong(7, 0x10), "encoding: expected reserved bits to be 0, got 16");
    let kind = with(4, 9).check_publish().expect_err("there is none").to_string();
    assert_eq!(kind, "kind: expected 1 to 5, got 9");
    let kind = with(4, 2).check_publish().expect_err("not on a lane").to_string();
    assert_eq!(kind, "kind on a data lane: expected 1 (publish), got 2");
    let lengths =
        |at, byte| with(at, byte).check_lengths(1000).expect_err("it is wrong").to_string();
    assert_eq!(lengths(0, 103), "frame length: expected at least 104, got 103");
    assert_eq!(lengths(1, 9), "frame length: expected at most 1000, got 2408");
    assert_eq!(lengths(12, 1), "session part: expected at most 0, got 1");
    assert_eq!(lengths(14, 2), "session part: expected at most 65536, got 131072");
}

#[test]
fn what_does_not_fit_a_frame_is_not_made_one() {
    let make = |session, payload| {
        FrameHeader::new(FrameKind::Publish, &header(), SessionIds::default(), session, payload)
    };
    assert!(make(SESSION_PART_BYTES, 0).is_ok());
    assert!(make(SESSION_PART_BYTES + 1, 0).is_err());
    assert!(make(0, FRAME_BYTES - HEADER_BYTES).is_ok());
    assert!(make(0, FRAME_BYTES - HEADER_BYTES + 1).is_err());
    assert!(make(0, usize::MAX).is_err());
}

proptest! {
    #[test]
    fn any_104_bytes_are_read_without_harm(bytes in any::<[u8; 32]>(), rest in any::<[u8; 32]>()) {
        let mut all = [7; HEADER_BYTES];
        all[..32].copy_from_slice(&bytes);
        all[72..].copy_from_slice(&rest);
        let read = FrameHeader::prefix_of(&all).expect("it is whole");
        prop_assert_eq!(read.as_bytes(), &all);
        if let Ok(header) = read.header(0) {
            let again = FrameHeader::new(
                FrameKind::Publish,
                &header,
                read.ids(),
                read.session_length().min(SESSION_PART_BYTES),
                0,
            );
            let again = again.expect("its lengths fit");
            prop_assert_eq!(again.header(0), Ok(header));
        }
    }

    #[test]
    fn sessions_spread_over_all_lanes(source in any::<u64>()) {
        let source = name(source >> 2, Id::from_u64(source));
        let lanes: std::collections::HashSet<_> =
            (0..256).map(|session| lane(session, &source)).collect();
        prop_assert_eq!(lanes.len(), usize::from(LANES));
    }
}
