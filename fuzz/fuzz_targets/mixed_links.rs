//! Links of all kinds on two cores: native apps, other nodes, published clients. Whatever is
//! published to them, whole and in order it leaves, every copy is accounted for, and the room that
//! it took is given back to the byte. Nodes that exchange names tell of some, and know in the end
//! exactly those that clients here have.

#![no_main]

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slim_compat_grpc::{D6, Dialect, MessageReader, Subscription, transcode};
use slim_quic::datapath::{
    Core, CoreConfig, Counters, DATAGRAMS, Departure, Framing, LinkId, Mailboxes, Marks, NodeLink,
    Postbox, SlowLog, Wake,
};
use slim_quic::policy::Principal;
use slim_wire::session::{self, Session};
use slim_wire::{
    Class, Encoding, Envelope, Flags, FrameReader, Header, Id, Kind, Name, Prefix, SessionIds,
    Space,
};

const CORES: usize = 2;
const SUBSCRIPTIONS: usize = 4;
const MARKS: Marks = Marks::new(200_000, 10_000);
const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };
const SOURCE: Name = Name { prefix: Prefix([4, 5, 6]), id: Id::new(7) };

#[derive(Arbitrary, Clone, Copy, Debug)]
enum AnyFraming {
    Grpc,
    Native { datagrams: u16 },
    Node { number: bool, kind: AnyKind },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum AnyKind {
    Transit,
    LastHop,
    Exchange,
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    /// A run of frames, in pieces of so many bytes.
    Native {
        from: u8,
        class: u8,
        lane: u8,
        ttl: u8,
        payloads: Vec<u16>,
        piece: u16,
    },
    /// A message of release 0.6.
    Published {
        from: u8,
        class: u8,
        ttl: u8,
        payload: u16,
    },
    /// What a link says of a name.
    Subscribe {
        link: u8,
        name: AnyName,
        recency: u32,
    },
    Unsubscribe {
        link: u8,
        name: AnyName,
    },
    /// A neighbour hears of a name, and answers.
    Hear {
        link: u8,
        taken: bool,
    },
    Depart {
        link: u8,
        queue: u8,
    },
    Settle,
}

/// Names beside the one that is published to.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct AnyName {
    prefix: bool,
    id: u8,
    space: u8,
}

impl AnyName {
    fn parts(self) -> (Encoding, Name) {
        let spaces = [Encoding::Native, Encoding::P, Encoding::D7, Encoding::D20];
        let id = if self.id % 3 == 0 { Id::ANY } else { Id::new((self.id % 3).into()) };
        let prefix = Prefix([8, 8, u64::from(self.prefix)]);
        (spaces[usize::from(self.space) % spaces.len()], Name { prefix, id })
    }
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

struct Link {
    id: LinkId,
    framing: Framing,
    messages: MessageReader,
    /// A reader per queue.
    frames: Vec<FrameReader>,
    /// What was counted as written, and what was read of it.
    written: u64,
    read: u64,
    /// What it subscribed to, and of a neighbour what it knows.
    names: HashSet<(Space, Name)>,
    told: HashSet<(Space, Name)>,
    /// Whether it has refused any.
    refused: bool,
}

struct Node {
    cores: Vec<Core>,
    postbox: Postbox,
    links: Vec<Link>,
    now: Instant,
}

fuzz_target!(|input: (Vec<AnyFraming>, Vec<Operation>)| {
    let (framings, operations) = input;
    let mut node = Node::new();
    for (index, framing) in framings.into_iter().take(8).enumerate() {
        node.open(index % CORES, framing);
    }
    node.settle();
    for operation in operations.into_iter().take(64) {
        node.perform(operation);
    }
    node.settle();
    for link in 0..node.links.len() {
        node.check_told(link);
        for queue in 0..=DATAGRAMS {
            while node.depart(link, queue) {}
        }
        node.check_drained(link);
    }
    node.check_sums();
});

impl Node {
    fn new() -> Self {
        let config = CoreConfig {
            marks: MARKS,
            slow_consumer: std::time::Duration::from_secs(1),
            message_bytes: 100_000,
            subscriptions_per_link: SUBSCRIPTIONS,
            subscriptions_per_node: SUBSCRIPTIONS,
            subscriptions: 100,
            stalled: std::time::Duration::from_secs(30),
            seed: 7,
        };
        let wakes = [(); CORES].map(|()| Arc::new(Silent) as Arc<dyn Wake>);
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        let slow_log = Arc::new(SlowLog::default());
        let core = |mail| Core::new(config, mail, Arc::default(), Arc::clone(&slow_log));
        let cores = mailboxes.into_iter().map(core).collect();
        Self { cores, postbox, links: Vec::new(), now: Instant::now() }
    }

    fn core(&mut self, link: usize) -> &mut Core {
        let core = self.links[link].id.core;
        &mut self.cores[usize::from(core.0)]
    }

