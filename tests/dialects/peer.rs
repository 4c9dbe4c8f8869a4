//! A client that says in its dialect whatever a test wants it to.

use std::sync::atomic::{AtomicU8, Ordering};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::proto::{d6, d7, d20, p};
use slim_compat_grpc::{D6, D7, D20, Detected, Dialect, Inbound, KeyShare, Negotiation, P};
use slim_wire::{Kind, Name, TextName};

use crate::keyed::{Keyed, derived, shared};
use crate::made::{Made, Spec, SpecName};
use crate::published::{Decoded, Published};
use crate::support::client::{NOBODY, UNMATCHED};
use crate::support::message::framed_bytes;
use crate::support::node::Node;
use crate::support::raw::{Channel, Connection};

/// Every dialect that a client may speak.
pub(crate) const DIALECTS: [Detected; 5] =
    [Detected::P, Detected::D6, Detected::D7, Detected::D7L, Detected::D20];

/// Those whose subscriptions are acknowledged.
pub(crate) const ACKNOWLEDGED: [Detected; 2] = [Detected::D7L, Detected::D20];

pub(crate) struct Peer {
    pub(crate) dialect: Detected,
    pub(crate) channel: Channel,
    /// The key of a link of D20.
    pub(crate) link: Option<Keyed>,
    /// Open as long as the channel.
    _connection: Connection,
}

/// A publish as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) decoded: Decoded,
    pub(crate) payload: Bytes,
}

/// What became of a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) number: u64,
    pub(crate) success: bool,
    pub(crate) error: String,
}

/// The name that this text stands for; without an id any instance.
pub(crate) fn name(text: &str) -> SpecName {
    let text: TextName = text.parse().expect("a name");
    let Name { prefix, id } = text.to_name();
    let texts = text.components().map(str::to_owned);
    SpecName { hashes: prefix.0, id: Some(id.as_u128()), texts: Some(texts) }
}

/// A publish of `source`.
pub(crate) fn publish(source: &str, destination: &str, payload: impl Into<Vec<u8>>) -> Spec {
    let (source, destination) = (name(source), name(destination));
    Spec { source, destination, blob: payload.into(), ..Spec::publish() }
}

/// A subscription to `destination`, or its end, under a number.
pub(crate) fn request(kind: Kind, destination: &str, number: u64) -> Spec {
    Spec { subscription: number, kind, ..publish(destination, destination, "") }
}

impl Peer {
    /// Opens a stream, and introduces the link where clients of the dialect do.
    pub(crate) async fn open(node: &Node, dialect: Detected) -> Self {
        let mut connection = Connection::open(node.address).await;
        let path = if dialect == Detected::P { P::PATH } else { D6::PATH };
        let channel = connection.channel_at(path).await;
        let mut peer = Self { dialect, channel, link: None, _connection: connection };
        match dialect {
            Detected::D7L => peer.introduce("0e5c4a3c-6f8f-4f53-8f0e-3c1f3b1d2a11").await,
            Detected::D20 => peer.introduce_with_key().await,
            _ => {}
        }
        peer
    }

    async fn introduce(&mut self, link_id: &str) {
        self.send_bytes(&d7_link(link_id, false)).await;
        let answer = self.channel.receive().await.expect("an answer");
        assert_eq!(answer, d7_link(link_id, true));
    }

    async fn introduce_with_key(&mut self) {
        static LINKS: AtomicU8 = AtomicU8::new(1);
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let link_id = format!("link-{number}");
        let secret = [number; 32];
        let share = KeyShare::from_secret(&secret).expect("a key");
        self.send_bytes(&share.request(&link_id, "client")).await;
        let answer = self.channel.receive().await.expect("an answer");
        let Ok(Inbound::Link(body)) = D20::read(&answer) else { panic!("no answer") };
        let answer = Negotiation::read(body).expect("a negotiation");
        let key = share.complete(&link_id, &answer).expect("the answer for this link");
        let secret = PrivateKey::from_private_key(&X25519, &secret).expect("a key");
        let bytes = derived(&link_id, &shared(&secret, answer.public_key), None);
        self.link = Some(Keyed::of(&link_id, key, bytes));
    }

    pub(crate) async fn send_bytes(&mut self, message: &[u8]) {
        self.channel.send_bytes(framed_bytes(message)).await.expect("the stream is open");
    }

    /// Sends what the description says, signed if the link has a key.
    pub(crate) async fn send(&mut self, spec: &Spec) {
        let bytes = match (self.dialect, &self.link) {
            (Detected::P, _) => P::bytes(spec),
            (Detected::D6, _) => D6::bytes(spec),
            (Detected::D7 | Detected::D7L, _) => D7::bytes(spec),
            (Detected::D20, None) => D20::bytes(spec),
            (Detected::D20, Some(link)) => {
                let code = link.code(&header_of(D20::made(spec)));
                D20::bytes(&Spec { code: Some(code.to_vec()), ..spec.clone() })
            }
        };
        self.send_bytes(&bytes).await;
    }

