//! Clients whose address changes, as behind a router that forgets.

use std::net::UdpSocket;

use quinn::TransportConfig;
use slim_wire::Class;

use crate::support::native::{Raw, join, message, publish, read_frame, receive, send};
use crate::support::node::Node;
use crate::support::pair::Bystanders;

const ROAMER: &str = "org/ns/roamer/1";
const HOME: &str = "org/ns/home/2";

/// The kernel chooses a core by the addresses of a packet: that all these ports lead to one of
/// two cores has a chance of one in many thousands.
const MOVES: u32 = 16;

/// Messages each way between two moves.
const MESSAGES: u32 = 20;

#[tokio::test]
async fn a_client_whose_port_changes_goes_on_whichever_core_its_packets_come_to() {
    let node = Node::start("runtime: { n_cores: 2 }").await;
    let bystanders = Bystanders::start(&node).await;
    let home = join(&node, &[HOME]).await;
    let (raw, mut control) = Raw::greeted_with(&node, TransportConfig::default()).await;
    control.subscribe(1, ROAMER).await;
    let mut lane = raw.lane().await;
    let mut inbound = None;
    for round in 0..=MOVES {
        if round > 0 {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            raw.endpoint.rebind(socket).expect("the endpoint moves");
        }
        for number in 0..MESSAGES {
            let number = round * MESSAGES + number;
            lane.write_all(&publish(ROAMER, HOME, &number.to_le_bytes())).await.expect("open");
            send(&home, &message(HOME, ROAMER, number.to_le_bytes().to_vec())).await;
        }
        if inbound.is_none() {
            inbound = Some(raw.accept(HOME).await);
        }
        let stream = inbound.as_mut().expect("a lane of the node");
        for number in 0..MESSAGES {
            let number = round * MESSAGES + number;
            assert_eq!(receive(&home).await.payload[..], number.to_le_bytes());
            assert_eq!(read_frame(stream).await.1, number.to_le_bytes());
        }
    }
    // It is one connection throughout, of one handshake, and the node sees one link.
    assert!(raw.connection.close_reason().is_none());
    control.subscribe(2, "org/ns/roamer/3").await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("slim_links"), crate::support::pair::BYSTANDERS + 2);
    assert_eq!(metrics.incidents("connection_lost"), 0);
    assert_eq!(metrics.sum("slim_slow_consumers_evicted_total"), 0);
    drop((raw, home));
    bystanders.assert_unharmed(&node).await;
}

#[tokio::test]
async fn best_effort_goes_on_as_well() {
    let node = Node::start("runtime: { n_cores: 2 }").await;
    let home = join(&node, &[HOME]).await;
    let (raw, _control) = Raw::greeted(&node).await;
    let best_effort = |payload: &[u8]| {
        let header = slim_wire::Header {
            class: Class::BestEffort,
            ..crate::support::native::header(ROAMER, HOME)
        };
        let ids = slim_wire::SessionIds::default();
        slim_wire::frame(slim_wire::FrameKind::Publish, &header, ids, &[], payload)
            .expect("it fits")
    };
    for round in 0..MOVES {
        raw.endpoint.rebind(UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("moved");
        let payload = round.to_le_bytes();
        // Some may be lost, not all of them.
        crate::support::eventually("one arrives", async || {
            raw.connection.send_datagram(best_effort(&payload)).expect("taken");
            let step = std::time::Duration::from_millis(100);
            let received = tokio::time::timeout(step, home.receive()).await.ok()?;
            (received.expect("open").payload[..] == payload).then_some(())
        })
        .await;
    }
}
