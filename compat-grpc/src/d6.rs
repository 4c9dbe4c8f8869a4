use bytes::{BufMut, Bytes, BytesMut};
use slim_wire::limits::NAME_COMPONENT_BYTES;
use slim_wire::{
    Class, DecodeError, Encoding, Flags, Header, Id, Kind, Name, Prefix, hash_component, lane,
};

use crate::dialect::{Dialect, Inbound};
use crate::scan::{Fields, Value, set_once};
use crate::schema::{METADATA, Schema, Type};

/// Dialect D6: releases 0.6.0 and 0.6.1 (PyPI 0.6.0 to 0.6.3). Names are four flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct D6;

// Field numbers of the published schema.
const SUBSCRIBE: u32 = 1;
const UNSUBSCRIBE: u32 = 2;
pub(crate) const PUBLISH: u32 = 3;
pub(crate) const MESSAGE_METADATA: u32 = 4;
pub(crate) const BODY_HEADER: u32 = 1;
pub(crate) const PUBLISH_SESSION: u32 = 2;
pub(crate) const PUBLISH_CONTENT: u32 = 3;
pub(crate) const SESSION_MESSAGE_TYPE: u32 = 2;
pub(crate) const SESSION_ID: u32 = 3;
pub(crate) const HEADER_SOURCE: u32 = 1;
pub(crate) const HEADER_DESTINATION: u32 = 2;
pub(crate) const HEADER_FANOUT: u32 = 3;
const HEADER_RECV_FROM: u32 = 4;
const HEADER_FORWARD_TO: u32 = 5;
const HEADER_INCOMING_CONN: u32 = 6;
pub(crate) const HEADER_ERROR: u32 = 7;

static ORIGINAL_NAME: Schema = Schema {
    name: "session name",
    fields: &[
        (1, "component_0", Type::Text),
        (2, "component_1", Type::Text),
        (3, "component_2", Type::Text),
        (4, "component_3", Type::Varint),
    ],
};

/// The rest of the session header, beside the message type and the session's id.
static SESSION: Schema = Schema {
    name: "session",
    fields: &[
        (1, "session type", Type::Varint),
        (4, "message id", Type::Varint),
        (5, "session source", Type::Message(&ORIGINAL_NAME)),
        (6, "session destination", Type::Message(&ORIGINAL_NAME)),
    ],
};

static CONTENT: Schema = Schema {
    name: "content",
    fields: &[(1, "content type", Type::Text), (2, "blob", Type::Bytes)],
};

impl Dialect for D6 {
    const ENCODING: Encoding = Encoding::D6;
    const PATH: &'static str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

    #[inline]
    fn read(message: &[u8]) -> Result<Inbound<'_>, DecodeError> {
        let (kind, body) = read_type(message)?;
        match kind {
            Kind::Publish => read_publish(body),
            Kind::Subscribe | Kind::Unsubscribe => read_subscription(kind, body),
        }
    }

    fn clear_steering(message: &[u8]) -> Result<Bytes, DecodeError> {
        rewrite_field(message, "message", PUBLISH, |publish| {
            rewrite_field(publish, "publish", BODY_HEADER, |header| {
                let mut cleared = BytesMut::with_capacity(header.len());
                let mut fields = Fields::new("header", header);
                let mut start = 0;
                while let Some((number, _)) = fields.next()? {
                    let end = header.len() - fields.remaining();
                    if !matches!(number, HEADER_RECV_FROM | HEADER_FORWARD_TO) {
                        cleared.put_slice(&header[start..end]);
                    }
                    start = end;
                }
                Ok(cleared.freeze())
            })
        })
    }
}

