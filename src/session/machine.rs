//! One session: its handshakes, what its app publishes and what it receives.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;
use slim_wire::session::{Content, Delivery as Kind, FullName, Session as Part, SessionKind};
use slim_wire::{Class, Flags, Name, SessionIds, TextName};

use super::config::{Config, Limits};
use super::error::{CloseReason, SessionError};
use super::event::{Context, Event, LinkId, Member, Publication, SessionInfo, Ticket};
use super::moderator::Moderator;
use super::packet::{FANOUT_DATA, Packet};
use super::participant::Participant;
use super::producer::{Due, Mode, Producer};
use super::receiver::{Delivery, Offer, Order, Receiver};
use super::{Now, config, earlier};
use crate::mls::{Mls, MlsError};

/// What is passed in with every call.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) rng: &'a mut (dyn Rng + Send),
}

impl Turn<'_> {
    /// A number for a request.
    pub(super) fn draw(&mut self) -> u32 {
        self.rng.next_u32()
    }
}

/// What a handshake has brought about.
#[derive(Debug)]
pub(super) enum Change {
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
    /// A welcome could not be used.
    NotJoined(MlsError),
    /// The peer has ended a point-to-point session.
    PeerClosed,
    Closed(CloseReason),
}

/// What a session wants done.
#[derive(Debug)]
pub(super) enum Effect {
    Send(Box<Packet>),
    /// To its channel; whether it is the one that creates it.
    Subscribe(bool),
    Unsubscribe,
    Complete(Ticket, Result<(), SessionError>),
}

/// What the parts of a session share.
pub(super) struct Core {
    pub(super) id: u32,
    pub(super) config: Config,
    pub(super) local: TextName,
    pub(super) mls: Option<Box<dyn Mls>>,
    pub(super) key_rotation: Duration,
    pub(super) effects: Vec<Effect>,
    pub(super) changes: Vec<Change>,
    /// Members and senders whose texts are known.
    texts: BTreeMap<Name, TextName>,
}

impl Core {
    pub(super) fn is_group(&self) -> bool {
        self.config.is_group()
    }

    /// The channel of a group.
    pub(super) fn channel(&self) -> Option<&FullName> {
        match &self.config.kind {
            config::Kind::Group { channel } => Some(channel),
            _ => None,
        }
    }

    fn kind(&self) -> SessionKind {
        if self.is_group() { SessionKind::Group } else { SessionKind::PointToPoint }
    }

    pub(super) fn send(&mut self, packet: Packet) {
        self.effects.push(Effect::Send(Box::new(packet)));
    }

    pub(super) fn subscribe(&mut self, creates: bool) {
        self.effects.push(Effect::Subscribe(creates));
    }

    pub(super) fn unsubscribe(&mut self) {
        self.effects.push(Effect::Unsubscribe);
    }

    pub(super) fn complete(&mut self, ticket: Option<Ticket>, result: Result<(), SessionError>) {
        if let Some(ticket) = ticket {
            self.effects.push(Effect::Complete(ticket, result));
        }
    }

    pub(super) fn closed(&self) -> SessionError {
        SessionError::Closed(CloseReason::Deleted)
    }

    /// Control content for one.
    pub(super) fn control(&self, message: u32, destination: Name, content: Content) -> Packet {
        let ids = SessionIds { session: self.id, message };
        Packet::control(self.kind(), ids, (self.local.to_name(), destination), content)
    }

    /// Control content for all members.
    pub(super) fn to_channel(&self, message: u32, content: Content) -> Packet {
        let channel = self.channel().map_or(Name::NOBODY, |channel| channel.name);
        self.control(message, channel, content).with_fanout(FANOUT_DATA)
    }

    pub(super) fn answer(&self, request: &Packet, content: Content) -> Packet {
        Packet::answer(request, self.local.to_name(), content)
    }

    fn learn_text(&mut self, name: &FullName) {
        if let Some(text) = name.to_text() {
            self.texts.insert(name.name, text);
        }
    }

