//! What a message may not lack, and what it may not say twice.

use prost::Message as _;
use slim_compat_grpc::proto::{d7, d20};
use slim_compat_grpc::{D6, D7, D20, Dialect, P, is_refusal_only};
use slim_wire::{Class, DecodeError, Id, Kind};

use crate::made::{Made, Spec, SpecName, put};
use crate::published::check;

const KINDS: [Kind; 3] = [Kind::Subscribe, Kind::Unsubscribe, Kind::Publish];

fn number_of(kind: Kind) -> u32 {
    match kind {
        Kind::Subscribe => 1,
        Kind::Unsubscribe => 2,
        Kind::Publish => 3,
    }
}

fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    put(number, value, &mut field);
    field
}

/// A message of this kind with this header, and a session if it is a publish.
fn with_header(kind: Kind, header: Option<&[u8]>) -> Vec<u8> {
    let mut body = header.map(|header| field(1, header)).unwrap_or_default();
    if kind == Kind::Publish {
        body.extend(field(2, &[0x08, 1]));
    }
    field(number_of(kind), &body)
}

/// A name that every dialect takes: empty hashes and texts where it has them.
fn whole_name<D: Dialect>() -> Vec<u8> {
    match D::PATH == <P as Dialect>::PATH || D::ENCODING == D6::ENCODING {
        true => Vec::new(),
        false => [field(1, &[]), field(2, &[])].concat(),
    }
}

fn assert_missing<D: Dialect>(bytes: &[u8], wanted: &'static str) {
    let error = D::read(bytes).expect_err(wanted);
    assert_eq!(error, DecodeError::Missing { field: wanted }, "{}", D::PATH);
    assert!(is_refusal_only(&error));
}

fn refuses_what_lacks_a_part<D: Made>() {
    let name = whole_name::<D>();
    assert_missing::<D>(&[], "message type");
    for kind in KINDS {
        assert_missing::<D>(&with_header(kind, None), "header");
        assert_missing::<D>(&with_header(kind, Some(&[])), "source");
        assert_missing::<D>(&with_header(kind, Some(&field(2, &name))), "source");
        assert_missing::<D>(&with_header(kind, Some(&field(1, &name))), "destination");
        let whole = [field(1, &name), field(2, &name)].concat();
        assert!(D::read(&with_header(kind, Some(&whole))).is_ok(), "{kind:?}");
        check::<D>(&with_header(kind, Some(&whole)));
        if kind == Kind::Publish {
            assert_missing::<D>(&field(3, &field(1, &whole)), "session");
        }
    }
}

#[test]
fn a_message_that_lacks_a_part_is_merely_dropped() {
    refuses_what_lacks_a_part::<P>();
    refuses_what_lacks_a_part::<D6>();
    refuses_what_lacks_a_part::<D7>();
    refuses_what_lacks_a_part::<D20>();
}

#[test]
fn names_from_d7_on_need_their_hashes_and_those_of_d7_their_texts() {
    let (hashes, texts) = (field(1, &[]), field(2, &[]));
    let both = [hashes.clone(), texts.clone()].concat();
    for kind in KINDS {
        for (source, destination) in [(&texts, &both), (&both, &texts)] {
            let header = [field(1, source), field(2, destination)].concat();
            assert_missing::<D7>(&with_header(kind, Some(&header)), "name");
            assert_missing::<D20>(&with_header(kind, Some(&header)), "name");
        }
        for (source, destination) in [(&hashes, &both), (&both, &hashes)] {
            let header = [field(1, source), field(2, destination)].concat();
            assert_missing::<D7>(&with_header(kind, Some(&header)), "name text");
            let bytes = with_header(kind, Some(&header));
            let read = D20::read(&bytes).expect("texts are for logs").routed().expect("routed");
            assert_eq!(read.header.destination.id, Id::ANY);
            check::<D20>(&bytes);
        }
    }
}

#[test]
fn an_absent_id_is_any_in_d20_and_zero_before() {
    let destination = SpecName { id: None, ..SpecName::of("app") };
    let spec = Spec { destination, ..Spec::publish() };
    let id = |header: slim_wire::Header| header.destination.id;
    let header_of = |read: slim_compat_grpc::Inbound<'_>| read.routed().expect("routed").header;
    assert_eq!(id(header_of(P::read(&P::bytes(&spec)).expect("valid"))), Id::new(0));
    assert_eq!(id(header_of(D6::read(&D6::bytes(&spec)).expect("valid"))), Id::new(0));
    assert_eq!(id(header_of(D7::read(&D7::bytes(&spec)).expect("valid"))), Id::new(0));
    assert_eq!(id(header_of(D20::read(&D20::bytes(&spec)).expect("valid"))), Id::ANY);
    // One that is there and empty is an id like any other.
    let destination = SpecName { id: Some(0), ..SpecName::of("app") };
    let bytes = D20::bytes(&Spec { destination, ..Spec::publish() });
    assert_eq!(id(header_of(D20::read(&bytes).expect("valid"))), Id::new(0));
}

fn twice() -> DecodeError {
    DecodeError::Unexpected { field: "message type", expected: "one value", got: 2 }
}

