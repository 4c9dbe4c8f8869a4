use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slim_compat_grpc::transcode;
use slim_wire::limits::PACKING_THRESHOLD_BYTES;
use slim_wire::{Class, Encoding, Envelope, Frames, Header, Pieces, Space};

use super::core::{Core, CoreConfig};
use super::counters::{Counters, DropReason, RefuseReason};
use super::mailbox::Mail;
use super::port::{Admission, CoreId, LinkId, Load, Port};
use super::table::Origin;

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Forwarded {
    /// Nobody subscribed to its destination.
    Nowhere {
        /// Where somebody did, out of its reach.
        elsewhere: Option<Space>,
    },
    /// It has one target.
    One {
        /// The target.
        target: LinkId,
        /// Its port, if its queue is above the pause mark.
        behind: Option<Arc<Port>>,
    },
    /// It has several.
    Many,
}

/// The targets of one message; kept, so that a fan-out allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Targets {
    local: Vec<LinkId>,
    remote: Vec<LinkId>,
    overrun: Vec<LinkId>,
    /// Those that read another encoding.
    foreign: Vec<Arc<Port>>,
    /// Whether one of them does not keep up.
    waits: bool,
}

/// A target with more than this part of its soft mark waiting does not keep up, and its messages
/// may wait for long.
const KEEPS_UP_PART: usize = 32;

/// A piece up to this length may be a slice of a receive buffer that holds much else; a longer
/// one had to be put together from several, and has memory of its own.
const SHARED_BUFFER_BYTES: usize = 64 * 1024;

impl Core {
    /// Delivers what came in on `from`: one copy to each target's queue, whatever becomes of the
    /// others.
    pub fn forward(&mut self, from: LinkId, envelope: &Envelope, now: Instant) -> Forwarded {
        let mut forwarded = Forwarded::Nowhere { elsewhere: None };
        if !self.may_publish(from, envelope) {
            for _ in 0..envelope.messages {
                self.counters.refuse(RefuseReason::NotAllowed);
            }
            return forwarded;
        }
        let (core, load) = (from.core, Load::of(envelope));
        let origin = self.arrival(from, load);
        let Self { replica, config, counters, targets, .. } = self;
        let Header { encoding, ttl, .. } = envelope.header;
        let messages = u64::from(envelope.messages);
        let mut ports = 0;
        replica.table().for_each_target(&envelope.header, origin, |port| {
            ports += 1;
            forwarded = match forwarded {
                Forwarded::Nowhere { .. } => {
                    let behind = (port.queued() > config.marks.pause).then(|| Arc::clone(port));
                    Forwarded::One { target: port.id(), behind }
                }
                _ => Forwarded::Many,
            };
            if port.is_node() && ttl == 0 {
                counters.drop_copies(DropReason::Expired, messages);
            } else if port.framing().foreign(encoding).is_some() {
                targets.foreign.push(Arc::clone(port));
            } else {
                targets.offer(port, load, core, config, counters);
            }
        });
        counters.received.add(messages);
        counters.bytes_received.add(load.bytes as u64);
        counters.deliveries.add(ports * messages);
        if ports == 0 {
            counters.unmatched.add(messages);
            return self.unmatched(&envelope.header, messages);
        }
        counters.matched.add(messages);
        self.deliver(envelope, now);
        if !self.targets.foreign.is_empty() {
            self.deliver_transcoded(core, envelope, now);
        }
        forwarded
    }

    /// Delivers to this target alone what the node itself, by its link `from`, has to say there.
    pub fn forward_to(
        &mut self,
        target: &Arc<Port>,
        from: LinkId,
        envelope: &Envelope,
        now: Instant,
    ) {
        let (core, load) = (from.core, Load::of(envelope));
        self.arrival(from, load);
        let Self { config, counters, targets, .. } = self;
        if target.framing().foreign(envelope.header.encoding).is_some() {
            targets.foreign.push(Arc::clone(target));
        } else {
            targets.offer(target, load, core, config, counters);
        }
        let messages = u64::from(envelope.messages);
        counters.received.add(messages);
        counters.bytes_received.add(load.bytes as u64);
        counters.deliveries.add(messages);
        counters.matched.add(messages);
        self.deliver(envelope, now);
        if !self.targets.foreign.is_empty() {
            self.deliver_transcoded(core, envelope, now);
        }
    }

    /// Whether a message without a target would have had one, had its sender another release.
    #[cold]
    fn unmatched(&mut self, header: &Header, messages: u64) -> Forwarded {
        let elsewhere = self.replica.table().elsewhere(header);
        if elsewhere.is_some() {
            self.counters.elsewhere.add(messages);
        }
        Forwarded::Nowhere { elsewhere }
    }

    /// Counts what came in on the link, and says where that is.
    #[inline]
    fn arrival(&mut self, link: LinkId, load: Load) -> Origin {
        let Some(known) = self.links.get_mut(link.key) else {
            return Origin { link, node: None, ends_here: false };
        };
        known.traffic.received += u64::from(load.messages);
        known.traffic.received_bytes += load.bytes as u64;
        Origin::of(known.egress.port())
    }

    /// Where a message of the link comes from.
    fn origin(&self, link: LinkId) -> Origin {
        let unknown = Origin { link, node: None, ends_here: false };
        self.port(link).map_or(unknown, |port| Origin::of(port))
    }

