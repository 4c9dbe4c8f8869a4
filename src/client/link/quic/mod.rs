//! A link over native QUIC: one bidirectional control stream, eight lanes each way, datagrams.

mod connect;
mod reader;
mod writer;

use std::array;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, Endpoint, SendDatagramError, VarInt};
use slim_wire::limits::LANES;
use slim_wire::{
    Class, CloseCode, Flags, FrameHeader, FrameKind, Header, Name, SessionIds, TextName, lane,
};
use tokio_util::task::TaskTracker;

pub(super) use self::connect::connect;
use super::error::one_line;
use super::inbound::Inbound;
use super::outbound::{Frame, Outbound, Push};
use super::requests::Requests;
use super::{LinkError, LinkStats, Message, Place};

/// What the handles and the tasks of a link share.
pub(super) struct Shared {
    connection: Connection,
    /// Longest frame that the node takes, in bytes.
    frame_bytes: usize,
    /// The app's own name, if it told.
    name: Option<TextName>,
    control: Outbound,
    lanes: [Outbound; LANES as usize],
    requests: Requests,
    pub(super) inbound: Inbound,
    /// Why the link ended; the first reason stays.
    end: OnceLock<LinkError>,
    /// This end has said that it is done.
    leaving: AtomicBool,
    /// Datagrams that arrived when the app was behind.
    dropped: AtomicU64,
}

/// A connection with its tasks.
pub(super) struct Quic {
    pub(super) shared: Arc<Shared>,
    endpoint: Endpoint,
    /// The tasks that write the lanes; each ends when the node has acknowledged all it wrote.
    writers: TaskTracker,
    close_timeout: Duration,
}

