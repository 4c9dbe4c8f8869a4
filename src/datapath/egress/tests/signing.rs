//! Messages that leave with an authentication code (D20).

use slim_compat_grpc::subscription_ack;

use super::*;

const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

fn signing() -> Egress {
    let mut egress = egress(Framing::Grpc);
    egress.authenticate(Arc::new(signed::key("link")));
    egress
}

fn admit_and_answer(egress: &mut Egress, answer: &Bytes) {
    let marks = Marks::new(1 << 30, 0);
    let load =
        Load { class: Class::Control, encoding: Encoding::D20, bytes: answer.len(), messages: 0 };
    assert_eq!(egress.port().admit(load, &marks), Admission::Admitted);
    egress.push_answer(answer);
}

#[test]
fn a_small_message_leaves_packed_and_of_a_large_one_only_the_head_is_copied() {
    let mut egress = signing();
    let small = signed::publish(DESTINATION, 1, 20, 10);
    let large = signed::publish(DESTINATION, 1, 20, 5_000);
    admit_and_push(&mut egress, &small);
    admit_and_push(&mut egress, &large);
    let packed = egress.pop(0).expect("the small one, and the head of the large one");
    let prefixes = 2 * slim_compat_grpc::PREFIX_BYTES;
    assert_eq!(packed.messages, 1);
    assert_eq!(packed.bytes.len(), prefixes + small.len() + large.body[0].len());
    let rest = egress.pop(0).expect("the rest of the large one");
    assert_eq!((rest.bytes.as_ptr(), rest.messages), (large.body[1].as_ptr(), 1));
    assert_eq!(egress.pop(0), None);
    assert_eq!((egress.port().queued(), egress.messages()), (0, 0));
}

#[test]
fn a_link_without_a_key_gets_the_message_whole() {
    let mut egress = egress(Framing::Grpc);
    let envelope = signed::publish(DESTINATION, 1, 20, 5_000);
    admit_and_push(&mut egress, &envelope);
    let (bytes, messages) = drained(&mut egress, 0);
    let body = envelope.body.concat();
    assert_eq!(bytes, [&slim_compat_grpc::prefix(body.len())[..], &body].concat());
    assert_eq!((messages, egress.port().queued()), (1, 0));
}

/// The prefixes of answers are in the buffer, but were not charged: what leaves in parts must not
/// give back more room than it took.
#[test]
fn the_longest_header_behind_many_answers_gives_back_the_room_that_it_took() {
    let ack = subscription_ack(u64::MAX, Ok(()));
    for acks in [0, 1, 700, 800, 900, 5_000] {
        for identity in [40_000, 50_000, 65_300] {
            let mut egress = signing();
            (0..acks).for_each(|_| admit_and_answer(&mut egress, &ack));
            let envelope = signed::publish(DESTINATION, 1, identity, 10);
            admit_and_push(&mut egress, &envelope);
            (0..acks).for_each(|_| admit_and_answer(&mut egress, &ack));
            let (_, messages) = drained(&mut egress, 0);
            assert_eq!((messages, egress.port().queued()), (1, 0), "{acks} {identity}");
        }
    }
}

#[test]
fn a_dropped_queue_gives_back_the_room_of_what_is_signed() {
    let mut egress = signing();
    let port = Arc::clone(egress.port());
    for (identity, payload) in [(10, 10), (65_000, 200_000), (3_000, 3_000)] {
        admit_and_push(&mut egress, &signed::publish(DESTINATION, 1, identity, payload));
    }
    egress.pop(0);
    egress.pop(0);
    assert!(port.queued() > 0);
    drop(egress);
    assert_eq!(port.queued(), 0);
}

proptest! {
    #[test]
    fn what_is_signed_comes_out_whole_in_order_and_counted_among_answers(
        sizes in proptest::collection::vec(
            (prop_oneof![0..300usize, 1_900..2_200usize, 60_000..65_300usize],
             prop_oneof![0..300usize, 1_900..2_200usize, 50_000..140_000usize],
             0..3usize),
            0..20,
        ),
        pops in proptest::collection::vec(0..4usize, 20),
    ) {
        let (mut egress, key) = (signing(), signed::key("link"));
        let ack = subscription_ack(7, Ok(()));
        let (mut reader, mut got, mut written) = (MessageReader::new(1 << 20), Vec::new(), 0);
        let mut leave = |egress: &mut Egress| {
            let Some(chunk) = egress.pop(0) else { return false };
            assert!(chunk.bytes.len() <= CHUNK_BYTES);
            written += chunk.messages;
            reader.push(chunk.bytes);
            while let Some(message) = reader.next().expect("well framed") {
                got.push(message);
            }
            true
        };
        let mut expected = Vec::new();
        for ((identity, payload, acks), pops) in sizes.iter().zip(pops) {
            let envelope = signed::publish(DESTINATION, 1, *identity, *payload);
            admit_and_push(&mut egress, &envelope);
            expected.push(Some(envelope));
            for _ in 0..*acks {
                admit_and_answer(&mut egress, &ack);
                expected.push(None);
            }
            for _ in 0..pops { leave(&mut egress); }
        }
        while leave(&mut egress) {}
        prop_assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            match expected {
                Some(envelope) => signed::assert_signed(got, envelope, &key),
                None => prop_assert_eq!(got, &ack),
            }
        }
        prop_assert_eq!(written, sizes.len() as u64);
        prop_assert_eq!((egress.port().queued(), egress.messages()), (0, 0));
    }
}
