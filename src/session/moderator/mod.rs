//! The side that invites: the moderator of a group, and the initiator of a point-to-point session,
//! whose only guest is the peer.
//!
//! Invitations go side by side until the guest has answered. What changes an encrypted group goes
//! one after the other, each change numbered and acknowledged by all members.

mod change;
mod invite;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use slim_wire::Name;
use slim_wire::session::{Content, FullName, RosterMember, SessionKind};

use self::invite::{Invite, State};
use super::config::REQUEST_INTERVAL;
use super::earlier;
use super::error::SessionError;
use super::event::{Member, Ticket};
use super::machine::{Change, Core, Turn};
use super::packet::Packet;
use super::request::{Asks, Outcome, Request, Requests};
use super::saved::{Role, SavedMember};

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
    /// Its session has ended without telling anybody.
    abandoned: bool,
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

    /// Nothing more is done.
    pub(super) fn abandon(&mut self) {
        self.requests.cancel_all();
        self.tasks.clear();
        self.abandoned = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        let closing = self.abandoned || self.closing_until.is_some();
        closing && !self.requests.contains(Asks::Leave)
    }

    /// Starts an invitation.
    pub(super) fn invite(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        wanted: FullName,
        ticket: Option<Ticket>,
    ) {
        let id = turn.draw();
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
            identity: Box::default(),
            key_package: Bytes::new(),
            attempts: 0,
        });
        self.ask(turn, core, Asks::Discovery, packet, Vec::new());
    }

    /// Removes a member, by its name with or without an id, and withdraws invitations of the name.
    pub(super) fn remove(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        name: FullName,
        ticket: Option<Ticket>,
    ) {
        let wanted = name.name;
        let withdrawn = self.withdraw(turn, core, wanted);
        let is_it = |joined: &&Joined| {
            let name = joined.member.name.name;
            name.prefix == wanted.prefix && (wanted.id.is_any() || name.id == wanted.id)
        };
        match self.members.iter().find(is_it).map(|joined| joined.member.name.name) {
            Some(found) => {
                self.tasks.push_back(Task::Remove(found, ticket));
                self.advance(turn, core);
            }
            None if withdrawn => core.complete(ticket, Ok(())),
            None => core.complete(ticket, Err(SessionError::NotMember { name: name.into() })),
        }
    }

    /// Asks all members to leave.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
        // So are those who take part in their own eyes, already or still.
        let guests = self.invites.iter().filter_map(|invite| invite.peer);
        let mut names: BTreeSet<Name> = guests.chain(self.requests.awaited(Asks::Leave)).collect();
        names.retain(|_| core.is_group());
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
        // Published peers do not expect to be told that a point-to-point session has ended.
        let told = |joined: &Joined| core.is_group() || joined.member.native;
        let members = std::mem::take(&mut self.members).into_iter().filter(told);
        names.extend(members.map(|joined| joined.member.name.name));
        for name in names {
            self.ask_to_leave(turn, core, name);
        }
        if self.subscribed {
            core.unsubscribe();
        }
    }

    pub(super) fn ask_to_leave(&mut self, turn: &mut Turn<'_>, core: &mut Core, name: Name) -> u32 {
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
                self.requests.cancel_all();
                self.closing_until = Some(turn.now.instant);
                core.changes.push(Change::PeerClosed);
            }
            _ => {}
        }
        self.advance(turn, core);
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

    /// A member wants to leave; nobody else can have it removed.
    fn asked_to_remove(&mut self, core: &mut Core, packet: &Packet, name: &FullName) {
        core.send(core.answer(packet, Content::LeaveReply));
        let from = packet.source;
        if from.prefix == name.name.prefix && self.is_member(from) && !self.is_condemned(from) {
            self.tasks.push_back(Task::Remove(from, None));
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
        let own = core.own();
        let all = std::iter::once(&own).chain(self.members.iter().map(|joined| &joined.member));
        let members: Vec<RosterMember> = all.map(RosterMember::from).collect();
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
