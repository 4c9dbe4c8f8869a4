use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slim_wire::TextName;
use slim_wire::session::FullName;
use tokio::sync::oneshot;
use tokio::task::coop;

use super::shared::{Shared, Waiters};
use super::{AppError, trace};
use crate::session::{
    CloseReason, Config, Context, Event, Member, Publication, SessionError, SessionInfo, Ticket,
};

/// One session of an [`App`](super::App).
///
/// All calls may be made from several tasks. When the handle is dropped the session ends, as with
/// [`App::delete_session`](super::App::delete_session).
pub struct Session {
    id: u32,
    info: SessionInfo,
    shared: Arc<Shared>,
    waiters: Arc<Waiters>,
}

/// What may be said of a message beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// What the bytes are. Default: `msg`.
    pub payload_type: String,
    /// Keys and values for the receiver. Those of the protocol are refused.
    pub metadata: Vec<(String, String)>,
}

/// An invitation or a removal under way. Dropping it does not stop it.
#[must_use = "the outcome is only known to who waits for it"]
pub struct Operation(oneshot::Receiver<Result<(), SessionError>>);

impl Operation {
    /// Waits until it is done: until the invited is a member, and all others know.
    ///
    /// # Errors
    /// [`SessionError`]: what became of it.
    pub async fn done(self) -> Result<(), SessionError> {
        self.0.await.unwrap_or(Err(SessionError::Closed(CloseReason::Stopped)))
    }
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, info: SessionInfo) -> Self {
        let id = info.id;
        let waiters = shared.with(|state, _| state.waiters(id));
        Self { id, info, shared, waiters }
    }

    /// Its number, the same for all members.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// This app, by the name under which it takes part.
    pub fn source(&self) -> &TextName {
        &self.info.source
    }

    /// The peer, with its id as soon as that is known, or the channel; `None` in anycast sessions.
    pub fn destination(&self) -> Option<FullName> {
        self.info().destination
    }

    /// The metadata that the creator gave it.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.info.config.metadata
    }

    /// What it was created with, or what applies here if another app created it.
    pub fn config(&self) -> &Config {
        &self.info.config
    }

    /// Whether this app created it, by itself or for the control plane: of a group it is the
    /// moderator.
    pub fn is_initiator(&self) -> bool {
        self.info.initiator
    }

    /// Messages without order that were dropped because the app did not ask for those before.
    pub fn dropped(&self) -> u64 {
        self.info().dropped
    }

    fn info(&self) -> SessionInfo {
        let known = self.shared.with(|state, _| state.endpoint.info(self.id));
        known.unwrap_or_else(|_| self.info.clone())
    }

    /// Publishes a message: to the peer, or to all members. Returns its number when it was taken,
    /// not when it has arrived: of a reliable message that does not arrive,
    /// [`Session::get_message`] tells.
    ///
    /// Waits while too much is under way: while receivers do not acknowledge, or the link is down.
    /// A caller that stops waiting has published nothing.
    ///
    /// # Errors
    /// [`SessionError`]; nothing was published then.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<u32, SessionError> {
        self.publish_with(payload, PublishOptions::default()).await
    }

    /// Publishes a message that says more of itself. As [`Session::publish`].
    ///
    /// # Errors
    /// As [`Session::publish`].
    pub async fn publish_with(
        &self,
        payload: impl Into<Bytes>,
        options: PublishOptions,
    ) -> Result<u32, SessionError> {
        self.send(payload.into(), options, None).await
    }

    /// Answers the sender of a received message. In a group, all members get the answer.
    ///
    /// # Errors
    /// As [`Session::publish`].
    pub async fn publish_to(
        &self,
        context: &Context,
        payload: impl Into<Bytes>,
    ) -> Result<u32, SessionError> {
        let to = (!self.info.config.is_group()).then(|| context.source.clone());
        self.send(payload.into(), PublishOptions::default(), to).await
    }

    /// Publishes a message to any instance of an app, or with an id in the name to that instance,
    /// in an anycast session.
    ///
    /// # Errors
    /// As [`Session::publish`]; [`SessionError::Destination`] in a group, and for a name other
    /// than the peer's in a point-to-point session.
    pub async fn publish_with_destination(
        &self,
        destination: &TextName,
        payload: impl Into<Bytes>,
    ) -> Result<u32, SessionError> {
        let to = Some(FullName::from(destination));
        self.send(payload.into(), PublishOptions::default(), to).await
    }

    async fn send(
        &self,
        payload: Bytes,
        options: PublishOptions,
        destination: Option<FullName>,
    ) -> Result<u32, SessionError> {
        // A task that publishes without end would otherwise keep its thread while there is room.
        coop::consume_budget().await;
        let PublishOptions { payload_type, mut metadata } = options;
        trace::inject(&mut metadata);
        let publication = Publication { payload, payload_type, metadata, destination };
        loop {
            let writable = self.waiters.writable.notified();
            let drained = self.shared.drained.notified();
            tokio::pin!(writable, drained);
            writable.as_mut().enable();
            drained.as_mut().enable();
            let result = self.shared.with(|state, now| match state.has_room() {
                true => Some(state.endpoint.publish(now, self.id, publication.clone())),
                false => None,
            });
            match result {
                None => drained.await,
                Some(Err(SessionError::Full { .. })) => writable.await,
                Some(result) => return result,
            }
        }
    }

    /// The next message, and what is known of it. Of several tasks that wait, each message goes to
    /// one.
    ///
    /// # Errors
    /// [`SessionError`]: what went wrong. After [`SessionError::Closed`] nothing follows; after any
    /// other the session goes on.
    pub async fn get_message(&self) -> Result<(Context, Bytes), SessionError> {
        loop {
            match self.next_event().await? {
                Event::Message(context, payload) => return Ok((context, payload)),
                Event::Failed(error) => return Err(error),
                Event::Joined(_) | Event::Left(_) => {}
                Event::Closed(reason) => return Err(SessionError::Closed(reason)),
            }
        }
    }

    /// The next thing there is to know: messages, and who has joined or left. As
    /// [`Session::get_message`].
    ///
    /// # Errors
    /// [`SessionError::Closed`] after the end.
    pub async fn next_event(&self) -> Result<Event, SessionError> {
        coop::consume_budget().await;
        loop {
            let readable = self.waiters.readable.notified();
            tokio::pin!(readable);
            readable.as_mut().enable();
            match self.shared.with(|state, now| state.endpoint.next_event(now, self.id))? {
                Some(event) => return Ok(event),
                None => readable.await,
            }
        }
    }

    /// As [`Session::get_message`], for at most this long.
    ///
    /// # Errors
    /// [`AppError::Timeout`], or [`AppError::Session`].
    pub async fn get_message_within(
        &self,
        timeout: Duration,
    ) -> Result<(Context, Bytes), AppError> {
        match tokio::time::timeout(timeout, self.get_message()).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(AppError::Timeout),
        }
    }

    /// Invites an app to the group. Returns at once; several invitations may be under way.
    ///
    /// # Errors
    /// [`SessionError`] if nothing was started: by others than the moderator, or in a
    /// point-to-point session.
    pub fn invite(&self, name: &TextName) -> Result<Operation, SessionError> {
        self.operate(|endpoint, now| endpoint.invite(now, self.id, name))
    }

    /// Removes a member of the group, by its name with or without its id, and withdraws invitations
    /// of the name. Returns at once.
    ///
    /// # Errors
    /// As [`Session::invite`].
    pub fn remove(&self, name: &TextName) -> Result<Operation, SessionError> {
        self.operate(|endpoint, now| endpoint.remove(now, self.id, name))
    }

    fn operate(
        &self,
        start: impl FnOnce(
            &mut crate::session::Endpoint,
            crate::session::Now,
        ) -> Result<Ticket, SessionError>,
    ) -> Result<Operation, SessionError> {
        self.shared.with(|state, now| {
            let ticket = start(&mut state.endpoint, now)?;
            Ok(Operation(state.await_ticket(ticket)))
        })
    }

    /// The members that are known, this app first. A moderator knows all, and so do members that
    /// it told; where the moderator is of a published release, those who have spoken.
    ///
    /// # Errors
    /// [`SessionError::Closed`].
    pub fn participants(&self) -> Result<Vec<Member>, SessionError> {
        self.shared.with(|state, _| state.endpoint.participants(self.id))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.with(|state, now| {
            // It may have ended before.
            let _ = state.endpoint.delete(now, self.id);
        });
        // After the outputs of that were carried out.
        self.shared.with(|state, _| state.forget(self.id));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("info", &self.info).finish_non_exhaustive()
    }
}
