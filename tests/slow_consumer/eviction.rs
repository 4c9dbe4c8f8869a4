//! Who is cut off, when, and who is not.

use h2::Reason;

use crate::support::client::Client;
use crate::support::message::{broadcast, header_of, publish, publish_of};
use crate::support::metrics::Metrics;
use crate::support::node::Node;
use crate::support::pair::HealthyPair;
use crate::support::raw::Connection;

use slim_compat_grpc::proto::d6::SessionMessageType;

const PAYLOAD: usize = 64 * 1024;
const EVICTED: &str = "slim_slow_consumers_evicted_total";

/// The entry about the stuck client among the latest slow consumers.
fn entry(metrics: &Metrics) -> Option<(String, u64)> {
    let of_stuck = |sample: &&crate::support::metrics::Sample| {
        sample.labels["name"].contains("(org/ns/stuck/63)")
    };
    let entry = metrics.named("slim_slow_consumer_queued_bytes").find(of_stuck)?;
    Some((entry.labels["state"].clone(), entry.value))
}

#[tokio::test]
async fn only_the_one_that_never_reads_is_evicted_and_only_its_stream() {
    const QUEUE: u64 = 8 * 1024 * 1024;
    const ROUNDS: usize = 15;
    let limits = format!(
        "limits: {{ message_bytes: 1048576, queue_bytes: {QUEUE}, slow_consumer_ms: 600000 }}"
    );
    let node = Node::start(&limits).await;
    let mut healthy = Vec::new();
    for id in 0..20 {
        let member = Client::join(&node, &format!("org/ns/member/{id}")).await;
        member.subscribe("org/ns/room").await;
        member.settle(&node).await;
        healthy.push(member);
    }
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    stuck.join(&node, "org/ns/room").await;
    let mut neighbour = connection.channel().await;
    neighbour.join(&node, "org/ns/room").await;

    let publisher = Client::join(&node, "org/ns/publisher/1").await;
    let message = broadcast("org/ns/publisher/1", "org/ns/room", vec![7; PAYLOAD]);
    for _ in 0..ROUNDS {
        for _ in 0..16 {
            publisher.send(message.clone()).await;
        }
        for _ in 0..16 {
            for member in &mut healthy {
                assert_eq!(member.payload().await.len(), PAYLOAD);
            }
            assert!(neighbour.receive().await.expect("a message").len() > PAYLOAD);
        }
    }
    assert_eq!(stuck.reset().await, Reason::ENHANCE_YOUR_CALM);
    let metrics =
        node.until("the stuck link is gone", |metrics| metrics.sum("slim_links") == 20 + 2).await;
    assert_eq!(metrics.sum(EVICTED), 1);
    let (state, queued) = entry(&metrics).expect("named in the metrics");
    assert_eq!(state, "evicted");
    assert!(queued > QUEUE / 2 && queued <= QUEUE, "{queued}");
    assert!(metrics.dropped("overrun") >= 1);
    assert!(metrics.dropped("link_closed") >= 1);
    let line = node.program.stdout.find("slow consumer evicted");
    let line = line.expect("a log line");
    assert!(line.contains("(org/ns/stuck/63)"), "{line}");
    node.balanced().await;

    publisher.send(message).await;
    assert!(neighbour.receive().await.expect("a message").len() > PAYLOAD);
    connection.channel().await.join(&node, "org/ns/stuck/100").await;
}