    /// Puts an envelope into the queues of the targets that admitted it.
    fn deliver(&mut self, envelope: &Envelope, now: Instant) {
        let mut targets = std::mem::take(&mut self.targets);
        let waits = std::mem::take(&mut targets.waits)
            && !(targets.local.is_empty() && targets.remote.is_empty());
        let (_, body) = split_head(envelope);
        let shared = targets.local.len() + targets.remote.len() > 1
            && body.len() > 1
            && envelope.len() > PACKING_THRESHOLD_BYTES;
        let own =
            (shared || (waits && body.iter().any(shares_memory))).then(|| own_memory(envelope));
        let envelope = own.as_ref().unwrap_or(envelope);
        targets.local.drain(..).for_each(|target| self.push(target, envelope, now));
        self.send_remote(&mut targets.remote, envelope);
        targets.overrun.drain(..).for_each(|target| self.cut_off(target));
        self.targets = targets;
    }

    /// Puts each message into the encoding that the foreign targets read, once for all of them.
    #[cold]
    fn deliver_transcoded(&mut self, core: CoreId, envelope: &Envelope, now: Instant) {
        let mut foreign = std::mem::take(&mut self.targets.foreign);
        transcoded(envelope, |message| {
            let Some(message) = message else {
                let copies = foreign.len() as u64;
                self.counters.drop_copies(DropReason::Untranslatable, copies);
                return;
            };
            let load = Load::of(&message);
            for port in &foreign {
                let Self { targets, config, counters, .. } = self;
                targets.offer(port, load, core, config, counters);
            }
            self.deliver(&message, now);
        });
        foreign.clear();
        self.targets.foreign = foreign;
    }

    /// The only target of a message that is not best effort, if it has no room for it: to forward
    /// it now would evict the target, which a source that can wait may spare it.
    pub fn full_target(&mut self, from: LinkId, envelope: &Envelope) -> Option<Arc<Port>> {
        let origin = self.origin(from);
        let Self { replica, config, .. } = self;
        let Header { class, fanout, .. } = envelope.header;
        if class == Class::BestEffort || fanout != 1 {
            return None;
        }
        let mut full = None;
        replica.table().for_each_target(&envelope.header, origin, |port| {
            if !port.has_room(Load::of(envelope), &config.marks) {
                full = Some(Arc::clone(port));
            }
        });
        full
    }

    /// One letter per core, shared by its targets.
    fn send_remote(&mut self, targets: &mut Vec<LinkId>, envelope: &Envelope) {
        targets.sort_unstable_by_key(|target| target.core);
        for group in targets.chunk_by(|a, b| a.core == b.core) {
            let copies = group.len() as u64 * u64::from(envelope.messages);
            self.counters.sent_to_cores.add(copies);
            self.mail.send(group[0].core, Mail::Deliver(envelope.clone(), group.into()));
        }
        targets.clear();
    }

    fn cut_off(&mut self, target: LinkId) {
        if target.core == self.id() {
            self.evict(target);
        } else {
            self.mail.send(target.core, Mail::Evict(target));
        }
    }
}

impl Targets {
    /// Asks a target on behalf of `core` to take an envelope.
    #[inline]
    fn offer(
        &mut self,
        port: &Port,
        load: Load,
        core: CoreId,
        config: &CoreConfig,
        counters: &Counters,
    ) {
        let CoreConfig { marks, message_bytes, .. } = config;
        if load.messages == 1 && port.wire_bytes(load) > *message_bytes {
            return counters.drop_copies(DropReason::TooLarge, 1);
        }
        self.waits |= port.queued() > marks.soft / KEEPS_UP_PART;
        match port.admit(load, marks) {
            Admission::Admitted if port.id().core == core => self.local.push(port.id()),
            Admission::Admitted => self.remote.push(port.id()),
            Admission::Full => counters.drop_copies(DropReason::QueueFull, load.messages.into()),
            Admission::Overrun => {
                counters.drop_copies(DropReason::Overrun, load.messages.into());
                if port.evict_once() {
                    self.overrun.push(port.id());
                }
            }
        }
    }
}

/// Calls `deliver` with each message of the envelope in the other encoding of its routing space,
/// or with `None` where it cannot be put into it.
fn transcoded(envelope: &Envelope, mut deliver: impl FnMut(Option<Envelope>)) {
    let one = |encoding, body| Envelope::single(Header { encoding, ..envelope.header }, body);
    if envelope.header.encoding == Encoding::Native {
        for (_, frame) in Frames::of(&envelope.body) {
            let message = transcode::native_to_d6(&contiguous(&frame));
            deliver(message.ok().map(|body| one(Encoding::D6, body)));
        }
    } else {
        let message = transcode::d6_to_native(&contiguous(&envelope.body), envelope.header.ttl);
        deliver(message.ok().map(|body| one(Encoding::Native, body)));
    }
}

fn contiguous(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [whole] => whole.clone(),
        pieces => pieces.concat().into(),
    }
}

/// Whether a piece may hold on to more memory than its own. A shorter one is copied when it is
/// queued.
fn shares_memory(piece: &Bytes) -> bool {
    piece.len() > PACKING_THRESHOLD_BYTES && piece.len() <= SHARED_BUFFER_BYTES
}

/// The head that each target of a message signs anew (D20), which has memory of its own, and all
/// else.
fn split_head(envelope: &Envelope) -> (&[Bytes], &[Bytes]) {
    let head = usize::from(envelope.header.encoding == Encoding::D20);
    envelope.body.split_at(head.min(envelope.body.len()))
}

/// The envelope in one piece of memory of its own, beside its head, for all its targets. As it
/// came it may be a small part of a receive buffer, which would stay for as long as the message
/// waits, many times what its queue is charged; or in pieces so small that each target would copy
/// them.
fn own_memory(envelope: &Envelope) -> Envelope {
    let (head, rest) = split_head(envelope);
    let mut body = Pieces::from(head);
    body.push(rest.concat().into());
    Envelope { header: envelope.header, messages: envelope.messages, body }
}
