use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use slim_wire::{Header, Id, Name, Prefix, Space};
use smallvec::SmallVec;

use super::port::{LinkId, Port};

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

/// The links under one prefix. A link is in one of the two maps.
#[derive(Debug, Default)]
struct Members {
    owners: IndexMap<LinkId, Owner, FixedState>,
    /// Links that subscribed only without an id.
    guests: IndexMap<LinkId, Arc<Port>, FixedState>,
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

    /// Calls `deliver` with every target of a message that came in on `from`.
    pub fn for_each_target(
        &mut self,
        header: &Header,
        from: LinkId,
        mut deliver: impl FnMut(&Arc<Port>),
    ) {
        let space = header.encoding.space();
        let Name { prefix, id } = header.destination;
        match (header.fanout, id) {
            (1, Id::ANY) => {
                let members = self.prefixes.get_mut(&(space, prefix));
                if let Some(port) = members.and_then(|members| members.choose(from)) {
                    deliver(port);
                }
            }
            (1, _) => {
                if let Some(port) = self.exact(space, header.destination, from) {
                    deliver(port);
                }
            }
            (_, Id::ANY) => {
                if let Some(members) = self.prefixes.get(&(space, prefix)) {
                    members.ports().filter(|port| port.id() != from).for_each(deliver);
                }
            }
            _ => {
                let ports = self.ids.get(&(space, header.destination));
                ports.into_iter().flatten().filter(|port| port.id() != from).for_each(deliver);
            }
        }
    }

    /// The newest link of a concrete id: an older one of the same id is a connection that its
    /// client has already given up. An unknown id goes to the only link of the prefix, if there
    /// is just one, as in releases 0.4 to 1.3.
    fn exact(&self, space: Space, name: Name, from: LinkId) -> Option<&Arc<Port>> {
        if let Some(ports) = self.ids.get(&(space, name)) {
            return ports.iter().rev().find(|port| port.id() != from);
        }
        let members = self.prefixes.get(&(space, name.prefix))?;
        (members.len() == 1).then(|| members.ports().next())?.filter(|port| port.id() != from)
    }
}

impl Members {
    fn len(&self) -> usize {
        self.owners.len() + self.guests.len()
    }

    fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.owners.values().map(|owner| &owner.port).chain(self.guests.values())
    }

    fn add(&mut self, id: Id, port: &Arc<Port>) {
        let link = port.id();
        match (self.owners.get_mut(&link), id.is_any()) {
            (Some(owner), true) => owner.any = true,
            (Some(owner), false) => owner.ids += 1,
            (None, true) => _ = self.guests.insert(link, Arc::clone(port)),
            (None, false) => {
                let any = self.guests.swap_remove(&link).is_some();
                self.owners.insert(link, Owner { port: Arc::clone(port), ids: 1, any });
            }
        }
    }

    fn remove(&mut self, id: Id, link: LinkId) {
        let Some(owner) = self.owners.get_mut(&link) else {
            if id.is_any() {
                self.guests.swap_remove(&link);
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
            self.guests.insert(link, owner.port);
        }
    }

    /// The anycast target: owners before guests, the least loaded of a few, and turn by turn
    /// among equals.
    fn choose(&mut self, from: LinkId) -> Option<&Arc<Port>> {
        self.turn = self.turn.wrapping_add(1);
        let (turn, owners, guests) = (self.turn, &self.owners, &self.guests);
        least_loaded(owners.len(), turn, from, |at| owners.get_index(at).map(|(_, o)| &o.port))
            .or_else(|| {
                least_loaded(guests.len(), turn, from, |at| guests.get_index(at).map(|(_, p)| p))
            })
    }
}

/// The least loaded of up to [`ANYCAST_CANDIDATES`] ports from position `turn` on.
fn least_loaded<'a>(
    len: usize,
    turn: usize,
    from: LinkId,
    port_at: impl Fn(usize) -> Option<&'a Arc<Port>>,
) -> Option<&'a Arc<Port>> {
    (0..len)
        .filter_map(|step| port_at((turn + step) % len))
        .filter(|port| port.id() != from)
        .take(ANYCAST_CANDIDATES)
        .min_by_key(|port| port.queued())
}

#[cfg(test)]
mod tests;
