//! How a node ends, and how the next one takes its place.

mod support;

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tonic::Code;

use support::client::Client;
use support::eventually;
use support::message::publish;
use support::metrics::get;
use support::node::{ConfigFile, Node, Program, config, slim};
use support::raw::{Channel, Connection, read_to_end, status};

const PAYLOAD: usize = 64 * 1024;

/// A receiver that has not read the `count` messages that wait for it, of which some fill its
/// window and the rest its queue.
async fn receiver_with_mail(node: &Node, count: u8) -> (Connection, Channel) {
    let mut connection = Connection::open(node.address).await;
    let mut receiver = connection.channel().await;
    receiver.join(node, "org/ns/receiver/1").await;
    let sender = Client::join(node, "org/ns/sender/2").await;
    for number in 0..count {
        let message = publish("org/ns/sender/2", "org/ns/receiver/1", vec![number; PAYLOAD]);
        sender.send(message).await;
    }
    node.until("messages wait", |metrics| {
        metrics.sum("slim_messages_matched_total") == u64::from(count)
            && metrics.sum("slim_deliveries_queued") > 0
    })
    .await;
    (connection, receiver)
}

async fn refused(address: SocketAddr) {
    eventually("the listener is closed", async || match TcpStream::connect(address).await {
        Ok(_) => None,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            Some(())
        }
    })
    .await;
}

/// A configuration whose server has the address of a node before.
fn same_address(address: SocketAddr) -> ConfigFile {
    let server = format!("endpoint: \"{address}\", tls: {{ insecure: true }}");
    ConfigFile::new(&config("", &server))
}

#[tokio::test]
async fn a_stopping_node_refuses_new_clients_and_delivers_what_it_has() {
    const COUNT: u8 = 80;
    let mut node = Node::start("limits: { slow_consumer_ms: 600000 }").await;
    let (_connection, mut receiver) = receiver_with_mail(&node, COUNT).await;
    let mut idle = Client::join(&node, "org/ns/idle/3").await;
    node.program.signal(Signal::TERM);
    refused(node.address).await;
    // Nothing has been read yet, so the streams cannot have ended.
    assert!(node.program.is_running());
    assert_eq!(get(node.admin, "/readyz").await, (503, "draining\n".into()));
    assert_eq!(get(node.admin, "/livez").await.0, 200);
    let (messages, end) = idle.rest().await;
    assert!(messages.is_empty());
    end.expect("status OK");

    for number in 0..COUNT {
        let message = receiver.receive().await.expect("a message");
        assert_eq!(message.last(), Some(&number));
    }
    let end = status(&receiver.trailers().await);
    assert_eq!(end.code(), Code::Ok, "{end:?}");
    assert_eq!(node.program.exit().await, Some(0));
    assert!(node.program.stdout.find("slim: stopped").is_some());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left_behind_after_the_drain_timeout() {
    let top = "runtime: { drain_timeout: 1s }\nlimits: { slow_consumer_ms: 600000 }";
    let mut node = Node::start(top).await;
    let (_connection, _receiver) = receiver_with_mail(&node, 80).await;
    node.program.signal(Signal::INT);
    assert_eq!(node.program.exit().await, Some(4));
    let told = node.program.stdout.find("stopped before everything was written");
    assert!(told.expect("a log line").contains(" ERROR "));
}

#[tokio::test]
async fn a_second_signal_ends_the_node_at_once() {
    let top = "runtime: { drain_timeout: 1h }\nlimits: { slow_consumer_ms: 600000 }";
    let mut node = Node::start(top).await;
    let (_connection, _receiver) = receiver_with_mail(&node, 80).await;
    node.program.signal(Signal::TERM);
    node.program.line("shutting down server").await;
    assert!(node.program.is_running());
    node.program.signal(Signal::INT);
    assert_eq!(node.program.exit().await, Some(4));
    node.program.line("received signal SIGINT again, stopping at once").await;
}

#[tokio::test]
async fn a_source_that_never_stops_sending_does_not_keep_the_node_from_stopping() {
    let mut node = Node::start("").await;
    let mut receiver = Client::join(&node, "org/ns/receiver/1").await;
    let mut connection = Connection::open(node.address).await;
    let mut source = connection.channel().await;
    source.join(&node, "org/ns/source/2").await;
    let flood = tokio::spawn(async move {
        let message = publish("org/ns/source/2", "org/ns/receiver/1", vec![7; 1_000]);
        let framed = support::message::framed(&message);
        while source.send_bytes(framed.clone()).await.is_ok() {}
    });
    for _ in 0..100 {
        receiver.payload().await;
    }
    node.program.signal(Signal::TERM);
    let (_, end) = receiver.rest().await;
    end.expect("status OK");
    assert_eq!(node.program.exit().await, Some(0));
    flood.await.expect("the source is told");
}

#[tokio::test]
async fn a_connection_that_grew_old_takes_no_new_stream_and_keeps_those_it_has() {
    let server = r#"endpoint: "127.0.0.1:0", tls: { insecure: true },
        keepalive: { max_connection_age: 1s }"#;
    let mut node = Node::launch(&config("", server)).await;
    let mut connection = Connection::open(node.address).await;
    let mut channel = connection.channel().await;
    channel.join(&node, "org/ns/old/1").await;
    eventually("no further stream", async || match connection.try_channel().await {
        Some(_) => None,
        None => Some(()),
    })
    .await;
    let young = Client::join(&node, "org/ns/young/2").await;
    for number in 0..10_u8 {
        young.publish("org/ns/old/1", vec![number]).await;
        let message = channel.receive().await.expect("a message");
        assert_eq!(message.last(), Some(&number));
    }
    node.program.signal(Signal::TERM);
    assert_eq!(status(&channel.trailers().await).code(), Code::Ok);
    assert_eq!(node.program.exit().await, Some(0));
}

/// A connection that the node has accepted, of a client that says nothing.
async fn silent(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("accepted");
    // The settings of HTTP/2 are the first that a server says.
    let mut settings = [0; 9];
    let said = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut settings);
    support::in_time("the node's settings", said).await.expect("settings");
    stream
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_the_node_from_stopping() {
    let top = "runtime: { drain_timeout: 1h }\nlimits: { handshake_ms: 600000 }";
    let mut node = Node::start(top).await;
    let mut silent = silent(node.address).await;
    let client = Client::join(&node, "org/ns/client/1").await;
    node.program.signal(Signal::TERM);
    assert_eq!(node.program.exit().await, Some(0));
    read_to_end(&mut silent).await;
    drop(client);
}

/// Whether the system still keeps a connection of `port` in TIME_WAIT.
fn is_in_time_wait(port: u16) -> bool {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections");
    let local = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (at, _, state) = (fields.next(), fields.next(), fields.next());
        at.is_some_and(|at| at.ends_with(&local)) && state == Some(TIME_WAIT)
    })
}

