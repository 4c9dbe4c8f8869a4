use proptest::prelude::*;
use slim_wire::session::{Content, SessionKind};
use slim_wire::{Name, SessionIds};

use super::*;

fn packet(message: u32) -> Box<Packet> {
    let ids = SessionIds { session: 0, message };
    let names = (Name::NOBODY, Name::NOBODY);
    Box::new(Packet::control(SessionKind::Group, ids, names, Content::Beacon))
}

fn order() -> Order {
    Order::group(Some(Reliability { timeout: Duration::from_secs(1), max_retries: Some(3) }))
}

fn probing(now: Instant, barrier: u32) -> Receiver {
    let mut receiver = Receiver::undecided(order(), barrier);
    receiver.be_patient();
    receiver.decide(now, true);
    receiver
}

/// The numbers delivered now.
fn delivered(receiver: &mut Receiver) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(delivery) = receiver.pop() {
        match delivery {
            Delivery::Message(packet) => numbers.push(packet.ids.message),
            Delivery::Lost(count) => panic!("{count} lost"),
        }
    }
    numbers
}

#[test]
fn a_beacon_first_asks_for_what_it_names_and_begins_after_what_is_refused() {
    let now = Instant::now();
    let mut receiver = probing(now, 0);
    receiver.announce(now, 15);
    assert_eq!(receiver.due(now), [(15, true)]);
    receiver.announce(now, 15);
    receiver.put(now, packet(16));
    receiver.lose(15);
    assert_eq!(delivered(&mut receiver), [16]);
}

#[test]
fn messages_before_the_first_are_asked_for_until_one_is_refused() {
    let now = Instant::now();
    let mut receiver = probing(now, 0);
    receiver.put(now, packet(9));
    assert_eq!(receiver.due(now), [(8, true)]);
    receiver.put(now, packet(8));
    assert_eq!(receiver.due(now), [(6, true), (7, true)]);
    assert_eq!((delivered(&mut receiver), receiver.next()), (vec![], None));
    receiver.lose(6);
    receiver.put(now, packet(7));
    assert_eq!(delivered(&mut receiver), [7, 8, 9]);
    assert_eq!(receiver.next(), Some(10));
}

#[test]
fn a_group_that_changes_often_does_not_put_off_what_is_asked_for() {
    let start = Instant::now();
    let mut receiver = Receiver::new(order(), Some(0));
    receiver.put_sealed(start, packet(0));
    for tenth in 1..=10 {
        let now = start + Duration::from_millis(100) * tenth;
        for sealed in receiver.take_sealed() {
            receiver.put_sealed(now, Box::new(sealed));
        }
    }
    assert_eq!(receiver.due(start + Duration::from_secs(1)), [(0, false)]);
}

/// What may happen to a receiver.
#[derive(Clone, Debug)]
enum Happens {
    Comes(u32),
    ComesSealed(u32),
    GroupChanges,
    Announced(u32),
    Lost(u32),
    TimePasses(u64),
    Decided(bool),
    LinkIsBack,
}

fn happens() -> impl Strategy<Value = Happens> {
    // Near each other, sometimes far beyond what is buffered.
    let id = || prop_oneof![8 => 0..40_u32, 1 => 0..2_000_u32, 1 => any::<u32>()];
    prop_oneof![
        4 => id().prop_map(Happens::Comes),
        2 => id().prop_map(Happens::ComesSealed),
        1 => Just(Happens::GroupChanges),
        1 => id().prop_map(Happens::Announced),
        1 => id().prop_map(Happens::Lost),
        2 => (0..3_000_u64).prop_map(Happens::TimePasses),
        1 => any::<bool>().prop_map(Happens::Decided),
        1 => Just(Happens::LinkIsBack),
    ]
}

proptest! {
    #[test]
    fn each_message_is_delivered_or_lost_at_most_once_and_in_order(
        undecided: bool,
        barrier in 0..10_u32,
        happenings in proptest::collection::vec(happens(), 0..200),
    ) {
        let mut now = Instant::now();
        let mut receiver = match undecided {
            true => Receiver::undecided(order(), barrier),
            false => Receiver::new(order(), None),
        };
        let mut next = None;
        for happening in happenings {
            match happening {
                Happens::Comes(id) if receiver.offer(id, 0) == Offer::Wanted => {
                    receiver.put(now, packet(id));
                }
                Happens::ComesSealed(id) if receiver.offer(id, 0) == Offer::Wanted => {
                    receiver.put_sealed(now, packet(id));
                }
                Happens::Comes(_) | Happens::ComesSealed(_) => {}
                Happens::GroupChanges => {
                    for sealed in receiver.take_sealed() {
                        receiver.put(now, Box::new(sealed));
                    }
                }
                Happens::Announced(id) => receiver.announce(now, id),
                Happens::Lost(id) => receiver.lose(id),
                Happens::TimePasses(time) => {
                    now += Duration::from_millis(time);
                    prop_assert!(receiver.due(now).len() <= BUFFERED_MESSAGES + 1);
                }
                Happens::Decided(can_tell) => receiver.decide(now, can_tell),
                Happens::LinkIsBack => receiver.resume(now),
            }
            let mut at = receiver.next;
            while let Some(delivery) = receiver.pop() {
                let (first, count) = match delivery {
                    Delivery::Message(packet) => (packet.ids.message, 1),
                    Delivery::Lost(count) => (at.expect("a first message"), count),
                };
                prop_assert!(next.is_none_or(|next| first == next), "{first} {next:?}");
                next = Some(first.saturating_add(count));
                at = receiver.next;
            }
            let held: u64 = receiver.slots.values().map(|slot| match slot {
                Slot::Here(packet) | Slot::Sealed(packet, _) => packet.bytes() as u64,
                Slot::Hole(_) | Slot::Lost => 0,
            }).sum();
            prop_assert_eq!(receiver.bytes(), held);
            prop_assert!(receiver.slots.len() <= 2 * BUFFERED_MESSAGES + 2);
        }
    }
}
