//! Changes of the group: one at a time, numbered, followed by all.

use bytes::Bytes;
use slim_wire::Name;
use slim_wire::session::{Content, FullName};

use super::invite::{Input, State, Step};
use super::{Joined, Moderator, Running, Task};
use crate::mls::MlsError;
use crate::session::config::{REQUEST_INTERVAL, REQUEST_RETRIES};
use crate::session::error::SessionError;
use crate::session::event::Ticket;
use crate::session::machine::{Change, Core, Turn};
use crate::session::packet::{FANOUT_CONTROL, Packet};
use crate::session::request::Asks;

impl Moderator {
    /// A member wants to renew its keys.
    pub(super) fn proposed(
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
    pub(super) fn commit(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
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

    pub(super) fn send_commit(
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
    pub(super) fn broadcast(
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
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
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

    pub(super) fn add(&mut self, turn: &mut Turn<'_>, core: &mut Core, request: u32) {
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

    pub(super) fn start_removal(
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
    pub(super) fn finish(&mut self, turn: &mut Turn<'_>, core: &mut Core) {
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
}
