//! The sessions of one app.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use slim_wire::session::{Content, Delivery, FullName, SessionKind};
use slim_wire::{Flags, Id, Name, Prefix, TextName};

use super::config::{self, Config, Limits};
use super::error::{CloseReason, SessionError};
use super::event::{Event, LinkId, Member, Output, Publication, SessionInfo, Ticket};
use super::machine::{Effect, Origin, Session, Turn};
use super::packet::Packet;
use super::saved::Saved;
use super::{NATIVE_MARK, Now};
use crate::identity::{Identity, IdentityError};
use crate::mls::MlsFactory;

/// What an app's sessions need.
pub struct Setup {
    /// The app's name, with its id.
    pub name: TextName,
    /// Its tokens, and its judgement of others'.
    pub identity: Identity,
    /// Its encrypted groups.
    pub mls: Box<dyn MlsFactory>,
    /// For session ids and numbers of requests.
    pub rng: Box<dyn Rng + Send>,
    /// Bounds.
    pub limits: Limits,
    /// Whether encrypted groups are to be stored; see [`Endpoint::restore`].
    pub store: bool,
}

/// A name that an app listens to on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The name: an app's with its id, or a channel's without.
    pub name: TextName,
    /// It is a channel.
    pub channel: bool,
    /// This app creates the channel.
    pub creates: bool,
}

struct Entry {
    session: Session,
    deadline: Option<Instant>,
    /// That there is something to read has been said.
    announced: bool,
}

/// A session that has ended.
#[derive(Clone, Copy)]
struct Gone {
    id: u32,
    reason: CloseReason,
    /// Number of the request to join it.
    request: Option<u32>,
    /// Number of the request to leave it.
    leave: Option<u32>,
    /// Number of the app's next message.
    next: u32,
}

/// The sessions of one app; see the [module](super).
pub struct Endpoint {
    name: TextName,
    /// All names that the app answers to, with its id.
    names: BTreeMap<Prefix, TextName>,
    identity: Identity,
    mls: Box<dyn MlsFactory>,
    rng: Box<dyn Rng + Send>,
    limits: Limits,
    store: bool,
    /// Links, and whether they are up.
    links: BTreeMap<LinkId, bool>,
    routes: BTreeMap<Name, LinkId>,
    channels: Vec<(LinkId, Subscription)>,
    sessions: BTreeMap<u32, Entry>,
    deadlines: BTreeSet<(Instant, u32)>,
    /// Sessions that others opened and the app has not asked for.
    waiting: VecDeque<u32>,
    /// Sessions that have ended, the last ones.
    gone: VecDeque<Gone>,
    outputs: VecDeque<Output>,
    tickets: u64,
}

/// Ended sessions that are remembered, so that late messages do not open them again.
const GONE: usize = 1024;

/// Session ids are below this in release 0.6.
const SESSION_IDS: u32 = u32::MAX - 1000;

/// Longest reason in an answer to who is refused, in bytes.
const REASON_BYTES: usize = 200;

impl Endpoint {
    /// An app without links and sessions.
    pub fn new(setup: Setup) -> Self {
        let Setup { name, identity, mls, rng, limits, store } = setup;
        Self {
            names: BTreeMap::from([(name.to_name().prefix, name.clone())]),
            name,
            identity,
            mls,
            rng,
            limits,
            store,
            links: BTreeMap::new(),
            routes: BTreeMap::new(),
            channels: Vec::new(),
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: VecDeque::new(),
            gone: VecDeque::new(),
            outputs: VecDeque::new(),
            tickets: 0,
        }
    }

    /// The app's name, with its id.
    pub fn name(&self) -> &TextName {
        &self.name
    }

    /// A token of the app.
    ///
    /// # Errors
    /// [`SessionError::Identity`].
    pub fn token(&self, now: Now) -> Result<std::sync::Arc<str>, SessionError> {
        Ok(self.identity.source.token(now.wall)?)
    }

    // Links, names and routes.

    /// A link is up, for the first time or again: the app's names are to be subscribed to on it,
    /// and sessions that used it go on.
    pub fn link_up(&mut self, now: Now, link: LinkId) {
        self.links.insert(link, true);
        let names = self.names.values().cloned();
        let own = names.map(|name| Subscription { name, channel: false, creates: false });
        let channels = self.channels.iter().filter(|(on, _)| *on == link);
        let all: Vec<_> = own.chain(channels.map(|(_, channel)| channel.clone())).collect();
        self.outputs.extend(all.into_iter().map(|name| Output::Subscribe(link, name)));
        for id in self.sessions_on(link) {
            self.with(id, now, |session, turn| session.resume(turn));
        }
    }

