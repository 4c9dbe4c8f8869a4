//! What arrives in a session, and what it is answered with.

use std::collections::VecDeque;

use slim_wire::session::{Content, Delivery as Kind, FullName, Session as Part, SessionKind};
use slim_wire::{Class, Flags, Name, TextName};

use super::core::Turn;
use super::{Control, RECENT, SENDERS, Sender, Session, TELL_AFTER, TELL_BYTES, TELL_MESSAGES};
use crate::identity::Principal;
use crate::session::binding::identity;
use crate::session::error::SessionError;
use crate::session::event::{Context, Event, LinkId, Member};
use crate::session::packet::{ASK, PROBE, Packet};
use crate::session::receiver::{Delivery, Offer, Order, Receiver};
use crate::session::{Now, config};

impl Session {
    // What arrives.

    /// A message of this session, with a good token of `who`.
    pub(in crate::session) fn handle(
        &mut self,
        turn: &mut Turn<'_>,
        (link, who): (LinkId, &Principal),
        packet: Packet,
    ) {
        if !self.is_genuine(&packet, who) {
            return;
        }
        self.core.who = identity(who);
        if let Some(source) = &packet.session.source
            && source.to_name() == packet.source
            && self.core.texts.len() < SENDERS
        {
            self.core.texts.entry(packet.source).or_insert_with(|| source.clone());
        }
        self.dismiss(turn, &packet);
        match &packet.session.content {
            // Nobody will read it; an acknowledgement would be a lie.
            Content::Data(_)
            | Content::RetransmissionReply
            | Content::Ack
            | Content::RetransmissionRequest
            | Content::Beacon
                if self.closed.is_some() => {}
            Content::Data(_) | Content::RetransmissionReply => self.data(turn, link, packet),
            Content::Ack => self.acknowledged(turn.now, &packet),
            Content::RetransmissionRequest => self.asked_again(turn.now, &packet),
            Content::Beacon => self.beacon(turn.now, link, &packet),
            Content::Foreign { .. } => {}
            _ => match &mut self.control {
                Control::Moderator(moderator) => {
                    moderator.handle(turn, &mut self.core, &packet);
                }
                Control::Participant(participant) => {
                    if packet.source == participant.moderator {
                        self.link = link;
                    }
                    participant.handle(turn, &mut self.core, &packet);
                }
                Control::None => {}
            },
        }
        self.settle(turn);
    }

    /// Whether who sent a message may use the name that it carries.
    fn is_genuine(&mut self, packet: &Packet, who: &Principal) -> bool {
        let (source, who) = (packet.source, identity(who));
        if let Some(holds) = self.bindings.holds(source, &who) {
            return holds;
        }
        let encrypted = self.core.mls.is_some();
        match &self.control {
            Control::None => true,
            // Whoever was found under a name that was asked for is the one that joins.
            Control::Moderator(moderator) => match packet.session.content {
                Content::DiscoveryReply => true,
                Content::JoinReply if moderator.awaits(packet) => {
                    self.bindings.bind(source, who);
                    true
                }
                _ => false,
            },
            Control::Participant(participant) if self.core.is_group() => {
                // Without encryption, the moderator's list is all there is to go by.
                let members = participant.members();
                let listed = encrypted
                    || members.is_empty()
                    || members.iter().any(|member| member.is(source));
                let speaks = matches!(
                    packet.session.content,
                    Content::Data(_)
                        | Content::RetransmissionReply
                        | Content::Ack
                        | Content::RetransmissionRequest
                        | Content::Beacon
                );
                let may = source == participant.moderator || (speaks && listed);
                may && self.bindings.admit(source, &who, encrypted)
            }
            Control::Participant(_) => false,
        }
    }

    /// Who goes on in a group of which it is no member any more is told.
    fn dismiss(&mut self, turn: &mut Turn<'_>, packet: &Packet) {
        let takes_part = matches!(
            packet.session.content,
            Content::Data(Kind::Group)
                | Content::Ack
                | Content::Beacon
                | Content::RetransmissionRequest
                | Content::Proposal { .. }
        );
        if let Control::Moderator(moderator) = &mut self.control
            && self.closed.is_none()
            && takes_part
        {
            moderator.dismiss(turn, &mut self.core, packet.source);
        }
    }

    /// Number of the request to leave that ended this app's part.
    pub(in crate::session) fn left_by(&self) -> Option<u32> {
        match &self.control {
            Control::Participant(participant) => participant.dismissed_by(),
            _ => None,
        }
    }

    /// Number of the request to join that was answered last.
    pub(in crate::session) fn joined_by(&self) -> Option<u32> {
        match &self.control {
            Control::Participant(participant) => Some(participant.request()),
            _ => None,
        }
    }

    /// Who was invited refuses this app, or is refused by it.
    pub(in crate::session) fn refused(
        &mut self,
        turn: &mut Turn<'_>,
        packet: &Packet,
        reason: &str,
    ) {
        if let Control::Moderator(moderator) = &mut self.control {
            moderator.refused(&mut self.core, packet, reason);
        }
        self.settle(turn);
    }

