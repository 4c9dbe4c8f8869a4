//! Native clients on nodes that are linked each with each.

use rustix::process::Signal;
use slim_quic::client::link::Link;

use crate::support::eventually;
use crate::support::metrics::Metrics;
use crate::support::native::{join, message, name, receive, send};
use crate::support::node::{ConfigFile, Node, Program, free_address, slim};
use crate::{knows, mesh, neighbour};

fn sum(metrics: &[Metrics], counter: &str) -> u64 {
    metrics.iter().map(|metrics| metrics.sum(counter)).sum()
}

/// The metrics, once so many copies are written on all nodes together.
async fn written(nodes: &[Node], copies: u64) -> Vec<Metrics> {
    eventually("all is written", async || {
        let all = balanced(nodes).await;
        (sum(&all, "slim_deliveries_written_total") >= copies).then_some(all)
    })
    .await;
    let all = balanced(nodes).await;
    assert_eq!(sum(&all, "slim_deliveries_written_total"), copies);
    all
}

async fn balanced(nodes: &[Node]) -> Vec<Metrics> {
    let mut all = Vec::new();
    for node in nodes {
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
        assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
        all.push(metrics);
    }
    all
}

/// One member of the same name on each node, with an id of its own; all nodes know of all.
async fn members(nodes: &[Node], links_per_pair: u64) -> Vec<Link> {
    let mut members = Vec::new();
    for (id, node) in nodes.iter().enumerate() {
        members.push(join(node, &[&format!("org/ns/team/{id}")]).await);
    }
    for node in nodes {
        knows(node, 1 + (nodes.len() as u64 - 1) * links_per_pair).await;
    }
    members
}

async fn five_nodes(both: bool) {
    let nodes = mesh::<5>(both, "").await;
    let members = members(&nodes, if both { 2 } else { 1 }).await;
    let sender = join(&nodes[2], &[]).await;
    // To all: each gets it once.
    for number in 0..20 {
        let text = format!("all {number}");
        let to_all = message("org/ns/sender/1", "org/ns/team", text.clone()).to_all();
        send(&sender, &to_all).await;
        for member in &members {
            assert_eq!(receive(member).await.payload, text);
        }
    }
    // To the member beside the sender and to four nodes, and there to a member each.
    written(&nodes, 20 * (5 + 4)).await;
    // To any: the owner at the sender's node, and at a node without an owner one of the others.
    for number in 0..20 {
        let text = format!("any {number}");
        send(&sender, &message("org/ns/sender/1", "org/ns/team", text.clone())).await;
        assert_eq!(receive(&members[2]).await.payload, text);
    }
    members[2].unsubscribe(&"org/ns/team/2".parse().expect("a name")).await.expect("open");
    for number in 0..20 {
        let text = format!("other {number}");
        send(&sender, &message("org/ns/sender/1", "org/ns/team", text.clone())).await;
    }
    let metrics = written(&nodes, 20 * 9 + 20 + 20 * 2).await;
    assert_eq!(sum(&metrics, "slim_messages_unmatched_total"), 0);
    // To one.
    for id in [0, 1, 3, 4] {
        let to = format!("org/ns/team/{id}");
        send(&sender, &message("org/ns/sender/1", &to, "you")).await;
        while receive(&members[id]).await.payload != "you" {}
    }
}

#[tokio::test]
async fn in_a_mesh_of_five_nodes_a_message_reaches_all_or_any_or_one_once() {
    five_nodes(false).await;
}

#[tokio::test]
async fn it_is_the_same_when_both_ends_of_each_pair_begin_a_link() {
    five_nodes(true).await;
}

#[tokio::test]
async fn what_comes_from_a_neighbour_goes_no_further() {
    // A chain: the ends are not linked, and so do not reach each other.
    let addresses = [(); 3].map(|()| free_address());
    let [one, two, three] = addresses;
    let chain = |address, others: &[_]| neighbour(address, others, "exchange: true", "");
    let nodes = [
        Node::launch(&chain(one, &[two])).await,
        Node::launch(&chain(two, &[three])).await,
        Node::launch(&chain(three, &[])).await,
    ];
    let near = join(&nodes[1], &["org/ns/team/1"]).await;
    let far = join(&nodes[2], &["org/ns/team/2"]).await;
    knows(&nodes[1], 2).await;
    knows(&nodes[0], 1).await;
    let sender = join(&nodes[0], &[]).await;
    let to_all = message("org/ns/sender/1", "org/ns/team", "near").to_all();
    send(&sender, &to_all).await;
    assert_eq!(receive(&near).await.payload, "near");
    send(&near, &message("org/ns/team/1", "org/ns/team/2", "from the middle")).await;
    assert_eq!(receive(&far).await.payload, "from the middle");
    send(&sender, &message("org/ns/sender/1", "org/ns/team/2", "too far")).await;
    // It goes to the only one here who knows the name, and that is the last hop.
    let unmatched = |metrics: &Metrics| metrics.sum("slim_messages_unmatched_total") == 1;
    nodes[1].until("it is unmatched", unmatched).await;
    let metrics = nodes[2].balanced().await;
    assert_eq!(metrics.sum("slim_messages_received_total"), 1);
}

