//! What is wanted of a node for a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Item, Ledger, Model, Progress, address, name_of};
use crate::controller::name::{RouteName, route_text};
use crate::controller::store::{Change, RouteRecord, RouteTarget};

/// A route that a node is to have.
struct Wish {
    /// How operators name it.
    id: String,
    /// The node or endpoint that it leads to.
    destination: String,
    /// The endpoint and the client block; or why there is none.
    via: Result<(String, Arc<str>), String>,
}

/// A route, and how far it got.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// How operators name it.
    pub id: String,
    /// The node that is to have it.
    pub node: String,
    /// The name.
    pub name: RouteName,
    /// The node or endpoint that it leads to.
    pub destination: String,
    /// How far it got.
    pub progress: Progress,
}

impl Model {
    /// Brings a node's ledger up to what is wanted for the names that are marked.
    pub(super) fn work_out(&mut self, id: &str) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        for name in std::mem::take(&mut node.marked) {
            self.work_out_name(id, &name);
        }
    }

    fn work_out_name(&mut self, id: &str, name: &Arc<RouteName>) {
        let mut wanted = BTreeMap::new();
        for wish in self.wishes(id, name) {
            if let Ok((endpoint, config)) = wish.via {
                wanted.entry(endpoint).or_insert(config);
            }
        }
        let deleted: Vec<_> = self.deletions(id, name).collect();
        let Some(node) = self.nodes.get_mut(id) else { return };
        for endpoint in node.ledger.endpoints(name) {
            if !wanted.contains_key(&endpoint) {
                node.ledger.drop(&Item::Route(Arc::clone(name), endpoint));
            }
        }
        for (endpoint, config) in &wanted {
            node.ledger.want(Item::Route(Arc::clone(name), endpoint.clone()), config);
        }
        for (route, endpoint) in deleted {
            match endpoint.filter(|endpoint| !wanted.contains_key(endpoint)) {
                Some(endpoint) => node.ledger.drop_anyway(Item::Route(Arc::clone(name), endpoint)),
                // Another asks for the same, or it led nowhere: there is nothing to tell.
                None => _ = self.obsolete.insert(route),
            }
        }
    }

    /// A node does not have a name over an endpoint any more.
    pub(super) fn removed(&mut self, id: &str, name: &Arc<RouteName>, endpoint: &str) {
        let done = self.deletions(id, name).filter(|(_, of)| of.as_deref() == Some(endpoint));
        let done: Vec<_> = done.map(|(route, _)| route).collect();
        self.obsolete.extend(done);
    }

    /// Deleted routes of operators, and the endpoints that they led to.
    fn deletions(
        &self,
        id: &str,
        name: &RouteName,
    ) -> impl Iterator<Item = (String, Option<String>)> {
        let of_name = self.of_operators(id, name).filter(|route| route.deleted);
        of_name.map(|route| {
            let (endpoint, _) = self.target(route).1.ok().unzip();
            (route.id.clone(), endpoint)
        })
    }

    /// Whether there is something in [`Model::settled`].
    pub fn has_settled(&self) -> bool {
        !self.obsolete.is_empty()
    }

    /// What can be committed now: deleted routes that nodes do not have any more.
    pub fn settled(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.obsolete).into_iter().map(Change::DeleteRoute).collect()
    }

    /// Routes of operators first; the rest follows from reports.
    fn wishes(&self, id: &str, name: &RouteName) -> Vec<Wish> {
        let of_operators = self.of_operators(id, name).filter(|route| !route.deleted);
        let of_operators = of_operators.map(|route| {
            let (destination, via) = self.target(route);
            Wish { id: route.id.clone(), destination, via }
        });
        let reporters = self.reporters.get(name).into_iter().flatten();
        let others = reporters.filter(|reporter| *reporter != id);
        let reported = others.map(|reporter| {
            let text = route_text(&name.to_subscription(""), reporter);
            let via = self.between(id, reporter);
            Wish { id: format!("{id}:{text}"), destination: reporter.clone(), via }
        });
        of_operators.chain(reported).collect()
    }

    fn of_operators(&self, id: &str, name: &RouteName) -> impl Iterator<Item = &RouteRecord> {
        let ids = self.by_name.get(&(id.to_owned(), name.clone()));
        ids.into_iter().flatten().filter_map(|id| self.state.routes.get(id))
    }

    fn target(&self, route: &RouteRecord) -> (String, Result<(String, Arc<str>), String>) {
        match &route.to {
            RouteTarget::Node(to) => (to.clone(), self.between(&route.node, to)),
            RouteTarget::Connection(id) => {
                let connection = self.state.connections.get(&(route.node.clone(), id.clone()));
                let missing = || format!("connection with ID {id} not found");
                let via = connection.map(|link| (link.endpoint.clone(), Arc::from(&*link.config)));
                (id.clone(), via.ok_or_else(missing))
            }
            RouteTarget::Endpoint { endpoint, config } => {
                (endpoint.clone(), Ok((endpoint.clone(), Arc::from(&**config))))
            }
        }
    }

    fn between(&self, source: &str, destination: &str) -> Result<(String, Arc<str>), String> {
        let known =
            |id: &str| self.state.nodes.get(id).ok_or(format!("node with ID {id} not found"));
        let (endpoint, config) = address::between(known(source)?, known(destination)?)?;
        Ok((endpoint, config.into()))
    }

    /// All routes that are wanted of a node, or that it has to be rid of.
    pub fn routes(&mut self, id: &str) -> Vec<RouteView> {
        self.work_out(id);
        let Some(node) = self.nodes.get(id) else { return Vec::new() };
        let of_operators = self.by_name.keys().filter(|(node, _)| node == id);
        let of_operators = of_operators.map(|(_, name)| name.clone());
        let reported = self.reporters.keys().map(|name| RouteName::clone(name));
        let names: std::collections::BTreeSet<_> = of_operators.chain(reported).collect();
        let mut routes = Vec::new();
        for name in names {
            for Wish { id: route, destination, via } in self.wishes(id, &name) {
                let progress = match via {
                    Ok((endpoint, _)) => {
                        let item = Item::Route(Arc::new(name.clone()), endpoint);
                        node.ledger.progress(&item).unwrap_or(Progress::Pending)
                    }
                    Err(reason) => Progress::Failed { reason, attempts: 0 },
                };
                let (node, name) = (id.to_owned(), name.clone());
                routes.push(RouteView { id: route, node, name, destination, progress });
            }
        }
        routes.extend(self.deleted_routes(id, &node.ledger));
        routes
    }

    /// What a node still has to be rid of: under the names that operators know it by, if any.
    fn deleted_routes(&self, id: &str, ledger: &Ledger) -> Vec<RouteView> {
        let of_node = self.state.routes.values().filter(|route| route.node == id && route.deleted);
        let of_operators = of_node.filter_map(|route| {
            let (destination, via) = self.target(route);
            let key = (name_of(route)?, via.ok()?.0);
            Some((key, (route.id.clone(), destination)))
        });
        let of_operators: BTreeMap<_, _> = of_operators.collect();
        let gone = ledger.deleted().filter_map(|item| match item {
            Item::Route(name, endpoint) => Some((RouteName::clone(name), endpoint.clone())),
            Item::Link(_) => None,
        });
        let views = gone.map(|key| {
            let known = of_operators.get(&key).cloned();
            let (name, endpoint) = key;
            let (route, destination) = known.unwrap_or_else(|| {
                let text = route_text(&name.to_subscription(""), &endpoint);
                (format!("{id}:{text}"), endpoint)
            });
            let (node, progress) = (id.to_owned(), Progress::Deleted);
            RouteView { id: route, node, name, destination, progress }
        });
        views.collect()
    }

    /// How far a route of an operator got; `None` once it is gone.
    pub fn progress(&mut self, route: &str) -> Option<Progress> {
        let record = self.state.routes.get(route)?.clone();
        self.work_out(&record.node);
        let record = self.state.routes.get(route).filter(|_| !self.obsolete.contains(route))?;
        if record.deleted {
            return Some(Progress::Deleted);
        }
        let name = Arc::new(name_of(record)?);
        Some(match self.target(record).1 {
            Ok((endpoint, _)) => {
                let item = Item::Route(name, endpoint);
                let ledger = self.nodes.get(&record.node).map(|node| &node.ledger);
                ledger.and_then(|ledger| ledger.progress(&item)).unwrap_or(Progress::Pending)
            }
            Err(reason) => Progress::Failed { reason, attempts: 0 },
        })
    }

    /// How far a connection of an operator got; `None` once it is gone.
    pub fn connection_progress(&self, node: &str, id: &str) -> Option<Progress> {
        let record = self.state.connections.get(&(node.to_owned(), id.to_owned()))?;
        let ledger = &self.nodes.get(node)?.ledger;
        ledger.progress(&Item::Link(record.endpoint.clone()))
    }
}
