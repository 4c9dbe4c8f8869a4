use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slim_config::{Client, Endpoint};
use slim_wire::TextName;
use tokio::sync::watch;

use crate::datapath::NodeLink;
use crate::node::StartError;
use crate::node::core::Remote;
use crate::node::uplink::{State, Uplink, UplinkControl};
use crate::node::watch::MoreWatched;

/// Which controller of this node asked for something.
pub(super) type ControllerId = usize;

/// The links that controllers asked for, and what is reached by them.
pub(super) struct Links {
    cores: Vec<Remote>,
    /// Where this node itself listens.
    own: Vec<SocketAddr>,
    /// Names that may be reached by one link (`limits.subscriptions_per_node`).
    names_per_link: usize,
    watched: MoreWatched,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    links: HashMap<Endpoint, Link>,
    /// By which names controllers call the endpoints of their links.
    ids: HashMap<(ControllerId, String), Endpoint>,
    begun: usize,
}

/// A link is kept while somebody wants it.
struct Link {
    /// As its controller calls it.
    id: String,
    client: Client,
    /// `None` if the endpoint is this node itself: its own clients are reached without a link.
    begun: Option<UplinkControl>,
    wanted_by: BTreeSet<ControllerId>,
    routes: HashMap<TextName, BTreeSet<ControllerId>>,
    /// The routes have changed since the link was told.
    dirty: bool,
}

/// A link as it is listed.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) names: Vec<TextName>,
}

/// Links that controllers may ask for.
const LINKS: usize = 4096;

