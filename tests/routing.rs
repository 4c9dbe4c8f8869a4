//! Who gets which message, seen by clients of release 0.6.

mod support;

use support::client::Client;
use support::eventually;
use support::message::{header_of, payload, publish, subscribe};
use support::node::Node;

const MATCHED: &str = "slim_messages_matched_total";
const UNMATCHED: &str = "slim_messages_unmatched_total";
const SUBSCRIPTIONS: &str = "slim_subscriptions";

#[tokio::test]
async fn a_message_to_an_exact_id_reaches_that_instance_and_no_other() {
    let node = Node::start("").await;
    let mut one = Client::join(&node, "org/ns/app/1").await;
    let mut two = Client::join(&node, "org/ns/app/2").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    for round in 0..10 {
        sender.publish("org/ns/app/2", format!("two {round}")).await;
        sender.publish("org/ns/app/1", format!("one {round}")).await;
    }
    for round in 0..10 {
        assert_eq!(one.payload().await, format!("one {round}"));
        assert_eq!(two.payload().await, format!("two {round}"));
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum(MATCHED), 20);
    assert_eq!(metrics.sum("slim_deliveries_written_total"), 20);
}

#[tokio::test]
async fn anycast_goes_to_owners_of_the_name_and_to_each_of_them() {
    let node = Node::start("").await;
    // As initiators of release 0.6 do: they listen on a peer's name without being the peer.
    let mut guest = Client::join(&node, "org/ns/guest/3").await;
    guest.subscribe("org/ns/app").await;
    guest.settle(&node).await;
    let mut one = Client::join(&node, "org/ns/app/1").await;
    let mut two = Client::join(&node, "org/ns/app/2").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    for round in 0..20 {
        sender.publish("org/ns/app", round.to_string()).await;
    }
    node.until("all are matched", |metrics| metrics.sum(MATCHED) == 20).await;
    for last in ["org/ns/app/1", "org/ns/app/2", "org/ns/guest/3"] {
        sender.publish(last, "last").await;
    }
    let mut rounds = Vec::new();
    for owner in [&mut one, &mut two] {
        let mut share = 0;
        loop {
            match &owner.payload().await[..] {
                b"last" => break,
                round => rounds.push(String::from_utf8(round.to_vec()).expect("digits")),
            }
            share += 1;
        }
        assert!(share > 0, "an owner got nothing");
    }
    rounds.sort_unstable_by_key(|round| round.parse::<u32>().expect("digits"));
    assert!(rounds.into_iter().eq((0..20).map(|n| n.to_string())));
    assert_eq!(guest.payload().await, "last");
    node.balanced().await;
}

#[tokio::test]
async fn anycast_goes_to_a_guest_when_the_name_has_no_owner_but_the_sender() {
    let node = Node::start("").await;
    let mut guest = Client::join(&node, "org/ns/guest/3").await;
    guest.subscribe("org/ns/app").await;
    guest.settle(&node).await;
    let owner = Client::join(&node, "org/ns/app/1").await;
    owner.publish("org/ns/app", "not to myself").await;
    assert_eq!(guest.payload().await, "not to myself");
    node.balanced().await;
}

