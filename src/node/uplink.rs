//! Links that this node begins, to other nodes.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use backon::{BackoffBuilder, ExponentialBuilder};
use quinn_proto::ClientConfig;
use slim_config::{Client, Config, Scheme};
use slim_wire::TextName;
use tokio::sync::oneshot;
use tracing::info;

use super::tls::TlsError;
use super::watch::Watcher;
use super::{StartError, security};
use crate::datapath::NodeLink;
use crate::link::quic::{Dial, Dials, LinkEnd};
use crate::link::{Host, Incident};
use crate::trust::Credentials;

/// A link to another node, to be kept up for as long as this node runs.
#[derive(Clone)]
pub(super) struct Uplink {
    way: Way,
    kind: NodeLink,
    config: Arc<ArcSwap<ClientConfig>>,
}

/// What every link that this node begins has, whatever it speaks.
#[derive(Clone)]
pub(super) struct Way {
    /// Without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Credentials,
    /// Names that are reached there.
    pub(super) routes: Vec<TextName>,
}

/// How long a link may take to come up before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The native links that the configuration asks for, whose files are watched.
pub(super) fn uplinks(config: &Config, watcher: &mut Watcher) -> Result<Vec<Uplink>, StartError> {
    let secure = |client: &Client| security::of_client(client, watcher);
    of_clients(
        config,
        |scheme| scheme == Scheme::Quic,
        secure,
        |client, way, config| {
            let kind = if client.exchange { NodeLink::Exchange } else { NodeLink::Transit };
            Uplink { way, kind, config }
        },
    )
}

/// A link for each of the configuration's clients that have a scheme like this.
pub(super) fn of_clients<S, T>(
    config: &Config,
    has_scheme: impl Fn(Scheme) -> bool,
    mut secure: impl FnMut(&Client) -> Result<S, TlsError>,
    make: impl Fn(&Client, Way, S) -> T,
) -> Result<Vec<T>, StartError> {
    let mut links = Vec::new();
    for service in &config.services {
        let plane = &service.dataplane;
        for (index, client) in plane.clients.iter().enumerate() {
            if !has_scheme(client.endpoint.scheme) {
                continue;
            }
            let block = format!("{}.dataplane.clients[{index}]", service.id);
            let security = match secure(client) {
                Ok(security) => security,
                Err(source) => return Err(StartError::Tls { block, source }),
            };
            let credentials = Credentials::of(&client.auth)
                .map_err(|source| StartError::Auth { block, source })?;
            let via = plane.routes.iter().filter(|route| route.via == client.endpoint);
            let host = client.endpoint.host.trim_start_matches('[').trim_end_matches(']');
            let way = Way {
                host: host.to_owned(),
                port: client.endpoint.port,
                credentials,
                routes: via.map(|route| route.name.clone()).collect(),
            };
            links.push(make(client, way, security));
        }
    }
    Ok(links)
}

/// Keeps the link up until the node stops.
pub(super) async fn keep_up(uplink: Uplink, host: Rc<Host>, dials: Rc<Dials>) {
    let shown = uplink.shown();
    begin_again(&shown, &host, async || once(&uplink, &dials).await).await;
}

/// Lives a link again and again until the node stops, after ever longer pauses while nothing
/// comes of it.
pub(super) async fn begin_again(
    shown: &str,
    host: &Host,
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
                tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        })
        .await;
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// One life of the link, at the first of the host's addresses that answers.
async fn once(uplink: &Uplink, dials: &Dials) -> std::io::Result<LinkEnd> {
    let Way { host, port, credentials, routes } = &uplink.way;
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
    let credentials = credentials.authorization(SystemTime::now());
    let credentials = credentials.map_err(std::io::Error::other)?;
    let mut last = LinkEnd { was_open: false, reason: "the host has no address".into() };
    for remote in addresses {
        let (ended, has_ended) = oneshot::channel();
        dials.push(Dial {
            remote,
            server_name: host.clone(),
            config: ClientConfig::clone(&uplink.config.load()),
            kind: uplink.kind,
            routes: routes.clone(),
            credentials: credentials.clone(),
            ended,
        });
        if let Ok(end) = has_ended.await {
            last = end;
        }
        if last.was_open {
            break;
        }
    }
    Ok(last)
}

impl Uplink {
    fn shown(&self) -> String {
        format!("quic://{}", self.way)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
