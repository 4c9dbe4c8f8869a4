//! Three cores in one thread under any order of operations: every message is accounted for after
//! each of them, goes where the subscriptions say, and leaves whole, in order and well framed.

#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slim_compat_grpc::MessageReader;
use slim_quic::datapath::{
    Core, CoreConfig, Counters, Departure, Framing, LinkId, Mailboxes, Marks, Postbox, SlowLog,
    Wake,
};
use slim_quic::policy::Principal;
use slim_wire::{Class, Encoding, Envelope, Flags, Header, Id, Kind, Name, Prefix};

const CORES: usize = 3;
const LINKS: usize = 12;
const SUBSCRIPTIONS: usize = 4;
const MARKS: Marks = Marks::new(16_000, 2_000);
const SLOW_CONSUMER: Duration = Duration::from_millis(1_000);

/// One operation. Links are chosen modulo how many there are, gone ones included.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Operation {
    Open {
        core: u8,
    },
    Close {
        link: u8,
    },
    Subscribe {
        link: u8,
        name: AnyName,
    },
    Unsubscribe {
        link: u8,
        name: AnyName,
    },
    Publish {
        link: u8,
        class: AnyClass,
        to: AnyName,
        fanout: u8,
        size: u16,
    },
    Depart {
        link: u8,
    },
    Turn {
        core: u8,
    },
    Order,
    Wait {
        milliseconds: u16,
    },
    /// All mail arrives.
    Settle,
    Finish {
        core: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum AnyClass {
    Control,
    Reliable,
    BestEffort,
}

/// A few prefixes and ids, so that they meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct AnyName(u8);

impl From<AnyName> for Name {
    fn from(AnyName(name): AnyName) -> Self {
        let id = match name / 2 % 3 {
            0 => Id::ANY,
            id => Id::new(id.into()),
        };
        Self { prefix: Prefix([0, 0, u64::from(name % 2)]), id }
    }
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// What the test knows of a link.
struct Link {
    id: LinkId,
    open: bool,
    subscriptions: BTreeSet<Name>,
    reader: MessageReader,
    /// The number of the last message read, by the link that sent it.
    last: [u32; LINKS],
}

struct Node {
    cores: Vec<Core>,
    postbox: Postbox,
    links: Vec<Link>,
    published: u32,
    /// Whether every core knows every subscription.
    settled: bool,
    now: Instant,
}

fuzz_target!(|operations: Vec<Operation>| {
    let mut node = Node::new();
    for operation in operations {
        node.perform(operation);
        node.check_sums();
    }
    for index in 0..node.links.len() {
        while node.depart(index) {}
        node.close(index);
    }
    node.settle();
    node.check_sums();
    assert_eq!(node.sum(|c| c.queued.value() + c.links.value() + c.subscriptions.value()), 0);
});

impl Node {
    fn new() -> Self {
        let config = CoreConfig {
            marks: MARKS,
            slow_consumer: SLOW_CONSUMER,
            message_bytes: 4 << 20,
            subscriptions_per_link: SUBSCRIPTIONS,
            subscriptions_per_node: SUBSCRIPTIONS,
            subscriptions: 1_000_000,
            stalled: std::time::Duration::from_secs(30),
            seed: 7,
        };
        let wakes = [(); CORES].map(|()| Arc::new(Silent) as Arc<dyn Wake>);
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        let slow_log = Arc::new(SlowLog::default());
        let core = |mail| Core::new(config, mail, Arc::default(), Arc::clone(&slow_log));
        let cores = mailboxes.into_iter().map(core).collect();
        let mut node = Self {
            cores,
            postbox,
            links: vec![],
            published: 0,
            settled: true,
            now: Instant::now(),
        };
        (0..CORES).for_each(|core| node.open(core));
        node
    }

    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Open { core } => self.open(core.into()),
            Operation::Close { link } => self.close(self.index(link)),
            Operation::Subscribe { link, name } => self.subscribe(self.index(link), name.into()),
            Operation::Unsubscribe { link, name } => {
                self.unsubscribe(self.index(link), name.into());
            }
            Operation::Publish { link, class, to, fanout, size } => {
                let header = Header {
                    kind: Kind::Publish,
                    class: match class {
                        AnyClass::Control => Class::Control,
                        AnyClass::Reliable => Class::Reliable,
                        AnyClass::BestEffort => Class::BestEffort,
                    },
                    encoding: Encoding::D6,
                    flags: Flags::empty(),
                    ttl: Header::DEFAULT_TTL,
                    fanout: u32::from(fanout % 3),
                    lane: 0,
                    source: AnyName(0).into(),
                    destination: to.into(),
                };
                self.publish(self.index(link), header, usize::from(size) % 5_000);
            }
            Operation::Depart { link } => _ = self.depart(self.index(link)),
            Operation::Turn { core } => self.turn(usize::from(core) % CORES),
            Operation::Order => _ = self.postbox.step(),
            Operation::Wait { milliseconds } => {
                self.now += Duration::from_millis(milliseconds.into());
            }
            Operation::Settle => self.settle(),
            Operation::Finish { core } => self.cores[usize::from(core) % CORES].finish_links(),
        }
    }

    fn turn(&mut self, core: usize) {
        let (core, now) = (&mut self.cores[core], self.now);
        core.turn(now);
        assert!(core.deadline().is_none_or(|deadline| deadline > now), "a turn for nothing");
        core.take_slow_events();
    }

    fn index(&self, link: u8) -> usize {
        usize::from(link) % self.links.len()
    }

    fn core(&mut self, link: usize) -> &mut Core {
        let core = self.links[link].id.core;
        &mut self.cores[usize::from(core.0)]
    }

    fn open(&mut self, core: usize) {
        if self.links.len() < LINKS {
            self.links.push(Link {
                id: self.cores[core % CORES].open_link("fuzz", Framing::Grpc, Principal::Nobody),
                open: true,
                subscriptions: BTreeSet::new(),
                reader: MessageReader::new(usize::MAX),
                last: [0; LINKS],
            });
        }
    }

    fn close(&mut self, link: usize) {
        let id = self.links[link].id;
        self.core(link).close_link(id);
        self.links[link].open = false;
        self.settled &= self.links[link].subscriptions.is_empty();
        self.links[link].subscriptions.clear();
    }

    fn subscribe(&mut self, link: usize, name: Name) {
        let Link { id, open, ref subscriptions, .. } = self.links[link];
        let known = subscriptions.contains(&name);
        let full = open && !known && subscriptions.len() == SUBSCRIPTIONS;
        let core = self.core(link);
        assert_eq!(core.subscribe(id, Encoding::D6, name, None).is_err(), full);
        core.submit(id);
        if open && !known && !full {
            self.links[link].subscriptions.insert(name);
            self.settled = false;
        }
    }

    fn unsubscribe(&mut self, link: usize, name: Name) {
        let id = self.links[link].id;
        let core = self.core(link);
        let had = core.unsubscribe(id, Encoding::D6, name);
        core.submit(id);
        assert_eq!(self.links[link].subscriptions.remove(&name), had);
        self.settled &= !had;
    }

    fn publish(&mut self, from: usize, header: Header, len: usize) {
        if !self.links[from].open {
            return;
        }
        self.published += 1;
        let body = body(from, self.published, len);
        let (id, now) = (self.links[from].id, self.now);
        let before = self.sum(|c| c.deliveries.value());
        self.core(from).forward(id, &Envelope::single(header, body), now);
        let copies = self.sum(|c| c.deliveries.value()) - before;
        if self.settled {
            assert_eq!(copies, self.targets(from, &header), "{header:?}");
        }
    }

    /// How many links the subscriptions name as targets.
    fn targets(&self, from: usize, header: &Header) -> u64 {
        let Header { fanout, destination, .. } = *header;
        let members = self.links.iter().enumerate().filter(|(_, link)| {
            link.subscriptions.iter().any(|name| name.prefix == destination.prefix)
        });
        let members: Vec<usize> = members.map(|(index, _)| index).collect();
        let has_id = |index: &usize| self.links[*index].subscriptions.contains(&destination);
        let owners: Vec<usize> = members.iter().copied().filter(has_id).collect();
        let candidates = match (fanout, destination.id) {
            (_, Id::ANY) => &members,
            (1, _) if owners.is_empty() && members.len() == 1 => &members,
            _ => &owners,
        };
        let others = candidates.iter().filter(|index| **index != from).count() as u64;
        if fanout == 1 { others.min(1) } else { others }
    }

    /// Takes one chunk of a link, if one waits.
    fn depart(&mut self, link: usize) -> bool {
        let id = self.links[link].id;
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(departure) = self.core(link).poll_departure(id, &mut cx) else {
            return false;
        };
        let Departure::Chunk(chunk) = departure else { return false };
        let Link { open, reader, last, .. } = &mut self.links[link];
        assert!(*open, "something left a link that is gone");
        reader.push(chunk.bytes);
        let mut messages = 0;
        while let Some(message) = reader.next().expect("well framed") {
            messages += 1;
            let (from, number) = sender(&message);
            assert_ne!(from, link, "a link got its own message");
            assert!(number > last[from], "out of order or twice");
            assert_eq!(message, body(from, number, message.len()));
            last[from] = number;
        }
        assert_eq!(messages, chunk.messages);
        true
    }

    fn settle(&mut self) {
        // A link's next batch leaves when its last one is known everywhere.
        for _ in 0..2 {
            for link in 0..self.links.len() {
                let id = self.links[link].id;
                self.core(link).submit(id);
            }
            for _ in 0..3 {
                self.cores.iter_mut().for_each(Core::flush);
                while self.postbox.step() {}
                (0..CORES).for_each(|core| self.turn(core));
            }
        }
        self.settled = true;
        let mut cx = Context::from_waker(Waker::noop());
        for link in 0..self.links.len() {
            let id = self.links[link].id;
            assert!(self.core(link).poll_submitted(id, &mut cx).is_ready());
        }
        assert_eq!(self.in_flight(), 0);
    }

    fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(|core| counter(core.counters())).sum()
    }

    fn in_flight(&self) -> u64 {
        self.sum(|c| c.sent_to_cores.value()) - self.sum(|c| c.received_from_cores.value())
    }

    fn check_sums(&self) {
        let refused = self.sum(|c| c.refused.iter().map(|r| r.value()).sum());
        let dropped = self.sum(|c| c.dropped.iter().map(|d| d.value()).sum());
        let routed = self.sum(|c| c.matched.value() + c.unmatched.value());
        assert_eq!(self.sum(|c| c.received.value()), routed + refused);
        let waiting = self.sum(|c| c.queued.value()) + self.in_flight();
        let done = self.sum(|c| c.written.value()) + dropped;
        assert_eq!(self.sum(|c| c.deliveries.value()), done + waiting);
        for link in self.links.iter().filter(|link| link.open) {
            let port = self.cores[usize::from(link.id.core.0)].port(link.id).expect("open");
            assert!(port.queued() <= MARKS.hard + MARKS.control_reserve);
        }
    }
}

const STAMP_BYTES: usize = 5;

/// A body that says where it comes from, and shows whether any byte of it was lost.
fn body(from: usize, number: u32, len: usize) -> Bytes {
    let mut body = vec![u8::try_from(from).expect("few links")];
    body.extend(number.to_be_bytes());
    body.resize(len.max(STAMP_BYTES), number as u8);
    body.into()
}

fn sender(message: &[u8]) -> (usize, u32) {
    let (stamp, _) = message.split_first_chunk::<STAMP_BYTES>().expect("stamped");
    let [from, number @ ..] = *stamp;
    (from.into(), u32::from_be_bytes(number))
}
