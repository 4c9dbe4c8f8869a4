//! What an app does with a session, and what it can learn of it.

use std::collections::BTreeSet;
use std::time::Instant;

use slim_wire::session::FullName;
use slim_wire::{Name, TextName};

use super::core::{Effect, Turn};
use super::{Control, Inbox, Session};
use crate::session::config::{self, Config};
use crate::session::error::{CloseReason, SessionError};
use crate::session::event::{Event, LinkId, Member, Publication, SessionInfo, Ticket};

impl Session {
    // What the app does.

    pub(in crate::session) fn publish(
        &mut self,
        turn: &mut Turn<'_>,
        publication: Publication,
    ) -> Result<u32, SessionError> {
        self.check_open()?;
        self.check_destination(&publication)?;
        if !self.producer.has_room() {
            self.full = true;
            return Err(SessionError::Full { session: self.core.id });
        }
        let Publication { payload, mut payload_type, metadata, destination } = publication;
        if payload_type.is_empty() {
            payload_type.push_str("msg");
        }
        let id = self.producer.push(payload, payload_type, metadata, destination);
        self.start_handshake(turn);
        self.flush(turn.now);
        self.settle(turn);
        Ok(id)
    }

    pub(super) fn check_open(&self) -> Result<(), SessionError> {
        self.closed.map_or(Ok(()), |reason| Err(SessionError::Closed(reason)))
    }

    pub(super) fn check_destination(&self, publication: &Publication) -> Result<(), SessionError> {
        let wrong = |expected, got: String| Err(SessionError::Destination { expected, got });
        let destination = publication.destination.as_ref();
        match (&self.core.config.kind, destination) {
            (config::Kind::Group { .. }, Some(name)) => {
                wrong("none in a group: all members get the message", name.name.to_string())
            }
            (config::Kind::Anycast, None) => {
                wrong("a name: this session has no peer of its own", "nothing".to_owned())
            }
            (config::Kind::PointToPoint { peer }, Some(name))
                if name.name.prefix != peer.name.prefix
                    || self
                        .peer
                        .is_some_and(|peer| !name.name.id.is_any() && name.name.id != peer.id) =>
            {
                wrong("the session's peer", name.name.to_string())
            }
            _ => Ok(()),
        }
    }

    /// A point-to-point session looks for its peer when there is something to send.
    pub(super) fn start_handshake(&mut self, turn: &mut Turn<'_>) {
        let config::Kind::PointToPoint { peer } = &self.core.config.kind else { return };
        let Control::Moderator(moderator) = &mut self.control else { return };
        if self.peer.is_none() && !moderator.is_inviting() {
            let peer = peer.clone();
            moderator.invite(turn, &mut self.core, peer, None);
        }
    }

