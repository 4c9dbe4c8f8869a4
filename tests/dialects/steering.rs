//! Header fields by which a client of an upstream node steers its routing.

use slim_wire::Kind;

use crate::made::Spec;
use crate::peer::{DIALECTS, Peer, publish, request};
use crate::support::node::Node;

/// More connections than any of these nodes has.
const CONNECTIONS: u64 = 8;

#[tokio::test]
async fn a_publish_cannot_be_steered_to_a_connection_that_it_is_not_for() {
    let node = Node::start("").await;
    for (at, dialect) in DIALECTS.into_iter().enumerate() {
        let [of_receiver, of_victim] =
            ["receiver", "victim"].map(|who| format!("org/ns/{who}-{at}/1"));
        let mut receiver = Peer::open(&node, dialect).await;
        receiver.join(&node, &of_receiver).await;
        let mut victim = Peer::open(&node, dialect).await;
        victim.join(&node, &of_victim).await;
        let mut forger = Peer::open(&node, dialect).await;
        for number in 0..CONNECTIONS {
            for (recv_from, forward_to) in
                [(Some(number), None), (None, Some(number)), (Some(number), Some(number))]
            {
                let plain = publish("org/ns/forger/9", &of_receiver, number.to_string());
                forger.send(&Spec { recv_from, forward_to, ..plain }).await;
                let received = receiver.receive().await;
                assert_eq!(received.payload, number.to_string(), "{dialect:?}");
                assert!(!received.decoded.steers, "{dialect:?}: {:?}", received.decoded);
            }
        }
        // Nothing went anywhere else.
        forger.send(&publish("org/ns/forger/9", &of_victim, "first")).await;
        assert_eq!(victim.payload().await, "first", "{dialect:?}");
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
}

#[tokio::test]
async fn a_subscription_cannot_be_made_or_ended_for_another_connection() {
    let node = Node::start("limits: { subscriptions_per_link: 100 }").await;
    for (at, dialect) in DIALECTS.into_iter().enumerate() {
        let [of_victim, of_forger, loot] =
            ["victim", "forger", "loot"].map(|what| format!("org/ns/{what}-{at}/1"));
        let mut victim = Peer::open(&node, dialect).await;
        victim.join(&node, &of_victim).await;
        let mut forger = Peer::open(&node, dialect).await;
        forger.join(&node, &of_forger).await;
        let before = node.metrics().await.sum("slim_subscriptions");
        for number in 0..CONNECTIONS {
            let forged = |kind, name: &str| Spec {
                recv_from: Some(number),
                forward_to: Some(number),
                ..request(kind, name, 0)
            };
            forger.send(&forged(Kind::Subscribe, &loot)).await;
            forger.send(&forged(Kind::Unsubscribe, &of_victim)).await;
        }
        forger.settle(&node).await;
        // The names that it wanted for others are its own, once.
        assert_eq!(node.metrics().await.sum("slim_subscriptions"), before + 1, "{dialect:?}");
        let mut sender = Peer::open(&node, dialect).await;
        sender.send(&publish("org/ns/sender/9", &loot, "to the forger itself")).await;
        assert_eq!(forger.payload().await, "to the forger itself", "{dialect:?}");
        sender.send(&publish("org/ns/sender/9", &of_victim, "still here")).await;
        assert_eq!(victim.payload().await, "still here", "{dialect:?}");
    }
    node.balanced().await;
}

#[tokio::test]
async fn what_a_node_does_not_know_stays_in_the_message() {
    let node = Node::start("").await;
    for (at, dialect) in DIALECTS.into_iter().enumerate() {
        let to = format!("org/ns/receiver-{at}/1");
        let mut receiver = Peer::open(&node, dialect).await;
        receiver.join(&node, &to).await;
        let mut sender = Peer::open(&node, dialect).await;
        let metadata = [("traceparent".to_owned(), "00-1-2-01".to_owned())].into();
        sender.send(&Spec { metadata, ..publish("org/ns/sender/9", &to, "data") }).await;
        let bytes = receiver.channel.receive().await.expect("a message");
        assert!(bytes.windows(9).any(|bytes| bytes == b"00-1-2-01"), "{dialect:?}");
    }
    node.balanced().await;
}
