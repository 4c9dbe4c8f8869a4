//! Assembles a node from its configuration and drives it: cores, listeners, drain, admin.

mod admin;
mod agent;
mod core;
mod inspect;
pub mod lifecycle;
mod listener;
mod metrics;
mod published;
mod reload;
pub(crate) mod security;
pub(crate) mod tls;
mod uplink;
pub(crate) mod watch;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use opentelemetry::metrics::Meter;
use slim_config::{Auth, Config, Server};
use slim_wire::Fault;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, info, info_span, warn};

use self::core::{CoreHandle, CoreSpec, Step};
use self::inspect::Inspector;
pub use self::listener::BindError;
use self::listener::{BoundServer, bind_server};
pub use self::metrics::METRICS;
use self::metrics::Observed;
use self::reload::{ConfiguredUplink, configured};
pub use self::tls::TlsError;
use self::watch::{Watcher, Watching};
use crate::SPANS;
use crate::datapath::{Mailboxes, SlowLog, Wake};
use crate::identity::IdentityError;
use crate::link::Places;
use crate::link::quic::Crossing;
use crate::telemetry::{Telemetry, TelemetryError};

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error("services.{block}.tls: {source}")]
    Tls {
        /// The service's id, and where in it.
        block: String,
        /// What is wrong.
        source: TlsError,
    },
    /// A key or token of `auth` cannot be used.
    #[error("services.{block}.auth: {source}")]
    Auth {
        /// The service's id, and where in it.
        block: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// What requests of the control plane are to be known by cannot be used.
    #[error("services.{service}.controller.token_provider: {source}")]
    TokenProvider {
        /// The service's id.
        service: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// Telemetry cannot be exported.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A thread or runtime cannot be had from the system.
    #[error("start of {what}: {source}")]
    System {
        /// What was to be started.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl StartError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Bind(_) | Self::Tls { .. } | Self::Auth { .. } | Self::TokenProvider { .. } => {
                Fault::Config
            }
            Self::Telemetry(error) => error.fault(),
            Self::System { .. } => Fault::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bind(error) => error.hint(),
            Self::Tls { source, .. } => source.hint(),
            Self::Auth { .. } | Self::TokenProvider { .. } => {
                "name a file that can be read, or a text, with a key of the algorithm and format given"
            }
            Self::Telemetry(error) => error.hint(),
            Self::System { .. } => "the system is short of threads or file descriptors",
        }
    }
}

/// A running node. Dropping it without [`Node::drain`] ends it at once.
pub struct Node {
    cores: Vec<CoreHandle>,
    servers: Vec<SocketAddr>,
    observed: Observed,
    ready: Arc<AtomicBool>,
    drain_timeout: Duration,
    uplinks: Vec<ConfiguredUplink>,
    /// Ends what controllers do here.
    managed: DropGuard,
    watching: Watching,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every stream ended, and what was queued was written.
    Clean,
    /// Every stream ended, but a receiver did not take all that was queued for it.
    Dropped,
    /// `runtime.drain_timeout` passed first; what was left is lost.
    TimedOut,
}

