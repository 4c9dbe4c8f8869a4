//! Lookups in tables of different sizes, in turns, while names come and go.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slim_quic::datapath::{Core, LinkId, Origin, Port, Table as Routing};
use slim_wire::{
    Class, Encoding, Envelope, Flags, FrameKind, Header, Id, Kind, Name, Prefix, SessionIds, Space,
};

use super::{Random, name};
use crate::Failure;
use crate::core::Cores;
use crate::report::{Cell, Table, median_of};

const LINKS: usize = 1_000;

/// Lookups of one turn.
const LOOKUPS: u64 = 400_000;

/// A change every 100 microseconds is 10,000 a second.
const CHANGE_EVERY: Duration = Duration::from_micros(100);

/// Lookups between two looks at the clock.
const STRIDE: u64 = 32;

pub(super) fn table(counts: &[u64], rounds: usize) -> Result<Table, Failure> {
    let mut table = Table::new(
        "names_lookup",
        "ns per lookup by random names under 10,000 changes/s, and per message of 1 KiB forwarded \
         by one core to a random name; ratios to the smallest table in the same round",
        &["names", "id", "ratio", "anycast", "ratio", "forward", "ratio"],
    );
    let mut sizes: Vec<_> = counts.iter().map(|&names| Size::new(names)).collect();
    let mut measured = vec![Vec::new(); sizes.len()];
    for _ in 0..rounds {
        for (size, samples) in sizes.iter_mut().zip(&mut measured) {
            samples.push([size.look_up(false), size.look_up(true), size.forward()]);
        }
    }
    for (at, names) in counts.iter().enumerate() {
        let mut cells = vec![Cell::count(*names)];
        for kind in 0..3 {
            let of = |size: usize| measured[size].iter().map(move |sample: &[f64; 3]| sample[kind]);
            let ratios = of(at).zip(of(0)).map(|(this, least)| this / least);
            cells.push(Cell::number(median_of(of(at))));
            cells.push(Cell::number(median_of(ratios)));
        }
        table.row(cells);
    }
    Ok(table)
}

/// A table, and a core, with so many names.
struct Size {
    names: u64,
    ports: Vec<Arc<Port>>,
    routing: Routing,
    from: Origin,
    cores: Cores,
    source: LinkId,
    ready: Vec<LinkId>,
    random: Random,
}

impl Size {
    fn new(names: u64) -> Self {
        let mut cores = Cores::new(1);
        let source = cores.open(0);
        let links: Vec<_> = (0..LINKS).map(|_| cores.open(0)).collect();
        for (first, &link) in links.iter().enumerate() {
            let of_link = (first as u64..names).step_by(LINKS);
            cores.subscribe(link, of_link.map(|number| (name(number), None)));
        }
        let port = |link| Arc::clone(cores.cores[0].port(link).expect("just opened"));
        let ports: Vec<_> = links.into_iter().map(port).collect();
        let mut routing = Routing::new(7);
        for number in 0..names {
            routing.subscribe(Space::Native, name(number), &ports[number as usize % LINKS]);
        }
        let from = Origin { link: source, node: None, ends_here: false };
        let ready = Vec::new();
        Self { names, ports, routing, from, cores, source, ready, random: Random(1) }
    }

    fn random_name(&mut self) -> u64 {
        self.random.next() % self.names
    }

    /// Time of a lookup, with its share of the changes.
    fn look_up(&mut self, anycast: bool) -> f64 {
        let start = Instant::now();
        let mut next_change = start;
        for count in 0..LOOKUPS {
            if count % STRIDE == 0 && Instant::now() >= next_change {
                next_change += CHANGE_EVERY;
                self.change();
            }
            let name = name(self.random_name());
            let id = if anycast { Id::ANY } else { name.id };
            let mut found = None;
            let header = header(Name { id, ..name });
            self.routing.for_each_target(&header, self.from, |port| found = Some(port.id()));
            assert!(black_box(found).is_some(), "every name is known");
        }
        start.elapsed().as_nanos() as f64 / LOOKUPS as f64
    }

    /// A name goes and comes again.
    fn change(&mut self) {
        let number = self.random_name();
        let port = &self.ports[number as usize % LINKS];
        self.routing.unsubscribe(Space::Native, name(number), port.id());
        self.routing.subscribe(Space::Native, name(number), port);
    }

    /// Time to match, admit, enqueue and take out a message to a random name.
    fn forward(&mut self) -> f64 {
        const MESSAGES: u64 = 100_000;
        let frame = frame(name(0));
        let start = Instant::now();
        for _ in 0..MESSAGES {
            let header = header(name(self.random_name()));
            let mut envelope = Envelope::single(header, frame.clone());
            envelope.messages = 1;
            let now = self.cores.now;
            let core = &mut self.cores.cores[0];
            core.forward(self.source, &envelope, now);
            assert_eq!(drain(core, &mut self.ready), 1);
        }
        start.elapsed().as_nanos() as f64 / MESSAGES as f64
    }
}

/// Takes out what waits. Returns how many messages that is.
pub(crate) fn drain(core: &mut Core, ready: &mut Vec<LinkId>) -> u64 {
    let mut messages = 0;
    core.take_ready(ready);
    for link in ready.drain(..) {
        while let Some(chunk) = core.pop(link, 0) {
            messages += chunk.messages;
            black_box(chunk.bytes);
        }
    }
    messages
}

pub(crate) fn header(destination: Name) -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: 1,
        lane: 0,
        source: Name { prefix: Prefix([9, 9, 9]), id: Id::new(1) },
        destination,
    }
}

/// A frame with 1 KiB of payload.
pub(crate) fn frame(destination: Name) -> bytes::Bytes {
    let (ids, payload) = (SessionIds::default(), [0x5A; 1024]);
    let frame = slim_wire::frame(FrameKind::Publish, &header(destination), ids, &[], &payload);
    frame.expect("a payload that fits")
}
