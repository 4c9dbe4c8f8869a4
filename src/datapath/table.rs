use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::fast::FixedState;
use slim_wire::{Header, Id, Name, Prefix, Space};
use smallvec::SmallVec;

pub use self::explain::{Explanation, Rank, Rule};
use self::members::Members;
use super::port::{LinkId, Port};

/// Which links subscribed to which names: one core's replica.
///
/// Matching follows the published rules of release 0.6 ("Node semantics: publish: matching"),
/// with anycast improved: links that subscribed with a concrete id are owners and come first, this
/// node's own clients before what is reached by other nodes, and the least loaded among equals. So
/// a client that merely listens on a peer's name, as 0.6 initiators do, never swallows what is meant
/// for the peer, and a request does not travel when it need not.
#[derive(Debug)]
pub struct Table {
    prefixes: HashMap<(Space, Prefix), Members, FixedState>,
    /// The links of each concrete id, in the order in which they came.
    ids: HashMap<Key, SmallVec<[Holder; 1]>, FixedState>,
}

/// A name in a space. As such they would take 64 bytes, because an id is aligned to 16, and a lookup
/// one more cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    prefix: Prefix,
    id: [u64; 2],
    space: Space,
}

impl Key {
    fn new(space: Space, Name { prefix, id }: Name) -> Self {
        let id = id.as_u128();
        Self { prefix, id: [id as u64, (id >> 64) as u64], space }
    }
}

const _: () = assert!(size_of::<Key>() == 48);

/// A link that subscribed to a concrete id.
#[derive(Debug)]
struct Holder {
    port: Arc<Port>,
    /// The highest has the newest subscription. 0 for a route, which is older than any client.
    recency: u32,
}

/// Where a message comes from: nothing goes back there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The link.
    pub link: LinkId,
    /// The node behind it, if it is one; two nodes may have several links.
    pub node: Option<u64>,
    /// Nothing goes on to other nodes either.
    pub ends_here: bool,
}

impl Origin {
    /// That of what comes in on a link.
    pub fn of(port: &Port) -> Self {
        let framing = port.framing();
        Self { link: port.id(), node: framing.node(), ends_here: framing.ends_here() }
    }

    #[inline]
    fn allows(self, port: &Port) -> bool {
        let back = self.node.is_some() && port.framing().node() == self.node;
        port.id() != self.link && !back && !(self.ends_here && port.is_node())
    }
}

impl Table {
    /// An empty table. `seed` keeps peers from choosing names that collide in its maps.
    pub fn new(seed: u64) -> Self {
        let state = || FixedState::with_seed(seed);
        Self { prefixes: HashMap::with_hasher(state()), ids: HashMap::with_hasher(state()) }
    }

    /// Adds a subscription that the link does not have yet. A client's is newer than all others
    /// that are known of the name.
    pub fn subscribe(&mut self, space: Space, name: Name, port: &Arc<Port>) {
        let newest = self.newest(space, name, |_| true).unwrap_or(0);
        let recency = if port.is_node() { 0 } else { newest.saturating_add(1) };
        self.subscribe_told(space, name, port, recency);
    }

    /// Adds a subscription that another node has told of. Its `recency` is what
    /// [`Table::recency`] is there: so nodes that know of each other's subscriptions to an id agree
    /// which is the newest, whatever order they hear of them in.
    pub fn subscribe_told(&mut self, space: Space, name: Name, port: &Arc<Port>, recency: u32) {
        match self.prefixes.entry((space, name.prefix)) {
            Entry::Vacant(entry) => _ = entry.insert(Members::of(name.id, port)),
            Entry::Occupied(entry) => entry.into_mut().add(name.id, port),
        }
        if !name.id.is_any() {
            let holder = Holder { port: Arc::clone(port), recency };
            self.ids.entry(Key::new(space, name)).or_default().push(holder);
        }
    }

    /// How recent the newest subscription of this node's own clients to an id is; 0 without one.
    pub fn recency(&self, space: Space, name: Name) -> u32 {
        self.newest(space, name, |port| !port.is_node()).unwrap_or(0)
    }

    fn newest(&self, space: Space, name: Name, of: impl Fn(&Port) -> bool) -> Option<u32> {
        let holders = self.ids.get(&Key::new(space, name))?;
        holders.iter().filter(|holder| of(&holder.port)).map(|holder| holder.recency).max()
    }

