use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexSet;
use slim_compat_grpc::Subscription;
use slim_wire::{Name, Space, TextName};
use smallvec::SmallVec;

use super::core::ClientName;
use super::port::LinkId;
use super::replica::Change;

/// Which names this node's own clients subscribed to, and which other nodes have been told.
///
/// A node is told of a name with the first client that subscribes to it, and again when the last
/// has gone; never of what other nodes reach. What it does not want to know is kept, and told again
/// when it may have room; what it may no longer know is taken back.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    names: HashMap<Key, Known>,
    listeners: HashMap<LinkId, Listener>,
}

type Key = (Space, Name);

/// A name that clients subscribed to.
#[derive(Debug)]
struct Known {
    links: SmallVec<[LinkId; 1]>,
    text: Option<Arc<TextName>>,
}

/// Which names a node is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// A node of a published release: those of one space whose texts are known.
    Published(Space),
    /// A node of this kind: all, and how recent they are.
    Exchange,
    /// The control plane: those whose texts are known.
    ControlPlane,
}

impl Audience {
    fn hears_of(self, space: Space) -> bool {
        match self {
            Self::Published(own) => own == space,
            Self::Exchange | Self::ControlPlane => true,
        }
    }
}

/// A link to a node that is told.
#[derive(Debug)]
struct Listener {
    audience: Audience,
    told: HashMap<Key, Told>,
    /// Names that may have to be told of. So many at most as there are names here, or were told.
    changed: IndexSet<Key>,
    /// The next of them, so that none waits for ever behind others.
    turn: usize,
    /// Names here that the node did not take.
    refused: IndexSet<Key>,
    announcements: u64,
}

#[derive(Debug)]
struct Told {
    text: Option<Arc<TextName>>,
    recency: u32,
    number: u64,
}

/// What another node has to be told of a name.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Whether clients here want it, or no longer do.
    pub change: Subscription,
    /// Where it belongs.
    pub space: Space,
    /// The name.
    pub name: Name,
    /// Its texts, if they are known.
    pub text: Option<Arc<TextName>>,
    /// Of a name with an id: how recent the subscription is among all nodes, see
    /// [`Table::subscribe_told`](super::Table::subscribe_told).
    pub recency: u32,
    /// Which announcement on its link it is.
    number: u64,
}

/// The name.
impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => text.fmt(f),
            None => self.name.fmt(f),
        }
    }
}

impl Announcer {
    /// Notes a change of the routing table, and calls `wake` with each link that is to be told.
    pub(super) fn note(&mut self, change: &Change, mut wake: impl FnMut(LinkId)) {
        let key = match change {
            // What other nodes reach is not this node's to announce.
            Change::Subscribe { port, .. } if port.is_node() => return,
            Change::Subscribe { port, space, name, text, .. } => {
                let known = self.names.entry((*space, *name));
                let known = known.or_insert_with(|| Known { links: SmallVec::new(), text: None });
                known.links.push(port.id());
                known.text = known.text.take().or_else(|| text.clone());
                (*space, *name)
            }
            Change::Unsubscribe(link, space, name) => {
                let Some(known) = self.names.get_mut(&(*space, *name)) else {
                    return;
                };
                known.links.retain(|known| known != link);
                if known.links.is_empty() {
                    self.names.remove(&(*space, *name));
                }
                (*space, *name)
            }
        };
        let is_known = self.names.contains_key(&key);
        for (link, listener) in &mut self.listeners {
            if listener.audience.hears_of(key.0) && listener.note(key, is_known) {
                wake(*link);
            }
        }
    }

