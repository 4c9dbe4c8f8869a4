//! This node's part in a network that controllers manage: it tells them of its clients, makes the
//! links and routes that they ask for, and has apps moderate groups.
//!
//! A controller that is away is tried again and again; the node serves meanwhile, and tells it
//! everything anew when it is back.

mod commands;
mod connect;
mod links;
mod lists;
mod names;
mod presence;
mod servers;
mod session;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use slim_compat_grpc::proto::southbound::ConnectionDetails;
use slim_config::{Config, MetadataValue, Server, Service};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::commands::Commands;
use self::connect::Controller;
use self::links::{ControllerId, Links};
use self::names::Names;
use self::presence::Presence;
use self::servers::BoundApi;
use self::session::{Registration, Session, UNDER_WAY};
use self::tokens::Tokens;
use super::core::Remote;
use super::uplink::pauses;
use super::watch::{MoreWatched, Watcher};
use super::{StartError, security};

/// The controllers of one service, and where it is managed directly.
pub(super) struct Agent {
    controllers: Vec<Controller>,
    servers: Vec<BoundApi>,
    tokens: Tokens,
    registration: Registration,
}

/// Answers and reports that may wait for a controller.
const OUTBOX: usize = 64;

/// Whether the configuration asks for an agent at all.
pub(super) fn is_wanted(config: &Config) -> bool {
    config.services.iter().any(is_managed)
}

fn is_managed(service: &Service) -> bool {
    !(service.controller.clients.is_empty() && service.controller.servers.is_empty())
}

/// The agents that the configuration asks for; `servers` are the addresses of all data-plane
/// servers, in their order.
pub(super) fn agents(
    config: &Config,
    servers: &[SocketAddr],
    watcher: &mut Watcher,
) -> Result<Vec<Agent>, StartError> {
    let mut agents = Vec::new();
    let mut addresses = servers.iter();
    for service in &config.services {
        let own = addresses.by_ref().take(service.dataplane.servers.len());
        let registration = registration(service, own);
        if !is_managed(service) {
            continue;
        }
        let (controllers, tokens) = (controllers(service, watcher)?, tokens(service)?);
        let servers = servers_of(service)
            .map(|(server, block)| servers::bind(server, &block, watcher))
            .collect::<Result<_, _>>()?;
        agents.push(Agent { controllers, servers, tokens, registration });
    }
    Ok(agents)
}

/// Whether what the agents are made of can be used: certificates, keys and tokens. Nothing is bound
/// and nobody is called.
///
/// # Errors
/// [`StartError`] with the first that cannot.
pub(super) fn check(config: &Config, watcher: &mut Watcher) -> Result<(), StartError> {
    for service in config.services.iter().filter(|service| is_managed(service)) {
        controllers(service, watcher)?;
        tokens(service)?;
        for (server, block) in servers_of(service) {
            security::of_server(&block, server, watcher)?;
        }
    }
    Ok(())
}

fn controllers(service: &Service, watcher: &mut Watcher) -> Result<Vec<Controller>, StartError> {
    let clients = service.controller.clients.iter().enumerate();
    let controllers = clients.map(|(index, client)| {
        let block = format!("{}.controller.clients[{index}]", service.id);
        Controller::new(client, &block, watcher)
    });
    controllers.collect()
}

fn tokens(service: &Service) -> Result<Tokens, StartError> {
    Tokens::of(&service.controller.token_provider)
        .map_err(|source| StartError::TokenProvider { service: service.id.clone(), source })
}

/// Where the node is managed directly, each with where in the configuration it stands.
fn servers_of(service: &Service) -> impl Iterator<Item = (&Server, String)> {
    let servers = service.controller.servers.iter().enumerate();
    servers.map(|(index, server)| (server, format!("{}.controller.servers[{index}]", service.id)))
}

