//! Links that this node begins, to nodes of published releases.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, RecvStream, SendStream};
use http::{HeaderValue, Request};
use slim_compat_grpc::service::Service;
use slim_compat_grpc::{
    Detected, KeyShare, LinkKey, Negotiation, NegotiationError, d6_subscription, d20_subscription,
};
use slim_wire::Encoding;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::reader::Reader;
use super::stream::{Ended, OpenLink};
use super::writer;
use crate::datapath::{Announcement, Framing, LinkId, NodeLink};
use crate::link::host::Host;
use crate::link::incident::Incident;
use crate::link::quic::LinkEnd;
use crate::link::routes::{Routes, follow};
use crate::policy::Principal;

/// The release of the node at the other end, by what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedRelease {
    /// 0.6.
    V0_6,
    /// 2.0 and later.
    V2,
}

impl PublishedRelease {
    const fn dialect(self) -> Detected {
        match self {
            Self::V0_6 => Detected::D6,
            Self::V2 => Detected::D20,
        }
    }
}

/// A node of a published release, and what is to go there.
#[derive(Clone, Debug)]
pub struct PublishedNode {
    /// What it speaks.
    pub release: PublishedRelease,
    /// What opens the stream: address, and headers that say who this node is.
    pub request: Request<()>,
    /// Names that are reached there.
    pub routes: Routes,
    /// Whether it is told of the names that clients of this node subscribe to.
    pub announce: bool,
    /// What the link is if the node is of this kind after all, which the other end of it takes for
    /// [`NodeLink::LastHop`].
    pub kind: NodeLink,
    /// How often the other end is asked whether it is there, and how long it may take to answer.
    pub keepalive: [Duration; 2],
    /// Names the link, the same whenever it is begun again.
    pub link_id: Box<str>,
    /// Cancelled once both ends know each other.
    pub opened: CancellationToken,
    /// Ends the link when it is cancelled.
    pub given_up: CancellationToken,
}

/// A negotiation that this node began.
pub(super) struct Begun {
    share: KeyShare,
    link_id: Box<str>,
    key: Rc<OnceCell<Arc<LinkKey>>>,
    opened: CancellationToken,
}

impl Begun {
    /// Takes the answer of the other end.
    pub(super) fn complete(
        &self,
        answer: &Negotiation<'_>,
    ) -> Result<Arc<LinkKey>, NegotiationError> {
        let key = Arc::new(self.share.complete(&self.link_id, answer)?);
        let _ = self.key.set(Arc::clone(&key));
        self.opened.cancel();
        Ok(key)
    }
}

/// By which nodes of this kind know each other, with the node's id. Others do not look at it.
pub(super) const NODE_HEADER: &str = "x-slim-node";

/// The number that a node of this kind has on all its links, from what it says in the header.
pub(super) fn number_of(id: &HeaderValue) -> Option<u64> {
    let number = id.to_str().ok()?.strip_prefix("slim-")?;
    u64::from_str_radix(number, 16).ok()
}

/// The largest window that published servers give, and so what is worth announcing.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// One life of a link to a published node, over `io`, which is TCP or TLS.
pub async fn serve_uplink<Io>(
    io: Io,
    peer: SocketAddr,
    node: &PublishedNode,
    host: &Rc<Host>,
) -> LinkEnd
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let failed = |reason: String| LinkEnd { was_open: false, reason };
    let mut request = node.request.clone();
    let id = HeaderValue::from_str(&host.node_id).expect("a node's id is plain text");
    request.headers_mut().insert(NODE_HEADER, id);
    let opened = timeout(host.limits.handshake, open(io, request, node.keepalive));
    let opened = tokio::select! {
        opened = opened => opened,
        () = host.finish.cancelled() => return failed("this node stops".into()),
    };
    let (mut connection, mut send, mut body, node_number) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(reason)) => return failed(reason),
        Err(_) => return failed("no stream opened in time".into()),
    };
    let Some(_place) = host.places.take_link() else {
        return failed("links: all of limits.links are taken".into());
    };
    let ends_here = node_number.is_some() && node.kind != NodeLink::Transit;
    let framing = Framing::PublishedNode { node: node_number, ends_here };
    let link = OpenLink::new(host, peer, framing, Principal::Configured);
    let uplink = Uplink { host, node, link: link.id, key: Rc::default(), asked: Rc::default() };
    let ended = tokio::select! {
        ended = uplink.run(peer, &mut send, &mut body) => ended,
        reason = &mut connection => {
            return LinkEnd { was_open: uplink.node.opened.is_cancelled(), reason };
        }
    };
    let was_open = uplink.node.opened.is_cancelled();
    drop(link);
    // What was written last is to arrive, and the other end to say why it ended the stream.
    let _ = send.send_data(Bytes::new(), true);
    let reason = tokio::select! {
        reason = last_word(ended, &mut body) => reason,
        reason = &mut connection => reason,
        () = tokio::time::sleep(GOODBYE) => "this node stops".to_owned(),
    };
    let _ = timeout(GOODBYE, connection).await;
    LinkEnd { was_open, reason }
}

