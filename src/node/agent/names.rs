use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slim_compat_grpc::Subscription;
use slim_wire::{Id, TextName};
use tokio::sync::broadcast;

/// The names that clients of this node have subscribed to, as controllers are told of them.
pub(super) struct Names {
    /// Among how many families of releases each is known.
    known: Mutex<HashMap<Arc<TextName>, usize>>,
    changes: broadcast::Sender<Change>,
}

/// A name that came or went.
pub(super) type Change = (Subscription, Arc<TextName>);

/// Changes that a controller may be behind before it is told everything anew.
const CHANGES: usize = 4096;

impl Names {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default(), changes: broadcast::channel(CHANGES).0 }
    }

    /// Notes that the first client of some releases has subscribed, or that the last has gone.
    pub(super) fn note(&self, change: Subscription, name: &Arc<TextName>) {
        let name = reported(name);
        let mut known = self.lock();
        let has_changed = match change {
            Subscription::Made => {
                let count = known.entry(Arc::clone(&name)).or_default();
                *count += 1;
                *count == 1
            }
            Subscription::TakenBack => match known.get_mut(&name) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                Some(_) => known.remove(&name).is_some(),
                None => false,
            },
        };
        if has_changed {
            // Nobody may be listening.
            let _ = self.changes.send((change, name));
        }
    }

    /// All names, and what changes from now on.
    pub(super) fn follow(&self) -> (Vec<Arc<TextName>>, broadcast::Receiver<Change>) {
        let known = self.lock();
        (known.keys().cloned().collect(), self.changes.subscribe())
    }

    /// No reader or writer leaves the map in between two states.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<TextName>, usize>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name as the control plane knows it. Its instances have 64 bits: wider ones are reached by
/// the name without.
fn reported(name: &Arc<TextName>) -> Arc<TextName> {
    match name.id().to_u64() {
        Some(_) => Arc::clone(name),
        None => TextName::new(name.components(), Id::ANY).expect("it was a name before").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<TextName> {
        Arc::new(text.parse().expect("a name"))
    }

    #[test]
    fn a_name_is_withdrawn_when_the_last_family_of_clients_has_left_it() {
        let names = Names::new();
        let (before, mut changes) = names.follow();
        assert_eq!(before, []);
        for change in [Subscription::Made, Subscription::Made, Subscription::TakenBack] {
            names.note(change, &name("org/ns/app"));
        }
        assert_eq!(changes.try_recv(), Ok((Subscription::Made, name("org/ns/app"))));
        assert_eq!(changes.try_recv(), Err(broadcast::error::TryRecvError::Empty));
        assert_eq!(names.follow().0, [name("org/ns/app")]);
        names.note(Subscription::TakenBack, &name("org/ns/app"));
        assert_eq!(changes.try_recv(), Ok((Subscription::TakenBack, name("org/ns/app"))));
        names.note(Subscription::TakenBack, &name("org/ns/app"));
        assert_eq!(changes.try_recv(), Err(broadcast::error::TryRecvError::Empty));
    }

    #[test]
    fn instances_that_are_too_wide_are_reported_without() {
        let names = Names::new();
        for id in [1 << 64, 1 << 65] {
            let wide = TextName::new(["org", "ns", "app"], Id::new(id)).expect("a name");
            names.note(Subscription::Made, &Arc::new(wide));
        }
        assert_eq!(names.follow().0, [name("org/ns/app")]);
    }
}
