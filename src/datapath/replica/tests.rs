//! The hand-off of changes, over any interleaving of submitting, ordering and applying.

use std::collections::VecDeque;

use proptest::prelude::*;
use slim_wire::{Id, Prefix};
use slotmap::SlotMap;

use super::*;
use crate::datapath::port::CoreId;

const CORES: usize = 3;

fn link(core: usize) -> LinkId {
    let core = CoreId(u16::try_from(core).expect("small"));
    LinkId { core, key: SlotMap::new().insert(()) }
}

fn submission(core: usize, number: u64) -> Submission {
    let name = Name { prefix: Prefix([0, 0, number % 4]), id: Id::ANY };
    let port = Arc::new(Port::new(link(core), crate::datapath::Framing::Grpc, "test"));
    let change = if number % 3 == 2 {
        Change::Unsubscribe(port.id(), Space::Native, name)
    } else {
        Change::Subscribe { port, space: Space::Native, name, text: None, recency: None }
    };
    Submission { link: link(core), changes: vec![change] }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit(usize),
    Order,
    Apply(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..CORES).prop_map(Step::Submit),
        Just(Step::Order),
        (0..CORES).prop_map(Step::Apply),
        (0..CORES).prop_map(Step::Apply),
    ]
}

struct Handoff {
    sequencer: Sequencer,
    submitted: VecDeque<Submission>,
    inboxes: [VecDeque<Arc<Ordered>>; CORES],
    replicas: [Replica; CORES],
    submissions: u64,
    done: u64,
}

impl Handoff {
    fn take(&mut self, step: Step) {
        match step {
            Step::Submit(core) => {
                self.submitted.push_back(submission(core, self.submissions));
                self.submissions += 1;
            }
            Step::Order => {
                if let Some(submission) = self.submitted.pop_front() {
                    let handles = self.sequencer.order(submission);
                    self.inboxes
                        .iter_mut()
                        .zip(handles)
                        .for_each(|(inbox, handle)| inbox.push_back(handle));
                }
            }
            Step::Apply(core) => {
                let Some(ordered) = self.inboxes[core].pop_front() else {
                    return;
                };
                let sequence = ordered.sequence;
                let origin = ordered.submission.link;
                if let Some(link) = self.replicas[core].apply(ordered) {
                    assert_eq!(link, origin, "the core it came from is told");
                    assert!(
                        self.replicas.iter().all(|replica| replica.next > sequence),
                        "done means: applied by every core"
                    );
                    self.done += 1;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_submission_is_applied_everywhere_before_it_is_done_and_done_once(
        steps in proptest::collection::vec(step(), 0..200)
    ) {
        let mut handoff = Handoff {
            sequencer: Sequencer::new(CORES),
            submitted: VecDeque::new(),
            inboxes: Default::default(),
            replicas: std::array::from_fn(|_| Replica::new(1)),
            submissions: 0,
            done: 0,
        };
        steps.into_iter().for_each(|step| handoff.take(step));
        while !handoff.submitted.is_empty() {
            handoff.take(Step::Order);
        }
        for core in 0..CORES {
            while !handoff.inboxes[core].is_empty() {
                handoff.take(Step::Apply(core));
            }
        }
        prop_assert_eq!(handoff.done, handoff.submissions);
        let [first, rest @ ..] = &mut handoff.replicas;
        for replica in rest {
            prop_assert_eq!(replica.next, first.next);
            prop_assert_eq!(format!("{:?}", replica.table), format!("{:?}", first.table));
        }
    }
}
