//! Apps at a real node over native QUIC.

mod support;

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::Signal;
use slim_quic::client::link::{Link, LinkError, LinkOptions, Message, Trust};
use slim_wire::{Class, CloseCode, Fault, Name, SessionIds, TextName};

use support::in_time;
use support::node::{Node, config};

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

fn name(name: &str) -> Name {
    text(name).to_name()
}

fn blind() -> LinkOptions {
    LinkOptions { trust: Trust::DangerAcceptAnyCertificate, ..LinkOptions::default() }
}

async fn connect(node: &Node, options: &LinkOptions) -> Result<Link, LinkError> {
    let address = node.address.to_string();
    in_time("a link", Link::connect(&address, options)).await
}

/// A link that is subscribed to these names.
async fn join(node: &Node, names: &[&str]) -> Link {
    let link = connect(node, &blind()).await.expect("a link");
    for name in names {
        in_time("an answer", link.subscribe(&text(name))).await.expect("subscribed");
    }
    link
}

async fn receive(link: &Link) -> Message {
    in_time("a message", link.receive()).await.expect("the link is open")
}

/// Receivers of a busy machine may take their time, and sources wait for them.
const PATIENT: &str = "limits: { slow_consumer_ms: 600000, stalled_ms: 600000, pause_ms: 10000 }";

const SOURCE: &str = "org/ns/source/1";

fn message(destination: &str, number: u32, payload: impl Into<Bytes>) -> Message {
    Message {
        ids: SessionIds { session: 1, message: number },
        session: Bytes::from_static(b"session"),
        ..Message::new(name(SOURCE), name(destination), payload)
    }
}

/// Numbers of the messages in the order in which they arrive.
async fn numbers(link: &Link, count: usize) -> Vec<u32> {
    let mut batch = Vec::new();
    while batch.len() < count {
        in_time("messages", link.receive_many(&mut batch)).await.expect("the link is open");
    }
    batch.iter().map(|message| message.ids.message).collect()
}

#[tokio::test]
async fn messages_reach_one_any_or_all_by_name() {
    const COUNT: u32 = 200;
    let node = Node::start("").await;
    let one = join(&node, &["org/ns/one/1", "org/ns/worker/1", "org/ns/group"]).await;
    let two = join(&node, &["org/ns/two/2", "org/ns/worker/2", "org/ns/group"]).await;
    let source = join(&node, &[]).await;
    let sent = message("org/ns/two/2", 0, "for two");
    source.publish(&sent).await.expect("published");
    assert_eq!(receive(&two).await, sent);

    for number in 0..COUNT {
        source.publish(&message("org/ns/group", number, "x").to_all()).await.expect("published");
    }
    assert!(numbers(&one, COUNT as usize).await.into_iter().eq(0..COUNT));
    assert!(numbers(&two, COUNT as usize).await.into_iter().eq(0..COUNT));

    for number in 0..COUNT {
        source.publish(&message("org/ns/worker", number, "x")).await.expect("published");
    }
    let mut got = Vec::new();
    while got.len() < COUNT as usize {
        let message = in_time("a message", async {
            tokio::select! {
                message = one.receive() => message,
                message = two.receive() => message,
            }
        });
        got.push(message.await.expect("the link is open").ids.message);
    }
    got.sort_unstable();
    assert!(got.into_iter().eq(0..COUNT));
    node.balanced().await;
}

