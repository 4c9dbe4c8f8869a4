//! Messages of release 0.6.

use prost::Message as _;
use slim_compat_grpc::proto::d6;
use slim_wire::hash_component;

use crate::Failure;
use crate::client::{ALL, APP, Shape, identity, payload};

fn name(id: u64) -> d6::Name {
    let [component_0, component_1, component_2] = APP.map(hash_component);
    d6::Name { component_0, component_1, component_2, component_3: id }
}

pub(crate) fn subscription(id: u64) -> Vec<u8> {
    const IDENTITY_BYTES: usize = 46;
    let [component_0, component_1, component_2] = APP.map(String::from);
    let header = Some(header(id, id, 1));
    let subscribe = d6::Subscribe { header, component_0, component_1, component_2 };
    message(d6::message::Type::Subscribe(subscribe), IDENTITY_BYTES)
}

/// A point-to-point message as published clients send it; to all if there are several
/// subscribers.
pub(crate) fn publish(shape: Shape) -> Vec<u8> {
    let (target, fanout) = match shape.subscribers {
        1 => (1, 1),
        _ => (u64::MAX, ALL),
    };
    let publish = d6::Publish {
        header: Some(header(0x1234_5678_9abc_def0, target, fanout)),
        session: Some(d6::SessionHeader {
            session_type: d6::SessionType::PointToPoint as i32,
            session_message_type: d6::SessionMessageType::P2pReliable as i32,
            session_id: 0x0bad_cafe,
            message_id: 1_000_000,
            source: None,
            destination: None,
        }),
        msg: Some(d6::Content { content_type: "msg".into(), blob: payload(shape.size) }),
    };
    message(d6::message::Type::Publish(publish), shape.identity)
}

pub(crate) fn check(delivered: &[u8], shape: Shape) -> Result<(), Failure> {
    let message = d6::Message::decode(delivered)?;
    match message.r#type {
        Some(d6::message::Type::Publish(d6::Publish { msg: Some(content), .. }))
            if content.blob == payload(shape.size) =>
        {
            Ok(())
        }
        _ => Err("delivered: expected what was published, got another message".into()),
    }
}

fn header(source: u64, destination: u64, fanout: u32) -> d6::Header {
    d6::Header {
        source: Some(name(source)),
        destination: Some(name(destination)),
        fanout,
        incoming_conn: Some(0),
        ..d6::Header::default()
    }
}

/// With the identity that published clients put into every message.
fn message(kind: d6::message::Type, identity_bytes: usize) -> Vec<u8> {
    let metadata = [("SLIM_IDENTITY".to_owned(), identity(identity_bytes))].into();
    d6::Message { r#type: Some(kind), metadata }.encode_to_vec()
}
