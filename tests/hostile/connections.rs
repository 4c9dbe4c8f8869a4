//! Connections that never become clients, or stop being ones.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::node::{Node, config};
use crate::support::pair::HealthyPair;
use crate::support::raw::{Channel, Connection, read_to_end};
use crate::support::{eventually, in_time};

/// A second handle of the socket, by which the test sees its end.
fn twin(stream: TcpStream) -> (TcpStream, std::net::TcpStream) {
    let stream = stream.into_std().expect("a socket");
    let twin = stream.try_clone().expect("a second handle");
    (TcpStream::from_std(stream).expect("a socket"), twin)
}

async fn joined(node: &Node, stream: TcpStream, name: &str) -> (Connection, Channel) {
    let mut connection = Connection::over(stream).await;
    let mut channel = connection.channel().await;
    channel.join(node, name).await;
    (connection, channel)
}

async fn assert_forgotten(node: &Node) {
    let metrics = node
        .until("the link and its subscription are gone", |metrics| {
            metrics.sum("slim_links") == 2 && metrics.sum("slim_subscriptions") == 2
        })
        .await;
    assert_eq!(metrics.incidents("connection_lost"), 1);
}

#[tokio::test]
async fn a_connection_that_is_reset_is_forgotten_with_all_it_subscribed_to() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    let (connection, channel) = joined(&node, stream, "org/ns/client/1").await;
    // Without lingering, closing the socket sends RST.
    connection.abandon().await;
    drop(channel);
    assert_forgotten(&node).await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_process_that_is_killed_is_forgotten_with_all_it_subscribed_to() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    let (stream, twin) = twin(stream);
    let (connection, channel) = joined(&node, stream, "org/ns/client/1").await;
    // The process owns the connection from here on.
    let mut process = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(twin)))
        .spawn()
        .expect("a process");
    connection.abandon().await;
    drop(channel);
    assert_eq!(node.metrics().await.sum("slim_links"), 3);
    process.kill().expect("killed");
    process.wait().expect("ended");
    assert_forgotten(&node).await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_that_stops_answering_pings_is_cut_off() {
    let keepalive = r#"endpoint: "127.0.0.1:0", tls: { insecure: true },
        keepalive: { time: 1s, timeout: 1s }"#;
    let node = Node::launch(&config("", keepalive)).await;
    let pair = HealthyPair::start(&node).await;
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    let (stream, twin) = twin(stream);
    let (connection, _channel) = joined(&node, stream, "org/ns/client/1").await;
    connection.freeze();
    let metrics = node
        .until("the ping is not answered", |metrics| metrics.incidents("keepalive_timeout") > 0)
        .await;
    assert_eq!(metrics.incidents("keepalive_timeout"), 1);
    let mut twin = TcpStream::from_std(twin).expect("a socket");
    read_to_end(&mut twin).await;
    node.until("the link is gone", |metrics| {
        metrics.sum("slim_links") == 2 && metrics.sum("slim_subscriptions") == 2
    })
    .await;
    // Those who answer stay.
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

/// Sends one byte after the other until the node closes the connection.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for byte in bytes.chunks(1).cycle() {
            if writer.write_all(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let read = async {
        let mut sink = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut sink).await;
    };
    in_time("the node closes the connection", async {
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_is_never_completed_is_cut_off_in_time() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let node = Node::start("limits: { handshake_ms: 300 }").await;
    let pair = HealthyPair::start(&node).await;
    let mut cut_off = 0;
    let mut expect_one_more = async |what: &str| {
        cut_off += 1;
        let metrics =
            node.until(what, |metrics| metrics.incidents("handshake_timeout") == cut_off).await;
        assert_eq!(metrics.sum("slim_incidents_total"), cut_off, "{what}");
    };

    let mut stream = TcpStream::connect(node.address).await.expect("accepted");
    read_to_end(&mut stream).await;
    expect_one_more("a client that says nothing").await;

    // Twenty-three bytes at a time of twenty milliseconds each are too slow.
    let mut stream = TcpStream::connect(node.address).await.expect("accepted");
    drip(&mut stream, PREFACE).await;
    expect_one_more("a preface byte by byte").await;

    let mut stream = TcpStream::connect(node.address).await.expect("accepted");
    stream.write_all(&[PREFACE, SETTINGS].concat()).await.expect("sent");
    // A frame of 1,000 bytes that never ends.
    drip(&mut stream, &[&[0, 3, 0xE8, 1, 4, 0, 0, 0, 1], &[0; 991][..]].concat()).await;
    expect_one_more("request headers byte by byte").await;

    let connection = Connection::open(node.address).await;
    connection.closed().await;
    expect_one_more("a connection without a stream").await;

    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn whatever_is_not_http_2_is_closed_and_counted() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let garbage: Vec<u8> =
        (0..4_096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let http_1 = b"GET /metrics HTTP/1.1\r\nhost: node\r\naccept: */*\r\n\r\n".to_vec();
    // A valid preface, and after it a frame that is longer than this node allows.
    let huge_frame =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF\x00\x00\x00\x00\x00\x01".to_vec();
    for (count, bytes) in (1..).zip([garbage, http_1, huge_frame]) {
        let mut stream = TcpStream::connect(node.address).await.expect("accepted");
        // The node may close before all is written.
        let _ = stream.write_all(&bytes).await;
        read_to_end(&mut stream).await;
        node.until("it is counted", |metrics| metrics.incidents("not_http2") == count).await;
    }
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_with_tls_on_a_port_without_is_closed_and_counted() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    let server = rustls::pki_types::ServerName::try_from("node").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let handshake = in_time("an end", connector.connect(server, stream)).await;
    assert!(handshake.is_err());
    let metrics = node.until("it is counted", |metrics| metrics.incidents("not_http2") > 0).await;
    assert_eq!(metrics.incidents("not_http2"), 1);
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}

#[tokio::test]
async fn a_client_that_opens_and_resets_streams_without_end_is_cut_off() {
    let node = Node::start("").await;
    let pair = HealthyPair::start(&node).await;
    let mut connection = Connection::open(node.address).await;
    eventually("the node has enough", async || {
        for _ in 0..50 {
            if !connection.open_and_reset().await {
                return Some(());
            }
        }
        None
    })
    .await;
    connection.closed().await;
    let metrics =
        node.until("no link is left of it", |metrics| metrics.sum("slim_links") == 2).await;
    assert_eq!(metrics.incidents("not_http2"), 1);
    let client = Client::join(&node, "org/ns/client/1").await;
    client.leave(&node).await;
    pair.assert_unharmed().await;
    node.assert_alive().await;
    node.balanced().await;
}
