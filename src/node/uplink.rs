//! Links that this node begins, to other nodes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use backon::{BackoffBuilder, ExponentialBuilder};
use quinn_proto::ClientConfig;
use slim_config::{Client, Config, Dataplane, Scheme};
use slim_wire::TextName;
use tokio::sync::oneshot;
use tracing::info;

use super::watch::Watcher;
use super::{StartError, security};
use crate::link::quic::{Dial, Dials, LinkEnd};
use crate::link::{Host, Incident};
use crate::trust::Credentials;

/// A link to another node, to be kept up for as long as this node runs.
#[derive(Clone)]
pub(super) struct Uplink {
    host: String,
    port: u16,
    config: Arc<ArcSwap<ClientConfig>>,
    credentials: Credentials,
    routes: Vec<TextName>,
}

/// How long a link may take to come up before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The native links that the configuration asks for, whose files are watched.
pub(super) fn uplinks(config: &Config, watcher: &mut Watcher) -> Result<Vec<Uplink>, StartError> {
    let mut uplinks = Vec::new();
    for service in &config.services {
        for (index, client) in service.dataplane.clients.iter().enumerate() {
            if client.endpoint.scheme == Scheme::Quic {
                let block = format!("{}.dataplane.clients[{index}]", service.id);
                uplinks.push(uplink(block, &service.dataplane, client, watcher)?);
            }
        }
    }
    Ok(uplinks)
}

fn uplink(
    block: String,
    plane: &Dataplane,
    client: &Client,
    watcher: &mut Watcher,
) -> Result<Uplink, StartError> {
    let config = match security::of_client(client, watcher) {
        Ok(config) => config,
        Err(source) => return Err(StartError::Tls { block, source }),
    };
    let credentials =
        Credentials::of(&client.auth).map_err(|source| StartError::Auth { block, source })?;
    let via = plane.routes.iter().filter(|route| route.via == client.endpoint);
    Ok(Uplink {
        host: client.endpoint.host.clone(),
        port: client.endpoint.port,
        config,
        credentials,
        routes: via.map(|route| route.name.clone()).collect(),
    })
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
    let host = uplink.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, uplink.port)).await?.collect();
    let credentials = uplink.credentials.authorization(SystemTime::now());
    let credentials = credentials.map_err(std::io::Error::other)?;
    let mut last = LinkEnd { was_open: false, reason: "the host has no address".into() };
    for remote in addresses {
        let (ended, has_ended) = oneshot::channel();
        dials.push(Dial {
            remote,
            server_name: host.to_owned(),
            config: ClientConfig::clone(&uplink.config.load()),
            routes: uplink.routes.clone(),
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
        format!("quic://{}:{}", self.host, self.port)
    }
}
