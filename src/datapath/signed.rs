//! Messages of D20 and keys of links, for tests of what leaves signed.

use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{
    Authenticity, D20, Dialect, Inbound, KeyShare, LinkKey, Negotiation, prepare,
};
use slim_wire::{Envelope, Header, Name};

/// The key of this link, always the same.
pub(super) fn key(link_id: &str) -> LinkKey {
    let [node, client] = [[1; 32], [2; 32]].map(|secret| KeyShare::from_secret(&secret));
    let request = client.expect("a key").request(link_id, "client");
    let Ok(Inbound::Link(link)) = D20::read(&request) else { panic!("a link message") };
    let request = Negotiation::read(link).expect("a negotiation");
    let (_, key) = node.expect("a key").answer(&request, "node").expect("a valid key");
    key.expect("the client has a key")
}

/// A publish as it waits for its targets, with an identity and a payload of these lengths.
pub(super) fn publish(destination: Name, fanout: u32, identity: usize, payload: usize) -> Envelope {
    let name = |Name { prefix, id }: Name| {
        let [component_0, component_1, component_2] = prefix.0;
        let id = id.as_u128();
        let name_id = Some(d20::NameId { id_0: (id >> 64) as u64, id_1: id as u64 });
        let name = d20::EncodedName { component_0, component_1, component_2, name_id };
        d20::Name { name: Some(name), str_name: None }
    };
    let header = d20::Header {
        source: Some(name(destination)),
        destination: Some(name(destination)),
        identity: "i".repeat(identity),
        fanout,
        ttl: 8,
        ..Default::default()
    };
    let payload_type = "msg".to_owned();
    let payload = d20::ApplicationPayload { payload_type, blob: vec![7; payload].into() };
    let content_type = Some(d20::content::ContentType::AppPayload(payload));
    let publish = d20::Publish {
        header: Some(header),
        session: Some(d20::SessionHeader { session_message_type: 1, ..Default::default() }),
        msg: Some(d20::Content { content_type }),
    };
    let r#type = Some(d20::message::Type::Publish(publish));
    let message = d20::Message { r#type, ..Default::default() };
    let message = Bytes::from(message.encode_to_vec());
    let header = D20::read(&message).expect("valid").routed().expect("a publish").header;
    let body = prepare(&message, 7).expect("a publish");
    Envelope { header: Header { ttl: 7, ..header }, messages: 1, body }
}

/// Asserts that what has left is the envelope's message with the code of the link.
pub(super) fn assert_signed(sent: &[u8], envelope: &Envelope, key: &LinkKey) {
    let (inbound, authenticity) = key.read(sent).expect("valid");
    assert_eq!(authenticity, Authenticity::Authentic);
    assert_eq!(inbound.routed().expect("a publish").header, envelope.header);
    let decoded = |bytes: &[u8]| {
        let mut message = d20::Message::decode(bytes).expect("decodable");
        let Some(d20::message::Type::Publish(publish)) = &mut message.r#type else {
            panic!("a publish")
        };
        publish.header.as_mut().expect("a header").header_mac = None;
        message
    };
    assert!(decoded(sent) == decoded(&envelope.body.concat()));
}
