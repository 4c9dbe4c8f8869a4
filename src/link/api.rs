//! Listens for callers of an API: TCP, TLS, and what they have to show.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::header::AUTHORIZATION;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::link::certificate::principal_of;
use crate::link::gate::Gate;
use crate::policy::Principal;

/// Connections of one API.
const CONNECTIONS: usize = 8192;

/// Streams of one connection: a node has one.
const STREAMS: u32 = 256;

/// From the accepted connection to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a silent peer is believed to be there.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// Pause when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long somebody with wrong credentials waits for the answer.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// While so many of one address wait, the credentials of others there are not looked at.
const DELAYS_OF_AN_ADDRESS: usize = 16;

/// Who calls.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    certificate: Principal,
}

/// A bound listener, and who is let in.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    pub(crate) gate: Arc<Gate>,
}

/// Binds a listener. `0.0.0.0` stands for every address, of IPv6 too where the system has it, as
/// with the published controller.
pub(crate) async fn bind(place: &str) -> io::Result<TcpListener> {
    let mut found: Vec<_> = tokio::net::lookup_host(place).await?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let address = *found.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    if address.ip().is_unspecified()
        && let Ok(listener) = listen(every)
    {
        return TcpListener::from_std(listener);
    }
    TcpListener::from_std(listen(address)?)
}

/// Binds a listener on just this address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 1024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Serves until `stop` is cancelled and every connection has ended.
    pub(crate) async fn serve(
        self,
        routes: Routes,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        const ACCEPTED: usize = 16;
        let (sender, accepted) = mpsc::channel(ACCEPTED);
        let guard = Guard { gate: self.gate, waiting: Arc::default() };
        let accept = accept(self.socket, self.tls, sender);
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        let router = routes.into_axum_router().layer(from_fn(move |request, next| {
            let guard = guard.clone();
            async move { guard.admit(request, next).await }
        }));
        let (interval, timeout) = KEEPALIVE;
        Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
            .add_routes(Routes::from(router))
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop.cancelled_owned())
            .await
    }
}

async fn accept(
    socket: TcpListener,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "A connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!(%peer, "Too many connections");
            continue;
        };
        let (tls, sender) = (tls.as_ref().map(|tls| tls.load_full()), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                return debug!(%peer, %error, "Connection lost");
            }
            let caller = Caller { peer, certificate: Principal::Nobody };
            let connection = match tls {
                None => Connection { transport: Transport::Plain(stream), caller, _place: place },
                Some(config) => {
                    let accept = TlsAcceptor::from(config).accept(stream);
                    let stream = match tokio::time::timeout(HANDSHAKE, accept).await {
                        Ok(Ok(stream)) => stream,
                        Ok(Err(error)) => return warn!(%peer, %error, "TLS handshake failed"),
                        Err(_) => return warn!(%peer, "TLS handshake took too long"),
                    };
                    let certificate = principal_of(stream.get_ref().1.peer_certificates());
                    let transport = Transport::Tls(Box::new(stream));
                    Connection { transport, caller: Caller { peer, certificate }, _place: place }
                }
            };
            // The server has stopped otherwise.
            let _ = sender.send(Ok(connection)).await;
        });
    }
}

struct Connection {
    transport: Transport,
    caller: Caller,
    _place: tokio::sync::OwnedSemaphorePermit,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Lets in who shows what is asked for. Others wait for their answer, so that guessing is slow.
#[derive(Clone)]
struct Guard {
    gate: Arc<Gate>,
    waiting: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

struct Waiting<'a>(&'a Guard, IpAddr);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.1);
            }
        }
    }
}

impl Guard {
    async fn admit(&self, request: Request, next: Next) -> Response {
        let Some(Caller { peer, certificate }) = request.extensions().get::<Caller>().cloned()
        else {
            return refusal("the caller is unknown");
        };
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
        if self.is_guessing(peer.ip()) {
            return refusal("too many wrong credentials come from this address");
        }
        match self.gate.admit(&certificate, shown, SystemTime::now()) {
            Ok(_) => next.run(request).await,
            Err(error) => {
                let _waiting = self.wait(peer.ip());
                warn!(%peer, %error, "Caller refused");
                tokio::time::sleep(REFUSAL_DELAY).await;
                refusal(&error.to_string())
            }
        }
    }

    fn is_guessing(&self, address: IpAddr) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&address).is_some_and(|count| *count >= DELAYS_OF_AN_ADDRESS)
    }

    fn wait(&self, address: IpAddr) -> Waiting<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting.entry(address).or_default() += 1;
        Waiting(self, address)
    }
}

fn refusal(reason: &str) -> Response {
    Status::unauthenticated(reason).into_http::<Body>()
}
