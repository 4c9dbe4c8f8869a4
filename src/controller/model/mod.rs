//! What is wanted of every node, and how far each got: without clocks, sockets or disks.
//!
//! A [`Model`] holds the committed state, what nodes report, and per node a [`Ledger`] of what it
//! was told. A change of either marks names at nodes; before a node is told something, what is
//! wanted of it for those names is worked out anew, and differences go into its ledger.

mod address;
mod ledger;
mod nodes;
mod reports;
#[cfg(test)]
mod tests;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::address::endpoint_in;
pub use self::ledger::{Answer, Due, Item, Ledger, Progress, Retries};
pub use self::nodes::{Admission, LostNode};
use self::reports::Report;
pub use self::reports::{Host, Reported};
pub use self::wishes::RouteView;
use super::name::RouteName;
use super::store::{Change, NodeRecord, RouteRecord, State};

/// Bounds of what nodes can make a controller keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes, known or connected.
    pub nodes: usize,
    /// Names that one node reports.
    pub reports: usize,
    /// How failures are repeated.
    pub retries: Retries,
    /// How long nodes have to come after this program starts, before others are told that they
    /// need nothing but what they are told.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (retries, grace) = (Retries::default(), Duration::from_secs(30));
        Self { nodes: 4096, reports: 65_536, retries, grace }
    }
}

/// Names whose routes to a node may wait until they are asked for.
const MARKED: usize = 4096;

/// Everything that a controller knows.
#[derive(Debug)]
pub struct Model {
    limits: Limits,
    begun: Instant,
    state: State,
    nodes: BTreeMap<String, Node>,
    /// Who reports a name.
    reporters: BTreeMap<Arc<RouteName>, BTreeSet<String>>,
    /// Routes of operators, by node and name.
    by_name: BTreeMap<(String, RouteName), BTreeSet<String>>,
    /// Routes that are deleted, and that their nodes do not have any more.
    obsolete: BTreeSet<String>,
    generation: u64,
    sequence: u64,
}

/// What is known of a node beside its record.
#[derive(Debug, Default)]
struct Node {
    /// The number of its stream.
    live: Option<u64>,
    /// Since when it has no stream.
    lost: Option<Instant>,
    /// All that it has to report was reported since it registered.
    complete: bool,
    /// The same of any of its streams.
    heard: bool,
    reports: BTreeMap<Arc<RouteName>, Report>,
    /// Names for which what is wanted has to be worked out anew.
    marked: BTreeSet<Arc<RouteName>>,
    ledger: Ledger,
}

impl Model {
    /// The state as it was committed; no node is connected.
    pub fn new(state: State, limits: Limits, now: Instant) -> Self {
        let mut model = Self {
            limits,
            begun: now,
            state: State::default(),
            nodes: BTreeMap::new(),
            reporters: BTreeMap::new(),
            by_name: BTreeMap::new(),
            obsolete: BTreeSet::new(),
            generation: 0,
            sequence: 0,
        };
        let State { nodes, connections, routes, channels } = state;
        let nodes = nodes.into_values().map(Change::PutNode);
        let connections = connections.into_values().map(Change::PutConnection);
        let routes = routes.into_values().map(Change::PutRoute);
        let channels = channels.into_values().map(Change::PutChannel);
        for change in nodes.chain(connections).chain(routes).chain(channels) {
            model.apply(change, now);
        }
        model
    }

    /// What is committed.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes a change that was committed.
    pub fn apply(&mut self, change: Change, now: Instant) {
        match change {
            Change::PutNode(record) => self.put_node(record, now),
            Change::DeleteNode(id) => self.delete_node(&id),
            Change::PutConnection(record) => {
                let (node, id) = (record.node.clone(), record.id.clone());
                self.drop_connection(&node, &id);
                let link = Item::Link(record.endpoint.clone());
                let config = Arc::from(&*record.config);
                if let Some(node) = self.nodes.get_mut(&record.node) {
                    node.ledger.want(link, &config);
                }
                self.state.connections.insert((node.clone(), id), record);
                self.mark_routes_of(&node);
            }
            Change::DeleteConnection(node, id) => {
                self.drop_connection(&node, &id);
                self.mark_routes_of(&node);
            }
            Change::PutRoute(record) => self.put_route(record),
            Change::DeleteRoute(id) => self.delete_route(&id),
            Change::PutChannel(_) | Change::DeleteChannel(_) => self.state.apply(&change),
        }
    }

