//! Applications that are managed by messages alone, through a node in its own process.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_compat_grpc::proto::d6::Message;
use slim_quic::client::{App, CloseReason, Event, Identity, LinkOptions, Session, Trust};
use slim_quic::identity::ControlPlaneTokens;
use slim_wire::TextName;

use crate::messages::{CONTROLLER, Managed};
use crate::requests::{CHANNEL, GROUP, written};
use crate::support::client::Client;
use crate::support::node::Node;
use crate::support::published::{Peer, deliver, python, reach, wait};
use crate::support::{eventually, in_time};

/// That of tests/clients/peer.py.
const SECRET: &str = "a secret that all of the test share";

/// A node's way to say what a controller wants.
struct ControlPlane {
    link: Client,
    tokens: ControlPlaneTokens,
    group: Managed,
}

impl ControlPlane {
    async fn of(node: &Node, moderator: &str) -> Self {
        let link = Client::connect(node, CONTROLLER).await;
        let mut rng = StdRng::seed_from_u64(7);
        let tokens = ControlPlaneTokens::new(SECRET, &mut rng).expect("a secret");
        Self { link, tokens, group: Managed::new(moderator, CHANNEL, GROUP) }
    }

    /// Says it once with each token: the moderator takes one of them, whatever it is.
    async fn say(&mut self, ask: impl Fn(&mut Managed) -> Message) {
        let now = SystemTime::now();
        let clear = self.tokens.v0_6(now).expect("a token").expect("no colon in the secret");
        let native = self.tokens.native(now).expect("a token");
        let before = self.group.clone();
        for token in [clear, native] {
            self.group = before.with_token(&token);
            self.link.send(ask(&mut self.group)).await;
        }
    }
}

