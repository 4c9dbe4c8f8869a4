//! Publishes of release 0.6 as native frames and back, against captured sessions of published
//! clients.

mod support;

use prost::Message as _;
use serde_json::Value;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::transcode::{TranscodeError, d6_to_native, native_to_d6};
use slim_compat_grpc::{D6, Dialect, Inbound};
use slim_wire::limits::{ROSTER_MEMBERS, SESSION_PART_BYTES};
use slim_wire::session::{self, Content, Delivery, FullName, RosterMember, Session, SessionKind};
use slim_wire::{
    Class, Encoding, Fault, FrameHeader, Header, Id, Kind, Name, Prefix, SessionIds, TextName,
    hash_component,
};
use support::canonical;

/// A message of the captures in tests/vectors/session-0.6.3.
struct Captured {
    place: String,
    message: Vec<u8>,
    decoded: Value,
}

fn captured() -> Vec<Captured> {
    let folder = format!("{}/tests/vectors/session-0.6.3", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).expect("the folder of vectors");
    let files = files.map(|file| file.expect("a file").path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "jsonl"))
        .flat_map(|file| {
            let text = std::fs::read_to_string(&file).expect("vector file");
            let lines = text.lines().map(|line| {
                let mut line: Value = serde_json::from_str(line).expect("JSON");
                let place = format!("{}: {}", file.display(), line["n"]);
                let message = from_hex(line["hex"].as_str().expect("hex"));
                Captured { place, message, decoded: line["decoded"].take() }
            });
            lines.collect::<Vec<_>>()
        })
        .collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    bytes.collect::<Result<_, _>>().expect("hex digits")
}

fn publishes() -> impl Iterator<Item = Captured> {
    captured().into_iter().filter(|captured| captured.decoded["kind"] == "publish")
}

/// Frame, header, session part and payload of a message.
fn native(message: &[u8]) -> (FrameHeader, Session, Vec<u8>) {
    let frame = d6_to_native(message, 5).expect("a native frame");
    let head = *FrameHeader::prefix_of(&frame).expect("a header");
    let (part, payload) = head.parts(&frame);
    let session = session::access(part).expect("a session part").to_session().expect("a session");
    (head, session, payload.to_vec())
}

#[test]
fn captured_publishes_come_back_with_nothing_lost() {
    let mut count = 0;
    for Captured { place, message, .. } in publishes() {
        let frame = d6_to_native(&message, 5).expect(&place);
        let back = native_to_d6(&frame).expect(&place);
        assert_eq!(canonical(&back), canonical(&message), "{place}");
        assert!(back.len() <= message.len(), "{place}");
        count += 1;
    }
    assert!(count > 600, "{count} publishes");
}

#[test]
fn a_transcoded_frame_routes_like_the_message() {
    for Captured { place, message, .. } in publishes() {
        let expected = D6::read(&message).ok().and_then(Inbound::routed).expect(&place).header;
        let (head, ..) = native(&message);
        let lane = slim_wire::lane(head.ids().session, &head.source());
        let expected = Header { encoding: Encoding::Native, ttl: 5, ..expected };
        assert_eq!(head.header(lane), Ok(expected), "{place}");
    }
}