impl Links {
    /// Whose files are looked at by way of `watched`.
    pub(super) fn new(
        cores: Vec<Remote>,
        own: Vec<SocketAddr>,
        names_per_link: usize,
        watched: MoreWatched,
    ) -> Self {
        Self { cores, own, names_per_link, watched, held: Mutex::default() }
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
        let is_own = self.is_own(&client.endpoint).await;
        let Hold { state, begin } =
            self.lock().hold(by, id, client, (!is_own).then_some(&self.watched))?;
        if let Some((uplink, number)) = begin {
            let core = &self.cores[number % self.cores.len()];
            let begun = core.call(|local| uplink.begin(local)).await;
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

    /// Gives a link up that this controller no longer wants, unless another one does.
    pub(super) fn disconnect(&self, by: ControllerId, id: &str) {
        let mut held = self.lock();
        if let Some(endpoint) = held.endpoint(by, id) {
            held.release(by, &endpoint);
        }
    }

    /// Has a name reached by a link, from the next [`Links::publish`] on.
    ///
    /// # Errors
    /// If there is no such link, or too much is reached by it.
    pub(super) fn set_route(
        &self,
        by: ControllerId,
        id: &str,
        name: TextName,
    ) -> Result<(), String> {
        let mut held = self.lock();
        let endpoint = held.endpoint(by, id);
        let Some(link) = endpoint.and_then(|endpoint| held.links.get_mut(&endpoint)) else {
            return Err(format!("connection {id} not found"));
        };
        if link.routes.len() >= self.names_per_link && !link.routes.contains_key(&name) {
            let limit = self.names_per_link;
            return Err(format!("names of one link: expected at most {limit}"));
        }
        link.dirty |= link.routes.entry(name).or_default().insert(by);
        Ok(())
    }

    /// Has a name reached by a link no more, from the next [`Links::publish`] on. One that never
    /// was is no error.
    pub(super) fn delete_route(&self, by: ControllerId, id: &str, name: &TextName) {
        let mut held = self.lock();
        let endpoint = held.endpoint(by, id);
        if let Some(link) = endpoint.and_then(|endpoint| held.links.get_mut(&endpoint))
            && let Some(wanted_by) = link.routes.get_mut(name)
        {
            wanted_by.remove(&by);
            if wanted_by.is_empty() {
                link.routes.remove(name);
                link.dirty = true;
            }
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
        let mut kept_routes: HashMap<Endpoint, HashSet<&TextName>> = HashMap::new();
        for (id, name) in routes {
            if let Some(endpoint) = held.endpoint(by, id) {
                kept_routes.entry(endpoint).or_default().insert(name);
            }
        }
        let gone: Vec<_> =
            held.links.keys().filter(|endpoint| !kept.contains(*endpoint)).cloned().collect();
        gone.iter().for_each(|endpoint| held.release(by, endpoint));
        for (endpoint, link) in &mut held.links {
            let kept = kept_routes.get(endpoint);
            link.forget(by, |route| !kept.is_some_and(|kept| kept.contains(route)));
        }
    }

    /// Tells links what is reached by them, where that has changed.
    pub(super) fn publish(&self) {
        for link in self.lock().links.values_mut() {
            if std::mem::take(&mut link.dirty)
                && let Some(begun) = &link.begun
            {
                begun.routes.send_replace(Arc::new(link.routes.keys().cloned().collect()));
            }
        }
    }

    /// All links, with what is reached by them.
    pub(super) fn list(&self) -> Vec<Listed> {
        let held = self.lock();
        let listed = held.links.values().map(|link| Listed {
            id: link.id.clone(),
            names: link.routes.keys().cloned().collect(),
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

/// A link that is held for a controller.
struct Hold {
    state: watch::Receiver<State>,
    /// One that has to be begun, and how many were before.
    begin: Option<(Uplink, usize)>,
}

impl Held {
    /// Holds a link for a controller, with its files `watched` unless it leads to this node itself.
    fn hold(
        &mut self,
        by: ControllerId,
        id: &str,
        client: Client,
        watched: Option<&MoreWatched>,
    ) -> Result<Hold, String> {
        let endpoint = client.endpoint.clone();
        let known = self.links.get_mut(&endpoint);
        if known.is_none() && self.links.len() >= LINKS {
            return Err(format!("links of controllers: expected at most {LINKS}"));
        }
        if let Some(link) = self.links.get_mut(&endpoint)
            && link.client == client
        {
            link.wanted_by.insert(by);
            let state = link.state();
            self.ids.insert((by, id.to_owned()), endpoint);
            return Ok(Hold { state, begin: None });
        }
        // With another configuration the link is begun anew, with the same routes.
        let names = self.links.get(&endpoint).map(|link| link.routes.keys().cloned().collect());
        let begun = watched.map(|watched| begin(&client, names.unwrap_or_default(), watched));
        let (uplink, begun) = begun.transpose()?.unzip();
        let (mut wanted_by, routes) = match self.links.remove(&endpoint) {
            Some(before) => (before.wanted_by, before.routes),
            None => Default::default(),
        };
        wanted_by.insert(by);
        let link = Link { id: id.to_owned(), client, begun, wanted_by, routes, dirty: false };
        let state = link.state();
        self.links.insert(endpoint.clone(), link);
        self.ids.insert((by, id.to_owned()), endpoint);
        self.begun += 1;
        Ok(Hold { state, begin: uplink.map(|uplink| (uplink, self.begun)) })
    }

    /// The endpoint that a controller means: by its own id for the link, or the endpoint itself.
    fn endpoint(&self, by: ControllerId, id: &str) -> Option<Endpoint> {
        let named = self.ids.get(&(by, id.to_owned())).cloned();
        named.or_else(|| Client::peer(id).ok().map(|client| client.endpoint))
    }

    fn release(&mut self, by: ControllerId, endpoint: &Endpoint) {
        self.ids.retain(|(of, _), named| !(*of == by && named == endpoint));
        if let Some(link) = self.links.get_mut(endpoint) {
            link.wanted_by.remove(&by);
            link.forget(by, |_| true);
            if link.wanted_by.is_empty() {
                self.links.remove(endpoint);
            }
        }
    }
}

fn begin(
    client: &Client,
    names: Vec<TextName>,
    watched: &MoreWatched,
) -> Result<(Uplink, UplinkControl), String> {
    let begun = watched
        .with(|watcher| Uplink::new(client, NodeLink::LastHop, "controller", names, watcher));
    begun.map_err(|error: StartError| format!("{error}; {}", error.hint()))
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
        self.dirty |= self.routes.len() != before;
    }

    /// How it is from now on; this node itself is always reached.
    fn state(&self) -> watch::Receiver<State> {
        match &self.begun {
            Some(begun) => begun.state.clone(),
            None => watch::channel(State::Open).1,
        }
    }
}
