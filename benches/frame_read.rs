//! What a node reads of native frames: runs cut out of a lane as packets bring it, and the header
//! of each checked as far as a node goes by it.

mod common;
#[path = "common/message.rs"]
mod message;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use slim_wire::limits::{GRPC_MESSAGE_BYTES, HEADER_BYTES};
use slim_wire::{Encoding, FrameHeader, FrameReader, Id, Name, Prefix};

/// What is read in one iteration.
const TURN_BYTES: usize = 256 * 1024;

/// Other than one, which has a target chosen for each message.
const ALL: u32 = 50;

/// How the destinations of consecutive frames differ.
#[derive(Clone, Copy)]
enum Order {
    /// They do not: frames travel in runs.
    Same,
    /// Each from the one before: every frame travels alone.
    Alternating,
}

fn main() {
    let mut criterion = common::criterion();
    header(&mut criterion);
    for size in [64, 1024, 16 * 1024] {
        for (label, order) in
            [("one destination", Order::Same), ("alternating destinations", Order::Alternating)]
        {
            bench(&mut criterion, label, order, size);
        }
    }
    criterion.final_summary();
}

/// A header alone, in place.
fn header(criterion: &mut Criterion) {
    let frame = &frames(Order::Same, 64, 1)[0];
    let mut run = || {
        let header = FrameHeader::prefix_of(black_box(frame)).expect("whole");
        check(header);
    };
    common::print_allocations("frame_read/header in place", 1_000, 1, &mut run);
    criterion.bench_function("frame_read/header in place", |bencher| bencher.iter(&mut run));
}

fn bench(criterion: &mut Criterion, label: &str, order: Order, size: usize) {
    let count = TURN_BYTES / (HEADER_BYTES + size);
    let pieces = frames(order, size, count);
    let mut reader = FrameReader::new(GRPC_MESSAGE_BYTES);
    let mut run = || {
        for piece in &pieces {
            reader.push(piece.clone()).expect("valid");
        }
        let mut frames = 0;
        while let Some(run) = reader.next_run().expect("valid") {
            check(&run.header);
            frames += run.frames as usize;
            black_box(run.body);
        }
        assert_eq!((frames, reader.settle()), (count, 0), "every frame is read");
    };
    let name = format!("frame_read/{label}/{size}");
    common::print_allocations(&name, 100, count as u64, &mut run);
    let mut group = criterion.benchmark_group("frame_read");
    // Time per element is time per frame.
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(BenchmarkId::new(label, size), |bencher| bencher.iter(&mut run));
    group.finish();
}

fn check(header: &FrameHeader) {
    header.check_lengths(GRPC_MESSAGE_BYTES).expect("valid");
    header.check_publish().expect("a publish");
    black_box(header.header(0).expect("valid"));
}

fn frames(order: Order, size: usize, count: usize) -> Vec<Bytes> {
    let destination = |index: usize| {
        let app = match order {
            Order::Same => 0,
            Order::Alternating => index as u64 % 2,
        };
        Name { prefix: Prefix([1, 2, app]), id: Id::ANY }
    };
    let headers =
        (0..count).map(|index| message::publish(Encoding::Native, destination(index), ALL));
    message::arrived(headers, size)
}
