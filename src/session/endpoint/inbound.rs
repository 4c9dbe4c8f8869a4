//! What arrives for an app: for one of its sessions, or to open one.

use bytes::Bytes;
use slim_wire::session::{Content, Delivery, FullName, SessionKind};
use slim_wire::{Flags, Name, TextName};

use super::{Endpoint, REASON_BYTES};
use crate::identity::{IdentityError, Principal};
use crate::session::config::{self, Config};
use crate::session::event::{LinkId, Output};
use crate::session::machine::{Origin, Session, Turn};
use crate::session::packet::Packet;
use crate::session::{NATIVE_MARK, Now};

impl Endpoint {
    /// A message has arrived on a link.
    pub fn handle(&mut self, now: Now, link: LinkId, packet: Packet) {
        if self.is_for_another(&packet) {
            return;
        }
        let who = match self.verify(now, &packet) {
            Ok(who) => who,
            Err(error) => return self.reject(now, link, &packet, error),
        };
        if self.is_controlled(now, (link, &who), &packet) {
            return;
        }
        let id = packet.ids.session;
        match &packet.session.content {
            Content::DiscoveryRequest { .. } => self.discovered(now, link, &packet),
            Content::LeaveRequest { .. } if self.has_left(&packet) => {
                let reply = Packet::answer(&packet, self.name.to_name(), Content::LeaveReply);
                self.send(now, link, reply);
            }
            Content::JoinRequest { .. } if self.is_late(&packet) => {}
            // Nobody was invited to what a stray message has opened under the same number.
            Content::JoinRequest { .. } if self.is_for_us(&packet) && !self.was_invited(id) => {
                self.drop_session(id);
                self.invited(now, link, &packet, &who);
            }
            _ if self.sessions.contains_key(&id) => {
                self.with(id, now, |session, turn| session.handle(turn, (link, &who), packet));
            }
            Content::Data(Delivery::Reliable | Delivery::Unreliable) if self.is_for_us(&packet) => {
                self.addressed(now, (link, &who), packet);
            }
            _ => {}
        }
    }

    pub(super) fn verify(&self, now: Now, packet: &Packet) -> Result<Principal, IdentityError> {
        let token = packet.session.identity.as_deref().ok_or(IdentityError::Missing)?;
        self.identity.check.check(token, now.wall)
    }

    /// Whether there is a session by this number that this app created or was invited to.
    fn was_invited(&self, id: u32) -> bool {
        self.sessions.get(&id).is_some_and(|entry| !entry.session.is_guest())
    }

    /// Who asks to be let in and uses this library is told why it is not.
    pub(super) fn reject(&mut self, now: Now, link: LinkId, packet: &Packet, error: IdentityError) {
        let id = packet.ids.session;
        match &packet.session.content {
            Content::DiscoveryRequest { .. } if packet.is_marked() && self.is_for_us(packet) => {
                let mut reason = error.to_string();
                reason.truncate(reason.floor_char_boundary(REASON_BYTES));
                let source = Name { prefix: packet.destination.prefix, id: self.name.id() };
                let mut reply = Packet::answer(packet, source, Content::DiscoveryReply);
                (reply.flags, reply.payload) = (Flags::ERROR, Bytes::from(reason));
                self.outputs.push_back(Output::Send(link, Box::new(reply)));
            }
            // Its keys are being fetched; it comes again.
            _ if matches!(error, IdentityError::NoKeys { .. }) => {}
            // It comes without a good token; but only who was asked knows the number of the
            // request.
            Content::DiscoveryReply | Content::JoinReply => {
                let reason = match packet.flags.contains(Flags::ERROR) {
                    true => packet.reason(),
                    false => error.to_string(),
                };
                self.with(id, now, |session, turn| session.refused(turn, packet, &reason));
            }
            _ => {}
        }
        self.outputs.push_back(Output::Rejected(packet.source, error));
    }

    /// Whether a request to leave a session was followed before, or the session has ended. If this
    /// app has been invited once more, the former request is not for its new part.
    pub(super) fn has_left(&self, packet: &Packet) -> bool {
        let (id, request) = (packet.ids.session, Some(packet.ids.message));
        let open = self.sessions.contains_key(&id);
        self.gone.iter().any(|gone| gone.id == id && (!open || gone.leave == request))
    }

    /// Whether a request to join was for a part in a session that has ended. If this app has been
    /// invited once more, it would take its new part for void.
    fn is_late(&self, packet: &Packet) -> bool {
        let (id, request) = (packet.ids.session, Some(packet.ids.message));
        self.gone.iter().any(|gone| gone.id == id && gone.request == request)
    }

