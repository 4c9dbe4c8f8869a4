//! One session: its handshakes, what its app publishes and what it receives.

mod app;
mod core;
mod inbound;
mod outbound;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slim_wire::Name;
use slim_wire::TextName;
use slim_wire::session::Content;

pub(super) use self::core::{Change, Core, Effect, Turn};
use super::binding::{Bindings, identity};
use super::config::{Config, Limits};
use super::error::{CloseReason, SessionError};
use super::event::{Event, LinkId};
use super::moderator::Moderator;
use super::packet::Packet;
use super::participant::Participant;
use super::producer::{Due, Mode, Producer};
use super::receiver::Receiver;
use super::saved::{Role, Saved};
use super::{Now, config, earlier};
use crate::identity::Principal;
use crate::mls::Mls;

/// Which side of the handshakes a session is on.
#[derive(Debug)]
enum Control {
    Moderator(Box<Moderator>),
    Participant(Box<Participant>),
    /// No handshake: anycast.
    None,
}

/// One sender, as a session hears it.
struct Sender {
    receiver: Receiver,
    link: LinkId,
    /// It uses this library: it is told what has arrived.
    acknowledge: bool,
    /// Messages and bytes delivered since that was told last.
    untold: (u32, usize),
    tell_at: Option<Instant>,
    /// Of a session without order, what came last.
    recent: VecDeque<u32>,
}

/// Messages of a sender of which a repetition is recognised where there is no order.
const RECENT: usize = 256;

/// Messages and bytes of a sender after which it is told what has arrived, and how long that waits
/// otherwise. They are small parts of a window, so that nobody waits for the time to pass, and the
/// time is long, so that who says little is not answered message by message.
const TELL_MESSAGES: u32 = 32;
const TELL_BYTES: usize = 1024 * 1024;
const TELL_AFTER: Duration = Duration::from_millis(500);

/// Senders of a session that are kept apart.
const SENDERS: usize = 4096;

/// What a session's app has not asked for yet.
#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    bytes: usize,
}

pub(super) struct Session {
    core: Core,
    control: Control,
    /// The peer of a point-to-point session, once it is known.
    peer: Option<Name>,
    link: LinkId,
    producer: Producer,
    senders: BTreeMap<Name, Sender>,
    bindings: Bindings,
    /// Of members that have left, the number of the message that would have come next: they go on
    /// from there if they come back.
    heard: BTreeMap<Name, u32>,
    inbox: Inbox,
    limits: Limits,
    initiator: bool,
    closed: Option<CloseReason>,
    /// The link is down.
    paused: bool,
    /// Room for messages was refused.
    full: bool,
    /// Messages that were dropped because the app does not ask for them.
    dropped: u64,
    /// When something last happened in a session of two that another app opened.
    heard_at: Option<Instant>,
    /// When it ends for want of messages.
    idle_at: Option<Instant>,
    /// What is stored of it is out of date.
    unsaved: bool,
    /// Numbers below this are reserved for messages, as far as what is stored tells.
    reserved: u32,
}

/// How a session comes about.
pub(super) struct Origin {
    pub(super) id: u32,
    pub(super) local: TextName,
    pub(super) link: LinkId,
    pub(super) mls: Option<Box<dyn Mls>>,
    /// The number that the app's next message would have had when it took part in this session
    /// before.
    pub(super) next: u32,
}

impl Session {
    /// A session that this app creates.
    pub(super) fn create(
        origin: Origin,
        config: Config,
        limits: Limits,
        now: Now,
    ) -> Result<Self, SessionError> {
        let next = origin.next;
        let mut session = Self::new(origin, config, limits, true);
        if let Some(mls) = &mut session.core.mls {
            mls.create(now)?;
        }
        if session.core.is_group() {
            session.producer = session.producer.starting_at(next);
        }
        if !matches!(session.core.config.kind, config::Kind::Anycast) {
            session.control = Control::Moderator(Box::default());
        }
        Ok(session)
    }

    /// A session that another app invites to, if this one can answer.
    pub(super) fn join(
        turn: &mut Turn<'_>,
        origin: Origin,
        config: Config,
        limits: Limits,
        (request, who): (&Packet, &Principal),
    ) -> Option<Self> {
        let next = origin.next;
        let mut session = Self::new(origin, config, limits, false);
        session.bindings.bind(request.source, identity(who));
        if session.core.is_group() {
            session.producer = session.producer.starting_at(next);
        }
        let participant = Participant::join(turn, &mut session.core, request)?;
        let native = participant.native;
        session.control = Control::Participant(Box::new(participant));
        if let Content::JoinRequest { moderator, .. } = &request.session.content {
            session.core.learn_text(moderator);
        }
        if !session.core.is_group() {
            session.peer = Some(request.source);
        } else if native {
            session.expect(request.source, turn.now);
        }
        Some(session)
    }

    /// A session of which the first sign is a message.
    pub(super) fn anycast(origin: Origin, config: Config, limits: Limits) -> Self {
        Self::new(origin, config, limits, false)
    }

