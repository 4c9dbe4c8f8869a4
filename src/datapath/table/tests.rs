use std::collections::BTreeSet;

use proptest::prelude::*;
use slim_wire::{Class, Encoding, Flags, Kind};
use slotmap::{DefaultKey, KeyData, SlotMap};

use super::*;
use crate::datapath::port::{CoreId, Framing, Load, Marks, NodeLink};

const LINKS: usize = 5;

fn ports() -> Vec<Arc<Port>> {
    let mut slots = SlotMap::new();
    let key = |_| LinkId { core: CoreId(0), key: slots.insert(()) };
    (0..LINKS).map(key).map(|id| Arc::new(Port::new(id, Framing::Grpc, "test"))).collect()
}

fn name(prefix: u64, id: u8) -> Name {
    // Id 0 of the model is "any".
    let id = if id == 0 { Id::ANY } else { Id::new(id.into()) };
    Name { prefix: Prefix([1, 2, prefix]), id }
}

fn publish(destination: Name, fanout: u32) -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::D6,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout,
        lane: 0,
        source: name(99, 1),
        destination,
    }
}

fn targets(table: &mut Table, destination: Name, fanout: u32, from: &Port) -> Vec<LinkId> {
    let mut targets = Vec::new();
    let from = Origin::of(from);
    table.for_each_target(&publish(destination, fanout), from, |port| targets.push(port.id()));
    targets
}

#[test]
fn anycast_goes_to_owners_before_links_that_only_listen_on_the_name() {
    let (mut table, ports) = (Table::new(0), ports());
    let [owner, initiator_a, initiator_b, sender, ..] = &ports[..] else { unreachable!() };
    table.subscribe(Space::Native, name(7, 0), initiator_a);
    table.subscribe(Space::Native, name(7, 3), owner);
    table.subscribe(Space::Native, name(7, 0), initiator_b);
    for _ in 0..20 {
        assert_eq!(targets(&mut table, name(7, 0), 1, sender), [owner.id()]);
    }
    // The owner itself asks: only the others are left.
    assert_ne!(targets(&mut table, name(7, 0), 1, owner), [owner.id()]);
}

#[test]
fn anycast_takes_turns_among_idle_owners_and_avoids_loaded_ones() {
    let (mut table, ports) = (Table::new(0), ports());
    let [a, b, c, sender, ..] = &ports[..] else { unreachable!() };
    for (id, port) in [a, b, c].into_iter().enumerate() {
        table.subscribe(Space::Native, name(7, id as u8 + 1), port);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.extend(targets(&mut table, name(7, 0), 1, sender));
    }
    assert_eq!(seen, [a, b, c].map(|port| port.id()).into());
    let marks = Marks::new(10_000, 0);
    let load = Load { class: Class::Reliable, encoding: Encoding::D6, bytes: 100, messages: 1 };
    a.admit(load, &marks);
    c.admit(load, &marks);
    for _ in 0..3 {
        assert_eq!(targets(&mut table, name(7, 0), 1, sender), [b.id()]);
    }
}

#[test]
fn a_client_that_came_back_under_its_old_id_gets_what_its_dead_link_would_have_got() {
    let (mut table, ports) = (Table::new(0), ports());
    let [dead, new, sender, ..] = &ports[..] else { unreachable!() };
    table.subscribe(Space::Native, name(7, 3), dead);
    table.subscribe(Space::Native, name(7, 3), new);
    assert_eq!(targets(&mut table, name(7, 3), 1, sender), [new.id()]);
    table.unsubscribe(Space::Native, name(7, 3), dead.id());
    assert_eq!(targets(&mut table, name(7, 3), 1, sender), [new.id()]);
}

#[test]
fn spaces_do_not_see_each_other() {
    let (mut table, ports) = (Table::new(0), ports());
    table.subscribe(Space::D20, name(7, 3), &ports[0]);
    assert_eq!(targets(&mut table, name(7, 3), 1, &ports[1]), []);
    assert_eq!(targets(&mut table, name(7, 0), 2, &ports[1]), []);
}

/// The published rules word by word, on a plain list of subscriptions.
#[derive(Default)]
struct Model(Vec<(usize, Name)>);

impl Model {
    fn links(&self, wanted: impl Fn(&Name) -> bool) -> BTreeSet<usize> {
        self.0.iter().filter(|(_, name)| wanted(name)).map(|(link, _)| *link).collect()
    }

