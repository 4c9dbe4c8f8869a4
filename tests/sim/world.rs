//! Apps, the network between them and their node, and one clock, in one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use slim_quic::session::{ControlPlane, Endpoint, LinkId, Now, Output, Packet, Setup};
use slim_wire::{Class, Header, Name, TextName, lane};

use super::control::Managed;
use super::exchange::identity;
use super::node::{Node, Port, encode};
use super::oracle::Oracle;
use super::plant::{Bug, Plant};
use super::profile::{Faults, Profile, chance};
use super::script::Operation;
use super::trace::Trace;

/// The only link of each app.
pub(crate) const LINK: LinkId = LinkId(0);

/// Outputs that one call may cause: each member may miss a whole buffer of messages.
const OUTPUTS: usize = 8 * 500 + 100;

pub(crate) struct App {
    pub(crate) slot: usize,
    pub(crate) name: TextName,
    /// `None`: it has crashed.
    pub(crate) endpoint: Option<Endpoint>,
    port: Option<Port>,
    /// Of the link: what is under way on an older one is lost.
    epoch: u64,
    /// What arrives is not read from the node.
    clogged: bool,
    /// What has arrived is not read from the endpoint.
    pub(crate) sleeping: bool,
    unread: BTreeSet<u32>,
    /// When the last message of a lane arrives, to the node and from it.
    lanes: BTreeMap<(bool, u8), Duration>,
    /// When the last subscription arrives at the node.
    subscribed: Duration,
}

pub(crate) enum Happening {
    AtNode(usize, u64, Box<(Header, Bytes)>),
    AtApp(usize, u64, Box<Packet>),
    Subscribe(usize, u64, Name),
    Unsubscribe(usize, u64, Name),
    Operation(Operation),
    Accident(Accident),
    LinkUp(usize),
    Restart(usize),
    Unclog(usize),
    Wake(usize),
}