    fn put_node(&mut self, record: NodeRecord, now: Instant) {
        let id = record.id.clone();
        let last = self.state.nodes.insert(id.clone(), record);
        let node = self.nodes.entry(id.clone()).or_default();
        if last.is_none() {
            node.lost = Some(now);
            // Names that others reported before it was known.
            node.marked.extend(self.reporters.keys().cloned());
            return self.mark_routes_to(&id);
        }
        let now = &self.state.nodes[&id];
        if last.is_some_and(|last| last.group == now.group && last.connections == now.connections) {
            return;
        }
        let reported: Vec<_> = node.reports.keys().cloned().collect();
        node.marked.extend(self.reporters.keys().cloned());
        reported.iter().for_each(|name| self.mark_at_others(&id, name));
        self.mark_routes_to(&id);
        self.mark_routes_of(&id);
    }

    fn delete_node(&mut self, id: &str) {
        self.state.nodes.remove(id);
        let Some(node) = self.nodes.remove(id) else { return };
        for name in node.reports.keys() {
            if let Some(reporters) = self.reporters.get_mut(name) {
                reporters.remove(id);
                if reporters.is_empty() {
                    self.reporters.remove(name);
                }
            }
            self.mark_at_others(id, name);
        }
        self.mark_routes_to(id);
    }

    fn drop_connection(&mut self, node: &str, id: &str) {
        let key = (node.to_owned(), id.to_owned());
        let Some(record) = self.state.connections.remove(&key) else { return };
        let mut others = self.state.connections.values();
        let needed = others.any(|other| other.node == node && other.endpoint == record.endpoint);
        if let (Some(node), false) = (self.nodes.get_mut(node), needed) {
            node.ledger.drop(&Item::Link(record.endpoint));
        }
    }

    fn put_route(&mut self, record: RouteRecord) {
        let Some(name) = name_of(&record) else { return };
        self.obsolete.remove(&record.id);
        let ids = self.by_name.entry((record.node.clone(), name.clone())).or_default();
        ids.insert(record.id.clone());
        self.mark(&record.node, &Arc::new(name));
        self.state.routes.insert(record.id.clone(), record);
    }

    fn delete_route(&mut self, id: &str) {
        let Some(record) = self.state.routes.remove(id) else { return };
        self.obsolete.remove(id);
        let Some(name) = name_of(&record) else { return };
        let name = Arc::new(name);
        self.mark(&record.node, &name);
        let key = (record.node, RouteName::clone(&name));
        if let Some(ids) = self.by_name.get_mut(&key) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_name.remove(&key);
            }
        }
    }

    fn mark(&mut self, node: &str, name: &Arc<RouteName>) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.marked.insert(Arc::clone(name));
        }
    }

    fn mark_at_others(&mut self, reporter: &str, name: &Arc<RouteName>) {
        let mut full = Vec::new();
        for (id, node) in &mut self.nodes {
            if id != reporter {
                node.marked.insert(Arc::clone(name));
                if node.marked.len() > MARKED {
                    full.push(id.clone());
                }
            }
        }
        // Of a node that is away nobody asks; names that came and went are not to pile up there.
        full.iter().for_each(|id| self.work_out(id));
    }

    /// Names of routes of operators that lead to this node.
    fn mark_routes_to(&mut self, destination: &str) {
        use super::store::RouteTarget::Node;
        let routes = self.state.routes.values();
        let leading = routes.filter(|route| matches!(&route.to, Node(id) if id == destination));
        let marks: Vec<_> =
            leading.filter_map(|route| Some((route.node.clone(), name_of(route)?))).collect();
        marks.into_iter().for_each(|(node, name)| self.mark(&node, &Arc::new(name)));
    }

    /// Names of routes of operators that this node gets.
    fn mark_routes_of(&mut self, node: &str) {
        let routes = self.state.routes.values().filter(|route| route.node == node);
        let names: Vec<_> = routes.filter_map(name_of).map(Arc::new).collect();
        names.iter().for_each(|name| self.mark(node, name));
    }
}

fn name_of(record: &RouteRecord) -> Option<RouteName> {
    RouteName::new(record.components.clone(), record.instance).ok()
}
