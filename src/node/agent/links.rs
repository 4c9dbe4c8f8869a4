use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slim_config::{Client, Endpoint};
use slim_wire::TextName;
use tokio::sync::watch;

use crate::datapath::NodeLink;
use crate::node::core::Remote;
use crate::node::uplink::{State, Uplink, UplinkControl};
use crate::node::watch::{Watcher, Watching};

/// Which controller of this node asked for something.
pub(super) type ControllerId = usize;

/// The links that controllers asked for, and what is reached by them.
pub(super) struct Links {
    cores: Vec<Remote>,
    /// Where this node itself listens.
    own: Vec<SocketAddr>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    links: HashMap<Endpoint, Link>,
    /// By which names controllers call the endpoints of their links.
    ids: HashMap<(ControllerId, String), Endpoint>,
    begun: usize,
    /// Endpoints that are this node itself. What is reached there is reached without a link.
    own: HashSet<Endpoint>,
}

/// A link is kept while somebody wants it.
struct Link {
    control: UplinkControl,
    client: Client,
    wanted_by: BTreeSet<ControllerId>,
    routes: HashMap<TextName, BTreeSet<ControllerId>>,
    _watching: Watching,
}

/// A link as it is listed.
pub(super) struct Listed {
    pub(super) endpoint: Endpoint,
    pub(super) names: Vec<TextName>,
}

impl Links {
    pub(super) fn new(cores: Vec<Remote>, own: Vec<SocketAddr>) -> Self {
        Self { cores, own, held: Mutex::default() }
    }

    /// The cores that links may live on.
    pub(super) fn cores(&self) -> &[Remote] {
        &self.cores
    }

    /// Begins a link, unless there is one to this endpoint. Returns how it is from now on.
    ///
    /// # Errors
    /// Why it cannot be begun, for the controller.
    pub(super) async fn connect(
        &self,
        by: ControllerId,
        id: &str,
        client: Client,
    ) -> Result<watch::Receiver<State>, String> {
        if self.is_own(&client.endpoint).await {
            let mut held = self.lock();
            held.ids.insert((by, id.to_owned()), client.endpoint.clone());
            held.own.insert(client.endpoint);
            return Ok(watch::channel(State::Open).1);
        }
        let (begin, state) = self.hold(by, id, client)?;
        if let Some((uplink, core)) = begin {
            let begun = self.cores[core].call(|local| uplink.begin(local)).await;
            begun.ok_or_else(|| "this node stops".to_owned())?;
        }
        Ok(state)
    }

    /// Whether an endpoint is this node itself, by the addresses of this machine.
    async fn is_own(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host.trim_matches(['[', ']']);
        if !self.own.iter().any(|own| own.port() == endpoint.port) {
            return false;
        }
        let Ok(mut addresses) = tokio::net::lookup_host((host, endpoint.port)).await else {
            return false;
        };
        addresses.any(|address| {
            self.own.iter().any(|own| {
                let every = own.ip().is_unspecified() && is_of_this_machine(address.ip());
                own.port() == address.port() && (own.ip() == address.ip() || every)
            })
        })
    }

    #[expect(clippy::type_complexity, reason = "only between two functions of this file")]
    fn hold(
        &self,
        by: ControllerId,
        id: &str,
        client: Client,
    ) -> Result<(Option<(Uplink, usize)>, watch::Receiver<State>), String> {
        let endpoint = client.endpoint.clone();
        let mut held = self.lock();
        held.ids.insert((by, id.to_owned()), endpoint.clone());
        if let Some(link) = held.links.get_mut(&endpoint)
            && link.client == client
        {
            link.wanted_by.insert(by);
            return Ok((None, link.control.state.clone()));
        }
        let failed = |error: crate::node::StartError| format!("{error}; {}", error.hint());
        let mut watcher = Watcher::new().map_err(failed)?;
        // With another configuration the link is begun anew, with the same routes.
        let names: Vec<_> = held.links.get(&endpoint).into_iter().flat_map(Link::names).collect();
        let (uplink, control) =
            Uplink::new(&client, NodeLink::LastHop, "controller", names, &mut watcher)
                .map_err(failed)?;
        let state = control.state.clone();
        let watching = watcher.start().map_err(failed)?;
        let before = held.links.remove(&endpoint);
        let (mut wanted_by, routes) =
            before.map_or_else(Default::default, |link| (link.wanted_by, link.routes));
        wanted_by.insert(by);
        let link = Link { control, client, wanted_by, routes, _watching: watching };
        held.links.insert(endpoint, link);
        let core = held.begun % self.cores.len();
        held.begun += 1;
        Ok((Some((uplink, core)), state))
    }

