use std::time::Duration;

use slim_wire::TextName;
use slim_wire::session::FullName;

/// What a session is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whom it is with.
    pub kind: Kind,
    /// How lost messages are made up for; `None`: they are not.
    pub reliability: Option<Reliability>,
    /// Whether it is encrypted end to end with MLS.
    pub mls: bool,
    /// Told to all who join. Keys that begin with `SLIM_` are reserved.
    pub metadata: Vec<(String, String)>,
}

/// Whom a session is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each message goes to any instance of an app, the one that the message names.
    Anycast,
    /// All messages go to one instance of the app with this name, which is found when the first
    /// is sent.
    PointToPoint {
        /// The app; with an id, exactly that instance.
        peer: FullName,
    },
    /// All members of a channel. Who creates it is its moderator, and invites the others.
    Group {
        /// The channel's name, without an id.
        channel: FullName,
    },
}

/// How lost messages are made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reliability {
    /// How long an acknowledgement is waited for before a message is sent again, and in groups
    /// how long a missing message before it is asked for again.
    pub timeout: Duration,
    /// How often it is sent, or asked for, again; `None`: without end.
    pub max_retries: Option<u32>,
}

impl Config {
    /// A session whose messages go to any instance each, unreliable.
    pub fn anycast() -> Self {
        Self::new(Kind::Anycast, None)
    }

    /// A session with one instance of `peer`: without a timeout, unreliable; see
    /// [`Config::reliable`].
    pub fn point_to_point(peer: &TextName) -> Self {
        Self::new(Kind::PointToPoint { peer: peer.into() }, None)
    }

    /// A group on `channel`. A missing message is asked for once, and given up after one second.
    pub fn group(channel: &TextName) -> Self {
        let reliability = Reliability { timeout: Duration::from_secs(1), max_retries: Some(0) };
        Self::new(Kind::Group { channel: channel.into() }, Some(reliability))
    }

    /// A session with who opened it.
    pub(super) fn with_peer(peer: FullName) -> Self {
        Self::new(Kind::PointToPoint { peer }, None)
    }

    fn new(kind: Kind, reliability: Option<Reliability>) -> Self {
        Self { kind, reliability, mls: false, metadata: Vec::new() }
    }

    /// The same, with lost messages made up for.
    #[must_use]
    pub fn reliable(self, timeout: Duration, max_retries: Option<u32>) -> Self {
        Self { reliability: Some(Reliability { timeout, max_retries }), ..self }
    }

    /// The same, encrypted.
    #[must_use]
    pub fn encrypted(self) -> Self {
        Self { mls: true, ..self }
    }

    /// The same, with metadata for all who join.
    #[must_use]
    pub fn with_metadata(self, metadata: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { metadata: metadata.into_iter().collect(), ..self }
    }

    /// Whether it is a group.
    pub fn is_group(&self) -> bool {
        matches!(self.kind, Kind::Group { .. })
    }
}

/// Bounds of what an app's sessions keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time. Invitations beyond are not answered. Default: 4,096.
    pub sessions: usize,
    /// Sessions that others opened and the app has not asked for yet. Default: 128.
    pub waiting_sessions: usize,
    /// Messages of a session that have not been sent, or not been acknowledged by all who do;
    /// publishing beyond waits. Members of a group acknowledge every 32 messages, or after half a
    /// second: a smaller window waits for that. Default: 256.
    pub window_messages: usize,
    /// The same in bytes; one larger message alone is taken. Default: 16 MiB.
    pub window_bytes: u64,
    /// Messages of a session that the app has not asked for yet; beyond, they are not
    /// acknowledged, or dropped if nobody waits for that. Default: 1,024.
    pub inbox_messages: usize,
    /// The same in bytes. Default: 16 MiB.
    pub inbox_bytes: usize,
    /// Longest payload that may be published. Default: 4 MiB less 128 KiB, which every node and
    /// published client takes.
    pub payload_bytes: usize,
    /// How long an anycast session that another app opened is kept without a message. Default:
    /// ten minutes.
    pub anycast_idle: Duration,
    /// How old a member's keys get before they are renewed. Default: one hour.
    pub key_rotation: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const WINDOW_BYTES: usize = 16 * 1024 * 1024;
        Self {
            sessions: 4096,
            waiting_sessions: 128,
            window_messages: 256,
            window_bytes: WINDOW_BYTES as u64,
            inbox_messages: 1024,
            inbox_bytes: WINDOW_BYTES,
            payload_bytes: (4096 - 128) * 1024,
            anycast_idle: Duration::from_secs(600),
            key_rotation: Duration::from_secs(3600),
        }
    }
}

/// How often, and how many times again, a request of the handshakes is sent.
pub(super) const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const REQUEST_RETRIES: u32 = 60;

/// Messages that a sender keeps for those who miss them, and that a receiver waits with.
pub(super) const BUFFERED_MESSAGES: usize = 500;
pub(super) const BUFFERED_BYTES: u64 = 64 * 1024 * 1024;

/// Message numbers that are reserved ahead where sessions are stored.
pub(super) const RESERVED_MESSAGES: u32 = 64;

/// The reliability of sessions that others invite to, as published apps have it by default.
pub(super) const INVITED_POINT_TO_POINT: Reliability =
    Reliability { timeout: Duration::from_secs(5), max_retries: Some(5) };
pub(super) const INVITED_GROUP: Reliability =
    Reliability { timeout: Duration::from_secs(1), max_retries: Some(10) };
