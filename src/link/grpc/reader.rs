use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use slim_compat_grpc::service::Service;
use slim_compat_grpc::{Detected, FramingError, LinkKey, MessageReader, is_refusal_only};
use slim_wire::{DecodeError, Encoding, Envelope};
use tokio::time::timeout_at;
use tonic::Status;

use super::numbers::Numbers;
use super::stream::Ended;
use super::uplink::{Asked, Begun};
use crate::datapath::{Forwarded, LinkId, Port, RefuseReason};
use crate::link::flow::Flow;
use crate::link::host::{Host, PartialRoom};
use crate::link::incident::Incident;

/// Reads one stream: cuts out its messages and hands them to the datapath, in order.
pub(super) struct Reader {
    pub(super) host: Rc<Host>,
    pub(super) link: LinkId,
    pub(super) peer: SocketAddr,
    messages: MessageReader,
    /// Since when a message is incomplete.
    begun: Option<Instant>,
    pub(super) service: Service,
    pub(super) dialect: Option<Detected>,
    /// By which the headers of this link are authenticated (D20).
    pub(super) key: Option<Arc<LinkKey>>,
    pub(super) numbers: Numbers,
    /// Whether the client has introduced its link.
    pub(super) introduced: bool,
    /// The negotiation, if this node began the link.
    pub(super) begun_link: Option<Begun>,
    /// What this node asked the other end for, if it began the link.
    pub(super) asked: Option<Asked>,
    /// When the chunk was read, or reading went on after a wait: a queue's clock must not start
    /// in the past, so what a source waited never counts against its target.
    pub(super) now: Instant,
    /// Room taken for the incomplete message.
    partial: PartialRoom,
    /// Bytes read since others had their turn.
    since_yield: usize,
    /// Whether subscriptions have changed since all cores last knew.
    pub(super) changed: bool,
    /// To be sent once they know.
    pub(super) acks: Vec<Bytes>,
    flow: Flow,
}

impl Reader {
    pub(super) fn new(host: Rc<Host>, link: LinkId, peer: SocketAddr, service: Service) -> Self {
        let messages = MessageReader::new(host.limits.message_bytes);
        let partial = host.places.partial_room();
        Self {
            host,
            link,
            peer,
            messages,
            begun: None,
            service,
            dialect: None,
            key: None,
            numbers: Numbers::default(),
            introduced: false,
            begun_link: None,
            asked: None,
            now: Instant::now(),
            partial,
            since_yield: 0,
            changed: false,
            acks: Vec::new(),
            flow: Flow::default(),
        }
    }

    /// Reads until the stream ends, or the node stops.
    pub(super) async fn run(&mut self, body: &mut RecvStream) -> Ended {
        loop {
            let chunk = match self.begun {
                None => self.next_chunk(body).await,
                Some(begun) => {
                    let deadline = begun + self.host.limits.partial_message;
                    let Ok(chunk) = timeout_at(deadline.into(), self.next_chunk(body)).await else {
                        if self.host.stop_reading.get() {
                            // It is this node that reads no further.
                            return pending().await;
                        }
                        let status = Status::deadline_exceeded("message not completed in time");
                        return Ended::Refused(Incident::MessageStalled, status);
                    };
                    chunk
                }
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Ended::Broken(error),
                None => return self.end_of_stream(),
            };
            let len = chunk.len();
            let read = self.read_chunk(chunk).await;
            self.settle(len).await;
            if let Err(ended) = read.and_then(|()| self.note_progress()) {
                return ended;
            }
            // Only now may the client send as much again: a paused source fills its window.
            if let Err(error) = body.flow_control().release_capacity(len) {
                return Ended::Broken(error);
            }
        }
    }

    /// The next chunk of the body; never, once the node stops.
    async fn next_chunk(&self, body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
        poll_fn(|cx| match self.host.stop_reading.get() {
            true => Poll::Pending,
            false => body.poll_data(cx),
        })
        .await
    }

    fn end_of_stream(&self) -> Ended {
        match self.messages.finish() {
            Ok(()) => Ended::ByClient,
            Err(error) => self.refuse_framing(&error),
        }
    }

    /// A message that is not complete has a deadline, which further bytes do not extend, and
    /// takes room that all links share.
    fn note_progress(&mut self) -> Result<(), Ended> {
        self.begun = match (self.messages.is_mid_message(), self.begun) {
            (false, _) => None,
            (true, Some(begun)) => Some(begun),
            (true, None) => Some(Instant::now()),
        };
        if self.partial.resize(self.messages.held()) {
            return Ok(());
        }
        let status = Status::resource_exhausted(
            "this node has no room for more begun messages (limits.partial_bytes)",
        );
        Err(Ended::Refused(Incident::MessageRefused, status))
    }

