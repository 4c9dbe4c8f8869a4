//! Apps of the client library through a node in its own process, over both kinds of link.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use slim_quic::client::{
    App, AppError, AppOptions, CloseReason, Config, Event, Identity, LinkOptions, Session,
    SessionError, Trust,
};
use slim_wire::TextName;

use tokio::runtime::Runtime;

use support::node::Node;
use support::{PATIENCE, in_time};

const SECRET: &str = "a secret that all of the test share";

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

async fn app(node: SocketAddr, scheme: &str, name: &str) -> App {
    let identity = Identity::shared_secret(name, SECRET).expect("a secret");
    let app = App::new(&text(&format!("org/ns/{name}")), identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    app.connect(&format!("{scheme}://{node}"), options).await.expect("the node answers");
    app
}

async fn opened(app: &App) -> Session {
    in_time("a session", app.listen_for_session(None)).await.expect("the app is open")
}

async fn message(session: &Session) -> String {
    let (_, payload) = in_time("a message", session.get_message()).await.expect("a message");
    String::from_utf8(payload.to_vec()).expect("text")
}

fn reliable(config: Config) -> Config {
    config.reliable(Duration::from_secs(1), Some(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_talk_over_any_two_links_encrypted_or_not() {
    let node = Node::start("").await;
    for (here, there) in [("quic", "quic"), ("quic", "http"), ("http", "quic"), ("http", "http")] {
        for encrypted in [false, true] {
            let alice = app(node.address, here, "alice").await;
            let bob = app(node.address, there, "bob").await;
            let mut config = reliable(Config::point_to_point(&text("org/ns/bob")));
            config.mls = encrypted;
            let session = alice.create_session(config).expect("a session");
            for number in 0..20 {
                session.publish(format!("{number}")).await.expect("it is taken");
            }
            let answering = opened(&bob).await;
            for number in 0..20 {
                let (context, payload) =
                    in_time("a request", answering.get_message()).await.expect("a request");
                assert_eq!(payload, format!("{number}"));
                assert_eq!(context.source.name, alice.name().to_name());
                answering.publish_to(&context, payload).await.expect("it is taken");
            }
            for number in 0..20 {
                assert_eq!(message(&session).await, format!("{number}"));
            }
            alice.close().await;
            bob.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_over_both_links_hears_all_and_is_told_of_changes() {
    let node = Node::start("").await;
    let moderator = app(node.address, "quic", "moderator").await;
    let bob = app(node.address, "quic", "bob").await;
    let carol = app(node.address, "http", "carol").await;
    let config = Config::group(&text("org/ns/channel")).encrypted();
    let session = moderator.create_session(reliable(config)).expect("a session");
    let invitation = session.invite(&text("org/ns/bob")).expect("it starts");
    in_time("bob", invitation.done()).await.expect("bob joins");
    let invitation = session.invite(&text("org/ns/carol")).expect("it starts");
    in_time("carol", invitation.done()).await.expect("carol joins");
    let (of_bob, of_carol) = (opened(&bob).await, opened(&carol).await);
    session.publish("from the moderator").await.expect("it is taken");
    assert_eq!(message(&of_bob).await, "from the moderator");
    assert_eq!(message(&of_carol).await, "from the moderator");
    of_carol.publish("from carol").await.expect("it is taken");
    assert_eq!(message(&session).await, "from carol");
    assert_eq!(message(&of_bob).await, "from carol");
    assert_eq!(session.participants().expect("open").len(), 3);

    let removal = session.remove(&text("org/ns/bob")).expect("it starts");
    in_time("bob's removal", removal.done()).await.expect("bob leaves");
    session.publish("without bob").await.expect("it is taken");
    assert_eq!(message(&of_carol).await, "without bob");
    loop {
        match in_time("the end", of_bob.next_event()).await.expect("an event") {
            Event::Closed(reason) => break assert_eq!(reason, CloseReason::Removed),
            event => assert!(!matches!(event, Event::Message(..)), "{event:?}"),
        }
    }
    moderator.delete_session(session);
    loop {
        match in_time("the end", of_carol.next_event()).await.expect("an event") {
            Event::Closed(reason) => break assert_eq!(reason, CloseReason::Removed),
            event => assert!(!matches!(event, Event::Message(..)), "{event:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anycast_messages_are_spread_over_the_instances() {
    let node = Node::start("").await;
    let sender = app(node.address, "quic", "sender").await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(app(node.address, "quic", "worker").await);
    }
    let session = sender.create_session(reliable(Config::anycast())).expect("a session");
    for number in 0..30 {
        let payload = format!("{number}");
        let to = text("org/ns/worker");
        session.publish_with_destination(&to, payload).await.expect("it is taken");
    }
    let mut counts = Vec::new();
    for instance in &instances {
        let session = opened(instance).await;
        let mut count = 0;
        while let Ok((context, payload)) =
            session.get_message_within(Duration::from_millis(500)).await
        {
            session.publish_to(&context, payload).await.expect("it is taken");
            count += 1;
        }
        counts.push(count);
    }
    assert_eq!(counts.iter().sum::<i32>(), 30, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    for _ in 0..30 {
        message(&session).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_secret_is_refused_with_a_reason() {
    let node = Node::start("").await;
    let alice = app(node.address, "quic", "alice").await;
    let identity = Identity::shared_secret("mallory", "another secret").expect("a secret");
    let mallory = App::new(&text("org/ns/mallory"), identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    mallory.connect(&format!("quic://{}", node.address), options).await.expect("a link");
    let config = reliable(Config::point_to_point(&text("org/ns/alice"))).encrypted();
    let session = mallory.create_session(config).expect("a session");
    session.publish("let me in").await.expect("it is taken");
    let error = in_time("an error", session.get_message()).await.expect_err("refused");
    assert!(error.to_string().contains("mismatch"), "{error}");
    let undelivered = in_time("an error", session.get_message()).await;
    assert!(matches!(undelivered, Err(SessionError::Undelivered { message: 0, .. })));
    assert_eq!(alice.rejections().len(), 1);
    let nothing = alice.listen_for_session(Some(Duration::ZERO)).await;
    assert!(matches!(nothing, Err(AppError::Timeout)));
}

/// An app that keeps its groups in a folder, with a runtime of its own that can end without a
/// word, as a process does.
struct Process {
    app: App,
    runtime: Runtime,
}

impl Process {
    async fn start(node: SocketAddr, name: &'static str, folder: &Path) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let options = AppOptions { folder: Some(folder.join(name)), ..AppOptions::default() };
        let app = runtime.spawn(async move {
            let identity = Identity::shared_secret(name, SECRET).expect("a secret");
            let app = App::with_options(&text(&format!("org/ns/{name}")), identity, options);
            let app = app.expect("an app");
            let trust = Trust::DangerAcceptAnyCertificate;
            let options = LinkOptions { trust, ..LinkOptions::default() };
            app.connect(&format!("quic://{node}"), options).await.expect("the node answers");
            app
        });
        Self { app: app.await.expect("no panic"), runtime }
    }

    async fn crash(self, session: Session) {
        let end = move || self.runtime.shutdown_timeout(PATIENCE);
        tokio::task::spawn_blocking(end).await.expect("no panic");
        // In this order: a session that is dropped before its app is left.
        drop(self.app);
        drop(session);
    }
}

/// What is heard until `last` is. A member that has been restarted does not know which of the
/// numbers it had reserved were used, so that messages may be told to be lost which never were.
async fn heard_until(session: &Session, last: &str) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    while heard.last().is_none_or(|text| text != last) {
        match in_time(last, session.get_message()).await {
            Ok((_, payload)) => heard.push(String::from_utf8(payload.to_vec()).expect("text")),
            Err(SessionError::Lost { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_encrypted_group_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start("").await;
    let moderator = Process::start(node.address, "moderator", folder.path()).await;
    let bob = Process::start(node.address, "bob", folder.path()).await;
    let carol = app(node.address, "http", "carol").await;
    let config = reliable(Config::group(&text("org/ns/channel")).encrypted());
    let session = moderator.app.create_session(config).expect("a session");
    for name in ["org/ns/bob", "org/ns/carol"] {
        let invitation = session.invite(&text(name)).expect("it starts");
        in_time(name, invitation.done()).await.expect("it joins");
    }
    let (of_bob, of_carol) = (opened(&bob.app).await, opened(&carol).await);
    session.publish("before").await.expect("it is taken");
    of_bob.publish("bob before").await.expect("it is taken");
    assert_eq!(message(&of_bob).await, "before");
    // What nobody has when its sender dies may be lost.
    let mut heard = heard_until(&of_carol, "bob before").await;
    let name = bob.app.name().clone();

    bob.crash(of_bob).await;
    let bob = Process::start(node.address, "bob", folder.path()).await;
    assert_eq!(*bob.app.name(), name, "it has kept its id");
    let of_bob = bob.app.restore_sessions().expect("a folder").pop().expect("a session");
    session.publish("after").await.expect("it is taken");
    // What it had not acknowledged when it ended comes again.
    let again = heard_until(&of_bob, "after").await;
    assert!(again == ["after"] || again == ["before", "after"], "{again:?}");
    of_bob.publish("bob after").await.expect("it is taken");
    heard.extend(heard_until(&of_carol, "bob after").await);
    heard.sort();
    assert_eq!(heard, ["after", "before", "bob after", "bob before"]);

    moderator.crash(session).await;
    let moderator = Process::start(node.address, "moderator", folder.path()).await;
    let session = moderator.app.restore_sessions().expect("a folder").pop().expect("a session");
    assert_eq!(session.participants().expect("open").len(), 3);
    let _dave = app(node.address, "quic", "dave").await;
    let invitation = session.invite(&text("org/ns/dave")).expect("it starts");
    in_time("dave", invitation.done()).await.expect("dave joins");
    session.publish("with dave").await.expect("it is taken");
    assert_eq!(heard_until(&of_bob, "with dave").await, ["with dave"]);
    let removal = session.remove(&text("org/ns/bob")).expect("it starts");
    in_time("bob's removal", removal.done()).await.expect("bob leaves");
    drop(of_bob);
    assert!(bob.app.restore_sessions().expect("a folder").is_empty(), "nothing is kept of it");
    moderator.crash(session).await;
    bob.runtime.shutdown_background();
}
