//! Whatever members do, in whatever order messages arrive: they agree.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["moderator", "alice", "bob", "carol", "dora"];

/// Past epochs whose data is read.
const PAST: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Invite(usize),
    Remove(usize),
    Renew,
    Propose(usize),
    Send(usize),
    /// The next handshake message of a member arrives.
    Handshake(usize),
    /// Any of the data on its way arrives, and again.
    Data(usize),
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let other = 1..NAMES.len();
    let each = 0..NAMES.len();
    prop_oneof![
        2 => other.clone().prop_map(Step::Invite),
        1 => other.clone().prop_map(Step::Remove),
        1 => Just(Step::Renew),
        1 => each.clone().prop_map(Step::Propose),
        6 => each.prop_map(Step::Send),
        6 => other.prop_map(Step::Handshake),
        8 => any::<usize>().prop_map(Step::Data),
        1 => any::<usize>().prop_map(Step::Lose),
    ]
}

#[derive(Clone, Debug)]
enum Handshake {
    Welcome(Bytes),
    Commit(Bytes),
    Proposal(Bytes),
}

/// Data on its way to one member.
#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    to: usize,
    epoch: u64,
    text: [u8; 4],
    ciphertext: Bytes,
}

struct World {
    members: Vec<OpenMls>,
    /// Whom the moderator has in the group.
    invited: [bool; NAMES.len()],
    /// What is to arrive, in the moderator's order.
    handshakes: Vec<VecDeque<Handshake>>,
    data: Vec<Sent>,
    /// In which epoch each member joined last.
    joined: [u64; NAMES.len()],
    authenticators: BTreeMap<u64, Bytes>,
    sent: u32,
}

impl World {
    fn new() -> Self {
        let mut members: Vec<_> = NAMES.map(member).into();
        members[0].create(now()).expect("it has a credential");
        let mut world = Self {
            members,
            invited: [false; NAMES.len()],
            handshakes: vec![VecDeque::new(); NAMES.len()],
            data: Vec::new(),
            joined: [0; NAMES.len()],
            authenticators: BTreeMap::new(),
            sent: 0,
        };
        world.note();
        world
    }

    /// What the moderator's epoch is known by.
    fn note(&mut self) {
        let authenticator = self.members[0].epoch_authenticator().expect("a group");
        self.authenticators.insert(self.members[0].epoch(), authenticator);
    }

