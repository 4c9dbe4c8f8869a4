//! What operators use: nodes, routes, channels and who is in them.

mod channels;
mod membership;
mod nodes;
mod participants;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slim_compat_grpc::proto::northbound::control_plane_service_server::ControlPlaneService;
use slim_compat_grpc::proto::northbound::{
    AddParticipantRequest, AddRouteRequest, AddRouteResponse, ConnectionListResponse,
    CreateChannelRequest, CreateChannelResponse, CreateConnectionRequest, CreateConnectionResponse,
    CreateSubscriptionRequest, CreateSubscriptionResponse, DeleteChannelRequest,
    DeleteParticipantRequest, DeleteRouteRequest, DeleteRouteResponse, DeleteSubscriptionRequest,
    DeleteSubscriptionResponse, DeregisterNodeResponse, ListChannelsRequest, ListChannelsResponse,
    ListParticipantsRequest, ListParticipantsResponse, Node, NodeListRequest, NodeListResponse,
    StoredRouteListRequest, StoredRouteListResponse, SubscriptionListResponse,
};
use slim_compat_grpc::proto::southbound::Ack;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::hub::Hub;
use super::model::Model;
use super::name::RouteName;
use super::store::StoreError;

/// Everything ends within this time: clients wait 15 s.
const LIMIT: Duration = Duration::from_secs(13);

/// How long nodes that have just registered are given to report who their clients are.
const REPORTS: Duration = Duration::from_secs(2);

/// How long a client is given to be reported: its program says that it is connected before its
/// node knows its name.
const ARRIVAL: Duration = Duration::from_secs(1);

/// Calls at a time; more are refused.
const CALLS: usize = 1024;

/// The service.
#[derive(Clone)]
pub(super) struct Northbound(Arc<Shared>);

struct Shared {
    hub: Arc<Hub>,
    calls: Arc<Semaphore>,
    /// Changes of one channel follow each other.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Northbound {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS));
        Self(Arc::new(Shared { hub, calls, turns: Mutex::default() }))
    }

    fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Does something to its end, whether or not the caller waits for that.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let place = self.place()?;
        let work = async move {
            let _place: OwnedSemaphorePermit = place;
            work.await
        };
        let done = self.hub().tasks.spawn(work).await;
        done.map_err(|_| Status::internal("a defect of the controller"))?.map(Response::new)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.0.calls).try_acquire_owned();
        place.map_err(|_| Status::resource_exhausted("too many calls at a time"))
    }

    /// Waits until somebody has a name, unless nodes have had the time to say that nobody does.
    async fn await_client(&self, name: &RouteName) {
        let begun = Instant::now();
        let is_there = |model: &mut Model| {
            let mut hosts = model.hosts(name).into_iter();
            hosts.any(|host| host.live.is_some()).then_some(())
        };
        if self.hub().until(begun + ARRIVAL, is_there).await.is_none() {
            let is_settled = |model: &mut Model| {
                let all_told = model.has_live_nodes() && model.all_told();
                is_there(model).or_else(|| all_told.then_some(()))
            };
            self.hub().until(begun + REPORTS, is_settled).await;
        }
    }

    /// The turn to change a channel.
    async fn turn(&self, channel: &str, deadline: Instant) -> Result<OwnedMutexGuard<()>, Status> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(channel.to_owned()).or_default())
        };
        let busy = |_| Status::aborted(format!("channel {channel} is being changed by others"));
        tokio::time::timeout_at(deadline.into(), turn.lock_owned()).await.map_err(busy)
    }

    /// Whether a channel is being changed.
    fn is_changing(&self, channel: &str) -> bool {
        let turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.get(channel).is_some_and(|turn| turn.try_lock().is_err())
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "A change could not be kept");
        Self::internal(format!("the change could not be kept: {error}"))
    }
}

fn success() -> Ack {
    Ack { success: true, ..Ack::default() }
}

fn unknown_node(id: &str) -> Status {
    Status::not_found(format!("failed to get node by ID: node with ID {id} not found"))
}

