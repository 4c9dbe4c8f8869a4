//! The authentication of headers against recorded messages of a published client.

use bytes::{Bytes, BytesMut};
use slim_compat_grpc::{
    Authenticity, D20, Dialect, Inbound, KeyShare, LinkKey, Negotiation, prepare,
};
use slim_wire::Kind;

/// A recorded link: the node's key for it, and a message that the client sent on it.
struct Recorded {
    node: KeyShare,
    request: Vec<u8>,
    message: Vec<u8>,
}

fn recorded() -> Vec<Recorded> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/header-mac-3.3.8.json");
    let text = std::fs::read_to_string(path).expect("vector file");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let vectors = file["vectors"].as_array().expect("a list");
    assert_eq!(vectors.len(), 6);
    let bytes = |vector: &serde_json::Value, field: &str| {
        let hex = vector[field].as_str().expect("hex");
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        (0..hex.len()).step_by(2).map(digits).collect::<Vec<_>>()
    };
    let read = |vector| Recorded {
        node: KeyShare::from_secret(&bytes(vector, "node_x25519_private_hex")).expect("a key"),
        request: bytes(vector, "link_request_protobuf_hex"),
        message: bytes(vector, "client_message_protobuf_hex"),
    };
    vectors.iter().map(read).collect()
}

fn key_of(recorded: &Recorded) -> LinkKey {
    let Ok(Inbound::Link(link)) = D20::read(&recorded.request) else { panic!("no link") };
    let request = Negotiation::read(link).expect("a negotiation");
    let (_, key) = recorded.node.answer(&request, "node").expect("a valid key");
    key.expect("the client brought a key")
}

#[test]
fn recorded_headers_are_authentic_and_any_changed_one_is_not() {
    for vector in &recorded() {
        let key = key_of(vector);
        let (inbound, authenticity) = key.read(&vector.message).expect("valid");
        assert_eq!(authenticity, Authenticity::Authentic);
        let routed = inbound.routed().expect("for the datapath");
        // The hash of the destination's organization, which the header says twice.
        let hash = routed.header.destination.prefix.0[0];
        let mut varint = Vec::new();
        prost::encoding::encode_varint(hash, &mut varint);
        let changes = vector.message.windows(varint.len()).enumerate();
        let places: Vec<_> =
            changes.filter(|(_, window)| *window == varint).map(|(at, _)| at).take(2).collect();
        assert!(!places.is_empty());
        for at in places {
            let mut changed = vector.message.clone();
            changed[at] ^= 1;
            let (_, authenticity) = key.read(&changed).expect("valid all the same");
            assert_eq!(authenticity, Authenticity::Forged);
        }
    }
}

#[test]
fn a_forwarded_publish_is_authentic_on_its_next_link_and_on_no_other() {
    let recorded = recorded();
    let mut publishes = 0;
    for vector in &recorded {
        let routed = D20::read(&vector.message).expect("valid").routed().expect("routed");
        if routed.header.kind != Kind::Publish {
            continue;
        }
        publishes += 1;
        let pieces = prepare(&Bytes::from(vector.message.clone()), 7).expect("a publish");
        let [head, rest] = &pieces[..] else { panic!("two pieces") };
        for target in &recorded {
            let key = key_of(target);
            let mut forwarded = BytesMut::new();
            key.sign(head, &mut forwarded);
            forwarded.extend_from_slice(rest);
            let (inbound, authenticity) = key.read(&forwarded).expect("valid");
            assert_eq!(authenticity, Authenticity::Authentic);
            let header = inbound.routed().expect("routed").header;
            assert_eq!(header, slim_wire::Header { ttl: 7, ..routed.header });
            let others = recorded.iter().map(key_of);
            let authentic = others.filter(|other| {
                other.read(&forwarded).expect("valid").1 == Authenticity::Authentic
            });
            let same_link = recorded.iter().filter(|other| other.request == target.request);
            assert_eq!(authentic.count(), same_link.count());
        }
    }
    assert!(publishes > 0);
}

#[test]
fn both_ends_of_a_link_come_to_the_same_key() {
    let (ours, theirs) =
        (KeyShare::generate().expect("a key"), KeyShare::generate().expect("a key"));
    let request = ours.request("a-link", "node-a");
    let Ok(Inbound::Link(link)) = D20::read(&request) else { panic!("no link") };
    let negotiation = Negotiation::read(link).expect("valid");
    let (answer, their_key) = theirs.answer(&negotiation, "node-b").expect("valid");
    let Ok(Inbound::Link(link)) = D20::read(&answer) else { panic!("no link") };
    let our_key = ours.complete("a-link", &Negotiation::read(link).expect("valid")).expect("valid");
    let name = slim_wire::TextName::new(["org", "ns", "app"], slim_wire::Id::ANY).expect("a name");
    let made = slim_compat_grpc::d20_subscription(
        slim_compat_grpc::Subscription::Made,
        &name,
        7,
        Some(&our_key),
    );
    let (inbound, authenticity) = their_key.expect("a key").read(&made).expect("valid");
    assert_eq!(authenticity, Authenticity::Authentic);
    let routed = inbound.routed().expect("a subscription");
    assert_eq!((routed.subscription, routed.texts), (7, Some(["org", "ns", "app"])));
    assert_eq!(routed.header.destination, name.to_name());
}