    pub(super) fn full(&self, name: Name) -> FullName {
        self.texts.get(&name).map_or_else(|| name.into(), FullName::from)
    }
}

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
    /// The credential of its first encrypted message: nobody else speaks for it.
    credential: Option<Bytes>,
    link: LinkId,
    /// It uses this library: it is told what has arrived.
    acknowledge: bool,
    /// Delivered since that was told last.
    untold: u32,
    tell_at: Option<Instant>,
    /// Of a session without order, what came last.
    recent: VecDeque<u32>,
}

/// Messages of a sender of which a repetition is recognised where there is no order.
const RECENT: usize = 256;

/// Messages of a sender after which it is told what has arrived, and how long that waits
/// otherwise.
const TELL_MESSAGES: u32 = 32;
const TELL_AFTER: Duration = Duration::from_millis(40);

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
}

/// How a session comes about.
pub(super) struct Origin {
    pub(super) id: u32,
    pub(super) local: TextName,
    pub(super) link: LinkId,
    pub(super) mls: Option<Box<dyn Mls>>,
}

impl Session {
    /// A session that this app creates.
    pub(super) fn create(
        origin: Origin,
        config: Config,
        limits: Limits,
        now: Now,
    ) -> Result<Self, SessionError> {
        let mut session = Self::new(origin, config, limits, true);
        if let Some(mls) = &mut session.core.mls {
            mls.create(now)?;
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
        request: &Packet,
    ) -> Option<Self> {
        let mut session = Self::new(origin, config, limits, false);
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
            inbox: Inbox::default(),
            limits,
            initiator,
            closed: None,
            paused: false,
            full: false,
            dropped: 0,
        }
    }

    // What the app does.

    pub(super) fn publish(
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

    fn check_open(&self) -> Result<(), SessionError> {
        self.closed.map_or(Ok(()), |reason| Err(SessionError::Closed(reason)))
    }

    fn check_destination(&self, publication: &Publication) -> Result<(), SessionError> {
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
    fn start_handshake(&mut self, turn: &mut Turn<'_>) {
        let config::Kind::PointToPoint { peer } = &self.core.config.kind else { return };
        let Control::Moderator(moderator) = &mut self.control else { return };
        if self.peer.is_none() && !moderator.is_inviting() {
            let peer = peer.clone();
            moderator.invite(turn, &mut self.core, peer, (None, None));
        }
    }

    pub(super) fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        name: FullName,
        (ticket, id): (Ticket, Option<u32>),
    ) -> Result<(), SessionError> {
        self.check_open()?;
        self.check_group("invite", "to")?;
        match &mut self.control {
            Control::Moderator(moderator) => {
                moderator.invite(turn, &mut self.core, name, (Some(ticket), id));
            }
            _ => return Err(SessionError::NotModerator { what: "invite" }),
        }
        self.settle(turn);
        Ok(())
    }

    pub(super) fn remove(
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

    fn check_group(
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
    pub(super) fn delete(&mut self, turn: &mut Turn<'_>) {
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

    fn close(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason);
        let session = self.core.id;
        for message in self.producer.give_up() {
            let failed = SessionError::Undelivered { session, message };
            self.inbox.events.push_back(Event::Failed(failed));
        }
        self.inbox.events.push_back(Event::Closed(reason));
        self.full = false;
    }

    /// Whether nothing is left to be done or read.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some()
            && match &self.control {
                Control::Moderator(moderator) => moderator.is_closed(),
                Control::Participant(participant) => !participant.is_leaving(),
                Control::None => true,
            }
    }

    /// Nobody will read what is left.
    pub(super) fn discard(&mut self) {
        self.inbox = Inbox::default();
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.closed
    }

    /// What there is to read next.
    pub(super) fn next_event(&mut self, turn: &mut Turn<'_>) -> Option<Event> {
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

    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.events.is_empty()
    }

    /// Whether room that was refused is there now; once.
    pub(super) fn take_writable(&mut self) -> bool {
        self.full && self.producer.has_room() && std::mem::take(&mut self.full)
    }

    pub(super) fn link(&self) -> LinkId {
        self.link
    }

    /// The channel of a group.
    pub(super) fn channel(&self) -> Option<TextName> {
        self.core.channel().and_then(FullName::to_text)
    }

    pub(super) fn initiator(&self) -> bool {
        self.initiator
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.core.effects)
    }

    pub(super) fn info(&self) -> SessionInfo {
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
        }
    }

