//! The operations that are counted. Each gets ready, then does its work several times, and only
//! that is counted. Nothing in it depends on chance, a clock, or how fast the machine is.

mod dialects;
mod node;

use std::hint::black_box;

use bytes::Bytes;
use slim_compat_grpc::transcode;
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::{Encoding, Envelope, FrameHeader, FrameReader, Id, Name, Prefix};

use self::node::Node;
use crate::message;
use crate::relay::Relay;

/// To whom everything is published.
const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

/// Messages of a burst.
const BURST: usize = 16;

/// How often an operation is done before it is counted, and while it is.
const SETTLING: usize = 8;
const ROUNDS: usize = 64;

/// The same of a turn with packets, which is long.
const TURNS: usize = 16;

/// One operation.
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) run: Box<dyn FnOnce(&mut Meter)>,
}

impl Operation {
    fn new(name: impl Into<String>, run: impl FnOnce(&mut Meter) + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// What was done while instructions were counted.
#[derive(Default)]
pub(crate) struct Meter {
    operations: u64,
}

impl Meter {
    /// How many operations were counted.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Has `work` counted, which is so many operations.
    fn count(&mut self, operations: usize, work: &mut dyn FnMut()) {
        measured_region(work);
        self.operations += operations as u64;
    }

    /// Has `work` counted several times, each of which is so many operations.
    fn repeat(&mut self, operations: usize, mut work: impl FnMut()) {
        (0..SETTLING).for_each(|_| work());
        (0..ROUNDS).for_each(|_| self.count(operations, &mut work));
    }
}

/// Instructions are counted from entry to return, by this name.
#[inline(never)]
pub(crate) fn measured_region(work: &mut dyn FnMut()) {
    work();
    // Or it would be no call that returns here.
    black_box(());
}

/// All operations.
pub(crate) fn all() -> Vec<Operation> {
    let mut all = vec![Operation::new("header check", header)];
    for (size, label) in [(64, "64 B"), (1024, "1 KiB"), (16 * 1024, "16 KiB")] {
        all.push(Operation::new(format!("frame cut out of a lane: {label}"), move |meter| {
            cut(meter, size);
        }));
        all.extend(forwards(size, label));
    }
    all.extend(dialects::all());
    all.extend(node::names());
    for mtu in [1452, 65_000] {
        for (size, label, messages) in
            [(64, "64 B", 64), (1024, "1 KiB", 64), (16 * 1024, "16 KiB", 16)]
        {
            let name = format!("turn of the QUIC path: {label} at MTU {mtu}");
            all.push(Operation::new(name, move |meter| {
                let mut relay = Relay::new(mtu, size, messages);
                for _ in 0..TURNS {
                    relay.turn(|work| meter.count(messages, work));
                }
            }));
        }
    }
    all
}

fn forwards(size: usize, label: &str) -> Vec<Operation> {
    let (here, eight, elsewhere) = (
        format!("native to native: {label}"),
        format!("native to native, 8 targets: {label}"),
        format!("native to native, another core: {label}"),
    );
    vec![
        Operation::new(here, move |meter| forward(meter, &mut Node::new(1, 0), size)),
        Operation::new(eight, move |meter| forward(meter, &mut Node::new(8, 0), size)),
        Operation::new(elsewhere, move |meter| forward(meter, &mut Node::new(0, 1), size)),
        Operation::new(format!("egress pop: {label}"), move |meter| {
            let (mut node, runs) = (Node::new(1, 0), runs(size));
            for _ in 0..ROUNDS {
                node.forward(&runs);
                meter.count(BURST, &mut || assert_eq!(node.pop(), BURST as u64));
            }
        }),
    ]
}

fn header(meter: &mut Meter) {
    let frame = &arrived(64)[0];
    meter.repeat(BURST, || {
        for _ in 0..BURST {
            let header = FrameHeader::prefix_of(black_box(frame)).expect("whole");
            header.check_lengths(GRPC_MESSAGE_BYTES).expect("valid");
            header.check_publish().expect("a publish");
            black_box(header.header(0).expect("valid"));
        }
    });
}

fn cut(meter: &mut Meter, size: usize) {
    let pieces = arrived(size);
    let mut reader = FrameReader::new(GRPC_MESSAGE_BYTES);
    meter.repeat(BURST, || {
        for piece in &pieces {
            reader.push(piece.clone()).expect("valid");
        }
        let mut frames = 0;
        while let Some(run) = reader.next_run().expect("valid") {
            frames += run.frames as usize;
            black_box(run.body);
        }
        assert_eq!((frames, reader.settle()), (BURST, 0), "every frame is read");
    });
}

/// From a link's envelope into the queues of its targets, and out of them.
fn forward(meter: &mut Meter, node: &mut Node, size: usize) {
    let runs = runs(size);
    let copies = (BURST * node.targets()) as u64;
    meter.repeat(BURST, || {
        node.forward(&runs);
        assert_eq!(node.pop(), copies, "every copy leaves");
    });
}

/// A burst in the pieces in which packets bring it.
fn arrived(size: usize) -> Vec<Bytes> {
    let header = message::publish(Encoding::Native, DESTINATION, node::ALL);
    message::arrived(std::iter::repeat_n(header, BURST), size)
}

/// A burst as a link reads it.
fn runs(size: usize) -> Vec<Envelope> {
    let header = message::publish(Encoding::Native, DESTINATION, node::ALL);
    let mut reader = FrameReader::new(GRPC_MESSAGE_BYTES);
    for piece in arrived(size) {
        reader.push(piece).expect("valid");
    }
    let runs = std::iter::from_fn(|| reader.next_run().expect("valid"));
    runs.map(|run| Envelope { header, messages: run.frames, body: run.body }).collect()
}

/// A message of release 0.6 as a frame.
fn native(message: &[u8]) -> Bytes {
    transcode::d6_to_native(message, slim_wire::Header::DEFAULT_TTL).expect("a publish")
}
