use proptest::prelude::*;
use slim_compat_grpc::MessageReader;
use slim_wire::{Flags, Header, Id, Kind, Name, Prefix};
use slotmap::DefaultKey;

use super::*;
use crate::datapath::port::{Admission, CoreId, LinkId, Load, Marks, NodeLink};
use crate::datapath::signed;

mod signing;

fn egress(framing: Framing) -> Egress {
    let id = LinkId { core: CoreId(0), key: DefaultKey::default() };
    Egress::new(Arc::new(Port::new(id, framing, "test")))
}

fn header(class: Class, encoding: Encoding, lane: u8) -> Header {
    let name = |app| Name { prefix: Prefix([1, 2, app]), id: Id::from_u64(app) };
    Header {
        kind: Kind::Publish,
        class,
        encoding,
        flags: Flags::empty(),
        ttl: 3,
        fanout: 1,
        lane,
        source: name(4),
        destination: name(5),
    }
}

fn admit_and_push(egress: &mut Egress, envelope: &Envelope) {
    let marks = Marks::new(1 << 30, 0);
    assert_eq!(egress.port().admit(Load::of(envelope), &marks), Admission::Admitted);
    egress.push(envelope);
}

fn grpc(body: &Bytes) -> Envelope {
    Envelope::single(header(Class::Reliable, Encoding::D6, 0), body.clone())
}

/// A run of native frames with these payload lengths, cut into pieces of `piece` bytes.
fn native(header: &Header, payloads: &[usize], piece: usize) -> Envelope {
    let frames: Vec<_> = payloads
        .iter()
        .map(|len| {
            let (kind, ids) = (FrameKind::Publish, SessionIds::default());
            slim_wire::frame(kind, header, ids, b"", &vec![7; *len]).expect("it is small")
        })
        .collect();
    let bytes = Bytes::from(frames.concat());
    let body = (0..bytes.len())
        .step_by(piece)
        .map(|at| bytes.slice(at..bytes.len().min(at + piece)))
        .collect();
    Envelope { header: *header, messages: payloads.len() as u32, body }
}

fn drained(egress: &mut Egress, queue: u8) -> (Vec<u8>, u64) {
    let (mut bytes, mut messages) = (Vec::new(), 0);
    while let Some(chunk) = egress.pop(queue) {
        bytes.extend_from_slice(&chunk.bytes);
        messages += chunk.messages;
    }
    (bytes, messages)
}

#[test]
fn a_run_leaves_on_its_lane_as_it_came() {
    let mut egress = egress(Framing::Native);
    let run = native(&header(Class::Reliable, Encoding::Native, 5), &[10, 3000, 20], 1400);
    admit_and_push(&mut egress, &run);
    assert_eq!(egress.pop(4), None);
    assert_eq!(drained(&mut egress, 5), (run.body.concat(), 3));
    assert_eq!((egress.port().queued(), egress.messages()), (0, 0));
}

