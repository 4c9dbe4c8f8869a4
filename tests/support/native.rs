use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
};
use slim_quic::client::link::{Link, LinkError, LinkOptions, Message, Trust};
use slim_quic::link::quic::tls::{AcceptAny, quic_provider};
use slim_wire::limits::HEADER_BYTES;
use slim_wire::session::{Content, Delivery, Session, SessionKind};
use slim_wire::{
    ALPN, Class, CloseCode, Encoding, Flags, FrameHeader, FrameKind, Header, Hello, HelloFlags,
    Kind, Name, Role, SessionIds, TextName, frame,
};

use super::in_time;
use super::node::Node;

pub(crate) fn text(name: &str) -> TextName {
    name.parse().expect("a name")
}

pub(crate) fn name(name: &str) -> Name {
    text(name).to_name()
}

/// A link of the client library that trusts any certificate.
pub(crate) async fn try_link(node: &Node) -> Result<Link, LinkError> {
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    in_time("a link", Link::connect(&node.address.to_string(), &options)).await
}

/// One that is subscribed to these names; the whole node knows.
pub(crate) async fn join(node: &Node, names: &[&str]) -> Link {
    let link = try_link(node).await.expect("the node serves links");
    for name in names {
        in_time("an answer", link.subscribe(&text(name))).await.expect("subscribed");
    }
    link
}

pub(crate) async fn send(link: &Link, message: &Message) {
    in_time("room to publish", link.publish(message)).await.expect("the link is open");
}

pub(crate) async fn receive(link: &Link) -> Message {
    in_time("a message", link.receive()).await.expect("the link is open")
}

/// A reliable message of a point-to-point session to one target.
pub(crate) fn message(source: &str, destination: &str, payload: impl Into<Bytes>) -> Message {
    let session = Session {
        kind: SessionKind::PointToPoint,
        content: Content::Data(Delivery::Reliable),
        ..Session::default()
    };
    let session = session.encode().expect("it is short").into();
    Message { session, ..Message::new(name(source), name(destination), payload) }
}

/// The header of a reliable publish to one target.
pub(crate) fn header(source: &str, destination: &str) -> Header {
    Header {
        kind: Kind::Publish,
        class: Class::Reliable,
        encoding: Encoding::Native,
        flags: Flags::empty(),
        ttl: Header::DEFAULT_TTL,
        fanout: 1,
        lane: 0,
        source: name(source),
        destination: name(destination),
    }
}

/// The same as a frame.
pub(crate) fn publish(source: &str, destination: &str, payload: &[u8]) -> Bytes {
    let ids = SessionIds::default();
    let header = header(source, destination);
    frame(FrameKind::Publish, &header, ids, &[], payload).expect("it fits")
}

/// A frame of the control stream.
pub(crate) fn request(kind: FrameKind, number: u32, destination: Name, payload: &[u8]) -> Bytes {
    let header = Header { destination, ..header("org/ns/raw", "org/ns/raw") };
    let ids = SessionIds { session: 0, message: number };
    frame(kind, &header, ids, &[], payload).expect("it fits")
}

pub(crate) fn subscribe(number: u32, to: &str) -> Bytes {
    let texts = text(to).components().join("/");
    request(FrameKind::Subscribe, number, name(to), texts.as_bytes())
}

pub(crate) const HELLO: Hello =
    Hello { role: Role::App, node: 0, flags: HelloFlags::empty(), frame_bytes: 4 * 1024 * 1024 };

pub(crate) fn hello(payload: &[u8]) -> Bytes {
    request(FrameKind::Hello, 0, name("org/ns/raw"), payload)
}

/// What a raw client takes for TLS: any certificate.
pub(crate) fn tls(alpn: &[u8]) -> QuicClientConfig {
    let provider = quic_provider();
    let anyone = AcceptAny::new(&provider);
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    QuicClientConfig::try_from(tls).expect("a suite for QUIC")
}

/// How a raw client speaks QUIC.
pub(crate) fn client_config(alpn: &[u8], transport: TransportConfig) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(tls(alpn)));
    config.transport_config(Arc::new(transport));
    config
}

/// A connection that says what it likes.
pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    /// Lanes of the node that nobody asked for.
    unread: Mutex<Vec<RecvStream>>,
}

impl Raw {
    pub(crate) async fn try_connect(
        address: SocketAddr,
        config: ClientConfig,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let connecting = endpoint.connect_with(config, address, "node").expect("an address");
        let connection = in_time("a handshake", connecting).await?;
        Ok(Self { endpoint, connection, unread: Mutex::default() })
    }

