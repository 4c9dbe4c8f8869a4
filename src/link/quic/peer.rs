use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quinn_proto::{Connection, Dir, StreamEvent, StreamId, VarInt};
use slim_config::Secret;
use slim_wire::limits::LANES;
use slim_wire::{CloseCode, DecodeError, Encoding, FrameHeader, FrameKind, Frames, SessionIds};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::control::{Control, payload_of, texts_of};
use super::exchange::{Telling, space_of};
use super::greeting::{Refused, flags_of, own_hello};
use super::ingress::Ingress;
use super::lane::{Inbound, LaneStopped, Outbound, Read, read_stream};
use crate::datapath::{Core, DATAGRAMS, Fate, LinkId, NodeLink, RefuseReason};
use crate::link::gate::Gate;
use crate::link::host::Host;
use crate::link::incident::Incident;

/// One connection, and the link that it becomes once both sides have said hello.
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// Who began the connection.
    pub(super) origin: Origin,
    pub(super) control: Control,
    /// What the other node is told, if both exchange names.
    pub(super) telling: Option<Telling>,
    control_readable: bool,
    /// The peer has ended the control stream, the last of its streams: it is done.
    leaving: bool,
    inbound: Box<[Inbound]>,
    readable: u8,
    outbound: Outbound,
    datagrams_readable: bool,
    datagram_bytes: usize,
    /// When the door looks at this peer next, if nothing arrives before.
    pub(super) armed: Option<Instant>,
    /// Kept for as long as the connection lasts.
    pub(super) places: Vec<OwnedSemaphorePermit>,
}

pub(super) enum State {
    /// Until both have said hello.
    Greeting { until: Instant },
    /// Until it is told that it is refused.
    Refused(Box<Refused>),
    /// Messages flow.
    Open(LinkId),
    /// What was written is on its way; then the connection is closed.
    Finishing { until: Instant },
    /// Closed by one of the two.
    Ended,
}

/// Who began a connection.
pub(super) enum Origin {
    /// The peer.
    Accepted,
    /// This node, to have another do its part for some names.
    Dialed {
        /// What is to be agreed.
        kind: NodeLink,
        /// What the peer is shown.
        credentials: Option<Secret>,
        /// Told when it is a link.
        opened: Option<oneshot::Sender<(LinkId, NodeLink)>>,
        /// Told how the connection ended.
        ended: Option<oneshot::Sender<LinkEnd>>,
    },
}

/// How a link that this node began has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEnd {
    /// Whether it was open before.
    pub was_open: bool,
    /// Why it ended.
    pub reason: String,
}

/// Why a connection is closed from here.
pub(super) struct Fault {
    pub(super) incident: Option<Incident>,
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(incident: Incident, code: CloseCode, reason: impl ToString) -> Self {
        Self { incident: Some(incident), code, reason: reason.to_string() }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::new(Incident::ProtocolBroken, CloseCode::Protocol, error)
    }
}

impl From<LaneStopped> for Fault {
    fn from(_: LaneStopped) -> Self {
        let reason = "stream: expected to be taken, got a stop";
        Self::new(Incident::ProtocolBroken, CloseCode::Protocol, reason)
    }
}

/// What a turn of a peer's work needs.
pub(super) struct Turn<'a> {
    pub(super) host: &'a Host,
    /// This node's number.
    pub(super) node: u64,
    /// What has to be shown at the connection's socket; `None` for connections that this node
    /// begins.
    pub(super) gate: Option<&'a Gate>,
    /// Whether names are exchanged with nodes that ask for it at the connection's socket.
    pub(super) exchanges: bool,
    pub(super) now: Instant,
}

/// Clients of release 0.6 have 64-bit ids, and native ones reach them.
pub(super) const WIDE_ID: &str = "id of a name: expected below 18446744073709551615, or all ones";

/// How often a paused lane looks whether its target has caught up.
const PAUSE_STEP: Duration = Duration::from_millis(1);

/// How long what was written last may take to arrive.
const LINGER: Duration = Duration::from_secs(3);

impl Peer {
    pub(super) fn new(
        remote: SocketAddr,
        origin: Origin,
        place: Option<OwnedSemaphorePermit>,
        turn: &Turn<'_>,
    ) -> Self {
        Self {
            remote,
            state: State::Greeting { until: turn.now + turn.host.limits.handshake },
            origin,
            control: Control::new(),
            telling: None,
            control_readable: false,
            leaving: false,
            inbound: (0..LANES).map(|_| Inbound::new(turn.host)).collect(),
            readable: 0,
            outbound: Outbound::default(),
            datagrams_readable: false,
            datagram_bytes: 0,
            armed: None,
            places: place.into_iter().collect(),
        }
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        match self.state {
            State::Open(link) => Some(link),
            _ => None,
        }
    }

