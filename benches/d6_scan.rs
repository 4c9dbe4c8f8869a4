//! What a node reads of a message in place, beside what decoding it would cost, and decoding and
//! encoding it again as a node without in-place reading does.

mod common;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use prost::Message as _;
use slim_compat_grpc::proto::d6;
use slim_compat_grpc::{D6, Dialect};

fn main() {
    let mut criterion = common::criterion();
    bench(&mut criterion, "captured", &captured());
    for size in [64, 1024, 64 * 1024] {
        bench(&mut criterion, &format!("publish of {size} B"), &[publish(size)]);
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

/// Messages that clients of release 0.6.3 sent.
fn captured() -> Vec<Bytes> {
    const CAPTURE: &str = include_str!("../compat-grpc/tests/vectors/first-messages-0.6.3.json");
    let capture: serde_json::Value = serde_json::from_str(CAPTURE).expect("JSON");
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

/// The last captured publish with another payload.
fn publish(size: usize) -> Bytes {
    let publishes = captured().into_iter().filter_map(|bytes| {
        let mut message = d6::Message::decode(bytes).expect("valid");
        let Some(d6::message::Type::Publish(publish)) = &mut message.r#type else {
            return None;
        };
        publish.msg.get_or_insert_default().blob = Bytes::from(vec![0x5A; size]);
        Some(message.encode_to_vec().into())
    });
    publishes.last().expect("the capture has a publish")
}
