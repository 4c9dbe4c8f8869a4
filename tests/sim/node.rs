//! A real node's cores, driven by hand: frames in, frames out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slim_quic::datapath::{
    Core, CoreConfig, DATAGRAMS, Fate, Framing, LinkId, Mailboxes, Marks, Postbox, SlowLog, Wake,
};
use slim_quic::policy::Principal;
use slim_quic::session::Packet;
use slim_wire::session::{access, publish};
use slim_wire::{Encoding, Envelope, FrameReader, Frames, Header, Kind, Name, lane};

/// Nobody sleeps here: after each input all cores are run.
struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

pub(crate) struct Node {
    cores: Vec<Core>,
    postbox: Postbox,
    ready: Vec<LinkId>,
}

/// One end of a link at the node, and what has begun to arrive of a frame at the other.
pub(crate) struct Port {
    pub(crate) id: LinkId,
    readers: Vec<FrameReader>,
}

impl Node {
    pub(crate) fn new(cores: usize, queue_bytes: usize, seed: u64) -> Self {
        let config = CoreConfig {
            marks: Marks::new(queue_bytes, queue_bytes / 4),
            slow_consumer: Duration::from_secs(1),
            stalled: Duration::from_secs(30),
            message_bytes: 4 << 20,
            subscriptions_per_link: 64,
            subscriptions_per_node: 64,
            subscriptions: 1000,
            seed,
        };
        let wakes: Vec<_> = (0..cores).map(|_| Arc::new(Silent) as Arc<dyn Wake>).collect();
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        let slow_log = Arc::new(SlowLog::default());
        let core = |mail| Core::new(config, mail, Arc::default(), Arc::clone(&slow_log));
        Self { cores: mailboxes.into_iter().map(core).collect(), postbox, ready: Vec::new() }
    }

    fn core(&mut self, link: LinkId) -> &mut Core {
        &mut self.cores[usize::from(link.core.0)]
    }

    pub(crate) fn open(&mut self, slot: usize) -> Port {
        let core = slot % self.cores.len();
        let id = self.cores[core].open_link("app", Framing::Native, Principal::Nobody);
        let readers = (0..=DATAGRAMS).map(|_| FrameReader::new(usize::MAX)).collect();
        Port { id, readers }
    }

    pub(crate) fn close(&mut self, link: LinkId, now: Instant) {
        self.core(link).close_link(link);
        self.settle(now);
    }

    pub(crate) fn subscribe(&mut self, link: LinkId, name: Name, now: Instant) {
        let core = self.core(link);
        core.subscribe(link, Encoding::Native, name, None).expect("within the limits");
        core.submit(link);
        self.settle(now);
    }

    pub(crate) fn unsubscribe(&mut self, link: LinkId, name: Name, now: Instant) {
        let core = self.core(link);
        core.unsubscribe(link, Encoding::Native, name);
        core.submit(link);
        self.settle(now);
    }

    pub(crate) fn forward(&mut self, link: LinkId, header: Header, frame: Bytes, now: Instant) {
        self.core(link).forward(link, &Envelope::single(header, frame), now);
        self.settle(now);
    }

    /// Lets all mail between the cores arrive.
    pub(crate) fn settle(&mut self, now: Instant) {
        for _ in 0..if self.cores.len() > 1 { 4 } else { 1 } {
            self.cores.iter_mut().for_each(Core::flush);
            while self.postbox.step() {}
            self.cores.iter_mut().for_each(|core| core.turn(now));
        }
        self.cores.iter_mut().for_each(|core| _ = core.take_slow_events());
    }

    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.cores.iter_mut().filter_map(Core::deadline).min()
    }

    /// Links that may have something to send, or are to be cut off.
    pub(crate) fn take_ready(&mut self) -> Vec<LinkId> {
        self.cores.iter_mut().for_each(|core| core.take_ready(&mut self.ready));
        std::mem::take(&mut self.ready)
    }

    pub(crate) fn is_evicted(&mut self, link: LinkId) -> bool {
        self.core(link).fate(link) == Fate::Evicted
    }

    /// All that waits for a link.
    pub(crate) fn take(&mut self, port: &mut Port) -> Vec<Packet> {
        let mut packets = Vec::new();
        for queue in 0..=DATAGRAMS {
            while let Some(chunk) = self.core(port.id).pop(port.id, queue) {
                let reader = &mut port.readers[usize::from(queue)];
                reader.push(chunk.bytes).expect("well framed");
                while let Some(run) = reader.next_run().expect("well framed") {
                    packets.extend(Frames::of(&run.body).map(|(_, pieces)| decode(&pieces)));
                }
            }
        }
        self.core(port.id).note_written(port.id, true, false);
        packets
    }
}

/// The message as a frame, and what a node reads of it.
pub(crate) fn encode(packet: &Packet) -> (Header, Bytes) {
    let header = Header {
        kind: Kind::Publish,
        class: packet.class,
        encoding: Encoding::Native,
        flags: packet.flags,
        ttl: Header::DEFAULT_TTL,
        fanout: packet.fanout,
        lane: lane(packet.ids.session, &packet.source),
        source: packet.source,
        destination: packet.destination,
    };
    let frame = publish(&header, packet.ids, &packet.session, &packet.payload);
    (header, frame.expect("sessions send what fits into a frame"))
}

fn decode(pieces: &[Bytes]) -> Packet {
    let frame = match pieces {
        [whole] => whole.clone(),
        pieces => pieces.concat().into(),
    };
    let head = slim_wire::FrameHeader::prefix_of(&frame).expect("a whole frame");
    let header = head.header(0).expect("as it was written");
    let (session, payload) = head.parts(&frame);
    Packet {
        source: header.source,
        destination: header.destination,
        fanout: header.fanout,
        class: header.class,
        flags: header.flags,
        ids: head.ids(),
        session: access(session).and_then(|part| part.to_session()).expect("a session part"),
        payload: frame.slice_ref(payload),
    }
}