impl Node {
    /// Binds every listener of the configuration and starts serving.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let count = cores_of(config);
        let mut watcher = Watcher::new()?;
        let (uplinks, controls) = uplink::uplinks(config, &mut watcher)?;
        let servers = bind_servers(config, count, &mut watcher)?;
        // Never 0, which stands for no node.
        let node = RandomState::new().build_hasher().finish() | 1;
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let slow_log = Arc::new(SlowLog::default());
        let places = Places::new(config.limits.links, config.limits.partial_bytes);
        let bells: Vec<_> = (0..count).map(|_| Arc::new(core::Bell::default())).collect();
        let wakes: Vec<_> = bells.iter().map(|bell| Arc::clone(bell) as Arc<dyn Wake>).collect();
        let (mailboxes, postbox) = Mailboxes::connect(&wakes);
        // It ends with the last core.
        std::thread::Builder::new()
            .name("slim-routes".into())
            .spawn(|| postbox.run())
            .map_err(|source| StartError::System { what: "the route sequencer", source })?;
        let mut per_core = BoundServer::split(servers, count);
        let mut crossings = Crossing::connect(count).into_iter();
        let mut cores = Vec::with_capacity(count);
        for (mail, bell) in mailboxes.into_iter().zip(bells) {
            let core: usize = mail.core().0.into();
            // A link lives on one core; they take turns.
            let uplinks = uplinks.iter().skip(core).step_by(count).cloned().collect();
            cores.push(CoreHandle::start(CoreSpec {
                config: config.clone(),
                cores: count,
                servers: std::mem::take(&mut per_core[core]),
                node,
                uplinks,
                crossing: crossings.next().expect("one end per core"),
                mail,
                bell,
                slow_log: Arc::clone(&slow_log),
                places: places.clone(),
            })?);
        }
        let managed = CancellationToken::new();
        if agent::is_wanted(config) {
            let agents = agent::agents(config, &addresses, &mut watcher)?;
            let remotes = cores.iter().map(|core| core.remote.clone()).collect();
            let names_per_link = config.limits.subscriptions_per_node;
            let stop = managed.clone();
            let own = addresses.clone();
            let run = agent::run(agents, remotes, own, names_per_link, watcher.more(), stop);
            watcher.runtime().spawn(run);
        }
        let watching = watcher.start()?;
        let observed = Observed::new(&cores, slow_log, Arc::clone(&watching.reloads));
        let ready = Arc::new(AtomicBool::new(true));
        let drain_timeout = config.runtime.drain_timeout;
        Ok(Self {
            cores,
            servers: addresses,
            observed,
            ready,
            drain_timeout,
            uplinks: configured(config, controls),
            managed: managed.drop_guard(),
            watching,
        })
    }

    /// The addresses of the data-plane servers, with the ports that the system chose.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Has the metrics of `/metrics` exported too, by the names that they have there, as far as
    /// they are not of single links.
    pub fn export_metrics(&self, meter: &Meter) {
        self.observed.export(meter);
    }

    /// Serves `/livez`, `/readyz`, `/metrics`, `/links` and `/explain` on `address` from the current
    /// runtime. Returns
    /// the address with the port that the system chose.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn serve_admin(&self, address: SocketAddr) -> Result<SocketAddr, BindError> {
        let observed = self.observed.clone();
        let inspector = Inspector::new(&self.cores, observed.clone());
        admin::serve(address, observed, inspector, Arc::clone(&self.ready)).await
    }

    /// Stops in the order that lets clients come back: not ready, no more listeners, no more
    /// reading, then the queues are written and the streams end. Takes at most
    /// `runtime.drain_timeout`, or less if `hurry` resolves first.
    pub async fn drain(self, hurry: impl Future<Output = ()>) -> Drained {
        self.ready.store(false, Ordering::Relaxed);
        // A node that stops is to be given no more routes and groups.
        drop(self.managed);
        let span = info_span!(target: SPANS, "drain");
        let deadline = Instant::now() + self.drain_timeout;
        let lost = self.observed.lost();
        let cores = &self.cores;
        let steps = async {
            core::take_step(cores, Step::StopListening).await;
            info!("shutting down server");
            core::take_step(cores, Step::StopReading).await;
            self.observed.all_arrived().await;
            core::take_step(cores, Step::Finish).await;
            if self.observed.lost() == lost { Drained::Clean } else { Drained::Dropped }
        };
        let steps = steps.instrument(span);
        tokio::select! {
            drained = steps => drained,
            () = tokio::time::sleep_until(deadline.into()) => Drained::TimedOut,
            () = hurry => Drained::TimedOut,
        }
    }

    /// Resolves when a core has ended though nobody asked it to: a defect of this program.
    pub async fn failed(&self) {
        let mut ended: Vec<_> =
            self.cores.iter().map(|core| Box::pin(core.ended.cancelled())).collect();
        std::future::poll_fn(|cx| {
            let any = ended.iter_mut().any(|core| core.as_mut().poll(cx).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn cores_of(config: &Config) -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    match config.runtime.n_cores {
        0 => available,
        wanted if wanted > available => {
            warn!(wanted, available, "runtime.n_cores exceeds the machine; using all");
            available
        }
        wanted => wanted,
    }
}

/// Every data-plane listener of every service, with its log lines.
fn bind_servers(
    config: &Config,
    cores: usize,
    watcher: &mut Watcher,
) -> Result<Vec<BoundServer>, StartError> {
    let mut bound = Vec::new();
    for service in &config.services {
        info!(target: "slim", "Starting service: {}", service.id);
        info!(target: "slim_service::service", "starting service");
        for (index, server) in service.dataplane.servers.iter().enumerate() {
            let block = format!("{}.dataplane.servers[{index}]", service.id);
            let exchanges = server.quic.exchanges(config.profile);
            bound.push(start_server(&block, server, exchanges, cores, watcher)?);
        }
        info!(target: "slim", service = %service.id, "service started");
    }
    Ok(bound)
}

fn start_server(
    block: &str,
    server: &Server,
    exchanges: bool,
    cores: usize,
    watcher: &mut Watcher,
) -> Result<BoundServer, StartError> {
    info!(target: "slim_service::service", "starting server {}", server.endpoint);
    info!(target: "slim_service::service", "server configured: setting it up config={server:?}");
    let security = security::of_server(block, server, watcher)?;
    if server.auth != Auth::None && server.tls.is_none() {
        warn!(target: "slim", "Auth is enabled without TLS. This is not recommended.");
    }
    let bound = bind_server(server, security, exchanges, cores)?;
    info!(
        target: "slim_config::grpc::server",
        address = %bound.address,
        tls = bound.security.grpc.is_some(),
        quic = bound.security.quic.is_some(),
        "running service"
    );
    Ok(bound)
}

/// Whether the certificates, keys and tokens of all servers and clients, and of the collector, can
/// be used.
fn check_security(config: &Config) -> Result<(), StartError> {
    Telemetry::check(&config.tracing.opentelemetry)?;
    let mut watcher = Watcher::new()?;
    for service in &config.services {
        for (index, server) in service.dataplane.servers.iter().enumerate() {
            let block = format!("{}.dataplane.servers[{index}]", service.id);
            security::of_server(&block, server, &mut watcher)?;
        }
    }
    uplink::uplinks(config, &mut watcher)?;
    agent::check(config, &mut watcher)
}
