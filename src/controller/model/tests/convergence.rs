//! Networks whose nodes come, go, fail and forget at random.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use slim_compat_grpc::proto::southbound::{ConfigurationCommand, Subscription};

use super::super::name_of;
use super::*;
use crate::controller::store::RouteTarget;

/// A node as it is, whatever its controller believes.
#[derive(Default)]
struct Real {
    product: bool,
    stream: Option<u64>,
    clients: BTreeSet<RouteName>,
    routes: BTreeSet<(RouteName, String)>,
    links: BTreeSet<String>,
}

/// A controller, its store, and nodes.
struct World {
    model: Model,
    nodes: Vec<Real>,
    wanted: BTreeMap<String, RouteRecord>,
    now: Instant,
    restarted: bool,
}

/// What happens: a kind, and two numbers that say to whom and what.
type Step = (u8, u8, u8);

impl World {
    fn new(now: Instant) -> Self {
        let products = [true, true, false, false];
        let (model, _) = network(&products, now);
        let state = model.state().clone();
        let nodes = products.map(|product| Real { product, ..Real::default() });
        let model = Model::new(state, Limits::default(), now);
        Self { model, nodes: nodes.into(), wanted: BTreeMap::new(), now, restarted: false }
    }

    fn step(&mut self, (kind, who, what): Step) {
        let who = usize::from(who) % self.nodes.len();
        let app = name(&format!("org/ns/app/{}", what % 5));
        match kind % 12 {
            0 | 1 => self.join(who, &app),
            2 => self.leave(who, &app),
            3 => self.connect(who),
            4 => self.disconnect(who),
            5 => {
                // The node restarts, and has forgotten everything.
                self.disconnect(who);
                self.nodes[who].routes.clear();
                self.nodes[who].links.clear();
                self.nodes[who].clients.clear();
            }
            6 if what < 40 => self.restart(),
            7 => self.add_route(who, what),
            8 => self.delete_route(what),
            9 => self.survey(who),
            10 => self.now += Duration::from_secs(u64::from(what)),
            _ => _ = self.tell(who, what),
        }
        self.commit();
    }

    fn id(who: usize) -> String {
        format!("slim/{who}")
    }

    fn join(&mut self, who: usize, app: &RouteName) {
        self.nodes[who].clients.insert(app.clone());
        if let Some(stream) = self.nodes[who].stream {
            self.model.report(&Self::id(who), stream, app);
        }
    }

    fn leave(&mut self, who: usize, app: &RouteName) {
        // Published nodes do not tell of it.
        if self.nodes[who].clients.remove(app)
            && let (Some(stream), true) = (self.nodes[who].stream, self.nodes[who].product)
        {
            self.model.withdraw(&Self::id(who), stream, app);
        }
    }

    fn connect(&mut self, who: usize) {
        self.disconnect(who);
        let id = Self::id(who);
        let stream = self.model.register(&id).expect("known");
        self.nodes[who].stream = Some(stream);
        if self.nodes[who].product {
            for app in &self.nodes[who].clients {
                self.model.report(&id, stream, app);
            }
            self.model.complete(&id, stream);
        } else {
            self.survey(who);
        }
    }

    fn disconnect(&mut self, who: usize) {
        if let Some(stream) = self.nodes[who].stream.take() {
            self.model.lose(&Self::id(who), stream, self.now);
        }
    }

    fn restart(&mut self) {
        self.restarted = true;
        self.nodes.iter_mut().for_each(|node| node.stream = None);
        let state = self.model.state().clone();
        self.model = Model::new(state, Limits::default(), self.now);
    }

    fn add_route(&mut self, who: usize, what: u8) {
        let target = usize::from(what) % self.nodes.len();
        let target = match target == who {
            true => to("http://elsewhere:1"),
            false => RouteTarget::Node(Self::id(target)),
        };
        let id = format!("route {}", what % 7);
        let app = format!("operated-{}", what % 3);
        // An id names one route, as with operators.
        if !self.model.state().routes.contains_key(&id) {
            let node = Self::id(who);
            let route = RouteRecord { node, ..operator_route(&id, &app, target) };
            self.wanted.insert(id, route.clone());
            self.model.apply(Change::PutRoute(route), self.now);
        }
    }

    fn delete_route(&mut self, what: u8) {
        let id = format!("route {}", what % 7);
        if let Some(route) = self.wanted.remove(&id) {
            self.model.apply(Change::PutRoute(RouteRecord { deleted: true, ..route }), self.now);
        }
    }

    fn survey(&mut self, who: usize) {
        let (id, node) = (Self::id(who), &self.nodes[who]);
        let Some(stream) = node.stream else { return };
        if !node.product {
            let asked = self.model.sequence();
            self.model.listed(&id, stream, &node.clients, asked);
        }
        let mark = self.model.mark_of(&id);
        self.model.compare(&id, stream, &node.routes, mark);
    }