    /// The links of which an anycast may choose one, or of which a fan-out reaches all.
    fn candidates(&self, to: Name, fanout: u32, from: usize) -> BTreeSet<usize> {
        let under_prefix = self.links(|name| name.prefix == to.prefix);
        let exact = self.links(|name| *name == to);
        let without_sender = |mut links: BTreeSet<usize>| {
            links.remove(&from);
            links
        };
        match (to.id.is_any(), fanout) {
            (true, 1) => {
                let owners = self.links(|name| name.prefix == to.prefix && !name.id.is_any());
                let owners = without_sender(owners);
                if owners.is_empty() { without_sender(under_prefix) } else { owners }
            }
            (true, _) => without_sender(under_prefix),
            (false, 1) if exact.is_empty() && under_prefix.len() == 1 => {
                without_sender(under_prefix)
            }
            (false, _) => without_sender(exact),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, Name),
    Unsubscribe(usize, Name),
    Publish(usize, Name, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let names = || (0..3u64, 0..4u8).prop_map(|(prefix, id)| name(prefix, id));
    prop_oneof![
        3 => (0..LINKS, names()).prop_map(|(link, name)| Step::Subscribe(link, name)),
        2 => (0..LINKS, names()).prop_map(|(link, name)| Step::Unsubscribe(link, name)),
        3 => (0..LINKS, names(), 0..4u32).prop_map(|(link, to, fanout)| Step::Publish(link, to, fanout)),
    ]
}

proptest! {
    #[test]
    fn the_table_matches_as_the_published_rules_say(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut table, ports, mut model) = (Table::new(42), ports(), Model::default());
        for step in steps {
            match step {
                // A link's own core sees to it that the table hears of each change once.
                Step::Subscribe(link, name) if !model.0.contains(&(link, name)) => {
                    model.0.push((link, name));
                    table.subscribe(Space::Native, name, &ports[link]);
                }
                Step::Unsubscribe(link, name) if model.0.contains(&(link, name)) => {
                    model.0.retain(|known| *known != (link, name));
                    table.unsubscribe(Space::Native, name, ports[link].id());
                }
                Step::Publish(from, to, fanout) => {
                    let got = targets(&mut table, to, fanout, &ports[from]);
                    let expected: BTreeSet<_> =
                        model.candidates(to, fanout, from).into_iter().map(|at| ports[at].id()).collect();
                    if fanout == 1 {
                        prop_assert_eq!(got.len(), expected.len().min(1));
                        prop_assert!(got.iter().all(|link| expected.contains(link)));
                    } else {
                        prop_assert_eq!(got.len(), expected.len(), "each link once");
                        prop_assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), expected);
                    }
                }
                _ => {}
            }
        }
        for (link, name) in model.0 {
            table.unsubscribe(Space::Native, name, ports[link].id());
        }
        prop_assert!(table.prefixes.is_empty() && table.ids.is_empty(), "nothing is left behind");
    }
}

/// Links to other nodes, numbered from 100 on.
fn routes<const N: usize>(nodes: [u64; N]) -> [Arc<Port>; N] {
    let mut number = 100;
    nodes.map(|node| {
        number += 1;
        let key = DefaultKey::from(KeyData::from_ffi(number << 32 | number));
        Arc::new(Port::new(
            LinkId { core: CoreId(0), key },
            Framing::Node(node, NodeLink::Transit),
            "node",
        ))
    })
}

#[test]
fn an_id_that_is_not_known_here_goes_along_the_route_of_its_name() {
    let (mut table, ports, [route]) = (Table::new(0), ports(), routes([1]));
    let [initiator, sender, ..] = &ports[..] else { unreachable!() };
    table.subscribe(Space::Native, name(7, 0), initiator);
    table.subscribe(Space::Native, name(7, 0), &route);
    assert_eq!(targets(&mut table, name(7, 5), 1, sender), [route.id()]);
    assert_eq!(targets(&mut table, name(7, 0), 1, sender), [route.id()]);
    table.subscribe(Space::Native, name(7, 5), initiator);
    assert_eq!(targets(&mut table, name(7, 5), 1, sender), [initiator.id()]);
    assert_eq!(targets(&mut table, name(7, 0), 1, sender), [initiator.id()]);
}

#[test]
fn a_channel_reaches_members_here_and_every_node_but_the_one_it_comes_from() {
    let (mut table, ports, nodes) = (Table::new(0), ports(), routes([1, 2, 1]));
    let [member, ..] = &ports[..] else { unreachable!() };
    table.subscribe(Space::Native, name(7, 0), member);
    let [there, elsewhere, from_there] = &nodes;
    table.subscribe(Space::Native, name(7, 0), there);
    table.subscribe(Space::Native, name(7, 0), elsewhere);
    let reached = targets(&mut table, name(7, 0), 50, from_there);
    assert_eq!(reached, [member.id(), elsewhere.id()], "another link of the same node");
    table.unsubscribe(Space::Native, name(7, 0), elsewhere.id());
    assert_eq!(targets(&mut table, name(7, 0), 50, from_there), [member.id()]);
}

