//! Apps whose messages reach each other by a table of names, in one thread and a time of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_quic::identity::{Identity, IdentityError, Principal, Standing, TokenCheck, TokenSource};
use slim_quic::session::{
    ControlPlane, Controlled, Endpoint, Event, Limits, LinkId, Now, Output, Packet, SessionError,
    Setup, Ticket,
};
use slim_wire::{Name, TextName};

use super::model_mls::ModelFactory;

pub(crate) const LINK: LinkId = LinkId(0);

/// Tokens that are the app's name, with a secret that may be wrong.
pub(crate) struct PlainTokens(pub String, pub &'static str);

impl TokenSource for PlainTokens {
    fn token(&self, _: SystemTime) -> Result<Arc<str>, IdentityError> {
        Ok(format!("{}:{}", self.1, self.0).into())
    }
}

impl TokenCheck for PlainTokens {
    fn check(&self, token: &str, _: SystemTime) -> Result<Principal, IdentityError> {
        match token.split_once(':') {
            Some((secret, subject)) if secret == self.1 => {
                Ok(Principal { subject: subject.into(), issuer: None })
            }
            _ => Err(IdentityError::Invalid { reason: "shared secret mismatch".into() }),
        }
    }

    fn check_credential(
        &self,
        credential: &str,
        _: &[u8],
        _: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.check(credential, now)
    }
}

pub(crate) fn identity(name: &str, secret: &'static str) -> Identity {
    let tokens = Arc::new(PlainTokens(name.to_owned(), secret));
    Identity { source: tokens.clone(), check: tokens }
}

pub(crate) fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

/// Says of a message and an app whether it is lost on the way there.
pub(crate) type Loss = Box<dyn FnMut(&Packet, &str) -> bool>;

/// All apps, the names they listen to, and the messages under way.
pub(crate) struct Exchange {
    pub(crate) apps: BTreeMap<String, Endpoint>,
    subscriptions: BTreeSet<(Name, String)>,
    under_way: VecDeque<(String, Packet)>,
    pub(crate) completed: Vec<(String, Ticket, Result<(), SessionError>)>,
    pub(crate) controlled: Vec<(String, Controlled)>,
    pub(crate) rejected: Vec<(String, IdentityError)>,
    pub(crate) sent: Vec<Packet>,
    /// Whether a message is lost on its way to an app.
    pub(crate) lose: Loss,
    start: (Instant, SystemTime),
    pub(crate) elapsed: Duration,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            apps: BTreeMap::new(),
            subscriptions: BTreeSet::new(),
            under_way: VecDeque::new(),
            completed: Vec::new(),
            controlled: Vec::new(),
            rejected: Vec::new(),
            sent: Vec::new(),
            lose: Box::new(|_, _| false),
            start: (Instant::now(), SystemTime::now()),
            elapsed: Duration::ZERO,
        }
    }
}

impl Exchange {
    pub(crate) fn now(&self) -> Now {
        Now { instant: self.start.0 + self.elapsed, wall: self.start.1 + self.elapsed }
    }

    /// An app by `org/ns/app/id`, on the only link.
    pub(crate) fn join(&mut self, name: &str) {
        self.join_with(name, "secret", Limits::default());
    }

    pub(crate) fn join_with(&mut self, name: &str, secret: &'static str, limits: Limits) {
        self.join_under(name, identity(name, secret), limits, ControlPlane::default());
    }

    pub(crate) fn join_under(
        &mut self,
        name: &str,
        identity: Identity,
        limits: Limits,
        control_plane: ControlPlane,
    ) {
        let mut endpoint = Endpoint::new(Setup {
            name: text(name),
            identity,
            mls: Box::new(ModelFactory(name.to_owned())),
            rng: Box::new(StdRng::seed_from_u64(self.apps.len() as u64)),
            limits,
            store: false,
            control_plane,
        });
        endpoint.link_up(self.now(), LINK);
        self.apps.insert(name.to_owned(), endpoint);
        self.settle();
    }

    pub(crate) fn app(&mut self, name: &str) -> &mut Endpoint {
        self.apps.get_mut(name).expect("it has joined")
    }

    /// Does something with an app, and delivers what comes of it.
    pub(crate) fn with<T>(&mut self, name: &str, act: impl FnOnce(&mut Endpoint, Now) -> T) -> T {
        let now = self.now();
        let result = act(self.app(name), now);
        self.settle();
        result
    }

    fn settle(&mut self) {
        loop {
            let names: Vec<String> = self.apps.keys().cloned().collect();
            for name in names {
                while let Some(output) = self.app(&name).poll_output() {
                    self.carry_out(&name, output);
                }
            }
            let Some((to, packet)) = self.under_way.pop_front() else { return };
            let now = self.now();
            self.app(&to).handle(now, LINK, packet);
        }
    }

    fn carry_out(&mut self, app: &str, output: Output) {
        match output {
            Output::Subscribe(_, subscription) => {
                self.subscriptions.insert((subscription.name.to_name(), app.to_owned()));
            }
            Output::Unsubscribe(_, subscription) => {
                self.subscriptions.remove(&(subscription.name.to_name(), app.to_owned()));
            }
            Output::Send(_, packet) => self.route(app, *packet),
            Output::Completed(ticket, result) => {
                self.completed.push((app.to_owned(), ticket, result));
            }
            Output::Controlled(controlled) => self.controlled.push((app.to_owned(), *controlled)),
            Output::Rejected(_, error) => self.rejected.push((app.to_owned(), error)),
            Output::Save(..) | Output::Forget(_) => {}
            Output::Opened(_) | Output::Readable(_) | Output::Writable(_) => {}
        }
    }

    fn route(&mut self, from: &str, packet: Packet) {
        self.sent.push(packet.clone());
        let wanted = packet.destination;
        let matches = |name: &Name| {
            name.prefix == wanted.prefix && (wanted.id.is_any() || name.id == wanted.id)
        };
        let mut to: Vec<String> = self
            .subscriptions
            .iter()
            .filter(|(name, app)| matches(name) && app != from)
            .map(|(_, app)| app.clone())
            .collect();
        if packet.fanout == 1 {
            to.truncate(1);
        }
        for app in to {
            if !(self.lose)(&packet, &app) {
                self.under_way.push_back((app, packet.clone()));
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.elapsed + time;
        loop {
            let next = self.apps.values().filter_map(Endpoint::deadline).min();
            let next = next.map(|at| at.saturating_duration_since(self.start.0));
            match next.filter(|next| *next <= end) {
                Some(next) => self.elapsed = self.elapsed.max(next),
                None => break,
            }
            let now = self.now();
            self.apps.values_mut().for_each(|app| app.due(now));
            self.settle();
        }
        self.elapsed = end;
    }

    /// All there is to read of a session.
    pub(crate) fn read(&mut self, app: &str, session: u32) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some(event)) = self.with(app, |app, now| app.next_event(now, session)) {
            events.push(event);
        }
        events
    }

    /// The texts among them.
    pub(crate) fn texts(&mut self, app: &str, session: u32) -> Vec<String> {
        let text = |event| match event {
            Event::Message(_, payload) => Some(String::from_utf8_lossy(&payload).into_owned()),
            _ => None,
        };
        self.read(app, session).into_iter().filter_map(text).collect()
    }
}
