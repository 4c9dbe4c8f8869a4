//! Links of releases from 2.0, whose headers are authenticated and whose hops are counted.

use slim_compat_grpc::Detected;
use slim_wire::Kind;

use crate::made::Spec;
use crate::peer::{Peer, publish, request};
use crate::support::node::Node;

async fn joined(node: &Node, name: &str) -> Peer {
    let mut peer = Peer::open(node, Detected::D20).await;
    peer.join(node, name).await;
    peer
}

#[tokio::test]
async fn messages_between_two_links_carry_the_code_of_the_receivers() {
    let node = Node::start("").await;
    let mut one = joined(&node, "org/ns/one/1").await;
    let mut two = joined(&node, "org/ns/two/2").await;
    for payload in [vec![], vec![1; 100], vec![2; 5_000], vec![3; 500_000]] {
        // Every message is checked against the code of its receiver's link on arrival.
        one.send(&publish("org/ns/one/1", "org/ns/two/2", payload.clone())).await;
        let received = two.receive().await;
        assert_eq!((received.decoded.ttl, &received.payload[..]), (Some(7), &payload[..]));
        two.send(&publish("org/ns/two/2", "org/ns/one/1", payload.clone())).await;
        assert_eq!(one.payload().await, payload);
    }
    assert_eq!(node.balanced().await.sum("slim_messages_refused_total"), 0);
}

#[tokio::test]
async fn every_member_of_a_fan_out_gets_a_code_of_its_own() {
    let node = Node::start("").await;
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(joined(&node, &format!("org/ns/room/{id}")).await);
    }
    let mut sender = joined(&node, "org/ns/sender/9").await;
    for length in [10, 1_500, 2_100, 20_000, 300_000] {
        let message = publish("org/ns/sender/9", "org/ns/room", vec![7; length]);
        sender.send(&Spec { fanout: 256, ..message }).await;
        for member in &mut members {
            let received = member.receive().await;
            assert_eq!((received.payload.len(), received.decoded.fanout), (length, 256));
        }
    }
    node.balanced().await;
}

#[tokio::test]
async fn what_is_not_signed_with_the_key_of_its_link_is_dropped_and_counted() {
    let node = Node::start("").await;
    let mut receiver = joined(&node, "org/ns/receiver/1").await;
    let mut forger = joined(&node, "org/ns/forger/9").await;
    let plain = publish("org/ns/forger/9", "org/ns/receiver/1", "forged");
    let stolen = vec![7; 32];
    let mut dropped = 0;
    for code in [None, Some(vec![]), Some(vec![0; 32]), Some(stolen), Some(vec![0; 33])] {
        forger.send_unsigned(&Spec { code: code.clone(), ..plain.clone() }).await;
        let subscribe = request(Kind::Subscribe, "org/ns/receiver/1", 5);
        forger.send_unsigned(&Spec { code, ..subscribe }).await;
        dropped += 2;
    }
    forger.send(&publish("org/ns/forger/9", "org/ns/receiver/1", "honest")).await;
    assert_eq!(receiver.payload().await, "honest");
    let metrics = node.balanced().await;
    assert_eq!(metrics.refused("unauthentic"), dropped);
    assert_eq!(metrics.incidents("message_refused"), dropped);
    // No subscription was made, and none acknowledged.
    assert_eq!(metrics.sum("slim_subscriptions"), 2);
    receiver.send(&publish("org/ns/receiver/1", "org/ns/forger/9", "first")).await;
    assert_eq!(forger.payload().await, "first");
}

#[tokio::test]
async fn a_code_of_another_link_is_worth_nothing() {
    let node = Node::start("").await;
    let mut receiver = joined(&node, "org/ns/receiver/1").await;
    let mut owner = joined(&node, "org/ns/owner/2").await;
    let mut thief = joined(&node, "org/ns/thief/3").await;
    let message = publish("org/ns/owner/2", "org/ns/receiver/1", "owned");
    std::mem::swap(&mut owner.link, &mut thief.link);
    thief.send(&message).await;
    node.until("it is counted", |metrics| metrics.refused("unauthentic") == 1).await;
    std::mem::swap(&mut owner.link, &mut thief.link);
    owner.send(&message).await;
    assert_eq!(receiver.payload().await, "owned");
    node.balanced().await;
}

#[tokio::test]
async fn a_message_with_no_hop_left_goes_no_further() {
    let node = Node::start("").await;
    let mut receiver = joined(&node, "org/ns/receiver/1").await;
    let mut sender = joined(&node, "org/ns/sender/9").await;
    for ttl in [0, 1, 2, 1, 8, 256, u32::MAX] {
        let message = publish("org/ns/sender/9", "org/ns/receiver/1", ttl.to_string());
        sender.send(&Spec { ttl, ..message }).await;
    }
    for (sent, left) in [(2, 1), (8, 7), (256, 254), (u32::MAX, 254)] {
        let received = receiver.receive().await;
        assert_eq!(received.payload, sent.to_string());
        assert_eq!(received.decoded.ttl, Some(left));
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.refused("expired"), 3);
}

#[tokio::test]
async fn a_header_that_is_too_long_to_be_signed_is_dropped_and_the_stream_goes_on() {
    let node = Node::start("").await;
    let mut receiver = joined(&node, "org/ns/receiver/1").await;
    let mut sender = joined(&node, "org/ns/sender/9").await;
    for (length, payload) in [(100_000, "too long"), (60_000, "long"), (10, "usual")] {
        let message = publish("org/ns/sender/9", "org/ns/receiver/1", payload);
        sender.send(&Spec { identity: "i".repeat(length), ..message }).await;
    }
    assert_eq!(receiver.payload().await, "long");
    assert_eq!(receiver.payload().await, "usual");
    assert_eq!(node.balanced().await.refused("invalid"), 1);
}
