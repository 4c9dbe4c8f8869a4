//! The side that was invited: a participant of a group, or the peer of a point-to-point session.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use slim_wire::session::{Content, FullName, RosterMember};
use slim_wire::{Id, Name};

use super::config::{REQUEST_INTERVAL, REQUEST_RETRIES};
use super::earlier;
use super::error::CloseReason;
use super::event::Member;
use super::machine::{Change, Core, Turn};
use super::packet::{FANOUT_CONTROL, Packet};
use super::request::{Asks, Outcome, Requests};
use super::saved::Role;

/// Where a participant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has answered the request to join an encrypted group, and waits for the welcome.
    Invited,
    /// It sends and receives.
    Member,
    /// It has asked to be removed.
    Leaving,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The request to join, once more.
    Repeated,
    /// Another request to join: the moderator does not count it as a member.
    InvitedAgain,
    Welcome,
    /// A commit or a proposal.
    Numbered,
    /// The app wants to leave.
    Leave,
    /// The moderator wants it to leave.
    Dismissed,
    /// The moderator does not answer that it wants to leave.
    GivenUp,
}

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    ReplyAgain,
    JoinAnew,
    Join,
    Acknowledge,
    Follow,
    AskToLeave,
    ReplyAndClose,
    Close,
}

/// The transition table: the next state, `None` at the end.
pub(super) fn step(state: State, input: Input) -> Option<(Option<State>, Step)> {
    Some(match (state, input) {
        (State::Invited | State::Member, Input::Repeated) => (Some(state), Step::ReplyAgain),
        (State::Invited | State::Member, Input::InvitedAgain) => {
            (Some(State::Invited), Step::JoinAnew)
        }
        (State::Invited, Input::Welcome) => (Some(State::Member), Step::Join),
        (State::Member | State::Leaving, Input::Welcome) => (Some(state), Step::Acknowledge),
        (State::Member | State::Leaving, Input::Numbered) => (Some(state), Step::Follow),
        (State::Invited | State::Member, Input::Leave) => (Some(State::Leaving), Step::AskToLeave),
        (_, Input::Dismissed) => (None, Step::ReplyAndClose),
        (State::Invited | State::Leaving, Input::GivenUp) => (None, Step::Close),
        _ => return None,
    })
}

/// Commits and proposals that are kept until those before them have come.
const NUMBERED: u32 = 64;

#[derive(Debug)]
pub(super) struct Participant {
    pub(super) moderator: Name,
    /// The moderator uses this library.
    pub(super) native: bool,
    state: State,
    /// Message number of the request to join.
    request: u32,
    reply: Packet,
    /// Number of the last commit or proposal that was followed.
    last: u32,
    /// Commits and proposals that wait for those before them.
    numbered: BTreeMap<u32, Packet>,
    requests: Requests,
    roster: u32,
    members: Vec<Member>,
    subscribed: bool,
    rotate_at: Option<Instant>,
    leave_by: Option<Instant>,
    /// A commit has taken it out of the encrypted group.
    removed: bool,
    /// It has proposed new keys, and no commit has come since.
    proposed: bool,
    /// How long a proposal that the moderator knows waits for its commit.
    commit_by: Option<Instant>,
    ended: bool,
    /// Message number of the request to leave.
    dismissed: Option<u32>,
}

/// How long who was invited waits for its welcome: as long as the moderator asks, and then some.
const WELCOMED: u32 = 2 * REQUEST_RETRIES;

/// How long who wants to leave waits for the moderator to remove it.
const LEAVING: u32 = 5;

/// How long a proposal that the moderator knows holds back data: until all have had the time to
/// acknowledge it, and then the commit to arrive.
const COMMITTED: u32 = 2 * (REQUEST_RETRIES + 1);

/// How long it follows a published moderator until then. That one comes to nothing more if a
/// member does not acknowledge its own removal, and if it is asked for a removal twice.
const LEAVING_PUBLISHED: u32 = REQUEST_RETRIES + 10;