#[tokio::test]
async fn a_node_that_comes_back_is_told_everything_and_tells_what_it_has() {
    let [here, there] = [free_address(), free_address()];
    let node = Node::launch(&neighbour(here, &[there], "exchange: true", "")).await;
    let file = ConfigFile::new(&neighbour(there, &[], "", ""));
    let start = || Node::ready(Program::spawn(slim(&["--config", &file.text()])));
    let local = join(&node, &["org/ns/local/1"]).await;
    for round in 0..3 {
        let mut other = start().await;
        knows(&other, 1).await;
        let remote = format!("org/ns/remote/{round}");
        let link = join(&other, &[&remote]).await;
        knows(&node, 2).await;
        send(&link, &message(&remote, "org/ns/local/1", "in")).await;
        assert_eq!(receive(&local).await.payload, "in");
        send(&local, &message("org/ns/local/1", &remote, "out")).await;
        assert_eq!(receive(&link).await.payload, "out");
        other.program.signal(Signal::TERM);
        assert_eq!(other.program.exit().await, Some(0));
        knows(&node, 1).await;
    }
}

#[tokio::test]
async fn a_client_that_moves_to_another_node_is_found_there_at_once() {
    let nodes = mesh::<3>(false, "").await;
    let sender = join(&nodes[2], &[]).await;
    let mut left = Vec::new();
    let moved = name("org/ns/mover/7");
    for (round, node) in nodes[..2].iter().cycle().take(6).enumerate() {
        // The old link stays, as if its node had not noticed yet.
        let link = join(node, &["org/ns/mover/7"]).await;
        let text = format!("round {round}");
        eventually("it is found", async || {
            send(&sender, &message("org/ns/sender/1", "org/ns/mover/7", text.clone())).await;
            let got = tokio::time::timeout(std::time::Duration::from_millis(50), link.receive());
            got.await.ok().map(|message| assert_eq!(message.expect("open").destination, moved))
        })
        .await;
        // And from now on nobody else gets any.
        send(&sender, &message("org/ns/sender/1", "org/ns/mover/7", "for you")).await;
        while receive(&link).await.payload != "for you" {}
        left.push(link);
    }
}

#[tokio::test]
async fn who_does_not_agree_to_an_exchange_is_reached_by_routes_as_before() {
    let [here, there] = [free_address(), free_address()];
    let server =
        format!("endpoint: \"{there}\", tls: {{ insecure: true }}, quic: {{ exchange: false }}");
    let other = Node::launch(&crate::support::node::config("", &server)).await;
    let mut text = neighbour(here, &[there], "exchange: true", "");
    text += &format!("      routes: [{{ name: org/ns/routed, via: \"quic://{there}\" }}]\n");
    let node = Node::launch(&text).await;
    // The route, in each of the four spaces.
    knows(&node, 4).await;
    let routed = join(&other, &["org/ns/routed/1"]).await;
    let local = join(&node, &["org/ns/local/1"]).await;
    send(&local, &message("org/ns/local/1", "org/ns/routed/1", "by route")).await;
    assert_eq!(receive(&routed).await.payload, "by route");
    assert_eq!(other.metrics().await.sum("slim_subscriptions"), 1, "it was told of nothing");
}

#[tokio::test]
async fn a_hardened_node_exchanges_names_only_when_told_to() {
    for (server, told) in [("", 0), (", quic: { exchange: true }", 1)] {
        let [here, there] = [free_address(), free_address()];
        let rules = "profile: hardened\npolicy: { mode: observe, rules: [] }";
        let server = format!("endpoint: \"{there}\", tls: {{ insecure: true }}{server}");
        let other = Node::launch(&crate::support::node::config(rules, &server)).await;
        let node = Node::launch(&neighbour(here, &[there], "exchange: true", "")).await;
        other.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 1).await;
        let _local = join(&node, &["org/ns/local/1"]).await;
        let _remote = join(&other, &["org/ns/remote/1", "org/ns/remote/2"]).await;
        knows(&other, 2 + told).await;
        knows(&node, 1 + 2 * told).await;
    }
}
