//! Both ends may be slow, and nothing grows without bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use slim_quic::client::link::Message;
use slim_wire::Class;

use crate::fake_node::{FakeNode, message, publish};
use crate::support::{eventually, in_time};

const PAYLOAD: usize = 1_000;
const COUNT: u32 = 30_000;

/// What may be under way in one direction: queues, windows and what is on the wire.
const BOUND: usize = 8 << 20;

const _: () = assert!(COUNT as usize * PAYLOAD > 2 * BOUND);

/// The value of a counter that moves no more.
async fn standstill(counter: &AtomicUsize) -> usize {
    const CALM: u32 = 20;
    let (mut last, mut calm) = (0, 0);
    eventually("a standstill", async || {
        let now = counter.load(Ordering::Relaxed);
        calm = if now == last && now > 0 { calm + 1 } else { 0 };
        last = now;
        (calm == CALM).then_some(now)
    })
    .await
}

#[tokio::test]
async fn a_node_that_does_not_read_stops_the_publisher_and_gets_all_when_it_does() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    let published = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&published);
    let publisher = link.clone();
    let task = tokio::spawn(async move {
        for number in 0..COUNT {
            publisher.publish(&message(1, number, vec![0; PAYLOAD])).await.expect("published");
            counter.fetch_add(PAYLOAD, Ordering::Relaxed);
        }
    });
    assert!(standstill(&published).await < BOUND);
    assert!(!link.try_publish(&message(1, 0, "")).expect("the link is open"));

    let mut arrived = 0;
    let mut lane = peer.lane_of(&message(1, 0, "")).await;
    while arrived < COUNT {
        for (head, _) in in_time("frames", lane.frames()).await.expect("the lane is open") {
            assert_eq!(head.ids().message, arrived);
            arrived += 1;
        }
    }
    in_time("the publisher ends", task).await.expect("no panic");
}

#[tokio::test]
async fn an_app_that_does_not_receive_stops_the_node_and_gets_all_when_it_does() {
    let node = FakeNode::start();
    let (link, mut peer) = node.link().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let task = tokio::spawn(async move {
        for number in 0..COUNT {
            peer.send(3, &publish(number, &[0; PAYLOAD])).await;
            counter.fetch_add(PAYLOAD, Ordering::Relaxed);
        }
        peer
    });
    assert!(standstill(&sent).await < BOUND);
    for number in 0..COUNT {
        let received = in_time("a message", link.receive()).await.expect("the link is open");
        assert_eq!(received.ids.message, number);
    }
    in_time("all is sent", task).await.expect("no panic");
}

#[tokio::test]
async fn best_effort_waits_or_says_that_there_is_no_room_and_is_dropped_with_a_count() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    let message = Message { class: Class::BestEffort, ..message(1, 1, vec![0; PAYLOAD]) };
    // Nothing else runs meanwhile, so nothing leaves.
    let mut accepted = 0_u32;
    while link.try_publish(&message).expect("the link is open") {
        accepted += 1;
    }
    assert!(accepted as usize * PAYLOAD < 2 << 20, "{accepted}");
    in_time("room", link.publish(&message)).await.expect("published");

    // The app receives nothing, so what arrives beyond its queue is dropped.
    let payload = publish(1, &[0; PAYLOAD]);
    let sender = peer.connection.clone();
    eventually("some are dropped", async || {
        for _ in 0..100 {
            let datagram = payload.clone();
            sender.send_datagram_wait(datagram).await.expect("the link is open");
        }
        (link.stats().dropped > 0).then_some(())
    })
    .await;
    let mut waiting = Vec::new();
    let count = in_time("messages", link.receive_many(&mut waiting)).await.expect("some");
    assert!(count * PAYLOAD < 2 << 20, "{count}");
}

#[tokio::test]
async fn a_lane_that_is_full_does_not_hold_up_another() {
    let node = FakeNode::start();
    let (link, peer) = node.link().await;
    let lane_of = |session| slim_wire::lane(session, &message(session, 0, "").source);
    let other = (2..).find(|session| lane_of(*session) != lane_of(1)).expect("one of eight");
    let flood = link.clone();
    tokio::spawn(async move {
        loop {
            flood.publish(&message(1, 0, vec![0; PAYLOAD])).await.expect("published");
        }
    });
    eventually("the lane is full", async || {
        (!link.try_publish(&message(1, 0, "")).expect("the link is open")).then_some(())
    })
    .await;
    in_time("room", link.publish(&message(other, 5, "through"))).await.expect("published");
    let mut lane = peer.lane_of(&message(other, 5, "")).await;
    let frames = in_time("a frame", lane.frames()).await.expect("the lane is open");
    assert_eq!(frames[0].0.ids().message, 5);
}
