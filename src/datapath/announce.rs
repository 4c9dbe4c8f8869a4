use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slim_compat_grpc::Subscription;
use slim_wire::{Name, Space, TextName};
use smallvec::SmallVec;

use super::core::ClientName;
use super::port::LinkId;
use super::replica::Change;

/// Which names this node's own clients subscribed to, and which nodes of published releases have
/// been told.
///
/// Such a node sends a message here only if it was asked to, as by any client: it is told of a
/// name with the first client that subscribes to it, and again when the last has gone. Names
/// without texts cannot be told.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    names: HashMap<(Space, Name), Known>,
    listeners: HashMap<LinkId, Listener>,
}

/// A name that clients subscribed to.
#[derive(Debug)]
struct Known {
    links: SmallVec<[LinkId; 1]>,
    text: Option<Arc<TextName>>,
}

/// A link to a node that is told.
#[derive(Debug)]
struct Listener {
    space: Space,
    told: HashMap<Name, Arc<TextName>>,
    /// Names that may have to be told of, each once.
    changed: VecDeque<Name>,
    waiting: HashSet<Name>,
    waker: Option<Waker>,
}

impl Announcer {
    /// Notes a change of the routing table.
    pub(super) fn note(&mut self, change: &Change) {
        let (space, name) = match change {
            // What other nodes reach is not this node's to announce.
            Change::Subscribe(port, ..) if port.is_node() => return,
            Change::Subscribe(port, space, name, text) => {
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
        for listener in self.listeners.values_mut().filter(|listener| listener.space == space) {
            if listener.waiting.insert(name) {
                listener.changed.push_back(name);
            }
            if let Some(waker) = listener.waker.take() {
                waker.wake();
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

    /// From now on the link is told of the names in a space.
    pub(super) fn listen(&mut self, link: LinkId, space: Space) {
        let known = self.names.keys().filter(|(of, _)| *of == space);
        let changed: VecDeque<_> = known.map(|(_, name)| *name).collect();
        let waiting = changed.iter().copied().collect();
        let listener = Listener { space, told: HashMap::new(), changed, waiting, waker: None };
        self.listeners.insert(link, listener);
    }

    /// Forgets a link.
    pub(super) fn leave(&mut self, link: LinkId) {
        self.listeners.remove(&link);
    }

    /// What the link has to be told next.
    pub(super) fn poll(
        &mut self,
        link: LinkId,
        cx: &mut Context<'_>,
    ) -> Poll<(Subscription, Arc<TextName>)> {
        let Some(listener) = self.listeners.get_mut(&link) else {
            return Poll::Pending;
        };
        while let Some(name) = listener.changed.pop_front() {
            listener.waiting.remove(&name);
            let known = self.names.get(&(listener.space, name));
            let text = known.and_then(|known| known.text.clone());
            match (text, listener.told.contains_key(&name)) {
                (Some(text), false) => {
                    listener.told.insert(name, Arc::clone(&text));
                    return Poll::Ready((Subscription::Made, text));
                }
                (None, true) if known.is_none() => {
                    if let Some(text) = listener.told.remove(&name) {
                        return Poll::Ready((Subscription::TakenBack, text));
                    }
                }
                _ => {}
            }
        }
        listener.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::testing::port;
    use crate::datapath::{Framing, Port};

    fn text(app: &str) -> Arc<TextName> {
        Arc::new(format!("org/ns/{app}/7").parse().expect("a name"))
    }

    fn subscribe(port: &Arc<Port>, text: &Arc<TextName>) -> Change {
        Change::Subscribe(Arc::clone(port), Space::D20, text.to_name(), Some(Arc::clone(text)))
    }

    fn unsubscribe(port: &Port, text: &TextName) -> Change {
        Change::Unsubscribe(port.id(), Space::D20, text.to_name())
    }

    fn app(name: &TextName) -> String {
        name.components()[2].to_owned()
    }

    fn told(announcer: &mut Announcer, link: LinkId) -> Vec<(Subscription, String)> {
        let mut told = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready((change, text)) = announcer.poll(link, &mut cx) {
            told.push((change, app(&text)));
        }
        told
    }

    #[test]
    fn a_node_is_told_with_the_first_client_of_a_name_and_after_the_last() {
        let (mut announcer, [node, one, two]) = (Announcer::default(), [1, 2, 3].map(port));
        announcer.listen(node.id(), Space::D20);
        let name = text("app");
        announcer.note(&subscribe(&one, &name));
        announcer.note(&subscribe(&two, &name));
        let made = vec![(Subscription::Made, "app".to_owned())];
        assert_eq!(told(&mut announcer, node.id()), made);
        announcer.note(&unsubscribe(&one, &name));
        assert_eq!(told(&mut announcer, node.id()), []);
        announcer.note(&unsubscribe(&two, &name));
        let gone = vec![(Subscription::TakenBack, "app".to_owned())];
        assert_eq!(told(&mut announcer, node.id()), gone);
    }

    #[test]
    fn a_node_that_comes_later_is_told_of_all_there_is() {
        let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
        for app in ["a", "b", "c"] {
            announcer.note(&subscribe(&one, &text(app)));
        }
        announcer.note(&unsubscribe(&one, &text("b")));
        announcer.listen(node.id(), Space::D20);
        let mut names: Vec<_> = told(&mut announcer, node.id()).into_iter().map(|t| t.1).collect();
        names.sort();
        assert_eq!(names, ["a", "c"]);
        announcer.leave(node.id());
        announcer.listen(node.id(), Space::P);
        assert_eq!(told(&mut announcer, node.id()), []);
    }

    #[test]
    fn what_came_and_went_before_it_was_told_is_not_told() {
        let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
        announcer.listen(node.id(), Space::D20);
        announcer.note(&subscribe(&one, &text("app")));
        announcer.note(&unsubscribe(&one, &text("app")));
        assert_eq!(told(&mut announcer, node.id()), []);
    }

    #[test]
    fn a_name_that_comes_and_goes_waits_once() {
        let (mut announcer, [node, one]) = (Announcer::default(), [1, 2].map(port));
        announcer.listen(node.id(), Space::D20);
        for _ in 0..1000 {
            announcer.note(&subscribe(&one, &text("app")));
            announcer.note(&unsubscribe(&one, &text("app")));
        }
        assert_eq!(announcer.listeners[&node.id()].changed.len(), 1);
    }

    #[test]
    fn what_another_node_reaches_is_not_announced() {
        let mut announcer = Announcer::default();
        let id = |number| port(number).id();
        let other = Arc::new(Port::new(
            id(2),
            Framing::PublishedNode { of_this_kind: false },
            "another node",
        ));
        announcer.listen(id(1), Space::D20);
        announcer.note(&subscribe(&other, &text("app")));
        announcer.note(&unsubscribe(&other, &text("app")));
        assert_eq!(told(&mut announcer, id(1)), []);
    }
}
