//! What one subscriber has of one sender.

/// Counts messages by their sequence. A message that comes after a later one counts as lost, as
/// it would for a receiver that needs order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    received: u64,
    /// One more than the highest sequence.
    next: u64,
    out_of_order: u64,
    /// How many the sender says it sent.
    sent: Option<u64>,
}

impl Tally {
    /// Notes the message with this sequence; false if it came late or twice.
    pub(super) fn note(&mut self, sequence: u64) -> bool {
        let in_order = sequence >= self.next;
        if in_order {
            self.received += 1;
            self.next = sequence + 1;
        } else {
            self.out_of_order += 1;
        }
        in_order
    }

    /// Notes the end: the sender sent so many.
    pub(super) fn end(&mut self, sent: u64) {
        self.sent = Some(sent);
        self.next = self.next.max(sent);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.sent.is_some()
    }

    /// All before this sequence have come, or will not come any more.
    pub(super) fn passed(&self) -> u64 {
        self.next
    }

    /// Messages that came late or twice.
    pub(super) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Messages that are missing, out of `sent` if that is known.
    pub(super) fn lost(&self, sent: Option<u64>) -> u64 {
        sent.unwrap_or(self.next).max(self.next) - self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sequences: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &sequence in sequences {
            tally.note(sequence);
        }
        tally
    }

    #[test]
    fn nothing_is_lost_when_all_come_in_order() {
        let mut tally = tally(&[0, 1, 2]);
        tally.end(3);
        assert_eq!((tally.lost(None), tally.out_of_order()), (0, 0));
        assert!(tally.has_ended());
    }

    #[test]
    fn a_gap_is_lost_as_soon_as_it_shows() {
        assert_eq!(tally(&[0, 3]).lost(None), 2);
    }

    #[test]
    fn what_is_missing_at_the_end_is_lost() {
        let mut ended = tally(&[0, 1]);
        ended.end(5);
        assert_eq!(ended.lost(None), 3);
        assert_eq!(tally(&[0, 1]).lost(Some(5)), 3);
        assert_eq!(Tally::default().lost(Some(5)), 5);
    }

    #[test]
    fn a_message_that_comes_twice_does_not_stand_for_one_that_is_lost() {
        let tally = tally(&[0, 1, 1, 3]);
        assert_eq!((tally.lost(Some(4)), tally.out_of_order()), (1, 1));
    }
}
