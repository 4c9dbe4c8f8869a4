use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::datapath::Counter;

/// Something went wrong with one connection or stream. Each has one counter and one log line,
/// and the line is written at most once a second per core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A connection could not be accepted, for want of file descriptors for example.
    AcceptFailed,
    /// A connection or stream beyond `limits.links`.
    LinkLimit,
    /// The TLS handshake failed.
    TlsFailed,
    /// No link was opened within `limits.handshake_ms`.
    HandshakeTimeout,
    /// The peer broke HTTP/2, or never spoke it.
    NotHttp2,
    /// The peer did not answer a ping within `keepalive.timeout`, or was silent for
    /// `quic.idle_timeout`.
    KeepaliveTimeout,
    /// The connection ended without the client closing its stream.
    ConnectionLost,
    /// Who asked for a link did not show the credentials that the server asks for (`auth`).
    Unauthenticated,
    /// A request that opens no channel, or a dialect that is not served.
    StreamRefused,
    /// A message that was refused; its stream may have ended.
    MessageRefused,
    /// A message was begun and not completed within `limits.partial_message_ms`.
    MessageStalled,
    /// A datagram that belongs to no connection and begins none.
    StrayDatagram,
    /// The peer broke QUIC or the native protocol.
    ProtocolBroken,
    /// A socket or the link to another node failed.
    LinkFailed,
    /// A message whose name only clients of releases that cannot read it subscribed to.
    OtherRelease,
    /// Another node does not want to know a name of this node's clients.
    AnnouncementRefused,
}

impl Incident {
    /// All incidents, in the order of their counters.
    pub const ALL: [Self; 16] = [
        Self::AcceptFailed,
        Self::LinkLimit,
        Self::TlsFailed,
        Self::HandshakeTimeout,
        Self::NotHttp2,
        Self::KeepaliveTimeout,
        Self::ConnectionLost,
        Self::Unauthenticated,
        Self::StreamRefused,
        Self::MessageRefused,
        Self::MessageStalled,
        Self::StrayDatagram,
        Self::ProtocolBroken,
        Self::LinkFailed,
        Self::OtherRelease,
        Self::AnnouncementRefused,
    ];

    /// The incident as metrics write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AcceptFailed => "accept_failed",
            Self::LinkLimit => "link_limit",
            Self::TlsFailed => "tls_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotHttp2 => "not_http2",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::Unauthenticated => "unauthenticated",
            Self::StreamRefused => "stream_refused",
            Self::MessageRefused => "message_refused",
            Self::MessageStalled => "message_stalled",
            Self::StrayDatagram => "stray_datagram",
            Self::ProtocolBroken => "protocol_broken",
            Self::LinkFailed => "link_failed",
            Self::OtherRelease => "other_release",
            Self::AnnouncementRefused => "announcement_refused",
        }
    }

    const fn line(self) -> &'static str {
        match self {
            Self::AcceptFailed => "connection not accepted",
            Self::LinkLimit => "connection refused: limits.links reached",
            Self::TlsFailed => "connection closed: TLS handshake failed",
            Self::HandshakeTimeout => "connection closed: no link opened in time",
            Self::NotHttp2 => "connection closed: not valid HTTP/2",
            Self::KeepaliveTimeout => "connection closed: no sign of life in time",
            Self::ConnectionLost => "connection closed by peer",
            Self::Unauthenticated => "link refused: not authenticated",
            Self::StreamRefused => "stream refused",
            Self::MessageRefused => "message refused",
            Self::MessageStalled => "stream closed: message not completed in time",
            Self::StrayDatagram => "datagram dropped: it belongs to no connection",
            Self::ProtocolBroken => "connection closed: protocol broken",
            Self::LinkFailed => "link to another node failed",
            Self::OtherRelease => "message not delivered: its name belongs to another release",
            Self::AnnouncementRefused => "name not announced: another node refused it",
        }
    }
}

/// The incidents of one core.
#[derive(Debug, Default)]
pub struct Incidents {
    counters: [Counter; Incident::ALL.len()],
}

/// What one core remembers to keep its log short.
#[derive(Debug, Default)]
pub(super) struct IncidentLog {
    lines: [RateLimit; Incident::ALL.len()],
}

/// Lets one log line a second through, and counts the others.
#[derive(Debug, Default)]
pub struct RateLimit {
    last: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

const DETAIL_CHARS: usize = 200;

const LINE_INTERVAL: Duration = Duration::from_secs(1);

impl RateLimit {
    /// How many lines were left out since the last one, if this one is to be written.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        if self.last.get().is_some_and(|last| now < last + LINE_INTERVAL) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

impl Incidents {
    /// How often it happened.
    pub fn count(&self, incident: Incident) -> u64 {
        self.counters[incident as usize].value()
    }
}

impl IncidentLog {
    /// Counts an incident of `peer`, and logs it unless its kind was logged within a second;
    /// then the next line says how many were left out.
    pub(super) fn report(
        &self,
        incidents: &Incidents,
        incident: Incident,
        peer: &dyn Display,
        detail: &dyn Display,
    ) {
        incidents.counters[incident as usize].add(1);
        let Some(left_out) = self.lines[incident as usize].admit(Instant::now()) else {
            return;
        };
        // A peer has a say in the detail, and is not to fill the log with it.
        let detail: String = detail.to_string().chars().take(DETAIL_CHARS).collect();
        let message = incident.line();
        if incident == Incident::ConnectionLost {
            info!(%peer, %detail, left_out, "{message}");
        } else {
            warn!(%peer, %detail, left_out, "{message}");
        }
    }
}
