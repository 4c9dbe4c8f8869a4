//! Names that clients of several releases have, which cannot hold sessions with each other.

use slim_compat_grpc::Detected;

use crate::made::Spec;
use crate::peer::{Peer, publish};
use crate::support::client::UNMATCHED;
use crate::support::node::Node;

const ELSEWHERE: &str = "slim_messages_elsewhere_total";
const LINE: &str = "message not delivered: its name belongs to another release";

const FAMILIES: [Detected; 4] = [Detected::P, Detected::D6, Detected::D7L, Detected::D20];

#[tokio::test]
async fn a_message_to_a_name_of_another_family_is_delivered_to_nobody_and_counted() {
    let node = Node::start("").await;
    for owner in FAMILIES {
        let name = format!("org/ns/{owner:?}/1").to_lowercase();
        let mut receiver = Peer::open(&node, owner).await;
        receiver.join(&node, &name).await;
        for stranger in FAMILIES.into_iter().filter(|family| *family != owner) {
            let before = node.metrics().await;
            let mut sender = Peer::open(&node, stranger).await;
            let to_one = publish("org/ns/stranger/9", &name, "lost");
            sender.send(&to_one).await;
            sender.send(&Spec { fanout: 50, ..to_one }).await;
            let metrics = node
                .until("both are counted", |metrics| {
                    metrics.sum(ELSEWHERE) == before.sum(ELSEWHERE) + 2
                })
                .await;
            assert_eq!(metrics.sum(UNMATCHED), before.sum(UNMATCHED) + 2);
            let incidents = before.incidents("other_release");
            assert_eq!(metrics.incidents("other_release"), incidents + 2);
        }
        let mut friend = Peer::open(&node, owner).await;
        friend.send(&publish("org/ns/friend/9", &name, "first")).await;
        assert_eq!(receiver.payload().await, "first", "{owner:?}");
    }
    // A name that nobody has is not elsewhere.
    let before = node.metrics().await.sum(ELSEWHERE);
    let mut sender = Peer::open(&node, Detected::D20).await;
    sender.settle(&node).await;
    assert_eq!(node.balanced().await.sum(ELSEWHERE), before);
}

#[tokio::test]
async fn a_flood_to_a_name_of_another_family_is_worth_few_lines() {
    const FLOOD: u64 = 5_000;
    let node = Node::start("").await;
    let mut receiver = Peer::open(&node, Detected::D7L).await;
    receiver.join(&node, "org/ns/receiver/1").await;
    let mut sender = Peer::open(&node, Detected::D6).await;
    for _ in 0..FLOOD {
        sender.send(&publish("org/ns/sender/9", "org/ns/receiver/1", "lost")).await;
    }
    node.until("all are counted", |metrics| metrics.sum(ELSEWHERE) == FLOOD).await;
    let line = node.program.line(LINE).await;
    assert!(line.contains("0.6 and native ones") && line.contains("0.7 to 1.4"), "{line}");
    let lines = node.program.stdout.count(LINE);
    assert!((1..=FLOOD as usize / 100).contains(&lines), "{lines} lines");
    node.balanced().await;
}

#[tokio::test]
async fn clients_of_0_7_and_of_1_4_reach_each_other() {
    let node = Node::start("").await;
    for (receiver, sender) in [(Detected::D7, Detected::D7L), (Detected::D7L, Detected::D7)] {
        let name = format!("org/ns/{receiver:?}/1").to_lowercase();
        let mut receiver = Peer::open(&node, receiver).await;
        receiver.join(&node, &name).await;
        let mut sender = Peer::open(&node, sender).await;
        sender.send(&publish("org/ns/sender/9", &name, "hello")).await;
        assert_eq!(receiver.payload().await, "hello");
    }
    assert_eq!(node.balanced().await.sum(ELSEWHERE), 0);
}
