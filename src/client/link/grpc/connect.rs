use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use rustls::pki_types::ServerName;
use slim_compat_grpc::{D6, Dialect};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::reader::{accept, read};
use super::writer::write;
use super::{Grpc, Shared};
use crate::client::link::address::{Address, Scheme};
use crate::client::link::error::one_line;
use crate::client::link::{LinkError, LinkOptions, tls};

/// Windows as published clients announce them.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;

/// What the connection takes from the queue before it is written.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// As published clients announce it.
const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// A node that has crashed says nothing. Both together are as patient as a QUIC link.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(7);

/// How long the last bytes of a connection may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connects to `address`, and returns once the node has accepted the stream.
pub(crate) async fn connect(
    address: Address<'_>,
    options: &LinkOptions,
) -> Result<Grpc, LinkError> {
    let request = request(address, options)?;
    let tls = match address.scheme {
        Scheme::Https => {
            let name = options.server_name.as_deref().unwrap_or(address.host());
            let wrong = |_| LinkError::ServerName { got: name.to_owned() };
            let server = ServerName::try_from(name.to_owned()).map_err(wrong)?;
            Some((TlsConnector::from(Arc::new(tls::http2(options)?)), server))
        }
        Scheme::Http | Scheme::Quic => None,
    };
    let attempt = |remote| {
        let (tls, request) = (tls.clone(), request.clone());
        async move {
            let tcp = reach(address, remote).await?;
            match tls {
                None => open(address, tcp, request, options).await,
                Some((connector, server)) => {
                    let shaken = connector.connect(server, tcp).await;
                    let io = shaken.map_err(|error| untrusted(address, error))?;
                    open(address, io, request, options).await
                }
            }
        }
    };
    address.connect(options, attempt).await
}

fn request(address: Address<'_>, options: &LinkOptions) -> Result<Request<()>, LinkError> {
    let scheme = if address.scheme == Scheme::Https { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(address.authority).path_and_query(D6::PATH);
    let uri = uri.build().map_err(|error| address.unusable(error))?;
    let mut request = Request::post(uri)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", concat!("slim-quic/", env!("CARGO_PKG_VERSION")));
    if let Some(value) = options.authorization()? {
        let value = HeaderValue::from_str(value.expose());
        let mut value = value.expect("credentials are printable ASCII");
        // Nor is it to be remembered for header compression.
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(()).map_err(|error| address.unusable(error))
}

async fn reach(address: Address<'_>, remote: SocketAddr) -> Result<TcpStream, LinkError> {
    let unreachable =
        |source| LinkError::Unreachable { address: address.to_text(), source: Arc::new(source) };
    let tcp = TcpStream::connect(remote).await.map_err(unreachable)?;
    // Messages are put together before they are written.
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}

/// Why there is no TLS.
fn untrusted(address: Address<'_>, error: std::io::Error) -> LinkError {
    let reason = one_line(error.to_string().as_bytes());
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            LinkError::Untrusted { address: address.to_text(), reason }
        }
        _ => LinkError::Handshake { address: address.to_text(), reason },
    }
}

/// Opens the stream on a connection of its own.
async fn open<Io>(
    address: Address<'_>,
    io: Io,
    request: Request<()>,
    options: &LinkOptions,
) -> Result<Grpc, LinkError>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let began = Instant::now();
    let failed = |error: h2::Error| LinkError::Handshake {
        address: address.to_text(),
        reason: one_line(error.to_string().as_bytes()),
    };
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let (mut requests, mut connection) = builder.handshake(io).await.map_err(failed)?;
    let ping_pong = connection.ping_pong();
    let shared = Arc::new(Shared { name: options.name.clone(), ..Shared::default() });
    let watched = watch(Arc::clone(&shared), connection, ping_pong);
    // Who stops waiting for the link leaves no connection behind.
    let watched = AbortOnDropHandle::new(tokio::spawn(watched));
    let (response, stream) = requests.send_request(request, false).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    accept(response.headers())?;
    if response.status() != http::StatusCode::OK {
        let reason = format!("status: expected 200, got {}", response.status().as_u16());
        return Err(LinkError::Handshake { address: address.to_text(), reason });
    }
    let rtt = began.elapsed().as_micros() as u64;
    // A ping may have been answered before.
    let _ = shared.rtt.compare_exchange(0, rtt, Ordering::Relaxed, Ordering::Relaxed);
    watched.detach();
    Ok(start(shared, stream, response.into_body(), options.close_timeout))
}

/// Starts the tasks that read and write.
fn start(
    shared: Arc<Shared>,
    stream: SendStream<Bytes>,
    body: RecvStream,
    close_timeout: Duration,
) -> Grpc {
    tokio::spawn(write(Arc::clone(&shared), stream));
    tokio::spawn(read(Arc::clone(&shared), body));
    Grpc { shared, close_timeout }
}

/// Drives the connection until it ends, the node is silent for too long, or the link is over and
/// has had time to say so.
async fn watch<Io>(
    shared: Arc<Shared>,
    connection: Connection<Io, Bytes>,
    ping_pong: Option<PingPong>,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Box::pin(connection);
    {
        let mut silence = pin!(silence(&shared, ping_pong));
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    let reason = one_line(error.to_string().as_bytes());
                    shared.conclude(LinkError::Lost { reason });
                }
            }
            () = &mut silence => {
                let silent = (KEEP_ALIVE + ANSWER).as_secs();
                let reason = format!("the node was silent for {silent} s");
                shared.conclude(LinkError::Lost { reason });
            }
            () = shared.over.cancelled() => {
                let _ = tokio::time::timeout(GOODBYE, &mut connection).await;
            }
        }
    }
    // The stream then ends after what has arrived.
    drop(connection);
    shared.gone.cancel();
}

/// Pings the node for as long as it answers.
async fn silence(shared: &Shared, ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else {
        return std::future::pending().await;
    };
    loop {
        let asked = Instant::now();
        match tokio::time::timeout(ANSWER, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {
                shared.rtt.store(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            // The connection itself tells why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
        tokio::time::sleep(KEEP_ALIVE).await;
    }
}
