//! The stream of a registered node: requests and their answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slim_compat_grpc::new_message_id;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{
    ConfigurationCommand, ConnectionEntry, ConnectionListRequest, ControlMessage,
    SubscriptionEntry, SubscriptionListRequest,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::lists::Listing;

/// Requests of one node that wait for their answer; more are refused.
const WAITING: usize = 256;

/// Between two messages of one list.
const CHUNK_PAUSE: Duration = Duration::from_millis(500);

/// Messages of one list that wait to be read.
const CHUNKS: usize = 64;

/// Entries of one list; the rest is left out.
const ENTRIES: usize = 1_000_000;

/// The stream of a registered node.
pub(crate) struct Stream {
    pub(crate) node: String,
    /// Its number: streams of one node follow each other.
    pub(crate) generation: u64,
    /// The node reports everything, and tells outcomes.
    pub(crate) is_complete: bool,
    /// Cancelled when the stream has ended, or is to end.
    pub(crate) ended: CancellationToken,
    out: mpsc::Sender<ControlMessage>,
    answers: Mutex<HashMap<String, oneshot::Sender<Payload>>>,
    /// The list that is being received. Those of release 0.6 do not say what they answer, so there
    /// is one at a time.
    list: Mutex<Option<(String, mpsc::Sender<Payload>)>>,
    list_turn: tokio::sync::Mutex<()>,
    heard: watch::Sender<()>,
    /// Asks for a new look at the names of the node's clients.
    pub(super) survey: tokio::sync::Notify,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The stream has ended.
    Ended,
    /// None came in time.
    Silent,
    /// Too many others are waited for.
    Busy,
}

/// A new message.
pub(crate) fn message(payload: Payload) -> ControlMessage {
    ControlMessage { message_id: new_message_id(rand::random()), payload: Some(payload) }
}

/// Takes back what was installed, however the wait ends.
struct Installed<'a>(&'a Stream, &'a str);

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        self.0.answers().remove(self.1);
    }
}

struct Listening<'a>(&'a Stream);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.0.list() = None;
    }
}

