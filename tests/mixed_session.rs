//! A native app in a session with a published client of release 0.6.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use slim_quic::client::link::{Link, LinkOptions, Message, Trust};
use slim_wire::session::{Content, Delivery, Session, SessionKind, access};
use slim_wire::{Class, TextName};

use support::in_time;
use support::node::Node;
use support::published::{Peer, python, wait};

/// The identity that release 0.6 expects of an app: the shared secret of tests/clients/peer.py,
/// and a name.
const IDENTITY: &str = "a secret that all of the test share:native";

/// A native app that answers sessions by hand, message by message.
struct NativeEcho {
    link: Link,
    name: TextName,
    /// Number of the next message that it sends.
    next: u32,
}

impl NativeEcho {
    async fn connect(node: SocketAddr, name: &str) -> Self {
        let trust = Trust::DangerAcceptAnyCertificate;
        let options = LinkOptions { trust, ..LinkOptions::default() };
        let link = Link::connect(&node.to_string(), &options).await.expect("the node answers");
        let name: TextName = name.parse().expect("a name");
        link.subscribe(&name).await.expect("the node takes it");
        Self { link, name, next: 0 }
    }

    /// Answers until it has answered `count` requests of the app.
    async fn answer(&mut self, count: usize) -> Vec<String> {
        let mut requests = Vec::new();
        while requests.len() < count {
            let message = self.link.receive().await.expect("the link stays");
            let session = access(&message.session).expect("a session part");
            let session = session.to_session().expect("within its limits");
            assert_eq!(session.kind, SessionKind::PointToPoint);
            assert!(session.identity.is_some(), "0.6 identifies itself in every message");
            match session.content {
                Content::DiscoveryRequest { .. } => {
                    self.reply(&message, Content::DiscoveryReply, "").await;
                }
                Content::JoinRequest { mls, .. } => {
                    assert!(!mls);
                    self.reply(&message, Content::JoinReply, "").await;
                }
                Content::Data(Delivery::Reliable) => {
                    self.reply(&message, Content::Ack, "").await;
                    let text = String::from_utf8(message.payload.to_vec()).expect("text");
                    self.publish(&message, &session, &format!("echo of {text}")).await;
                    requests.push(text);
                }
                Content::Ack => {}
                other => panic!("not part of this session: {other:?}"),
            }
        }
        requests
    }

    async fn reply(&self, to: &Message, content: Content, payload: &str) {
        let session = Session { content, ..self.session() };
        self.send(to, to.ids.message, session, payload).await;
    }

    async fn publish(&mut self, to: &Message, theirs: &Session, payload: &str) {
        let session = Session {
            content: Content::Data(Delivery::Reliable),
            destination: theirs.source.clone(),
            content_type: "msg".into(),
            ..self.session()
        };
        self.send(to, self.next, session, payload).await;
        self.next += 1;
    }

    fn session(&self) -> Session {
        Session {
            kind: SessionKind::PointToPoint,
            source: Some(self.name.clone()),
            identity: Some(IDENTITY.into()),
            ..Session::default()
        }
    }

    async fn send(&self, to: &Message, number: u32, session: Session, payload: &str) {
        let data = matches!(session.content, Content::Data(_));
        let session_part = session.encode().expect("within its limits");
        let mut message = Message {
            session: session_part.into(),
            class: if data { Class::Reliable } else { Class::Control },
            ..Message::new(self.name.to_name(), to.source, payload.to_owned())
        };
        (message.ids.session, message.ids.message) = (to.ids.session, number);
        self.link.publish(&message).await.expect("the link stays");
    }
}

#[tokio::test]
async fn a_native_app_receives_what_a_published_client_says_and_answers_it() {
    let test = "a_native_app_receives_what_a_published_client_says_and_answers_it";
    let Some(python) = python(test) else {
        return;
    };
    let node = Node::start("").await;
    let mut native = NativeEcho::connect(node.address, "agntcy/ns/native/77").await;
    let role = ["call-plain", "agntcy/ns/native"];
    let mut caller = Peer::start(python, node.address, "agntcy/ns/caller", &role).await;
    let texts: Vec<_> = (0..20).map(|number| format!("request {number} äöü")).collect();
    texts.iter().for_each(|text| caller.publish(text));
    let requests = in_time("all requests", native.answer(texts.len())).await;
    assert_eq!(requests, texts, "each once, in order");
    for text in &texts {
        let answer = format!("echo of {text}");
        assert!(wait(Duration::from_secs(30), || caller.got(&answer) > 0).await, "{answer}");
        assert_eq!(caller.got(&answer), 1);
    }
    let metrics = node.balanced().await;
    assert_eq!(metrics.sum("slim_messages_refused_total"), 0);
    assert_eq!(metrics.sum("slim_deliveries_dropped_total"), 0);
}
