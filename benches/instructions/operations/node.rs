//! A node of one or two cores without I/O.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use slim_quic::datapath::{Core, Framing, LinkId, Origin, Postbox, Table};
use slim_quic::policy::Principal;
use slim_wire::limits::LANES;
use slim_wire::{Encoding, Envelope, Id, Name, Prefix, Space};

use super::{DESTINATION, Meter, Operation};
use crate::{message, single};

/// More than any operation has targets.
pub(super) const ALL: u32 = 50;

/// Names in the table when one is looked up, or changed.
const NAMES: u64 = 1_000;

/// A native source on the first core, and native targets there and on the second.
pub(super) struct Node {
    cores: Vec<Core>,
    postbox: Postbox,
    source: LinkId,
    targets: Vec<LinkId>,
    now: Instant,
}

impl Node {
    /// A node with so many targets on the source's core, and on the other.
    pub(super) fn new(here: usize, elsewhere: usize) -> Self {
        let (mut cores, postbox) = single::cores(2);
        let open = |core: &mut Core| core.open_link("bench", Framing::Native, Principal::Nobody);
        let source = open(&mut cores[0]);
        let mut targets: Vec<_> = (0..here).map(|_| open(&mut cores[0])).collect();
        targets.extend((0..elsewhere).map(|_| open(&mut cores[1])));
        let mut node = Self { cores, postbox, source, targets, now: Instant::now() };
        for target in node.targets.clone() {
            node.change(target, |core| {
                core.subscribe(target, Encoding::Native, DESTINATION, None).expect("no limit");
            });
        }
        node
    }

    pub(super) fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Has a link's subscriptions changed, and all cores know it.
    fn change(&mut self, link: LinkId, change: impl FnOnce(&mut Core)) {
        let core = &mut self.cores[usize::from(link.core.0)];
        change(core);
        core.submit(link);
        core.flush();
        while self.postbox.step() {
            self.cores.iter_mut().for_each(|core| core.turn(self.now));
        }
        // Once more, for the answers.
        self.cores.iter_mut().for_each(|core| core.turn(self.now));
    }

    /// A burst in.
    pub(super) fn forward(&mut self, burst: &[Envelope]) {
        for envelope in burst {
            self.cores[0].forward(self.source, envelope, self.now);
        }
        self.cores[0].flush();
        if self.targets.iter().any(|target| target.core != self.source.core) {
            self.cores[1].turn(self.now);
        }
    }

    /// All copies out. Returns the messages that left.
    pub(super) fn pop(&mut self) -> u64 {
        let mut messages = 0;
        for target in &self.targets {
            let core = &mut self.cores[usize::from(target.core.0)];
            for lane in 0..LANES {
                while let Some(chunk) = core.pop(*target, lane) {
                    messages += chunk.messages;
                    black_box(chunk.bytes);
                }
            }
        }
        messages
    }
}

/// What is done with names: looking them up, and changing who has them.
pub(super) fn names() -> Vec<Operation> {
    let found = |index: u64| index % NAMES;
    vec![
        Operation::new("lookup by id: hit", move |meter| look_up(meter, found, false)),
        Operation::new("lookup of any: hit", move |meter| look_up(meter, found, true)),
        Operation::new("lookup: miss", |meter| look_up(meter, |index| index + NAMES, false)),
        Operation::new("subscribe and unsubscribe, two cores", subscribe),
    ]
}

fn look_up(meter: &mut Meter, index: impl Fn(u64) -> u64, any: bool) {
    let (mut core, _postbox) = single::core();
    let [link, from] =
        [(); 2].map(|()| core.open_link("bench", Framing::Native, Principal::Nobody));
    let port = Arc::clone(core.port(link).expect("just opened"));
    let mut table = Table::new(7);
    (0..NAMES).for_each(|index| table.subscribe(Space::Native, name(index), &port));
    let headers: Vec<_> = (0..NAMES)
        .map(|at| {
            let name = name(index(at));
            let destination = if any { Name { id: Id::ANY, ..name } } else { name };
            message::publish(Encoding::Native, destination, 1)
        })
        .collect();
    let origin = Origin { link: from, node: None, ends_here: false };
    let mut found = 0;
    meter.repeat(headers.len(), || {
        for header in &headers {
            table.for_each_target(black_box(header), origin, |port| found += port.queued() + 1);
        }
    });
    assert_eq!(found > 0, index(0) < NAMES, "names that are there are found, and no others");
}

fn subscribe(meter: &mut Meter) {
    let mut node = Node::new(1, 1);
    let target = node.targets[0];
    for index in 0..NAMES {
        node.change(target, |core| {
            core.subscribe(target, Encoding::Native, name(index), None).expect("no limit");
        });
    }
    meter.repeat(1, || {
        let name = name(NAMES);
        node.change(target, |core| {
            core.subscribe(target, Encoding::Native, name, None).expect("no limit");
        });
        node.change(target, |core| {
            assert!(core.unsubscribe(target, Encoding::Native, name), "it is there");
        });
    });
}

/// Hashes in their nature: no two names are near each other.
fn name(index: u64) -> Name {
    Name { prefix: Prefix([1, 2, mixed(index)]), id: Id::from_u64(mixed(!index) >> 1) }
}

/// SplitMix64: the same in every run.
fn mixed(index: u64) -> u64 {
    let mut mixed = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
