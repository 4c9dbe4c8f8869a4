//! Clients that never make room for what is sent to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::{TransportConfig, VarInt};
use slim_wire::limits::HEADER_BYTES;
use slim_wire::{CloseCode, FrameKind};

use crate::support::native::{Raw, join, message, name, receive, request, send};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};
use crate::support::{eventually, in_time};

const STUCK: &str = "org/ns/stuck/99";
const SOURCE: &str = "org/ns/source/1";
const EVICTED: &str = "slim_slow_consumers_evicted_total";

/// The entry of the stuck client among the latest slow consumers: its state.
fn state_of_stuck(metrics: &crate::support::metrics::Metrics) -> Option<String> {
    let mut entries = metrics.named("slim_slow_consumer_queued_bytes");
    let entry = entries.find(|entry| entry.labels["name"].contains("(org/ns/stuck/63)"))?;
    Some(entry.labels["state"].clone())
}

async fn is_evicted(node: &Node, raw: &Raw) {
    let reason = "too slow to take what is sent".to_owned();
    assert_eq!(raw.closed().await, (CloseCode::TooSlow, reason));
    let metrics = node
        .until("its link is gone", |metrics| {
            metrics.sum("slim_links") == BYSTANDERS + 1 && metrics.sum(EVICTED) == 1
        })
        .await;
    assert_eq!(state_of_stuck(&metrics).expect("named in the metrics"), "evicted");
    let line = node.program.line("slow consumer evicted").await;
    assert!(line.contains("(org/ns/stuck/63)"), "{line}");
    assert_eq!(node.program.stdout.count("slow consumer evicted"), 1);
}

