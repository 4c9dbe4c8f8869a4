//! Links through the node that the published Python package of release 0.6 carries.

use std::time::Duration;

use rustix::process::Signal;
use slim_quic::client::link::{Link, LinkError};

use crate::support::native::{message, receive, send, text};
use crate::support::published::{published_node, python};
use crate::support::{eventually, in_time};
use crate::{connect, numbered};

const ALICE: &str = "org/ns/alice/1";
const BOB: &str = "org/ns/bob/2";

/// Publishes until something arrives: this node does not say when it knows a subscription.
async fn reach(from: &Link, to: &Link) {
    eventually("a message arrives", async || {
        send(from, &message(ALICE, BOB, "probe")).await;
        let arrived = tokio::time::timeout(Duration::from_millis(100), to.receive()).await;
        arrived.ok().map(|probe| probe.expect("the link is open"))
    })
    .await;
}

#[tokio::test]
async fn the_published_node_passes_messages_on_until_it_ends() {
    const COUNT: u32 = 2_000;
    let Some(python) = python("the_published_node_passes_messages_on_until_it_ends") else {
        return;
    };
    let (program, address) = published_node(python).await;
    let (alice, bob) = (connect(&address, ALICE).await, connect(&address, BOB).await);
    let identity = [("SLIM_IDENTITY", "a secret:org/ns/bob")];
    bob.subscribe_with(&text(BOB), &identity).await.expect("the link is open");
    reach(&alice, &bob).await;
    for number in 0..COUNT {
        send(&alice, &numbered(ALICE, BOB, number, b"from alice")).await;
    }
    in_time("the node ends its side", alice.close()).await.expect("handed over");
    let mut next = 0;
    while next < COUNT {
        let message = receive(&bob).await;
        if message.payload != "probe" {
            assert_eq!((message.ids.message, &message.payload[..]), (next, &b"from alice"[..]));
            next += 1;
        }
    }

    bob.unsubscribe_with(&text(BOB), &identity).await.expect("the link is open");
    program.signal(Signal::KILL);
    let end = in_time("the end", bob.closed()).await;
    assert!(matches!(end, LinkError::Lost { .. }), "{end}");
}
