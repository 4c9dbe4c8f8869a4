//! What a session sends of what its app has published.

use bytes::Bytes;
use slim_wire::session::{Content, Delivery};
use slim_wire::{Class, Name, TextName};

use super::{Control, Session};
use crate::mls::MlsError;
use crate::session::error::SessionError;
use crate::session::event::Event;
use crate::session::packet::{FANOUT_DATA, Packet};
use crate::session::producer::Kept;
use crate::session::{Now, config};

impl Session {
    // Sending.

    pub(super) fn is_open(&self) -> bool {
        match &self.control {
            Control::Moderator(moderator) => moderator.is_open(),
            Control::Participant(participant) => participant.is_open(),
            Control::None => true,
        }
    }

    /// Sends what was published and may be sent now.
    pub(super) fn flush(&mut self, now: Now) {
        while !self.paused && self.closed.is_none() && self.is_open() {
            let Some(kept) = self.producer.unsent().cloned() else { return };
            let (session, message) = (self.core.id, kept.id);
            match self.data_packet(kept) {
                Ok(packet) => {
                    self.core.send(packet);
                    self.producer.sent(now.instant);
                }
                // It waits for the group to change.
                Err(MlsError::ProposalPending | MlsError::NotJoined) => return,
                Err(error) => {
                    self.producer.discard_unsent();
                    self.note(Event::Failed(SessionError::Mls(error)));
                    self.note(Event::Failed(SessionError::Undelivered { session, message }));
                }
            }
        }
    }

    pub(super) fn data_packet(&mut self, kept: Kept) -> Result<Packet, MlsError> {
        let reliable = self.core.config.reliability.is_some();
        let (delivery, class, fanout) = match (self.core.is_group(), reliable) {
            (true, _) => (Delivery::Group, Class::Reliable, FANOUT_DATA),
            (false, true) => (Delivery::Reliable, Class::Reliable, 1),
            (false, false) => (Delivery::Unreliable, Class::BestEffort, 1),
        };
        let text = match (&self.core.config.kind, &kept.destination) {
            (config::Kind::Anycast, Some(name)) => name.to_text(),
            _ => self.destination_text(),
        };
        let destination = match (self.peer, &kept.destination) {
            (Some(peer), _) => peer,
            (None, Some(name)) => name.name,
            (None, None) => text.as_ref().map_or(Name::NOBODY, TextName::to_name),
        };
        let mut packet = self.core.control(kept.id, destination, Content::Data(delivery));
        (packet.class, packet.fanout) = (class, fanout);
        packet.payload = self.seal(&mut packet, &kept)?;
        packet.session.source = Some(self.core.local.clone());
        packet.session.destination = text;
        packet.session.content_type = kept.payload_type;
        packet.session.metadata = kept.metadata;
        Ok(packet)
    }

    /// The message's payload, encrypted where that is due: once in an epoch. If each repetition had
    /// a key of its own, those who have not heard it would soon be too many keys behind to read
    /// anything more.
    pub(super) fn seal(&mut self, packet: &mut Packet, kept: &Kept) -> Result<Bytes, MlsError> {
        let Some(mls) = &mut self.core.mls else { return Ok(kept.payload.clone()) };
        packet.session.encrypted = true;
        let epoch = mls.epoch();
        if let Some(sealed) = kept.sealed(epoch) {
            return Ok(sealed.clone());
        }
        let sealed = mls.encrypt(&kept.payload)?;
        self.producer.keep_sealed(kept.id, epoch, sealed.clone());
        Ok(sealed)
    }
}