    /// Whether a message names this app, or any instance of it.
    pub(super) fn is_for_us(&self, packet: &Packet) -> bool {
        let Name { prefix, id } = packet.destination;
        self.names.contains_key(&prefix) && (id.is_any() || id == self.name.id())
    }

    /// Whether a message names another instance of this app: nodes pass on what is for one that
    /// they do not know.
    pub(super) fn is_for_another(&self, packet: &Packet) -> bool {
        let Name { prefix, id } = packet.destination;
        self.names.contains_key(&prefix) && !id.is_any() && id != self.name.id()
    }

    pub(super) fn discovered(&mut self, now: Now, link: LinkId, packet: &Packet) {
        if self.is_for_us(packet) {
            let source = Name { prefix: packet.destination.prefix, id: self.name.id() };
            let reply = Packet::answer(packet, source, Content::DiscoveryReply);
            self.send(now, link, reply);
        }
    }

    pub(super) fn has_room(&mut self, now: Now) -> bool {
        if self.sessions.len() >= self.limits.sessions {
            self.make_room(now);
        }
        self.sessions.len() < self.limits.sessions
            && self.waiting.len() < self.limits.waiting_sessions
    }

    /// The name under which a message reached the app.
    pub(super) fn local(&self, packet: &Packet) -> TextName {
        self.names.get(&packet.destination.prefix).unwrap_or(&self.name).clone()
    }

    pub(super) fn invited(&mut self, now: Now, link: LinkId, packet: &Packet, who: &Principal) {
        let id = packet.ids.session;
        let Content::JoinRequest { channel, moderator, mls, .. } = &packet.session.content else {
            return;
        };
        if !self.has_room(now) {
            return;
        }
        let group = packet.session.kind == SessionKind::Group;
        let mut config = match group {
            true => match channel_of(packet, channel) {
                Some(channel) => Config::group(&channel),
                None => return,
            },
            false => Config::with_peer(peer_of(packet, moderator)),
        };
        config.reliability = Some(match group {
            true => config::INVITED_GROUP,
            false => config::INVITED_POINT_TO_POINT,
        });
        config.mls = *mls;
        config.metadata = session_metadata(packet);
        let Ok(mls) = config.mls.then(|| self.mls.session(id)).transpose() else { return };
        let next = self.next_in(id);
        let origin = Origin { id, local: self.local(packet), link, mls, next };
        let mut turn = Turn { now, rng: &mut *self.rng };
        let session = Session::join(&mut turn, origin, config, self.limits, (packet, who));
        if let Some(session) = session {
            self.insert(id, session);
            self.open(id);
            self.settle(now, id);
        }
    }

    /// A message of a session that nobody was invited to: anycast.
    pub(super) fn addressed(
        &mut self,
        now: Now,
        (link, who): (LinkId, &Principal),
        packet: Packet,
    ) {
        let id = packet.ids.session;
        let gone = self.gone.iter().any(|gone| gone.is_final(id));
        if gone || packet.session.encrypted || !self.has_room(now) {
            return;
        }
        let mut config = Config::anycast();
        if packet.session.content == Content::Data(Delivery::Reliable) {
            config.reliability = Some(config::INVITED_POINT_TO_POINT);
        }
        let origin = Origin { id, local: self.local(&packet), link, mls: None, next: 0 };
        self.insert(id, Session::anycast(origin, config, self.limits));
        self.open(id);
        self.with(id, now, |session, turn| session.handle(turn, (link, who), packet));
    }

    pub(super) fn open(&mut self, id: u32) {
        self.waiting.push_back(id);
        self.outputs.push_back(Output::Opened(id));
    }
}

/// The channel of a request to join a group, whose texts are needed to subscribe to it.
pub(super) fn channel_of(packet: &Packet, channel: &FullName) -> Option<TextName> {
    let text = channel.to_text().or_else(|| packet.session.destination.clone())?;
    (text.to_name() == channel.name).then_some(text)
}

/// Who initiates a point-to-point session: the sender, whatever else the request says.
fn peer_of(packet: &Packet, moderator: &FullName) -> FullName {
    match moderator.name == packet.source {
        true => moderator.clone(),
        false => packet.source.into(),
    }
}

/// The metadata that the initiator gave the session.
pub(super) fn session_metadata(packet: &Packet) -> Vec<(String, String)> {
    let given = packet.session.metadata.iter().filter(|(key, _)| key != NATIVE_MARK);
    given.cloned().collect()
}
