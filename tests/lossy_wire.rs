//! The bad link that `benches/loss` measures over: what it does to packets.

#[path = "../benches/loss/impair.rs"]
mod impair;

use std::time::Duration;

use impair::{Counts, Impairment, Packet, Pipe};

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
    let how = Impairment { rate: Some(10_000_000), queue_bytes: 12_500, ..Impairment::default() };
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