#[test]
fn captured_publishes_are_typed_as_what_they_are() {
    for Captured { place, message, decoded } in publishes() {
        let (head, session, payload) = native(&message);
        assert_eq!(u64::from(head.ids().session), decoded["session_id"], "{place}");
        assert_eq!(u64::from(head.ids().message), decoded["message_id"], "{place}");
        let kind = match decoded["session_type"].as_str() {
            Some("SESSION_POINT_TO_POINT") => SessionKind::PointToPoint,
            Some("SESSION_MULTICAST") => SessionKind::Group,
            _ => SessionKind::Unspecified,
        };
        assert_eq!(session.kind, kind, "{place}");
        assert_eq!(session.source, text_name(&decoded["session_source"]), "{place}");
        assert_eq!(session.destination, text_name(&decoded["session_destination"]), "{place}");

        let mut metadata = decoded["metadata"].as_object().expect("metadata").clone();
        let mut take = |key: &str| metadata.remove(key).map(|v| v.as_str().expect("text").into());
        assert_eq!(session.identity, take("SLIM_IDENTITY"), "{place}");
        assert_eq!(session.encrypted.then(|| "true".to_owned()), take("MLS_ENCRYPTED"), "{place}");
        let expected = content(&decoded, take);
        assert_eq!(session.content, expected, "{place}");
        let rest = session.metadata.iter().map(|(key, value)| (key.clone(), Value::from(&**value)));
        assert_eq!(metadata, rest.collect(), "{place}: nothing typed is left in the metadata");

        match session.content {
            Content::DiscoveryRequest { .. }
            | Content::JoinRequest { .. }
            | Content::ControlAck { .. } => assert!(payload.is_empty(), "{place}"),
            Content::Proposal { .. } => {
                let mls = decoded["payload_bincode"]["mls_msg_hex"].as_str().expect("hex");
                assert_eq!(payload, from_hex(mls), "{place}");
            }
            _ => assert_eq!(payload.len() as u64, decoded["payload_len"], "{place}"),
        }
    }
}

/// What the captures say the content is; `take` takes a key out of the metadata.
fn content(decoded: &Value, mut take: impl FnMut(&str) -> Option<String>) -> Content {
    let bincode = &decoded["payload_bincode"];
    let name = |key| Box::new(full_name(&bincode[key]));
    match decoded["message_type"].as_str().expect("a message type") {
        "P_2_P_MSG" => Content::Data(Delivery::Unreliable),
        "P_2_P_RELIABLE" => Content::Data(Delivery::Reliable),
        "MULTICAST_MSG" => Content::Data(Delivery::Group),
        "P_2_P_ACK" => Content::Ack,
        "RTX_REQUEST" => Content::RetransmissionRequest,
        "RTX_REPLY" => Content::RetransmissionReply,
        "BEACON_MULTICAST" => Content::Beacon,
        "CHANNEL_DISCOVERY_REQUEST" => Content::DiscoveryRequest {
            requester: bincode.is_object().then(|| name("name")),
            participant: None,
        },
        "CHANNEL_DISCOVERY_REPLY" => Content::DiscoveryReply,
        "CHANNEL_JOIN_REQUEST" => Content::JoinRequest {
            channel: name("channel_name"),
            moderator: name("moderator_name"),
            mls: take("MLS_ENABLED").is_some(),
            as_moderator: false,
        },
        "CHANNEL_JOIN_REPLY" => Content::JoinReply,
        "CHANNEL_LEAVE_REQUEST" => Content::LeaveRequest { participant: None, delete_group: false },
        "CHANNEL_LEAVE_REPLY" => Content::LeaveReply,
        "CHANNEL_MLS_COMMIT" => Content::Commit,
        "CHANNEL_MLS_WELCOME" => Content::Welcome {
            commit: take("MLS_INIT_COMMIT_ID").expect("a commit").parse().expect("a number"),
        },
        "CHANNEL_MLS_PROPOSAL" => Content::Proposal { originator: name("source_name") },
        "CHANNEL_MLS_ACK" => Content::ControlAck { busy: decoded["payload_len"] == 4 },
        other => panic!("{other} is in no capture"),
    }
}

fn hex_number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("hex"), 16).expect("hex")
}

fn texts(name: &Value) -> Option<[String; 3]> {
    let strings = name["strings"].as_array()?;
    let strings = strings.iter().map(|text| text.as_str().expect("text").to_owned());
    strings.collect::<Vec<_>>().try_into().ok()
}

fn text_name(name: &Value) -> Option<TextName> {
    let texts = texts(name)?;
    let texts = texts.each_ref().map(String::as_str);
    Some(TextName::new(texts, Id::from_u64(hex_number(&name["id"]))).expect("short texts"))
}

