use std::sync::Arc;

use crate::datapath::{Forwarded, LinkId, Port};

/// Whether a source may be paused for its target: only while all it sends goes to that one, so
/// that no other target waits for it.
#[derive(Debug, Default)]
pub(super) struct Flow {
    target: Option<LinkId>,
    /// Messages in a row to that target and no other, and their bytes.
    run: u32,
    bytes: usize,
    /// The target was behind when it was sent to last.
    behind: bool,
    /// The target did not catch up in time: it is not waited for again until it has.
    given_up: bool,
}

/// So many messages or bytes in a row show that a source sends to one target.
const RUN: u32 = 16;
const RUN_BYTES: usize = 64 * 1024;

impl Flow {
    /// The port to wait for before the source is read on, if any.
    pub(super) fn wait_for(&mut self, forwarded: Forwarded, len: usize) -> Option<Arc<Port>> {
        let (target, behind) = match forwarded {
            Forwarded::Nowhere { .. } => return None,
            Forwarded::Many => {
                *self = Self::default();
                return None;
            }
            Forwarded::One { target, behind } => (target, behind),
        };
        if self.target == Some(target) {
            self.run = self.run.saturating_add(1);
            self.bytes = self.bytes.saturating_add(len);
        } else {
            *self = Self { target: Some(target), run: 1, bytes: len, ..Self::default() };
        }
        self.behind = behind.is_some();
        self.given_up &= self.behind;
        behind.filter(|_| self.sends_to_one() && !self.given_up)
    }

    /// Whether it is worth asking, before a message of `len` bytes is forwarded, if its only
    /// target has room for it: if the last one did not, or this one takes much.
    pub(super) fn may_wait(&self, len: usize) -> bool {
        !self.given_up && ((self.behind && self.sends_to_one()) || len >= RUN_BYTES)
    }

    fn sends_to_one(&self) -> bool {
        self.run >= RUN || self.bytes >= RUN_BYTES
    }

    /// The port that was waited for did not catch up in time.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::testing::port;

    fn to(port: &Arc<Port>) -> Forwarded {
        Forwarded::One { target: port.id(), behind: Some(Arc::clone(port)) }
    }

    #[test]
    fn only_a_source_that_sends_to_one_target_waits_for_it() {
        let (mut flow, [slow, other]) = (Flow::default(), [port(1), port(2)]);
        for _ in 0..RUN - 1 {
            assert!(flow.wait_for(to(&slow), 1).is_none());
        }
        assert_eq!(flow.wait_for(to(&slow), 1).map(|port| port.id()), Some(slow.id()));
        assert!(flow.wait_for(to(&other), 1).is_none());
        assert!(flow.wait_for(to(&slow), 1).is_none(), "it sent to another in between");
        (0..RUN).for_each(|_| _ = flow.wait_for(to(&slow), 1));
        assert!(flow.wait_for(Forwarded::Many, 1).is_none());
        assert!(flow.wait_for(to(&slow), 1).is_none(), "it sent to several in between");
    }

    #[test]
    fn a_few_large_messages_show_as_much_as_many_small_ones() {
        let (mut flow, slow) = (Flow::default(), port(1));
        assert!(flow.wait_for(to(&slow), RUN_BYTES).is_some());
        assert!(flow.may_wait(1));
        assert!(flow.wait_for(Forwarded::Many, RUN_BYTES).is_none());
        assert!(!flow.may_wait(1) && flow.may_wait(RUN_BYTES));
    }

    #[test]
    fn a_target_that_did_not_catch_up_is_not_waited_for_until_it_has() {
        let (mut flow, slow) = (Flow::default(), port(1));
        (0..RUN).for_each(|_| _ = flow.wait_for(to(&slow), 1));
        assert!(flow.wait_for(to(&slow), 1).is_some());
        flow.give_up();
        assert!(flow.wait_for(to(&slow), 1).is_none());
        assert!(flow.wait_for(Forwarded::One { target: slow.id(), behind: None }, 1).is_none());
        assert!(flow.wait_for(to(&slow), 1).is_some());
    }
}
