//! The link API of the client over gRPC: against this node, the published one, and a node in the
//! test that breaks the protocol as told.

mod breaking;
mod exchange;
mod fake_node;
mod published;
#[path = "../support/mod.rs"]
mod support;
mod trust;

use slim_quic::client::link::{Link, LinkOptions, Message};
use slim_wire::SessionIds;

use support::client::{NOBODY, UNMATCHED};
use support::in_time;
use support::native::{message, text};
use support::node::Node;

/// A link over gRPC without TLS, of an app that tells its name.
async fn connect(address: impl std::fmt::Display, name: &str) -> Link {
    let options = LinkOptions { name: Some(text(name)), ..LinkOptions::default() };
    let address = format!("http://{address}");
    in_time("a link", Link::connect(&address, &options)).await.expect("the node answers")
}

/// One that is subscribed to its own name; the whole node knows.
async fn join(node: &Node, name: &str) -> Link {
    let link = connect(node.address, name).await;
    link.subscribe(&text(name)).await.expect("the link is open");
    settle(&link, node).await;
    link
}

/// Waits until every core knows what this link subscribed to: it does before the link's next
/// message, which goes to a name that nobody has and is counted.
async fn settle(link: &Link, node: &Node) {
    let before = node.metrics().await.sum(UNMATCHED);
    let stray = message("org/ns/stray/1", NOBODY, "settle");
    link.publish(&stray).await.expect("the link is open");
    node.until("a subscription is known", |metrics| metrics.sum(UNMATCHED) > before).await;
}

/// A message of a session, numbered.
fn numbered(source: &str, destination: &str, number: u32, payload: &[u8]) -> Message {
    let ids = SessionIds { session: 7, message: number };
    Message { ids, ..message(source, destination, payload.to_vec()) }
}