    /// The members that are known, this app first.
    pub(super) fn participants(&self) -> Vec<Member> {
        let own = Member { name: FullName::from(&self.core.local), native: true };
        let mut members = vec![own];
        match &self.control {
            Control::Moderator(moderator) => members.extend(moderator.members().cloned()),
            Control::Participant(participant) => {
                let moderator = participant.moderator;
                if !participant.members().iter().any(|member| member.is(moderator)) {
                    let name = self.core.full(moderator);
                    members.push(Member { name, native: participant.native });
                }
                members.extend(participant.members().iter().cloned());
            }
            Control::None => {}
        }
        // Moderators of published releases tell nobody; who has spoken is a member.
        for (name, sender) in &self.senders {
            let member = Member { name: self.core.full(*name), native: sender.acknowledge };
            members.push(member);
        }
        let mut seen = std::collections::BTreeSet::new();
        members.retain(|member| seen.insert(member.name.name));
        members
    }

    // What arrives.

    /// A verified message of this session.
    pub(super) fn handle(&mut self, turn: &mut Turn<'_>, link: LinkId, packet: Packet) {
        if let Some(source) = &packet.session.source
            && source.to_name() == packet.source
        {
            self.core.texts.entry(packet.source).or_insert_with(|| source.clone());
        }
        match &packet.session.content {
            Content::Data(_) | Content::RetransmissionReply => self.data(turn, link, packet),
            Content::Ack => self.acknowledged(turn.now, &packet),
            Content::RetransmissionRequest => self.asked_again(&packet),
            Content::Beacon => self.beacon(turn.now, link, &packet),
            Content::Foreign { .. } => {}
            _ => {
                if matches!(packet.session.content, Content::JoinRequest { .. }) {
                    self.link = link;
                }
                match &mut self.control {
                    Control::Moderator(moderator) => {
                        moderator.handle(turn, &mut self.core, &packet);
                    }
                    Control::Participant(participant) => {
                        participant.handle(turn, &mut self.core, &packet);
                    }
                    Control::None => {}
                }
            }
        }
        self.settle(turn);
    }

    /// Number of the request to join that was answered last.
    pub(super) fn joined_by(&self) -> Option<u32> {
        match &self.control {
            Control::Participant(participant) => Some(participant.request()),
            _ => None,
        }
    }

    /// Who was invited refuses this app, without a token that could be checked.
    pub(super) fn refused(&mut self, packet: &Packet) {
        if let Control::Moderator(moderator) = &mut self.control {
            moderator.refused(&mut self.core, packet);
        }
    }

    /// Whether `source` may speak in this session.
    fn admits(&self, source: Name) -> bool {
        match &self.core.config.kind {
            config::Kind::Anycast => true,
            config::Kind::PointToPoint { .. } => self.peer == Some(source),
            config::Kind::Group { .. } => {
                source != self.core.local.to_name()
                    && match &self.control {
                        // Without encryption, the moderator's list is all there is to go by.
                        Control::Moderator(moderator) => moderator.is_member(source),
                        _ => true,
                    }
            }
        }
    }

    fn data(&mut self, turn: &mut Turn<'_>, link: LinkId, packet: Packet) {
        let expected = matches!(
            (&packet.session.content, self.core.is_group()),
            (Content::Data(Kind::Group), true)
                | (Content::Data(Kind::Reliable | Kind::Unreliable), false)
                | (Content::RetransmissionReply, _)
        );
        if !expected || !self.admits(packet.source) {
            return;
        }
        let id = packet.ids.message;
        if !self.is_ordered(&packet) {
            return self.data_unordered(link, packet);
        }
        let source = packet.source;
        let buffered: u64 = self.senders.values().map(|sender| sender.receiver.bytes()).sum();
        let Some(sender) = self.sender(source, link) else { return };
        if packet.flags.contains(Flags::ERROR) {
            sender.receiver.lose(id);
            return self.deliver(turn.now, source);
        }
        let offer = sender.receiver.offer(id, buffered + packet.bytes() as u64);
        // Of what waits for room the sender has not been told.
        let delivered = sender.receiver.next().is_some_and(|next| id < next);
        match offer {
            Offer::Wanted => self.take(turn.now, Box::new(packet)),
            Offer::Duplicate if !self.core.is_group() => {
                if delivered {
                    self.acknowledge_one(&packet, Flags::empty());
                }
            }
            Offer::Duplicate => self.tell_soon(turn.now, packet.source),
            Offer::Skipped if self.is_native_peer() => {
                self.acknowledge_one(&packet, Flags::ERROR);
            }
            Offer::Skipped | Offer::NoRoom => {}
        }
        self.ask_for_missing(turn.now);
        self.deliver(turn.now, source);
    }

