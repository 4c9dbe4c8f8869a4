//! What has been sent and what has come, shared by the tasks of a run.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::stamp::Mark;
use super::tally::Tally;
use super::transport::Arrival;

/// The messages of one publisher.
#[derive(Debug)]
pub(super) struct Flow {
    sent: Cell<u64>,
    /// What each of its subscribers has.
    heard: Box<[Cell<Tally>]>,
    /// Which of them a probe has reached.
    reached: Box<[Cell<bool>]>,
    progress: Notify,
    /// Whether the publisher has sent its last.
    finished: Cell<bool>,
}

impl Flow {
    pub(super) fn new(subscribers: usize) -> Self {
        Self {
            sent: Cell::new(0),
            heard: (0..subscribers).map(|_| Cell::default()).collect(),
            reached: (0..subscribers).map(|_| Cell::default()).collect(),
            progress: Notify::new(),
            finished: Cell::new(false),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(super) fn add_sent(&self, messages: u64) {
        self.sent.set(self.sent.get() + messages);
    }

    /// Messages that have not come, or been passed over, at the subscriber furthest behind.
    pub(super) fn under_way(&self) -> u64 {
        let passed = self.heard.iter().map(|tally| tally.get().passed()).min();
        passed.map_or(0, |passed| self.sent.get().saturating_sub(passed))
    }

    /// To be called when the publisher has sent its last.
    pub(super) fn finish(&self) {
        self.finished.set(true);
    }

    /// Whether probes have reached all subscribers.
    pub(super) fn is_through(&self) -> bool {
        self.reached.iter().all(Cell::get)
    }

    pub(super) fn has_reached(&self, subscriber: usize) -> bool {
        self.reached[subscriber].get()
    }

    /// Something has come since this was last asked.
    pub(super) async fn progressed(&self) {
        self.progress.notified().await;
    }

    /// Messages that are missing at all subscribers together. Messages of publishers elsewhere
    /// are counted by what those say.
    fn lost(&self, publishers_here: bool) -> u64 {
        let sent = publishers_here.then_some(self.sent.get());
        self.heard.iter().map(|tally| tally.get().lost(sent)).sum()
    }

    fn out_of_order(&self) -> u64 {
        self.heard.iter().map(|tally| tally.get().out_of_order()).sum()
    }
}

/// What all subscribers have received together.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) messages: u64,
    /// Of payload.
    pub(super) bytes: u64,
    /// When the first and the last came.
    pub(super) first: u64,
    pub(super) last: u64,
    /// From the moment at which a message was to be sent, in nanoseconds.
    pub(super) latency: Histogram<u64>,
}

/// Latencies above a minute are shown as one.
const LONGEST_NS: u64 = 60_000_000_000;

/// Number of the sender that only probes.
pub(super) const PROBER: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Flows {
    pub(super) of_publishers: Box<[Flow]>,
    pub(super) of_prober: Flow,
    pub(super) received: RefCell<Received>,
}

impl Flows {
    /// `per_publisher` subscribers get each message; `subscribers` are probed.
    pub(super) fn new(publishers: u16, per_publisher: usize, subscribers: usize) -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        Self {
            of_publishers: (0..publishers).map(|_| Flow::new(per_publisher)).collect(),
            of_prober: Flow::new(subscribers),
            received: RefCell::new(Received {
                messages: 0,
                bytes: 0,
                first: 0,
                last: 0,
                latency: latency.expect("bounds that a histogram can have"),
            }),
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.of_publishers.iter().map(Flow::sent).sum()
    }

    pub(super) fn under_way(&self) -> u64 {
        self.of_publishers.iter().map(Flow::under_way).sum()
    }

    /// Whether all publishers have sent their last.
    pub(super) fn is_sent(&self) -> bool {
        self.of_publishers.iter().all(|flow| flow.finished.get())
    }

    pub(super) fn lost(&self, publishers_here: bool) -> u64 {
        self.of_publishers.iter().map(|flow| flow.lost(publishers_here)).sum()
    }

    pub(super) fn out_of_order(&self) -> u64 {
        self.of_publishers.iter().map(Flow::out_of_order).sum()
    }

    fn of(&self, sender: u16) -> Option<&Flow> {
        match sender {
            PROBER => Some(&self.of_prober),
            _ => self.of_publishers.get(usize::from(sender)),
        }
    }
}

/// A subscriber's part of the flows.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) flows: Rc<Flows>,
    /// Which of a flow's subscribers this is.
    pub(super) slot: usize,
    /// Whose messages it takes.
    pub(super) senders: Range<u16>,
    /// After how many messages it ends.
    pub(super) limit: Option<u64>,
    pub(super) messages: u64,
}