fn full_name(name: &Value) -> FullName {
    let prefix = Prefix(["c0", "c1", "c2"].map(|component| hex_number(&name[component])));
    let texts = texts(name);
    if let Some(texts) = &texts {
        assert_eq!(prefix.0, texts.each_ref().map(|text| hash_component(text)));
    }
    let name = Name { prefix, id: Id::from_u64(hex_number(&name["id"])) };
    FullName { name, texts: texts.map(|texts| texts.map(String::into_boxed_str)) }
}

#[test]
fn only_publishes_are_transcoded() {
    let mut subscriptions = 0;
    for Captured { place, message, .. } in captured() {
        let inbound = D6::read(&message).ok().and_then(Inbound::routed).expect(&place);
        if inbound.header.kind != Kind::Publish {
            let error = d6_to_native(&message, 5).expect_err(&place);
            assert!(matches!(error, TranscodeError::NotTaken { .. }), "{error}");
            subscriptions += 1;
        }
    }
    assert!(subscriptions > 20);
}

/// A publish with this content, by the generated encoder, so that keys can be given twice.
fn publish(message_type: i32, content_type: &str, blob: &[u8], keys: &[(&str, &str)]) -> Vec<u8> {
    let header = proto::Header {
        source: Some(proto::Name::default()),
        destination: Some(proto::Name::default()),
        ..Default::default()
    };
    let session = proto::SessionHeader { session_message_type: message_type, ..Default::default() };
    let msg = proto::Content { content_type: content_type.into(), blob: blob.to_vec().into() };
    let publish = proto::Publish { header: Some(header), session: Some(session), msg: Some(msg) };
    let r#type = Some(proto::message::Type::Publish(publish));
    let mut message = proto::Message { r#type, ..Default::default() }.encode_to_vec();
    for (key, value) in keys {
        let metadata = [((*key).to_owned(), (*value).to_owned())].into();
        message.extend(proto::Message { metadata, r#type: None }.encode_to_vec());
    }
    message
}

/// A name without texts in bincode: 1, 2, 3 and any id.
const BINCODE_NAME: &[u8] = b"\x01\x02\x03\xFD\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00";
const BASE64_NAME: &str = "AQID/f//////////AA==";

fn named() -> Option<Box<FullName>> {
    let name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };
    Some(Box::new(FullName { name, texts: None }))
}

#[test]
fn what_the_control_plane_asks_of_a_moderator_is_typed() {
    let participant = ("PARTICIPANT_NAME", BASE64_NAME);
    let invite = Content::DiscoveryRequest { requester: None, participant: named() };
    let remove = Content::LeaveRequest { participant: named(), delete_group: false };
    let delete = Content::LeaveRequest { participant: None, delete_group: true };
    for (message_type, key, content) in [
        (8, participant, invite),
        (12, participant, remove),
        (12, ("DELETE_GROUP", "true"), delete),
    ] {
        let message = publish(message_type, "", b"", &[key, ("other", "kept")]);
        let (_, session, _) = native(&message);
        assert_eq!(session.content, content);
        assert_eq!(session.metadata, [("other".to_owned(), "kept".to_owned())]);
        comes_back(&message);
    }
    let join = [BINCODE_NAME, BINCODE_NAME].concat();
    let message = publish(10, "", &join, &[("IS_MODERATOR", "true"), ("MLS_ENABLED", "true")]);
    let (_, session, payload) = native(&message);
    assert!(matches!(session.content, Content::JoinRequest { mls: true, as_moderator: true, .. }));
    assert!(payload.is_empty() && session.metadata.is_empty());
    comes_back(&message);
}

#[test]
fn what_a_published_node_says_for_a_controller_is_typed() {
    let file = include_str!("vectors/control-plane-0.6.0.json");
    let captured: Value = serde_json::from_str(file).expect("JSON");
    let named = |text: &str| Box::new(FullName::from(&text.parse().expect("a name")));
    let channel = named("agntcy/ns/mTTe9bQHv1EhnPemtz");
    let moderator = named("agntcy/ns/client-9/123");
    let participant = || Some(named("agntcy/ns/client-2"));
    for (what, content) in [
        ("create", Content::JoinRequest { channel, moderator, mls: true, as_moderator: true }),
        ("invite", Content::DiscoveryRequest { requester: None, participant: participant() }),
        ("remove", Content::LeaveRequest { participant: participant(), delete_group: false }),
        ("delete", Content::LeaveRequest { participant: None, delete_group: true }),
    ] {
        let message = from_hex(captured[what].as_str().expect("hex"));
        let (head, session, payload) = native(&message);
        assert_eq!(session.content, content);
        assert_eq!(session.kind, SessionKind::Group);
        assert_eq!(session.identity.as_deref(), Some("secret:control-plane"));
        assert!(session.metadata.is_empty() && payload.is_empty(), "{what}");
        assert_eq!(head.ids().session, 1_244_337_836);
        let controller: TextName = "controller/controller/controller/0".parse().expect("a name");
        assert_eq!(head.source(), controller.to_name());
        comes_back(&message);
    }
}

fn comes_back(message: &[u8]) {
    let back = native_to_d6(&d6_to_native(message, 5).expect("a frame")).expect("a message");
    assert_eq!(canonical(&back), canonical(message));
}

#[test]
fn a_roster_is_told_in_number_and_one_by_one() {
    let text: TextName = "org/ns/app/7".parse().expect("a name");
    let members = vec![
        RosterMember { name: *named().expect("a name"), native: false, identity: "".into() },
        RosterMember { name: FullName::from(&text), native: true, identity: "bob".into() },
    ];
    let hashes = ["org", "ns", "app"].map(|part| {
        let hash = hash_component(part);
        [&[0xFD][..], &hash.to_le_bytes()].concat()
    });
    let texts = b"\x01\x03org\x02ns\x03app";
    let identity = b"\x03bob";
    let blob =
        [&[2], BINCODE_NAME, &[0, 0], &hashes.concat(), &[7], texts, &[1], identity].concat();
    let message = publish(100, "", &blob, &[("other", "kept")]);
    let (head, session, payload) = native(&message);
    assert_eq!(session.content, Content::Roster { members });
    assert_eq!(head.header(0).expect("a header").class, Class::Control);
    assert!(payload.is_empty());
    comes_back(&message);
}

#[test]
fn what_is_no_roster_stays_as_it_came() {
    let member = [BINCODE_NAME, &[1, 0]].concat();
    let too_many = [&[0xFB, 1, 4][..], &member.repeat(ROSTER_MEMBERS + 1)].concat();
    let one = |rest: &[u8]| [&[1], BINCODE_NAME, rest].concat();
    for blob in [Vec::new(), vec![1], one(&[]), one(&[2, 0]), one(&[1]), one(&[1, 0, 0]), too_many]
    {
        let message = publish(100, "", &blob, &[]);
        let (_, session, payload) = native(&message);
        assert_eq!(session.content, Content::Foreign { message_type: 100 });
        assert_eq!(payload, blob);
        comes_back(&message);
    }
}

#[test]
fn a_native_member_of_a_group_acknowledges_with_the_type_of_point_to_point() {
    let name = Name { prefix: Prefix([1, 2, 3]), id: Id::new(4) };
    let header = Header {
        kind: Kind::Publish,
        class: Class::Control,
        encoding: Encoding::Native,
        flags: slim_wire::Flags::empty(),
        ttl: 5,
        fanout: 1,
        lane: 0,
        source: name,
        destination: name,
    };
    for encrypted in [false, true] {
        let ack = Session {
            kind: SessionKind::Group,
            content: Content::Ack,
            encrypted,
            ..Session::default()
        };
        let ids = SessionIds { session: 6, message: 7 };
        let frame = session::publish(&header, ids, &ack, b"seven").expect("a frame");
        let message = native_to_d6(&frame).expect("a message");
        let decoded = proto::Message::decode(&message[..]).expect("decodable");
        let Some(proto::message::Type::Publish(publish)) = decoded.r#type else {
            panic!("a publish");
        };
        let told = publish.session.expect("a session header");
        assert_eq!((told.session_type, told.session_message_type), (2, 3));
        let (head, session, payload) = native(&message);
        assert_eq!((session, head.ids(), &payload[..]), (ack, ids, &b"seven"[..]));
        assert_eq!(head.header(0).expect("a header").class, Class::Control);
    }
}

/// Message type, content type, blob and metadata.
type Case<'a> = (i32, &'a str, &'a [u8], &'a [(&'a str, &'a str)]);