    /// Takes a subscription of the link back.
    pub fn unsubscribe(&mut self, space: Space, name: Name, link: LinkId) {
        if let Entry::Occupied(mut entry) = self.prefixes.entry((space, name.prefix))
            && entry.get_mut().remove(name.id, link)
        {
            entry.remove();
        }
        if let Entry::Occupied(mut entry) = self.ids.entry(Key::new(space, name)) {
            entry.get_mut().retain(|holder| holder.port.id() != link);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// The client of this node that has subscribed to this name with its id, the newest if there
    /// are several.
    pub fn owner(&self, space: Space, name: &Name) -> Option<&Arc<Port>> {
        let holders = self.ids.get(&Key::new(space, *name)).into_iter().flatten();
        let clients = holders.filter(|holder| !holder.port.is_node());
        clients.max_by_key(|holder| holder.recency).map(|holder| &holder.port)
    }

    /// The clients of this node that have subscribed to the name with some id.
    pub fn named_owners(&self, space: Space, prefix: Prefix) -> impl Iterator<Item = &Arc<Port>> {
        self.prefixes.get(&(space, prefix)).into_iter().flat_map(Members::owners)
    }

    /// The links that have subscribed to the name, with an id or without.
    pub fn subscribers(&self, space: Space, prefix: Prefix) -> impl Iterator<Item = &Arc<Port>> {
        self.prefixes.get(&(space, prefix)).into_iter().flat_map(Members::ports)
    }

    /// Another space in which the destination's name is known.
    pub fn elsewhere(&self, header: &Header) -> Option<Space> {
        let own = header.encoding.space();
        let others = Space::ALL.into_iter().filter(|space| *space != own);
        let prefix = header.destination.prefix;
        others.into_iter().find(|space| self.prefixes.contains_key(&(*space, prefix)))
    }

    /// Calls `deliver` with every target of a message that came in on `from`.
    pub fn for_each_target(
        &mut self,
        header: &Header,
        from: Origin,
        mut deliver: impl FnMut(&Arc<Port>),
    ) {
        let space = header.encoding.space();
        let Name { prefix, id } = header.destination;
        // Several links may lead to one node, which is to get a message once.
        let mut nodes = SmallVec::<[u64; 16]>::new();
        let mut deliver = |port: &Arc<Port>| match port.framing().node() {
            Some(node) if nodes.contains(&node) => {}
            Some(node) => {
                nodes.push(node);
                deliver(port);
            }
            None => deliver(port),
        };
        match (header.fanout, id) {
            (1, Id::ANY) => {
                let members = self.prefixes.get_mut(&(space, prefix));
                if let Some(port) = members.and_then(|members| members.choose(from)) {
                    deliver(port);
                }
            }
            (1, _) => self.exact(space, header.destination, from, deliver),
            (_, Id::ANY) => {
                if let Some(members) = self.prefixes.get(&(space, prefix)) {
                    members.ports().filter(|port| from.allows(port)).for_each(deliver);
                }
            }
            _ => match self.ids.get(&Key::new(space, header.destination)) {
                Some(holders) => {
                    let ports = || holders.iter().map(|holder| &holder.port);
                    let once = ports().filter(|port| !port.is_transit());
                    let ports = once.chain(ports().filter(|port| port.is_transit()));
                    ports.filter(|port| from.allows(port)).for_each(deliver);
                }
                None => self.along_routes(space, prefix, from, deliver),
            },
        }
    }

    /// The link with the newest subscription to a concrete id, a client's before a node's if they
    /// cannot be told apart: an older one of the same id is a connection that its client has already
    /// given up. An unknown id goes to the nodes that the name is routed to; without any to the only
    /// target of the prefix, if there is just one, as in releases 0.4 to 1.3.
    fn exact(&self, space: Space, name: Name, from: Origin, mut deliver: impl FnMut(&Arc<Port>)) {
        if let Some(holders) = self.ids.get(&Key::new(space, name)) {
            let allowed = holders.iter().filter(|holder| from.allows(&holder.port));
            // Among equals the last is taken.
            let newest = allowed.max_by_key(|holder| (holder.recency, !holder.port.is_node()));
            newest.map(|holder| &holder.port).into_iter().for_each(deliver);
            return;
        }
        let Some(members) = self.prefixes.get(&(space, name.prefix)) else {
            return;
        };
        if members.lead_to_one() && members.routes().next().is_none() {
            members.ports().filter(|port| from.allows(port)).for_each(&mut deliver);
        }
        self.along_routes(space, name.prefix, from, deliver);
    }

    fn along_routes(
        &self,
        space: Space,
        prefix: Prefix,
        from: Origin,
        deliver: impl FnMut(&Arc<Port>),
    ) {
        let members = self.prefixes.get(&(space, prefix)).into_iter();
        members.flat_map(Members::routes).filter(|port| from.allows(port)).for_each(deliver);
    }
}

mod explain;
mod members;
#[cfg(test)]
mod tests;