impl Participant {
    /// Answers a request to join. `request.source` is the moderator.
    pub(super) fn join(turn: &mut Turn<'_>, core: &mut Core, request: &Packet) -> Option<Self> {
        let reply = Self::reply(turn, core, request)?;
        let mut participant = Self {
            moderator: request.source,
            native: request.is_marked(),
            state: if core.mls.is_some() { State::Invited } else { State::Member },
            request: request.ids.message,
            reply: reply.clone(),
            last: 0,
            numbered: BTreeMap::new(),
            requests: Requests::default(),
            roster: 0,
            members: Vec::new(),
            subscribed: false,
            rotate_at: core.mls.is_some().then(|| turn.now.instant + core.key_rotation),
            leave_by: core.mls.is_some().then(|| turn.now.instant + REQUEST_INTERVAL * WELCOMED),
            removed: false,
            proposed: false,
            commit_by: None,
            ended: false,
            dismissed: None,
        };
        if core.mls.is_none() {
            participant.subscribe(core);
        }
        core.send(reply);
        Some(participant)
    }

    /// What a later process needs to go on; `None` before it has joined.
    pub(super) fn save(&self) -> Option<Role> {
        (self.state == State::Member).then(|| Role::Participant {
            moderator: self.moderator,
            native: self.native,
            request: self.request,
            last: self.last,
            members: self.members.iter().map(RosterMember::from).collect(),
        })
    }

    /// A participant that goes on.
    pub(super) fn restore(
        turn: &Turn<'_>,
        core: &mut Core,
        (moderator, native): (Name, bool),
        (request, last): (u32, u32),
        members: &[RosterMember],
    ) -> Self {
        core.subscribe(false);
        let members: Vec<Member> = members.iter().map(Member::from).collect();
        let others = members.iter().filter(|member| !member.is(core.local.to_name()));
        core.changes.extend(others.cloned().map(Change::Joined));
        Self {
            moderator,
            native,
            state: State::Member,
            request,
            reply: core.control(request, moderator, Content::JoinReply).marked(),
            last,
            numbered: BTreeMap::new(),
            requests: Requests::default(),
            roster: 0,
            members,
            subscribed: true,
            rotate_at: Some(turn.now.instant + core.key_rotation),
            leave_by: None,
            removed: false,
            proposed: false,
            // What is stored of the encrypted group may hold a proposal.
            commit_by: Some(turn.now.instant + REQUEST_INTERVAL * COMMITTED),
            ended: false,
            dismissed: None,
        }
    }

    fn reply(turn: &Turn<'_>, core: &mut Core, request: &Packet) -> Option<Packet> {
        let key_package = match &mut core.mls {
            None => Bytes::new(),
            Some(mls) => mls.key_package(turn.now).ok()?,
        };
        Some(core.answer(request, Content::JoinReply).with_payload(key_package).marked())
    }

    fn subscribe(&mut self, core: &mut Core) {
        if core.is_group() && !std::mem::replace(&mut self.subscribed, true) {
            core.subscribe(false);
        }
    }

    /// Message number of the request to join.
    pub(super) fn request(&self) -> u32 {
        self.request
    }

    /// Message number of the request to leave, if there was one.
    pub(super) fn dismissed_by(&self) -> Option<u32> {
        self.dismissed
    }

