//! What the generated decoder of each published dialect makes of a message, in one form, and how
//! that has to agree with what is read and rewritten in place. Shares no code with what it checks.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};
use slim_compat_grpc::proto::{d6, d7, d20, p};
use slim_compat_grpc::{Authenticity, D6, D7, D20, Dialect, Inbound, P, Routed, prepare};
use slim_wire::{Encoding, Flags, Header, Id, Kind, Name, Prefix, hash_component};

use crate::keyed::Keyed;

/// A dialect with its generated types.
pub(crate) trait Published: Dialect {
    type Message: prost::Message + Default + Clone + PartialEq + Debug;

    /// Numbers of the header fields by which a node could be steered.
    const STEERING: [u32; 2];

    /// The message as far as routing goes; `None` if it has no routing header.
    fn decoded(message: &Self::Message) -> Option<Decoded>;

    /// Takes the steering fields off a publish.
    fn unsteer(message: &mut Self::Message);
}

/// A routing header with its message, as the generated decoder has them.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) kind: Kind,
    pub(crate) source: Name,
    pub(crate) destination: Name,
    /// Texts of a subscription's name, and whether they decide over its hashes.
    pub(crate) texts: Option<([String; 3], bool)>,
    pub(crate) subscription: u64,
    pub(crate) fanout: u32,
    pub(crate) ttl: Option<u32>,
    pub(crate) error: Option<bool>,
    pub(crate) steers: bool,
}

/// One implementation for all: the generated types differ, their members hardly.
macro_rules! published {
    ($dialect:ty, $proto:ident, $steering:expr, $ttl:expr, $number:expr, $texts:expr) => {
        impl Published for $dialect {
            type Message = $proto::Message;

            const STEERING: [u32; 2] = $steering;

            fn decoded(message: &Self::Message) -> Option<Decoded> {
                use $proto::message::Type;
                let (kind, header) = match message.r#type.as_ref()? {
                    Type::Subscribe(body) => (Kind::Subscribe, &body.header),
                    Type::Unsubscribe(body) => (Kind::Unsubscribe, &body.header),
                    Type::Publish(body) => (Kind::Publish, &body.header),
                    #[allow(unreachable_patterns, reason = "older dialects have no others")]
                    _ => return None,
                };
                let header = header.as_ref()?;
                let (source, destination) = (header.source.as_ref()?, header.destination.as_ref()?);
                Some(Decoded {
                    kind,
                    source: source.as_name()?,
                    destination: destination.as_name()?,
                    texts: $texts(message, destination),
                    subscription: $number(message),
                    fanout: header.fanout,
                    ttl: $ttl(header),
                    error: header.error,
                    steers: header.recv_from.is_some() || header.forward_to.is_some(),
                })
            }

            fn unsteer(message: &mut Self::Message) {
                if let Some($proto::message::Type::Publish(publish)) = &mut message.r#type {
                    let header = publish.header.as_mut().expect("a header");
                    (header.recv_from, header.forward_to) = (None, None);
                }
            }
        }
    };
}

published!(P, p, [4, 5], |_| None, |_| 0, |message: &p::Message, _| {
    use p::message::Type;
    let Some(Type::Subscribe(body)) = &message.r#type else { return None };
    let p::Subscribe { component_0, component_1, component_2, .. } = body.clone();
    Some(([component_0, component_1, component_2], true))
});

published!(D6, d6, [4, 5], |_| None, |_| 0, |message: &d6::Message, _| {
    use d6::message::Type;
    let texts = match message.r#type.clone()? {
        Type::Subscribe(body) => [body.component_0, body.component_1, body.component_2],
        Type::Unsubscribe(body) => [body.component_0, body.component_1, body.component_2],
        Type::Publish(_) => return None,
    };
    Some((texts, true))
});

published!(
    D7,
    d7,
    [5, 6],
    |_| None,
    |message: &d7::Message| match &message.r#type {
        Some(d7::message::Type::Subscribe(body)) => body.subscription_id,
        Some(d7::message::Type::Unsubscribe(body)) => body.subscription_id,
        _ => 0,
    },
    |message: &d7::Message, name: &d7::Name| {
        let publish = matches!(message.r#type, Some(d7::message::Type::Publish(_)));
        let texts = name.str_name.clone().filter(|_| !publish)?;
        Some(([texts.component_0, texts.component_1, texts.component_2], false))
    }
);

published!(
    D20,
    d20,
    [7, 8],
    |header: &d20::Header| Some(header.ttl),
    |message: &d20::Message| match &message.r#type {
        Some(d20::message::Type::Subscribe(body)) => body.subscription_id,
        Some(d20::message::Type::Unsubscribe(body)) => body.subscription_id,
        _ => 0,
    },
    |message: &d20::Message, name: &d20::Name| {
        let publish = matches!(message.r#type, Some(d20::message::Type::Publish(_)));
        let texts = name.str_name.clone().filter(|_| !publish)?;
        Some(([texts.component_0, texts.component_1, texts.component_2], false))
    }
);

