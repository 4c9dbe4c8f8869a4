//! The routing header of a message, in place.

use slim_wire::limits::NAME_COMPONENT_BYTES;
use slim_wire::{Class, DecodeError, Flags, Header, Id, Kind, Name, Prefix, hash_component, lane};

use crate::dialect::{Inbound, Routed, SubscriptionAck};
use crate::layout::{
    BODY_HEADER, HEADER_DESTINATION, HEADER_SOURCE, HeaderFields, LINK, Layout, MESSAGE_METADATA,
    Names, PUBLISH, PUBLISH_SESSION, SESSION_ID, SESSION_MESSAGE_TYPE, SUBSCRIBE, SUBSCRIPTION_ACK,
    Subscriptions, UNSUBSCRIBE,
};
use crate::scan::{Fields, set_once};
use crate::schema::METADATA;

/// What is asked of the node, and the bytes that say more.
enum Body<'a> {
    Routed(Kind, &'a [u8]),
    Link(&'a [u8]),
    SubscriptionAck(&'a [u8]),
}

#[inline]
pub(crate) fn message<L: Layout>(message: &[u8]) -> Result<Inbound<'_>, DecodeError> {
    message_with::<L>(message, |_| {})
}

/// Reads a message, and shows its routing header if it has one.
#[inline]
pub(crate) fn message_with<'a, L: Layout>(
    message: &'a [u8],
    show: impl FnOnce(&ParsedHeader<'a>),
) -> Result<Inbound<'a>, DecodeError> {
    match body_of::<L>(message)? {
        Body::Routed(Kind::Publish, body) => publish::<L>(body, show),
        Body::Routed(kind, body) => subscription::<L>(kind, body, show),
        Body::Link(body) => Ok(Inbound::Link(body)),
        Body::SubscriptionAck(body) => subscription_ack(body),
    }
}

/// The one member of the message's `oneof`.
fn body_of<L: Layout>(message: &[u8]) -> Result<Body<'_>, DecodeError> {
    // The dialects without these members skip them, as their decoders do.
    let links = matches!(L::SUBSCRIPTIONS, Subscriptions::Numbered);
    let mut fields = Fields::new("message", message);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        let body = match number {
            SUBSCRIBE => Body::Routed(Kind::Subscribe, value.bytes("subscribe")?),
            UNSUBSCRIBE => Body::Routed(Kind::Unsubscribe, value.bytes("unsubscribe")?),
            PUBLISH => Body::Routed(Kind::Publish, value.bytes("publish")?),
            LINK if links => Body::Link(value.bytes("link")?),
            SUBSCRIPTION_ACK if links => Body::SubscriptionAck(value.bytes("subscription_ack")?),
            MESSAGE_METADATA => {
                METADATA.check(value.bytes("metadata")?)?;
                continue;
            }
            _ => continue,
        };
        set_once(&mut found, body, "message type")?;
    }
    found.ok_or(DecodeError::Missing { field: "message type" })
}

fn publish<'a, L: Layout>(
    publish: &'a [u8],
    show: impl FnOnce(&ParsedHeader<'a>),
) -> Result<Inbound<'a>, DecodeError> {
    let (mut found, mut session) = (None, None);
    let mut fields = Fields::new("publish", publish);
    while let Some((number, value)) = fields.next()? {
        match number {
            BODY_HEADER => set_once(&mut found, value.bytes("header")?, "header")?,
            PUBLISH_SESSION => set_once(&mut session, value.bytes("session")?, "session")?,
            number if number == L::CONTENT.0 => L::CONTENT.1.check(value.bytes("content")?)?,
            _ => {}
        }
    }
    let parsed = header::<L>(found.ok_or(DecodeError::Missing { field: "header" })?)?;
    show(&parsed);
    let session = session.ok_or(DecodeError::Missing { field: "session" })?;
    let (class, session_id) = read_session::<L>(session)?;
    let header = parsed.routing::<L>(Kind::Publish, class, parsed.destination.name);
    Ok(Inbound::Routed(Routed {
        header: Header { lane: lane(session_id, &parsed.source.name), ..header },
        texts: None,
        subscription: 0,
        steers: parsed.steers(),
    }))
}

