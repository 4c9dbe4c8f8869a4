use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slim_compat_grpc::LinkKey;
use slim_wire::{Class, Encoding, Envelope, Name, Space};
use slotmap::SlotMap;
use tracing::{Span, info_span};

use super::announce::Announcer;
use super::counters::{Counters, DropReason};
use super::egress::{Chunk, Egress};
use super::forward::Targets;
use super::mailbox::{BOX_LETTERS, Mail, Mailboxes};
use super::port::{Admission, CoreId, Framing, LinkId, Load, Marks, Port};
use super::replica::{Change, Replica, Submission};
use super::slow::{SlowClocks, SlowConsumer, SlowLog, SlowState};
use super::violation::Violation;
use crate::SPANS;
use crate::policy::{Policy, Principal, View};

pub use self::inspect::{ClientName, LinkStatus, Traffic};
pub use self::subscriptions::SubscribeError;

/// What an operator may choose about a core.
#[derive(Clone, Copy, Debug)]
pub struct CoreConfig {
    /// Fill levels of every egress queue.
    pub marks: Marks,
    /// How long a link may stay above its soft mark.
    pub slow_consumer: Duration,
    /// How long a link may take nothing of what waits for it.
    pub stalled: Duration,
    /// Longest message, or native frame, in bytes.
    pub message_bytes: usize,
    /// Subscriptions that one link of a client may have.
    pub subscriptions_per_link: usize,
    /// Subscriptions that one link to another node may have.
    pub subscriptions_per_node: usize,
    /// Subscriptions that all links of this core may have.
    pub subscriptions: usize,
    /// Seed of the table's hashing; see [`super::Table::new`].
    pub seed: u64,
}

/// One core: its replica of the routing table, its links, its mail.
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) replica: Replica,
    pub(super) links: SlotMap<slotmap::DefaultKey, Link>,
    pub(super) mail: Mailboxes,
    pub(super) counters: Arc<Counters>,
    pub(super) targets: Targets,
    announcer: Announcer,
    policy: Policy,
    /// The first thing that the policy does not allow since it was asked for, for the log.
    violation: Option<Violation>,
    slow_log: Arc<SlowLog>,
    clocks: SlowClocks,
    /// The deadline that the driver of this core knows of. A clock may be noted late for it, but
    /// no link is evicted late.
    armed: Option<Instant>,
    slow_events: Vec<SlowConsumer>,
    /// The driver has to ask for the deadline again.
    rearm: bool,
    next_sweep: Option<Instant>,
    finishing: bool,
    /// Native links that have something to do, and who drives them.
    ready: Vec<LinkId>,
    driver: Option<Waker>,
}

/// A link that took nothing during so many sweeps in a row is stalled.
const SWEEPS: u32 = 4;

/// Changes that are submitted together, and that a core applies in one turn: others are not to
/// wait for a link with very many subscriptions.
const SUBMITTED_CHANGES: usize = 256;
const TURN_CHANGES: usize = 2048;

/// A link as its own core knows it.
pub(super) struct Link {
    pub(super) egress: Egress,
    pub(super) traffic: Traffic,
    /// What the policy allows it.
    view: View,
    /// The link's life as a trace.
    _trace: Span,
    subscriptions: HashSet<(Space, Name)>,
    batch: Vec<Change>,
    submitted: bool,
    state: LinkState,
    /// The transport has bytes that it has not written yet.
    writing: bool,
    /// The transport has written bytes since the last sweep.
    progressed: bool,
    idle_sweeps: u32,
    waiting: Waiting,
}

/// How whoever moves a link's bytes learns that there is something to do.
enum Waiting {
    /// A task of its own waits, or works and will look again.
    Task(Option<Waker>),
    /// One driver for all native links of the core; whether the link is on its list.
    Listed(bool),
}

/// What is to become of a native link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Open,
    /// All is written, and the link is to end.
    Finished,
    /// It is to be cut off: it is too slow.
    Evicted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Open,
    /// Ends once its queue is empty.
    Finishing,
    Evicted,
}

/// What a link's transport has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Departure {
    /// Write these bytes.
    Chunk(Chunk),
    /// All is written, and the link is to end.
    Finished,
    /// The link is to be cut off: it is too slow.
    Evicted,
}

