//! Subscriptions that are acknowledged: releases from 1.3 on.

use slim_compat_grpc::Detected;
use slim_wire::Kind;

use crate::peer::{ACKNOWLEDGED, Ack, Peer, publish, request};
use crate::support::client::UNMATCHED;
use crate::support::node::Node;

fn success(number: u64) -> Ack {
    Ack { number, success: true, error: String::new() }
}

fn failure(number: u64, error: &str) -> Ack {
    Ack { number, success: false, error: error.to_owned() }
}

async fn asked(peer: &mut Peer, kind: Kind, name: &str, number: u64) -> Ack {
    peer.send(&request(kind, name, number)).await;
    peer.ack().await
}

#[tokio::test]
async fn a_subscription_works_once_it_is_acknowledged_and_a_repeated_one_is_again() {
    for dialect in ACKNOWLEDGED {
        let node = Node::start("").await;
        let mut client = Peer::open(&node, dialect).await;
        let mut sender = Peer::open(&node, dialect).await;
        for round in 1..=50 {
            let name = format!("org/ns/client/{round}");
            assert_eq!(asked(&mut client, Kind::Subscribe, &name, round).await, success(round));
            sender.send(&publish("org/ns/sender/9", &name, round.to_string())).await;
            assert_eq!(client.payload().await, round.to_string());
        }
        for _ in 0..3 {
            let again = asked(&mut client, Kind::Subscribe, "org/ns/client/7", 7).await;
            assert_eq!(again, success(7), "{dialect:?}");
        }
        assert_eq!(node.metrics().await.sum("slim_subscriptions"), 50);
        // One unsubscription takes back what was asked for under its number, however often.
        let ended = asked(&mut client, Kind::Unsubscribe, "org/ns/client/7", 7).await;
        assert_eq!(ended, success(7));
        assert_eq!(node.balanced().await.sum("slim_subscriptions"), 49);
    }
}

#[tokio::test]
async fn a_subscription_beyond_the_limit_fails_with_the_reason_and_the_stream_goes_on() {
    for dialect in ACKNOWLEDGED {
        let node = Node::start("limits: { subscriptions_per_link: 2 }").await;
        let mut client = Peer::open(&node, dialect).await;
        for number in 1..=2 {
            let name = format!("org/ns/client/{number}");
            assert!(asked(&mut client, Kind::Subscribe, &name, number).await.success);
        }
        let refused = asked(&mut client, Kind::Subscribe, "org/ns/client/3", 3).await;
        let reason = "subscriptions of one link: expected at most 2";
        assert_eq!(refused, failure(3, reason), "{dialect:?}");
        assert!(asked(&mut client, Kind::Unsubscribe, "org/ns/client/1", 1).await.success);
        assert!(asked(&mut client, Kind::Subscribe, "org/ns/client/3", 3).await.success);
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_subscriptions"), 2);
        assert_eq!(metrics.refused("subscription_limit"), 1);
    }
}

#[tokio::test]
async fn what_was_never_subscribed_to_cannot_be_given_up() {
    let node = Node::start("").await;
    for (dialect, name, told) in [
        (Detected::D7L, "org/ns/client/77", "id not found: 77"),
        (Detected::D20, "org/ns/client/77", "id not found: 00000000-0000-0000-0000-00000000004d"),
        (Detected::D7L, "org/ns/client", "id not found: 18446744073709551615"),
        (Detected::D20, "org/ns/client", "id not found: NULL_COMPONENT"),
    ] {
        let mut client = Peer::open(&node, dialect).await;
        let answer = asked(&mut client, Kind::Unsubscribe, name, 5).await;
        assert_eq!(answer, failure(5, told), "{dialect:?}");
        assert!(asked(&mut client, Kind::Subscribe, name, 6).await.success);
        assert!(asked(&mut client, Kind::Unsubscribe, name, 6).await.success);
        // A client whose acknowledgement was late asks again under the same number.
        assert!(asked(&mut client, Kind::Unsubscribe, name, 6).await.success);
        let again = asked(&mut client, Kind::Unsubscribe, name, 7).await;
        assert_eq!(again, failure(7, told), "{dialect:?}");
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_that_was_replayed_ends_under_its_number_from_before() {
    let node = Node::start("").await;
    for dialect in ACKNOWLEDGED {
        let mut client = Peer::open(&node, dialect).await;
        let mut sender = Peer::open(&node, dialect).await;
        let name = format!("org/ns/{dialect:?}/1").to_lowercase();
        client.send(&request(Kind::Subscribe, &name, 0)).await;
        client.settle(&node).await;
        sender.send(&publish("org/ns/sender/9", &name, "data")).await;
        // No acknowledgement came before it: none was asked for.
        assert_eq!(client.payload().await, "data");
        assert_eq!(asked(&mut client, Kind::Unsubscribe, &name, 99).await, success(99));
        let before = node.metrics().await.sum(UNMATCHED);
        sender.send(&publish("org/ns/sender/9", &name, "nobody there")).await;
        node.until("it is unmatched", |metrics| metrics.sum(UNMATCHED) > before).await;
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_name_is_kept_until_its_last_number_is_given_up() {
    let node = Node::start("").await;
    for dialect in ACKNOWLEDGED {
        let mut client = Peer::open(&node, dialect).await;
        let mut sender = Peer::open(&node, dialect).await;
        let name = format!("org/ns/{dialect:?}/1").to_lowercase();
        for number in [7, 8] {
            assert!(asked(&mut client, Kind::Subscribe, &name, number).await.success);
        }
        // The second is a repetition, as of a client whose acknowledgement was late.
        for _ in 0..2 {
            assert!(asked(&mut client, Kind::Unsubscribe, &name, 7).await.success);
            sender.send(&publish("org/ns/sender/9", &name, "still here")).await;
            assert_eq!(client.payload().await, "still here", "{dialect:?}");
        }
        assert!(asked(&mut client, Kind::Unsubscribe, &name, 8).await.success);
    }
    assert_eq!(node.balanced().await.sum("slim_subscriptions"), 0);
}

#[tokio::test]
async fn subscriptions_go_with_their_stream() {
    let node = Node::start("").await;
    for dialect in ACKNOWLEDGED {
        let mut client = Peer::open(&node, dialect).await;
        for number in 1..=20 {
            let name = format!("org/ns/client/{number}");
            assert!(asked(&mut client, Kind::Subscribe, &name, number).await.success);
        }
        assert_eq!(node.metrics().await.sum("slim_subscriptions"), 20);
        client.channel.close();
        node.until("the link is gone with all it had", |metrics| {
            metrics.sum("slim_links") == 0 && metrics.sum("slim_subscriptions") == 0
        })
        .await;
    }
    node.balanced().await;
}
