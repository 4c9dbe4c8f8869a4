//! Nodes that exchange the names of their clients: who reaches whom, and what a neighbour may break.

mod hostile;
mod mesh;
mod published;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use support::node::{Node, config, free_address};

/// A configuration of a node at `address` that begins links with `others`; `client` holds further
/// keys of these links, `top` top-level ones.
fn neighbour(address: SocketAddr, others: &[SocketAddr], client: &str, top: &str) -> String {
    let mut text = config(top, &format!("endpoint: \"{address}\", tls: {{ insecure: true }}"));
    if !others.is_empty() {
        text += "      clients:\n";
    }
    for other in others {
        let tls = "tls: { insecure: true }";
        text += &format!("        - {{ endpoint: \"quic://{other}\", {tls}, {client} }}\n");
    }
    text
}

/// Nodes, each linked with each; `both` says whether both ends of each pair begin a link.
async fn mesh<const N: usize>(both: bool, top: &str) -> [Node; N] {
    let addresses = [(); N].map(|()| free_address());
    let mut nodes = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let others = addresses.iter().enumerate();
        let others = others.filter(|(other, _)| *other > at || (both && *other != at));
        let others: Vec<_> = others.map(|(_, other)| *other).collect();
        nodes.push(Node::launch(&neighbour(*address, &others, "exchange: true", top)).await);
    }
    let links = (N as u64 - 1) * if both { 2 } else { 1 };
    for node in &nodes {
        node.until("the nodes are linked", |metrics| metrics.sum("slim_links") == links).await;
    }
    nodes.try_into().ok().expect("as many as addresses")
}

/// Waits until the node knows so many names, its own and those it was told of.
async fn knows(node: &Node, names: u64) {
    let known = |metrics: &support::metrics::Metrics| metrics.sum("slim_subscriptions") == names;
    node.until("the node knows all names", known).await;
}
