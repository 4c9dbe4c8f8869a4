//! Requests of the control plane: to moderate a group, whom to invite and to remove.

use std::collections::{BTreeMap, VecDeque};

use slim_wire::session::{Content, SessionKind};
use slim_wire::{Name, SessionIds};

use super::app::is_reserved;
use super::inbound::{channel_of, session_metadata};
use super::{Endpoint, SESSION_IDS};
use crate::identity::{IdentityError, Principal};
use crate::session::Now;
use crate::session::config::{self, Config};
use crate::session::control::{ControlCounts, ControlPlane, ControlRequest, Controlled};
use crate::session::error::SessionError;
use crate::session::event::{LinkId, Output, Ticket};
use crate::session::packet::Packet;

/// What an app knows of the control plane.
pub(super) struct Control {
    who: ControlPlane,
    /// Of requests that were executed, the last ones: a network may double them, and who has seen
    /// one may send it again.
    executed: VecDeque<SessionIds>,
    /// Invitations and removals under way.
    running: BTreeMap<Ticket, (SessionIds, ControlRequest)>,
    counts: ControlCounts,
}

/// Executed requests that are remembered.
const EXECUTED: usize = 1024;

/// Invitations and removals under way at a time.
const RUNNING: usize = 1024;

impl Control {
    pub(super) fn new(who: ControlPlane) -> Self {
        Self {
            who,
            executed: VecDeque::new(),
            running: BTreeMap::new(),
            counts: ControlCounts::default(),
        }
    }

    /// Nothing more becomes of what is under way in a session.
    pub(super) fn forget(&mut self, session: u32) {
        self.running.retain(|_, (ids, _)| ids.session != session);
    }

    fn remember(&mut self, ids: SessionIds) {
        if self.executed.len() == EXECUTED {
            self.executed.pop_front();
        }
        self.executed.push_back(ids);
    }
}

impl Endpoint {
    /// How many requests of the control plane there were.
    pub fn control_counts(&self) -> ControlCounts {
        self.control.counts
    }

    /// Whether a message was a request of the control plane; if so, nothing else is to be done with
    /// it.
    pub(super) fn is_controlled(
        &mut self,
        now: Now,
        (link, who): (LinkId, &Principal),
        packet: &Packet,
    ) -> bool {
        let Some(request) = ControlRequest::of(packet) else { return false };
        let session = self.sessions.get(&packet.ids.session);
        let of_member = session.is_some_and(|entry| entry.session.counts_as_member(packet.source));
        match (&request, self.control.who.is(&who.subject)) {
            // In the same words a member asks for its own removal.
            (ControlRequest::Remove(_), true) if of_member => return false,
            (ControlRequest::Remove(_), false) => return false,
            (_, true) if self.is_for_us(packet) => self.execute(now, link, packet, request),
            (_, true) => {}
            (_, false) => {
                self.control.counts.refused += 1;
                let error = IdentityError::subject(&who.subject);
                self.outputs.push_back(Output::Rejected(packet.source, error));
            }
        }
        true
    }

    fn execute(&mut self, now: Now, link: LinkId, packet: &Packet, request: ControlRequest) {
        let ids = packet.ids;
        if self.control.executed.contains(&ids) {
            self.control.counts.repeated += 1;
            return;
        }
        let is_own =
            |name: &Name| name.id == self.name.id() && self.names.contains_key(&name.prefix);
        let result = match &request {
            ControlRequest::Create => self.moderate(now, link, packet),
            // A group does not go on without its moderator.
            ControlRequest::Remove(name) if is_own(&name.name) => self.dissolve(now, ids.session),
            ControlRequest::Delete => self.dissolve(now, ids.session),
            ControlRequest::Invite(name) if is_own(&name.name) => {
                Err(SessionError::AlreadyMember { name: name.clone() })
            }
            ControlRequest::Invite(_) | ControlRequest::Remove(_) => {
                return self.begin(now, ids, request);
            }
        };
        if result.is_ok() {
            self.control.counts.accepted += 1;
            self.control.remember(ids);
        }
        self.conclude(Controlled { ids, request, result });
    }

