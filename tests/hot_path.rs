//! What the way of a native message through a node costs in copies and allocations, counted. Its
//! instructions and locks are counted by `benches/instructions`.

#![expect(clippy::print_stdout, reason = "what was counted, for whoever asks")]

use std::ops::Range;
use std::time::Instant;

use allocation_counter::AllocationInfo;
use bytes::{Bytes, BytesMut};
use slim_quic::datapath::{Core, Framing, LinkId};
use slim_quic::policy::Principal;
use slim_wire::limits::{GRPC_MESSAGE_BYTES, HEADER_BYTES, LANES, PACKING_THRESHOLD_BYTES};
use slim_wire::{Encoding, Envelope, FrameKind, FrameReader, Id, Name, Prefix, SessionIds};

use crate::relay::Relay;

#[path = "../benches/common/app.rs"]
mod app;
#[path = "../benches/common/message.rs"]
mod message;
#[path = "../benches/common/relay.rs"]
mod relay;
#[path = "../benches/common/single.rs"]
mod single;

const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

/// What a packet of an Ethernet path holds of a stream, and one of a path within a machine.
const SMALL_PACKET: usize = 1404;
const LARGE_PACKET: usize = 64_952;

/// Fan-outs: one subscriber of several, or more of them than there are.
const ONE: u32 = 1;
const ALL: u32 = 50;

/// The largest payload that is copied, and leaves together with others.
const PACKED: usize = PACKING_THRESHOLD_BYTES - HEADER_BYTES;

/// Often enough for what happens now and then, such as a list that grows, to show as a fraction.
const ROUNDS: usize = 64;

/// The datapath, from the pieces of a lane that packets bring to the bytes that another connection
/// is given to send.
struct Path {
    core: Core,
    source: LinkId,
    target: LinkId,
    reader: FrameReader,
    /// What has left. It is kept, as until it is acknowledged: no memory is used again, and so each
    /// copy has to be allocated.
    left: Vec<Bytes>,
    now: Instant,
}

impl Path {
    fn new() -> Self {
        let (mut core, mut postbox) = single::core();
        let now = Instant::now();
        let [source, target] =
            [(); 2].map(|()| core.open_link("test", Framing::Native, Principal::Nobody));
        core.subscribe(target, Encoding::Native, DESTINATION, None).expect("within the limit");
        core.submit(target);
        while postbox.step() {
            core.turn(now);
        }
        let reader = FrameReader::new(GRPC_MESSAGE_BYTES);
        Self { core, source, target, reader, left: Vec::new(), now }
    }

    /// What arrived through the node.
    fn pass(&mut self, arrived: &[Bytes]) {
        for piece in arrived {
            self.reader.push(piece.clone()).expect("valid");
        }
        while let Some(run) = self.reader.next_run().expect("valid") {
            let header = run.header.header(0).expect("valid");
            let envelope = Envelope { header, messages: run.frames, body: run.body };
            self.core.forward(self.source, &envelope, self.now);
            self.reader.reuse(envelope.body);
        }
        assert_eq!(self.reader.settle(), 0, "whole frames have arrived");
        for lane in 0..LANES {
            while let Some(chunk) = self.core.pop(self.target, lane) {
                self.left.push(chunk.bytes);
            }
        }
    }
}

/// What a node does for one message.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Bytes that leave elsewhere than they arrived.
    copied: f64,
    allocations: f64,
    allocated: f64,
}

/// What messages cost in their steady state, with payloads of `size` bytes that arrive so many at
/// once, in packets that hold up to `packet` bytes, and go to one subscriber or to all.
fn cost(size: usize, messages: usize, packet: usize, fanout: u32) -> Cost {
    let (mut path, arrived) = (Path::new(), arrived(size, messages, packet, fanout));
    path.left.reserve((ROUNDS + 1) * 2 * (arrived.len() + messages));
    path.pass(&arrived);
    path.left.clear();
    let info = allocation_counter::measure(|| {
        (0..ROUNDS).for_each(|_| path.pass(&arrived));
    });
    let left: usize = path.left.iter().map(Bytes::len).sum();
    assert_eq!(left, ROUNDS * messages * (HEADER_BYTES + size), "all of it leaves");
    let stays = |left: &&Bytes| {
        let left = addresses(left);
        arrived.iter().map(addresses).any(|a| a.start <= left.start && left.end <= a.end)
    };
    let stayed: usize = path.left.iter().filter(stays).map(Bytes::len).sum();
    let mean = |total: u64| total as f64 / (messages * ROUNDS) as f64;
    let copied = mean((left - stayed) as u64);
    let cost =
        Cost { copied, allocations: mean(info.count_total), allocated: mean(info.bytes_total) };
    println!("{size} B x {messages} in packets of {packet} B, fanout {fanout}: {cost:?}");
    cost
}

fn addresses(bytes: &Bytes) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

/// Frames with payloads of `size` bytes, in pieces of up to `packet` bytes.
fn arrived(size: usize, messages: usize, packet: usize, fanout: u32) -> Vec<Bytes> {
    let header = message::publish(Encoding::Native, DESTINATION, fanout);
    let (ids, payload) = (SessionIds::default(), vec![0x5A; size]);
    let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], &payload);
    let stream = frame.expect("a payload that fits").repeat(messages);
    let mut slab = BytesMut::from(&stream[..]);
    let mut pieces = Vec::new();
    while !slab.is_empty() {
        pieces.push(slab.split_to(packet.min(slab.len())).freeze());
    }
    pieces
}

