//! Several cores in one thread, driven step by step.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use slim_compat_grpc::Subscription;
use slim_wire::{Class, Envelope, Flags, Header, Id, Kind, Prefix, TextName};

use super::*;
use crate::datapath::{Forwarded, NodeLink, Postbox, Wake};

mod fan_out;
mod mesh;
mod signing;

#[derive(Default)]
struct CountedWake(AtomicUsize);

impl Wake for CountedWake {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Node {
    cores: Vec<Core>,
    postbox: Postbox,
    slow_log: Arc<SlowLog>,
    now: Instant,
}

const SLOW_CONSUMER: Duration = Duration::from_millis(1_000);
const STALLED: Duration = Duration::from_millis(30_000);

impl Node {
    fn new(cores: usize, marks: Marks) -> Self {
        Self::of(cores, Self::config(marks))
    }

    fn config(marks: Marks) -> CoreConfig {
        CoreConfig {
            marks,
            slow_consumer: SLOW_CONSUMER,
            stalled: STALLED,
            message_bytes: 4 << 20,
            subscriptions_per_link: 4,
            subscriptions_per_node: 4,
            subscriptions: 100,
            seed: 7,
        }
    }

    fn of(cores: usize, config: CoreConfig) -> Self {
        let wakes: Vec<Arc<dyn Wake>> =
            (0..cores).map(|_| Arc::new(CountedWake::default()) as Arc<dyn Wake>).collect();
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        let slow_log = Arc::new(SlowLog::default());
        let core = |mail| Core::new(config, mail, Arc::default(), Arc::clone(&slow_log));
        let cores = mailboxes.into_iter().map(core).collect();
        Self { cores, postbox, slow_log, now: Instant::now() }
    }

    fn core(&mut self, link: LinkId) -> &mut Core {
        &mut self.cores[usize::from(link.core.0)]
    }

    fn open(&mut self, core: usize) -> LinkId {
        self.cores[core].open_link("test", Framing::Grpc, Principal::Nobody)
    }

    fn subscribe(&mut self, link: LinkId, name: Name) {
        self.core(link).subscribe(link, Encoding::D6, name, None).expect("within the limit");
        self.core(link).submit(link);
        self.settle();
    }

    fn header(&self, class: Class, to: Name, fanout: u32) -> Header {
        Header {
            kind: Kind::Publish,
            class,
            encoding: Encoding::D6,
            flags: Flags::empty(),
            ttl: Header::DEFAULT_TTL,
            fanout,
            lane: 0,
            source: name(0, 0),
            destination: to,
        }
    }

    fn publish(
        &mut self,
        from: LinkId,
        class: Class,
        to: Name,
        fanout: u32,
        len: usize,
    ) -> Forwarded {
        let header = self.header(class, to, fanout);
        let now = self.now;
        self.core(from).forward(from, &Envelope::single(header, Bytes::from(vec![0; len])), now)
    }

    /// Lets all mail arrive.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.cores.iter_mut().for_each(Core::flush);
            while self.postbox.step() {}
            let now = self.now;
            self.cores.iter_mut().for_each(|core| core.turn(now));
        }
    }

    fn depart(&mut self, link: LinkId) -> Option<Departure> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.core(link).poll_departure(link, &mut cx) {
            Poll::Ready(departure) => Some(departure),
            Poll::Pending => None,
        }
    }

    fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().map(|core| counter(core.counters())).sum()
    }

    fn assert_sums(&self) {
        let refused = self.sum(|c| c.refused.iter().map(|r| r.value()).sum());
        let dropped = self.sum(|c| c.dropped.iter().map(|d| d.value()).sum());
        let in_flight =
            self.sum(|c| c.sent_to_cores.value()) - self.sum(|c| c.received_from_cores.value());
        let received = self.sum(|c| c.received.value());
        let routed = self.sum(|c| c.matched.value() + c.unmatched.value());
        assert_eq!(received, routed + refused);
        let accounted = self.sum(|c| c.written.value() + c.queued.value()) + dropped + in_flight;
        assert_eq!(self.sum(|c| c.deliveries.value()), accounted);
    }
}

fn name(prefix: u64, id: u128) -> Name {
    let id = if id == 0 { Id::ANY } else { Id::new(id) };
    Name { prefix: Prefix([0, 0, prefix]), id }
}

const ROOMY: Marks = Marks::new(1 << 20, 1 << 16);