    /// A link is lost. Until it is up again its sessions wait.
    pub fn link_down(&mut self, now: Now, link: LinkId) {
        self.links.insert(link, false);
        for id in self.sessions_on(link) {
            self.with(id, now, |session, _| session.pause());
        }
    }

    fn sessions_on(&self, link: LinkId) -> Vec<u32> {
        let on = |entry: &Entry| entry.session.link() == link;
        self.sessions.iter().filter(|(_, entry)| on(entry)).map(|(id, _)| *id).collect()
    }

    /// The app also answers to this name, with its own id.
    pub fn subscribe(&mut self, name: &TextName) {
        let name = with_id(name, self.name.id());
        self.for_each_link(|link| Output::Subscribe(link, own(name.clone())));
        self.names.insert(name.to_name().prefix, name);
    }

    /// The app no longer answers to this name. Its own name stays.
    pub fn unsubscribe(&mut self, name: &TextName) {
        let name = with_id(name, self.name.id());
        if name != self.name && self.names.remove(&name.to_name().prefix).is_some() {
            self.for_each_link(|link| Output::Unsubscribe(link, own(name.clone())));
        }
    }

    fn for_each_link(&mut self, output: impl Fn(LinkId) -> Output) {
        let up = self.links.iter().filter(|(_, up)| **up).map(|(link, _)| *link);
        self.outputs.extend(up.map(output));
    }

    /// Messages to `name` go on `link`. Without a route they go where those before came from, or
    /// on the first link.
    pub fn set_route(&mut self, name: &TextName, link: LinkId) {
        self.routes.insert(name.to_name(), link);
    }

    /// Takes a route back.
    pub fn remove_route(&mut self, name: &TextName) {
        self.routes.remove(&name.to_name());
    }

    fn route(&self, name: Name) -> Option<LinkId> {
        let any = Name { id: Id::ANY, ..name };
        self.routes.get(&name).or_else(|| self.routes.get(&any)).copied()
    }

    // What the app does.

    /// Creates a session. Nothing is sent before the first message or invitation.
    ///
    /// # Errors
    /// [`SessionError::NoLink`]; [`SessionError::Argument`] for options that do not go together;
    /// without a token [`SessionError::Identity`].
    pub fn create(&mut self, now: Now, config: Config) -> Result<u32, SessionError> {
        let id = self.free_id();
        self.create_with(now, config, id)
    }

    fn create_with(&mut self, now: Now, config: Config, id: u32) -> Result<u32, SessionError> {
        check_config(&config)?;
        self.identity.source.token(now.wall)?;
        let to = match &config.kind {
            config::Kind::Anycast => None,
            config::Kind::PointToPoint { peer: name } | config::Kind::Group { channel: name } => {
                self.route(name.name)
            }
        };
        let link = to.or_else(|| self.links.keys().next().copied()).ok_or(SessionError::NoLink)?;
        if self.sessions.len() >= self.limits.sessions {
            let (field, expected) = ("sessions", "fewer than the limit");
            let got = self.sessions.len().to_string();
            return Err(SessionError::Argument { field, expected, got });
        }
        let mls = config.mls.then(|| self.mls.session(id)).transpose()?;
        let origin = Origin { id, local: self.name.clone(), link, mls, next: 0 };
        let session = Session::create(origin, config, self.limits, now)?;
        self.insert(id, session);
        Ok(id)
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
        let link = self.links.keys().next().copied().ok_or(SessionError::NoLink)?;
        let mls = Some(self.mls.reopen(id)?);
        let origin = Origin { id, local: saved.local, link, mls, next: saved.next };
        let mut turn = Turn { now, rng: &mut *self.rng };
        let session = Session::restore(&mut turn, origin, config, self.limits, saved.role);
        self.insert(id, session);
        self.settle(now, id);
        Ok(id)
    }

