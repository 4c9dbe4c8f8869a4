use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use slim_wire::{Header, Id, Name, Prefix, Space};
use smallvec::SmallVec;

use super::port::{Framing, LinkId, Port};

/// Which links subscribed to which names: one core's replica.
///
/// Matching follows the published rules of release 0.6 ("Node semantics: publish: matching"),
/// with anycast improved: links that subscribed with a concrete id are owners and come first,
/// and among them the least loaded. So a client that merely listens on a peer's name, as 0.6
/// initiators do, never swallows what is meant for the peer.
#[derive(Debug)]
pub struct Table {
    prefixes: HashMap<(Space, Prefix), Members, FixedState>,
    /// The links of each concrete id, the newest last.
    ids: HashMap<(Space, Name), SmallVec<[Arc<Port>; 1]>, FixedState>,
}

/// The links under one prefix. A link is in one of the maps.
#[derive(Debug, Default)]
struct Members {
    owners: IndexMap<LinkId, Owner, FixedState>,
    /// Links of apps that subscribed only without an id.
    guests: IndexMap<LinkId, Arc<Port>, FixedState>,
    /// Links to other nodes, by which the name and all its ids are reached.
    routes: IndexMap<LinkId, Arc<Port>, FixedState>,
    /// Where the next anycast starts to look.
    turn: usize,
}

#[derive(Debug)]
struct Owner {
    port: Arc<Port>,
    /// Concrete ids that the link subscribed to; at least one.
    ids: u32,
    /// Whether it subscribed without an id too.
    any: bool,
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
    #[inline]
    fn allows(self, port: &Port) -> bool {
        let back = matches!(port.framing(), Framing::Node(node) if self.node == Some(node));
        port.id() != self.link && !back && !(self.ends_here && port.is_node())
    }
}

/// How many candidates an anycast compares.
const ANYCAST_CANDIDATES: usize = 8;

impl Table {
    /// An empty table. `seed` keeps peers from choosing names that collide in its maps.
    pub fn new(seed: u64) -> Self {
        let state = || FixedState::with_seed(seed);
        Self { prefixes: HashMap::with_hasher(state()), ids: HashMap::with_hasher(state()) }
    }

    /// Adds a subscription that the link does not have yet.
    pub fn subscribe(&mut self, space: Space, name: Name, port: &Arc<Port>) {
        let members = self.prefixes.entry((space, name.prefix)).or_default();
        members.add(name.id, port);
        if !name.id.is_any() {
            self.ids.entry((space, name)).or_default().push(Arc::clone(port));
        }
    }

    /// Takes a subscription of the link back.
    pub fn unsubscribe(&mut self, space: Space, name: Name, link: LinkId) {
        if let Some(members) = self.prefixes.get_mut(&(space, name.prefix)) {
            members.remove(name.id, link);
            if members.len() == 0 {
                self.prefixes.remove(&(space, name.prefix));
            }
        }
        if let Some(ports) = self.ids.get_mut(&(space, name)) {
            ports.retain(|port| port.id() != link);
            if ports.is_empty() {
                self.ids.remove(&(space, name));
            }
        }
    }

    /// The links that have subscribed to this name with its id, the newest last.
    pub fn owners_of(&self, space: Space, name: &Name) -> &[Arc<Port>] {
        self.ids.get(&(space, *name)).map_or(&[], |ports| ports)
    }

    /// The links that have subscribed to the name with some id.
    pub fn named_owners(&self, space: Space, prefix: Prefix) -> impl Iterator<Item = &Arc<Port>> {
        let members = self.prefixes.get(&(space, prefix)).into_iter();
        members.flat_map(|members| members.owners.values().map(|owner| &owner.port))
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
        let mut nodes = SmallVec::<[u64; 4]>::new();
        let mut deliver = |port: &Arc<Port>| match port.framing() {
            Framing::Node(node) if nodes.contains(&node) => {}
            Framing::Node(node) => {
                nodes.push(node);
                deliver(port);
            }
            Framing::Grpc | Framing::Native | Framing::PublishedNode { .. } => deliver(port),
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
            _ => match self.ids.get(&(space, header.destination)) {
                Some(ports) => ports.iter().filter(|port| from.allows(port)).for_each(deliver),
                None => self.along_routes(space, prefix, from, deliver),
            },
        }
    }

