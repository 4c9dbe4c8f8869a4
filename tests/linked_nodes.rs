//! Nodes that are linked by their configurations, with published clients on each.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use support::node::{ConfigFile, Node, Program, config, free_address, slim};
use support::published::{Peer, deliver, python, reach, wait};

/// A configuration of a node at `address`, linked to the one at `other` for `routes`.
fn linked(address: SocketAddr, other: SocketAddr, routes: &[&str]) -> String {
    let server = format!("endpoint: \"{address}\", tls: {{ insecure: true }}");
    let mut text = config("", &server);
    text += &format!(
        "      clients: [{{ endpoint: \"quic://{other}\", tls: {{ insecure: true }} }}]\n      routes:\n"
    );
    for route in routes {
        text += &format!("        - {{ name: {route}, via: \"quic://{other}\" }}\n");
    }
    text
}

/// Two nodes, each with a link to the other; the first reaches `there`, the second `here`.
async fn two_nodes(there: &[&str], here: &[&str]) -> [Node; 2] {
    let [one, two] = [free_address(), free_address()];
    let nodes =
        [Node::launch(&linked(one, two, there)).await, Node::launch(&linked(two, one, here)).await];
    for node in &nodes {
        node.until("the nodes are linked", |metrics| metrics.sum("slim_links") == 2).await;
    }
    nodes
}

#[tokio::test]
async fn a_session_is_answered_across_two_nodes() {
    let Some(python) = python("a_session_is_answered_across_two_nodes") else {
        return;
    };
    let [here, there] = two_nodes(&["agntcy/ns/echo"], &["agntcy/ns/caller"]).await;
    let echo = Peer::start(python, there.address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, here.address, "agntcy/ns/caller", &role).await;
    caller.program.line("in session").await;
    for number in 0..20 {
        let text = format!("request {number}");
        caller.publish(&text);
        let answer = format!("echo of {text}");
        assert!(wait(Duration::from_secs(30), || caller.got(&answer) > 0).await, "{answer}");
    }
    for number in 0..20 {
        assert_eq!(echo.got(&format!("request {number}")), 1);
        assert_eq!(caller.got(&format!("echo of request {number}")), 1);
    }
    drop((caller, echo));
    for node in [&here, &there] {
        let metrics = node.balanced().await;
        assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
    }
}

#[tokio::test]
async fn an_encrypted_group_has_members_on_two_nodes() {
    let Some(python) = python("an_encrypted_group_has_members_on_two_nodes") else {
        return;
    };
    let (channel, moderator) = ("agntcy/ns/chat", "agntcy/ns/moderator");
    let names = ["agntcy/ns/client-1", "agntcy/ns/client-2"];
    let [here, there] = two_nodes(&[channel, names[0]], &[channel, moderator]).await;
    let mut one = Peer::start(python, there.address, names[0], &["listen"]).await;
    let mut two = Peer::start(python, here.address, names[1], &["listen"]).await;
    let role = ["moderate", channel, names[0], names[1]];
    let mut moderator = Peer::start(python, here.address, moderator, &role).await;
    for peer in [&one, &two, &moderator] {
        peer.program.line("in session").await;
    }
    reach(&mut moderator, &[&one, &two], "welcome").await;
    for number in 0..10 {
        let text = |who: &str| format!("{number} of {who}");
        deliver(&mut moderator, &[&one, &two], &text("moderator")).await;
        deliver(&mut one, &[&moderator, &two], &text("one")).await;
        deliver(&mut two, &[&moderator, &one], &text("two")).await;
    }
    for number in 0..10 {
        for (who, others) in
            [("moderator", [&one, &two]), ("one", [&moderator, &two]), ("two", [&moderator, &one])]
        {
            for other in others {
                assert_eq!(other.got(&format!("{number} of {who}")), 1, "each once, no echo");
            }
        }
    }
}

#[tokio::test]
async fn a_link_comes_back_after_the_other_node_was_restarted() {
    let Some(python) = python("a_link_comes_back_after_the_other_node_was_restarted") else {
        return;
    };
    let [one, two] = [free_address(), free_address()];
    let here = Node::launch(&linked(one, two, &["agntcy/ns/echo"])).await;
    let file = ConfigFile::new(&linked(two, one, &["agntcy/ns/caller"]));
    let start = || Node::ready(Program::spawn(slim(&["--config", &file.text()])));
    let mut there = start().await;
    let echo = Peer::start(python, there.address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, here.address, "agntcy/ns/caller", &role).await;
    reach(&mut caller, &[&echo], "before").await;
    there.program.signal(Signal::TERM);
    assert_eq!(there.program.exit().await, Some(0));
    there = start().await;
    reach(&mut caller, &[&echo], "after").await;
    there.assert_alive().await;
}
