//! What an app does with its sessions.

use std::collections::BTreeSet;

use rand::Rng;
use slim_wire::TextName;
use slim_wire::limits::METADATA_ENTRIES;
use slim_wire::session::FullName;

use super::{Endpoint, Entry, SESSION_IDS};
use crate::session::Now;
use crate::session::config::{self, Config};
use crate::session::error::SessionError;
use crate::session::event::{Event, LinkId, Member, Output, Publication, SessionInfo, Ticket};
use crate::session::machine::{Origin, Session, Turn};
use crate::session::saved::Saved;

impl Endpoint {
    /// Creates a session. Nothing is sent before the first message or invitation.
    ///
    /// # Errors
    /// [`SessionError::NoLink`]; [`SessionError::Argument`] for options that do not go together;
    /// without a token [`SessionError::Identity`].
    pub fn create(&mut self, now: Now, config: Config) -> Result<u32, SessionError> {
        let id = self.free_id();
        let to = match &config.kind {
            config::Kind::Anycast => None,
            config::Kind::PointToPoint { peer: name } | config::Kind::Group { channel: name } => {
                self.route(name.name)
            }
        };
        let link = to.or_else(|| self.first_link());
        self.create_on(now, config, (id, self.name.clone()), link)?;
        Ok(id)
    }

    /// Creates a session under a number and the name by which the app takes part, on a link.
    pub(super) fn create_on(
        &mut self,
        now: Now,
        config: Config,
        (id, local): (u32, TextName),
        link: Option<LinkId>,
    ) -> Result<(), SessionError> {
        check_config(&config)?;
        self.identity.source.token(now.wall)?;
        let link = link.ok_or(SessionError::NoLink)?;
        if self.sessions.len() >= self.limits.sessions {
            let (field, expected) = ("sessions", "fewer than the limit");
            let got = self.sessions.len().to_string();
            return Err(SessionError::Argument { field, expected, got });
        }
        let mls = config.mls.then(|| self.mls.session(id)).transpose()?;
        let origin = Origin { id, local, link, mls, next: self.next_in(id) };
        let session = Session::create(origin, config, self.limits, now)?;
        self.insert(id, session);
        Ok(())
    }

    /// The number that the app's next message has in a session that it took part in before.
    pub(super) fn next_in(&self, id: u32) -> u32 {
        self.gone.iter().rev().find(|gone| gone.id == id).map_or(0, |gone| gone.next)
    }

    /// Goes on with an encrypted group that was stored by an earlier process of the same app, as
    /// [`Output::Save`] told. What was published last when the process ended may be lost, and what it
    /// received last may come again; the others may be told that up to 64 of its messages are lost, which
    /// were never published; of a group whose moderator ended in the middle of a change,
    /// members may have to be invited again.
    ///
    /// # Errors
    /// [`SessionError::Argument`] if it is none, or another app's; [`SessionError::NoLink`]; or
    /// [`SessionError::Mls`] if its keys cannot be had.
    pub fn restore(&mut self, now: Now, stored: &[u8]) -> Result<u32, SessionError> {
        let saved = Saved::decode(stored)?;
        let id = saved.id;
        if saved.app != self.name {
            let (field, expected) = ("stored session", "one of this app, by its name and id");
            return Err(SessionError::Argument { field, expected, got: saved.app.to_string() });
        }
        if self.sessions.contains_key(&id) {
            let (field, expected) = ("stored session", "one that is not open");
            return Err(SessionError::Argument { field, expected, got: id.to_string() });
        }
        let config = saved.config();
        let link = self.first_link().ok_or(SessionError::NoLink)?;
        let mls = Some(self.mls.reopen(id)?);
        let origin = Origin { id, local: saved.local, link, mls, next: saved.next };
        let mut turn = Turn { now, rng: &mut *self.rng };
        let session = Session::restore(&mut turn, origin, config, self.limits, saved.role);
        self.insert(id, session);
        self.settle(now, id);
        Ok(id)
    }

