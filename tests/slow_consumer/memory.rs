//! What waits for a stuck receiver takes no more memory than its queue may.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::message::publish;
use crate::support::node::Node;
use crate::support::raw::Connection;
use crate::support::say;

const QUEUE_KIB: u64 = 32 * 1024;

/// What a node may take beside queues: a window of 1 MiB that a source may fill, 128 KiB of
/// transport buffers per stream, and what the allocator keeps.
const ALLOWANCE_KIB: u64 = 12 * 1024;

/// A node that would rather queue than evict or pause.
async fn node() -> Node {
    let queue = QUEUE_KIB * 1024;
    Node::start(&format!(
        "limits: {{ queue_bytes: {queue}, slow_consumer_ms: 600000, pause_ms: 0 }}"
    ))
    .await
}

/// Fills the queue of a stuck receiver with messages of `payload` bytes until it is evicted.
/// Before each goes one of `between` bytes to another receiver, who reads it.
async fn grows_by(payload: usize, between: Option<usize>) -> u64 {
    let node = node().await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, "org/ns/stuck/99").await;
    let mut reader = Client::join(&node, "org/ns/reader/2").await;
    let source = Client::join(&node, "org/ns/source/1").await;
    // What a node takes for its first messages it takes once.
    for _ in 0..64 {
        source.publish("org/ns/reader/2", vec![7; 64 * 1024]).await;
        reader.payload().await;
    }
    let base = node.resident();
    let filler = publish("org/ns/source/1", "org/ns/stuck/99", vec![7; payload]);
    let mut most = base;
    loop {
        for _ in 0..(256 * 1024 / payload).max(1) {
            if let Some(between) = between {
                source.publish("org/ns/reader/2", vec![7; between]).await;
                reader.payload().await;
            }
            source.send(filler.clone()).await;
        }
        // A round trip: what was sent has been read.
        source.publish("org/ns/reader/2", "done").await;
        reader.payload().await;
        most = most.max(node.resident());
        let metrics = node.metrics().await;
        if metrics.sum("slim_slow_consumers_evicted_total") > 0 {
            break;
        }
        tokio::time::sleep(Duration::ZERO).await;
    }
    let growth = most - base;
    say(&format!(
        "memory: messages of {payload} bytes, between them {between:?}: base {base} KiB, \
         at most {most} KiB, growth {growth} KiB for a queue of {QUEUE_KIB} KiB"
    ));
    node.balanced().await;
    growth
}

#[tokio::test]
async fn a_full_queue_of_large_messages_takes_what_was_configured() {
    let growth = grows_by(64 * 1024, None).await;
    assert!(growth <= QUEUE_KIB + ALLOWANCE_KIB, "{growth} KiB");
}

#[tokio::test]
async fn a_full_queue_of_small_messages_takes_what_was_configured() {
    let growth = grows_by(1_000, None).await;
    assert!(growth <= QUEUE_KIB + ALLOWANCE_KIB, "{growth} KiB");
}

#[tokio::test]
async fn what_waits_does_not_hold_the_memory_of_its_neighbours_in_a_receive_buffer() {
    // Large enough not to be packed, and a small part of what was received at once.
    for (payload, between) in [(2_100, 14_000), (3_000, 9_000), (9_000, 27_000)] {
        let growth = grows_by(payload, Some(between)).await;
        assert!(growth <= QUEUE_KIB + ALLOWANCE_KIB, "{growth} KiB");
    }
}
