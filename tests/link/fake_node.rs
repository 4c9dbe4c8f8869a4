//! The node's end of a native link, step by step.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use slim_quic::client::link::{Link, LinkOptions, Message, Trust};
use slim_wire::limits::LANES;
use slim_wire::{
    ALPN, Class, CloseCode, Encoding, Flags, FrameHeader, FrameKind, FrameReader, Frames, Header,
    Hello, HelloFlags, Kind, Name, Role, SessionIds, TextName, frame, lane,
};

use crate::support::in_time;

/// What the fake node takes, in bytes per frame.
pub(crate) const FRAME_BYTES: usize = 4 * 1024 * 1024;

pub(crate) struct FakeNode {
    endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    /// Its certificate, which it signed itself.
    pub(crate) pem: String,
}

impl FakeNode {
    pub(crate) fn start() -> Self {
        Self::speaking(ALPN)
    }

    /// A node that negotiates another protocol.
    pub(crate) fn speaking(protocol: &[u8]) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        tls.alpn_protocols = vec![protocol.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).expect("AES-128");
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(65_000);
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(LANES.into()))
            .stream_receive_window(VarInt::from_u32(1 << 20))
            .mtu_discovery_config(Some(discovery))
            .enable_segmentation_offload(false);
        config.transport_config(Arc::new(transport));
        let mut endpoint = EndpointConfig::default();
        endpoint.max_udp_payload_size(65_000).expect("a size");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let endpoint = Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))
            .expect("an endpoint");
        let address = endpoint.local_addr().expect("an address");
        Self { endpoint, address, pem: made.cert.pem() }
    }

    pub(crate) fn options(&self) -> LinkOptions {
        LinkOptions { trust: Trust::Pem(self.pem.clone()), ..LinkOptions::default() }
    }

    /// A link and the node's end of it, after both hellos.
    pub(crate) async fn link(&self) -> (Link, Peer) {
        self.link_with(&self.options()).await
    }

    pub(crate) async fn link_with(&self, options: &LinkOptions) -> (Link, Peer) {
        let address = self.address.to_string();
        let node = async {
            let mut peer = self.accept().await;
            peer.heard_hello().await;
            peer.say_hello().await;
            peer
        };
        let both = async { tokio::join!(Link::connect(&address, options), node) };
        let (link, peer) = in_time("both hellos", both).await;
        (link.expect("a link"), peer)
    }

    /// A client that gives up the handshake.
    pub(crate) async fn accept_failure(&self) {
        let incoming = self.endpoint.accept().await.expect("the endpoint is open");
        incoming.await.expect_err("no handshake");
    }

    /// A connection whose client has opened its control stream.
    pub(crate) async fn accept(&self) -> Peer {
        let incoming = self.endpoint.accept().await.expect("the endpoint is open");
        let connection = incoming.await.expect("a handshake");
        let (answers, requests) = connection.accept_bi().await.expect("a control stream");
        let requests = Lane::new(requests);
        Peer { connection, answers, requests, lanes: Vec::new() }
    }
}

/// A stream of frames from the client.
pub(crate) struct Lane {
    stream: RecvStream,
    frames: FrameReader,
}

impl Lane {
    fn new(stream: RecvStream) -> Self {
        Self { stream, frames: FrameReader::new(FRAME_BYTES) }
    }

    /// The lane's number.
    pub(crate) fn number(&self) -> u64 {
        self.stream.id().index()
    }

    /// The next frames, all that arrived together; `None` at the end of the stream.
    pub(crate) async fn frames(&mut self) -> Option<Vec<(FrameHeader, Bytes)>> {
        loop {
            let mut frames = Vec::new();
            while let Some(run) = self.frames.next_run().expect("frames") {
                let whole = Frames::of(&run.body);
                frames.extend(whole.map(|(head, pieces)| (head, pieces.concat().into())));
            }
            if !frames.is_empty() {
                return Some(frames);
            }
            let chunk = self.stream.read_chunk(usize::MAX, true).await.expect("the stream is open");
            self.frames.push(chunk?.bytes).expect("frames");
        }
    }

    /// How many frames there are until the end of the stream.
    pub(crate) async fn count(&mut self) -> usize {
        let mut count = 0;
        while let Some(frames) = self.frames().await {
            count += frames.len();
        }
        count
    }
}

/// The node's end of a link.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) answers: SendStream,
    requests: Lane,
    lanes: Vec<SendStream>,
}

impl Peer {
    /// The client's hello.
    pub(crate) async fn heard_hello(&mut self) -> Hello {
        let (head, frame) = self.request().await;
        assert_eq!(head.kind(), Ok(FrameKind::Hello));
        Hello::decode(head.parts(&frame).1).expect("a hello")
    }

