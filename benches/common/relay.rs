//! A node's QUIC side and its clients in one thread: packets go from memory to memory, and time is
//! what the caller says. So one turn of the node, from packets in to packets out, can be counted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ConnectionHandle, Transmit};
use rustls::pki_types::PrivateKeyDer;
use slim_quic::datapath::{CoreId, Postbox};
use slim_quic::link::quic::door::{Door, Entrance};
use slim_quic::link::quic::settings::{self, QuicSettings, ResetKey};
use slim_quic::link::quic::tls::{AcceptAny, quic_provider};
use slim_quic::link::quic::transport::{Datagram, Outgoing, Transport};
use slim_quic::link::{Gate, Host, Incidents, LinkLimits, Places};
use slim_wire::limits::GRPC_MESSAGE_BYTES;
use slim_wire::{ALPN, Encoding, FrameKind, Id, Name, Prefix, SessionIds};

use crate::app::App;
use crate::{message, single};

/// From one hop of the packets to the next.
const HOP: Duration = Duration::from_micros(250);

/// The most that one send may hold, as at the node's own sockets.
const SEND_BYTES: usize = 65_000;

/// As many datagrams as the kernel takes at once.
const SEGMENTS: usize = 64;

/// Turns until windows, packet sizes and the memory that is used again are what they stay.
const SETTLING: usize = 48;

/// To whom everything is published.
const DESTINATION: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

/// A node, a publisher and a subscriber.
pub(crate) struct Relay {
    node: Node,
    publisher: Client,
    subscriber: Client,
    now: Instant,
    /// The messages of a turn as they leave the publisher.
    burst: Bytes,
}

impl Relay {
    /// A relay in its steady state: in every turn `messages` with payloads of `size` bytes go
    /// through, in datagrams of up to `mtu` bytes.
    pub(crate) fn new(mtu: u16, size: usize, messages: usize) -> Self {
        let now = Instant::now();
        let quic = QuicSettings { mtu, ..QuicSettings::default() };
        let (server, client) = tls();
        let [publisher, subscriber] = [1, 2].map(|number| Client::new(number, quic, &client, now));
        let node = Node::new(quic, server);
        let burst = burst(size, messages);
        let mut relay = Self { node, publisher, subscriber, now, burst };
        relay.subscriber.app.subscribe(DESTINATION);
        while !(relay.publisher.app.may_publish() && relay.subscriber.app.is_subscribed()) {
            relay.pass(|work| work());
        }
        for _ in 0..SETTLING {
            // Windows that are still small let a burst leave over several turns.
            if relay.publisher.app.has_published() {
                relay.publisher.app.publish(relay.burst.clone());
            }
            relay.pass(|work| work());
        }
        relay.subscriber.app.take_received();
        for wire in [&relay.node.wire, &relay.publisher.wire] {
            assert_eq!(wire.largest, usize::from(mtu), "the path carries packets of the full size");
        }
        relay
    }

    /// All messages once from publisher to subscriber. The node's part is given to `measure`,
    /// which has to call it once.
    pub(crate) fn turn(&mut self, measure: impl FnOnce(&mut dyn FnMut())) {
        self.publisher.app.publish(self.burst.clone());
        self.pass(measure);
        let received = self.subscriber.app.take_received();
        assert_eq!(received, self.burst.len(), "everything arrives in the turn in which it left");
    }

    /// Packets of the clients to the node, and its packets to them.
    fn pass(&mut self, measure: impl FnOnce(&mut dyn FnMut())) {
        for client in [&mut self.publisher, &mut self.subscriber] {
            client.turn(self.now);
            client.wire.deliver(client.address, |_, datagram| self.node.arrived.push(datagram));
        }
        self.now += HOP;
        let Self { node, now, .. } = self;
        measure(&mut || node.turn(*now));
        node.apply_changes(*now);
        self.now += HOP;
        let clients = [&mut self.publisher, &mut self.subscriber];
        let mut clients = clients.map(|client| (client.address, client));
        self.node.wire.deliver(NODE.into(), |to, datagram| {
            let client = clients.iter_mut().find(|(address, _)| *address == to);
            client.expect("the node knows no others").1.arrived.push(datagram);
        });
        for (_, client) in clients {
            client.turn(self.now);
        }
    }
}

const NODE: ([u8; 4], u16) = ([10, 0, 0, 1], 1);

/// The frames of a turn.
fn burst(size: usize, messages: usize) -> Bytes {
    let header = message::publish(Encoding::Native, DESTINATION, 1);
    let (ids, payload) = (SessionIds::default(), vec![0x5A; size]);
    let frame = slim_wire::frame(FrameKind::Publish, &header, ids, &[], &payload);
    frame.expect("a payload that fits").repeat(messages).into()
}

