//! The side that invites: the moderator of a group, and the initiator of a point-to-point session,
//! whose only guest is the peer.
//!
//! Invitations go side by side until the guest has answered. What changes an encrypted group goes
//! one after the other, each change numbered and acknowledged by all members.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use slim_wire::session::{Content, FullName, RosterMember, SessionKind};
use slim_wire::{Flags, Name};

use super::config::{REQUEST_INTERVAL, REQUEST_RETRIES};
use super::earlier;
use super::error::SessionError;
use super::event::{Member, Ticket};
use super::machine::{Change, Core, Turn};
use super::packet::{FANOUT_CONTROL, Packet};
use super::request::{Asks, Outcome, Request, Requests};
use super::saved::{Role, SavedMember};
use crate::mls::MlsError;

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Who is there under the name?
    Discovering,
    /// It was asked to join.
    Joining,
    /// It waits for its turn to be added to the encrypted group.
    Waiting,
    /// It was added, and has yet to say that it got the welcome.
    Welcoming,
}

/// What happens to an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Found,
    Known,
    Joined,
    KeyPackage,
    Added,
    Refused,
    Welcomed,
    GivenUp,
}

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AskToJoin,
    Admit,
    Queue,
    SendWelcome,
    Complete,
    Fail,
    /// It is in the group, but does not know: take it out.
    Expel,
}

/// The transition table of an invitation: the next state, `None` at its end.
pub(super) fn step(state: State, input: Input) -> Option<(Option<State>, Step)> {
    Some(match (state, input) {
        (State::Discovering, Input::Found) => (Some(State::Joining), Step::AskToJoin),
        (State::Discovering, Input::Known | Input::Refused | Input::GivenUp) => (None, Step::Fail),
        (State::Joining, Input::Joined) => (None, Step::Admit),
        (State::Joining, Input::KeyPackage) => (Some(State::Waiting), Step::Queue),
        (State::Joining, Input::Refused | Input::GivenUp) => (None, Step::Fail),
        (State::Waiting, Input::Added) => (Some(State::Welcoming), Step::SendWelcome),
        (State::Waiting, Input::Refused) => (None, Step::Fail),
        (State::Welcoming, Input::Welcomed) => (None, Step::Complete),
        (State::Welcoming, Input::GivenUp) => (None, Step::Expel),
        _ => return None,
    })
}

#[derive(Debug)]
struct Invite {
    /// `None`: of a point-to-point session, by itself.
    ticket: Option<Ticket>,
    wanted: FullName,
    state: State,
    /// Number of the request under way.
    request: u32,
    peer: Option<Name>,
    native: bool,
    key_package: Bytes,
    attempts: u32,
}

impl Invite {
    /// Whoever answered.
    fn member(&self) -> Option<Member> {
        let name = FullName { name: self.peer?, texts: self.wanted.texts.clone() };
        Some(Member { name, native: self.native })
    }
}

#[derive(Debug)]
struct Joined {
    member: Member,
    /// By which MLS knows it.
    credential: Bytes,
}

/// A change of the group, waiting for its turn.
#[derive(Debug)]
enum Task {
    /// Add who answered this request to join.
    Add(u32),
    Remove(Name, Option<Ticket>),
    Rotate,
}

/// The change under way.
#[derive(Debug)]
enum Running {
    /// The invitation, once the guest has its welcome.
    Add(Option<Invite>),
    Remove(Name, Option<Ticket>),
    /// All get to know a member's proposal, before it is committed.
    Propose,
    Commit,
}