    fn tell_invited(&mut self, message: &Handshake) {
        for (queue, invited) in self.handshakes.iter_mut().zip(self.invited) {
            if invited {
                queue.push_back(message.clone());
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            // An app that has yet to join with its last key package has no other.
            Step::Invite(who) if !self.invited[who] && !self.is_to_join(who) => {
                let package = self.members[who].key_package(now()).expect("a package");
                let added = self.members[0].add(&package, now()).expect("it is no member");
                assert_eq!(added.credential, NAMES[who]);
                self.tell_invited(&Handshake::Commit(added.commit));
                self.invited[who] = true;
                self.handshakes[who].push_back(Handshake::Welcome(added.welcome));
                self.note();
            }
            Step::Remove(who) if self.invited[who] => {
                let commit = self.members[0].remove(NAMES[who].as_bytes(), now());
                self.tell_invited(&Handshake::Commit(commit.expect("a member")));
                self.invited[who] = false;
                self.note();
            }
            Step::Renew => {
                let commit = self.members[0].commit(now()).expect("the moderator");
                self.tell_invited(&Handshake::Commit(commit));
                self.note();
            }
            Step::Propose(who) => self.propose(who),
            Step::Send(from) => self.send(from),
            Step::Handshake(who) => self.handshake(who),
            Step::Data(which) if !self.data.is_empty() => self.deliver(which % self.data.len()),
            Step::Lose(which) if !self.data.is_empty() => {
                self.data.swap_remove(which % self.data.len());
            }
            _ => {}
        }
    }

    fn is_to_join(&self, who: usize) -> bool {
        self.handshakes[who].iter().any(|message| matches!(message, Handshake::Welcome(_)))
    }

    fn propose(&mut self, who: usize) {
        let current = self.members[who].epoch() == self.members[0].epoch();
        if !self.members[who].is_member() || !current {
            return;
        }
        let proposal = self.members[who].propose(now()).expect("a member");
        self.members[0].store(&proposal, now()).expect("a member's, in its epoch");
        self.tell_invited(&Handshake::Proposal(proposal));
    }

    fn send(&mut self, from: usize) {
        let text = self.sent.to_le_bytes();
        self.sent += 1;
        let sender = &mut self.members[from];
        let epoch = sender.epoch();
        match sender.encrypt(&text) {
            Ok(ciphertext) => {
                for to in (0..NAMES.len()).filter(|&to| to != from) {
                    let ciphertext = ciphertext.clone();
                    self.data.push(Sent { from, to, epoch, text, ciphertext });
                }
            }
            Err(MlsError::NotJoined) => assert!(!sender.is_member()),
            Err(error) => assert_eq!(error, MlsError::ProposalPending),
        }
    }

    fn handshake(&mut self, who: usize) {
        let Some(message) = self.handshakes[who].pop_front() else { return };
        let member = &mut self.members[who];
        match message {
            Handshake::Welcome(welcome) => {
                member.join(&welcome, now()).expect("in the moderator's order");
                self.joined[who] = member.epoch();
            }
            Handshake::Commit(commit) => {
                member.apply(&commit, now()).expect("in the moderator's order");
                assert!(member.apply(&commit, now()).is_err());
            }
            Handshake::Proposal(proposal) => {
                member.store(&proposal, now()).expect("in the moderator's order");
            }
        }
        if member.is_member() {
            let authenticator = member.epoch_authenticator();
            assert_eq!(authenticator.as_ref(), self.authenticators.get(&member.epoch()));
        }
    }

    fn deliver(&mut self, which: usize) {
        let Sent { from, to, epoch, text, ciphertext } = self.data[which].clone();
        let receiver = &mut self.members[to];
        let opened = receiver.decrypt(&ciphertext);
        let readable = receiver.is_member()
            && epoch >= self.joined[to]
            && epoch <= receiver.epoch()
            && epoch + PAST >= receiver.epoch();
        assert_eq!(opened.is_ok(), readable, "{opened:?} of epoch {epoch} by {receiver:?}");
        if let Ok(opened) = opened {
            assert_eq!(
                (&opened.plaintext[..], &opened.credential[..]),
                (&text[..], NAMES[from].as_bytes())
            );
            assert!(receiver.decrypt(&ciphertext).is_err(), "a replay");
            self.data.swap_remove(which);
        } else if epoch <= receiver.epoch() {
            self.data.swap_remove(which);
        }
    }

    /// All handshake messages arrive, and a commit clears what waits: then all read all.
    fn settle(&mut self) {
        self.take(Step::Renew);
        for who in 1..NAMES.len() {
            while !self.handshakes[who].is_empty() {
                self.handshake(who);
            }
            assert_eq!(self.members[who].is_member(), self.invited[who]);
        }
        self.data.clear();
        for who in 0..NAMES.len() {
            self.send(who);
        }
        for which in (0..self.data.len()).rev() {
            self.deliver(which);
        }
        assert!(self.data.iter().all(|sent| !self.invited[sent.to]));
        let names = self.members[0].members();
        for (member, invited) in self.members.iter().zip(self.invited) {
            assert!(!invited || member.members() == names);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn members_agree_whatever_happens(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
    }

    #[test]
    fn two_members_read_each_other_in_any_order(
        order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
        lost in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut group = Group::of(&["alice"]);
        let mut sent: Vec<_> = (0..40)
            .map(|number: u8| Some(group.moderator.encrypt(&[number]).expect("a member")))
            .collect();
        for index in order {
            let ciphertext = sent[index].take().expect("once");
            if !lost[index] {
                let opened = group.others[0].decrypt(&ciphertext).expect("any order");
                prop_assert_eq!(&opened.plaintext[..], &[index as u8]);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut alice = member("alice");
        alice.create(now()).expect("it has a credential");
        prop_assert!(alice.add(&bytes, now()).is_err());
        prop_assert!(alice.store(&bytes, now()).is_err());
        prop_assert!(alice.decrypt(&bytes).is_err());
        prop_assert!(alice.join(&bytes, now()).is_err());
    }
}
