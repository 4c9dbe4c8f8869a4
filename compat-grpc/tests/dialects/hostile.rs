//! Messages that are made to be misread.

use bytes::{Bytes, BytesMut};
use slim_compat_grpc::{Authenticity, D6, D7, D20, Dialect, Inbound, P, is_refusal_only, prepare};
use slim_wire::{DecodeError, Header};

use crate::keyed::Keyed;
use crate::made::Disturbance;
use crate::made::{Made, Spec, SpecName, disturbed, put};
use crate::published::{check, check_prepare};

fn header_of(message: &[u8]) -> Header {
    D20::read(message).expect("valid").routed().expect("routed").header
}

/// The message as a client signs it.
fn signed(message: &[u8], link: &Keyed) -> Vec<u8> {
    let ttl = header_of(message).ttl;
    let prepared = prepare(&Bytes::copy_from_slice(message), ttl).expect("a publish");
    let [head, rest] = &prepared[..] else { panic!("a head and the rest") };
    let mut sent = BytesMut::new();
    link.key.sign(head, &mut sent);
    sent.extend_from_slice(rest);
    sent.into()
}

fn authenticity(message: &[u8], link: &Keyed) -> Authenticity {
    link.key.read(message).expect("valid").1
}

/// A publish of D20 with these bytes after the fields of its header.
fn with_header_bytes(more: &[u8]) -> Vec<u8> {
    let name = |app: &str| {
        let mut name = Vec::new();
        put(1, &[0x08, app.len() as u8], &mut name);
        name
    };
    let (mut header, mut publish, mut message) = (Vec::new(), Vec::new(), Vec::new());
    put(1, &name("sender"), &mut header);
    put(2, &name("receiver"), &mut header);
    header.extend_from_slice(more);
    put(1, &header, &mut publish);
    put(2, &[0x10, 1], &mut publish);
    put(3, &publish, &mut message);
    message
}

#[test]
fn steering_fields_of_zero_steer_too() {
    fn steers<D: Made>() {
        for (recv_from, forward_to) in [(Some(0), None), (None, Some(0)), (Some(0), Some(0))] {
            let bytes = D::bytes(&Spec { recv_from, forward_to, ..Spec::publish() });
            assert!(D::read(&bytes).expect("valid").routed().expect("routed").steers);
            check::<D>(&bytes);
        }
        let bytes = D::bytes(&Spec { incoming_conn: Some(0), ..Spec::publish() });
        assert!(!D::read(&bytes).expect("valid").routed().expect("routed").steers);
    }
    steers::<P>();
    steers::<D6>();
    steers::<D7>();
    steers::<D20>();
}

#[test]
fn steering_fields_given_many_times_are_all_cleared() {
    // recv_from three times and forward_to twice, between other fields.
    let steering = [0x38, 1, 0x40, 2, 0x38, 3, 0x20, 1, 0x40, 4, 0x38, 5];
    let bytes = with_header_bytes(&steering);
    check::<D20>(&bytes);
    let cleared = D20::clear_steering(&bytes).expect("valid");
    assert_eq!(cleared.len(), bytes.len() - 10);
    let read = D20::read(&cleared).expect("valid").routed().expect("routed");
    assert_eq!((read.steers, read.header.fanout), (false, 1));
}

#[test]
fn a_hop_limit_beyond_what_a_node_counts_is_the_highest_that_it_does() {
    for (ttl, read) in [(0, 0), (1, 1), (255, 255), (256, 255), (u32::MAX, 255)] {
        let bytes = D20::bytes(&Spec { ttl, ..Spec::publish() });
        assert_eq!(header_of(&bytes).ttl, read, "{ttl}");
        check::<D20>(&bytes);
    }
    // Wider than its field: decoders would take the low bits, which a node must not let decide.
    let wide = with_header_bytes(&[0x30, 0x88, 0x80, 0x80, 0x80, 0x10]);
    let error = D20::read(&wide).expect_err("too large");
    let limit = u32::MAX.into();
    assert_eq!(error, DecodeError::TooLarge { field: "ttl", limit, got: (1 << 32) + 8 });
    assert!(is_refusal_only(&error));
}