    pub(crate) async fn say_hello(&mut self) {
        let (flags, frame_bytes) = (HelloFlags::empty(), FRAME_BYTES as u32);
        let hello = Hello { role: Role::Node, node: 5, flags, frame_bytes };
        self.say(FrameKind::Hello, 0, Flags::empty(), &hello.encode()).await;
    }

    /// Says something on the control stream.
    pub(crate) async fn say(&mut self, kind: FrameKind, id: u32, flags: Flags, payload: &[u8]) {
        let bytes = control_frame(kind, id, flags, payload);
        self.answers.write_all(&bytes).await.expect("the link is open");
    }

    /// The next frame on the control stream.
    pub(crate) async fn request(&mut self) -> (FrameHeader, Bytes) {
        let frames = self.requests().await;
        let [frame] = &frames[..] else { panic!("several requests at once: {frames:?}") };
        frame.clone()
    }

    /// The next frames on the control stream.
    pub(crate) async fn requests(&mut self) -> Vec<(FrameHeader, Bytes)> {
        in_time("a request", self.requests.frames()).await.expect("it stays open")
    }

    /// Waits for the end of the control stream.
    pub(crate) async fn no_more_requests(&mut self) {
        assert_eq!(self.requests.frames().await, None);
    }

    /// The next lane that the client uses.
    pub(crate) async fn lane(&self) -> Lane {
        let stream = in_time("a lane", self.connection.accept_uni()).await.expect("a lane");
        Lane::new(stream)
    }

    /// The lane that carries a message; those of lower numbers are left unread.
    pub(crate) async fn lane_of(&self, message: &Message) -> Lane {
        let wanted = lane(message.ids.session, &message.source);
        loop {
            let lane = self.lane().await;
            if lane.number() == u64::from(wanted) {
                return lane;
            }
        }
    }

    /// Sends bytes on a lane of the node's.
    pub(crate) async fn send(&mut self, lane: usize, bytes: &[u8]) {
        while self.lanes.len() <= lane {
            self.lanes.push(self.connection.open_uni().await.expect("a lane"));
        }
        self.lanes[lane].write_all(bytes).await.expect("the link is open");
    }

    /// Ends the lanes and waits until the client's QUIC has all.
    pub(crate) async fn finish_lanes(&mut self) {
        for lane in &mut self.lanes {
            lane.finish().expect("it is open");
            in_time("the client has all", lane.stopped()).await.expect("the link is open");
        }
    }

    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    /// Why the client closed the link.
    pub(crate) async fn close_reason(&self) -> (Option<CloseCode>, String) {
        match in_time("the end of the link", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => (
                CloseCode::from_number(close.error_code.into_inner()),
                String::from_utf8(close.reason.to_vec()).expect("UTF-8"),
            ),
            other => panic!("closed otherwise: {other}"),
        }
    }

    /// From now on, sends back what comes, each lane on the one with the same number.
    pub(crate) fn echo(self) {
        let datagrams = self.connection.clone();
        tokio::spawn(async move {
            while let Ok(datagram) = datagrams.read_datagram().await {
                let _ = datagrams.send_datagram_wait(datagram).await;
            }
        });
        tokio::spawn(async move {
            let _open = (self.answers, self.requests);
            while let Ok(mut from) = self.connection.accept_uni().await {
                let mut to = self.connection.open_uni().await.expect("a lane");
                assert_eq!(from.id().index(), to.id().index());
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = from.read_chunk(usize::MAX, true).await {
                        if to.write_chunk(chunk.bytes).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

pub(crate) fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

pub(crate) fn name(name: &str) -> Name {
    text(name).to_name()
}

/// A frame as nodes send it.
pub(crate) fn control_frame(kind: FrameKind, id: u32, flags: Flags, payload: &[u8]) -> Bytes {
    let header = Header { flags, ..header() };
    let ids = SessionIds { session: 0, message: id };
    frame(kind, &header, ids, &[], payload).expect("it fits")
}

pub(crate) fn header() -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: 1,
        lane: 0,
        source: name("org/ns/source/1"),
        destination: name("org/ns/me"),
    }
}

/// A message as frame, numbered.
pub(crate) fn publish(number: u32, payload: &[u8]) -> Bytes {
    let ids = SessionIds { session: 1, message: number };
    frame(FrameKind::Publish, &header(), ids, &[], payload).expect("it fits")
}

/// A message of a session, numbered.
pub(crate) fn message(session: u32, number: u32, payload: impl Into<Bytes>) -> Message {
    Message {
        ids: SessionIds { session, message: number },
        session: Bytes::from(number.to_le_bytes().to_vec()),
        ..Message::new(name("org/ns/source/1"), name("org/ns/me"), payload)
    }
}
