use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use slim_config::Server;
use slim_wire::Fault;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::link::Incident;
use crate::link::grpc::{Gateway, Http2Settings, serve_connection};

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

/// One configured server: a listener per core on one address.
pub(super) struct BoundServer {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
    settings: Http2Settings,
    listeners: Vec<TcpListener>,
}

/// One core's listener of one server.
pub(super) struct CoreListener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    settings: Http2Settings,
}

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Binds a listener per core, among which the kernel spreads connections.
pub(super) fn bind_server(
    server: &Server,
    tls: Option<TlsAcceptor>,
    cores: usize,
) -> Result<BoundServer, BindError> {
    let error = |source| BindError { address: server.endpoint, source };
    // The first is bound alone: sharing would hide that another process has the port. Only when
    // it listens, which the system allows to one such socket, may the other cores join it.
    let alone = listen(server.endpoint, false).map_err(error)?;
    alone.set_reuse_port(true).map_err(error)?;
    let first = TcpListener::from(alone);
    let address = first.local_addr().map_err(error)?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listen(address, true).map_err(error)?.into());
    }
    Ok(BoundServer { address, tls, settings: http2_settings(server), listeners })
}

fn listen(address: SocketAddr, share: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restarted node listen while connections of the last one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
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
        for Self { tls, settings, listeners, .. } in servers {
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push(CoreListener { listener, tls: tls.clone(), settings });
            }
        }
        shares
    }
}

/// How long a core waits when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl CoreListener {
    /// Accepts connections until the future is dropped, which closes the listener.
    pub(super) async fn accept(self, gateway: Rc<Gateway>) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let serve =
                        serve(stream, peer, self.tls.clone(), self.settings, Rc::clone(&gateway));
                    gateway.tasks.spawn_local(serve);
                }
                Err(error) => {
                    let address = listener.local_addr()?;
                    gateway.report(Incident::AcceptFailed, &address, &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    settings: Http2Settings,
    gateway: Rc<Gateway>,
) {
    let accepted = Instant::now();
    let Some(_connection) = gateway.places.take_connection() else {
        return gateway.report(Incident::LinkLimit, &peer, &"connections");
    };
    if let Err(error) = stream.set_nodelay(true) {
        return gateway.report(Incident::ConnectionLost, &peer, &error);
    }
    let Some(tls) = tls else {
        return serve_connection(stream, peer, accepted, settings, gateway).await;
    };
    let handshake = tokio::time::timeout(gateway.limits.handshake, tls.accept(stream));
    let handshake = tokio::select! {
        done = handshake => done,
        () = gateway.finish.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_connection(stream, peer, accepted, settings, gateway).await,
        Ok(Err(error)) => gateway.report(Incident::TlsFailed, &peer, &error),
        Err(_) => gateway.report(Incident::HandshakeTimeout, &peer, &"TLS handshake"),
    }
}
