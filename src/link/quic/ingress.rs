use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use slim_compat_grpc::{D6, D7, D20, Dialect, P, Routed, prepare};
use slim_wire::{
    CloseCode, DecodeError, Encoding, Envelope, FrameReader, Frames, Header, Kind, Run,
};

use super::control::payload_of;
use super::lane::{Inbound, Pause};
use super::peer::{Fault, Turn, WIDE_ID};
use crate::datapath::{Core, Forwarded, LinkId, Port, RefuseReason};
use crate::link::incident::Incident;

/// One lane's way into the datapath.
pub(super) struct Ingress<'a> {
    pub(super) link: LinkId,
    pub(super) lane: u8,
    pub(super) remote: &'a SocketAddr,
    pub(super) core: &'a mut Core,
    pub(super) turn: &'a Turn<'a>,
}

impl Ingress<'_> {
    /// Whether the lane may be read; what was held back during a pause goes first.
    pub(super) fn resume(&mut self, inbound: &mut Inbound) -> bool {
        if !inbound.may_go_on(self.core.marks().pause, self.turn.now) {
            return false;
        }
        if let Some(envelope) = inbound.held.take() {
            self.forward(inbound, &envelope);
        }
        inbound.pause.is_none()
    }

    /// Forwards every whole frame that has arrived, unless the lane is paused first.
    pub(super) fn forward_all(&mut self, inbound: &mut Inbound) -> Result<(), Fault> {
        while let Some(run) = inbound.frames.next_run().map_err(|error| self.undecodable(error))? {
            inbound.begun = None;
            let Some(envelope) = self.envelope(run)? else {
                continue;
            };
            if inbound.flow.may_wait(envelope.len())
                && let Some(port) = self.core.full_target(self.link, &envelope)
            {
                inbound.held = Some(envelope);
                self.pause(inbound, port);
                return Ok(());
            }
            self.forward(inbound, &envelope);
            inbound.frames.reuse(envelope.body);
            if inbound.pause.is_some() {
                return Ok(());
            }
        }
        if !inbound.settle(self.turn.now) {
            let reason = "no room for more begun messages (limits.partial_bytes)";
            return Err(Fault::new(Incident::MessageRefused, CloseCode::Limit, reason));
        }
        let limit = self.turn.host.limits.partial_message;
        if inbound.begun.is_some_and(|begun| self.turn.now >= begun + limit) {
            let reason = "frame: expected to be complete within limits.partial_message_ms";
            return Err(Fault::new(Incident::MessageStalled, CloseCode::Timeout, reason));
        }
        if inbound.stream.is_none() && inbound.begun.take().is_some() {
            inbound.frames = FrameReader::new(self.turn.host.limits.message_bytes);
            self.core.counters().refuse(RefuseReason::Undecodable);
            let reason = "frame: expected its end, got the end of its lane";
            return Err(Fault::new(Incident::ProtocolBroken, CloseCode::Protocol, reason));
        }
        Ok(())
    }

    fn forward(&mut self, inbound: &mut Inbound, envelope: &Envelope) {
        let forwarded = self.deliver(envelope);
        if let Some(port) = inbound.flow.wait_for(forwarded, envelope.len()) {
            self.pause(inbound, port);
        }
    }

    fn deliver(&mut self, envelope: &Envelope) -> Forwarded {
        let forwarded = self.core.forward(self.link, envelope, self.turn.now);
        if let Forwarded::Nowhere { elsewhere: Some(space) } = forwarded {
            self.turn.host.report_elsewhere(self.remote, &envelope.header, space);
        }
        forwarded
    }

    fn pause(&mut self, inbound: &mut Inbound, port: Arc<Port>) {
        self.core.counters().pauses.add(1);
        let until = self.turn.now + self.turn.host.limits.pause;
        inbound.pause = Some(Pause { port, until });
    }

    pub(super) fn forward_datagram(&mut self, datagram: Bytes) -> Result<(), Fault> {
        let mut frames = FrameReader::new(datagram.len());
        frames.push(datagram)?;
        while let Some(run) = frames.next_run().map_err(|error| self.undecodable(error))? {
            if let Some(envelope) = self.envelope(run)? {
                self.deliver(&envelope);
            }
        }
        if frames.settle() > 0 {
            self.core.counters().refuse(RefuseReason::Undecodable);
            let reason = "datagram: expected whole frames, got a part of one";
            return Err(Fault::new(Incident::ProtocolBroken, CloseCode::Protocol, reason));
        }
        Ok(())
    }

    /// Checks all that a node goes by; `None` if the run is refused and the link goes on.
    #[inline]
    fn envelope(&mut self, run: Run) -> Result<Option<Envelope>, Fault> {
        let checked = run.header.check_publish().and_then(|()| run.header.header(self.lane));
        let header = match checked {
            Ok(header) => header,
            Err(error) => return Err(self.undecodable(error)),
        };
        if header.encoding != Encoding::Native {
            return self.foreign(&header, &run);
        }
        let wide = |name: slim_wire::Name| name.id.to_u64().is_none();
        if wide(header.destination) || wide(header.source) {
            self.refuse(run.frames, &WIDE_ID);
            return Ok(None);
        }
        Ok(Some(Envelope { header, messages: run.frames, body: run.body }))
    }

    /// Messages of a published dialect, from another node: read as if its client were here, since
    /// one that its receivers cannot read would cut them off.
    fn foreign(&mut self, header: &Header, run: &Run) -> Result<Option<Envelope>, Fault> {
        let from_node = self.core.port(self.link).is_some_and(|port| port.is_node());
        if !from_node {
            let expected = "native (0), or from nodes any";
            let (field, got) = ("encoding", header.encoding as u64);
            return Err(self.undecodable(DecodeError::Unexpected { field, expected, got }));
        }
        for (frame, pieces) in Frames::of(&run.body) {
            let body = payload_of(&frame, &pieces);
            match published(header, body) {
                Ok(Some(envelope)) => _ = self.deliver(&envelope),
                Ok(None) => self.refuse(1, &"message: expected a publish without steering fields"),
                Err(error) => self.refuse(1, &error),
            }
        }
        Ok(None)
    }

    /// A frame that is none, after which nothing of the link can be trusted.
    #[cold]
    pub(super) fn undecodable(&self, error: DecodeError) -> Fault {
        self.core.counters().refuse(RefuseReason::Undecodable);
        error.into()
    }

    #[cold]
    fn refuse(&self, messages: u32, why: &dyn std::fmt::Display) {
        (0..messages).for_each(|_| self.core.counters().refuse(RefuseReason::Invalid));
        self.turn.host.report(Incident::MessageRefused, self.remote, why);
    }
}

/// A publish of a published dialect, as this node forwards it; `None` if it is another message.
fn published(header: &Header, body: Bytes) -> Result<Option<Envelope>, DecodeError> {
    let inbound = match header.encoding {
        Encoding::P => P::read(&body)?,
        Encoding::D6 => D6::read(&body)?,
        Encoding::D7 => D7::read(&body)?,
        Encoding::D20 => D20::read(&body)?,
        Encoding::Native => return Ok(None),
    };
    let publish = |read: &Routed<'_>| !read.steers && read.header.kind == Kind::Publish;
    let Some(read) = inbound.routed().filter(publish) else {
        return Ok(None);
    };
    let header = Header { ttl: header.ttl, ..read.header };
    Ok(Some(match header.encoding {
        Encoding::D20 => Envelope { header, messages: 1, body: prepare(&body, header.ttl)? },
        _ => Envelope::single(header, body),
    }))
}