/// What may befall an app, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accident {
    Partition(usize, Duration),
    Crash(usize, Duration),
    NodeCrash(Duration),
    Sleep(usize, Duration),
    Clog(usize, Duration),
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) faults: Faults,
    pub(crate) rng: StdRng,
    pub(crate) apps: Vec<App>,
    node: Node,
    node_down: bool,
    start: (Instant, SystemTime),
    pub(crate) elapsed: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) plant: Plant,
    /// Groups of the control plane.
    pub(crate) managed: Vec<Managed>,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, keep: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut profile = Profile::draw(&mut rng);
        let plant = Plant::new(bug, &mut rng, &mut profile);
        let node = Node::new(profile.cores, profile.queue_bytes, seed);
        let mut world = Self {
            seed,
            faults: profile.faults,
            rng,
            apps: Vec::new(),
            node,
            node_down: false,
            start: (Instant::now(), SystemTime::now()),
            elapsed: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            oracle: Oracle::default(),
            trace: Trace::new(keep),
            plant,
            managed: Vec::new(),
            profile,
        };
        for slot in 0..world.profile.apps {
            world.apps.push(App {
                slot,
                name: "org/ns/none".parse().expect("a name"),
                endpoint: None,
                port: None,
                epoch: 0,
                clogged: false,
                sleeping: false,
                unread: BTreeSet::new(),
                lanes: BTreeMap::new(),
                subscribed: Duration::ZERO,
            });
            world.restart(slot);
        }
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now { instant: self.start.0 + self.elapsed, wall: self.start.1 + self.elapsed }
    }

    /// The name of an app without its id.
    pub(crate) fn base(&self, slot: usize) -> TextName {
        let name = match slot < self.profile.pool {
            true => "org/ns/pool".to_owned(),
            false => format!("org/ns/app{slot}"),
        };
        name.parse().expect("a name")
    }

    fn restart(&mut self, slot: usize) {
        let id = u128::from(self.rng.next_u64() >> 1);
        let base = self.base(slot);
        let name = TextName::new(base.components(), slim_wire::Id::new(id)).expect("short");
        let text = format!("{}/{id}", base.components().join("/"));
        let identity = identity(&text, "secret");
        let endpoint = Endpoint::new(Setup {
            mls: self.plant.factory(&text, &identity),
            name: name.clone(),
            identity,
            rng: Box::new(StdRng::seed_from_u64(self.rng.next_u64())),
            limits: self.profile.limits,
            store: false,
            control_plane: ControlPlane::default(),
        });
        let app = &mut self.apps[slot];
        (app.name, app.endpoint) = (name, Some(endpoint));
        self.trace.note(self.elapsed, slot, "starts", (0, 0), id as u64);
        self.link_up(slot);
    }

    // Time.

    pub(crate) fn schedule(&mut self, after: Duration, happening: Happening) {
        self.schedule_at(self.elapsed + after, happening);
    }

    fn schedule_at(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Lets time pass, until something is wrong.
    pub(crate) fn run_until(&mut self, end: Duration) {
        while self.oracle.violation.is_none() {
            let timer = self.next_timer();
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [timer, queued].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.elapsed = self.elapsed.max(next);
            if queued == Some(next) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening);
                }
            } else {
                self.ring();
            }
        }
        self.elapsed = self.elapsed.max(end);
    }

    fn next_timer(&mut self) -> Option<Duration> {
        let plant = &self.plant;
        let apps = self.apps.iter().filter(|app| !plant.forgets_time(app.slot, self.elapsed));
        let endpoints = apps.filter_map(|app| app.endpoint.as_ref()?.deadline());
        let next = endpoints.chain(self.node.deadline()).min()?;
        Some(next.saturating_duration_since(self.start.0))
    }

    fn ring(&mut self) {
        let now = self.now();
        for slot in 0..self.apps.len() {
            if self.plant.forgets_time(slot, self.elapsed) {
                continue;
            }
            let Some(endpoint) = &mut self.apps[slot].endpoint else { continue };
            if endpoint.deadline().is_some_and(|deadline| deadline <= now.instant) {
                endpoint.due(now);
                self.settle(slot);
            }
        }
        if self.node.deadline().is_some_and(|deadline| deadline <= now.instant) {
            self.node.settle(now.instant);
            self.depart();
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now();
        let current = |world: &Self, slot: usize, epoch| world.apps[slot].epoch == epoch;
        match happening {
            Happening::AtNode(slot, epoch, message) if current(self, slot, epoch) => {
                if let Some(port) = &self.apps[slot].port {
                    self.node.forward(port.id, message.0, message.1, now.instant);
                    self.depart();
                }
            }
            Happening::AtApp(slot, epoch, packet) if current(self, slot, epoch) => {
                self.arrive(slot, *packet);
            }
            Happening::Subscribe(slot, epoch, name) if current(self, slot, epoch) => {
                if let Some(port) = &self.apps[slot].port {
                    self.node.subscribe(port.id, name, now.instant);
                }
            }
            Happening::Unsubscribe(slot, epoch, name) if current(self, slot, epoch) => {
                if let Some(port) = &self.apps[slot].port {
                    self.node.unsubscribe(port.id, name, now.instant);
                }
            }
            Happening::AtNode(..)
            | Happening::AtApp(..)
            | Happening::Subscribe(..)
            | Happening::Unsubscribe(..) => {}
            Happening::Operation(operation) => self.operate(operation),
            Happening::Accident(accident) => self.befall(accident),
            Happening::LinkUp(slot) => self.link_up(slot),
            Happening::Restart(slot) => {
                if self.apps[slot].endpoint.is_none() {
                    self.restart(slot);
                }
            }
            Happening::Unclog(slot) => {
                self.apps[slot].clogged = false;
                self.take(slot);
            }
            Happening::Wake(slot) => {
                self.apps[slot].sleeping = false;
                self.read(slot);
            }
        }
    }

    // Links.

    fn link_up(&mut self, slot: usize) {
        let now = self.now();
        let app = &mut self.apps[slot];
        let Some(endpoint) = &mut app.endpoint else { return };
        if self.node_down || app.port.is_some() {
            return;
        }
        app.port = Some(self.node.open(slot));
        app.epoch += 1;
        app.lanes.clear();
        endpoint.link_up(now, LINK);
        self.trace.note(self.elapsed, slot, "link up", (0, 0), 0);
        self.settle(slot);
    }

    fn link_down(&mut self, slot: usize) {
        let now = self.now();
        let Some(port) = self.apps[slot].port.take() else { return };
        self.node.close(port.id, now.instant);
        self.apps[slot].epoch += 1;
        self.trace.note(self.elapsed, slot, "link down", (0, 0), 0);
        if let Some(endpoint) = &mut self.apps[slot].endpoint {
            endpoint.link_down(now, LINK);
            self.settle(slot);
        }
    }

    fn befall(&mut self, accident: Accident) {
        match accident {
            Accident::Partition(slot, time) => {
                self.link_down(slot);
                self.schedule(time, Happening::LinkUp(slot));
            }
            Accident::Crash(slot, time) => {
                self.trace.note(self.elapsed, slot, "crashes", (0, 0), 0);
                let (name, app) = (self.apps[slot].name.to_name(), &mut self.apps[slot]);
                app.endpoint = None;
                app.unread.clear();
                self.link_down(slot);
                self.oracle.crashed(name);
                self.schedule(time, Happening::Restart(slot));
            }
            Accident::NodeCrash(time) => {
                (0..self.apps.len()).for_each(|slot| self.link_down(slot));
                self.node = Node::new(self.profile.cores, self.profile.queue_bytes, self.seed);
                for slot in 0..self.apps.len() {
                    let later = Duration::from_millis(self.rng.random_range(0..500));
                    self.schedule(time + later, Happening::LinkUp(slot));
                }
            }
            Accident::Sleep(slot, time) => {
                self.apps[slot].sleeping = true;
                self.trace.note(self.elapsed, slot, "sleeps", (0, 0), 0);
                self.schedule(time, Happening::Wake(slot));
            }
            Accident::Clog(slot, time) => {
                self.apps[slot].clogged = true;
                self.trace.note(self.elapsed, slot, "clogs", (0, 0), 0);
                self.schedule(time, Happening::Unclog(slot));
            }
        }
    }

    /// The end of all faults: links come up, and everybody reads.
    pub(crate) fn heal(&mut self) {
        self.trace.note(self.elapsed, 0, "heals", (0, 0), 0);
        self.faults = Faults::NONE;
        self.queue.retain(|_, happening| {
            !matches!(happening, Happening::Operation(_) | Happening::Accident(_))
        });
        for slot in 0..self.apps.len() {
            self.apps[slot].clogged = false;
            self.take(slot);
            self.apps[slot].sleeping = false;
            match self.apps[slot].endpoint {
                Some(_) => self.link_up(slot),
                None => self.restart(slot),
            }
            self.read(slot);
        }
    }

    // Messages under way.

    /// When a message that leaves now arrives; several times if it is doubled, or never.
    fn arrivals(&mut self, slot: usize, up: bool, packet: (u32, &Name, Class)) -> Vec<Duration> {
        let Faults { lost, doubled, late, delay } = self.faults;
        if chance(&mut self.rng, lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(chance(&mut self.rng, doubled));
        let mut arrivals = Vec::new();
        for copy in 0..copies {
            let jitter = self.rng.random_range(0..=delay.as_micros() as u64 / 4);
            let mut at = self.elapsed + delay + Duration::from_micros(jitter);
            if copy > 0 || chance(&mut self.rng, late) {
                at += Duration::from_millis(self.rng.random_range(0..1500));
            } else if packet.2 != Class::BestEffort {
                let key = (up, lane(packet.0, packet.1));
                let last = self.apps[slot].lanes.entry(key).or_default();
                at = at.max(*last);
                *last = at;
            }
            if up {
                at = at.max(self.apps[slot].subscribed);
            }
            arrivals.push(at);
        }
        arrivals
    }

    fn send(&mut self, slot: usize, packet: &Packet) {
        self.trace.packet(
            self.elapsed,
            slot,
            "sends",
            packet,
            packet.destination.id.as_u128() as u64,
        );
        if self.apps[slot].port.is_none() {
            return;
        }
        let epoch = self.apps[slot].epoch;
        let message = encode(packet);
        let of = (packet.ids.session, &packet.source, packet.class);
        for at in self.arrivals(slot, true, of) {
            self.schedule_at(at, Happening::AtNode(slot, epoch, Box::new(message.clone())));
        }
    }

    /// Moves what the node has for apps on its way.
    fn depart(&mut self) {
        for link in self.node.take_ready() {
            let of = |app: &App| app.port.as_ref().is_some_and(|port| port.id == link);
            if let Some(slot) = self.apps.iter().position(of) {
                self.take(slot);
            }
        }
    }

    fn take(&mut self, slot: usize) {
        let Some(mut port) = self.apps[slot].port.take() else { return };
        if self.node.is_evicted(port.id) {
            self.apps[slot].port = Some(port);
            self.link_down(slot);
            return self.schedule(Duration::from_millis(500), Happening::LinkUp(slot));
        }
        let packets = match self.apps[slot].clogged {
            true => Vec::new(),
            false => self.node.take(&mut port),
        };
        self.apps[slot].port = Some(port);
        packets.into_iter().for_each(|packet| self.deliver(slot, packet));
    }

    /// Lets a message leave the node for an app.
    pub(crate) fn deliver(&mut self, slot: usize, packet: Packet) {
        let epoch = self.apps[slot].epoch;
        let of = (packet.ids.session, &packet.source, packet.class);
        for at in self.arrivals(slot, false, of) {
            self.schedule_at(at, Happening::AtApp(slot, epoch, Box::new(packet.clone())));
        }
    }

    fn arrive(&mut self, slot: usize, packet: Packet) {
        let now = self.now();
        self.trace.packet(self.elapsed, slot, "gets", &packet, packet.source.id.as_u128() as u64);
        if self.apps[slot].endpoint.is_none() {
            return;
        }
        if let Some(forged) = self.plant.swallow(&packet, self.apps[slot].name.to_name()) {
            return self.send(slot, &forged);
        }
        let name = self.apps[slot].name.to_name();
        if let Some(endpoint) = &mut self.apps[slot].endpoint {
            let (content, ids) = (packet.session.content.clone(), packet.ids);
            let before = endpoint.control_counts().accepted;
            endpoint.handle(now, LINK, packet);
            if endpoint.control_counts().accepted > before {
                self.oracle.asked(name, ids, &content);
            }
        }
        self.settle(slot);
    }

    /// Whoever was removed last by the control plane's word is no member.
    pub(crate) fn check_removed(&mut self) {
        for (app, session, prefix) in self.oracle.dismissed() {
            // Of several instances one is removed.
            let pool = self.profile.pool > 0 && prefix == self.base(0).to_name().prefix;
            let slot = self.slot_of(app).filter(|_| !pool && prefix != app.prefix);
            let endpoint = slot.and_then(|slot| self.apps[slot].endpoint.as_ref());
            let members = endpoint.and_then(|endpoint| endpoint.participants(session).ok());
            let mut names = members.into_iter().flatten().map(|member| member.name.name);
            if let Some(name) = names.find(|name| name.prefix == prefix) {
                let what = format!("{}: session {session}: {name} was removed", app.id);
                self.oracle.violate(format!("{what} for the control plane and is a member"));
            }
        }
    }

    // Endpoints.

    /// Does something with an app that runs.
    pub(crate) fn with<T>(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Endpoint, Now) -> T,
    ) -> Option<T> {
        let now = self.now();
        let result = self.apps[slot].endpoint.as_mut().map(|endpoint| act(endpoint, now));
        self.settle(slot);
        result
    }

    /// Carries out what an endpoint wants.
    fn settle(&mut self, slot: usize) {
        let mut outputs = Vec::new();
        let app = &mut self.apps[slot];
        let Some(endpoint) = &mut app.endpoint else { return };
        while let Some(output) = endpoint.poll_output() {
            outputs.push(output);
        }
        if outputs.len() > OUTPUTS {
            self.oracle.violate(format!("app {slot}: {} outputs at once", outputs.len()));
        }
        for output in outputs {
            self.carry_out(slot, output);
        }
        self.read(slot);
    }

    fn carry_out(&mut self, slot: usize, output: Output) {
        let name = self.apps[slot].name.to_name();
        match output {
            Output::Send(_, packet) => self.send(slot, &packet),
            Output::Subscribe(_, subscription) => {
                let (at, epoch) = self.subscribes(slot);
                let name = subscription.name.to_name();
                self.schedule_at(at, Happening::Subscribe(slot, epoch, name));
            }
            Output::Unsubscribe(_, subscription) => {
                let (at, epoch) = self.subscribes(slot);
                let name = subscription.name.to_name();
                self.schedule_at(at, Happening::Unsubscribe(slot, epoch, name));
            }
            Output::Opened(id) => {
                let info = self.apps[slot].endpoint.as_mut().and_then(Endpoint::accept);
                self.trace.note(self.elapsed, slot, "opened", (id, 0), 0);
                self.oracle.opened(name, id, info);
                self.apps[slot].unread.insert(id);
            }
            Output::Readable(id) => _ = self.apps[slot].unread.insert(id),
            Output::Writable(_) | Output::Save(..) | Output::Forget(_) => {}
            Output::Rejected(..) => self.oracle.violate(format!("app {slot} rejects a token")),
            Output::Controlled(controlled) => {
                let (ids, good) = (controlled.ids, u64::from(controlled.result.is_ok()));
                let numbers = (ids.session, ids.message);
                self.trace.note(self.elapsed, slot, "is done with", numbers, good);
                self.oracle.controlled(name, &controlled);
            }
            Output::Completed(ticket, result) => {
                let good = u64::from(result.is_ok());
                self.trace.note(self.elapsed, slot, "completed", (0, ticket.0 as u32), good);
                self.oracle.completed(self.elapsed, name, ticket, result);
            }
        }
    }

    /// When the node hears of a change of what an app listens to: in the order of the changes, as
    /// they are on one stream, even if delays have become shorter since the last.
    fn subscribes(&mut self, slot: usize) -> (Duration, u64) {
        let app = &mut self.apps[slot];
        app.subscribed = app.subscribed.max(self.elapsed + self.faults.delay);
        (app.subscribed, app.epoch)
    }

    /// The app reads all there is, unless it sleeps.
    fn read(&mut self, slot: usize) {
        let now = self.now();
        let mut moved = false;
        while !self.apps[slot].sleeping
            && let Some(id) = self.apps[slot].unread.pop_first()
        {
            let app = &mut self.apps[slot];
            let Some(endpoint) = &mut app.endpoint else { return };
            let mut first = 0;
            while let Ok(Some(event)) = endpoint.next_event(now, id) {
                self.trace.note(self.elapsed, slot, kind(&event), (id, number(&event)), 0);
                self.oracle.event(self.elapsed, app.name.to_name(), id, event);
                first += 1;
                moved = true;
            }
            if first > 20_000 {
                self.oracle.violate(format!("app {slot}: {first} events at once"));
            }
        }
        if moved {
            self.settle(slot);
        }
    }
}

fn kind(event: &slim_quic::session::Event) -> &'static str {
    use slim_quic::session::{Event, SessionError};
    match event {
        Event::Message(..) => "reads",
        Event::Failed(SessionError::Lost { .. }) => "is told: lost",
        Event::Failed(SessionError::Undelivered { .. }) => "is told: undelivered",
        Event::Failed(SessionError::Unacknowledged { .. }) => "is told: unacknowledged",
        Event::Failed(SessionError::Expelled { .. }) => "is told: expelled",
        Event::Failed(_) => "is told of another failure",
        Event::Joined(_) => "is told: joined",
        Event::Left(_) => "is told: left",
        Event::Closed(_) => "is told: closed",
    }
}

fn number(event: &slim_quic::session::Event) -> u32 {
    use slim_quic::session::{Event, SessionError};
    match event {
        Event::Message(context, _) => context.message,
        Event::Failed(SessionError::Undelivered { message, .. }) => *message,
        Event::Failed(SessionError::Unacknowledged { last, .. }) => *last,
        _ => 0,
    }
}
