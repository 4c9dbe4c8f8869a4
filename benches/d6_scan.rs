//! What a node reads of a message in place, beside what decoding it would cost, and decoding and
//! encoding it again as a node without in-place reading does.

#[path = "common/captured.rs"]
mod captured;
mod common;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use prost::Message as _;
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::{D6, Dialect};

fn main() {
    let mut criterion = common::criterion();
    bench(&mut criterion, "captured", &captured::d6());
    for size in [64, 1024, 64 * 1024] {
        bench(&mut criterion, &format!("publish of {size} B"), &[captured::d6_publish(size)]);
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, label: &str, messages: &[Bytes]) {
    case(criterion, "read in place", label, messages, |message| {
        black_box(D6::read(message).expect("valid"));
    });
    case(criterion, "decode", label, messages, |message| {
        black_box(d6::Message::decode(message.clone()).expect("valid"));
    });
    case(criterion, "decode and encode", label, messages, |message| {
        let decoded = d6::Message::decode(message.clone()).expect("valid");
        black_box(decoded.encode_to_vec());
    });
}

fn case(
    criterion: &mut Criterion,
    how: &str,
    label: &str,
    messages: &[Bytes],
    operation: impl Fn(&Bytes),
) {
    let count = messages.len() as u64;
    let mut run = || messages.iter().for_each(&operation);
    common::print_allocations(&format!("d6_scan/{how}/{label}"), 100, count, &mut run);
    let mut group = criterion.benchmark_group("d6_scan");
    // Time per element is time per message.
    group.throughput(Throughput::Elements(count));
    group.bench_function(BenchmarkId::new(how, label), |bencher| bencher.iter(&mut run));
    group.finish();
}
