//! Messages of releases from 2.0, with authenticated headers.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{
    Authenticity, D20, Dialect as _, Inbound, KeyShare, LinkKey, Negotiation, Subscription,
    d20_subscription, prepare,
};
use slim_wire::{Header, Id, TextName, hash_component};

use crate::Failure;
use crate::channel::{Channel, framed, send};
use crate::client::{ALL, APP, Shape, identity, payload};

const PUBLISHER: [&str; 3] = ["bench", "relay", "publisher"];

/// What clients say that they are.
const EDGE: u32 = 2;

const POINT_TO_POINT: u32 = 1;
const MESSAGE: u32 = 1;

/// Introduces the client, as the first message of a link has to.
pub(crate) async fn negotiate(channel: &mut Channel) -> Result<LinkKey, Failure> {
    let link_id = link_id();
    let share = KeyShare::generate()?;
    let request = as_edge(&share.request(&link_id, &format!("node-{link_id}")))?;
    send(&mut channel.send, framed(&[&request])).await?;
    let answer = channel.receive.next().await?;
    match D20::read(&answer)? {
        Inbound::Link(link) => Ok(share.complete(&link_id, &Negotiation::read(link)?)?),
        other => Err(format!("first message: expected a negotiation, got {other:?}").into()),
    }
}

/// A UUID: nodes take another link of the same id for one that comes again.
fn link_id() -> String {
    let [a, b, c, d] = rand::random::<[u16; 4]>();
    format!(
        "{a:04x}{b:04x}-{c:04x}-4{:03x}-8{:03x}-{:012x}",
        d & 0xFFF,
        d >> 4,
        rand::random::<u32>()
    )
}

/// The negotiation of a client; the library makes that of a node.
fn as_edge(request: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut message = d20::Message::decode(request)?;
    let Some(d20::message::Type::Link(d20::Link {
        link_type: Some(d20::link::LinkType::LinkNegotiation(negotiation)),
    })) = &mut message.r#type
    else {
        return Err("negotiation: expected one, got another message".into());
    };
    negotiation.connection_type = EDGE;
    Ok(message.encode_to_vec())
}

pub(crate) fn subscription(id: u64, key: &LinkKey) -> Result<Bytes, Failure> {
    const NUMBER: u64 = 1;
    let name = TextName::new(APP, Id::new(id.into()))?;
    Ok(d20_subscription(Subscription::Made, &name, NUMBER, Some(key)))
}

pub(crate) fn acknowledged(message: &[u8]) -> Result<(), Failure> {
    match D20::read(message)? {
        Inbound::SubscriptionAck(ack) if ack.success => Ok(()),
        other => Err(format!("subscription: expected to be made, got {other:?}").into()),
    }
}

/// A point-to-point message as published clients send it; to all if there are several
/// subscribers.
pub(crate) fn publish(shape: Shape, key: &LinkKey) -> Result<Bytes, Failure> {
    let unsigned = Bytes::from(unsigned(shape).encode_to_vec());
    let pieces = prepare(&unsigned, Header::DEFAULT_TTL)?;
    let [head, rest] = &pieces[..] else {
        return Err("prepared message: expected two pieces".into());
    };
    let mut signed = BytesMut::new();
    key.sign(head, &mut signed);
    Ok(framed(&[&signed, rest]))
}

fn unsigned(shape: Shape) -> d20::Message {
    let (target, fanout) = match shape.subscribers {
        1 => (Id::new(1), 1),
        _ => (Id::ANY, ALL),
    };
    let header = d20::Header {
        source: Some(name(PUBLISHER, Id::new(0x95fb_acf7_e781_6f61_d816_f392_4953_55ec))),
        destination: Some(name(APP, target)),
        identity: identity(shape.identity),
        fanout,
        version: "3.4.6".into(),
        ttl: Header::DEFAULT_TTL.into(),
        incoming_conn: Some(1),
        ..d20::Header::default()
    };
    let session = d20::SessionHeader {
        session_type: POINT_TO_POINT,
        session_message_type: MESSAGE,
        session_id: 0x0bad_cafe,
        message_id: 1_000_000,
    };
    let application =
        d20::ApplicationPayload { payload_type: "msg".into(), blob: payload(shape.size) };
    let content =
        d20::Content { content_type: Some(d20::content::ContentType::AppPayload(application)) };
    let publish = d20::Publish { header: Some(header), session: Some(session), msg: Some(content) };
    let r#type = Some(d20::message::Type::Publish(publish));
    d20::Message { r#type, ..d20::Message::default() }
}

pub(crate) fn check(delivered: &[u8], shape: Shape, key: &LinkKey) -> Result<(), Failure> {
    let (_, authenticity) = key.read(delivered)?;
    if authenticity != Authenticity::Authentic {
        return Err(format!("header: expected to be authentic, got {authenticity:?}").into());
    }
    let expected = unsigned(shape).r#type;
    match (d20::Message::decode(delivered)?.r#type, expected) {
        (Some(d20::message::Type::Publish(got)), Some(d20::message::Type::Publish(expected)))
            if got.msg == expected.msg =>
        {
            Ok(())
        }
        _ => Err("delivered: expected what was published, got another message".into()),
    }
}

fn name(texts: [&str; 3], id: Id) -> d20::Name {
    let [component_0, component_1, component_2] = texts.map(hash_component);
    let id = id.as_u128();
    let name_id = Some(d20::NameId { id_0: (id >> 64) as u64, id_1: id as u64 });
    let encoded = d20::EncodedName { component_0, component_1, component_2, name_id };
    let [component_0, component_1, component_2] = texts.map(String::from);
    let texts = d20::StringName { component_0, component_1, component_2 };
    d20::Name { name: Some(encoded), str_name: Some(texts) }
}