#[test]
fn numbers_written_longer_than_they_need_are_read_as_decoders_read_them() {
    let ten = [0x30, 0x88, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
    let bytes = with_header_bytes(&ten);
    assert_eq!(header_of(&bytes).ttl, 8);
    check::<D20>(&bytes);
    let eleven = [&ten[..10], &[0x80, 0x00]].concat();
    assert!(D20::read(&with_header_bytes(&eleven)).is_err());
    // A tag and a length of more bytes than they need.
    let [link, other] = Keyed::pair();
    let long_length = with_header_bytes(&[0x2A, 0x83, 0x80, 0x80, 0x00, b'1', b'.', b'0']);
    let long_tag = with_header_bytes(&[0xAA, 0x80, 0x80, 0x00, 0x01, b'1']);
    for bytes in [long_length, long_tag] {
        assert!(D20::read(&bytes).is_ok());
        check_prepare(&bytes, 3, link, other);
    }
}

#[test]
fn a_header_that_comes_last_leaves_first_and_means_the_same() {
    let metadata = [("key".to_owned(), "value".to_owned())].into();
    let spec = Spec { metadata, blob: vec![7; 5_000], ..Spec::publish() };
    let bytes = disturbed(&D20::bytes(&spec), Disturbance::Both);
    let [link, other] = Keyed::pair();
    check_prepare(&bytes, 3, link, other);
    check::<D20>(&bytes);
}

#[test]
fn a_header_is_copied_and_signed_up_to_64_kib() {
    const LIMIT: usize = 64 * 1024;
    let of_length = |length: usize| {
        let signed = Spec { code: Some(vec![0; 32]), ..Spec::publish() };
        let empty = D20::made(&Spec { identity: String::new(), ..signed.clone() });
        let Some(slim_compat_grpc::proto::d20::message::Type::Publish(publish)) = &empty.r#type
        else {
            panic!("a publish")
        };
        let header = publish.header.as_ref().expect("a header");
        // A tag and a length of three bytes come with the text.
        let identity = "i".repeat(length - prost::Message::encoded_len(header) - 4);
        D20::bytes(&Spec { identity, ..signed })
    };
    let [link, other] = Keyed::pair();
    let longest = of_length(LIMIT);
    check_prepare(&longest, 7, link, other);
    assert_eq!(authenticity(&signed(&longest, link), link), Authenticity::Authentic);

    let longer = of_length(LIMIT + 1);
    let error =
        DecodeError::TooLarge { field: "header", limit: LIMIT as u64, got: LIMIT as u64 + 1 };
    assert_eq!(D20::read(&longer), Err(error.clone()));
    assert_eq!(prepare(&longer.into(), 7), Err(error.clone()));
    assert!(is_refusal_only(&error));
    // Without a code it would be within the limit as it came, and beyond it as it left.
    let spec = Spec { identity: "i".repeat(LIMIT - 100), ..Spec::publish() };
    let unsigned = D20::bytes(&spec);
    assert!(D20::read(&unsigned).is_ok());
    let error = prepare(&unsigned.into(), 7).map(drop).expect_err("too long with a code");
    assert!(is_refusal_only(&error), "{error}");
    // Where headers are not copied for every target they may be as long as a message.
    let spec = Spec { identity: "i".repeat(LIMIT + 1), ..Spec::publish() };
    assert!(D7::read(&D7::bytes(&spec)).is_ok());
}

#[test]
fn the_code_tells_absent_from_empty_and_false() {
    let [link, _] = Keyed::pair();
    let bare = |app| SpecName { id: None, texts: None, ..SpecName::of(app) };
    let empty_texts = |app| SpecName { texts: Some(Default::default()), ..SpecName::of(app) };
    let zero_id = |app| SpecName { id: Some(0), ..SpecName::of(app) };
    let variants = [
        Spec::publish(),
        Spec { error: Some(false), ..Spec::publish() },
        Spec { error: Some(true), ..Spec::publish() },
        Spec { source: bare("sender"), ..Spec::publish() },
        Spec { destination: bare("receiver"), ..Spec::publish() },
        Spec { source: zero_id("sender"), ..Spec::publish() },
        Spec { source: empty_texts("sender"), ..Spec::publish() },
        Spec { identity: String::new(), ..Spec::publish() },
        Spec { fanout: 0, ..Spec::publish() },
        Spec { ttl: 7, ..Spec::publish() },
    ];
    let code = |spec: &Spec| {
        let sent = signed(&D20::bytes(spec), link);
        check::<D20>(&sent);
        let decoded = <slim_compat_grpc::proto::d20::Message as prost::Message>::decode(&sent[..]);
        let Some(slim_compat_grpc::proto::d20::message::Type::Publish(publish)) =
            decoded.expect("decodable").r#type
        else {
            panic!("a publish")
        };
        publish.header.and_then(|header| header.header_mac).expect("a code")
    };
    let codes: Vec<_> = variants.iter().map(code).collect();
    for (at, code) in codes.iter().enumerate() {
        assert!(!codes[..at].contains(code), "{:?}", variants[at]);
        for (other, spec) in variants.iter().enumerate() {
            let bytes = D20::bytes(&Spec { code: Some(code.to_vec()), ..spec.clone() });
            let expected = match other == at {
                true => Authenticity::Authentic,
                false => Authenticity::Forged,
            };
            assert_eq!(authenticity(&bytes, link), expected);
        }
    }
}

#[test]
fn a_code_of_another_length_or_given_twice_is_none() {
    let [link, other] = Keyed::pair();
    let right = signed(&D20::bytes(&Spec::publish()), link);
    assert_eq!(authenticity(&right, link), Authenticity::Authentic);
    assert_eq!(authenticity(&right, other), Authenticity::Forged);
    assert_eq!(authenticity(&D20::bytes(&Spec::publish()), link), Authenticity::Unsigned);
    for code in [vec![], vec![0; 31], vec![0; 32], vec![0; 33]] {
        let bytes = D20::bytes(&Spec { code: Some(code), ..Spec::publish() });
        assert_eq!(authenticity(&bytes, link), Authenticity::Forged);
    }
    let twice = with_header_bytes(&[0x5A, 1, 7, 0x5A, 1, 7]);
    assert!(matches!(D20::read(&twice), Err(DecodeError::Unexpected { field: "header_mac", .. })));
}

/// A node clears the steering fields itself, but a client's code covers them.
#[test]
fn steering_fields_that_were_added_on_the_way_are_found_out() {
    let [link, _] = Keyed::pair();
    let sent = signed(&D20::bytes(&Spec::publish()), link);
    let decoded = <slim_compat_grpc::proto::d20::Message as prost::Message>::decode(&sent[..]);
    let mut decoded = decoded.expect("decodable");
    let Some(slim_compat_grpc::proto::d20::message::Type::Publish(publish)) = &mut decoded.r#type
    else {
        panic!("a publish")
    };
    publish.header.as_mut().expect("a header").forward_to = Some(0);
    let changed = prost::Message::encode_to_vec(&decoded);
    assert_eq!(authenticity(&changed, link), Authenticity::Forged);
    let (inbound, _) = link.key.read(&changed).expect("valid");
    assert!(matches!(inbound, Inbound::Routed(routed) if routed.steers));
}