    async fn read_chunk(&mut self, chunk: Bytes) -> Result<(), Ended> {
        self.now = Instant::now();
        self.messages.push(chunk);
        loop {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.begun = None;
                    self.read_message(message).await?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refuse_framing(&error)),
            }
        }
    }

    pub(super) async fn forward(&mut self, envelope: &Envelope) {
        let len = envelope.len();
        if self.flow.may_wait(len) {
            let full = self.host.core.borrow_mut().full_target(self.link, envelope);
            if let Some(port) = full {
                self.pause(&port).await;
            }
        }
        let forwarded = self.host.core.borrow_mut().forward(self.link, envelope, self.now);
        if let Forwarded::Nowhere { elsewhere: Some(space) } = forwarded {
            self.host.report_elsewhere(&self.peer, &envelope.header, space);
        }
        if let Some(port) = self.flow.wait_for(forwarded, len) {
            self.pause(&port).await;
        }
    }

    /// Leaves the source unread until its only target has caught up, for a bounded time.
    async fn pause(&mut self, port: &Port) {
        let enough = {
            let mut core = self.host.core.borrow_mut();
            core.counters().pauses.add(1);
            core.flush();
            core.marks().pause
        };
        let until = Instant::now() + self.host.limits.pause;
        while port.queued() > enough && !port.is_closed() {
            if Instant::now() >= until {
                self.flow.give_up();
                break;
            }
            tokio::time::sleep(PAUSE_STEP).await;
        }
        self.now = Instant::now();
    }

    /// Waits until the node knows what the client subscribed to, and says so if it wants to know.
    pub(super) async fn submitted(&mut self) {
        if std::mem::take(&mut self.changed) {
            poll_fn(|cx| {
                let mut core = self.host.core.borrow_mut();
                let poll = core.poll_submitted(self.link, cx);
                core.flush();
                poll
            })
            .await;
        }
        if self.acks.is_empty() {
            return;
        }
        let encoding = self.dialect.map_or(Encoding::D20, Detected::encoding);
        let mut core = self.host.core.borrow_mut();
        self.acks.drain(..).for_each(|ack| core.answer(self.link, encoding, ack, self.now));
    }

    /// After a chunk: older dialects have no acknowledgements, so the stream is not read on before
    /// its subscriptions are made. Also lets other streams have their turn.
    async fn settle(&mut self, len: usize) {
        self.submitted().await;
        self.host.core.borrow_mut().flush();
        self.since_yield += len;
        if self.since_yield >= TURN_BYTES {
            self.since_yield = 0;
            tokio::task::yield_now().await;
        }
    }

    fn refuse_framing(&self, error: &FramingError) -> Ended {
        let (reason, status) = match error {
            FramingError::TooLarge { .. } => {
                (RefuseReason::TooLarge, Status::resource_exhausted(error.to_string()))
            }
            FramingError::Compressed { .. } => {
                (RefuseReason::Undecodable, Status::unimplemented(error.to_string()))
            }
            FramingError::Cut { .. } => {
                (RefuseReason::Undecodable, Status::invalid_argument(error.to_string()))
            }
        };
        self.host.core.borrow().counters().refuse(reason);
        Ended::Refused(Incident::MessageRefused, status)
    }

    pub(super) fn refuse_message(&self, error: &DecodeError) -> Result<(), Ended> {
        let core = self.host.core.borrow();
        if is_refusal_only(error) {
            core.counters().refuse(RefuseReason::Invalid);
            self.host.report(Incident::MessageRefused, &self.peer, error);
            return Ok(());
        }
        drop(core);
        Err(self.undecodable(error))
    }

    pub(super) fn undecodable(&self, error: &DecodeError) -> Ended {
        self.host.core.borrow().counters().refuse(RefuseReason::Undecodable);
        let status = Status::invalid_argument(format!("{error}; {}", error.hint()));
        Ended::Refused(Incident::MessageRefused, status)
    }
}

/// A stream hands its thread on after so many bytes: what it sent wants to be written before
/// more of it is read.
const TURN_BYTES: usize = 64 * 1024;

const PAUSE_STEP: Duration = Duration::from_millis(1);
