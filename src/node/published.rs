//! Links that this node begins, to nodes of published releases.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use slim_compat_grpc::{D6, Dialect};
use slim_config::{Client, Config, Dataplane, Release, Scheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{self, TlsError};
use super::uplink::begin_again;
use crate::link::Host;
use crate::link::grpc::{PublishedNode, PublishedRelease, serve_uplink};
use crate::link::quic::LinkEnd;

/// A link to a published node, to be kept up for as long as this node runs.
#[derive(Clone)]
pub(super) struct PublishedUplink {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    node: PublishedNode,
}

/// The links to published nodes that the configuration asks for.
pub(super) fn published_uplinks(config: &Config) -> Result<Vec<PublishedUplink>, TlsError> {
    let planes = config.services.iter().map(|service| &service.dataplane);
    let clients = planes.flat_map(|plane| plane.clients.iter().map(move |client| (plane, client)));
    let published = clients.filter(|(_, client)| client.endpoint.scheme != Scheme::Quic);
    published.map(|(plane, client)| uplink(plane, client)).collect()
}

fn uplink(plane: &Dataplane, client: &Client) -> Result<PublishedUplink, TlsError> {
    let via = plane.routes.iter().filter(|route| route.via == client.endpoint);
    Ok(PublishedUplink {
        host: client.endpoint.host.clone(),
        port: client.endpoint.port,
        tls: client.tls.as_ref().map(tls::http2_client).transpose()?,
        node: PublishedNode {
            release: match client.release {
                Release::V0_6 => PublishedRelease::V0_6,
                Release::V2 => PublishedRelease::V2,
            },
            request: request(client),
            routes: via.map(|route| route.name.clone()).collect(),
            announce: client.announce,
            link_id: format!("{:032x}", rand::random::<u128>()).into(),
        },
    })
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
        let shown = format!("{scheme}://{}:{}", self.host, self.port);
        begin_again(&shown, &host, async || self.once(&shown, &host).await).await;
    }

    /// One life of the link, at the first of the host's addresses that answers.
    async fn once(&self, shown: &str, host: &Rc<Host>) -> std::io::Result<LinkEnd> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let connected = TcpStream::connect((bare, self.port));
        let tcp = tokio::time::timeout(host.limits.handshake, connected).await??;
        tcp.set_nodelay(true)?;
        let peer = tcp.peer_addr()?;
        tracing::info!(peer = shown, routes = self.node.routes.len(), "linking to another node");
        self.serve(tcp, bare, peer, host).await
    }

    async fn serve(
        &self,
        tcp: TcpStream,
        name: &str,
        peer: SocketAddr,
        host: &Rc<Host>,
    ) -> std::io::Result<LinkEnd> {
        let Some(tls) = &self.tls else {
            return Ok(serve_uplink(tcp, peer, &self.node, host).await);
        };
        let server = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
        let connecting = TlsConnector::from(Arc::clone(tls)).connect(server, tcp);
        let io = tokio::time::timeout(host.limits.handshake, connecting).await??;
        Ok(serve_uplink(io, peer, &self.node, host).await)
    }
}