/// A generated name as routing takes it; `None` if it lacks a part that it cannot do without.
trait AsName {
    fn as_name(&self) -> Option<Name>;
}

impl AsName for p::Name {
    fn as_name(&self) -> Option<Name> {
        let prefix = Prefix([self.component_0, self.component_1, self.component_2]);
        Some(Name { prefix, id: Id::from_u64(self.component_3) })
    }
}

impl AsName for d6::Name {
    fn as_name(&self) -> Option<Name> {
        let prefix = Prefix([self.component_0, self.component_1, self.component_2]);
        Some(Name { prefix, id: Id::from_u64(self.component_3) })
    }
}

impl AsName for d7::Name {
    fn as_name(&self) -> Option<Name> {
        let name = self.name.as_ref().filter(|_| self.str_name.is_some())?;
        let prefix = Prefix([name.component_0, name.component_1, name.component_2]);
        Some(Name { prefix, id: Id::from_u64(name.component_3) })
    }
}

impl AsName for d20::Name {
    fn as_name(&self) -> Option<Name> {
        let name = self.name.as_ref()?;
        let prefix = Prefix([name.component_0, name.component_1, name.component_2]);
        let wide = |id: &d20::NameId| Id::new(u128::from(id.id_0) << 64 | u128::from(id.id_1));
        Some(Name { prefix, id: name.name_id.as_ref().map_or(Id::ANY, wide) })
    }
}

/// What is read in place, a generated decoder accepts and reads the same.
pub(crate) fn check_read<D: Published>(bytes: &[u8]) {
    let Ok(inbound) = D::read(bytes) else { return };
    let Inbound::Routed(read) = inbound else {
        // These end at the node.
        return;
    };
    let message = D::Message::decode(bytes).expect("what is accepted can be decoded");
    let decoded = D::decoded(&message).expect("a whole routing header");
    let Header { kind, encoding, flags, ttl, fanout, source, .. } = read.header;
    assert_eq!((kind, encoding), (decoded.kind, D::ENCODING));
    assert_eq!((source, fanout), (decoded.source, decoded.fanout));
    assert_eq!(flags == Flags::ERROR, decoded.error == Some(true));
    assert_eq!((read.steers, read.subscription), (decoded.steers, decoded.subscription));
    let hops = decoded.ttl.map_or(Header::DEFAULT_TTL, |ttl| ttl.min(u8::MAX.into()) as u8);
    assert_eq!(ttl, hops);
    let mut destination = decoded.destination;
    match (read.texts, decoded.texts) {
        (Some(read), Some((texts, decide))) => {
            assert_eq!(read, texts.each_ref().map(String::as_str));
            if decide {
                destination.prefix = Prefix(read.map(hash_component));
            }
        }
        (None, None) => {}
        // Absent ones are empty for the decoder.
        (None, Some((texts, decide))) => assert!(decide && texts == [""; 3]),
        (Some(_), None) => panic!("texts that the decoder does not have"),
    }
    assert_eq!(read.header.destination, destination);
}

/// The publish that the bytes are, if they are one that can be read.
fn publish<D: Dialect>(bytes: &[u8]) -> Option<Routed<'_>> {
    let read = D::read(bytes).ok()?.routed()?;
    (read.header.kind == Kind::Publish).then_some(read)
}

/// Clearing takes the steering fields off a publish and nothing else, unknown fields included.
pub(crate) fn check_clear<D: Published>(bytes: &[u8]) {
    let cleared = D::clear_steering(bytes);
    let Some(read) = publish::<D>(bytes) else { return };
    let cleared = cleared.expect("what can be read can be rewritten");
    assert!(cleared.len() <= bytes.len());
    let reread = D::read(&cleared).expect("what was rewritten can be read");
    assert_eq!(reread, Inbound::Routed(Routed { steers: false, ..read }));
    let mut expected = D::Message::decode(bytes).expect("decodable before");
    D::unsteer(&mut expected);
    assert_eq!(D::Message::decode(&cleared[..]).expect("decodable after"), expected);
    assert_eq!(Shape::of(&cleared, &[]), Shape::of(bytes, &D::STEERING));
}

