//! Clearing the steering fields of a message changes nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::{D6, Dialect, Inbound};
use slim_wire::Kind;

fuzz_target!(|bytes: &[u8]| {
    let Ok(inbound) = D6::read(bytes) else { return };
    // Only a publish travels on.
    if inbound.header.kind != Kind::Publish {
        return;
    }
    let cleared = D6::clear_steering(bytes).expect("what can be read can be rewritten");
    assert!(cleared.len() <= bytes.len());
    let reread = D6::read(&cleared).expect("what was rewritten can be read");
    assert_eq!(reread, Inbound { steers: false, ..inbound });

    let mut expected = proto::Message::decode(bytes).expect("decodable before");
    if let Some(proto::message::Type::Publish(publish)) = &mut expected.r#type {
        let header = publish.header.as_mut().expect("a header");
        header.recv_from = None;
        header.forward_to = None;
    }
    assert_eq!(proto::Message::decode(&cleared[..]).expect("decodable after"), expected);
});