#[test]
fn a_node_with_several_links_gets_a_message_once() {
    let (mut table, ports, nodes) = (Table::new(0), ports(), routes([1, 1, 2]));
    nodes.iter().for_each(|node| table.subscribe(Space::Native, name(7, 0), node));
    for fanout in [1, 50] {
        let reached = targets(&mut table, name(7, 5), fanout, &ports[0]);
        assert_eq!(reached, [nodes[0].id(), nodes[2].id()], "an id that is not known here");
    }
    assert_eq!(targets(&mut table, name(7, 0), 50, &ports[0]).len(), 2);
}

/// A link to the node with this number.
fn link_to(node: u64, kind: NodeLink) -> Arc<Port> {
    link_of(Framing::Node(node, kind))
}

fn link_of(framing: Framing) -> Arc<Port> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let key = DefaultKey::from(KeyData::from_ffi(number << 32 | number));
    Arc::new(Port::new(LinkId { core: CoreId(0), key }, framing, "node"))
}

#[test]
fn a_node_that_is_linked_over_grpc_one_way_and_natively_the_other_gets_a_message_once() {
    let (mut table, ports) = (Table::new(0), ports());
    let native = link_to(1, NodeLink::Exchange);
    let grpc = link_of(Framing::PublishedNode { node: Some(1), ends_here: true });
    let third = link_to(2, NodeLink::Exchange);
    for link in [&grpc, &native, &third, &ports[0]] {
        table.subscribe(Space::Native, name(7, 0), link);
    }
    assert_eq!(targets(&mut table, name(7, 0), 50, &ports[1]).len(), 3, "two nodes and a client");
    for link in [&grpc, &native] {
        let reached = targets(&mut table, name(7, 0), 50, link);
        assert_eq!(reached, [ports[0].id()], "nothing goes back, or on to others");
    }
}

fn tell(table: &mut Table, name: Name, port: &Arc<Port>, recency: u32) {
    table.subscribe_told(Space::Native, name, port, recency);
}

#[test]
fn a_request_does_not_travel_to_another_node_when_it_need_not() {
    let (mut table, ports) = (Table::new(0), ports());
    let [owner, guest, sender, ..] = &ports[..] else { unreachable!() };
    let there = link_to(1, NodeLink::Exchange);
    tell(&mut table, name(7, 0), &there, 0);
    table.subscribe(Space::Native, name(7, 0), guest);
    let anycast = |table: &mut Table| {
        BTreeSet::from_iter((0..10).flat_map(|_| targets(table, name(7, 0), 1, sender)))
    };
    assert_eq!(anycast(&mut table), [guest.id()].into(), "there somebody only listens too");
    tell(&mut table, name(7, 1), &there, 1);
    assert_eq!(anycast(&mut table), [there.id()].into(), "there is an owner, here none");
    table.subscribe(Space::Native, name(7, 2), owner);
    let marks = Marks::new(10_000, 0);
    let load = Load { class: Class::Reliable, encoding: Encoding::D6, bytes: 100, messages: 1 };
    owner.admit(load, &marks);
    assert_eq!(anycast(&mut table), [owner.id()].into(), "however much waits for it");
    table.unsubscribe(Space::Native, name(7, 2), owner.id());
    table.unsubscribe(Space::Native, name(7, 1), there.id());
    table.unsubscribe(Space::Native, name(7, 0), guest.id());
    assert_eq!(anycast(&mut table), [there.id()].into());
}

#[test]
fn the_least_loaded_of_several_nodes_gets_a_request() {
    let (mut table, ports) = (Table::new(0), ports());
    let nodes = [1, 2, 3].map(|node| link_to(node, NodeLink::Exchange));
    for (id, node) in (1..).zip(&nodes) {
        tell(&mut table, name(7, id), node, 1);
    }
    let marks = Marks::new(10_000, 0);
    let load = Load { class: Class::Reliable, encoding: Encoding::D6, bytes: 100, messages: 1 };
    nodes[0].admit(load, &marks);
    nodes[2].admit(load, &marks);
    for _ in 0..5 {
        assert_eq!(targets(&mut table, name(7, 0), 1, &ports[0]), [nodes[1].id()]);
    }
}