    pub(super) fn was_accepted(&self) -> bool {
        matches!(self.origin, Origin::Accepted)
    }

    pub(super) fn is_greeting(&self) -> bool {
        matches!(self.state, State::Greeting { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The connection is over, and with it its link; nothing is to be done for it any more.
    /// Whoever began it is told.
    pub(super) fn end(&mut self, reason: &str, host: &Host) {
        let was = std::mem::replace(&mut self.state, State::Ended);
        if let State::Open(link) = was {
            host.core.borrow_mut().close_link(link);
        }
        // QUIC keeps a connection for a while after its end; what has arrived of it need not stay.
        self.inbound = Box::default();
        let was_open = matches!(was, State::Open(_) | State::Finishing { .. });
        if let Origin::Dialed { ended, .. } = &mut self.origin
            && let Some(ended) = ended.take()
        {
            let _ = ended.send(LinkEnd { was_open, reason: reason.to_owned() });
        }
    }

    /// When this peer has to be looked at even if nothing arrives.
    pub(super) fn deadline(&self, turn: &Turn<'_>) -> Option<Instant> {
        match self.state {
            State::Greeting { until } | State::Finishing { until } => Some(until),
            State::Refused(ref refused) => Some(refused.until),
            State::Ended => None,
            // It is this node that reads no further.
            State::Open(_) if turn.host.stop_reading.get() => None,
            State::Open(_) => {
                let lanes = self.inbound.iter();
                let of = |lane: &Inbound| match (&lane.pause, lane.begun) {
                    (Some(_), _) => Some(turn.now + PAUSE_STEP),
                    (None, begun) => begun.map(|begun| begun + turn.host.limits.partial_message),
                };
                lanes.filter_map(of).min()
            }
        }
    }

    /// The handshake is complete.
    pub(super) fn connected(
        &mut self,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        if let Origin::Dialed { kind, credentials, .. } = &self.origin {
            self.control.stream = connection.streams().open(Dir::Bi);
            let hello = own_hello(flags_of(*kind), credentials.as_ref(), turn)?;
            self.control.send_hello(&hello);
        }
        Ok(())
    }

    pub(super) fn stream_event(
        &mut self,
        connection: &mut Connection,
        event: StreamEvent,
    ) -> Result<(), Fault> {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                if let Some(id) = connection.streams().accept(Dir::Bi) {
                    self.control.stream.get_or_insert(id);
                    self.control_readable = true;
                }
            }
            StreamEvent::Opened { dir: Dir::Uni } => self.accept_lanes(connection)?,
            StreamEvent::Readable { id } if id.dir() == Dir::Bi => self.control_readable = true,
            StreamEvent::Readable { id } => self.readable |= lane_bit(id),
            StreamEvent::Writable { id } => {
                if !self.outbound.unblock(id) {
                    self.control.unblock();
                }
            }
            StreamEvent::Finished { id } => self.outbound.finished(id),
            StreamEvent::Stopped { id, .. } if matches!(self.state, State::Finishing { .. }) => {
                self.outbound.finished(id);
            }
            StreamEvent::Stopped { .. } => return Err(LaneStopped.into()),
            StreamEvent::Available { .. } => {}
        }
        Ok(())
    }

    fn accept_lanes(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            let lane = usize::try_from(id.index()).unwrap_or(usize::MAX);
            let Some(inbound) = self.inbound.get_mut(lane) else {
                let (field, limit) = ("data streams", LANES.into());
                let got = id.index().saturating_add(1);
                return Err(DecodeError::TooLarge { field, limit, got }.into());
            };
            inbound.stream = Some(id);
            self.readable |= lane_bit(id);
        }
        Ok(())
    }

    pub(super) fn datagrams_arrived(&mut self) {
        self.datagrams_readable = true;
    }

