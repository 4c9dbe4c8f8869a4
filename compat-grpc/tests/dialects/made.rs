//! Messages of every dialect from one description, and what may be done to them.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field};
use slim_compat_grpc::proto::{d6, d7, d20, p};
use slim_compat_grpc::{D6, D7, D20, P};
use slim_wire::Kind;

use crate::published::Published;

/// What a message says, as far as its dialect can say it.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) source: SpecName,
    pub(crate) destination: SpecName,
    pub(crate) fanout: u32,
    pub(crate) identity: String,
    pub(crate) ttl: u32,
    pub(crate) recv_from: Option<u64>,
    pub(crate) forward_to: Option<u64>,
    pub(crate) incoming_conn: Option<u64>,
    pub(crate) error: Option<bool>,
    pub(crate) code: Option<Vec<u8>>,
    pub(crate) subscription: u64,
    pub(crate) session: [u32; 4],
    pub(crate) blob: Vec<u8>,
    pub(crate) metadata: HashMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct SpecName {
    pub(crate) hashes: [u64; 3],
    pub(crate) id: Option<u128>,
    pub(crate) texts: Option<[String; 3]>,
}

impl SpecName {
    pub(crate) fn of(app: &str) -> Self {
        let texts = ["org", "ns", app].map(str::to_owned);
        Self { hashes: [1, 2, app.len() as u64], id: Some(7), texts: Some(texts) }
    }

    fn own_texts(&self) -> [String; 3] {
        self.texts.clone().unwrap_or_default()
    }
}

impl Spec {
    /// A plain publish.
    pub(crate) fn publish() -> Self {
        Self {
            kind: Kind::Publish,
            source: SpecName::of("sender"),
            destination: SpecName::of("receiver"),
            fanout: 1,
            identity: "token".into(),
            ttl: 8,
            recv_from: None,
            forward_to: None,
            incoming_conn: None,
            error: None,
            code: None,
            subscription: 0,
            session: [1, 1, 7, 1],
            blob: b"payload".to_vec(),
            metadata: HashMap::new(),
        }
    }

    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind, subscription: 77, ..Self::publish() }
    }
}

/// A dialect in which a [`Spec`] can be written.
pub(crate) trait Made: Published {
    fn made(spec: &Spec) -> Self::Message;

    fn bytes(spec: &Spec) -> Vec<u8> {
        Self::made(spec).encode_to_vec()
    }
}

macro_rules! made {
    ($dialect:ty, $proto:ident, {$($more:tt)*}, {$($names:tt)*}, $name:expr, $subscribe:expr,
     $unsubscribe:expr, $msg:expr) => {
        impl Made for $dialect {
            fn made(spec: &Spec) -> Self::Message {
                use $proto::message::Type;
                let header = Some(made!(@header $proto, spec, $name, $($more)*));
                let r#type = Some(match spec.kind {
                    Kind::Subscribe => Type::Subscribe($subscribe(header, spec)),
                    Kind::Unsubscribe => Type::Unsubscribe($unsubscribe(header, spec)),
                    Kind::Publish => {
                        let [session_type, session_message_type, session_id, message_id] =
                            spec.session;
                        let session = $proto::SessionHeader {
                            session_type: session_type as _,
                            session_message_type: session_message_type as _,
                            session_id,
                            message_id,
                            $($names)*
                        };
                        let (session, msg) = (Some(session), Some($msg(spec)));
                        Type::Publish($proto::Publish { header, session, msg })
                    }
                });
                $proto::Message { metadata: spec.metadata.clone(), r#type }
            }
        }
    };
    (@header $proto:ident, $spec:ident, $name:expr, $($field:ident: $value:expr,)*) => {
        $proto::Header {
            source: Some($name(&$spec.source)),
            destination: Some($name(&$spec.destination)),
            fanout: $spec.fanout,
            recv_from: $spec.recv_from,
            forward_to: $spec.forward_to,
            incoming_conn: $spec.incoming_conn,
            error: $spec.error,
            $($field: $value($spec),)*
        }
    };
}