    /// Starts an invitation or a removal, whose outcome is known later.
    fn begin(&mut self, now: Now, ids: SessionIds, request: ControlRequest) {
        let result = match self.control.running.len() {
            RUNNING.. => {
                let (field, expected) = ("requests under way", "fewer than 1024");
                Err(SessionError::Argument { field, expected, got: RUNNING.to_string() })
            }
            _ => self.try_begin(now, ids, &request),
        };
        match result {
            Ok(()) => {
                self.control.counts.accepted += 1;
                self.control.remember(ids);
            }
            result => self.conclude(Controlled { ids, request, result }),
        }
    }

    fn try_begin(
        &mut self,
        now: Now,
        ids: SessionIds,
        request: &ControlRequest,
    ) -> Result<(), SessionError> {
        let ticket = self.ticket();
        // It may be complete at once.
        self.control.running.insert(ticket, (ids, request.clone()));
        let result = self.try_with(ids.session, now, |session, turn| match request {
            ControlRequest::Invite(name) => session.invite(turn, (**name).clone(), ticket),
            ControlRequest::Remove(name) => session.remove(turn, (**name).clone(), ticket),
            ControlRequest::Create | ControlRequest::Delete => Ok(()),
        });
        if result.is_err() {
            self.control.running.remove(&ticket);
        }
        result
    }

    /// What became of an invitation or a removal, for who has asked for it.
    pub(super) fn completed(&mut self, ticket: Ticket, result: Result<(), SessionError>) {
        match self.control.running.remove(&ticket) {
            Some((ids, request)) => self.conclude(Controlled { ids, request, result }),
            None => self.outputs.push_back(Output::Completed(ticket, result)),
        }
    }

    fn conclude(&mut self, controlled: Controlled) {
        match &controlled.result {
            Ok(()) => {}
            Err(SessionError::Unknown { .. } | SessionError::Closed(_)) => {
                self.control.counts.unknown += 1;
            }
            Err(_) => self.control.counts.failed += 1,
        }
        self.outputs.push_back(Output::Controlled(Box::new(controlled)));
    }

    /// Creates a group under the number that the request has, on the link it came by. Who it is
    /// asked to invite is looked for there too.
    fn moderate(&mut self, now: Now, link: LinkId, packet: &Packet) -> Result<(), SessionError> {
        let id = packet.ids.session;
        let wrong = |field, expected, got: &str| {
            Err(SessionError::Argument { field, expected, got: got.to_owned() })
        };
        let Content::JoinRequest { channel, mls, .. } = &packet.session.content else {
            return Ok(());
        };
        if packet.session.kind != SessionKind::Group {
            return wrong("session type", "that of a group", "another");
        }
        let Some(name) = channel_of(packet, channel) else {
            return wrong("channel", "a name with its texts", "hashes");
        };
        let mut config = Config::group(&name);
        config.reliability = Some(config::INVITED_GROUP);
        config.mls = *mls;
        config.metadata = session_metadata(packet);
        config.metadata.retain(|(key, _)| !is_reserved(key));
        match self.sessions.get(&id).map(|entry| &entry.session) {
            // It was asked for once more, in other words.
            Some(session) if session.moderates(&config) => return Ok(()),
            Some(session) if !session.is_guest() => {
                return wrong("session id", "one that is not in use", &id.to_string());
            }
            _ if id >= SESSION_IDS => {
                return wrong("session id", "one below 4294966295", &id.to_string());
            }
            // Nobody was invited to what a stray message has opened under the same number.
            _ => self.drop_session(id),
        }
        if !self.has_room(now) {
            return wrong("sessions", "fewer than the limit", &self.sessions.len().to_string());
        }
        let local = self.local(packet);
        self.create_on(now, config, (id, local), Some(link))?;
        self.open(id);
        self.settle(now, id);
        Ok(())
    }

    fn dissolve(&mut self, now: Now, id: u32) -> Result<(), SessionError> {
        self.try_with(id, now, |session, turn| session.dissolve(turn))
    }
}
