//! Messages of published releases: what a node reads of them, writes, and makes of native ones.

use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;
use slim_compat_grpc::{Authenticity, D6, Dialect as _, prepare, transcode};
use slim_quic::datapath::{Departure, Framing};
use slim_quic::policy::Principal;
use slim_wire::{Encoding, Envelope, Header};

use super::{BURST, Meter, Operation, native};
use crate::{captured, single};

pub(super) fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    for (size, label) in [(64, "64 B"), (1024, "1 KiB")] {
        let mut add = |what: &str, run: fn(&mut Meter, usize)| {
            let run = move |meter: &mut Meter| run(meter, size);
            all.push(Operation::new(format!("{what}: {label}"), run));
        };
        add("D6 to D6", d6_to_d6);
        add("D6 into native", d6_into_native);
        add("native into D6", native_into_d6);
        add("D20 verify, prepare, sign", d20);
    }
    all
}

/// From the bytes of a message to those of the frames that leave.
fn d6_to_d6(meter: &mut Meter, size: usize) {
    let message = captured::d6_publish(size);
    let destination = header(&message).destination;
    let (mut core, mut postbox) = single::core();
    let now = Instant::now();
    let [source, target] =
        [(); 2].map(|()| core.open_link("bench", Framing::Grpc, Principal::Nobody));
    core.subscribe(target, Encoding::D6, destination, None).expect("within the limit");
    core.submit(target);
    while postbox.step() {
        core.turn(now);
    }
    let mut cx = Context::from_waker(Waker::noop());
    meter.repeat(BURST, || {
        for _ in 0..BURST {
            let envelope = Envelope::single(header(&message), message.clone());
            core.forward(source, &envelope, now);
        }
        let mut left = 0;
        while let Poll::Ready(Departure::Chunk(chunk)) = core.poll_departure(target, &mut cx) {
            left += chunk.messages;
            black_box(chunk.bytes);
        }
        assert_eq!(left, BURST as u64, "every message leaves");
    });
}

/// What a node reads of a message in place.
fn header(message: &[u8]) -> Header {
    let inbound = D6::read(black_box(message)).expect("valid");
    inbound.routed().expect("a publish").header
}

fn d6_into_native(meter: &mut Meter, size: usize) {
    let message = captured::d6_publish(size);
    meter.repeat(1, || {
        black_box(native(black_box(&message)));
    });
}

fn native_into_d6(meter: &mut Meter, size: usize) {
    let frame = native(&captured::d6_publish(size));
    meter.repeat(1, || {
        black_box(transcode::native_to_d6(black_box(&frame)).expect("a publish"));
    });
}

/// One hop between two links of release 3.3, each with a key of its own.
fn d20(meter: &mut Meter, size: usize) {
    let [source, target] = ["a-publisher", "a-subscriber"].map(captured::d20_key);
    let message = captured::d20_signed(&captured::d20_publish(size), &source);
    let mut out = BytesMut::new();
    meter.repeat(1, || {
        let (inbound, authenticity) = source.read(black_box(&message)).expect("valid");
        assert_eq!(authenticity, Authenticity::Authentic);
        black_box(inbound);
        let pieces = prepare(&message, Header::DEFAULT_TTL - 1).expect("a publish");
        out.clear();
        target.sign(&pieces[0], &mut out);
        black_box((&out, &pieces));
    });
}
