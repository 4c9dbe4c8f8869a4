//! Ways around the policy, none of which leads anywhere.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;
use slim_wire::{Class, FrameKind, Id, Name};

use crate::modern::{self, Modern};
use crate::support::client::{Client, NOBODY, UNMATCHED};
use crate::support::message::{
    broadcast, framed, framed_bytes, header_of, name as name_d6, publish, subscribe,
};
use crate::support::native::{
    self, Raw, join, message, name, receive, request, send, text, try_link,
};
use crate::support::node::Node;
use crate::support::raw::Connection;
use crate::{enforcing, until_refused};

/// Each of the programs on this machine may use these names.
const RULES: [&str; 1] = ["principal: nobody, subscribe: [org/ns/me, org/ns/single/7]"];
const ME: &str = "org/ns/me/1";
const OTHER: &str = "org/ns/other/2";
const TOLD: &str = "policy: this name is not allowed to nobody";

/// A node where `nobody` may use its names, and a user with a password those of the others.
async fn with_an_other() -> (Node, SocketAddr) {
    let rules =
        [RULES[0], "principal: \"basic:other\", subscribe: [org/ns/other], publish: [org/ns/*]"];
    let auth = "auth: { basic: { username: other, password: p } }";
    let plain = crate::support::node::PLAIN;
    let servers = format!("{plain} }}, {{ {plain}, {auth}");
    let top = crate::policy("enforce", &rules);
    let node = Node::launch(&crate::support::node::config(&top, &servers)).await;
    let [_, guarded] = node.addresses()[..] else { panic!("expected two servers") };
    (node, guarded)
}

/// The other, over QUIC; the whole node knows its name.
async fn other(address: SocketAddr) -> slim_quic::client::link::Link {
    use slim_quic::client::link::{Credentials, Link, LinkOptions, Trust};
    let credentials =
        Credentials::Basic { username: "other".into(), password: slim_config::Secret::new("p") };
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, credentials, ..LinkOptions::default() };
    let link = Link::connect(&format!("quic://{address}"), &options).await.expect("let in");
    link.subscribe(&text(OTHER)).await.expect("its own name");
    link
}

#[tokio::test]
async fn what_was_refused_is_refused_again_in_every_form() {
    let node = enforcing(&RULES).await;
    let forms = [
        OTHER,
        OTHER,
        "org/ns/other",
        "org/ns/single",
        "org/ns/single/8",
        "org/ns/single/0",
        "org/NS/me/1",
    ];
    let published = Client::connect(&node, ME).await;
    for form in &forms {
        published.subscribe(form).await;
    }
    let count = forms.len() as u64;
    until_refused(&node, count).await;
    let (_raw, mut control) = Raw::greeted(&node).await;
    for (number, form) in (1..).zip(forms) {
        control.say(&native::subscribe(number, form)).await;
        assert_eq!(control.answer().await, (number, Some(TOLD.to_owned())), "{form}");
    }
    // A text that is not that of the hashes changes nothing.
    let disguised = request(FrameKind::Subscribe, 20, name(OTHER), b"org/ns/me");
    control.say(&disguised).await;
    assert_eq!(control.answer().await, (20, Some(TOLD.to_owned())));
    // An id that is too wide for release 0.6, whose low half is the allowed one.
    let wide = Name { id: Id::new((1 << 64) + 7), ..name("org/ns/single") };
    control.say(&request(FrameKind::Subscribe, 21, wide, b"org/ns/single")).await;
    assert!(matches!(control.answer().await, (21, Some(_))));
    let metrics = until_refused(&node, 2 * count + 1).await;
    assert_eq!((metrics.refused("invalid"), metrics.sum("slim_subscriptions")), (1, 0));
    control.subscribe(22, "org/ns/single/7").await;
    control.subscribe(23, "org/ns/me").await;
}

