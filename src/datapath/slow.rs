use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::port::{LinkId, Port};

/// The clocks of links above their soft mark. A clock that has run for a quarter of the limit
/// is worth a note: a receiver whose source is paused crosses the mark all the time.
#[derive(Debug)]
pub(super) struct SlowClocks {
    limit: Duration,
    running: IndexMap<LinkId, Clock, FixedState>,
}

#[derive(Debug)]
struct Clock {
    since: Instant,
    noted: bool,
}

/// Clocks that have run for long.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Those that have come to be worth a note.
    pub(super) to_note: Vec<LinkId>,
    /// Those that have run out.
    pub(super) to_evict: Vec<LinkId>,
}

impl SlowClocks {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, running: IndexMap::default() }
    }

    /// Has all clocks, also those that run, run out after this time.
    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Starts the link's clock unless it runs; returns whether it was started.
    pub(super) fn start(&mut self, link: LinkId, now: Instant) -> bool {
        let Entry::Vacant(entry) = self.running.entry(link) else { return false };
        entry.insert(Clock { since: now, noted: false });
        true
    }

    /// Stops the link's clock; returns whether it had been noted.
    pub(super) fn stop(&mut self, link: LinkId) -> bool {
        // Nearly always there is none at all.
        !self.running.is_empty() && self.running.swap_remove(&link).is_some_and(|c| c.noted)
    }

    /// What is due; each clock is worth one note.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for (link, clock) in &mut self.running {
            let ran = now.saturating_duration_since(clock.since);
            if ran >= self.limit {
                due.to_evict.push(*link);
            } else if ran >= self.limit / NOTED_AFTER && !clock.noted {
                clock.noted = true;
                due.to_note.push(*link);
            }
        }
        due
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let next = |clock: &Clock| {
            clock.since + if clock.noted { self.limit } else { self.limit / NOTED_AFTER }
        };
        self.running.values().map(next).min()
    }
}

/// The part of the limit after which a clock is worth a note.
const NOTED_AFTER: u32 = 4;

/// How a slow consumer fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowState {
    /// Its queue has been above the soft mark for a quarter of the time that it may be.
    Behind,
    /// Its queue fell below the soft mark again.
    Recovered,
    /// It was cut off.
    Evicted,
}

impl SlowState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Behind, Self::Recovered, Self::Evicted];

    /// The state as metrics and logs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Recovered => "recovered",
            Self::Evicted => "evicted",
        }
    }
}

/// One link that was slow, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowConsumer {
    /// The link.
    pub link: LinkId,
    /// Its first subscription, or empty.
    pub name: String,
    /// The address of its other end.
    pub peer: String,
    /// What became of it last.
    pub state: SlowState,
    /// Bytes that waited for it at that time.
    pub queued: usize,
}

/// The latest slow consumers of a node, for people who look at its metrics. Touched only when a
/// link becomes slow or stops being so, never per message.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<VecDeque<SlowConsumer>>);

/// How many slow consumers are remembered; bounds the metric's cardinality.
const REMEMBERED: usize = 32;

impl SlowLog {
    /// Notes the state of the link behind `port`; returns the entry for the log line.
    pub fn note(&self, port: &Port, state: SlowState) -> SlowConsumer {
        let entry = SlowConsumer {
            link: port.id(),
            name: port.name().to_owned(),
            peer: port.peer().to_owned(),
            state,
            queued: port.queued(),
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|known| known.link != entry.link);
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry.clone());
        entry
    }

    /// The latest slow consumers, the newest last.
    pub fn entries(&self) -> Vec<SlowConsumer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