macro_rules! with_texts {
    ($message:ty) => {
        |header, spec: &Spec| {
            let [component_0, component_1, component_2] = spec.destination.own_texts();
            <$message>::from(WithTexts { header, component_0, component_1, component_2 })
        }
    };
}

/// What the subscriptions with texts have in common.
struct WithTexts<H> {
    header: Option<H>,
    component_0: String,
    component_1: String,
    component_2: String,
}

macro_rules! from_texts {
    ($($message:ty, $header:ty);*) => {$(
        impl From<WithTexts<$header>> for $message {
            fn from(from: WithTexts<$header>) -> Self {
                let WithTexts { header, component_0, component_1, component_2 } = from;
                Self { header, component_0, component_1, component_2 }
            }
        }
    )*};
}

from_texts!(p::Subscribe, p::Header; d6::Subscribe, d6::Header; d6::Unsubscribe, d6::Header);

macro_rules! flat_name {
    ($proto:ident) => {
        |name: &SpecName| {
            let [component_0, component_1, component_2] = name.hashes;
            let component_3 = name.id.unwrap_or(0) as u64;
            $proto::Name { component_0, component_1, component_2, component_3 }
        }
    };
}

made!(
    P,
    p,
    {},
    {},
    flat_name!(p),
    with_texts!(p::Subscribe),
    |header, _| p::Unsubscribe { header },
    |spec: &Spec| p::Content { content_type: "msg".into(), blob: spec.blob.clone().into() }
);

made!(
    D6,
    d6,
    {},
    { source: None, destination: None, },
    flat_name!(d6),
    with_texts!(d6::Subscribe),
    with_texts!(d6::Unsubscribe),
    |spec: &Spec| d6::Content { content_type: "msg".into(), blob: spec.blob.clone().into() }
);

macro_rules! application {
    ($proto:ident) => {
        |spec: &Spec| {
            let payload_type = "msg".into();
            let payload =
                $proto::ApplicationPayload { payload_type, blob: spec.blob.clone().into() };
            let content_type = Some($proto::content::ContentType::AppPayload(payload));
            $proto::Content { content_type }
        }
    };
}

fn identity(spec: &Spec) -> String {
    spec.identity.clone()
}

made!(
    D7,
    d7,
    { identity: identity, },
    {},
    |name: &SpecName| {
        let [component_0, component_1, component_2] = name.hashes;
        let component_3 = name.id.unwrap_or(0) as u64;
        let encoded = d7::EncodedName { component_0, component_1, component_2, component_3 };
        let [component_0, component_1, component_2] = name.own_texts();
        let str_name = Some(d7::StringName { component_0, component_1, component_2 });
        d7::Name { name: Some(encoded), str_name }
    },
    |header, spec: &Spec| d7::Subscribe { header, subscription_id: spec.subscription },
    |header, spec: &Spec| d7::Unsubscribe { header, subscription_id: spec.subscription },
    application!(d7)
);

made!(
    D20,
    d20,
    {
        identity: identity,
        ttl: |spec: &Spec| spec.ttl,
        version: |_| "3.4.6".to_owned(),
        header_mac: |spec: &Spec| spec.code.clone().map(Bytes::from),
        e2e_header_sig: |_| None,
    },
    {},
    |name: &SpecName| {
        let [component_0, component_1, component_2] = name.hashes;
        let name_id =
            name.id.map(|id| d20::NameId { id_0: (id >> 64) as u64, id_1: id as u64 });
        let encoded = d20::EncodedName { component_0, component_1, component_2, name_id };
        let str_name = name.texts.clone().map(|[component_0, component_1, component_2]| {
            d20::StringName { component_0, component_1, component_2 }
        });
        d20::Name { name: Some(encoded), str_name }
    },
    |header, spec: &Spec| d20::Subscribe { header, subscription_id: spec.subscription },
    |header, spec: &Spec| d20::Unsubscribe { header, subscription_id: spec.subscription },
    application!(d20)
);

