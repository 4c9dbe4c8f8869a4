//! Clients that want more than the node gives.

use slim_compat_grpc::{D6, Dialect};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::client::{Client, NOBODY};
use crate::support::eventually;
use crate::support::message::{framed, publish};
use crate::support::node::Node;
use crate::support::pair::HealthyPair;
use crate::support::raw::{Connection, read_to_end, status};

#[tokio::test]
async fn connections_and_streams_beyond_the_limit_are_refused_until_there_is_room() {
    let node = Node::start("limits: { links: 4 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut third = Connection::open(node.address).await;
    let channels = [third.channel().await, third.channel().await];
    // Four links on three connections: no stream more.
    let (response, _body) = third.request(D6::PATH).await;
    let refusal = status(response.headers());
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("limits.links"), "{refusal:?}");
    assert_eq!(node.metrics().await.incidents("link_limit"), 1);
    drop(channels);
    node.until("there is room", |metrics| metrics.sum("slim_links") == 2).await;

    let mut fourth = Connection::open(node.address).await;
    let channel = fourth.channel().await;
    // Four connections: no connection more.
    let mut fifth = TcpStream::connect(node.address).await.expect("completed");
    assert!(read_to_end(&mut fifth).await.is_empty());
    node.until("it is counted", |metrics| metrics.incidents("link_limit") == 2).await;
    drop((fourth, channel));
    node.until("there is room", |metrics| metrics.sum("slim_links") == 2).await;
    let mut latecomer = eventually("a connection is served again", async || {
        let mut connection = Connection::open(node.address).await;
        let channel = connection.try_channel().await?;
        Some(channel)
    })
    .await;
    latecomer.join(&node, "org/ns/latecomer/1").await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_subscription_beyond_the_limit_is_refused_and_its_stream_goes_on() {
    let node = Node::start("limits: { subscriptions_per_link: 3 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut client = Client::connect(&node, "org/ns/client/1").await;
    for name in ["a", "b", "c", "b", "d", "e"] {
        client.subscribe(&format!("org/ns/{name}/1")).await;
    }
    client.settle(&node).await;
    let metrics = node.metrics().await;
    // A repeat is no further one.
    assert_eq!(metrics.refused("subscription_limit"), 2);
    assert_eq!(metrics.incidents("message_refused"), 2);
    assert_eq!(metrics.sum("slim_subscriptions"), 2 + 3);
    let sender = Client::join(&node, "org/ns/sender/9").await;
    for name in ["d", "e", "a", "b", "c"] {
        sender.publish(&format!("org/ns/{name}/1"), name).await;
    }
    for name in ["a", "b", "c"] {
        assert_eq!(client.payload().await, name);
    }
    client.unsubscribe("org/ns/a/1").await;
    client.subscribe("org/ns/d/1").await;
    client.settle(&node).await;
    sender.publish("org/ns/d/1", "room again").await;
    assert_eq!(client.payload().await, "room again");
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_connection_whose_requests_are_refused_is_closed_like_one_without_any() {
    let node = Node::start("limits: { handshake_ms: 300 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let (response, _body) = connection.request("/no.such/Method").await;
    assert_eq!(status(response.headers()).code(), Code::Unimplemented);
    connection.closed().await;
    node.until("it is counted", |metrics| metrics.incidents("handshake_timeout") == 1).await;
    pair.assert_unharmed().await;
}

#[tokio::test]
async fn begun_messages_take_no_more_room_than_all_links_have_together() {
    let node = Node::start("limits: { partial_bytes: 4194304 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    let mut begun = connection.channel().await;
    let mut one_too_many = connection.channel().await;
    let message = framed(&publish("org/ns/a/1", NOBODY, vec![7; 3_000_000]));
    begun.send_bytes(message.slice(..2_500_000)).await.expect("sent");
    // It may be refused before its last bytes have left.
    let _ = one_too_many.send_bytes(message.slice(..2_000_000)).await;
    let refusal = status(&one_too_many.trailers().await);
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("limits.partial_bytes"), "{refusal:?}");
    // The first has its room, and what the second took is free again.
    begun.send_bytes(message.slice(2_500_000..)).await.expect("sent");
    node.until("it is read", |metrics| metrics.sum("slim_received_bytes_total") > 3_000_000).await;
    pair.assert_unharmed().await;
    node.balanced().await;
}
