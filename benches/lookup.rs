//! Lookup of a destination in the routing table, in random order, so that a table beyond the
//! caches shows as one.

mod common;
#[path = "common/message.rs"]
mod message;
#[path = "common/random.rs"]
mod random;
#[path = "common/single.rs"]
mod single;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use slim_quic::datapath::{Framing, LinkId, Origin, Port, Table};
use slim_quic::policy::Principal;
use slim_wire::{Encoding, Header, Id, Name, Prefix, Space};

use self::random::Random;

/// Links that share the names.
const LINKS: usize = 1_000;

fn main() {
    let mut criterion = common::criterion();
    for names in [1_000, 100_000, 1_000_000, 10_000_000] {
        bench(&mut criterion, names);
    }
    criterion.final_summary();
}

/// Where a lookup ends.
#[derive(Clone, Copy)]
enum Lookup {
    Id,
    Anycast,
    Miss,
}

fn bench(criterion: &mut Criterion, names: u64) {
    let (mut table, from) = table(names);
    let mut group = criterion.benchmark_group("lookup");
    for (label, lookup) in
        [("id", Lookup::Id), ("anycast", Lookup::Anycast), ("miss", Lookup::Miss)]
    {
        let mut random = Random(1);
        let mut look_up = || {
            let header = publish(lookup, random.next() % names);
            let mut found = 0;
            table.for_each_target(
                &header,
                Origin { link: from, node: None, ends_here: false },
                |port| found += port.queued() + 1,
            );
            assert_eq!(found, usize::from(!matches!(lookup, Lookup::Miss)));
            found
        };
        common::print_allocations(&format!("lookup/{label}/{names}"), 1_000, 1, &mut look_up);
        group.bench_function(BenchmarkId::new(label, names), |bencher| {
            bencher.iter(|| black_box(look_up()));
        });
    }
    group.finish();
}

/// A table of `names` names, each with one link, and a link that has none.
fn table(names: u64) -> (Table, LinkId) {
    let (mut core, _postbox) = single::core();
    let mut port = || {
        let link = core.open_link("bench", Framing::Grpc, Principal::Nobody);
        Arc::clone(core.port(link).expect("just opened"))
    };
    let from = port().id();
    let ports: Vec<Arc<Port>> = (0..LINKS).map(|_| port()).collect();
    let mut table = Table::new(7);
    for index in 0..names {
        table.subscribe(Space::Native, name(index), &ports[index as usize % LINKS]);
    }
    (table, from)
}

fn name(index: u64) -> Name {
    // Hashes in their nature: no two names are near each other.
    let prefix = Prefix([1, 2, Random(index).next()]);
    Name { prefix, id: Id::from_u64(Random(!index).next() >> 1) }
}

fn publish(lookup: Lookup, index: u64) -> Header {
    const NOT_IN_ANY_TABLE: u64 = 1 << 40;
    let destination = match lookup {
        Lookup::Id => name(index),
        Lookup::Anycast => Name { id: Id::ANY, ..name(index) },
        Lookup::Miss => name(index + NOT_IN_ANY_TABLE),
    };
    message::publish(Encoding::D6, destination, 1)
}
