//! How two ends of a link introduce themselves, and the keys that they come to.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use bytes::Bytes;
use prost::Message as _;
use slim_compat_grpc::proto::{d7, d20};
use slim_compat_grpc::{
    D7, D20, Dialect, Inbound, KeyShare, Negotiation, NegotiationError, answer_d7, subscription_ack,
};
use slim_wire::DecodeError;

use crate::captured::captured;
use crate::keyed::{Keyed, derived, shared};
use crate::made::{Made, Spec, put};
use crate::published::check_prepare;

fn link_body(message: &[u8]) -> &[u8] {
    match D20::read(message).expect("valid") {
        Inbound::Link(body) => body,
        other => panic!("expected a link message, got {other:?}"),
    }
}

fn negotiation(message: &[u8]) -> Negotiation<'_> {
    Negotiation::read(link_body(message)).expect("a negotiation")
}

fn decoded(message: &[u8]) -> d20::LinkNegotiation {
    let message = d20::Message::decode(message).expect("decodable").r#type;
    let Some(d20::message::Type::Link(link)) = message else { panic!("a link message") };
    let d20::link::LinkType::LinkNegotiation(negotiation) = link.link_type.expect("a negotiation");
    negotiation
}

/// The bytes of a link message with this body of a negotiation.
fn encoded(negotiation: &d20::LinkNegotiation) -> Vec<u8> {
    let (mut link, mut message) = (Vec::new(), Vec::new());
    put(1, &negotiation.encode_to_vec(), &mut link);
    put(5, &link, &mut message);
    message
}

/// Whether a link's key is the one with these bytes.
fn assert_key(link_id: &str, key: slim_compat_grpc::LinkKey, bytes: [u8; 32]) {
    let link = Keyed::of(link_id, key, bytes);
    let [_, other] = Keyed::pair();
    check_prepare(&D20::bytes(&Spec::publish()), 7, &link, other);
}

#[test]
fn an_answer_in_d7_is_to_the_byte_what_published_nodes_send() {
    let messages = captured("1.4.1");
    let links: Vec<_> = messages.iter().filter(|message| message.kind == "link").collect();
    assert_eq!(links.len(), 4);
    for pair in links.chunks(2) {
        let [request, answer] = pair else { panic!("a request and its answer") };
        assert!(request.from_client && !answer.from_client);
        let request = negotiation(&request.bytes);
        assert!(!request.is_reply && request.public_key.is_empty());
        assert_eq!(answer_d7(&request), answer.bytes);
        d7::Message::decode(&answer.bytes[..]).expect("decodable");
    }
}

#[test]
fn an_answer_in_d20_differs_from_that_of_published_nodes_in_who_they_are() {
    for release in ["2.2.0", "3.3.8"] {
        let messages = captured(release);
        let links: Vec<_> = messages.iter().filter(|message| message.kind == "link").collect();
        assert_eq!(links.len(), 4);
        for pair in links.chunks(2) {
            let [request, answer] = pair else { panic!("a request and its answer") };
            let share = KeyShare::generate().expect("a key");
            let request = negotiation(&request.bytes);
            let (ours, key) = share.answer(&request, "our-node").expect("valid");
            assert!(key.is_some());
            let theirs = decoded(&answer.bytes);
            let ours = decoded(&ours);
            assert_eq!(ours.link_ecdh_public_key.len(), theirs.link_ecdh_public_key.len());
            let link_ecdh_public_key = ours.link_ecdh_public_key.clone();
            let node_id = "our-node".to_owned();
            assert_eq!(ours, d20::LinkNegotiation { link_ecdh_public_key, node_id, ..theirs });
        }
    }
}

#[test]
fn both_ends_come_to_the_key_of_the_reference() {
    let client = PrivateKey::generate(&X25519).expect("a key");
    let public = client.compute_public_key().expect("a key");
    let link_id = "0e5c4a3c-6f8f-4f53-8f0e-3c1f3b1d2a11";
    let request = Negotiation { link_id, public_key: public.as_ref(), ..Negotiation::default() };
    let share = KeyShare::generate().expect("a key");
    let (answer, key) = share.answer(&request, "node").expect("valid");
    let bytes = derived(link_id, &shared(&client, negotiation(&answer).public_key), None);
    assert_key(link_id, key.expect("the client brought a key"), bytes);
}

#[test]
fn with_a_post_quantum_key_both_ends_come_to_the_key_of_the_reference() {
    let client = PrivateKey::generate(&X25519).expect("a key");
    let public = client.compute_public_key().expect("a key");
    let secret = DecapsulationKey::generate(&ML_KEM_768).expect("a key");
    let encapsulation = secret.encapsulation_key().expect("a key");
    let encapsulation = encapsulation.key_bytes().expect("its bytes");
    let encapsulation = encapsulation.as_ref();
    assert_eq!(encapsulation.len(), 1184);
    let request = Negotiation {
        link_id: "a-link",
        public_key: public.as_ref(),
        encapsulation: Some(encapsulation),
        ..Negotiation::default()
    };
    let share = KeyShare::generate().expect("a key");
    let (answer, key) = share.answer(&request, "node").expect("valid");
    let answer = negotiation(&answer);
    let ciphertext = answer.encapsulation.expect("a ciphertext");
    assert_eq!(ciphertext.len(), 1088);
    let more = secret.decapsulate(ciphertext.into()).expect("ours");
    let agreed = shared(&client, answer.public_key);
    let bytes = derived("a-link", &agreed, Some(more.as_ref()));
    assert_ne!(bytes, derived("a-link", &agreed, None));
    assert_key("a-link", key.expect("the client brought a key"), bytes);
}

