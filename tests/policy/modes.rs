//! What becomes of what no rule allows, in each mode.

use crate::support::client::{Client, UNMATCHED};
use crate::support::message::publish;
use crate::support::node::{Node, PLAIN, config};
use crate::{REFUSED, VIOLATIONS, hashes, policy};

const RULE: &str = "principal: nobody, subscribe: [org/ns/me]";
const ME: &str = "org/ns/me/1";
const OTHER: &str = "org/ns/other/2";
const SENDER: &str = "org/ns/me/3";

/// A client asks for its own name and for another's, and a second one sends to both in its own
/// name and in another's. Returns what the first one hears, and the node.
async fn traffic(mode: &str) -> (Vec<String>, Node) {
    let node = Node::launch(&config(&policy(mode, &[RULE]), PLAIN)).await;
    let mut me = Client::connect(&node, ME).await;
    me.subscribe(ME).await;
    me.subscribe(OTHER).await;
    me.settle(&node).await;
    let sender = Client::connect(&node, SENDER).await;
    sender.send(publish(OTHER, ME, "forged")).await;
    sender.publish(OTHER, "for the other").await;
    sender.publish(ME, "last").await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "last") {
        heard.push(String::from_utf8(me.payload().await.to_vec()).expect("UTF-8"));
    }
    node.balanced().await;
    (heard, node)
}

#[tokio::test]
async fn enforce_refuses_counts_and_logs_and_the_stream_goes_on() {
    let (heard, node) = traffic("enforce").await;
    assert_eq!(heard, ["last"]);
    let metrics = node.metrics().await;
    assert_eq!((metrics.refused(REFUSED), metrics.sum(VIOLATIONS)), (2, 2));
    // That of the client, and what was for the name that nobody could have.
    assert_eq!(metrics.sum(UNMATCHED), 2);
    let line = node.program.line("policy does not allow to subscribe to the name: refused").await;
    assert!(line.contains("(org/ns/other/2)") && line.contains("principal=nobody"), "{line}");
}

#[tokio::test]
async fn observe_lets_the_same_pass_and_counts_and_logs_it() {
    let (heard, node) = traffic("observe").await;
    assert_eq!(heard, ["forged", "for the other", "last"]);
    let metrics = node.metrics().await;
    assert_eq!((metrics.refused(REFUSED), metrics.sum(VIOLATIONS)), (0, 2));
    assert_eq!(metrics.sum(UNMATCHED), 1);
    let passed = "policy does not allow to subscribe to the name: let pass (policy.mode: observe)";
    let line = node.program.line(passed).await;
    assert!(line.contains(&hashes(OTHER)), "{line}");
}

#[tokio::test]
async fn open_has_nothing_to_say() {
    let (heard, node) = traffic("open").await;
    assert_eq!(heard, ["forged", "for the other", "last"]);
    let metrics = node.metrics().await;
    assert_eq!((metrics.refused(REFUSED), metrics.sum(VIOLATIONS)), (0, 0));
    assert_eq!(node.program.stdout.find("policy does not allow"), None);
}

#[tokio::test]
async fn who_violates_the_policy_without_end_does_not_fill_the_log() {
    const COUNT: u64 = 20_000;
    let top = format!("runtime: {{ n_cores: 1 }}\n{}", policy("observe", &[RULE]));
    let node = Node::launch(&config(&top, PLAIN)).await;
    let mut me = Client::join(&node, ME).await;
    let sender = Client::connect(&node, SENDER).await;
    let flood = async {
        for _ in 0..COUNT {
            sender.send(publish(OTHER, ME, "forged")).await;
        }
    };
    let listen = async {
        for _ in 0..COUNT {
            assert_eq!(me.payload().await, "forged");
        }
    };
    tokio::join!(flood, listen);
    assert_eq!(node.metrics().await.sum(VIOLATIONS), COUNT);
    let line = node.program.line("policy does not allow to publish as the name").await;
    assert!(line.contains(&hashes(OTHER)), "{line}");
    // One in a second; the flood takes some.
    let lines = node.program.stdout.count("policy does not allow");
    assert!(lines < 200, "{lines} lines");
}
