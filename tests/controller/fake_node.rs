//! A node that does as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use prost::Message;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::controller_service_client::ControllerServiceClient;
use slim_compat_grpc::proto::southbound::{
    Ack, ConfigurationCommand, ConfigurationCommandAck, ConnectionDetails, ConnectionEntry,
    ConnectionListResponse, ConnectionStatus, ControlMessage, MembershipResponse,
    RegisterNodeRequest, ReportsComplete, Subscription, SubscriptionEntry,
    SubscriptionListResponse, SubscriptionStatus,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use crate::support::{eventually, in_time};

/// How a node behaves from now on.
#[derive(Default)]
pub(crate) struct Script {
    /// It answers nothing.
    pub(crate) silent: bool,
    /// It never connects there.
    pub(crate) unreachable: Option<String>,
    /// What it answers to group commands, other than that it did it: a code and a text.
    pub(crate) refusal: Option<(u32, String)>,
    /// Invited participants do not come.
    pub(crate) deaf: bool,
    /// Names that its clients have subscribed to, for its list.
    pub(crate) clients: BTreeSet<(String, u64)>,
    /// Lists are laid out as in 0.7.
    pub(crate) later_layout: bool,
    /// Its list of connections is empty, as published nodes show it: they say nothing.
    pub(crate) unconnected: bool,
    pub(crate) routes: BTreeMap<(String, u64), String>,
    /// Who is in which channel, at any node of the test.
    pub(crate) members: Arc<Mutex<BTreeSet<(String, String)>>>,
}

/// A node of a test.
pub(crate) struct FakeNode {
    out: mpsc::Sender<ControlMessage>,
    seen: Arc<Mutex<Vec<Payload>>>,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<Result<(), Status>>,
}

pub(crate) fn message(payload: Payload) -> ControlMessage {
    let message_id = format!("{:032x}", rand::random::<u128>());
    ControlMessage { message_id, payload: Some(payload) }
}

fn subscription(name: &str, id: u64) -> Subscription {
    let parts: Vec<_> = name.split('/').map(str::to_owned).collect();
    let [component_0, component_1, component_2] = parts.try_into().expect("three parts");
    let connection_id = "n/a".to_owned();
    Subscription {
        component_0,
        component_1,
        component_2,
        id: Some(id),
        connection_id,
        node_id: None,
    }
}

fn key(subscription: &Subscription) -> (String, u64) {
    let Subscription { component_0, component_1, component_2, id, .. } = subscription;
    (format!("{component_0}/{component_1}/{component_2}"), id.unwrap_or(u64::MAX))
}

pub(crate) fn registration(id: &str, port: u16, product: bool) -> RegisterNodeRequest {
    RegisterNodeRequest {
        node_id: id.to_owned(),
        connection_details: vec![ConnectionDetails {
            endpoint: format!("0.0.0.0:{port}"),
            ..ConnectionDetails::default()
        }],
        group_name: None,
        product: product.then(|| "fake/1".to_owned()),
    }
}

/// A stream, to which this was sent as first message.
pub(crate) async fn open(
    south: SocketAddr,
    first: Payload,
) -> (mpsc::Sender<ControlMessage>, Streaming<ControlMessage>) {
    let connecting = ControllerServiceClient::connect(format!("http://{south}"));
    let mut client = in_time("a connection", connecting).await.expect("the controller listens");
    let (out, messages) = mpsc::channel(64);
    out.send(message(first)).await.expect("there is room");
    let stream = client.open_control_channel(Request::new(ReceiverStream::new(messages)));
    (out, in_time("a stream", stream).await.expect("a stream").into_inner())
}

impl FakeNode {
    /// A node of a published release.
    pub(crate) async fn published(south: SocketAddr, id: &str, port: u16) -> Self {
        Self::start(south, registration(id, port, false), Script::default()).await
    }

    /// A node of this project, with nothing to report.
    pub(crate) async fn complete(south: SocketAddr, id: &str, port: u16) -> Self {
        let node = Self::start(south, registration(id, port, true), Script::default()).await;
        node.send(Payload::ReportsComplete(ReportsComplete {})).await;
        node
    }

    pub(crate) async fn start(south: SocketAddr, who: RegisterNodeRequest, script: Script) -> Self {
        let (out, messages) = open(south, Payload::RegisterNodeRequest(who)).await;
        let (seen, script) = (Arc::default(), Arc::new(Mutex::new(script)));
        let run = run(messages, out.clone(), Arc::clone(&seen), Arc::clone(&script));
        Self { out, seen, script, task: tokio::spawn(run) }
    }

    /// Nodes of one test know of each other who is in which channel.
    pub(crate) fn share_members(&self, other: &Self) {
        self.script().members = Arc::clone(&other.script().members);
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics with it")
    }

    pub(crate) async fn send(&self, payload: Payload) {
        self.out.send(message(payload)).await.expect("the stream is open");
    }

    /// A client has come.
    pub(crate) async fn join(&self, name: &str, id: u64) {
        self.script().clients.insert((name.to_owned(), id));
        let subscriptions_to_set = vec![subscription(name, id)];
        let report = ConfigurationCommand { subscriptions_to_set, ..Default::default() };
        self.send(Payload::ConfigCommand(report)).await;
    }

    /// A client is reported to have gone.
    pub(crate) async fn report_gone(&self, name: &str, id: u64) {
        let subscriptions_to_delete = vec![subscription(name, id)];
        let report = ConfigurationCommand { subscriptions_to_delete, ..Default::default() };
        self.send(Payload::ConfigCommand(report)).await;
    }

    pub(crate) fn seen(&self) -> Vec<Payload> {
        self.seen.lock().expect("no test panics with it").clone()
    }

    /// The first message that `find` takes, once it is there.
    pub(crate) async fn until<T>(&self, what: &str, find: impl Fn(&Payload) -> Option<T>) -> T {
        eventually(what, async || self.seen().iter().find_map(&find)).await
    }

    /// Configuration commands.
    pub(crate) fn commands(&self) -> Vec<ConfigurationCommand> {
        let commands = self.seen().into_iter().filter_map(|payload| match payload {
            Payload::ConfigCommand(command) => Some(command),
            _ => None,
        });
        commands.collect()
    }

    /// Waits until the node has exactly these routes.
    pub(crate) async fn until_routes(&self, expected: &[(&str, u64, &str)]) {
        eventually("routes of a node", async || {
            let routes = self.script().routes.clone();
            let expected = expected.iter();
            let expected =
                expected.map(|(name, id, to)| (((*name).to_owned(), *id), (*to).to_owned()));
            (routes == expected.collect()).then_some(())
        })
        .await;
    }

    /// Ends the stream.
    pub(crate) fn stop(self) {
        self.task.abort();
    }

    /// How the controller ended the stream.
    pub(crate) async fn ended(self) -> Result<(), Status> {
        in_time("the end of the stream", self.task).await.expect("no panic")
    }
}

async fn run(
    mut messages: Streaming<ControlMessage>,
    out: mpsc::Sender<ControlMessage>,
    seen: Arc<Mutex<Vec<Payload>>>,
    script: Arc<Mutex<Script>>,
) -> Result<(), Status> {
    while let Some(ControlMessage { message_id, payload }) = messages.message().await? {
        let Some(payload) = payload else { continue };
        seen.lock().expect("no test panics with it").push(payload.clone());
        let answers = script.lock().expect("no test panics with it").answer(message_id, payload);
        for answer in answers {
            // The test may have ended.
            let _ = out.send(message(answer)).await;
        }
    }
    Ok(())
}

impl Script {
    fn answer(&mut self, id: String, payload: Payload) -> Vec<Payload> {
        if self.silent {
            return Vec::new();
        }
        match payload {
            Payload::ConfigCommand(command) => vec![self.configure(id, &command)],
            Payload::SubscriptionListRequest(_) => self.subscriptions(&id),
            Payload::ConnectionListRequest(_) if self.unconnected => Vec::new(),
            Payload::ConnectionListRequest(_) => {
                let entry = ConnectionEntry { id: 1, connection_type: 1, config_data: "{}".into() };
                let (entries_or_id, later_entries) =
                    (vec![entry.encode_to_vec().into()], Vec::new());
                let list = ConnectionListResponse { entries_or_id, later_entries };
                vec![Payload::ConnectionListResponse(list)]
            }
            Payload::MembershipRequest(asked) => {
                let joined = self.members().contains(&(asked.channel_name, asked.participant_name));
                let original_message_id = id;
                vec![Payload::MembershipResponse(MembershipResponse {
                    original_message_id,
                    joined,
                })]
            }
            Payload::AddParticipantRequest(add) => {
                if !self.deaf && self.refusal.is_none() {
                    self.members().insert((add.channel_name, add.participant_name));
                }
                vec![self.group(id)]
            }
            Payload::DeleteParticipantRequest(delete) => {
                if self.refusal.is_none() {
                    self.members().remove(&(delete.channel_name, delete.participant_name));
                }
                vec![self.group(id)]
            }
            Payload::DeleteChannelRequest(delete) => {
                self.members().retain(|(channel, _)| *channel != delete.channel_name);
                vec![self.group(id)]
            }
            Payload::CreateChannelRequest(create) => {
                if self.refusal.is_none() {
                    let (name, _) = create.moderators[0].rsplit_once('/').expect("an instance");
                    self.members().insert((create.channel_name, name.to_owned()));
                }
                vec![self.group(id)]
            }
            _ => Vec::new(),
        }
    }

    fn members(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.members.lock().expect("no test panics with it")
    }

    fn group(&self, original_message_id: String) -> Payload {
        Payload::Ack(match self.refusal.clone() {
            Some((code, text)) => {
                Ack { original_message_id, success: false, messages: vec![text], code }
            }
            None => {
                let messages = vec![original_message_id.clone()];
                Ack { original_message_id, success: true, messages, code: 0 }
            }
        })
    }

    fn configure(
        &mut self,
        original_message_id: String,
        command: &ConfigurationCommand,
    ) -> Payload {
        let bad = |connection: &str| self.unreachable.as_deref() == Some(connection);
        let connections_status = command.connections_to_create.iter().map(|connection| {
            let success = !bad(&connection.connection_id);
            let error_msg = if success { String::new() } else { "connection refused".to_owned() };
            let connection_id = connection.connection_id.clone();
            ConnectionStatus { connection_id, success, error_msg }
        });
        // Routes over a link that does not come up are taken all the same.
        let set = command.subscriptions_to_set.iter();
        let all = set.clone().chain(&command.subscriptions_to_delete);
        let subscriptions_status = all.map(|route| SubscriptionStatus {
            subscription: Some(route.clone()),
            success: true,
            error_msg: String::new(),
        });
        let (connections_status, subscriptions_status) =
            (connections_status.collect(), subscriptions_status.collect());
        self.routes.extend(set.map(|route| (key(route), route.connection_id.clone())));
        for route in &command.subscriptions_to_delete {
            self.routes.remove(&key(route));
        }
        if command.detailed {
            return Payload::ConfigCommandAck(ConfigurationCommandAck {
                original_message_id,
                connections_status,
                subscriptions_status,
            });
        }
        Payload::Ack(Ack { original_message_id, success: true, ..Ack::default() })
    }

    fn subscriptions(&self, id: &str) -> Vec<Payload> {
        let entry = |name: &str, instance, config: String| {
            let Subscription { component_0, component_1, component_2, id, .. } =
                subscription(name, instance);
            let remote = ConnectionEntry { id: 1, connection_type: 1, config_data: config };
            let (local_connections, remote_connections) = (Vec::new(), vec![remote]);
            SubscriptionEntry {
                component_0,
                component_1,
                component_2,
                id,
                local_connections,
                remote_connections,
            }
        };
        let clients = self.clients.iter().map(|(name, id)| entry(name, *id, "{}".into()));
        let routes = self
            .routes
            .iter()
            .map(|((name, id), to)| entry(name, *id, format!(r#"{{"endpoint":"{to}"}}"#)));
        let own = entry("controller/controller/controller", 0, "{}".into());
        let all: Vec<_> = [own].into_iter().chain(clients).chain(routes).collect();
        let chunks = all.chunks(100).map(|chunk| {
            let list = if self.later_layout {
                SubscriptionListResponse {
                    entries_or_id: vec![id.to_owned().into()],
                    later_entries: chunk.to_vec(),
                }
            } else {
                let entries_or_id = chunk.iter().map(|entry| entry.encode_to_vec().into());
                let (entries_or_id, later_entries) = (entries_or_id.collect(), Vec::new());
                SubscriptionListResponse { entries_or_id, later_entries }
            };
            Payload::SubscriptionListResponse(list)
        });
        chunks.collect()
    }
}
