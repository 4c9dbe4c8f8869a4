//! Native apps and apps of the published Python package in the same sessions.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use slim_quic::client::{
    App, AppOptions, CloseReason, Config, Event, Identity, Limits, LinkOptions, Session, Trust,
};
use slim_wire::TextName;

use support::in_time;
use support::node::Node;
use support::published::{Peer, python};

/// That of tests/clients/peer.py.
const SECRET: &str = "a secret that all of the test share";

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

async fn app(node: SocketAddr, scheme: &str, name: &str) -> App {
    app_with(node, scheme, name, Limits::default()).await
}

async fn app_with(node: SocketAddr, scheme: &str, name: &str, limits: Limits) -> App {
    let identity = Identity::shared_secret_v0_6(name, SECRET).expect("a secret");
    let options = AppOptions { limits, ..AppOptions::default() };
    let app = App::with_options(&text(name), identity, options).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    app.connect(&format!("{scheme}://{node}"), options).await.expect("the node answers");
    app
}

async fn message(session: &Session) -> String {
    let (_, payload) = in_time("a message", session.get_message()).await.expect("a message");
    String::from_utf8(payload.to_vec()).expect("text")
}

async fn end(session: &Session) -> CloseReason {
    loop {
        match in_time("the end", session.next_event()).await.expect("an event") {
            Event::Closed(reason) => return reason,
            event => assert!(!matches!(event, Event::Message(..)), "{event:?}"),
        }
    }
}

/// As long as published apps take at worst.
async fn wait(what: &str, check: impl FnMut() -> bool) {
    assert!(
        support::published::wait(Duration::from_secs(30), check).await,
        "waited in vain: {what}"
    );
}

fn group() -> Config {
    Config::group(&text("org/ns/channel")).reliable(Duration::from_secs(1), Some(10)).encrypted()
}

/// A native moderator, natives on either link, and published members.
async fn native_moderator(node: SocketAddr, scheme: &str, python: &Path) {
    let moderator = app(node, scheme, "org/ns/moderator").await;
    let native = app(node, "http", "org/ns/native").await;
    let mut one = Peer::start(python, node, "org/ns/one", &["listen"]).await;
    let mut two = Peer::start(python, node, "org/ns/two", &["listen"]).await;
    let session = moderator.create_session(group()).expect("a session");
    for name in ["org/ns/one", "org/ns/native"] {
        let invitation = session.invite(&text(name)).expect("it starts");
        in_time(name, invitation.done()).await.expect("it joins");
    }
    let of_native = in_time("a session", native.listen_for_session(None)).await.expect("open");
    session.publish("first").await.expect("it is taken");
    assert_eq!(message(&of_native).await, "first");
    wait("the first message", || one.got("first") == 1).await;

    // Late join.
    let invitation = session.invite(&text("org/ns/two")).expect("it starts");
    in_time("two", invitation.done()).await.expect("it joins");
    wait("the session", || two.program.stdout.find("in session").is_some()).await;
    session.publish("second").await.expect("it is taken");
    of_native.publish("from native").await.expect("it is taken");
    one.publish("from one");
    two.publish("from two");
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(message(&session).await);
    }
    heard.sort();
    assert_eq!(heard, ["from native", "from one", "from two"]);
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(message(&of_native).await);
    }
    heard.sort();
    assert_eq!(heard, ["from one", "from two", "second"]);
    wait("all messages", || {
        one.got("second") + one.got("from native") + one.got("from two") == 3
            && two.got("second") + two.got("from native") + two.got("from one") == 3
    })
    .await;
    assert_eq!(two.got("first"), 0);

    // Removal.
    let removal = session.remove(&text("org/ns/one")).expect("it starts");
    in_time("the removal", removal.done()).await.expect("it leaves");
    wait("the end", || one.program.stdout.find("ended").is_some()).await;
    session.publish("without one").await.expect("it is taken");
    wait("a message", || two.got("without one") == 1).await;
    assert_eq!(message(&of_native).await, "without one");
    assert_eq!(one.got("without one"), 0);

    // Close.
    moderator.delete_session(session);
    wait("the end", || two.program.stdout.find("ended").is_some()).await;
    assert_eq!(end(&of_native).await, CloseReason::Removed);
}

/// A published moderator, and natives on either link.
async fn published_moderator(node: SocketAddr, scheme: &str, python: &Path) {
    let quic = app(node, scheme, "org/ns/first").await;
    let http = app(node, "http", "org/ns/second").await;
    let members = ["org/ns/channel", "org/ns/first"];
    let role = [&["moderate"], &members[..]].concat();
    let mut moderator = Peer::start(python, node, "org/ns/moderator", &role).await;
    let of_quic = in_time("a session", quic.listen_for_session(None)).await.expect("open");
    moderator.publish("first");
    assert_eq!(message(&of_quic).await, "first");
    // Late join.
    moderator.publish("/invite org/ns/second");
    let of_http = in_time("a session", http.listen_for_session(None)).await.expect("open");
    of_http.publish("from http").await.expect("it is taken");
    assert_eq!(message(&of_quic).await, "from http");
    wait("a message", || moderator.got("from http") == 1).await;
    of_quic.publish("from quic").await.expect("it is taken");
    assert_eq!(message(&of_http).await, "from quic");
    wait("a message", || moderator.got("from quic") == 1).await;
    moderator.publish("second");
    assert_eq!(message(&of_quic).await, "second");
    assert_eq!(message(&of_http).await, "second");
    // Removal.
    moderator.publish("/remove org/ns/first");
    assert_eq!(end(&of_quic).await, CloseReason::Removed);
    moderator.publish("third");
    assert_eq!(message(&of_http).await, "third");
    of_http.publish("still here").await.expect("it is taken");
    wait("a message", || moderator.got("still here") == 1).await;
    drop(of_http);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_moderator_has_published_members_in_its_encrypted_group() {
    let Some(python) = python("native moderator") else { return };
    let node = Node::start("").await;
    native_moderator(node.address, "quic", python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_apps_are_members_of_a_published_moderators_encrypted_group() {
    let Some(python) = python("published moderator") else { return };
    let node = Node::start("").await;
    published_moderator(node.address, "quic", python).await;
}