    /// Gives a link up that this controller no longer wants, unless another one does.
    pub(super) fn disconnect(&self, by: ControllerId, id: &str) {
        let mut held = self.lock();
        if let Some(endpoint) = held.endpoint(by, id) {
            held.ids.retain(|(of, _), named| !(*of == by && *named == endpoint));
            held.release(by, &endpoint);
        }
    }

    /// Has a name reached by a link.
    ///
    /// # Errors
    /// If there is no such link.
    pub(super) fn set_route(
        &self,
        by: ControllerId,
        id: &str,
        name: TextName,
    ) -> Result<(), String> {
        let mut held = self.lock();
        let endpoint = held.endpoint(by, id);
        if endpoint.as_ref().is_some_and(|endpoint| held.own.contains(endpoint)) {
            return Ok(());
        }
        let link = endpoint.and_then(|endpoint| held.links.get_mut(&endpoint));
        let Some(link) = link else {
            return Err(format!("connection {id} not found"));
        };
        if link.routes.entry(name).or_default().insert(by) {
            link.publish();
        }
        Ok(())
    }

    /// Has a name reached by a link no more. One that never was is no error.
    pub(super) fn delete_route(&self, by: ControllerId, id: &str, name: &TextName) {
        let mut held = self.lock();
        let endpoint = held.endpoint(by, id);
        if let Some(link) = endpoint.and_then(|endpoint| held.links.get_mut(&endpoint)) {
            link.forget(by, |route| route == name);
        }
    }

    /// Gives up whatever this controller wanted before beyond these links and routes.
    pub(super) fn retain(
        &self,
        by: ControllerId,
        ids: &HashSet<&str>,
        routes: &HashSet<(&str, TextName)>,
    ) {
        let mut held = self.lock();
        let kept: HashSet<Endpoint> = ids.iter().filter_map(|id| held.endpoint(by, id)).collect();
        let kept_routes: HashSet<(Endpoint, &TextName)> =
            routes.iter().filter_map(|(id, name)| Some((held.endpoint(by, id)?, name))).collect();
        let gone: Vec<_> =
            held.links.keys().filter(|endpoint| !kept.contains(*endpoint)).cloned().collect();
        gone.iter().for_each(|endpoint| held.release(by, endpoint));
        for (endpoint, link) in &mut held.links {
            link.forget(by, |route| !kept_routes.contains(&(endpoint.clone(), route)));
        }
    }

    /// All links, with what is reached by them.
    pub(super) fn list(&self) -> Vec<Listed> {
        let held = self.lock();
        let listed = held.links.iter().map(|(endpoint, link)| Listed {
            endpoint: endpoint.clone(),
            names: link.names().collect(),
        });
        listed.collect()
    }

    /// Whoever held the lock left nothing between two states.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only addresses of this machine can be bound.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

impl Held {
    /// The endpoint that a controller means: by its own id for the link, or the endpoint itself.
    fn endpoint(&self, by: ControllerId, id: &str) -> Option<Endpoint> {
        let named = self.ids.get(&(by, id.to_owned())).cloned();
        named.or_else(|| Client::peer(id).ok().map(|client| client.endpoint))
    }

    fn release(&mut self, by: ControllerId, endpoint: &Endpoint) {
        if let Some(link) = self.links.get_mut(endpoint) {
            link.wanted_by.remove(&by);
            link.forget(by, |_| true);
            if link.wanted_by.is_empty() {
                self.links.remove(endpoint);
            }
        }
    }
}

impl Link {
    fn forget(&mut self, by: ControllerId, forgets: impl Fn(&TextName) -> bool) {
        let before = self.routes.len();
        self.routes.retain(|name, wanted_by| {
            if forgets(name) {
                wanted_by.remove(&by);
            }
            !wanted_by.is_empty()
        });
        if self.routes.len() != before {
            self.publish();
        }
    }

    fn names(&self) -> impl Iterator<Item = TextName> {
        self.routes.keys().cloned()
    }

    fn publish(&self) {
        self.control.routes.send_replace(Arc::new(self.names().collect()));
    }
}
