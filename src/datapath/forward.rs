use std::sync::Arc;
use std::time::Instant;

use slim_wire::Envelope;

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

/// Targets of one message, in lists that are kept to be used again: a wide fan-out would
/// otherwise allocate for every message.
#[derive(Debug, Default)]
pub(super) struct Targets {
    local: Vec<LinkId>,
    remote: Vec<LinkId>,
    overrun: Vec<LinkId>,
}

impl Core {
    /// Delivers a publish that came in on `from`: one copy to each target's queue, whatever
    /// becomes of the others.
    pub fn forward(&mut self, from: LinkId, envelope: &Envelope, now: Instant) -> Forwarded {
        let mut forwarded = Forwarded::Nowhere;
        let Self { replica, config, counters, targets, .. } = self;
        let (core, len) = (from.core, envelope.body.len());
        let mut copies = 0;
        replica.table().for_each_target(&envelope.header, from, |port| {
            copies += 1;
            let admission = port.admit(envelope.header.class, len, &config.marks);
            forwarded = match forwarded {
                Forwarded::Nowhere => {
                    let behind = (port.queued() > config.marks.soft).then(|| Arc::clone(port));
                    Forwarded::One { target: port.id(), behind }
                }
                _ => Forwarded::Many,
            };
            match admission {
                Admission::Admitted if port.id().core == core => targets.local.push(port.id()),
                Admission::Admitted => targets.remote.push(port.id()),
                Admission::Full => counters.drop_copies(DropReason::QueueFull, 1),
                Admission::Overrun => {
                    counters.drop_copies(DropReason::Overrun, 1);
                    targets.overrun.push(port.id());
                }
            }
        });
        counters.received.add(1);
        counters.bytes_received.add(len as u64);
        counters.deliveries.add(copies);
        if copies == 0 { &counters.unmatched } else { &counters.matched }.add(1);
        let mut local = std::mem::take(&mut self.targets.local);
        for target in local.drain(..) {
            self.push(target, &envelope.body, now);
        }
        self.targets.local = local;
        self.send_remote(envelope);
        self.cut_off_overrun();
        forwarded
    }

    /// One letter per core, shared by its targets.
    fn send_remote(&mut self, envelope: &Envelope) {
        let mut targets = std::mem::take(&mut self.targets.remote);
        targets.sort_unstable_by_key(|target| target.core);
        for group in targets.chunk_by(|a, b| a.core == b.core) {
            self.counters.sent_to_cores.add(group.len() as u64);
            self.mail.send(group[0].core, Mail::Deliver(envelope.clone(), group.into()));
        }
        targets.clear();
        self.targets.remote = targets;
    }

    fn cut_off_overrun(&mut self) {
        while let Some(target) = self.targets.overrun.pop() {
            if target.core == self.id() {
                self.evict(target);
            } else {
                self.mail.send(target.core, Mail::Evict(target));
            }
        }
    }
}
