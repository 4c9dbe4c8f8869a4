//! Nodes come, go, and are told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use slim_compat_grpc::proto::southbound::ConfigurationCommand;

use super::{Answer, Due, Item, Model};
use crate::controller::name::RouteName;
use crate::controller::store::{Change, NodeRecord};

/// Whether a node may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Free,
    /// There is a stream of its id, of this number.
    Taken(u64),
    /// There are too many nodes.
    Full,
}

/// A node that has been away for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNode {
    /// Its id.
    pub id: String,
    /// For how long.
    pub away: Duration,
}

impl Model {
    /// Whether a node of this id may register now.
    pub fn admission(&self, id: &str) -> Admission {
        match self.nodes.get(id) {
            Some(node) => node.live.map_or(Admission::Free, Admission::Taken),
            None if self.nodes.len() >= self.limits.nodes => Admission::Full,
            None => Admission::Free,
        }
    }

    /// A node has registered, and its record is committed. Returns the number of its stream.
    pub fn register(&mut self, id: &str) -> Option<u64> {
        let detailed = self.state.nodes.get(id)?.product.is_some();
        let node = self.nodes.get_mut(id)?;
        self.generation += 1;
        (node.live, node.lost, node.complete) = (Some(self.generation), None, false);
        node.reports.values_mut().for_each(|report| report.stale = true);
        node.ledger.registered(detailed);
        Some(self.generation)
    }

    /// A stream has ended.
    pub fn lose(&mut self, id: &str, generation: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id).filter(|node| node.live == Some(generation)) {
            (node.live, node.lost) = (None, Some(now));
        }
    }

    /// The number of the stream of a node that is connected.
    pub fn live(&self, id: &str) -> Option<u64> {
        self.nodes.get(id)?.live
    }

    /// What a node is to be told now, if anything.
    pub fn next_command(
        &mut self,
        id: &str,
        generation: u64,
        now: Instant,
    ) -> Option<ConfigurationCommand> {
        self.work_out(id);
        let whole = self.is_whole(id, now);
        self.of_stream(id, generation)?.ledger.next(now, whole)
    }

    /// Takes the answer of a node to the last command.
    pub fn answered(&mut self, id: &str, generation: u64, answer: &Answer, now: Instant) {
        let retries = self.limits.retries;
        let Some(node) = self.of_stream(id, generation) else { return };
        for item in node.ledger.answered(answer, now, retries) {
            // Routes whose deletion this was are found when the name is worked out.
            if let Item::Route(name, endpoint) = item {
                self.removed(id, &name, &endpoint);
            }
        }
    }

    /// When a node is to be told something.
    pub fn due(&mut self, id: &str, generation: u64, now: Instant) -> Option<Due> {
        self.work_out(id);
        let whole = self.is_whole(id, now);
        self.of_stream(id, generation)?.ledger.due(now, whole)
    }

    /// Whether what is wanted of a node is all there can be: every other node has reported its
    /// clients at least once, and those had time to come that this program does not know yet.
    fn is_whole(&self, id: &str, now: Instant) -> bool {
        let heard = |(other, node): (&String, &super::Node)| other == id || node.heard;
        now >= self.begun + self.limits.grace && self.nodes.iter().all(heard)
    }

    /// A mark for [`Model::compare`].
    pub fn mark_of(&self, id: &str) -> u64 {
        self.nodes.get(id).map_or(0, |node| node.ledger.mark())
    }

    /// Compares with the routes that a node says it has. What is missing will be told again;
    /// returns how much that is.
    pub fn compare(
        &mut self,
        id: &str,
        generation: u64,
        has: &BTreeSet<(RouteName, String)>,
        mark: u64,
    ) -> usize {
        self.of_stream(id, generation).map_or(0, |node| node.ledger.compare(has, mark))
    }

    /// Nodes without a stream for at least `limit`.
    pub fn lost_for(&self, limit: Duration, now: Instant) -> Vec<LostNode> {
        let nodes = self.nodes.iter().filter_map(|(id, node)| {
            let away = now.saturating_duration_since(node.lost?);
            (node.live.is_none() && away >= limit).then(|| LostNode { id: id.clone(), away })
        });
        nodes.collect()
    }

    /// What has to be committed to remove a node: its record, all that it was to do, and at others
    /// all that led to it.
    pub fn removal(&self, id: &str) -> Vec<Change> {
        use crate::controller::store::RouteTarget;
        let connections = self.state.connections.keys().filter(|(node, _)| node == id);
        let connections =
            connections.map(|(node, of)| Change::DeleteConnection(node.clone(), of.clone()));
        let routes = self.state.routes.values().filter_map(|route| {
            let leads_here = matches!(&route.to, RouteTarget::Node(to) if to == id);
            match route.node == id || leads_here {
                true => Some(Change::DeleteRoute(route.id.clone())),
                false => None,
            }
        });
        let changes = connections.chain(routes);
        changes.chain([Change::DeleteNode(id.to_owned())]).collect()
    }

    /// The committed record of a node.
    pub fn node(&self, id: &str) -> Option<&NodeRecord> {
        self.state.nodes.get(id)
    }

    pub(super) fn of_stream(&mut self, id: &str, generation: u64) -> Option<&mut super::Node> {
        self.nodes.get_mut(id).filter(|node| node.live == Some(generation))
    }
}
