//! What a bad link does to packets, without I/O: packets and the time go in, packets and the time
//! at which they are due come out. `tests/lossy_wire.rs` tries it.
//!
//! A packet first waits for the bottleneck, which sends one at a time and has a bounded queue. It
//! may get lost behind it, and else takes the way's delay; one that is reordered takes longer, so
//! that later ones overtake it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What is done to the packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Impairment {
    /// Which part of packets is lost, 0 to 1.
    pub(crate) loss: f64,
    /// How long the way is.
    pub(crate) delay: Duration,
    /// Which part of packets is held back, 0 to 1.
    pub(crate) reorder: f64,
    /// How much later a packet that is held back comes.
    pub(crate) reorder_delay: Duration,
    /// What the bottleneck sends in bits a second; `None` for no bottleneck.
    pub(crate) rate: Option<u64>,
    /// What may wait for the bottleneck, in bytes with the packet that it sends.
    pub(crate) queue_bytes: usize,
}

/// What became of packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Came in.
    pub(crate) packets: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Found no room before the bottleneck.
    pub(crate) refused: u64,
    /// Held back.
    pub(crate) reordered: u64,
    /// Bytes of the longest.
    pub(crate) longest: usize,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Pipe {
    how: Impairment,
    rng: StdRng,
    counts: Counts,
    /// When the bottleneck has sent what came so far.
    free_at: Duration,
    /// On the way, what is due first at the top.
    flying: BinaryHeap<Reverse<Packet>>,
}

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packet {
    /// When it is to come out.
    pub(crate) due: Duration,
    /// Order of entry, for packets that are due at the same time.
    number: u64,
    /// The packet itself.
    pub(crate) bytes: Vec<u8>,
}

impl Pipe {
    /// The same seed has the same fate for the n-th packet that passes the bottleneck.
    pub(crate) fn new(how: Impairment, seed: u64) -> Self {
        Self {
            how,
            rng: StdRng::seed_from_u64(seed),
            counts: Counts::default(),
            free_at: Duration::ZERO,
            flying: BinaryHeap::new(),
        }
    }

    /// Takes a packet at `now`, which never decreases.
    pub(crate) fn push(&mut self, now: Duration, bytes: Vec<u8>) {
        let number = self.counts.packets;
        self.counts.packets += 1;
        self.counts.longest = self.counts.longest.max(bytes.len());
        let Some(sent) = self.through_bottleneck(now, bytes.len()) else {
            self.counts.refused += 1;
            return;
        };
        // Both are drawn for every packet, so that the fate of later ones does not depend on it.
        let (lost, late) = (self.chance(self.how.loss), self.chance(self.how.reorder));
        if lost {
            self.counts.lost += 1;
            return;
        }
        let mut due = sent + self.how.delay;
        if late {
            self.counts.reordered += 1;
            due += self.how.reorder_delay;
        }
        self.flying.push(Reverse(Packet { due, number, bytes }));
    }

    /// When the bottleneck has sent it; `None` if there is no room.
    fn through_bottleneck(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(rate) = self.how.rate else { return Some(now) };
        let start = self.free_at.max(now);
        let sent = start + transmission(bytes, rate);
        if sent - now > transmission(self.how.queue_bytes, rate) {
            return None;
        }
        self.free_at = sent;
        Some(sent)
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random::<f64>() < of
    }

    /// What is due by `now`, one at a time.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Packet> {
        let Reverse(first) = self.flying.peek()?;
        if first.due > now {
            return None;
        }
        self.flying.pop().map(|Reverse(packet)| packet)
    }

    /// When there will be something to [`pop`](Self::pop).
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.flying.peek().map(|Reverse(packet)| packet.due)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

/// How long `bytes` take at `rate` bits a second.
fn transmission(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1))
}