    pub(crate) async fn connect_with(node: &Node, transport: TransportConfig) -> Self {
        let config = client_config(ALPN, transport);
        Self::try_connect(node.address, config).await.expect("the node takes connections")
    }

    pub(crate) async fn connect(node: &Node) -> Self {
        Self::connect_with(node, TransportConfig::default()).await
    }

    /// A connection whose two ends have said hello.
    pub(crate) async fn greeted(node: &Node) -> (Self, Control) {
        Self::greeted_with(node, TransportConfig::default()).await
    }

    pub(crate) async fn greeted_with(node: &Node, transport: TransportConfig) -> (Self, Control) {
        Self::connect_with(node, transport).await.greet(HELLO).await
    }

    /// One that says this hello, and hears that of the node.
    pub(crate) async fn greeted_as(node: &Node, hello: Hello) -> (Self, Control) {
        Self::connect(node).await.greet(hello).await
    }

    async fn greet(self, ours: Hello) -> (Self, Control) {
        let raw = self;
        let mut control = raw.control().await;
        control.say(&hello(&ours.encode())).await;
        let (head, payload) = control.hear().await;
        assert_eq!(head.kind(), Ok(FrameKind::Hello));
        assert_eq!(Hello::decode(&payload).map(|hello| hello.role), Ok(Role::Node));
        (raw, control)
    }

    /// Opens the control stream, and says nothing yet.
    pub(crate) async fn control(&self) -> Control {
        let opened = in_time("a stream", self.connection.open_bi()).await;
        let (send, receive) = opened.expect("the connection is open");
        Control { send, receive }
    }

    pub(crate) async fn lane(&self) -> SendStream {
        in_time("a lane", self.connection.open_uni()).await.expect("the connection is open")
    }

    /// The lane of the node for messages of `source` outside of any session.
    pub(crate) async fn accept(&self, source: &str) -> RecvStream {
        let number = u64::from(slim_wire::lane(0, &name(source)));
        in_time("a lane", async {
            loop {
                let lane = self.connection.accept_uni().await.expect("the connection is open");
                if lane.id().index() == number {
                    return lane;
                }
                // One that is dropped is stopped.
                self.unread.lock().expect("no panic").push(lane);
            }
        })
        .await
    }

    /// Why the node closed the connection: its code and its words.
    pub(crate) async fn closed(&self) -> (CloseCode, String) {
        match in_time("the end of the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                let code = CloseCode::from_number(close.error_code.into_inner());
                let reason = String::from_utf8(close.reason.to_vec()).expect("UTF-8");
                (code.expect("a code of the protocol"), reason)
            }
            other => panic!("expected the node to close the connection, got {other}"),
        }
    }
}

/// The control stream of a raw client.
pub(crate) struct Control {
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

impl Control {
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        in_time("room to send", self.send.write_all(bytes)).await.expect("the stream is open");
    }

    /// The node's next frame: its header and payload.
    pub(crate) async fn hear(&mut self) -> (FrameHeader, Vec<u8>) {
        read_frame(&mut self.receive).await
    }

    /// Subscribes, and waits until the whole node knows.
    pub(crate) async fn subscribe(&mut self, number: u32, to: &str) {
        self.say(&subscribe(number, to)).await;
        assert_eq!(self.answer().await, (number, None));
    }

    /// The number of the request that was answered, and why it was refused if it was.
    pub(crate) async fn answer(&mut self) -> (u32, Option<String>) {
        let (head, payload) = self.hear().await;
        assert_eq!(head.kind(), Ok(FrameKind::Ack));
        let refused = head.is_error().then(|| String::from_utf8(payload).expect("UTF-8"));
        (head.ids().message, refused)
    }
}

/// The next frame of a stream: its header and payload.
pub(crate) async fn read_frame(stream: &mut RecvStream) -> (FrameHeader, Vec<u8>) {
    in_time("a frame", async {
        let mut head = [0; HEADER_BYTES];
        stream.read_exact(&mut head).await.expect("a header");
        let head = *FrameHeader::prefix_of(&head).expect("a header");
        let mut payload = vec![0; head.length() - HEADER_BYTES];
        stream.read_exact(&mut payload).await.expect("a payload");
        (head, payload.split_off(head.session_length()))
    })
    .await
}
