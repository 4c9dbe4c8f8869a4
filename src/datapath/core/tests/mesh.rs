//! Several nodes that exchange names over links which come and go, driven step by step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slim_compat_grpc::Subscription;
use slim_wire::{FrameKind, FrameReader, Frames, SessionIds};

use super::*;
use crate::datapath::{Announcement, DATAGRAMS, NodeLink};

const NODES: usize = 4;

/// What one node says to another on a control stream.
enum Saying {
    Told(Announcement),
    Answer(Announcement, bool),
}

/// One end of a link: a node, its link there, and what is on its way to it.
struct End {
    node: usize,
    link: LinkId,
    arriving: VecDeque<Saying>,
}

struct Client {
    node: usize,
    link: LinkId,
    names: BTreeSet<(u64, u8)>,
}

struct Mesh {
    nodes: Vec<Node>,
    /// Links between nodes; several between two are possible.
    links: Vec<[End; 2]>,
    clients: Vec<Client>,
    published: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Subscribe(usize, (u64, u8)),
    Unsubscribe(usize, (u64, u8)),
    Link(usize, usize),
    Cut(usize),
    /// One thing that is said on a link is heard.
    Hear(usize, usize),
    Publish(usize, (u64, u8), u32),
}

fn step() -> impl Strategy<Value = Step> {
    let any = || 0..100_usize;
    let names = || (0..3_u64, 0..4_u8);
    prop_oneof![
        2 => (0..NODES).prop_map(Step::Join),
        1 => any().prop_map(Step::Leave),
        6 => (any(), names()).prop_map(|(client, name)| Step::Subscribe(client, name)),
        3 => (any(), names()).prop_map(|(client, name)| Step::Unsubscribe(client, name)),
        2 => (0..NODES, 0..NODES).prop_map(|(one, two)| Step::Link(one, two)),
        1 => any().prop_map(Step::Cut),
        9 => (any(), 0..2_usize).prop_map(|(link, end)| Step::Hear(link, end)),
        3 => (any(), names(), 1..3_u32).prop_map(|(client, to, fanout)| Step::Publish(client, to, fanout)),
    ]
}

fn wire_name((prefix, id): (u64, u8)) -> Name {
    name(1 + prefix, id.into())
}

impl Mesh {
    fn new(cores: usize, subscriptions_per_node: usize) -> Self {
        let config = CoreConfig {
            subscriptions_per_link: 100,
            subscriptions_per_node,
            subscriptions: 10_000,
            ..Node::config(ROOMY)
        };
        let nodes = (0..NODES).map(|_| Node::of(cores, config)).collect();
        Self { nodes, links: Vec::new(), clients: Vec::new(), published: 0 }
    }

    fn open(&mut self, node: usize, number: usize, framing: Framing) -> LinkId {
        let cores = &mut self.nodes[node].cores;
        let core = number % cores.len();
        cores[core].open_link("mesh", framing, Principal::Nobody)
    }

    fn join(&mut self, node: usize) {
        let link = self.open(node, self.clients.len(), Framing::Native);
        self.clients.push(Client { node, link, names: BTreeSet::new() });
    }

    fn link(&mut self, one: usize, two: usize) {
        let number = self.links.len();
        let ends = [(one, two), (two, one)].map(|(node, other)| {
            let framing = Framing::Node(other as u64 + 1, NodeLink::Exchange);
            let link = self.open(node, number, framing);
            self.nodes[node].core(link).exchange(link);
            End { node, link, arriving: VecDeque::new() }
        });
        self.links.push(ends);
    }

    fn cut(&mut self, at: usize) {
        for end in self.links.swap_remove(at) {
            self.nodes[end.node].core(end.link).close_link(end.link);
            self.nodes[end.node].settle();
        }
    }

    fn change(&mut self, client: usize, subscribe: bool, name: (u64, u8)) {
        let Client { node, link, names } = &mut self.clients[client];
        let (node, link) = (&mut self.nodes[*node], *link);
        let core = node.core(link);
        if subscribe {
            names.insert(name);
            let name = wire_name(name);
            core.subscribe(link, Encoding::Native, name, None).expect("within the limit");
        } else {
            names.remove(&name);
            core.unsubscribe(link, Encoding::Native, wire_name(name));
        }
        core.submit(link);
        node.settle();
    }