    fn is_ordered(&self, packet: &Packet) -> bool {
        match self.core.config.kind {
            config::Kind::Anycast => false,
            config::Kind::PointToPoint { .. } => {
                packet.session.content != Content::Data(Kind::Unreliable)
            }
            config::Kind::Group { .. } => true,
        }
    }

    fn is_native_peer(&self) -> bool {
        match &self.control {
            Control::Moderator(moderator) => moderator.members().any(|member| member.native),
            Control::Participant(participant) => participant.native,
            Control::None => false,
        }
    }

    /// Without a reorder buffer: as it comes.
    fn data_unordered(&mut self, link: LinkId, packet: Packet) {
        let reliable = packet.session.content == Content::Data(Kind::Reliable);
        if !self.inbox.has_room(&self.limits) {
            self.dropped += 1;
            return;
        }
        let source = packet.source;
        let Ok(packet) = self.open(Box::new(packet)) else { return };
        if reliable {
            self.acknowledge_one(&packet, Flags::empty());
            // The same message comes again if its acknowledgement is lost.
            let Some(sender) = self.sender(source, link) else { return };
            let id = packet.ids.message;
            if sender.recent.contains(&id) {
                return;
            }
            if sender.recent.len() == RECENT {
                sender.recent.pop_front();
            }
            sender.recent.push_back(id);
        }
        self.receive(*packet, link);
    }

    /// The state kept of a sender; `None` if there are too many.
    fn sender(&mut self, name: Name, link: LinkId) -> Option<&mut Sender> {
        if !self.senders.contains_key(&name) {
            if self.senders.len() >= SENDERS {
                return None;
            }
            let sender = self.new_sender(name, link);
            self.senders.insert(name, sender);
        }
        let sender = self.senders.get_mut(&name)?;
        sender.link = link;
        Some(sender)
    }

    fn new_sender(&self, name: Name, link: LinkId) -> Sender {
        let reliability = self.core.config.reliability;
        let mut receiver = match self.core.config.kind {
            config::Kind::Group { .. } => Receiver::new(Order::group(reliability), None),
            config::Kind::PointToPoint { .. } => {
                let fallback = config::INVITED_GROUP;
                let order = Order::point_to_point(reliability.unwrap_or(fallback));
                Receiver::new(order, Some(0))
            }
            config::Kind::Anycast => Receiver::new(Order::AsTheyCome, Some(0)),
        };
        let acknowledge = self.core.is_group() && self.is_native(name);
        if acknowledge {
            receiver.be_patient();
        }
        let recent = VecDeque::new();
        Sender { receiver, credential: None, link, acknowledge, untold: 0, tell_at: None, recent }
    }

    /// Whether a member is known to use this library.
    fn is_native(&self, name: Name) -> bool {
        let native = |member: &Member| member.is(name) && member.native;
        match &self.control {
            Control::Moderator(moderator) => moderator.members().any(native),
            Control::Participant(participant) => {
                (participant.native && participant.moderator == name)
                    || participant.members().iter().any(native)
            }
            Control::None => false,
        }
    }