/// The one member of the message's `oneof`, and its bytes.
fn read_type(message: &[u8]) -> Result<(Kind, &[u8]), DecodeError> {
    let mut fields = Fields::new("message", message);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        let (kind, field) = match number {
            SUBSCRIBE => (Kind::Subscribe, "subscribe"),
            UNSUBSCRIBE => (Kind::Unsubscribe, "unsubscribe"),
            PUBLISH => (Kind::Publish, "publish"),
            MESSAGE_METADATA => {
                METADATA.check(value.bytes("metadata")?)?;
                continue;
            }
            _ => continue,
        };
        set_once(&mut found, (kind, value.bytes(field)?), "message type")?;
    }
    found.ok_or(DecodeError::Missing { field: "message type" })
}

fn read_publish(publish: &[u8]) -> Result<Inbound<'_>, DecodeError> {
    let (mut header, mut session) = (None, None);
    let mut fields = Fields::new("publish", publish);
    while let Some((number, value)) = fields.next()? {
        match number {
            BODY_HEADER => set_once(&mut header, value.bytes("header")?, "header")?,
            PUBLISH_SESSION => set_once(&mut session, value.bytes("session")?, "session")?,
            PUBLISH_CONTENT => CONTENT.check(value.bytes("content")?)?,
            _ => {}
        }
    }
    let routing = read_header(header.ok_or(DecodeError::Missing { field: "header" })?)?;
    let session = session.ok_or(DecodeError::Missing { field: "session" })?;
    let (class, session_id) = read_session(session)?;
    let header = routing.header(Kind::Publish, class, routing.destination);
    Ok(Inbound {
        header: Header { lane: lane(session_id, &routing.source), ..header },
        texts: None,
        steers: routing.steers,
    })
}

fn read_subscription(kind: Kind, body: &[u8]) -> Result<Inbound<'_>, DecodeError> {
    const TEXTS: [&str; 3] = ["component_0", "component_1", "component_2"];
    let (mut header, mut texts) = (None, [None; 3]);
    let mut fields = Fields::new("subscription", body);
    while let Some((number, value)) = fields.next()? {
        match number {
            BODY_HEADER => set_once(&mut header, value.bytes("header")?, "header")?,
            2..=4 => {
                let index = number as usize - 2;
                set_once(&mut texts[index], read_component(value, TEXTS[index])?, TEXTS[index])?;
            }
            _ => {}
        }
    }
    let routing = read_header(header.ok_or(DecodeError::Missing { field: "header" })?)?;
    let texts = (texts != [None; 3]).then(|| texts.map(Option::unwrap_or_default));
    // Published nodes go by the texts and ignore the hashes of the header.
    let prefix = match texts {
        Some(texts) => Prefix(texts.map(hash_component)),
        None => routing.destination.prefix,
    };
    let destination = Name { prefix, id: routing.destination.id };
    Ok(Inbound {
        header: routing.header(kind, Class::Control, destination),
        texts,
        steers: routing.steers,
    })
}

fn read_component<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, DecodeError> {
    let text = value.text(field)?;
    if text.len() > NAME_COMPONENT_BYTES {
        let (limit, got) = (NAME_COMPONENT_BYTES as u64, text.len() as u64);
        return Err(DecodeError::TooLarge { field, limit, got });
    }
    Ok(text)
}

/// The fields of the published header that a node acts on.
struct Routing {
    source: Name,
    destination: Name,
    fanout: u32,
    error: bool,
    steers: bool,
}

impl Routing {
    fn header(&self, kind: Kind, class: Class, destination: Name) -> Header {
        Header {
            kind,
            class,
            encoding: D6::ENCODING,
            flags: if self.error { Flags::ERROR } else { Flags::empty() },
            ttl: Header::DEFAULT_TTL,
            fanout: self.fanout,
            lane: 0,
            source: self.source,
            destination,
        }
    }
}