impl Shared {
    fn new(
        connection: Connection,
        frame_bytes: u32,
        name: Option<TextName>,
        control: Outbound,
    ) -> Self {
        Self {
            connection,
            frame_bytes: frame_bytes as usize,
            name,
            control,
            lanes: array::from_fn(|_| Outbound::default()),
            requests: Requests::default(),
            inbound: Inbound::default(),
            end: OnceLock::new(),
            leaving: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// Why the link ended. To be asked after something failed because it did.
    pub(super) fn reason(&self) -> LinkError {
        self.known_reason().unwrap_or(LinkError::Ended)
    }

    fn known_reason(&self) -> Option<LinkError> {
        let lost = || self.connection.close_reason().map(|error| self.conclude(&error));
        self.end.get().cloned().or_else(lost)
    }

    /// Why the link ended, now that its connection has.
    fn conclude(&self, error: &ConnectionError) -> LinkError {
        let reason = || match reason_of(error) {
            // So a node answers who says that it is done.
            LinkError::Closed { code: CloseCode::Done, .. }
                if self.leaving.load(Ordering::Relaxed) =>
            {
                LinkError::Ended
            }
            reason => reason,
        };
        self.end.get_or_init(reason).clone()
    }

    /// Why requests get no answers.
    fn silence(&self) -> LinkError {
        let ended = LinkError::Broken { place: Place::Control, how: "ended it" };
        self.known_reason().unwrap_or(ended)
    }

    /// Ends the link at this end.
    fn fail(&self, error: LinkError, code: CloseCode) {
        let reason = error.to_string();
        let _ = self.end.set(error);
        self.connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    /// Waits for the end of the connection, and tells all who wait for something of it.
    async fn watch(self: Arc<Self>, readers: TaskTracker) {
        self.conclude(&self.connection.closed().await);
        self.lanes.iter().for_each(Outbound::end);
        self.control.end();
        self.requests.end();
        // What has arrived can still be received.
        readers.wait().await;
        self.inbound.end();
    }

    pub(super) async fn request(&self, kind: FrameKind, name: &TextName) -> Result<(), LinkError> {
        let Some((number, answer)) = self.requests.begin() else {
            return Err(self.silence());
        };
        let text = Bytes::from(name.components().join("/"));
        let header = control_header(self.name.as_ref(), name.to_name());
        let ids = SessionIds { session: 0, message: number };
        let head = FrameHeader::new(kind, &header, ids, 0, text.len()).map_err(|_| {
            LinkError::TooLarge { field: "name", limit: self.frame_bytes, got: text.len() }
        })?;
        let frame = Frame { head: head.as_bytes(), session: &[], payload: &text };
        if !self.control.push(frame).await {
            return Err(self.silence());
        }
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => {
                let request =
                    if kind == FrameKind::Subscribe { "subscribe" } else { "unsubscribe" };
                Err(LinkError::Refused { request, name: name.to_string(), reason })
            }
            Err(_) => Err(self.silence()),
        }
    }

    pub(super) async fn publish(&self, message: &Message) -> Result<(), LinkError> {
        let head = message.head(self.frame_bytes)?;
        if let Some(datagram) = self.as_datagram(message, &head) {
            match self.connection.send_datagram_wait(datagram).await {
                Ok(()) => return Ok(()),
                Err(SendDatagramError::ConnectionLost(_)) => return Err(self.reason()),
                // The path got narrower in the meantime.
                Err(_) => {}
            }
        }
        let frame = frame_of(message, &head);
        if self.lane_of(message).push(frame).await { Ok(()) } else { Err(self.reason()) }
    }

    pub(super) fn try_publish(&self, message: &Message) -> Result<bool, LinkError> {
        let head = message.head(self.frame_bytes)?;
        if let Some(datagram) = self.as_datagram(message, &head) {
            match self.connection.send_datagram_wait(datagram).now_or_never() {
                Some(Ok(())) => return Ok(true),
                None => return Ok(false),
                Some(Err(SendDatagramError::ConnectionLost(_))) => return Err(self.reason()),
                Some(Err(_)) => {}
            }
        }
        let frame = frame_of(message, &head);
        match self.lane_of(message).try_push(frame) {
            Push::Queued => Ok(true),
            Push::Full => Ok(false),
            Push::Closed => Err(self.reason()),
        }
    }

    fn lane_of(&self, message: &Message) -> &Outbound {
        &self.lanes[usize::from(lane(message.ids.session, &message.source))]
    }

    /// The message as a datagram, if that is how it is to travel.
    fn as_datagram(&self, message: &Message, head: &FrameHeader) -> Option<Bytes> {
        if message.class != Class::BestEffort {
            return None;
        }
        let limit = self.connection.max_datagram_size()?;
        (message.frame_bytes() <= limit).then(|| message.to_frame(head))
    }

    pub(super) async fn closed(&self) -> LinkError {
        self.conclude(&self.connection.closed().await)
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    pub(super) fn stats(&self) -> LinkStats {
        let stats = self.connection.stats();
        LinkStats {
            rtt: stats.path.rtt,
            mtu: stats.path.current_mtu,
            lost_packets: stats.path.lost_packets,
            dropped: self.dropped.load(Ordering::Relaxed),
            ignored: 0,
            unreadable: 0,
        }
    }
}

impl Quic {
    /// Ends the lanes, and after them the control stream. A node that has read all of them, and
    /// passed on what was in them, closes the connection.
    pub(super) async fn close(&self) -> Result<(), LinkError> {
        let Shared { connection, control, lanes, leaving, .. } = &*self.shared;
        lanes.iter().for_each(Outbound::finish);
        self.writers.close();
        let goodbye = async {
            self.writers.wait().await;
            leaving.store(true, Ordering::Relaxed);
            control.finish();
            connection.closed().await
        };
        let Ok(error) = tokio::time::timeout(self.close_timeout, goodbye).await else {
            connection.close(VarInt::from_u32(CloseCode::Done as u32), b"");
            // It returns once the node has been told, or can be taken not to listen any more.
            let _ = tokio::time::timeout(self.close_timeout, self.endpoint.wait_idle()).await;
            let what = "handing over what was published".into();
            return Err(LinkError::Timeout { what, after: self.close_timeout });
        };
        match self.shared.conclude(&error) {
            LinkError::Ended => Ok(()),
            reason => Err(reason),
        }
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        let _ = self.shared.end.set(LinkError::Ended);
        self.shared.connection.close(VarInt::from_u32(CloseCode::Done as u32), b"");
        self.shared.inbound.end();
    }
}

fn frame_of<'a>(message: &'a Message, head: &'a FrameHeader) -> Frame<'a> {
    Frame { head: head.as_bytes(), session: &message.session, payload: &message.payload }
}

/// The header of a control frame.
fn control_header(source: Option<&TextName>, destination: Name) -> Header {
    Header::control(Flags::empty(), source.map_or(Name::NOBODY, TextName::to_name), destination)
}

/// A connection's end as its reason.
fn reason_of(error: &ConnectionError) -> LinkError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let (number, reason) = (close.error_code.into_inner(), one_line(&close.reason));
            match CloseCode::from_number(number) {
                Some(code) => LinkError::Closed { code, reason },
                None => LinkError::Lost { reason: format!("closed with code {number}: {reason}") },
            }
        }
        ConnectionError::LocallyClosed => LinkError::Ended,
        other => LinkError::Lost { reason: one_line(other.to_string().as_bytes()) },
    }
}