#[test]
fn a_message_reaches_links_on_every_core_and_not_its_sender() {
    let mut node = Node::new(3, ROOMY);
    let links: Vec<LinkId> = (0..6).map(|index| node.open(index % 3)).collect();
    for link in &links {
        node.subscribe(*link, name(1, 0));
    }
    node.publish(links[0], Class::Reliable, name(1, 0), 50, 100);
    node.settle();
    assert_eq!(node.depart(links[0]), None);
    for link in &links[1..] {
        assert!(matches!(node.depart(*link), Some(Departure::Chunk(chunk)) if chunk.messages == 1));
    }
    node.assert_sums();
}

#[test]
fn a_subscription_counts_as_made_only_when_every_core_has_it() {
    let mut node = Node::new(2, ROOMY);
    let link = node.open(0);
    node.core(link).subscribe(link, Encoding::D6, name(1, 5), None).expect("within the limit");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(node.core(link).poll_submitted(link, &mut cx).is_pending());
    node.cores[0].flush();
    while node.postbox.step() {}
    let now = node.now;
    node.cores[0].turn(now);
    assert!(
        node.core(link).poll_submitted(link, &mut cx).is_pending(),
        "core 1 has not applied it"
    );
    node.settle();
    assert!(node.core(link).poll_submitted(link, &mut cx).is_ready());
}

#[test]
fn a_link_may_have_so_many_subscriptions_and_repeats_do_not_count() {
    let mut node = Node::new(1, ROOMY);
    let link = node.open(0);
    for _ in 0..3 {
        (1..=4).for_each(|prefix| node.subscribe(link, name(prefix, 0)));
    }
    let error = node.cores[0].subscribe(link, Encoding::D6, name(5, 0), None).expect_err("limit");
    assert_eq!(error, SubscribeError::Limit { limit: 4 });
    assert!(node.cores[0].unsubscribe(link, Encoding::D6, name(1, 0)));
    node.subscribe(link, name(5, 0));
}

#[test]
fn texts_that_are_not_those_of_a_name_are_not_told_to_other_nodes() {
    let mut node = Node::new(1, ROOMY);
    let (uplink, liar, honest) = (node.open(0), node.open(0), node.open(0));
    node.core(uplink).announce(uplink, Encoding::D20);
    let mut announced = |texts: [&str; 3], link| {
        let named = TextName::new(["org", "ns", "own"], Id::new(1)).expect("a name").to_name();
        node.core(link).subscribe(link, Encoding::D20, named, Some(texts)).expect("within limits");
        node.core(link).submit(link);
        node.settle();
        let mut cx = Context::from_waker(Waker::noop());
        match node.core(uplink).poll_announcement(uplink, &mut cx) {
            Poll::Ready(told) => told.text.map(|text| text.components()[2].to_owned()),
            Poll::Pending => None,
        }
    };
    assert_eq!(announced(["org", "ns", "another"], liar), None);
    assert_eq!(announced(["org", "ns", "own"], honest).as_deref(), Some("own"));
}

#[test]
fn a_receiver_that_stays_behind_for_too_long_is_cut_off_by_name_and_others_lose_nothing() {
    let mut node = Node::new(2, Marks::new(10_000, 1_000));
    let (sender, stuck, healthy) = (node.open(0), node.open(1), node.open(1));
    let texts = ["agntcy", "ns", "stuck"];
    let named = TextName::new(texts, Id::new(1)).expect("a name").to_name();
    node.core(stuck).subscribe(stuck, Encoding::D6, named, Some(texts)).expect("limit");
    node.subscribe(stuck, name(1, 0));
    node.subscribe(healthy, name(1, 0));
    let mut received = 0;
    for _ in 0..6 {
        node.publish(sender, Class::Reliable, name(1, 0), 2, 1_000);
        node.settle();
        while let Some(Departure::Chunk(chunk)) = node.depart(healthy) {
            received += chunk.messages;
        }
    }
    assert_eq!(received, 6);
    let deadline = node.cores[1].deadline().expect("the stuck link's clock runs");
    assert_eq!(deadline, node.now + SLOW_CONSUMER / 4);
    node.now = deadline;
    node.settle();
    assert_eq!(node.slow_log.entries()[0].state, SlowState::Behind);
    node.now += SLOW_CONSUMER / 2;
    node.settle();
    assert_ne!(node.depart(stuck), Some(Departure::Evicted));
    // One chunk left, and the queue is below the soft mark again.
    assert_eq!(node.slow_log.entries()[0].state, SlowState::Recovered);
    for _ in 0..9 {
        node.publish(sender, Class::Reliable, name(1, 0), 2, 1_000);
        node.settle();
        while node.depart(healthy).is_some() {}
    }
    node.now += SLOW_CONSUMER;
    node.settle();
    assert_eq!(node.depart(stuck), Some(Departure::Evicted));
    let entry = &node.slow_log.entries()[0];
    assert_eq!((entry.link, entry.state), (stuck, SlowState::Evicted));
    assert!(entry.name.contains("(agntcy/ns/stuck/1)"), "{}", entry.name);
    node.core(stuck).close_link(stuck);
    node.assert_sums();
    assert_eq!(node.sum(|c| c.evicted.value()), 1);
}

