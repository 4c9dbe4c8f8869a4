//! Links introduce themselves: what is read is what the generated decoder reads, what is answered
//! can be read, and no key comes of what is none.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{
    D20, Dialect, Inbound, KeyShare, Negotiation, NegotiationError, answer_d7, detect,
    subscription_ack,
};

static NODE: LazyLock<KeyShare> = LazyLock::new(|| KeyShare::from_secret(&[7; 32]).expect("a key"));

fuzz_target!(|bytes: &[u8]| {
    let _ = detect(bytes);
    let link = match D20::read(bytes) {
        Ok(Inbound::Link(link)) => link,
        Ok(Inbound::SubscriptionAck(ack)) => {
            let result = if ack.success { Ok(()) } else { Err(ack.error) };
            let again = subscription_ack(ack.subscription, result);
            let again = D20::read(&again).expect("what was written can be read");
            let error = if ack.success { "" } else { ack.error };
            let expected = slim_compat_grpc::SubscriptionAck { error, ..ack };
            assert_eq!(again, Inbound::SubscriptionAck(expected));
            return;
        }
        _ => return,
    };
    let Ok(request) = Negotiation::read(link) else { return };
    let message = d20::Message::decode(bytes).expect("what is accepted can be decoded");
    let decoded = negotiation_of(message);
    assert_eq!(request.link_id, decoded.link_id);
    assert_eq!(request.slim_version, decoded.slim_version);
    assert_eq!(request.is_reply, decoded.is_reply);
    assert_eq!(request.public_key, decoded.link_ecdh_public_key);
    assert_eq!(request.node_id, decoded.node_id);
    assert_eq!(request.encapsulation, decoded.link_kem_payload.as_deref());

    assert_answers(&answer_d7(&request), &request);
    match NODE.answer(&request, "node") {
        Ok((answer, key)) => {
            assert_answers(&answer, &request);
            assert_eq!(key.is_some(), request.public_key.len() == 32);
        }
        Err(NegotiationError::Key { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let completed = NODE.complete(request.link_id, &request);
    assert!(request.is_reply || completed.is_err());
    assert!(request.public_key.len() == 32 || completed.is_err());
});

fn negotiation_of(message: d20::Message) -> d20::LinkNegotiation {
    let Some(d20::message::Type::Link(link)) = message.r#type else {
        panic!("expected a link message, got {message:?}")
    };
    let d20::link::LinkType::LinkNegotiation(negotiation) = link.link_type.expect("a negotiation");
    negotiation
}

fn assert_answers(answer: &[u8], request: &Negotiation<'_>) {
    let decoded = negotiation_of(d20::Message::decode(answer).expect("decodable"));
    assert!(decoded.is_reply);
    assert_eq!(decoded.link_id, request.link_id);
    assert_eq!(decoded.slim_version, request.slim_version);
    assert!(answer.len() < 2048, "an answer of bounded length");
}
