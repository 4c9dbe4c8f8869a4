//! Commands that a node carries out over its control endpoint.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::controller_service_server::{
    ControllerService, ControllerServiceServer,
};
use slim_compat_grpc::proto::southbound::{
    Ack, ConfigurationCommand, ConfigurationCommandAck, Connection, ConnectionEntry,
    ConnectionListResponse, ConnectionStatus, ControlMessage, Subscription, SubscriptionEntry,
    SubscriptionListResponse,
};
use tokio::net::TcpListener;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::Home;

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    /// Entries alone, and streams that never end.
    Early,
    /// The id of the request before the entries, and one result for each part of a command.
    Later,
    /// Not at all.
    Silent,
}

#[derive(Clone, Debug)]
struct Node {
    release: Release,
    /// How many connections it has.
    connections: u64,
    /// Why it does nothing that it is told.
    refusal: Option<String>,
    commands: Arc<Mutex<Vec<ConfigurationCommand>>>,
}

/// Nodes send lists in parts of so many entries.
const PART: usize = 100;

impl Node {
    fn new(release: Release) -> Self {
        Self { release, connections: 2, refusal: None, commands: Arc::default() }
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = Server::builder().add_service(ControllerServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn answers(&self, message: ControlMessage) -> Vec<Payload> {
        let id = message.message_id;
        match message.payload.expect("a payload") {
            Payload::ConnectionListRequest(_) => {
                let entry =
                    |id| ConnectionEntry { id, connection_type: 1, config_data: "{}".into() };
                let all: Vec<_> = (0..self.connections).map(entry).collect();
                all.chunks(PART).map(|part| self.connection_part(&id, part)).collect()
            }
            Payload::SubscriptionListRequest(_) => vec![self.routes(&id)],
            Payload::ConfigCommand(command) => {
                // An empty one only asks to be acknowledged.
                if command != ConfigurationCommand::default() {
                    self.commands.lock().expect("no panic").push(command);
                }
                vec![self.acknowledge(id)]
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn connection_part(&self, id: &str, part: &[ConnectionEntry]) -> Payload {
        let response = match self.release {
            Release::Later => ConnectionListResponse {
                entries_or_id: vec![Bytes::copy_from_slice(id.as_bytes())],
                later_entries: part.to_vec(),
            },
            _ => ConnectionListResponse {
                entries_or_id: part.iter().map(|entry| entry.encode_to_vec().into()).collect(),
                later_entries: Vec::new(),
            },
        };
        Payload::ConnectionListResponse(response)
    }

    fn routes(&self, id: &str) -> Payload {
        let connection = |id, config: &str| ConnectionEntry {
            id,
            connection_type: 1,
            config_data: config.into(),
        };
        let entry = SubscriptionEntry {
            component_0: "org".into(),
            component_1: "ns".into(),
            component_2: "app".into(),
            id: Some(7),
            local_connections: vec![connection(0, "{}")],
            remote_connections: vec![connection(3, r#"{"endpoint":"http://b:1"}"#)],
        };
        let response = match self.release {
            Release::Later => SubscriptionListResponse {
                entries_or_id: vec![Bytes::copy_from_slice(id.as_bytes())],
                later_entries: vec![entry],
            },
            _ => SubscriptionListResponse {
                entries_or_id: vec![entry.encode_to_vec().into()],
                later_entries: Vec::new(),
            },
        };
        Payload::SubscriptionListResponse(response)
    }

    fn acknowledge(&self, original_message_id: String) -> Payload {
        let success = self.refusal.is_none();
        let reason = self.refusal.clone().unwrap_or_else(|| "noted".into());
        match self.release {
            Release::Later => {
                let status = ConnectionStatus {
                    connection_id: "http://b:1".into(),
                    success,
                    error_msg: reason,
                };
                let connections_status = vec![status];
                let subscriptions_status = Vec::new();
                Payload::ConfigCommandAck(ConfigurationCommandAck {
                    original_message_id,
                    connections_status,
                    subscriptions_status,
                })
            }
            _ => {
                let messages = vec![reason];
                Payload::Ack(Ack { original_message_id, success, messages, code: 0 })
            }
        }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

#[tonic::async_trait]
impl ControllerService for Node {
    type OpenControlChannelStream = Answers;

    async fn open_control_channel(
        &self,
        request: Request<Streaming<ControlMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let node = self.clone();
        let answers = request.into_inner().flat_map(move |message| {
            let payloads = match node.release {
                Release::Silent => Vec::new(),
                _ => node.answers(message.expect("a message")),
            };
            let message = |payload| {
                Ok(ControlMessage { message_id: "answer".into(), payload: Some(payload) })
            };
            futures_util::stream::iter(payloads.into_iter().map(message))
        });
        // As nodes of 0.6 do, whatever the other end does.
        let for_ever = futures_util::stream::pending();
        Ok(Response::new(Box::pin(answers.chain(for_ever))))
    }
}

#[tokio::test]
async fn a_node_shows_its_routes_and_connections_and_does_not_have_to_end_the_stream() {
    let home = Home::new();
    for release in [Release::Early, Release::Later] {
        let server = Node::new(release).start().await.to_string();
        for group in [&["node-connect"][..], &["nc"], &["node"], &["n"]] {
            let arguments = [group, &["route", "list", "-s", &server]].concat();
            let routes = "org/ns/app id=7 local=[local:0:{}] \
                          remote=[remote:3:{\"endpoint\":\"http://b:1\"}]\n";
            assert_eq!(home.run(&arguments).await.ok(), routes, "{release:?} {group:?}");
            let arguments = [group, &["connection", "ls", "-s", &server]].concat();
            assert_eq!(home.run(&arguments).await.ok(), "id=0 {}\nid=1 {}\n", "{group:?}");
        }
        let json = ["nc", "connection", "list", "-s", &server, "-o", "json"];
        let json: serde_json::Value =
            serde_json::from_str(&home.run(&json).await.ok()).expect("JSON");
        let connection = serde_json::json!({ "id": 1, "type": "remote", "config": {} });
        assert_eq!(json["connections"][1], connection);
    }
}

#[tokio::test]
async fn lists_of_any_length_are_complete() {
    let home = Home::new();
    for release in [Release::Early, Release::Later] {
        for connections in [0, 1, 99, 100, 101, 250] {
            let node = Node { connections, ..Node::new(release) };
            let server = node.start().await.to_string();
            let list = ["nc", "connection", "list", "-s", &server, "-o", "table"];
            let table = home.run(&list).await.ok();
            let noun = if connections == 1 { "connection" } else { "connections" };
            let expected = format!("{connections} {noun}");
            assert_eq!(table.lines().last(), Some(expected.as_str()), "{release:?}");
        }
    }
}

#[tokio::test]
async fn routes_are_added_and_removed_with_the_node_s_own_words() {
    let home = Home::new();
    home.write("b.json", r#"{"endpoint": "http://b:1"}"#);
    let node = Node::new(Release::Early);
    let server = node.start().await.to_string();
    let add = ["nc", "route", "add", "org/ns/app/7", "via", "b.json", "-s", &server];
    let delete = ["nc", "route", "del", "org/ns/app/7", "via", "http://b:1", "-s", &server];
    for command in [&add[..], &delete] {
        let output = home.run(command).await.ok();
        let (id, rest) = output
            .strip_prefix("ACK received for ")
            .and_then(|rest| rest.split_once(": "))
            .expect("the id of the message");
        assert_eq!(id.len(), 36, "{output}");
        assert_eq!(rest, "success=true\n    [1] noted\n");
    }
    let route = Subscription {
        component_0: "org".into(),
        component_1: "ns".into(),
        component_2: "app".into(),
        id: Some(7),
        connection_id: "http://b:1".into(),
        node_id: None,
    };
    let connection = Connection {
        connection_id: "http://b:1".into(),
        config_data: r#"{"endpoint": "http://b:1"}"#.into(),
    };
    let detailed = ConfigurationCommand { detailed: true, ..ConfigurationCommand::default() };
    let expected = [
        ConfigurationCommand {
            connections_to_create: vec![connection],
            subscriptions_to_set: vec![route.clone()],
            ..detailed.clone()
        },
        ConfigurationCommand { subscriptions_to_delete: vec![route], ..detailed },
    ];
    assert_eq!(*node.commands.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn what_a_node_does_not_do_is_a_failure() {
    let home = Home::new();
    home.write("b.json", r#"{"endpoint": "http://b:1"}"#);
    for release in [Release::Early, Release::Later] {
        let refusal = Some("no route\u{1b} to host".to_owned());
        let node = Node { refusal, ..Node::new(release) };
        let server = node.start().await.to_string();
        let add = ["nc", "route", "add", "org/ns/app/7", "via", "b.json", "-s", &server];
        let ended = home.run(&add).await;
        let expected = "failed to create route: no route\\u{1b} to host";
        assert_eq!(ended.error(4), expected, "{release:?}");
        assert!(ended.stdout.ends_with("success=false\n    [1] no route\\u{1b} to host\n"));
    }
    let server = Node::new(Release::Silent).start().await.to_string();
    let list = ["nc", "route", "list", "-s", &server, "--timeout", "300ms"];
    let late = "failed to list routes: rpc error: code = DeadlineExceeded desc = context deadline \
                exceeded";
    assert_eq!(home.run(&list).await.error(6), late);
}
