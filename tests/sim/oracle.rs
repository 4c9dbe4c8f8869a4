//! What was promised, and whether it was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use slim_quic::session::{
    CloseReason, Config, Context, ControlRequest, Controlled, Event, Kind, SessionError,
    SessionInfo, Ticket,
};
use slim_wire::session::Content;
use slim_wire::{Name, Prefix, SessionIds};

/// One app's part in one session, from its opening to its end.
pub(crate) struct Party {
    pub(crate) app: Name,
    pub(crate) session: u32,
    pub(crate) config: Config,
    pub(crate) initiator: bool,
    /// It can still be used.
    pub(crate) open: bool,
    /// Its app crashed, or ended it itself: what it missed is its own affair.
    gave_up: bool,
    /// Number of the last message of each sender, by its party.
    last: BTreeMap<usize, u32>,
    read: BTreeSet<usize>,
    /// Senders of which it was told that messages are lost.
    lost: BTreeSet<Name>,
    /// Members that it was told have left, and how many messages there were then.
    left: BTreeMap<Name, usize>,
}

struct Message {
    sender: usize,
    number: u32,
    at: Duration,
    payload: Bytes,
    /// Who was a member when it was published.
    expected: Vec<usize>,
    /// Of whom the sender was told that they may not have got it.
    told: BTreeSet<Name>,
    /// The sender was told that nobody got it.
    undelivered: bool,
    /// Published when nothing was wrong any more: it has to arrive.
    fresh: bool,
}

struct Request {
    session: u32,
    /// Whom it is to remove.
    removes: Option<Name>,
    done: bool,
}

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) parties: Vec<Party>,
    current: BTreeMap<(Name, u32), usize>,
    messages: Vec<Message>,
    requests: BTreeMap<(Name, Ticket), Request>,
    /// Requests of the control plane that were begun, by who has, and whether they have an outcome.
    asked: BTreeMap<(Name, u32, u32), bool>,
    /// Names that the control plane had a moderator remove, and nobody has invited since.
    dismissed: BTreeSet<(Name, u32, Prefix)>,
    /// Parties whose group the control plane had them delete.
    ending: BTreeSet<usize>,
    /// When the removal of an app from a session was complete.
    removed: BTreeMap<(u32, Name), Duration>,
    pub(crate) violation: Option<String>,
    pub(crate) reads: u64,
}

impl Oracle {
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    // What apps do.

    pub(crate) fn created(&mut self, app: Name, session: u32, config: Config) {
        self.enter(app, session, config, true);
    }

    pub(crate) fn opened(&mut self, app: Name, session: u32, info: Option<SessionInfo>) {
        match info {
            Some(info) => self.enter(app, session, info.config, info.initiator),
            None => self.violate(format!("{app}: session {session} was opened and is not there")),
        }
    }

    fn enter(&mut self, app: Name, session: u32, config: Config, initiator: bool) {
        let party = Party {
            app,
            session,
            config,
            initiator,
            open: true,
            gave_up: false,
            last: BTreeMap::new(),
            read: BTreeSet::new(),
            lost: BTreeSet::new(),
            left: BTreeMap::new(),
        };
        self.current.insert((app, session), self.parties.len());
        self.removed.remove(&(session, app));
        self.parties.push(party);
    }

    pub(crate) fn party(&self, app: Name, session: u32) -> Option<usize> {
        self.current.get(&(app, session)).copied()
    }

    /// The text of the next message.
    pub(crate) fn payload(&self, padding: usize) -> Bytes {
        format!("{}|{}", self.messages.len(), "x".repeat(padding)).into()
    }

    pub(crate) fn published(
        &mut self,
        at: Duration,
        (sender, number): (usize, u32),
        payload: Bytes,
        expected: Vec<usize>,
        fresh: bool,
    ) {
        let (told, undelivered) = (BTreeSet::new(), false);
        self.messages.push(Message {
            sender,
            number,
            at,
            payload,
            expected,
            told,
            undelivered,
            fresh,
        });
    }

    pub(crate) fn requested(
        &mut self,
        app: Name,
        ticket: Ticket,
        session: u32,
        removes: Option<Name>,
    ) {
        self.requests.insert((app, ticket), Request { session, removes, done: false });
    }