#[tokio::test]
async fn a_fan_out_reaches_all_but_its_sender_once_each() {
    let node = Node::start("").await;
    let mut members = Vec::new();
    for id in 1..=4 {
        let member = Client::join(&node, &format!("org/ns/member/{id}")).await;
        // One copy, however many names of the link match.
        member.subscribe("org/ns/room").await;
        member.subscribe(&format!("org/ns/room/{id}")).await;
        member.settle(&node).await;
        members.push(member);
    }
    let before = node.metrics().await.sum("slim_deliveries_total");
    members[0].broadcast("org/ns/room", "hello").await;
    for member in &mut members[1..] {
        assert_eq!(member.payload().await, "hello");
    }
    for id in 1..=4 {
        let other = id % 4;
        members[other].publish(&format!("org/ns/member/{id}"), "last").await;
    }
    for member in &mut members {
        assert_eq!(member.payload().await, "last");
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_deliveries_total") - before, 3 + 4);
}

#[tokio::test]
async fn a_fanout_of_zero_is_for_all_too() {
    let node = Node::start("").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    let mut members = Vec::new();
    for id in 1..=2 {
        members.push(Client::join(&node, &format!("org/ns/room/{id}")).await);
    }
    let mut message = publish("org/ns/sender/9", "org/ns/room", "all");
    header_of(&mut message).fanout = 0;
    sender.send(message).await;
    for member in &mut members {
        assert_eq!(member.payload().await, "all");
    }
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_without_an_id_is_not_matched_by_one_with_an_id_unless_it_is_alone() {
    let node = Node::start("").await;
    let mut first = Client::join(&node, "org/ns/first/1").await;
    first.subscribe("org/ns/room").await;
    first.settle(&node).await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    sender.publish("org/ns/room/77", "to the only link").await;
    assert_eq!(first.payload().await, "to the only link");

    let mut second = Client::join(&node, "org/ns/second/2").await;
    second.subscribe("org/ns/room").await;
    second.settle(&node).await;
    let before = node.metrics().await.sum(UNMATCHED);
    sender.publish("org/ns/room/77", "to nobody").await;
    node.until("it is unmatched", |metrics| metrics.sum(UNMATCHED) == before + 1).await;
    sender.broadcast("org/ns/room", "to both").await;
    for member in [&mut first, &mut second] {
        assert_eq!(member.payload().await, "to both");
    }
    node.balanced().await;
}

#[tokio::test]
async fn an_unsubscribed_name_is_gone_and_the_link_and_its_other_names_stay() {
    let node = Node::start("").await;
    let mut client = Client::join(&node, "org/ns/client/1").await;
    for _ in 0..2 {
        // A repeat changes nothing, and one unsubscribe takes both back.
        client.subscribe("org/ns/room").await;
    }
    client.settle(&node).await;
    assert_eq!(node.metrics().await.sum(SUBSCRIPTIONS), 2);
    client.unsubscribe("org/ns/room").await;
    client.unsubscribe("org/ns/never-had").await;
    client.settle(&node).await;
    assert_eq!(node.metrics().await.sum(SUBSCRIPTIONS), 1);

    let sender = Client::join(&node, "org/ns/sender/9").await;
    let before = node.metrics().await.sum(UNMATCHED);
    sender.broadcast("org/ns/room", "to nobody").await;
    sender.publish("org/ns/client/1", "still here").await;
    assert_eq!(client.payload().await, "still here");
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum(UNMATCHED), before + 1);

    client.subscribe("org/ns/room").await;
    client.settle(&node).await;
    sender.broadcast("org/ns/room", "back again").await;
    assert_eq!(client.payload().await, "back again");
}

#[tokio::test]
async fn a_client_that_subscribes_again_without_its_identity_gets_its_messages_again() {
    let node = Node::start("").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    let first = Client::connect(&node, "org/ns/client/1").await;
    let mut message = subscribe("org/ns/client/1", "org/ns/client/1");
    let identity = ("SLIM_IDENTITY".into(), "secret:client".into());
    message.metadata.extend([identity]);
    first.send(message).await;
    first.settle(&node).await;
    // The old connection is not seen dead yet: the newer one of the same id counts.
    let mut second = Client::join(&node, "org/ns/client/1").await;
    sender.publish("org/ns/client/1", "to the newer").await;
    assert_eq!(second.payload().await, "to the newer");
    first.leave(&node).await;
    sender.publish("org/ns/client/1", "to the only").await;
    assert_eq!(second.payload().await, "to the only");
    node.balanced().await;
}

#[tokio::test]
async fn with_its_link_all_that_a_client_subscribed_to_is_gone() {
    let node = Node::start("").await;
    let sender = Client::join(&node, "org/ns/sender/9").await;
    let client = Client::join(&node, "org/ns/client/1").await;
    for room in 0..100 {
        client.subscribe(&format!("org/ns/room-{room}")).await;
    }
    client.settle(&node).await;
    let metrics = node.metrics().await;
    assert_eq!((metrics.sum("slim_links"), metrics.sum(SUBSCRIPTIONS)), (2, 102));
    client.leave(&node).await;
    let metrics = node.metrics().await;
    assert_eq!((metrics.sum("slim_links"), metrics.sum(SUBSCRIPTIONS)), (1, 1));

    // All routes of a link go together, but not before its link is seen to have gone.
    let before = eventually("the routes are gone", async || {
        let before = node.metrics().await;
        let seen = before.sum(MATCHED) + before.sum(UNMATCHED);
        sender.broadcast("org/ns/room-0", "anyone?").await;
        let after = node
            .until("it is routed", |metrics| metrics.sum(MATCHED) + metrics.sum(UNMATCHED) > seen)
            .await
            .sum(UNMATCHED);
        (after > before.sum(UNMATCHED)).then_some(after)
    })
    .await;
    for room in 0..100 {
        sender.broadcast(&format!("org/ns/room-{room}"), "anyone?").await;
    }
    node.until("nobody is there", |metrics| metrics.sum(UNMATCHED) == before + 100).await;
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_takes_effect_before_the_next_message_of_its_stream() {
    for cores in ["", "runtime: { n_cores: 1 }"] {
        let node = Node::start(cores).await;
        ask_and_answer(&node).await;
        node.balanced().await;
    }
}

/// Each question names a new inbox, to which the answer comes.
async fn ask_and_answer(node: &Node) {
    let mut answerer = Client::join(node, "org/ns/answerer/1").await;
    let mut asker = Client::join(node, "org/ns/asker/2").await;
    for round in 1..=200 {
        let inbox = format!("org/ns/inbox/{round}");
        asker.subscribe(&inbox).await;
        asker.publish("org/ns/answerer/1", inbox.clone()).await;
        let request = answerer.receive().await;
        let reply_to = String::from_utf8(payload(&request).to_vec()).expect("a name");
        answerer.publish(&reply_to, "answer").await;
        assert_eq!(asker.payload().await, "answer", "{inbox}");
    }
}