#[tokio::test]
async fn a_refused_name_gets_nothing_however_messages_are_addressed() {
    let (node, guarded) = with_an_other().await;
    let other = other(guarded).await;
    let mut me = Client::connect(&node, ME).await;
    for name in [OTHER, "org/ns/other", "org/ns/other/9"] {
        me.subscribe(name).await;
    }
    me.subscribe(ME).await;
    until_refused(&node, 3).await;
    me.settle(&node).await;
    let mut heard = 0;
    for destination in [OTHER, "org/ns/other", "org/ns/other/9"] {
        let one = message("org/ns/any/5", destination, "for the other");
        send(&other, &one).await;
        send(&other, &one.clone().to_all()).await;
        heard += 2;
    }
    send(&other, &message("org/ns/any/5", ME, "for me")).await;
    assert_eq!(me.payload().await, "for me");
    let metrics = node.balanced().await;
    let unmatched = metrics.sum(UNMATCHED) - 1;
    assert_eq!(metrics.sum("slim_deliveries_written_total"), heard - unmatched + 1);
}

#[tokio::test]
async fn steering_fields_neither_open_a_name_nor_a_link() {
    let (node, guarded) = with_an_other().await;
    let other = other(guarded).await;
    let mut me = Client::join(&node, ME).await;
    let mut refused = 0;
    for link in 0..4 {
        for steer in [true, false] {
            let mut steered = [subscribe(ME, OTHER), publish(OTHER, ME, "forged")];
            for message in &mut steered {
                let header = header_of(message);
                match steer {
                    true => header.recv_from = Some(link),
                    false => header.forward_to = Some(link),
                }
            }
            for message in steered {
                me.send(message).await;
                refused += 1;
            }
        }
        // To another link than that of its name it does not go either.
        let mut astray = publish(ME, NOBODY, "astray");
        header_of(&mut astray).forward_to = Some(link);
        me.send(astray).await;
    }
    until_refused(&node, refused).await;
    me.publish(OTHER, "for the other").await;
    assert_eq!(receive(&other).await.payload, "for the other");
    send(&other, &message("org/ns/any/5", ME, "for me")).await;
    assert_eq!(me.payload().await, "for me");
}

#[tokio::test]
async fn nobody_ends_the_subscription_of_another() {
    let (node, guarded) = with_an_other().await;
    let other = other(guarded).await;
    let mut me = Client::join(&node, ME).await;
    for name in [OTHER, "org/ns/other"] {
        me.unsubscribe(name).await;
    }
    me.settle(&node).await;
    let (_raw, mut control) = Raw::greeted(&node).await;
    for (number, name) in [(1, name(OTHER)), (2, name("org/ns/other")), (3, name(ME))] {
        control.say(&request(FrameKind::Unsubscribe, number, name, &[])).await;
        assert_eq!(control.answer().await.0, number);
    }
    let mut modern = Modern::connect(&node, "2.3.0").await;
    for number in [0, 1] {
        modern.say(modern::unsubscribe(ME, modern::name(OTHER), number)).await;
    }
    assert!(matches!(modern.hear().await, modern::Type::SubscriptionAck(ack) if !ack.success));
    me.publish(OTHER, "for the other").await;
    assert_eq!(receive(&other).await.payload, "for the other");
    send(&other, &message("org/ns/any/5", ME, "for me")).await;
    assert_eq!(me.payload().await, "for me");
    assert_eq!(node.metrics().await.sum("slim_subscriptions"), 2);
}

#[tokio::test]
async fn a_source_is_judged_before_it_is_put_into_another_protocol() {
    let node = enforcing(&RULES).await;
    let native = join(&node, &["org/ns/me/1"]).await;
    let mut published = Client::join(&node, "org/ns/me/2").await;
    send(&native, &message(OTHER, "org/ns/me/2", "forged")).await;
    published.send(publish(OTHER, "org/ns/me/1", "forged")).await;
    published.send(broadcast(OTHER, "org/ns/me", "forged")).await;
    until_refused(&node, 3).await;
    send(&native, &message(ME, "org/ns/me/2", "to release 0.6")).await;
    let mut received = published.receive().await;
    assert_eq!(header_of(&mut received).source, Some(name_d6(ME)));
    assert_eq!(crate::support::message::payload(&received), "to release 0.6");
    published.publish("org/ns/me/1", "to QUIC").await;
    let received = receive(&native).await;
    assert_eq!((received.source, &received.payload[..]), (name("org/ns/me/2"), &b"to QUIC"[..]));
}

