//! Links that this node begins, to nodes of published releases.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use slim_compat_grpc::{D6, Dialect};
use slim_config::{Client, Release};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::uplink::State;
use crate::datapath::NodeLink;
use crate::link::Host;
use crate::link::grpc::{PublishedNode, PublishedRelease, serve_uplink};
use crate::link::quic::LinkEnd;
use crate::link::routes::{Routes, fixed};
use crate::trust::Credentials;

/// What a link to a published node is begun with.
pub(super) struct Published {
    tls: Option<Arc<ArcSwap<ClientConfig>>>,
    connect_timeout: Option<Duration>,
    node: PublishedNode,
}

/// What concerns one life of a link.
pub(super) struct Life {
    pub(super) routes: Routes,
    pub(super) state: Arc<watch::Sender<State>>,
    pub(super) given_up: CancellationToken,
}

/// Unless the configuration says otherwise: as patient as native links between nodes.
const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(3)];

/// What opens the stream.
fn request(client: &Client) -> Request<()> {
    let endpoint = &client.endpoint;
    let scheme = if client.tls.is_some() { "https" } else { "http" };
    let origin = client.origin.as_deref().and_then(|origin| origin.parse::<Uri>().ok());
    let authority = match origin.as_ref().and_then(Uri::authority) {
        Some(origin) => origin.to_string(),
        None => format!("{}:{}", endpoint.host, endpoint.port),
    };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(D6::PATH);
    let mut request = Request::post(uri.build().expect("the configuration's endpoint is valid"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("user-agent", concat!("slim-quic/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &client.headers {
        request = request.header(name, value.expose());
    }
    request.body(()).expect("the configuration's headers are valid")
}

impl Published {
    /// `kind` is what the link is if the node is of this kind after all.
    pub(super) fn new(
        client: &Client,
        kind: NodeLink,
        tls: Option<Arc<ArcSwap<ClientConfig>>>,
    ) -> Self {
        let node = PublishedNode {
            release: match client.release {
                Release::V0_6 => PublishedRelease::V0_6,
                Release::V2 => PublishedRelease::V2,
            },
            request: request(client),
            routes: fixed([]),
            announce: client.announce,
            kind,
            keepalive: match client.keepalive {
                Some(keepalive) => [keepalive.http2, keepalive.timeout],
                None => KEEP_ALIVE,
            },
            link_id: format!("{:032x}", rand::random::<u128>()).into(),
            opened: CancellationToken::new(),
            given_up: CancellationToken::new(),
        };
        Self { tls, connect_timeout: client.connect_timeout, node }
    }

    /// One life of the link, at the first of the host's addresses that answers.
    pub(super) async fn once(
        &self,
        shown: &str,
        (name, port): (&str, u16),
        credentials: &Credentials,
        life: Life,
        host: &Rc<Host>,
    ) -> std::io::Result<LinkEnd> {
        let connected = TcpStream::connect((name, port));
        let Life { routes, state, given_up } = life;
        let opened = CancellationToken::new();
        let mut node =
            PublishedNode { routes, given_up, opened: opened.clone(), ..self.node.clone() };
        let credentials = credentials.authorization(SystemTime::now());
        if let Some(credentials) = credentials.map_err(std::io::Error::other)? {
            let mut value =
                HeaderValue::from_str(credentials.expose()).map_err(std::io::Error::other)?;
            value.set_sensitive(true);
            node.request.headers_mut().insert(AUTHORIZATION, value);
        }
        let tcp =
            tokio::time::timeout(self.connect_timeout.unwrap_or(host.limits.handshake), connected)
                .await??;
        tcp.set_nodelay(true)?;
        let peer = tcp.peer_addr()?;
        tracing::info!(
            peer = shown,
            routes = node.routes.borrow().len(),
            "linking to another node"
        );
        let mut serving = pin!(self.serve(tcp, name, peer, &node, host));
        tokio::select! {
            ended = &mut serving => return ended,
            () = opened.cancelled() => {}
        }
        state.send_replace(State::Open);
        serving.await
    }

    async fn serve(
        &self,
        tcp: TcpStream,
        name: &str,
        peer: SocketAddr,
        node: &PublishedNode,
        host: &Rc<Host>,
    ) -> std::io::Result<LinkEnd> {
        let Some(tls) = &self.tls else {
            return lived(tcp, peer, node, host).await;
        };
        let server = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
        let connecting = TlsConnector::from(tls.load_full()).connect(server, tcp);
        let io = tokio::time::timeout(host.limits.handshake, connecting).await??;
        lived(io, peer, node, host).await
    }
}

/// The life of a link is a task of its own: when the node stops it is not begun again, but writes
/// what is queued.
async fn lived<Io>(
    io: Io,
    peer: SocketAddr,
    node: &PublishedNode,
    host: &Rc<Host>,
) -> std::io::Result<LinkEnd>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (node, serving) = (node.clone(), Rc::clone(host));
    let life = async move { serve_uplink(io, peer, &node, &serving).await };
    host.tasks.spawn_local(life).await.map_err(std::io::Error::other)
}
