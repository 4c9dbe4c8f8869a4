//! One message to 1, 8 or 64 links of the same core: match, admit, enqueue, and take what is to
//! be written. In bursts, because how many messages leave together decides what one costs.

mod common;
#[path = "common/single.rs"]
mod single;

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use slim_quic::datapath::{Core, Departure, Framing, LinkId, Postbox};
use slim_wire::{Class, Encoding, Envelope, Flags, Header, Id, Kind, Name, Prefix};

const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

fn main() {
    let mut criterion = common::criterion();
    for targets in [1, 8, 64] {
        for size in [64, 1024, 16 * 1024] {
            for burst in [1, 16] {
                bench(&mut criterion, targets, size, burst);
            }
        }
    }
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, targets: usize, size: usize, burst: u64) {
    let (core, postbox) = single::core();
    let mut node = Node::new(core, postbox, targets);
    let envelope = Envelope::single(publish(), Bytes::from(vec![0x5A; size]));
    let mut run = || node.relay(&envelope, burst);
    let label = format!("{targets} targets/{size} B/bursts of {burst}");
    common::print_allocations(&format!("egress/{label}"), 1_000, burst, &mut run);
    let mut group = criterion.benchmark_group("egress");
    // Time per element is time per message.
    group.throughput(Throughput::Elements(burst));
    group.bench_function(label, |bencher| bencher.iter(|| black_box(run())));
    group.finish();
}

struct Node {
    core: Core,
    source: LinkId,
    targets: Vec<LinkId>,
    now: Instant,
}

impl Node {
    fn new(mut core: Core, mut postbox: Postbox, targets: usize) -> Self {
        let now = Instant::now();
        let source = core.open_link("bench", Framing::Grpc);
        let targets: Vec<_> =
            (0..targets).map(|_| core.open_link("bench", Framing::Grpc)).collect();
        for &target in &targets {
            core.subscribe(target, Encoding::D6, DESTINATION, None).expect("within the limit");
            core.submit(target);
        }
        while postbox.step() {}
        core.turn(now);
        Self { core, source, targets, now }
    }

    /// A burst in, and all copies out. Returns the bytes that left.
    fn relay(&mut self, envelope: &Envelope, burst: u64) -> usize {
        for _ in 0..burst {
            self.core.forward(self.source, envelope, self.now);
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut messages, mut bytes) = (0, 0);
        for &target in &self.targets {
            while let Poll::Ready(Departure::Chunk(chunk)) =
                self.core.poll_departure(target, &mut cx)
            {
                messages += chunk.messages;
                bytes += chunk.bytes.len();
            }
        }
        assert_eq!(messages, burst * self.targets.len() as u64, "every copy leaves");
        bytes
    }
}

fn publish() -> Header {
    const ALL: u32 = 50;
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::D6,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: ALL,
        lane: 0,
        source: Name { prefix: Prefix([9, 9, 9]), id: Id::new(1) },
        destination: DESTINATION,
    }
}