impl Core {
    /// A core without links.
    pub fn new(
        config: CoreConfig,
        mail: Mailboxes,
        counters: Arc<Counters>,
        slow_log: Arc<SlowLog>,
    ) -> Self {
        Self {
            config,
            replica: Replica::new(config.seed),
            links: SlotMap::new(),
            mail,
            counters,
            targets: Targets::default(),
            policy: Policy::default(),
            violation: None,
            announcer: Announcer::default(),
            slow_log,
            clocks: SlowClocks::new(config.slow_consumer),
            armed: None,
            slow_events: Vec::new(),
            rearm: false,
            next_sweep: None,
            finishing: false,
            ready: Vec::new(),
            driver: None,
        }
    }

    /// From now on has the limits of subscriptions and of slow and stalled links. What links have
    /// already stays theirs. The other settings stay as they were.
    pub fn set_limits(&mut self, config: &CoreConfig) {
        self.config.subscriptions_per_link = config.subscriptions_per_link;
        self.config.subscriptions_per_node = config.subscriptions_per_node;
        self.config.subscriptions = config.subscriptions;
        self.config.slow_consumer = config.slow_consumer;
        self.config.stalled = config.stalled;
        self.clocks.set_limit(config.slow_consumer);
        (self.next_sweep, self.rearm) = (None, true);
    }

    /// Judges links that are opened from now on by another policy than the open one.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Which core this is.
    pub fn id(&self) -> CoreId {
        self.mail.core()
    }

    /// What this core counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Fill levels of every egress queue.
    pub fn marks(&self) -> &Marks {
        &self.config.marks
    }

    /// Adds a link that speaks `framing`; `peer` is the address of its other end, and `principal`
    /// who that is.
    pub fn open_link(&mut self, peer: &str, framing: Framing, principal: Principal) -> LinkId {
        let core = self.id();
        let state = if self.finishing { LinkState::Finishing } else { LinkState::Open };
        let view = self.policy.view(&principal);
        // Never entered: what is said of messages is not said of their link.
        let trace = info_span!(target: SPANS, parent: None, "link", peer, %principal, ?framing);
        let key = self.links.insert_with_key(|key| {
            let port = Arc::new(Port::new(LinkId { core, key }, framing, peer).of(principal));
            Link {
                egress: Egress::new(port),
                traffic: Traffic::default(),
                view,
                _trace: trace,
                subscriptions: HashSet::new(),
                batch: Vec::new(),
                submitted: false,
                state,
                writing: false,
                progressed: false,
                idle_sweeps: 0,
                waiting: match framing {
                    Framing::Grpc | Framing::PublishedNode { .. } => Waiting::Task(None),
                    Framing::Native | Framing::Node(..) => Waiting::Listed(false),
                },
            }
        });
        self.counters.links.add(1);
        LinkId { core, key }
    }

    /// Removes a link with all its subscriptions; what waits for it is dropped and counted.
    pub fn close_link(&mut self, id: LinkId) {
        let Some(mut link) = self.links.remove(id.key) else {
            return;
        };
        self.counters.links.sub(1);
        self.counters.queued.sub(link.egress.messages());
        self.counters.drop_copies(DropReason::LinkClosed, link.egress.messages());
        self.counters.subscriptions.sub(link.subscriptions.len() as u64);
        self.clocks.stop(id);
        self.announcer.leave(id);
        let ends = link.subscriptions.drain();
        let mut changes = std::mem::take(&mut link.batch);
        changes.extend(ends.map(|(space, name)| Change::Unsubscribe(id, space, name)));
        for changes in changes.chunks(SUBMITTED_CHANGES) {
            self.mail.submit(Submission { link: id, changes: changes.to_vec() });
        }
        link.egress.port().close();
    }

    /// The shared face of a link of this core.
    pub fn port(&self, id: LinkId) -> Option<&Arc<Port>> {
        self.links.get(id.key).map(|link| link.egress.port())
    }

