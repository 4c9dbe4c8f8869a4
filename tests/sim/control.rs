//! The control plane, as one more actor: it has apps moderate groups, over a network that loses and
//! doubles what it says. Nobody tells it what becomes of that.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use slim_quic::session::Packet;
use slim_wire::session::{Content, FullName, Session, SessionKind};
use slim_wire::{Class, Flags, SessionIds, TextName};

use super::profile::chance;
use super::script::Operation;
use super::world::{Happening, World};

/// A group as the control plane knows it.
pub(crate) struct Managed {
    slot: usize,
    moderator: TextName,
    session: u32,
    /// Number of the last request.
    last: u32,
}

/// Of a seed, in thousandths, that there is a control plane.
const CONTROLLED: u32 = 400;

impl World {
    /// Its chances are its own: without it, a seed does what it did before there was one.
    pub(crate) fn plan_control(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ u64::MAX);
        if !chance(&mut rng, CONTROLLED) {
            return;
        }
        let chaos = self.profile.chaos.as_millis() as u64;
        let early = Duration::from_millis(rng.random_range(0..500));
        self.schedule(early, Happening::Operation(Operation::Control));
        for _ in 0..rng.random_range(4..24) {
            let at = Duration::from_millis(500 + rng.random_range(0..chaos));
            self.schedule(at, Happening::Operation(Operation::Control));
        }
    }

    /// The control plane asks for something.
    pub(crate) fn control(&mut self) {
        if self.managed.is_empty() || chance(&mut self.rng, 50) {
            let slot = self.rng.random_range(0..self.apps.len());
            let session = self.rng.next_u32() % (u32::MAX - 1000);
            let moderator = self.apps[slot].name.clone();
            self.managed.push(Managed { slot, moderator, session, last: self.rng.next_u32() });
            return self.ask_to_create(self.managed.len() - 1);
        }
        let group = self.rng.random_range(0..self.managed.len());
        let other = self.rng.random_range(0..self.apps.len());
        let name = match chance(&mut self.rng, 100) {
            true => "org/ns/nobody".parse().expect("a name"),
            false => self.base(other),
        };
        let participant = Some(Box::new(FullName::from(&name)));
        match self.rng.random_range(0..20) {
            0 => self.ask_to_create(group),
            1 => {
                let content = Content::LeaveRequest { participant: None, delete_group: true };
                self.ask(group, content);
            }
            2..8 => {
                self.ask(group, Content::LeaveRequest { participant, delete_group: false });
            }
            _ => self.ask(group, Content::DiscoveryRequest { requester: None, participant }),
        }
    }

    fn ask_to_create(&mut self, group: usize) {
        let channel: TextName = format!("org/ns/managed{group}").parse().expect("a name");
        let content = Content::JoinRequest {
            channel: Box::new(FullName::from(&channel)),
            moderator: Box::new(FullName::from(&self.managed[group].moderator)),
            mls: self.profile.encrypted,
            as_moderator: true,
        };
        self.ask(group, content);
    }

    fn ask(&mut self, group: usize, content: Content) {
        let Managed { slot, moderator, session, last } = &mut self.managed[group];
        *last = last.wrapping_add(1);
        let controller: TextName = "controller/controller/controller/0".parse().expect("a name");
        let packet = Packet {
            source: controller.to_name(),
            destination: moderator.to_name(),
            fanout: 1,
            class: Class::Control,
            flags: Flags::empty(),
            ids: SessionIds { session: *session, message: *last },
            session: Session {
                kind: SessionKind::Group,
                content,
                identity: Some("secret:control-plane".to_owned()),
                ..Session::default()
            },
            payload: Bytes::new(),
        };
        let slot = *slot;
        self.deliver(slot, packet);
    }
}