impl Ear {
    /// Notes what came at `now`; true once nothing more is awaited.
    pub(super) fn note(&mut self, arrivals: &[Arrival], now: u64) -> bool {
        let flows = Rc::clone(&self.flows);
        let mut received = flows.received.borrow_mut();
        let mut ended = false;
        for arrivals in arrivals.chunk_by(|a, b| a.stamp.sender == b.stamp.sender) {
            let sender = arrivals[0].stamp.sender;
            let Some(flow) = flows.of(sender) else { continue };
            for arrival in arrivals {
                self.note_one(flow, arrival, now, &mut received);
                ended |= arrival.stamp.mark == Mark::End;
                if self.is_full() {
                    break;
                }
            }
            flow.progress.notify_one();
        }
        self.is_full() || ended && self.all_ended()
    }

    fn note_one(&mut self, flow: &Flow, arrival: &Arrival, now: u64, received: &mut Received) {
        let Arrival { stamp, bytes } = *arrival;
        if stamp.mark == Mark::Probe {
            if let Some(reached) = flow.reached.get(self.slot) {
                reached.set(true);
            }
            return;
        }
        let tally = flow.heard.get(self.slot).filter(|_| self.senders.contains(&stamp.sender));
        let Some(cell) = tally else { return };
        let mut tally = cell.get();
        match stamp.mark {
            Mark::End => tally.end(stamp.sequence),
            _ if tally.note(stamp.sequence) => {
                if received.messages == 0 {
                    received.first = now;
                }
                received.last = now;
                received.messages += 1;
                received.bytes += bytes as u64;
                received.latency.saturating_record(now.saturating_sub(stamp.due));
                self.messages += 1;
            }
            _ => {}
        }
        cell.set(tally);
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.messages >= limit)
    }

    fn all_ended(&self) -> bool {
        let mut flows = self.senders.clone().filter_map(|sender| self.flows.of(sender));
        flows.all(|flow| flow.heard[self.slot].get().has_ended())
    }
}

#[cfg(test)]
mod tests {
    use super::super::stamp::Stamp;
    use super::*;

    fn arrival(sender: u16, mark: Mark, sequence: u64) -> Arrival {
        Arrival { stamp: Stamp { due: 100, sender, mark, sequence }, bytes: 64 }
    }

    fn ear(flows: &Rc<Flows>, slot: usize, senders: Range<u16>, limit: Option<u64>) -> Ear {
        Ear { flows: Rc::clone(flows), slot, senders, limit, messages: 0 }
    }

    #[test]
    fn losses_are_counted_per_sender_and_subscriber() {
        let flows = Rc::new(Flows::new(2, 2, 2));
        let (mut first, mut second) = (ear(&flows, 0, 0..2, None), ear(&flows, 1, 0..2, None));
        for flow in &flows.of_publishers {
            flow.add_sent(3);
        }
        let data = |sender, sequence| arrival(sender, Mark::Data, sequence);
        let all = [data(0, 0), data(1, 0), data(0, 1), data(1, 1), data(0, 2), data(1, 2)];
        first.note(&all, 150);
        second.note(&all[..3], 200);
        assert_eq!(flows.of_publishers[0].under_way(), 1);
        assert_eq!(flows.of_publishers[1].under_way(), 2);
        assert_eq!((flows.lost(true), flows.lost(false)), (3, 0));
        let ends = [arrival(0, Mark::End, 3), arrival(1, Mark::End, 3)];
        assert!(!first.note(&ends[..1], 210));
        assert!(first.note(&ends[1..], 210) && second.note(&ends, 220));
        assert_eq!(flows.lost(false), 3);
        let received = flows.received.borrow();
        assert_eq!((received.messages, received.bytes), (9, 576));
        assert_eq!((received.first, received.last), (150, 200));
        assert_eq!((received.latency.min(), received.latency.max()), (50, 100));
    }

    #[test]
    fn probes_are_not_counted() {
        let flows = Rc::new(Flows::new(1, 2, 2));
        let (mut first, mut second) = (ear(&flows, 0, 0..1, None), ear(&flows, 1, 0..1, None));
        first.note(&[arrival(0, Mark::Probe, 0)], 1);
        assert!(!flows.of_publishers[0].is_through());
        second.note(&[arrival(0, Mark::Probe, 0), arrival(PROBER, Mark::Probe, 0)], 1);
        assert!(flows.of_publishers[0].is_through());
        assert!(flows.of_prober.has_reached(1) && !flows.of_prober.has_reached(0));
        assert_eq!(flows.received.borrow().messages, 0);
    }

    #[test]
    fn messages_of_senders_that_are_none_of_the_run_are_ignored() {
        let flows = Rc::new(Flows::new(1, 1, 1));
        let stray = [arrival(5, Mark::Data, 0), arrival(PROBER, Mark::Data, 0)];
        assert!(!ear(&flows, 0, 0..1, None).note(&stray, 1));
        assert_eq!((flows.received.borrow().messages, flows.lost(false)), (0, 0));
    }

    #[test]
    fn a_subscriber_with_a_limit_counts_no_more() {
        let flows = Rc::new(Flows::new(1, 1, 1));
        let arrivals = [0, 1, 2].map(|sequence| arrival(0, Mark::Data, sequence));
        assert!(ear(&flows, 0, 0..1, Some(2)).note(&arrivals, 1));
        assert_eq!(flows.received.borrow().messages, 2);
    }
}