#[tokio::test]
async fn every_frame_of_a_train_and_every_datagram_is_judged_by_its_own_source() {
    let node = enforcing(&RULES).await;
    let receiver = join(&node, &[ME]).await;
    let (raw, _control) = Raw::greeted(&node).await;
    let own = native::publish("org/ns/me/5", ME, b"own");
    let forged = native::publish(OTHER, ME, b"forged");
    let without_id = native::publish("org/ns/single", ME, b"forged");
    let mut lane = raw.lane().await;
    let train = [&own[..], &forged, &own, &forged, &forged, &without_id, &own].concat();
    lane.write_all(&train).await.expect("the link is open");
    for _ in 0..3 {
        assert_eq!(receive(&receiver).await.payload, "own");
    }
    until_refused(&node, 4).await;
    raw.connection.send_datagram(forged).expect("sent");
    node.until("a datagram is judged", |metrics| metrics.refused(crate::REFUSED) == 5).await;
    let link = try_link(&node).await.expect("the node serves links");
    let best_effort = message(OTHER, ME, "forged");
    send(&link, &slim_quic::client::link::Message { class: Class::BestEffort, ..best_effort })
        .await;
    until_refused(&node, 6).await;
    send(&link, &message("org/ns/me/6", ME, "last")).await;
    assert_eq!(receive(&receiver).await.payload, "last");
}

/// A field of protobuf that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

#[tokio::test]
async fn a_message_with_two_sources_is_no_message() {
    let node = enforcing(&RULES).await;
    let mut me = Client::join(&node, ME).await;
    let [source, destination] = [ME, OTHER].map(|name| name_d6(name).encode_to_vec());
    let me_name = name_d6(ME).encode_to_vec();
    let header = |sources: &[&[u8]]| {
        let sources = sources.iter().flat_map(|source| field(1, source));
        [sources.collect(), field(2, &me_name), vec![3 << 3, 1]].concat()
    };
    let whole = |headers: &[Vec<u8>]| -> Vec<u8> {
        let headers = headers.iter().flat_map(|header| field(1, header));
        let session = field(2, &[2 << 3, 2]);
        [headers.collect(), session, field(3, &field(2, b"forged"))].concat()
    };
    let [own, forged] = [&source, &destination].map(|name| header(&[name]));
    let wrong: [Vec<u8>; 5] = [
        field(3, &whole(&[header(&[&source, &destination])])),
        field(3, &whole(&[header(&[&destination, &source])])),
        field(3, &whole(&[own.clone(), forged.clone()])),
        [
            field(3, &whole(std::slice::from_ref(&own))),
            field(3, &whole(std::slice::from_ref(&forged))),
        ]
        .concat(),
        // A name in two parts, which readers put together.
        field(3, &whole(&[header(&[&[source.clone(), destination.clone()].concat()])])),
    ];
    for (refused, wrong) in (1..).zip(&wrong) {
        let mut connection = Connection::open(node.address).await;
        let mut channel = connection.channel().await;
        channel.send_bytes(framed(&subscribe(ME, "org/ns/me/4"))).await.expect("it is open");
        let bytes: Bytes = framed_bytes(wrong);
        channel.send_bytes(bytes).await.expect("it is open");
        let refusals = |metrics: &crate::support::metrics::Metrics| {
            metrics.refused("undecodable") + metrics.refused("invalid") == refused
        };
        node.until("it is refused", refusals).await;
    }
    // In one piece it is a good message.
    let mut connection = Connection::open(node.address).await;
    let mut channel = connection.channel().await;
    let good = framed_bytes(&field(3, &whole(&[own])));
    channel.send_bytes(good).await.expect("it is open");
    assert_eq!(me.payload().await, "forged");
}
