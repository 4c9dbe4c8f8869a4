//! Handshakes that fail, or are never completed.

use std::net::UdpSocket;
use std::time::Duration;

use quinn::{ConnectionError, TransportConfig};

use crate::support::native::{Raw, client_config, join, try_link};
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};
use crate::support::{PATIENCE, eventually, quic};

#[tokio::test]
async fn a_client_of_another_protocol_is_refused_and_counted() {
    const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    for (count, alpn) in [(1, &b"slim/9"[..]), (2, b"h3")] {
        let config = client_config(alpn, TransportConfig::default());
        let error = Raw::try_connect(node.address, config).await.err().expect("it is refused");
        let ConnectionError::ConnectionClosed(close) = error else {
            panic!("expected the node to close the connection, got {error}");
        };
        assert_eq!(u64::from(close.error_code), NO_APPLICATION_PROTOCOL);
        let metrics =
            node.until("it is counted", |metrics| metrics.incidents("tls_failed") == count).await;
        assert_eq!(metrics.sum("slim_incidents_total"), count);
    }
    assert!(node.program.stdout.count("TLS handshake failed") <= 2);
    bystanders.assert_unharmed(&node).await;
}

/// The answer to a first packet.
fn answer(node: &Node, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.send_to(packet, node.address).expect("sent");
    let mut bytes = vec![0; 2_000];
    let length = socket.recv(&mut bytes).expect("an answer");
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn a_first_packet_with_something_else_than_tls_is_refused_and_counted() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    for count in 1..=5 {
        let packet = quic::first_packet_without_tls();
        assert!(!quic::is_retry(&answer(&node, &packet)), "the connection is closed");
        let metrics = node
            .until("it is counted", |metrics| metrics.sum("slim_incidents_total") == count)
            .await;
        let broken = metrics.incidents("protocol_broken") + metrics.incidents("tls_failed");
        assert_eq!(broken, count);
    }
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn with_many_handshakes_under_way_newcomers_prove_their_address_and_are_served() {
    /// Of one core.
    const UNPROVEN: u64 = 64;
    let top = "runtime: { n_cores: 1 }\nlimits: { handshake_ms: 6000 }";
    let node = Node::start(top).await;
    let bystanders = Bystanders::start(&node).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // Before, nobody has to.
    assert!(!quic::is_retry(&answer(&node, &quic::first_packet())));
    eventually("a newcomer has to prove its address", async || {
        for _ in 0..16 {
            socket.send_to(&quic::first_packet(), node.address).expect("sent");
        }
        quic::is_retry(&answer(&node, &quic::first_packet())).then_some(())
    })
    .await;
    // Whoever proves it is served, while the handshakes are still under way.
    for id in 0..5 {
        join(&node, &[&format!("org/ns/newcomer/{id}")]).await.close().await.expect("closed");
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.incidents("handshake_timeout"), 0, "they are still under way");
    // Those who never did are forgotten in time, and others need to prove nothing any more.
    let metrics = node
        .until("the handshakes are given up", |metrics| {
            metrics.incidents("handshake_timeout") >= UNPROVEN
        })
        .await;
    assert_eq!(metrics.incidents("handshake_timeout"), UNPROVEN);
    assert_eq!(metrics.sum("slim_links"), BYSTANDERS);
    let lines = node.program.stdout.count("no link opened in time");
    assert!((1..10).contains(&lines), "{lines}");
    assert!(!quic::is_retry(&answer(&node, &quic::first_packet())));
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_there_is_room() {
    let node = Node::start("limits: { links: 6, handshake_ms: 600000 }").await;
    let bystanders = Bystanders::start(&node).await;
    // Two places are left, and connections that have not said hello take them too.
    let idle = [Raw::connect(&node).await, Raw::connect(&node).await];
    let refused = try_link(&node).await.expect_err("no place");
    assert!(refused.to_string().contains("it takes no more connections"), "{refused}");
    let metrics = node.until("it is counted", |m| m.incidents("link_limit") > 0).await;
    assert_eq!(metrics.sum("slim_links"), BYSTANDERS);
    drop(idle);
    eventually("there is room", async || {
        let link = try_link(&node).await.ok();
        if link.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        link
    })
    .await;
    bystanders.assert_unharmed(&node).await;
}
