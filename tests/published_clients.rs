//! Unmodified published clients, from the Python package of release 0.6, against this node.

mod support;

use std::time::Duration;

use rustix::process::Signal;

use support::node::{ConfigFile, Node, Program, config, slim};
use support::published::{Peer, deliver, python, reach, wait};

#[tokio::test]
async fn a_moderator_and_two_members_hold_an_encrypted_group() {
    let Some(python) = python("a_moderator_and_two_members_hold_an_encrypted_group") else {
        return;
    };
    let node = Node::start("").await;
    let names = ["agntcy/ns/client-1", "agntcy/ns/client-2"];
    let mut one = Peer::start(python, node.address, names[0], &["listen"]).await;
    let mut two = Peer::start(python, node.address, names[1], &["listen"]).await;
    let role = ["moderate", "agntcy/ns/chat", names[0], names[1]];
    let mut moderator = Peer::start(python, node.address, "agntcy/ns/moderator", &role).await;
    for peer in [&one, &two, &moderator] {
        peer.program.line("in session").await;
    }
    reach(&mut moderator, &[&one, &two], "welcome").await;
    for number in 0..20 {
        let text = |who: &str| format!("{number} of {who}");
        deliver(&mut moderator, &[&one, &two], &text("moderator")).await;
        deliver(&mut one, &[&moderator, &two], &text("one")).await;
        deliver(&mut two, &[&moderator, &one], &text("two")).await;
    }
    for number in 0..20 {
        for (who, others) in
            [("moderator", [&one, &two]), ("one", [&moderator, &two]), ("two", [&moderator, &one])]
        {
            for other in others {
                assert_eq!(other.got(&format!("{number} of {who}")), 1);
            }
        }
    }
    drop((moderator, one, two));
    node.until("all links are gone", |metrics| {
        metrics.sum("slim_links") == 0 && metrics.sum("slim_subscriptions") == 0
    })
    .await;
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}

#[tokio::test]
async fn a_point_to_point_session_is_answered() {
    let Some(python) = python("a_point_to_point_session_is_answered") else {
        return;
    };
    let node = Node::start("").await;
    let echo = Peer::start(python, node.address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, node.address, "agntcy/ns/caller", &role).await;
    caller.program.line("in session").await;
    for number in 0..20 {
        let text = format!("request {number}");
        caller.publish(&text);
        let answer = format!("echo of {text}");
        let answered = || caller.got(&answer) > 0;
        assert!(wait(Duration::from_secs(30), answered).await, "{answer}");
    }
    for number in 0..20 {
        assert_eq!(echo.got(&format!("request {number}")), 1);
        assert_eq!(caller.got(&format!("echo of request {number}")), 1);
    }
    drop((caller, echo));
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
}

#[tokio::test]
async fn clients_come_back_after_the_node_was_restarted() {
    let Some(python) = python("clients_come_back_after_the_node_was_restarted") else {
        return;
    };
    let mut node = Node::start("").await;
    let address = node.address;
    let server = format!("endpoint: \"{address}\", tls: {{ insecure: true }}");
    let file = ConfigFile::new(&config("", &server));
    let echo = Peer::start(python, address, "agntcy/ns/echo", &["echo"]).await;
    let role = ["call", "agntcy/ns/echo"];
    let mut caller = Peer::start(python, address, "agntcy/ns/caller", &role).await;
    reach(&mut caller, &[&echo], "before").await;
    for (signal, code, what) in
        [(Signal::TERM, Some(0), "after a stop"), (Signal::KILL, None, "after a crash")]
    {
        node.program.signal(signal);
        assert_eq!(node.program.exit().await, code);
        node = Node::ready(Program::spawn(slim(&["--config", &file.text()]))).await;
        node.until("both are back", |metrics| {
            metrics.sum("slim_links") == 2 && metrics.sum("slim_subscriptions") >= 2
        })
        .await;
        // The session goes on where it was.
        reach(&mut caller, &[&echo], what).await;
    }
    node.balanced().await;
}
