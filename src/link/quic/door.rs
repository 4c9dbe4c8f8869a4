//! The native side of a core, without I/O: what connections of its sockets mean to the datapath.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Event, Incoming, ServerConfig,
    TransportErrorCode,
};
use slim_wire::CloseCode;
use tokio::sync::OwnedSemaphorePermit;

use super::peer::{Fault, Origin, Peer, Turn};
use super::transport::{Admit, Application};
use crate::datapath::LinkId;
use crate::link::gate::{Gate, Known};
use crate::link::host::Host;
use crate::link::incident::Incident;
use crate::policy::Principal;

/// One connection of a core: which of its sockets, and which connection there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// The number of the socket, from 0.
    pub socket: usize,
    /// The number of the connection at that socket's transport.
    pub connection: usize,
}

/// The connections of one core's sockets, each a link once both sides have said hello.
pub struct Door {
    pub(super) host: Rc<Host>,
    /// This node's number.
    node: u64,
    peers: Vec<Vec<Option<Box<Peer>>>>,
    /// By what those who come in at a socket are served; none for sockets of this core's own.
    entrances: Vec<Option<Entrance>>,
    links: HashMap<LinkId, PeerId, foldhash::fast::FixedState>,
    deadlines: BTreeSet<(Instant, PeerId)>,
    /// Accepted connections that have not said hello.
    greeting: usize,
    /// The place of the connection that is being accepted.
    place: Option<OwnedSemaphorePermit>,
    ready: Vec<LinkId>,
}

/// What a server shows to those who come, and what they have to show.
pub struct Entrance {
    /// How they are served, which may be replaced for those that come later.
    pub config: Arc<ArcSwap<ServerConfig>>,
    /// What they have to show.
    pub gate: Arc<Gate>,
    /// Whether names are exchanged with nodes that ask for it.
    pub exchanges: bool,
}

/// With so many handshakes under way on a core, a newcomer has to prove its address before
/// anything is kept for it.
const UNPROVEN_HANDSHAKES: usize = 64;

impl Door {
    /// A door without connections; `node` is the number by which other nodes know this one.
    pub fn new(host: Rc<Host>, node: u64) -> Self {
        Self {
            host,
            node,
            peers: Vec::new(),
            entrances: Vec::new(),
            links: HashMap::default(),
            deadlines: BTreeSet::new(),
            greeting: 0,
            place: None,
            ready: Vec::new(),
        }
    }

