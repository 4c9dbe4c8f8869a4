//! What a bad link does to packets, without I/O: packets and the time go in, packets and the time
//! at which they are due come out.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SEED: u64 = 7;

    /// Sends a packet of 1250 bytes each `every`; what comes out, and when.
    fn run(how: Impairment, packets: u32, every: Duration) -> (Vec<(u32, Duration)>, Counts) {
        let mut pipe = Pipe::new(how, SEED);
        let mut came = Vec::new();
        let mut drain = |pipe: &mut Pipe, now| {
            while let Some(Packet { due, bytes, .. }) = pipe.pop(now) {
                assert!(due <= now, "seed {SEED}: due at {due:?}, came at {now:?}");
                let number: [u8; 4] = bytes[..4].try_into().expect("four bytes");
                came.push((u32::from_be_bytes(number), due));
            }
        };
        for number in 0..packets {
            let now = every * number;
            let mut bytes = vec![0; 1250];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            pipe.push(now, bytes);
            drain(&mut pipe, now);
        }
        while let Some(due) = pipe.next_due() {
            drain(&mut pipe, due);
        }
        (came, pipe.counts())
    }

    #[test]
    fn a_clean_wire_delays_every_packet_alike_and_keeps_the_order() {
        let (came, counts) = run(Impairment { delay: 10 * MS, ..Impairment::default() }, 100, MS);
        let expected: Vec<_> = (0..100).map(|n| (n, MS * n + 10 * MS)).collect();
        assert_eq!(came, expected);
        assert_eq!(counts, Counts { packets: 100, longest: 1250, ..Counts::default() });
    }

    #[test]
    fn packets_that_enter_at_once_leave_in_their_order() {
        let (came, _) = run(Impairment { delay: MS, ..Impairment::default() }, 50, Duration::ZERO);
        assert!(came.iter().map(|&(number, _)| number).eq(0..50));
    }

    #[test]
    fn about_as_many_packets_are_lost_as_asked_and_the_others_keep_their_order() {
        for loss in [0.001, 0.01, 0.03, 0.5] {
            let (came, counts) = run(Impairment { loss, ..Impairment::default() }, 100_000, MS);
            let (lost, asked) = (counts.lost as f64, loss * 1e5);
            let deviation = (1e5 * loss * (1.0 - loss)).sqrt();
            assert!((lost - asked).abs() < 4.0 * deviation, "seed {SEED}: {lost} for {asked}");
            assert_eq!(came.len() as u64 + counts.lost, counts.packets);
            assert!(came.is_sorted(), "seed {SEED}");
        }
    }

    #[test]
    fn a_seed_decides_which_packets_are_lost_and_which_are_late() {
        let how =
            Impairment { loss: 0.1, reorder: 0.1, reorder_delay: 3 * MS, ..Impairment::default() };
        let (first, counts) = run(how, 1_000, MS);
        assert_eq!((first.clone(), counts), run(how, 1_000, MS));
        let mut other = Pipe::new(how, SEED + 1);
        for number in 0..1_000 {
            other.push(MS * number, vec![0; 1250]);
        }
        assert_ne!(counts, other.counts());
    }

    #[test]
    fn packets_held_back_are_overtaken_and_none_is_missing() {
        let how = Impairment { reorder: 0.05, reorder_delay: 5 * MS, ..Impairment::default() };
        let (mut came, counts) = run(how, 1_000, MS);
        assert!(counts.reordered > 0 && !came.is_sorted(), "seed {SEED}: {counts:?}");
        came.sort_unstable();
        assert!(came.iter().map(|&(number, _)| number).eq(0..1_000));
        let late = came.iter().filter(|&&(number, due)| due == MS * number + 5 * MS).count();
        assert_eq!(late as u64, counts.reordered);
    }

    #[test]
    fn the_bottleneck_spaces_packets_and_its_queue_is_bounded() {
        // 1250 bytes take 1 ms at 10 Mbit/s; ten of them may wait.
        let how =
            Impairment { rate: Some(10_000_000), queue_bytes: 12_500, ..Impairment::default() };
        let (came, counts) = run(how, 100, Duration::ZERO);
        let expected: Vec<_> = (0..10).map(|n| (n, MS * (n + 1))).collect();
        assert_eq!((came, counts.refused), (expected, 90));
        // As fast as it sends, none has to wait.
        let (came, counts) = run(how, 100, MS);
        assert_eq!((came.len(), counts.refused), (100, 0));
        // Twice as fast, every other one finds no room once the queue is full.
        let (came, counts) = run(how, 1_000, MS / 2);
        assert!((500..=511).contains(&came.len()), "{} of {counts:?}", came.len());
    }
}