    fn open(&mut self, core: usize, framing: AnyFraming) {
        let (framing, datagrams) = match framing {
            AnyFraming::Grpc => (Framing::Grpc, 0),
            AnyFraming::Native { datagrams } => (Framing::Native, datagrams.into()),
            AnyFraming::Node { number, kind } => {
                let kind = match kind {
                    AnyKind::Transit => NodeLink::Transit,
                    AnyKind::LastHop => NodeLink::LastHop,
                    AnyKind::Exchange => NodeLink::Exchange,
                };
                (Framing::Node(1 + u64::from(number), kind), 0)
            }
        };
        let core = &mut self.cores[core];
        let id = core.open_link("fuzz", framing, Principal::Nobody);
        core.allow_datagrams(id, datagrams);
        core.subscribe(id, Encoding::Native, DESTINATION, None).expect("within the limit");
        core.submit(id);
        if matches!(framing, Framing::Node(_, NodeLink::Exchange)) {
            core.exchange(id);
        }
        self.links.push(Link {
            id,
            framing,
            messages: MessageReader::new(usize::MAX),
            frames: (0..=DATAGRAMS).map(|_| FrameReader::new(usize::MAX)).collect(),
            written: 0,
            read: 0,
            names: HashSet::from([(Space::Native, DESTINATION)]),
            told: HashSet::new(),
            refused: false,
        });
    }

    fn perform(&mut self, operation: Operation) {
        if self.links.is_empty() {
            return;
        }
        let index = |link: u8| usize::from(link) % self.links.len();
        match operation {
            Operation::Native { from, class, lane, ttl, payloads, piece } => {
                let header = header(class, Encoding::Native, lane, ttl);
                let frames = payloads.iter().take(8).map(|payload| {
                    let payload = vec![7; usize::from(*payload)];
                    let ids = SessionIds::default();
                    session::publish(&header, ids, &Session::default(), &payload)
                        .expect("within the limits")
                });
                let frames: Vec<_> = frames.collect();
                let bytes = Bytes::from(frames.concat());
                let piece = usize::from(piece).max(1);
                let pieces = (0..bytes.len()).step_by(piece);
                let body = pieces.map(|at| bytes.slice(at..bytes.len().min(at + piece))).collect();
                let messages = frames.len() as u32;
                if messages > 0 {
                    self.publish(index(from), &Envelope { header, messages, body });
                }
            }
            Operation::Published { from, class, ttl, payload } => {
                let header = header(class, Encoding::D6, 0, ttl);
                let payload = vec![7; payload.into()];
                let ids = SessionIds::default();
                let frame = session::publish(&header, ids, &Session::default(), &payload)
                    .expect("within the limits");
                let message = transcode::native_to_d6(&frame).expect("a plain publish");
                self.publish(index(from), &Envelope::single(header, message));
            }
            Operation::Depart { link, queue } => {
                _ = self.depart(index(link), queue % (DATAGRAMS + 1));
            }
            Operation::Subscribe { link, name, recency } => {
                self.subscribe(index(link), name.parts(), recency);
            }
            Operation::Unsubscribe { link, name } => {
                let (link, (encoding, name)) = (index(link), name.parts());
                let id = self.links[link].id;
                let had = self.core(link).unsubscribe(id, encoding, name);
                assert_eq!(had, self.links[link].names.remove(&(encoding.space(), name)));
                self.core(link).submit(id);
            }
            Operation::Hear { link, taken } => _ = self.hear(index(link), taken),
            Operation::Settle => self.settle(),
        }
        self.check_sums();
    }

    fn subscribe(&mut self, link: usize, (encoding, name): (Encoding, Name), recency: u32) {
        let Link { id, framing, .. } = self.links[link];
        let core = self.core(link);
        let made = match framing {
            Framing::Node(..) => core.subscribe_told(id, encoding, name, None, recency),
            _ => core.subscribe(id, encoding, name, None),
        };
        core.submit(id);
        let names = &mut self.links[link].names;
        assert!(made.is_ok() || names.len() >= SUBSCRIPTIONS);
        if made.is_ok() {
            names.insert((encoding.space(), name));
        }
    }

    /// A neighbour hears of one name; returns whether there was any.
    fn hear(&mut self, link: usize, taken: bool) -> bool {
        let id = self.links[link].id;
        let core = self.core(link);
        let Some(announcement) = core.next_announcement(id) else { return false };
        core.announcement_answered(id, &announcement, taken);
        let key = (announcement.space, announcement.name);
        match announcement.change {
            Subscription::Made if taken => _ = self.links[link].told.insert(key),
            Subscription::Made => {
                self.links[link].told.remove(&key);
                self.links[link].refused = true;
            }
            Subscription::TakenBack => assert!(self.links[link].told.remove(&key)),
        }
        true
    }

