use proptest::prelude::*;
use slim_compat_grpc::MessageReader;
use slim_wire::Class;
use slotmap::DefaultKey;

use super::*;
use crate::datapath::port::{Admission, CoreId, LinkId, Marks};

fn egress() -> Egress {
    let id = LinkId { core: CoreId(0), key: DefaultKey::default() };
    Egress::new(Arc::new(Port::new(id, "test")), Framing::Grpc)
}

fn admit_and_push(egress: &mut Egress, body: &Bytes) {
    let marks = Marks::new(1 << 30, 0);
    assert_eq!(egress.port().admit(Class::Reliable, body.len(), &marks), Admission::Admitted);
    egress.push(body);
}

#[test]
fn small_messages_leave_packed_and_large_ones_as_they_came() {
    let mut egress = egress();
    let large = Bytes::from(vec![9; PACKING_THRESHOLD_BYTES + 1]);
    for body in [Bytes::from_static(b"one"), Bytes::from_static(b"two"), large.clone()] {
        admit_and_push(&mut egress, &body);
    }
    let packed = egress.pop().expect("a packed chunk");
    assert_eq!(packed.messages, 2);
    assert_eq!(packed.bytes.len(), 3 * slim_compat_grpc::PREFIX_BYTES + 6);
    let alone = egress.pop().expect("the large one");
    assert_eq!((alone.bytes.as_ptr(), alone.messages), (large.as_ptr(), 1));
    assert_eq!(egress.pop(), None);
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn a_dropped_queue_gives_its_room_back() {
    let mut queue = egress();
    let port = Arc::clone(queue.port());
    for len in [10, 5_000, 200_000] {
        admit_and_push(&mut queue, &Bytes::from(vec![0; len]));
    }
    queue.pop();
    queue.pop();
    queue.pop();
    assert!(port.queued() > 0);
    drop(queue);
    assert_eq!(port.queued(), 0);
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_framed_in_order_and_counted(
        sizes in proptest::collection::vec(prop_oneof![0..300usize, 1_900..2_200usize, 50_000..140_000usize], 0..60),
        pops in proptest::collection::vec(0..4usize, 60),
    ) {
        let mut egress = egress();
        let (mut reader, mut got, mut written) = (MessageReader::new(1 << 20), Vec::new(), 0);
        let mut leave = |egress: &mut Egress| {
            let Some(chunk) = egress.pop() else { return false };
            assert!(chunk.bytes.len() <= CHUNK_BYTES);
            written += chunk.messages;
            reader.push(chunk.bytes);
            while let Some(message) = reader.next().expect("well framed") {
                got.push(message.len());
            }
            true
        };
        for (size, pops) in sizes.iter().zip(pops) {
            admit_and_push(&mut egress, &Bytes::from(vec![1; *size]));
            for _ in 0..pops { leave(&mut egress); }
        }
        while leave(&mut egress) {}
        prop_assert_eq!(written, sizes.len() as u64);
        prop_assert_eq!(got, sizes);
        prop_assert_eq!(egress.port().queued(), 0);
        prop_assert_eq!(egress.messages(), 0);
    }
}