    /// The application of the core's socket number `socket`.
    pub fn at(&mut self, socket: usize) -> AtSocket<'_> {
        if self.peers.len() <= socket {
            self.peers.resize_with(socket + 1, Vec::new);
            self.entrances.resize_with(socket + 1, || None);
        }
        AtSocket { door: self, socket }
    }

    /// Lets clients in at a socket.
    pub fn open(&mut self, socket: usize, entrance: Entrance) {
        self.at(socket);
        self.entrances[socket] = Some(entrance);
    }

    /// Connections that have something to do though nothing arrived for them.
    pub fn due(&mut self, now: Instant, mut touch: impl FnMut(PeerId)) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(peer) =
                self.peers[id.socket].get_mut(id.connection).and_then(Option::as_mut)
            {
                peer.armed = None;
            }
            touch(id);
        }
    }

    /// Sees to it that the peer is looked at in time. One entry is enough: a deadline that is
    /// later now leads to a look in vain, and that to the next entry.
    fn arm(&mut self, id: PeerId, deadline: Option<Instant>) {
        let peer = self.peers[id.socket].get_mut(id.connection).and_then(Option::as_mut);
        let (Some(peer), Some(deadline)) = (peer, deadline) else {
            return;
        };
        if peer.armed.is_none_or(|armed| deadline < armed) {
            if let Some(armed) = peer.armed.replace(deadline) {
                self.deadlines.remove(&(armed, id));
            }
            self.deadlines.insert((deadline, id));
        }
    }

    /// Connections whose links have something to write.
    pub fn ready(&mut self, mut touch: impl FnMut(PeerId)) {
        self.host.core.borrow_mut().take_ready(&mut self.ready);
        for link in self.ready.drain(..) {
            if let Some(id) = self.links.get(&link) {
                touch(*id);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether no connection is left that is not closed.
    pub(super) fn is_empty(&self) -> bool {
        self.peers.iter().flatten().flatten().all(|peer| peer.has_ended())
    }

    /// Every connection that is not closed.
    pub(super) fn all(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().enumerate().flat_map(|(socket, peers)| {
            peers.iter().enumerate().filter_map(move |(connection, peer)| {
                let open = peer.as_ref().is_some_and(|peer| !peer.has_ended());
                open.then_some(PeerId { socket, connection })
            })
        })
    }

    /// Notes a connection that this node has begun.
    pub(super) fn dialed(&mut self, id: PeerId, remote: SocketAddr, origin: Origin, now: Instant) {
        let place = self.host.places.take_connection();
        self.insert(id, remote, origin, place, now);
    }

    fn insert(
        &mut self,
        id: PeerId,
        remote: SocketAddr,
        origin: Origin,
        place: Option<OwnedSemaphorePermit>,
        now: Instant,
    ) {
        let host = Rc::clone(&self.host);
        let turn = Turn { host: &host, node: self.node, gate: None, exchanges: false, now };
        let accepted = matches!(origin, Origin::Accepted);
        let peer = Peer::new(remote, origin, place, &turn);
        let deadline = peer.deadline(&turn);
        let peers = &mut self.peers[id.socket];
        if peers.len() <= id.connection {
            peers.resize_with(id.connection + 1, || None);
        }
        peers[id.connection] = Some(Box::new(peer));
        self.arm(id, deadline);
        self.greeting += usize::from(accepted);
    }

    /// Lets a connection's peer do a part of its turn, and minds what came of it.
    fn with_peer<T: Default>(
        &mut self,
        id: PeerId,
        connection: &mut Connection,
        now: Instant,
        work: impl FnOnce(&mut Peer, &mut Connection, &Turn<'_>) -> Result<T, Fault>,
    ) -> T {
        let Some(peer) = self.peers[id.socket].get_mut(id.connection).and_then(Option::as_mut)
        else {
            return T::default();
        };
        if peer.has_ended() {
            return T::default();
        }
        let entrance = self.entrances[id.socket].as_ref();
        let gate = entrance.map(|entrance| &*entrance.gate);
        let exchanges = entrance.is_some_and(|entrance| entrance.exchanges);
        let turn = Turn { host: &self.host, node: self.node, gate, exchanges, now };
        let (was_greeting, link) = (peer.is_greeting(), peer.link());
        let done = work(peer, connection, &turn);
        let done = match done {
            Ok(done) => done,
            Err(fault) => {
                peer.close(connection, &fault, now);
                if let Some(incident) = fault.incident {
                    let port = link.and_then(|link| self.host.core.borrow().port(link).cloned());
                    let principal =
                        port.as_ref().map_or(&Principal::Nobody, |port| port.principal());
                    self.host.report(incident, &Known(peer.remote, principal), &fault.reason);
                }
                peer.end(&fault.reason, &self.host);
                T::default()
            }
        };
        if was_greeting && !peer.is_greeting() && peer.was_accepted() {
            self.greeting -= 1;
        }
        match (link, peer.link()) {
            (None, Some(opened)) => _ = self.links.insert(opened, id),
            (Some(closed), None) => _ = self.links.remove(&closed),
            _ => {}
        }
        let deadline = peer.deadline(&turn);
        self.arm(id, deadline);
        done
    }

    fn lost(
        &mut self,
        id: PeerId,
        connection: &mut Connection,
        reason: &ConnectionError,
        now: Instant,
    ) {
        self.with_peer(id, connection, now, |peer, _, turn| {
            if let Some(incident) = incident_of(reason, peer.is_greeting()) {
                turn.host.report(incident, &peer.remote, reason);
            }
            peer.end(&reason.to_string(), turn.host);
            Ok(())
        });
    }
}

/// What the loss of a connection is to be reported as.
fn incident_of(reason: &ConnectionError, greeting: bool) -> Option<Incident> {
    match reason {
        ConnectionError::ApplicationClosed(close)
            if CloseCode::from_number(close.error_code.into_inner()) == Some(CloseCode::Done) =>
        {
            None
        }
        ConnectionError::TransportError(error) if is_crypto(error.code) => {
            Some(Incident::TlsFailed)
        }
        ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code) => {
            Some(Incident::TlsFailed)
        }
        ConnectionError::TransportError(_) | ConnectionError::VersionMismatch => {
            Some(Incident::ProtocolBroken)
        }
        ConnectionError::TimedOut if greeting => Some(Incident::HandshakeTimeout),
        ConnectionError::TimedOut => Some(Incident::KeepaliveTimeout),
        ConnectionError::LocallyClosed => None,
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::CidsExhausted => Some(Incident::ConnectionLost),
    }
}

/// QUIC carries alerts of TLS as error codes from 0x100 on.
fn is_crypto(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// The door as one socket's transport sees it.
pub struct AtSocket<'a> {
    door: &'a mut Door,
    socket: usize,
}

impl AtSocket<'_> {
    fn id(&self, connection: ConnectionHandle) -> PeerId {
        PeerId { socket: self.socket, connection: connection.0 }
    }
}

impl Application for AtSocket<'_> {
    fn admit(&mut self, incoming: &Incoming) -> Admit {
        let door = &mut *self.door;
        if door.host.stop_reading.get() {
            return Admit::Refuse;
        }
        if door.greeting >= UNPROVEN_HANDSHAKES && incoming.may_retry() {
            return Admit::Validate;
        }
        door.place = door.host.places.take_connection();
        if door.place.is_some() {
            return Admit::Accept;
        }
        door.host.report(Incident::LinkLimit, &incoming.remote_address(), &"connections");
        Admit::Refuse
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        self.door.entrances[self.socket].as_ref().map(|entrance| entrance.config.load_full())
    }

    fn accepted(&mut self, id: ConnectionHandle, remote: SocketAddr, now: Instant) {
        let (id, place) = (self.id(id), self.door.place.take());
        self.door.insert(id, remote, Origin::Accepted, place, now);
    }

    fn event(
        &mut self,
        id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        now: Instant,
    ) {
        let id = self.id(id);
        match event {
            Event::ConnectionLost { reason } => self.door.lost(id, connection, &reason, now),
            Event::Connected => {
                self.door.with_peer(id, connection, now, Peer::connected);
            }
            Event::Stream(event) => {
                self.door.with_peer(id, connection, now, |peer, connection, _| {
                    peer.stream_event(connection, event)
                });
            }
            Event::DatagramReceived => self.door.with_peer(id, connection, now, |peer, _, _| {
                peer.datagrams_arrived();
                Ok(())
            }),
            Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self, id: ConnectionHandle, connection: &mut Connection, now: Instant) -> bool {
        let id = self.id(id);
        self.door.with_peer(id, connection, now, Peer::read)
    }

    fn write(&mut self, id: ConnectionHandle, connection: &mut Connection, now: Instant) {
        let id = self.id(id);
        self.door.with_peer(id, connection, now, Peer::write);
    }

    fn gone(&mut self, id: ConnectionHandle) {
        let id = self.id(id);
        let peer = self.door.peers[id.socket][id.connection].take();
        if let Some(armed) = peer.and_then(|peer| peer.armed) {
            self.door.deadlines.remove(&(armed, id));
        }
    }

    fn rejected(&mut self, remote: SocketAddr, reason: &ConnectionError) {
        self.door.place = None;
        if let Some(incident) = incident_of(reason, true) {
            self.door.host.report(incident, &remote, reason);
        }
    }

    fn stray(&mut self, remote: SocketAddr) {
        self.door.host.report(Incident::StrayDatagram, &remote, &"datagram");
    }
}