fn not_connected(id: &str) -> Status {
    Status::unavailable(format!(
        "failed to send message: node {id} is not connected, current status: not_connected"
    ))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ControlPlaneService for Northbound {
    async fn list_nodes(&self, _: Request<NodeListRequest>) -> Answer<NodeListResponse> {
        Ok(Response::new(nodes::list(self.hub())))
    }

    async fn list_connections(&self, request: Request<Node>) -> Answer<ConnectionListResponse> {
        let _place = self.place()?;
        nodes::connections(self.hub(), &request.into_inner().id).await.map(Response::new)
    }

    async fn list_subscriptions(&self, request: Request<Node>) -> Answer<SubscriptionListResponse> {
        let _place = self.place()?;
        nodes::subscriptions(self.hub(), &request.into_inner().id).await.map(Response::new)
    }

    async fn list_routes(&self, request: Request<Node>) -> Answer<SubscriptionListResponse> {
        let _place = self.place()?;
        let Node { id, dest_node_id } = request.into_inner();
        if id.is_empty() || !dest_node_id.is_empty() {
            return Err(Status::unimplemented(
                "ListRoutes is served as in release 0.6: the routes of one node, by its id alone; \
                 what the controller wants is in ListStoredRoutes",
            ));
        }
        nodes::subscriptions(self.hub(), &id).await.map(Response::new)
    }

    async fn deregister_node(&self, request: Request<Node>) -> Answer<DeregisterNodeResponse> {
        nodes::deregister(self.hub(), &request.into_inner().id).map(Response::new)
    }

    async fn add_route(&self, request: Request<AddRouteRequest>) -> Answer<AddRouteResponse> {
        routes::add(self.hub(), request.into_inner()).map(Response::new)
    }

    async fn delete_route(
        &self,
        request: Request<DeleteRouteRequest>,
    ) -> Answer<DeleteRouteResponse> {
        routes::delete(self.hub(), request.into_inner()).map(Response::new)
    }

    async fn list_stored_routes(
        &self,
        request: Request<StoredRouteListRequest>,
    ) -> Answer<StoredRouteListResponse> {
        let _place = self.place()?;
        routes::list(self.hub(), &request.into_inner().node_id).map(Response::new)
    }

    async fn create_connection(
        &self,
        request: Request<CreateConnectionRequest>,
    ) -> Answer<CreateConnectionResponse> {
        let hub = Arc::clone(&self.0.hub);
        self.whole(async move { routes::connect(&hub, request.into_inner()).await }).await
    }

    async fn create_subscription(
        &self,
        request: Request<CreateSubscriptionRequest>,
    ) -> Answer<CreateSubscriptionResponse> {
        let hub = Arc::clone(&self.0.hub);
        self.whole(async move { routes::subscribe(&hub, request.into_inner()).await }).await
    }

    async fn delete_subscription(
        &self,
        request: Request<DeleteSubscriptionRequest>,
    ) -> Answer<DeleteSubscriptionResponse> {
        let hub = Arc::clone(&self.0.hub);
        self.whole(async move { routes::unsubscribe(&hub, request.into_inner()).await }).await
    }

    async fn create_channel(
        &self,
        request: Request<CreateChannelRequest>,
    ) -> Answer<CreateChannelResponse> {
        let this = self.clone();
        self.whole(async move { this.create(request.into_inner().moderators).await }).await
    }

    async fn delete_channel(&self, request: Request<DeleteChannelRequest>) -> Answer<Ack> {
        let this = self.clone();
        self.whole(async move { this.delete(&request.into_inner().channel_id).await }).await
    }

    async fn add_participant(&self, request: Request<AddParticipantRequest>) -> Answer<Ack> {
        let this = self.clone();
        let AddParticipantRequest { channel_id, participant_id } = request.into_inner();
        self.whole(async move { this.add(&channel_id, &participant_id).await }).await
    }

    async fn delete_participant(&self, request: Request<DeleteParticipantRequest>) -> Answer<Ack> {
        let this = self.clone();
        let DeleteParticipantRequest { channel_id, participant_id } = request.into_inner();
        self.whole(async move { this.remove(&channel_id, &participant_id).await }).await
    }

    async fn list_channels(&self, _: Request<ListChannelsRequest>) -> Answer<ListChannelsResponse> {
        Ok(Response::new(self.channels()))
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Answer<ListParticipantsResponse> {
        self.participants(&request.into_inner().channel_id).map(Response::new)
    }
}