    /// What a node has to tell goes on its way; at most a few things at a time.
    fn tell(&mut self, at: usize) {
        for [from, to] in [[0, 1], [1, 0]] {
            let End { node, link, .. } = self.links[at][from];
            while self.links[at][to].arriving.len() < 4
                && let Some(told) = self.nodes[node].core(link).next_announcement(link)
            {
                self.links[at][to].arriving.push_back(Saying::Told(told));
            }
        }
    }

    /// Returns whether there was anything to hear at this end of the link.
    fn hear(&mut self, at: usize, end: usize) -> bool {
        self.tell(at);
        let Some(saying) = self.links[at][end].arriving.pop_front() else {
            return false;
        };
        let End { node, link, .. } = self.links[at][end];
        let node = &mut self.nodes[node];
        let core = node.core(link);
        match saying {
            Saying::Answer(told, taken) => core.announcement_answered(link, &told, taken),
            Saying::Told(told) => {
                let Announcement { change, name, recency, .. } = told;
                let taken = match change {
                    Subscription::Made => {
                        core.subscribe_told(link, Encoding::Native, name, None, recency).is_ok()
                    }
                    Subscription::TakenBack => core.unsubscribe(link, Encoding::Native, name),
                };
                core.submit(link);
                node.settle();
                self.links[at][1 - end].arriving.push_back(Saying::Answer(told, taken));
            }
        }
        true
    }

    fn hear_all(&mut self) {
        let ends = || (0..self.links.len()).flat_map(|at| [(at, 0), (at, 1)]);
        let ends: Vec<_> = ends().collect();
        for round in 0.. {
            assert!(round < 100_000, "it never comes to rest");
            let heard = ends.iter().filter(|(at, end)| self.hear(*at, *end)).count();
            if heard == 0 {
                return;
            }
        }
    }

