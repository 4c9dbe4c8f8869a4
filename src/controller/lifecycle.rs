//! A controller's life from its settings to its exit code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slim_compat_grpc::proto::northbound::control_plane_service_server::ControlPlaneServiceServer;
use slim_compat_grpc::proto::southbound::controller_service_server::ControllerServiceServer;
use slim_wire::Fault;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tracing::{error, info, warn};

use super::hub::Hub;
use super::northbound::Northbound;
use super::settings::{Api, Settings};
use super::southbound::Southbound;
use super::store::{Store, StoreError};
use crate::identity::IdentityError;
use crate::link::api::{self as serve, Listener};
use crate::node::TlsError;
use crate::node::lifecycle::Exit;
use crate::node::security;
use crate::node::watch::{Watcher, Watching};

/// Why a controller did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error("listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{api}.tls: {source}")]
    Tls {
        /// Which API.
        api: &'static str,
        /// What is wrong.
        source: TlsError,
    },
    /// A key or token of `auth` cannot be used.
    #[error("{api}.auth: {source}")]
    Auth {
        /// Which API.
        api: &'static str,
        /// What is wrong.
        source: IdentityError,
    },
    /// What was kept cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread or runtime cannot be had from the system.
    #[error(transparent)]
    System(#[from] crate::node::StartError),
}

impl StartError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Bind { .. } | Self::Tls { .. } | Self::Auth { .. } => Fault::Config,
            Self::Store(_) => Fault::Internal,
            Self::System(error) => error.fault(),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "choose a free port on an address of this machine",
            Self::Tls { source, .. } => source.hint(),
            Self::Auth { .. } => "name a key of the algorithm and format given",
            Self::Store(_) => "name another file, or restore this one",
            Self::System(error) => error.hint(),
        }
    }
}

/// How long open calls and streams have to end when a controller stops.
const STOP: Duration = Duration::from_secs(10);

/// Largest message of a node, in bytes. Answers repeat what was asked with the result of each, and
/// commands that hold everything have up to half of this.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// A running controller. Dropping it leaves its tasks to the runtime; see [`Controller::stop`].
pub struct Controller {
    hub: Arc<Hub>,
    northbound: SocketAddr,
    southbound: SocketAddr,
    servers: Vec<JoinHandle<()>>,
    watching: Watching,
}

impl Controller {
    /// Binds both APIs and starts serving, on the current runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(settings: Settings, store: Arc<dyn Store>) -> Result<Self, StartError> {
        info!("Starting route reconcilers");
        for number in 0..settings.reconcilers {
            info!(thread_name = format!("reconciler-{number}"), "Starting Route Reconciler");
        }
        let mut watcher = Watcher::new()?;
        let south = listener("southbound", &settings.southbound, &mut watcher).await?;
        let north = listener("northbound", &settings.northbound, &mut watcher).await?;
        let expire = settings.expire;
        let hub = Arc::new(Hub::new(settings, store)?);
        let watching = watcher.start()?;
        let (northbound, southbound) = (north.address, south.address);
        info!("Southbound API Service is Listening on {southbound}");
        info!("Northbound API Service is listening on {northbound}");
        let service = ControllerServiceServer::new(Southbound::new(Arc::clone(&hub)));
        let service = service.max_decoding_message_size(MESSAGE_BYTES);
        let south = run(&hub, south, Routes::new(service));
        let service = Northbound::new(Arc::clone(&hub));
        let (memberships, stop) = (service.clone().compare_memberships(), hub.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(memberships).await });
        let north = run(&hub, north, Routes::new(ControlPlaneServiceServer::new(service)));
        if let Some(limit) = expire {
            let (hub, stop) = (Arc::clone(&hub), hub.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(hub.expire(limit)).await });
        }
        let servers = vec![south, north];
        Ok(Self { hub, northbound, southbound, servers, watching })
    }

    /// Where operators reach it.
    pub fn northbound(&self) -> SocketAddr {
        self.northbound
    }

    /// Where nodes reach it.
    pub fn southbound(&self) -> SocketAddr {
        self.southbound
    }

    /// Ends the streams of all nodes without an error, so that they come back, lets calls come to
    /// their ends, and returns whether all did so in time.
    pub async fn stop(self) -> bool {
        self.hub.stop.cancel();
        self.hub.tasks.close();
        let ended = async {
            self.hub.tasks.wait().await;
            for server in self.servers {
                // It logs its own failures.
                let _ = server.await;
            }
        };
        tokio::time::timeout(STOP, ended).await.is_ok()
    }
}

async fn listener(
    name: &'static str,
    api: &Api,
    watcher: &mut Watcher,
) -> Result<Listener, StartError> {
    let tls =
        api.tls.as_ref().map(|tls| security::listener_tls(format!("{name}.tls"), tls, watcher));
    let tls = tls.transpose().map_err(|source| StartError::Tls { api: name, source })?;
    let gate = security::gate(&api.auth, &format!("{name}.auth"), watcher);
    let gate = Arc::new(gate.map_err(|source| StartError::Auth { api: name, source })?);
    let error = |source| StartError::Bind { address: api.address.clone(), source };
    let socket = serve::bind(&api.address).await.map_err(error)?;
    let address = socket.local_addr().map_err(error)?;
    if tls.is_none() && !address.ip().is_loopback() {
        warn!(%address, api = name, "No TLS: whoever reaches this address can use it");
    }
    Ok(Listener { address, socket, tls, gate })
}

fn run(hub: &Hub, listener: Listener, routes: Routes) -> JoinHandle<()> {
    let serve = listener.serve(routes, hub.stop.clone());
    tokio::spawn(async move {
        if let Err(error) = serve.await {
            error!(%error, "A server failed");
        }
    })
}

/// Runs a controller until a signal stops it. With SIGHUP the files of certificates and keys are
/// looked at at once, and `reread` does what can be done about the configuration.
pub fn run_until_signal(
    settings: Settings,
    store: Arc<dyn Store>,
    mut reread: impl FnMut(),
) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let what = "the main runtime";
            return failed(&crate::node::StartError::System { what, source }.into());
        }
    };
    runtime.block_on(async {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [mut interrupt, mut terminate, mut hangup] = match kinds.map(signal) {
            [Ok(interrupt), Ok(terminate), Ok(hangup)] => [interrupt, terminate, hangup],
            [Err(source), ..] | [_, Err(source), _] | [.., Err(source)] => {
                let what = "signal handling";
                return failed(&crate::node::StartError::System { what, source }.into());
            }
        };
        let controller = match Controller::start(settings, store).await {
            Ok(controller) => controller,
            Err(error) => return failed(&error),
        };
        let name = loop {
            tokio::select! {
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                _ = hangup.recv() => {
                    info!("Received signal SIGHUP, reading files again");
                    controller.watching.look();
                    reread();
                }
            }
        };
        info!("Received signal {name}, stopping");
        match controller.stop().await {
            true => {
                info!("Stopped");
                Exit::Clean
            }
            false => {
                error!("Stopped before everything had ended");
                Exit::DirtyStop
            }
        }
    })
}

fn failed(failure: &StartError) -> Exit {
    error!(hint = failure.hint(), "Failed to start: {failure}");
    Exit::StartFailed
}