    fn new(origin: Origin, config: Config, limits: Limits, initiator: bool) -> Self {
        let mode = match (&config.kind, config.reliability) {
            (config::Kind::Group { .. }, _) => Mode::Group,
            (_, Some(reliability)) => Mode::Each(reliability),
            (_, None) => Mode::Unreliable,
        };
        let peer = match &config.kind {
            config::Kind::PointToPoint { peer } if !initiator => Some(peer.name),
            _ => None,
        };
        let core = Core {
            id: origin.id,
            config,
            local: origin.local,
            mls: origin.mls,
            key_rotation: limits.key_rotation,
            who: Box::default(),
            effects: Vec::new(),
            changes: Vec::new(),
            texts: BTreeMap::new(),
        };
        Self {
            core,
            control: Control::None,
            peer,
            link: origin.link,
            producer: Producer::new(mode, &limits),
            senders: BTreeMap::new(),
            bindings: Bindings::default(),
            heard: BTreeMap::new(),
            inbox: Inbox::default(),
            limits,
            initiator,
            closed: None,
            paused: false,
            full: false,
            dropped: 0,
            heard_at: None,
            idle_at: None,
            unsaved: false,
            reserved: 0,
        }
    }

    /// A session that goes on in a later process.
    pub(super) fn restore(
        turn: &mut Turn<'_>,
        origin: Origin,
        config: Config,
        limits: Limits,
        role: Role,
    ) -> Self {
        let initiator = matches!(role, Role::Moderator { .. });
        let reserved = origin.next;
        let mut session = Self::new(origin, config, limits, initiator);
        session.producer = Producer::new(Mode::Group, &limits).starting_at(reserved);
        session.reserved = reserved;
        session.learn_members(turn.now);
        session.control = match role {
            Role::Moderator { members, sequence, roster } => {
                for saved in &members {
                    let credential = Bytes::copy_from_slice(&saved.credential);
                    session.bindings.bind_credential(saved.member.name.name, &credential);
                }
                let numbers = (sequence, roster);
                let moderator = Moderator::restore(turn, &mut session.core, members, numbers);
                Control::Moderator(Box::new(moderator))
            }
            Role::Participant { moderator, native, request, last, members } => {
                let (who, numbers) = ((moderator, native), (request, last));
                let core = &mut session.core;
                let participant = Participant::restore(turn, core, who, numbers, &members);
                Control::Participant(Box::new(participant))
            }
        };
        session.settle(turn);
        session.inbox = Inbox::default();
        session
    }

    /// What is to be stored of it, if that has changed.
    pub(super) fn save(&mut self, app: &TextName) -> Option<Vec<u8>> {
        let reach = self.producer.next() >= self.reserved;
        if self.closed.is_some() || !(std::mem::take(&mut self.unsaved) || reach) {
            return None;
        }
        let role = match &self.control {
            Control::Moderator(moderator) => moderator.save(),
            Control::Participant(participant) => participant.save()?,
            Control::None => return None,
        };
        let next = self.producer.next().saturating_add(config::RESERVED_MESSAGES);
        let core = &self.core;
        let saved = Saved::new(app, (core.id, &core.local), &core.config, next, role)?;
        self.reserved = next;
        saved.encode().ok()
    }

    // Time.

    pub(super) fn due(&mut self, turn: &mut Turn<'_>) {
        match &mut self.control {
            Control::Moderator(moderator) => moderator.due(turn, &mut self.core),
            Control::Participant(participant) => participant.due(turn, &mut self.core),
            Control::None => {}
        }
        if self.closed.is_none() {
            self.due_data(turn.now);
        }
        if self.idle_at.is_some_and(|idle| idle <= turn.now.instant) {
            self.idle_at = None;
            self.close(CloseReason::Idle);
        }
        self.settle(turn);
    }

    fn due_data(&mut self, now: Now) {
        for due in self.producer.due(now.instant) {
            let session = self.core.id;
            match due {
                Due::Again(id) => self.send_again(id),
                Due::GivenUp(message) => {
                    self.note(Event::Failed(SessionError::Undelivered { session, message }));
                }
                Due::Silent { member, first, last } => {
                    let failed = SessionError::Unacknowledged { session, first, last, member };
                    self.note(Event::Failed(failed));
                }
                Due::Beacon(id) => {
                    let beacon = self.core.to_channel(id, Content::Beacon).marked();
                    self.core.send(beacon);
                }
            }
        }
        self.tell(now);
        self.ask_for_missing(now);
        self.deliver_all(now);
    }

