//! Which dialect the first message of a stream proves.

use prost::Message as _;
use slim_compat_grpc::proto::{d6, d7, d20, p};
use slim_compat_grpc::{D6, D7, D20, Detected, P, detect, detect_pubsub, is_refusal_only};
use slim_wire::{DecodeError, Encoding, Kind};

use crate::captured::{RELEASES, captured};
use crate::made::{Disturbance, Made, Spec, SpecName, disturbed, put};

#[test]
fn the_first_message_of_every_captured_connection_tells_its_dialect() {
    for release in RELEASES {
        let (dialect, encoding, starts): (_, _, &[u8]) = match release {
            "0.4.1" => (Detected::P, Encoding::P, &[0x0A, 0x6E, 0x0A, 0x5A, 0x0A, 0x29, 0x08]),
            "0.5.0" => (Detected::P, Encoding::P, &[0x0A]),
            "0.6.3" => (Detected::D6, Encoding::D6, &[0x0A, 0x70, 0x0A, 0x5C, 0x0A, 0x2A, 0x08]),
            "1.0.0" => (Detected::D7, Encoding::D7, &[0x0A, 0xFC, 0x01, 0x0A, 0xF9, 0x01, 0x0A]),
            "1.4.1" => (Detected::D7L, Encoding::D7, &[0x2A, 0x2F, 0x0A, 0x2D, 0x0A, 0x24]),
            _ => (Detected::D20, Encoding::D20, &[0x2A, 0x7E, 0x0A, 0x7C, 0x0A, 0x24]),
        };
        let first = &captured(release)[0];
        assert!(first.from_client && first.bytes.starts_with(starts), "{release}");
        for disturbance in Disturbance::ALL {
            // A first message that begins with a field of no release is from none of them.
            if matches!(disturbance, Disturbance::Unknown | Disturbance::Both) {
                continue;
            }
            let bytes = disturbed(&first.bytes, disturbance);
            let detected = match encoding {
                Encoding::P => detect_pubsub(&bytes),
                _ => detect(&bytes),
            };
            assert_eq!(detected, Ok(dialect), "{release} {disturbance:?}");
        }
        assert_eq!(dialect.encoding(), encoding);
    }
}

#[test]
fn metadata_before_the_body_and_any_kind_of_body_make_no_difference() {
    let metadata = [("SLIM_IDENTITY".to_owned(), "secret:app".to_owned())];
    for kind in [Kind::Subscribe, Kind::Unsubscribe, Kind::Publish] {
        // Release 0.3 is told from later ones by its hashes.
        let hashes = ["org", "ns", "app"].map(slim_wire::hash_component);
        let destination = SpecName { hashes, ..SpecName::of("app") };
        let spec = Spec { metadata: metadata.clone().into(), destination, ..Spec::of(kind) };
        let first = |bytes: Vec<u8>| disturbed(&bytes, Disturbance::Reversed);
        assert_eq!(first(D6::bytes(&spec))[0], 0x22, "metadata comes first");
        assert_eq!(detect(&first(D6::bytes(&spec))), Ok(Detected::D6), "{kind:?}");
        assert_eq!(detect(&first(D7::bytes(&spec))), Ok(Detected::D7), "{kind:?}");
        assert_eq!(detect_pubsub(&first(P::bytes(&spec))), Ok(Detected::P), "{kind:?}");
    }
}

