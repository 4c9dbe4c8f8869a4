use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use slim_wire::Class;
use slotmap::DefaultKey;

/// A core of this node, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// One link for as long as it lives: a later link in the same slot has another id, so a message
/// matched just before a link went cannot reach a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// The core that the link lives on.
    pub core: CoreId,
    /// The generational slot on that core.
    pub(super) key: DefaultKey,
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use slotmap::Key;
        write!(f, "{}.{:x}", self.core.0, self.key.data().as_ffi())
    }
}

/// The fill levels of every egress queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Above it best effort is dropped and the receiver's clock runs.
    pub soft: usize,
    /// Above it a reliable message evicts the receiver.
    pub hard: usize,
    /// Room above `hard` that only control messages may use.
    pub control_reserve: usize,
}

impl Marks {
    /// A queue of `hard` bytes; the soft mark is half of it.
    pub const fn new(hard: usize, control_reserve: usize) -> Self {
        Self { soft: hard / 2, hard, control_reserve }
    }

    const fn limit(&self, class: Class) -> usize {
        match class {
            Class::BestEffort => self.soft,
            Class::Reliable => self.hard,
            Class::Control => self.hard + self.control_reserve,
        }
    }
}

/// What becomes of a message at a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room, and it is taken.
    Admitted,
    /// Best effort that does not fit: drop it.
    Full,
    /// The receiver is too far behind to keep what it was promised: evict it.
    Overrun,
}

/// The face of a link that other cores see: who it is and how full its queue is.
///
/// The gauge is charged by the core that matched a message and released by the core the link
/// lives on, so what is on its way between cores counts against the receiver's limit too.
#[derive(Debug)]
pub struct Port {
    id: LinkId,
    peer: Box<str>,
    name: OnceLock<Box<str>>,
    queued: AtomicUsize,
    evicting: AtomicBool,
    closed: AtomicBool,
}

impl Port {
    /// A port with an empty queue. `peer` says in logs and metrics where the link comes from.
    pub fn new(id: LinkId, peer: &str) -> Self {
        Self {
            id,
            peer: peer.into(),
            name: OnceLock::new(),
            queued: AtomicUsize::new(0),
            evicting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The link behind it.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The address of the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The first name that the link subscribed to; empty before that.
    pub fn name(&self) -> &str {
        self.name.get().map_or("", |name| name)
    }

    pub(super) fn name_once(&self, name: impl FnOnce() -> Box<str>) {
        self.name.get_or_init(name);
    }

    /// Bytes that wait for the link, with a constant charge per message.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether the link has ended: nothing will ever be released here again.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first to find that the link has to be evicted.
    pub(super) fn evict_once(&self) -> bool {
        !self.evicting.swap(true, Ordering::Relaxed)
    }

    /// Whether there is room for a message of `bytes` bytes.
    pub fn has_room(&self, class: Class, bytes: usize, marks: &Marks) -> bool {
        self.queued() + charge(bytes) <= marks.limit(class)
    }

    /// Takes room for a message of `bytes` bytes. Cores that do so at the same moment may exceed
    /// the limit by a message each; what is refused never shows in the gauge.
    pub fn admit(&self, class: Class, bytes: usize, marks: &Marks) -> Admission {
        if self.has_room(class, bytes, marks) {
            self.queued.fetch_add(charge(bytes), Ordering::Relaxed);
            return Admission::Admitted;
        }
        if class == Class::BestEffort { Admission::Full } else { Admission::Overrun }
    }

    pub(super) fn release(&self, charge: usize) {
        let before = self.queued.fetch_sub(charge, Ordering::Relaxed);
        debug_assert!(before >= charge, "released more than was admitted");
    }
}

/// What a message of `bytes` bytes counts in a queue: its bytes, its framing and its share of
/// the bookkeeping.
pub(super) const fn charge(bytes: usize) -> usize {
    bytes + MESSAGE_OVERHEAD_BYTES
}

const MESSAGE_OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks::new(2_000, 500);

    fn port() -> Port {
        Port::new(LinkId { core: CoreId(0), key: DefaultKey::default() }, "test")
    }

    #[test]
    fn best_effort_is_dropped_where_reliable_still_fits() {
        let port = port();
        assert_eq!(port.admit(Class::Reliable, 900, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(Class::BestEffort, 900, &MARKS), Admission::Full);
        assert_eq!(port.admit(Class::Reliable, 900, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(Class::Reliable, 900, &MARKS), Admission::Overrun);
        assert_eq!(port.queued(), 2 * charge(900));
    }

    #[test]
    fn control_has_room_when_data_has_none() {
        let port = port();
        assert_eq!(port.admit(Class::Reliable, 1_900, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(Class::Reliable, 10, &MARKS), Admission::Overrun);
        assert_eq!(port.admit(Class::Control, 400, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(Class::Control, 400, &MARKS), Admission::Overrun);
    }
}