/// A publish of D20 leaves with its new hop limit, without what steers a node, and with the code
/// of its link, which is that of the reference; all else stays.
pub(crate) fn check_prepare(bytes: &[u8], ttl: u8, link: &Keyed, other: &Keyed) {
    const REPLACED: [u32; 5] = [6, 7, 8, 9, 11];
    let prepared = prepare(&Bytes::copy_from_slice(bytes), ttl);
    let Some(read) = publish::<D20>(bytes) else { return };
    let prepared = prepared.expect("what can be read can be forwarded");
    let [head, rest] = &prepared[..] else { panic!("a head and the rest, got {prepared:?}") };
    let mut sent = BytesMut::new();
    link.key.sign(head, &mut sent);
    assert_eq!(sent.len(), head.len());
    sent.extend_from_slice(rest);

    let header = Header { ttl, ..read.header };
    let expected = Inbound::Routed(Routed { header, steers: false, ..read });
    assert_eq!(link.key.read(&sent), Ok((expected, Authenticity::Authentic)));
    assert_eq!(other.key.read(&sent), Ok((expected, Authenticity::Forged)));

    let mut decoded = d20::Message::decode(bytes).expect("decodable before");
    let Some(d20::message::Type::Publish(publish)) = &mut decoded.r#type else {
        panic!("expected a publish, got {decoded:?}");
    };
    let header = publish.header.as_mut().expect("a header");
    (header.recv_from, header.forward_to, header.incoming_conn) = (None, None, None);
    header.ttl = ttl.into();
    header.header_mac = Some(link.code(header));
    assert_eq!(d20::Message::decode(&sent[..]).expect("decodable after"), decoded);
    assert_eq!(Shape::of(&sent, &REPLACED), Shape::of(bytes, &REPLACED));
}

/// Whether the code of a message is that of its link and header, by the reference.
pub(crate) fn check_authenticity(bytes: &[u8], link: &Keyed) {
    let Ok((inbound, authenticity)) = link.key.read(bytes) else { return };
    assert_eq!(D20::read(bytes), Ok(inbound));
    let decoded = d20::Message::decode(bytes);
    let header = match decoded.as_ref().map(|message| &message.r#type) {
        Ok(Some(d20::message::Type::Subscribe(body))) => body.header.as_ref(),
        Ok(Some(d20::message::Type::Unsubscribe(body))) => body.header.as_ref(),
        Ok(Some(d20::message::Type::Publish(body))) => body.header.as_ref(),
        _ => None,
    };
    let expected = match header.map(|header| (header, header.header_mac.as_ref())) {
        None | Some((_, None)) if inbound.routed().is_some() => Authenticity::Unsigned,
        None | Some((_, None)) => Authenticity::Authentic,
        Some((header, Some(code))) if link.code(header) == code => Authenticity::Authentic,
        Some(_) => Authenticity::Forged,
    };
    assert_eq!(authenticity, expected);
}

/// The fields of a publish as they are on the wire, at the three levels that a node rewrites.
#[derive(Debug, PartialEq, Eq)]
struct Shape<'a> {
    message: Vec<&'a [u8]>,
    publish: Vec<&'a [u8]>,
    header: Vec<&'a [u8]>,
}

impl<'a> Shape<'a> {
    /// That of a readable publish, but for these fields of its header.
    fn of(message: &'a [u8], without: &[u32]) -> Self {
        const PUBLISH: u32 = 3;
        const HEADER: u32 = 1;
        let (publish, message) = fields(message).into_iter().partition::<Vec<_>, _>(is(PUBLISH));
        let (header, publish) =
            fields(value(publish[0].1)).into_iter().partition::<Vec<_>, _>(is(HEADER));
        let mut header = fields(value(header[0].1));
        header.retain(|(number, _)| !without.contains(number));
        let [message, publish, header] = [message, publish, header]
            .map(|fields| fields.into_iter().map(|(_, field)| field).collect());
        Self { message, publish, header }
    }
}

fn is(wanted: u32) -> impl Fn(&(u32, &[u8])) -> bool {
    move |(number, _)| *number == wanted
}

/// The fields of a message: number, and all bytes.
fn fields(message: &[u8]) -> Vec<(u32, &[u8])> {
    let (mut rest, mut fields) = (message, Vec::new());
    while !rest.is_empty() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest).expect("a key");
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).expect("a field");
        fields.push((number, &field[..field.len() - rest.len()]));
    }
    fields
}

/// What is in a field that is a message.
fn value(mut field: &[u8]) -> &[u8] {
    decode_key(&mut field).expect("a key");
    decode_varint(&mut field).expect("a length");
    field
}

/// All that has to hold of any bytes in a dialect.
pub(crate) fn check<D: Published>(bytes: &[u8]) {
    check_read::<D>(bytes);
    check_clear::<D>(bytes);
    if D::ENCODING == Encoding::D20 {
        let [link, other] = Keyed::pair();
        check_prepare(bytes, 7, link, other);
        check_authenticity(bytes, link);
    }
}
