use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, TryFutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::gathering::{Gathering, Outlet};
use super::lingering::Lingering;
use super::{Http2Settings, Streams, stream};
use crate::link::gate::{Known, Visitor};
use crate::link::host::Host;
use crate::link::incident::Incident;

/// The flow-control window of a stream as published servers announce it: it bounds what a client
/// can have in flight while it is paused.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// A stream that is not read keeps its part of the connection's window: this one leaves room for
/// the other streams.
const CONNECTION_WINDOW_BYTES: u32 = 16 * WINDOW_BYTES;

/// What one stream may have buffered for writing, beside its queue.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// The default of published servers for request headers.
const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// How long a finished connection may take to say goodbye: until its client has read what was
/// written last.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(3);

/// How a connection ended.
enum Ended {
    Closed,
    Incident(Incident, String),
}

/// Serves one connection of `visitor` until it ends. `io` is plain TCP or TLS; `accepted` is when the
/// connection was accepted, from which the handshake's time counts.
pub async fn serve_connection<Io>(
    io: Io,
    visitor: Visitor,
    accepted: std::time::Instant,
    settings: Http2Settings,
    host: Rc<Host>,
) where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let visitor = Rc::new(visitor);
    let deadline = Instant::from_std(accepted + host.limits.handshake);
    let (io, outlet) = Gathering::new(Lingering::new(io, Rc::clone(&host)));
    // A task has room for all that it ever holds by value, and keeps it: so what only the beginning
    // needs has memory of its own, and so has the connection, which is moved several times.
    let handshake = builder(&settings).handshake(io);
    let handshake = Box::pin(handshake.map_ok(Box::new));
    let handshake = timeout_at(deadline, handshake);
    let handshake = tokio::select! {
        done = handshake => done,
        // Who has not even said hello does not keep the node from stopping.
        () = host.finish.cancelled() => return,
    };
    let ended = match handshake {
        Ok(Ok(connection)) => {
            outlet.begin_turns();
            let driven = Driven { connection, outlet };
            drive(driven, &visitor, deadline, settings, &host).await
        }
        Ok(Err(error)) => Ended::Incident(incident_of(&error), error.to_string()),
        Err(_) => Ended::Incident(Incident::HandshakeTimeout, "no HTTP/2 preface".into()),
    };
    if let Ended::Incident(incident, detail) = ended {
        host.report(incident, &Known(visitor.peer, &visitor.certificate), &detail);
    }
}

fn builder(settings: &Http2Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(settings.max_header_list_size.unwrap_or(HEADER_LIST_BYTES));
    if let Some(bytes) = settings.max_frame_size {
        builder.max_frame_size(bytes);
    }
    if let Some(streams) = settings.max_concurrent_streams {
        builder.max_concurrent_streams(streams);
    }
    builder
}

/// A connection, and what it has written.
struct Driven<Io> {
    connection: Box<Connection<Gathering<Lingering<Io>>, Bytes>>,
    outlet: Outlet<Lingering<Io>>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Driven<Io> {
    /// Drives the connection until its next stream. What it writes leaves after each turn.
    async fn accept(&mut self) -> Option<Result<Accepted, h2::Error>> {
        poll_fn(|cx| {
            let accepted = self.connection.poll_accept(cx);
            self.outlet.poll_turn_end(cx);
            accepted
        })
        .await
    }
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// What has to be done for a connection beside its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chore {
    /// The peer did not answer a ping.
    GiveUp,
    /// Time for the first stream is up, or for another after the last.
    ExpectStream,
    /// The connection is old.
    Retire,
    /// The node stops.
    SayGoodbye,
}

/// Accepts streams, keeps the connection alive, and says goodbye.
async fn drive<Io>(
    mut driven: Driven<Io>,
    visitor: &Rc<Visitor>,
    deadline: Instant,
    settings: Http2Settings,
    host: &Rc<Host>,
) -> Ended
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let streams = Streams::default();
    let ping_pong = driven.connection.ping_pong().expect("taken once per connection");
    let mut chores = chores(ping_pong, deadline, settings, &streams, host);
    loop {
        let chore = tokio::select! {
            biased;
            accepted = driven.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let open = streams.open();
                    let (visitor, host) = (Rc::clone(visitor), Rc::clone(host));
                    let tasks = host.tasks.clone();
                    tasks.spawn_local(stream::serve_stream(request, respond, visitor, host, open));
                    continue;
                }
                Some(Err(error)) => return ended_with(&error, streams.had_link()),
                None => return Ended::Closed,
            },
            Some(chore) = chores.next() => chore,
        };
        match chore {
            Chore::GiveUp => {
                return Ended::Incident(Incident::KeepaliveTimeout, "half-open".into());
            }
            Chore::ExpectStream if streams.had_link() => return Ended::Closed,
            Chore::ExpectStream => {
                return Ended::Incident(Incident::HandshakeTimeout, "no stream".into());
            }
            Chore::Retire => driven.connection.graceful_shutdown(),
            Chore::SayGoodbye => return say_goodbye(driven, &streams).await,
        }
    }
}

/// The chores of a connection, each when it is due. A set that polls only those that are, since
/// the connection is polled for every batch of bytes.
fn chores(
    ping_pong: PingPong,
    deadline: Instant,
    settings: Http2Settings,
    streams: &Streams,
    host: &Host,
) -> FuturesUnordered<LocalBoxFuture<'static, Chore>> {
    let chores = FuturesUnordered::<LocalBoxFuture<'static, Chore>>::new();
    chores.push(Box::pin(async move {
        keepalive(ping_pong, settings).await;
        Chore::GiveUp
    }));
    let (finish, streams) = (host.finish.clone(), streams.clone());
    let limit = host.limits.handshake;
    chores.push(Box::pin(async move {
        streams.idle(deadline, limit).await;
        Chore::ExpectStream
    }));
    chores.push(Box::pin(async move {
        tokio::time::sleep(settings.max_connection_age).await;
        Chore::Retire
    }));
    chores.push(Box::pin(async move {
        finish.cancelled_owned().await;
        Chore::SayGoodbye
    }));
    chores
}

/// Lets the streams of a stopping node end, then closes the connection.
async fn say_goodbye<Io>(mut driven: Driven<Io>, streams: &Streams) -> Ended
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    driven.connection.graceful_shutdown();
    let mut all_said = pin!(async {
        streams.all_ended().await;
        tokio::time::sleep(GOODBYE).await;
    });
    loop {
        tokio::select! {
            accepted = driven.accept() => match accepted {
                // A stream that was under way before the goodbye: dropped, which refuses it.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ended::Closed,
            },
            () = &mut all_said => return Ended::Closed,
        }
    }
}

/// Pings the peer for as long as it answers.
async fn keepalive(mut ping_pong: PingPong, settings: Http2Settings) {
    loop {
        tokio::time::sleep(settings.keepalive_time).await;
        let pong = ping_pong.ping(Ping::opaque());
        match tokio::time::timeout(settings.keepalive_timeout, pong).await {
            Ok(Ok(_)) => {}
            // The connection itself reports why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// A connection lost with a link open is reported by that link's stream.
fn ended_with(error: &h2::Error, had_link: bool) -> Ended {
    match incident_of(error) {
        Incident::ConnectionLost if had_link => Ended::Closed,
        incident => Ended::Incident(incident, error.to_string()),
    }
}

fn incident_of(error: &h2::Error) -> Incident {
    if error.is_io() || error.is_remote() { Incident::ConnectionLost } else { Incident::NotHttp2 }
}
