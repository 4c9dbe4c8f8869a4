//! The program, and an operator.

use std::net::SocketAddr;
use std::process::Command;

use slim_compat_grpc::proto::northbound::control_plane_service_client::ControlPlaneServiceClient;
use slim_compat_grpc::proto::northbound::{
    AddParticipantRequest, AddRouteRequest, CreateChannelRequest, DeleteChannelRequest,
    DeleteParticipantRequest, ListChannelsRequest, ListParticipantsRequest, NodeListRequest,
    NodeStatus, RouteState, StoredRoute, StoredRouteListRequest,
};
use slim_compat_grpc::proto::southbound::{Ack, Connection, Subscription};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use crate::support::node::Program;
use crate::support::{eventually, in_time};

pub(crate) fn slim_controller() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slim-controller"));
    for variable in ["NB_API_HTTP_HOST", "NB_API_HTTP_PORT", "SB_API_HTTP_HOST", "SB_API_HTTP_PORT"]
    {
        command.env_remove(variable);
    }
    command.env_remove("API_LOG_LEVEL");
    command
}

/// A running controller.
pub(crate) struct Controller {
    pub(crate) program: Program,
    pub(crate) north: SocketAddr,
    pub(crate) south: SocketAddr,
    folder: TempDir,
    more: String,
}

impl Controller {
    /// Without TLS, on any free ports.
    pub(crate) async fn start() -> Self {
        Self::start_with("", "").await
    }

    /// With further keys of both APIs (each after a comma), and further blocks.
    pub(crate) async fn start_with(keys: &str, blocks: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let host = r#"httpHost: "127.0.0.1", httpPort: 0"#;
        let database = folder.path().join("controller.redb");
        let more = format!(
            "northbound: {{ {host}{keys} }}\nsouthbound: {{ {host}{keys} }}\nlogging: {{ level: \
             DEBUG }}\ndatabase: {{ filePath: {} }}\n{blocks}\n",
            database.display()
        );
        Self::launch(folder, more).await
    }

    async fn launch(folder: TempDir, more: String) -> Self {
        let file = folder.path().join("controller.yaml");
        std::fs::write(&file, &more).expect("the file is written");
        let mut command = slim_controller();
        command.arg("--config").arg(&file);
        let program = Program::spawn(command);
        let address = |line: String| {
            let (_, address) = line.rsplit_once(' ').expect("an address");
            address.parse().expect("an address")
        };
        let south = address(program.line("Southbound API Service is Listening on").await);
        let north = address(program.line("Northbound API Service is listening on").await);
        Self { program, north, south, folder, more }
    }

    /// Ends it, and starts another one with the same file of data.
    pub(crate) async fn restart(mut self) -> Self {
        self.program.signal(rustix::process::Signal::KILL);
        self.program.exit().await;
        Self::launch(self.folder, self.more).await
    }

    pub(crate) async fn operator(&self) -> Operator {
        Operator::connect(self.north).await
    }
}

/// Somebody who uses the northbound API.
pub(crate) struct Operator(pub(crate) ControlPlaneServiceClient<Channel>);

impl Operator {
    async fn connect(address: SocketAddr) -> Self {
        let connecting = ControlPlaneServiceClient::connect(format!("http://{address}"));
        Self(in_time("a connection", connecting).await.expect("the controller listens"))
    }

    /// Whether a node is listed as connected; `None` if it is not listed.
    pub(crate) async fn is_connected(&mut self, id: &str) -> Option<bool> {
        let nodes = self.0.list_nodes(NodeListRequest {}).await.expect("a list").into_inner();
        let node = nodes.entries.into_iter().find(|node| node.id == id)?;
        Some(node.status() == NodeStatus::Connected)
    }

    pub(crate) async fn until_connected(&mut self, id: &str, connected: bool) {
        eventually("the node's status", async || {
            (self.is_connected(id).await == Some(connected)).then_some(())
        })
        .await;
    }

    pub(crate) async fn stored(&mut self, node: &str) -> Vec<StoredRoute> {
        let request = StoredRouteListRequest { node_id: node.to_owned() };
        self.0.list_stored_routes(request).await.expect("a list").into_inner().entries
    }

    /// Waits until a node's routes, by the last part of their names, are in these states.
    pub(crate) async fn until_routes(&mut self, node: &str, expected: &[(&str, RouteState)]) {
        eventually("states of routes", async || {
            let stored = self.stored(node).await;
            let states = stored.iter().map(|route| {
                let name = route.subscription.clone().unwrap_or_default().component_2;
                (name, route.state())
            });
            let states: Vec<_> = states.collect();
            let expected = expected.iter().map(|(name, state)| ((*name).to_owned(), *state));
            (states == expected.collect::<Vec<_>>()).then_some(())
        })
        .await;
    }

    pub(crate) async fn create(&mut self, moderator: &str) -> Result<String, Status> {
        let moderators = vec![moderator.to_owned()];
        let created = self.0.create_channel(CreateChannelRequest { moderators }).await;
        created.map(|created| created.into_inner().channel_id)
    }

    pub(crate) async fn delete(&mut self, channel: &str) -> Result<Ack, Status> {
        let request = DeleteChannelRequest { channel_id: channel.to_owned() };
        self.0.delete_channel(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn add(&mut self, channel: &str, participant: &str) -> Result<Ack, Status> {
        let (channel_id, participant_id) = (channel.to_owned(), participant.to_owned());
        let request = AddParticipantRequest { channel_id, participant_id };
        self.0.add_participant(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn remove(&mut self, channel: &str, participant: &str) -> Result<Ack, Status> {
        let (channel_id, participant_id) = (channel.to_owned(), participant.to_owned());
        let request = DeleteParticipantRequest { channel_id, participant_id };
        self.0.delete_participant(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn channels(&mut self) -> Vec<String> {
        self.0.list_channels(ListChannelsRequest {}).await.expect("a list").into_inner().channel_id
    }

    pub(crate) async fn participants(&mut self, channel: &str) -> Vec<String> {
        let request = ListParticipantsRequest { channel_id: channel.to_owned() };
        self.0.list_participants(request).await.expect("a list").into_inner().participant_id
    }

    /// Has a node reach `org/ns/APP` by an endpoint.
    pub(crate) async fn add_route(&mut self, node: &str, app: &str, endpoint: &str) -> String {
        let config_data = format!(r#"{{"endpoint": "{endpoint}"}}"#);
        let request = AddRouteRequest {
            connection: Some(Connection { connection_id: endpoint.to_owned(), config_data }),
            subscription: Some(subscription(app, endpoint)),
            node_id: node.to_owned(),
            dest_node_id: String::new(),
        };
        self.0.add_route(request).await.expect("stored").into_inner().route_id
    }
}

pub(crate) fn subscription(app: &str, connection: &str) -> Subscription {
    Subscription {
        component_0: "org".into(),
        component_1: "ns".into(),
        component_2: app.into(),
        id: None,
        connection_id: connection.into(),
        node_id: None,
    }
}
