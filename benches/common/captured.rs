//! Messages of published clients, as they were captured, with payloads of any length.

#![allow(dead_code, reason = "not every bench needs both releases")]

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use slim_compat_grpc::proto::{d6, d20};
use slim_compat_grpc::{D20, Dialect as _, Inbound, KeyShare, LinkKey, Negotiation, prepare};
use slim_wire::Header;

const RELEASE_0_6: &str = include_str!("../../compat-grpc/tests/vectors/first-messages-0.6.3.json");
const RELEASE_3_3: &str = include_str!("../../compat-grpc/tests/vectors/first-messages-3.3.8.json");

/// Messages that clients of release 0.6.3 sent.
pub(crate) fn d6() -> Vec<Bytes> {
    sent(RELEASE_0_6)
}

/// The last publish of a client of release 0.6.3, with a payload of `size` bytes.
pub(crate) fn d6_publish(size: usize) -> Bytes {
    let publishes = d6().into_iter().filter_map(|bytes| {
        let mut message = d6::Message::decode(bytes).expect("valid");
        let Some(d6::message::Type::Publish(publish)) = &mut message.r#type else {
            return None;
        };
        publish.msg.get_or_insert_default().blob = Bytes::from(vec![0x5A; size]);
        Some(message.encode_to_vec().into())
    });
    publishes.last().expect("the capture has a publish")
}

/// The last publish that a client of release 3.3.8 sent in a session, with a payload of `size`
/// bytes.
pub(crate) fn d20_publish(size: usize) -> Bytes {
    use d20::content::ContentType::AppPayload;

    let of_session = sent(RELEASE_3_3).into_iter().filter_map(|bytes| {
        let mut message = d20::Message::decode(bytes).expect("valid");
        let Some(d20::message::Type::Publish(publish)) = &mut message.r#type else { return None };
        let Some(AppPayload(payload)) = &mut publish.msg.as_mut()?.content_type else {
            return None;
        };
        payload.blob = Bytes::from(vec![0x5A; size]);
        Some(message.encode_to_vec().into())
    });
    of_session.last().expect("the capture has one")
}

/// The key of a link with this id (D20).
pub(crate) fn d20_key(link_id: &str) -> LinkKey {
    let [ours, theirs] = [(); 2].map(|()| KeyShare::generate().expect("a key"));
    let request = theirs.request(link_id, "a-client");
    let Ok(Inbound::Link(link)) = D20::read(&request) else { unreachable!("a link message") };
    let request = Negotiation::read(link).expect("a negotiation");
    let (_, key) = ours.answer(&request, "a-node").expect("valid keys");
    key.expect("the request has a key")
}

/// A message as it comes in on the link with this key.
pub(crate) fn d20_signed(message: &Bytes, key: &LinkKey) -> Bytes {
    let pieces = prepare(message, Header::DEFAULT_TTL).expect("a publish");
    let mut signed = BytesMut::new();
    key.sign(&pieces[0], &mut signed);
    signed.extend_from_slice(&pieces[1]);
    signed.freeze()
}

/// What clients sent in a capture.
fn sent(capture: &str) -> Vec<Bytes> {
    let capture: serde_json::Value = serde_json::from_str(capture).expect("JSON");
    let messages = capture["messages"].as_array().expect("a list").iter();
    messages
        .filter(|message| message["direction"] == "client_to_node")
        .map(|message| {
            let hex = message["protobuf_hex"].as_str().expect("hex");
            let digits = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
            digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex digits")).collect()
        })
        .collect()
}
