use std::collections::HashMap;
use std::fmt::Write as _;

use slim_wire::{Id, Name};
use smallvec::SmallVec;

/// The numbers under which a client subscribed to its names (D7, D20): a name is given up with
/// the last of its numbers.
///
/// A request that comes again under the same number changes nothing, since clients repeat one
/// whose acknowledgement is late. Releases before 1.3 and reconnected clients use 0 for all.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    names: HashMap<Name, SmallVec<[u64; 2]>>,
}

/// One name is not subscribed to under more numbers.
const NUMBERS_OF_A_NAME: usize = 64;

/// What an unsubscription means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// The last number of the name has gone.
    Name,
    /// The name is still subscribed to under others.
    Number,
    /// The name is not subscribed to at all.
    Unknown,
}

impl Numbers {
    /// Notes a subscription; returns whether there was room for its number.
    pub(super) fn add(&mut self, name: Name, number: u64) -> bool {
        let numbers = self.names.entry(name).or_default();
        if number != 0 && numbers.contains(&number) {
            return true;
        }
        let room = numbers.len() < NUMBERS_OF_A_NAME;
        if room {
            numbers.push(number);
        }
        room
    }

    /// Notes an unsubscription. One under a number that was never seen ends the name: a client
    /// that has reconnected since knows only the number from before.
    pub(super) fn release(&mut self, name: &Name, number: u64) -> Release {
        let Some(numbers) = self.names.get_mut(name) else {
            return Release::Unknown;
        };
        match numbers.iter().position(|known| *known == number) {
            Some(at) => _ = numbers.swap_remove(at),
            None => numbers.clear(),
        }
        if !numbers.is_empty() {
            return Release::Number;
        }
        self.names.remove(name);
        Release::Name
    }
}

/// Why a name could not be given up, in the words of published nodes.
pub(super) fn unknown_name(id: Id) -> String {
    let mut text = String::from("id not found: ");
    // Writing to a string cannot fail.
    let _ = match id.is_any() {
        true => text.write_str("NULL_COMPONENT"),
        false => write!(text, "{}", id.as_u128()),
    };
    text
}

#[cfg(test)]
mod tests {
    use slim_wire::Prefix;

    use super::*;

    const NAME: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::new(4) };

    #[test]
    fn a_name_goes_with_its_last_number() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 7) && numbers.add(NAME, 8));
        assert_eq!(numbers.release(&NAME, 7), Release::Number);
        assert_eq!(numbers.release(&NAME, 8), Release::Name);
        assert_eq!(numbers.release(&NAME, 8), Release::Unknown);
    }

    #[test]
    fn a_repeated_request_counts_once() {
        let mut numbers = Numbers::default();
        assert!((0..1000).all(|_| numbers.add(NAME, 7)));
        assert_eq!(numbers.release(&NAME, 7), Release::Name);
    }

    #[test]
    fn subscriptions_without_a_number_are_counted() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 0) && numbers.add(NAME, 0));
        assert_eq!(numbers.release(&NAME, 0), Release::Number);
        assert_eq!(numbers.release(&NAME, 0), Release::Name);
    }

    #[test]
    fn a_number_from_before_a_reconnection_ends_what_was_replayed_without_one() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 0));
        assert_eq!(numbers.release(&NAME, 99), Release::Name);
    }

    #[test]
    fn a_client_cannot_pile_up_numbers() {
        let mut numbers = Numbers::default();
        let taken = (1..1000).filter(|number| numbers.add(NAME, *number)).count();
        assert_eq!(taken, NUMBERS_OF_A_NAME);
    }
}