    /// Sends a message of D20 just as it is described, code and all.
    pub(crate) async fn send_unsigned(&mut self, spec: &Spec) {
        assert_eq!(self.dialect, Detected::D20);
        self.send_bytes(&D20::bytes(spec)).await;
    }

    /// Subscribes to `name`, and waits until the whole node knows.
    pub(crate) async fn join(&mut self, node: &Node, name: &str) {
        if ACKNOWLEDGED.contains(&self.dialect) {
            let number = 1_000;
            self.send(&request(Kind::Subscribe, name, number)).await;
            let ack = self.ack().await;
            assert_eq!(ack, Ack { number, success: true, error: String::new() });
        } else {
            self.send(&request(Kind::Subscribe, name, 0)).await;
            self.settle(node).await;
        }
    }

    /// Waits until the node has handled all that was sent before; not to be used beside traffic
    /// that matches nobody.
    pub(crate) async fn settle(&mut self, node: &Node) {
        let before = node.metrics().await.sum(UNMATCHED);
        self.send(&publish("org/ns/settler/1", NOBODY, "settle")).await;
        node.until("all is handled", |metrics| metrics.sum(UNMATCHED) > before).await;
    }

    /// The next message, which is an acknowledgement.
    pub(crate) async fn ack(&mut self) -> Ack {
        let bytes = self.channel.receive().await.expect("an acknowledgement");
        let message = d20::Message::decode(&bytes[..]).expect("decodable").r#type;
        let Some(d20::message::Type::SubscriptionAck(ack)) = message else {
            panic!("expected an acknowledgement, got {message:?}")
        };
        Ack { number: ack.subscription_id, success: ack.success, error: ack.error }
    }

    /// The next message, which is a publish; of D20 with the code of this link.
    pub(crate) async fn receive(&mut self) -> Received {
        let bytes = self.channel.receive().await.expect("a message");
        match self.dialect {
            Detected::P => received::<P>(&bytes, |message| match message.r#type {
                Some(p::message::Type::Publish(publish)) => publish.msg.map(|msg| msg.blob),
                _ => None,
            }),
            Detected::D6 => received::<D6>(&bytes, |message| match message.r#type {
                Some(d6::message::Type::Publish(publish)) => publish.msg.map(|msg| msg.blob),
                _ => None,
            }),
            Detected::D7 | Detected::D7L => received::<D7>(&bytes, |message| {
                let Some(d7::message::Type::Publish(publish)) = message.r#type else { return None };
                let d7::content::ContentType::AppPayload(payload) = publish.msg?.content_type?
                else {
                    return None;
                };
                Some(payload.blob)
            }),
            Detected::D20 => {
                let message = d20::Message::decode(&bytes[..]).expect("decodable");
                if let Some(link) = &self.link {
                    let header = header_of(message);
                    assert_eq!(header.header_mac, Some(link.code(&header)));
                }
                received::<D20>(&bytes, |message| {
                    let Some(d20::message::Type::Publish(publish)) = message.r#type else {
                        return None;
                    };
                    let d20::content::ContentType::AppPayload(payload) =
                        publish.msg?.content_type?
                    else {
                        return None;
                    };
                    Some(payload.blob)
                })
            }
        }
    }

    pub(crate) async fn payload(&mut self) -> Bytes {
        self.receive().await.payload
    }
}

fn received<D: Published>(
    bytes: &[u8],
    payload: impl FnOnce(D::Message) -> Option<Bytes>,
) -> Received {
    let message = D::Message::decode(bytes).expect("decodable");
    let decoded = D::decoded(&message).expect("a routing header");
    Received { decoded, payload: payload(message).expect("a publish with a payload") }
}

/// The header of a message that has one.
fn header_of(message: d20::Message) -> d20::Header {
    let header = match message.r#type.expect("a type") {
        d20::message::Type::Subscribe(body) => body.header,
        d20::message::Type::Unsubscribe(body) => body.header,
        d20::message::Type::Publish(body) => body.header,
        other => panic!("expected a routed message, got {other:?}"),
    };
    header.expect("a header")
}

/// A link message of releases 1.3 and 1.4.
pub(crate) fn d7_link(link_id: &str, is_reply: bool) -> Vec<u8> {
    let slim_version = "1.4.0".to_owned();
    let negotiation = d7::LinkNegotiation { link_id: link_id.into(), slim_version, is_reply };
    let link = d7::Link { link_type: Some(d7::link::LinkType::LinkNegotiation(negotiation)) };
    let message = d7::Message { r#type: Some(d7::message::Type::Link(link)), ..Default::default() };
    message.encode_to_vec()
}
