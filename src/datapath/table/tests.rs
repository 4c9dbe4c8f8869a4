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
