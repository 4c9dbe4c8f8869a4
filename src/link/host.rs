//! What all links of one core share, whatever they speak.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slim_wire::{Header, Space};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::datapath::Core;
use crate::link::gate::REFUSAL_DELAY;
use crate::link::incident::{Incident, IncidentLog, Incidents};

/// Limits of every link; see the `limits` block of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Longest message in bytes: of protobuf, or of a native frame.
    pub message_bytes: usize,
    /// From the accepted connection to an open link.
    pub handshake: Duration,
    /// From the first byte of a message to its last.
    pub partial_message: Duration,
    /// How long a source is not read because its only target is behind.
    pub pause: Duration,
}

/// What all connections of one core share.
pub struct Host {
    /// The core's datapath.
    pub core: RefCell<Core>,
    /// Limits.
    pub limits: LinkLimits,
    /// Connections and links that the whole node may have.
    pub places: Places,
    /// What went wrong on this core.
    pub incidents: Arc<Incidents>,
    /// Set when the node stops: sources are read no further.
    pub stop_reading: Cell<bool>,
    /// Cancelled after that: streams end once their queues are empty.
    pub finish: CancellationToken,
    /// How this node introduces itself to published clients and nodes.
    pub node_id: Box<str>,
    /// The tasks of all connections and streams.
    pub tasks: TaskTracker,
    incident_log: IncidentLog,
    /// Those who are kept waiting before they are refused: all of them, and by their addresses.
    delays: Arc<Semaphore>,
    delayed: Rc<RefCell<HashMap<IpAddr, usize>>>,
}

/// While so many of one address are kept waiting, the credentials of others there are not looked at.
const DELAYS_OF_AN_ADDRESS: usize = 16;

/// So many are kept waiting at a time on a core; others are refused at once.
const DELAYS: usize = 256;

impl Host {
    /// A host without links.
    pub fn new(
        core: Core,
        limits: LinkLimits,
        places: Places,
        incidents: Arc<Incidents>,
        node_id: Box<str>,
    ) -> Self {
        Self {
            core: RefCell::new(core),
            limits,
            places,
            incidents,
            stop_reading: Cell::new(false),
            finish: CancellationToken::new(),
            node_id,
            tasks: TaskTracker::new(),
            incident_log: IncidentLog::default(),
            delays: Arc::new(Semaphore::new(DELAYS)),
            delayed: Rc::default(),
        }
    }

    /// Counts and logs that a message found its name only among clients of other releases.
    pub(super) fn report_elsewhere(&self, peer: &SocketAddr, header: &Header, known: Space) {
        let (name, releases) = (header.destination, header.encoding.space().releases());
        let detail = format_args!(
            "{name}: expected a subscriber of releases {releases}, got one of {} only",
            known.releases()
        );
        self.report(Incident::OtherRelease, peer, &detail);
    }

    /// A place among those who are kept waiting before they are refused; `None` when all are
    /// taken.
    pub(super) fn take_delay(&self, address: IpAddr) -> Option<Delay> {
        let place = Arc::clone(&self.delays).try_acquire_owned().ok()?;
        *self.delayed.borrow_mut().entry(address).or_default() += 1;
        Some(Delay { delayed: Rc::clone(&self.delayed), address, _place: place })
    }

    /// Whether so many of this address are kept waiting that it seems to guess.
    pub(super) fn is_guessing(&self, address: IpAddr) -> bool {
        self.delayed.borrow().get(&address).is_some_and(|delayed| *delayed >= DELAYS_OF_AN_ADDRESS)
    }

    /// How long they are kept waiting: shorter than a handshake may take.
    pub(super) fn refusal_delay(&self) -> Duration {
        REFUSAL_DELAY.min(self.limits.handshake / 2)
    }

    /// Counts and logs an incident.
    pub fn report(
        &self,
        incident: Incident,
        peer: &dyn std::fmt::Display,
        detail: &dyn std::fmt::Display,
    ) {
        self.incident_log.report(&self.incidents, incident, peer, detail);
    }
}

/// A place among those who are kept waiting, until it is dropped.
pub(super) struct Delay {
    delayed: Rc<RefCell<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Drop for Delay {
    fn drop(&mut self) {
        let mut delayed = self.delayed.borrow_mut();
        if let Some(count) = delayed.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                delayed.remove(&self.address);
            }
        }
    }
}

/// What the whole node may have: connections and links (`limits.links` of each), and bytes of
/// begun messages.
#[derive(Clone, Debug)]
pub struct Places {
    connections: Arc<Semaphore>,
    links: Arc<Semaphore>,
    partial: Arc<AtomicUsize>,
    partial_limit: usize,
}

impl Places {
    /// Places for `limit` connections and as many links, whose begun messages may take
    /// `partial_limit` bytes together.
    pub fn new(limit: usize, partial_limit: usize) -> Self {
        let places = || Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { connections: places(), links: places(), partial: Arc::default(), partial_limit }
    }

    pub(super) fn partial_room(&self) -> PartialRoom {
        PartialRoom { all: Arc::clone(&self.partial), limit: self.partial_limit, taken: 0 }
    }

    /// A connection's place until it is dropped; `None` when all are taken.
    pub fn take_connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    pub(super) fn take_link(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.links).try_acquire_owned().ok()
    }
}

/// The room that one link's begun message takes of what all have.
#[derive(Debug)]
pub(super) struct PartialRoom {
    all: Arc<AtomicUsize>,
    limit: usize,
    taken: usize,
}

impl PartialRoom {
    /// Takes `bytes` in all; returns whether that is within the limit of all.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes == self.taken {
            return true;
        }
        let before = self.all.fetch_add(bytes.wrapping_sub(self.taken), Ordering::Relaxed);
        let after = before.wrapping_add(bytes.wrapping_sub(self.taken));
        let grows = bytes > self.taken;
        self.taken = bytes;
        !grows || after <= self.limit
    }
}

impl Drop for PartialRoom {
    fn drop(&mut self) {
        self.resize(0);
    }
}