#[test]
fn a_message_above_the_packing_threshold_leaves_where_it_arrived() {
    for size in [PACKED + 1, 4 * 1024, 16 * 1024, 256 * 1024] {
        let cost = cost(size, 1, LARGE_PACKET, ONE);
        assert_eq!(cost.copied, 0.0, "{size}: nothing is copied");
        // At most the list of its pieces.
        assert!(cost.allocations <= 1.0, "{size}: {cost:?}");
        assert!(cost.allocated <= 256.0, "{size}: {cost:?}");
    }
}

#[test]
fn a_message_up_to_the_packing_threshold_is_copied_once() {
    for size in [0, 64, 1024, PACKED] {
        let cost = cost(size, 1, LARGE_PACKET, ONE);
        let frame = (HEADER_BYTES + size) as f64;
        assert_eq!(cost.copied, frame, "{size}: it leaves packed");
        assert!(cost.allocations <= 1.0, "{size}: {cost:?}");
        // What is left of a buffer after the last message that fits is lost.
        assert!(cost.allocated <= 1.5 * frame + 32.0, "{size}: a copy of a copy: {cost:?}");
    }
}

#[test]
fn a_burst_to_all_subscribers_is_copied_once_in_one_allocation() {
    for (size, messages) in [(64, 64), (1024, 16)] {
        let cost = cost(size, messages, SMALL_PACKET, ALL);
        let frame = (HEADER_BYTES + size) as f64;
        assert_eq!(cost.copied, frame, "{size}: it leaves packed");
        assert!(cost.allocations <= 1.0 / messages as f64, "{size}: {cost:?}");
        assert!(cost.allocated <= frame, "{size}: a copy of a copy: {cost:?}");
    }
}

/// To one subscriber of several each message goes its own way, and how many will share a pack is
/// not known when it begins: one that is outgrown is doubled.
#[test]
fn a_burst_to_any_subscriber_shares_packs() {
    for (size, messages) in [(64, 64), (1024, 16)] {
        let cost = cost(size, messages, SMALL_PACKET, ONE);
        let frame = (HEADER_BYTES + size) as f64;
        assert_eq!(cost.copied, frame, "{size}: it leaves packed");
        assert!(cost.allocations <= 0.5, "{size}: {cost:?}");
        assert!(cost.allocated <= 4.0 * frame, "{size}: {cost:?}");
    }
}

/// The threshold is about the pieces in which a message arrives, and a packet of an Ethernet path
/// brings pieces below it.
#[test]
fn a_large_message_in_small_packets_is_copied_once() {
    for size in [4 * 1024, 16 * 1024, 256 * 1024] {
        let cost = cost(size, 1, SMALL_PACKET, ONE);
        let frame = (HEADER_BYTES + size) as f64;
        assert_eq!(cost.copied, frame, "{size}: all its pieces are small");
        assert!(cost.allocations <= (size as f64 / 65_536.0).ceil(), "{size}: {cost:?}");
        // The copy, and what the list of its pieces takes where that is too long to be kept.
        let list = if size > 64 * 1024 { 64.0 * frame / SMALL_PACKET as f64 } else { 0.0 };
        assert!(cost.allocated <= frame + list, "{size}: a copy of a copy: {cost:?}");
    }
}

/// What is allocated for one message while a node takes turns with packets, its QUIC library's part
/// included.
fn of_turns(mtu: u16, size: usize, messages: usize) -> (f64, f64) {
    let mut relay = Relay::new(mtu, size, messages);
    let mut total = AllocationInfo::default();
    for _ in 0..ROUNDS {
        relay.turn(|work| {
            let info = allocation_counter::measure(work);
            total.count_total += info.count_total;
            total.bytes_total += info.bytes_total;
        });
    }
    let mean = |total: u64| total as f64 / (messages * ROUNDS) as f64;
    let (count, bytes) = (mean(total.count_total), mean(total.bytes_total));
    println!(
        "turns of {messages} x {size} B at MTU {mtu}: {count:.3} allocations, {bytes:.0} bytes"
    );
    (count, bytes)
}

#[test]
fn from_packet_to_packet_a_message_takes_less_than_one_allocation() {
    for mtu in [1452, 65_000] {
        for size in [64, 1024] {
            let (count, bytes) = of_turns(mtu, size, 64);
            assert!(count < 0.5, "{size} B at MTU {mtu}: {count}");
            assert!(bytes < 2.0 * (HEADER_BYTES + size) as f64, "{size} B at MTU {mtu}: {bytes}");
        }
    }
    // Where packets hold whole messages, these are not copied, and nothing grows with them.
    for (size, messages) in [(4 * 1024, 64), (16 * 1024, 16)] {
        let (count, bytes) = of_turns(65_000, size, messages);
        assert!(count < 1.0, "{size} B: {count}");
        assert!(bytes < PACKING_THRESHOLD_BYTES as f64, "{size} B: {bytes}");
    }
}
