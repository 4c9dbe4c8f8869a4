//! Commands that a node carries out itself, over its control endpoint.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;
use slim_compat_grpc::new_message_id;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::controller_service_client::ControllerServiceClient;
use slim_compat_grpc::proto::southbound::{
    ConfigurationCommand, ConfigurationCommandAck, Connection, ConnectionEntry,
    ConnectionListRequest, ControlMessage, SubscriptionEntry, SubscriptionListRequest,
};
use tonic::{Status, Streaming};

use super::Error;
use super::connect::Server;
use super::controller::{
    ANSWER_BYTES, Caller, Via, check_via, connection_table, connection_values, route_line,
    route_table, route_values, subscription,
};
use super::output::{Answer, shown};

/// Most entries of a list that are taken.
const ENTRIES: usize = 1_000_000;

/// `slimctl node-connect`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// Routes of the node
    #[command(subcommand)]
    Route(RouteCommand),
    /// Connections of the node
    #[command(subcommand, visible_alias = "conn")]
    Connection(ConnectionCommand),
}

/// `slimctl node-connect route`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum RouteCommand {
    /// List the node's routes
    #[command(visible_alias = "ls")]
    List,
    /// Add a route, and the connection for it
    Add {
        /// The name, ORG/NS/APP/ID
        route: String,
        /// The word `via`
        #[arg(value_name = "via")]
        keyword: String,
        /// A file with the JSON of a client block, whose name ends in .json
        #[arg(value_name = "FILE.json")]
        destination: String,
    },
    /// Remove a route
    #[command(visible_alias = "delete")]
    Del {
        /// The name, ORG/NS/APP/ID
        route: String,
        /// The word `via`
        #[arg(value_name = "via")]
        keyword: String,
        /// http[s]://HOST:PORT
        #[arg(value_name = "URL")]
        destination: String,
    },
}

/// `slimctl node-connect connection`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum ConnectionCommand {
    /// List the node's connections
    #[command(visible_alias = "ls")]
    List,
}

impl Command {
    pub(super) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::Route(command) => command.run(caller),
            Self::Connection(command) => command.run(caller),
        }
    }
}

impl RouteCommand {
    pub(super) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::List => list_routes(caller),
            Self::Add { route, keyword, destination } => {
                check_via(keyword)?;
                let mut subscription = subscription(route)?;
                let Via::Endpoint { endpoint, config } = Via::to_add(destination)? else {
                    let message = format!("{}: no such file", shown(destination));
                    return Err(Error::Settings(message));
                };
                subscription.connection_id.clone_from(&endpoint);
                let config_data = config.unwrap_or_default();
                let connection = Connection { connection_id: endpoint, config_data };
                let command = ConfigurationCommand {
                    connections_to_create: vec![connection],
                    subscriptions_to_set: vec![subscription],
                    detailed: true,
                    ..ConfigurationCommand::default()
                };
                configure(caller, "failed to create route", command)
            }
            Self::Del { route, keyword, destination } => {
                check_via(keyword)?;
                let mut subscription = subscription(route)?;
                let Via::Endpoint { endpoint, .. } = Via::to_delete(destination)? else {
                    let got = shown(destination);
                    let expected = "'http[s]://host:port'";
                    let message = format!("invalid endpoint format '{got}', expected {expected}");
                    return Err(Error::Usage(message));
                };
                subscription.connection_id = endpoint;
                let command = ConfigurationCommand {
                    subscriptions_to_delete: vec![subscription],
                    detailed: true,
                    ..ConfigurationCommand::default()
                };
                configure(caller, "failed to delete route", command)
            }
        }
    }
}

impl ConnectionCommand {
    pub(super) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        let Self::List = self;
        let request = Payload::ConnectionListRequest(ConnectionListRequest {});
        let mut entries: Vec<ConnectionEntry> = Vec::new();
        ask(caller, "failed to list connections", request, |payload| {
            let Payload::ConnectionListResponse(list) = payload else { return Ok(()) };
            entries.extend(decode(&list.entries_or_id)?);
            entries.extend(list.later_entries);
            bounded(entries.len())
        })?;
        let mut text = String::new();
        for entry in &entries {
            _ = writeln!(text, "id={} {}", entry.id, shown(&entry.config_data));
        }
        let value = json!({ "connections": connection_values(&entries) });
        Ok(Answer { text, table: Some(connection_table(&entries)), value })
    }
}

fn list_routes(caller: &Caller) -> Result<Answer, Error> {
    let request = Payload::SubscriptionListRequest(SubscriptionListRequest {});
    let mut entries: Vec<SubscriptionEntry> = Vec::new();
    ask(caller, "failed to list routes", request, |payload| {
        let Payload::SubscriptionListResponse(list) = payload else { return Ok(()) };
        entries.extend(decode(&list.entries_or_id)?);
        entries.extend(list.later_entries);
        bounded(entries.len())
    })?;
    let mut text = String::new();
    for entry in &entries {
        let id = entry.id.unwrap_or_default().to_string();
        let show = |kind: &'static str| {
            move |c: &ConnectionEntry| format!("{kind}:{}:{}", c.id, shown(&c.config_data))
        };
        let mut local = entry.local_connections.iter().map(show("local"));
        let mut remote = entry.remote_connections.iter().map(show("remote"));
        _ = writeln!(text, "{}", route_line(entry, &id, &mut local, &mut remote));
    }
    let value = json!({ "routes": route_values(&entries) });
    Ok(Answer { text, table: Some(route_table(&entries)), value })
}

