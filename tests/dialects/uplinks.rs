//! Links to other nodes over gRPC: nothing goes round, what is queued is written, and a name that the
//! other node refuses is told of.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use slim_compat_grpc::Detected;
use tokio::sync::oneshot;

use crate::made::Spec;
use crate::peer::{Peer, publish};
use crate::support::in_time;
use crate::support::node::{Node, config, free_address};

const RECEIVED: &str = "slim_messages_received_total";
const SUBSCRIPTIONS: &str = "slim_subscriptions";

/// A node at `here` with a link to the one at `there`, by which `routes` are reached.
fn linked(here: SocketAddr, there: SocketAddr, more: &str, routes: &[&str]) -> String {
    let mut text = config("", &format!("endpoint: \"{here}\", tls: {{ insecure: true }}"));
    text += &format!(
        "      clients: [{{ endpoint: \"http://{there}\", tls: {{ insecure: true }}{more} }}]\n"
    );
    if !routes.is_empty() {
        text += "      routes:\n";
    }
    for route in routes {
        text += &format!("        - {{ name: {route}, via: \"http://{there}\" }}\n");
    }
    text
}

#[tokio::test]
async fn what_two_nodes_route_to_each_other_does_not_go_round() {
    let [one, two] = [free_address(), free_address()];
    let one_node = Node::launch(&linked(one, two, "", &["org/ns/x"])).await;
    let two_node = Node::launch(&linked(two, one, "", &["org/ns/x"])).await;
    for node in [&one_node, &two_node] {
        node.until("the nodes are linked", |metrics| {
            metrics.sum("slim_links") == 2 && metrics.sum(SUBSCRIPTIONS) == 1
        })
        .await;
    }
    let mut sender = Peer::open(&two_node, Detected::D6).await;
    sender.send(&publish("org/ns/sender/9", "org/ns/x", "once")).await;
    one_node.until("it has come", |metrics| metrics.sum(RECEIVED) == 1).await;
    // Had it come back, or gone on, it would be received again.
    sender.send(&publish("org/ns/sender/9", "org/ns/nobody", "behind it")).await;
    two_node.until("all has been read", |metrics| metrics.sum(RECEIVED) == 2).await;
    for (node, received) in [(&one_node, 1), (&two_node, 2)] {
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum(RECEIVED), received);
    }
}

#[tokio::test]
async fn names_announced_in_both_directions_go_with_their_client() {
    let [one, two] = [free_address(), free_address()];
    let announce = ", announce: true";
    let one_node = Node::launch(&linked(one, two, announce, &[])).await;
    let two_node = Node::launch(&linked(two, one, announce, &[])).await;
    for node in [&one_node, &two_node] {
        node.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 2).await;
    }
    let mut client = Peer::open(&one_node, Detected::D6).await;
    client.join(&one_node, "org/ns/x/1").await;
    two_node.until("it is announced", |metrics| metrics.sum(SUBSCRIPTIONS) == 1).await;
    let mut sender = Peer::open(&two_node, Detected::D6).await;
    let all = Spec { fanout: 50, ..publish("org/ns/sender/9", "org/ns/x/1", "once") };
    sender.send(&all).await;
    assert_eq!(client.payload().await, "once");
    drop(client);
    for node in [&one_node, &two_node] {
        node.until("nothing is left", |metrics| metrics.sum(SUBSCRIPTIONS) == 0).await;
    }
}

#[tokio::test]
async fn a_node_is_not_linked_to_itself() {
    for release in ["0.6", "2"] {
        let address = free_address();
        let more = format!(", release: \"{release}\", announce: true");
        let node = Node::launch(&linked(address, address, &more, &[])).await;
        node.until("it was refused", |metrics| metrics.incidents("link_failed") > 0).await;
        assert_eq!(node.metrics().await.sum("slim_links"), 0);
    }
}

#[tokio::test]
async fn a_stopping_node_writes_what_is_queued_for_another() {
    const MESSAGES: usize = 8;
    const BYTES: usize = 100_000;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let there = listener.local_addr().expect("bound");
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move { tell.send(read_slowly(listener).await) });
    let text = linked(free_address(), there, "", &["org/ns/x"]);
    let mut node = Node::launch(&text).await;
    node.until("the nodes are linked", |metrics| metrics.sum(SUBSCRIPTIONS) == 1).await;
    let mut sender = Peer::open(&node, Detected::D6).await;
    for _ in 0..MESSAGES {
        sender.send(&publish("org/ns/sender/9", "org/ns/x", "x".repeat(BYTES).as_str())).await;
    }
    node.until("all has come", |metrics| metrics.sum(RECEIVED) == MESSAGES as u64).await;
    node.program.signal(Signal::TERM);
    let read = in_time("the end of the stream", told).await.expect("it was read");
    assert!(read > MESSAGES * BYTES, "{read} bytes");
    assert_eq!(node.program.exit().await, Some(0));
}

/// What a published node would read of one stream: its bytes, a little at a time.
async fn read_slowly(listener: tokio::net::TcpListener) -> usize {
    const PACE: Duration = Duration::from_millis(2);
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut connection =
        h2::server::handshake(stream).await.expect("HTTP/2, with its small windows");
    let (request, mut respond) = connection.accept().await.expect("a stream").expect("valid");
    let response = http::Response::builder().header("content-type", "application/grpc");
    let _open: h2::SendStream<Bytes> =
        respond.send_response(response.body(()).expect("valid"), false).expect("open");
    let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let (mut body, mut read) = (request.into_body(), 0);
    while let Some(Ok(chunk)) = body.data().await {
        read += chunk.len();
        tokio::time::sleep(PACE).await;
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    driver.abort();
    read
}

#[tokio::test]
async fn a_name_that_another_node_refuses_is_told_of() {
    let [here, there] = [free_address(), free_address()];
    let policy =
        "policy: { mode: enforce, rules: [{ principal: nobody, subscribe: [org/ns/other] }] }";
    let server = format!("endpoint: \"{there}\", tls: {{ insecure: true }}");
    let other = Node::launch(&config(policy, &server)).await;
    let more = ", release: \"2\", announce: true";
    let node = Node::launch(&linked(here, there, more, &[])).await;
    other.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
    let mut client = Peer::open(&node, Detected::D20).await;
    client.join(&node, "org/ns/x/1").await;
    node.until("it is told", |metrics| metrics.incidents("announcement_refused") == 1).await;
    let line = node.program.line("another node refused it").await;
    assert!(line.contains("org/ns/x") && line.contains("not allowed"), "{line}");
}