    /// Whether `source` may speak in this session.
    pub(super) fn admits(&self, source: Name) -> bool {
        match &self.core.config.kind {
            config::Kind::Anycast => true,
            config::Kind::PointToPoint { .. } => self.peer == Some(source),
            config::Kind::Group { .. } => {
                source != self.core.local.to_name()
                    && match &self.control {
                        // Without encryption, the moderator's list is all there is to go by.
                        Control::Moderator(moderator) => moderator.is_member(source),
                        // What comes before the welcome is asked for again if it is meant for it.
                        Control::Participant(participant) => participant.has_joined(),
                        Control::None => true,
                    }
            }
        }
    }

    pub(super) fn data(&mut self, turn: &mut Turn<'_>, link: LinkId, packet: Packet) {
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
            return self.data_unordered(turn.now, link, packet);
        }
        let source = packet.source;
        let buffered: u64 = self.senders.values().map(|sender| sender.receiver.bytes()).sum();
        let Some(sender) = self.sender(turn.now, source, link) else { return };
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

    pub(super) fn is_ordered(&self, packet: &Packet) -> bool {
        match self.core.config.kind {
            config::Kind::Anycast => false,
            config::Kind::PointToPoint { .. } => {
                packet.session.content != Content::Data(Kind::Unreliable)
            }
            config::Kind::Group { .. } => true,
        }
    }

    pub(super) fn is_native_peer(&self) -> bool {
        match &self.control {
            Control::Moderator(moderator) => moderator.members().any(|member| member.native),
            Control::Participant(participant) => participant.native,
            Control::None => false,
        }
    }

    /// Without a reorder buffer: as it comes.
    pub(super) fn data_unordered(&mut self, now: Now, link: LinkId, packet: Packet) {
        let reliable = packet.session.content == Content::Data(Kind::Reliable);
        if !self.inbox.has_room(&self.limits) {
            self.dropped += 1;
            return;
        }
        let source = packet.source;
        let Ok(packet) = self.open(Box::new(packet)) else { return };
        if reliable {
            self.acknowledge_one(&packet, Flags::empty());
        }
        // The same message comes again if its acknowledgement is lost, or a network doubles it.
        let Some(sender) = self.sender(now, source, link) else { return };
        let id = packet.ids.message;
        if sender.recent.contains(&id) {
            return;
        }
        if sender.recent.len() == RECENT {
            sender.recent.pop_front();
        }
        sender.recent.push_back(id);
        self.receive(*packet, link);
    }

    /// The state kept of a sender; `None` if there are too many.
    pub(super) fn sender(&mut self, now: Now, name: Name, link: LinkId) -> Option<&mut Sender> {
        if !self.senders.contains_key(&name) {
            if self.senders.len() >= SENDERS {
                return None;
            }
            let sender = self.new_sender(now, name, link);
            self.senders.insert(name, sender);
        }
        let sender = self.senders.get_mut(&name)?;
        sender.link = link;
        Some(sender)
    }

    pub(super) fn new_sender(&self, now: Now, name: Name, link: LinkId) -> Sender {
        let reliability = self.core.config.reliability;
        let mut receiver = match self.core.config.kind {
            config::Kind::Group { .. } => self.group_receiver(name),
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
            receiver.decide(now.instant, true);
        }
        let recent = VecDeque::new();
        Sender { receiver, link, acknowledge, untold: (0, 0), tell_at: None, recent }
    }

    /// A member of this library may have sent messages before the first that is heard of, and can
    /// tell. Who is one, a moderator of this library says.
    fn group_receiver(&self, name: Name) -> Receiver {
        let order = Order::group(self.core.config.reliability);
        let undecided = match &self.control {
            Control::Participant(participant) => participant.will_tell_of(name),
            _ => false,
        };
        match self.is_native(name) || undecided {
            true => Receiver::undecided(order, self.heard.get(&name).copied().unwrap_or(0)),
            false => Receiver::new(order, None),
        }
    }

