//! What the node reads in place, and forwards, is what a receiver's generated decoder reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_compat_grpc::proto::d6 as proto;
use slim_compat_grpc::{D6, Dialect, detect};
use slim_wire::{Header, Id, Kind, Name, Prefix, hash_component};

fuzz_target!(|bytes: &[u8]| {
    let _ = detect(bytes);
    let Ok(inbound) = D6::read(bytes) else { return };
    let decoded = proto::Message::decode(bytes);
    match inbound.header.kind {
        Kind::Publish => {
            let decoded = decoded.expect("a publish that is forwarded can be decoded");
            let Some(proto::message::Type::Publish(publish)) = decoded.r#type else {
                panic!("the decoder found another type: {decoded:?}")
            };
            assert!(publish.session.is_some());
            let header = publish.header.expect("a header");
            agree(&inbound.header, &header);
            assert_eq!(inbound.header.destination, name(header.destination));
            assert_eq!(inbound.steers, header.recv_from.is_some() || header.forward_to.is_some());
            assert_eq!(inbound.texts, None);
        }
        // Subscriptions end at the node: it need not check what it does not use.
        Kind::Subscribe | Kind::Unsubscribe => {
            let Ok(decoded) = decoded else { return };
            let (header, texts) = match decoded.r#type {
                Some(proto::message::Type::Subscribe(proto::Subscribe {
                    header,
                    component_0,
                    component_1,
                    component_2,
                }))
                | Some(proto::message::Type::Unsubscribe(proto::Unsubscribe {
                    header,
                    component_0,
                    component_1,
                    component_2,
                })) => (header.expect("a header"), [component_0, component_1, component_2]),
                other => panic!("the decoder found another type: {other:?}"),
            };
            agree(&inbound.header, &header);
            let mut destination = name(header.destination);
            if let Some(read) = inbound.texts {
                assert_eq!(read.map(str::to_owned), texts);
                destination.prefix = Prefix(read.map(hash_component));
            }
            assert_eq!(inbound.header.destination, destination);
        }
    }
});

/// The fields that no message kind treats differently.
fn agree(read: &Header, decoded: &proto::Header) {
    assert_eq!(read.source, name(decoded.source));
    assert_eq!(read.fanout, decoded.fanout);
}

fn name(decoded: Option<proto::Name>) -> Name {
    let decoded = decoded.expect("a name");
    Name {
        prefix: Prefix([decoded.component_0, decoded.component_1, decoded.component_2]),
        id: Id::from_u64(decoded.component_3),
    }
}