    /// Takes a message that is wanted.
    fn take(&mut self, now: Now, packet: Box<Packet>) {
        let source = packet.source;
        match self.open(packet) {
            Ok(packet) => {
                if let Some(sender) = self.senders.get_mut(&source) {
                    sender.receiver.put(now.instant, packet);
                }
            }
            Err(Some(sealed)) => {
                if let Some(sender) = self.senders.get_mut(&source) {
                    sender.receiver.put_sealed(now.instant, sealed);
                }
            }
            Err(None) => {}
        }
    }

    /// Decrypts a message where that is due. It comes back if it may be possible later.
    fn open(&mut self, mut packet: Box<Packet>) -> Result<Box<Packet>, Option<Box<Packet>>> {
        let Some(mls) = &mut self.core.mls else {
            // It is not for this session's app to read.
            return if packet.session.encrypted { Err(None) } else { Ok(packet) };
        };
        if !packet.session.encrypted {
            return Err(None);
        }
        let Ok(opened) = mls.decrypt(&packet.payload) else { return Err(Some(packet)) };
        if let Some(sender) = self.senders.get_mut(&packet.source) {
            let known = sender.credential.get_or_insert_with(|| opened.credential.clone());
            if *known != opened.credential {
                return Err(None);
            }
        }
        packet.payload = opened.plaintext;
        packet.session.encrypted = false;
        Ok(packet)
    }

    /// Moves what is in order to the app, as far as it has room.
    fn deliver_all(&mut self, now: Now) {
        let names: Vec<Name> = self.senders.keys().copied().collect();
        for name in names {
            self.deliver(now, name);
        }
    }

    fn deliver(&mut self, now: Now, name: Name) {
        while self.inbox.has_room(&self.limits) {
            let Some(sender) = self.senders.get_mut(&name) else { return };
            let link = sender.link;
            match sender.receiver.pop() {
                None => return,
                Some(Delivery::Lost(count)) => {
                    let session = self.core.id;
                    let lost = SessionError::Lost { session, sender: name, count };
                    self.inbox.events.push_back(Event::Failed(lost));
                }
                Some(Delivery::Message(packet)) => {
                    if self.core.is_group() {
                        self.count_untold(now, name);
                    } else {
                        self.acknowledge_one(&packet, Flags::empty());
                    }
                    self.receive(*packet, link);
                }
            }
        }
    }

    /// Hands a message to the app.
    fn receive(&mut self, packet: Packet, link: LinkId) {
        let Packet { source, destination, ids, session, payload, .. } = packet;
        let Part { source: source_text, destination: destination_text, identity, .. } = session;
        let full = |text: Option<TextName>, name: Name| match text {
            Some(text) if text.to_name().prefix == name.prefix => {
                FullName { name, texts: Some(text.components().map(Box::from)) }
            }
            _ => name.into(),
        };
        let mut metadata = session.metadata;
        metadata.extend(identity.map(|token| ("SLIM_IDENTITY".to_owned(), token)));
        let context = Context {
            source: match source_text {
                None => self.core.full(source),
                text => full(text, source),
            },
            destination: full(destination_text, destination),
            payload_type: session.content_type,
            metadata,
            link,
            message: ids.message,
        };
        self.inbox.bytes += payload.len();
        self.inbox.events.push_back(Event::Message(context, payload));
    }

    // Acknowledgements.

    fn acknowledge_one(&mut self, packet: &Packet, flags: Flags) {
        let mut ack = self.core.answer(packet, Content::Ack);
        ack.session.kind = SessionKind::PointToPoint;
        ack.flags = flags;
        self.core.send(ack);
    }

    fn count_untold(&mut self, now: Now, name: Name) {
        let Some(sender) = self.senders.get_mut(&name) else { return };
        sender.untold += 1;
        if sender.acknowledge {
            if sender.untold >= TELL_MESSAGES {
                sender.tell_at = Some(now.instant);
            }
            sender.tell_at.get_or_insert(now.instant + TELL_AFTER);
        }
    }

    fn tell_soon(&mut self, now: Now, name: Name) {
        if let Some(sender) = self.senders.get_mut(&name).filter(|sender| sender.acknowledge) {
            sender.tell_at.get_or_insert(now.instant + TELL_AFTER);
        }
    }