#[test]
fn keys_of_a_wrong_length_or_kind_are_refused() {
    let share = KeyShare::generate().expect("a key");
    let wrong = |error: &NegotiationError, wanted: &str, length: usize| match error {
        NegotiationError::Key { field, got, .. } => *field == wanted && *got == length,
        _ => false,
    };
    // The last is a point of low order: all would agree on the same secret.
    for key in [&[7; 31][..], &[7; 33], &[7; 1], &[7; 64], &[0; 32]] {
        let request = Negotiation { link_id: "l", public_key: key, ..Negotiation::default() };
        let error = share.answer(&request, "node").expect_err("no key");
        assert!(wrong(&error, "link_ecdh_public_key", key.len()), "{error}");
        let answer = Negotiation { is_reply: true, ..request };
        let error = share.complete("l", &answer).expect_err("no key");
        assert!(wrong(&error, "link_ecdh_public_key", key.len()), "{error}");
    }
    for length in [0, 32, 1088, 1183, 1185] {
        let encapsulation = vec![7; length];
        let request = Negotiation {
            link_id: "l",
            encapsulation: Some(&encapsulation),
            ..Negotiation::default()
        };
        let error = share.answer(&request, "node").expect_err("no key");
        assert!(wrong(&error, "link_kem_payload", length), "{error}");
    }
    for length in [0, 31, 33] {
        let secret = KeyShare::from_secret(&vec![7; length]);
        assert_eq!(secret.err(), Some(NegotiationError::Crypto));
    }
}

#[test]
fn who_brings_no_key_is_answered_and_gets_none() {
    let share = KeyShare::generate().expect("a key");
    let request = Negotiation { link_id: "l", connection_type: 2, ..Negotiation::default() };
    let (answer, key) = share.answer(&request, "node").expect("valid");
    assert!(key.is_none());
    let answer = negotiation(&answer);
    assert_eq!((answer.link_id, answer.connection_type, answer.is_reply), ("l", 2, true));
    assert_eq!((answer.public_key.len(), answer.encapsulation), (32, None));
    // An answer without one leaves who asked for a link without a key too, so it is refused.
    let answer = Negotiation { public_key: &[], ..answer };
    assert!(matches!(share.complete("l", &answer), Err(NegotiationError::Key { got: 0, .. })));
}

#[test]
fn only_the_answer_for_the_link_completes_it() {
    let (ours, theirs) =
        (KeyShare::generate().expect("a key"), KeyShare::generate().expect("a key"));
    let request = ours.request("a-link", "node-a");
    let (answer, _) = theirs.answer(&negotiation(&request), "node-b").expect("valid");
    let answer = negotiation(&answer);
    assert!(ours.complete("a-link", &answer).is_ok());
    for (link_id, answer) in [
        ("another-link", answer),
        ("a-link", Negotiation { is_reply: false, ..answer }),
        ("a-link", Negotiation { link_id: "A-LINK", ..answer }),
        ("a-link", negotiation(&request)),
    ] {
        let error = ours.complete(link_id, &answer).expect_err("not the answer");
        assert_eq!(error, NegotiationError::NotAnAnswer);
    }
}

#[test]
fn texts_of_a_negotiation_are_bounded_and_its_link_has_an_id() {
    let valid = d20::LinkNegotiation { link_id: "l".into(), ..Default::default() };
    let long = || "x".repeat(257);
    for (negotiation, expected) in [
        (d20::LinkNegotiation { link_id: "x".repeat(256), ..valid.clone() }, Ok(())),
        (d20::LinkNegotiation { link_id: long(), ..valid.clone() }, Err("link_id")),
        (d20::LinkNegotiation { slim_version: long(), ..valid.clone() }, Err("slim_version")),
        (d20::LinkNegotiation { node_id: long(), ..valid.clone() }, Err("node_id")),
    ] {
        let message = encoded(&negotiation);
        let read = Negotiation::read(link_body(&message)).map(|_| ());
        let expected =
            expected.map_err(|field| DecodeError::TooLarge { field, limit: 256, got: 257 });
        assert_eq!(read, expected);
    }
    let unnamed = encoded(&d20::LinkNegotiation { is_reply: true, ..Default::default() });
    let missing = |field| Err(DecodeError::Missing { field });
    assert_eq!(Negotiation::read(link_body(&unnamed)), missing("link_id"));
    assert_eq!(Negotiation::read(&[]), missing("link_negotiation"));
    let twice = [encoded(&valid), encoded(&valid)].concat();
    assert!(D20::read(&twice).is_err());
}

#[test]
fn a_failed_acknowledgement_says_why() {
    let ack = subscription_ack(u64::MAX, Err("id not found: NULL_COMPONENT"));
    for inbound in [D7::read(&ack), D20::read(&ack)] {
        let Ok(Inbound::SubscriptionAck(ack)) = inbound else { panic!("no acknowledgement") };
        assert_eq!((ack.subscription, ack.success), (u64::MAX, false));
        assert_eq!(ack.error, "id not found: NULL_COMPONENT");
    }
    let message = d20::Message::decode(Bytes::clone(&ack)).expect("decodable");
    let Some(d20::message::Type::SubscriptionAck(ack)) = message.r#type else { panic!("one") };
    assert_eq!((ack.subscription_id, ack.success), (u64::MAX, false));
}
