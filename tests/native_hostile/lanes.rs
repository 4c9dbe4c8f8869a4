//! Lanes that are too many, break off, or never complete what they begin.

use slim_wire::CloseCode;

use crate::support::native::{Raw, join, message, publish, receive, send};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};
use crate::support::{eventually, in_time};

const TARGET: &str = "org/ns/target/1";

#[tokio::test]
async fn a_ninth_lane_ends_the_link_whether_or_not_the_others_have_ended() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let (raw, _control) = Raw::greeted(&node).await;
    let frame = publish("org/ns/raw/1", "nobody/is/there/1", b"x");
    let mut lanes = Vec::new();
    for _ in 0..8 {
        let mut lane = raw.lane().await;
        lane.write_all(&frame).await.expect("sent");
        lanes.push(lane);
    }
    // QUIC lets it open others only when some have ended.
    lanes[3].finish().expect("open");
    lanes[4].finish().expect("open");
    let mut ninth = raw.lane().await;
    ninth.write_all(&frame).await.expect("sent");
    let reason = "data streams: expected at most 8, got 9".to_owned();
    assert_eq!(raw.closed().await, (CloseCode::Protocol, reason));
    let metrics = node.until("it is gone", |m| m.sum("slim_links") == BYSTANDERS).await;
    assert_eq!(metrics.incidents("protocol_broken"), 1);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_lane_that_breaks_off_inside_a_frame_ends_the_link_and_forwards_no_part() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let target = join(&node, &[TARGET]).await;
    let whole = publish("org/ns/raw/1", TARGET, b"whole");
    let part = &publish("org/ns/raw/1", TARGET, &[7; 10_000])[..5_000];
    for count in 1..=2 {
        let (raw, _control) = Raw::greeted(&node).await;
        let mut lane = raw.lane().await;
        lane.write_all(&[&whole, part].concat()).await.expect("sent");
        assert_eq!(receive(&target).await.payload, "whole");
        if count == 1 {
            lane.finish().expect("open");
        } else {
            lane.reset(77_u8.into()).expect("open");
        }
        let reason = "frame: expected its end, got the end of its lane".to_owned();
        assert_eq!(raw.closed().await, (CloseCode::Protocol, reason));
        let metrics = node.until("it is gone", |m| m.sum("slim_links") == BYSTANDERS + 1).await;
        assert_eq!(metrics.incidents("protocol_broken"), count);
        assert_eq!(metrics.refused("undecodable"), count);
    }
    // A lane that ends after a whole frame is as good as one that stays open.
    let (raw, _control) = Raw::greeted(&node).await;
    let mut lane = raw.lane().await;
    lane.write_all(&whole).await.expect("sent");
    lane.finish().expect("open");
    assert_eq!(receive(&target).await.payload, "whole");
    let mut other = raw.lane().await;
    other.write_all(&whole).await.expect("sent");
    assert_eq!(receive(&target).await.payload, "whole");
    drop((raw, target));
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn who_stops_a_lane_of_the_node_ends_the_link() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let source = join(&node, &["org/ns/source/2"]).await;
    let (raw, mut control) = Raw::greeted(&node).await;
    control.subscribe(1, TARGET).await;
    send(&source, &message("org/ns/source/2", TARGET, "x")).await;
    let mut lane = raw.accept("org/ns/source/2").await;
    lane.stop(5_u8.into()).expect("open");
    let reason = "stream: expected to be taken, got a stop".to_owned();
    assert_eq!(raw.closed().await, (CloseCode::Protocol, reason));
    let metrics = node.until("it is gone", |m| m.sum("slim_links") == BYSTANDERS + 1).await;
    assert_eq!(metrics.incidents("protocol_broken"), 1);
    drop(source);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_frame_that_is_never_completed_ends_its_link_in_time() {
    let node = Node::start("limits: { partial_message_ms: 300 }").await;
    let bystanders = Bystanders::start(&node).await;
    let frame = publish("org/ns/raw/1", TARGET, &[7; 10_000]);
    // Cut in its header, and cut in the payload.
    for (count, begun) in [(1, 50), (2, 5_000)] {
        let (raw, _control) = Raw::greeted(&node).await;
        let mut lane = raw.lane().await;
        lane.write_all(&frame[..begun]).await.expect("sent");
        // Bytes that come one after the other do not put the deadline off.
        let dripping = async {
            for byte in frame[begun..begun + 4_000].chunks(1) {
                if lane.write_all(byte).await.is_err() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        in_time("the end", dripping).await;
        let reason = "frame: expected to be complete within limits.partial_message_ms".to_owned();
        assert_eq!(raw.closed().await, (CloseCode::Timeout, reason));
        let metrics = node.until("it is gone", |m| m.sum("slim_links") == BYSTANDERS).await;
        assert_eq!(metrics.incidents("message_stalled"), count);
    }
    let lines = node.program.stdout.count("message not completed in time");
    assert!((1..=2).contains(&lines), "{lines}");
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn begun_frames_of_all_lanes_of_all_links_take_no_more_room_than_they_have_together() {
    const LIMIT: usize = 4 * 1024 * 1024;
    const BEGUN: usize = 500_000;
    const LINKS: usize = 4;
    let node = Node::start(&format!("limits: {{ partial_bytes: {LIMIT} }}")).await;
    let bystanders = Bystanders::start(&node).await;
    let frame = publish("org/ns/raw/1", "nobody/is/there/1", &vec![7; 3_000_000]);
    let mut links = Vec::new();
    for _ in 0..LINKS {
        let (raw, control) = Raw::greeted(&node).await;
        let connection = raw.connection.clone();
        let part = frame.slice(..BEGUN);
        let writing = tokio::spawn(async move {
            let mut lanes = Vec::new();
            while let Ok(mut lane) = connection.open_uni().await {
                if lane.write_all(&part).await.is_err() {
                    break;
                }
                lanes.push(lane);
                if lanes.len() == 8 {
                    connection.closed().await;
                }
            }
        });
        links.push((raw, control, writing));
    }
    // Sixteen MiB are begun, and four have room: all but one link have to go, and perhaps it too.
    let metrics = eventually("there is room again", async || {
        let metrics = node.metrics().await;
        (metrics.incidents("message_refused") >= LINKS as u64 - 1).then_some(metrics)
    })
    .await;
    assert!(node.resident() < 400 * 1024, "{} KiB", node.resident());
    assert_eq!(metrics.incidents("protocol_broken"), 0);
    let mut refused = 0;
    for (raw, _, writing) in links {
        if raw.connection.close_reason().is_some() {
            let (code, reason) = raw.closed().await;
            assert_eq!(code, CloseCode::Limit);
            assert_eq!(reason, "no room for more begun messages (limits.partial_bytes)");
            refused += 1;
        }
        raw.connection.close(0_u8.into(), b"");
        in_time("the writer ends", writing).await.expect("no panic");
    }
    assert!(refused >= LINKS - 1);
    // What they took is free again.
    let (raw, _control) = Raw::greeted(&node).await;
    let mut lane = raw.lane().await;
    let before = node.metrics().await.sum("slim_received_bytes_total");
    lane.write_all(&frame).await.expect("there is room");
    node.until("it is read", |m| m.sum("slim_received_bytes_total") > before + 3_000_000).await;
    drop(raw);
    bystanders.assert_unharmed(&node).await;
}
