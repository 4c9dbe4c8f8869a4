//! Who gets which message, among native clients and those of release 0.6.

mod support;

use std::collections::BTreeMap;

use slim_compat_grpc::proto::d6::message::Type;
use slim_compat_grpc::proto::d6::{self, SessionMessageType};
use slim_quic::client::link::{Link, Message};
use slim_wire::limits::{GRPC_MESSAGE_BYTES, HEADER_BYTES};
use slim_wire::{Class, SessionIds};

use support::client::Client;
use support::message::{publish_of, publish_of_length};
use support::metrics::Metrics;
use support::native::{join, message, receive, send};
use support::node::Node;
use support::seed::Seeded;
use support::{eventually, in_time};

const MATCHED: &str = "slim_messages_matched_total";

/// The story on one core, and on two, where its clients are spread as the kernel likes.
const CORES: [&str; 2] = ["runtime: { n_cores: 1 }", "runtime: { n_cores: 2 }"];

/// A client of either kind.
enum Either {
    Native(String, Link),
    Published(Box<Client>),
}

impl Either {
    async fn native(node: &Node, name: &str) -> Self {
        Self::Native(name.to_owned(), join(node, &[name]).await)
    }

    async fn published(node: &Node, name: &str) -> Self {
        Self::Published(Box::new(Client::join(node, name).await))
    }

    /// One of each.
    async fn both(node: &Node, name: &str) -> [Self; 2] {
        [
            Self::native(node, &format!("{name}/1")).await,
            Self::published(node, &format!("{name}/2")).await,
        ]
    }

    fn name(&self) -> &str {
        match self {
            Self::Native(name, _) => name,
            Self::Published(client) => &client.name,
        }
    }

    async fn subscribe(&self, node: &Node, name: &str) {
        match self {
            Self::Native(_, link) => {
                in_time("an answer", link.subscribe(&support::native::text(name)))
                    .await
                    .expect("done");
            }
            Self::Published(client) => {
                client.subscribe(name).await;
                client.settle(node).await;
            }
        }
    }

    async fn publish(&self, to: &str, payload: Vec<u8>) {
        match self {
            Self::Native(name, link) => send(link, &message(name, to, payload)).await,
            Self::Published(client) => client.publish(to, payload).await,
        }
    }

    async fn broadcast(&self, to: &str, payload: Vec<u8>) {
        match self {
            Self::Native(name, link) => send(link, &message(name, to, payload).to_all()).await,
            Self::Published(client) => client.broadcast(to, payload).await,
        }
    }

    async fn payload(&mut self) -> Vec<u8> {
        match self {
            Self::Native(_, link) => receive(link).await.payload.to_vec(),
            Self::Published(client) => client.payload().await.to_vec(),
        }
    }
}

fn nothing_lost(metrics: &Metrics) {
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
    assert_eq!(metrics.sum("slim_incidents_total"), 0);
}

#[tokio::test]
async fn a_message_to_an_exact_id_reaches_that_instance_whatever_either_speaks() {
    for cores in CORES {
        let node = Node::start(cores).await;
        let senders = Either::both(&node, "org/ns/sender").await;
        let mut targets = Either::both(&node, "org/ns/app").await;
        for round in 0..10 {
            for sender in &senders {
                for target in &targets {
                    let payload = format!("{} to {} {round}", sender.name(), target.name());
                    sender.publish(target.name(), payload.into()).await;
                }
            }
        }
        for target in &mut targets {
            let mut from = BTreeMap::<String, Vec<String>>::new();
            for _ in 0..20 {
                let payload = String::from_utf8(target.payload().await).expect("text");
                let (sender, rest) = payload.split_once(" to ").expect("two names");
                let (to, round) = rest.split_once(' ').expect("a round");
                assert_eq!(to, target.name());
                from.entry(sender.to_owned()).or_default().push(round.to_owned());
            }
            assert_eq!(from.len(), 2);
            for rounds in from.values() {
                assert!(rounds.iter().map(|round| round.parse::<u32>()).eq((0..10).map(Ok)));
            }
        }
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum(MATCHED), 40);
        nothing_lost(&metrics);
    }
}