    /// A neighbour that takes all knows what clients have, but for what it has refused.
    fn check_told(&mut self, link: usize) {
        while self.hear(link, true) {}
        let clients = |link: &&Link| !matches!(link.framing, Framing::Node(..));
        let names = self.links.iter().filter(clients).flat_map(|link| link.names.iter().copied());
        let names: HashSet<_> = names.collect();
        let Link { framing, told, refused, .. } = &self.links[link];
        let is_neighbour = matches!(framing, Framing::Node(_, NodeLink::Exchange));
        assert!(is_neighbour || told.is_empty());
        assert!(told.is_subset(&names));
        assert!(!is_neighbour || *refused || *told == names);
    }

    fn publish(&mut self, from: usize, envelope: &Envelope) {
        let Link { id, framing, .. } = self.links[from];
        let (now, before) = (self.now, self.queued_for_nodes());
        self.core(from).forward(id, envelope, now);
        if let Framing::Node(_, NodeLink::LastHop | NodeLink::Exchange) = framing {
            assert_eq!(self.queued_for_nodes(), before, "it goes no further");
        }
    }

    /// Bytes that wait for nodes, on their way between cores too.
    fn queued_for_nodes(&self) -> usize {
        let nodes = self.links.iter().filter(|link| matches!(link.framing, Framing::Node(..)));
        let queued = |link: &Link| {
            let core = &self.cores[usize::from(link.id.core.0)];
            core.port(link.id).map_or(0, |port| port.queued())
        };
        nodes.map(queued).sum()
    }

    fn depart(&mut self, link: usize, queue: u8) -> bool {
        let (id, framing) = (self.links[link].id, self.links[link].framing);
        let chunk = if framing == Framing::Grpc {
            let mut cx = Context::from_waker(Waker::noop());
            match self.core(link).poll_departure(id, &mut cx) {
                Poll::Ready(Departure::Chunk(chunk)) => chunk,
                _ => return false,
            }
        } else {
            let Some(chunk) = self.core(link).pop(id, queue) else { return false };
            chunk
        };
        let Link { messages, frames, written, read, .. } = &mut self.links[link];
        *written += chunk.messages;
        if framing == Framing::Grpc {
            messages.push(chunk.bytes);
            while let Some(message) = messages.next().expect("well framed") {
                let inbound = D6::read(&message).expect("a client can read it");
                let routed = inbound.routed().expect("a publish");
                assert_eq!(routed.header.destination, DESTINATION);
                *read += 1;
            }
            return true;
        }
        let reader = &mut frames[usize::from(queue)];
        reader.push(chunk.bytes).expect("well framed");
        while let Some(run) = reader.next_run().expect("well framed") {
            let header = run.header.header(0).expect("a header");
            assert_eq!((header.destination, header.source), (DESTINATION, SOURCE));
            assert!(framing != Framing::Native || header.encoding == Encoding::Native);
            *read += u64::from(run.frames);
        }
        assert!(queue != DATAGRAMS || reader.settle() == 0, "a datagram is whole");
        true
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            // What came while a submission was under way waits for it.
            for link in &self.links {
                self.cores[usize::from(link.id.core.0)].submit(link.id);
            }
            self.cores.iter_mut().for_each(Core::flush);
            while self.postbox.step() {}
            for core in &mut self.cores {
                core.turn(self.now);
                core.take_slow_events();
            }
        }
    }

    fn check_drained(&mut self, link: usize) {
        let id = self.links[link].id;
        let queued = self.core(link).port(id).expect("open").queued();
        let evicted = self.sum(|c| c.evicted.value()) > 0;
        assert!(evicted || queued == 0, "room that is not given back: {queued}");
        let Link { written, read, .. } = self.links[link];
        assert_eq!(written, read);
    }

    fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(|core| counter(core.counters())).sum()
    }

    fn check_sums(&self) {
        let dropped = self.sum(|c| c.dropped.iter().map(|d| d.value()).sum());
        let in_flight =
            self.sum(|c| c.sent_to_cores.value()) - self.sum(|c| c.received_from_cores.value());
        let routed = self.sum(|c| c.matched.value() + c.unmatched.value());
        assert_eq!(self.sum(|c| c.received.value()), routed);
        let accounted = self.sum(|c| c.written.value() + c.queued.value()) + dropped + in_flight;
        assert_eq!(self.sum(|c| c.deliveries.value()), accounted);
    }
}

fn header(class: u8, encoding: Encoding, lane: u8, ttl: u8) -> Header {
    let class = match class % 3 {
        0 => Class::Control,
        1 => Class::Reliable,
        _ => Class::BestEffort,
    };
    Header {
        kind: Kind::Publish,
        class,
        encoding,
        flags: Flags::empty(),
        ttl: ttl % 3,
        fanout: 50,
        lane,
        source: SOURCE,
        destination: DESTINATION,
    }
}
