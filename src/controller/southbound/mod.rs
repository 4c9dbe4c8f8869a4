//! What nodes use: one stream each, over which they register, report, and are told.

mod drive;
mod lists;
mod registration;
mod session;
mod stream;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::controller_service_server::ControllerService;
use slim_compat_grpc::proto::southbound::{Ack, ControlMessage};
use tokio::sync::{Semaphore, mpsc};
use tonic::codegen::tokio_stream::Stream as Messages;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::stream::{Stream, Unanswered};
use super::hub::Hub;
use crate::link::api::Caller;

/// Messages that wait to be written to one node.
const QUEUE: usize = 64;

/// Streams beyond the nodes that there may be: newcomers, and those that are refused.
const UNREGISTERED: usize = 1024;

/// The service.
pub(super) struct Southbound {
    hub: Arc<Hub>,
    places: Arc<Semaphore>,
}

impl Southbound {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        let places = hub.settings.limits.nodes + UNREGISTERED;
        Self { hub, places: Arc::new(Semaphore::new(places)) }
    }
}

#[tonic::async_trait]
impl ControllerService for Southbound {
    type OpenControlChannelStream =
        Pin<Box<dyn Messages<Item = Result<ControlMessage, Status>> + Send>>;

    async fn open_control_channel(
        &self,
        request: Request<Streaming<ControlMessage>>,
    ) -> Result<Response<Self::OpenControlChannelStream>, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted("too many streams"))?;
        let caller = request.extensions().get::<Caller>();
        let peer = caller.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |caller| caller.peer.ip());
        let (out, messages) = mpsc::channel(QUEUE);
        let greeting = Ack { success: true, ..Ack::default() };
        out.try_send(stream::message(Payload::Ack(greeting))).expect("the queue is empty");
        // Published nodes come back only after streams that end without an error.
        let ended = self.hub.stop.child_token();
        let until = ended.clone().cancelled_owned();
        let messages = ReceiverStream::new(messages).map(Ok).take_until(until);
        let (hub, inbound) = (Arc::clone(&self.hub), request.into_inner());
        self.hub.tasks.spawn(async move {
            session::run(&hub, inbound, peer.to_canonical(), out, ended).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
