//! The QUIC connections of one socket, without I/O: datagrams in, datagrams out, time passed in.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionError, ConnectionHandle, DatagramEvent,
    EcnCodepoint, Endpoint, EndpointConfig, Event, Incoming, ServerConfig, Transmit,
};

/// A datagram as it came in.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address that it was sent to.
    pub local: Option<IpAddr>,
    /// Marks of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes.
    pub bytes: BytesMut,
}

/// What takes datagrams out.
pub trait Outgoing {
    /// Most datagrams of `mtu` bytes that one transmit may hold.
    fn most_segments(&self, mtu: usize) -> usize;

    /// Sends one or several datagrams; `false` if the socket has no room now. Then it keeps them
    /// and sends them first once it has.
    fn send(&mut self, transmit: &Transmit, contents: &[u8]) -> bool;
}

/// What a socket's connections are for.
pub trait Application {
    /// A client without a connection asks for one.
    fn admit(&mut self, incoming: &Incoming) -> Admit;

    /// How a client that is admitted is to be accepted; `None` for what the transport was made
    /// with.
    fn config(&self) -> Option<Arc<ServerConfig>> {
        None
    }

    /// A connection was accepted.
    fn accepted(&mut self, id: ConnectionHandle, remote: SocketAddr, now: Instant);

    /// Something happened to a connection.
    fn event(&mut self, id: ConnectionHandle, link: &mut Connection, event: Event, now: Instant);

    /// All events of a batch are in: read what has arrived. Returns whether more is left to read
    /// at once.
    fn read(&mut self, id: ConnectionHandle, connection: &mut Connection, now: Instant) -> bool;

    /// All connections of the batch are read: write what is there to write.
    fn write(&mut self, id: ConnectionHandle, connection: &mut Connection, now: Instant);

    /// The connection is no more, and its number will be used again.
    fn gone(&mut self, id: ConnectionHandle);

    /// What the client began with is no handshake that could go on.
    fn rejected(&mut self, remote: SocketAddr, reason: &ConnectionError);

    /// A datagram that belongs to no connection and begins none.
    fn stray(&mut self, remote: SocketAddr);
}

/// What is to be done with a client that asks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Begin the handshake.
    Accept,
    /// Let it prove its address first.
    Validate,
    /// Tell it that there is no room.
    Refuse,
}

/// The connections of one socket.
pub struct Transport {
    endpoint: Endpoint,
    connections: Vec<Option<Slot>>,
    /// Connections to look at in this turn.
    touched: Vec<ConnectionHandle>,
    /// When to look at connections; one entry each.
    timers: BTreeSet<(Instant, usize)>,
    buffer: Vec<u8>,
}

struct Slot {
    connection: Connection,
    touched: bool,
    /// More is left to read at once.
    unread: bool,
    /// The connection's entry among the timers.
    armed: Option<Instant>,
}

/// Transmits of one connection in a turn, before others have theirs.
const TRANSMITS: usize = 16;

impl Transport {
    /// A transport without connections; with `server` it accepts them.
    pub fn new(config: Arc<EndpointConfig>, server: Option<Arc<ServerConfig>>) -> Self {
        const MTU_DISCOVERY: bool = true;
        Self {
            endpoint: Endpoint::new(config, server, MTU_DISCOVERY, None),
            connections: Vec::new(),
            touched: Vec::new(),
            timers: BTreeSet::new(),
            buffer: Vec::new(),
        }
    }

    /// Begins a connection to `remote`.
    ///
    /// # Errors
    /// The library's, for an address or name that cannot be connected to.
    pub fn connect(
        &mut self,
        config: ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        now: Instant,
    ) -> Result<ConnectionHandle, ConnectError> {
        let (id, connection) = self.endpoint.connect(now, config, remote, server_name)?;
        self.insert(id, connection);
        Ok(id)
    }

    fn insert(&mut self, id: ConnectionHandle, connection: Connection) {
        if self.connections.len() <= id.0 {
            self.connections.resize_with(id.0 + 1, || None);
        }
        self.connections[id.0] =
            Some(Slot { connection, touched: false, unread: false, armed: None });
        self.touch(id);
    }