    /// What the link's transport has to do next.
    pub fn poll_departure(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<Departure> {
        if self.poll_evicted(id, cx).is_ready() {
            return Poll::Ready(Departure::Evicted);
        }
        // Who asks for more has written what was taken before.
        if let Some(link) = self.links.get_mut(id.key) {
            link.progressed |= std::mem::take(&mut link.writing);
        }
        if let Some(chunk) = self.pop(id, 0) {
            return Poll::Ready(Departure::Chunk(chunk));
        }
        match self.fate(id) {
            Fate::Finished => Poll::Ready(Departure::Finished),
            Fate::Open | Fate::Evicted => Poll::Pending,
        }
    }

    /// The next bytes of one queue of the link to write.
    pub fn pop(&mut self, id: LinkId, queue: u8) -> Option<Chunk> {
        let link = self.links.get_mut(id.key)?;
        let chunk = link.egress.pop(queue)?;
        link.writing = true;
        link.traffic.written += chunk.messages;
        link.traffic.written_bytes += chunk.bytes.len() as u64;
        self.counters.queued.sub(chunk.messages);
        self.counters.written.add(chunk.messages);
        self.counters.bytes_written.add(chunk.bytes.len() as u64);
        if link.egress.port().queued() <= self.config.marks.soft && self.clocks.stop(id) {
            self.slow_events.push(self.slow_log.note(link.egress.port(), SlowState::Recovered));
        }
        Some(chunk)
    }

    /// From now on what leaves on the link is authenticated with this key (D20).
    pub fn authenticate(&mut self, id: LinkId, key: Arc<LinkKey>) {
        if let Some(link) = self.links.get_mut(id.key) {
            link.egress.authenticate(key);
        }
    }

    /// Queues what this node itself has to say on the link. It is no message that was routed, and
    /// counts as none.
    pub fn answer(&mut self, id: LinkId, encoding: Encoding, answer: Bytes, now: Instant) {
        let Some(link) = self.links.get_mut(id.key) else {
            return;
        };
        let load = Load { class: Class::Control, encoding, bytes: answer.len(), messages: 0 };
        if link.egress.port().admit(load, &self.config.marks) != Admission::Admitted {
            return self.evict(id);
        }
        link.egress.push_answer(&answer);
        self.queued(id, now);
    }

    /// What is to become of the link; one that is gone is finished.
    pub fn fate(&self, id: LinkId) -> Fate {
        match self.links.get(id.key) {
            None => Fate::Finished,
            Some(link) => match link.state {
                LinkState::Open => Fate::Open,
                LinkState::Finishing if link.egress.messages() > 0 => Fate::Open,
                LinkState::Finishing => Fate::Finished,
                LinkState::Evicted => Fate::Evicted,
            },
        }
    }

    /// What became of what the transport of a native link took: whether any of it was written,
    /// and whether some waits for the peer.
    pub fn note_written(&mut self, id: LinkId, some: bool, blocked: bool) {
        if let Some(link) = self.links.get_mut(id.key) {
            link.progressed |= some;
            link.writing = blocked;
        }
    }

    /// From now on best effort of up to so many bytes leaves on the link's queue [`DATAGRAMS`](super::DATAGRAMS).
    pub fn allow_datagrams(&mut self, id: LinkId, bytes: usize) {
        if let Some(link) = self.links.get_mut(id.key) {
            link.egress.allow_datagrams(bytes);
        }
    }

    /// Moves the native links that have something to do into `ready`: bytes to write, changes
    /// that were applied, an end.
    pub fn take_ready(&mut self, ready: &mut Vec<LinkId>) {
        for id in &self.ready {
            if let Some(link) = self.links.get_mut(id.key) {
                link.waiting = Waiting::Listed(false);
            }
        }
        ready.append(&mut self.ready);
    }

    /// Ready when a native link has something to do.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.is_empty() {
            self.driver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Ready when the link is to be cut off; for transports that wait for room to write.
    pub fn poll_evicted(&mut self, id: LinkId, cx: &mut Context<'_>) -> Poll<()> {
        match self.links.get_mut(id.key) {
            Some(link) if link.state == LinkState::Evicted => Poll::Ready(()),
            Some(link) => {
                link.wait(cx);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    /// Lets the link end once its queue is empty.
    pub fn finish_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id.key)
            && link.state == LinkState::Open
        {
            link.state = LinkState::Finishing;
            link.wake(&mut self.ready);
        }
    }

    /// Lets every link of this core end once its queue is empty, those that are still to come
    /// too. One that takes nothing is given only as long as a slow consumer.
    pub fn finish_links(&mut self) {
        (self.finishing, self.next_sweep, self.rearm) = (true, None, true);
        for (_, link) in &mut self.links {
            if link.state == LinkState::Open {
                link.state = LinkState::Finishing;
            }
            link.wake(&mut self.ready);
        }
    }

    /// Reads this core's mail and cuts off links whose time is up. To be called when the core
    /// was woken, and at [`Core::deadline`].
    pub fn turn(&mut self, now: Instant) {
        // A bounded number, so that a busy sender cannot keep this core from its own links.
        let mut changes = 0;
        for _ in 0..BOX_LETTERS {
            if changes > TURN_CHANGES {
                break;
            }
            let Some(mail) = self.mail.receive() else {
                break;
            };
            match mail {
                Mail::Change(ordered) => {
                    changes += ordered.changes().len();
                    self.note_changes(&ordered);
                    if let Some(link) = self.replica.apply(ordered) {
                        self.mail.send(link.core, Mail::Done(link));
                    }
                }
                Mail::Done(id) => {
                    if let Some(link) = self.links.get_mut(id.key) {
                        link.submitted = false;
                        link.wake(&mut self.ready);
                    }
                }
                Mail::Deliver(envelope, targets) => {
                    let copies = targets.len() as u64 * u64::from(envelope.messages);
                    self.counters.received_from_cores.add(copies);
                    for target in targets {
                        self.push(target, &envelope, now);
                    }
                }
                Mail::Evict(id) => self.evict(id),
            }
        }
        let due = self.clocks.due(now);
        due.to_note.into_iter().for_each(|id| self.note(id, SlowState::Behind));
        due.to_evict.into_iter().for_each(|id| self.evict(id));
        self.sweep(now);
        self.flush();
    }

    /// Sends what is due to other cores and wakes them. To be called whenever a batch of input
    /// has been handled.
    pub fn flush(&mut self) {
        self.mail.flush();
        let to_log = !self.slow_events.is_empty() || self.violation.is_some();
        if std::mem::take(&mut self.rearm) || to_log {
            // The core has a deadline to mind, or lines to log.
            self.mail.wake_self();
        }
        if !self.ready.is_empty()
            && let Some(driver) = self.driver.take()
        {
            driver.wake();
        }
    }

    /// When the next turn is due, if no mail comes before. The core counts on being asked after
    /// each turn.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.armed = self.clocks.deadline().into_iter().chain(self.next_sweep).min();
        self.armed
    }

    /// Slow consumers since the last call, for the log.
    pub fn take_slow_events(&mut self) -> Vec<SlowConsumer> {
        std::mem::take(&mut self.slow_events)
    }

    /// Puts an admitted message into a link's queue.
    pub(super) fn push(&mut self, id: LinkId, envelope: &Envelope, now: Instant) {
        let Some(link) = self.links.get_mut(id.key) else {
            // Its port has gone with it, and with the port the room that was taken there.
            self.counters.drop_copies(DropReason::LinkClosed, envelope.messages.into());
            return;
        };
        link.egress.push(envelope);
        self.counters.queued.add(envelope.messages.into());
        self.queued(id, now);
    }

    /// Wakes who writes for the link, and starts its clock if it is behind.
    fn queued(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(id.key) else {
            return;
        };
        let behind = link.egress.port().queued() > self.config.marks.soft;
        if behind && link.state != LinkState::Evicted && self.clocks.start(id, now) {
            let too_late = now + self.config.slow_consumer;
            self.rearm |= self.armed.is_none_or(|armed| armed > too_late);
        }
        link.wake(&mut self.ready);
    }

    /// Evicts links that have taken nothing for as long as a link may.
    fn sweep(&mut self, now: Instant) {
        let limit = if self.finishing { self.config.slow_consumer } else { self.config.stalled };
        let period = limit / SWEEPS;
        if now < *self.next_sweep.get_or_insert(now + period) {
            return;
        }
        self.next_sweep = Some(now + period);
        let mut stalled = Vec::new();
        for (_, link) in &mut self.links {
            let waits = link.writing || link.egress.messages() > 0;
            let idle = waits && !std::mem::take(&mut link.progressed);
            link.idle_sweeps = if idle { link.idle_sweeps + 1 } else { 0 };
            if link.idle_sweeps >= SWEEPS {
                stalled.push(link.egress.port().id());
            }
        }
        stalled.into_iter().for_each(|id| self.evict(id));
    }

    pub(super) fn evict(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id.key) else {
            return;
        };
        if link.state == LinkState::Evicted {
            return;
        }
        link.state = LinkState::Evicted;
        link.wake(&mut self.ready);
        self.clocks.stop(id);
        self.counters.evicted.add(1);
        self.note(id, SlowState::Evicted);
    }

    fn note(&mut self, id: LinkId, state: SlowState) {
        if let Some(port) = self.port(id) {
            let event = self.slow_log.note(port, state);
            self.slow_events.push(event);
        }
    }
}

impl Link {
    fn wake(&mut self, ready: &mut Vec<LinkId>) {
        match &mut self.waiting {
            Waiting::Task(waker) => _ = waker.take().map(Waker::wake),
            Waiting::Listed(listed) => {
                if !std::mem::replace(listed, true) {
                    ready.push(self.egress.port().id());
                }
            }
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if let Waiting::Task(waker) = &mut self.waiting {
            *waker = Some(cx.waker().clone());
        }
    }
}

mod inspect;
mod subscriptions;
#[cfg(test)]
mod tests;