    /// Tells a node something. It may be lost, on the way there or back, or fail.
    fn tell(&mut self, who: usize, luck: u8) -> bool {
        let (id, node) = (Self::id(who), &mut self.nodes[who]);
        let Some(stream) = node.stream else { return false };
        let Some(command) = self.model.next_command(&id, stream, self.now) else { return false };
        let bad = if luck % 5 == 1 { "http://elsewhere:1" } else { "" };
        let answer = match luck % 5 {
            0 => Answer::Silence,
            1 if node.product => {
                node.take(&command);
                results(&command, bad)
            }
            2 => {
                node.take(&command);
                Answer::Silence
            }
            3 => Answer::Failed("not today".into()),
            _ => {
                node.take(&command);
                Answer::Done
            }
        };
        self.model.answered(&id, stream, &answer, self.now);
        true
    }

    fn commit(&mut self) {
        let settled = self.model.settled();
        settled.into_iter().for_each(|change| self.model.apply(change, self.now));
    }

    /// All nodes come, and everything goes well from now on.
    fn heal(&mut self) {
        const GOOD: u8 = 4;
        self.now += GRACE;
        for who in 0..self.nodes.len() {
            if self.nodes[who].stream.is_none() {
                self.connect(who);
            }
        }
        for _ in 0..4 {
            for who in 0..self.nodes.len() {
                self.survey(who);
                self.now += Duration::from_secs(60);
                while self.tell(who, GOOD) {
                    self.now += Duration::from_secs(60);
                }
                self.commit();
            }
        }
    }

    fn expected(&self, who: usize) -> BTreeSet<(RouteName, String)> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != who);
        let mut expected: BTreeSet<_> = others
            .flat_map(|(other, node)| {
                node.clients.iter().map(move |app| (app.clone(), endpoint(other)))
            })
            .collect();
        for route in self.wanted.values().filter(|route| route.node == Self::id(who)) {
            let name = name_of(route).expect("a name");
            let via = match &route.to {
                RouteTarget::Endpoint { endpoint, .. } => endpoint.clone(),
                RouteTarget::Node(id) => endpoint(id[5..].parse().expect("a number")),
                RouteTarget::Connection(_) => unreachable!("not made here"),
            };
            expected.insert((name, via));
        }
        expected
    }

    fn check(&mut self) {
        for who in 0..self.nodes.len() {
            let (expected, node) = (self.expected(who), &self.nodes[who]);
            if node.product || !self.restarted {
                assert_eq!(node.routes, expected, "at node {who}");
            } else {
                // What it was told in an earlier life of the controller may remain there.
                assert!(node.routes.is_superset(&expected), "at node {who}: {:?}", node.routes);
            }
            if node.product {
                let needed: BTreeSet<_> = expected.into_iter().map(|(_, via)| via).collect();
                assert_eq!(node.links, needed, "at node {who}");
            }
            let (id, stream) = (Self::id(who), node.stream.expect("connected"));
            assert_eq!(self.model.due(&id, stream, self.now), None, "at node {who}");
            let views = self.model.routes(&id);
            assert!(views.iter().all(|view| view.progress == Progress::Applied), "{views:?}");
        }
        let kept: Vec<_> = self.model.state().routes.values().collect();
        assert!(kept.iter().all(|route| !route.deleted), "{kept:?}");
        assert_eq!(kept.len(), self.wanted.len());
    }
}

impl Real {
    fn take(&mut self, command: &ConfigurationCommand) {
        let key = |route: &Subscription| {
            (RouteName::of(route).expect("a name"), route.connection_id.clone())
        };
        if command.complete {
            (self.routes, self.links) = (BTreeSet::new(), BTreeSet::new());
        }
        let made = command.connections_to_create.iter().map(|made| made.connection_id.clone());
        self.links.extend(made);
        for route in command.subscriptions_to_set.iter().map(key) {
            if self.links.contains(&route.1) {
                self.routes.insert(route);
            }
        }
        for route in command.subscriptions_to_delete.iter().map(key) {
            self.routes.remove(&route);
        }
        for link in &command.connections_to_delete {
            assert!(self.routes.iter().all(|(_, via)| via != link), "{link} is in use");
            self.links.remove(link);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever was lost, refused or restarted: in the end every node has what it is to have.
    #[test]
    fn every_network_converges(steps in vec(any::<Step>(), 0..120)) {
        let mut world = World::new(Instant::now());
        steps.into_iter().for_each(|step| world.step(step));
        world.heal();
        world.check();
    }
}
