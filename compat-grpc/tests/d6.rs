//! The in-place reader of dialect D6 against captured client messages and against the generated
//! decoder of the same schema.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::{D6, Detected, Dialect, Inbound, Routed, detect, is_refusal_only};
use slim_wire::{Class, DecodeError, Encoding, Flags, Id, Kind, Name, Prefix, hash_component};

/// Messages that clients sent, from the captures in tests/vectors.
fn captured(release: &str) -> Vec<(String, Vec<u8>)> {
    let path =
        format!("{}/tests/vectors/first-messages-{release}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("vector file");
    let capture: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let messages = capture["messages"].as_array().expect("a list");
    messages
        .iter()
        .filter(|message| message["direction"] == "client_to_node")
        .map(|message| {
            let hex = message["protobuf_hex"].as_str().expect("hex");
            let bytes =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
            let kind = message["kind"].as_str().expect("kind").to_owned();
            (kind, bytes.collect::<Result<_, _>>().expect("hex digits"))
        })
        .collect()
}

fn routed(message: &[u8]) -> Routed<'_> {
    D6::read(message).expect("valid").routed().expect("for the datapath")
}

#[test]
fn the_first_message_of_every_captured_release_tells_its_dialect() {
    for (release, dialect) in [
        ("0.6.3", Detected::D6),
        ("1.0.0", Detected::D7),
        ("1.4.1", Detected::D7L),
        ("2.2.0", Detected::D20),
        ("3.3.8", Detected::D20),
    ] {
        let messages = captured(release);
        assert_eq!(detect(&messages[0].1), Ok(dialect), "{release}");
    }
}

#[test]
fn captured_messages_of_0_6_3_read_as_what_they_are() {
    let messages = captured("0.6.3");
    assert!(messages.len() > 8);
    for (kind, bytes) in &messages {
        let inbound = routed(bytes);
        let expected = match kind.as_str() {
            "subscribe" => Kind::Subscribe,
            "unsubscribe" => Kind::Unsubscribe,
            "publish" => Kind::Publish,
            other => panic!("unknown kind {other}"),
        };
        assert_eq!(inbound.header.kind, expected);
        assert_eq!(inbound.header.encoding, Encoding::D6);
        assert_eq!(inbound.header.fanout, 1);
        assert!(!inbound.steers);
        assert_eq!(inbound.header.source.prefix.0[0], hash_component("agntcy"));
    }
    let first = routed(&messages[0].1);
    assert_eq!(first.texts, Some(["agntcy", "ns", "recv"]));
    assert_eq!(
        first.header.destination.prefix,
        Prefix(["agntcy", "ns", "recv"].map(hash_component))
    );
    let discovery = messages.iter().find(|(kind, _)| kind == "publish").expect("a publish");
    let discovery = routed(&discovery.1).header;
    assert_eq!((discovery.destination.id, discovery.class), (Id::ANY, Class::Control));
}

#[test]
fn a_message_that_only_lacks_a_field_is_dropped_and_a_broken_one_ends_its_stream() {
    let publish = proto::Publish { header: None, session: None, msg: None };
    let message = proto::Message {
        metadata: HashMap::new(),
        r#type: Some(proto::message::Type::Publish(publish)),
    };
    let error = D6::read(&message.encode_to_vec()).expect_err("no header");
    assert_eq!(error, DecodeError::Missing { field: "header" });
    assert!(is_refusal_only(&error));
    assert!(is_refusal_only(&D6::read(&[]).expect_err("empty")));
    let error = D6::read(b"GET / HTTP/1.1").expect_err("garbage");
    assert!(!is_refusal_only(&error), "{error}");
}

#[test]
fn a_message_that_would_break_its_receivers_decoder_goes_no_further() {
    let (_, publish) =
        captured("0.6.3").into_iter().find(|(kind, _)| kind == "publish").expect("one");
    let invalid_metadata = [publish, vec![0x22, 5, 0x0A, 1, 0xFF, 0x12, 0]].concat();
    assert!(proto::Message::decode(&invalid_metadata[..]).is_err());
    let error = D6::read(&invalid_metadata).expect_err("metadata that is not UTF-8");
    assert_eq!(error, DecodeError::NotUtf8 { field: "metadata key", offset: 0 });
}

