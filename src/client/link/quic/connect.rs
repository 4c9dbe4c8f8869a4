use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, SendStream, TokioRuntime,
    TransportConfig, TransportErrorCode, VarInt,
};
use slim_wire::limits::LANES;
use slim_wire::{
    CloseCode, DecodeError, FrameHeader, FrameKind, Hello, HelloFlags, Name, Role, SessionIds,
};
use socket2::{Domain, Socket, Type};
use tokio_util::task::TaskTracker;

use super::reader::{FrameStream, read_control, read_datagrams, read_lanes};
use super::writer::{write_control, write_lane};
use super::{Quic, Shared, control_header, reason_of};
use crate::client::link::address::Address;
use crate::client::link::error::one_line;
use crate::client::link::outbound::Outbound;
use crate::client::link::{LinkError, LinkOptions, Place, tls};
use crate::identity::IdentityError;
use crate::link::quic::settings::{self, QuicSettings};

/// quinn puts ten packets into one send with segmentation offload; the kernel takes 64 KiB.
const LARGEST_MTU_FOR_OFFLOAD: u16 = 6500;

/// A node that has crashed says nothing, unlike a closed TCP connection.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the system may keep for the socket; it caps this by itself.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Connects to `address`, and returns once both sides have said hello.
pub(crate) async fn connect(
    address: Address<'_>,
    options: &LinkOptions,
) -> Result<Quic, LinkError> {
    let mut config = ClientConfig::new(Arc::new(tls::quic(options)?));
    config.transport_config(Arc::new(transport(options)));
    let server_name = options.server_name.as_deref().unwrap_or(address.host());
    let attempt = |remote| {
        let config = config.clone();
        async move {
            let endpoint = endpoint(remote, options.mtu)?;
            let connecting = endpoint
                .connect_with(config, remote, server_name)
                .map_err(|error| refused_before(address, server_name, &error))?;
            let connection = connecting.await.map_err(|error| failed(address, &error))?;
            greet(connection, endpoint, options).await
        }
    };
    address.connect(options, attempt).await
}

/// An endpoint with a socket of its own for each link, so that the links of a program are spread
/// over the node's cores.
fn endpoint(remote: SocketAddr, mtu: u16) -> Result<Endpoint, LinkError> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(mtu).map_err(|_| LinkError::Option {
        option: "mtu",
        expected: "1200 to 65000",
        got: mtu.into(),
    })?;
    socket(remote)
        .and_then(|socket| Endpoint::new(config, None, socket, Arc::new(TokioRuntime)))
        .map_err(|source| LinkError::Socket { source: Arc::new(source) })
}

fn socket(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if remote.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = Socket::new(Domain::for_address(any), Type::DGRAM, None)?;
    // With less, packets are lost under load and sent again.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&any.into())?;
    Ok(socket.into())
}

