//! The same over native QUIC, and beside published clients.

use slim_quic::client::link::{Link, LinkError, Message};
use slim_wire::{Class, CloseCode, SessionIds};

use crate::support::client::Client;
use crate::support::message::publish;
use crate::support::metrics::Metrics;
use crate::support::native::{Control, Raw, join, message, receive, send};
use crate::support::node::Node;
use crate::support::raw::Connection;
use crate::support::{in_time, say};

const EVICTED: &str = "slim_slow_consumers_evicted_total";
const PAUSES: &str = "slim_source_pauses_total";
const STUCK: &str = "org/ns/stuck/99";
const ROOM: &str = "org/ns/room";
const PUBLISHER: &str = "org/ns/publisher/1";
const PAYLOAD: usize = 64 * 1024;
const QUEUE: usize = 8 * 1024 * 1024;

/// A node that would rather queue than evict or pause.
async fn patient(pause_ms: u32) -> Node {
    Node::start(&format!(
        "limits: {{ message_bytes: 1048576, queue_bytes: {QUEUE}, slow_consumer_ms: 600000, \
         pause_ms: {pause_ms} }}"
    ))
    .await
}

fn state_of_stuck(metrics: &Metrics) -> Option<String> {
    let mut entries = metrics.named("slim_slow_consumer_queued_bytes");
    let entry = entries.find(|entry| entry.labels["name"].contains("(org/ns/stuck/63)"))?;
    Some(entry.labels["state"].clone())
}

/// A native client that reads nothing.
async fn stuck(node: &Node, names: &[&str]) -> (Raw, Control) {
    let (raw, mut control) = Raw::greeted(node).await;
    for (number, name) in (0..).zip(names) {
        control.subscribe(number, name).await;
    }
    (raw, control)
}

/// Members of a room, of both kinds.
struct Members {
    native: Vec<Link>,
    published: Vec<Client>,
}

impl Members {
    async fn join(node: &Node, native: u32, published: u32) -> Self {
        let mut members = Self { native: Vec::new(), published: Vec::new() };
        for id in 0..native {
            members.native.push(join(node, &[&format!("org/ns/native/{id}"), ROOM]).await);
        }
        for id in 0..published {
            let member = Client::join(node, &format!("org/ns/published/{id}")).await;
            member.subscribe(ROOM).await;
            member.settle(node).await;
            members.published.push(member);
        }
        members
    }

    /// Each of them gets a message of this length that begins with these bytes.
    async fn all_get(&mut self, start: &[u8], length: usize) {
        for member in &self.native {
            let payload = receive(member).await.payload;
            assert_eq!((&payload[..start.len()], payload.len()), (start, length));
        }
        for member in &mut self.published {
            let payload = member.payload().await;
            assert_eq!((&payload[..start.len()], payload.len()), (start, length));
        }
    }
}

fn numbered(number: u32) -> Vec<u8> {
    [&number.to_le_bytes()[..], &[7; PAYLOAD - 4]].concat()
}

/// Publishes to the room until the stuck client is cut off; each member gets each message.
async fn fan_out(node: &Node, native: u32, published: u32) {
    /// Windows and send buffers of a connection beside its queue, and what the allocator keeps.
    const ALLOWANCE_KIB: u64 = 32 * 1024;
    const WINDOW: u32 = 8;
    let mut members = Members::join(node, native, published).await;
    let (raw, _control) = stuck(node, &[STUCK, ROOM]).await;
    let publisher = join(node, &[PUBLISHER]).await;
    let base = node.resident();
    let (mut number, mut most) = (0, base);
    while raw.connection.close_reason().is_none() {
        for number in number..number + WINDOW {
            send(&publisher, &message(PUBLISHER, ROOM, numbered(number)).to_all()).await;
        }
        for number in number..number + WINDOW {
            members.all_get(&number.to_le_bytes(), PAYLOAD).await;
        }
        number += WINDOW;
        most = most.max(node.resident());
        assert!(number < 4_000, "it is never cut off");
    }
    assert_eq!(raw.closed().await.0, CloseCode::TooSlow);
    let links = u64::from(native + published) + 1;
    let metrics = node.until("the stuck link is gone", |m| m.sum("slim_links") == links).await;
    assert_eq!(metrics.sum(EVICTED), 1);
    assert_eq!(state_of_stuck(&metrics).expect("named in the metrics"), "evicted");
    assert!(metrics.dropped("overrun") >= 1);
    assert!(metrics.dropped("link_closed") >= 1);
    let line = node.program.stdout.find("slow consumer evicted").expect("a log line");
    assert!(line.contains("(org/ns/stuck/63)"), "{line}");
    assert_eq!(node.program.stdout.count("slow consumer evicted"), 1);
    let growth = most - base;
    say(&format!("{native} native and {published} published members: growth {growth} KiB"));
    assert!(growth < QUEUE as u64 / 1024 + ALLOWANCE_KIB, "{growth} KiB");

    send(&publisher, &message(PUBLISHER, ROOM, "last").to_all()).await;
    members.all_get(b"last", 4).await;
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum(PAUSES), 0);
}

