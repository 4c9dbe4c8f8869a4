//! Frames that are wrong in a field, wherever they are sent.

use slim_wire::limits::HEADER_BYTES;
use slim_wire::{CloseCode, FrameKind};

use crate::support::native::{Raw, publish, request};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};

/// Bytes of a frame at this offset, and what the node says of them.
type Wrong = (usize, &'static [u8], &'static str);

const PAYLOAD: &[u8] = b"hello";

/// Wrong wherever a frame may be. The frame itself is 109 bytes long.
const ANYWHERE: &[Wrong] = &[
    (0, &103_u32.to_le_bytes(), "frame length: expected at least 104, got 103"),
    (0, &0_u32.to_le_bytes(), "frame length: expected at least 104, got 0"),
    (12, &6_u32.to_le_bytes(), "session part: expected at most 5, got 6"),
    (12, &65_537_u32.to_le_bytes(), "session part: expected at most 65536, got 65537"),
    (12, &u32::MAX.to_le_bytes(), "session part: expected at most 65536, got 4294967295"),
    (4, &[0], "kind: expected 1 to 5, got 0"),
    (4, &[6], "kind: expected 1 to 5, got 6"),
    (5, &[3], "class: expected 0 to 2, got 3"),
    (5, &[9], "flags: expected reserved bits to be 0, got 9"),
    (5, &[0x81], "flags: expected reserved bits to be 0, got 129"),
    (7, &[0x10], "encoding: expected reserved bits to be 0, got 16"),
    (7, &[5], "encoding: expected 0 to 4, got 5"),
];

const ON_LANES: &[Wrong] = &[
    (0, &4_194_305_u32.to_le_bytes(), "frame length: expected at most 4194304, got 4194305"),
    (0, &u32::MAX.to_le_bytes(), "frame length: expected at most 4194304, got 4294967295"),
];

/// As on lanes, and in datagrams.
const PUBLISHES: &[Wrong] = &[
    (4, &[2], "kind on a data lane: expected 1 (publish), got 2"),
    (4, &[4], "kind on a data lane: expected 1 (publish), got 4"),
    (7, &[1], "encoding: expected native (0), or from nodes any, got 1"),
    (7, &[2], "encoding: expected native (0), or from nodes any, got 2"),
];

const IN_DATAGRAMS: &[Wrong] = &[
    (0, &110_u32.to_le_bytes(), "frame length: expected at most 109, got 110"),
    (0, &108_u32.to_le_bytes(), "datagram: expected whole frames, got a part of one"),
];

const ON_CONTROL: &[Wrong] = &[
    (0, &8_193_u32.to_le_bytes(), "frame length: expected at most 8192, got 8193"),
    (
        4,
        &[1],
        "kind on the control stream: expected one hello (4), then subscribe (2) or unsubscribe (3), got 1",
    ),
    (
        4,
        &[4],
        "kind on the control stream: expected one hello (4), then subscribe (2) or unsubscribe (3), got 4",
    ),
    (
        4,
        &[5],
        "kind on the control stream: expected one hello (4), then subscribe (2) or unsubscribe (3), got 5",
    ),
    (7, &[2], "encoding of a control frame: expected 0 (native), got 2"),
];

enum Place {
    Lane,
    Control,
    Datagram,
}

/// A client says hello and sends a frame in which these bytes are wrong.
async fn answer_to(node: &Node, place: &Place, (at, bytes, _): &Wrong) -> (CloseCode, String) {
    let (raw, mut control) = Raw::greeted(node).await;
    let sent = match place {
        Place::Control => {
            request(FrameKind::Subscribe, 1, crate::support::native::name("org/ns/app/1"), PAYLOAD)
        }
        _ => publish("org/ns/raw/1", "nobody/is/there/1", PAYLOAD),
    };
    assert_eq!(sent.len(), HEADER_BYTES + PAYLOAD.len());
    let mut wrong = sent.to_vec();
    wrong[*at..at + bytes.len()].copy_from_slice(bytes);
    // Held, since a lane that is dropped is finished.
    let _lane = match place {
        Place::Lane => {
            let mut lane = raw.lane().await;
            lane.write_all(&wrong).await.expect("the connection is open");
            Some(lane)
        }
        Place::Control => {
            control.say(&wrong).await;
            None
        }
        Place::Datagram => {
            raw.connection.send_datagram(wrong.into()).expect("datagrams are taken");
            None
        }
    };
    raw.closed().await
}

async fn all_are_answered(place: Place, tables: [&[Wrong]; 3]) {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let mut count = 0;
    for wrong in tables.into_iter().flatten() {
        let (code, reason) = answer_to(&node, &place, wrong).await;
        assert_eq!((code, reason.as_str()), (CloseCode::Protocol, wrong.2), "{wrong:?}");
        count += 1;
    }
    let metrics = node.until("the links are gone", |m| m.sum("slim_links") == BYSTANDERS).await;
    assert_eq!(metrics.incidents("protocol_broken"), count);
    assert_eq!(metrics.sum("slim_incidents_total"), count);
    if !matches!(place, Place::Control) {
        assert_eq!(metrics.refused("undecodable"), count);
    }
    let lines = node.program.stdout.count("connection closed: protocol broken");
    assert!((1..=count as usize).contains(&lines), "{lines}");
    let line = node.program.stdout.find("connection closed: protocol broken");
    let line = line.expect("a line");
    assert!(line.contains("frame length: expected at least 104, got 103"), "{line}");
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_wrong_frame_on_a_lane_ends_its_connection_with_a_word() {
    all_are_answered(Place::Lane, [ANYWHERE, ON_LANES, PUBLISHES]).await;
}

#[tokio::test]
async fn a_wrong_frame_on_the_control_stream_ends_its_connection_with_a_word() {
    all_are_answered(Place::Control, [ANYWHERE, ON_CONTROL, &[]]).await;
}

#[tokio::test]
async fn a_wrong_frame_in_a_datagram_ends_its_connection_with_a_word() {
    all_are_answered(Place::Datagram, [ANYWHERE, PUBLISHES, IN_DATAGRAMS]).await;
}