fn subscription<'a, L: Layout>(
    kind: Kind,
    body: &'a [u8],
    show: impl FnOnce(&ParsedHeader<'a>),
) -> Result<Inbound<'a>, DecodeError> {
    const TEXTS: [&str; 3] = ["component_0", "component_1", "component_2"];
    let (mut found, mut texts, mut id) = (None, [None; 3], None);
    let mut fields = Fields::new("subscription", body);
    while let Some((number, value)) = fields.next()? {
        match (number, L::SUBSCRIPTIONS) {
            (BODY_HEADER, _) => set_once(&mut found, value.bytes("header")?, "header")?,
            (2..=4, Subscriptions::Texts) => {
                let index = number as usize - 2;
                set_once(&mut texts[index], value.text(TEXTS[index])?, TEXTS[index])?;
            }
            (2, Subscriptions::Numbered) => {
                set_once(&mut id, value.varint("subscription_id")?, "subscription_id")?;
            }
            _ => {}
        }
    }
    let parsed = header::<L>(found.ok_or(DecodeError::Missing { field: "header" })?)?;
    show(&parsed);
    let texts = (texts != [None; 3]).then(|| texts.map(Option::unwrap_or_default));
    // Published nodes of releases 0.4 to 0.6 go by the texts and ignore the hashes of the header.
    let prefix = match texts {
        Some(texts) => Prefix(texts.map(hash_component)),
        None => parsed.destination.name.prefix,
    };
    let texts = texts.or(parsed.destination.texts);
    too_long(texts)?;
    let destination = Name { prefix, id: parsed.destination.name.id };
    Ok(Inbound::Routed(Routed {
        header: parsed.routing::<L>(kind, Class::Control, destination),
        texts,
        subscription: id.unwrap_or(0),
        steers: parsed.steers(),
    }))
}

fn too_long(texts: Option<[&str; 3]>) -> Result<(), DecodeError> {
    let longest = texts.into_iter().flatten().map(str::len).max().unwrap_or(0);
    if longest <= NAME_COMPONENT_BYTES {
        return Ok(());
    }
    let (limit, got) = (NAME_COMPONENT_BYTES as u64, longest as u64);
    Err(DecodeError::TooLarge { field: "name component", limit, got })
}

/// The fields of the published header that a node acts on.
pub(crate) struct ParsedHeader<'a> {
    pub(crate) source: ParsedName<'a>,
    pub(crate) destination: ParsedName<'a>,
    pub(crate) identity: &'a str,
    pub(crate) fanout: u32,
    pub(crate) ttl: u32,
    pub(crate) recv_from: Option<u64>,
    pub(crate) forward_to: Option<u64>,
    pub(crate) error: Option<bool>,
    pub(crate) mac: Option<&'a [u8]>,
}

/// A name in a header.
pub(crate) struct ParsedName<'a> {
    pub(crate) name: Name,
    /// Whether the id is written at all (D20).
    pub(crate) has_id: bool,
    pub(crate) texts: Option<[&'a str; 3]>,
}

impl ParsedHeader<'_> {
    fn routing<L: Layout>(&self, kind: Kind, class: Class, destination: Name) -> Header {
        let ttl = match L::HEADER.ttl {
            HeaderFields::NONE => Header::DEFAULT_TTL,
            _ => u8::try_from(self.ttl).unwrap_or(u8::MAX),
        };
        Header {
            kind,
            class,
            encoding: L::ENCODING,
            flags: if self.error == Some(true) { Flags::ERROR } else { Flags::empty() },
            ttl,
            fanout: self.fanout,
            lane: 0,
            source: self.source.name,
            destination,
        }
    }

    fn steers(&self) -> bool {
        self.recv_from.is_some() || self.forward_to.is_some()
    }
}

pub(crate) fn header<L: Layout>(header: &[u8]) -> Result<ParsedHeader<'_>, DecodeError> {
    let known = const { L::HEADER };
    let (mut source, mut destination, mut identity) = (None, None, None);
    let (mut fanout, mut ttl, mut error) = (None, None, None);
    let (mut recv_from, mut forward_to, mut mac) = (None, None, None);
    let mut fields = Fields::new("header", header);
    while let Some((number, value)) = fields.next()? {
        match number {
            HEADER_SOURCE => set_once(&mut source, value.bytes("source")?, "source")?,
            HEADER_DESTINATION => {
                set_once(&mut destination, value.bytes("destination")?, "destination")?;
            }
            n if n == known.fanout => set_once(&mut fanout, value.varint("fanout")?, "fanout")?,
            n if n == known.identity => {
                set_once(&mut identity, value.text("identity")?, "identity")?;
            }
            n if n == known.recv_from => recv_from = Some(value.varint("recv_from")?),
            n if n == known.forward_to => forward_to = Some(value.varint("forward_to")?),
            n if n == known.incoming_conn => _ = value.varint("incoming_conn")?,
            n if n == known.error => set_once(&mut error, value.varint("error")?, "error")?,
            n if n == known.ttl => set_once(&mut ttl, value.varint("ttl")?, "ttl")?,
            n if n == known.version => _ = value.text("version")?,
            n if n == known.mac => set_once(&mut mac, value.bytes("header_mac")?, "header_mac")?,
            n if n == known.signature => _ = value.bytes("e2e_header_sig")?,
            _ => {}
        }
    }
    let source = source.ok_or(DecodeError::Missing { field: "source" })?;
    let destination = destination.ok_or(DecodeError::Missing { field: "destination" })?;
    Ok(ParsedHeader {
        source: name::<L>(source, "source")?,
        destination: name::<L>(destination, "destination")?,
        identity: identity.unwrap_or_default(),
        fanout: narrow(fanout.unwrap_or(0), "fanout")?,
        ttl: narrow(ttl.unwrap_or(0), "ttl")?,
        recv_from,
        forward_to,
        error: error.map(|error| error != 0),
        mac,
    })
}

