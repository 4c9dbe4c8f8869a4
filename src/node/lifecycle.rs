//! A node's life from its configuration to its exit code.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use slim_config::{Client, Config, Diagnostics, LoadError, Loaded};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, info_span, warn};

use super::reload::Reload;
use super::{Drained, Node, StartError};
use crate::SPANS;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::{self, Logging};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Stopped by a signal, everything written.
    Clean = 0,
    /// The node did not start: a port in use, a certificate that cannot be used.
    StartFailed = 1,
    /// The command line is wrong (clap ends the program with this number itself).
    Usage = 2,
    /// The configuration file is wrong.
    Config = 3,
    /// `runtime.drain_timeout` passed, or a second signal came, before all was written.
    DirtyStop = 4,
    /// A defect of this program ended one of its cores.
    Failed = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a node without a file runs on: the documented port on all addresses, or `listen`; in
/// the second case the admin endpoint takes any free port, so that several nodes can run. It links
/// to each of `peers`, and they tell each other the names of their clients.
///
/// # Errors
/// [`Diagnostics`] if a peer is no endpoint.
pub fn defaults(listen: Option<SocketAddr>, peers: &[String]) -> Result<Config, Diagnostics> {
    const DOCUMENTED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 46357);
    const ANY_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let mut config = match listen {
        Some(listen) => Config { admin: Some(ANY_ADMIN), ..Config::embedded(listen) },
        None => Config::embedded(DOCUMENTED),
    };
    let clients = peers.iter().map(|peer| Client::peer(peer));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    config.services.iter_mut().for_each(|service| service.dataplane.clients = clients.clone());
    Ok(config)
}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The file itself is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A certificate, key or token that it names is.
    #[error("{file}: {error}\n  help: {}", error.hint())]
    Security {
        /// The configuration file.
        file: String,
        /// What is wrong.
        error: Box<StartError>,
    },
}

/// Reports what is wrong with a configuration file and with the certificates that it names,
/// without binding or connecting.
///
/// # Errors
/// [`CheckError`].
pub fn check(file: &Path) -> Result<Loaded, CheckError> {
    let loaded = slim_config::load(file)?;
    super::check_security(&loaded.config).map_err(|error| CheckError::Security {
        file: file.display().to_string(),
        error: error.into(),
    })?;
    Ok(loaded)
}

/// Runs a node until a signal stops it. `file` is where the configuration comes from; the signal
/// SIGHUP has it read again.
pub fn run(loaded: Loaded, file: Option<&Path>) -> Exit {
    let config = loaded.config.clone();
    let logging = logging::init(&config.tracing);
    let logging = logging.inspect_err(|error| warn!(%error, "logging was started before")).ok();
    let telemetry = match logging.as_ref().map(Logging::telemetry).transpose() {
        Ok(telemetry) => telemetry.flatten(),
        Err(error) => return not_started(error.hint(), error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            return start_failed(&StartError::System { what: "the main runtime", source });
        }
    };
    runtime.block_on(async {
        let _span = info_span!("application_lifecycle").entered();
        info!(target: "slim", "Runtime started");
        for warning in &loaded.warnings {
            warn!(target: "slim", "{warning}");
        }
        serve(&config, telemetry, Reload::new(loaded, file, logging.as_ref())).await
    })
}

async fn serve(config: &Config, telemetry: Option<&Telemetry>, reload: Reload<'_>) -> Exit {
    raise_file_limit();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(source) => {
            return start_failed(&StartError::System { what: "signal handling", source });
        }
    };
    let mut node = match info_span!(target: SPANS, "start").in_scope(|| Node::start(config)) {
        Ok(node) => node,
        Err(error) => return start_failed(&error),
    };
    if let Some(telemetry) = telemetry {
        node.export_metrics(&telemetry.meter());
    }
    let admin = match config.admin {
        Some(address) => match node.serve_admin(address).await {
            Ok(address) => Some(address),
            Err(error) => {
                node.drain(std::future::ready(())).await;
                let hint = "set `admin` to another IP:port, or to `none`";
                return not_started(hint, &format_args!("admin: {error}"));
            }
        },
        None => None,
    };
    announce(config, &node, admin);
    let Some(name) = until_stopped(&mut node, &mut signals, reload).await else {
        error!(target: "slim", "a core of this node failed; see the lines above");
        return Exit::Failed;
    };
    info!(target: "slim::signal", "received signal {name}, starting shutdown");
    info!(target: "slim", "Received shutdown signal");
    for service in &config.services {
        info!(target: "slim", service = %service.id, "stopping service");
    }
    let hurry = async {
        let name = signals.stop.next().await;
        warn!(target: "slim::signal", "received signal {name} again, stopping at once");
    };
    match node.drain(hurry).await {
        Drained::Clean => {
            info!(target: "slim", "stopped");
            Exit::Clean
        }
        Drained::Dropped | Drained::TimedOut => {
            error!(target: "slim", "stopped before everything was written");
            Exit::DirtyStop
        }
    }
}

/// Says where every listener is.
fn announce(config: &Config, node: &Node, admin: Option<SocketAddr>) {
    let servers = config.services.iter().flat_map(|service| &service.dataplane.servers);
    for (address, server) in node.servers().iter().zip(servers) {
        if server.tls.is_none() && !address.ip().is_loopback() {
            warn!(target: "slim", %address, "no TLS: whoever reaches this address can read");
        }
        let native =
            if server.quic.enabled { format!(", QUIC on {address}") } else { String::new() };
        info!(target: "slim", "data plane ready: gRPC on {address}{native}");
    }
    match admin {
        Some(address) => {
            info!(target: "slim", "admin ready: http://{address}/livez /readyz /metrics /links /explain");
        }
        None => info!(target: "slim", "admin is switched off"),
    }
}

/// The name of the signal that stops the node; `None` when a core has ended before.
async fn until_stopped(
    node: &mut Node,
    signals: &mut Signals,
    mut reload: Reload<'_>,
) -> Option<&'static str> {
    loop {
        tokio::select! {
            name = signals.stop.next() => return Some(name),
            () = node.failed() => return None,
            _ = signals.hangup.recv() => {}
        }
        info!(target: "slim::signal", "received signal SIGHUP, reading the configuration again");
        reload.reload(node).await;
    }
}

struct Signals {
    stop: Stop,
    hangup: Signal,
}

struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let stop = Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        Ok(Self { stop, hangup: signal(SignalKind::hangup())? })
    }
}

impl Stop {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

fn start_failed(failure: &StartError) -> Exit {
    not_started(failure.hint(), failure)
}

fn not_started(hint: &str, failure: &dyn Display) -> Exit {
    error!(target: "slim", hint, "failed to start service: {failure}");
    Exit::StartFailed
}

/// Every connection is a file descriptor, and the usual soft limit is far below the hard one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "the limit of open files could not be raised");
        }
    }
}
