//! Messages of every dialect that cross a link between two nodes.

use slim_compat_grpc::Detected;

use crate::made::Spec;
use crate::peer::{DIALECTS, Peer, publish};
use crate::support::node::{Node, PLAIN, config};

/// A node, and one that reaches these names by a link to it.
async fn linked(names: &[String]) -> [Node; 2] {
    let there = Node::start("").await;
    let endpoint = format!("quic://{}", there.address);
    let mut text = config("", PLAIN);
    text += &format!(
        "      clients: [{{ endpoint: \"{endpoint}\", tls: {{ insecure: true }} }}]\n      routes:\n"
    );
    for name in names {
        text += &format!("        - {{ name: {name}, via: \"{endpoint}\" }}\n");
    }
    let here = Node::launch(&text).await;
    there.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
    here.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
    [here, there]
}

#[tokio::test]
async fn a_message_reaches_every_member_on_the_other_node_as_one_of_its_dialect() {
    let names = DIALECTS.map(|dialect| format!("org/ns/room-{dialect:?}").to_lowercase());
    let [here, there] = linked(&names).await;
    for (dialect, name) in DIALECTS.into_iter().zip(&names) {
        let mut members = Vec::new();
        for id in 1..=2 {
            let mut member = Peer::open(&there, dialect).await;
            member.join(&there, &format!("{name}/{id}")).await;
            members.push(member);
        }
        let mut sender = Peer::open(&here, dialect).await;
        for length in [0, 100, 5_000, 200_000] {
            let message = publish("org/ns/sender/9", name, vec![7; length]);
            sender.send(&Spec { fanout: 50, forward_to: Some(1), ..message }).await;
            for member in &mut members {
                let received = member.receive().await;
                assert_eq!(received.payload.len(), length, "{dialect:?}");
                assert!(!received.decoded.steers, "{dialect:?}");
                // A hop on receipt from the client, and one between the nodes.
                let hops = (dialect == Detected::D20).then_some(6);
                assert_eq!(received.decoded.ttl, hops, "{dialect:?}");
            }
        }
    }
    for node in [&here, &there] {
        assert_eq!(node.balanced().await.sum("slim_messages_refused_total"), 0);
    }
}

#[tokio::test]
async fn a_message_with_one_hop_left_does_not_cross_to_the_other_node() {
    let name = "org/ns/room".to_owned();
    let [here, there] = linked(std::slice::from_ref(&name)).await;
    let mut member = Peer::open(&there, Detected::D20).await;
    member.join(&there, "org/ns/room/1").await;
    let mut sender = Peer::open(&here, Detected::D20).await;
    for ttl in [1, 8] {
        let message = publish("org/ns/sender/9", &name, ttl.to_string());
        sender.send(&Spec { ttl, ..message }).await;
    }
    assert_eq!(member.payload().await, "8");
    assert_eq!(here.balanced().await.refused("expired"), 1);
    there.balanced().await;
}
