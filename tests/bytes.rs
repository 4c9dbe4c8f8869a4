//! What a node does to the bytes of messages and streams: nothing, but for what must not travel.

mod support;

use std::collections::HashMap;

use prost::Message as _;
use slim_compat_grpc::proto::d6::Message;
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tonic::Code;

use support::client::Client;
use support::message::{framed_bytes, header_of, publish, publish_of_length, subscribe};
use support::node::Node;
use support::raw::{Connection, status};

#[tokio::test]
async fn the_fields_that_steer_a_node_are_cleared_and_all_others_arrive() {
    let node = Node::start("").await;
    let mut receiver = Client::join(&node, "org/ns/receiver/1").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    let mut sent = publish("org/ns/sender/9", "org/ns/receiver/1", "steered");
    sent.metadata.insert("key".into(), "value".into());
    let mut expected = sent.clone();
    header_of(&mut expected).incoming_conn = Some(3);
    for (recv_from, forward_to) in
        [(Some(0), None), (None, Some(0)), (Some(1), Some(u64::MAX)), (Some(u64::MAX), Some(1))]
    {
        let header = header_of(&mut sent);
        header.incoming_conn = Some(3);
        header.recv_from = recv_from;
        header.forward_to = forward_to;
        sender.send(sent.clone()).await;
        assert_eq!(receiver.receive().await, expected);
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_cannot_be_made_in_the_name_of_another_link() {
    let node = Node::start("").await;
    let mut victim = Client::join(&node, "org/ns/victim/1").await;
    let mut attacker = Client::join(&node, "org/ns/attacker/2").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    for link in (0..64).chain([1 << 32, (1 << 32) + 1, u64::MAX]) {
        let mut steered = subscribe("org/ns/attacker/2", "org/ns/room");
        header_of(&mut steered).recv_from = Some(link);
        header_of(&mut steered).forward_to = Some(link);
        attacker.send(steered).await;
    }
    attacker.settle(&node).await;
    assert_eq!(node.metrics().await.sum("slim_subscriptions"), 4);
    sender.broadcast("org/ns/room", "to who asked for it").await;
    assert_eq!(attacker.payload().await, "to who asked for it");
    sender.publish("org/ns/victim/1", "nothing before this").await;
    assert_eq!(victim.payload().await, "nothing before this");
    node.balanced().await;
}

#[tokio::test]
async fn metadata_and_unknown_fields_survive_byte_for_byte() {
    let node = Node::start("").await;
    let mut connection = Connection::open(node.address).await;
    let mut receiver = connection.channel().await;
    receiver.join(&node, "org/ns/receiver/1").await;
    let mut other = Connection::open(node.address).await;
    let mut sender = other.channel().await;
    // From its first message on the stream is one of release 0.6.
    sender.join(&node, "org/ns/sender/9").await;
    for payload in [0, 1, 2_000, 2_048, 3_000, 16_384, 70_000, 1_000_000] {
        let mut message = publish("org/ns/sender/9", "org/ns/receiver/1", vec![b'x'; payload]);
        message.metadata = HashMap::from([
            (String::new(), String::new()),
            ("MLS_ENABLED".into(), "true".into()),
            ("ünïcödé".into(), "\u{0}\u{7f}\u{10ffff}".into()),
        ]);
        // Field 100 as a text, field 101 as a number, field 102 as 8 and field 103 as 4 bytes.
        const UNKNOWN: &[u8] = b"\xA2\x06\x03new\xA8\x06\x96\x01\xB1\x0612345678\xBD\x061234";
        let bytes = [UNKNOWN, &message.encode_to_vec(), UNKNOWN].concat();
        sender.send_bytes(framed_bytes(&bytes)).await.expect("the stream is open");
        assert_eq!(receiver.receive().await.expect("a message"), bytes);
    }
    node.balanced().await;
}

#[tokio::test]
async fn messages_of_every_size_arrive_up_to_exactly_four_mebibytes() {
    let node = Node::start("").await;
    let mut receiver = Client::join(&node, "org/ns/receiver/1").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    for len in [100, 2_047, 2_048, 2_049, 65_536, 65_541, GRPC_MESSAGE_BYTES] {
        let message = publish_of_length("org/ns/sender/9", "org/ns/receiver/1", len);
        sender.send(message.clone()).await;
        assert!(receiver.receive().await == message, "{len} bytes");
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_message_that_its_receiver_could_not_decode_ends_at_its_sender() {
    let node = Node::start("").await;
    let mut receiver = Client::join(&node, "org/ns/receiver/1").await;
    let honest = Client::join(&node, "org/ns/honest/8").await;
    let publish = publish("org/ns/sender/9", "org/ns/receiver/1", "poison");
    // Metadata whose key is not UTF-8.
    let poison = [&publish.encode_to_vec()[..], b"\x22\x05\x0A\x01\xFF\x12\x00"].concat();
    assert!(Message::decode(&poison[..]).is_err());
    for attempt in 1..=3 {
        let mut connection = Connection::open(node.address).await;
        let mut sender = connection.channel().await;
        sender.send_bytes(framed_bytes(&poison)).await.expect("the stream is open");
        let status = status(&sender.trailers().await);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("UTF-8"), "{status:?}");
        let metrics = node.metrics().await;
        assert_eq!(metrics.refused("undecodable"), attempt);
        assert_eq!(metrics.incidents("message_refused"), attempt);
    }
    honest.publish("org/ns/receiver/1", "good").await;
    assert_eq!(receiver.payload().await, "good");
    node.balanced().await;
}

#[tokio::test]
async fn response_headers_come_before_any_message() {
    let node = Node::start("").await;
    let mut connection = Connection::open(node.address).await;
    let (response, _body) =
        connection.request("/dataplane.proto.v1.DataPlaneService/OpenChannel").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(!response.headers().contains_key("grpc-status"));
    node.balanced().await;
}

#[tokio::test]
async fn requests_for_another_method_are_told_what_this_node_serves() {
    let node = Node::start("").await;
    let mut connection = Connection::open(node.address).await;
    for (path, parts) in [
        ("/grpc.health.v1.Health/Check", ["unknown method", "OpenChannel"]),
        ("/", ["unknown method", "OpenChannel"]),
    ] {
        let (response, _body) = connection.request(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let status = status(response.headers());
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        for part in parts {
            assert!(status.message().contains(part), "{status:?}");
        }
    }
    // The connection is as good as before.
    connection.channel().await;
    let metrics = node.balanced().await;
    assert_eq!(metrics.incidents("stream_refused"), 2);
}
