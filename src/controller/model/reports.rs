//! What nodes report of their clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Model;
use crate::controller::name::RouteName;

/// A name that a client of a node has subscribed to.
#[derive(Debug)]
pub(super) struct Report {
    /// It stems from an earlier stream, and was not repeated yet.
    pub(super) stale: bool,
    /// When it came last, by [`Model::sequence`].
    sequence: u64,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is kept.
    Kept,
    /// It says nothing that is routed, or comes from a stream of the past.
    Ignored,
    /// The node reports more than is kept.
    Full,
}

/// A node whose clients have a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The number of its stream, if it is connected.
    pub live: Option<u64>,
    /// It tells when a client is gone.
    pub is_complete: bool,
    /// When it reported the name last; later is greater.
    pub sequence: u64,
    /// Its id.
    pub node: String,
    /// What was reported.
    pub name: Arc<RouteName>,
}

impl Model {
    /// A client of a node has subscribed to a name.
    pub fn report(&mut self, id: &str, generation: u64, name: &RouteName) -> Reported {
        let (limit, sequence) = (self.limits.reports, self.sequence + 1);
        let Some(node) = self.of_stream(id, generation).filter(|_| !name.is_controller()) else {
            return Reported::Ignored;
        };
        if let Some(report) = node.reports.get_mut(name) {
            (report.stale, report.sequence) = (false, sequence);
            self.sequence = sequence;
            return Reported::Kept;
        }
        if node.reports.len() >= limit {
            return Reported::Full;
        }
        let name = Arc::new(name.clone());
        node.reports.insert(Arc::clone(&name), Report { stale: false, sequence });
        self.sequence = sequence;
        self.reporters.entry(Arc::clone(&name)).or_default().insert(id.to_owned());
        self.mark_at_others(id, &name);
        Reported::Kept
    }

    /// The last client of a node with a subscription to a name has gone.
    pub fn withdraw(&mut self, id: &str, generation: u64, name: &RouteName) {
        if self.of_stream(id, generation).is_some() {
            self.forget(id, &Arc::new(name.clone()));
        }
    }

    /// A node has reported everything since it registered: what it did not repeat is gone.
    pub fn complete(&mut self, id: &str, generation: u64) {
        let Some(node) = self.of_stream(id, generation) else { return };
        (node.complete, node.heard) = (true, true);
        let stale = node.reports.iter().filter(|(_, report)| report.stale);
        let stale: Vec<_> = stale.map(|(name, _)| Arc::clone(name)).collect();
        stale.iter().for_each(|name| self.forget(id, name));
    }

    /// A node that does not report everything has listed the names of its clients, as it was asked
    /// when [`Model::sequence`] was `asked`. Reports since then are newer than the list.
    pub fn listed(&mut self, id: &str, generation: u64, names: &BTreeSet<RouteName>, asked: u64) {
        for name in names {
            self.report(id, generation, name);
        }
        let Some(node) = self.of_stream(id, generation) else { return };
        (node.complete, node.heard) = (true, true);
        let gone = node.reports.iter().filter(|(name, report)| {
            !names.contains(&***name) && (report.stale || report.sequence <= asked)
        });
        let gone: Vec<_> = gone.map(|(name, _)| Arc::clone(name)).collect();
        gone.iter().for_each(|name| self.forget(id, name));
    }

    /// How many reports there were: a moment for [`Model::listed`].
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn forget(&mut self, id: &str, name: &Arc<RouteName>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.reports.remove(name).is_none() {
            return;
        }
        if let Some(reporters) = self.reporters.get_mut(name) {
            reporters.remove(id);
            if reporters.is_empty() {
                self.reporters.remove(name);
            }
        }
        self.mark_at_others(id, name);
    }

    /// Nodes with clients that have the texts of `name`, and its instance if it has one.
    pub fn hosts(&self, name: &RouteName) -> Vec<Host> {
        let first = RouteName { instance: None, ..name.clone() };
        let same =
            self.reporters.range(first..).take_while(|(other, _)| other.is_instance_of(name));
        let meant =
            same.filter(|(other, _)| name.instance.is_none() || other.instance == name.instance);
        let hosts = meant.flat_map(|(other, ids)| ids.iter().map(move |id| (other, id)));
        hosts.map(|(other, id)| self.host(other, id)).collect()
    }

    /// The connected node where a client with this name most probably is: one that tells when
    /// clients are gone, and that reported it last.
    pub fn host_of(&self, name: &RouteName) -> Option<Host> {
        let live = self.hosts(name).into_iter().filter(|host| host.live.is_some());
        live.max_by_key(|host| (host.is_complete, host.sequence))
    }

    fn host(&self, name: &Arc<RouteName>, id: &str) -> Host {
        let node = &self.nodes[id];
        let is_complete = self.state.nodes[id].product.is_some();
        let sequence = node.reports[name].sequence;
        let (live, name) = (node.live, Arc::clone(name));
        Host { live, is_complete, sequence, node: id.to_owned(), name }
    }

    /// Whether every connected node has reported everything there was when it registered.
    pub fn all_told(&self) -> bool {
        self.nodes.values().all(|node| node.live.is_none() || node.complete)
    }

    /// Whether what is not reported is not there: every node is connected, reports everything, and
    /// has done so.
    pub fn knows_all_clients(&self) -> bool {
        let tells = |id: &String| self.state.nodes[id].product.is_some();
        let mut live = self.nodes.iter().filter(|(_, node)| node.live.is_some()).peekable();
        live.peek().is_some() && live.all(|(id, node)| node.complete && tells(id))
    }

    /// Whether every node, connected or not, has told at least once who its clients are.
    pub fn has_heard_of_all(&self) -> bool {
        self.nodes.values().all(|node| node.heard)
    }

    /// Whether any node is connected.
    pub fn has_live_nodes(&self) -> bool {
        self.nodes.values().any(|node| node.live.is_some())
    }
}
