//! What every message carries at the start of its payload.

/// Length of a stamp in bytes: no payload is smaller.
pub const STAMP_BYTES: usize = 16;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// To be counted.
    Data,
    /// Shows that messages arrive, before those that are counted.
    Probe,
    /// The sender's last: its sequence is the number of messages that were sent.
    End,
}

/// Who sent a message, as which of how many, and when it should have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When it was to be sent, whether or not it could be, in nanoseconds of [`super::clock`].
    pub(super) due: u64,
    pub(super) sender: u16,
    pub(super) mark: Mark,
    /// Counts from 0; only its low 46 bits travel.
    pub(super) sequence: u64,
}

const SEQUENCE_BITS: u32 = 46;

impl Stamp {
    pub(super) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let sequence = self.sequence & ((1 << SEQUENCE_BITS) - 1);
        let word = sequence | (self.mark as u64) << SEQUENCE_BITS | u64::from(self.sender) << 48;
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.due.to_le_bytes());
        bytes[8..].copy_from_slice(&word.to_le_bytes());
        bytes
    }

    /// `None` if the payload is none of ours.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (due, rest) = payload.split_first_chunk()?;
        let word = u64::from_le_bytes(*rest.first_chunk()?);
        let mark = match word >> SEQUENCE_BITS & 3 {
            0 => Mark::Data,
            1 => Mark::Probe,
            2 => Mark::End,
            _ => return None,
        };
        let sequence = word & ((1 << SEQUENCE_BITS) - 1);
        Some(Self { due: u64::from_le_bytes(*due), sender: (word >> 48) as u16, mark, sequence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(
            due: u64, sender: u16, mark in 0..3, sequence in 0u64..1 << SEQUENCE_BITS,
        ) {
            let mark = [Mark::Data, Mark::Probe, Mark::End][mark as usize];
            let stamp = Stamp { due, sender, mark, sequence };
            prop_assert_eq!(Stamp::read(&stamp.to_bytes()), Some(stamp));
        }
    }

    #[test]
    fn a_payload_that_is_too_short_or_of_others_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
        assert_eq!(Stamp::read(&[0xFF; STAMP_BYTES]), None);
    }
}
