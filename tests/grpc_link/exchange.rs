//! Messages between links over gRPC, and between those and native ones.

use std::time::Duration;

use rustix::process::Signal;
use slim_quic::client::link::{Link, LinkError, LinkOptions, Message};
use slim_wire::session::{Content, Delivery, Session, SessionKind};
use slim_wire::{Class, CloseCode, Fault, Id, Name, SessionIds};

use crate::support::in_time;
use crate::support::native::{self, message, receive, send, text};
use crate::support::node::Node;
use crate::{join, numbered, settle};

const ALICE: &str = "org/ns/alice/1";
const BOB: &str = "org/ns/bob/2";

/// A message that has a bit of everything.
fn rich(source: &str, destination: &str) -> Message {
    let session = Session {
        kind: SessionKind::Group,
        content: Content::Data(Delivery::Group),
        encrypted: true,
        source: Some(text(source)),
        destination: Some(text(destination)),
        identity: Some("a token".into()),
        content_type: "msg".into(),
        metadata: vec![("key".into(), "a value".into())],
        remainder: Vec::new(),
    };
    Message {
        session: session.encode().expect("it is short").into(),
        ids: SessionIds { session: 0xCAFE, message: 77 },
        ..message(source, destination, "payload")
    }
}

#[tokio::test]
async fn what_one_link_publishes_another_receives_whatever_both_run_over() {
    let node = Node::start("").await;
    let grpc = [join(&node, "org/ns/one/1").await, join(&node, "org/ns/two/2").await];
    let quic = native::join(&node, &["org/ns/three/3"]).await;
    let links = [&grpc[0], &grpc[1], &quic];
    let names = ["org/ns/one/1", "org/ns/two/2", "org/ns/three/3"];
    for (from, source) in links.iter().zip(names) {
        for (to, destination) in links.iter().zip(names).filter(|(_, name)| *name != source) {
            let sent = rich(source, destination);
            send(from, &sent).await;
            assert_eq!(receive(to).await, sent, "{source} to {destination}");
            let ack =
                Session { kind: SessionKind::Group, content: Content::Ack, ..Session::default() };
            let session = ack.encode().expect("it is short").into();
            let sent = Message { class: Class::Control, session, ..rich(source, destination) };
            send(from, &sent).await;
            assert_eq!(receive(to).await, sent, "{source} to {destination}");
        }
    }
    let stats = grpc[0].stats();
    assert_eq!((stats.ignored, stats.unreadable, stats.dropped), (0, 0, 0));
    assert!(stats.rtt > Duration::ZERO);
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_holds_until_it_is_taken_back() {
    let node = Node::start("").await;
    let (alice, bob) = (join(&node, ALICE).await, join(&node, BOB).await);
    let channel = text("org/ns/channel");
    let keys = [("SLIM_IDENTITY", "a token"), ("CHANNEL_SUBSCRIPTION", "true")];
    bob.subscribe_with(&channel, &keys).await.expect("the link is open");
    settle(&bob, &node).await;
    let told = message(ALICE, "org/ns/channel", "first").to_all();
    send(&alice, &told).await;
    assert_eq!(receive(&bob).await.payload, "first");

    bob.unsubscribe_with(&channel, &keys).await.expect("the link is open");
    settle(&bob, &node).await;
    send(&alice, &told).await;
    send(&alice, &message(ALICE, BOB, "second")).await;
    assert_eq!(receive(&bob).await.payload, "second", "nothing of the channel came before");
}

#[tokio::test]
async fn ten_thousand_messages_reach_a_slow_receiver_in_order() {
    const COUNT: u32 = 10_000;
    // A receiver that takes its time is not one that has stopped.
    let node = Node::start("limits: { slow_consumer_ms: 60000, pause_ms: 10000 }").await;
    let (alice, bob) = (join(&node, ALICE).await, join(&node, BOB).await);
    let publishing = tokio::spawn(async move {
        for number in 0..COUNT {
            alice.publish(&numbered(ALICE, BOB, number, &[7; 1500])).await.expect("it stays open");
        }
        alice.close().await
    });
    let mut next = 0;
    while next < COUNT {
        let mut batch = Vec::new();
        in_time("messages", bob.receive_many(&mut batch)).await.expect("it stays open");
        for message in batch {
            assert_eq!(message.ids.message, next);
            next += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    in_time("the end of publishing", publishing).await.expect("no panic").expect("handed over");
    node.balanced().await;
}

#[tokio::test]
async fn closing_hands_over_what_was_published() {
    const COUNT: u32 = 2_000;
    let node = Node::start("").await;
    let (alice, bob) = (join(&node, ALICE).await, join(&node, BOB).await);
    for number in 0..COUNT {
        send(&alice, &numbered(ALICE, BOB, number, b"x")).await;
    }
    alice.close().await.expect("the node took all");
    let after = alice.publish(&numbered(ALICE, BOB, 0, b"x")).await.expect_err("closed");
    assert!(matches!(after, LinkError::Ended), "{after}");
    assert!(matches!(alice.closed().await, LinkError::Ended));
    for number in 0..COUNT {
        assert_eq!(receive(&bob).await.ids.message, number);
    }
    alice.close().await.expect("it is closed already");
}

#[tokio::test]
async fn a_link_without_handles_leaves_the_node() {
    let node = Node::start("").await;
    let link = join(&node, ALICE).await;
    drop(link);
    node.until("the link is gone", |metrics| {
        metrics.sum("slim_links") == 0 && metrics.sum("slim_subscriptions") == 0
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_ends_its_links_after_what_it_had_for_them() {
    let node = Node::start("").await;
    let (alice, bob) = (join(&node, ALICE).await, join(&node, BOB).await);
    send(&alice, &message(ALICE, BOB, "the last")).await;
    node.balanced().await;
    node.program.signal(Signal::TERM);
    assert_eq!(receive(&bob).await.payload, "the last");
    let end = in_time("the end", bob.receive()).await.expect_err("the node stops");
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Done, .. }), "{end}");
    assert_eq!(end.fault(), Fault::Peer);
    let end = in_time("the end", alice.closed()).await;
    assert!(matches!(end, LinkError::Closed { .. }), "{end}");
}

#[tokio::test]
async fn a_node_that_is_killed_or_falls_silent_is_noticed() {
    let stalled = Node::start("").await;
    let silent = join(&stalled, ALICE).await;
    stalled.program.signal(Signal::STOP);
    let killed = Node::start("").await;
    let link = join(&killed, ALICE).await;
    killed.program.signal(Signal::KILL);
    let end = in_time("the end", link.closed()).await;
    assert!(matches!(end, LinkError::Lost { .. }), "{end}");
    let after = link.publish(&message(ALICE, BOB, "x")).await.expect_err("lost");
    assert_eq!(after.to_string(), end.to_string());

    let end = in_time("the end", silent.receive()).await.expect_err("lost");
    assert_eq!(end.to_string(), "connection lost: the node was silent for 10 s");
}

#[tokio::test]
async fn a_message_that_release_0_6_cannot_tell_is_refused_and_the_link_goes_on() {
    let node = Node::start("").await;
    let (alice, bob) = (join(&node, ALICE).await, join(&node, BOB).await);
    let ordinary = message(ALICE, BOB, "after");
    let wide = Name { id: Id::new(1 << 64), ..ordinary.destination };
    let wide = Message { destination: wide, ..ordinary.clone() };
    let bare = Message { session: Default::default(), ..ordinary.clone() };
    for (message, told) in [
        (wide, "destination: expected an id below 18446744073709551615"),
        (bare, "session part: expected a whole archive"),
    ] {
        let error = alice.publish(&message).await.expect_err("it has no form there");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.fault(), Fault::Caller);
        assert!(matches!(alice.try_publish(&message), Err(LinkError::Untranslatable { .. })));
    }
    let large = message(ALICE, BOB, vec![0; 4 << 20]);
    let error = alice.publish(&large).await.expect_err("more than 4 MiB");
    assert!(matches!(error, LinkError::TooLarge { limit: 4_194_304, .. }), "{error}");
    let largest = message(ALICE, BOB, vec![0; (4 << 20) - 200]);
    send(&alice, &largest).await;
    assert_eq!(receive(&bob).await.payload.len(), largest.payload.len());
    assert!(alice.try_publish(&ordinary).expect("the link is open"));
    assert_eq!(receive(&bob).await.payload, "after");
}

#[tokio::test]
async fn a_node_that_is_not_there_cannot_be_reached() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let options = LinkOptions::default();
    let refused = Link::connect(&address, &options);
    let error = in_time("a refusal", refused).await.expect_err("nobody listens");
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Peer);
}