    /// The newest link of a concrete id: an older one of the same id is a connection that its
    /// client has already given up. An unknown id goes to the nodes that the name is routed to;
    /// without any to the only link of the prefix, if there is just one, as in releases 0.4 to
    /// 1.3.
    fn exact(&self, space: Space, name: Name, from: Origin, mut deliver: impl FnMut(&Arc<Port>)) {
        if let Some(ports) = self.ids.get(&(space, name)) {
            ports.iter().rev().find(|port| from.allows(port)).into_iter().for_each(deliver);
            return;
        }
        let Some(members) = self.prefixes.get(&(space, name.prefix)) else {
            return;
        };
        if members.routes.is_empty() && members.len() == 1 {
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
        members
            .flat_map(|members| members.routes.values())
            .filter(|port| from.allows(port))
            .for_each(deliver);
    }
}

impl Members {
    fn len(&self) -> usize {
        self.owners.len() + self.guests.len() + self.routes.len()
    }

    fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        let owners = self.owners.values().map(|owner| &owner.port);
        owners.chain(self.guests.values()).chain(self.routes.values())
    }

    fn add(&mut self, id: Id, port: &Arc<Port>) {
        let link = port.id();
        match (self.owners.get_mut(&link), id.is_any()) {
            (Some(owner), true) => owner.any = true,
            (Some(owner), false) => owner.ids += 1,
            (None, true) => _ = self.others(port).insert(link, Arc::clone(port)),
            (None, false) => {
                let any = self.others(port).swap_remove(&link).is_some();
                self.owners.insert(link, Owner { port: Arc::clone(port), ids: 1, any });
            }
        }
    }

    fn remove(&mut self, id: Id, link: LinkId) {
        let Some(owner) = self.owners.get_mut(&link) else {
            if id.is_any() {
                self.guests.swap_remove(&link);
                self.routes.swap_remove(&link);
            }
            return;
        };
        if id.is_any() {
            owner.any = false;
            return;
        }
        owner.ids -= 1;
        if owner.ids == 0
            && let Some(owner) = self.owners.swap_remove(&link)
            && owner.any
        {
            self.others(&owner.port).insert(link, owner.port);
        }
    }

    /// Where a link without a concrete id belongs.
    fn others(&mut self, port: &Port) -> &mut IndexMap<LinkId, Arc<Port>, FixedState> {
        if port.is_node() { &mut self.routes } else { &mut self.guests }
    }

    /// The anycast target: owners before routes before guests, the least loaded of a few, and
    /// turn by turn among equals. Guests come last because release 0.6 makes the initiator of a
    /// session one under its peer's name.
    fn choose(&mut self, from: Origin) -> Option<&Arc<Port>> {
        self.turn = self.turn.wrapping_add(1);
        let (turn, owners) = (self.turn, &self.owners);
        least_loaded(owners.len(), turn, from, |at| owners.get_index(at).map(|(_, o)| &o.port))
            .or_else(|| {
                [&self.routes, &self.guests].into_iter().find_map(|links| {
                    least_loaded(links.len(), turn, from, |at| links.get_index(at).map(|(_, p)| p))
                })
            })
    }
}

/// The least loaded of up to [`ANYCAST_CANDIDATES`] ports from position `turn` on.
fn least_loaded<'a>(
    len: usize,
    turn: usize,
    from: Origin,
    port_at: impl Fn(usize) -> Option<&'a Arc<Port>>,
) -> Option<&'a Arc<Port>> {
    (0..len)
        .filter_map(|step| port_at((turn + step) % len))
        .filter(|port| from.allows(port))
        .take(ANYCAST_CANDIDATES)
        .min_by_key(|port| port.queued())
}

#[cfg(test)]
mod tests;
