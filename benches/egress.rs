//! One message to 1, 8 or 64 links of the same core: match, admit, enqueue, and take what is to
//! be written. In bursts, because how many messages leave together decides what one costs.

mod common;
#[path = "common/message.rs"]
mod message;
#[path = "common/single.rs"]
mod single;

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use slim_quic::datapath::{Core, Departure, Framing, LinkId, Postbox};
use slim_quic::policy::Principal;
use slim_wire::limits::{GRPC_MESSAGE_BYTES, LANES};
use slim_wire::{Encoding, Envelope, FrameReader, Id, Name, Prefix};

const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

/// All targets get a copy.
const ALL: u32 = 50;

fn main() {
    let mut criterion = common::criterion();
    for (label, protocol) in [("gRPC", Protocol::Grpc), ("native", Protocol::Native)] {
        for targets in [1, 8, 64] {
            for size in [64, 1024, 16 * 1024] {
                for burst in [1, 16] {
                    let label = format!("{label}/{targets} targets/{size} B/bursts of {burst}");
                    bench(
                        &mut criterion,
                        &label,
                        protocol,
                        targets,
                        &burst_of(protocol, size, burst),
                    );
                }
            }
        }
    }
    criterion.final_summary();
}

/// What all links of a bench speak.
#[derive(Clone, Copy)]
enum Protocol {
    Grpc,
    Native,
}

/// A burst as a link reads it: native frames to one destination in runs, the others one by one.
fn burst_of(protocol: Protocol, size: usize, burst: usize) -> Vec<Envelope> {
    let publish = |encoding| message::publish(encoding, DESTINATION, ALL);
    match protocol {
        Protocol::Grpc => {
            let body = Bytes::from(vec![0x5A; size]);
            vec![Envelope::single(publish(Encoding::D6), body); burst]
        }
        Protocol::Native => {
            let header = publish(Encoding::Native);
            let mut reader = FrameReader::new(GRPC_MESSAGE_BYTES);
            for piece in message::arrived(std::iter::repeat_n(header, burst), size) {
                reader.push(piece).expect("valid");
            }
            let runs = std::iter::from_fn(|| reader.next_run().expect("valid"));
            runs.map(|run| Envelope { header, messages: run.frames, body: run.body }).collect()
        }
    }
}

fn bench(
    criterion: &mut Criterion,
    label: &str,
    protocol: Protocol,
    targets: usize,
    burst: &[Envelope],
) {
    let (core, postbox) = single::core();
    let mut node = Node::new(core, postbox, protocol, targets);
    let messages = burst.iter().map(|envelope| u64::from(envelope.messages)).sum();
    let mut run = || {
        let left = node.relay(burst);
        assert_eq!(left, messages * targets as u64, "every copy leaves");
    };
    common::print_allocations(&format!("egress/{label}"), 1_000, messages, &mut run);
    let mut group = criterion.benchmark_group("egress");
    // Time per element is time per message.
    group.throughput(Throughput::Elements(messages));
    group.bench_function(label, |bencher| bencher.iter(&mut run));
    group.finish();
}

struct Node {
    core: Core,
    protocol: Protocol,
    source: LinkId,
    targets: Vec<LinkId>,
    /// Native links that have something to write.
    ready: Vec<LinkId>,
    now: Instant,
}

impl Node {
    fn new(mut core: Core, mut postbox: Postbox, protocol: Protocol, targets: usize) -> Self {
        let now = Instant::now();
        let (framing, encoding) = match protocol {
            Protocol::Grpc => (Framing::Grpc, Encoding::D6),
            Protocol::Native => (Framing::Native, Encoding::Native),
        };
        let source = core.open_link("bench", framing, Principal::Nobody);
        let targets: Vec<_> =
            (0..targets).map(|_| core.open_link("bench", framing, Principal::Nobody)).collect();
        for &target in &targets {
            core.subscribe(target, encoding, DESTINATION, None).expect("within the limit");
            core.submit(target);
        }
        while postbox.step() {}
        core.turn(now);
        let mut node = Self { core, protocol, source, targets, ready: Vec::new(), now };
        node.core.take_ready(&mut node.ready);
        node
    }

    /// A burst in, and all copies out. Returns the messages that left.
    fn relay(&mut self, burst: &[Envelope]) -> u64 {
        for envelope in burst {
            self.core.forward(self.source, envelope, self.now);
        }
        match self.protocol {
            Protocol::Grpc => self.depart(),
            Protocol::Native => self.pop(),
        }
    }

    fn depart(&mut self) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut messages = 0;
        for &target in &self.targets {
            while let Poll::Ready(Departure::Chunk(chunk)) =
                self.core.poll_departure(target, &mut cx)
            {
                messages += chunk.messages;
                black_box(chunk.bytes);
            }
        }
        messages
    }

    fn pop(&mut self) -> u64 {
        let mut messages = 0;
        self.ready.clear();
        self.core.take_ready(&mut self.ready);
        for &target in &self.ready {
            for lane in 0..LANES {
                while let Some(chunk) = self.core.pop(target, lane) {
                    messages += chunk.messages;
                    black_box(chunk.bytes);
                }
            }
        }
        messages
    }
}