fn name() -> impl Strategy<Value = SpecName> {
    let hash = prop_oneof![Just(0), any::<u64>()];
    let id = prop_oneof![
        Just(u64::MAX.into()),
        Just(u128::MAX),
        any::<u64>().prop_map(u128::from),
        any::<u128>()
    ];
    let texts = option::of([".{0,9}", ".{0,9}", ".{0,9}"]);
    ([hash.clone(), hash.clone(), hash], option::of(id), texts)
        .prop_map(|(hashes, id, texts)| SpecName { hashes, id, texts })
}

/// Numbers at the edges of what they may be, and others.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..3_u32, Just(255), Just(256), Just(u32::MAX), any::<u32>()]
}

prop_compose! {
    /// Any message.
    pub(crate) fn spec()(
        kind in prop_oneof![1 => Just(Kind::Subscribe), 1 => Just(Kind::Unsubscribe), 2 => Just(Kind::Publish)],
        (source, destination) in (name(), name()),
        (fanout, ttl) in (number(), number()),
        identity in ".{0,40}",
        steering in (option::of(0..3_u64), option::of(any::<u64>()), option::of(any::<u64>())),
        error in option::of(any::<bool>()),
        code in option::of(prop_oneof![vec(any::<u8>(), 32), vec(any::<u8>(), 0..40)]),
        subscription in any::<u64>(),
        session in (0..4_u32, 0..22_u32, any::<u32>(), any::<u32>()),
        blob in vec(any::<u8>(), 0..200),
        metadata in hash_map("[A-Z_]{1,9}", ".{0,9}", 0..3),
    ) -> Spec {
        let (recv_from, forward_to, incoming_conn) = steering;
        let session = session.into();
        Spec {
            kind, source, destination, fanout, identity, ttl, recv_from, forward_to,
            incoming_conn, error, code, subscription, session, blob, metadata,
        }
    }
}

/// What no reader of protobuf minds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disturbance {
    None,
    /// Fields that no schema knows, at each level of nesting.
    Unknown,
    /// The fields of the message, its body and its header last to first.
    Reversed,
    Both,
}

impl Disturbance {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Unknown, Self::Reversed, Self::Both];
}

pub(crate) fn disturbance() -> impl Strategy<Value = Disturbance> {
    proptest::sample::select(&Disturbance::ALL[..])
}

/// A message with its fields, those of its body and those of its header disturbed.
pub(crate) fn disturbed(message: &[u8], disturbance: Disturbance) -> Vec<u8> {
    disturb(message, disturbance, &[1..=3, 1..=1])
}

fn disturb(
    message: &[u8],
    disturbance: Disturbance,
    nested: &[std::ops::RangeInclusive<u32>],
) -> Vec<u8> {
    let (unknown, reversed) = match disturbance {
        Disturbance::None => (false, false),
        Disturbance::Unknown => (true, false),
        Disturbance::Reversed => (false, true),
        Disturbance::Both => (true, true),
    };
    let mut fields = split(message);
    if let Some((wanted, deeper)) = nested.split_first() {
        for (number, field) in &mut fields {
            if wanted.contains(number) {
                let mut value = &field[..];
                decode_key(&mut value).expect("a key");
                prost::encoding::decode_varint(&mut value).expect("a length");
                let mut again = Vec::new();
                put(*number, &disturb(value, disturbance, deeper), &mut again);
                *field = again;
            }
        }
    }
    if unknown {
        let mut strange = Vec::new();
        put(99, b"unknown", &mut strange);
        fields.insert(0, (99, strange));
        // A number, and values of 8 and of 4 bytes.
        fields.push((100, vec![0xA0, 0x06, 0xFF, 0x01]));
        fields.push((101, vec![0xA9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]));
        fields.push((102, vec![0xB5, 0x06, 1, 2, 3, 4]));
    }
    if reversed {
        fields.reverse();
    }
    fields.into_iter().flat_map(|(_, field)| field).collect()
}

/// The fields of a message: number, and all bytes.
fn split(message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let (mut rest, mut fields) = (message, Vec::new());
    while !rest.is_empty() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest).expect("a key");
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).expect("a field");
        fields.push((number, field[..field.len() - rest.len()].to_vec()));
    }
    fields
}

/// Writes a field that holds bytes.
pub(crate) fn put(number: u32, value: &[u8], to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(value.len() as u64, to);
    to.extend_from_slice(value);
}
