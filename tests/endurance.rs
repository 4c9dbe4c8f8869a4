//! What sessions promise when a node dies under them: it is killed in the middle of a conversation
//! and started again, and the apps do nothing about it.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use rustix::process::Signal;
use slim_quic::client::{
    App, AppError, Config, Context, Event, Identity, LinkOptions, Session, Trust,
};
use slim_wire::TextName;

use support::in_time;
use support::node::{Node, config};
use support::published::{Peer, python, wait};

const SECRET: &str = "a secret that all of the test share";

/// How long the node is away: the time itself is what is tried.
const OUTAGE: Duration = Duration::from_secs(3);

/// How long a message may take at worst: a link that went silent is noticed after 10 s, requests
/// are repeated each second, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long is listened for what must not come.
const SILENCE: Duration = Duration::from_secs(2);

fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

async fn app(node: SocketAddr, scheme: &str, name: &str) -> App {
    let identity = Identity::shared_secret(name, SECRET).expect("a secret");
    connect(node, scheme, name, identity).await
}

async fn connect(node: SocketAddr, scheme: &str, name: &str, identity: Identity) -> App {
    let app = App::new(&text(&format!("org/ns/{name}")), identity).expect("an app");
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    app.connect(&format!("{scheme}://{node}"), options).await.expect("the node answers");
    app
}

async fn opened(app: &App) -> Session {
    in_time("a session", app.listen_for_session(None)).await.expect("the app is open")
}

fn reliable(config: Config) -> Config {
    config.reliable(Duration::from_secs(1), Some(10)).encrypted()
}