#[test]
fn names_that_begin_with_another_field_than_usual_tell_d6_from_d7_all_the_same() {
    // Hashes of zero are not written, so the name may begin with any of its numbers.
    for hashes in [[0, 2, 3], [0, 0, 3], [0, 0, 0]] {
        for id in [Some(7), Some(0)] {
            let source = SpecName { hashes, id, ..SpecName::of("app") };
            let spec = Spec { source, ..Spec::publish() };
            assert_eq!(detect(&D6::bytes(&spec)), Ok(Detected::D6), "{hashes:?} {id:?}");
            assert_eq!(detect(&D7::bytes(&spec)), Ok(Detected::D7), "{hashes:?} {id:?}");
        }
    }
    let text_first = {
        let mut name = Vec::new();
        put(2, &[], &mut name);
        nested(&[1, 1, 1], &name)
    };
    assert_eq!(detect(&text_first), Ok(Detected::D7));
    // A value of 8 bytes, which no schema has.
    let fixed = nested(&[1, 1, 1], &[0x09, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(matches!(detect(&fixed), Err(DecodeError::Unexpected { .. })));
}

/// `value` inside fields of these numbers, the outermost first.
fn nested(numbers: &[u32], value: &[u8]) -> Vec<u8> {
    numbers.iter().rev().fold(value.to_vec(), |value, number| {
        let mut field = Vec::new();
        put(*number, &value, &mut field);
        field
    })
}

fn link(negotiation: d20::LinkNegotiation) -> Vec<u8> {
    let link = d20::Link { link_type: Some(d20::link::LinkType::LinkNegotiation(negotiation)) };
    let message =
        d20::Message { r#type: Some(d20::message::Type::Link(link)), ..Default::default() };
    message.encode_to_vec()
}

#[test]
fn a_link_message_is_of_d20_by_its_own_fields_or_by_its_version() {
    let version = |version: &str| d20::LinkNegotiation {
        link_id: "a-link".into(),
        slim_version: version.into(),
        ..Default::default()
    };
    let key = || bytes::Bytes::from_static(&[7; 32]);
    for (negotiation, dialect) in [
        (version("1.3.0"), Detected::D7L),
        (version("1.4.1"), Detected::D7L),
        (version("0.9.0"), Detected::D7L),
        (version("2.0.0"), Detected::D20),
        (version("10.0.0-rc.1"), Detected::D20),
        (d20::LinkNegotiation { link_ecdh_public_key: key(), ..version("1.4.1") }, Detected::D20),
        (d20::LinkNegotiation { connection_type: 2, ..version("1.4.1") }, Detected::D20),
        (d20::LinkNegotiation { node_id: "node".into(), ..version("") }, Detected::D20),
        (d20::LinkNegotiation { deployment_name: "d".into(), ..version("1.4.1") }, Detected::D7L),
    ] {
        assert_eq!(detect(&link(negotiation.clone())), Ok(dialect), "{negotiation:?}");
    }
    for unknown in ["", "latest", "v1.4.1"] {
        let error = detect(&link(version(unknown))).expect_err(unknown);
        assert_eq!(error, DecodeError::Missing { field: "slim_version" });
    }
}

#[test]
fn first_messages_of_no_release_are_refused() {
    for (what, bytes) in [
        ("an acknowledgement", d7_ack()),
        ("a field of no release", vec![0x3A, 0]),
        ("a request of HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a cut message", vec![0x0A, 0x70, 0x0A]),
        ("a number for a body", vec![0x08, 1]),
        ("a group", vec![0x0B]),
    ] {
        let error = detect(&bytes).expect_err(what);
        assert!(!is_refusal_only(&error), "{what}: {error}");
        assert!(detect_pubsub(&bytes).is_err(), "{what}");
    }
    let nothing = DecodeError::Missing { field: "message type" };
    assert_eq!(detect(&[]), Err(nothing.clone()));
    assert_eq!(detect_pubsub(&[]), Err(nothing));
}

fn d7_ack() -> Vec<u8> {
    slim_compat_grpc::subscription_ack(7, Ok(())).to_vec()
}

#[test]
fn a_first_message_as_of_release_0_3_lacks_what_later_ones_have() {
    let source = SpecName { id: None, ..SpecName::of("app") };
    for kind in [Kind::Subscribe, Kind::Unsubscribe, Kind::Publish] {
        let spec = Spec { source: source.clone(), ..Spec::of(kind) };
        let error = detect_pubsub(&P::bytes(&spec)).expect_err("an id of 0 is not written");
        assert_eq!(error, DecodeError::Missing { field: "id of the source name" });
    }
    // What release 0.3.6 sends: its hashes of `org`, `ns` and `old` are others.
    let hashes = [0x82b7_5874_7bad_9534, 0x3b52_b413_3144_d34f, 0xfd4d_252b_00f4_380c];
    let number = |component_3| {
        let [component_0, component_1, component_2] = hashes;
        Some(p::Name { component_0, component_1, component_2, component_3 })
    };
    let header =
        p::Header { source: number(7), destination: number(7), fanout: 1, ..Default::default() };
    let [component_0, component_1, component_2] = ["org", "ns", "old"].map(str::to_owned);
    let old = p::Subscribe { header: Some(header), component_0, component_1, component_2 };
    let old = p::message::Type::Subscribe(old);
    let old = p::Message { r#type: Some(old), ..Default::default() };
    let field = "hashes of the texts of the name";
    assert_eq!(detect_pubsub(&old.encode_to_vec()), Err(DecodeError::Missing { field }));
    // Without a session, and without a header.
    let Some(p::message::Type::Publish(publish)) = P::made(&Spec::publish()).r#type else {
        panic!("a publish");
    };
    for (publish, field) in [
        (p::Publish { session: None, ..publish.clone() }, "session"),
        (p::Publish { header: None, ..publish }, "header"),
    ] {
        let r#type = Some(p::message::Type::Publish(publish));
        let message = p::Message { r#type, ..Default::default() };
        assert_eq!(detect_pubsub(&message.encode_to_vec()), Err(DecodeError::Missing { field }));
    }
}

#[test]
fn headers_without_a_name_do_not_tell_a_dialect() {
    let subscribe = |header| {
        let body = d6::Subscribe { header, ..Default::default() };
        let r#type = Some(d6::message::Type::Subscribe(body));
        d6::Message { r#type, ..Default::default() }.encode_to_vec()
    };
    assert_eq!(detect(&subscribe(None)), Err(DecodeError::Missing { field: "header" }));
    let bare = subscribe(Some(d6::Header { fanout: 1, ..Default::default() }));
    assert_eq!(detect(&bare), Err(DecodeError::Missing { field: "source" }));
}

#[test]
fn a_subscription_of_d20_without_a_link_before_it_is_not_taken_for_d7() {
    let bytes = D20::bytes(&Spec::of(Kind::Subscribe));
    // The names look alike up to the id, which is a message there.
    assert_eq!(detect(&bytes), Ok(Detected::D7));
    let error = <D7 as slim_compat_grpc::Dialect>::read(&bytes).expect_err("another schema");
    assert!(!is_refusal_only(&error), "{error}");
    assert!(d7::Message::decode(&bytes[..]).is_err());
}
