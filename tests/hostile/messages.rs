//! Streams whose messages are wrong.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::prefix;
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use tonic::Code;

use crate::support::message::{framed, framed_bytes, publish};
use crate::support::node::Node;
use crate::support::pair::HealthyPair;
use crate::support::raw::{Channel, Connection, status};

#[tokio::test]
async fn a_message_that_is_never_completed_ends_its_stream_in_time() {
    let node = Node::start("limits: { partial_message_ms: 300 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let message = framed(&publish("org/ns/a/1", "org/ns/b/2", vec![0; 10_000]));
    // Cut in its prefix, and cut in the message.
    for (count, begun) in [(1, 1), (2, 100)] {
        let mut channel = connection.channel().await;
        let mut rest = message.clone();
        let sent = channel.send_bytes(rest.split_to(begun)).await;
        sent.expect("the stream is open");
        // Bytes that come one after the other do not put the deadline off.
        while begun > 1 && channel.send_bytes(rest.split_to(1)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = status(&channel.trailers().await);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        let metrics = node.metrics().await;
        assert_eq!(metrics.incidents("message_stalled"), count);
    }
    connection.channel().await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

/// Sends a message of five MiB, of which the node takes as much as it likes.
async fn send_too_much(channel: &mut Channel) -> tonic::Status {
    let message = vec![0x5A; 5 * 1024 * 1024];
    let _ = channel.send_bytes(framed_bytes(&message)).await;
    status(&channel.trailers().await)
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_stream_and_no_other_of_its_connection() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut bystander = connection.channel().await;
    bystander.join(&node, "org/ns/bystander/1").await;
    let mut other = Connection::open(node.address).await;
    let mut friend = other.channel().await;
    friend.join(&node, "org/ns/friend/2").await;
    // More often than the window of the connection would allow if any of it stayed taken.
    for count in 1..=8 {
        let mut offender = connection.channel().await;
        let status = send_too_much(&mut offender).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "message length: expected at most 4194304 bytes, got 5242880");
        let metrics = node.metrics().await;
        assert_eq!(metrics.refused("too_large"), count);
        assert_eq!(metrics.incidents("message_refused"), count);

        let large = publish("org/ns/bystander/1", "org/ns/friend/2", vec![1; 1_500_000]);
        bystander.send(&large).await;
        let arrived = friend.receive().await.expect("a message");
        assert!(arrived == large.encode_to_vec(), "round {count}");
        let answer = publish("org/ns/friend/2", "org/ns/bystander/1", "thanks");
        friend.send(&answer).await;
        let arrived = bystander.receive().await.expect("a message");
        assert_eq!(arrived, answer.encode_to_vec());
    }
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_delivered_and_one_byte_more_is_not() {
    let node = Node::start("limits: { message_bytes: 100000 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut receiver = connection.channel().await;
    receiver.join(&node, "org/ns/receiver/1").await;
    let mut sender = connection.channel().await;
    for (len, allowed) in [(100_000, true), (100_001, false)] {
        let message =
            crate::support::message::publish_of_length("org/ns/sender/2", "org/ns/receiver/1", len);
        sender.send(&message).await;
        if allowed {
            let arrived = receiver.receive().await.expect("a message");
            assert_eq!(arrived.len(), len);
        } else {
            let status = status(&sender.trailers().await);
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("100000 bytes, got 100001"));
        }
    }
    const { assert!(100_001 < GRPC_MESSAGE_BYTES) };
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn framing_that_is_wrong_ends_the_stream_with_what_was_expected() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 1, 0]);
    let garbage = framed_bytes(b"GET / HTTP/1.1");
    for (count, bytes, code, told) in [
        (1, compressed, Code::Unimplemented, "compression flag 0, got 1"),
        (2, garbage, Code::InvalidArgument, "got"),
    ] {
        let mut channel = connection.channel().await;
        channel.send_bytes(bytes).await.expect("the stream is open");
        let status = status(&channel.trailers().await);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(told), "{status:?}");
        assert_eq!(node.metrics().await.refused("undecodable"), count);
    }
    let mut channel = connection.channel().await;
    channel.send_bytes(Bytes::copy_from_slice(&prefix(10))).await.expect("the stream is open");
    channel.close();
    let status = status(&channel.trailers().await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("10 more bytes"), "{status:?}");
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_flood_of_bad_messages_is_counted_in_full_and_logged_in_few_lines() {
    const FLOOD: u64 = 20_000;
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut offender = connection.channel().await;
    offender.join(&node, "org/ns/offender/1").await;
    // A publish without a header: readable, so that only the message is refused.
    let bad = framed_bytes(&[0x1A, 0]);
    let flood: Bytes = bad.repeat(FLOOD as usize).into();
    offender.send_bytes(flood).await.expect("the stream is open");
    let metrics =
        node.until("all are counted", |metrics| metrics.refused("invalid") == FLOOD).await;
    assert_eq!(metrics.incidents("message_refused"), FLOOD);
    let lines = node.program.stdout.count("message refused");
    assert!((1..=FLOOD as usize / 1_000).contains(&lines), "{lines} lines");
    // A message that is only refused does not end its stream.
    offender.join(&node, "org/ns/offender/2").await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}