#[derive(Debug, Default)]
pub(super) struct Moderator {
    members: Vec<Joined>,
    invites: Vec<Invite>,
    tasks: VecDeque<Task>,
    running: Option<Running>,
    /// Requests that the running change waits for.
    pending: Vec<(Asks, u32)>,
    requests: Requests,
    /// Members to be removed because they do not answer.
    silent: Vec<Name>,
    /// Of removed members, who asked for the removal.
    leaving: Vec<(u32, Name, Option<Ticket>)>,
    /// Number of the last commit or proposal.
    sequence: u32,
    roster: u32,
    subscribed: bool,
    /// When to try again to add whose key package is not valid yet.
    retry_at: Option<Instant>,
    rotate_at: Option<Instant>,
    closing_until: Option<Instant>,
}

/// Numbers of the lists of members are higher than those of commits and proposals, so that what
/// acknowledges the one is not taken for the other.
const FIRST_ROSTER: u32 = 1 << 31;

/// How long members are asked to leave when a group is closed.
const CLOSING: u32 = 5;

impl Moderator {
    /// What a later process needs to go on.
    pub(super) fn save(&self) -> Role {
        let member = |joined: &Joined| SavedMember {
            member: RosterMember::from(&joined.member),
            credential: joined.credential.to_vec(),
        };
        let members = self.members.iter().map(member).collect();
        Role::Moderator { members, sequence: self.sequence, roster: self.roster }
    }

    /// A moderator that goes on. What it had under way is void.
    pub(super) fn restore(
        turn: &Turn<'_>,
        core: &mut Core,
        members: Vec<SavedMember>,
        (sequence, roster): (u32, u32),
    ) -> Self {
        core.subscribe(true);
        let joined = |saved: SavedMember| Joined {
            member: Member::from(&saved.member),
            credential: saved.credential.into(),
        };
        let members: Vec<Joined> = members.into_iter().map(joined).collect();
        let joined = members.iter().map(|joined| Change::Joined(joined.member.clone()));
        core.changes.extend(joined);
        let rotate_at = Some(turn.now.instant + core.key_rotation);
        Self { members, sequence, roster, subscribed: true, rotate_at, ..Self::default() }
    }