fn transport(options: &LinkOptions) -> TransportConfig {
    let LinkOptions { mtu, congestion, .. } = *options;
    let settings = QuicSettings { mtu, idle_timeout: IDLE_TIMEOUT, congestion };
    let mut transport = settings::transport(settings);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .enable_segmentation_offload(mtu <= LARGEST_MTU_FOR_OFFLOAD)
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// Hello in both directions; then the lanes are opened.
async fn greet(
    connection: Connection,
    endpoint: Endpoint,
    options: &LinkOptions,
) -> Result<Quic, LinkError> {
    let lost = |_| {
        let reason = connection.close_reason();
        reason.map_or(LinkError::Ended, |error| reason_of(&error))
    };
    let (mut send, receive) = connection.open_bi().await.map_err(|error| reason_of(&error))?;
    // Requests hold up nothing, and messages wait for them.
    let _ = send.set_priority(1);
    let hello = own_hello(options)?;
    send.write_chunk(hello).await.map_err(|_| lost(()))?;
    let mut frames = FrameStream::new(receive, Place::Control, options.frame_bytes as usize);
    let node = match hear_hello(&mut frames).await {
        Ok(Some(node)) => node,
        Ok(None) => return Err(lost(())),
        Err(error) => {
            let code = VarInt::from_u32(CloseCode::Protocol as u32);
            connection.close(code, error.to_string().as_bytes());
            return Err(error);
        }
    };
    let mut lanes = Vec::with_capacity(LANES.into());
    for _ in 0..LANES {
        lanes.push(connection.open_uni().await.map_err(|error| reason_of(&error))?);
    }
    let name = options.name.clone();
    let shared =
        Arc::new(Shared::new(connection.clone(), node.frame_bytes, name, Outbound::default()));
    let writers = start(&shared, (send, frames), lanes, options.frame_bytes);
    Ok(Quic { shared, endpoint, writers, close_timeout: options.close_timeout })
}

/// Starts the tasks of a link, and returns those that write.
fn start(
    shared: &Arc<Shared>,
    (send, frames): (SendStream, FrameStream),
    lanes: Vec<SendStream>,
    frame_bytes: u32,
) -> TaskTracker {
    let (readers, writers) = (TaskTracker::new(), TaskTracker::new());
    tokio::spawn(write_control(Arc::clone(shared), send));
    tokio::spawn(read_control(Arc::clone(shared), frames));
    for (number, lane) in lanes.into_iter().enumerate() {
        writers.spawn(write_lane(Arc::clone(shared), number, lane));
    }
    readers.spawn(read_lanes(Arc::clone(shared), readers.clone(), frame_bytes as usize));
    readers.spawn(read_datagrams(Arc::clone(shared), frame_bytes as usize));
    readers.close();
    tokio::spawn(Arc::clone(shared).watch(readers));
    writers
}

fn own_hello(options: &LinkOptions) -> Result<Bytes, LinkError> {
    let (flags, frame_bytes) = (HelloFlags::empty(), options.frame_bytes);
    let hello = Hello { role: Role::App, node: 0, flags, frame_bytes };
    let long = |error: &dyn std::fmt::Display| LinkError::Credentials {
        source: IdentityError::Config { reason: error.to_string() },
    };
    let payload = match options.authorization()? {
        Some(value) => {
            hello.encode_with(value.expose().as_bytes()).map_err(|error| long(&error))?
        }
        None => hello.encode().to_vec(),
    };
    let header = control_header(options.name.as_ref(), Name::NOBODY);
    slim_wire::frame(FrameKind::Hello, &header, SessionIds::default(), &[], &payload)
        .map_err(|error| long(&error))
}

/// The node's hello; `None` if the link ended before.
async fn hear_hello(frames: &mut FrameStream) -> Result<Option<Hello>, LinkError> {
    loop {
        if let Some((head, body)) = frames.next()? {
            return hello_of(&head, &body.concat())
                .map(Some)
                .map_err(|source| frames.wrong(source));
        }
        if !frames.read().await? {
            return Ok(None);
        }
    }
}

fn hello_of(head: &FrameHeader, frame: &[u8]) -> Result<Hello, DecodeError> {
    let unexpected = |field, expected, got| DecodeError::Unexpected { field, expected, got };
    let kind = head.kind()?;
    if kind != FrameKind::Hello {
        return Err(unexpected("kind of the first frame", "4 (hello)", kind as u64));
    }
    let hello = Hello::decode(head.parts(frame).1)?;
    if hello.role != Role::Node {
        return Err(unexpected("role of a node", "1 (node)", 0));
    }
    Ok(hello)
}

/// What spoke against connecting before anything was sent.
fn refused_before(
    address: Address<'_>,
    server_name: &str,
    error: &quinn::ConnectError,
) -> LinkError {
    match error {
        quinn::ConnectError::InvalidServerName(_) => {
            LinkError::ServerName { got: server_name.to_owned() }
        }
        other => address.unusable(other),
    }
}

/// Why a handshake failed.
fn failed(address: Address<'_>, error: &ConnectionError) -> LinkError {
    /// Alerts of TLS by which this end says that it does not like the node's certificate or its
    /// signature, as QUIC writes them.
    const CERTIFICATE_ALERTS: [u64; 8] = [42, 43, 44, 45, 46, 47, 48, 51];
    const ALERTS: u64 = 0x100;
    let alert = |code: TransportErrorCode| u64::from(code).wrapping_sub(ALERTS);
    match error {
        ConnectionError::TransportError(here) if CERTIFICATE_ALERTS.contains(&alert(here.code)) => {
            LinkError::Untrusted {
                address: address.to_text(),
                reason: one_line(here.reason.as_bytes()),
            }
        }
        ConnectionError::ApplicationClosed(_) => reason_of(error),
        // A node at its limit spares itself the handshake.
        ConnectionError::ConnectionClosed(there)
            if there.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            let reason = "it takes no more connections".into();
            LinkError::Closed { code: CloseCode::Limit, reason }
        }
        ConnectionError::TimedOut => {
            LinkError::Timeout { what: address.connecting(), after: IDLE_TIMEOUT }
        }
        other => LinkError::Handshake {
            address: address.to_text(),
            reason: one_line(other.to_string().as_bytes()),
        },
    }
}
