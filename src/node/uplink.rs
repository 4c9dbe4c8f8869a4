//! Links that this node begins, to other nodes.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use backon::{BackoffBuilder, ExponentialBuilder};
use quinn_proto::ClientConfig;
use slim_config::{Client, Config, Scheme, Service};
use slim_wire::{Encoding, TextName};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::core::Local;
use super::published::{Life, Published};
use super::tls::TlsError;
use super::watch::Watcher;
use super::{StartError, security};
use crate::datapath::{LinkId, NodeLink};
use crate::link::quic::{Dial, Dials, LinkEnd};
use crate::link::routes::{Routes, fixed, follow};
use crate::link::{Host, Incident};
use crate::trust::Credentials;

/// A link to another node, to be kept up until it is given up, or this node stops.
#[derive(Clone)]
pub(super) struct Uplink {
    way: Arc<Way>,
    kind: NodeLink,
    routes: Routes,
    state: Arc<watch::Sender<State>>,
    given_up: CancellationToken,
}

/// Who may change a link that this node begins. The link is given up when this is dropped.
pub(super) struct UplinkControl {
    /// The names that are reached by it.
    pub(super) routes: watch::Sender<Arc<HashSet<TextName>>>,
    /// How it is.
    pub(super) state: watch::Receiver<State>,
    given_up: CancellationToken,
}

impl Drop for UplinkControl {
    fn drop(&mut self) {
        self.given_up.cancel();
    }
}

/// How a link that this node begins is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not been open yet.
    Begun,
    /// Messages can go there.
    Open,
    /// It ended, or did not come up, and will be begun again.
    Down {
        /// Why.
        reason: String,
    },
}

/// Where a link leads, and what may be spoken there.
struct Way {
    /// Without the brackets of IPv6.
    host: String,
    port: u16,
    scheme: Scheme,
    credentials: Credentials,
    /// QUIC, if it may be.
    native: Option<Arc<ArcSwap<ClientConfig>>>,
    /// gRPC, if it may be. With both, QUIC is tried first.
    published: Option<Published>,
}

/// How long a link may take to come up before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where gRPC may be spoken instead, QUIC has so long to come up.
const NATIVE_FIRST: Duration = Duration::from_secs(1);

/// The links that the configuration asks for, whose files are watched, and who may change them.
pub(super) fn uplinks(
    config: &Config,
    watcher: &mut Watcher,
) -> Result<(Vec<Uplink>, Vec<UplinkControl>), StartError> {
    let mut links = (Vec::new(), Vec::new());
    for service in &config.services {
        let plane = &service.dataplane;
        for (index, client) in plane.clients.iter().enumerate() {
            let block = format!("{}.dataplane.clients[{index}]", service.id);
            let kind = if client.exchange { NodeLink::Exchange } else { NodeLink::Transit };
            let routes = routes(service, client);
            links.extend([Uplink::new(client, kind, &block, routes, watcher)?]);
        }
    }
    Ok(links)
}

/// The names that a service reaches by one of its clients.
pub(super) fn routes(service: &Service, client: &Client) -> impl Iterator<Item = TextName> {
    let via = service.dataplane.routes.iter().filter(|route| route.via == client.endpoint);
    via.map(|route| route.name.clone())
}

impl Uplink {
    /// A link to begin, and who may change it. `kind` is what is to be agreed over QUIC, `block`
    /// is where in the configuration.
    pub(super) fn new(
        client: &Client,
        kind: NodeLink,
        block: &str,
        routes: impl IntoIterator<Item = TextName>,
        watcher: &mut Watcher,
    ) -> Result<(Self, UplinkControl), StartError> {
        let failed = |source: TlsError| StartError::Tls { block: block.to_owned(), source };
        let speaks_quic = client.endpoint.scheme == Scheme::Quic;
        let native = (speaks_quic || client.native_first)
            .then(|| security::of_client(client, watcher).map_err(failed))
            .transpose()?;
        let published = (!speaks_quic).then(|| {
            let tls = security::of_published(client, watcher).map_err(failed)?;
            Ok::<_, StartError>(Published::new(client, kind, tls))
        });
        let published = published.transpose()?;
        let credentials = Credentials::of(&client.auth)
            .map_err(|source| StartError::Auth { block: block.to_owned(), source })?;
        let host = client.endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let way = Way {
            host: host.to_owned(),
            port: client.endpoint.port,
            scheme: client.endpoint.scheme,
            credentials,
            native,
            published,
        };
        let (change, routes) = watch::channel(Arc::new(routes.into_iter().collect()));
        let (state, seen) = watch::channel(State::Begun);
        let given_up = CancellationToken::new();
        let control = UplinkControl { routes: change, state: seen, given_up: given_up.clone() };
        let (way, state) = (Arc::new(way), Arc::new(state));
        Ok((Self { way, kind, routes, state, given_up }, control))
    }

    /// Keeps the link up from now on, as a task of this core.
    pub(super) fn begin(self, local: &Local) {
        let Local { host, dials } = local.clone();
        local.host.tasks.spawn_local(async move { self.keep_up(&host, &dials).await });
    }

    async fn keep_up(&self, host: &Rc<Host>, dials: &Dials) {
        let shown = self.way.to_string();
        let again =
            begin_again(&shown, host, &self.state, async || self.once(&shown, host, dials).await);
        self.given_up.run_until_cancelled(again).await;
    }

