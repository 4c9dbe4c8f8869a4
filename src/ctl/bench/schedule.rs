//! When messages of an open loop are due. Nothing that happens to a message moves those after it,
//! so a stall shows in the latency of all that it delayed (no coordinated omission).

const SECOND: f64 = 1e9;

#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: u64,
    per_second: f64,
}

impl Schedule {
    /// The first message is due at `start`, in nanoseconds.
    pub(super) fn new(start: u64, per_second: f64) -> Self {
        Self { start, per_second }
    }

    /// When message `index` is due.
    pub(super) fn due(&self, index: u64) -> u64 {
        self.start + (index as f64 * SECOND / self.per_second) as u64
    }

    /// How many messages are due at `now`.
    pub(super) fn due_by(&self, now: u64) -> u64 {
        let Some(elapsed) = now.checked_sub(self.start) else {
            return 0;
        };
        let near = (elapsed as f64 * self.per_second / SECOND) as u64;
        // Rounding may be off by one in either direction; `due` decides.
        let first = near.saturating_sub(1);
        (first..).find(|&index| self.due(index) > now).unwrap_or(near)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_due_at_equal_distances_from_the_start() {
        let schedule = Schedule::new(1_000, 4.0);
        let dues = [0, 1, 2, 4].map(|index| schedule.due(index));
        assert_eq!(dues, [1_000, 250_001_000, 500_001_000, 1_000_001_000]);
    }

    #[test]
    fn a_sender_that_was_held_up_finds_all_it_missed_due() {
        let schedule = Schedule::new(0, 1_000.0);
        assert_eq!(schedule.due_by(0), 1);
        assert_eq!(schedule.due_by(999_999), 1);
        assert_eq!(schedule.due_by(250_000_000), 251);
        // And they keep the moments at which they were due.
        assert_eq!(schedule.due(250), 250_000_000);
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        assert_eq!(Schedule::new(5, 10.0).due_by(4), 0);
    }

    proptest! {
        #[test]
        fn what_is_due_is_exactly_what_has_its_moment_behind(
            start in 0u64..1 << 50, rate in 0.1f64..5e6, elapsed in 0u64..100_000_000_000,
        ) {
            let schedule = Schedule::new(start, rate);
            let now = start + elapsed;
            let due = schedule.due_by(now);
            prop_assert!(schedule.due(due) > now);
            prop_assert!(due >= 1 && schedule.due(due - 1) <= now);
        }
    }
}
