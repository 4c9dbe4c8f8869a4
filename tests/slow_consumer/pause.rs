//! A source is held up only by the one target that it sends to.

use crate::support::client::Client;
use crate::support::message::publish;
use crate::support::node::Node;
use crate::support::pair::HealthyPair;
use crate::support::raw::Connection;

const PAYLOAD: usize = 64 * 1024;
const PAUSES: &str = "slim_source_pauses_total";
const PATIENT: &str = "limits: { message_bytes: 1048576, queue_bytes: 8388608, slow_consumer_ms: 600000, pause_ms: 10000 }";

#[tokio::test]
async fn a_source_waits_for_its_only_target_and_nothing_is_lost() {
    const SENT: usize = 200;
    let node = Node::start(PATIENT).await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    let source = Client::join(&node, "org/ns/source/1").await;
    let sending = tokio::spawn(async move {
        for _ in 0..SENT {
            source.publish("org/ns/stuck/99", vec![7; PAYLOAD]).await;
        }
        source
    });
    node.until("the source is paused", |metrics| metrics.sum(PAUSES) > 0).await;
    assert!(!sending.is_finished());
    // Other sources and targets do not notice.
    let mut target = Client::join(&node, "org/ns/target/2").await;
    let other = Client::join(&node, "org/ns/other/3").await;
    for round in 0..200 {
        other.publish("org/ns/target/2", round.to_string()).await;
        assert_eq!(target.payload().await, round.to_string());
    }
    pair.assert_unharmed().await;

    for _ in 0..SENT {
        assert!(stuck.receive().await.expect("a message").len() > PAYLOAD);
    }
    let source = sending.await.expect("all is sent");
    assert_eq!(source.name, "org/ns/source/1");
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_slow_consumers_evicted_total"), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}

#[tokio::test]
async fn a_paused_stream_does_not_hold_up_the_others_of_its_connection() {
    let node = Node::start(PATIENT).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    let mut target = Client::join(&node, "org/ns/target/2").await;

    let mut shared = Connection::open(node.address).await;
    let mut paused = shared.channel().await;
    let mut other = shared.channel().await;
    let sending = tokio::spawn(async move {
        let message = publish("org/ns/source/1", "org/ns/stuck/99", vec![7; PAYLOAD]);
        for _ in 0..200 {
            paused.send(&message).await;
        }
    });
    node.until("the source is paused", |metrics| metrics.sum(PAUSES) > 0).await;
    for round in 0..200 {
        let message = publish("org/ns/other/3", "org/ns/target/2", vec![round; PAYLOAD]);
        other.send(&message).await;
        assert_eq!(target.payload().await[0], round);
    }
    assert!(!sending.is_finished());
    // The window of the stuck one fills first, so there may have been short pauses before.
    assert_eq!(node.metrics().await.sum("slim_slow_consumers_evicted_total"), 0);
    sending.abort();
}

#[tokio::test]
async fn a_burst_of_large_messages_from_many_sources_does_not_evict_a_receiver_that_reads() {
    const SOURCES: usize = 8;
    const SIZE: usize = 4_000_000;
    let node = Node::start("limits: { pause_ms: 10000 }").await;
    let mut receiver = Client::join(&node, "org/ns/receiver/1").await;
    let mut sources = Vec::new();
    for id in 0..SOURCES {
        sources.push(Client::join(&node, &format!("org/ns/source/{id}")).await);
    }
    for source in &sources {
        source.publish("org/ns/receiver/1", vec![7; SIZE]).await;
    }
    for _ in 0..SOURCES {
        assert_eq!(receiver.payload().await.len(), SIZE);
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_slow_consumers_evicted_total"), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}
