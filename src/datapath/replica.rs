//! How a change of the routing table reaches every core, without I/O.
//!
//! A core submits a batch of changes; the [`Sequencer`] puts all batches in one order and makes
//! a handle of each per core; every [`Replica`] applies them in that order. The replica that
//! gives up the last handle of a batch knows that all others have applied it, and reports the
//! batch as done to the core it came from.

use std::sync::Arc;

use slim_wire::{Name, Space, TextName};

use super::port::{LinkId, Port};
use super::table::Table;

/// One change of the routing table.
#[derive(Clone, Debug)]
pub enum Change {
    /// A subscription that the link does not have yet.
    Subscribe {
        /// The link.
        port: Arc<Port>,
        /// Where the name belongs.
        space: Space,
        /// The name.
        name: Name,
        /// Its texts, if they are known, and anybody may want to know them.
        text: Option<Arc<TextName>>,
        /// How recent it is, if another node has told of it; see [`Table::subscribe_told`].
        recency: Option<u32>,
    },
    /// The end of one that it has.
    Unsubscribe(LinkId, Space, Name),
}

/// Changes of one link, in their order, that take effect together.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The link whose subscriptions change; its core is told when all cores know.
    pub link: LinkId,
    /// What changes.
    pub changes: Vec<Change>,
}

/// A submission with its place in the one order.
#[derive(Debug)]
pub struct Ordered {
    sequence: u64,
    submission: Submission,
}

impl Ordered {
    /// What changes.
    pub(super) fn changes(&self) -> &[Change] {
        &self.submission.changes
    }
}

/// Puts submissions in one order. There is one per node.
#[derive(Debug)]
pub struct Sequencer {
    next: u64,
    cores: usize,
}

impl Sequencer {
    /// A sequencer for `cores` replicas.
    pub fn new(cores: usize) -> Self {
        Self { next: 0, cores }
    }

    /// Gives the submission its place: one handle for every core, in the order of cores.
    pub fn order(&mut self, submission: Submission) -> impl Iterator<Item = Arc<Ordered>> + use<> {
        let ordered = Arc::new(Ordered { sequence: self.next, submission });
        self.next += 1;
        // `repeat_n` gives the original away last, so no handle stays behind here.
        std::iter::repeat_n(ordered, self.cores)
    }
}

/// The routing table of one core, and how far it has come in the order of changes.
#[derive(Debug)]
pub struct Replica {
    table: Table,
    next: u64,
}

impl Replica {
    /// An empty replica; see [`Table::new`] for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { table: Table::new(seed), next: 0 }
    }

    /// The table, to look at.
    pub fn known(&self) -> &Table {
        &self.table
    }

    /// The table, for matching.
    pub fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Applies the next submission. Returns the link it came from if this was the last core.
    ///
    /// # Panics
    /// If a submission is skipped or repeated: the replica would differ from the others for ever.
    #[must_use = "the core of the returned link has to be told"]
    pub fn apply(&mut self, ordered: Arc<Ordered>) -> Option<LinkId> {
        assert_eq!(ordered.sequence, self.next, "changes arrive in the order of the sequencer");
        self.next += 1;
        for change in &ordered.submission.changes {
            match change {
                Change::Subscribe { port, space, name, recency, .. } => match recency {
                    Some(recency) => self.table.subscribe_told(*space, *name, port, *recency),
                    None => self.table.subscribe(*space, *name, port),
                },
                Change::Unsubscribe(link, space, name) => {
                    self.table.unsubscribe(*space, *name, *link);
                }
            }
        }
        Arc::into_inner(ordered).map(|ordered| ordered.submission.link)
    }
}

#[cfg(test)]
mod tests;