fn registration<'a>(
    service: &Service,
    addresses: impl Iterator<Item = &'a SocketAddr>,
) -> Registration {
    let kind = service.id.split_once('/').map_or("slim", |(kind, _)| kind);
    let details = |(server, address): (&Server, &SocketAddr)| {
        let text = |key| match server.metadata.get(key) {
            Some(MetadataValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        ConnectionDetails {
            endpoint: address.to_string(),
            mtls_required: server.tls.is_some(),
            local_endpoint: text("local_endpoint"),
            external_endpoint: text("external_endpoint"),
            group_name: text("group_name"),
        }
    };
    Registration {
        node_id: format!("{kind}/{}", service.node_id),
        group_name: service.group_name.clone(),
        connection_details: service.dataplane.servers.iter().zip(addresses).map(details).collect(),
    }
}

/// Serves controllers until `stop`. `own` is where the node listens; so many names may be reached
/// by one link that a controller asks for, whose files are looked at by way of `watched`.
pub(super) async fn run(
    agents: Vec<Agent>,
    cores: Vec<Remote>,
    own: Vec<SocketAddr>,
    names_per_link: usize,
    watched: MoreWatched,
    stop: CancellationToken,
) {
    let names = Arc::new(Names::new());
    let Some(first) = cores.first().cloned() else {
        return;
    };
    let Some(presence) = Presence::open(first, Arc::clone(&names)).await else {
        return;
    };
    for (service, agent) in agents.into_iter().enumerate() {
        let Agent { controllers, servers, tokens, registration } = agent;
        let commands = Arc::new(Commands {
            links: Links::new(cores.clone(), own.clone(), names_per_link, watched.clone()),
            presence: presence.clone(),
            tokens,
        });
        for server in servers {
            tokio::spawn(server.serve(Arc::clone(&commands), stop.clone()));
        }
        for (index, controller) in controllers.into_iter().enumerate() {
            let (names, commands) = (Arc::clone(&names), Arc::clone(&commands));
            let registration = registration.clone();
            tracing::debug!(service, index, "controller configured");
            let stop = stop.clone();
            tokio::spawn(async move {
                let kept_up = keep_up(index, &controller, &registration, &names, &commands);
                stop.run_until_cancelled(kept_up).await;
            });
        }
    }
}

/// Keeps a stream to a controller up.
async fn keep_up(
    id: ControllerId,
    controller: &Controller,
    registration: &Registration,
    names: &Names,
    commands: &Arc<Commands>,
) {
    let peer = controller.endpoint.to_string();
    let mut waiting = pauses();
    let mut connected = false;
    let mut failed = None;
    loop {
        if failed.is_none() {
            info!(%peer, "connecting to control plane");
        }
        let (out, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            controller: id,
            commands: Arc::clone(commands),
            out,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        };
        let reason = match live(&session, controller, messages, registration, names).await {
            Ok((lived, reason)) => {
                if lived {
                    waiting = pauses();
                }
                (connected, failed) = (true, None);
                reason
            }
            Err(reason) => reason,
        };
        // What goes wrong again and again in the same way is said once.
        if failed.as_ref() != Some(&reason) {
            warn!(%peer, reason, "control plane stream closed");
            info!(%peer, connected, "retrying connection to control plane");
        }
        failed = Some(reason);
        match waiting.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return,
        }
    }
}

/// One life of a stream. Returns whether it was more than a greeting, and why it ended.
async fn live(
    session: &Session,
    controller: &Controller,
    messages: mpsc::Receiver<slim_compat_grpc::proto::southbound::ControlMessage>,
    registration: &Registration,
    names: &Names,
) -> Result<(bool, String), String> {
    // The registration waits in the outbox: some controllers answer the stream only after it.
    let reporting = session.report(registration.clone(), names);
    let listening = async {
        let mut stream = controller.open(messages).await?;
        info!(peer = %controller.endpoint, "connected to control plane");
        let mut taken = 0;
        let reason = loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    taken += 1;
                    if session.take(message).await.is_err() {
                        break "closed from here".to_owned();
                    }
                }
                Ok(None) => break "closed by the control plane".to_owned(),
                Err(status) => break status.to_string(),
            }
        };
        Ok((taken > 1, reason))
    };
    tokio::select! {
        biased;
        ended = listening => ended,
        Err(_) = reporting => Err("the stream takes no more".to_owned()),
    }
}
