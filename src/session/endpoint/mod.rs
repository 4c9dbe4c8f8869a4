//! The sessions of one app.

mod app;
mod control;
mod inbound;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use rand::Rng;
use slim_wire::{Id, Name, Prefix, TextName};

use self::control::Control;
use super::Now;
use super::config::Limits;
use super::control::ControlPlane;
use super::error::{CloseReason, SessionError};
use super::event::{LinkId, Output};
use super::machine::{Effect, Session, Turn};
use super::packet::Packet;
use crate::identity::Identity;
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
    /// Who may have it moderate groups.
    pub control_plane: ControlPlane,
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

impl Gone {
    /// Whether late messages must not open it again. Whoever goes on after a pause is welcome.
    fn is_final(&self, id: u32) -> bool {
        self.id == id && self.reason != CloseReason::Idle
    }
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
    control: Control,
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
        let Setup { name, identity, mls, rng, limits, store, control_plane } = setup;
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
            control: Control::new(control_plane),
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

    /// The app has let go of a link: its sessions end, and routes by it are taken back.
    pub fn remove_link(&mut self, now: Now, link: LinkId) {
        self.links.remove(&link);
        self.routes.retain(|_, by| *by != link);
        self.channels.retain(|(on, _)| *on != link);
        for id in self.sessions_on(link) {
            self.end_session(now, id);
        }
    }

    /// The app ends: so do its sessions, and nobody is told.
    pub fn stop(&mut self, now: Now) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end_session(now, id);
        }
    }

    fn end_session(&mut self, now: Now, id: u32) {
        self.with(id, now, |session, _| session.end(CloseReason::Stopped));
        self.outputs.push_back(Output::Readable(id));
    }

    /// Whether nothing that was published waits to be sent or acknowledged.
    pub fn is_settled(&self) -> bool {
        self.sessions.values().all(|entry| entry.session.is_settled())
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
    ///
    /// # Errors
    /// [`SessionError::NoLink`] if there is no such link.
    pub fn set_route(&mut self, name: &TextName, link: LinkId) -> Result<(), SessionError> {
        if !self.links.contains_key(&link) {
            return Err(SessionError::NoLink);
        }
        self.routes.insert(name.to_name(), link);
        Ok(())
    }

    /// Takes a route back.
    pub fn remove_route(&mut self, name: &TextName) {
        self.routes.remove(&name.to_name());
    }

    /// The first link that is up, or else that may be again.
    fn first_link(&self) -> Option<LinkId> {
        let up = self.links.iter().find(|(_, up)| **up).map(|(link, _)| *link);
        up.or_else(|| self.links.keys().next().copied())
    }

    fn route(&self, name: Name) -> Option<LinkId> {
        let any = Name { id: Id::ANY, ..name };
        self.routes.get(&name).or_else(|| self.routes.get(&any)).copied()
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
                Effect::Complete(ticket, result) => self.completed(ticket, result),
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

    /// Ends the session that was idle for longest, if it was for long: peers of published releases
    /// go without a word.
    fn make_room(&mut self, now: Now) {
        let idle = |(id, entry): (&u32, &Entry)| entry.session.idle_since().map(|at| (at, *id));
        let oldest = self.sessions.iter().filter_map(idle).min();
        if let Some((since, id)) = oldest
            && since + self.limits.anycast_idle <= now.instant
        {
            self.with(id, now, |session, _| session.end(CloseReason::Idle));
            self.drop_session(id);
            self.outputs.push_back(Output::Readable(id));
        }
    }

    fn drop_session(&mut self, id: u32) {
        let Some(entry) = self.sessions.remove(&id) else { return };
        self.control.forget(id);
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        let reason = entry.session.close_reason().unwrap_or(CloseReason::Deleted);
        // What ends with its process goes on in the next.
        if self.store && reason != CloseReason::Stopped {
            self.mls.forget(id);
            self.outputs.push_back(Output::Forget(id));
        }
        if self.gone.len() == GONE {
            self.gone.pop_front();
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
