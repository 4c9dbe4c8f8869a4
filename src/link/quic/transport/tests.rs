//! Two transports in one thread, with a clock and a network of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{Dir, StreamEvent, StreamId, VarInt};
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::datapath::CoreId;
use crate::link::quic::settings::{self, QuicSettings, ResetKey};
use crate::link::quic::tls::{AcceptAny, quic_provider};

/// Chance that can be had again: SplitMix64.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Datagrams on their way: some are lost, some come twice, and each takes its own time.
struct Network {
    random: Seeded,
    now: Instant,
    under_way: BTreeMap<(Instant, usize), (SocketAddr, Datagram)>,
    sent: usize,
}

/// A side's way into the network.
struct Door<'a> {
    network: &'a mut Network,
    from: SocketAddr,
}

const LOST_PERCENT: u64 = 8;
const TWICE_PERCENT: u64 = 3;
const DELAYS_MS: u64 = 40;

impl Outgoing for Door<'_> {
    fn most_segments(&self, _mtu: usize) -> usize {
        4
    }

    fn send(&mut self, transmit: &Transmit, contents: &[u8]) -> bool {
        let network = &mut *self.network;
        for bytes in contents.chunks(transmit.segment_size.unwrap_or(contents.len())) {
            let chance = network.random.below(100);
            let copies = match chance {
                0..LOST_PERCENT => 0,
                _ if chance >= 100 - TWICE_PERCENT => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let delay = Duration::from_millis(1 + network.random.below(DELAYS_MS));
                let datagram =
                    Datagram { remote: self.from, local: None, ecn: None, bytes: bytes.into() };
                network.sent += 1;
                let at = (network.now + delay, network.sent);
                network.under_way.insert(at, (transmit.destination, datagram));
            }
        }
        true
    }
}

/// Sends one stream, and reads the other's a little at a time.
#[derive(Default)]
struct Talker {
    to_send: Bytes,
    outbound: Option<StreamId>,
    finished: bool,
    inbound: Option<StreamId>,
    readable: bool,
    received: Vec<u8>,
    heard_all: bool,
    hang_up: bool,
    lost: Option<ConnectionError>,
    gone: bool,
}

/// Much less than arrives at once.
const READ_BYTES: usize = 700;

impl Application for Talker {
    fn admit(&mut self, incoming: &Incoming) -> Admit {
        if incoming.remote_address_validated() { Admit::Accept } else { Admit::Validate }
    }

    fn accepted(&mut self, _id: ConnectionHandle, _remote: SocketAddr, _now: Instant) {}

    fn event(
        &mut self,
        _id: ConnectionHandle,
        connection: &mut Connection,
        event: Event,
        _now: Instant,
    ) {
        match event {
            Event::Connected => settings::allow_lanes(connection),
            Event::Stream(StreamEvent::Available { .. }) if self.outbound.is_none() => {
                self.outbound = connection.streams().open(Dir::Uni);
            }
            Event::Stream(StreamEvent::Opened { .. }) => {
                self.inbound = connection.streams().accept(Dir::Uni);
                self.readable = true;
            }
            Event::Stream(StreamEvent::Readable { .. }) => self.readable = true,
            Event::Stream(StreamEvent::Finished { .. }) => self.finished = true,
            Event::ConnectionLost { reason } => self.lost = Some(reason),
            _ => {}
        }
    }

    fn read(&mut self, _id: ConnectionHandle, connection: &mut Connection, _now: Instant) -> bool {
        let Some(id) = self.inbound.filter(|_| self.readable) else {
            return false;
        };
        let mut stream = connection.recv_stream(id);
        let mut chunks = stream.read(true).expect("it is read to its end once");
        match chunks.next(READ_BYTES) {
            Ok(Some(chunk)) => self.received.extend_from_slice(&chunk.bytes),
            Ok(None) => (self.heard_all, self.readable) = (true, false),
            Err(_) => self.readable = false,
        }
        let _ = chunks.finalize();
        self.readable
    }

    fn write(&mut self, _id: ConnectionHandle, connection: &mut Connection, now: Instant) {
        if self.hang_up {
            connection.close(now, VarInt::from_u32(0), Bytes::new());
        }
        let Some(id) = self.outbound.filter(|_| !self.to_send.is_empty()) else {
            return;
        };
        let mut stream = connection.send_stream(id);
        while stream.write_chunks(std::slice::from_mut(&mut self.to_send)).is_ok() {
            if self.to_send.is_empty() {
                stream.finish().expect("it is open");
                return;
            }
        }
    }

    fn gone(&mut self, _id: ConnectionHandle) {
        self.gone = true;
    }

    fn rejected(&mut self, remote: SocketAddr, reason: &ConnectionError) {
        panic!("{remote} was rejected: {reason}");
    }

    fn stray(&mut self, _remote: SocketAddr) {}
}

struct Side {
    address: SocketAddr,
    transport: Transport,
    talker: Talker,
}

impl Side {
    fn turn(&mut self, network: &mut Network) -> bool {
        let now = network.now;
        let busy = self.transport.read(&mut self.talker, now);
        let mut door = Door { network, from: self.address };
        self.transport.write(&mut self.talker, &mut door, now) || busy
    }
}

fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(quic_provider());
    let versions = &[&rustls::version::TLS13];
    let own = rcgen::generate_simple_self_signed(["node".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("they belong together");
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(AcceptAny::new(&provider))
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A listening transport whose resets are made with a secret.
fn called(tls: Arc<rustls::ServerConfig>, secret: &[u8]) -> Transport {
    let quic = QuicSettings::default();
    let endpoint = settings::listening(CoreId(1), quic, &ResetKey::of(secret));
    let server = settings::server(tls, quic).expect("a suite for QUIC");
    Transport::new(endpoint, Some(server))
}

fn sides(now: Instant, texts: [&Bytes; 2]) -> [Side; 2] {
    let (server, client) = tls();
    let quic = QuicSettings::default();
    let client = settings::client(client, quic).expect("a suite for QUIC");
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let talker = |text: &Bytes| Talker { to_send: text.clone(), ..Talker::default() };
    let mut caller = Transport::new(settings::endpoint(CoreId(0), quic), None);
    caller.connect(client, at(2), "node", now).expect("an address");
    let called = called(server, b"secret");
    [
        Side { address: at(1), transport: caller, talker: talker(texts[0]) },
        Side { address: at(2), transport: called, talker: talker(texts[1]) },
    ]
}

/// What is to be done when neither side has anything to do now.
enum Next {
    /// Something was changed.
    Again,
    /// Time goes on.
    Wait,
    End,
}

/// Runs until `next` says so, or nothing is left to do. Returns how long that took by their clock.
fn run(
    seed: u64,
    texts: [&Bytes; 2],
    mut next: impl FnMut(&mut [Side; 2]) -> Next,
) -> ([Side; 2], Duration) {
    const LONGEST: Duration = Duration::from_secs(300);
    let start = Instant::now();
    let mut network =
        Network { random: Seeded(seed), now: start, under_way: BTreeMap::new(), sent: 0 };
    let mut sides = sides(start, texts);
    loop {
        while let Some(entry) = network.under_way.first_entry()
            && entry.key().0 <= network.now
        {
            let (to, datagram) = entry.remove();
            let side = sides.iter_mut().find(|side| side.address == to).expect("a side");
            let now = network.now;
            let mut door = Door { network: &mut network, from: side.address };
            side.transport.receive(datagram, &mut side.talker, &mut door, now);
        }
        let mut busy = false;
        for side in &mut sides {
            busy |= side.turn(&mut network);
            let timers = side.transport.timers.len();
            let connections = side.transport.connections.iter().flatten().count();
            assert!(timers <= connections, "seed {seed}: {timers} timers");
        }
        if busy {
            continue;
        }
        match next(&mut sides) {
            Next::Again => continue,
            Next::Wait => {}
            Next::End => return (sides, network.now - start),
        }
        let timers = sides.iter().filter_map(|side| side.transport.deadline());
        let arrival = network.under_way.keys().next().map(|(at, _)| *at);
        let Some(event) = timers.chain(arrival).min() else {
            return (sides, network.now - start);
        };
        network.now = network.now.max(event);
        assert!(network.now < start + LONGEST, "seed {seed}: it never ends");
    }
}

/// The caller hangs up when both have heard all.
fn hang_up(sides: &mut [Side; 2]) -> Next {
    let done = sides.iter().all(|side| side.talker.heard_all && side.talker.finished);
    if !done || sides[0].talker.hang_up {
        return Next::Wait;
    }
    sides[0].talker.hang_up = true;
    sides[0].transport.touch(ConnectionHandle(0));
    Next::Again
}

#[test]
fn two_transports_tell_each_other_all_whatever_is_lost_or_late() {
    let text =
        |length: usize, step: usize| (0..length).map(|at| (at * step / 7) as u8).collect::<Bytes>();
    // More than the windows of a stream hold, and little.
    let texts = [text(1_500_000, 3), text(20_000, 5)];
    for seed in 0..8 {
        let ([caller, called], _) = run(seed, [&texts[0], &texts[1]], hang_up);
        assert!(called.talker.received == texts[0], "seed {seed}");
        assert!(caller.talker.received == texts[1], "seed {seed}");
        for side in [caller, called] {
            assert!(side.talker.gone, "seed {seed}: a connection is left");
            assert_eq!(side.transport.deadline(), None, "seed {seed}: a timer is left");
        }
    }
}

/// Why the caller's connection ends after the other side was killed and is back, and when.
fn restarted(seed: u64, secret: &[u8]) -> (ConnectionError, Duration) {
    let text = Bytes::from(vec![7; 1_500_000]);
    let mut again = false;
    let ([caller, _], took) = run(seed, [&text, &text], |[caller, called_side]| {
        if caller.talker.lost.is_some() {
            return Next::End;
        }
        if again || caller.talker.received.is_empty() {
            return Next::Wait;
        }
        again = true;
        called_side.transport = called(tls().0, secret);
        called_side.talker = Talker::default();
        Next::Again
    });
    (caller.talker.lost.expect("the connection has ended"), took)
}

#[test]
fn a_server_that_is_back_ends_the_connections_of_before_at_once() {
    let idle = QuicSettings::default().idle_timeout;
    for seed in 0..8 {
        let (reason, took) = restarted(seed, b"secret");
        assert!(matches!(reason, ConnectionError::Reset), "seed {seed}: {reason}");
        assert!(took < idle, "seed {seed}: {took:?}");
        // Who does not know the secret cannot end them.
        let (reason, took) = restarted(seed, b"another");
        assert!(matches!(reason, ConnectionError::TimedOut), "seed {seed}: {reason}");
        assert!(took >= idle, "seed {seed}: {took:?}");
    }
}