    fn free_id(&mut self) -> u32 {
        loop {
            let id = self.rng.next_u32() % SESSION_IDS;
            let gone = self.gone.iter().any(|gone| gone.id == id);
            if !gone && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    fn insert(&mut self, id: u32, mut session: Session) {
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

    fn check_publication(&self, publication: &Publication) -> Result<(), SessionError> {
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
        self.try_with(id, now, |session, turn| session.invite(turn, name, (ticket, None)))?;
        Ok(ticket)
    }

    /// Removes an app from a group, by its name with or without its id. [`Output::Completed`]
    /// tells what became of it.
    ///
    /// # Errors
    /// Where nothing was started.
    pub fn remove(&mut self, now: Now, id: u32, name: &TextName) -> Result<Ticket, SessionError> {
        let ticket = self.ticket();
        let name = FullName::from(name);
        self.try_with(id, now, |session, turn| session.remove(turn, name, ticket))?;
        Ok(ticket)
    }

    fn ticket(&mut self) -> Ticket {
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

    fn no_session(&self, id: u32) -> SessionError {
        match self.gone.iter().rev().find(|gone| gone.id == id) {
            Some(gone) => SessionError::Closed(gone.reason),
            None => SessionError::Unknown { session: id },
        }
    }

    // What arrives.

    /// A message has arrived on a link.
    pub fn handle(&mut self, now: Now, link: LinkId, packet: Packet) {
        if self.is_for_another(&packet) {
            return;
        }
        if let Err(error) = self.verify(now, &packet) {
            return self.reject(now, link, &packet, error);
        }
        let id = packet.ids.session;
        match &packet.session.content {
            Content::DiscoveryRequest { participant, .. } => {
                let participant = participant.as_deref().cloned();
                self.discovered(now, link, &packet, participant);
            }
            Content::LeaveRequest { .. } if self.has_left(&packet) => {
                let reply = Packet::answer(&packet, self.name.to_name(), Content::LeaveReply);
                self.send(now, link, reply);
            }
            _ if self.sessions.contains_key(&id) => {
                self.with(id, now, |session, turn| session.handle(turn, link, packet));
            }
            Content::JoinRequest { .. } if self.is_for_us(&packet) => {
                self.invited(now, link, packet);
            }
            Content::Data(Delivery::Reliable | Delivery::Unreliable) if self.is_for_us(&packet) => {
                self.addressed(now, link, packet);
            }
            _ => {}
        }
    }

    fn verify(&self, now: Now, packet: &Packet) -> Result<(), IdentityError> {
        let token = packet.session.identity.as_deref().ok_or(IdentityError::Missing)?;
        self.identity.check.check(token, now.wall).map(|_| ())
    }

    /// Who asks to be let in and uses this library is told why it is not.
    fn reject(&mut self, now: Now, link: LinkId, packet: &Packet, error: IdentityError) {
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
    fn has_left(&self, packet: &Packet) -> bool {
        let (id, request) = (packet.ids.session, Some(packet.ids.message));
        let open = self.sessions.contains_key(&id);
        self.gone.iter().any(|gone| gone.id == id && (!open || gone.leave == request))
    }

    /// Whether a message names this app, or any instance of it.
    fn is_for_us(&self, packet: &Packet) -> bool {
        let Name { prefix, id } = packet.destination;
        self.names.contains_key(&prefix) && (id.is_any() || id == self.name.id())
    }

    /// Whether a message names another instance of this app: nodes pass on what is for one that
    /// they do not know.
    fn is_for_another(&self, packet: &Packet) -> bool {
        let Name { prefix, id } = packet.destination;
        self.names.contains_key(&prefix) && !id.is_any() && id != self.name.id()
    }

    fn discovered(
        &mut self,
        now: Now,
        link: LinkId,
        packet: &Packet,
        participant: Option<FullName>,
    ) {
        let id = packet.ids.session;
        let initiator = self.sessions.get(&id).is_some_and(|entry| entry.session.initiator());
        if let (true, Some(name)) = (initiator, participant) {
            let ticket = (self.ticket(), Some(packet.ids.message));
            self.routes.entry(name.name).or_insert(link);
            // The control plane learns of a failure by the silence of who was to be invited.
            let invite =
                |session: &mut Session, turn: &mut Turn<'_>| session.invite(turn, name, ticket);
            let _ = self.try_with(id, now, invite);
            return;
        }
        if self.is_for_us(packet) {
            let source = Name { prefix: packet.destination.prefix, id: self.name.id() };
            let reply = Packet::answer(packet, source, Content::DiscoveryReply);
            self.send(now, link, reply);
        }
    }

    fn has_room(&self) -> bool {
        self.sessions.len() < self.limits.sessions
            && self.waiting.len() < self.limits.waiting_sessions
    }

    /// The name under which a message reached the app.
    fn local(&self, packet: &Packet) -> TextName {
        self.names.get(&packet.destination.prefix).unwrap_or(&self.name).clone()
    }

    fn invited(&mut self, now: Now, link: LinkId, packet: Packet) {
        let id = packet.ids.session;
        let Content::JoinRequest { channel, moderator, mls, as_moderator } =
            &packet.session.content
        else {
            return;
        };
        let request = Some(packet.ids.message);
        let late = self.gone.iter().any(|gone| gone.id == id && gone.request == request);
        if !self.has_room() || late {
            return;
        }
        let group = packet.session.kind == SessionKind::Group;
        let mut config = match group {
            true => match channel_of(&packet, channel) {
                Some(channel) => Config::group(&channel),
                None => return,
            },
            false => Config::with_peer(peer_of(&packet, moderator)),
        };
        config.reliability = Some(match group {
            true => config::INVITED_GROUP,
            false => config::INVITED_POINT_TO_POINT,
        });
        config.mls = *mls;
        config.metadata = session_metadata(&packet);
        if *as_moderator {
            if group && self.create_with(now, config, id).is_ok() {
                self.open(id);
                self.touch(id);
            }
            return;
        }
        let Ok(mls) = config.mls.then(|| self.mls.session(id)).transpose() else { return };
        let before = self.gone.iter().rev().find(|gone| gone.id == id);
        let next = before.map_or(0, |gone| gone.next);
        let origin = Origin { id, local: self.local(&packet), link, mls, next };
        let mut turn = Turn { now, rng: &mut *self.rng };
        let session = Session::join(&mut turn, origin, config, self.limits, &packet);
        if let Some(session) = session {
            self.insert(id, session);
            self.open(id);
            self.settle(now, id);
        }
    }

    /// A message of a session that nobody was invited to: anycast.
    fn addressed(&mut self, now: Now, link: LinkId, packet: Packet) {
        let id = packet.ids.session;
        let gone = self.gone.iter().any(|gone| gone.id == id);
        if gone || packet.session.encrypted || !self.has_room() {
            return;
        }
        let mut config = Config::anycast();
        if packet.session.content == Content::Data(Delivery::Reliable) {
            config.reliability = Some(config::INVITED_POINT_TO_POINT);
        }
        let origin = Origin { id, local: self.local(&packet), link, mls: None, next: 0 };
        self.insert(id, Session::anycast(origin, config, self.limits));
        self.open(id);
        self.with(id, now, |session, turn| session.handle(turn, link, packet));
    }

    fn open(&mut self, id: u32) {
        self.waiting.push_back(id);
        self.outputs.push_back(Output::Opened(id));
    }

    // Time and outputs.

    /// Something is to be done at this time, if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Does what is due.
    pub fn due(&mut self, now: Now) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now.instant {
                return;
            }
            self.with(id, now, |session, turn| session.due(turn));
            let again = self.sessions.get(&id).and_then(|entry| entry.deadline);
            if again.is_some_and(|again| again <= now.instant) {
                // What cannot be done now must not keep the others from their turn.
                self.postpone(id, now);
            }
        }
    }

    fn postpone(&mut self, id: u32, now: Now) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
        if let Some(entry) = self.sessions.get_mut(&id)
            && let Some(deadline) = entry.deadline
        {
            self.deadlines.remove(&(deadline, id));
            let later = now.instant + PAUSE;
            entry.deadline = Some(later);
            self.deadlines.insert((later, id));
        }
    }

    /// The next thing to be done or known.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn with(&mut self, id: u32, now: Now, act: impl FnOnce(&mut Session, &mut Turn<'_>)) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        act(&mut entry.session, &mut Turn { now, rng: &mut *self.rng });
        self.settle(now, id);
    }

    fn try_with<T>(
        &mut self,
        id: u32,
        now: Now,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let missing = self.no_session(id);
        let entry = self.sessions.get_mut(&id).ok_or(missing)?;
        let result = act(&mut entry.session, &mut Turn { now, rng: &mut *self.rng });
        self.settle(now, id);
        result
    }

    /// Passes on what a session wants done.
    fn settle(&mut self, now: Now, id: u32) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if self.store
            && let Some(saved) = entry.session.save(&self.name)
        {
            self.outputs.push_back(Output::Save(id, saved));
        }
        let (effects, link) = (entry.session.take_effects(), entry.session.link());
        let info = entry.session.channel();
        for effect in effects {
            match effect {
                Effect::Send(packet) => {
                    let on = self.route(packet.destination).unwrap_or(link);
                    self.send(now, on, *packet);
                }
                Effect::Subscribe(creates) => {
                    let Some(name) = info.clone() else { continue };
                    let subscription = Subscription { name, channel: true, creates };
                    self.channels.push((link, subscription.clone()));
                    self.outputs.push_back(Output::Subscribe(link, subscription));
                }
                Effect::Unsubscribe => self.leave_channel(link, info.as_ref()),
                Effect::Complete(ticket, result) => {
                    self.outputs.push_back(Output::Completed(ticket, result));
                }
            }
        }
        self.touch(id);
    }