    /// Tells senders what has arrived, where that is due.
    fn tell(&mut self, now: Now) {
        let due = |sender: &Sender| sender.tell_at.is_some_and(|at| at <= now.instant);
        let mut told = Vec::new();
        for (name, sender) in self.senders.iter_mut().filter(|(_, sender)| due(sender)) {
            (sender.untold, sender.tell_at) = (0, None);
            told.extend(sender.receiver.next().map(|next| (*name, next)));
        }
        for (name, next) in told {
            let ack = self.core.control(next, name, Content::Ack);
            self.core.send(ack);
        }
    }

    fn acknowledged(&mut self, now: Now, packet: &Packet) {
        if !self.admits(packet.source) {
            return;
        }
        if self.core.is_group() {
            if packet.session.kind == SessionKind::Group {
                self.expect(packet.source, now);
                let next = packet.ids.message;
                self.producer.acknowledge_up_to(packet.source, next, now.instant);
            }
            return;
        }
        let message = packet.ids.message;
        if self.producer.acknowledge(message) && packet.flags.contains(Flags::ERROR) {
            let session = self.core.id;
            let failed = SessionError::Undelivered { session, message };
            self.inbox.events.push_back(Event::Failed(failed));
        }
    }

    /// A member uses this library: it acknowledges, and wants acknowledgements.
    fn expect(&mut self, name: Name, now: Now) {
        self.producer.expect(name, now.instant);
        if let Some(sender) = self.senders.get_mut(&name)
            && !std::mem::replace(&mut sender.acknowledge, true)
        {
            sender.receiver.be_patient();
            sender.tell_at = Some(now.instant + TELL_AFTER);
        }
    }

    // Retransmissions.

    fn asked_again(&mut self, packet: &Packet) {
        if !self.admits(packet.source) {
            return;
        }
        let id = packet.ids.message;
        let mut reply = self.core.control(id, packet.source, Content::RetransmissionReply);
        reply.class = Class::Reliable;
        match self.producer.sent_message(id).map(|kept| kept.payload.clone()) {
            Some(payload) => {
                let Ok(payload) = self.seal(&mut reply, payload) else { return };
                reply.payload = payload;
                reply.session.source = Some(self.core.local.clone());
                reply.session.destination = self.destination_text();
            }
            None => reply.flags = Flags::ERROR,
        }
        self.core.send(reply);
    }

    fn destination_text(&self) -> Option<TextName> {
        match &self.core.config.kind {
            config::Kind::Anycast => None,
            config::Kind::Group { channel: name } | config::Kind::PointToPoint { peer: name } => {
                name.to_text()
            }
        }
    }

    fn beacon(&mut self, now: Now, link: LinkId, packet: &Packet) {
        if !self.core.is_group() || !self.admits(packet.source) {
            return;
        }
        let native = packet.is_marked();
        let Some(sender) = self.sender(packet.source, link) else { return };
        sender.receiver.announce(now.instant, packet.ids.message);
        if native {
            self.expect(packet.source, now);
            self.tell_soon(now, packet.source);
        }
        self.ask_for_missing(now);
        self.deliver_all(now);
    }

    fn ask_for_missing(&mut self, now: Now) {
        let mut asked = Vec::new();
        for (name, sender) in &mut self.senders {
            let missing = sender.receiver.due(now.instant);
            asked.extend(missing.into_iter().map(|id| (*name, id)));
        }
        for (name, id) in asked {
            let request = self.core.control(id, name, Content::RetransmissionRequest);
            self.core.send(request);
        }
    }

    // Sending.

    fn is_open(&self) -> bool {
        match &self.control {
            Control::Moderator(moderator) => moderator.is_open(),
            Control::Participant(participant) => participant.is_open(),
            Control::None => true,
        }
    }

    /// Sends what was published and may be sent now.
    fn flush(&mut self, now: Now) {
        while !self.paused && self.closed.is_none() && self.is_open() {
            let Some(kept) = self.producer.unsent().cloned() else { return };
            match self.data_packet(kept) {
                Ok(packet) => {
                    self.core.send(packet);
                    self.producer.sent(now.instant);
                }
                // It waits for the group to change.
                Err(MlsError::ProposalPending | MlsError::NotJoined) => return,
                Err(error) => {
                    self.producer.discard_unsent();
                    let failed = Event::Failed(SessionError::Mls(error));
                    self.inbox.events.push_back(failed);
                }
            }
        }
    }

