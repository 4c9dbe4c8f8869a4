//! What apps do, drawn at random.

use std::time::Duration;

use rand::RngExt;
use slim_quic::session::{Config, Kind, Publication, Reliability};
use slim_wire::session::FullName;
use slim_wire::{Name, TextName};

use super::profile::{chance, pick};
use super::world::{Accident, Happening, World};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Create(usize),
    /// In a group that this app moderates.
    Invite(usize, usize),
    Any,
    /// Of the control plane.
    Control,
}

impl World {
    /// Draws all that will be done, and all that will go wrong.
    pub(crate) fn plan(&mut self) {
        let chaos = self.profile.chaos.as_millis() as u64;
        let apps = self.profile.apps;
        for _ in 0..self.rng.random_range(1..=2) {
            let slot = self.rng.random_range(0..apps);
            let at = Duration::from_millis(self.rng.random_range(0..500));
            self.schedule(at, Happening::Operation(Operation::Create(slot)));
            for other in (0..apps).filter(|other| *other != slot) {
                let at = Duration::from_millis(500 + self.rng.random_range(0..chaos / 2));
                self.schedule(at, Happening::Operation(Operation::Invite(slot, other)));
            }
        }
        for _ in 0..self.profile.operations {
            let at = Duration::from_millis(self.rng.random_range(0..chaos));
            self.schedule(at, Happening::Operation(Operation::Any));
        }
        for _ in 0..self.profile.accidents {
            let at = Duration::from_millis(self.rng.random_range(0..chaos));
            let slot = self.rng.random_range(0..apps);
            let time = Duration::from_millis(match self.rng.random_range(0..10) {
                0 => self.rng.random_range(50_000..130_000),
                _ => self.rng.random_range(100..8_000),
            });
            let accident = match self.rng.random_range(0..7) {
                0..=2 => Accident::Partition(slot, time),
                3 => Accident::Crash(slot, time),
                4 => Accident::NodeCrash(time / 8),
                5 => Accident::Sleep(slot, time),
                _ => Accident::Clog(slot, time),
            };
            self.schedule(at, Happening::Accident(accident));
        }
        self.plan_control();
    }

