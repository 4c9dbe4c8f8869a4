//! What a node does to one message of D20 between two links with authenticated headers: read it
//! and check its code, prepare it, sign it for each target; beside decoding and encoding it, as a
//! node without in-place reading does on top of the codes.

#[path = "common/captured.rs"]
mod captured;
mod common;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use prost::Message as _;
use slim_compat_grpc::proto::d20;
use slim_compat_grpc::{Authenticity, LinkKey, prepare};
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
    let (source, target) = (captured::d20_key("a-publisher"), captured::d20_key("a-subscriber"));
    let message = captured::d20_signed(&captured::d20_publish(size), &source);
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
