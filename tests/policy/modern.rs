//! Messages of the releases from 0.7 on, whose names carry hashes and texts.

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::proto::d7;
pub(crate) use slim_compat_grpc::proto::d20::message::Type;
use slim_compat_grpc::proto::d20::{self, Message};
use slim_wire::Header;

use crate::support::message::framed_bytes;
use crate::support::native::text;
use crate::support::node::Node;
use crate::support::raw::{Channel, Connection};

/// A client of release 2 or later, or of 1.4, that says what it likes.
pub(crate) struct Modern {
    channel: Channel,
    _connection: Connection,
}

/// A name of D20 whose hashes are of one text and whose texts of another; without a fourth part
/// it has no id.
pub(crate) fn mixed(hashes: &str, texts: &str) -> d20::Name {
    let name = text(hashes).to_name();
    let [component_0, component_1, component_2] = name.prefix.0;
    let id = name.id.as_u128();
    let name_id =
        (!name.id.is_any()).then_some(d20::NameId { id_0: (id >> 64) as u64, id_1: id as u64 });
    let name = d20::EncodedName { component_0, component_1, component_2, name_id };
    let [component_0, component_1, component_2] = text(texts).components().map(str::to_owned);
    let str_name = d20::StringName { component_0, component_1, component_2 };
    d20::Name { name: Some(name), str_name: Some(str_name) }
}

pub(crate) fn name(name: &str) -> d20::Name {
    mixed(name, name)
}

fn header(source: d20::Name, destination: d20::Name) -> Option<d20::Header> {
    Some(d20::Header {
        source: Some(source),
        destination: Some(destination),
        fanout: 1,
        ttl: Header::DEFAULT_TTL.into(),
        ..d20::Header::default()
    })
}

fn message(body: Type) -> Bytes {
    Message { r#type: Some(body), ..Message::default() }.encode_to_vec().into()
}

pub(crate) fn subscribe(source: &str, to: d20::Name, subscription_id: u64) -> Bytes {
    let header = header(name(source), to);
    message(Type::Subscribe(d20::Subscribe { header, subscription_id }))
}

pub(crate) fn unsubscribe(source: &str, from: d20::Name, subscription_id: u64) -> Bytes {
    let header = header(name(source), from);
    message(Type::Unsubscribe(d20::Unsubscribe { header, subscription_id }))
}

pub(crate) fn publish(source: d20::Name, destination: &str, payload: &str) -> Bytes {
    let application =
        d20::ApplicationPayload { payload_type: "text".into(), blob: payload.to_owned().into() };
    let content = d20::content::ContentType::AppPayload(application);
    message(Type::Publish(d20::Publish {
        header: header(source, name(destination)),
        session: Some(d20::SessionHeader {
            session_type: 1,
            session_message_type: 1,
            session_id: 7,
            message_id: 1,
        }),
        msg: Some(d20::Content { content_type: Some(content) }),
    }))
}

/// A subscription of release 1.4, which has 64-bit ids.
pub(crate) fn subscribe_d7(source: &str, hashes: &str, texts: &str, number: u64) -> Bytes {
    let name = |hashes: &str, texts: &str| {
        let numbers = text(hashes).to_name();
        let [component_0, component_1, component_2] = numbers.prefix.0;
        let component_3 = numbers.id.to_u64().expect("an id of 64 bits");
        let name = d7::EncodedName { component_0, component_1, component_2, component_3 };
        let [component_0, component_1, component_2] = text(texts).components().map(str::to_owned);
        let str_name = d7::StringName { component_0, component_1, component_2 };
        Some(d7::Name { name: Some(name), str_name: Some(str_name) })
    };
    let header = d7::Header {
        source: name(source, source),
        destination: name(hashes, texts),
        fanout: 1,
        ..d7::Header::default()
    };
    let body = d7::Subscribe { header: Some(header), subscription_id: number };
    let body = d7::message::Type::Subscribe(body);
    d7::Message { r#type: Some(body), ..d7::Message::default() }.encode_to_vec().into()
}

impl Modern {
    /// A client that begins with a link message of this version.
    pub(crate) async fn connect(node: &Node, version: &str) -> Self {
        let mut connection = Connection::open(node.address).await;
        let channel = connection.channel().await;
        let mut client = Self { channel, _connection: connection };
        let negotiation = d20::LinkNegotiation {
            link_id: "a link".into(),
            slim_version: version.into(),
            ..d20::LinkNegotiation::default()
        };
        let link = d20::link::LinkType::LinkNegotiation(negotiation);
        client.say(message(Type::Link(d20::Link { link_type: Some(link) }))).await;
        match client.hear().await {
            Type::Link(_) => client,
            other => panic!("expected an answer to the link message, got {other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, message: Bytes) {
        self.channel.send_bytes(framed_bytes(&message)).await.expect("the stream is open");
    }

    pub(crate) async fn hear(&mut self) -> Type {
        let message = self.channel.receive().await.expect("the stream is open");
        Message::decode(message).expect("a message").r#type.expect("a type")
    }

    /// Asks, and returns the number of what is answered, with the reason if it was refused.
    pub(crate) async fn ask(&mut self, request: Bytes) -> (u64, Option<String>) {
        self.say(request).await;
        match self.hear().await {
            Type::SubscriptionAck(ack) => {
                assert_eq!(ack.success, ack.error.is_empty(), "{ack:?}");
                (ack.subscription_id, (!ack.success).then_some(ack.error))
            }
            other => panic!("expected an acknowledgement, got {other:?}"),
        }
    }

    /// The payload of the next message.
    pub(crate) async fn payload(&mut self) -> String {
        match self.hear().await {
            Type::Publish(publish) => match publish.msg.and_then(|content| content.content_type) {
                Some(d20::content::ContentType::AppPayload(payload)) => {
                    String::from_utf8(payload.blob.to_vec()).expect("UTF-8")
                }
                other => panic!("expected a payload, got {other:?}"),
            },
            other => panic!("expected a publish, got {other:?}"),
        }
    }
}