    /// Whoever has this name, or the prefix of it, may become a member again.
    pub(crate) fn invited(&mut self, by: Name, session: u32, name: Name) {
        self.dismissed.remove(&(by, session, name.prefix));
        self.removed.retain(|(of, removed), _| *of != session || removed.prefix != name.prefix);
    }

    /// An app has begun with a request of the control plane.
    pub(crate) fn asked(&mut self, app: Name, ids: SessionIds, content: &Content) {
        if self.asked.insert((app, ids.session, ids.message), false).is_some() {
            return self.violate(format!("{}: {ids:?} is executed for the second time", app.id));
        }
        match content {
            Content::DiscoveryRequest { participant: Some(name), .. } => {
                self.invited(app, ids.session, name.name);
            }
            Content::LeaveRequest { participant: Some(name), .. } => {
                self.dismissed.insert((app, ids.session, name.name.prefix));
            }
            _ => {}
        }
    }

    /// What became of a request of the control plane. Some are not begun.
    pub(crate) fn controlled(&mut self, app: Name, controlled: &Controlled) {
        let Controlled { ids, request, result } = controlled;
        let done = self.asked.get_mut(&(app, ids.session, ids.message));
        if done.is_some_and(|done| std::mem::replace(done, true)) {
            self.violate(format!("{}: {ids:?} is done for the second time", app.id));
        }
        if let (ControlRequest::Delete, Ok(())) = (request, result)
            && let Some(party) = self.party(app, ids.session)
        {
            self.ending.insert(party);
        }
    }

    /// Names that are not to be members, with the moderators and sessions.
    pub(crate) fn dismissed(&self) -> Vec<(Name, u32, Prefix)> {
        self.dismissed.iter().copied().collect()
    }

    pub(crate) fn deleted(&mut self, app: Name, session: u32) {
        if let Some(party) = self.current.get(&(app, session)) {
            let party = &mut self.parties[*party];
            (party.open, party.gave_up) = (false, true);
        }
    }

    pub(crate) fn crashed(&mut self, app: Name) {
        for party in self.parties.iter_mut().filter(|party| party.app == app) {
            (party.open, party.gave_up) = (false, true);
        }
        self.requests.retain(|(of, _), _| *of != app);
        self.asked.retain(|(of, ..), _| *of != app);
    }

    // What apps are told.

    pub(crate) fn completed(
        &mut self,
        at: Duration,
        app: Name,
        ticket: Ticket,
        result: Result<(), SessionError>,
    ) {
        let Some(request) = self.requests.get_mut(&(app, ticket)) else {
            return self.violate(format!("{app}: ticket {ticket:?} was not given"));
        };
        if std::mem::replace(&mut request.done, true) {
            return self.violate(format!("{app}: ticket {ticket:?} is completed twice"));
        }
        if let (Some(name), Ok(())) = (request.removes, result) {
            self.removed.insert((request.session, name), at);
        }
    }

    pub(crate) fn event(&mut self, at: Duration, app: Name, session: u32, event: Event) {
        let Some(index) = self.party(app, session) else {
            return self.violate(format!("{app}: an event of session {session}: {event:?}"));
        };
        if !self.parties[index].open && !matches!(event, Event::Closed(CloseReason::Deleted)) {
            let app = app.id;
            return self
                .violate(format!("{app}: after the end of session {session}: {event:.200?}"));
        }
        match event {
            Event::Message(context, payload) => self.read(at, index, &context, &payload),
            Event::Failed(error) => self.failed(index, &error),
            Event::Left(member) => {
                let count = self.messages.len();
                self.parties[index].left.insert(member.name, count);
            }
            Event::Joined(_) => {}
            Event::Closed(_) => self.parties[index].open = false,
        }
    }

    fn failed(&mut self, index: usize, error: &SessionError) {
        let told = match error {
            SessionError::Undelivered { message, .. } => (*message, *message, None),
            SessionError::Unacknowledged { first, last, member, .. } => {
                (*first, *last, Some(*member))
            }
            SessionError::Lost { sender, .. } => {
                self.parties[index].lost.insert(*sender);
                return;
            }
            _ => return,
        };
        let (first, last, member) = told;
        for message in self.messages.iter_mut().filter(|message| message.sender == index) {
            if (first..=last).contains(&message.number) {
                message.undelivered |= member.is_none();
                message.told.extend(member);
            }
        }
    }

