use std::sync::Arc;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use slim_wire::Id;

use super::{Origin, Rank};
use crate::datapath::port::{LinkId, Port};

/// The links under one prefix.
#[derive(Debug)]
pub(super) enum Members {
    /// As under most prefixes: it lies in the table itself, so that a lookup goes no further.
    One(Member),
    /// Two or more, or what is left of them.
    Several(Box<Several>),
}

#[derive(Debug, Default)]
pub(super) struct Several {
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
pub(super) struct Member {
    port: Arc<Port>,
    /// Concrete ids that the link subscribed to.
    ids: u32,
    /// Whether it subscribed without an id too.
    any: bool,
}

/// How many candidates an anycast compares.
const ANYCAST_CANDIDATES: usize = 8;

impl Members {
    /// A link that is the first under its prefix.
    pub(super) fn of(id: Id, port: &Arc<Port>) -> Self {
        Self::One(Member::new(id, port))
    }

    fn one(&self) -> Option<&Member> {
        match self {
            Self::One(member) => Some(member),
            Self::Several(_) => None,
        }
    }

    fn several(&self) -> Option<&Several> {
        match self {
            Self::One(_) => None,
            Self::Several(several) => Some(several),
        }
    }

    /// Whether all links lead to one client or node. Two nodes may have several links.
    pub(super) fn lead_to_one(&self) -> bool {
        self.several().is_none_or(Several::lead_to_one)
    }

    /// Clients of this node that have subscribed with an id.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Arc<Port>> {
        let one = self.one().filter(|one| one.ids > 0 && !one.port.is_node());
        let several = self.several().into_iter().flat_map(Several::owners);
        one.map(|one| &one.port).into_iter().chain(several)
    }

    /// All links; of several to one node that by which nothing goes further first, so that a
    /// message that a node gets once does not go on from there to others that get it from here.
    pub(super) fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        let one = self.one().map(|one| &one.port).into_iter();
        one.chain(self.several().into_iter().flat_map(Several::ports))
    }

    /// Links to nodes by which the name and all its ids are reached.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Port>> {
        let one = self.one().filter(|one| one.port.is_node() && one.is_route());
        let several = self.several().into_iter().flat_map(Several::routes);
        one.map(|one| &one.port).into_iter().chain(several)
    }

    /// All links with what they are for an anycast, up to `limit` of each kind.
    pub(super) fn ranked(&self, limit: usize) -> impl Iterator<Item = (Rank, &Arc<Port>)> {
        let one = self.one().map(|one| (one.rank(), &one.port)).into_iter().take(limit);
        one.chain(self.several().into_iter().flat_map(move |several| several.ranked(limit)))
    }

    /// How many links there are.
    pub(super) fn len(&self) -> usize {
        self.several().map_or(1, Several::len)
    }

    pub(super) fn add(&mut self, id: Id, port: &Arc<Port>) {
        match self {
            Self::One(one) if one.port.id() == port.id() => one.add(id),
            Self::One(one) => {
                let mut several = Box::<Several>::default();
                several.insert(Member { port: Arc::clone(&one.port), ..*one });
                several.add(id, port);
                *self = Self::Several(several);
            }
            Self::Several(several) => several.add(id, port),
        }
    }

    /// Returns whether nobody is left.
    #[must_use = "a prefix that nobody is under is forgotten"]
    pub(super) fn remove(&mut self, id: Id, link: LinkId) -> bool {
        match self {
            Self::One(one) if one.port.id() != link => false,
            Self::One(one) => {
                one.remove(id);
                one.ids == 0 && !one.any
            }
            Self::Several(several) => {
                several.remove(id, link);
                several.is_empty()
            }
        }
    }

    /// The anycast target, see [`Several::choose`].
    #[inline]
    pub(super) fn choose(&mut self, from: Origin) -> Option<&Arc<Port>> {
        match self {
            Self::One(one) => from.allows(&one.port).then_some(&one.port),
            Self::Several(several) => several.choose(from),
        }
    }
}

impl Several {
    fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.guests.is_empty() && self.nodes.is_empty()
    }

    fn lead_to_one(&self) -> bool {
        match (self.owners.len() + self.guests.len(), &self.nodes[..]) {
            (1, []) | (0, [_]) => true,
            (0, [first, others @ ..]) => {
                let node = |member: &Member| member.port.framing().node();
                node(first).is_some() && others.iter().all(|other| node(other) == node(first))
            }
            _ => false,
        }
    }

    fn owners(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.owners.values().map(|owner| &owner.port)
    }

    fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        let owners = self.owners();
        let nodes = |transit| {
            let nodes = self.nodes.iter().map(|member| &member.port);
            nodes.filter(move |port| port.is_transit() == transit)
        };
        owners.chain(self.guests.values()).chain(nodes(false)).chain(nodes(true))
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Port>> {
        let routes = self.nodes.iter().filter(|member| member.is_route());
        routes.map(|member| &member.port)
    }

    fn ranked(&self, limit: usize) -> impl Iterator<Item = (Rank, &Arc<Port>)> {
        let owners = self.owners().take(limit).map(|port| (Rank::Owner, port));
        let guests = self.guests.values().take(limit).map(|port| (Rank::Listener, port));
        let nodes = self.nodes.iter().map(|member| (member.rank(), &member.port));
        owners.chain(guests).chain(nodes.take(limit))
    }

    fn len(&self) -> usize {
        self.owners.len() + self.guests.len() + self.nodes.len()
    }

    fn insert(&mut self, member: Member) {
        let link = member.port.id();
        match &member {
            Member { port, .. } if port.is_node() => self.nodes.push(member),
            Member { ids: 1.., .. } => _ = self.owners.insert(link, member),
            _ => _ = self.guests.insert(link, member.port),
        }
    }

    fn add(&mut self, id: Id, port: &Arc<Port>) {
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

    fn remove(&mut self, id: Id, link: LinkId) {
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
    fn choose(&mut self, from: Origin) -> Option<&Arc<Port>> {
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
        if id.is_any() {
            self.any = false;
        } else {
            debug_assert!(self.ids > 0, "links take back only what they subscribed to");
            self.ids = self.ids.saturating_sub(1);
        }
    }

    /// Of a link to a node: whether the name and all its ids are reached by it.
    fn is_route(&self) -> bool {
        self.any && !self.port.is_exchange()
    }

    /// What the link is for an anycast.
    fn rank(&self) -> Rank {
        match (self.port.is_node(), self.ids) {
            (false, 1..) => Rank::Owner,
            (false, 0) => Rank::Listener,
            (true, 1..) => Rank::OwnerElsewhere,
            (true, 0) if !self.port.is_exchange() => Rank::Route,
            (true, 0) => Rank::ListenerElsewhere,
        }
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
