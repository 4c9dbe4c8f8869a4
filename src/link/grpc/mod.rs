//! The gRPC side of a core: connections of published clients, each with its streams.
//!
//! HTTP/2 is served with `h2` itself rather than through a server framework: a framework polls
//! a response body only when flow control lets it, so a receiver that never reads could not be
//! cut off alone; here its stream is reset, and the other streams of its connection go on.

mod connection;
mod flow;
mod lingering;
mod reader;
mod stream;
mod writer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::datapath::Core;
use crate::link::incident::{Incident, IncidentLog, Incidents};

pub use connection::serve_connection;

/// Limits of the gRPC side; see the `limits` block of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct GrpcLimits {
    /// Longest message in bytes of protobuf.
    pub message_bytes: usize,
    /// From the accepted connection to an open stream.
    pub handshake: Duration,
    /// From the first byte of a message to its last.
    pub partial_message: Duration,
    /// How long a source is not read because its only target is behind.
    pub pause: Duration,
}

/// HTTP/2 settings of one listener; see the `servers` block of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Http2Settings {
    /// Largest frame that clients may send, in bytes; `None` for HTTP/2's 16 KiB.
    pub max_frame_size: Option<u32>,
    /// Streams that a connection may have open; `None` for no limit.
    pub max_concurrent_streams: Option<u32>,
    /// Longest list of request headers in bytes; `None` for 16 KiB.
    pub max_header_list_size: Option<u32>,
    /// How often an open connection is pinged.
    pub keepalive_time: Duration,
    /// How long the answer may take.
    pub keepalive_timeout: Duration,
    /// After which time a connection is asked to open no more streams.
    pub max_connection_age: Duration,
}

/// What all connections of one core share.
pub struct Gateway {
    /// The core's datapath.
    pub core: RefCell<Core>,
    /// Limits.
    pub limits: GrpcLimits,
    /// Connections and links that the whole node may have.
    pub places: Places,
    /// What went wrong on this core.
    pub incidents: Arc<Incidents>,
    /// Set when the node stops: sources are read no further.
    pub stop_reading: Cell<bool>,
    /// Cancelled after that: streams end once their queues are empty.
    pub finish: CancellationToken,
    /// The tasks of all connections and streams.
    pub tasks: TaskTracker,
    incident_log: IncidentLog,
}

impl Gateway {
    /// A gateway without connections.
    pub fn new(core: Core, limits: GrpcLimits, places: Places, incidents: Arc<Incidents>) -> Self {
        Self {
            core: RefCell::new(core),
            limits,
            places,
            incidents,
            stop_reading: Cell::new(false),
            finish: CancellationToken::new(),
            tasks: TaskTracker::new(),
            incident_log: IncidentLog::default(),
        }
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

    fn partial_room(&self) -> PartialRoom {
        PartialRoom { all: Arc::clone(&self.partial), limit: self.partial_limit, taken: 0 }
    }

    /// A connection's place until it is dropped; `None` when all are taken.
    pub fn take_connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    fn take_link(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.links).try_acquire_owned().ok()
    }
}

/// The room that one link's begun message takes of what all have.
#[derive(Debug)]
struct PartialRoom {
    all: Arc<AtomicUsize>,
    limit: usize,
    taken: usize,
}

impl PartialRoom {
    /// Takes `bytes` in all; returns whether that is within the limit of all.
    fn resize(&mut self, bytes: usize) -> bool {
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

/// The streams that a connection has open.
#[derive(Clone, Debug, Default)]
struct Streams(Rc<OpenCount>);

#[derive(Debug, Default)]
struct OpenCount {
    open: Cell<usize>,
    /// Those that were accepted as links.
    links: Cell<usize>,
    had_link: Cell<bool>,
    none_left: Notify,
}

impl Streams {
    fn open(&self) -> OpenStream {
        self.0.open.set(self.count() + 1);
        OpenStream { streams: self.clone(), link: Cell::new(false) }
    }

    fn count(&self) -> usize {
        self.0.open.get()
    }

    /// Resolves when the connection has had no link at `first`, or during `limit` after that.
    async fn idle(&self, first: Instant, limit: Duration) {
        sleep_until(first).await;
        let mut was_idle = true;
        loop {
            let idle = self.0.links.get() == 0;
            if idle && was_idle {
                return;
            }
            was_idle = idle;
            tokio::time::sleep(limit).await;
        }
    }

    fn had_link(&self) -> bool {
        self.0.had_link.get()
    }

    async fn all_ended(&self) {
        while self.count() > 0 {
            self.0.none_left.notified().await;
        }
    }
}

/// A stream that is open, and whether it is a link.
struct OpenStream {
    streams: Streams,
    link: Cell<bool>,
}

impl OpenStream {
    fn is_link(&self) {
        self.link.set(true);
        self.streams.0.had_link.set(true);
        self.streams.0.links.set(self.streams.0.links.get() + 1);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let counts = &self.streams.0;
        if self.link.get() {
            counts.links.set(counts.links.get() - 1);
        }
        counts.open.set(counts.open.get() - 1);
        if counts.open.get() == 0 {
            counts.none_left.notify_one();
        }
    }
}