    /// Whether a member is known to use this library.
    pub(super) fn is_native(&self, name: Name) -> bool {
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
    pub(super) fn take(&mut self, now: Now, packet: Box<Packet>) {
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
    pub(super) fn open(
        &mut self,
        mut packet: Box<Packet>,
    ) -> Result<Box<Packet>, Option<Box<Packet>>> {
        let Some(mls) = &mut self.core.mls else {
            // It is not for this session's app to read.
            return if packet.session.encrypted { Err(None) } else { Ok(packet) };
        };
        if !packet.session.encrypted {
            return Err(None);
        }
        let Ok(opened) = mls.decrypt(&packet.payload) else { return Err(Some(packet)) };
        if !self.bindings.fits(packet.source, &opened.credential) {
            return Err(None);
        }
        packet.payload = opened.plaintext;
        packet.session.encrypted = false;
        Ok(packet)
    }

    /// Moves what is in order to the app, as far as it has room.
    pub(super) fn deliver_all(&mut self, now: Now) {
        let names: Vec<Name> = self.senders.keys().copied().collect();
        for name in names {
            self.deliver(now, name);
        }
    }

    pub(super) fn deliver(&mut self, now: Now, name: Name) {
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
                        self.count_untold(now, name, packet.payload.len());
                    } else {
                        self.acknowledge_one(&packet, Flags::empty());
                    }
                    self.receive(*packet, link);
                }
            }
        }
    }

    /// Hands a message to the app.
    pub(super) fn receive(&mut self, packet: Packet, link: LinkId) {
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

    pub(super) fn acknowledge_one(&mut self, packet: &Packet, flags: Flags) {
        let mut ack = self.core.answer(packet, Content::Ack);
        ack.session.kind = SessionKind::PointToPoint;
        ack.flags = flags;
        self.core.send(ack);
    }

    pub(super) fn count_untold(&mut self, now: Now, name: Name, bytes: usize) {
        let Some(sender) = self.senders.get_mut(&name) else { return };
        let (messages, before) = sender.untold;
        sender.untold = (messages + 1, before + bytes);
        if sender.acknowledge {
            if sender.untold.0 >= TELL_MESSAGES || sender.untold.1 >= TELL_BYTES {
                sender.tell_at = Some(now.instant);
            }
            sender.tell_at.get_or_insert(now.instant + TELL_AFTER);
        }
    }

    pub(super) fn tell_soon(&mut self, now: Now, name: Name) {
        if let Some(sender) = self.senders.get_mut(&name).filter(|sender| sender.acknowledge) {
            sender.tell_at.get_or_insert(now.instant + TELL_AFTER);
        }
    }

    /// Tells senders what has arrived, where that is due.
    pub(super) fn tell(&mut self, now: Now) {
        let due = |sender: &Sender| sender.tell_at.is_some_and(|at| at <= now.instant);
        let mut told = Vec::new();
        for (name, sender) in self.senders.iter_mut().filter(|(_, sender)| due(sender)) {
            (sender.untold, sender.tell_at) = ((0, 0), None);
            told.extend(sender.receiver.next().map(|next| (*name, next)));
        }
        for (name, next) in told {
            let ack = self.core.control(next, name, Content::Ack);
            self.core.send(ack);
        }
    }

    pub(super) fn acknowledged(&mut self, now: Now, packet: &Packet) {
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
    pub(super) fn expect(&mut self, name: Name, now: Now) {
        self.producer.expect(name, now.instant);
        if let Some(sender) = self.senders.get_mut(&name)
            && !std::mem::replace(&mut sender.acknowledge, true)
        {
            sender.receiver.be_patient();
            sender.receiver.decide(now.instant, true);
            sender.tell_at = Some(now.instant + TELL_AFTER);
        }
    }

    // Retransmissions.

    pub(super) fn asked_again(&mut self, now: Now, packet: &Packet) {
        if !self.admits(packet.source) {
            return;
        }
        let id = packet.ids.message;
        let mut reply = self.core.control(id, packet.source, Content::RetransmissionReply);
        reply.class = Class::Reliable;
        let mut kept = self.producer.sent_message(id).cloned();
        if self.core.is_group() && packet.is_probe() {
            // A member of this library asks where the messages begin that are meant for it.
            self.expect(packet.source, now);
            kept = kept.filter(|_| self.producer.is_for(packet.source, id));
        }
        match kept {
            Some(kept) => {
                let Ok(payload) = self.seal(&mut reply, &kept) else { return };
                reply.payload = payload;
                reply.session.source = Some(self.core.local.clone());
                reply.session.destination = self.destination_text();
                if packet.is_marked() {
                    // Published apps leave this out, and do not expect it.
                    reply.session.content_type = kept.payload_type;
                    reply.session.metadata = kept.metadata;
                }
            }
            None => reply.flags = Flags::ERROR,
        }
        self.core.send(reply);
    }

    pub(super) fn destination_text(&self) -> Option<TextName> {
        match &self.core.config.kind {
            config::Kind::Anycast => None,
            config::Kind::Group { channel: name } | config::Kind::PointToPoint { peer: name } => {
                name.to_text()
            }
        }
    }

    pub(super) fn beacon(&mut self, now: Now, link: LinkId, packet: &Packet) {
        if !self.core.is_group() || !self.admits(packet.source) {
            return;
        }
        let native = packet.is_marked();
        if self.sender(now, packet.source, link).is_none() {
            return;
        }
        if native {
            self.expect(packet.source, now);
            self.tell_soon(now, packet.source);
        }
        if let Some(sender) = self.senders.get_mut(&packet.source) {
            sender.receiver.announce(now.instant, packet.ids.message);
        }
        self.ask_for_missing(now);
        self.deliver_all(now);
    }

    pub(super) fn ask_for_missing(&mut self, now: Now) {
        let mut asked = Vec::new();
        for (name, sender) in &mut self.senders {
            let missing = sender.receiver.due(now.instant);
            asked.extend(missing.into_iter().map(|(id, probe)| (*name, id, probe)));
        }
        for (name, id, probe) in asked {
            let request = self.core.control(id, name, Content::RetransmissionRequest);
            self.core.send(request.marked_as(if probe { PROBE } else { ASK }));
        }
    }
}