    /// Publishes, lets the message travel, and says how often each client got it.
    fn publish(&mut self, from: usize, to: (u64, u8), fanout: u32) -> BTreeMap<usize, usize> {
        self.published += 1;
        let source = Name { prefix: Prefix([9, 9, 9]), id: Id::new(1) };
        let header = Header { fanout, encoding: Encoding::Native, source, ..self.header(to) };
        let ids = SessionIds { session: 1, message: self.published };
        let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], b"payload");
        let Client { node, link, .. } = self.clients[from];
        let envelope = Envelope::single(header, frame.expect("it is short"));
        let now = self.nodes[node].now;
        self.nodes[node].core(link).forward(link, &envelope, now);
        let mut hops = 0;
        while self.carry() {
            hops += 1;
            assert!(hops < 3, "nothing that came from a node goes on to another");
        }
        let mut got = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            let frames = departures(&mut self.nodes[client.node], client.link);
            if !frames.is_empty() {
                got.insert(at, frames.len());
            }
        }
        self.nodes.iter().for_each(Node::assert_sums);
        got
    }

    fn header(&self, to: (u64, u8)) -> Header {
        self.nodes[0].header(Class::Reliable, wire_name(to), 1)
    }

    /// What waits for links between nodes arrives; returns whether there was any.
    fn carry(&mut self) -> bool {
        let mut carried = false;
        self.nodes.iter_mut().for_each(Node::settle);
        let mut arrivals = Vec::new();
        for ends in &self.links {
            for [from, to] in [[0, 1], [1, 0]] {
                for frame in departures(&mut self.nodes[ends[from].node], ends[from].link) {
                    arrivals.push((ends[to].node, ends[to].link, frame));
                }
            }
        }
        for (node, link, envelope) in arrivals {
            carried = true;
            let now = self.nodes[node].now;
            self.nodes[node].core(link).forward(link, &envelope, now);
        }
        self.nodes.iter_mut().for_each(Node::settle);
        carried
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let client = |at: usize| at % self.clients.len().max(1);
        let link = |at: usize| at % self.links.len().max(1);
        match step {
            Step::Join(node) => self.join(node),
            Step::Link(one, two) if one != two && self.links.len() < 10 => self.link(one, two),
            Step::Cut(at) if !self.links.is_empty() => self.cut(link(at)),
            Step::Hear(at, end) if !self.links.is_empty() => _ = self.hear(link(at), end),
            Step::Leave(at) if !self.clients.is_empty() => {
                let Client { node, link, .. } = self.clients.swap_remove(client(at));
                self.nodes[node].core(link).close_link(link);
                self.nodes[node].settle();
            }
            Step::Subscribe(at, name) if !self.clients.is_empty() => {
                self.change(client(at), true, name);
            }
            Step::Unsubscribe(at, name) if !self.clients.is_empty() => {
                self.change(client(at), false, name);
            }
            Step::Publish(at, to, fanout) if !self.clients.is_empty() => {
                let got = self.publish(client(at), to, fanout);
                prop_assert!(got.values().all(|times| *times == 1), "{got:?}");
                prop_assert!(fanout > 1 || got.len() <= 1, "{got:?}");
            }
            _ => {}
        }
        Ok(())
    }

    /// Clients but `from` that match, those with the id only unless it is 0.
    fn subscribed(&self, from: usize, (prefix, id): (u64, u8)) -> BTreeSet<usize> {
        let matches = |(of, have): &(u64, u8)| *of == prefix && (id == 0 || *have == id);
        let clients = self.clients.iter().enumerate();
        let wanted = clients.filter(|(at, c)| *at != from && c.names.iter().any(matches));
        wanted.map(|(at, _)| at).collect()
    }

    /// All know of each other: everybody is reached, once.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let names = || (0..3_u64).flat_map(|prefix| (0..4_u8).map(move |id| (prefix, id)));
        for (from, name) in (0..self.clients.len()).flat_map(|from| names().map(move |n| (from, n)))
        {
            let wanted = self.subscribed(from, name);
            let known = (0..self.clients.len())
                .any(|at| self.clients[at].names.contains(&name) || name.1 == 0);
            if known {
                let all = self.publish(from, name, 100);
                let expected = wanted.iter().map(|at| (*at, 1)).collect();
                prop_assert_eq!(all, expected, "from {} to {:?}", from, name);
                let one = self.publish(from, name, 1);
                prop_assert_eq!(one.values().sum::<usize>(), wanted.len().min(1), "{:?}", name);
                prop_assert!(one.keys().all(|at| wanted.contains(at)));
                if name.1 == 0 {
                    self.check_nearest(from, name, &one)?;
                }
            }
        }
        Ok(())
    }

    /// A request goes to an owner, and to one here if there is one.
    fn check_nearest(
        &self,
        from: usize,
        name: (u64, u8),
        got: &BTreeMap<usize, usize>,
    ) -> Result<(), TestCaseError> {
        let owns = |at: usize| self.clients[at].names.iter().any(|n| n.0 == name.0 && n.1 > 0);
        let here = |at: usize| self.clients[at].node == self.clients[from].node;
        let rank = |at: usize| (!owns(at), !here(at));
        let best = self.subscribed(from, name).into_iter().map(rank).min();
        prop_assert_eq!(got.keys().map(|at| rank(*at)).next(), best);
        Ok(())
    }
}

/// All that waits for a link, as what arrives at its other end.
fn departures(node: &mut Node, link: LinkId) -> Vec<Envelope> {
    let mut frames = Vec::new();
    for lane in 0..=DATAGRAMS {
        let mut reader = FrameReader::new(usize::MAX);
        while let Some(chunk) = node.core(link).pop(link, lane) {
            reader.push(chunk.bytes).expect("well framed");
        }
        while let Some(run) = reader.next_run().expect("well framed") {
            let header = run.header.header(lane).expect("well framed");
            frames.extend(
                Frames::of(&run.body)
                    .map(|(_, body)| Envelope::single(header, body.concat().into())),
            );
        }
    }
    node.core(link).note_written(link, true, false);
    frames
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_came_and_went_in_the_end_everybody_is_reached_once(
        cores in 1..3_usize,
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut mesh = Mesh::new(cores, 1000);
        for step in steps {
            mesh.take(step)?;
        }
        // Now the nodes stay linked, each to each.
        for one in 0..NODES {
            for two in one + 1..NODES {
                let linked = |ends: &[End; 2]| {
                    let nodes = [ends[0].node, ends[1].node];
                    nodes == [one, two] || nodes == [two, one]
                };
                if !mesh.links.iter().any(linked) {
                    mesh.link(one, two);
                }
            }
        }
        mesh.hear_all();
        mesh.check()?;
        // And without links nothing is left of what was told.
        while !mesh.links.is_empty() {
            mesh.cut(0);
        }
        for node in &mesh.nodes {
            let own = mesh.clients.iter().filter(|client| std::ptr::eq(&mesh.nodes[client.node], node));
            let own: usize = own.map(|client| client.names.len()).sum();
            prop_assert_eq!(node.sum(|c| c.subscriptions.value()), own as u64);
        }
    }
}