    /// Another session may be on the same channel.
    fn leave_channel(&mut self, link: LinkId, name: Option<&TextName>) {
        let is_it =
            |(on, channel): &(LinkId, Subscription)| *on == link && Some(&channel.name) == name;
        let Some(index) = self.channels.iter().position(is_it) else { return };
        let (_, subscription) = self.channels.remove(index);
        if !self.channels.iter().any(is_it) {
            self.outputs.push_back(Output::Unsubscribe(link, subscription));
        }
    }

    /// Brings up to date what is known of a session.
    fn touch(&mut self, id: u32) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let deadline = entry.session.deadline();
        if deadline != entry.deadline {
            if let Some(old) = entry.deadline {
                self.deadlines.remove(&(old, id));
            }
            self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
            entry.deadline = deadline;
        }
        if entry.session.take_writable() {
            self.outputs.push_back(Output::Writable(id));
        }
        if entry.session.is_readable() {
            if !std::mem::replace(&mut entry.announced, true) {
                self.outputs.push_back(Output::Readable(id));
            }
        } else if entry.session.is_over() {
            self.drop_session(id);
        }
    }

    fn drop_session(&mut self, id: u32) {
        let Some(entry) = self.sessions.remove(&id) else { return };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if self.gone.len() == GONE {
            self.gone.pop_front();
        }
        let reason = entry.session.close_reason().unwrap_or(CloseReason::Deleted);
        if self.store {
            self.mls.forget(id);
            self.outputs.push_back(Output::Forget(id));
        }
        self.gone.push_back(Gone {
            id,
            reason,
            request: entry.session.joined_by(),
            leave: entry.session.left_by(),
            next: entry.session.next_message(),
        });
    }

    fn send(&mut self, now: Now, link: LinkId, mut packet: Packet) {
        // Without a token nobody would take it; requests are repeated, and publishing says so.
        let Ok(token) = self.identity.source.token(now.wall) else { return };
        packet.session.identity = Some(token.as_ref().to_owned());
        self.outputs.push_back(Output::Send(link, Box::new(packet)));
    }
}