#[tokio::test]
async fn anycast_goes_to_owners_of_the_name_of_both_kinds_and_not_to_guests() {
    const SENT: usize = 40;
    for cores in CORES {
        let node = Node::start(cores).await;
        let mut guests = Either::both(&node, "org/ns/guest").await;
        for guest in &guests {
            guest.subscribe(&node, "org/ns/app").await;
        }
        let owners = Either::both(&node, "org/ns/app").await;
        let senders = Either::both(&node, "org/ns/sender").await;
        for round in 0..SENT / 2 {
            for sender in &senders {
                sender.publish("org/ns/app", format!("{} {round}", sender.name()).into()).await;
            }
        }
        node.until("all are matched", |m| m.sum(MATCHED) == SENT as u64).await;
        for client in owners.iter().chain(&guests) {
            senders[0].publish(client.name(), "last".into()).await;
        }
        let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        for (at, mut owner) in owners.into_iter().enumerate() {
            let arrived = arrived.clone();
            tokio::spawn(async move { while arrived.send((at, owner.payload().await)).is_ok() {} });
        }
        let (mut seen, mut shares) = (Vec::new(), [0; 2]);
        for _ in 0..SENT + 2 {
            let (at, payload) = in_time("a message", arrivals.recv()).await.expect("owners");
            if payload != b"last" {
                shares[at] += 1;
                seen.push(payload);
            }
        }
        assert!(!shares.contains(&0), "an owner got nothing: {shares:?}");
        for guest in &mut guests {
            assert_eq!(guest.payload().await, b"last");
        }
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_deliveries_written_total"), SENT as u64 + 4);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), SENT, "each once");
        nothing_lost(&metrics);
    }
}

#[tokio::test]
async fn a_fan_out_reaches_all_of_both_kinds_but_its_sender_once_each() {
    for cores in CORES {
        let node = Node::start(cores).await;
        let mut members = Vec::new();
        for id in 0..3 {
            members.push(Either::native(&node, &format!("org/ns/native/{id}")).await);
            members.push(Either::published(&node, &format!("org/ns/published/{id}")).await);
        }
        for member in &members {
            member.subscribe(&node, "org/ns/room").await;
        }
        let before = node.metrics().await.sum("slim_deliveries_total");
        for sender in 0..members.len() {
            let said = format!("from {}", members[sender].name()).into_bytes();
            members[sender].broadcast("org/ns/room", said.clone()).await;
            for (id, member) in members.iter_mut().enumerate() {
                if id != sender {
                    assert_eq!(member.payload().await, said);
                }
            }
        }
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_deliveries_total") - before, 6 * 5);
        nothing_lost(&metrics);
    }
}

#[tokio::test]
async fn payloads_of_every_size_arrive_as_they_were_whatever_either_end_speaks() {
    // With its names and its session part a payload of the last size just fits a frame.
    let most = GRPC_MESSAGE_BYTES - HEADER_BYTES - 400;
    let sizes =
        [0, 1, 103, 104, 1_100, 2_047, 2_048, 2_049, 16_384, 65_535, 65_536, 1_000_003, most];
    let mut random = Seeded::new("payload sizes");
    for cores in CORES {
        let node = Node::start(cores).await;
        let senders = Either::both(&node, "org/ns/sender").await;
        let mut targets = Either::both(&node, "org/ns/app").await;
        for size in sizes {
            let payload = random.bytes(size);
            for sender in &senders {
                for target in &mut targets {
                    sender.publish(target.name(), payload.clone()).await;
                    let arrived = target.payload().await;
                    let (from, to) = (sender.name(), target.name());
                    assert!(arrived == payload, "{size} bytes from {from} to {to}");
                }
            }
        }
        nothing_lost(&node.balanced().await);
    }
}

#[tokio::test]
async fn the_longest_frame_arrives_and_one_byte_more_is_not_sent() {
    let node = Node::start("").await;
    let target = join(&node, &["org/ns/app/1"]).await;
    let source = join(&node, &["org/ns/source/2"]).await;
    let empty = message("org/ns/source/2", "org/ns/app/1", "");
    let room = source.frame_bytes() - empty.frame_bytes();
    let longest = Message { payload: vec![7; room].into(), ..empty.clone() };
    assert_eq!(longest.frame_bytes(), GRPC_MESSAGE_BYTES);
    send(&source, &longest).await;
    assert_eq!(receive(&target).await, longest);
    let longer = Message { payload: vec![7; room + 1].into(), ..empty };
    source.publish(&longer).await.expect_err("it is too long");
    nothing_lost(&node.balanced().await);
}

