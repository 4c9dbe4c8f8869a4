//! Why a message goes where it goes.

use std::sync::Arc;

use slim_wire::{Name, Space};
use slotmap::{DefaultKey, Key as _};

use super::{Key, Origin, Table};
use crate::datapath::port::{CoreId, LinkId, Port};

/// What a link is for a message to one of all who have the name; those that come first are taken
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A client of this node that has subscribed with an id.
    Owner,
    /// A node that has told of such a client of its own.
    OwnerElsewhere,
    /// A node to which the name is routed.
    Route,
    /// A client of this node that has subscribed without an id only.
    Listener,
    /// A node that has told of such a client of its own.
    ListenerElsewhere,
}

impl Rank {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::OwnerElsewhere => "owner on another node",
            Self::Route => "route",
            Self::Listener => "listener",
            Self::ListenerElsewhere => "listener on another node",
        }
    }
}

/// By what rule the target of a message to one is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The name has no id: the first rank that there is, of it the least loaded of a few.
    Anycast,
    /// The id is known: the newest subscription to it.
    Newest,
    /// The id is not known, and the name leads to a single client or node.
    Only,
    /// The id is not known: nodes to which the name is routed, if there are any.
    Routes,
}

impl Rule {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anycast => "anycast",
            Self::Newest => "newest of the id",
            Self::Only => "only subscriber",
            Self::Routes => "routes",
        }
    }
}

/// Who would get a message for a name, whoever sent it: nothing goes back to where it came from.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// How the target of a message to one is found.
    pub rule: Rule,
    /// Of a message to one, the targets: for [`Rule::Anycast`] all candidates, the best first.
    pub one: Vec<Arc<Port>>,
    /// All links under the name, the best for an anycast first.
    pub links: Vec<(Rank, Arc<Port>)>,
    /// How many links there are under the name; some may have been left out.
    pub total: usize,
}

/// Nobody's: it is allowed everywhere.
const ANYONE: fn() -> Origin = || {
    let link = LinkId { core: CoreId(u16::MAX), key: DefaultKey::null() };
    Origin { link, node: None, ends_here: false }
};

impl Table {
    /// Who would get a message for the name in a space, looking at up to `limit` links of each
    /// kind. `None` where nobody is known by the name.
    pub fn explain(&self, space: Space, name: Name, limit: usize) -> Option<Explanation> {
        let members = self.prefixes.get(&(space, name.prefix))?;
        let mut links: Vec<_> = members.ranked(limit).collect();
        links.sort_by_key(|(rank, port)| (*rank, port.queued()));
        links.truncate(limit);
        let links: Vec<_> =
            links.into_iter().map(|(rank, port)| (rank, Arc::clone(port))).collect();
        let routed = members.routes().next().is_some();
        let rule = match self.ids.contains_key(&Key::new(space, name)) {
            _ if name.id.is_any() => Rule::Anycast,
            true => Rule::Newest,
            false if members.lead_to_one() && !routed => Rule::Only,
            false => Rule::Routes,
        };
        let one = if name.id.is_any() {
            links.iter().map(|(_, port)| Arc::clone(port)).collect()
        } else {
            let mut one = Vec::new();
            self.exact(space, name, ANYONE(), |port| one.push(Arc::clone(port)));
            one.truncate(limit);
            one
        };
        Some(Explanation { rule, one, links, total: members.len() })
    }
}

#[cfg(test)]
mod tests {
    use slim_wire::{Id, TextName};

    use super::*;
    use crate::datapath::testing::port;

    fn name(id: Option<u64>) -> Name {
        let id = id.map_or(Id::ANY, Id::from_u64);
        TextName::new(["org", "ns", "app"], id).expect("short").to_name()
    }

    #[test]
    fn the_rule_and_the_targets_are_those_of_a_message() {
        let mut table = Table::new(0);
        let explain =
            |table: &Table, id| table.explain(Space::Native, name(id), 10).expect("known");
        assert!(table.explain(Space::Native, name(None), 10).is_none());

        let (listener, old, new) = (port(1), port(2), port(3));
        table.subscribe(Space::Native, name(None), &listener);
        let only = explain(&table, Some(7));
        assert_eq!((only.rule, only.one[0].id()), (Rule::Only, listener.id()));

        table.subscribe(Space::Native, name(Some(7)), &old);
        table.subscribe(Space::Native, name(Some(7)), &new);
        let newest = explain(&table, Some(7));
        assert_eq!((newest.rule, newest.one.len()), (Rule::Newest, 1));
        assert_eq!(newest.one[0].id(), new.id());
        let unknown = explain(&table, Some(8));
        assert_eq!((unknown.rule, unknown.one.len()), (Rule::Routes, 0));

        let anycast = explain(&table, None);
        let ranks: Vec<_> = anycast.links.iter().map(|(rank, _)| *rank).collect();
        assert_eq!(ranks, [Rank::Owner, Rank::Owner, Rank::Listener]);
        assert_eq!((anycast.rule, anycast.total), (Rule::Anycast, 3));
        assert!(table.explain(Space::P, name(None), 10).is_none());
    }

    #[test]
    fn no_more_links_are_shown_than_asked_for() {
        let mut table = Table::new(0);
        for number in 1..=20 {
            table.subscribe(Space::Native, name(Some(number)), &port(number));
        }
        let explained = table.explain(Space::Native, name(None), 5).expect("known");
        assert_eq!((explained.links.len(), explained.one.len(), explained.total), (5, 5, 20));
    }
}