    /// All names, with who has them.
    pub(super) fn names(&self) -> impl Iterator<Item = ClientName<'_>> {
        self.names.iter().map(|((space, name), Known { links, text })| ClientName {
            space: *space,
            name: *name,
            text: text.as_ref(),
            links,
        })
    }

    /// From now on the link is told of names.
    pub(super) fn listen(&mut self, link: LinkId, audience: Audience) {
        let known = self.names.keys().filter(|(space, _)| audience.hears_of(*space));
        let listener = Listener {
            audience,
            told: HashMap::new(),
            changed: known.copied().collect(),
            turn: 0,
            refused: IndexSet::new(),
            announcements: 0,
        };
        self.listeners.insert(link, listener);
    }

    /// Forgets a link.
    pub(super) fn leave(&mut self, link: LinkId) {
        self.listeners.remove(&link);
    }

    /// Which names links may know has changed: all that are here and all that were told are judged
    /// again. Calls `wake` with each link that may have to be told.
    pub(super) fn judge_again(&mut self, mut wake: impl FnMut(LinkId)) {
        for (link, listener) in &mut self.listeners {
            let audience = listener.audience;
            let known = self.names.keys().filter(|(space, _)| audience.hears_of(*space));
            listener.changed.extend(known.chain(listener.told.keys()));
            if !listener.changed.is_empty() {
                wake(*link);
            }
        }
    }

    /// What the link has to be told next, of names that it `may` know; `recency` says how recent
    /// this node's own subscriptions to a name are.
    pub(super) fn next(
        &mut self,
        link: LinkId,
        recency: impl Fn(&Key) -> u32,
        may: impl Fn(&Name) -> bool,
    ) -> Option<Announcement> {
        let listener = self.listeners.get_mut(&link)?;
        while let Some(key) = listener.pop() {
            let announcement = match self.names.get(&key) {
                Some(known) if may(&key.1) => listener.tell(key, known, recency(&key)),
                known => {
                    if known.is_some() {
                        // It is not to be told again when there is room.
                        listener.refused.swap_remove(&key);
                    }
                    listener.take_back(key)
                }
            };
            if announcement.is_some() {
                return announcement;
            }
        }
        None
    }

    /// The node behind the link has answered. What it did not take is told again when it has
    /// forgotten another name, and so may have room.
    pub(super) fn answered(&mut self, link: LinkId, announcement: &Announcement, taken: bool) {
        let Some(listener) = self.listeners.get_mut(&link) else {
            return;
        };
        let key = (announcement.space, announcement.name);
        match announcement.change {
            Subscription::Made if taken => {}
            Subscription::Made => {
                let told = listener.told.get(&key);
                if told.is_some_and(|told| told.number == announcement.number) {
                    listener.told.remove(&key);
                    if self.names.contains_key(&key) {
                        listener.refused.insert(key);
                    }
                }
            }
            Subscription::TakenBack => listener.changed.extend(listener.refused.pop()),
        }
    }
}

impl Listener {
    /// A name has come or gone, or got another client. Returns whether the link may have to be told.
    fn note(&mut self, key: Key, is_known: bool) -> bool {
        if !is_known {
            self.refused.swap_remove(&key);
        }
        let matters = is_known || self.told.contains_key(&key);
        if matters {
            self.changed.insert(key);
        } else {
            self.changed.swap_remove(&key);
        }
        matters
    }

    fn pop(&mut self) -> Option<Key> {
        if self.changed.is_empty() {
            return None;
        }
        self.turn = (self.turn + 1) % self.changed.len();
        self.changed.swap_remove_index(self.turn)
    }

    fn tell(&mut self, key: Key, known: &Known, recency: u32) -> Option<Announcement> {
        let news = match (self.audience, self.told.get(&key)) {
            (Audience::Published(_) | Audience::ControlPlane, told) => {
                told.is_none() && known.text.is_some()
            }
            (Audience::Exchange, told) => told.is_none_or(|told| told.recency < recency),
        };
        if !news {
            return None;
        }
        self.refused.swap_remove(&key);
        let announcement = self.announcement(Subscription::Made, key, known.text.clone(), recency);
        let Announcement { text, number, .. } = announcement.clone();
        self.told.insert(key, Told { text, recency, number });
        Some(announcement)
    }

    fn take_back(&mut self, key: Key) -> Option<Announcement> {
        let told = self.told.remove(&key)?;
        Some(self.announcement(Subscription::TakenBack, key, told.text, told.recency))
    }

    fn announcement(
        &mut self,
        change: Subscription,
        (space, name): Key,
        text: Option<Arc<TextName>>,
        recency: u32,
    ) -> Announcement {
        self.announcements += 1;
        Announcement { change, space, name, text, recency, number: self.announcements }
    }
}

#[cfg(test)]
mod tests;