#[tokio::test]
async fn a_message_that_is_too_large_in_the_other_encoding_is_dropped_there_and_counted() {
    let node = Node::start("").await;
    let native = join(&node, &["org/ns/room/1"]).await;
    let mut published = Client::join(&node, "org/ns/room/2").await;
    let sender = Client::join(&node, "org/ns/sender/3").await;
    // As long as a message of release 0.6 may be; as a frame it is longer.
    let mut longest = publish_of_length("org/ns/sender/3", "org/ns/room", GRPC_MESSAGE_BYTES - 1);
    support::message::header_of(&mut longest).fanout = 50;
    let payload = support::message::payload(&longest).clone();
    sender.send(longest).await;
    assert!(published.payload().await == payload);
    let metrics = node.until("it is dropped", |m| m.dropped("too_large") == 1).await;
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 1);
    // And the link goes on.
    sender.broadcast("org/ns/room", "short").await;
    assert_eq!(published.payload().await, "short");
    assert_eq!(receive(&native).await.payload, "short");
    node.balanced().await;
}

#[tokio::test]
async fn a_native_message_that_release_0_6_cannot_say_is_dropped_there_and_counted() {
    let node = Node::start("").await;
    let native = join(&node, &["org/ns/room/1"]).await;
    let mut published = Client::join(&node, "org/ns/room/2").await;
    let sender = join(&node, &["org/ns/sender/3"]).await;
    // Endpoints may agree on a session part of their own; a gateway cannot.
    let unreadable = Message {
        session: bytes::Bytes::from_static(b"no archive"),
        ..message("org/ns/sender/3", "org/ns/room", "private").to_all()
    };
    send(&sender, &unreadable).await;
    assert_eq!(receive(&native).await, unreadable);
    let metrics = node.until("it is dropped", |m| m.dropped("untranslatable") == 1).await;
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 1);
    send(&sender, &message("org/ns/sender/3", "org/ns/room", "public").to_all()).await;
    assert_eq!(published.payload().await, "public");
    assert_eq!(receive(&native).await.payload, "public");
    node.balanced().await;
}

/// Session, and number within it, of a message.
type Numbered = (u32, u32);

fn session_of(message: &d6::Message) -> u32 {
    match message.r#type.as_ref().expect("a type") {
        Type::Publish(publish) => publish.session.as_ref().expect("a session").session_id,
        other => panic!("expected a publish, got {other:?}"),
    }
}

/// The sessions' numbers count up, each by itself.
fn assert_ordered(arrived: &[Numbered], sessions: u32, count: u32) {
    for session in 0..sessions {
        let numbers = arrived.iter().filter(|(of, _)| *of == session).map(|(_, number)| *number);
        assert!(numbers.eq(0..count), "session {session}");
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload[..4].try_into().expect("four bytes"))
}

#[tokio::test]
async fn sessions_of_one_source_keep_their_order_each() {
    const SESSIONS: u32 = 12;
    const COUNT: u32 = 200;
    let mut random = Seeded::new("order of sessions");
    for cores in CORES {
        let node = Node::start(cores).await;
        let native = join(&node, &["org/ns/native/1"]).await;
        let mut published = Client::join(&node, "org/ns/published/2").await;
        let source = join(&node, &["org/ns/source/3"]).await;
        let old_source = Client::join(&node, "org/ns/source/4").await;
        let lengths: Vec<_> = (0..COUNT).map(|_| random.below(6_000)).collect();
        let payload =
            |number: u32| [&number.to_le_bytes()[..], &vec![7; lengths[number as usize]]].concat();
        let native_sends = async {
            for number in 0..COUNT {
                for session in 0..SESSIONS {
                    for to in ["org/ns/native/1", "org/ns/published/2"] {
                        let ids = SessionIds { session, message: number };
                        let message = message("org/ns/source/3", to, payload(number));
                        send(&source, &Message { ids, ..message }).await;
                    }
                }
            }
        };
        let published_sends = async {
            for number in 0..COUNT {
                let to = "org/ns/native/1";
                let mut message = support::message::publish("org/ns/source/4", to, payload(number));
                publish_of(&mut message).session.as_mut().expect("a session").session_id = 99;
                old_source.send(message).await;
            }
        };
        let native_gets = async {
            let (mut new, mut old) = (Vec::new(), Vec::new());
            while new.len() + old.len() < (SESSIONS * COUNT + COUNT) as usize {
                let message = receive(&native).await;
                let number = number(&message.payload);
                assert_eq!(message.payload.len(), 4 + lengths[number as usize]);
                match message.ids.session {
                    99 => old.push((0, number)),
                    session => new.push((session, number)),
                }
            }
            assert_ordered(&new, SESSIONS, COUNT);
            assert_ordered(&old, 1, COUNT);
        };
        let published_gets = async {
            let mut arrived = Vec::new();
            for _ in 0..SESSIONS * COUNT {
                let message = published.receive().await;
                arrived.push((session_of(&message), number(support::message::payload(&message))));
            }
            assert_ordered(&arrived, SESSIONS, COUNT);
        };
        tokio::join!(native_sends, published_sends, native_gets, published_gets);
        nothing_lost(&node.balanced().await);
    }
}