#[tokio::test]
async fn who_stays_behind_too_long_is_evicted_before_the_queue_is_full() {
    let node = Node::start("limits: { slow_consumer_ms: 300 }").await;
    let mut member = Client::join(&node, "org/ns/member/1").await;
    member.subscribe("org/ns/room").await;
    member.settle(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    stuck.join(&node, "org/ns/room").await;
    // It answers no ping either: nothing of it moves.
    connection.freeze();
    let publisher = Client::join(&node, "org/ns/publisher/1").await;
    // Eleven MiB: above the soft mark of eight beside what HTTP/2 takes, below sixteen.
    for _ in 0..176 {
        publisher.broadcast("org/ns/room", vec![7; PAYLOAD]).await;
        assert_eq!(member.payload().await.len(), PAYLOAD);
    }
    let metrics =
        node.until("the stuck link is gone", |metrics| metrics.sum("slim_links") == 2).await;
    assert_eq!(metrics.sum(EVICTED), 1);
    assert_eq!(metrics.dropped("overrun"), 0);
    assert!(metrics.dropped("link_closed") > 100);
    assert_eq!(entry(&metrics).expect("named in the metrics").0, "evicted");
    assert!(node.program.stdout.find("slow consumer is behind").is_some());
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn best_effort_that_does_not_fit_is_dropped_and_nobody_evicted() {
    const SENT: u64 = 300;
    let limits = "limits: { message_bytes: 1048576, queue_bytes: 8388608, slow_consumer_ms: 600000, pause_ms: 0 }";
    let node = Node::start(limits).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    let publisher = Client::join(&node, "org/ns/publisher/1").await;
    let mut message = publish("org/ns/publisher/1", "org/ns/stuck/99", vec![7; PAYLOAD]);
    let session = publish_of(&mut message).session.as_mut();
    session.expect("a session").session_message_type = SessionMessageType::P2pMsg.into();
    assert_eq!(header_of(&mut message).fanout, 1);
    for _ in 0..SENT {
        publisher.send(message.clone()).await;
    }
    let metrics = node
        .until("all are matched", |metrics| metrics.sum("slim_messages_matched_total") == SENT)
        .await;
    let lost = metrics.dropped("queue_full");
    assert!(lost > 0);
    assert_eq!(metrics.sum(EVICTED), 0);
    for _ in 0..SENT - lost {
        assert!(stuck.receive().await.expect("a message").len() > PAYLOAD);
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), lost);
    assert_eq!(metrics.sum("slim_links"), 2);
}

#[tokio::test]
async fn a_name_cannot_forge_lines_of_the_log_or_of_the_metrics() {
    const FORGED: &str = "forged\n2026-01-01T00:00:00Z  INFO slim: a forged line\n\
                          slim_links{forged=\"\\\"} 77 \u{1b}[31m\u{9b}31m\r";
    let node = Node::start("limits: { message_bytes: 1048576, queue_bytes: 8388608 }").await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    let name = format!("org/ns/{FORGED}x");
    stuck.join(&node, &name).await;
    let publisher = Client::join(&node, "org/ns/publisher/1").await;
    let sending = tokio::spawn(async move {
        loop {
            publisher.publish(&name, vec![7; PAYLOAD]).await;
        }
    });
    let metrics = node.until("it is evicted", |metrics| metrics.sum(EVICTED) == 1).await;
    sending.abort();
    assert!(metrics.sum("slim_links") <= 2);
    let entry = metrics.named("slim_slow_consumer_queued_bytes").next();
    let labels = &entry.expect("an entry").labels;
    let keys: Vec<_> = labels.keys().collect();
    assert_eq!(keys, ["link", "name", "peer", "state"]);
    node.program.line("slow consumer evicted").await;
    for line in node.program.stdout.all() {
        assert!(!line.starts_with("2026-01-01T00:00:00Z"), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}

#[tokio::test]
async fn a_link_that_takes_nothing_is_evicted_however_little_waits_for_it() {
    let node = Node::start("limits: { stalled_ms: 400 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    connection.freeze();
    let publisher = Client::join(&node, "org/ns/publisher/1").await;
    // More than the transport's window takes, and far less than a queue.
    for _ in 0..4 {
        publisher.publish("org/ns/stuck/99", vec![7; 1_000_000]).await;
    }
    node.until("it is evicted", |metrics| metrics.sum("slim_slow_consumers_evicted_total") == 1)
        .await;
    pair.assert_unharmed().await;
    node.balanced().await;
}
