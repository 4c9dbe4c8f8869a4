use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use slim_wire::Id;

use super::{Origin, Rank};
use crate::datapath::port::{LinkId, Port};

/// The links under one prefix.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Links of clients that subscribed with a concrete id.
    owners: IndexMap<LinkId, Member, FixedState>,
    /// Links of clients that subscribed only without one.
    guests: IndexMap<LinkId, Arc<Port>, FixedState>,
    /// Links to other nodes. They are few.
    nodes: Vec<Member>,
    /// Where the next anycast starts to look.
    turn: usize,
}

#[derive(Debug)]
struct Member {
    port: Arc<Port>,
    /// Concrete ids that the link subscribed to.
    ids: u32,
    /// Whether it subscribed without an id too.
    any: bool,
}

/// How many candidates an anycast compares.
const ANYCAST_CANDIDATES: usize = 8;

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.guests.is_empty() && self.nodes.is_empty()
    }

    /// Whether all links lead to one client or node. Two nodes may have several links.
    pub(super) fn lead_to_one(&self) -> bool {
        match (self.owners.len() + self.guests.len(), &self.nodes[..]) {
            (1, []) | (0, [_]) => true,
            (0, [first, others @ ..]) => {
                let node = |member: &Member| member.port.framing().node();
                node(first).is_some() && others.iter().all(|other| node(other) == node(first))
            }
            _ => false,
        }
    }

    /// Clients of this node that have subscribed with an id.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.owners.values().map(|owner| &owner.port)
    }

    /// All links; of several to one node that by which nothing goes further first, so that a
    /// message that a node gets once does not go on from there to others that get it from here.
    pub(super) fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        let owners = self.owners();
        let nodes = |transit| {
            let nodes = self.nodes.iter().map(|member| &member.port);
            nodes.filter(move |port| port.is_transit() == transit)
        };
        owners.chain(self.guests.values()).chain(nodes(false)).chain(nodes(true))
    }

    /// Links to nodes by which the name and all its ids are reached.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Port>> {
        let routes = self.nodes.iter().filter(|member| member.any && !member.port.is_exchange());
        routes.map(|member| &member.port)
    }

    /// All links with what they are for an anycast, up to `limit` of each kind.
    pub(super) fn ranked(&self, limit: usize) -> impl Iterator<Item = (Rank, &Arc<Port>)> {
        let owners = self.owners().take(limit).map(|port| (Rank::Owner, port));
        let guests = self.guests.values().take(limit).map(|port| (Rank::Listener, port));
        let nodes = self.nodes.iter().map(|member| {
            let rank = match member {
                Member { ids: 1.., .. } => Rank::OwnerElsewhere,
                Member { port, .. } if !port.is_exchange() => Rank::Route,
                _ => Rank::ListenerElsewhere,
            };
            (rank, &member.port)
        });
        owners.chain(guests).chain(nodes.take(limit))
    }

    /// How many links there are.
    pub(super) fn len(&self) -> usize {
        self.owners.len() + self.guests.len() + self.nodes.len()
    }

    pub(super) fn add(&mut self, id: Id, port: &Arc<Port>) {
        let link = port.id();
        if port.is_node() {
            match self.nodes.iter_mut().find(|member| member.port.id() == link) {
                Some(member) => member.add(id),
                None => self.nodes.push(Member::new(id, port)),
            }
            return;
        }
        match (self.owners.get_mut(&link), id.is_any()) {
            (Some(owner), _) => owner.add(id),
            (None, true) => _ = self.guests.insert(link, Arc::clone(port)),
            (None, false) => {
                let any = self.guests.swap_remove(&link).is_some();
                self.owners.insert(link, Member { any, ..Member::new(id, port) });
            }
        }
    }

    pub(super) fn remove(&mut self, id: Id, link: LinkId) {
        if let Some(at) = self.nodes.iter().position(|member| member.port.id() == link) {
            let member = &mut self.nodes[at];
            member.remove(id);
            if member.ids == 0 && !member.any {
                self.nodes.swap_remove(at);
            }
            return;
        }
        let Some(owner) = self.owners.get_mut(&link) else {
            if id.is_any() {
                self.guests.swap_remove(&link);
            }
            return;
        };
        owner.remove(id);
        if owner.ids == 0
            && let Some(owner) = self.owners.swap_remove(&link)
            && owner.any
        {
            self.guests.insert(link, owner.port);
        }
    }

    /// The anycast target: owners here, then at other nodes, routes, and then who only listens,
    /// here and at other nodes; of each the least loaded of a few, and turn by turn among equals.
    /// Who only listens comes last because release 0.6 makes the initiator of a session one under
    /// its peer's name.
    pub(super) fn choose(&mut self, from: Origin) -> Option<&Arc<Port>> {
        self.turn = self.turn.wrapping_add(1);
        let Self { owners, guests, nodes, turn } = &*self;
        let node = |wanted: fn(&Member) -> bool| {
            least_loaded(nodes.len(), *turn, from, move |at| {
                nodes.get(at).filter(|member| wanted(member)).map(|member| &member.port)
            })
        };
        let owner = |at| owners.get_index(at).map(|(_, owner)| &owner.port);
        let guest = |at| guests.get_index(at).map(|(_, port)| port);
        least_loaded(owners.len(), *turn, from, owner)
            .or_else(|| node(|member| member.ids > 0))
            .or_else(|| node(|member| !member.port.is_exchange()))
            .or_else(|| least_loaded(guests.len(), *turn, from, guest))
            .or_else(|| node(|_| true))
    }
}

impl Member {
    fn new(id: Id, port: &Arc<Port>) -> Self {
        let any = id.is_any();
        Self { port: Arc::clone(port), ids: u32::from(!any), any }
    }

    fn add(&mut self, id: Id) {
        if id.is_any() { self.any = true } else { self.ids += 1 }
    }

    fn remove(&mut self, id: Id) {
        if id.is_any() { self.any = false } else { self.ids -= 1 }
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
