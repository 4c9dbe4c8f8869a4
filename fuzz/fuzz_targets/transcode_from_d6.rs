//! A publish of release 0.6 comes back from a native frame with nothing lost.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::transcode::{TranscodeError, d6_to_native, native_to_d6};
use slim_compat_grpc::{D6, Dialect, Inbound};
use slim_wire::{DecodeError, Encoding, FrameHeader, Header, Kind};

#[path = "../../compat-grpc/tests/support/mod.rs"]
mod support;

fuzz_target!(|bytes: &[u8]| {
    let frame = d6_to_native(bytes, 3);
    let Ok(Inbound::Routed(inbound)) = D6::read(bytes) else {
        assert!(matches!(frame, Err(TranscodeError::Invalid(_))), "{frame:?}");
        return;
    };
    if inbound.header.kind != Kind::Publish {
        assert!(matches!(frame, Err(TranscodeError::NotTaken { .. })), "{frame:?}");
        return;
    }
    let frame = match frame {
        Ok(frame) => frame,
        Err(TranscodeError::Invalid(DecodeError::TooLarge { .. })) => return,
        Err(error) => panic!("{error}"),
    };
    let head = FrameHeader::prefix_of(&frame).expect("a header");
    let routing = Header { encoding: Encoding::Native, ttl: 3, ..inbound.header };
    assert_eq!(head.header(inbound.header.lane), Ok(routing));

    let back = native_to_d6(&frame).expect("what came from release 0.6 can go back");
    assert!(back.len() <= bytes.len());
    proto::Message::decode(&back[..]).expect("decodable");
    let reread = D6::read(&back).expect("what was written can be read");
    let reread = reread.routed().expect("a publish");
    assert_eq!((reread.header, reread.steers), (inbound.header, false));
    assert_eq!(support::canonical(&back), support::canonical(bytes));
    assert_eq!(d6_to_native(&back, 3), Ok(frame));
});
