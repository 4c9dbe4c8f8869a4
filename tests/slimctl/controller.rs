//! A controller that answers as it is told, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use slim_compat_grpc::proto::northbound as n;
use slim_compat_grpc::proto::northbound::control_plane_service_server::{
    ControlPlaneService, ControlPlaneServiceServer,
};
use slim_compat_grpc::proto::southbound as s;
use tokio::net::TcpListener;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) nodes: Vec<n::NodeEntry>,
    pub(crate) connections: Vec<s::ConnectionEntry>,
    pub(crate) routes: Vec<s::SubscriptionEntry>,
    pub(crate) stored: Vec<n::StoredRoute>,
    pub(crate) names: Vec<String>,
    /// Every call fails with this.
    pub(crate) failure: Option<Status>,
    /// What acknowledgements say instead of success.
    pub(crate) refusal: Option<s::Ack>,
    /// No call is ever answered.
    pub(crate) silent: bool,
}

/// A request, and the credentials that came with it.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

#[derive(Clone, Debug)]
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    asked: Asked,
}

#[derive(Debug)]
struct Service {
    script: Script,
    asked: Asked,
}

impl Controller {
    pub(crate) async fn start(script: Script) -> Self {
        Self::serve(script, None).await
    }

    /// With TLS, and an authority that clients have to be known by.
    pub(crate) async fn start_tls(identity: Identity, clients: &str) -> Self {
        let authority = tonic::transport::Certificate::from_pem(clients);
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(authority);
        Self::serve(Script::default(), Some(tls)).await
    }

    async fn serve(script: Script, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Asked::default();
        let service = Service { script, asked: Arc::clone(&asked) };
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).expect("certificates");
        }
        let server = server.add_service(ControlPlaneServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, asked }
    }

    pub(crate) fn server(&self) -> String {
        self.address.to_string()
    }

    /// The last request as Rust shows it, and its credentials.
    pub(crate) fn last(&self) -> (String, Option<String>) {
        self.asked.lock().expect("no panic").last().expect("a request").clone()
    }
}

impl Service {
    async fn answer<Q: std::fmt::Debug, A>(
        &self,
        request: Request<Q>,
        answer: A,
    ) -> Result<Response<A>, Status> {
        let credentials = request.metadata().get("authorization");
        let credentials = credentials.map(|text| text.to_str().expect("ASCII").to_owned());
        let text = format!("{:?}", request.into_inner());
        self.asked.lock().expect("no panic").push((text, credentials));
        if self.script.silent {
            std::future::pending::<()>().await;
        }
        match &self.script.failure {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(answer)),
        }
    }

    fn ack(&self) -> s::Ack {
        let success = s::Ack { success: true, ..s::Ack::default() };
        self.script.refusal.clone().unwrap_or(success)
    }

    fn success(&self) -> bool {
        self.script.refusal.is_none()
    }
}

macro_rules! answers {
    ($($method:ident($request:ty) -> $response:ty = $answer:expr;)*) => {
        #[tonic::async_trait]
        impl ControlPlaneService for Service {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    let answer: fn(&Service) -> $response = $answer;
                    self.answer(request, answer(self)).await
                }
            )*
        }
    };
}

answers! {
    list_nodes(n::NodeListRequest) -> n::NodeListResponse =
        |this| n::NodeListResponse { entries: this.script.nodes.clone() };
    list_connections(n::Node) -> n::ConnectionListResponse =
        |this| n::ConnectionListResponse { entries: this.script.connections.clone() };
    create_channel(n::CreateChannelRequest) -> n::CreateChannelResponse =
        |this| n::CreateChannelResponse { channel_id: this.script.names.concat() };
    delete_channel(n::DeleteChannelRequest) -> s::Ack = Service::ack;
    add_participant(n::AddParticipantRequest) -> s::Ack = Service::ack;
    delete_participant(n::DeleteParticipantRequest) -> s::Ack = Service::ack;
    list_channels(n::ListChannelsRequest) -> n::ListChannelsResponse =
        |this| n::ListChannelsResponse { channel_id: this.script.names.clone() };
    list_participants(n::ListParticipantsRequest) -> n::ListParticipantsResponse =
        |this| n::ListParticipantsResponse { participant_id: this.script.names.clone() };
    add_route(n::AddRouteRequest) -> n::AddRouteResponse =
        |this| n::AddRouteResponse { success: this.success(), route_id: this.script.names.concat() };
    delete_route(n::DeleteRouteRequest) -> n::DeleteRouteResponse =
        |this| n::DeleteRouteResponse { success: this.success() };
    list_routes(n::Node) -> n::SubscriptionListResponse =
        |this| n::SubscriptionListResponse { entries: this.script.routes.clone() };
    create_connection(n::CreateConnectionRequest) -> n::CreateConnectionResponse =
        |_| n::CreateConnectionResponse::default();
    create_subscription(n::CreateSubscriptionRequest) -> n::CreateSubscriptionResponse =
        |_| n::CreateSubscriptionResponse::default();
    delete_subscription(n::DeleteSubscriptionRequest) -> n::DeleteSubscriptionResponse =
        |_| n::DeleteSubscriptionResponse::default();
    list_subscriptions(n::Node) -> n::SubscriptionListResponse =
        |_| n::SubscriptionListResponse::default();
    deregister_node(n::Node) -> n::DeregisterNodeResponse =
        |this| n::DeregisterNodeResponse { success: this.success() };
    list_stored_routes(n::StoredRouteListRequest) -> n::StoredRouteListResponse =
        |this| n::StoredRouteListResponse { entries: this.script.stored.clone() };
}
