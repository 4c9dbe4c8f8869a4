//! What a native frame becomes is a message that release 0.6 can read, and means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::transcode::{TranscodeError, d6_to_native, native_to_d6};
use slim_compat_grpc::{D6, Dialect};
use slim_wire::limits::{GRPC_MESSAGE_BYTES, HEADER_BYTES};
use slim_wire::session::{self, Content, Session};
use slim_wire::{DecodeError, FrameHeader};

#[path = "../../compat-grpc/tests/support/mod.rs"]
mod support;

fuzz_target!(|bytes: &[u8]| {
    let mut frame = bytes.to_vec();
    if frame.len() >= HEADER_BYTES {
        // Otherwise hardly any mutation would get past the length.
        let length = frame.len() as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
    }
    let Ok(message) = native_to_d6(&frame) else { return };
    assert!(message.len() <= GRPC_MESSAGE_BYTES);
    proto::Message::decode(&message[..]).expect("decodable");
    let inbound = D6::read(&message).expect("what was written can be read");
    let inbound = inbound.routed().expect("a publish");
    let header = FrameHeader::prefix_of(&frame).expect("a header").header(0).expect("valid");
    let routing = |header: &slim_wire::Header| {
        (header.source, header.destination, header.fanout, header.flags)
    };
    assert_eq!(routing(&inbound.header), routing(&header));
    assert!(!inbound.steers);

    let back = match d6_to_native(&message, header.ttl) {
        Ok(back) => back,
        // Names of foreign content, which is typed now, can take more than before.
        Err(TranscodeError::Invalid(DecodeError::TooLarge { .. })) => return,
        Err(error) => panic!("{error}"),
    };
    let again = native_to_d6(&back).expect("what came from release 0.6 can go back");
    // Foreign content can be typed now, and then its keys come first.
    assert_eq!(support::canonical(&again), support::canonical(&message));
    let (before, payload) = session_and_payload(&frame);
    let (after, payload_after) = session_and_payload(&back);
    if !matches!(before.content, Content::Foreign { .. }) {
        assert_eq!(after, before);
        assert_eq!(payload_after, payload);
    }
});

/// The session part without what has more than one form.
fn session_and_payload(frame: &[u8]) -> (Session, &[u8]) {
    let head = FrameHeader::prefix_of(frame).expect("a header");
    let (part, payload) = head.parts(frame);
    let session = session::access(part).expect("a session part").to_session().expect("valid");
    let content_type = match &session.content {
        Content::DiscoveryRequest { requester: Some(_), .. } => String::new(),
        _ => session.content_type,
    };
    (Session { content_type, remainder: Vec::new(), ..session }, payload)
}