#[tokio::test]
async fn best_effort_that_fits_a_datagram_reaches_both_kinds() {
    for cores in CORES {
        let node = Node::start(cores).await;
        let native = join(&node, &["org/ns/native/1"]).await;
        let mut published = Client::join(&node, "org/ns/published/2").await;
        let source = join(&node, &["org/ns/source/3"]).await;
        let old_source = Client::join(&node, "org/ns/source/4").await;
        for size in [0, 100, 700] {
            let payload = vec![7; size];
            for to in ["org/ns/native/1", "org/ns/published/2"] {
                let message = message("org/ns/source/3", to, payload.clone());
                send(&source, &Message { class: Class::BestEffort, ..message }).await;
            }
            let arrived = receive(&native).await;
            assert_eq!((arrived.class, &arrived.payload[..]), (Class::BestEffort, &payload[..]));
            assert_eq!(published.payload().await, payload);
            // And from those who know no datagrams.
            let to = "org/ns/native/1";
            let mut message = support::message::publish("org/ns/source/4", to, payload.clone());
            let session = publish_of(&mut message).session.as_mut().expect("a session");
            session.session_message_type = SessionMessageType::P2pMsg.into();
            old_source.send(message).await;
            let arrived = receive(&native).await;
            assert_eq!((arrived.class, &arrived.payload[..]), (Class::BestEffort, &payload[..]));
        }
        nothing_lost(&node.balanced().await);
    }
}

#[tokio::test]
async fn a_subscription_is_acknowledged_when_every_core_knows_of_it() {
    let node = Node::start("runtime: { n_cores: 2 }").await;
    // Several, so that each core has some.
    let mut askers = Vec::new();
    for id in 0..4 {
        askers.push(join(&node, &[&format!("org/ns/asker/{id}")]).await);
    }
    for round in 1..=50 {
        let inbox = format!("org/ns/inbox/{round}");
        let owner = &askers[round % askers.len()];
        in_time("an answer", owner.subscribe(&support::native::text(&inbox))).await.expect("done");
        for (id, asker) in askers.iter().enumerate().filter(|(id, _)| *id != round % 4) {
            send(asker, &message(&format!("org/ns/asker/{id}"), &inbox, id.to_string())).await;
        }
        for _ in 1..askers.len() {
            receive(owner).await;
        }
        in_time("an answer", owner.unsubscribe(&support::native::text(&inbox)))
            .await
            .expect("done");
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_unmatched_total"), 0);
    nothing_lost(&metrics);
}

#[tokio::test]
async fn with_its_link_all_that_a_native_client_subscribed_to_is_gone() {
    let node = Node::start("runtime: { n_cores: 2 }").await;
    let sender = join(&node, &["org/ns/sender/9"]).await;
    let client = join(&node, &["org/ns/client/1"]).await;
    for room in 0..100 {
        let room = support::native::text(&format!("org/ns/room-{room}"));
        in_time("an answer", client.subscribe(&room)).await.expect("done");
    }
    assert_eq!(node.metrics().await.sum("slim_subscriptions"), 102);
    in_time("the end", client.close()).await.expect("closed");
    node.until("link and subscriptions are gone", |metrics| {
        metrics.sum("slim_links") == 1 && metrics.sum("slim_subscriptions") == 1
    })
    .await;
    let unmatched = "slim_messages_unmatched_total";
    eventually("the routes are gone", async || {
        let before = node.metrics().await;
        let seen = before.sum(MATCHED) + before.sum(unmatched);
        send(&sender, &message("org/ns/sender/9", "org/ns/room-7", "anyone?").to_all()).await;
        let after = node.until("it is routed", |m| m.sum(MATCHED) + m.sum(unmatched) > seen).await;
        (after.sum(unmatched) > before.sum(unmatched)).then_some(())
    })
    .await;
    assert_eq!(node.balanced().await.sum("slim_incidents_total"), 0);
}