    fn read(&mut self, at: Duration, index: usize, context: &Context, payload: &Bytes) {
        self.reads += 1;
        let party = &mut self.parties[index];
        let (app, session, source) = (party.app, party.session, context.source.name);
        let text = String::from_utf8_lossy(payload).into_owned();
        let number = text.split('|').next().and_then(|number| number.parse::<usize>().ok());
        let wrong = |what: &str| {
            Some(format!(
                "{}: session {session}: message {text:.9} of {}: {what}",
                app.id, source.id
            ))
        };
        let Some((number, message)) = number.and_then(|n| Some((n, self.messages.get(n)?))) else {
            self.violation = wrong("nobody published it");
            return;
        };
        let fresh = party.read.insert(number);
        let last = party.last.insert(message.sender, context.message);
        let sender = &self.parties[message.sender];
        let what = if message.payload != *payload {
            "its bytes have changed"
        } else if (sender.app, sender.session) != (source, session) {
            "another app published it, or in another session"
        } else if message.number != context.message {
            "its number is another"
        } else if !fresh {
            "for the second time"
        } else if is_ordered(&sender.config) && last.is_some_and(|last| last > context.message) {
            "out of order"
        } else if self.removed.get(&(session, app)).is_some_and(|removed| message.at > *removed) {
            "published after this app was removed"
        } else {
            return;
        };
        self.violation = wrong(&format!("{what} (at {at:?}, published at {:?})", message.at));
    }

    // What is left to be kept.

    /// What has yet to happen, if anything.
    pub(crate) fn pending(&self) -> Option<String> {
        let open = self.requests.iter().find(|(_, request)| !request.done);
        if let Some(((app, ticket), request)) = open {
            let session = request.session;
            return Some(format!("{app}: session {session}: {ticket:?} has no result"));
        }
        if let Some(((app, session, request), _)) = self.asked.iter().find(|(_, done)| !**done) {
            return Some(format!("{app}: session {session}: request {request} has no result"));
        }
        if let Some(party) = self.ending.iter().find(|party| self.parties[**party].open) {
            let Party { app, session, .. } = &self.parties[*party];
            return Some(format!("{app}: session {session} was deleted and has not ended"));
        }
        self.messages.iter().enumerate().find_map(|(index, message)| self.missing(index, message))
    }

    fn missing(&self, index: usize, message: &Message) -> Option<String> {
        let sender = &self.parties[message.sender];
        if sender.config.reliability.is_none() || !sender.open {
            return None;
        }
        let kind = match (&sender.config.kind, sender.config.mls) {
            (Kind::Anycast, _) => "anycast",
            (Kind::PointToPoint { .. }, false) => "point-to-point",
            (Kind::PointToPoint { .. }, true) => "encrypted point-to-point",
            (Kind::Group { .. }, false) => "group",
            (Kind::Group { .. }, true) => "encrypted group",
        };
        let what = format!(
            "message {index} (number {} of {} in {kind} {}, published at {:?}{})",
            message.number,
            sender.app.id,
            sender.session,
            message.at,
            if message.fresh { ", fresh" } else { "" },
        );
        if !sender.config.is_group() {
            let same = |party: &&Party| party.session == sender.session;
            let mut others = self.parties.iter().filter(same);
            let settled = others
                .any(|party| party.read.contains(&index) || (party.gave_up && !message.fresh));
            let excused = settled || (message.undelivered && !message.fresh);
            return (!excused).then(|| format!("{what} was neither delivered nor given up"));
        }
        let missing = |party: &Party| {
            let told = message.undelivered || message.told.contains(&party.app);
            let left = sender.left.get(&party.app).is_some_and(|count| *count > index);
            party.open
                && party.config.reliability.is_some()
                && !party.read.contains(&index)
                && (message.fresh || !(told || left))
        };
        let party = message.expected.iter().map(|party| &self.parties[*party]);
        let party = party.into_iter().find(|party| missing(party))?;
        let told = match party.lost.contains(&sender.app) {
            true => "which was told that something is lost, but the sender was not",
            false => "and nobody was told",
        };
        Some(format!("{what} has not reached {}, {told}", party.app.id))
    }
}

fn is_ordered(config: &Config) -> bool {
    match config.kind {
        Kind::Group { .. } => true,
        Kind::PointToPoint { .. } => config.reliability.is_some(),
        Kind::Anycast => false,
    }
}
