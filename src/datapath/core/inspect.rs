//! What a core knows, for those who manage the node.

use std::collections::HashSet;
use std::sync::Arc;

use slim_wire::{Name, Prefix, Space, TextName};

use super::Core;
use crate::datapath::port::{LinkId, Port};

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

impl Core {
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

    /// Clients of this node that have subscribed to the name, whatever the ids.
    pub fn clients_of(&self, name: Prefix) -> usize {
        self.subscribers(name).filter(|port| !port.is_node()).count()
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
