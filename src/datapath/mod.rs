//! From names to links: who gets a message, and how it waits there.
//!
//! Each core of a node owns a [`Core`]: a full replica of the routing [`Table`], the links that
//! live on this core with their egress queues, and a mailbox per other core. Cores share
//! nothing on the way of a message but the byte gauge of a link ([`Port`]). Changes of the table
//! are put in one order by one [`Sequencer`] and reach every replica through bounded channels.
//!
//! Nothing here knows a runtime, a socket or a clock: time is passed in, and a waiting task is a
//! [`std::task::Waker`].

mod announce;
mod core;
mod counters;
mod egress;
mod forward;
mod mailbox;
mod port;
mod replica;
#[cfg(test)]
mod signed;
mod slow;
mod table;
mod violation;

pub use self::announce::Announcement;
pub use self::core::{
    ClientName, Core, CoreConfig, Departure, Fate, LinkStatus, SubscribeError, Traffic,
};
pub use self::counters::{Counter, Counters, DropReason, RefuseReason};
pub use self::egress::{Chunk, DATAGRAMS, Egress};
pub use self::forward::Forwarded;
pub use self::mailbox::{Mail, Mailboxes, Postbox, Wake};
pub use self::port::{Admission, CoreId, Framing, LinkId, Load, Marks, NodeLink, Port};
pub use self::replica::{Change, Ordered, Replica, Sequencer, Submission};
pub use self::slow::{SlowConsumer, SlowLog, SlowState};
pub use self::table::{Explanation, Origin, Rank, Rule, Table};
pub use self::violation::{Act, Violation};

#[cfg(test)]
pub(crate) mod testing {
    //! Ports without a core, for tests of what uses them.

    use std::sync::Arc;

    use slotmap::{DefaultKey, KeyData};

    use super::{CoreId, Framing, LinkId, Port};

    /// A port of its own for every `number`.
    pub(crate) fn port(number: u64) -> Arc<Port> {
        let key = DefaultKey::from(KeyData::from_ffi(number));
        Arc::new(Port::new(LinkId { core: CoreId(0), key }, Framing::Grpc, "test"))
    }
}