fn refuses_what_is_said_twice<D: Made>() {
    for kind in KINDS {
        let bytes = D::bytes(&Spec::of(kind));
        // A second message of the same or another kind cannot hide behind the first.
        for other in KINDS {
            let doubled = [bytes.clone(), D::bytes(&Spec::of(other))].concat();
            assert_eq!(D::read(&doubled), Err(twice()), "{kind:?} {other:?}");
        }
        // Nor a second header, source or destination.
        let name = whole_name::<D>();
        let header = [field(1, &name), field(2, &name)].concat();
        let body = |header: &[u8]| [field(1, header), field(2, &[])].concat();
        let twice = [field(1, &header), body(&header)].concat();
        for bytes in [
            field(number_of(kind), &twice),
            field(number_of(kind), &body(&[header.clone(), field(1, &name)].concat())),
            field(number_of(kind), &body(&[field(2, &name), header.clone()].concat())),
        ] {
            let error = D::read(&bytes).expect_err("said twice");
            assert!(matches!(error, DecodeError::Unexpected { .. }), "{kind:?}: {error}");
            assert!(!is_refusal_only(&error));
        }
    }
}

#[test]
fn what_is_said_twice_is_refused() {
    refuses_what_is_said_twice::<P>();
    refuses_what_is_said_twice::<D6>();
    refuses_what_is_said_twice::<D7>();
    refuses_what_is_said_twice::<D20>();
    // Links and acknowledgements are members of the same choice from D7 on, unknown before.
    let message = [field(5, &[]), field(6, &[])];
    for more in message {
        let spec = Spec::publish();
        let with = |bytes: Vec<u8>| [bytes, more.clone()].concat();
        assert_eq!(D7::read(&with(D7::bytes(&spec))), Err(twice()));
        assert_eq!(D20::read(&with(D20::bytes(&spec))), Err(twice()));
        assert!(D6::read(&with(D6::bytes(&spec))).is_ok());
        assert!(P::read(&with(P::bytes(&spec))).is_ok());
    }
}

#[test]
fn a_publish_that_would_break_its_receivers_decoder_goes_no_further() {
    fn refused<D: Made>(field: &'static str, more: &[u8]) {
        let bytes = [D::bytes(&Spec::publish()), more.to_vec()].concat();
        assert!(<D::Message as prost::Message>::decode(&bytes[..]).is_err());
        let error = D::read(&bytes).expect_err("not UTF-8");
        assert_eq!(error, DecodeError::NotUtf8 { field, offset: 0 });
        assert!(!is_refusal_only(&error));
    }
    let key = field(4, &field(1, &[0xFF]));
    let value = field(4, &field(2, &[0xC0, 0x80]));
    for (name, more) in [("metadata key", key), ("metadata value", value)] {
        refused::<P>(name, &more);
        refused::<D6>(name, &more);
        refused::<D7>(name, &more);
        refused::<D20>(name, &more);
    }
}

#[test]
fn a_command_that_its_receiver_cannot_decode_goes_no_further() {
    let command = d20::CommandPayload {
        command_payload_type: Some(d20::command_payload::CommandPayloadType::GroupProposal(
            d20::GroupProposal { source: None, mls_proposal: bytes::Bytes::from_static(b"m") },
        )),
    };
    let content = d20::content::ContentType::CommandPayload(command);
    let mut message = D20::made(&Spec::publish());
    let Some(d20::message::Type::Publish(publish)) = &mut message.r#type else { panic!("one") };
    publish.msg = Some(d20::Content { content_type: Some(content) });
    let mut bytes = message.encode_to_vec();
    check::<D20>(&bytes);
    assert!(D20::read(&bytes).is_ok());
    let proposal = bytes.windows(3).rposition(|bytes| bytes == [0x12, 1, b'm']).expect("there");
    // A number where the bytes of the proposal were.
    bytes[proposal] = 0x10;
    assert!(d20::Message::decode(&bytes[..]).is_err());
    assert!(D20::read(&bytes).is_err());
}

#[test]
fn a_message_type_of_too_many_bits_is_what_decoders_take_it_for() {
    let name = field(1, &[]);
    let header = [name.clone(), field(2, &[])].concat();
    let mut session = Vec::new();
    prost::encoding::uint64::encode(2, &((1 << 32) + 1), &mut session);
    let message = field(3, &[field(1, &header), field(2, &session)].concat());
    let read = D6::read(&message).expect("valid").routed().expect("routed");
    assert_eq!(read.header.class, Class::BestEffort);
    check::<D6>(&message);
}

#[test]
fn a_subscription_with_texts_that_are_too_long_is_merely_dropped() {
    let destination =
        SpecName { texts: Some(["o".into(), "n".into(), "a".repeat(1025)]), ..SpecName::of("app") };
    let spec = Spec { destination, ..Spec::of(Kind::Subscribe) };
    for error in [
        P::read(&P::bytes(&spec)).expect_err("too long"),
        D6::read(&D6::bytes(&spec)).expect_err("too long"),
        D7::read(&D7::bytes(&spec)).expect_err("too long"),
        D20::read(&D20::bytes(&spec)).expect_err("too long"),
    ] {
        let expected = DecodeError::TooLarge { field: "name component", limit: 1024, got: 1025 };
        assert_eq!(error, expected);
        assert!(is_refusal_only(&error));
    }
    assert_eq!(D7::made(&spec), d7::Message::decode(&D7::bytes(&spec)[..]).expect("decodable"));
}