#[test]
fn a_receiver_that_crosses_the_soft_mark_and_keeps_up_is_not_worth_a_line() {
    let mut node = Node::new(1, Marks::new(10_000, 1_000));
    let (sender, receiver) = (node.open(0), node.open(0));
    node.subscribe(receiver, name(1, 1));
    for _ in 0..100 {
        (0..6).for_each(|_| _ = node.publish(sender, Class::Reliable, name(1, 1), 1, 1_000));
        node.now += SLOW_CONSUMER / 8;
        node.settle();
        while let Some(Departure::Chunk(_)) = node.depart(receiver) {}
    }
    assert_eq!(node.slow_log.entries(), []);
    assert_eq!(node.sum(|c| c.written.value()), 600);
}

#[test]
fn overrunning_the_hard_mark_cuts_the_receiver_off_at_once_even_on_another_core() {
    let mut node = Node::new(2, Marks::new(10_000, 1_000));
    let (sender, stuck) = (node.open(0), node.open(1));
    node.subscribe(stuck, name(1, 1));
    for _ in 0..12 {
        node.publish(sender, Class::Reliable, name(1, 1), 1, 1_000);
    }
    node.settle();
    assert_eq!(node.depart(stuck), Some(Departure::Evicted));
    node.assert_sums();
}

#[test]
fn a_message_for_a_link_that_has_just_gone_is_counted_and_never_reaches_its_successor() {
    let mut node = Node::new(2, ROOMY);
    let (sender, gone) = (node.open(0), node.open(1));
    node.subscribe(gone, name(1, 1));
    node.publish(sender, Class::Reliable, name(1, 1), 1, 10);
    node.core(gone).close_link(gone);
    let successor = node.open(1);
    node.settle();
    assert_eq!(node.depart(successor), None);
    assert_eq!(node.sum(|c| c.dropped[DropReason::LinkClosed as usize].value()), 1);
    assert!(matches!(
        node.publish(sender, Class::Reliable, name(1, 1), 1, 10),
        Forwarded::Nowhere { .. }
    ));
    node.assert_sums();
}

/// A policy that lets everybody subscribe to these names.
fn policy(names: &[&str]) -> Policy {
    let rules = match names {
        [] => String::new(),
        names => format!("rules: [{{ principal: anyone, subscribe: {names:?} }}]"),
    };
    let file = format!(
        "policy: {{ mode: enforce, {rules} }}\nservices:\n  slim/0: {{ dataplane: {{ servers: \
         [{{ endpoint: \"127.0.0.1:1\", tls: {{ insecure: true }} }}] }} }}\n"
    );
    let loaded = slim_config::parse("c.yaml", &file, &slim_config::System);
    Policy::new(&loaded.unwrap_or_else(|found| panic!("{file}\n{found}")).config.policy)
}

