//! Links that this node begins, to nodes of published releases.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use slim_compat_grpc::{D6, Dialect};
use slim_config::{Client, Config, Release, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::uplink::{Way, begin_again, of_clients};
use super::watch::Watcher;
use super::{StartError, security};
use crate::link::Host;
use crate::link::grpc::{PublishedNode, PublishedRelease, serve_uplink};
use crate::link::quic::LinkEnd;

/// A link to a published node, to be kept up for as long as this node runs.
#[derive(Clone)]
pub(super) struct PublishedUplink {
    way: Way,
    tls: Option<Arc<ArcSwap<ClientConfig>>>,
    connect_timeout: Option<Duration>,
    node: PublishedNode,
}

/// Unless the configuration says otherwise: as patient as native links between nodes.
const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(3)];

/// The links to published nodes that the configuration asks for, whose files are watched.
pub(super) fn published_uplinks(
    config: &Config,
    watcher: &mut Watcher,
) -> Result<Vec<PublishedUplink>, StartError> {
    let secure = |client: &Client| security::of_published(client, watcher);
    of_clients(config, |scheme| scheme != Scheme::Quic, secure, uplink)
}

fn uplink(client: &Client, way: Way, tls: Option<Arc<ArcSwap<ClientConfig>>>) -> PublishedUplink {
    let node = PublishedNode {
        release: match client.release {
            Release::V0_6 => PublishedRelease::V0_6,
            Release::V2 => PublishedRelease::V2,
        },
        request: request(client),
        routes: way.routes.clone(),
        announce: client.announce,
        keepalive: match client.keepalive {
            Some(keepalive) => [keepalive.http2, keepalive.timeout],
            None => KEEP_ALIVE,
        },
        link_id: format!("{:032x}", rand::random::<u128>()).into(),
    };
    PublishedUplink { way, tls, connect_timeout: client.connect_timeout, node }
}

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

impl PublishedUplink {
    /// Keeps the link up until the node stops.
    pub(super) async fn keep_up(self, host: Rc<Host>) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let shown = format!("{scheme}://{}", self.way);
        begin_again(&shown, &host, async || self.once(&shown, &host).await).await;
    }

    /// One life of the link, at the first of the host's addresses that answers.
    async fn once(&self, shown: &str, host: &Rc<Host>) -> std::io::Result<LinkEnd> {
        let Way { host: name, port, credentials, .. } = &self.way;
        let connected = TcpStream::connect((name.as_str(), *port));
        let mut node = self.node.clone();
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
        tracing::info!(peer = shown, routes = self.node.routes.len(), "linking to another node");
        self.serve(tcp, name, peer, &node, host).await
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
