//! What published clients and nodes sent each other, from the captures in tests/vectors.

use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{Authenticity, D6, D7, D20, Inbound, P, subscription_ack};
use slim_wire::{Class, Id, Kind, Prefix, hash_component};

use crate::keyed::Keyed;
use crate::made::{Disturbance, disturbed};
use crate::published::{Published, check};

pub(crate) const RELEASES: [&str; 7] =
    ["0.4.1", "0.5.0", "0.6.3", "1.0.0", "1.4.1", "2.2.0", "3.3.8"];

/// A message as it was on the wire.
pub(crate) struct Captured {
    pub(crate) kind: String,
    pub(crate) from_client: bool,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn json(file: &str) -> serde_json::Value {
    let path = format!("{}/tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("vector file");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn hex(value: &serde_json::Value) -> Vec<u8> {
    let hex = value.as_str().expect("hex");
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// All messages of a release, in order.
pub(crate) fn captured(release: &str) -> Vec<Captured> {
    let capture = json(&format!("first-messages-{release}"));
    let messages = capture["messages"].as_array().expect("a list");
    let read = |message: &serde_json::Value| Captured {
        kind: message["kind"].as_str().expect("a kind").to_owned(),
        from_client: message["direction"] == "client_to_node",
        bytes: hex(&message["protobuf_hex"]),
    };
    messages.iter().map(read).collect()
}

/// Checks every message of a release as it is, and disturbed as no reader may mind.
fn check_release<D: Published>(release: &str) {
    let messages = captured(release);
    assert!(messages.len() > 18, "{release}");
    for Captured { kind, bytes, .. } in &messages {
        check::<D>(bytes);
        let inbound = D::read(bytes).expect("a published message");
        let expected = match (kind.as_str(), inbound) {
            ("link", Inbound::Link(_)) | ("subscription_ack", Inbound::SubscriptionAck(_)) => {
                continue;
            }
            ("subscribe", _) => Kind::Subscribe,
            ("unsubscribe", _) => Kind::Unsubscribe,
            ("publish", _) => Kind::Publish,
            (kind, inbound) => panic!("{release}: {kind} read as {inbound:?}"),
        };
        let header = inbound.routed().expect("for the datapath").header;
        assert_eq!((header.kind, header.encoding), (expected, D::ENCODING), "{release}");
        assert_eq!(header.source.prefix.0[0], hash_component("agntcy"), "{release}");
        for disturbance in Disturbance::ALL {
            let disturbed = disturbed(bytes, disturbance);
            assert!(D::read(&disturbed).is_ok(), "{release}: {kind} {disturbance:?}");
            check::<D>(&disturbed);
        }
    }
}

#[test]
fn every_captured_message_is_read_and_rewritten_as_generated_decoders_read_it() {
    check_release::<P>("0.4.1");
    check_release::<P>("0.5.0");
    check_release::<D6>("0.6.3");
    check_release::<D7>("1.0.0");
    check_release::<D7>("1.4.1");
    check_release::<D20>("2.2.0");
    check_release::<D20>("3.3.8");
}

#[test]
fn messages_of_0_6_3_have_the_names_and_classes_of_their_session() {
    let messages = captured("0.6.3");
    let routed = |message: &Captured| {
        let inbound = <D6 as slim_compat_grpc::Dialect>::read(&message.bytes).expect("valid");
        let routed = inbound.routed().expect("for the datapath");
        (routed.header, routed.texts.map(|texts| texts.map(str::to_owned)))
    };
    let (header, texts) = routed(&messages[0]);
    assert_eq!(texts, Some(["agntcy", "ns", "recv"].map(str::to_owned)));
    assert_eq!(header.destination.prefix, Prefix(["agntcy", "ns", "recv"].map(hash_component)));
    let discovery = messages.iter().find(|message| message.kind == "publish").expect("one");
    let (header, _) = routed(discovery);
    assert_eq!((header.destination.id, header.class), (Id::ANY, Class::Control));
}

#[test]
fn an_acknowledgement_is_to_the_byte_what_published_nodes_send() {
    for release in ["1.4.1", "2.2.0", "3.3.8"] {
        let messages = captured(release);
        let acks: Vec<_> =
            messages.iter().filter(|message| message.kind == "subscription_ack").collect();
        assert!(acks.len() > 1, "{release}");
        for ack in acks {
            let Ok(Inbound::SubscriptionAck(read)) =
                <D20 as slim_compat_grpc::Dialect>::read(&ack.bytes)
            else {
                panic!("{release}: no acknowledgement")
            };
            assert!(!ack.from_client && read.success && read.error.is_empty());
            assert_eq!(subscription_ack(read.subscription, Ok(())), ack.bytes, "{release}");
        }
    }
}

/// The test's own reference is measured too: against codes that a published client made.
#[test]
fn the_codes_of_recorded_headers_are_those_of_the_reference() {
    let file = json("header-mac-3.3.8");
    let vectors = file["vectors"].as_array().expect("a list");
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let link_id = vector["link_id"].as_str().expect("a link id");
        let secret = hex(&vector["node_x25519_private_hex"]);
        let node = slim_compat_grpc::KeyShare::from_secret(&secret).expect("a key");
        let request = hex(&vector["link_request_protobuf_hex"]);
        let Ok(Inbound::Link(link)) = <D20 as slim_compat_grpc::Dialect>::read(&request) else {
            panic!("no link")
        };
        let request = slim_compat_grpc::Negotiation::read(link).expect("a negotiation");
        let (_, key) = node.answer(&request, "node").expect("a valid key");
        let bytes = hex(&vector["hmac_key_hex"]).try_into().expect("32 bytes");
        let link = Keyed::of(link_id, key.expect("the client brought a key"), bytes);

        let message = hex(&vector["client_message_protobuf_hex"]);
        let decoded = d20::Message::decode(&message[..]).expect("decodable").r#type;
        let header = match decoded.expect("a type") {
            d20::message::Type::Subscribe(body) => body.header,
            d20::message::Type::Publish(body) => body.header,
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(link.code(&header.expect("a header")), hex(&vector["header_mac_hex"]));
        let (_, authenticity) = link.key.read(&message).expect("valid");
        assert_eq!(authenticity, Authenticity::Authentic);
    }
}