    /// One life of the link.
    async fn once(&self, shown: &str, host: &Rc<Host>, dials: &Dials) -> std::io::Result<LinkEnd> {
        if let Some(config) = &self.way.native {
            let listened = self.way.published.is_none() || self.knock().await;
            let ended = self.native(config, shown, host, dials).await?;
            // A node that has come up meanwhile has QUIC, maybe; it is tried again before gRPC is.
            if ended.was_open || self.way.published.is_none() || !listened {
                return Ok(ended);
            }
        }
        match &self.way.published {
            Some(published) => {
                let Way { host: name, port, credentials, .. } = &*self.way;
                let life = Life {
                    routes: self.routes.clone(),
                    state: Arc::clone(&self.state),
                    given_up: self.given_up.clone(),
                };
                published.once(shown, (name, *port), credentials, life, host).await
            }
            None => Ok(LinkEnd { was_open: false, reason: "nothing to speak".to_owned() }),
        }
    }

    /// Whether somebody accepts connections there, as a node of any kind does.
    async fn knock(&self) -> bool {
        let Way { host, port, .. } = &*self.way;
        let connecting = TcpStream::connect((host.as_str(), *port));
        tokio::time::timeout(NATIVE_FIRST, connecting).await.is_ok_and(|knocked| knocked.is_ok())
    }

    /// One life of the link over QUIC, at the first of the host's addresses that answers.
    async fn native(
        &self,
        config: &ArcSwap<ClientConfig>,
        shown: &str,
        host: &Rc<Host>,
        dials: &Dials,
    ) -> std::io::Result<LinkEnd> {
        let Way { host: name, port, credentials, published, .. } = &*self.way;
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((name.as_str(), *port)).await?.collect();
        let credentials = credentials.authorization(SystemTime::now());
        let credentials = credentials.map_err(std::io::Error::other)?;
        let patience = published.is_some().then_some(NATIVE_FIRST);
        let mut last = LinkEnd { was_open: false, reason: "the host has no address".into() };
        for remote in addresses {
            let (opened, is_open) = oneshot::channel();
            let (ended, mut has_ended) = oneshot::channel();
            dials.push(Dial {
                remote,
                server_name: name.clone(),
                config: ClientConfig::clone(&config.load()),
                kind: self.kind,
                credentials: credentials.clone(),
                opened,
                ended,
            });
            let mut opening = Opening { host, is_open };
            let opened = async {
                let is_open = &mut opening.is_open;
                match patience {
                    Some(patience) => tokio::time::timeout(patience, is_open).await.ok()?.ok(),
                    None => is_open.await.ok(),
                }
            };
            let opened = opened.await;
            drop(opening);
            last = match (opened, patience) {
                (Some(link), _) => self.live(link, shown, host, has_ended).await,
                (None, None) => has_ended.await.unwrap_or(last),
                (None, Some(_)) => has_ended.try_recv().unwrap_or_else(|_| LinkEnd {
                    was_open: false,
                    reason: "QUIC: no answer in time".to_owned(),
                }),
            };
            if last.was_open {
                break;
            }
        }
        Ok(last)
    }

    /// The life of an open link.
    async fn live(
        &self,
        (link, kind): (LinkId, NodeLink),
        shown: &str,
        host: &Host,
        has_ended: oneshot::Receiver<LinkEnd>,
    ) -> LinkEnd {
        const SPACES: [Encoding; 4] = [Encoding::Native, Encoding::P, Encoding::D7, Encoding::D20];
        let finish = Finish { host, link };
        self.state.send_replace(State::Open);
        // Names that nodes tell each other make routes needless.
        let routes = if kind == NodeLink::Exchange { fixed([]) } else { self.routes.clone() };
        let exchange = kind == NodeLink::Exchange;
        info!(peer = shown, routes = routes.borrow().len(), exchange, "linked to another node");
        let ended = tokio::select! {
            ended = has_ended => ended.ok(),
            () = follow(host, link, shown, &SPACES, routes) => None,
        };
        drop(finish);
        ended.unwrap_or_else(|| LinkEnd { was_open: true, reason: "given up".to_owned() })
    }
}

/// Waits for a link to be open. One that opens when nobody waits any more is ended.
struct Opening<'a> {
    host: &'a Host,
    is_open: oneshot::Receiver<(LinkId, NodeLink)>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Ok((link, _)) = self.is_open.try_recv() {
            drop(Finish { host: self.host, link });
        }
    }
}

/// Ends a link whose life is followed no further.
struct Finish<'a> {
    host: &'a Host,
    link: LinkId,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if let Ok(mut core) = self.host.core.try_borrow_mut() {
            core.finish_link(self.link);
            core.flush();
        }
    }
}

/// Lives a link again and again until the node stops, after ever longer pauses while nothing
/// comes of it.
async fn begin_again(
    shown: &str,
    host: &Host,
    state: &watch::Sender<State>,
    once: impl AsyncFn() -> std::io::Result<LinkEnd>,
) {
    host.finish
        .run_until_cancelled(async {
            let mut pauses = pauses();
            loop {
                let begun = Instant::now();
                let ended = match once().await {
                    Ok(ended) => ended,
                    Err(error) => LinkEnd { was_open: false, reason: error.to_string() },
                };
                if ended.was_open {
                    // One that ends at once, again and again, is not to be tried ever faster.
                    if begun.elapsed() > LONGEST_PAUSE {
                        pauses = self::pauses();
                    }
                    info!(peer = shown, reason = ended.reason, "link to another node ended");
                } else {
                    host.report(Incident::LinkFailed, &shown, &ended.reason);
                }
                state.send_replace(State::Down { reason: ended.reason });
                tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        })
        .await;
}

/// Ever longer pauses between attempts.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, scheme, .. } = self;
        match host.contains(':') {
            true => write!(f, "{}://[{host}]:{port}", scheme.name()),
            false => write!(f, "{}://{host}:{port}", scheme.name()),
        }
    }
}
