//! What a node does to one message of D20 between two links with authenticated headers: read it
//! and check its code, prepare it, sign it for each target; beside decoding and encoding it, as a
//! node without in-place reading does on top of the codes.

mod common;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput};
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{
    Authenticity, D20, Dialect as _, Inbound, KeyShare, LinkKey, Negotiation, prepare,
};
use slim_wire::Header;

/// Targets of a fan-out.
const TARGETS: usize = 10;

fn main() {
    let mut criterion = common::criterion();
    for size in [64, 1024] {
        bench(&mut criterion, size);
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, size: usize) {
    let (source, target) = (key("a-publisher"), key("a-subscriber"));
    let message = signed(&published(size), &source);
    let prepared = prepare(&message, Header::DEFAULT_TTL - 1).expect("a publish");
    let mut out = BytesMut::new();
    case(criterion, "read and verify", size, || verify(&source, &message));
    case(criterion, "prepare", size, || {
        black_box(prepare(black_box(&message), Header::DEFAULT_TTL - 1).expect("a publish"));
    });
    case(criterion, "sign", size, || {
        out.clear();
        target.sign(black_box(&prepared[0]), &mut out);
    });
    for targets in [1, TARGETS] {
        case(criterion, &format!("hop to {targets}"), size, || {
            verify(&source, &message);
            let pieces = prepare(&message, Header::DEFAULT_TTL - 1).expect("a publish");
            for _ in 0..targets {
                out.clear();
                target.sign(&pieces[0], &mut out);
                black_box(&out);
            }
        });
    }
    case(criterion, "decode and encode", size, || {
        let decoded = d20::Message::decode(black_box(message.clone())).expect("valid");
        black_box(decoded.encode_to_vec());
    });
}

fn case(criterion: &mut Criterion, how: &str, size: usize, mut run: impl FnMut()) {
    common::print_allocations(&format!("d20_hop/{how}/{size} B"), 100, 1, &mut run);
    let mut group = criterion.benchmark_group("d20_hop");
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new(how, format!("{size} B")), |bencher| {
        bencher.iter(&mut run);
    });
    group.finish();
}

fn verify(key: &LinkKey, message: &[u8]) {
    let (inbound, authenticity) = key.read(black_box(message)).expect("valid");
    assert_eq!(authenticity, Authenticity::Authentic);
    black_box(inbound);
}

/// The key of a link with this id.
fn key(link_id: &str) -> LinkKey {
    let [ours, theirs] = [(); 2].map(|()| KeyShare::generate().expect("a key"));
    let request = theirs.request(link_id, "a-client");
    let Ok(Inbound::Link(link)) = D20::read(&request) else { unreachable!("a link message") };
    let request = Negotiation::read(link).expect("a negotiation");
    let (_, key) = ours.answer(&request, "a-node").expect("valid keys");
    key.expect("the request has a key")
}

/// A message as it comes in on the link with this key.
fn signed(message: &Bytes, key: &LinkKey) -> Bytes {
    let pieces = prepare(message, Header::DEFAULT_TTL).expect("a publish");
    let mut signed = BytesMut::new();
    key.sign(&pieces[0], &mut signed);
    signed.extend_from_slice(&pieces[1]);
    signed.freeze()
}

/// A message that a client of release 3.3.8 published in a session, with a payload of `size` bytes.
fn published(size: usize) -> Bytes {
    use d20::content::ContentType::AppPayload;

    const CAPTURE: &str = include_str!("../compat-grpc/tests/vectors/first-messages-3.3.8.json");
    let capture: serde_json::Value = serde_json::from_str(CAPTURE).expect("JSON");
    let messages = capture["messages"].as_array().expect("a list").iter();
    let published = messages.filter(|message| message["direction"] == "client_to_node");
    let mut of_session = published.filter_map(|message| {
        let hex = message["protobuf_hex"].as_str().expect("hex");
        let digits = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
        let bytes = digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex digits"));
        let mut message = d20::Message::decode(bytes.collect::<Bytes>()).expect("valid");
        let Some(d20::message::Type::Publish(publish)) = &mut message.r#type else { return None };
        let Some(AppPayload(payload)) = &mut publish.msg.as_mut()?.content_type else {
            return None;
        };
        payload.blob = Bytes::from(vec![0x5A; size]);
        Some(message.encode_to_vec().into())
    });
    of_session.next_back().expect("the capture has one")
}
