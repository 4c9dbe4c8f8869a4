//! Very many native links on one socket and one thread: state machines that do as little as an
//! app can, so that what the bench itself takes is small beside the node.

mod client;

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ClientConfig, Connection, ConnectionError, ConnectionHandle, Event, Incoming};
use slim_quic::datapath::CoreId;
use slim_quic::link::quic::settings::{self, QuicSettings};
use slim_quic::link::quic::socket::Socket;
use slim_quic::link::quic::tls::{AcceptAny, quic_provider};
use slim_quic::link::quic::transport::{Admit, Application, Transport};
use slim_wire::{ALPN, Name};

use self::client::Client;
use crate::Failure;

/// Native links to one node, numbered from 0.
pub(crate) struct Swarm {
    node: SocketAddr,
    config: ClientConfig,
    socket: Socket,
    transport: Transport,
    clients: Clients,
}

/// What becomes of the links.
#[derive(Default)]
pub(crate) struct Clients {
    /// By their connection; the connections of a transport that loses none count from 0.
    links: Vec<Client>,
    /// Links that the node has said hello to.
    open: usize,
    failure: Option<String>,
}

/// Handshakes under way at a time: fewer than a node begins to doubt.
const HANDSHAKES: usize = 32;

/// Subscriptions that may wait for the node's answer.
const REQUESTS: u64 = 2048;

/// Nodes give silent connections up after 30 s; clients ask three times in that time.
const IDLE: Duration = Duration::from_secs(30);

/// Receives in a turn before anything is sent, as in the node.
const RECEIVES: usize = 16;

impl Swarm {
    /// No links yet, to `node`. To be called inside a runtime.
    pub(crate) fn new(node: SocketAddr, mtu: u16) -> Result<Self, Failure> {
        let settings = QuicSettings { mtu, idle_timeout: IDLE };
        let socket = Socket::new(UdpSocket::bind((node.ip(), 0))?)?;
        let provider = Arc::new(quic_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(AcceptAny::new(&provider))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        let mut config = settings::client(Arc::new(tls), settings)?;
        // A node lets its peer open lanes only once both have said hello; an app need not wait.
        let mut transport = settings::transport(settings);
        transport.max_concurrent_bidi_streams(0_u8.into()).keep_alive_interval(Some(IDLE / 3));
        config.transport_config(Arc::new(transport));
        let transport = Transport::new(settings::endpoint(CoreId(0), settings), None);
        Ok(Self { node, config, socket, transport, clients: Clients::default() })
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Opens links until there are `count`.
    pub(crate) async fn grow(&mut self, count: usize) -> Result<(), Failure> {
        while self.clients.links.len() < count || self.clients.opening() > 0 {
            while self.clients.links.len() < count && self.clients.opening() < HANDSHAKES {
                let Self { node, config, transport, clients, .. } = self;
                let id = transport.connect(config.clone(), *node, "node", Instant::now())?;
                assert_eq!(id.0, clients.links.len(), "connections count from 0");
                clients.links.push(Client::default());
            }
            let opening = self.clients.opening();
            self.until(LIMIT, |clients| clients.opening() < opening.max(1)).await?;
        }
        Ok(())
    }

    /// Subscribes a link to names, and waits until the node has acknowledged all of them.
    pub(crate) async fn subscribe(
        &mut self,
        link: usize,
        names: impl Iterator<Item = Name>,
    ) -> Result<(), Failure> {
        for name in names {
            self.clients.links[link].subscribe(name);
            if self.clients.links[link].outstanding() >= REQUESTS {
                self.transport.touch(ConnectionHandle(link));
                let room = |clients: &Clients| clients.links[link].outstanding() < REQUESTS / 2;
                self.until(LIMIT, room).await?;
            }
        }
        self.transport.touch(ConnectionHandle(link));
        self.until(LIMIT, |clients| clients.links[link].outstanding() == 0).await?;
        match self.clients.links[link].refused {
            0 => Ok(()),
            refused => Err(format!("{refused} subscriptions refused").into()),
        }
    }

    /// Sends frames on a link, and waits until they have left.
    pub(crate) async fn publish(&mut self, link: usize, frames: Bytes) -> Result<(), Failure> {
        self.clients.links[link].publish(frames);
        self.transport.touch(ConnectionHandle(link));
        self.until(LIMIT, |clients| clients.links[link].has_published()).await
    }

    /// Lets all links live for so long.
    pub(crate) async fn idle(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step(end).await?;
        }
        Ok(())
    }

    /// Lets all links live until `done`, and fails after `limit`.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        done: impl Fn(&Clients) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + limit;
        while !done(&self.clients) {
            if Instant::now() >= end {
                return Err("links: what was awaited did not come in time".into());
            }
            self.step(end).await?;
        }
        Ok(())
    }

