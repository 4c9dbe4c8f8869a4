//! What waits for many links is stored once.

use super::*;

const TARGETS: usize = 1_000;
const PAYLOAD: usize = 64 * 1024;

/// What a link's queue may take for itself beside the bytes of its first messages: the list of
/// what waits, which grows in steps.
const BOOKKEEPING: usize = 1024;

fn channel() -> Name {
    name(1, 0)
}

fn node(framing: Framing, encoding: Encoding) -> (Node, LinkId) {
    let config = Node::config(Marks::new(16 << 20, 256 << 10));
    let mut node = Node::of(1, CoreConfig { subscriptions: TARGETS, ..config });
    let core = &mut node.cores[0];
    let source = core.open_link("test", framing, Principal::Nobody);
    for _ in 0..TARGETS {
        let target = core.open_link("test", framing, Principal::Nobody);
        core.subscribe(target, encoding, channel(), None).expect("within the limit");
        core.submit(target);
    }
    while node.postbox.step() {
        node.cores[0].turn(node.now);
    }
    (node, source)
}

/// Bytes allocated to forward a message to all, in pieces as packets bring them.
fn allocated(node: &mut Node, source: LinkId, encoding: Encoding) -> usize {
    const PACKET: usize = 1_400;
    let header = Header { encoding, ..node.header(Class::Reliable, channel(), u32::MAX) };
    let pieces = vec![0_u8; PAYLOAD];
    let body = pieces.chunks(PACKET).map(Bytes::copy_from_slice).collect();
    let envelope = Envelope { header, messages: 1, body };
    let now = node.now;
    let forward = || _ = node.cores[0].forward(source, &envelope, now);
    allocation_counter::measure(forward).bytes_total as usize
}

#[test]
fn a_large_message_is_copied_once_at_most_however_many_links_it_goes_to() {
    for (framing, encoding) in [(Framing::Grpc, Encoding::D6), (Framing::Native, Encoding::Native)]
    {
        let (mut node, source) = node(framing, encoding);
        for message in 1..=8 {
            let bytes = allocated(&mut node, source, encoding);
            assert_eq!(node.cores[0].counters().queued.value(), message * TARGETS as u64);
            let most = 2 * PAYLOAD + TARGETS * BOOKKEEPING;
            assert!(bytes <= most, "{framing:?}: expected at most {most} bytes, got {bytes}");
        }
    }
}