/// How long the end of a link may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a stream ended: as the other end says in its trailers, if it did.
async fn last_word(ended: Ended, body: &mut RecvStream) -> String {
    if !matches!(ended, Ended::ByClient) {
        return describe(ended);
    }
    let trailers = body.trailers().await.ok().flatten();
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => {
            format!("closed by the other end: {:?}: {}", status.code(), status.message())
        }
        _ => describe(ended),
    }
}

/// The connection, both directions of the stream, and the number of a node of this kind.
type Opened =
    (std::pin::Pin<Box<dyn Future<Output = String>>>, SendStream<Bytes>, RecvStream, Option<u64>);

/// Opens the stream on a connection of its own, which lives while the returned future is polled.
async fn open<Io>(io: Io, request: Request<()>, keepalive: [Duration; 2]) -> Result<Opened, String>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let text = |error: h2::Error| error.to_string();
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let (mut requests, connection) = builder.handshake(io).await.map_err(text)?;
    let mut connection = Box::pin(watch(connection, keepalive));
    let (response, send) = requests.send_request(request, false).map_err(text)?;
    let response = tokio::select! {
        response = response => response.map_err(text)?,
        reason = &mut connection => return Err(reason),
    };
    let status = Status::from_header_map(response.headers());
    if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
        return Err(status.to_string());
    }
    if response.status() != http::StatusCode::OK {
        return Err(format!("status: expected 200, got {}", response.status().as_u16()));
    }
    let node = response.headers().get(NODE_HEADER).and_then(number_of);
    Ok((connection, send, response.into_body(), node))
}

/// Drives a connection until it ends, or the other end is silent; returns why it ended.
async fn watch<Io>(mut connection: Connection<Io, Bytes>, [pause, answer]: [Duration; 2]) -> String
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let ping_pong = connection.ping_pong();
    let silent = async {
        let Some(mut ping_pong) = ping_pong else {
            return pending().await;
        };
        while let Ok(pong) = timeout(answer, ping_pong.ping(Ping::opaque())).await {
            if pong.is_err() {
                // The connection itself tells why.
                return pending().await;
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        ended = connection => match ended {
            Ok(()) => "closed by the other end".to_owned(),
            Err(error) => error.to_string(),
        },
        () = silent => format!("silent for {} s", (pause + answer).as_secs()),
    }
}

/// What the other end was told, by the numbers of its subscriptions, until it acknowledges them.
pub(super) type Asked = Rc<RefCell<HashMap<u64, Announcement>>>;

/// So many are remembered; a node that never acknowledges is not told less.
const ASKED: usize = 65_536;

struct Uplink<'a> {
    host: &'a Rc<Host>,
    node: &'a PublishedNode,
    link: LinkId,
    key: Rc<OnceCell<Arc<LinkKey>>>,
    asked: Asked,
}

