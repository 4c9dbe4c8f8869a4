//! This node linked with nodes of published releases, with published clients on both.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::node::{Node, Program, config, free_address};
use support::published::{Peer, published_release, wait};

/// A release with a node and clients.
struct Release {
    python: PathBuf,
    /// Its interface is that of 1.0 and later.
    modern: bool,
    /// What `release` says of it in the configuration.
    dialect: &'static str,
}

impl Release {
    fn new(test: &str, number: &str) -> Option<Self> {
        let modern = !number.starts_with('0');
        let dialect = if modern { "2" } else { "0.6" };
        published_release(test, number).map(|python| Self { python, modern, dialect })
    }

    async fn client(&self, node: SocketAddr, name: &str, role: &[&str]) -> Peer {
        match self.modern {
            true => Peer::modern(&self.python, node, name, role).await,
            false => Peer::start(&self.python, node, name, role).await,
        }
    }

    /// Its node at `address`, with a link to `peer` if there is one, over which it reaches
    /// `routes`, and asks for `names`.
    async fn node(
        &self,
        address: SocketAddr,
        peer: Option<SocketAddr>,
        routes: &[&str],
        names: &[&str],
    ) -> Program {
        let script = if self.modern { "node_modern.py" } else { "node.py" };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = Command::new(&self.python);
        command.arg(folder.join(script)).current_dir(folder);
        match self.modern {
            true => command.args(["any", "--installed", "--listen", &address.to_string()]),
            false => command.arg(address.to_string()),
        };
        if let Some(peer) = peer {
            command.args(["--peer", &format!("http://{peer}")]);
        }
        routes.iter().for_each(|route| _ = command.args(["--route", route]));
        names.iter().for_each(|name| _ = command.args(["--subscribe", name]));
        let program = Program::spawn(command);
        program.line("listening").await;
        program
    }
}

/// This node at `address`, with a link to the published one at `other`.
fn linked(address: SocketAddr, other: SocketAddr, dialect: &str, routes: &[&str]) -> String {
    let mut text = config("", &format!("endpoint: \"{address}\", tls: {{ insecure: true }}"));
    text += &format!(
        "      clients: [{{ endpoint: \"http://{other}\", tls: {{ insecure: true }}, \
         release: \"{dialect}\", announce: true }}]\n      routes:\n"
    );
    for route in routes {
        text += &format!("        - {{ name: {route}, via: \"http://{other}\" }}\n");
    }
    text
}

/// Some requests, each answered once.
async fn converse(caller: &mut Peer, echo: &Peer) {
    caller.program.line("in session").await;
    for number in 0..10 {
        let text = format!("request {number}");
        caller.publish(&text);
        let answer = format!("echo of {text}");
        assert!(wait(Duration::from_secs(30), || caller.got(&answer) > 0).await, "{answer}");
    }
    for number in 0..10 {
        assert_eq!(echo.got(&format!("request {number}")), 1);
        assert_eq!(caller.got(&format!("echo of request {number}")), 1);
    }
}

/// This node begins the link: routes lead there, and the other node is told of names here.
async fn this_node_begins(test: &str, number: &str) {
    let Some(release) = Release::new(test, number) else {
        return;
    };
    let [here, there] = [free_address(), free_address()];
    let _other = release.node(there, None, &[], &[]).await;
    let routes = ["agntcy/ns/echo-there", "agntcy/ns/caller-there"];
    let node = Node::launch(&linked(here, there, release.dialect, &routes)).await;
    node.until("the nodes are linked", |metrics| metrics.sum("slim_subscriptions") == 2).await;
    let echo_there = release.client(there, "agntcy/ns/echo-there", &["echo"]).await;
    let echo_here = release.client(here, "agntcy/ns/echo-here", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo-there"];
    let mut caller = release.client(here, "agntcy/ns/caller-here", &role).await;
    converse(&mut caller, &echo_there).await;
    let role = ["call", "agntcy/ns/echo-here"];
    let mut caller = release.client(there, "agntcy/ns/caller-there", &role).await;
    converse(&mut caller, &echo_here).await;
}

#[tokio::test]
async fn a_node_of_0_6_is_linked_to() {
    this_node_begins("a_node_of_0_6_is_linked_to", "0.6.3").await;
}

#[tokio::test]
async fn a_node_of_2_2_is_linked_to() {
    this_node_begins("a_node_of_2_2_is_linked_to", "2.2.0").await;
}

#[tokio::test]
async fn a_node_of_3_3_is_linked_to() {
    this_node_begins("a_node_of_3_3_is_linked_to", "3.3.8").await;
}

/// The other node begins the link. It is no more than a client here: it says what it wants to have,
/// and knows by itself what is to go here.
async fn the_other_begins(test: &str, number: &str) {
    let Some(release) = Release::new(test, number) else {
        return;
    };
    let (node, there) = (Node::start("").await, free_address());
    let echo = release.client(node.address, "agntcy/ns/echo-here", &["echo"]).await;
    let name = echo.program.line("name ").await;
    let id = name.strip_prefix("name ").expect("the line begins so");
    // A route to a name does not take its ids, from 1.4 on, and before once somebody calls it.
    let (routes, names) = (["agntcy/ns/echo-here", id], ["agntcy/ns/caller-there"]);
    let _other = release.node(there, Some(node.address), &routes, &names).await;
    let role = ["call", "agntcy/ns/echo-here"];
    let mut caller = release.client(there, "agntcy/ns/caller-there", &role).await;
    converse(&mut caller, &echo).await;
}

#[tokio::test]
async fn a_node_of_0_6_links_to_this_one() {
    the_other_begins("a_node_of_0_6_links_to_this_one", "0.6.3").await;
}

#[tokio::test]
async fn a_node_of_2_2_links_to_this_one() {
    the_other_begins("a_node_of_2_2_links_to_this_one", "2.2.0").await;
}

#[tokio::test]
async fn a_node_of_3_3_links_to_this_one() {
    the_other_begins("a_node_of_3_3_links_to_this_one", "3.3.8").await;
}