    pub(in crate::session) fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        name: FullName,
        ticket: Ticket,
    ) -> Result<(), SessionError> {
        self.check_open()?;
        self.check_group("invite", "to")?;
        match &mut self.control {
            Control::Moderator(moderator) => {
                moderator.invite(turn, &mut self.core, name, Some(ticket));
            }
            _ => return Err(SessionError::NotModerator { what: "invite" }),
        }
        self.settle(turn);
        Ok(())
    }

    pub(in crate::session) fn remove(
        &mut self,
        turn: &mut Turn<'_>,
        name: FullName,
        ticket: Ticket,
    ) -> Result<(), SessionError> {
        self.check_open()?;
        self.check_group("remove", "from")?;
        match &mut self.control {
            Control::Moderator(moderator) => {
                moderator.remove(turn, &mut self.core, name, Some(ticket));
            }
            _ => return Err(SessionError::NotModerator { what: "remove" }),
        }
        self.settle(turn);
        Ok(())
    }

    /// The control plane ends the group: the members are told, and the app reads what it has not,
    /// and then the end.
    pub(in crate::session) fn dissolve(&mut self, turn: &mut Turn<'_>) -> Result<(), SessionError> {
        self.check_open()?;
        match &mut self.control {
            Control::Moderator(moderator) if self.core.is_group() => {
                moderator.close(turn, &mut self.core);
            }
            _ => return Err(SessionError::NotModerator { what: "remove all" }),
        }
        self.close(CloseReason::Removed);
        Ok(())
    }

    /// Whether this app is the moderator of such a group.
    pub(in crate::session) fn moderates(&self, config: &Config) -> bool {
        let same = self.core.config.kind == config.kind && self.core.config.mls == config.mls;
        same && self.closed.is_none() && matches!(self.control, Control::Moderator(_))
    }

    /// Whether this app is the moderator and who has this name a member.
    pub(in crate::session) fn counts_as_member(&self, name: Name) -> bool {
        match &self.control {
            Control::Moderator(moderator) => moderator.is_member(name),
            _ => false,
        }
    }

    pub(super) fn check_group(
        &self,
        what: &'static str,
        to_or_from: &'static str,
    ) -> Result<(), SessionError> {
        match self.core.is_group() {
            true => Ok(()),
            false => Err(SessionError::NotGroup { what, to_or_from }),
        }
    }

    /// Ends the session for the app; others are told while it is kept.
    pub(in crate::session) fn delete(&mut self, turn: &mut Turn<'_>) {
        if self.closed.is_some() {
            return;
        }
        match &mut self.control {
            Control::Moderator(moderator) => moderator.close(turn, &mut self.core),
            Control::Participant(participant) if self.core.is_group() || participant.native => {
                participant.leave(turn, &mut self.core);
            }
            Control::Participant(_) | Control::None => {}
        }
        self.close(CloseReason::Deleted);
        self.discard();
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        let session = self.core.id;
        for message in self.producer.give_up() {
            self.note(Event::Failed(SessionError::Undelivered { session, message }));
        }
        self.note(Event::Closed(reason));
        self.closed = Some(reason);
        // What waits for room comes too late.
        self.senders.clear();
    }

    /// Whether nothing is left to be done or read.
    pub(in crate::session) fn is_over(&self) -> bool {
        self.closed.is_some()
            && match &self.control {
                Control::Moderator(moderator) => moderator.is_closed(),
                Control::Participant(participant) => !participant.is_leaving(),
                Control::None => true,
            }
    }

    /// Whether nothing that was published waits to be sent or acknowledged.
    pub(in crate::session) fn is_settled(&self) -> bool {
        self.closed.is_some() || self.producer.is_settled()
    }

    /// Since when nothing has happened in a session of two that another app opened.
    pub(in crate::session) fn idle_since(&self) -> Option<Instant> {
        self.heard_at.filter(|_| self.closed.is_none())
    }

    /// Ends it here; nobody else is told.
    pub(in crate::session) fn end(&mut self, reason: CloseReason) {
        self.discard();
        self.close(reason);
        if let Control::Moderator(moderator) = &mut self.control {
            moderator.abandon();
        }
    }

    /// Nobody will read what is left.
    pub(in crate::session) fn discard(&mut self) {
        self.inbox = Inbox::default();
    }

    pub(in crate::session) fn close_reason(&self) -> Option<CloseReason> {
        self.closed
    }

    /// What there is to read next.
    pub(in crate::session) fn next_event(&mut self, turn: &mut Turn<'_>) -> Option<Event> {
        let was_full = !self.inbox.has_room(&self.limits);
        let event = self.inbox.events.pop_front();
        if let Some(Event::Message(_, payload)) = &event {
            self.inbox.bytes -= payload.len();
        }
        if was_full {
            self.deliver_all(turn.now);
            self.settle(turn);
        }
        event
    }

    pub(in crate::session) fn is_readable(&self) -> bool {
        !self.inbox.events.is_empty()
    }

    /// Whether room that was refused is there now; once.
    pub(in crate::session) fn take_writable(&mut self) -> bool {
        let ready = self.producer.has_room() || self.closed.is_some();
        self.full && ready && std::mem::take(&mut self.full)
    }

    pub(in crate::session) fn link(&self) -> LinkId {
        self.link
    }

    /// The number of the app's next message.
    pub(in crate::session) fn next_message(&self) -> u32 {
        self.producer.next()
    }

    /// Whether another app's message has opened it, without an invitation.
    pub(in crate::session) fn is_guest(&self) -> bool {
        !self.initiator && matches!(self.control, Control::None)
    }

    /// The channel of a group.
    pub(in crate::session) fn channel(&self) -> Option<TextName> {
        self.core.channel().and_then(FullName::to_text)
    }

    pub(in crate::session) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.core.effects)
    }

    pub(in crate::session) fn info(&self) -> SessionInfo {
        let destination = match &self.core.config.kind {
            config::Kind::Anycast => None,
            config::Kind::Group { channel } => Some(channel.clone()),
            config::Kind::PointToPoint { peer } => {
                let name = self.peer.unwrap_or(peer.name);
                Some(FullName { name, texts: peer.texts.clone() })
            }
        };
        SessionInfo {
            id: self.core.id,
            source: self.core.local.clone(),
            destination,
            config: self.core.config.clone(),
            initiator: self.initiator,
            dropped: self.dropped,
        }
    }

    /// The members that are known, this app first.
    pub(in crate::session) fn participants(&self) -> Vec<Member> {
        let own = self.core.own();
        let mut members = vec![own];
        match &self.control {
            Control::Moderator(moderator) => members.extend(moderator.members().cloned()),
            Control::Participant(participant) => {
                let moderator = participant.moderator;
                if !participant.members().iter().any(|member| member.is(moderator)) {
                    let name = self.core.full(moderator);
                    let identity = self.bindings.of(moderator);
                    members.push(Member { name, native: participant.native, identity });
                }
                members.extend(participant.members().iter().cloned());
            }
            Control::None => {}
        }
        // Moderators of published releases tell nobody; who has spoken is a member.
        for (name, sender) in &self.senders {
            let identity = self.bindings.of(*name);
            let (name, native) = (self.core.full(*name), sender.acknowledge);
            let member = Member { name, native, identity };
            members.push(member);
        }
        let mut seen = BTreeSet::new();
        members.retain(|member| seen.insert(member.name.name));
        members
    }
}
