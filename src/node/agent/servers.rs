//! Where this node is managed directly, without a controller.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use slim_compat_grpc::proto::southbound::ControlMessage;
use slim_compat_grpc::proto::southbound::controller_service_server::{
    ControllerService, ControllerServiceServer,
};
use slim_config::Server;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info};

use super::OUTBOX;
use super::commands::Commands;
use super::links::ControllerId;
use super::session::{Session, UNDER_WAY};
use crate::link::api::{Listener, listen};
use crate::node::security::{self, Security};
use crate::node::watch::Watcher;
use crate::node::{BindError, StartError};

/// What all who manage the node directly ask for counts as asked for by one.
const DIRECT: ControllerId = ControllerId::MAX;

/// Longest message that is taken, in bytes.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// A bound listener of `controller.servers`.
pub(super) struct BoundApi {
    socket: std::net::TcpListener,
    security: Security,
}

/// Binds a listener, whose files are watched. `block` is where in the configuration.
pub(super) fn bind(
    server: &Server,
    block: &str,
    watcher: &mut Watcher,
) -> Result<BoundApi, StartError> {
    let security = security::of_server(block, server, watcher)?;
    let address: SocketAddr = server.endpoint;
    let socket = listen(address).map_err(|source| BindError { address, source })?;
    Ok(BoundApi { socket, security })
}

impl BoundApi {
    /// Serves until `stop`.
    pub(super) async fn serve(self, commands: Arc<Commands>, stop: CancellationToken) {
        let Self { socket, security } = self;
        let bound = socket
            .local_addr()
            .and_then(|address| TcpListener::from_std(socket).map(|socket| (address, socket)));
        let (address, socket) = match bound {
            Ok(bound) => bound,
            Err(error) => return error!(%error, "the node cannot be managed directly"),
        };
        info!(%address, "control plane API ready");
        let Security { grpc: tls, gate, .. } = security;
        let service = ControllerServiceServer::new(Direct { commands })
            .max_decoding_message_size(MESSAGE_BYTES);
        let listener = Listener { address, socket, tls, gate };
        if let Err(error) = listener.serve(Routes::new(service), stop).await {
            error!(%error, "the node cannot be managed directly any more");
        }
    }
}

struct Direct {
    commands: Arc<Commands>,
}

#[tonic::async_trait]
impl ControllerService for Direct {
    type OpenControlChannelStream =
        Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

    /// Does what is asked for, until the caller has no more to ask; the stream ends with the last
    /// answer.
    async fn open_control_channel(
        &self,
        request: Request<Streaming<ControlMessage>>,
    ) -> Result<Response<Self::OpenControlChannelStream>, Status> {
        let (out, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            controller: DIRECT,
            commands: Arc::clone(&self.commands),
            out,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        };
        let mut asked = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = asked.message().await {
                if session.take(message).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages).map(Ok))))
    }
}
