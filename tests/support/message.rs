use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::prefix;
use slim_compat_grpc::proto::d6::message::Type;
use slim_compat_grpc::proto::d6::{
    Content, Header, Message, Name, Publish, SessionHeader, SessionMessageType, SessionType,
    Subscribe, Unsubscribe,
};
use slim_wire::TextName;

/// The name as messages carry it; without a fourth part it means any instance.
pub(crate) fn name(text: &str) -> Name {
    let name = parse(text).to_name();
    let [component_0, component_1, component_2] = name.prefix.0;
    Name {
        component_0,
        component_1,
        component_2,
        component_3: name.id.to_u64().expect("an id of 64 bits"),
    }
}

fn parse(text: &str) -> TextName {
    text.parse().expect("a name")
}

fn header(source: &str, destination: &str) -> Header {
    Header {
        source: Some(name(source)),
        destination: Some(name(destination)),
        fanout: 1,
        ..Header::default()
    }
}

fn message(body: Type) -> Message {
    Message { metadata: HashMap::new(), r#type: Some(body) }
}

pub(crate) fn subscribe(source: &str, destination: &str) -> Message {
    let [component_0, component_1, component_2] =
        parse(destination).components().map(ToOwned::to_owned);
    message(Type::Subscribe(Subscribe {
        header: Some(header(source, destination)),
        component_0,
        component_1,
        component_2,
    }))
}

pub(crate) fn unsubscribe(source: &str, destination: &str) -> Message {
    let [component_0, component_1, component_2] =
        parse(destination).components().map(ToOwned::to_owned);
    message(Type::Unsubscribe(Unsubscribe {
        header: Some(header(source, destination)),
        component_0,
        component_1,
        component_2,
    }))
}

/// A reliable message of a point-to-point session, to one target.
pub(crate) fn publish(source: &str, destination: &str, payload: impl Into<Bytes>) -> Message {
    let session = SessionHeader {
        session_type: SessionType::PointToPoint.into(),
        session_message_type: SessionMessageType::P2pReliable.into(),
        session_id: 7,
        message_id: 1,
        source: None,
        destination: None,
    };
    let content = Content { content_type: "msg".into(), blob: payload.into() };
    message(Type::Publish(Publish {
        header: Some(header(source, destination)),
        session: Some(session),
        msg: Some(content),
    }))
}

/// The same for all who subscribed to the destination.
pub(crate) fn broadcast(source: &str, destination: &str, payload: impl Into<Bytes>) -> Message {
    let mut message = publish(source, destination, payload);
    header_of(&mut message).fanout = 50;
    message
}

pub(crate) fn header_of(message: &mut Message) -> &mut Header {
    let header = match message.r#type.as_mut().expect("a type") {
        Type::Subscribe(body) => &mut body.header,
        Type::Unsubscribe(body) => &mut body.header,
        Type::Publish(body) => &mut body.header,
    };
    header.as_mut().expect("a header")
}

pub(crate) fn publish_of(message: &mut Message) -> &mut Publish {
    match message.r#type.as_mut().expect("a type") {
        Type::Publish(publish) => publish,
        other => panic!("expected a publish, got {other:?}"),
    }
}

pub(crate) fn payload(message: &Message) -> &Bytes {
    match message.r#type.as_ref().expect("a type") {
        Type::Publish(publish) => &publish.msg.as_ref().expect("content").blob,
        other => panic!("expected a publish, got {other:?}"),
    }
}

/// The message as gRPC frames it.
pub(crate) fn framed(message: &Message) -> Bytes {
    framed_bytes(&message.encode_to_vec())
}

pub(crate) fn framed_bytes(message: &[u8]) -> Bytes {
    [&prefix(message.len()), message].concat().into()
}

/// A publish whose protobuf has exactly `len` bytes.
pub(crate) fn publish_of_length(source: &str, destination: &str, len: usize) -> Message {
    let with = |payload: usize| publish(source, destination, vec![0x5A; payload]);
    // Lengths of lengths differ little between messages of nearly the same size.
    let overhead = with(len).encoded_len() - len;
    (len - overhead..=len)
        .map(with)
        .find(|message| message.encoded_len() == len)
        .expect("a payload that fits")
}