#[test]
fn best_effort_that_fits_leaves_as_datagrams_of_one_message_each() {
    let mut egress = egress(Framing::Native);
    egress.allow_datagrams(1000);
    let run = native(&header(Class::BestEffort, Encoding::Native, 2), &[10, 2000, 20], 50);
    admit_and_push(&mut egress, &run);
    let datagrams: Vec<_> = std::iter::from_fn(|| egress.pop(DATAGRAMS)).collect();
    let lengths: Vec<_> = datagrams.iter().map(|chunk| chunk.bytes.len()).collect();
    assert_eq!(lengths, [HEADER_BYTES + 10, HEADER_BYTES + 20]);
    assert!(datagrams.iter().all(|chunk| chunk.messages == 1));
    let (lane, messages) = drained(&mut egress, 2);
    assert_eq!((lane.len(), messages), (HEADER_BYTES + 2000, 1));
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn a_small_datagram_that_waits_holds_no_receive_buffer() {
    let mut egress = egress(Framing::Native);
    egress.allow_datagrams(1000);
    let run = native(&header(Class::BestEffort, Encoding::Native, 0), &[10], 500);
    admit_and_push(&mut egress, &run);
    assert!(run.body[0].is_unique());
    assert_eq!(egress.pop(DATAGRAMS).map(|chunk| chunk.bytes.to_vec()), Some(run.body.concat()));
}

#[test]
fn on_its_way_to_a_node_a_frame_loses_a_hop_and_nothing_else() {
    let mut egress = egress(Framing::Node(1, NodeLink::Transit));
    let run = native(&header(Class::Reliable, Encoding::Native, 1), &[10, 3000, 20], 1400);
    admit_and_push(&mut egress, &run);
    let (bytes, messages) = drained(&mut egress, 1);
    assert_eq!(messages, 3);
    let mut pieces = Pieces::new();
    pieces.push(bytes.into());
    for ((sent, frame), (came, original)) in Frames::of(&pieces).zip(Frames::of(&run.body)) {
        assert_eq!(sent, came.with_ttl(2));
        assert_eq!(frame.concat()[HEADER_BYTES..], original.concat()[HEADER_BYTES..]);
    }
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn a_published_message_travels_to_a_node_inside_a_frame() {
    let mut egress = egress(Framing::Node(1, NodeLink::Transit));
    let body = Bytes::from(vec![9; 5000]);
    let message = Envelope::single(header(Class::Control, Encoding::D6, 6), body.clone());
    admit_and_push(&mut egress, &message);
    let (bytes, _) = drained(&mut egress, 6);
    let head = FrameHeader::prefix_of(&bytes).expect("a frame");
    let expected = Header { ttl: 2, ..message.header };
    assert_eq!(head.header(6), Ok(expected));
    assert_eq!((head.length(), &bytes[HEADER_BYTES..]), (bytes.len(), &body[..]));
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn small_messages_leave_packed_and_large_ones_as_they_came() {
    let mut egress = egress(Framing::Grpc);
    let large = Bytes::from(vec![9; PACKING_THRESHOLD_BYTES + 1]);
    for body in [Bytes::from_static(b"one"), Bytes::from_static(b"two"), large.clone()] {
        admit_and_push(&mut egress, &grpc(&body));
    }
    let packed = egress.pop(0).expect("a packed chunk");
    assert_eq!(packed.messages, 2);
    assert_eq!(packed.bytes.len(), 3 * slim_compat_grpc::PREFIX_BYTES + 6);
    let alone = egress.pop(0).expect("the large one");
    assert_eq!((alone.bytes.as_ptr(), alone.messages), (large.as_ptr(), 1));
    assert_eq!(egress.pop(0), None);
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn the_small_pieces_of_a_long_run_leave_in_one_buffer() {
    let mut egress = egress(Framing::Native);
    let header = header(Class::Reliable, Encoding::Native, 3);
    let (short, long) = (native(&header, &[10, 20], 100), native(&header, &[30_000, 9], 1_400));
    admit_and_push(&mut egress, &short);
    admit_and_push(&mut egress, &long);
    admit_and_push(&mut egress, &short);
    for run in [&short, &long, &short] {
        let chunk = egress.pop(3).expect("it waits");
        assert_eq!((&chunk.bytes[..], chunk.messages), (&run.body.concat()[..], 2));
    }
    assert_eq!(egress.pop(3), None);
    assert_eq!(egress.port().queued(), 0);
}

#[test]
fn a_dropped_queue_gives_its_room_back() {
    let mut queue = egress(Framing::Grpc);
    let port = Arc::clone(queue.port());
    for len in [10, 5_000, 200_000] {
        admit_and_push(&mut queue, &grpc(&Bytes::from(vec![0; len])));
    }
    queue.pop(0);
    queue.pop(0);
    queue.pop(0);
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
        let mut egress = egress(Framing::Grpc);
        let (mut reader, mut got, mut written) = (MessageReader::new(1 << 20), Vec::new(), 0);
        let mut leave = |egress: &mut Egress| {
            let Some(chunk) = egress.pop(0) else { return false };
            assert!(chunk.bytes.len() <= CHUNK_BYTES);
            written += chunk.messages;
            reader.push(chunk.bytes);
            while let Some(message) = reader.next().expect("well framed") {
                got.push(message.len());
            }
            true
        };
        for (size, pops) in sizes.iter().zip(pops) {
            admit_and_push(&mut egress, &grpc(&Bytes::from(vec![1; *size])));
            for _ in 0..pops { leave(&mut egress); }
        }
        while leave(&mut egress) {}
        prop_assert_eq!(written, sizes.len() as u64);
        prop_assert_eq!(got, sizes);
        prop_assert_eq!(egress.port().queued(), 0);
        prop_assert_eq!(egress.messages(), 0);
    }
}
