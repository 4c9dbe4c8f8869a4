//! Messages that leave with an authentication code for each link (D20).

use slim_compat_grpc::MessageReader;

use super::*;
use crate::datapath::signed;

/// A node with links on both of its cores, each with a key of its own, subscribed to one name.
fn room(links: usize) -> (Node, LinkId, Vec<(LinkId, String)>) {
    let mut node = Node::new(2, Marks::new(1 << 20, 1 << 16));
    let sender = node.open(0);
    let mut member = |index| {
        let link = node.open(index % 2);
        let link_id = format!("link-{index}");
        node.core(link).authenticate(link, Arc::new(signed::key(&link_id)));
        let name = Name { id: Id::ANY, ..name(1, 0) };
        node.core(link).subscribe(link, Encoding::D20, name, None).expect("within the limit");
        node.core(link).submit(link);
        (link, link_id)
    };
    let members = (0..links).map(&mut member).collect();
    node.settle();
    (node, sender, members)
}

/// All messages that wait for the link.
fn departed(node: &mut Node, link: LinkId) -> Vec<Bytes> {
    let (mut reader, mut messages) = (MessageReader::new(4 << 20), Vec::new());
    while let Some(Departure::Chunk(chunk)) = node.depart(link) {
        reader.push(chunk.bytes);
        while let Some(message) = reader.next().expect("well framed") {
            messages.push(message);
        }
    }
    messages
}

#[test]
fn each_link_of_a_fan_out_gets_its_own_code_whatever_the_length() {
    for links in [1, 2, 5] {
        let (mut node, sender, members) = room(links);
        let to = Name { id: Id::ANY, ..name(1, 0) };
        // Below and above what is copied into a packed buffer, also for the header.
        let lengths = [(200, 10), (200, 3_000), (3_000, 10), (20_000, 100_000), (60_000, 3_000)];
        let envelopes =
            lengths.map(|(identity, payload)| signed::publish(to, 50, identity, payload));
        for envelope in &envelopes {
            let now = node.now;
            node.core(sender).forward(sender, envelope, now);
        }
        node.settle();
        for (link, link_id) in &members {
            let sent = departed(&mut node, *link);
            assert_eq!(sent.len(), envelopes.len());
            for (sent, envelope) in sent.iter().zip(&envelopes) {
                signed::assert_signed(sent, envelope, &signed::key(link_id));
            }
            assert_eq!(node.core(*link).port(*link).expect("open").queued(), 0);
        }
        assert_eq!(node.sum(|counters| counters.written.value()), (links * lengths.len()) as u64);
    }
}

#[test]
fn a_message_is_signed_the_same_when_its_target_is_behind() {
    let (mut node, sender, members) = room(1);
    let (link, link_id) = &members[0];
    let to = Name { id: Id::ANY, ..name(1, 0) };
    // Messages that wait for long have memory of their own, in which their parts stay apart.
    let envelope = signed::publish(to, 1, 200, 30_000);
    for _ in 0..20 {
        let now = node.now;
        node.core(sender).forward(sender, &envelope, now);
        node.settle();
    }
    let sent = departed(&mut node, *link);
    assert_eq!(sent.len(), 20);
    for sent in &sent {
        signed::assert_signed(sent, &envelope, &signed::key(link_id));
    }
}