    fn send_again(&mut self, id: u32) {
        let Some(kept) = self.producer.sent_message(id).cloned() else { return };
        // What cannot be encrypted now is due again later.
        if let Ok(packet) = self.data_packet(kept) {
            self.core.send(packet);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.paused {
            return None;
        }
        let control = match &self.control {
            Control::Moderator(moderator) => moderator.deadline(),
            Control::Participant(participant) => participant.deadline(),
            Control::None => None,
        };
        if self.closed.is_some() {
            return control;
        }
        let of = |sender: &Sender| earlier(sender.receiver.deadline(), sender.tell_at);
        let senders = self.senders.values().filter_map(of).min();
        earlier(earlier(control, self.idle_at), earlier(self.producer.deadline(), senders))
    }

    /// The link is down: the time that passes does not count.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// The link is back: everything is due.
    pub(super) fn resume(&mut self, turn: &mut Turn<'_>) {
        self.paused = false;
        let now = turn.now.instant;
        match &mut self.control {
            Control::Moderator(moderator) => moderator.resume(now),
            Control::Participant(participant) => participant.resume(now),
            Control::None => {}
        }
        self.producer.resume(now);
        for sender in self.senders.values_mut() {
            sender.receiver.resume(now);
            if sender.acknowledge {
                sender.tell_at = Some(now);
            }
        }
        self.due(turn);
    }

    // What handshakes have brought about.

    fn settle(&mut self, turn: &mut Turn<'_>) {
        self.unsaved |= !self.core.changes.is_empty();
        while !self.core.changes.is_empty() {
            for change in std::mem::take(&mut self.core.changes) {
                self.apply(turn.now, change);
            }
        }
        self.flush(turn.now);
        if !self.initiator && !self.core.is_group() && self.closed.is_none() {
            self.heard_at = Some(turn.now.instant);
            if matches!(self.control, Control::None) {
                self.idle_at = Some(turn.now.instant + self.limits.anycast_idle);
            }
        }
    }

    fn apply(&mut self, now: Now, change: Change) {
        match change {
            Change::Joined(member) => {
                let name = member.name.name;
                self.core.learn_text(&member.name);
                if !member.identity.is_empty() {
                    // Who has spoken under the name before has used another's.
                    self.bindings.bind(name, member.identity.clone());
                }
                if self.core.is_group() {
                    if member.native {
                        self.expect(name, now);
                    } else if let Some(sender) = self.senders.get_mut(&name) {
                        sender.receiver.decide(now.instant, false);
                    }
                    self.note(Event::Joined(member.name));
                } else {
                    self.peer = Some(name);
                }
            }
            Change::Left(member) => {
                self.forget(member.name.name);
                if self.core.is_group() {
                    self.note(Event::Left(member.name));
                } else {
                    self.peer = None;
                }
            }
            Change::Epoch => {
                self.learn_members(now);
                self.open_sealed(now);
            }
            Change::Open => {}
            Change::Failed(error) => self.fail(error),
            Change::NotJoined(error) => self.note(Event::Failed(error.into())),
            Change::Anew => self.start_over(now),
            Change::PeerClosed => self.close(CloseReason::PeerClosed),
            Change::Closed(reason) => self.close(reason),
        }
    }

    fn learn_members(&mut self, now: Now) {
        if let Some(mls) = &self.core.mls {
            self.bindings.learn_members(mls.principals(now));
        }
    }

    /// A handshake failed; of a point-to-point session, all that waited for it is lost.
    fn fail(&mut self, error: SessionError) {
        self.note(Event::Failed(error));
        if !self.core.is_group() && self.peer.is_none() {
            let session = self.core.id;
            for message in self.producer.give_up() {
                let failed = SessionError::Undelivered { session, message };
                self.note(Event::Failed(failed));
            }
        }
    }

    /// Tells the app, unless the session has ended for it.
    fn note(&mut self, event: Event) {
        // Who reads nothing need not be told of every change either.
        let news = matches!(event, Event::Joined(_) | Event::Left(_));
        let full = self.inbox.events.len() >= 2 * self.limits.inbox_messages;
        if self.closed.is_none() && !(news && full) {
            self.inbox.events.push_back(event);
        }
    }

    /// Somebody is no longer a member.
    fn forget(&mut self, name: Name) {
        self.producer.forget(name);
        if let Some(sender) = self.senders.remove(&name).filter(|sender| sender.acknowledge)
            && self.heard.len() < SENDERS
        {
            self.heard.insert(name, sender.receiver.delivered());
        }
    }

    /// The moderator has let this app join once more: what was sent in between is not for it.
    fn start_over(&mut self, now: Now) {
        for name in self.senders.keys().copied().collect::<Vec<_>>() {
            self.forget(name);
        }
        self.producer.forget_all();
        if let Control::Participant(participant) = &self.control
            && participant.native
        {
            self.expect(participant.moderator, now);
        }
    }

    /// The group has changed: what could not be opened before may be now.
    fn open_sealed(&mut self, now: Now) {
        let mut sealed = Vec::new();
        for sender in self.senders.values_mut() {
            sealed.extend(sender.receiver.take_sealed());
        }
        for packet in sealed {
            self.take(now, Box::new(packet));
        }
        self.deliver_all(now);
    }
}

impl Inbox {
    fn has_room(&self, limits: &Limits) -> bool {
        self.events.len() < limits.inbox_messages && self.bytes < limits.inbox_bytes
    }
}