#[test]
fn what_comes_over_an_exchanging_link_goes_to_clients_here_only() {
    for kind in [NodeLink::Exchange, NodeLink::LastHop] {
        let (mut table, ports) = (Table::new(0), ports());
        let (from, other) = (link_to(1, kind), link_to(2, NodeLink::Transit));
        table.subscribe(Space::Native, name(7, 0), &other);
        for (to, fanout) in [(name(7, 0), 1), (name(7, 0), 9), (name(7, 5), 1), (name(7, 5), 9)] {
            assert_eq!(targets(&mut table, to, fanout, &from), []);
        }
        table.subscribe(Space::Native, name(7, 0), &ports[0]);
        assert_eq!(targets(&mut table, name(7, 0), 9, &from), [ports[0].id()]);
        let transit = link_to(3, NodeLink::Transit);
        let reached = targets(&mut table, name(7, 0), 9, &transit);
        assert_eq!(reached, [ports[0].id(), other.id()]);
    }
}

#[test]
fn the_newest_subscription_to_an_id_wins_wherever_it_is_and_whenever_it_is_heard_of() {
    let (mut table, ports) = (Table::new(0), ports());
    let [before, after, sender, ..] = &ports[..] else { unreachable!() };
    let [old, new] = [1, 2].map(|node| link_to(node, NodeLink::Exchange));
    let id = name(7, 3);
    // It moves from one node to the next, which knew of it; the first takes it back late.
    tell(&mut table, id, &new, 2);
    tell(&mut table, id, &old, 1);
    assert_eq!(targets(&mut table, id, 1, sender), [new.id()], "told again after a lost link");
    table.unsubscribe(Space::Native, id, new.id());
    tell(&mut table, id, &new, 2);
    table.unsubscribe(Space::Native, id, old.id());
    assert_eq!(targets(&mut table, id, 1, sender), [new.id()]);
    // It moves here, and on again while its old link here lingers.
    table.subscribe(Space::Native, id, before);
    assert_eq!(table.recency(Space::Native, id), 3);
    assert_eq!(targets(&mut table, id, 1, sender), [before.id()]);
    tell(&mut table, id, &old, 4);
    assert_eq!(targets(&mut table, id, 1, sender), [old.id()]);
    table.subscribe(Space::Native, id, after);
    assert_eq!((table.recency(Space::Native, id)), 5);
    assert_eq!(targets(&mut table, id, 1, sender), [after.id()]);
    // What cannot be told apart stays here.
    tell(&mut table, id, &link_to(3, NodeLink::Exchange), 5);
    assert_eq!(targets(&mut table, id, 1, sender), [after.id()]);
}

#[test]
fn a_route_to_an_id_is_older_than_any_client() {
    let (mut table, ports) = (Table::new(0), ports());
    let route = link_to(1, NodeLink::Transit);
    table.subscribe(Space::Native, name(7, 3), &ports[0]);
    table.subscribe(Space::Native, name(7, 3), &route);
    assert_eq!(targets(&mut table, name(7, 3), 1, &ports[1]), [ports[0].id()]);
    assert_eq!(targets(&mut table, name(7, 3), 1, &ports[0]), [route.id()]);
}

#[test]
fn several_links_to_the_node_that_alone_knows_a_name_are_one_target() {
    let (mut table, ports) = (Table::new(0), ports());
    let links = [(); 2].map(|()| link_to(1, NodeLink::Exchange));
    links.iter().for_each(|link| tell(&mut table, name(7, 1), link, 1));
    assert_eq!(targets(&mut table, name(7, 5), 1, &ports[0]), [links[0].id()]);
    tell(&mut table, name(7, 2), &link_to(2, NodeLink::Exchange), 1);
    assert_eq!(targets(&mut table, name(7, 5), 1, &ports[0]), [], "any of two may be meant");
}

#[test]
fn of_two_links_to_a_node_a_message_takes_the_one_by_which_it_goes_no_further() {
    let (mut table, ports) = (Table::new(0), ports());
    let [route, exchange] = [NodeLink::Transit, NodeLink::Exchange].map(|kind| link_to(1, kind));
    for to in [name(7, 0), name(7, 3)] {
        table.subscribe(Space::Native, to, &route);
        tell(&mut table, to, &exchange, 1);
        assert_eq!(targets(&mut table, to, 9, &ports[0]), [exchange.id()]);
        assert_eq!(targets(&mut table, to, 1, &ports[0]).len(), 1);
    }
}