/// The node: what a core's driver does in a turn, without its sockets.
struct Node {
    host: Rc<Host>,
    door: Door,
    transport: Transport,
    postbox: Postbox,
    arrived: Vec<Datagram>,
    wire: Wire,
}

impl Node {
    fn new(quic: QuicSettings, tls: Arc<rustls::ServerConfig>) -> Self {
        let (core, postbox) = single::core();
        let limits = LinkLimits {
            message_bytes: GRPC_MESSAGE_BYTES,
            handshake: Duration::from_secs(10),
            partial_message: Duration::from_secs(10),
            pause: Duration::from_millis(100),
        };
        let places = Places::new(16, 1 << 30);
        let incidents = Arc::<Incidents>::default();
        let host = Rc::new(Host::new(core, limits, places, incidents, "node".into()));
        let config = settings::server(tls, quic).expect("a suite for QUIC");
        let endpoint = settings::listening(CoreId(0), quic, &ResetKey::known_to_all());
        let transport = Transport::new(endpoint, Some(Arc::clone(&config)));
        let mut door = Door::new(Rc::clone(&host), 1);
        let (config, gate) = (Arc::new(config.into()), Arc::new(Gate::open()));
        door.open(0, Entrance { config, gate, exchanges: false });
        let wire = Wire::default();
        Self { host, door, transport, postbox, arrived: Vec::new(), wire }
    }

    fn turn(&mut self, now: Instant) {
        let Self { host, door, transport, arrived, wire, .. } = self;
        for datagram in arrived.drain(..) {
            transport.receive(datagram, &mut door.at(0), wire, now);
        }
        loop {
            door.due(now, |id| transport.touch(ConnectionHandle(id.connection)));
            let mut busy = transport.read(&mut door.at(0), now);
            door.ready(|id| transport.touch(ConnectionHandle(id.connection)));
            busy |= transport.write(&mut door.at(0), wire, now);
            host.core.borrow_mut().flush();
            if !busy {
                return;
            }
        }
    }

    /// What the node's other threads and tasks do, once a client has subscribed.
    fn apply_changes(&mut self, now: Instant) {
        while self.postbox.step() {
            self.host.core.borrow_mut().turn(now);
        }
    }
}

/// An app at the other end of a connection.
struct Client {
    address: SocketAddr,
    app: App,
    transport: Transport,
    arrived: Vec<Datagram>,
    wire: Wire,
}

impl Client {
    fn new(number: u16, quic: QuicSettings, tls: &Arc<rustls::ClientConfig>, now: Instant) -> Self {
        let mut transport = Transport::new(settings::endpoint(CoreId(0), quic), None);
        let config = settings::client(Arc::clone(tls), quic).expect("a suite for QUIC");
        transport.connect(config, NODE.into(), "node", now).expect("an address");
        let address = SocketAddr::from(([10, 0, 0, 2], number));
        let (app, wire) = (App::default(), Wire::default());
        Self { address, app, transport, arrived: Vec::new(), wire }
    }

    fn turn(&mut self, now: Instant) {
        let Self { app, transport, arrived, wire, .. } = self;
        for datagram in arrived.drain(..) {
            transport.receive(datagram, app, wire, now);
        }
        loop {
            transport.touch(ConnectionHandle(0));
            let busy = transport.read(app, now);
            if !transport.write(app, wire, now) && !busy {
                return;
            }
        }
    }
}

/// Datagrams that have left.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    sent: Vec<(SocketAddr, usize)>,
    /// The longest so far.
    largest: usize,
}

impl Wire {
    /// Hands over what has left, cut from one slab as a receive brings it.
    fn deliver(&mut self, remote: SocketAddr, mut take: impl FnMut(SocketAddr, Datagram)) {
        let mut slab = BytesMut::from(&self.bytes[..]);
        for (to, length) in self.sent.drain(..) {
            let bytes = slab.split_to(length);
            take(to, Datagram { remote, local: None, ecn: None, bytes });
        }
        self.bytes.clear();
    }
}

impl Outgoing for Wire {
    fn most_segments(&self, mtu: usize) -> usize {
        (SEND_BYTES / mtu).clamp(1, SEGMENTS)
    }

    fn send(&mut self, transmit: &Transmit, contents: &[u8]) -> bool {
        self.bytes.extend_from_slice(contents);
        for segment in contents.chunks(transmit.segment_size.unwrap_or(contents.len())) {
            self.sent.push((transmit.destination, segment.len()));
            self.largest = self.largest.max(segment.len());
        }
        true
    }
}

fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(quic_provider());
    let versions = &[&rustls::version::TLS13];
    let own = rcgen::generate_simple_self_signed(["node".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("they belong together");
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(AcceptAny::new(&provider))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    (Arc::new(server), Arc::new(client))
}