#[test]
fn what_no_published_client_writes_stays_as_it_came() {
    let long_form = [&[0xFB, 1, 0][..], &BINCODE_NAME[1..]].concat();
    let twice = [BINCODE_NAME, BINCODE_NAME].concat();
    let one_more = [&twice[..], &[0]].concat();
    let cut_proposal = [BINCODE_NAME, &[3, 1, 2]].concat();
    let cases: &[Case<'_>] = &[
        (0, "", b"of no type", &[]),
        (18, "", b"of a later type", &[("MLS_ENCRYPTED", "true")]),
        (2, "", b"marked otherwise", &[("MLS_ENCRYPTED", "1")]),
        (8, "", BINCODE_NAME, &[]),
        (8, "p2p_session_discovery", &long_form, &[]),
        (8, "", b"", &[("PARTICIPANT_NAME", "AQID/f//////////AA")]),
        (10, "", BINCODE_NAME, &[]),
        (10, "", &one_more, &[]),
        (10, "", &twice, &[("MLS_ENABLED", "yes")]),
        (15, "", b"welcome", &[]),
        (15, "", b"welcome", &[("MLS_INIT_COMMIT_ID", "01")]),
        (15, "", b"welcome", &[("MLS_INIT_COMMIT_ID", "4294967296")]),
        (16, "", &cut_proposal, &[]),
        (17, "", b"bus", &[]),
    ];
    for &(message_type, content_type, blob, keys) in cases {
        let message = publish(message_type, content_type, blob, keys);
        let (_, session, payload) = native(&message);
        let message_type = message_type as u32;
        assert_eq!(session.content, Content::Foreign { message_type }, "{blob:?} {keys:?}");
        assert_eq!(payload, blob);
        let metadata: Vec<_> = session.metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(metadata, keys);
        comes_back(&message);
    }
}

