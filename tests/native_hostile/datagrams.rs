//! Datagrams that are no QUIC, or belong to nobody.

use std::net::{SocketAddr, UdpSocket};

use crate::support::native::join;
use crate::support::node::Node;
use crate::support::pair::{BYSTANDERS, Bystanders};
use crate::support::seed::Seeded;
use crate::support::{eventually, quic};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("set");
    socket
}

fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    // One that finds no room is lost, as others are on the way.
    let _ = socket.send_to(bytes, to);
}

/// Sends datagrams for as long as it takes until the node has counted `count` more as strays.
async fn until_counted(node: &Node, count: u64, mut next: impl FnMut() -> Vec<u8>) {
    let before = node.metrics().await.incidents("stray_datagram");
    let socket = socket();
    eventually("the node has counted them", async || {
        for _ in 0..100 {
            send(&socket, &next(), node.address);
        }
        let counted = node.metrics().await.incidents("stray_datagram");
        (counted >= before + count).then_some(())
    })
    .await;
}

/// No link came of it, the log is short, and links are served as before.
async fn assert_unmoved(node: &Node, bystanders: Bystanders) {
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("slim_links"), BYSTANDERS);
    for kind in ["protocol_broken", "tls_failed", "link_failed", "keepalive_timeout"] {
        assert_eq!(metrics.incidents(kind), 0, "{kind}");
    }
    let lines = node.program.stdout.count("datagram dropped: it belongs to no connection");
    assert!((1..40).contains(&lines), "{lines} lines");
    join(node, &["org/ns/newcomer/1"]).await;
    bystanders.assert_unharmed(node).await;
}

#[tokio::test]
async fn random_bytes_are_counted_and_nothing_else() {
    let mut random = Seeded::new("random bytes");
    let node = Node::start("runtime: { n_cores: 2 }").await;
    let bystanders = Bystanders::start(&node).await;
    until_counted(&node, 2_000, || {
        let length = random.below(1_500);
        random.bytes(length)
    })
    .await;
    assert_unmoved(&node, bystanders).await;
}

#[tokio::test]
async fn packets_for_connections_that_no_core_has_are_counted_and_nothing_else() {
    const SHORT_HEADER: u8 = 0x40;
    let mut random = Seeded::new("short headers");
    let node = Node::start("runtime: { n_cores: 2 }").await;
    let bystanders = Bystanders::start(&node).await;
    let mut core = 0_u16;
    until_counted(&node, 5_000, || {
        // Every number, and those of the cores that are there more often than others.
        core = core.wrapping_add(13);
        let core = if random.below(4) == 0 { core % 4 } else { core };
        let length = 3 + random.below(60);
        let mut bytes = random.bytes(length);
        bytes[0] = SHORT_HEADER | (bytes[0] & 0x3F);
        bytes[1..3].copy_from_slice(&core.to_be_bytes());
        bytes
    })
    .await;
    assert_unmoved(&node, bystanders).await;
}

#[tokio::test]
async fn first_packets_that_are_cut_or_altered_are_counted_and_begin_nothing() {
    let mut random = Seeded::new("first packets");
    let node = Node::start("").await;
    let bystanders = Bystanders::start(&node).await;
    until_counted(&node, 500, || {
        let mut bytes = quic::first_packet();
        if random.below(2) == 0 {
            // Too short to begin a connection with, whatever is left.
            bytes.truncate(random.below(1_200));
        } else {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        bytes
    })
    .await;
    assert_unmoved(&node, bystanders).await;
}
