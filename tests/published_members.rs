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
use support::published::{Peer, first_python, published_node, python};

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
    // A beacon of the moderator may have told of its last message, which is asked for then.
    let heard = message(&of_http).await;
    let heard = if heard == "first" { message(&of_http).await } else { heard };
    assert_eq!(heard, "from quic");
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

/// A group whose keys are renewed by a native moderator, a native member and a published member.
async fn renewal_under_a_native_moderator(node: SocketAddr, python: &Path) {
    let often = Limits { key_rotation: Duration::from_secs(2), ..Limits::default() };
    let moderator = app_with(node, "quic", "org/ns/moderator", often).await;
    let native = app_with(node, "http", "org/ns/native", often).await;
    let mut one = Peer::start_with_clock(python, node, "org/ns/one", &["listen"]).await;
    let session = moderator.create_session(group()).expect("a session");
    for name in ["org/ns/one", "org/ns/native"] {
        let invitation = session.invite(&text(name)).expect("it starts");
        in_time(name, invitation.done()).await.expect("it joins");
    }
    let of_native = in_time("a session", native.listen_for_session(None)).await.expect("open");
    for round in 0..8 {
        if round % 3 == 0 {
            one.skip_hour();
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let [from_moderator, from_native, from_one] =
            ["moderator", "native", "one"].map(|name| format!("{round} from {name}"));
        session.publish(from_moderator.clone()).await.expect("it is taken");
        of_native.publish(from_native.clone()).await.expect("it is taken");
        one.publish(&from_one);
        let mut heard = [message(&session).await, message(&session).await];
        heard.sort();
        assert_eq!(heard, [from_native.clone(), from_one.clone()]);
        let mut heard = [message(&of_native).await, message(&of_native).await];
        heard.sort();
        assert_eq!(heard, [from_moderator.clone(), from_one]);
        wait("both messages", || one.got(&from_moderator) + one.got(&from_native) == 2).await;
    }
    assert_eq!(one.program.stdout.count("told"), 0);
}

/// A group whose keys are renewed by a published moderator, a published and a native member.
async fn renewal_under_a_published_moderator(node: SocketAddr, python: &Path) {
    let often = Limits { key_rotation: Duration::from_secs(2), ..Limits::default() };
    let native = app_with(node, "quic", "org/ns/native", often).await;
    let mut one = Peer::start(python, node, "org/ns/one", &["listen"]).await;
    let role = ["moderate", "org/ns/channel", "org/ns/native", "org/ns/one"];
    let mut moderator = Peer::start_with_clock(python, node, "org/ns/moderator", &role).await;
    let of_native = in_time("a session", native.listen_for_session(None)).await.expect("open");
    wait("the session", || one.program.stdout.find("in session").is_some()).await;
    for round in 0..8 {
        if round % 3 == 0 {
            moderator.skip_hour();
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let [from_moderator, from_native, from_one] =
            ["moderator", "native", "one"].map(|name| format!("{round} from {name}"));
        moderator.publish(&from_moderator);
        of_native.publish(from_native.clone()).await.expect("it is taken");
        one.publish(&from_one);
        let mut heard = [message(&of_native).await, message(&of_native).await];
        heard.sort();
        assert_eq!(heard, [from_moderator.clone(), from_one.clone()]);
        wait("all messages", || {
            one.got(&from_moderator) + one.got(&from_native) == 2
                && moderator.got(&from_one) + moderator.got(&from_native) == 2
        })
        .await;
    }
}

/// A point-to-point session from a native app to a published one, and the other way round.
async fn point_to_point(node: SocketAddr, scheme: &str, python: &Path) {
    let native = app(node, scheme, "org/ns/native").await;
    let echo = Peer::start(python, node, "org/ns/echo", &["echo"]).await;
    let config = Config::point_to_point(&text("org/ns/echo"));
    let config = config.reliable(Duration::from_secs(1), Some(10)).encrypted();
    let session = native.create_session(config).expect("a session");
    for number in 0..20 {
        session.publish(format!("{number}")).await.expect("it is taken");
        assert_eq!(message(&session).await, format!("echo of {number}"));
    }
    assert_eq!(echo.got("19"), 1);
    drop(session);

    let role = ["call", "org/ns/native"];
    let mut caller = Peer::start(python, node, "org/ns/caller", &role).await;
    caller.publish("hello");
    let session = in_time("a session", native.listen_for_session(None)).await.expect("open");
    assert!(session.config().mls);
    for number in 0..20 {
        let expected = if number == 0 { "hello".to_owned() } else { format!("{number}") };
        assert_eq!(message(&session).await, expected);
        session.publish(format!("echo of {expected}")).await.expect("it is taken");
        wait("the echo", || caller.got(&format!("echo of {expected}")) == 1).await;
        caller.publish(&format!("{}", number + 1));
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_the_same_with_the_first_release_0_6() {
    let Some(python) = first_python("groups with 0.6.0") else { return };
    let node = Node::start("").await;
    native_moderator(node.address, "quic", python).await;
    published_moderator(node.address, "quic", python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_the_same_through_a_published_node() {
    let Some(python) = python("groups through a published node") else { return };
    let (_node, address) = published_node(python).await;
    let address = address.parse().expect("an address");
    native_moderator(address, "http", python).await;
    published_moderator(address, "http", python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_by_members_of_both_kinds_under_a_native_moderator() {
    let Some(python) = python("keys under a native moderator") else { return };
    let node = Node::start("").await;
    renewal_under_a_native_moderator(node.address, python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_by_members_of_both_kinds_under_a_published_moderator() {
    let Some(python) = python("keys under a published moderator") else { return };
    let node = Node::start("").await;
    renewal_under_a_published_moderator(node.address, python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_point_to_point_sessions_are_answered_both_ways() {
    let Some(python) = python("point to point") else { return };
    let node = Node::start("").await;
    point_to_point(node.address, "quic", python).await;
    point_to_point(node.address, "http", python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_point_to_point_sessions_work_with_the_first_release_0_6() {
    let Some(python) = first_python("point to point with 0.6.0") else { return };
    let node = Node::start("").await;
    point_to_point(node.address, "quic", python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_member_leaves_a_published_moderators_group() {
    let Some(python) = python("leaving") else { return };
    let node = Node::start("").await;
    let native = app(node.address, "quic", "org/ns/native").await;
    let role = ["moderate", "org/ns/channel", "org/ns/native"];
    let mut moderator = Peer::start(python, node.address, "org/ns/moderator", &role).await;
    let session = in_time("a session", native.listen_for_session(None)).await.expect("open");
    moderator.publish("before");
    assert_eq!(message(&session).await, "before");
    let before = node.metrics().await.sum("slim_subscriptions");
    native.delete_session(session);
    // The moderator lets it go, and it leaves the channel.
    node.until("it leaves the channel", |metrics| metrics.sum("slim_subscriptions") < before).await;
    // Were it still a member, no invitation would ever be completed again.
    moderator.publish("/invite org/ns/native");
    let session = in_time("a session", native.listen_for_session(None)).await.expect("open");
    moderator.publish("after");
    assert_eq!(message(&session).await, "after");
}