    pub(crate) fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Create(slot) => self.create(slot),
            Operation::Invite(slot, other) => {
                let name = self.base(other);
                let own = self.apps[slot].name.to_name();
                let group = self.oracle.parties.iter().find(|party| {
                    party.app == own && party.open && party.initiator && party.config.is_group()
                });
                if let Some(session) = group.map(|party| party.session) {
                    self.invite(slot, session, &name);
                }
            }
            Operation::Control => self.control(),
            Operation::Any => match self.rng.random_range(0..100) {
                0..5 => {
                    let slot = self.rng.random_range(0..self.apps.len());
                    self.create(slot);
                }
                5..18 => self.invite_any(),
                18..25 => self.remove_any(),
                25..28 => self.delete_any(),
                _ => self.publish_any(),
            },
        }
    }

    fn create(&mut self, slot: usize) {
        let mut other = self.rng.random_range(0..self.apps.len() - 1);
        if other >= slot {
            other += 1;
        }
        let reliability = Reliability {
            timeout: Duration::from_millis(pick(&mut self.rng, &[200, 500, 1000, 2000])),
            max_retries: Some(self.rng.random_range(0..6)),
        };
        let mut config = match self.rng.random_range(0..10) {
            0..6 => {
                let mut config = Config::group(&"org/ns/channel".parse().expect("a name"));
                match self.rng.random_range(0..8) {
                    0 => config.reliability = None,
                    1..4 => config.reliability = Some(reliability),
                    _ => {}
                }
                config
            }
            6..9 => {
                let mut peer = self.base(other);
                if chance(&mut self.rng, 300) {
                    peer = self.apps[other].name.clone();
                }
                let mut config = Config::point_to_point(&peer);
                config.reliability = (!chance(&mut self.rng, 250)).then_some(reliability);
                config
            }
            _ => {
                let mut config = Config::anycast();
                config.reliability = (!chance(&mut self.rng, 250)).then_some(reliability);
                config
            }
        };
        config.mls = self.profile.encrypted && config.kind != Kind::Anycast;
        let name = self.apps[slot].name.to_name();
        let created = self.with(slot, |app, now| app.create(now, config.clone()));
        if let Some(created) = created {
            let session = created.expect("nothing is in the way");
            self.trace.note(self.elapsed, slot, "creates", (session, 0), u64::from(config.mls));
            self.oracle.created(name, session, config);
        }
    }

    /// The index of an open session of an app that runs.
    fn open_party(&mut self, of: impl Fn(&super::oracle::Party) -> bool) -> Option<usize> {
        let parties = self.oracle.parties.iter().enumerate();
        let open = parties.filter(|(_, party)| party.open && of(party));
        let open: Vec<usize> = open.map(|(index, _)| index).collect();
        (!open.is_empty()).then(|| pick(&mut self.rng, &open))
    }

    pub(crate) fn slot_of(&self, name: Name) -> Option<usize> {
        let runs = |app: &&super::world::App| app.endpoint.is_some();
        self.apps.iter().filter(runs).find(|app| app.name.to_name() == name).map(|app| app.slot)
    }

    fn moderated(&mut self) -> Option<(usize, u32)> {
        let party = self.open_party(|party| party.initiator && party.config.is_group())?;
        let party = &self.oracle.parties[party];
        Some((self.slot_of(party.app)?, party.session))
    }

    fn invite_any(&mut self) {
        let Some((slot, session)) = self.moderated() else { return };
        let other = self.rng.random_range(0..self.apps.len());
        let name = match self.rng.random_range(0..20) {
            0 => "org/ns/nobody".parse().expect("a name"),
            1..4 => self.apps[other].name.clone(),
            _ => self.base(other),
        };
        if other != slot {
            self.invite(slot, session, &name);
        }
    }

    fn invite(&mut self, slot: usize, session: u32, name: &TextName) {
        let own = self.apps[slot].name.to_name();
        self.oracle.invited(own, session, name.to_name());
        self.trace.note(self.elapsed, slot, "invites", (session, 0), 0);
        let now = self.now();
        let Some(endpoint) = &mut self.apps[slot].endpoint else { return };
        if let Ok(ticket) = endpoint.invite(now, session, name) {
            self.oracle.requested(own, ticket, session, None);
        }
        self.with(slot, |_, _| ());
    }

    fn remove_any(&mut self) {
        let Some((slot, session)) = self.moderated() else { return };
        let Some(endpoint) = &self.apps[slot].endpoint else { return };
        let members = endpoint.participants(session).expect("it is open");
        let index = self.rng.random_range(0..members.len());
        let Some(name) = members[index].name.to_text() else { return };
        let own = self.apps[slot].name.to_name();
        if index == 0 {
            return;
        }
        self.trace.note(self.elapsed, slot, "removes", (session, 0), 0);
        let now = self.now();
        let Some(endpoint) = &mut self.apps[slot].endpoint else { return };
        if let Ok(ticket) = endpoint.remove(now, session, &name) {
            self.oracle.requested(own, ticket, session, Some(name.to_name()));
        }
        self.with(slot, |_, _| ());
    }

    fn delete_any(&mut self) {
        let Some(party) = self.open_party(|_| true) else { return };
        let party = &self.oracle.parties[party];
        let (app, session) = (party.app, party.session);
        let Some(slot) = self.slot_of(app) else { return };
        self.trace.note(self.elapsed, slot, "deletes", (session, 0), 0);
        self.oracle.deleted(app, session);
        let _ = self.with(slot, |endpoint, now| endpoint.delete(now, session));
    }

    fn publish_any(&mut self) {
        let Some(party) = self.open_party(|_| true) else { return };
        for _ in 0..self.rng.random_range(1..8) {
            let expected = self.expected(party);
            if !self.publish(party, expected, false) {
                return;
            }
        }
    }

    /// Who is a member, as far as the publisher knows.
    fn expected(&self, party: usize) -> Vec<usize> {
        let of = &self.oracle.parties[party];
        let endpoint = self.slot_of(of.app).and_then(|slot| self.apps[slot].endpoint.as_ref());
        let members = endpoint.and_then(|endpoint| endpoint.participants(of.session).ok());
        let others = members.into_iter().flatten().filter(|member| member.native);
        let parties = others.filter_map(|member| self.oracle.party(member.name.name, of.session));
        parties.filter(|other| *other != party && self.oracle.parties[*other].open).collect()
    }

    /// Whether there was room for one more message.
    fn publish(&mut self, party: usize, expected: Vec<usize>, fresh: bool) -> bool {
        let of = &self.oracle.parties[party];
        let (app, session, config) = (of.app, of.session, of.config.clone());
        let Some(slot) = self.slot_of(app) else { return false };
        let destination = match (&config.kind, of.initiator) {
            (Kind::Anycast, true) => {
                let other = self.rng.random_range(0..self.apps.len());
                Some(FullName::from(&self.base(other)))
            }
            // Whom to answer is not told apart here.
            (Kind::Anycast, false) => return false,
            _ => None,
        };
        let padding = pick(&mut self.rng, &[0, 0, 10, 150]);
        let payload = self.oracle.payload(padding);
        let publication =
            Publication { payload: payload.clone(), destination, ..Publication::default() };
        let now = self.now();
        let Some(endpoint) = &mut self.apps[slot].endpoint else { return false };
        let Ok(number) = endpoint.publish(now, session, publication) else { return false };
        self.trace.note(self.elapsed, slot, "publishes", (session, number), 0);
        self.oracle.published(self.elapsed, (party, number), payload, expected, fresh);
        self.with(slot, |_, _| ());
        true
    }

    /// When nothing is wrong any more, each app that takes part in a session reaches all others.
    /// Returns who has no room yet.
    pub(crate) fn publish_fresh(&mut self, parties: Vec<usize>) -> Vec<usize> {
        let mut full = Vec::new();
        for party in parties {
            let of = &self.oracle.parties[party];
            let others = match of.config.kind {
                Kind::Group { .. } => self.survivors(of.session),
                Kind::PointToPoint { .. } => self.both_ends(of.session),
                Kind::Anycast => continue,
            };
            if !of.open || !others.contains(&party) || others.len() < 2 {
                continue;
            }
            let others = others.into_iter().filter(|other| *other != party).collect();
            if !self.publish(party, others, true) && self.oracle.parties[party].open {
                full.push(party);
            }
        }
        full
    }

    /// Who is a member of a group both by its own knowledge and by the moderator's.
    fn survivors(&self, session: u32) -> Vec<usize> {
        let moderates = |party: &&super::oracle::Party| {
            party.session == session && party.initiator && party.open
        };
        let Some(moderator) = self.oracle.parties.iter().find(moderates) else {
            return Vec::new();
        };
        let endpoint =
            self.slot_of(moderator.app).and_then(|slot| self.apps[slot].endpoint.as_ref());
        let members = endpoint.and_then(|endpoint| endpoint.participants(session).ok());
        let names = members.into_iter().flatten().map(|member| member.name.name);
        let parties = names.filter_map(|name| self.oracle.party(name, session));
        parties.filter(|party| self.oracle.parties[*party].open).collect()
    }

    fn both_ends(&self, session: u32) -> Vec<usize> {
        let parties = self.oracle.parties.iter().enumerate();
        let open = parties.filter(|(_, party)| party.session == session && party.open);
        open.map(|(index, _)| index).collect()
    }
}