async fn app(node: SocketAddr, scheme: &str, name: &str, identity: Identity) -> App {
    let name: TextName = name.parse().expect("a name");
    let app = App::new(&name, identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    app.connect(&format!("{scheme}://{node}"), options).await.expect("the node answers");
    app
}

fn native(name: &str) -> Identity {
    Identity::shared_secret(name, SECRET).expect("a secret")
}

fn v0_6(name: &str) -> Identity {
    Identity::shared_secret_v0_6(name, SECRET).expect("a secret")
}

async fn opened(app: &App) -> Session {
    in_time("a session", app.listen_for_session(None)).await.expect("the app is open")
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

/// Waits until the moderator has so many members, itself among them.
async fn until_members(session: &Session, count: usize) {
    eventually("a change of the members", async || {
        let members = session.participants().expect("open");
        (members.len() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_apps_on_either_link_need_nothing_to_be_managed() {
    let node = Node::start("").await;
    for (here, there) in [("quic", "http"), ("http", "quic")] {
        let moderator = app(node.address, here, "org/ns/moderator", native("moderator")).await;
        let bob = app(node.address, there, "org/ns/bob", native("bob")).await;
        let carol = app(node.address, here, "org/ns/carol", native("carol")).await;
        let mut control_plane = ControlPlane::of(&node, &written(moderator.name())).await;

        control_plane.say(Managed::create).await;
        let session = opened(&moderator).await;
        assert!(session.id() == GROUP && session.is_initiator() && session.config().mls);
        session.publish("kept until somebody is there").await.expect("it is taken");
        control_plane.say(|group| group.invite("org/ns/bob")).await;
        let of_bob = opened(&bob).await;
        assert_eq!(message(&of_bob).await, "kept until somebody is there");
        control_plane.say(|group| group.invite("org/ns/nobody")).await;
        control_plane.say(|group| group.invite("org/ns/carol")).await;
        let of_carol = opened(&carol).await;
        until_members(&session, 3).await;
        of_carol.publish("from carol").await.expect("it is taken");
        assert_eq!(message(&session).await, "from carol");
        assert_eq!(message(&of_bob).await, "from carol");

        control_plane.say(|group| group.remove("org/ns/bob")).await;
        assert_eq!(end(&of_bob).await, CloseReason::Removed);
        control_plane.say(Managed::delete).await;
        assert_eq!(end(&session).await, CloseReason::Removed);
        assert_eq!(end(&of_carol).await, CloseReason::Removed);
        let counts = moderator.control_counts();
        // The invitation of nobody ends with the group.
        assert_eq!((counts.accepted, counts.refused, counts.repeated), (6, 0, 0));
        for app in [moderator, bob, carol] {
            app.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_group_of_native_and_published_members_is_managed_by_messages_alone() {
    let Some(python) = python("a managed group of both kinds") else { return };
    let node = Node::start("").await;
    let moderator = app(node.address, "quic", "org/ns/moderator", v0_6("moderator")).await;
    let bob = app(node.address, "quic", "org/ns/bob", v0_6("bob")).await;
    let mut one = Peer::start(python, node.address, "org/ns/one", &["listen"]).await;
    let mut control_plane = ControlPlane::of(&node, &written(moderator.name())).await;

    control_plane.say(Managed::create).await;
    let session = opened(&moderator).await;
    control_plane.say(|group| group.invite("org/ns/one")).await;
    control_plane.say(|group| group.invite("org/ns/bob")).await;
    let of_bob = opened(&bob).await;
    until_members(&session, 3).await;
    session.publish("to both").await.expect("it is taken");
    assert_eq!(message(&of_bob).await, "to both");
    let heard = wait(Duration::from_secs(30), || one.got("to both") == 1).await;
    assert!(heard, "the published member hears the moderator");
    one.publish("from one");
    assert_eq!(message(&session).await, "from one");
    assert_eq!(message(&of_bob).await, "from one");

    control_plane.say(|group| group.remove("org/ns/one")).await;
    one.program.line("ended").await;
    until_members(&session, 2).await;
    of_bob.publish("without one").await.expect("it is taken");
    assert_eq!(message(&session).await, "without one");
    assert_eq!(one.got("without one"), 0);
    control_plane.say(Managed::delete).await;
    assert_eq!(end(&session).await, CloseReason::Removed);
    assert_eq!(end(&of_bob).await, CloseReason::Removed);
    // These apps take either token: each request came twice, and was executed once.
    eventually("the last request comes again", async || {
        (moderator.control_counts().repeated == 5).then_some(())
    })
    .await;
    let counts = moderator.control_counts();
    assert_eq!((counts.accepted, counts.repeated, counts.failed), (5, 5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_moderator_is_managed_by_the_same_messages() {
    let Some(python) = python("a managed group of a published moderator") else { return };
    let node = Node::start("").await;
    let mut moderator = Peer::start(python, node.address, "org/ns/moderator", &["listen"]).await;
    let one = Peer::start(python, node.address, "org/ns/one", &["listen"]).await;
    let bob = app(node.address, "quic", "org/ns/bob", v0_6("bob")).await;
    let name = moderator.program.stdout.find("name ").expect("it tells its name");
    let name = name.trim_start_matches("name ").to_owned();
    let mut control_plane = ControlPlane::of(&node, &name).await;

    control_plane.say(Managed::create).await;
    moderator.program.line("in session").await;
    control_plane.say(|group| group.invite("org/ns/one")).await;
    reach(&mut moderator, &[&one], "to one").await;
    control_plane.say(|group| group.invite("org/ns/bob")).await;
    let of_bob = opened(&bob).await;
    assert!(of_bob.config().mls);
    // What comes before the first of these is not asked for again.
    of_bob.publish("from bob").await.expect("it is taken");
    let heard = wait(Duration::from_secs(30), || moderator.got("from bob") == 1).await;
    assert!(heard, "the moderator hears the native member");
    control_plane.say(|group| group.remove("org/ns/one")).await;
    one.program.line("ended").await;
    deliver(&mut moderator, &[], "on its way").await;
    control_plane.say(Managed::delete).await;
    moderator.program.line("ended").await;
    loop {
        match in_time("the end", of_bob.next_event()).await.expect("an event") {
            Event::Closed(reason) => break assert_eq!(reason, CloseReason::Removed),
            event => assert!(!matches!(event, Event::Failed(_)), "{event:?}"),
        }
    }
}