/// The entries of a list. Of releases from 0.7 on the field holds the id of the request instead,
/// which is told apart by being the only thing in it that is no entry.
fn decode<T: prost::Message + Default>(entries_or_id: &[bytes::Bytes]) -> Result<Vec<T>, Status> {
    if let [one] = entries_or_id
        && let Ok(text) = std::str::from_utf8(one)
        && is_uuid(text)
    {
        return Ok(Vec::new());
    }
    let entries = entries_or_id.iter().map(|bytes| T::decode(bytes.clone()));
    entries.collect::<Result<_, _>>().map_err(|error| {
        Status::internal(format!("expected entries of a list, got something else: {error}"))
    })
}

/// All requests have an id of this form here.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn bounded(entries: usize) -> Result<(), Status> {
    let limit = || Status::resource_exhausted(format!("expected at most {ENTRIES} entries"));
    if entries > ENTRIES { Err(limit()) } else { Ok(()) }
}

/// Sends a command that changes something, and says what became of it.
fn configure(
    caller: &Caller,
    what: &'static str,
    command: ConfigurationCommand,
) -> Result<Answer, Error> {
    let message = ControlMessage {
        message_id: new_message_id(rand::random()),
        payload: Some(Payload::ConfigCommand(command)),
    };
    let id = message.message_id.clone();
    let (success, messages) = exchange(caller, what, vec![message], |_| Ok(()))?;
    let mut text = format!("ACK received for {id}: success={success}\n");
    for (index, message) in messages.iter().enumerate() {
        _ = writeln!(text, "    [{}] {}", index + 1, shown(message));
    }
    if !success {
        caller.say(text.trim_end());
        let text = messages.iter().map(|message| shown(message)).collect::<Vec<_>>().join("; ");
        let text = if text.is_empty() { "the node did not say why".into() } else { text };
        return Err(Error::Refused { what, text });
    }
    Ok(Answer::plain(text, json!({ "success": true, "messages": messages })))
}

/// Asks for a list, which has no end that could be seen: it comes in parts of any number, or none
/// at all. So an empty command follows, which changes nothing: nodes do one thing after the other,
/// and its acknowledgement comes after the list.
fn ask(
    caller: &Caller,
    what: &'static str,
    request: Payload,
    each: impl FnMut(Payload) -> Result<(), Status>,
) -> Result<(), Error> {
    let fence = Payload::ConfigCommand(ConfigurationCommand::default());
    let message = |payload| ControlMessage {
        message_id: new_message_id(rand::random()),
        payload: Some(payload),
    };
    exchange(caller, what, vec![message(request), message(fence)], each).map(|_| ())
}

/// Sends the messages, and reads until the last one is acknowledged: whether it was done, and what
/// the node says about it. All else that comes goes to `each`.
fn exchange(
    caller: &Caller,
    what: &'static str,
    messages: Vec<ControlMessage>,
    mut each: impl FnMut(Payload) -> Result<(), Status>,
) -> Result<(bool, Vec<String>), Error> {
    let server = Server::new(&caller.settings, "localhost:46358")?;
    let last = messages.last().map(|message| message.message_id.clone()).unwrap_or_default();
    server.call(what, async |link| {
        let mut client = ControllerServiceClient::new(link).max_decoding_message_size(ANSWER_BYTES);
        let requests = futures_util::stream::iter(messages);
        let mut answers: Streaming<ControlMessage> =
            client.open_control_channel(requests).await?.into_inner();
        while let Some(message) = answers.message().await? {
            match message.payload {
                Some(Payload::Ack(ack)) if ack.original_message_id == last => {
                    return Ok((ack.success, ack.messages));
                }
                Some(Payload::ConfigCommandAck(ack)) if ack.original_message_id == last => {
                    return Ok(outcome(&ack));
                }
                Some(payload) => each(payload)?,
                None => {}
            }
        }
        Err(Status::unavailable("the node ended the stream without an answer"))
    })
}

/// Whether all was done, and why what was not.
fn outcome(ack: &ConfigurationCommandAck) -> (bool, Vec<String>) {
    let connections = ack.connections_status.iter();
    let connections = connections.map(|status| (status.success, status.error_msg.as_str()));
    let routes = ack.subscriptions_status.iter();
    let routes = routes.map(|status| (status.success, status.error_msg.as_str()));
    let failed = connections.chain(routes).filter(|(success, _)| !success);
    let failed: Vec<_> = failed.map(|(_, reason)| reason.to_owned()).collect();
    (failed.is_empty(), failed)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use slim_compat_grpc::proto::southbound::ConnectionStatus;

    use super::*;

    #[test]
    fn lists_are_told_from_the_id_of_their_request() {
        let entry = ConnectionEntry { id: 3, ..ConnectionEntry::default() };
        let entries: Vec<ConnectionEntry> =
            decode(&[entry.encode_to_vec().into()]).expect("an entry");
        assert_eq!(entries, [entry]);
        let id: Vec<ConnectionEntry> =
            decode(&[new_message_id(rand::random()).into()]).expect("an id");
        assert!(id.is_empty());
        assert!(decode::<ConnectionEntry>(&[bytes::Bytes::from_static(b"\xff")]).is_err());
    }

    #[test]
    fn one_part_that_failed_makes_a_failure() {
        let status = |success, reason: &str| ConnectionStatus {
            success,
            error_msg: reason.into(),
            ..ConnectionStatus::default()
        };
        let ack = ConfigurationCommandAck {
            connections_status: vec![status(true, ""), status(false, "no route to host")],
            ..ConfigurationCommandAck::default()
        };
        assert_eq!(outcome(&ack), (false, vec!["no route to host".to_owned()]));
        assert_eq!(outcome(&ConfigurationCommandAck::default()), (true, Vec::new()));
    }
}
