//! Any publish of release 0.6 comes back from a native frame, and any native publish from
//! release 0.6.

mod support;

#[path = "../../wire/tests/support/mod.rs"]
mod sessions;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::transcode::{TranscodeError, d6_to_native, native_to_d6};
use slim_compat_grpc::{D6, Dialect, Inbound};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::session::{Content, Session, access, publish};
use slim_wire::{
    Class, Encoding, Fault, Flags, FrameHeader, Header, Id, Kind, Name, Prefix, SessionIds,
};
use support::canonical;

/// Fields that release 0.6 does not know.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![8..16u32, 16..3000u32, Just((1 << 29) - 1)];
    let field = (number, 0..4u8, any::<u64>(), sessions::bytes(0..9)).prop_map(field);
    prop_oneof![3 => Just(Vec::new()), 1 => vec(field, 1..3).prop_map(|fields| fields.concat())]
}

fn field((number, wire_type, value, bytes): (u32, u8, u64, Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    match wire_type {
        0 => prost::encoding::uint64::encode(number, &value, &mut out),
        1 => prost::encoding::fixed64::encode(number, &value, &mut out),
        2 => prost::encoding::fixed32::encode(number, &(value as u32), &mut out),
        _ => prost::encoding::bytes::encode(number, &bytes, &mut out),
    }
    out
}

/// A message in a field of another.
fn within(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::bytes::encode(number, &parts.concat(), &mut out);
    out
}

/// A name in bincode, by a writer of its own.
fn bincode_name() -> impl Strategy<Value = Vec<u8>> {
    sessions::full_name(64).prop_map(|name| {
        let id = name.name.id.to_u64().expect("64 bits");
        let mut out = Vec::new();
        for number in name.name.prefix.0.into_iter().chain([id]) {
            integer(number, &mut out);
        }
        out.push(u8::from(name.texts.is_some()));
        for text in name.texts().into_iter().flatten() {
            integer(text.len() as u64, &mut out);
            out.extend(text.as_bytes());
        }
        out
    })
}

fn integer(value: u64, out: &mut Vec<u8>) {
    match value {
        0..=250 => out.push(value as u8),
        251..=0xFFFF => out.extend([&[0xFB][..], &(value as u16).to_le_bytes()].concat()),
        0x1_0000..=0xFFFF_FFFF => out.extend([&[0xFC][..], &(value as u32).to_le_bytes()].concat()),
        _ => out.extend([&[0xFD][..], &value.to_le_bytes()].concat()),
    }
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    let proposal = (bincode_name(), sessions::bytes(0..300)).prop_map(|(mut name, mls)| {
        integer(mls.len() as u64, &mut name);
        [name, mls].concat()
    });
    prop_oneof![
        Just(Vec::new()),
        Just(b"busy".to_vec()),
        sessions::bytes(0..200),
        bincode_name(),
        (bincode_name(), bincode_name())
            .prop_map(|(channel, moderator)| [channel, moderator].concat()),
        proposal,
        roster(),
    ]
}

fn roster() -> impl Strategy<Value = Vec<u8>> {
    vec((bincode_name(), any::<bool>()), 0..5).prop_map(|members| {
        let mut out = Vec::new();
        integer(members.len() as u64, &mut out);
        for (name, native) in members {
            out.extend(name);
            out.push(native.into());
        }
        out
    })
}

fn metadata() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "SLIM_IDENTITY",
        "MLS_ENABLED",
        "MLS_INIT_COMMIT_ID",
        "MLS_ENCRYPTED",
        "IS_MODERATOR",
        "PARTICIPANT_NAME",
        "DELETE_GROUP",
    ]);
    let key = prop_oneof![3 => known.prop_map(str::to_owned), 1 => ".{0,9}"];
    let value = prop_oneof![
        3 => Just("true".to_owned()),
        1 => any::<u32>().prop_map(|number| number.to_string()),
        1 => bincode_name().prop_map(|name| STANDARD.encode(name)),
        1 => ".{0,30}",
    ];
    hash_map(key, value, 0..5)
        .prop_map(|metadata| proto::Message { metadata, r#type: None }.encode_to_vec())
}

prop_compose! {
    fn header()(
        names: [[u64; 4]; 2], is_any: bool, fanout: u32, error in option::of(any::<bool>()),
        steering in option::of(any::<u64>()), unknown in [unknown(), unknown(), unknown()],
    ) -> Vec<u8> {
        let [source, mut destination] = names.map(|[component_0, component_1, component_2, id]| {
            proto::Name { component_0, component_1, component_2, component_3: id }
        });
        if is_any {
            destination.component_3 = u64::MAX;
        }
        let rest = proto::Header {
            fanout,
            error,
            recv_from: steering,
            forward_to: steering,
            incoming_conn: steering,
            ..Default::default()
        };
        [
            within(1, &[&source.encode_to_vec(), &unknown[0]]),
            rest.encode_to_vec(),
            unknown[1].clone(),
            within(2, &[&unknown[2], &destination.encode_to_vec()]),
        ]
        .concat()
    }
}

fn session_name() -> impl Strategy<Value = Vec<u8>> {
    (["a{0,3}", ".{0,9}", ".{0,9}"], any::<u64>(), unknown()).prop_map(|(texts, id, unknown)| {
        let [component_0, component_1, component_2] = texts;
        let name = proto::OriginalName { component_0, component_1, component_2, component_3: id };
        [name.encode_to_vec(), unknown].concat()
    })
}

prop_compose! {
    fn session_header()(
        kind in prop_oneof![3 => 0..4i32, 1 => any::<i32>()],
        message_type in prop_oneof![9 => 0..20i32, 1 => Just(100), 1 => any::<i32>()],
        ids: [u32; 2],
        names in [option::of(session_name()), option::of(session_name())],
        unknown in unknown(),
    ) -> Vec<u8> {
        let header = proto::SessionHeader {
            session_type: kind,
            session_message_type: message_type,
            session_id: ids[0],
            message_id: ids[1],
            ..Default::default()
        };
        let names = names.iter().zip(5..).filter_map(|(name, number)| {
            name.as_ref().map(|name| within(number, &[name]))
        });
        [header.encode_to_vec(), unknown].into_iter().chain(names).flatten().collect()
    }
}

prop_compose! {
    /// A publish of release 0.6 with unknown fields at every level.
    fn d6_publish()(
        header in header(), session in session_header(),
        content_type in select(vec!["", "msg", "p2p_session_discovery"]),
        blob in blob(), metadata in metadata(),
        has_content in prop::bool::weighted(0.9), is_doubled in prop::bool::weighted(0.1),
        unknown in [unknown(), unknown(), unknown()],
    ) -> Vec<u8> {
        let content = proto::Content { content_type: content_type.into(), blob: Bytes::from(blob) };
        let content = within(3, &[&content.encode_to_vec(), &unknown[0]]);
        let publish = [
            within(1, &[&header]),
            unknown[1].clone(),
            within(2, &[&session]),
            content.repeat(usize::from(has_content) + usize::from(is_doubled)),
        ];
        [metadata, unknown[2].clone(), within(3, &[&publish.concat()])].concat()
    }
}

proptest! {
    #[test]
    fn any_publish_of_release_0_6_comes_back_with_nothing_lost(message in d6_publish(), ttl: u8) {
        let routing = D6::read(&message).ok().and_then(Inbound::routed).expect("a publish").header;
        let frame = d6_to_native(&message, ttl).expect("a frame");
        let head = FrameHeader::prefix_of(&frame).expect("a header");
        let expected = Header { encoding: Encoding::Native, ttl, ..routing };
        prop_assert_eq!(head.header(routing.lane), Ok(expected));
        let back = native_to_d6(&frame).expect("a message");
        prop_assert_eq!(canonical(&back), canonical(&message));
        prop_assert_eq!(D6::read(&back).ok().and_then(Inbound::routed).expect("a publish").header, routing);
        prop_assert_eq!(d6_to_native(&back, ttl), Ok(frame));
    }

    #[test]
    fn any_native_publish_comes_back_from_release_0_6(
        session in sessions::session(64), payload in sessions::bytes(0..300),
        names: [([u64; 3], u64); 2], fanout: u32, is_error: bool, numbers: [u32; 2],
    ) {
        let header = header_of(names, fanout, is_error);
        let ids = SessionIds { session: numbers[0], message: numbers[1] };
        let takes_payload = !matches!(
            session.content,
            Content::DiscoveryRequest { .. }
                | Content::JoinRequest { .. }
                | Content::ControlAck { .. }
                | Content::Roster { .. }
        );
        let payload = if takes_payload { payload } else { Vec::new() };
        let frame = publish(&header, ids, &session, &payload).expect("a frame");
        let message = native_to_d6(&frame).expect("a message");
        proto::Message::decode(&message[..]).expect("published clients can decode it");
        let back = d6_to_native(&message, header.ttl).expect("a frame");
        let head = FrameHeader::prefix_of(&back).expect("a header");
        let found = head.header(0).expect("a header");
        prop_assert_eq!((Header { class: header.class, ..found }, head.ids()), (header, ids));
        let (part, rest) = head.parts(&back);
        prop_assert_eq!(access(part).expect("a session part").to_session(), Ok(session));
        prop_assert_eq!(rest, payload);
    }

    #[test]
    fn damaged_messages_and_frames_never_panic(
        message in d6_publish(), at: prop::sample::Index, byte: u8, garbage in sessions::bytes(0..300),
    ) {
        let _ = d6_to_native(&garbage, 8);
        let _ = native_to_d6(&garbage);
        let mut frame = d6_to_native(&message, 8).expect("a frame").to_vec();
        let _ = native_to_d6(&frame[..at.index(frame.len())]);
        let index = at.index(frame.len());
        frame[index] = byte;
        if let Ok(message) = native_to_d6(&frame) {
            prop_assert!(D6::read(&message).is_ok());
        }
        let mut message = message;
        let index = at.index(message.len());
        message[index] = byte;
        if D6::read(&message).is_err() {
            prop_assert!(d6_to_native(&message, 8).is_err());
        }
    }
}

fn header_of(names: [([u64; 3], u64); 2], fanout: u32, is_error: bool) -> Header {
    let [source, destination] =
        names.map(|(prefix, id)| Name { prefix: Prefix(prefix), id: Id::from_u64(id) });
    Header {
        kind: Kind::Publish,
        class: Class::Control,
        encoding: Encoding::Native,
        flags: if is_error { Flags::ERROR } else { Flags::empty() },
        ttl: 4,
        fanout,
        lane: 0,
        source,
        destination,
    }
}

/// A native publish of an app.
fn native(session: &Session, destination: Id, payload: &[u8]) -> Bytes {
    let mut header = header_of([([1, 2, 3], 4), ([5, 6, 7], 8)], 1, false);
    header.destination.id = destination;
    publish(&header, SessionIds::default(), session, payload).expect("a frame")
}

fn refusal(frame: &[u8]) -> TranscodeError {
    let error = native_to_d6(frame).expect_err("it has no form in release 0.6");
    assert_eq!(error.fault(), Fault::Peer);
    assert!(!error.hint().is_empty());
    error
}

#[test]
fn a_wide_id_is_refused_by_name() {
    let error = refusal(&native(&Session::default(), Id::new(u64::MAX.into()), b""));
    let text =
        "destination: expected an id below 18446744073709551615, or any, got ffffffffffffffff";
    assert_eq!(error.to_string(), text);
    assert!(native_to_d6(&native(&Session::default(), Id::ANY, b"")).is_ok());
}

#[test]
fn a_message_beyond_4_mib_is_refused_with_its_length() {
    let sizes = |payload: usize| native(&Session::default(), Id::ANY, &vec![0; payload]);
    let overhead = native_to_d6(&sizes(GRPC_MESSAGE_BYTES / 2)).expect("it fits").len()
        - GRPC_MESSAGE_BYTES / 2;
    let largest = native_to_d6(&sizes(GRPC_MESSAGE_BYTES - overhead)).expect("it just fits");
    assert_eq!(largest.len(), GRPC_MESSAGE_BYTES);
    assert!(D6::read(&largest).is_ok());
    let error = refusal(&sizes(GRPC_MESSAGE_BYTES - overhead + 1));
    let text = "message of release 0.6: expected at most 4194304, got 4194305";
    assert_eq!(error.to_string(), text);
}

#[test]
fn metadata_cannot_pose_as_a_part_of_the_protocol() {
    let with = |key: &str, content| Session {
        metadata: vec![(key.to_owned(), "true".to_owned())],
        content,
        ..Session::default()
    };
    for (key, content) in [
        ("SLIM_IDENTITY", Content::Commit),
        ("MLS_ENCRYPTED", Content::Ack),
        ("DELETE_GROUP", Content::LeaveRequest { participant: None, delete_group: false }),
    ] {
        let error = refusal(&native(&with(key, content), Id::ANY, b""));
        assert_eq!(error, TranscodeError::ReservedKey { key });
    }
    // Which for the content at hand means nothing is the app's.
    assert!(native_to_d6(&native(&with("DELETE_GROUP", Content::Ack), Id::ANY, b"")).is_ok());
}

#[test]
fn a_remainder_cannot_bring_steering_fields_in() {
    let forward_to = [0x28, 1];
    for remainder in [within(3, &[&forward_to]), vec![0x78, 1], vec![0x1A, 9]] {
        let session = Session { remainder, ..Session::default() };
        let error = refusal(&native(&session, Id::ANY, b""));
        assert!(matches!(error, TranscodeError::Invalid(_)), "{error}");
    }
}

#[test]
fn a_remainder_that_contradicts_its_frame_is_refused() {
    let content_is_absent = vec![0x58, 1];
    let session = Session { remainder: content_is_absent, ..Session::default() };
    assert!(native_to_d6(&native(&session, Id::ANY, b"")).is_ok());
    let error = refusal(&native(&session, Id::ANY, b"payload"));
    assert!(matches!(error, TranscodeError::Invalid(_)), "{error}");
}