    /// Reads what has arrived. Returns whether more is left to read at once.
    pub(super) fn read(
        &mut self,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<bool, Fault> {
        let mut more = false;
        if self.control_readable && self.control.may_read() {
            more |= self.read_control(connection, turn)?;
        }
        match self.state {
            State::Open(link) if turn.host.stop_reading.get() => {
                self.forward_held(link, turn);
                return Ok(false);
            }
            State::Open(link) => {
                more |= self.read_lanes(connection, link, turn)?;
                self.read_datagrams(connection, link, turn)?;
                if self.leaving && self.inbound.iter().all(Inbound::is_done) {
                    // The peer waits for this, to know that nothing it sent is lost.
                    let (code, reason) = (CloseCode::Done, String::new());
                    return Err(Fault { incident: None, code, reason });
                }
            }
            State::Greeting { until } if turn.now >= until => {
                let reason = "hello: expected within limits.handshake_ms, got none";
                return Err(Fault::new(Incident::HandshakeTimeout, CloseCode::Timeout, reason));
            }
            State::Refused(ref refused) if turn.now >= refused.until => {
                self.decide(connection, turn)?;
            }
            State::Greeting { .. } | State::Refused(_) if turn.host.finish.is_cancelled() => {
                let (code, reason) = (CloseCode::Stopping, "this node stops".into());
                return Err(Fault { incident: None, code, reason });
            }
            State::Finishing { until } if turn.now >= until => {
                // It was too slow to take what was written last.
                turn.host.core.borrow().counters().evicted.add(1);
                let (code, reason) = (CloseCode::Stopping, "this node stops".into());
                return Err(Fault { incident: None, code, reason });
            }
            State::Greeting { .. } | State::Refused(_) | State::Finishing { .. } | State::Ended => {
            }
        }
        Ok(more)
    }

    fn read_control(
        &mut self,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<bool, Fault> {
        let Some(id) = self.control.stream else {
            return Ok(false);
        };
        let read = read_stream(connection, id, &mut self.control.frames)?;
        self.control_readable = read == Read::More;
        self.leaving |= read == Read::Ended;
        while let Some(run) = self.control.frames.next_run()? {
            for (header, pieces) in Frames::of(&run.body) {
                let encoding = space_of(&header, self.telling.is_some())?;
                let payload = payload_of(&header, &pieces);
                match (header.kind()?, &self.state) {
                    (FrameKind::Hello, State::Greeting { .. }) => {
                        self.greet(&payload, connection, turn)?;
                    }
                    (FrameKind::Subscribe | FrameKind::Unsubscribe, State::Open(link)) => {
                        let link = *link;
                        self.change_subscription(link, encoding, &header, &payload, turn)?;
                    }
                    (FrameKind::Ack, State::Open(link)) if self.telling.is_some() => {
                        let link = *link;
                        self.answered(link, &header, &payload, turn)?;
                    }
                    (kind, _) => {
                        return Err(DecodeError::Unexpected {
                            field: "kind on the control stream",
                            expected: "one hello (4), then subscribe (2) or unsubscribe (3)",
                            got: kind as u64,
                        }
                        .into());
                    }
                }
            }
        }
        if self.control.frames.settle() > 0 && read == Read::Ended {
            let reason = "control frame: expected its end, got the end of its stream";
            return Err(Fault::new(Incident::ProtocolBroken, CloseCode::Protocol, reason));
        }
        if let Some(link) = self.link() {
            self.submit(link, &mut turn.host.core.borrow_mut());
        }
        Ok(self.control_readable)
    }

    fn answered(
        &mut self,
        link: LinkId,
        header: &FrameHeader,
        payload: &[u8],
        turn: &Turn<'_>,
    ) -> Result<(), DecodeError> {
        let Some(telling) = &mut self.telling else {
            return Ok(());
        };
        let refused = header.is_error().then_some(payload);
        telling.answered(link, header.ids().message, refused, (turn.host, &self.remote))
    }

    fn change_subscription(
        &mut self,
        link: LinkId,
        encoding: Encoding,
        header: &FrameHeader,
        payload: &[u8],
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        let SessionIds { session: recency, message: request } = header.ids();
        let name = header.destination();
        let mut core = turn.host.core.borrow_mut();
        if encoding == Encoding::Native && name.id.to_u64().is_none() {
            core.counters().refuse(RefuseReason::Invalid);
            self.control.acknowledge(request, Some(WIDE_ID));
            return Ok(());
        }
        if header.kind()? == FrameKind::Unsubscribe {
            core.unsubscribe(link, encoding, name);
        } else {
            let texts = texts_of(payload, &name);
            let subscribed = match self.telling {
                Some(_) => core.subscribe_told(link, encoding, name, texts, recency),
                None => core.subscribe(link, encoding, name, texts),
            };
            if let Err(error) = subscribed {
                core.counters().refuse(error.refuse_reason());
                self.control.acknowledge(request, Some(&error.to_string()));
                turn.host.report(Incident::MessageRefused, &self.remote, &error);
                return Ok(());
            }
        }
        self.control.waiting.push(request);
        Ok(())
    }

    /// Answers what all cores have applied, and hands over what has come since.
    fn submit(&mut self, link: LinkId, core: &mut Core) {
        while core.is_settled(link) {
            for request in std::mem::take(&mut self.control.submitted) {
                self.control.acknowledge(request, None);
            }
            if self.control.waiting.is_empty() {
                // What this node itself has noted for the link meanwhile.
                return core.submit(link);
            }
            self.control.submitted = std::mem::take(&mut self.control.waiting);
            core.submit(link);
        }
    }

    fn read_lanes(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        turn: &Turn<'_>,
    ) -> Result<bool, Fault> {
        let mut more = false;
        for (lane, inbound) in (0..LANES).zip(&mut self.inbound) {
            let bit = 1 << lane;
            let paused = inbound.pause.is_some() || inbound.held.is_some();
            if self.readable & bit == 0 && !paused && inbound.begun.is_none() {
                continue;
            }
            let mut core = turn.host.core.borrow_mut();
            let mut lane = Ingress { link, lane, remote: &self.remote, core: &mut core, turn };
            if !lane.resume(inbound) {
                continue;
            }
            if self.readable & bit != 0
                && let Some(id) = inbound.stream
            {
                let read = read_stream(connection, id, &mut inbound.frames);
                match read.map_err(|error| lane.undecodable(error))? {
                    Read::More => more = true,
                    Read::Drained => self.readable &= !bit,
                    Read::Ended => {
                        self.readable &= !bit;
                        inbound.stream = None;
                    }
                }
            }
            lane.forward_all(inbound)?;
            more |= self.readable & bit != 0 && inbound.pause.is_none();
        }
        Ok(more)
    }

    /// What lanes held back was read before the node stopped reading.
    fn forward_held(&mut self, link: LinkId, turn: &Turn<'_>) {
        let mut core = turn.host.core.borrow_mut();
        for envelope in self.inbound.iter_mut().filter_map(|inbound| inbound.held.take()) {
            core.forward(link, &envelope, turn.now);
        }
    }

    fn read_datagrams(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        if !std::mem::take(&mut self.datagrams_readable) {
            return Ok(());
        }
        let mut core = turn.host.core.borrow_mut();
        while let Some(datagram) = connection.datagrams().recv() {
            let mut lane = Ingress { link, lane: 0, remote: &self.remote, core: &mut core, turn };
            lane.forward_datagram(datagram)?;
        }
        Ok(())
    }

    /// Writes what waits for the peer.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        turn: &Turn<'_>,
    ) -> Result<(), Fault> {
        if let State::Open(link) = self.state {
            let mut core = turn.host.core.borrow_mut();
            self.submit(link, &mut core);
            if let Some(telling) = &mut self.telling {
                telling.tell(link, &mut core, &mut self.control);
            }
            self.write_lanes(connection, link, &mut core)?;
            match core.fate(link) {
                Fate::Open => {}
                Fate::Evicted => {
                    // The datapath logs it, with the name.
                    let (code, reason) = (CloseCode::TooSlow, "too slow to take what is sent");
                    return Err(Fault { incident: None, code, reason: reason.into() });
                }
                Fate::Finished if self.outbound.is_blocked() => {}
                Fate::Finished => {
                    core.close_link(link);
                    self.state = State::Finishing { until: turn.now + LINGER };
                }
            }
        }
        self.control.write(connection)?;
        if matches!(self.state, State::Finishing { .. }) && self.outbound.finish(connection) {
            let (code, reason) = (CloseCode::Stopping, "this node stops".into());
            return Err(Fault { incident: None, code, reason });
        }
        Ok(())
    }

    fn write_lanes(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        core: &mut Core,
    ) -> Result<(), Fault> {
        let pop = |lane| core.pop(link, lane).map(|chunk| chunk.bytes);
        let mut written = self.outbound.write(connection, pop)?;
        let longest = connection.datagrams().max_size().unwrap_or(0);
        if longest != std::mem::replace(&mut self.datagram_bytes, longest) {
            core.allow_datagrams(link, longest);
        }
        while connection.datagrams().send_buffer_space() >= longest.max(1) {
            let Some(chunk) = core.pop(link, DATAGRAMS) else {
                break;
            };
            // One that was queued when the path took longer ones is lost, as best effort may be.
            let _ = connection.datagrams().send(chunk.bytes, false);
            written = true;
        }
        core.note_written(link, written, self.outbound.is_blocked());
        Ok(())
    }

    /// Closes the connection from here.
    pub(super) fn close(&mut self, connection: &mut Connection, fault: &Fault, now: Instant) {
        const REASON_BYTES: usize = 200;
        let reason: String = fault.reason.chars().take(REASON_BYTES).collect();
        connection.close(now, VarInt::from_u32(fault.code as u32), reason.into());
    }
}

fn lane_bit(id: StreamId) -> u8 {
    u8::try_from(id.index()).ok().and_then(|lane| 1_u8.checked_shl(lane.into())).unwrap_or(0)
}