    /// Has the connection looked at in the next turn.
    pub fn touch(&mut self, id: ConnectionHandle) {
        if let Some(slot) = self.connections.get_mut(id.0).and_then(Option::as_mut)
            && !std::mem::replace(&mut slot.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Takes a datagram in.
    #[inline]
    pub fn receive(
        &mut self,
        datagram: Datagram,
        app: &mut impl Application,
        out: &mut impl Outgoing,
        now: Instant,
    ) {
        let Datagram { remote, local, ecn, bytes } = datagram;
        self.buffer.clear();
        match self.endpoint.handle(now, remote, local, ecn, bytes, &mut self.buffer) {
            Some(DatagramEvent::ConnectionEvent(id, event)) => {
                if let Some(slot) = self.connections.get_mut(id.0).and_then(Option::as_mut) {
                    slot.connection.handle_event(event);
                    self.touch(id);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.begin(incoming, app, out, now),
            Some(DatagramEvent::Response(transmit)) => {
                app.stray(remote);
                // A response that finds no room is as good as lost on the way.
                out.send(&transmit, &self.buffer[..transmit.size]);
            }
            None => app.stray(remote),
        }
    }

    #[cold]
    fn begin(
        &mut self,
        incoming: Incoming,
        app: &mut impl Application,
        out: &mut impl Outgoing,
        now: Instant,
    ) {
        let remote = incoming.remote_address();
        self.buffer.clear();
        let transmit = match app.admit(&incoming) {
            Admit::Accept => {
                let config = app.config();
                match self.endpoint.accept(incoming, now, &mut self.buffer, config) {
                    Ok((id, connection)) => {
                        app.accepted(id, remote, now);
                        self.insert(id, connection);
                        None
                    }
                    Err(error) => {
                        // Without a word to say it was no first packet, whoever may have sent it.
                        match &error.response {
                            Some(_) => app.rejected(remote, &error.cause),
                            None => app.stray(remote),
                        }
                        error.response
                    }
                }
            }
            Admit::Validate => match self.endpoint.retry(incoming, &mut self.buffer) {
                Ok(transmit) => Some(transmit),
                Err(error) => Some(self.endpoint.refuse(error.into_incoming(), &mut self.buffer)),
            },
            Admit::Refuse => Some(self.endpoint.refuse(incoming, &mut self.buffer)),
        };
        if let Some(transmit) = transmit {
            out.send(&transmit, &self.buffer[..transmit.size]);
        }
    }

    /// First half of a turn: lets the application read what datagrams and timers have made
    /// possible. Returns whether more is left to read at once.
    pub fn read(&mut self, app: &mut impl Application, now: Instant) -> bool {
        self.expire(now);
        let mut more = false;
        for at in 0..self.touched.len() {
            let id = self.touched[at];
            let Some(Slot { connection, unread, .. }) = self.connections[id.0].as_mut() else {
                continue;
            };
            while let Some(event) = connection.poll() {
                app.event(id, connection, event, now);
            }
            *unread = app.read(id, connection, now);
            more |= *unread;
        }
        more
    }

    /// Second half: lets the application write to every touched connection, and sends what there
    /// is to send. Returns whether more is left to send at once; what the socket has no room for
    /// is left for when it has.
    pub fn write(
        &mut self,
        app: &mut impl Application,
        out: &mut impl Outgoing,
        now: Instant,
    ) -> bool {
        let mut touched = std::mem::take(&mut self.touched);
        let mut room = true;
        for id in touched.drain(..) {
            let Some(slot) = self.connections[id.0].as_mut() else {
                continue;
            };
            slot.touched = false;
            let unread = slot.unread;
            if !room {
                self.touch(id);
                continue;
            }
            app.write(id, &mut slot.connection, now);
            match self.send(id, out, now) {
                Sent::All => {}
                Sent::More => self.touch(id),
                Sent::NoRoom => {
                    room = false;
                    self.touch(id);
                }
            }
            self.settle(id, app);
            if unread {
                self.touch(id);
            }
        }
        // What was touched again comes first in the next turn.
        touched.append(&mut self.touched);
        self.touched = touched;
        room && !self.touched.is_empty()
    }

    fn send(&mut self, id: ConnectionHandle, out: &mut impl Outgoing, now: Instant) -> Sent {
        let Some(Slot { connection, .. }) = self.connections[id.0].as_mut() else {
            return Sent::All;
        };
        let segments = out.most_segments(connection.current_mtu().into());
        for _ in 0..TRANSMITS {
            self.buffer.clear();
            let Some(transmit) = connection.poll_transmit(now, segments, &mut self.buffer) else {
                return Sent::All;
            };
            if !out.send(&transmit, &self.buffer[..transmit.size]) {
                return Sent::NoRoom;
            }
        }
        Sent::More
    }

    /// What a connection and its endpoint have to tell each other, and its next timer.
    fn settle(&mut self, id: ConnectionHandle, app: &mut impl Application) {
        let Some(Slot { connection, armed, .. }) = self.connections[id.0].as_mut() else {
            return;
        };
        while let Some(event) = connection.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(id, event) {
                connection.handle_event(event);
            }
            if drained {
                if let Some(armed) = armed {
                    self.timers.remove(&(*armed, id.0));
                }
                self.connections[id.0] = None;
                app.gone(id);
                return;
            }
        }
        if let Some(deadline) = connection.poll_timeout()
            && armed.is_none_or(|armed| deadline < armed)
        {
            if let Some(armed) = armed.replace(deadline) {
                self.timers.remove(&(armed, id.0));
            }
            self.timers.insert((deadline, id.0));
        }
    }

    /// Tells connections whose time has come.
    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, at)) = self.timers.first()
            && deadline <= now
        {
            self.timers.pop_first();
            let Some(slot) = self.connections.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            slot.armed = None;
            // An entry may be of a timer that has been moved since; then this changes nothing,
            // and the next turn arms it anew.
            slot.connection.handle_timeout(now);
            self.touch(ConnectionHandle(at));
        }
    }

    /// When the next turn is due, if no datagram comes before.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }
}

/// How far the sending of a connection's datagrams came.
enum Sent {
    All,
    More,
    NoRoom,
}

#[cfg(test)]
mod tests;