#[tokio::test]
async fn who_never_reads_its_lanes_is_evicted_however_little_waits() {
    let node = Node::start("limits: { stalled_ms: 400 }").await;
    let bystanders = Bystanders::start(&node).await;
    let source = join(&node, &[SOURCE]).await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(10_000));
    let (raw, mut control) = Raw::greeted_with(&node, transport).await;
    control.subscribe(1, STUCK).await;
    // Other lanes stay open, and other messages come for them now and then.
    let evicted = raw.closed();
    let feed = async {
        for session in 0_u32.. {
            let mut message = message(SOURCE, STUCK, vec![7; 12_000]);
            message.ids.session = if session == 0 { 0 } else { 1 };
            if session > 0 {
                message.payload = "x".into();
            }
            send(&source, &message).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = evicted => {}
        () = feed => {}
    }
    is_evicted(&node, &raw).await;
    drop(source);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn who_grants_no_lanes_is_evicted() {
    let node = Node::start("limits: { stalled_ms: 400 }").await;
    let bystanders = Bystanders::start(&node).await;
    let source = join(&node, &[SOURCE]).await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    let (raw, mut control) = Raw::greeted_with(&node, transport).await;
    control.subscribe(1, STUCK).await;
    send(&source, &message(SOURCE, STUCK, "x")).await;
    is_evicted(&node, &raw).await;
    drop(source);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_client_whose_windows_are_closed_is_evicted_when_its_queue_is_full() {
    const QUEUE: usize = 8 * 1024 * 1024;
    const PAYLOAD: usize = 64 * 1024;
    /// What a connection may hold beside its queue, and what the allocator keeps.
    const ALLOWANCE_KIB: u64 = 24 * 1024;
    let limits = format!(
        "limits: {{ message_bytes: 1048576, queue_bytes: {QUEUE}, slow_consumer_ms: 600000, \
         pause_ms: 0 }}"
    );
    let node = Node::start(&limits).await;
    let bystanders = Bystanders::start(&node).await;
    let source = join(&node, &[SOURCE]).await;
    let mut transport = TransportConfig::default();
    transport.receive_window(VarInt::from_u32(0));
    let raw = Raw::connect_with(&node, transport).await;
    // Not even the hello of the node has room; what it is asked for is done all the same.
    let mut control = raw.control().await;
    control.say(&crate::support::native::hello(&crate::support::native::HELLO.encode())).await;
    control.say(&crate::support::native::subscribe(1, STUCK)).await;
    node.until("it is subscribed", |m| m.sum("slim_subscriptions") == BYSTANDERS + 2).await;
    let base = node.resident();
    let mut most = base;
    while raw.connection.close_reason().is_none() {
        send(&source, &message(SOURCE, STUCK, vec![7; PAYLOAD])).await;
        most = most.max(node.resident());
        tokio::task::yield_now().await;
    }
    assert!(most - base < (QUEUE as u64 / 1024) + ALLOWANCE_KIB, "{} KiB", most - base);
    is_evicted(&node, &raw).await;
    assert!(node.metrics().await.dropped("overrun") >= 1);
    drop(source);
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn requests_of_a_client_that_does_not_read_answers_are_left_unread() {
    const MOST_KIB: u64 = 16 * 1024;
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(8_000));
    let (raw, control) = Raw::greeted_with(&node, transport).await;
    let (mut requests, mut answers) = (control.send, control.receive);
    let base = node.resident();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        let to = name("org/ns/flood/1");
        let mut number = 0;
        // A stop at any byte would leave a part of a request.
        while count.load(Ordering::Relaxed) & STOP == 0 {
            let kind = if number % 2 == 0 { FrameKind::Subscribe } else { FrameKind::Unsubscribe };
            let frame = request(kind, number, to, b"org/ns/flood");
            requests.write_all(&frame).await.expect("the node has not ended the link");
            number += 1;
            count.fetch_add(1, Ordering::Relaxed);
        }
        requests
    });
    // The node reads no more when as many are sent before and after others got many answers.
    let other = join(&node, &["org/ns/other/1"]).await;
    eventually("the flood stands still", async || {
        let before = sent.load(Ordering::Relaxed);
        for _ in 0..50 {
            send(&other, &message("org/ns/other/1", "org/ns/other/2", "x")).await;
            in_time("an answer", other.subscribe(&crate::support::native::text("org/ns/room")))
                .await
                .expect("done");
        }
        (before > 0 && sent.load(Ordering::Relaxed) == before).then_some(())
    })
    .await;
    let grown = node.resident().saturating_sub(base);
    assert!(grown < MOST_KIB, "{grown} KiB");
    assert!(raw.connection.close_reason().is_none());
    // Once it reads, it gets every answer, in the order of its requests.
    sent.fetch_or(STOP, Ordering::Relaxed);
    let mut answered = 0;
    while !flood.is_finished() || answered < sent.load(Ordering::Relaxed) & !STOP {
        let (head, _) = crate::support::native::read_frame(&mut answers).await;
        assert_eq!((head.length(), head.is_error()), (HEADER_BYTES, false));
        assert_eq!(u64::from(head.ids().message), answered);
        answered += 1;
    }
    let _requests = flood.await.expect("all was sent");
    drop((raw, other));
    bystanders.assert_unharmed(&node).await;
}

/// Set in the count of requests to end them.
const STOP: u64 = 1 << 63;

#[tokio::test]
async fn a_receiver_that_reads_late_gets_all_that_waited() {
    const COUNT: u32 = 400;
    let node = Node::start("limits: { slow_consumer_ms: 600000 }").await;
    let late = join(&node, &["org/ns/late/1"]).await;
    let source = join(&node, &[SOURCE]).await;
    for number in 0..COUNT {
        let payload = [&number.to_le_bytes()[..], &[7; 16_000]].concat();
        send(&source, &message(SOURCE, "org/ns/late/1", payload)).await;
    }
    for number in 0..COUNT {
        let payload = receive(&late).await.payload;
        assert_eq!((&payload[..4], payload.len()), (&number.to_le_bytes()[..], 16_004));
    }
    node.balanced().await;
}