fn own(name: TextName) -> Subscription {
    Subscription { name, channel: false, creates: false }
}

/// The name with another id.
fn with_id(name: &TextName, id: Id) -> TextName {
    TextName::new(name.components(), id).unwrap_or_else(|_| name.clone())
}

/// The channel of a request to join a group, whose texts are needed to subscribe to it.
fn channel_of(packet: &Packet, channel: &FullName) -> Option<TextName> {
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
fn session_metadata(packet: &Packet) -> Vec<(String, String)> {
    let given = packet.session.metadata.iter().filter(|(key, _)| key != NATIVE_MARK);
    given.cloned().collect()
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

/// Keys that the protocol uses itself.
fn check_metadata(metadata: &[(String, String)]) -> Result<(), SessionError> {
    const PREFIXES: [&str; 3] = ["SLIM_", "MLS_", "CHANNEL_"];
    const KEYS: [&str; 3] = ["IS_MODERATOR", "PARTICIPANT_NAME", "DELETE_GROUP"];
    let reserved =
        |key: &str| KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let mut seen = BTreeSet::new();
    for (key, _) in metadata {
        let expected = match (reserved(key), seen.insert(key)) {
            (true, _) => "a key that the protocol does not use itself",
            (false, false) => "each key once",
            (false, true) => continue,
        };
        return Err(SessionError::Argument { field: "metadata key", expected, got: key.clone() });
    }
    Ok(())
}