#[tokio::test]
async fn only_the_native_one_that_never_reads_is_evicted_from_a_fan_out() {
    fan_out(&patient(500).await, 8, 0).await;
}

#[tokio::test]
async fn a_stuck_native_client_disturbs_no_published_member() {
    fan_out(&patient(500).await, 4, 4).await;
}

#[tokio::test]
async fn a_stuck_published_client_disturbs_no_native_member() {
    const ROUNDS: u32 = 300;
    let node = patient(500).await;
    let mut members = Members::join(&node, 4, 2).await;
    let mut connection = Connection::open(node.address).await;
    let mut stuck = connection.channel().await;
    stuck.join(&node, STUCK).await;
    stuck.join(&node, ROOM).await;
    let publisher = join(&node, &[PUBLISHER]).await;
    for number in 0..ROUNDS {
        send(&publisher, &message(PUBLISHER, ROOM, numbered(number)).to_all()).await;
        members.all_get(&number.to_le_bytes(), PAYLOAD).await;
    }
    assert_eq!(stuck.reset().await, h2::Reason::ENHANCE_YOUR_CALM);
    let metrics = node.until("the stuck link is gone", |m| m.sum("slim_links") == 7).await;
    assert_eq!(metrics.sum(EVICTED), 1);
    assert_eq!(state_of_stuck(&metrics).expect("named in the metrics"), "evicted");
    node.balanced().await;
}

#[tokio::test]
async fn who_stays_behind_too_long_is_evicted_before_its_queue_is_full() {
    let node = Node::start("limits: { slow_consumer_ms: 300 }").await;
    let mut members = Members::join(&node, 1, 0).await;
    let (raw, _control) = stuck(&node, &[STUCK, ROOM]).await;
    let publisher = join(&node, &[PUBLISHER]).await;
    // Fourteen MiB: above the soft mark of eight beside what QUIC takes, below sixteen.
    for number in 0..220 {
        send(&publisher, &message(PUBLISHER, ROOM, numbered(number)).to_all()).await;
        members.all_get(&number.to_le_bytes(), PAYLOAD).await;
    }
    assert_eq!(raw.closed().await.0, CloseCode::TooSlow);
    let metrics = node.until("the stuck link is gone", |m| m.sum("slim_links") == 2).await;
    assert_eq!(metrics.sum(EVICTED), 1);
    assert_eq!(metrics.dropped("overrun"), 0);
    assert_eq!(state_of_stuck(&metrics).expect("named in the metrics"), "evicted");
    assert!(node.program.stdout.find("slow consumer is behind").is_some());
    node.balanced().await;
}

#[tokio::test]
async fn a_source_waits_for_its_only_target_and_nothing_is_lost() {
    const SENT: u32 = 300;
    let node = patient(10_000).await;
    let slow = join(&node, &[STUCK]).await;
    let source = join(&node, &[PUBLISHER]).await;
    let other = join(&node, &["org/ns/other/3"]).await;
    let target = join(&node, &["org/ns/target/4"]).await;
    let sending = tokio::spawn(async move {
        for number in 0..SENT {
            send(&source, &message(PUBLISHER, STUCK, numbered(number))).await;
        }
        source
    });
    node.until("the source is paused", |metrics| metrics.sum(PAUSES) > 0).await;
    assert!(!sending.is_finished());
    // Other sources and targets do not notice.
    for round in 0..200_u32 {
        let round = round.to_string();
        send(&other, &message("org/ns/other/3", "org/ns/target/4", round.clone())).await;
        assert_eq!(receive(&target).await.payload, round);
    }
    for number in 0..SENT {
        assert_eq!(receive(&slow).await.payload[..4], number.to_le_bytes());
    }
    let source = sending.await.expect("all is sent");
    in_time("the end", source.close()).await.expect("all was handed over");
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum(EVICTED), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}

