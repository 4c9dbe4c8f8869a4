//! What a core knows, for those who manage the node.

use std::collections::HashSet;
use std::sync::Arc;

use slim_wire::{Name, Prefix, Space, TextName};

use super::{Core, Fate, Link, LinkState};
use crate::datapath::port::{LinkId, Port};
use crate::datapath::table::Explanation;
use crate::policy::Mode;

/// A name that clients of this node have subscribed to.
pub struct ClientName<'a> {
    /// Among which releases it is known.
    pub space: Space,
    /// The name.
    pub name: Name,
    /// Its texts, if a client told them.
    pub text: Option<&'a Arc<TextName>>,
    /// The clients' links.
    pub links: &'a [LinkId],
}

/// What one link has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that came in and were let pass.
    pub received: u64,
    /// Their bytes, without framing.
    pub received_bytes: u64,
    /// Messages handed to the transport.
    pub written: u64,
    /// Their bytes, with framing.
    pub written_bytes: u64,
}

/// A link as its core sees it now.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Who it is, and how many bytes wait for it.
    pub port: Arc<Port>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Messages that wait for it on this core.
    pub queued: u64,
    /// What it has carried.
    pub traffic: Traffic,
    /// Whether it goes on; [`Fate::Finished`] as soon as it is to end.
    pub fate: Fate,
}

impl LinkStatus {
    fn of(link: &Link) -> Self {
        Self {
            port: Arc::clone(link.egress.port()),
            subscriptions: link.subscriptions.len(),
            queued: link.egress.messages(),
            traffic: link.traffic,
            fate: match link.state {
                LinkState::Open => Fate::Open,
                LinkState::Finishing => Fate::Finished,
                LinkState::Evicted => Fate::Evicted,
            },
        }
    }
}

impl Core {
    /// Up to `limit` of the links that live on this core, those for which most waits.
    pub fn fullest_links(&self, limit: usize) -> Vec<LinkStatus> {
        let mut links: Vec<_> = self.links.values().collect();
        if links.len() > limit {
            let queued = |link: &&Link| std::cmp::Reverse(link.egress.port().queued());
            links.select_nth_unstable_by_key(limit, queued);
            links.truncate(limit);
        }
        links.into_iter().map(LinkStatus::of).collect()
    }

    /// Who would get a message for the name in a space, and why; at most `limit` links of each
    /// kind. `None` where nobody is known by the name.
    pub fn explain(&self, space: Space, name: Name, limit: usize) -> Option<Explanation> {
        self.replica.known().explain(space, name, limit)
    }

    /// What is done about what the policy does not allow; and of the links of this core, how many
    /// it lets subscribe to the name, and how many there are.
    pub fn allowed(&self, name: &Name) -> (Mode, usize, usize) {
        let allowed = self.links.values().filter(|link| link.view.may_subscribe(name)).count();
        (self.policy.mode(), allowed, self.links.len())
    }

    /// The links that live on this core.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.links.values().map(|link| link.egress.port())
    }

    /// All names that clients of this node have subscribed to.
    pub fn client_names(&self) -> impl Iterator<Item = ClientName<'_>> {
        self.announcer.names()
    }

    /// The client of this node that has subscribed to this name with its id, the newest if there
    /// are several.
    pub fn owner(&self, space: Space, name: &Name) -> Option<&Arc<Port>> {
        self.replica.known().owner(space, name)
    }

    /// The clients of this node that have subscribed to one of two names, whatever the ids, with
    /// an id, and to the other in any way: members of a channel under their own name.
    pub fn clients_of_both(&self, own: Prefix, channel: Prefix) -> usize {
        let table = self.replica.known();
        let owners: HashSet<LinkId> = Space::ALL
            .into_iter()
            .flat_map(|space| table.named_owners(space, own))
            .map(|port| port.id())
            .collect();
        self.subscribers(channel).filter(|port| owners.contains(&port.id())).count()
    }

    /// Whether somebody, here or on another node, is known by the name.
    pub fn is_known(&self, name: Prefix) -> bool {
        self.subscribers(name).next().is_some()
    }

    /// Whether clients of this node are known by the name, and nobody on another node.
    pub fn is_only_here(&self, name: Prefix) -> bool {
        self.is_known(name) && self.subscribers(name).all(|port| !port.is_node())
    }

    fn subscribers(&self, name: Prefix) -> impl Iterator<Item = &Arc<Port>> {
        let table = self.replica.known();
        Space::ALL.into_iter().flat_map(move |space| table.subscribers(space, name))
    }
}
