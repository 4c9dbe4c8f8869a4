use std::collections::{HashMap, VecDeque};

use slim_wire::{Encoding, Id, Name};
use smallvec::SmallVec;

/// The numbers under which a client subscribed to its names (D7, D20): a name is given up with
/// the last of its numbers.
///
/// A request that comes again under the same number changes nothing, since clients repeat one
/// whose acknowledgement is late. Releases before 1.3 and reconnected clients use 0 for all.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    names: HashMap<Name, SmallVec<[u64; 2]>>,
    /// What was given up last: a client that missed the acknowledgement asks again.
    released: VecDeque<(u64, Name)>,
}

/// So much of what was given up is remembered: more than a client repeats at a time.
const RELEASED: usize = 64;

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
        self.released.retain(|released| *released != (number, name));
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

    /// Notes an unsubscription. One under an unknown number stands for one that was replayed
    /// under 0: a client that has reconnected since knows only the number from before. Without
    /// such it changes nothing: the client repeats what it asked for, while it still has the name
    /// under another number.
    pub(super) fn release(&mut self, name: &Name, number: u64) -> Release {
        if self.released.contains(&(number, *name)) {
            return Release::Number;
        }
        let Some(numbers) = self.names.get_mut(name) else {
            return Release::Unknown;
        };
        if number != 0 {
            self.released.truncate(RELEASED - 1);
            self.released.push_front((number, *name));
        }
        let place = |wanted| numbers.iter().position(|known| *known == wanted);
        if let Some(at) = place(number).or_else(|| place(0)) {
            numbers.swap_remove(at);
        }
        if !numbers.is_empty() {
            return Release::Number;
        }
        self.names.remove(name);
        Release::Name
    }
}

/// Why a name could not be given up, in the words of published nodes: those of releases 1.3 and
/// 1.4 write the id as a number, later ones as a UUID.
pub(super) fn unknown_name(encoding: Encoding, id: Id) -> String {
    match (encoding, id.to_u64()) {
        (Encoding::D7, Some(id)) => format!("id not found: {id}"),
        _ if id.is_any() => "id not found: NULL_COMPONENT".to_owned(),
        _ => {
            let digits = format!("{:032x}", id.as_u128());
            let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
            format!("id not found: {}", parts.join("-"))
        }
    }
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
        assert_eq!(numbers.release(&NAME, 9), Release::Unknown);
    }

    #[test]
    fn a_repeated_unsubscription_changes_nothing_more() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 0) && numbers.add(NAME, 0));
        assert_eq!(numbers.release(&NAME, 7), Release::Number);
        assert_eq!(numbers.release(&NAME, 7), Release::Number);
        assert_eq!(numbers.release(&NAME, 8), Release::Name);
        assert_eq!(numbers.release(&NAME, 8), Release::Number);
        assert_eq!(numbers.release(&NAME, 9), Release::Unknown);
        assert!(numbers.add(NAME, 8));
        assert_eq!(numbers.release(&NAME, 8), Release::Name);
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
    fn each_replayed_subscription_takes_an_unsubscription_of_its_own() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 0) && numbers.add(NAME, 0));
        assert_eq!(numbers.release(&NAME, 98), Release::Number);
        assert_eq!(numbers.release(&NAME, 99), Release::Name);
    }

    #[test]
    fn a_repeated_unsubscription_does_not_take_the_name_from_another_number() {
        let mut numbers = Numbers::default();
        assert!(numbers.add(NAME, 7) && numbers.add(NAME, 8));
        assert_eq!(numbers.release(&NAME, 7), Release::Number);
        assert_eq!(numbers.release(&NAME, 7), Release::Number);
        assert_eq!(numbers.release(&NAME, 8), Release::Name);
    }

    #[test]
    fn an_unknown_id_is_told_as_nodes_of_the_release_tell_it() {
        let any = u64::MAX.to_string();
        for (encoding, id, told) in [
            (Encoding::D7, Id::from_u64(77), "77"),
            (Encoding::D7, Id::ANY, any.as_str()),
            (Encoding::D20, Id::ANY, "NULL_COMPONENT"),
            (Encoding::D20, Id::new(0xAB << 64 | 77), "00000000-0000-00ab-0000-00000000004d"),
        ] {
            assert_eq!(unknown_name(encoding, id), format!("id not found: {told}"));
        }
    }

    #[test]
    fn a_client_cannot_pile_up_numbers() {
        let mut numbers = Numbers::default();
        let taken = (1..1000).filter(|number| numbers.add(NAME, *number)).count();
        assert_eq!(taken, NUMBERS_OF_A_NAME);
    }
}