/// Kills the node once `progress` says that it is time, and starts it again where it was.
async fn outage(mut node: Node, progress: &AtomicU32, at: u32) -> Node {
    while progress.load(Ordering::Relaxed) < at {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let server = format!("endpoint: \"{}\", tls: {{ insecure: true }}", node.address);
    node.program.signal(Signal::KILL);
    node.program.exit().await;
    tokio::time::sleep(OUTAGE).await;
    Node::launch(&config("", &server)).await
}

/// The next message; whatever else happens is against the promise.
async fn message(session: &Session) -> (Context, u32) {
    loop {
        let event = tokio::time::timeout(PATIENCE, session.next_event()).await;
        match event.expect("a message in time").expect("the session goes on") {
            Event::Message(context, payload) => {
                let number = str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
                return (context, number.expect("a number"));
            }
            Event::Joined(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn publish(session: &Session, numbers: Range<u32>) {
    for number in numbers {
        session.publish(number.to_string()).await.expect("it is taken");
    }
}

/// Nothing more comes: no message twice, and no error.
async fn hear_nothing_more(session: &Session) {
    let nothing = session.get_message_within(SILENCE).await;
    assert!(matches!(nothing, Err(AppError::Timeout)), "{nothing:?}");
}

async fn hold_a_conversation(scheme: &str) {
    const MESSAGES: u32 = 10_000;
    let node = Node::start("").await;
    let alice = app(node.address, scheme, "alice").await;
    let bob = app(node.address, scheme, "bob").await;
    let config = reliable(Config::point_to_point(&text("org/ns/bob")));
    let session = alice.create_session(config).expect("a session");
    let received = AtomicU32::new(0);
    let receive = async {
        let session = opened(&bob).await;
        for number in 0..MESSAGES {
            assert_eq!(message(&session).await.1, number);
            received.store(number, Ordering::Relaxed);
        }
        session
    };
    let conversation = join(publish(&session, 0..MESSAGES), receive);
    let (node, ((), answering)) = join(outage(node, &received, MESSAGES / 2), conversation).await;
    join(hear_nothing_more(&session), hear_nothing_more(&answering)).await;
    // The session is as good as before.
    publish(&answering, 0..1).await;
    assert_eq!(message(&session).await.1, 0);
    node.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_over_quic_survives_the_death_of_its_node() {
    hold_a_conversation("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_over_http_survives_the_death_of_its_node() {
    hold_a_conversation("http").await;
}

/// A member of a group, and how many messages it publishes.
struct Member {
    app: App,
    session: Session,
    messages: u32,
}

/// A group of natives, the moderator first.
async fn gather(node: SocketAddr, schemes: &[&str], messages: &[u32]) -> Vec<Member> {
    let moderator = app(node, schemes[0], "member-0").await;
    let config = reliable(Config::group(&text("org/ns/channel")));
    let session = moderator.create_session(config).expect("a session");
    let mut members = vec![Member { app: moderator, session, messages: messages[0] }];
    for (number, messages) in messages.iter().enumerate().skip(1) {
        let name = format!("member-{number}");
        let app = app(node, schemes[number % schemes.len()], &name).await;
        let invitation = members[0].session.invite(&text(&format!("org/ns/{name}")));
        in_time("a member", invitation.expect("it starts").done()).await.expect("it joins");
        let session = opened(&app).await;
        members.push(Member { app, session, messages: *messages });
    }
    members
}

/// Everything that the others publish, in the order of each.
async fn hear_all(member: &Member, all: &[Member], received: &AtomicU32) {
    let others: Vec<_> = all.iter().filter(|other| !std::ptr::eq(*other, member)).collect();
    let total: u32 = others.iter().map(|other| other.messages).sum();
    let mut heard = vec![0; others.len()];
    for _ in 0..total {
        let (context, number) = message(&member.session).await;
        let is_source = |other: &&&Member| other.app.name().to_name() == context.source.name;
        let index = others.iter().position(|other| is_source(&other)).expect("a member");
        assert_eq!(number, heard[index], "{:?} heard {}", member.app, context.source);
        heard[index] += 1;
        received.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_survives_the_death_of_its_node() {
    let node = Node::start("").await;
    let messages = [10_000, 200, 200, 200, 200];
    let members = gather(node.address, &["quic", "http"], &messages).await;
    let received = AtomicU32::new(0);
    let deliveries = (messages.iter().sum::<u32>()) * (messages.len() as u32 - 1);
    let publishing = join_all(members.iter().map(async |member| {
        // Those who have little to say say it over the whole time.
        let pause = deliveries / member.messages;
        for number in 0..member.messages {
            while member.messages < 10_000 && received.load(Ordering::Relaxed) < number * pause / 2
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            publish(&member.session, number..number + 1).await;
        }
    }));
    let hearing = join_all(members.iter().map(|member| hear_all(member, &members, &received)));
    let conversation = join(publishing, hearing);
    let (node, _) = join(outage(node, &received, deliveries / 2), conversation).await;
    join_all(members.iter().map(|member| hear_nothing_more(&member.session))).await;
    node.assert_alive().await;
}

/// What a member of a mixed group has heard: of each sender, the numbers of its messages.
#[derive(Debug, Default)]
struct Heard(BTreeMap<String, Vec<u32>>);

impl Heard {
    fn take(&mut self, text: &str) {
        let (sender, number) = text.split_once(' ').expect("a sender and a number");
        let number = number.parse().expect("a number");
        self.0.entry(sender.to_owned()).or_default().push(number);
    }

    /// What a published client has printed. An error that it was told of is none of ours to excuse.
    fn printed(peer: &Peer) -> Self {
        let mut heard = Self::default();
        for line in peer.program.stdout.all() {
            match line.split_once(' ') {
                Some(("got", text)) => heard.take(text),
                Some(("told", error)) => panic!("a published member was told: {error}"),
                _ => {}
            }
        }
        heard
    }

    /// What a native member hears until it knows `total` messages.
    async fn of(session: &Session, total: u32) -> Self {
        let mut heard = Self::default();
        let mut count = 0;
        while count < total {
            let event = tokio::time::timeout(PATIENCE, session.next_event()).await;
            match event.expect("an event in time").expect("the session goes on") {
                Event::Message(_, payload) => {
                    heard.take(str::from_utf8(&payload).expect("text"));
                    count += 1;
                }
                Event::Joined(_) => {}
                other => panic!("{other:?}"),
            }
        }
        heard
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn is_in_order(&self) -> bool {
        self.0.values().all(|numbers| numbers.iter().copied().eq(0..numbers.len() as u32))
    }
}

/// Release 0.6.3 connects and subscribes again by itself, and asks for what it has missed. Of what
/// it publishes while its node is away it keeps 500 messages to send again; but with more than
/// some 250 in that time it never sends or receives anything again, so these say less.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_published_members_survives_the_death_of_its_node() {
    const NATIVE: u32 = 1000;
    const PUBLISHED: u32 = NATIVE / 5;
    let test = "a_group_with_published_members_survives_the_death_of_its_node";
    let Some(python) = python(test) else {
        return;
    };
    let node = Node::start("").await;
    let mut apps = Vec::new();
    for (name, scheme) in [("native-0", "http"), ("native-1", "quic")] {
        let identity = Identity::shared_secret_v0_6(name, SECRET).expect("a secret");
        apps.push(connect(node.address, scheme, name, identity).await);
    }
    let mut published = Vec::new();
    for name in ["org/ns/published-0", "org/ns/published-1"] {
        published.push(Peer::start(python, node.address, name, &["listen"]).await);
    }
    let config = reliable(Config::group(&text("org/ns/channel")));
    let mut sessions = vec![apps[0].create_session(config).expect("a session")];
    for name in ["native-1", "published-0", "published-1"] {
        let invitation = sessions[0].invite(&text(&format!("org/ns/{name}"))).expect("it starts");
        in_time(name, invitation.done()).await.expect("it joins");
    }
    sessions.push(opened(&apps[1]).await);

    let progress = AtomicU32::new(0);
    let pause = || tokio::time::sleep(Duration::from_millis(10));
    let native = join_all(sessions.iter().enumerate().map(async |(index, session)| {
        for number in 0..NATIVE {
            session.publish(format!("native-{index} {number}")).await.expect("it is taken");
            pause().await;
        }
    }));
    let publishing = async {
        for number in 0..PUBLISHED {
            for (index, peer) in published.iter_mut().enumerate() {
                peer.publish(&format!("published-{index} {number}"));
            }
            progress.store(number, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let total = NATIVE + 2 * PUBLISHED;
    let hearing = join_all(sessions.iter().map(|session| Heard::of(session, total)));
    let conversation = join3(native, publishing, hearing);
    let (node, (_, (), natives)) = join(outage(node, &progress, PUBLISHED / 3), conversation).await;
    join_all(sessions.iter().map(hear_nothing_more)).await;
    for heard in &natives {
        assert!(heard.is_in_order(), "{heard:?}");
    }
    let total = (2 * NATIVE + PUBLISHED) as usize;
    for peer in &published {
        assert!(wait(PATIENCE, || Heard::printed(peer).count() >= total).await);
        let heard = Heard::printed(peer);
        assert!(heard.is_in_order() && heard.count() == total, "{heard:?}");
    }
    node.assert_alive().await;
}
