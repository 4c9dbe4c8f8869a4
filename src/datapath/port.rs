use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use slim_wire::limits::HEADER_BYTES;
use slim_wire::{Class, Encoding, Envelope, Header};
use slotmap::{DefaultKey, Key as _};

use crate::policy::Principal;

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

impl LinkId {
    /// A number of its own for as long as the link lasts.
    pub fn number(self) -> u64 {
        (u64::from(self.core.0) << 56) ^ self.key.data().as_ffi()
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use slotmap::Key;
        write!(f, "{}.{:x}", self.core.0, self.key.data().as_ffi())
    }
}

/// What a link speaks, and so how messages are framed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A published client: gRPC's five-byte prefix before each message of its dialect.
    Grpc,
    /// A native app: native frames.
    Native,
    /// Another node, by its number: frames of any encoding, with one hop less to go.
    Node(u64, NodeLink),
    /// A node over gRPC: as for published clients.
    PublishedNode {
        /// Its number, if it is of this kind: it may have native links too.
        node: Option<u64>,
        /// What comes from it goes to no further node. So it is if one of this kind began the link,
        /// since release 0.6 has no limit on how far a message goes.
        ends_here: bool,
    },
}

/// What two nodes have agreed to about a native link between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeLink {
    /// Routes say what goes over it. What arrives goes on to other nodes too, as far as its ttl
    /// allows, so routes have to form a tree.
    Transit,
    /// Routes say what goes over it. What arrives goes to this node's own clients only.
    LastHop,
    /// Each tells the other the names of its own clients, and what arrives goes to such clients
    /// only. So in any mesh nobody gets a message twice.
    Exchange,
}

impl Framing {
    /// Whether what comes from the link goes to this node's own clients only.
    pub(super) const fn ends_here(self) -> bool {
        match self {
            Self::Node(_, link) => !matches!(link, NodeLink::Transit),
            Self::PublishedNode { ends_here, .. } => ends_here,
            Self::Grpc | Self::Native => false,
        }
    }

    /// The number of the node behind the link, if it has one.
    pub(super) const fn node(self) -> Option<u64> {
        match self {
            Self::Node(node, _) => Some(node),
            Self::PublishedNode { node, .. } => node,
            Self::Grpc | Self::Native => None,
        }
    }

    /// The encoding into which a message has to be put for the link; `None` if it can travel as
    /// it is. Only encodings of one routing space meet here.
    pub(super) const fn foreign(self, encoding: Encoding) -> Option<Encoding> {
        match (self, encoding) {
            (Self::Grpc | Self::PublishedNode { .. }, Encoding::Native) => Some(Encoding::D6),
            (Self::Native, Encoding::D6) => Some(Encoding::Native),
            _ => None,
        }
    }

    /// Bytes that a queue holds for a message beside its own.
    const fn overhead(self, encoding: Encoding) -> usize {
        match (self, encoding) {
            (Self::Node(..), encoding) if !matches!(encoding, Encoding::Native) => HEADER_BYTES,
            _ => 0,
        }
    }
}

/// A queue that holds this part of the soft mark keeps its link busy while its source waits, and
/// what is written has not yet left the processor's cache.
const PAUSE_PART: usize = 8;

/// The fill levels of every egress queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Above it best effort is dropped and the receiver's clock runs.
    pub soft: usize,
    /// Above it a reliable message evicts the receiver.
    pub hard: usize,
    /// Room above `hard` that only control messages may use.
    pub control_reserve: usize,
    /// Above it a source that sends to no other target is paused.
    pub pause: usize,
}

impl Marks {
    /// A queue of `hard` bytes; the soft mark is half of it.
    pub const fn new(hard: usize, control_reserve: usize) -> Self {
        let soft = hard / 2;
        Self { soft, hard, control_reserve, pause: soft / PAUSE_PART }
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
    framing: Framing,
    peer: Box<str>,
    principal: Principal,
    name: OnceLock<Box<str>>,
    queued: AtomicUsize,
    evicting: AtomicBool,
    closed: AtomicBool,
    of_this_library: AtomicBool,
}

impl Port {
    /// A port with an empty queue. `peer` says in logs and metrics where the link comes from.
    pub fn new(id: LinkId, framing: Framing, peer: &str) -> Self {
        Self {
            id,
            framing,
            peer: peer.into(),
            principal: Principal::Nobody,
            name: OnceLock::new(),
            queued: AtomicUsize::new(0),
            evicting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            of_this_library: AtomicBool::new(framing == Framing::Native),
        }
    }

    /// The same, of somebody who has proved to be `principal`.
    pub fn of(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }

    /// The link behind it.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Notes that the app behind the link says that it is made with this library, whatever it
    /// speaks.
    pub fn note_library(&self) {
        self.of_this_library.store(true, Ordering::Relaxed);
    }