fn narrow(number: u64, field: &'static str) -> Result<u32, DecodeError> {
    let limit = u64::from(u32::MAX);
    u32::try_from(number).map_err(|_| DecodeError::TooLarge { field, limit, got: number })
}

fn name<'a, L: Layout>(
    bytes: &'a [u8],
    field: &'static str,
) -> Result<ParsedName<'a>, DecodeError> {
    if L::NAMES == Names::Flat {
        let (name, has_id) = numbers::<L>(bytes, field)?;
        return Ok(ParsedName { name, has_id, texts: None });
    }
    let (mut encoded, mut texts) = (None, None);
    let mut fields = Fields::new(field, bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => set_once(&mut encoded, value.bytes(field)?, field)?,
            2 => set_once(&mut texts, name_texts(value.bytes(field)?, field)?, field)?,
            _ => {}
        }
    }
    // Clients of D7 take both parts for granted, and would not survive a message without one.
    if L::NAMES == Names::Nested && texts.is_none() {
        return Err(DecodeError::Missing { field: "name text" });
    }
    let encoded = encoded.ok_or(DecodeError::Missing { field: "name" })?;
    let (name, has_id) = numbers::<L>(encoded, field)?;
    Ok(ParsedName { name, has_id, texts })
}

/// The hashes and the id. An absent number is 0, which is an ordinary value; an absent id of D20
/// stands for any.
fn numbers<L: Layout>(name: &[u8], field: &'static str) -> Result<(Name, bool), DecodeError> {
    let (mut components, mut wide) = ([None; 4], None);
    let mut fields = Fields::new(field, name);
    while let Some((number, value)) = fields.next()? {
        match (number, L::NAMES) {
            (4, Names::Wide) => set_once(&mut wide, wide_id(value.bytes(field)?, field)?, field)?,
            (1..=4, _) => {
                set_once(&mut components[number as usize - 1], value.varint(field)?, field)?;
            }
            _ => {}
        }
    }
    let [org, namespace, app, id] = components.map(Option::unwrap_or_default);
    let has_id = wide.is_some();
    let id = match L::NAMES {
        Names::Wide => wide.unwrap_or(Id::ANY),
        Names::Flat | Names::Nested => Id::from_u64(id),
    };
    Ok((Name { prefix: Prefix([org, namespace, app]), id }, has_id))
}

/// The high and the low half of an id.
fn wide_id(id: &[u8], field: &'static str) -> Result<Id, DecodeError> {
    let mut halves = [None; 2];
    let mut fields = Fields::new(field, id);
    while let Some((number, value)) = fields.next()? {
        if let number @ 1..=2 = number {
            set_once(&mut halves[number as usize - 1], value.varint(field)?, field)?;
        }
    }
    let [high, low] = halves.map(Option::unwrap_or_default);
    Ok(Id::new(u128::from(high) << 64 | u128::from(low)))
}

fn name_texts<'a>(texts: &'a [u8], field: &'static str) -> Result<[&'a str; 3], DecodeError> {
    let mut components = [None; 3];
    let mut fields = Fields::new(field, texts);
    while let Some((number, value)) = fields.next()? {
        if let number @ 1..=3 = number {
            set_once(&mut components[number as usize - 1], value.text(field)?, field)?;
        }
    }
    Ok(components.map(Option::unwrap_or_default))
}

/// The class of a publish by its session message type, and the session's id.
fn read_session<L: Layout>(session: &[u8]) -> Result<(Class, u32), DecodeError> {
    let (mut message_type, mut session_id) = (None, None);
    let mut fields = Fields::new("session", session);
    while let Some((number, value)) = fields.next()? {
        match number {
            SESSION_MESSAGE_TYPE => {
                set_once(&mut message_type, value.varint("message type")?, "message type")?;
            }
            SESSION_ID => set_once(&mut session_id, value.varint("session id")?, "session id")?,
            _ => L::SESSION.check_field(number, value)?,
        }
    }
    // Protobuf readers take the low bits of a number that is too wide for its field.
    Ok((L::class(message_type.unwrap_or(0) as u32), session_id.unwrap_or(0) as u32))
}

fn subscription_ack(ack: &[u8]) -> Result<Inbound<'_>, DecodeError> {
    let (mut subscription, mut success, mut error) = (None, None, None);
    let mut fields = Fields::new("subscription_ack", ack);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => set_once(&mut subscription, value.varint("subscription_id")?, "subscription_id")?,
            2 => set_once(&mut success, value.varint("success")?, "success")?,
            3 => set_once(&mut error, value.text("error")?, "error")?,
            _ => {}
        }
    }
    Ok(Inbound::SubscriptionAck(SubscriptionAck {
        subscription: subscription.unwrap_or(0),
        success: success.unwrap_or(0) != 0,
        error: error.unwrap_or_default(),
    }))
}