    fn data_packet(&mut self, kept: super::producer::Kept) -> Result<Packet, MlsError> {
        let reliable = self.core.config.reliability.is_some();
        let (delivery, class, fanout) = match (self.core.is_group(), reliable) {
            (true, _) => (Kind::Group, Class::Reliable, FANOUT_DATA),
            (false, true) => (Kind::Reliable, Class::Reliable, 1),
            (false, false) => (Kind::Unreliable, Class::BestEffort, 1),
        };
        let text = match (&self.core.config.kind, &kept.destination) {
            (config::Kind::Anycast, Some(name)) => name.to_text(),
            _ => self.destination_text(),
        };
        let destination = match (self.peer, &kept.destination) {
            (Some(peer), _) => peer,
            (None, Some(name)) => name.name,
            (None, None) => text.as_ref().map_or(Name::NOBODY, TextName::to_name),
        };
        let mut packet = self.core.control(kept.id, destination, Content::Data(delivery));
        (packet.class, packet.fanout) = (class, fanout);
        packet.payload = self.seal(&mut packet, kept.payload)?;
        packet.session.source = Some(self.core.local.clone());
        packet.session.destination = text;
        packet.session.content_type = kept.payload_type;
        packet.session.metadata = kept.metadata;
        Ok(packet)
    }

    /// Encrypts a payload where that is due.
    fn seal(&mut self, packet: &mut Packet, payload: Bytes) -> Result<Bytes, MlsError> {
        match &mut self.core.mls {
            None => Ok(payload),
            Some(mls) => {
                packet.session.encrypted = true;
                mls.encrypt(&payload)
            }
        }
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
        self.settle(turn);
    }

    fn due_data(&mut self, now: Now) {
        for due in self.producer.due(now.instant) {
            let session = self.core.id;
            match due {
                Due::Again(id) => self.send_again(id),
                Due::GivenUp(message) => {
                    let failed = SessionError::Undelivered { session, message };
                    self.inbox.events.push_back(Event::Failed(failed));
                }
                Due::Silent { member, first, last } => {
                    let failed = SessionError::Unacknowledged { session, first, last, member };
                    self.inbox.events.push_back(Event::Failed(failed));
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
        earlier(control, earlier(self.producer.deadline(), senders))
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
        while !self.core.changes.is_empty() {
            for change in std::mem::take(&mut self.core.changes) {
                self.apply(turn.now, change);
            }
        }
        self.flush(turn.now);
    }

    fn apply(&mut self, now: Now, change: Change) {
        match change {
            Change::Joined(member) => {
                let name = member.name.name;
                self.core.learn_text(&member.name);
                if self.core.is_group() {
                    if member.native {
                        self.expect(name, now);
                    }
                    self.inbox.events.push_back(Event::Joined(member.name));
                } else {
                    self.peer = Some(name);
                }
            }
            Change::Left(member) => {
                self.producer.forget(member.name.name);
                self.senders.remove(&member.name.name);
                if self.core.is_group() {
                    self.inbox.events.push_back(Event::Left(member.name));
                } else {
                    self.peer = None;
                }
            }
            Change::Epoch => self.open_sealed(now),
            Change::Open => {}
            Change::Failed(error) => self.fail(error),
            Change::NotJoined(error) => self.inbox.events.push_back(Event::Failed(error.into())),
            Change::PeerClosed => self.close(CloseReason::PeerClosed),
            Change::Closed(reason) => self.close(reason),
        }
    }

    /// A handshake failed; of a point-to-point session, all that waited for it is lost.
    fn fail(&mut self, error: SessionError) {
        if !self.core.is_group() && self.peer.is_none() {
            let session = self.core.id;
            for message in self.producer.give_up() {
                let failed = SessionError::Undelivered { session, message };
                self.inbox.events.push_back(Event::Failed(failed));
            }
        }
        self.inbox.events.push_back(Event::Failed(error));
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