    /// One turn, and the wait for the next, no longer than to `end`.
    async fn step(&mut self, end: Instant) -> Result<(), Failure> {
        if self.turn(Instant::now())? {
            tokio::task::yield_now().await;
        } else {
            let deadline = self.transport.deadline().map_or(end, |deadline| deadline.min(end));
            let mut sleep = pin!(tokio::time::sleep_until(deadline.into()));
            poll_fn(|cx| {
                let due = sleep.as_mut().poll(cx).is_ready();
                let ready = self.socket.poll_ready(cx).is_ready();
                if ready || due { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        match self.clients.failure.take() {
            None => Ok(()),
            Some(reason) => Err(format!("a link ended: {reason}").into()),
        }
    }

    /// Everything that is to be done now; returns whether there is more.
    fn turn(&mut self, now: Instant) -> Result<bool, Failure> {
        let Self { socket, transport, clients, .. } = self;
        let (mut batch, mut busy) = (Vec::new(), false);
        for _ in 0..RECEIVES {
            busy = socket.receive(|datagram| batch.push(datagram))?;
            for datagram in batch.drain(..) {
                transport.receive(datagram, clients, socket, now);
            }
            if !busy {
                break;
            }
        }
        busy |= transport.read(clients, now);
        if socket.has_room() {
            busy |= transport.write(clients, socket, now);
        }
        Ok(busy)
    }
}

/// What no step of a bench takes longer than.
const LIMIT: Duration = Duration::from_secs(60);

impl Clients {
    /// Links that the node has not said hello to.
    fn opening(&self) -> usize {
        self.links.len() - self.open
    }

    /// Bytes of messages that have come, to the links together.
    pub(crate) fn received(&self, links: std::ops::Range<usize>) -> u64 {
        self.links[links].iter().map(|link| link.received).sum()
    }
}

impl Application for Clients {
    fn admit(&mut self, _incoming: &Incoming) -> Admit {
        Admit::Refuse
    }

    fn accepted(&mut self, _id: ConnectionHandle, _remote: SocketAddr, _now: Instant) {}

    fn rejected(&mut self, _remote: SocketAddr, _reason: &ConnectionError) {}

    fn event(
        &mut self,
        id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        _now: Instant,
    ) {
        match event {
            Event::Connected => self.links[id.0].connected(connection),
            Event::Stream(event) => self.links[id.0].stream_event(connection, event),
            Event::ConnectionLost { reason } => self.failure = Some(reason.to_string()),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self, id: ConnectionHandle, connection: &mut Connection, _now: Instant) -> bool {
        let link = &mut self.links[id.0];
        let was_open = link.open;
        if let Err(error) = link.read(connection) {
            self.failure = Some(error.to_string());
        }
        self.open += usize::from(link.open && !was_open);
        false
    }

    fn write(&mut self, id: ConnectionHandle, connection: &mut Connection, _now: Instant) {
        self.links[id.0].write(connection);
    }

    fn gone(&mut self, _id: ConnectionHandle) {}

    fn stray(&mut self, _remote: SocketAddr) {}
}