#[tokio::test]
async fn a_name_that_was_given_up_gets_nothing_more() {
    let node = Node::start("").await;
    let link = join(&node, &["org/ns/kept/1", "org/ns/left/1"]).await;
    let source = join(&node, &[]).await;
    link.unsubscribe(&text("org/ns/left/1")).await.expect("done");
    source.publish(&message("org/ns/left/1", 1, "lost")).await.expect("published");
    source.publish(&message("org/ns/kept/1", 2, "kept")).await.expect("published");
    assert_eq!(receive(&link).await.ids.message, 2);
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_unmatched_total"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_many_sources_stay_in_order_at_any_length() {
    const SOURCES: u64 = 4;
    const COUNT: u32 = 2_000;
    let node = Node::start(PATIENT).await;
    let receiver = join(&node, &["org/ns/receiver/1"]).await;
    let sources = join_all((0..SOURCES).map(|_| join(&node, &[]))).await;
    for (id, link) in (0..).zip(&sources) {
        let link = link.clone();
        tokio::spawn(async move {
            for number in 0..COUNT {
                let length = if number % 500 == 0 { 3 << 20 } else { number as usize * 7 % 5_000 };
                let payload = vec![number as u8; length];
                let message = Message {
                    source: name(&format!("org/ns/source/{id}")),
                    ..message("org/ns/receiver/1", number, payload)
                };
                link.publish(&message).await.expect("published");
            }
        });
    }
    let mut next: HashMap<Name, u32> = HashMap::new();
    for _ in 0..SOURCES as u32 * COUNT {
        let received = receive(&receiver).await;
        let expected = next.entry(received.source).or_default();
        assert_eq!(received.ids.message, *expected);
        assert!(received.payload.iter().all(|byte| *byte == *expected as u8));
        *expected += 1;
    }
    assert!(next.values().all(|next| *next == COUNT));
    node.balanced().await;
}

#[tokio::test]
async fn best_effort_arrives_in_packets_of_its_own_and_beside_them() {
    let node = Node::start("").await;
    let link = join(&node, &["org/ns/receiver/1"]).await;
    let source = join(&node, &[]).await;
    for length in [0, 500, 20_000] {
        let class = Class::BestEffort;
        let sent = Message { class, ..message("org/ns/receiver/1", 1, vec![7; length]) };
        source.publish(&sent).await.expect("published");
        assert_eq!(receive(&link).await, sent);
    }
}

#[tokio::test]
async fn what_was_published_before_closing_arrives() {
    const COUNT: u32 = 6_000;
    let node = Node::start(PATIENT).await;
    for _ in 0..5 {
        let receiver = join(&node, &["org/ns/receiver/1"]).await;
        let source = join(&node, &[]).await;
        let published = async {
            for number in 0..COUNT {
                let message = message("org/ns/receiver/1", number, vec![0; 1_000]);
                source.publish(&message).await.expect("published");
            }
            source.close().await.expect("handed over");
        };
        let arrived = numbers(&receiver, COUNT as usize);
        let (arrived, ()) = tokio::join!(arrived, published);
        assert!(arrived.into_iter().eq(0..COUNT));
        receiver.close().await.expect("nothing is left");
    }
    node.balanced().await;
}

#[tokio::test]
async fn closing_waits_for_what_the_node_holds_back_for_a_slow_receiver() {
    const COUNT: u32 = 2_000;
    let limits = "limits: { slow_consumer_ms: 600000, stalled_ms: 600000, pause_ms: 10000, \
                  message_bytes: 65536, queue_bytes: 1048576 }";
    let node = Node::start(limits).await;
    let receiver = join(&node, &["org/ns/receiver/1"]).await;
    let source = join(&node, &[]).await;
    for number in 0..COUNT {
        let message = message("org/ns/receiver/1", number, vec![0; 1_000]);
        source.publish(&message).await.expect("published");
    }
    node.until("a pause", |metrics| metrics.sum("slim_source_pauses_total") > 0).await;
    let (closed, arrived) = tokio::join!(source.close(), numbers(&receiver, COUNT as usize));
    closed.expect("handed over");
    assert!(arrived.into_iter().eq(0..COUNT));
}

