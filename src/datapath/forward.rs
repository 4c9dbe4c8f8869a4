use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slim_wire::limits::PACKING_THRESHOLD_BYTES;
use slim_wire::{Class, Envelope, Header};

use super::core::Core;
use super::counters::DropReason;
use super::mailbox::Mail;
use super::port::{Admission, LinkId, Port};

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Forwarded {
    /// Nobody subscribed to its destination.
    Nowhere,
    /// It has one target.
    One {
        /// The target.
        target: LinkId,
        /// Its port, if its queue is above the soft mark.
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
}

/// A target with more than this part of its soft mark waiting does not keep up, and its messages
/// may wait for long.
const KEEPS_UP_PART: usize = 32;

/// A message up to this length may be a slice of a receive buffer that holds much else; a longer
/// one had to be put together from several, and has memory of its own.
const SHARED_BUFFER_BYTES: usize = 64 * 1024;

impl Core {
    /// Delivers a publish that came in on `from`: one copy to each target's queue, whatever
    /// becomes of the others.
    pub fn forward(&mut self, from: LinkId, envelope: &Envelope, now: Instant) -> Forwarded {
        let mut forwarded = Forwarded::Nowhere;
        let Self { replica, config, counters, targets, .. } = self;
        let (core, len) = (from.core, envelope.len());
        let (mut copies, mut waits) = (0, false);
        let keeps_up = config.marks.soft / KEEPS_UP_PART;
        replica.table().for_each_target(&envelope.header, from, |port| {
            copies += 1;
            waits |= port.queued() > keeps_up;
            let admission = port.admit(envelope.header.class, len, &config.marks);
            forwarded = match forwarded {
                Forwarded::Nowhere => {
                    let behind = (port.queued() > config.marks.soft).then(|| Arc::clone(port));
                    Forwarded::One { target: port.id(), behind }
                }
                _ => Forwarded::Many,
            };
            match admission {
                Admission::Admitted if port.id().core == core => {
                    targets.local.push(port.id());
                }
                Admission::Admitted => targets.remote.push(port.id()),
                Admission::Full => counters.drop_copies(DropReason::QueueFull, 1),
                Admission::Overrun => {
                    counters.drop_copies(DropReason::Overrun, 1);
                    if port.evict_once() {
                        targets.overrun.push(port.id());
                    }
                }
            }
        });
        counters.received.add(1);
        counters.bytes_received.add(len as u64);
        counters.deliveries.add(copies);
        if copies == 0 { &counters.unmatched } else { &counters.matched }.add(1);
        let waits = waits && !(targets.local.is_empty() && targets.remote.is_empty());
        let own = (waits && shares_memory(len)).then(|| own_memory(envelope));
        let envelope = own.as_ref().unwrap_or(envelope);
        let mut targets = std::mem::take(&mut self.targets);
        targets.local.drain(..).for_each(|target| self.push(target, envelope, now));
        self.send_remote(&mut targets.remote, envelope);
        targets.overrun.drain(..).for_each(|target| self.cut_off(target));
        self.targets = targets;
        forwarded
    }

    /// The only target of a message that is not best effort, if it has no room for it: to forward
    /// it now would evict the target, which a source that can wait may spare it.
    pub fn full_target(&mut self, from: LinkId, envelope: &Envelope) -> Option<Arc<Port>> {
        let Self { replica, config, .. } = self;
        let Header { class, fanout, .. } = envelope.header;
        if class == Class::BestEffort || fanout != 1 {
            return None;
        }
        let mut full = None;
        replica.table().for_each_target(&envelope.header, from, |port| {
            if !port.has_room(class, envelope.len(), &config.marks) {
                full = Some(Arc::clone(port));
            }
        });
        full
    }

    /// One letter per core, shared by its targets.
    fn send_remote(&mut self, targets: &mut Vec<LinkId>, envelope: &Envelope) {
        targets.sort_unstable_by_key(|target| target.core);
        for group in targets.chunk_by(|a, b| a.core == b.core) {
            self.counters.sent_to_cores.add(group.len() as u64);
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

/// Whether a message of `len` bytes may hold on to more memory than its own. A shorter one is
/// copied when it is queued.
fn shares_memory(len: usize) -> bool {
    len > PACKING_THRESHOLD_BYTES && len <= SHARED_BUFFER_BYTES
}

/// The message in memory of its own, for all its targets. As it came it may be a small part of a
/// receive buffer, which would stay for as long as the message waits: many times what its queue
/// is charged.
fn own_memory(envelope: &Envelope) -> Envelope {
    let body = envelope.body.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    Envelope { header: envelope.header, messages: envelope.messages, body }
}
