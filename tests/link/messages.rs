//! What arrives, and in which order.

use std::collections::HashMap;

use bytes::Bytes;
use slim_quic::client::link::{Link, LinkError, Message};
use slim_wire::{Class, CloseCode, Fault, Flags, FrameKind, SessionIds, frame};

use crate::fake_node::{FRAME_BYTES, FakeNode, header, message, name};
use crate::support::in_time;

async fn echoing() -> (FakeNode, Link) {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    peer.echo();
    (node, link)
}

async fn receive(link: &Link) -> Message {
    in_time("a message", link.receive()).await.expect("the link is open")
}

#[tokio::test]
async fn all_of_a_message_arrives() {
    let (_node, link) = echoing().await;
    let sent = Message {
        source: name("org/ns/source/340"),
        destination: name("org/ns/topic"),
        fanout: 3,
        class: Class::Control,
        flags: Flags::ERROR,
        ids: SessionIds { session: u32::MAX, message: 1 },
        session: Bytes::from_static(b"session"),
        payload: Bytes::from_static(b"payload"),
    };
    for sent in [sent.clone(), Message { session: Bytes::new(), ..sent.clone() }, sent.to_all()] {
        link.publish(&sent).await.expect("published");
        assert_eq!(receive(&link).await, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_publish_and_each_session_stays_in_order() {
    const SESSIONS: u32 = 6;
    const COUNT: u32 = 5_000;
    let (_node, link) = echoing().await;
    for session in 0..SESSIONS {
        let link = link.clone();
        tokio::spawn(async move {
            for number in 0..COUNT {
                // Around the length up to which payloads are packed.
                let payload = vec![number as u8; number as usize * 7 % 2_400];
                link.publish(&message(session, number, payload)).await.expect("published");
            }
        });
    }
    let mut next = HashMap::new();
    let mut batch = Vec::new();
    for _ in 0..SESSIONS * COUNT {
        if batch.is_empty() {
            in_time("messages", link.receive_many(&mut batch)).await.expect("the link is open");
            batch.reverse();
        }
        let received = batch.pop().expect("at least one");
        let expected = next.entry(received.ids.session).or_insert(0);
        assert_eq!(received.ids.message, *expected);
        assert_eq!(received.session, expected.to_le_bytes()[..]);
        assert_eq!(received.payload.len(), *expected as usize * 7 % 2_400);
        *expected += 1;
    }
    assert!(next.values().all(|next| *next == COUNT) && next.len() == SESSIONS as usize);
    assert!(batch.is_empty());
}

#[tokio::test]
async fn large_payloads_arrive_whole_and_those_above_the_nodes_limit_are_refused_here() {
    let (_node, link) = echoing().await;
    let payload: Bytes = (0..3 << 20).map(|at: u32| (at / 251) as u8).collect::<Vec<_>>().into();
    let (publisher, large) = (link.clone(), payload.clone());
    tokio::spawn(async move {
        for number in 0..4 {
            publisher.publish(&message(1, number, large.clone())).await.expect("published");
            publisher.publish(&message(1, number, "small")).await.expect("published");
        }
    });
    for number in 0..4 {
        let received = receive(&link).await;
        assert_eq!(received.ids.message, number);
        assert!(received.payload == payload, "message {number} differs");
        assert_eq!(receive(&link).await.payload, "small");
    }
    let fits = FRAME_BYTES - message(1, 1, "").frame_bytes();
    let error = link.publish(&message(1, 9, vec![0; fits + 1])).await.expect_err("too long");
    let expected = format!("frame: expected at most {FRAME_BYTES} bytes, got {}", FRAME_BYTES + 1);
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.fault(), Fault::Caller);
    link.publish(&message(1, 10, vec![0; fits])).await.expect("the link goes on");
    assert_eq!(receive(&link).await.ids.message, 10);
}

#[tokio::test]
async fn best_effort_travels_outside_of_the_lanes_if_it_fits_a_packet() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    let small = Message { class: Class::BestEffort, ..message(1, 1, vec![1; 500]) };
    let large = Message { class: Class::BestEffort, ..message(1, 2, vec![2; 5_000]) };
    link.publish(&small).await.expect("published");
    assert!(link.try_publish(&small).expect("the link is open"));
    link.publish(&large).await.expect("published");
    let mut lane = peer.lane_of(&large).await;
    let frames = in_time("a frame", lane.frames()).await.expect("the lane is open");
    let ids: Vec<_> = frames.iter().map(|(head, _)| head.ids()).collect();
    assert_eq!(ids, [large.ids]);
    for _ in 0..2 {
        let datagram = in_time("a datagram", peer.connection.read_datagram()).await.expect("one");
        assert_eq!(datagram.len(), small.frame_bytes());
        // A node may put several into one.
        let twice = [&datagram[..], &datagram].concat();
        peer.connection.send_datagram(twice.into()).expect("sent");
        for _ in 0..2 {
            assert_eq!(receive(&link).await, small);
        }
    }
}

#[tokio::test]
async fn a_message_takes_the_lane_of_its_session_and_source() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    let mut expected: Vec<_> = (0..20).map(|session| message(session, 0, "x")).collect();
    for message in &expected {
        link.publish(message).await.expect("published");
    }
    while !expected.is_empty() {
        let mut lane = peer.lane().await;
        // Nothing else is sent, so what is there of a lane is all.
        let here = |message: &Message| {
            u64::from(slim_wire::lane(message.ids.session, &message.source)) == lane.number()
        };
        let (on_it, others): (Vec<_>, Vec<_>) = expected.into_iter().partition(here);
        let mut arrived = Vec::new();
        while arrived.len() < on_it.len() {
            arrived.extend(in_time("frames", lane.frames()).await.expect("it is open"));
        }
        let arrived: Vec<_> = arrived.iter().map(|(head, _)| head.ids()).collect();
        assert_eq!(arrived, on_it.iter().map(|message| message.ids).collect::<Vec<_>>());
        expected = others;
    }
}