#[test]
fn a_message_type_of_too_many_bits_is_what_decoders_take_it_for() {
    let mut publish = proto::Publish {
        header: Some(proto::Header {
            source: Some(proto::Name::default()),
            destination: Some(proto::Name::default()),
            ..Default::default()
        }),
        session: None,
        msg: None,
    }
    .encode_to_vec();
    let mut session = Vec::new();
    prost::encoding::uint64::encode(2, &((1 << 32) + 1), &mut session);
    prost::encoding::bytes::encode(2, &session, &mut publish);
    let mut message = Vec::new();
    prost::encoding::bytes::encode(3, &publish, &mut message);
    let decoded = proto::Message::decode(&message[..]).expect("decodable");
    let Some(proto::message::Type::Publish(decoded)) = decoded.r#type else { panic!("a publish") };
    assert_eq!(decoded.session.expect("a session").session_message_type, 1);
    assert_eq!(routed(&message).header.class, Class::BestEffort);
}

#[test]
fn a_second_header_cannot_hide_behind_the_first() {
    let (_, publish) =
        captured("0.6.3").into_iter().find(|(kind, _)| kind == "publish").expect("one");
    let doubled = [publish.clone(), publish].concat();
    let error = D6::read(&doubled).expect_err("two publishes in one message");
    assert_eq!(
        error,
        DecodeError::Unexpected { field: "message type", expected: "one value", got: 2 }
    );
}

fn name() -> impl Strategy<Value = proto::Name> {
    any::<[u64; 4]>().prop_map(|[component_0, component_1, component_2, component_3]| proto::Name {
        component_0,
        component_1,
        component_2,
        component_3,
    })
}

fn header() -> impl Strategy<Value = proto::Header> {
    let steering = (option::of(any::<u64>()), option::of(any::<u64>()), option::of(any::<u64>()));
    (name(), name(), any::<u32>(), steering, option::of(any::<bool>())).prop_map(
        |(source, destination, fanout, (recv_from, forward_to, incoming_conn), error)| {
            proto::Header {
                source: Some(source),
                destination: Some(destination),
                fanout,
                recv_from,
                forward_to,
                incoming_conn,
                error,
            }
        },
    )
}

prop_compose! {
    fn publish()(
        header in header(),
        session_message_type in 0..18i32,
        blob in proptest::collection::vec(any::<u8>(), 0..200),
        metadata in proptest::collection::hash_map("[A-Z_]{1,9}", ".{0,9}", 0..3),
    ) -> proto::Message {
        let session = proto::SessionHeader { session_message_type, ..Default::default() };
        let msg = proto::Content { content_type: "msg".into(), blob: Bytes::from(blob) };
        let publish = proto::Publish { header: Some(header), session: Some(session), msg: Some(msg) };
        proto::Message { metadata, r#type: Some(proto::message::Type::Publish(publish)) }
    }
}

fn as_name(name: proto::Name) -> Name {
    Name {
        prefix: Prefix([name.component_0, name.component_1, name.component_2]),
        id: Id::from_u64(name.component_3),
    }
}

proptest! {
    #[test]
    fn publishes_read_as_the_generated_decoder_reads_them(message in publish()) {
        let bytes = message.encode_to_vec();
        let inbound = routed(&bytes);
        let Some(proto::message::Type::Publish(publish)) = message.r#type else { unreachable!() };
        let header = publish.header.expect("generated");
        prop_assert_eq!(inbound.header.source, as_name(header.source.expect("generated")));
        prop_assert_eq!(inbound.header.destination, as_name(header.destination.expect("generated")));
        prop_assert_eq!(inbound.header.fanout, header.fanout);
        prop_assert_eq!(inbound.header.flags == Flags::ERROR, header.error == Some(true));
        prop_assert_eq!(inbound.steers, header.recv_from.is_some() || header.forward_to.is_some());
    }

    #[test]
    fn clearing_takes_the_steering_fields_and_nothing_else(message in publish()) {
        let cleared = D6::clear_steering(&message.encode_to_vec()).expect("valid");
        let mut expected = message;
        let Some(proto::message::Type::Publish(publish)) = &mut expected.r#type else { unreachable!() };
        let header = publish.header.as_mut().expect("generated");
        (header.recv_from, header.forward_to) = (None, None);
        prop_assert!(!routed(&cleared).steers);
        prop_assert_eq!(proto::Message::decode(cleared).expect("decodes"), expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = detect(&bytes);
        let _ = D6::read(&bytes);
        let _ = D6::clear_steering(&bytes);
    }

    #[test]
    fn what_is_accepted_the_generated_decoder_accepts_too(
        message in publish(), at in any::<prop::sample::Index>(), byte: u8
    ) {
        let mut bytes = message.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Inbound::Routed(read)) = D6::read(&bytes) {
            prop_assert!(proto::Message::decode(&bytes[..]).is_ok());
            if read.steers {
                let cleared = D6::clear_steering(&bytes).expect("what was read can be rewritten");
                prop_assert!(!routed(&cleared).steers);
            }
        }
    }
}
