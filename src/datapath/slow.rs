use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::port::{LinkId, Port};

/// How a slow consumer fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowState {
    /// Its queue is above the soft mark, and its clock runs.
    Behind,
    /// Its queue fell below the soft mark again.
    Recovered,
    /// It was cut off.
    Evicted,
}

impl SlowState {
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