    /// Whether the members can be sent data.
    pub(super) fn is_open(&self) -> bool {
        let welcomed = |joined: &Joined| {
            let peer = Some(joined.member.name.name);
            !self.invites.iter().any(|invite| invite.peer == peer)
        };
        self.members.iter().any(welcomed)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|joined| &joined.member)
    }

    pub(super) fn is_member(&self, name: Name) -> bool {
        self.members.iter().any(|joined| joined.member.is(name))
    }

    pub(super) fn is_inviting(&self) -> bool {
        !self.invites.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing_until.is_some() && !self.requests.contains(Asks::Leave)
    }

    /// Starts an invitation. `id`: the message number of the discovery, if the control plane gave
    /// it one.
    pub(super) fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        wanted: FullName,
        (ticket, id): (Option<Ticket>, Option<u32>),
    ) {
        let id = id.unwrap_or_else(|| turn.draw());
        let requester = (!core.is_group()).then(|| Box::new(FullName::from(&core.local)));
        let content = Content::DiscoveryRequest { requester, participant: None };
        let mut packet = core.control(id, wanted.name, content).marked();
        if !core.is_group() {
            packet.session.source = Some(core.local.clone());
            packet.session.content_type = "p2p_session_discovery".to_owned();
        }
        let state = State::Discovering;
        self.invites.push(Invite {
            ticket,
            wanted,
            state,
            request: id,
            peer: None,
            native: false,
            key_package: Bytes::new(),
            attempts: 0,
        });
        self.ask(turn, core, Asks::Discovery, packet, Vec::new());
    }

    /// Removes a member, by its name with or without an id.
    pub(super) fn remove(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        name: FullName,
        ticket: Option<Ticket>,
    ) {
        let wanted = name.name;
        let is_it = |joined: &&Joined| {
            let name = joined.member.name.name;
            name.prefix == wanted.prefix && (wanted.id.is_any() || name.id == wanted.id)
        };
        match self.members.iter().find(is_it).map(|joined| joined.member.name.name) {
            Some(found) => {
                self.tasks.push_back(Task::Remove(found, ticket));
                self.advance(turn, core);
            }
            None => core.complete(ticket, Err(SessionError::NotMember { name: name.into() })),
        }
    }

    /// Asks all members to leave.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        self.requests.cancel_all();
        let queued = self.tasks.drain(..).filter_map(|task| match task {
            Task::Remove(_, ticket) => ticket,
            Task::Add(_) | Task::Rotate => None,
        });
        let running = match self.running.take() {
            Some(Running::Remove(_, ticket)) => ticket,
            Some(Running::Add(invite)) => invite.and_then(|invite| invite.ticket),
            Some(Running::Propose | Running::Commit) | None => None,
        };
        let invites = self.invites.drain(..).filter_map(|invite| invite.ticket);
        let leaving = self.leaving.drain(..).filter_map(|(.., ticket)| ticket);
        for ticket in queued.chain(running).chain(invites).chain(leaving) {
            core.complete(Some(ticket), Err(core.closed()));
        }
        self.pending.clear();
        self.closing_until = Some(turn.now.instant + REQUEST_INTERVAL * CLOSING);
        for joined in std::mem::take(&mut self.members) {
            // Published peers do not expect to be told that a point-to-point session has ended.
            if core.is_group() || joined.member.native {
                self.ask_to_leave(turn, core, joined.member.name.name);
            }
        }
        if self.subscribed {
            core.unsubscribe();
        }
    }

    fn ask_to_leave(&mut self, turn: &mut Turn<'_>, core: &mut Core, name: Name) -> u32 {
        let id = turn.draw();
        let content = Content::LeaveRequest { participant: None, delete_group: false };
        let mut packet = core.control(id, name, content);
        // As published moderators write it.
        packet.session.kind = SessionKind::Unspecified;
        self.ask(turn, core, Asks::Leave, packet, vec![name]);
        id
    }

    fn ask(
        &mut self,
        turn: &Turn<'_>,
        core: &mut Core,
        asks: Asks,
        packet: Packet,
        awaited: Vec<Name>,
    ) {
        core.send(packet.clone());
        self.requests.add(turn.now.instant, asks, packet, awaited);
    }

    /// A message of control content from `packet.source`.
    pub(super) fn handle(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        match &packet.session.content {
            Content::DiscoveryReply => self.found(turn, core, packet),
            Content::JoinReply => self.joined(turn, core, packet),
            Content::ControlAck { .. } => self.acknowledged(turn, core, packet),
            Content::LeaveReply => self.left(turn, core, packet),
            Content::Proposal { originator } => self.proposed(turn, core, packet, originator),
            Content::LeaveRequest { participant: Some(name), .. } if core.is_group() => {
                self.asked_to_remove(core, packet, name);
            }
            Content::LeaveRequest { participant: None, delete_group: false }
                if !core.is_group() && self.is_member(packet.source) =>
            {
                core.send(core.answer(packet, Content::LeaveReply));
                core.changes.push(Change::PeerClosed);
            }
            _ => {}
        }
        self.advance(turn, core);
    }

    fn step(&mut self, index: usize, input: Input) -> Option<(Option<Invite>, Step)> {
        let (next, step) = step(self.invites[index].state, input)?;
        match next {
            Some(next) => {
                self.invites[index].state = next;
                Some((None, step))
            }
            None => Some((Some(self.invites.remove(index)), step)),
        }
    }

    /// Whether a member is to be removed, or has yet to hear that it was.
    fn is_departing(&self, name: Name) -> bool {
        let running = matches!(&self.running, Some(Running::Remove(now, _)) if *now == name);
        running || self.is_condemned(name) || self.requests.awaits(Asks::Leave, name)
    }

    /// Whether a member is to be removed next.
    fn is_condemned(&self, name: Name) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Remove(queued, _) if *queued == name))
    }

    /// Who takes part without being a member, for it could not be reached when it was removed, is
    /// told.
    pub(super) fn dismiss(&mut self, turn: &mut Turn<'_>, core: &mut Core, name: Name) {
        let invited = self.invites.iter().any(|invite| invite.peer == Some(name));
        if core.is_group() && !invited && !self.is_member(name) && !self.is_departing(name) {
            self.ask_to_leave(turn, core, name);
        }
    }

    fn invite_of(&self, request: u32) -> Option<usize> {
        self.invites.iter().position(|invite| invite.request == request)
    }

    fn found(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        if packet.flags.contains(Flags::ERROR) {
            return self.refused(core, packet, &packet.reason());
        }
        let Some(index) = self.invite_of(packet.ids.message) else { return };
        let wanted = self.invites[index].wanted.name;
        if packet.source.prefix != wanted.prefix || packet.source.id.is_any() {
            return;
        }
        // Who is being removed may be invited again once it knows; it is asked again until then.
        if self.is_departing(packet.source)
            || self.requests.answer(Asks::Discovery, packet.ids.message, packet.source).is_none()
        {
            return;
        }
        let taken = |invite: &Invite| invite.peer == Some(packet.source);
        if self.is_member(packet.source) || self.invites.iter().any(taken) {
            if let Some((Some(invite), Step::Fail)) = self.step(index, Input::Known) {
                let name = Box::new(invite.wanted.clone());
                self.fail(core, &invite, SessionError::AlreadyMember { name });
            }
            return;
        }
        if let Some((None, Step::AskToJoin)) = self.step(index, Input::Found) {
            self.ask_to_join(turn, core, index, packet.source);
        }
    }

    fn ask_to_join(&mut self, turn: &mut Turn<'_>, core: &mut Core, index: usize, peer: Name) {
        if core.is_group() && !std::mem::replace(&mut self.subscribed, true) {
            core.subscribe(true);
        }
        let id = turn.draw();
        self.invites[index].peer = Some(peer);
        self.invites[index].request = id;
        // Release 0.6.0 takes a session whose channel is its moderator for a point-to-point one.
        let channel = core.channel().cloned().unwrap_or_else(|| FullName::from(&core.local));
        let content = Content::JoinRequest {
            channel: Box::new(channel.clone()),
            moderator: Box::new(FullName::from(&core.local)),
            mls: core.config.mls,
            as_moderator: false,
        };
        let mut packet = core.control(id, peer, content).marked();
        packet.session.destination = channel.to_text();
        packet.session.metadata.extend(core.config.metadata.iter().cloned());
        self.ask(turn, core, Asks::Join, packet, vec![peer]);
    }

    fn joined(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let Some(index) = self.invite_of(packet.ids.message) else { return };
        if self.invites[index].peer != Some(packet.source) {
            return;
        }
        if self.requests.answer(Asks::Join, packet.ids.message, packet.source).is_none() {
            return;
        }
        self.invites[index].native = packet.is_marked();
        let input = match (core.config.mls, packet.payload.is_empty()) {
            (false, _) => Input::Joined,
            (true, false) => Input::KeyPackage,
            (true, true) => Input::Refused,
        };
        match self.step(index, input) {
            Some((Some(invite), Step::Admit)) => {
                if let Some(member) = invite.member() {
                    self.admit(turn, core, member, Bytes::new());
                }
                self.complete(turn, core, &invite);
            }
            Some((Some(invite), Step::Fail)) => {
                let (field, expected) = ("reply to the request to join", "a key package");
                let reason = MlsError::Wrong { field, expected, got: "nothing".to_owned() };
                self.refuse(core, &invite, &reason);
            }
            Some((None, Step::Queue)) => {
                self.invites[index].key_package = packet.payload.clone();
                self.tasks.push_back(Task::Add(packet.ids.message));
            }
            _ => {}
        }
    }

    /// Whoever was invited is a member from now on.
    fn admit(&mut self, turn: &Turn<'_>, core: &mut Core, member: Member, credential: Bytes) {
        self.members.push(Joined { member: member.clone(), credential });
        self.rotate_at.get_or_insert(turn.now.instant + core.key_rotation);
        core.changes.push(Change::Joined(member));
    }

    fn complete(&mut self, turn: &mut Turn<'_>, core: &mut Core, invite: &Invite) {
        core.complete(invite.ticket, Ok(()));
        core.changes.push(Change::Open);
        self.tell_roster(turn, core);
    }

    fn fail(&mut self, core: &mut Core, invite: &Invite, error: SessionError) {
        match invite.ticket {
            Some(_) => core.complete(invite.ticket, Err(error)),
            None => core.changes.push(Change::Failed(error)),
        }
    }

    fn refuse(&mut self, core: &mut Core, invite: &Invite, reason: &MlsError) {
        let (name, reason) = (Box::new(invite.wanted.clone()), reason.to_string());
        self.fail(core, invite, SessionError::Refused { name, reason });
    }

    /// Who was asked does not accept this app, or is not accepted.
    pub(super) fn refused(&mut self, core: &mut Core, packet: &Packet, reason: &str) {
        let id = packet.ids.message;
        let Some(index) = self.invite_of(id) else { return };
        let asks = match packet.session.content {
            Content::JoinReply => Asks::Join,
            _ => Asks::Discovery,
        };
        if self.requests.answer(asks, id, packet.source).is_none() {
            return;
        }
        if let Some((Some(invite), Step::Fail)) = self.step(index, Input::Refused) {
            let (name, reason) = (Box::new(invite.wanted.clone()), reason.to_owned());
            self.fail(core, &invite, SessionError::Refused { name, reason });
        }
    }

    fn acknowledged(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let id = packet.ids.message;
        for asks in [Asks::Welcome, Asks::Commit, Asks::Proposal, Asks::Roster] {
            if let Some(request) = self.requests.answer(asks, id, packet.source) {
                return self.conclude(turn, core, Outcome::Answered(request));
            }
        }
    }

    fn left(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let answered = self.requests.answer(Asks::Leave, packet.ids.message, packet.source);
        if let Some(request) = answered {
            self.conclude(turn, core, Outcome::Answered(request));
        }
    }

    /// A member wants to leave, or the control plane wants somebody removed.
    fn asked_to_remove(&mut self, core: &mut Core, packet: &Packet, name: &FullName) {
        core.send(core.answer(packet, Content::LeaveReply));
        let from = packet.source;
        if from.prefix == name.name.prefix && self.is_member(from) && !self.is_condemned(from) {
            self.tasks.push_back(Task::Remove(from, None));
        }
    }

    /// A member wants to renew its keys.
    fn proposed(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        packet: &Packet,
        originator: &FullName,
    ) {
        let known = self.is_member(packet.source) && originator.name == packet.source;
        // While another change is under way it is not answered, and comes again.
        if !known || self.running.is_some() || !self.tasks.is_empty() {
            return;
        }
        let Some(mls) = &mut core.mls else { return };
        if mls.store(&packet.payload, turn.now).is_err() {
            // It was made for a group that has changed since: another one may do.
            return core.send(core.answer(packet, Content::ControlAck { busy: true }));
        }
        core.send(core.answer(packet, Content::ControlAck { busy: false }));
        if self.members.len() == 1 {
            return self.commit(turn, core);
        }
        self.sequence += 1;
        let content = Content::Proposal { originator: Box::new(originator.clone()) };
        let proposal = core
            .to_channel(self.sequence, content)
            .with_fanout(FANOUT_CONTROL)
            .with_payload(packet.payload.clone());
        self.running = Some(Running::Propose);
        self.broadcast(turn, core, Asks::Proposal, proposal, None);
    }

    /// Renews keys: the moderator's, and those of whose proposal is stored.
    fn commit(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        self.running = Some(Running::Commit);
        let Some(mls) = &mut core.mls else { return self.finish(turn, core) };
        match mls.commit(turn.now) {
            Ok(commit) => self.send_commit(turn, core, commit, None),
            Err(error) => {
                core.changes.push(Change::Failed(SessionError::Mls(error)));
                self.finish(turn, core);
            }
        }
        core.changes.push(Change::Epoch);
    }

    fn send_commit(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        commit: Bytes,
        removed: Option<Name>,
    ) {
        self.sequence += 1;
        let content = Content::Commit;
        let mut packet = core.to_channel(self.sequence, content).with_payload(commit);
        if !core.is_group()
            && let Some(peer) = self.members.first()
        {
            packet.destination = peer.member.name.name;
            packet.fanout = 1;
        }
        self.broadcast(turn, core, Asks::Commit, packet, removed);
    }

    /// Sends to all members, and waits for all but those that are being welcomed, and those that
    /// are to be removed for their silence.
    fn broadcast(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        asks: Asks,
        packet: Packet,
        removed: Option<Name>,
    ) {
        let welcoming = |name: Name| {
            let mut invites = self.invites.iter();
            invites.any(|i| i.state == State::Welcoming && i.peer == Some(name))
        };
        let names = self.members.iter().map(|joined| joined.member.name.name);
        let awaited: Vec<Name> =
            names.filter(|name| !welcoming(*name) && !self.is_silent(*name)).collect();
        if awaited.is_empty() && removed.is_none() {
            if self.pending.is_empty() {
                self.finish(turn, core);
            }
            return;
        }
        self.pending.push((asks, packet.ids.message));
        self.ask(turn, core, asks, packet, awaited);
        if let Some(removed) = removed {
            self.requests.also_await(removed);
        }
    }

    /// Starts the next change, if none is under way.
    fn advance(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        while self.running.is_none() && self.closing_until.is_none() {
            match self.tasks.pop_front() {
                Some(Task::Add(request)) => self.add(turn, core, request),
                Some(Task::Remove(name, ticket)) => self.start_removal(turn, core, name, ticket),
                Some(Task::Rotate) if !self.members.is_empty() => self.commit(turn, core),
                Some(Task::Rotate) => {}
                None => return,
            }
        }
    }

    fn add(&mut self, turn: &mut Turn<'_>, core: &mut Core, request: u32) {
        let Some(index) = self.invite_of(request) else { return };
        let Some(mls) = &mut core.mls else { return };
        let added = match mls.add(&self.invites[index].key_package, turn.now) {
            Ok(added) => added,
            Err(MlsError::NotYetValid { .. }) if self.invites[index].attempts < REQUEST_RETRIES => {
                self.invites[index].attempts += 1;
                self.retry_at = Some(turn.now.instant + REQUEST_INTERVAL);
                return;
            }
            Err(reason) => {
                if let Some((Some(invite), Step::Fail)) = self.step(index, Input::Refused) {
                    self.refuse(core, &invite, &reason);
                }
                return;
            }
        };
        let Some((None, Step::SendWelcome)) = self.step(index, Input::Added) else { return };
        self.running = Some(Running::Add(None));
        let id = turn.draw();
        let invite = &mut self.invites[index];
        invite.request = id;
        let Some(member) = invite.member() else { return };
        let peer = member.name.name;
        let content = Content::Welcome { commit: self.sequence + 1 };
        let welcome = core.control(id, peer, content).with_payload(added.welcome);
        self.pending.push((Asks::Welcome, id));
        self.ask(turn, core, Asks::Welcome, welcome, vec![peer]);
        self.send_commit(turn, core, added.commit, None);
        self.admit(turn, core, member, added.credential);
        core.changes.push(Change::Epoch);
    }

    fn start_removal(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        name: Name,
        ticket: Option<Ticket>,
    ) {
        let is_it = |joined: &Joined| joined.member.is(name);
        let Some(index) = self.members.iter().position(is_it) else {
            return core.complete(ticket, Ok(()));
        };
        let joined = self.members.remove(index);
        self.silent.retain(|silent| *silent != name);
        core.changes.push(Change::Left(joined.member));
        self.running = Some(Running::Remove(name, ticket));
        let Some(mls) = &mut core.mls else { return self.finish(turn, core) };
        match mls.remove(&joined.credential, turn.now) {
            Ok(commit) => self.send_commit(turn, core, commit, Some(name)),
            Err(error) => {
                core.changes.push(Change::Failed(SessionError::Mls(error)));
                self.finish(turn, core);
            }
        }
        core.changes.push(Change::Epoch);
    }

    /// The running change is done.
    fn finish(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        match self.running.take() {
            Some(Running::Propose) => self.commit(turn, core),
            Some(Running::Remove(name, ticket)) => {
                let id = self.ask_to_leave(turn, core, name);
                match core.mls {
                    // It can read nothing more, whether it answers or not.
                    Some(_) => core.complete(ticket, Ok(())),
                    None => self.leaving.push((id, name, ticket)),
                }
                self.tell_roster(turn, core);
            }
            // The members that were there before have followed too.
            Some(Running::Add(Some(invite))) => self.complete(turn, core, &invite),
            Some(Running::Add(None) | Running::Commit) | None => {}
        }
    }

    /// A request has ended.
    fn conclude(&mut self, turn: &mut Turn<'_>, core: &mut Core, outcome: Outcome) {
        let (request, answered) = match outcome {
            Outcome::Answered(request) => (request, true),
            Outcome::GivenUp(request) => (request, false),
        };
        let id = request.packet.ids.message;
        match request.asks {
            Asks::Discovery | Asks::Join if !answered => self.unanswered(core, id),
            Asks::Welcome => self.welcomed(core, id, answered),
            Asks::Leave => self.leave_ended(core, id, answered),
            Asks::Commit | Asks::Proposal if !answered => self.expel_silent(core, &request),
            _ => {}
        }
        let before = self.pending.len();
        self.pending.retain(|pending| *pending != (request.asks, id));
        if self.pending.is_empty() && before > 0 {
            self.finish(turn, core);
        }
    }

    fn unanswered(&mut self, core: &mut Core, id: u32) {
        let Some(index) = self.invite_of(id) else { return };
        if let Some((Some(invite), Step::Fail)) = self.step(index, Input::GivenUp) {
            let name = Box::new(invite.wanted.clone());
            let error = match invite.ticket {
                Some(_) => SessionError::Unanswered { name },
                None => SessionError::NoAnswer { name },
            };
            self.fail(core, &invite, error);
        }
    }

    fn welcomed(&mut self, core: &mut Core, id: u32, answered: bool) {
        let Some(index) = self.invite_of(id) else { return };
        let input = if answered { Input::Welcomed } else { Input::GivenUp };
        match self.step(index, input) {
            Some((Some(invite), Step::Complete)) => {
                core.changes.push(Change::Open);
                self.running = Some(Running::Add(Some(invite)));
            }
            Some((Some(invite), Step::Expel)) => {
                if let Some(peer) = invite.peer {
                    self.expel(peer);
                }
                let name = Box::new(invite.wanted.clone());
                let error = match invite.ticket {
                    Some(_) => SessionError::Unanswered { name },
                    None => SessionError::NoAnswer { name },
                };
                self.fail(core, &invite, error);
            }
            _ => {}
        }
    }

    fn leave_ended(&mut self, core: &mut Core, id: u32, answered: bool) {
        let is_it = |(request, ..): &(u32, Name, Option<Ticket>)| *request == id;
        let Some(index) = self.leaving.iter().position(is_it) else { return };
        let (_, name, ticket) = self.leaving.remove(index);
        let result = match answered {
            true => Ok(()),
            false => Err(SessionError::Unanswered { name: core.full(name).into() }),
        };
        core.complete(ticket, result);
    }

    /// Members that did not acknowledge a change cannot follow the group any more.
    fn expel_silent(&mut self, core: &mut Core, request: &Request) {
        for name in &request.awaited {
            if self.is_member(*name) {
                let (session, member) = (core.id, *name);
                core.changes.push(Change::Failed(SessionError::Expelled { session, member }));
                self.expel(member);
            }
        }
    }

    fn expel(&mut self, name: Name) {
        self.tasks.push_back(Task::Remove(name, None));
        self.silent.push(name);
    }

    fn is_silent(&self, name: Name) -> bool {
        self.silent.contains(&name)
    }

    /// Tells the members that use this library who the members are.
    fn tell_roster(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        if !core.is_group() {
            return;
        }
        self.requests.cancel(Asks::Roster, self.roster);
        self.roster = self.roster.max(FIRST_ROSTER) + 1;
        let own = Member { name: FullName::from(&core.local), native: true };
        let all = std::iter::once(&own).chain(self.members.iter().map(|joined| &joined.member));
        let members: Vec<RosterMember> = all
            .map(|member| RosterMember { name: member.name.clone(), native: member.native })
            .collect();
        let natives = self.members.iter().filter(|joined| joined.member.native);
        for name in natives.map(|joined| joined.member.name.name).collect::<Vec<_>>() {
            let content = Content::Roster { members: members.clone() };
            let packet = core.control(self.roster, name, content);
            self.ask(turn, core, Asks::Roster, packet, vec![name]);
        }
    }

    pub(super) fn due(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        let now = turn.now.instant;
        if self.closing_until.is_some_and(|until| until <= now) {
            self.requests.cancel_all();
        }
        let (again, outcomes) = self.requests.due(now);
        again.into_iter().for_each(|packet| core.send(packet));
        outcomes.into_iter().for_each(|outcome| self.conclude(turn, core, outcome));
        if self.retry_at.is_some_and(|retry| retry <= now) {
            self.retry_at = None;
            let waiting = self.invites.iter().filter(|invite| invite.state == State::Waiting);
            let waiting: Vec<u32> = waiting.map(|invite| invite.request).collect();
            for request in waiting {
                let queued = |task: &Task| matches!(task, Task::Add(queued) if *queued == request);
                if !self.tasks.iter().any(queued) {
                    self.tasks.push_back(Task::Add(request));
                }
            }
        }
        if self.rotate_at.is_some_and(|rotate| rotate <= now) {
            self.rotate_at = Some(now + core.key_rotation);
            if core.mls.is_some() {
                self.tasks.push_back(Task::Rotate);
            }
        }
        self.advance(turn, core);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.requests.resume(now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let rotate = self.rotate_at.filter(|_| self.closing_until.is_none());
        let own = earlier(self.retry_at, earlier(rotate, self.closing_until));
        earlier(self.requests.deadline(), own)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_transition_table() {
        use Input::{Added, Found, GivenUp, Joined, KeyPackage, Known, Refused, Welcomed};
        use State::{Discovering, Joining, Waiting, Welcoming};
        let mut table = String::new();
        for state in [Discovering, Joining, Waiting, Welcoming] {
            for input in [Found, Known, Joined, KeyPackage, Added, Refused, Welcomed, GivenUp] {
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
        Discovering  Found        Joining      AskToJoin
        Discovering  Known        -            Fail
        Discovering  Refused      -            Fail
        Discovering  GivenUp      -            Fail
        Joining      Joined       -            Admit
        Joining      KeyPackage   Waiting      Queue
        Joining      Refused      -            Fail
        Joining      GivenUp      -            Fail
        Waiting      Added        Welcoming    SendWelcome
        Waiting      Refused      -            Fail
        Welcoming    Welcomed     -            Complete
        Welcoming    GivenUp      -            Expel
        ");
    }
}