    /// Whether the app behind the link is made with this library, as far as it says so.
    pub fn is_of_this_library(&self) -> bool {
        self.of_this_library.load(Ordering::Relaxed)
    }

    /// What the link speaks.
    #[inline]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the link leads to another node.
    pub fn is_node(&self) -> bool {
        matches!(self.framing, Framing::Node(..) | Framing::PublishedNode { .. })
    }

    /// Whether the link leads to another node that exchanges names with this one.
    pub(super) fn is_exchange(&self) -> bool {
        matches!(self.framing, Framing::Node(_, NodeLink::Exchange))
    }

    /// Whether what goes over the link may go on to further nodes.
    pub(super) fn is_transit(&self) -> bool {
        matches!(
            self.framing,
            Framing::Node(_, NodeLink::Transit) | Framing::PublishedNode { ends_here: false, .. }
        )
    }

    /// The address of the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whom the link belongs to.
    pub fn principal(&self) -> &Principal {
        &self.principal
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

    /// Whether there is room for the messages of an envelope.
    pub fn has_room(&self, load: Load, marks: &Marks) -> bool {
        self.queued() + self.charge(load) <= marks.limit(load.class)
    }

    /// Takes room for the messages of an envelope. Cores that do so at the same moment may exceed
    /// the limit by an envelope each; what is refused never shows in the gauge.
    pub fn admit(&self, load: Load, marks: &Marks) -> Admission {
        if self.has_room(load, marks) {
            self.queued.fetch_add(self.charge(load), Ordering::Relaxed);
            return Admission::Admitted;
        }
        if load.class == Class::BestEffort { Admission::Full } else { Admission::Overrun }
    }

    fn charge(&self, load: Load) -> usize {
        charge(self.wire_bytes(load), load.messages)
    }

    /// What the messages take on their way.
    pub(super) fn wire_bytes(&self, load: Load) -> usize {
        load.bytes + self.framing.overhead(load.encoding) * load.messages as usize
    }

    pub(super) fn release(&self, charge: usize) {
        let before = self.queued.fetch_sub(charge, Ordering::Relaxed);
        debug_assert!(before >= charge, "released more than was admitted");
    }
}

/// What a queue is asked to take.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How the messages are treated.
    pub class: Class,
    /// In which encoding they are.
    pub encoding: Encoding,
    /// Their bytes.
    pub bytes: usize,
    /// How many there are.
    pub messages: u32,
}

impl Load {
    /// That of an envelope.
    pub fn of(envelope: &Envelope) -> Self {
        let Header { class, encoding, .. } = envelope.header;
        Self { class, encoding, bytes: envelope.len(), messages: envelope.messages }
    }
}

/// What messages count in a queue: their bytes, and for each its framing and its share of the
/// bookkeeping.
pub(super) const fn charge(bytes: usize, messages: u32) -> usize {
    bytes + MESSAGE_OVERHEAD_BYTES * messages as usize
}

const MESSAGE_OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks::new(2_000, 500);

    fn port(framing: Framing) -> Port {
        Port::new(LinkId { core: CoreId(0), key: DefaultKey::default() }, framing, "test")
    }

    fn load(class: Class, bytes: usize) -> Load {
        Load { class, encoding: Encoding::D6, bytes, messages: 1 }
    }

    #[test]
    fn best_effort_is_dropped_where_reliable_still_fits() {
        let port = port(Framing::Grpc);
        let reliable = load(Class::Reliable, 900);
        assert_eq!(port.admit(reliable, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(load(Class::BestEffort, 900), &MARKS), Admission::Full);
        assert_eq!(port.admit(reliable, &MARKS), Admission::Admitted);
        assert_eq!(port.admit(reliable, &MARKS), Admission::Overrun);
        assert_eq!(port.queued(), 2 * charge(900, 1));
    }

    #[test]
    fn control_has_room_when_data_has_none() {
        let port = port(Framing::Grpc);
        assert_eq!(port.admit(load(Class::Reliable, 1_900), &MARKS), Admission::Admitted);
        assert_eq!(port.admit(load(Class::Reliable, 10), &MARKS), Admission::Overrun);
        assert_eq!(port.admit(load(Class::Control, 400), &MARKS), Admission::Admitted);
        assert_eq!(port.admit(load(Class::Control, 400), &MARKS), Admission::Overrun);
    }

    #[test]
    fn a_foreign_message_takes_room_for_the_header_it_gets_on_its_way_to_a_node() {
        let node = port(Framing::Node(1, NodeLink::Transit));
        assert_eq!(node.admit(load(Class::Reliable, 100), &MARKS), Admission::Admitted);
        assert_eq!(node.queued(), charge(100 + HEADER_BYTES, 1));
    }
}