impl Uplink<'_> {
    async fn run(
        &self,
        peer: SocketAddr,
        send: &mut SendStream<Bytes>,
        body: &mut RecvStream,
    ) -> Ended {
        let mut reader = Reader::new(Rc::clone(self.host), self.link, peer, Service::DataPlane);
        if let Err(error) = self.greet(&mut reader) {
            return gave_up(error.to_string());
        }
        tokio::select! {
            biased;
            ended = reader.run(body) => ended,
            ended = writer::run(self.host, self.link, send) => ended,
            reason = self.speak() => gave_up(reason),
            () = self.node.given_up.cancelled() => Ended::Finished,
        }
    }

    /// Begins the negotiation, where there is one.
    fn greet(&self, reader: &mut Reader) -> Result<(), NegotiationError> {
        reader.dialect = Some(self.node.release.dialect());
        reader.asked = Some(Rc::clone(&self.asked));
        match self.node.release {
            PublishedRelease::V0_6 => self.node.opened.cancel(),
            PublishedRelease::V2 => {
                let share = KeyShare::generate()?;
                self.answer(share.request(&self.node.link_id, &self.host.node_id));
                reader.begun_link = Some(Begun {
                    share,
                    link_id: self.node.link_id.clone(),
                    key: Rc::clone(&self.key),
                    opened: self.node.opened.clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes the routes, then tells the other end of this node's names, for as long as the link
    /// lasts. Returns why it has to end.
    async fn speak(&self) -> String {
        if timeout(self.host.limits.handshake, self.node.opened.cancelled()).await.is_err() {
            return "link negotiation: expected an answer in time, got none".to_owned();
        }
        let encoding = self.node.release.dialect().encoding();
        let peer = self.node.request.uri().to_string();
        let (routes, spaces) = (self.node.routes.clone(), [encoding]);
        tokio::select! {
            () = follow(self.host, self.link, &peer, &spaces, routes) => "its routes were given up".to_owned(),
            reason = self.tell_names(encoding) => reason,
        }
    }

    /// Tells the other end of this node's names, for as long as the link lasts.
    async fn tell_names(&self, encoding: Encoding) -> String {
        if self.node.announce {
            self.host.core.borrow_mut().announce(self.link, encoding);
        }
        let mut number = 0;
        loop {
            let announcement =
                poll_fn(|cx| self.host.core.borrow_mut().poll_announcement(self.link, cx)).await;
            number += 1;
            self.tell(announcement, number).await;
        }
    }

    /// Sends one subscription, once there is room for it.
    async fn tell(&self, announcement: Announcement, number: u64) {
        const STEP: Duration = Duration::from_millis(1);
        let Announcement { change, text: Some(name), .. } = &announcement else {
            return;
        };
        while self.is_behind() {
            tokio::time::sleep(STEP).await;
        }
        match self.node.release {
            // An id that is too wide for the other end cannot be reached from there.
            PublishedRelease::V0_6 => {
                if let Some(message) = d6_subscription(*change, name) {
                    self.answer(message);
                }
            }
            PublishedRelease::V2 => {
                let key = self.key.get().map(AsRef::as_ref);
                self.answer(d20_subscription(*change, name, number, key));
                let mut asked = self.asked.borrow_mut();
                if asked.len() < ASKED {
                    asked.insert(number, announcement);
                }
            }
        }
    }

    fn is_behind(&self) -> bool {
        let core = self.host.core.borrow();
        core.port(self.link).is_some_and(|port| port.queued() > core.marks().pause)
    }

    fn answer(&self, message: Bytes) {
        let now = std::time::Instant::now();
        let encoding = self.node.release.dialect().encoding();
        self.host.core.borrow_mut().answer(self.link, encoding, message, now);
    }
}

/// This node ends the link.
fn gave_up(reason: String) -> Ended {
    Ended::Refused(Incident::LinkFailed, Status::aborted(reason))
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended::ByClient => "closed by the other end".to_owned(),
        Ended::Broken(error) => error.to_string(),
        Ended::Refused(_, status) => status.message().to_owned(),
        Ended::TooSlow => "the other end is too slow".to_owned(),
        Ended::Finished => "this node stops".to_owned(),
    }
}
