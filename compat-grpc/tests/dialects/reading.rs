//! Any message of any dialect, whole or damaged.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use slim_compat_grpc::{D6, D7, D20, Dialect, Negotiation, P, detect, detect_pubsub, prepare};
use slim_wire::Class;

use crate::keyed::Keyed;
use crate::made::{Made, Spec, disturbance, disturbed, spec};
use crate::published::{check, check_prepare};

macro_rules! dialects {
    ($($module:ident: $dialect:ty),*) => {$(
        mod $module {
            use super::*;

            proptest! {
                #[test]
                fn a_message_reads_as_its_generated_decoder_reads_it(
                    spec in spec(), disturbance in disturbance()
                ) {
                    let bytes = disturbed(&<$dialect>::bytes(&spec), disturbance);
                    prop_assert!(<$dialect>::read(&bytes).is_ok());
                    check::<$dialect>(&bytes);
                }

                #[test]
                fn a_damaged_message_is_read_as_its_decoder_reads_it_or_refused(
                    spec in spec(),
                    disturbance in disturbance(),
                    damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
                    cut in any::<prop::sample::Index>(),
                ) {
                    let mut bytes = disturbed(&<$dialect>::bytes(&spec), disturbance);
                    check::<$dialect>(&bytes[..cut.index(bytes.len())]);
                    for (at, byte) in damage {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    check::<$dialect>(&bytes);
                }
            }
        }
    )*};
}

dialects!(p: P, d6: D6, d7: D7, d20: D20);

/// Everything that takes bytes of a peer takes these.
fn read_by_all(bytes: &[u8]) {
    check::<P>(bytes);
    check::<D6>(bytes);
    check::<D7>(bytes);
    check::<D20>(bytes);
    let _ = detect(bytes);
    let _ = detect_pubsub(bytes);
    let _ = Negotiation::read(bytes);
    let _ = prepare(&Bytes::copy_from_slice(bytes), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_by_all(bytes in vec(any::<u8>(), 0..200)) {
        read_by_all(&bytes);
    }

    #[test]
    fn a_message_of_another_dialect_is_read_or_refused_by_all(
        spec in spec(), disturbance in disturbance()
    ) {
        for bytes in [P::bytes(&spec), D6::bytes(&spec), D7::bytes(&spec), D20::bytes(&spec)] {
            read_by_all(&disturbed(&bytes, disturbance));
        }
    }

    #[test]
    fn a_publish_leaves_with_any_hop_limit(spec in spec(), ttl: u8) {
        let [link, other] = Keyed::pair();
        check_prepare(&D20::bytes(&spec), ttl, link, other);
    }
}

/// The messages that carry an app's data, those that may be lost, and all others up to the
/// highest type of the dialect, by section 1.8 of the reference.
#[test]
fn data_acknowledgements_and_control_are_told_apart_in_every_dialect() {
    fn classes<D: Made>(types: std::ops::Range<u32>) -> Vec<Class> {
        let class = |message_type| {
            let spec = Spec { session: [1, message_type, 7, 1], ..Spec::publish() };
            D::read(&D::bytes(&spec)).expect("valid").routed().expect("routed").header.class
        };
        types.map(class).collect()
    }
    fn expected(count: u32, best_effort: &[u32], reliable: &[u32]) -> Vec<Class> {
        let class = |message_type| match message_type {
            it if best_effort.contains(&it) => Class::BestEffort,
            it if reliable.contains(&it) => Class::Reliable,
            _ => Class::Control,
        };
        (0..count).map(class).collect()
    }
    assert_eq!(classes::<P>(0..20), expected(20, &[1], &[0, 2, 4, 5, 7]));
    assert_eq!(classes::<D6>(0..18), expected(18, &[1], &[0, 2, 4, 6]));
    assert_eq!(classes::<D7>(0..19), expected(19, &[], &[0, 1, 4]));
    assert_eq!(classes::<D20>(0..21), expected(21, &[], &[0, 1, 4]));
}