#[tokio::test]
async fn the_next_node_takes_the_port_at_once_after_a_stop_or_a_crash() {
    let mut node = Node::start("").await;
    let address = node.address;
    let file = same_address(address);
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let mut client = Client::join(&node, "org/ns/client/1").await;
        let other = Client::join(&node, "org/ns/other/2").await;
        other.publish("org/ns/client/1", "hello").await;
        assert_eq!(client.payload().await, "hello");
        let mut silent = silent(address).await;
        node.program.signal(signal);
        node.program.exit().await;
        drop((client, other));
        // The side that closes first keeps the address for a while, unless the other sends more.
        read_to_end(&mut silent).await;
        drop(silent);
        eventually("a connection in TIME_WAIT", async || {
            is_in_time_wait(address.port()).then_some(())
        })
        .await;
        node = Node::ready(Program::spawn(slim(&["--config", &file.text()]))).await;
        assert_eq!(node.address, address);
    }
    Client::join(&node, "org/ns/client/1").await;
}

#[tokio::test]
async fn a_second_node_on_the_port_of_the_first_ends_with_a_hint_and_takes_no_client() {
    let node = Node::start("").await;
    let file = same_address(node.address);
    let mut second = Program::spawn(slim(&["--config", &file.text()]));
    assert_eq!(second.exit().await, Some(1));
    let line = second.line("failed to start service").await;
    assert!(line.contains(&format!("listen on {}: ", node.address)), "{line}");
    assert!(line.contains("another process listens there; stop it"), "{line}");
    for id in 0..10 {
        let client = Client::join(&node, &format!("org/ns/client/{id}")).await;
        client.leave(&node).await;
    }
    node.balanced().await;
}

#[tokio::test]
async fn of_two_nodes_that_start_at_once_on_one_port_exactly_one_has_it() {
    for _ in 0..10 {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("its address");
        drop(taken);
        let file = same_address(address);
        let start = || Program::spawn(slim(&["--config", &file.text()]));
        let mut both = [start(), start()];
        let loser = eventually("one gives up", async || {
            both.iter_mut().position(|program| !program.is_running())
        })
        .await;
        assert_eq!(both[loser].exit().await, Some(1));
        let [first, second] = both;
        let winner = Node::ready(if loser == 0 { second } else { first }).await;
        assert_eq!(winner.address, address);
        Client::join(&winner, "org/ns/client/1").await;
    }
}

#[tokio::test]
async fn a_stream_that_opens_at_the_moment_of_the_stop_does_not_hold_it_up() {
    let mut node = Node::start("").await;
    let mut connections = Vec::new();
    for _ in 0..50 {
        connections.push(Connection::open(node.address).await);
    }
    node.program.signal(Signal::TERM);
    for connection in &mut connections {
        // Some are served for a moment, some are told that the node is going: either will do.
        let _ = connection.open_and_reset().await;
    }
    assert_eq!(node.program.exit().await, Some(0));
}