#[test]
fn a_client_that_moves_is_reached_where_it_is_now_though_its_old_node_has_not_noticed() {
    let mut mesh = Mesh::new(1, 1000);
    for node in [0, 1, 2] {
        mesh.join(node);
    }
    let [old, new, sender] = [0, 1, 2];
    for (one, two) in [(0, 1), (1, 2), (0, 2)] {
        mesh.link(one, two);
    }
    mesh.change(old, true, (0, 7));
    mesh.hear_all();
    mesh.change(new, true, (0, 7));
    mesh.hear_all();
    let got = |mesh: &mut Mesh, from| mesh.publish(from, (0, 7), 1).into_keys().collect::<Vec<_>>();
    mesh.join(0);
    let beside_old = 3;
    for from in [sender, beside_old] {
        assert_eq!(got(&mut mesh, from), [new]);
    }
    // The nodes lose each other, and tell each other of all they have, in whatever order.
    for _ in 0..6 {
        let [one, two] = [0, 1].map(|end| mesh.links[0][end].node);
        mesh.cut(0);
        mesh.link(two, one);
        mesh.hear_all();
        for from in [sender, beside_old] {
            assert_eq!(got(&mut mesh, from), [new]);
        }
    }
    // It moves back while both old links linger, and the node it was at first is told again.
    mesh.join(0);
    let back = 4;
    mesh.change(back, true, (0, 7));
    mesh.hear_all();
    mesh.join(1);
    let beside_new = 5;
    for from in [sender, beside_old, beside_new] {
        assert_eq!(got(&mut mesh, from), [back]);
    }
    mesh.change(old, false, (0, 7));
    mesh.change(new, false, (0, 7));
    mesh.hear_all();
    assert_eq!(got(&mut mesh, sender), [back]);
}

#[test]
fn what_is_sent_to_a_client_that_has_just_left_is_unmatched_at_its_node() {
    let mut mesh = Mesh::new(1, 1000);
    mesh.join(0);
    mesh.join(1);
    mesh.link(0, 1);
    mesh.change(1, true, (0, 7));
    mesh.hear_all();
    mesh.change(1, false, (0, 7));
    assert!(mesh.publish(0, (0, 7), 1).is_empty());
    assert_eq!(mesh.nodes[0].sum(|c| c.matched.value()), 1);
    assert_eq!(mesh.nodes[1].sum(|c| c.unmatched.value()), 1);
    mesh.hear_all();
    assert!(mesh.publish(0, (0, 7), 1).is_empty());
    assert_eq!(mesh.nodes[0].sum(|c| c.unmatched.value()), 1);
}

#[test]
fn names_beyond_the_limit_of_a_node_are_told_when_others_have_gone() {
    let mut mesh = Mesh::new(2, 3);
    mesh.join(0);
    mesh.join(1);
    mesh.link(0, 1);
    for id in 1..=5 {
        mesh.change(1, true, (0, id));
    }
    mesh.hear_all();
    let reached = |mesh: &mut Mesh| {
        (1..=5).filter(|id| mesh.publish(0, (0, *id), 2).len() == 1).collect::<Vec<_>>()
    };
    let first = reached(&mut mesh);
    assert_eq!(first.len(), 3);
    mesh.change(1, false, (0, first[0]));
    mesh.change(1, false, (0, first[1]));
    mesh.hear_all();
    let then = reached(&mut mesh);
    assert_eq!(then.len(), 3, "the one that stayed, and both that had no room");
    assert!(then.contains(&first[2]));
}
