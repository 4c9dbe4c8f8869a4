//! What one subscriber has, and the report on all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{PROBE, Plan, clock};

/// Latencies above a minute are shown as one.
const LONGEST_NS: u64 = 60_000_000_000;

pub(crate) struct Ear {
    heard: Mutex<Heard>,
    /// All before this number have come, or will not come any more.
    passed: AtomicU64,
    reached: AtomicBool,
    /// What the publisher waits for here; `u64::MAX` if it does not.
    awaited: AtomicU64,
    progress: Condvar,
}

struct Heard {
    messages: u64,
    bytes: u64,
    late: u64,
    last: u64,
    latency: Histogram<u64>,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        let latency = latency.expect("bounds that a histogram can have");
        Self {
            heard: Mutex::new(Heard { messages: 0, bytes: 0, late: 0, last: 0, latency }),
            passed: AtomicU64::new(0),
            reached: AtomicBool::new(false),
            awaited: AtomicU64::new(u64::MAX),
            progress: Condvar::new(),
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Notes a payload.
    pub(crate) fn note(&self, payload: &[u8]) {
        let now = clock::now();
        let Some((due, rest)) = payload.split_first_chunk() else { return };
        let Some(sequence) = rest.first_chunk() else { return };
        let (due, sequence) = (u64::from_le_bytes(*due), u64::from_le_bytes(*sequence));
        if sequence == PROBE {
            self.reached.store(true, Ordering::Relaxed);
            return;
        }
        let mut heard = self.heard();
        if sequence < self.passed.load(Ordering::Relaxed) {
            heard.late += 1;
            return;
        }
        heard.messages += 1;
        heard.bytes += payload.len() as u64;
        heard.last = now;
        heard.latency.saturating_record(now.saturating_sub(due));
        self.passed.store(sequence + 1, Ordering::SeqCst);
        drop(heard);
        if sequence + 1 >= self.awaited.load(Ordering::SeqCst) {
            self.progress.notify_one();
        }
    }

    /// How many have passed, once it is `enough`; `None` if nothing comes for so long.
    pub(crate) fn wait_for(&self, enough: u64, patience: Duration) -> Option<u64> {
        let passed = self.passed.load(Ordering::Relaxed);
        if passed >= enough {
            return Some(passed);
        }
        let mut heard = self.heard();
        self.awaited.store(enough, Ordering::SeqCst);
        let outcome = loop {
            let passed = self.passed.load(Ordering::SeqCst);
            if passed >= enough {
                break Some(passed);
            }
            let waited = self.progress.wait_timeout(heard, patience);
            let (lock, late) = waited.unwrap_or_else(PoisonError::into_inner);
            heard = lock;
            if late.timed_out() && self.passed.load(Ordering::SeqCst) == passed {
                break None;
            }
        };
        self.awaited.store(u64::MAX, Ordering::SeqCst);
        outcome
    }
}

/// What all subscribers have together; `start` is when the load began.
pub(crate) fn report(ears: &[Arc<Ear>], plan: &Plan, start: u64) -> Value {
    let (mut messages, mut bytes, mut late, mut last) = (0, 0, 0, start);
    let mut latency = Ear::new().heard().latency.clone();
    for ear in ears {
        let heard = ear.heard();
        messages += heard.messages;
        bytes += heard.bytes;
        late += heard.late;
        last = last.max(heard.last);
        latency.add(&heard.latency).expect("histograms with the same bounds");
    }
    let expected = plan.count * ears.len() as u64;
    let buckets = latency.iter_recorded();
    let buckets = buckets.map(|step| (step.value_iterated_to(), step.count_at_value()));
    json!({
        "messages": messages,
        "bytes": bytes,
        "seconds": (last - start) as f64 / 1e9,
        "lost": expected - messages.min(expected),
        "out_of_order": late,
        "latency_ns": buckets.collect::<Vec<_>>(),
    })
}
