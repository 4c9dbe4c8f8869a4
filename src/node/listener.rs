use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::io::fcntl_dupfd_cloexec;
use slim_config::{Quic, Server};
use slim_wire::Fault;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::security::Security;
use crate::datapath::CoreId;
use crate::link::grpc::{Http2Settings, serve_connection};
use crate::link::quic::Listening;
use crate::link::quic::settings::{self, QuicSettings, ResetKey};
use crate::link::{Gate, Host, Incident, Visitor, principal_of};
use crate::policy::Principal;

/// A listener that cannot be had.
#[derive(Debug, Error)]
#[error("listen on {address}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's answer.
    pub source: std::io::Error,
}

impl BindError {
    /// The configuration's: another address would do.
    pub fn fault(&self) -> Fault {
        Fault::Config
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self.source.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process listens there; stop it, or choose another endpoint"
            }
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
            _ => "use an address of this machine",
        }
    }
}

/// One configured server: a listener per core on one address, and for native links a socket of
/// the same number.
pub(super) struct BoundServer {
    pub(super) address: SocketAddr,
    pub(super) security: Security,
    settings: Http2Settings,
    quic: QuicSettings,
    exchanges: bool,
    listeners: Vec<TcpListener>,
    sockets: Vec<UdpSocket>,
}

/// One core's listener of one server.
pub(super) struct CoreListener {
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    gate: Arc<Gate>,
    settings: Http2Settings,
    quic: Option<CoreSocket>,
}

/// One core's socket of one server.
struct CoreSocket {
    socket: UdpSocket,
    config: Arc<ArcSwap<quinn_proto::ServerConfig>>,
    settings: QuicSettings,
    resets: ResetKey,
    exchanges: bool,
}

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// A free port of TCP may be taken in UDP; so many are tried.
const PORTS: usize = 16;

/// Binds a listener and a socket per core, among which the kernel spreads connections.
pub(super) fn bind_server(
    server: &Server,
    security: Security,
    exchanges: bool,
    cores: usize,
) -> Result<BoundServer, BindError> {
    let error = |source| BindError { address: server.endpoint, source };
    let mut tries = if server.endpoint.port() == 0 { PORTS } else { 1 };
    let (address, listeners, sockets) = loop {
        tries -= 1;
        let (address, listeners) = bind_tcp(server.endpoint, cores).map_err(error)?;
        let count = if security.quic.is_some() { cores } else { 0 };
        match bind_udp(address, count) {
            Ok(sockets) => break (address, listeners, sockets),
            Err(source) if tries == 0 => return Err(BindError { address, source }),
            Err(_) => {}
        }
    };
    let (settings, quic) = (http2_settings(server), quic_settings(server));
    Ok(BoundServer { address, security, settings, quic, exchanges, listeners, sockets })
}

/// How QUIC is spoken at a server.
pub(super) fn quic_settings(server: &Server) -> QuicSettings {
    let Quic { mtu, idle_timeout, congestion, .. } = server.quic;
    QuicSettings { mtu, idle_timeout, congestion }
}

fn bind_tcp(endpoint: SocketAddr, cores: usize) -> std::io::Result<(SocketAddr, Vec<TcpListener>)> {
    // The first is bound alone: sharing would hide that another process has the port. Only when
    // it listens, which the system allows to one such socket, may the other cores join it.
    let alone = listen(endpoint, false)?;
    alone.set_reuse_port(true)?;
    let first = TcpListener::from(alone);
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listen(address, true)?.into());
    }
    Ok((address, listeners))
}

