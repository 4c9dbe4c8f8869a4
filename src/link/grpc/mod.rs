//! The gRPC side of a core: connections of published clients, each with its streams.
//!
//! HTTP/2 is served with `h2` itself rather than through a server framework: a framework polls
//! a response body only when flow control lets it, so a receiver that never reads could not be
//! cut off alone; here its stream is reset, and the other streams of its connection go on.

mod connection;
mod gathering;
mod lingering;
mod messages;
mod numbers;
mod reader;
mod stream;
mod uplink;
mod writer;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub use connection::serve_connection;
pub use uplink::{PublishedNode, PublishedRelease, serve_uplink};

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
