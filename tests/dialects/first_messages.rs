//! How a stream begins, and how it does not.

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{D6, D7, D20, Detected, Dialect, KeyShare, P, subscription_ack};
use slim_wire::Kind;
use tonic::Code;

use crate::made::{Made, Spec, SpecName};
use crate::peer::{ACKNOWLEDGED, Peer, d7_link, publish, request};
use crate::support::message::framed_bytes;
use crate::support::node::Node;
use crate::support::pair::HealthyPair;
use crate::support::raw::{Connection, status};

/// The status with which a stream ends that begins so.
async fn ends_with(node: &Node, path: &str, first: &[u8]) -> tonic::Status {
    let mut connection = Connection::open(node.address).await;
    let mut channel = connection.channel_at(path).await;
    channel.send_bytes(framed_bytes(first)).await.expect("the stream is open");
    status(&channel.trailers().await)
}

fn link(negotiation: d20::LinkNegotiation) -> Vec<u8> {
    let link = d20::Link { link_type: Some(d20::link::LinkType::LinkNegotiation(negotiation)) };
    let r#type = Some(d20::message::Type::Link(link));
    d20::Message { r#type, ..Default::default() }.encode_to_vec()
}

#[tokio::test]
async fn a_stream_that_begins_with_garbage_ends_with_what_was_expected() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let garbage = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let valid = d20::LinkNegotiation {
        link_id: "a-link".into(),
        slim_version: "3.4.6".into(),
        node_id: "client".into(),
        ..Default::default()
    };
    let short_key = d20::LinkNegotiation {
        link_ecdh_public_key: Bytes::from_static(&[7; 31]),
        ..valid.clone()
    };
    let short_kem =
        d20::LinkNegotiation { link_kem_payload: Some(Bytes::from_static(&[7])), ..valid.clone() };
    let answer = d20::LinkNegotiation { is_reply: true, ..valid.clone() };
    let unnamed = d20::LinkNegotiation { link_id: String::new(), ..valid };
    for (what, path, first, told) in [
        ("text", D6::PATH, garbage.clone(), "got"),
        ("text", P::PATH, garbage, "got"),
        ("another schema", D6::PATH, D20::bytes(&Spec::of(Kind::Subscribe)), "got"),
        ("an acknowledgement", D6::PATH, subscription_ack(1, Ok(())).to_vec(), "subscribe"),
        ("a short key", D6::PATH, link(short_key), "32 bytes, got 31"),
        ("a short key", D6::PATH, link(short_kem), "1184 bytes, got 1"),
        ("an answer", D6::PATH, link(answer), "is_reply"),
        ("a link without an id", D6::PATH, link(unnamed), "link_id"),
    ] {
        let status = ends_with(&node, path, &first).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert!(status.message().contains(told), "{what}: {status:?}");
    }
    pair.assert_unharmed().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_of_release_0_3_is_told_that_it_is_too_old() {
    let node = Node::start("").await;
    let source = SpecName { id: None, ..SpecName::of("app") };
    for kind in [Kind::Subscribe, Kind::Publish] {
        let first = P::bytes(&Spec { source: source.clone(), ..Spec::of(kind) });
        let status = ends_with(&node, P::PATH, &first).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("release 0.3 are too old"), "{status:?}");
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.refused("undecodable"), 2);
    assert_eq!(metrics.incidents("stream_refused"), 2);
}

#[tokio::test]
async fn a_first_message_that_only_lacks_a_part_is_dropped_and_the_next_one_decides() {
    let node = Node::start("").await;
    for dialect in [Detected::D6, Detected::D7] {
        let mut client = Peer::open(&node, dialect).await;
        client.send_bytes(&[]).await;
        client.send_bytes(&[0x1A, 0]).await;
        let name = format!("org/ns/{dialect:?}/1").to_lowercase();
        client.join(&node, &name).await;
        let mut sender = Peer::open(&node, dialect).await;
        sender.send(&publish("org/ns/sender/9", &name, "hello")).await;
        assert_eq!(client.payload().await, "hello", "{dialect:?}");
    }
    assert_eq!(node.balanced().await.refused("invalid"), 4);
}

#[tokio::test]
async fn a_second_introduction_is_ignored() {
    let node = Node::start("").await;
    for dialect in ACKNOWLEDGED {
        let mut client = Peer::open(&node, dialect).await;
        let again = match dialect {
            Detected::D20 => KeyShare::generate().expect("a key").request("another", "client"),
            _ => d7_link("0e5c4a3c-6f8f-4f53-8f0e-3c1f3b1d2a22", false).into(),
        };
        client.send_bytes(&again).await;
        // What is answered next is the subscription, which is signed as before.
        client.send(&request(Kind::Subscribe, "org/ns/client/1", 5)).await;
        let ack = client.ack().await;
        assert!(ack.success && ack.number == 5, "{dialect:?}: {ack:?}");
    }
    assert_eq!(node.balanced().await.sum("slim_messages_refused_total"), 0);
}

#[tokio::test]
async fn a_client_of_0_7_may_introduce_its_link_late_and_an_answer_of_it_is_ignored() {
    const LINK: &str = "0e5c4a3c-6f8f-4f53-8f0e-3c1f3b1d2a33";
    let node = Node::start("").await;
    let mut client = Peer::open(&node, Detected::D7).await;
    client.join(&node, "org/ns/client/1").await;
    client.send_bytes(&d7_link(LINK, true)).await;
    client.send_bytes(&d7_link(LINK, false)).await;
    let answer = client.channel.receive().await.expect("an answer");
    assert_eq!(answer, d7_link(LINK, true));
    client.send_bytes(&D7::bytes(&request(Kind::Subscribe, "org/ns/client/2", 4))).await;
    assert!(client.ack().await.success);
    node.balanced().await;
}

#[tokio::test]
async fn a_client_of_2_0_without_a_key_is_served_without_codes() {
    let node = Node::start("").await;
    let mut bare = Peer::open(&node, Detected::D6).await;
    bare.dialect = Detected::D20;
    let negotiation = d20::LinkNegotiation {
        link_id: "a-link".into(),
        slim_version: "2.0.0".into(),
        connection_type: 2,
        ..Default::default()
    };
    bare.send_bytes(&link(negotiation)).await;
    assert!(bare.channel.receive().await.is_some());
    bare.join(&node, "org/ns/bare/1").await;
    let mut sender = Peer::open(&node, Detected::D20).await;
    sender.join(&node, "org/ns/sender/9").await;
    sender.send(&publish("org/ns/sender/9", "org/ns/bare/1", "there")).await;
    assert_eq!(bare.payload().await, "there");
    bare.send(&publish("org/ns/bare/1", "org/ns/sender/9", "and back")).await;
    assert_eq!(sender.payload().await, "and back");
    node.balanced().await;
}