#[tokio::test]
async fn who_does_not_receive_is_evicted_and_told() {
    let node = Node::start("limits: { slow_consumer_ms: 100, stalled_ms: 200 }").await;
    let slow = join(&node, &["org/ns/slow/1", "org/ns/all"]).await;
    let healthy = join(&node, &["org/ns/healthy/2", "org/ns/all"]).await;
    let source = join(&node, &[]).await;
    let flood = tokio::spawn(async move {
        let message = message("org/ns/all", 1, vec![0; 10_000]).to_all();
        while source.publish(&message).await.is_ok() {}
    });
    let error = in_time("an eviction", async {
        loop {
            tokio::select! {
                error = slow.closed() => break error,
                received = healthy.receive() => received.map(drop).expect("it is read"),
            }
        }
    })
    .await;
    assert!(matches!(error, LinkError::Closed { code: CloseCode::TooSlow, .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Caller);
    let next = join(&node, &[]).await;
    next.publish(&message("org/ns/healthy/2", 7, "x")).await.expect("published");
    while receive(&healthy).await.ids.message != 7 {}
    flood.abort();
}

#[tokio::test]
async fn limits_of_the_node_are_reported_where_they_are_reached() {
    let limits = "limits: { links: 2, subscriptions_per_link: 1, message_bytes: 5000 }";
    let node = Node::start(limits).await;
    let link = join(&node, &["org/ns/first/1"]).await;
    let source = join(&node, &[]).await;
    let error = link.subscribe(&text("org/ns/second/1")).await.expect_err("one too many");
    assert!(matches!(error, LinkError::Refused { request: "subscribe", .. }), "{error:?}");

    assert_eq!(link.frame_bytes(), 5_000);
    let error = link.publish(&message("org/ns/first/1", 1, vec![0; 5_000])).await;
    let error = error.expect_err("too long");
    assert_eq!(error.to_string(), "frame: expected at most 5000 bytes, got 5111");

    let error = connect(&node, &blind()).await.expect_err("one too many");
    assert!(matches!(error, LinkError::Closed { code: CloseCode::Limit, .. }), "{error:?}");
    source.publish(&message("org/ns/first/1", 1, "x")).await.expect("the first two go on");
    receive(&link).await;
}

#[tokio::test]
async fn a_stopping_node_hands_over_what_it_has_and_says_so() {
    const COUNT: u32 = 3_000;
    let mut node = Node::start("limits: { slow_consumer_ms: 600000 }").await;
    let receiver = join(&node, &["org/ns/receiver/1"]).await;
    let source = join(&node, &[]).await;
    for number in 0..COUNT {
        let message = message("org/ns/receiver/1", number, vec![0; 1_000]);
        source.publish(&message).await.expect("published");
    }
    node.until("all are there", |metrics| {
        metrics.sum("slim_messages_matched_total") == u64::from(COUNT)
    })
    .await;
    node.program.signal(Signal::TERM);
    assert!(numbers(&receiver, COUNT as usize).await.into_iter().eq(0..COUNT));
    for link in [&receiver, &source] {
        let error = in_time("the end", link.receive()).await.expect_err("nothing more");
        assert!(matches!(error, LinkError::Closed { code: CloseCode::Stopping, .. }), "{error:?}");
    }
    assert_eq!(node.program.exit().await, Some(0));
}

#[tokio::test]
async fn a_node_with_a_certificate_is_known_by_it() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("node.crt"), folder.path().join("node.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = format!("cert_file: {}, key_file: {}", certificate.display(), key.display());
    let server = format!("endpoint: \"127.0.0.1:0\", tls: {{ {tls} }}");
    let node = Node::launch(&config("", &server)).await;
    let options = LinkOptions { trust: Trust::File(certificate), ..LinkOptions::default() };
    let link = connect(&node, &options).await.expect("a link");
    link.subscribe(&text("org/ns/me/1")).await.expect("subscribed");
    let error = connect(&node, &LinkOptions::default()).await.expect_err("not the system's");
    assert!(matches!(error, LinkError::Untrusted { .. }), "{error:?}");
}
