//! Clients that are gone without a word.

use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::support::native::Raw;
use crate::support::node::{Node, config};
use crate::support::pair::{BYSTANDERS, Bystanders};

/// A server whose clients may be silent for three seconds.
const IMPATIENT: &str = r#"endpoint: "127.0.0.1:0", tls: { insecure: true },
    quic: { idle_timeout: 3s }"#;

/// A transport that would be silent for ever.
fn silent() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(600_000))));
    transport
}

async fn is_forgotten(node: &Node) {
    let metrics = node
        .until("the link and its subscriptions are gone", |metrics| {
            metrics.sum("slim_links") == BYSTANDERS
                && metrics.sum("slim_subscriptions") == BYSTANDERS
        })
        .await;
    assert_eq!(metrics.incidents("keepalive_timeout"), 1);
    assert_eq!(node.program.stdout.count("no sign of life in time"), 1);
}

/// A client in a thread of its own, whose runtime is ended with its sockets and without a word,
/// as by a kill.
fn vanishing(address: std::net::SocketAddr, subscribed: std::sync::mpsc::Sender<()>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (raw, control) = runtime.block_on(async {
        let config = crate::support::native::client_config(slim_wire::ALPN, silent());
        let raw = Raw::try_connect(address, config).await.expect("taken");
        let mut control = raw.control().await;
        let hello = crate::support::native::HELLO.encode();
        control.say(&crate::support::native::hello(&hello)).await;
        control.hear().await;
        for number in 0..10 {
            control.subscribe(number, &format!("org/ns/room-{number}/1")).await;
        }
        (raw, control)
    });
    runtime.shutdown_timeout(Duration::from_secs(20));
    subscribed.send(()).expect("the test waits");
    // No destructor says goodbye either.
    std::mem::forget((raw, control));
}

#[tokio::test]
async fn a_client_that_is_killed_is_forgotten_with_all_it_subscribed_to() {
    let node = Node::launch(&config("", IMPATIENT)).await;
    let bystanders = Bystanders::start(&node).await;
    let (subscribed, told) = std::sync::mpsc::channel();
    let address = node.address;
    let client = std::thread::spawn(move || vanishing(address, subscribed));
    tokio::task::spawn_blocking(move || told.recv().expect("subscribed")).await.expect("told");
    client.join().expect("no panic");
    is_forgotten(&node).await;
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn a_client_that_closes_its_connection_is_forgotten_at_once() {
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    for code in [0_u32, 77] {
        let (raw, mut control) = Raw::greeted(&node).await;
        control.subscribe(1, "org/ns/room/1").await;
        raw.connection.close(code.into(), b"enough");
        node.until("the link and its subscription are gone", |metrics| {
            metrics.sum("slim_links") == BYSTANDERS
                && metrics.sum("slim_subscriptions") == BYSTANDERS
        })
        .await;
    }
    // Done is no incident, a code that nobody knows is.
    let metrics = node.metrics().await;
    assert_eq!(metrics.incidents("connection_lost"), 1);
    assert_eq!(metrics.sum("slim_incidents_total"), 1);
    bystanders.assert_unharmed(&node).await;
}
