//! Invitations: from the question who is there to a member that has its welcome.

use bytes::Bytes;
use slim_wire::session::{Content, FullName};
use slim_wire::{Flags, Name};

use super::{Joined, Moderator, Running, Task};
use crate::mls::MlsError;
use crate::session::error::SessionError;
use crate::session::event::{Member, Ticket};
use crate::session::machine::{Change, Core, Turn};
use crate::session::packet::Packet;
use crate::session::request::Asks;

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
pub(super) struct Invite {
    /// `None`: of a point-to-point session, by itself.
    pub(super) ticket: Option<Ticket>,
    pub(super) wanted: FullName,
    pub(super) state: State,
    /// Number of the request under way.
    pub(super) request: u32,
    pub(super) peer: Option<Name>,
    pub(super) native: bool,
    /// Whose tokens it sends.
    pub(super) identity: Box<str>,
    pub(super) key_package: Bytes,
    pub(super) attempts: u32,
}

impl Invite {
    /// Whoever answered.
    pub(super) fn member(&self) -> Option<Member> {
        let name = FullName { name: self.peer?, texts: self.wanted.texts.clone() };
        Some(Member { name, native: self.native, identity: self.identity.clone() })
    }
}

impl Moderator {
    pub(super) fn step(&mut self, index: usize, input: Input) -> Option<(Option<Invite>, Step)> {
        let (next, step) = step(self.invites[index].state, input)?;
        match next {
            Some(next) => {
                self.invites[index].state = next;
                Some((None, step))
            }
            None => Some((Some(self.invites.remove(index)), step)),
        }
    }

    /// Whether a reply to a request to join is of whom it was sent to.
    pub(in crate::session) fn awaits(&self, packet: &Packet) -> bool {
        let is_it = |invite: &Invite| {
            invite.request == packet.ids.message && invite.peer == Some(packet.source)
        };
        self.invites.iter().any(is_it)
    }

    pub(super) fn found(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
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

    pub(super) fn ask_to_join(
        &mut self,
        turn: &mut Turn<'_>,
        core: &mut Core,
        index: usize,
        peer: Name,
    ) {
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

    pub(super) fn joined(&mut self, turn: &mut Turn<'_>, core: &mut Core, packet: &Packet) {
        let Some(index) = self.invite_of(packet.ids.message) else { return };
        if self.invites[index].peer != Some(packet.source) {
            return;
        }
        if self.requests.answer(Asks::Join, packet.ids.message, packet.source).is_none() {
            return;
        }
        self.invites[index].native = packet.is_marked();
        self.invites[index].identity = core.who.clone();
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

    /// Ends the invitations of a name, with or without an id, that have not made it a member yet.
    /// Whether there were any.
    pub(super) fn withdraw(&mut self, turn: &mut Turn<'_>, core: &mut Core, wanted: Name) -> bool {
        let is_it = |invite: &mut Invite| {
            let name = invite.peer.unwrap_or(invite.wanted.name);
            let named =
                name.prefix == wanted.prefix && (wanted.id.is_any() || name.id == wanted.id);
            named && invite.state != State::Welcoming
        };
        let withdrawn: Vec<Invite> = self.invites.extract_if(.., is_it).collect();
        for invite in &withdrawn {
            self.requests.cancel(Asks::Discovery, invite.request);
            self.requests.cancel(Asks::Join, invite.request);
            let adds =
                |task: &Task| matches!(task, Task::Add(request) if *request == invite.request);
            self.tasks.retain(|task| !adds(task));
            // It may take part already, in its own eyes.
            if let Some(peer) = invite.peer {
                self.ask_to_leave(turn, core, peer);
            }
            let name = Box::new(invite.wanted.clone());
            self.fail(core, invite, SessionError::Withdrawn { name });
        }
        !withdrawn.is_empty()
    }

    /// Whoever was invited is a member from now on.
    pub(super) fn admit(
        &mut self,
        turn: &Turn<'_>,
        core: &mut Core,
        member: Member,
        credential: Bytes,
    ) {
        self.members.push(Joined { member: member.clone(), credential });
        self.rotate_at.get_or_insert(turn.now.instant + core.key_rotation);
        core.changes.push(Change::Joined(member));
    }

    pub(super) fn complete(&mut self, turn: &mut Turn<'_>, core: &mut Core, invite: &Invite) {
        core.complete(invite.ticket, Ok(()));
        core.changes.push(Change::Open);
        self.tell_roster(turn, core);
    }

    pub(super) fn fail(&mut self, core: &mut Core, invite: &Invite, error: SessionError) {
        match invite.ticket {
            Some(_) => core.complete(invite.ticket, Err(error)),
            None => core.changes.push(Change::Failed(error)),
        }
    }

    pub(super) fn refuse(&mut self, core: &mut Core, invite: &Invite, reason: &MlsError) {
        let (name, reason) = (Box::new(invite.wanted.clone()), reason.to_string());
        self.fail(core, invite, SessionError::Refused { name, reason });
    }

    /// Who was asked does not accept this app, or is not accepted.
    pub(in crate::session) fn refused(&mut self, core: &mut Core, packet: &Packet, reason: &str) {
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

    pub(super) fn unanswered(&mut self, core: &mut Core, id: u32) {
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

    pub(super) fn welcomed(&mut self, core: &mut Core, id: u32, answered: bool) {
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
