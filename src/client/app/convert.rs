//! Messages of links and packets of sessions: the same, decoded.

use bytes::Bytes;
use slim_wire::limits::PACKING_THRESHOLD_BYTES;
use slim_wire::{DecodeError, session};

use crate::client::link::Message;
use crate::session::Packet;

pub(super) fn to_message(packet: &Packet) -> Result<Message, DecodeError> {
    Ok(Message {
        source: packet.source,
        destination: packet.destination,
        fanout: packet.fanout,
        class: packet.class,
        flags: packet.flags,
        ids: packet.ids,
        session: packet.session.encode()?.into(),
        payload: packet.payload.clone(),
    })
}

pub(super) fn to_packet(message: Message) -> Result<Packet, DecodeError> {
    // A small payload must not keep the memory of all that it arrived with.
    let payload = match message.payload.len() {
        0 => Bytes::new(),
        small if small <= PACKING_THRESHOLD_BYTES => Bytes::copy_from_slice(&message.payload),
        _ => message.payload,
    };
    Ok(Packet {
        source: message.source,
        destination: message.destination,
        fanout: message.fanout,
        class: message.class,
        flags: message.flags,
        ids: message.ids,
        session: session::access(&message.session)?.to_session()?,
        payload,
    })
}