impl Stream {
    pub(super) fn new(
        node: String,
        generation: u64,
        is_complete: bool,
        out: mpsc::Sender<ControlMessage>,
        ended: CancellationToken,
    ) -> Self {
        Self {
            node,
            generation,
            is_complete,
            ended,
            out,
            answers: Mutex::default(),
            list: Mutex::default(),
            list_turn: tokio::sync::Mutex::default(),
            heard: watch::Sender::new(()),
            survey: tokio::sync::Notify::new(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Payload>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> MutexGuard<'_, Option<(String, mpsc::Sender<Payload>)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message that has no answer, if there is room.
    pub(super) fn tell(&self, payload: Payload) -> bool {
        self.out.try_send(message(payload)).is_ok()
    }

    /// Waits until what was sent is being written, but not for long.
    pub(super) async fn flush(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let _ = timeout(PATIENCE, self.out.reserve_many(self.out.max_capacity())).await;
    }

    /// Sends a request and waits for the answer with its id.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn ask(
        &self,
        payload: Payload,
        deadline: Instant,
    ) -> Result<Payload, Unanswered> {
        self.ask_message(message(payload), deadline).await
    }

    /// The same with a message whose id is known.
    pub(super) async fn ask_message(
        &self,
        message: ControlMessage,
        deadline: Instant,
    ) -> Result<Payload, Unanswered> {
        let id = message.message_id.clone();
        let (answer, answered) = oneshot::channel();
        {
            let mut answers = self.answers();
            if answers.len() >= WAITING {
                return Err(Unanswered::Busy);
            }
            answers.insert(id.clone(), answer);
        }
        let _installed = Installed(self, &id);
        let exchange = async {
            self.out.send(message).await.map_err(|_| Unanswered::Ended)?;
            answered.await.map_err(|_| Unanswered::Ended)
        };
        self.bounded(deadline, exchange).await
    }

    async fn bounded<T>(
        &self,
        deadline: Instant,
        exchange: impl Future<Output = Result<T, Unanswered>>,
    ) -> Result<T, Unanswered> {
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(Unanswered::Ended),
            done = timeout_at(deadline.into(), exchange) => done.unwrap_or(Err(Unanswered::Silent)),
        }
    }

    /// Hands over a message that answers another. Those that nobody waits for are dropped.
    pub(super) fn answer(&self, original: &str, payload: Payload) {
        if let Some(waiting) = self.answers().remove(original) {
            // Who asked may have gone meanwhile.
            let _ = waiting.send(payload);
        }
    }

    /// Hands over a message of a list.
    pub(super) fn chunk(&self, payload: Payload) {
        if let Some((_, sender)) = &*self.list() {
            let _ = sender.try_send(payload);
        }
    }

    /// Any message has come.
    pub(super) fn hear(&self) {
        self.heard.send_replace(());
    }

    /// All subscriptions of the node; `None` if it gave no list by `deadline`.
    ///
    /// # Errors
    /// [`Unanswered`], but never [`Unanswered::Silent`].
    pub(crate) async fn subscriptions(
        &self,
        deadline: Instant,
    ) -> Result<Option<Vec<SubscriptionEntry>>, Unanswered> {
        let ask = Payload::SubscriptionListRequest(SubscriptionListRequest {});
        self.entries(ask, deadline).await
    }

    /// All connections of the node; `None` if it gave no list by `deadline`, as nodes do whose list
    /// is empty.
    ///
    /// # Errors
    /// [`Unanswered`], but never [`Unanswered::Silent`].
    pub(crate) async fn connections(
        &self,
        deadline: Instant,
    ) -> Result<Option<Vec<ConnectionEntry>>, Unanswered> {
        let ask = Payload::ConnectionListRequest(ConnectionListRequest {});
        self.entries(ask, deadline).await
    }

    async fn entries<T: Listing>(
        &self,
        ask: Payload,
        deadline: Instant,
    ) -> Result<Option<Vec<T>>, Unanswered> {
        let _turn = self.bounded(deadline, async { Ok(self.list_turn.lock().await) }).await;
        let _turn = match _turn {
            Err(Unanswered::Silent) => return Err(Unanswered::Busy),
            turn => turn?,
        };
        let message = message(ask);
        let id = message.message_id.clone();
        let (sender, mut chunks) = mpsc::channel(CHUNKS);
        *self.list() = Some((id.clone(), sender));
        let _listening = Listening(self);
        let first = async {
            self.out.send(message).await.map_err(|_| Unanswered::Ended)?;
            loop {
                let chunk = chunks.recv().await.ok_or(Unanswered::Ended)?;
                if let Some(entries) = T::read(chunk, &id) {
                    return Ok(entries);
                }
            }
        };
        let mut all = match self.bounded(deadline, first).await {
            Err(Unanswered::Silent) => return Ok(None),
            first => first?,
        };
        let mut last = all.len();
        while last >= super::lists::CHUNK_ENTRIES && all.len() < ENTRIES {
            let Ok(Some(chunk)) = timeout(CHUNK_PAUSE, chunks.recv()).await else { break };
            let Some(more) = T::read(chunk, &id) else { continue };
            last = more.len();
            all.extend(more);
        }
        Ok(Some(all))
    }

    /// Whether anything comes within `patience` after the node is asked for a sign of life.
    pub(crate) async fn is_alive(&self, patience: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let probe = message(Payload::ConfigCommand(ConfigurationCommand::default()));
        let alive = async {
            // A queue that is full for so long is not read either.
            self.out.send(probe).await.is_ok() && heard.changed().await.is_ok()
        };
        tokio::select! {
            () = self.ended.cancelled() => false,
            alive = timeout(patience, alive) => alive.unwrap_or(false),
        }
    }
}
