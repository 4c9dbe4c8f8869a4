//! What the parts of a session share.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use slim_wire::session::{Content, FullName, SessionKind};
use slim_wire::{Name, SessionIds, TextName};

use crate::mls::{Mls, MlsError};
use crate::session::Now;
use crate::session::config::{self, Config};
use crate::session::error::{CloseReason, SessionError};
use crate::session::event::{Member, Ticket};
use crate::session::packet::{FANOUT_DATA, Packet};

/// What is passed in with every call.
pub(in crate::session) struct Turn<'a> {
    pub(in crate::session) now: Now,
    pub(in crate::session) rng: &'a mut (dyn Rng + Send),
}

impl Turn<'_> {
    /// A number for a request.
    pub(in crate::session) fn draw(&mut self) -> u32 {
        self.rng.next_u32()
    }
}

/// What a handshake has brought about.
#[derive(Debug)]
pub(in crate::session) enum Change {
    /// Somebody is a member now.
    Joined(Member),
    /// Somebody is no longer.
    Left(Member),
    /// Data may flow.
    Open,
    /// The encrypted group has changed: what could not be opened may be now.
    Epoch,
    /// Something went wrong.
    Failed(SessionError),
    /// The moderator starts over with this participant.
    Anew,
    /// A welcome could not be used.
    NotJoined(MlsError),
    /// The peer has ended a point-to-point session.
    PeerClosed,
    Closed(CloseReason),
}

/// What a session wants done.
#[derive(Debug)]
pub(in crate::session) enum Effect {
    Send(Box<Packet>),
    /// To its channel; whether it is the one that creates it.
    Subscribe(bool),
    Unsubscribe,
    Complete(Ticket, Result<(), SessionError>),
}

/// What the parts of a session share.
pub(in crate::session) struct Core {
    pub(in crate::session) id: u32,
    pub(in crate::session) config: Config,
    pub(in crate::session) local: TextName,
    pub(in crate::session) mls: Option<Box<dyn Mls>>,
    pub(in crate::session) key_rotation: Duration,
    /// Whose the message is that is being handled.
    pub(in crate::session) who: Box<str>,
    pub(in crate::session) effects: Vec<Effect>,
    pub(in crate::session) changes: Vec<Change>,
    /// Members and senders whose texts are known.
    pub(super) texts: BTreeMap<Name, TextName>,
}

impl Core {
    pub(in crate::session) fn is_group(&self) -> bool {
        self.config.is_group()
    }

    /// The channel of a group.
    pub(in crate::session) fn channel(&self) -> Option<&FullName> {
        match &self.config.kind {
            config::Kind::Group { channel } => Some(channel),
            _ => None,
        }
    }

    fn kind(&self) -> SessionKind {
        if self.is_group() { SessionKind::Group } else { SessionKind::PointToPoint }
    }

    pub(in crate::session) fn send(&mut self, packet: Packet) {
        self.effects.push(Effect::Send(Box::new(packet)));
    }

    pub(in crate::session) fn subscribe(&mut self, creates: bool) {
        self.effects.push(Effect::Subscribe(creates));
    }

    pub(in crate::session) fn unsubscribe(&mut self) {
        self.effects.push(Effect::Unsubscribe);
    }

    pub(in crate::session) fn complete(
        &mut self,
        ticket: Option<Ticket>,
        result: Result<(), SessionError>,
    ) {
        if let Some(ticket) = ticket {
            self.effects.push(Effect::Complete(ticket, result));
        }
    }

    pub(in crate::session) fn closed(&self) -> SessionError {
        SessionError::Closed(CloseReason::Deleted)
    }

    /// Control content for one.
    pub(in crate::session) fn control(
        &self,
        message: u32,
        destination: Name,
        content: Content,
    ) -> Packet {
        let ids = SessionIds { session: self.id, message };
        Packet::control(self.kind(), ids, (self.local.to_name(), destination), content)
    }

    /// Control content for all members.
    pub(in crate::session) fn to_channel(&self, message: u32, content: Content) -> Packet {
        let channel = self.channel().map_or(Name::NOBODY, |channel| channel.name);
        self.control(message, channel, content).with_fanout(FANOUT_DATA)
    }

    pub(in crate::session) fn answer(&self, request: &Packet, content: Content) -> Packet {
        Packet::answer(request, self.local.to_name(), content)
    }

    /// This app as a member. Others know whose it is from its messages.
    pub(in crate::session) fn own(&self) -> Member {
        let (name, identity) = (FullName::from(&self.local), Box::default());
        Member { name, native: true, identity }
    }

    pub(super) fn learn_text(&mut self, name: &FullName) {
        if let Some(text) = name.to_text() {
            self.texts.insert(name.name, text);
        }
    }

    pub(in crate::session) fn full(&self, name: Name) -> FullName {
        self.texts.get(&name).map_or_else(|| name.into(), FullName::from)
    }
}