#[test]
fn a_neighbour_is_told_what_a_new_policy_lets_it_know_and_that_the_rest_is_gone() {
    let names: [TextName; 2] = ["org/ns/one/1", "org/ns/two/2"].map(|n| n.parse().expect("a name"));
    let mut node = Node::new(1, ROOMY);
    let framing = Framing::Node(9, NodeLink::Exchange);
    let neighbour = node.cores[0].open_link("neighbour", framing, Principal::Nobody);
    node.cores[0].exchange(neighbour);
    // It may do everything, so that only what the neighbour is told depends on the policy.
    let client = node.cores[0].open_link("test", Framing::Native, Principal::Configured);
    for name in &names {
        let (core, name) = (&mut node.cores[0], name.to_name());
        core.subscribe(client, Encoding::Native, name, None).expect("within the limit");
        core.submit(client);
        node.settle();
    }
    let mut ready = Vec::new();
    let mut heard = |node: &mut Node, policy: Policy| {
        let core = &mut node.cores[0];
        core.take_ready(&mut ready);
        ready.clear();
        assert_eq!(core.set_policy(policy), 0, "no subscription ends");
        core.take_ready(&mut ready);
        assert!(ready.contains(&neighbour), "it is told at once");
        let told = std::iter::from_fn(|| core.next_announcement(neighbour));
        let mut told: Vec<_> = told.map(|told| (told.name.id, told.change)).collect();
        told.sort_by_key(|(id, _)| *id);
        told
    };
    let (made, gone) = (Subscription::Made, Subscription::TakenBack);
    let [one, two] = names.each_ref().map(TextName::id);
    assert_eq!(heard(&mut node, policy(&["org/ns/one"])), [(one, made)]);
    assert_eq!(heard(&mut node, policy(&["org/ns/two"])), [(one, gone), (two, made)]);
    assert_eq!(heard(&mut node, Policy::default()), [(one, made)]);
    assert_eq!(heard(&mut node, policy(&[])), [(one, gone), (two, gone)]);
}

#[test]
fn a_new_limit_of_names_of_other_nodes_holds_for_links_that_are_open() {
    let mut node = Node::new(1, ROOMY);
    let framing = Framing::Node(9, NodeLink::Exchange);
    let neighbour = node.cores[0].open_link("neighbour", framing, Principal::Configured);
    let mut told = |limit, id| {
        let core = &mut node.cores[0];
        core.set_limits(&CoreConfig { subscriptions_per_node: limit, ..Node::config(ROOMY) });
        core.subscribe_told(neighbour, Encoding::Native, name(1, id), None, 1)
    };
    assert_eq!(told(1, 1), Ok(()));
    assert_eq!(told(1, 2), Err(SubscribeError::Limit { limit: 1 }));
    assert_eq!(told(2, 2), Ok(()));
}

#[test]
fn a_finished_link_ends_after_its_last_message() {
    let mut node = Node::new(1, ROOMY);
    let (sender, receiver) = (node.open(0), node.open(0));
    node.subscribe(receiver, name(1, 1));
    node.publish(sender, Class::Reliable, name(1, 1), 1, 10);
    node.cores[0].finish_links();
    assert!(matches!(node.depart(receiver), Some(Departure::Chunk(_))));
    assert_eq!(node.depart(receiver), Some(Departure::Finished));
}

#[test]
fn a_link_opened_while_the_node_stops_ends_too() {
    let mut node = Node::new(1, ROOMY);
    node.cores[0].finish_links();
    let late = node.open(0);
    assert_eq!(node.depart(late), Some(Departure::Finished));
}

#[test]
fn a_link_that_takes_nothing_is_stalled_and_one_that_takes_little_is_not() {
    let mut node = Node::new(1, ROOMY);
    let (sender, stuck, idle, slow) = (node.open(0), node.open(0), node.open(0), node.open(0));
    for (id, link) in [(1, stuck), (2, idle), (3, slow)] {
        node.subscribe(link, name(1, id));
    }
    node.publish(sender, Class::Reliable, name(1, 1), 1, 10);
    // What the transport has taken and not written counts as waiting.
    assert!(matches!(node.depart(stuck), Some(Departure::Chunk(_))));
    for _ in 0..2 * SWEEPS {
        node.publish(sender, Class::Reliable, name(1, 3), 1, 10);
        assert!(matches!(node.depart(slow), Some(Departure::Chunk(_))));
        node.now += STALLED / SWEEPS;
        node.settle();
    }
    assert_eq!(node.depart(stuck), Some(Departure::Evicted));
    assert_eq!((node.depart(idle), node.depart(slow)), (None, None));
    assert_eq!(node.sum(|c| c.evicted.value()), 1);
}