    /// Whether data can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Member
    }

    /// Whether it was welcomed.
    pub(super) fn has_joined(&self) -> bool {
        self.state != State::Invited
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.state == State::Leaving && !self.ended
    }

    /// Who the members are, as far as the moderator has told.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether the moderator has yet to tell of this member, and will.
    pub(super) fn will_tell_of(&self, name: Name) -> bool {
        self.native && name != self.moderator && !self.members.iter().any(|member| member.is(name))
    }

    /// A message of control content from the moderator.
    pub(super) fn handle(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let leave = matches!(packet.session.content, Content::LeaveRequest { .. });
        // An invitation is not accepted before the app has read that its former part has ended.
        if packet.source != self.moderator || (self.ended && !leave) {
            return;
        }
        match &packet.session.content {
            Content::JoinRequest { .. } if packet.ids.message == self.request => {
                self.step(turn, core, Input::Repeated, packet);
            }
            Content::JoinRequest { .. } => self.step(turn, core, Input::InvitedAgain, packet),
            Content::Welcome { .. } => self.step(turn, core, Input::Welcome, packet),
            Content::Commit | Content::Proposal { .. } => {
                self.step(turn, core, Input::Numbered, packet);
            }
            Content::LeaveRequest { participant: None, .. } => {
                self.step(turn, core, Input::Dismissed, packet);
            }
            Content::ControlAck { busy } => self.answered(turn, packet, *busy),
            Content::LeaveReply => {
                self.requests.answer(Asks::Leave, packet.ids.message, packet.source);
            }
            Content::Roster { members } => self.learn(core, packet, members),
            _ => {}
        }
    }

    fn step(&mut self, turn: &mut Turn<'_>, core: &mut Core, input: Input, packet: &Packet) {
        let Some((next, step)) = step(self.state, input) else { return };
        match step {
            Step::ReplyAgain => core.send(self.reply.clone()),
            Step::JoinAnew => match Self::reply(turn, core, packet) {
                Some(reply) => {
                    self.join_anew(core, packet, reply);
                    let patience = REQUEST_INTERVAL * WELCOMED;
                    self.leave_by = core.mls.is_some().then(|| turn.now.instant + patience);
                }
                None => return,
            },
            Step::Join => match self.welcome(turn, core, packet) {
                true => {}
                false => return,
            },
            Step::Acknowledge => self.acknowledge(core, packet),
            Step::Follow => self.follow(turn, core, packet),
            Step::AskToLeave => self.ask_to_leave(turn, core),
            Step::ReplyAndClose => {
                self.dismissed = Some(packet.ids.message);
                self.unsubscribe(core);
                core.send(core.answer(packet, Content::LeaveReply));
                let reason = self.close_reason(core);
                core.changes.push(Change::Closed(reason));
            }
            Step::Close => {
                self.unsubscribe(core);
                let reason = self.close_reason(core);
                core.changes.push(Change::Closed(reason));
            }
        }
        match next {
            // What it has followed has taken it out.
            Some(State::Member) if self.removed => self.state = State::Leaving,
            // Without encryption there is no welcome to wait for.
            Some(State::Invited) if core.mls.is_none() => self.state = State::Member,
            Some(next) => self.state = next,
            None => {
                self.ended = true;
                (self.leave_by, self.rotate_at, self.commit_by) = (None, None, None);
                self.requests.cancel_all();
            }
        }
    }

    fn close_reason(&self, core: &Core) -> CloseReason {
        match (core.is_group(), self.state) {
            (_, State::Leaving) if !self.removed => CloseReason::Deleted,
            (true, _) => CloseReason::Removed,
            (false, _) => CloseReason::PeerClosed,
        }
    }

    fn unsubscribe(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.subscribed) {
            core.unsubscribe();
        }
    }

    /// The moderator starts over: what was joined before is void.
    fn join_anew(&mut self, core: &mut Core, packet: &Packet, reply: Packet) {
        core.send(reply.clone());
        (self.request, self.reply, self.last) = (packet.ids.message, reply, 0);
        (self.roster, self.commit_by) = (0, None);
        let members = std::mem::take(&mut self.members);
        let own = core.local.to_name();
        let others = members.into_iter().filter(|member| !member.is(own));
        core.changes.extend(others.map(Change::Left));
        core.changes.push(Change::Anew);
        self.native = packet.is_marked();
        self.numbered.clear();
    }

    /// Whether this is a member now.
    fn welcome(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) -> bool {
        let Content::Welcome { commit } = packet.session.content else { return false };
        let Some(mls) = &mut core.mls else { return false };
        if let Err(error) = mls.join(&packet.payload, turn.now) {
            core.changes.push(Change::NotJoined(error));
            return false;
        }
        (self.last, self.leave_by) = (commit, None);
        self.subscribe(core);
        self.acknowledge(core, packet);
        core.changes.extend([Change::Open, Change::Epoch]);
        true
    }

    fn acknowledge(&self, core: &mut Core, packet: &Packet) {
        core.send(core.answer(packet, Content::ControlAck { busy: false }));
    }

    /// Follows commits and proposals in the order of their numbers. They are acknowledged once
    /// they have been, so that the moderator repeats what could not be followed yet.
    fn follow(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let number = packet.ids.message;
        if number <= self.last {
            // Published moderators count acknowledgements without looking at who sent them.
            if self.native {
                self.acknowledge(core, packet);
            }
            return;
        }
        if number - self.last > NUMBERED {
            return;
        }
        self.numbered.insert(number, packet.clone());
        while let Some(packet) = self.numbered.get(&(self.last + 1)) {
            if !follow_one(turn, core, packet) {
                return;
            }
            self.last += 1;
            let committed = packet.session.content == Content::Commit;
            self.proposed &= !committed;
            // What was proposed before is void. If nobody has answered it, it may not be in there.
            if committed && self.requests.cancel_each(Asks::Proposal) {
                self.rotate_at = Some(turn.now.instant + REQUEST_INTERVAL);
            }
            self.commit_by = (!committed).then(|| turn.now.instant + REQUEST_INTERVAL * COMMITTED);
            if let Some(packet) = self.numbered.remove(&self.last) {
                self.acknowledge(core, &packet);
            }
            core.changes.push(Change::Epoch);
        }
        if core.mls.as_ref().is_some_and(|mls| !mls.is_member()) && !self.removed {
            // The moderator says so in words next; but it may not be able to.
            self.removed = true;
            self.leave_by = Some(turn.now.instant + REQUEST_INTERVAL * LEAVING);
        }
    }

    /// The moderator answers a proposal. Even if it is busy it may commit it with what it is busy
    /// with, as published moderators do; any commit settles it.
    fn answered(&mut self, turn: &mut Turn<'_>, packet: &Packet, busy: bool) {
        let answered = self.requests.answer(Asks::Proposal, packet.ids.message, packet.source);
        if answered.is_none() {
            return;
        }
        if busy {
            self.rotate_at = Some(turn.now.instant + REQUEST_INTERVAL);
        }
        if self.proposed {
            self.commit_by = Some(turn.now.instant + REQUEST_INTERVAL * COMMITTED);
        }
    }

    /// A proposal that the moderator does not answer, or does not commit, must not keep data back.
    fn withdraw(&mut self, turn: &Turn<'_>, core: &mut Core) {
        if std::mem::take(&mut self.proposed) {
            // What waited is sent before the next try.
            self.rotate_at = Some(turn.now.instant + core.key_rotation);
        }
        self.commit_by = None;
        if let Some(mls) = &mut core.mls {
            mls.withdraw();
        }
        core.changes.push(Change::Epoch);
    }

    fn learn(&mut self, core: &mut Core, packet: &Packet, roster: &[RosterMember]) {
        self.native = true;
        self.acknowledge(core, packet);
        if packet.ids.message <= self.roster {
            return;
        }
        self.roster = packet.ids.message;
        let members: Vec<Member> = roster.iter().map(Member::from).collect();
        let before = std::mem::replace(&mut self.members, members);
        let known = |members: &[Member], name: Name| members.iter().any(|member| member.is(name));
        for member in before.iter().filter(|member| !known(&self.members, member.name.name)) {
            core.changes.push(Change::Left(member.clone()));
        }
        let own = core.local.to_name();
        for member in &self.members {
            if !known(&before, member.name.name) && !member.is(own) {
                core.changes.push(Change::Joined(member.clone()));
            }
        }
    }

    /// The app wants to leave. Published moderators know the request from the control plane.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        let nothing = self.reply.clone();
        self.step(turn, core, Input::Leave, &nothing);
    }

    fn ask_to_leave(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        self.requests.cancel_all();
        let patience = if self.native { LEAVING } else { LEAVING_PUBLISHED };
        self.leave_by = Some(turn.now.instant + REQUEST_INTERVAL * patience);
        // Published moderators know their members by names without ids.
        let mut name = FullName::from(&core.local);
        name.name.id = Id::ANY;
        let participant = core.is_group().then(|| Box::new(name));
        let content = Content::LeaveRequest { participant, delete_group: false };
        let packet = core.control(turn.draw(), self.moderator, content);
        core.send(packet.clone());
        if self.native {
            self.requests.add(turn.now.instant, Asks::Leave, packet, vec![self.moderator]);
        }
    }

    fn propose(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        if self.state != State::Member {
            return;
        }
        let Some(Ok(proposal)) = core.mls.as_mut().map(|mls| mls.propose(turn.now)) else { return };
        self.proposed = true;
        let content = Content::Proposal { originator: Box::new(FullName::from(&core.local)) };
        let packet = core
            .control(turn.draw(), self.moderator, content)
            .with_fanout(FANOUT_CONTROL)
            .with_payload(proposal);
        core.send(packet.clone());
        self.requests.add(turn.now.instant, Asks::Proposal, packet, vec![self.moderator]);
    }

    pub(super) fn due(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        let now = turn.now.instant;
        let (again, outcomes) = self.requests.due(now);
        again.into_iter().for_each(|packet| core.send(packet));
        let is_proposal = |outcome: &Outcome| match outcome {
            Outcome::GivenUp(request) => request.asks == Asks::Proposal,
            Outcome::Answered(_) => false,
        };
        // While the moderator is asked, the answer decides, or that there is none.
        let late = self.commit_by.take_if(|commit_by| *commit_by <= now).is_some()
            && !self.requests.contains(Asks::Proposal);
        if late || outcomes.iter().any(is_proposal) {
            self.withdraw(turn, core);
        }
        if self.leave_by.is_some_and(|leave_by| leave_by <= now) {
            self.leave_by = None;
            let nothing = self.reply.clone();
            self.step(turn, core, Input::GivenUp, &nothing);
        }
        if self.rotate_at.is_some_and(|rotate| rotate <= now) {
            if self.proposed {
                self.rotate_at = Some(now + REQUEST_INTERVAL);
            } else {
                self.rotate_at = Some(now + core.key_rotation);
                self.propose(turn, core);
            }
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.requests.resume(now);
        if let Some(commit_by) = &mut self.commit_by {
            *commit_by = now + REQUEST_INTERVAL * COMMITTED;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = earlier(self.rotate_at, earlier(self.leave_by, self.commit_by));
        earlier(self.requests.deadline(), own)
    }
}

/// Whether a commit or proposal was followed.
fn follow_one(turn: &Turn<'_>, core: &mut Core, packet: &Packet) -> bool {
    let own = core.local.to_name();
    let Some(mls) = &mut core.mls else { return true };
    match &packet.session.content {
        // Its originator keeps what belongs to it.
        Content::Proposal { originator } if originator.name == own => true,
        Content::Proposal { .. } => mls.store(&packet.payload, turn.now).is_ok(),
        _ => mls.apply(&packet.payload, turn.now).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_transition_table() {
        use Input::{Dismissed, GivenUp, InvitedAgain, Leave, Numbered, Repeated, Welcome};
        use State::{Invited, Leaving, Member};
        let mut table = String::new();
        for state in [Invited, Member, Leaving] {
            for input in [Repeated, InvitedAgain, Welcome, Numbered, Leave, Dismissed, GivenUp] {
                let Some((next, step)) = step(state, input) else { continue };
                let next = next.map_or("-".to_owned(), |next| format!("{next:?}"));
                writeln!(
                    table,
                    "{:12} {:12} {next:12} {step:?}",
                    format!("{state:?}"),
                    format!("{input:?}")
                )
                .expect("a text takes all");
            }
        }
        insta::assert_snapshot!(table, @r"
        Invited      Repeated     Invited      ReplyAgain
        Invited      InvitedAgain Invited      JoinAnew
        Invited      Welcome      Member       Join
        Invited      Leave        Leaving      AskToLeave
        Invited      Dismissed    -            ReplyAndClose
        Invited      GivenUp      -            Close
        Member       Repeated     Member       ReplyAgain
        Member       InvitedAgain Invited      JoinAnew
        Member       Welcome      Member       Acknowledge
        Member       Numbered     Member       Follow
        Member       Leave        Leaving      AskToLeave
        Member       Dismissed    -            ReplyAndClose
        Leaving      Welcome      Leaving      Acknowledge
        Leaving      Numbered     Leaving      Follow
        Leaving      Dismissed    -            ReplyAndClose
        Leaving      GivenUp      -            Close
        ");
    }
}