    pub(super) fn free_id(&mut self) -> u32 {
        loop {
            let id = self.rng.next_u32() % SESSION_IDS;
            let gone = self.gone.iter().any(|gone| gone.id == id);
            if !gone && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn insert(&mut self, id: u32, mut session: Session) {
        if self.links.get(&session.link()) == Some(&false) {
            session.pause();
        }
        let entry = Entry { session, deadline: None, announced: false };
        self.sessions.insert(id, entry);
    }

    /// The next session that another app has opened.
    pub fn accept(&mut self) -> Option<SessionInfo> {
        loop {
            let id = self.waiting.pop_front()?;
            if let Some(entry) = self.sessions.get(&id) {
                return Some(entry.session.info());
            }
        }
    }

    /// Publishes a message in a session, and returns its number.
    ///
    /// # Errors
    /// [`SessionError::Full`]: try again after [`Output::Writable`]; others are final.
    pub fn publish(
        &mut self,
        now: Now,
        id: u32,
        publication: Publication,
    ) -> Result<u32, SessionError> {
        self.check_publication(&publication)?;
        self.identity.source.token(now.wall)?;
        self.try_with(id, now, |session, turn| session.publish(turn, publication))
    }

    pub(super) fn check_publication(&self, publication: &Publication) -> Result<(), SessionError> {
        let limit = self.limits.payload_bytes;
        if publication.payload.len() > limit {
            let (field, got) = ("payload", publication.payload.len().to_string());
            let expected = "no more bytes than Limits::payload_bytes";
            return Err(SessionError::Argument { field, expected, got });
        }
        check_metadata(&publication.metadata)
    }

    /// Invites an app to a group. [`Output::Completed`] tells what became of it.
    ///
    /// # Errors
    /// Where nothing was started.
    pub fn invite(&mut self, now: Now, id: u32, name: &TextName) -> Result<Ticket, SessionError> {
        let ticket = self.ticket();
        let name = FullName::from(name);
        self.try_with(id, now, |session, turn| session.invite(turn, name, ticket))?;
        Ok(ticket)
    }

    /// Removes an app from a group, by its name with or without its id, and withdraws invitations of
    /// the name. [`Output::Completed`] tells what became of it.
    ///
    /// # Errors
    /// Where nothing was started.
    pub fn remove(&mut self, now: Now, id: u32, name: &TextName) -> Result<Ticket, SessionError> {
        let ticket = self.ticket();
        let name = FullName::from(name);
        self.try_with(id, now, |session, turn| session.remove(turn, name, ticket))?;
        Ok(ticket)
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Ends a session: a moderator's group is closed, a participant leaves. What was received is
    /// discarded, what was published and not acknowledged is given up.
    ///
    /// # Errors
    /// [`SessionError::Closed`] or [`SessionError::Unknown`].
    pub fn delete(&mut self, now: Now, id: u32) -> Result<(), SessionError> {
        self.try_with(id, now, |session, turn| match session.close_reason() {
            Some(reason) => {
                session.discard();
                Err(SessionError::Closed(reason))
            }
            None => {
                session.delete(turn);
                Ok(())
            }
        })?;
        // Whoever waits for something to read is to learn of the end.
        self.outputs.push_back(Output::Readable(id));
        Ok(())
    }

    /// Ends all sessions, as [`Endpoint::delete`].
    pub fn delete_all(&mut self, now: Now) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            // It may have ended before.
            let _ = self.delete(now, id);
        }
    }

    /// What there is to read next of a session.
    ///
    /// # Errors
    /// [`SessionError::Closed`] after the last, or [`SessionError::Unknown`].
    pub fn next_event(&mut self, now: Now, id: u32) -> Result<Option<Event>, SessionError> {
        let event = self.try_with(id, now, |session, turn| match session.next_event(turn) {
            None => session.close_reason().map_or(Ok(None), |end| Err(SessionError::Closed(end))),
            event => Ok(event),
        })?;
        if event.is_none()
            && let Some(entry) = self.sessions.get_mut(&id)
        {
            entry.announced = false;
        }
        Ok(event)
    }

    /// What a session is.
    ///
    /// # Errors
    /// [`SessionError::Closed`] or [`SessionError::Unknown`].
    pub fn info(&self, id: u32) -> Result<SessionInfo, SessionError> {
        let entry = self.sessions.get(&id).ok_or_else(|| self.no_session(id))?;
        Ok(entry.session.info())
    }

    /// The members of a session that are known, this app first.
    ///
    /// # Errors
    /// [`SessionError::Closed`] or [`SessionError::Unknown`].
    pub fn participants(&self, id: u32) -> Result<Vec<Member>, SessionError> {
        let entry = self.sessions.get(&id).ok_or_else(|| self.no_session(id))?;
        Ok(entry.session.participants())
    }

    pub(super) fn no_session(&self, id: u32) -> SessionError {
        match self.gone.iter().rev().find(|gone| gone.id == id) {
            Some(gone) => SessionError::Closed(gone.reason),
            None => SessionError::Unknown { session: id },
        }
    }
}

fn check_config(config: &Config) -> Result<(), SessionError> {
    let wrong = |field, expected, got: &str| {
        Err(SessionError::Argument { field, expected, got: got.to_owned() })
    };
    match &config.kind {
        config::Kind::Anycast if config.mls => {
            return wrong("encryption", "none: each message may go to another app", "MLS");
        }
        config::Kind::Group { channel } if channel.to_text().is_none() => {
            return wrong("channel", "a name with its texts", "hashes");
        }
        config::Kind::Group { channel } if !channel.name.id.is_any() => {
            return wrong("channel", "a name without an id", &channel.to_string());
        }
        _ => {}
    }
    if config.reliability.is_some_and(|reliability| reliability.timeout.is_zero()) {
        return wrong("timeout", "more than 0", "0");
    }
    check_metadata(&config.metadata)
}

/// Entries of the protocol itself, and room for a token and names beside the metadata.
const OWN_ENTRIES: usize = 16;
const METADATA_BYTES: usize = 40 * 1024;

/// Whether the protocol uses a key itself.
pub(super) fn is_reserved(key: &str) -> bool {
    const PREFIXES: [&str; 3] = ["SLIM_", "MLS_", "CHANNEL_"];
    const KEYS: [&str; 3] = ["IS_MODERATOR", "PARTICIPANT_NAME", "DELETE_GROUP"];
    KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn check_metadata(metadata: &[(String, String)]) -> Result<(), SessionError> {
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if metadata.len() > METADATA_ENTRIES - OWN_ENTRIES || bytes > METADATA_BYTES {
        let (field, expected) = ("metadata", "at most 240 entries and 40 KiB");
        let got = format!("{} entries and {bytes} bytes", metadata.len());
        return Err(SessionError::Argument { field, expected, got });
    }
    let mut seen = BTreeSet::new();
    for (key, _) in metadata {
        let expected = match (is_reserved(key), seen.insert(key)) {
            (true, _) => "a key that the protocol does not use itself",
            (false, false) => "each key once",
            (false, true) => continue,
        };
        return Err(SessionError::Argument { field: "metadata key", expected, got: key.clone() });
    }
    Ok(())
}