#[test]
fn a_link_with_very_many_subscriptions_leaves_nothing_behind() {
    let mut node = Node::new(2, ROOMY);
    node.cores[0].config.subscriptions_per_link = usize::MAX;
    node.cores[0].config.subscriptions = 10_000;
    let (link, sender) = (node.open(0), node.open(1));
    for prefix in 0..10_000 {
        node.core(link).subscribe(link, Encoding::D6, name(prefix, 1), None).expect("limit");
    }
    let error = node.core(link).subscribe(link, Encoding::D6, name(10_000, 1), None);
    assert_eq!(error, Err(SubscribeError::CoreLimit { limit: 10_000 }));
    node.core(link).submit(link);
    node.settle();
    node.core(link).close_link(link);
    // A turn applies a bounded number of changes.
    (0..4).for_each(|_| node.settle());
    for prefix in 0..10_000 {
        let forwarded = node.publish(sender, Class::Reliable, name(prefix, 1), 1, 1);
        assert!(matches!(forwarded, Forwarded::Nowhere { .. }));
    }
    node.assert_sums();
}

#[test]
fn a_source_that_can_wait_learns_that_its_only_target_is_full_before_that_is_evicted() {
    let mut node = Node::new(1, Marks::new(10_000, 1_000));
    let (sender, receiver) = (node.open(0), node.open(0));
    node.subscribe(receiver, name(1, 1));
    (0..9).for_each(|_| _ = node.publish(sender, Class::Reliable, name(1, 1), 1, 1_000));
    let header = node.header(Class::Reliable, name(1, 1), 1);
    let envelope = Envelope::single(header, Bytes::from(vec![0; 1_000]));
    let full = node.cores[0].full_target(sender, &envelope).expect("no room");
    assert_eq!(full.id(), receiver);
    while let Some(Departure::Chunk(_)) = node.depart(receiver) {}
    assert!(node.cores[0].full_target(sender, &envelope).is_none());
    node.core(receiver).close_link(receiver);
    assert!(full.is_closed(), "nobody waits for a link that has gone");
}

#[derive(Clone, Debug)]
enum Step {
    Open(usize),
    Close(usize),
    Subscribe(usize, Name),
    Unsubscribe(usize, Name),
    Publish(usize, Class, Name, u32, usize),
    Depart(usize),
    Turn(usize),
    Order,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let names = || (0..3u64, 0..3u128).prop_map(|(prefix, id)| name(prefix, id));
    let class = prop_oneof![Just(Class::Control), Just(Class::Reliable), Just(Class::BestEffort)];
    prop_oneof![
        2 => (0..3usize).prop_map(Step::Open),
        1 => (0..8usize).prop_map(Step::Close),
        3 => (0..8usize, names()).prop_map(|(link, name)| Step::Subscribe(link, name)),
        1 => (0..8usize, names()).prop_map(|(link, name)| Step::Unsubscribe(link, name)),
        8 => (0..8usize, class, names(), 0..3u32, 0..3_000usize)
            .prop_map(|(link, class, to, fanout, len)| Step::Publish(link, class, to, fanout, len)),
        4 => (0..8usize).prop_map(Step::Depart),
        4 => (0..3usize).prop_map(Step::Turn),
        3 => Just(Step::Order),
        1 => (0..1_500u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_message_is_accounted_for_whatever_happens(steps in proptest::collection::vec(step(), 0..300)) {
        let mut node = Node::new(3, Marks::new(8_000, 1_000));
        let mut links: Vec<LinkId> = (0..3).map(|core| node.open(core)).collect();
        for step in steps {
            match step {
                Step::Open(core) => links.push(node.open(core)),
                Step::Close(at) => { let link = links[at % links.len()]; node.core(link).close_link(link); }
                Step::Subscribe(at, name) => {
                    let link = links[at % links.len()];
                    let _ = node.core(link).subscribe(link, Encoding::D6, name, None);
                    node.core(link).submit(link);
                }
                Step::Unsubscribe(at, name) => {
                    let link = links[at % links.len()];
                    node.core(link).unsubscribe(link, Encoding::D6, name);
                    node.core(link).submit(link);
                }
                Step::Publish(at, class, to, fanout, len) => {
                    let link = links[at % links.len()];
                    node.publish(link, class, to, fanout, len);
                }
                Step::Depart(at) => { let link = links[at % links.len()]; node.depart(link); }
                Step::Turn(core) => { let now = node.now; node.cores[core].turn(now); }
                Step::Order => _ = node.postbox.step(),
                Step::Wait(ms) => node.now += Duration::from_millis(ms),
            }
            node.assert_sums();
        }
        for link in links {
            while let Some(Departure::Chunk(_)) = node.depart(link) {}
            node.core(link).close_link(link);
        }
        node.settle();
        node.assert_sums();
        prop_assert_eq!(node.sum(|c| c.queued.value() + c.links.value() + c.subscriptions.value()), 0);
    }
}