fn bind_udp(address: SocketAddr, cores: usize) -> std::io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::with_capacity(cores);
    for core in 0..cores {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // The first is bound alone, so that another process on the port is found.
        socket.set_reuse_port(core > 0)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn listen(address: SocketAddr, share: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restarted node listen while connections of the last one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    let socket = closed_first(socket);
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A descriptor above those of connections. When a process is killed its descriptors are closed
/// from the highest on, and a listener that outlives its connections still completes the
/// handshakes of clients that come back, which give up for good when such a connection breaks.
fn closed_first(socket: Socket) -> Socket {
    const LEAST: [i32; 3] = [60_000, 4_000, 900];
    let higher = LEAST.into_iter().find_map(|least| fcntl_dupfd_cloexec(&socket, least).ok());
    higher.map_or(socket, Socket::from)
}

/// Larger frames are not asked for, whatever the configuration allows: a small message would hold
/// on to a receive buffer of a frame's size.
const LARGEST_FRAME: u32 = 64 * 1024;

/// Published clients have one stream per connection; a proxy in front of them opens more
/// connections.
const STREAMS: u32 = 100;

fn http2_settings(server: &Server) -> Http2Settings {
    Http2Settings {
        max_frame_size: server.max_frame_size.map(|bytes| bytes.min(LARGEST_FRAME)),
        max_concurrent_streams: server.max_concurrent_streams.or(Some(STREAMS)),
        max_header_list_size: server.max_header_list_size,
        keepalive_time: server.keepalive.time,
        keepalive_timeout: server.keepalive.timeout,
        max_connection_age: server.keepalive.max_connection_age,
    }
}

impl BoundServer {
    /// Each core's share of all servers.
    pub(super) fn split(servers: Vec<Self>, cores: usize) -> Vec<Vec<CoreListener>> {
        let mut shares: Vec<Vec<CoreListener>> = (0..cores).map(|_| Vec::new()).collect();
        for Self { security, settings, quic, exchanges, listeners, sockets, .. } in servers {
            let mut sockets = sockets.into_iter();
            for (share, listener) in shares.iter_mut().zip(listeners) {
                let Security { grpc: tls, quic: config, resets, gate } = security.clone();
                let socket = config.zip(sockets.next());
                let socket = socket.map(|(config, socket)| CoreSocket {
                    socket,
                    config,
                    settings: quic,
                    resets,
                    exchanges,
                });
                share.push(CoreListener { listener, tls, gate, settings, quic: socket });
            }
        }
        shares
    }
}

/// The native sockets among a core's listeners.
pub(super) fn take_quic(listeners: &mut [CoreListener], core: CoreId) -> Vec<Listening> {
    let sockets = listeners.iter_mut().enumerate();
    let listening = sockets.filter_map(|(server, listener)| {
        let CoreSocket { socket, config, settings, resets, exchanges } = listener.quic.take()?;
        let endpoint = settings::listening(core, settings, &resets);
        let gate = Arc::clone(&listener.gate);
        Some(Listening { socket, server, endpoint, config, gate, exchanges })
    });
    listening.collect()
}

/// How long a core waits when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl CoreListener {
    /// Accepts connections until the future is dropped, which closes the listener.
    pub(super) async fn accept(self, host: Rc<Host>) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (gate, tls) = (Arc::clone(&self.gate), self.tls.as_ref());
                    let visitor = Visitor { peer, certificate: Principal::Nobody, gate };
                    let tls = tls.map(|tls| TlsAcceptor::from(tls.load_full()));
                    let serve = serve(stream, visitor, tls, self.settings, Rc::clone(&host));
                    host.tasks.spawn_local(serve);
                }
                Err(error) => {
                    let address = listener.local_addr()?;
                    host.report(Incident::AcceptFailed, &address, &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    mut visitor: Visitor,
    tls: Option<TlsAcceptor>,
    settings: Http2Settings,
    host: Rc<Host>,
) {
    let (peer, accepted) = (visitor.peer, Instant::now());
    let Some(_connection) = host.places.take_connection() else {
        return host.report(Incident::LinkLimit, &peer, &"connections");
    };
    if let Err(error) = stream.set_nodelay(true) {
        return host.report(Incident::ConnectionLost, &peer, &error);
    }
    // In memory of their own, so that a connection's task is not as large as the larger of the two
    // and its handshake together.
    let Some(tls) = tls else {
        return Box::pin(serve_connection(stream, visitor, accepted, settings, host)).await;
    };
    let handshake = tokio::time::timeout(host.limits.handshake, Box::pin(tls.accept(stream)));
    let handshake = tokio::select! {
        done = handshake => done,
        () = host.finish.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            visitor.certificate = principal_of(stream.get_ref().1.peer_certificates());
            Box::pin(serve_connection(stream, visitor, accepted, settings, host)).await;
        }
        Ok(Err(error)) => host.report(Incident::TlsFailed, &peer, &error),
        Err(_) => host.report(Incident::HandshakeTimeout, &peer, &"TLS handshake"),
    }
}