fn read_header(header: &[u8]) -> Result<Routing, DecodeError> {
    let (mut source, mut destination) = (None, None);
    let (mut fanout, mut error, mut steers) = (None, None, false);
    let mut fields = Fields::new("header", header);
    while let Some((number, value)) = fields.next()? {
        match number {
            HEADER_SOURCE => set_once(&mut source, value.bytes("source")?, "source")?,
            HEADER_DESTINATION => {
                set_once(&mut destination, value.bytes("destination")?, "destination")?;
            }
            HEADER_FANOUT => set_once(&mut fanout, value.varint("fanout")?, "fanout")?,
            HEADER_RECV_FROM | HEADER_FORWARD_TO => {
                value.varint("recv_from or forward_to")?;
                steers = true;
            }
            HEADER_INCOMING_CONN => _ = value.varint("incoming_conn")?,
            HEADER_ERROR => set_once(&mut error, value.varint("error")?, "error")?,
            _ => {}
        }
    }
    let source = source.ok_or(DecodeError::Missing { field: "source" })?;
    let destination = destination.ok_or(DecodeError::Missing { field: "destination" })?;
    let fanout = fanout.unwrap_or(0);
    Ok(Routing {
        source: read_name(source, "source")?,
        destination: read_name(destination, "destination")?,
        fanout: u32::try_from(fanout).map_err(|_| DecodeError::TooLarge {
            field: "fanout",
            limit: u64::from(u32::MAX),
            got: fanout,
        })?,
        error: error.unwrap_or(0) != 0,
        steers,
    })
}

/// Four numbers; an absent one is 0, which is an ordinary value.
fn read_name(name: &[u8], field: &'static str) -> Result<Name, DecodeError> {
    let mut components = [None; 4];
    let mut fields = Fields::new(field, name);
    while let Some((number, value)) = fields.next()? {
        if let number @ 1..=4 = number {
            set_once(&mut components[number as usize - 1], value.varint(field)?, field)?;
        }
    }
    let [org, namespace, app, id] = components.map(Option::unwrap_or_default);
    Ok(Name { prefix: Prefix([org, namespace, app]), id: Id::from_u64(id) })
}

/// The class of a publish by its session message type, and the session's id.
fn read_session(session: &[u8]) -> Result<(Class, u32), DecodeError> {
    const P2P_MESSAGE: u32 = 1;
    const P2P_RELIABLE: u32 = 2;
    const MULTICAST_MESSAGE: u32 = 4;
    const RETRANSMISSION: u32 = 6;
    let (mut message_type, mut session_id) = (None, None);
    let mut fields = Fields::new("session", session);
    while let Some((number, value)) = fields.next()? {
        match number {
            SESSION_MESSAGE_TYPE => {
                set_once(&mut message_type, value.varint("message type")?, "message type")?;
            }
            SESSION_ID => set_once(&mut session_id, value.varint("session id")?, "session id")?,
            _ => SESSION.check_field(number, value)?,
        }
    }
    // Protobuf readers take the low bits of a number that is too wide for its field.
    let class = match message_type.unwrap_or(0) as u32 {
        P2P_MESSAGE => Class::BestEffort,
        // Group messages do not say whether their session is reliable: assume that it is.
        0 | P2P_RELIABLE | MULTICAST_MESSAGE | RETRANSMISSION => Class::Reliable,
        _ => Class::Control,
    };
    Ok((class, session_id.unwrap_or(0) as u32))
}

/// Copies `message` with the value of its field `number` replaced by what `change` makes of it.
fn rewrite_field(
    message: &[u8],
    name: &'static str,
    number: u32,
    change: impl Fn(&[u8]) -> Result<Bytes, DecodeError>,
) -> Result<Bytes, DecodeError> {
    let mut rewritten = BytesMut::with_capacity(message.len());
    let mut fields = Fields::new(name, message);
    let mut start = 0;
    while let Some((found, value)) = fields.next()? {
        let end = message.len() - fields.remaining();
        match value {
            Value::Bytes(bytes) if found == number => {
                prost::encoding::bytes::encode(number, &change(bytes)?, &mut rewritten);
            }
            _ => rewritten.put_slice(&message[start..end]),
        }
        start = end;
    }
    Ok(rewritten.freeze())
}