#[test]
fn of_a_key_that_is_given_twice_the_last_value_counts() {
    let keys = [("k", "1"), ("SLIM_IDENTITY", "a"), ("k", "2"), ("SLIM_IDENTITY", "b")];
    let message = publish(2, "", b"", &keys);
    let (_, session, _) = native(&message);
    assert_eq!(session.metadata, [("k".to_owned(), "2".to_owned())]);
    assert_eq!(session.identity.as_deref(), Some("b"));
    comes_back(&message);
}

#[test]
fn too_much_beside_the_payload_is_refused() {
    let long = "x".repeat(SESSION_PART_BYTES);
    let keys: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    let keys: Vec<_> = keys.iter().map(|key| (&**key, "")).collect();
    let unknown = [&publish(2, "", b"", &[])[..], &[0x7A, 0x81, 0x80, 4], long.as_bytes(), b"x"];
    for (message, field) in [
        (publish(2, &long, b"", &[]), "session part"),
        (publish(2, "", b"", &[("key", &long)]), "session part"),
        (publish(2, "", b"", &keys), "metadata entries"),
        (publish(2, "", b"", &[("the same", ""); 300]), "metadata entries"),
        (unknown.concat(), "unknown fields"),
    ] {
        let error = d6_to_native(&message, 5).expect_err("it is too much");
        assert!(error.to_string().starts_with(field), "{error}");
        assert_eq!(error.fault(), Fault::Peer);
    }
}