#[tokio::test]
async fn a_paused_lane_does_not_hold_up_the_others_of_its_link() {
    let node = patient(10_000).await;
    let _stuck = stuck(&node, &[STUCK]).await;
    let source = join(&node, &[PUBLISHER]).await;
    let target = join(&node, &["org/ns/target/4"]).await;
    let in_session = |session, to: &str, payload: Vec<u8>| Message {
        ids: SessionIds { session, message: 0 },
        ..message(PUBLISHER, to, payload)
    };
    let lane = |session| slim_wire::lane(session, &crate::support::native::name(PUBLISHER));
    let other = (1..100).find(|session| lane(*session) != lane(0)).expect("another lane");
    let paused = source.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..400 {
            let stuck = in_session(0, STUCK, vec![7; PAYLOAD]);
            if paused.publish(&stuck).await.is_err() {
                return;
            }
        }
    });
    node.until("the lane is paused", |metrics| metrics.sum(PAUSES) > 0).await;
    for round in 0..100 {
        send(&source, &in_session(other, "org/ns/target/4", vec![round; PAYLOAD])).await;
        assert_eq!(receive(&target).await.payload[0], round);
    }
    assert!(!sending.is_finished());
    assert_eq!(node.metrics().await.sum(EVICTED), 0);
    sending.abort();
}

#[tokio::test]
async fn best_effort_that_does_not_fit_is_dropped_and_nobody_evicted() {
    const SENT: u64 = 300;
    let node = patient(0).await;
    let stuck = join(&node, &[STUCK]).await;
    let publisher = join(&node, &[PUBLISHER]).await;
    for _ in 0..SENT {
        let best_effort = message(PUBLISHER, STUCK, vec![7; PAYLOAD]);
        send(&publisher, &Message { class: Class::BestEffort, ..best_effort }).await;
    }
    let metrics = node
        .until("all are matched", |metrics| metrics.sum("slim_messages_matched_total") == SENT)
        .await;
    let lost = metrics.dropped("queue_full");
    assert!(lost > 0);
    assert_eq!(metrics.sum(EVICTED), 0);
    for _ in 0..SENT - lost {
        assert_eq!(receive(&stuck).await.payload.len(), PAYLOAD);
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), lost);
    assert_eq!(metrics.sum("slim_links"), 2);
}

#[tokio::test]
async fn a_native_source_waits_for_a_published_target_and_the_other_way_round() {
    const SENT: u32 = 300;
    let node = patient(10_000).await;
    let mut published = Client::join(&node, "org/ns/published/5").await;
    let native = join(&node, &["org/ns/native/6"]).await;
    let sender = native.clone();
    let to_published = tokio::spawn(async move {
        for number in 0..SENT {
            send(&sender, &message("org/ns/native/6", "org/ns/published/5", numbered(number)))
                .await;
        }
    });
    node.until("the native source is paused", |metrics| metrics.sum(PAUSES) > 0).await;
    for number in 0..SENT {
        assert_eq!(published.payload().await[..4], number.to_le_bytes());
    }
    to_published.await.expect("all is sent");
    let before = node.metrics().await.sum(PAUSES);
    let to_native = tokio::spawn(async move {
        for number in 0..SENT {
            let message = publish("org/ns/published/5", "org/ns/native/6", numbered(number));
            published.send(message).await;
        }
        published
    });
    node.until("the published source is paused", |metrics| metrics.sum(PAUSES) > before).await;
    for number in 0..SENT {
        assert_eq!(receive(&native).await.payload[..4], number.to_le_bytes());
    }
    to_native.await.expect("all is sent");
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum(EVICTED), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}

#[tokio::test]
async fn a_link_of_the_library_that_is_not_received_from_learns_why_it_ended() {
    let node = Node::start("limits: { stalled_ms: 400 }").await;
    let stuck = join(&node, &[STUCK]).await;
    let source = join(&node, &[PUBLISHER]).await;
    // More than the windows of the library and its own queue take.
    let sending = async {
        loop {
            if source.publish(&message(PUBLISHER, STUCK, vec![7; 1_000_000])).await.is_err() {
                return;
            }
        }
    };
    let end = async { in_time("the end", stuck.closed()).await };
    let end = tokio::select! {
        () = sending => panic!("the source was cut off"),
        end = end => end,
    };
    assert!(matches!(end, LinkError::Closed { code: CloseCode::TooSlow, .. }), "{end}");
    node.balanced().await;
}
