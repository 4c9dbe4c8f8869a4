use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use slim_compat_grpc::{
    D6, Detected, Dialect, FramingError, Inbound, MessageReader, detect, is_refusal_only,
};
use slim_wire::{DecodeError, Envelope, Kind};
use tonic::Status;

use super::Gateway;
use super::stream::Ended;
use crate::datapath::{Forwarded, LinkId, Port, RefuseReason};
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
    flow: Flow,
}

impl Reader {
    pub(super) fn new(gateway: Rc<Gateway>, link: LinkId, peer: SocketAddr) -> Self {
        let messages = MessageReader::new(gateway.limits.message_bytes);
        Self {
            gateway,
            link,
            peer,
            messages,
            begun: None,
            dialect: None,
            flow: Flow::default(),
        }
    }

    /// Reads until the stream ends, or the node stops.
    pub(super) async fn run(&mut self, body: &mut RecvStream) -> Ended {
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.gateway.stop_reading.cancelled() => return pending().await,
                chunk = body.data() => chunk,
                () = stalled(self.begun, self.gateway.limits.partial_message) => {
                    let status = Status::deadline_exceeded("message not completed in time");
                    return Ended::Refused(Incident::MessageStalled, status);
                }
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Ended::Broken(error),
                None => return self.end_of_stream(),
            };
            let len = chunk.len();
            let read = self.read_chunk(chunk).await;
            self.settle().await;
            if let Err(ended) = read {
                return ended;
            }
            self.note_progress();
            // Only now may the client send as much again: a paused source fills its window.
            if let Err(error) = body.flow_control().release_capacity(len) {
                return Ended::Broken(error);
            }
        }
    }

    fn end_of_stream(&self) -> Ended {
        match self.messages.finish() {
            Ok(()) => Ended::ByClient,
            Err(error) => self.refuse_framing(&error),
        }
    }

    /// A message that is not complete has a deadline, which further bytes do not extend.
    fn note_progress(&mut self) {
        self.begun = match (self.messages.is_mid_message(), self.begun) {
            (false, _) => None,
            (true, Some(begun)) => Some(begun),
            (true, None) => Some(Instant::now()),
        };
    }

    async fn read_chunk(&mut self, chunk: Bytes) -> Result<(), Ended> {
        let now = Instant::now();
        self.messages.push(chunk);
        loop {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.begun = None;
                    self.read_message(message, now).await?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refuse_framing(&error)),
            }
        }
    }

    async fn read_message(&mut self, message: Bytes, now: Instant) -> Result<(), Ended> {
        match self.dialect {
            Some(Detected::D6) => self.route::<D6>(message, now).await,
            Some(other) => Err(Ended::Refused(
                Incident::StreamRefused,
                Status::unimplemented(format!(
                    "clients of releases {} are not served yet; use release 0.6",
                    other.releases()
                )),
            )),
            None => match detect(&message) {
                Ok(dialect) => {
                    self.dialect = Some(dialect);
                    Box::pin(self.read_message(message, now)).await
                }
                Err(error) => self.refuse_message(&error),
            },
        }
    }

    async fn route<D: Dialect>(&mut self, message: Bytes, now: Instant) -> Result<(), Ended> {
        let inbound = match D::read(&message) {
            Ok(inbound) => inbound,
            Err(error) => return self.refuse_message(&error),
        };
        let Inbound {
            header,
            texts,
            steers,
        } = inbound;
        match header.kind {
            Kind::Subscribe => {
                let mut core = self.gateway.core.borrow_mut();
                let made = core.subscribe(self.link, D::ENCODING, header.destination, texts);
                if let Err(error) = made {
                    core.counters().refuse(RefuseReason::SubscriptionLimit);
                    drop(core);
                    self.gateway
                        .report(Incident::MessageRefused, &self.peer, &error);
                }
            }
            Kind::Unsubscribe => {
                self.gateway.core.borrow_mut().unsubscribe(
                    self.link,
                    D::ENCODING,
                    header.destination,
                );
            }
            Kind::Publish => {
                // What the client subscribed to just now may be where the answer goes.
                self.submitted().await;
                let body = if steers {
                    self.cleared::<D>(&message)?
                } else {
                    message
                };
                self.forward(&Envelope { header, body }, now).await;
            }
        }
        Ok(())
    }

    fn cleared<D: Dialect>(&self, message: &[u8]) -> Result<Bytes, Ended> {
        D::clear_steering(message).or_else(|error| {
            self.refuse_message(&error)?;
            unreachable!("a message that was read can be rewritten")
        })
    }

    async fn forward(&mut self, envelope: &Envelope, now: Instant) {
        let forwarded = {
            let mut core = self.gateway.core.borrow_mut();
            let soft = core.marks().soft;
            let forwarded = core.forward(self.link, envelope, now);
            self.flow.wait_for(forwarded, soft)
        };
        if let Some(port) = forwarded {
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
        while port.queued() > soft {
            if Instant::now() >= until {
                self.flow.give_up(port.id());
                return;
            }
            tokio::time::sleep(PAUSE_STEP).await;
        }
    }

    /// Waits until the node knows what the client subscribed to.
    async fn submitted(&self) {
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
    async fn settle(&self) {
        self.submitted().await;
        tokio::task::coop::consume_budget().await;
    }

    fn refuse_framing(&self, error: &FramingError) -> Ended {
        let (reason, status) = match error {
            FramingError::TooLarge { .. } => (
                RefuseReason::TooLarge,
                Status::resource_exhausted(error.to_string()),
            ),
            FramingError::Compressed { .. } => (
                RefuseReason::Undecodable,
                Status::unimplemented(error.to_string()),
            ),
            FramingError::Cut { .. } => (
                RefuseReason::Undecodable,
                Status::invalid_argument(error.to_string()),
            ),
        };
        self.gateway.core.borrow().counters().refuse(reason);
        Ended::Refused(Incident::MessageRefused, status)
    }

    fn refuse_message(&self, error: &DecodeError) -> Result<(), Ended> {
        let core = self.gateway.core.borrow();
        if is_refusal_only(error) {
            core.counters().refuse(RefuseReason::Invalid);
            self.gateway
                .report(Incident::MessageRefused, &self.peer, error);
            return Ok(());
        }
        core.counters().refuse(RefuseReason::Undecodable);
        let status = Status::invalid_argument(format!("{error}; {}", error.hint()));
        Err(Ended::Refused(Incident::MessageRefused, status))
    }
}

const PAUSE_STEP: Duration = Duration::from_millis(1);

async fn stalled(begun: Option<Instant>, limit: Duration) {
    match begun {
        Some(begun) => tokio::time::sleep_until((begun + limit).into()).await,
        None => pending().await,
    }
}

/// Whether a source may be paused for its target: only while all it sends goes to that one, so
/// that no other target waits for it.
#[derive(Debug, Default)]
struct Flow {
    target: Option<LinkId>,
    /// Messages in a row to that target and no other.
    run: u32,
    /// A target that did not catch up in time: it is not waited for again until it has.
    given_up: Option<LinkId>,
}

/// So many messages in a row show that a source sends to one target.
const RUN: u32 = 16;

impl Flow {
    /// The port to wait for, if any.
    fn wait_for(&mut self, forwarded: Forwarded, soft: usize) -> Option<std::sync::Arc<Port>> {
        let port = match forwarded {
            Forwarded::Nowhere => return None,
            Forwarded::Many => {
                *self = Self::default();
                return None;
            }
            Forwarded::One(port) => port,
        };
        if self.target == Some(port.id()) {
            self.run = self.run.saturating_add(1);
        } else {
            *self = Self {
                target: Some(port.id()),
                run: 1,
                given_up: None,
            };
        }
        if port.queued() <= soft {
            self.given_up = None;
            return None;
        }
        (self.run >= RUN && self.given_up.is_none()).then_some(port)
    }

    fn give_up(&mut self, target: LinkId) {
        self.given_up = Some(target);
    }
}