#[tokio::test]
async fn a_wrong_frame_ends_the_link_with_the_reason_at_both_ends() {
    let good = crate::fake_node::publish(1, b"good");
    let with = |at: usize, byte: u8| {
        let mut frame = good.to_vec();
        frame[at] = byte;
        frame
    };
    let foreign = slim_wire::Header { encoding: slim_wire::Encoding::D6, ..header() };
    let foreign = frame(FrameKind::Publish, &foreign, SessionIds::default(), &[], b"x");
    let cases = [
        (with(0, 9), "frame length: expected at least 104, got 9"),
        (with(3, 9), "frame length: expected at most 4194304, got 150995052"),
        (with(4, 2), "kind on a data lane: expected 1 (publish), got 2"),
        (with(4, 77), "kind: expected 1 to 5, got 77"),
        (with(5, 3), "class: expected 0 to 2, got 3"),
        (with(5, 128), "flags: expected reserved bits to be 0, got 128"),
        (with(12, 5), "session part: expected at most 4, got 5"),
        (foreign.expect("a frame").to_vec(), "encoding of a message for an app: expected 0"),
    ];
    let node = FakeNode::start();
    for (wrong, expected) in cases {
        let (link, mut peer) = node.link().await;
        peer.send(0, &[&good[..], &wrong, &good].concat()).await;
        assert_eq!(receive(&link).await.payload, "good");
        let error = in_time("the end", link.receive()).await.expect_err("nothing more");
        assert_eq!(error.fault(), Fault::Peer);
        let text = error.to_string();
        assert!(text.starts_with(&format!("lane 0 of the node: {expected}")), "{text}");
        let lane_error = Some(CloseCode::Protocol);
        assert_eq!(peer.close_reason().await, (lane_error, text.clone()));
        assert_eq!(link.publish(&message(1, 1, "x")).await.expect_err("ended").to_string(), text);

        let (link, peer) = node.link().await;
        peer.connection.send_datagram(wrong.into()).expect("sent");
        let error = in_time("the end", link.receive()).await.expect_err("nothing more");
        assert!(error.to_string().starts_with("datagram of the node: "), "{error}");
        assert_eq!(peer.close_reason().await.0, Some(CloseCode::Protocol));
    }
}

#[tokio::test]
async fn an_answer_that_was_not_asked_for_ends_the_link() {
    let node = FakeNode::start();
    for (kind, expected) in [
        (FrameKind::Ack, "message id of an ack: expected that of a request that waits, got 7"),
        (FrameKind::Subscribe, "kind on the control stream: expected 5 (ack), got 2"),
    ] {
        let (link, mut peer) = node.link().await;
        peer.say(kind, 7, Flags::empty(), &[]).await;
        let error = in_time("the end", link.closed()).await;
        assert_eq!(error.to_string(), format!("control stream of the node: {expected}"));
        assert_eq!(peer.close_reason().await.0, Some(CloseCode::Protocol));
    }
}

#[tokio::test]
async fn a_node_that_breaks_a_stream_off_ends_the_link() {
    let node = FakeNode::start();
    let good = crate::fake_node::publish(1, b"good");

    let (link, mut peer) = node.link().await;
    peer.send(0, &good[..100]).await;
    peer.finish_lanes().await;
    let error = in_time("the end", link.receive()).await.expect_err("half a frame");
    let expected =
        "lane 0 of the node: expected it to stay open, but the node ended it inside a frame";
    assert_eq!(error.to_string(), expected);

    let (link, peer) = node.link().await;
    let mut lane = peer.connection.open_uni().await.expect("a lane");
    lane.write_all(&good).await.expect("the link is open");
    lane.reset(quinn::VarInt::from_u32(1)).expect("it is open");
    let error = in_time("the end", link.closed()).await;
    assert!(error.to_string().ends_with("but the node reset it"), "{error}");

    let (link, peer) = node.link().await;
    let on_lane_0 = (0..).find(|session| slim_wire::lane(*session, &name("org/ns/source/1")) == 0);
    let sent = message(on_lane_0.expect("one of eight"), 1, "x");
    link.publish(&sent).await.expect("published");
    let mut lane = in_time("a lane", peer.connection.accept_uni()).await.expect("a lane");
    lane.stop(quinn::VarInt::from_u32(1)).expect("it is open");
    let error = in_time("the end", async {
        loop {
            match link.publish(&sent).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        }
    })
    .await;
    assert!(matches!(error, LinkError::Broken { how: "stopped reading it", .. }), "{error}");
}
