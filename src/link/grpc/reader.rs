use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use slim_compat_grpc::{
    D6, Detected, Dialect, FramingError, Inbound, MessageReader, detect, is_refusal_only,
};
use slim_wire::{DecodeError, Envelope, Kind};
use tokio::time::timeout_at;
use tonic::Status;

use super::flow::Flow;
use super::stream::Ended;
use super::{Gateway, PartialRoom};
use crate::datapath::{LinkId, Port, RefuseReason};
use crate::link::incident::Incident;

/// Reads one stream: cuts out its messages and hands them to the datapath, in order.
pub(super) struct Reader {
    gateway: Rc<Gateway>,
    link: LinkId,
    peer: SocketAddr,
    messages: MessageReader,
    /// Since when a message is incomplete.
    begun: Option<Instant>,
    dialect: Option<Detected>,
    /// When the chunk was read, or reading went on after a wait: a queue's clock must not start
    /// in the past, so what a source waited never counts against its target.
    now: Instant,
    /// Room taken for the incomplete message.
    partial: PartialRoom,
    /// Bytes read since others had their turn.
    since_yield: usize,
    /// Whether subscriptions have changed since all cores last knew.
    changed: bool,
    flow: Flow,
}

impl Reader {
    pub(super) fn new(gateway: Rc<Gateway>, link: LinkId, peer: SocketAddr) -> Self {
        let messages = MessageReader::new(gateway.limits.message_bytes);
        let partial = gateway.places.partial_room();
        Self {
            gateway,
            link,
            peer,
            messages,
            begun: None,
            dialect: None,
            now: Instant::now(),
            partial,
            since_yield: 0,
            changed: false,
            flow: Flow::default(),
        }
    }

    /// Reads until the stream ends, or the node stops.
    pub(super) async fn run(&mut self, body: &mut RecvStream) -> Ended {
        loop {
            let chunk = match self.begun {
                None => self.next_chunk(body).await,
                Some(begun) => {
                    let deadline = begun + self.gateway.limits.partial_message;
                    let Ok(chunk) = timeout_at(deadline.into(), self.next_chunk(body)).await else {
                        if self.gateway.stop_reading.get() {
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
        poll_fn(|cx| match self.gateway.stop_reading.get() {
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

    async fn read_message(&mut self, message: Bytes) -> Result<(), Ended> {
        let dialect = match self.dialect {
            Some(dialect) => dialect,
            None => match detect(&message) {
                Ok(dialect) => *self.dialect.insert(dialect),
                Err(error) => return self.refuse_message(&error),
            },
        };
        match dialect {
            Detected::D6 => self.route::<D6>(message).await,
            Detected::D7 | Detected::D7L | Detected::D20 => {
                let releases = dialect.releases();
                let status = Status::unimplemented(format!(
                    "clients of releases {releases} are not served yet; use release 0.6"
                ));
                Err(Ended::Refused(Incident::StreamRefused, status))
            }
        }
    }

    async fn route<D: Dialect>(&mut self, message: Bytes) -> Result<(), Ended> {
        let inbound = match D::read(&message) {
            Ok(inbound) => inbound,
            Err(error) => return self.refuse_message(&error),
        };
        let Inbound { header, texts, steers } = inbound;
        match header.kind {
            Kind::Subscribe => {
                self.changed = true;
                let mut core = self.gateway.core.borrow_mut();
                let made = core.subscribe(self.link, D::ENCODING, header.destination, texts);
                if let Err(error) = made {
                    core.counters().refuse(RefuseReason::SubscriptionLimit);
                    drop(core);
                    self.gateway.report(Incident::MessageRefused, &self.peer, &error);
                }
            }
            Kind::Unsubscribe => {
                self.changed = true;
                self.gateway.core.borrow_mut().unsubscribe(
                    self.link,
                    D::ENCODING,
                    header.destination,
                );
            }
            Kind::Publish => {
                // What the client subscribed to just now may be where the answer goes.
                self.submitted().await;
                let body = if steers { self.cleared::<D>(&message)? } else { message };
                self.forward(&Envelope::single(header, body)).await;
            }
        }
        Ok(())
    }

    fn cleared<D: Dialect>(&self, message: &[u8]) -> Result<Bytes, Ended> {
        D::clear_steering(message).map_err(|error| self.undecodable(&error))
    }

    async fn forward(&mut self, envelope: &Envelope) {
        let len = envelope.len();
        if self.flow.may_wait(len) {
            let full = self.gateway.core.borrow_mut().full_target(self.link, envelope);
            if let Some(port) = full {
                self.pause(&port).await;
            }
        }
        let forwarded = self.gateway.core.borrow_mut().forward(self.link, envelope, self.now);
        if let Some(port) = self.flow.wait_for(forwarded, len) {
            self.pause(&port).await;
        }
    }

    /// Leaves the source unread until its only target has caught up, for a bounded time.
    async fn pause(&mut self, port: &Port) {
        let soft = {
            let mut core = self.gateway.core.borrow_mut();
            core.counters().pauses.add(1);
            core.flush();
            core.marks().soft
        };
        let until = Instant::now() + self.gateway.limits.pause;
        while port.queued() > soft && !port.is_closed() {
            if Instant::now() >= until {
                self.flow.give_up();
                break;
            }
            tokio::time::sleep(PAUSE_STEP).await;
        }
        self.now = Instant::now();
    }

    /// Waits until the node knows what the client subscribed to.
    async fn submitted(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        poll_fn(|cx| {
            let mut core = self.gateway.core.borrow_mut();
            let poll = core.poll_submitted(self.link, cx);
            core.flush();
            poll
        })
        .await;
    }

    /// After a chunk: this dialect has no acknowledgements, so the stream is not read on before
    /// its subscriptions are made. Also lets other streams have their turn.
    async fn settle(&mut self, len: usize) {
        self.submitted().await;
        self.gateway.core.borrow_mut().flush();
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
        self.gateway.core.borrow().counters().refuse(reason);
        Ended::Refused(Incident::MessageRefused, status)
    }

    fn refuse_message(&self, error: &DecodeError) -> Result<(), Ended> {
        let core = self.gateway.core.borrow();
        if is_refusal_only(error) {
            core.counters().refuse(RefuseReason::Invalid);
            self.gateway.report(Incident::MessageRefused, &self.peer, error);
            return Ok(());
        }
        drop(core);
        Err(self.undecodable(error))
    }

    fn undecodable(&self, error: &DecodeError) -> Ended {
        self.gateway.core.borrow().counters().refuse(RefuseReason::Undecodable);
        let status = Status::invalid_argument(format!("{error}; {}", error.hint()));
        Ended::Refused(Incident::MessageRefused, status)
    }
}

/// A stream hands its thread on after so many bytes: what it sent wants to be written before
/// more of it is read.
const TURN_BYTES: usize = 64 * 1024;

const PAUSE_STEP: Duration = Duration::from_millis(1);
