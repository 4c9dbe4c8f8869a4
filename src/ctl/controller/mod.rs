//! Commands that a controller carries out.

mod channel;
mod connection;
mod node;
mod participant;
mod route;

use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use slim_compat_grpc::proto::northbound::control_plane_service_client::ControlPlaneServiceClient;
use slim_compat_grpc::proto::southbound::{Ack, ConnectionEntry, ConnectionType, Subscription};
use tonic::{Response, Status};

pub(in crate::ctl) use self::channel::Command as ChannelCommand;
pub(in crate::ctl) use self::connection::Command as ConnectionCommand;
pub(super) use self::connection::table as connection_table;
pub(in crate::ctl) use self::node::Command as NodeCommand;
pub(in crate::ctl) use self::participant::Command as ParticipantCommand;
pub(in crate::ctl) use self::route::Command as RouteCommand;
pub(super) use self::route::{line as route_line, table as route_table, values as route_values};
use super::Error;
use super::connect::{Link, Server};
use super::error::rpc_code;
use super::output::{Answer, Format, print, shown};
use super::settings::Settings;

/// Longest answer in bytes: a network of many nodes has many routes.
pub(super) const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// `slimctl controller`: the same commands in a group of their own.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// Nodes of the network
    #[command(subcommand)]
    Node(NodeCommand),
    /// Connections of a node
    #[command(subcommand, visible_alias = "conn")]
    Connection(ConnectionCommand),
    /// Routes of nodes
    #[command(subcommand)]
    Route(RouteCommand),
    /// Channels: groups that a controller manages
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Participants of a channel
    #[command(subcommand)]
    Participant(ParticipantCommand),
}

impl Command {
    pub(super) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::Node(command) => command.run(caller),
            Self::Connection(command) => command.run(caller),
            Self::Route(command) => command.run(caller),
            Self::Channel(command) => command.run(caller),
            Self::Participant(command) => command.run(caller),
        }
    }
}

impl Command {
    /// As that of the route commands.
    pub(super) fn output(&self) -> Option<Format> {
        match self {
            Self::Route(command) => command.output(),
            _ => None,
        }
    }
}

/// Makes the calls of one command.
pub(super) struct Caller {
    pub(super) settings: Settings,
    pub(super) format: Format,
}

type Controller = ControlPlaneServiceClient<Link>;

impl Caller {
    /// Prints a documented line of which a failure takes nothing back.
    pub(super) fn say(&self, line: &str) {
        if self.format == Format::Text {
            print(&format!("{line}\n"));
        }
    }

    /// Makes one call of the controller; `what` is what did not work.
    fn call<T>(
        &self,
        what: &'static str,
        call: impl AsyncFnOnce(Controller) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let server = Server::new(&self.settings, "localhost:50051")?;
        server.call(what, async |link| {
            let client = Controller::new(link).max_decoding_message_size(ANSWER_BYTES);
            Ok(call(client).await?.into_inner())
        })
    }

    /// The same for calls that may answer that they did nothing.
    fn acknowledged(
        &self,
        what: &'static str,
        call: impl AsyncFnOnce(Controller) -> Result<Response<Ack>, Status>,
    ) -> Result<(), Error> {
        let ack = self.call(what, call)?;
        if ack.success {
            ack.messages.iter().for_each(|message| note(message));
            return Ok(());
        }
        let code = tonic::Code::from_i32(ack.code.cast_signed());
        let said = ack.messages.join("; ");
        let said = if said.is_empty() { "the controller did not say why" } else { &said };
        Err(match code {
            tonic::Code::Ok => Error::Refused { what, text: shown(said) },
            code => Error::Call { what, reached: true, code: rpc_code(code), text: shown(said) },
        })
    }
}

/// What the controller says beside the answer; standard output keeps the documented form.
#[expect(clippy::print_stderr, reason = "standard output is for results")]
fn note(message: &str) {
    eprintln!("note: {}", shown(message));
}

/// For answers that only say whether it was done.
fn done(success: bool, what: &'static str) -> Result<(), Error> {
    let text = || "the controller did not say why".to_owned();
    if success { Ok(()) } else { Err(Error::Refused { what, text: text() }) }
}

/// Whether a name has so many parts, none of them empty.
fn check_parts(name: &str, parts: usize) -> Result<(), String> {
    if name.split('/').count() == parts && name.split('/').all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err(format!("invalid name format, expected {parts} components separated by '/'"))
}

/// `org/ns/app/id` as a subscription over no connection.
pub(super) fn subscription(route: &str) -> Result<Subscription, Error> {
    let wrong = || {
        let expected = "'company/namespace/appname/appinstance'";
        Error::Usage(format!("invalid route format '{}', expected {expected}", shown(route)))
    };
    check_parts(route, 4).map_err(|_| wrong())?;
    let mut parts = route.split('/').map(str::to_owned);
    let mut part = || parts.next().expect("there are four");
    let (component_0, component_1, component_2) = (part(), part(), part());
    let id = Some(part().parse().map_err(|_| wrong())?);
    let connection_id = String::new();
    Ok(Subscription { component_0, component_1, component_2, id, connection_id, node_id: None })
}

/// Where a route leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// To a node that the controller knows.
    Node(String),
    /// To an endpoint, with what a file says about it where there is one.
    Endpoint { endpoint: String, config: Option<String> },
}

/// The keyword between a route and where it leads.
pub(super) fn check_via(keyword: &str) -> Result<(), Error> {
    if keyword.eq_ignore_ascii_case("via") {
        return Ok(());
    }
    let got = shown(keyword);
    Err(Error::Usage(format!("invalid syntax: expected 'via' keyword, got '{got}'")))
}

impl Via {
    /// For a new route: a file if there is one, else a node.
    pub(super) fn to_add(text: &str) -> Result<Self, Error> {
        let path = Path::new(text);
        let wrong = |reason: String| Error::settings(path, reason);
        if !path.exists() {
            if path.extension().is_some_and(|extension| extension == "json") {
                return Err(wrong("expected a file, got none of this name".into()));
            }
            return Ok(Self::Node(text.to_owned()));
        }
        if path.extension().is_none_or(|extension| extension != "json") {
            return Err(wrong("expected a file whose name ends in .json".into()));
        }
        let config = slim_config::Sources::file(&slim_config::System, path);
        let config = config.map_err(|reason| wrong(reason.to_string()))?;
        let value: Value = serde_json::from_str(&config)
            .map_err(|error| wrong(format!("expected JSON: {error}")))?;
        let endpoint = value.get("endpoint").and_then(Value::as_str).filter(|e| !e.is_empty());
        let endpoint =
            endpoint.ok_or_else(|| wrong("expected the text `endpoint`, got none".into()))?;
        Ok(Self::Endpoint { endpoint: endpoint.to_owned(), config: Some(config) })
    }

    /// For a route to remove: a URL if it looks like one, else a node.
    pub(super) fn to_delete(text: &str) -> Result<Self, Error> {
        if !text.contains(':') {
            return Ok(Self::Node(text.to_owned()));
        }
        let uri = text.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        let known = matches!(scheme, Some("http" | "https"));
        if known && uri.is_some_and(|uri| uri.port_u16().is_some()) {
            return Ok(Self::Endpoint { endpoint: text.to_owned(), config: None });
        }
        let expected = "'http[s]://host:port'";
        Err(Error::Usage(format!("invalid endpoint format '{}', expected {expected}", shown(text))))
    }
}

/// What is said about a connection, as JSON where it is JSON.
pub(super) fn config_value(config: &str) -> Value {
    serde_json::from_str(config).unwrap_or_else(|_| json!(config))
}

/// Connections as a list for programs.
pub(super) fn connection_values(entries: &[ConnectionEntry]) -> Value {
    let value = |entry: &ConnectionEntry| {
        let kind = match entry.connection_type() {
            ConnectionType::Local => "local",
            ConnectionType::Remote => "remote",
        };
        json!({ "id": entry.id, "type": kind, "config": config_value(&entry.config_data) })
    };
    entries.iter().map(value).collect()
}

/// An instance id for programs: decimal, since not all of them read such large numbers; null for
/// any.
pub(super) fn id_value(id: Option<u64>) -> Value {
    id.filter(|id| *id != u64::MAX).map_or(Value::Null, |id| json!(id.to_string()))
}

/// The same for a table.
pub(super) fn id_cell(id: Option<u64>) -> String {
    id.filter(|id| *id != u64::MAX).map_or_else(|| "any".into(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_routes_have_four_parts_and_a_number() {
        let route = subscription("org/ns/app/7").expect("a name");
        assert_eq!((route.component_2.as_str(), route.id), ("app", Some(7)));
        for wrong in ["org/ns/app", "org/ns/app/x", "org//app/7", "org/ns/app/7/8", "org/ns/app/-1"]
        {
            let error = subscription(wrong).expect_err(wrong).to_string();
            let expected = "expected 'company/namespace/appname/appinstance'";
            assert_eq!(error, format!("invalid route format '{wrong}', {expected}"));
        }
    }

    #[test]
    fn a_route_leads_to_a_file_s_endpoint_or_to_a_node() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
        write("good.json", r#"{"endpoint":"http://a:1"}"#);
        write("empty.json", r#"{"endpoint":""}"#);
        write("broken.json", "{");
        write("good.yaml", "endpoint: http://a:1");
        assert_eq!(Via::to_add("slim/b").ok(), Some(Via::Node("slim/b".into())));
        let Ok(Via::Endpoint { endpoint, config }) = Via::to_add(&path("good.json")) else {
            panic!("an endpoint");
        };
        assert_eq!(endpoint, "http://a:1");
        assert_eq!(config.as_deref(), Some(r#"{"endpoint":"http://a:1"}"#));
        for wrong in ["empty.json", "broken.json", "good.yaml", "absent.json"] {
            assert!(Via::to_add(&path(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(Via::to_delete("slim/b").ok(), Some(Via::Node("slim/b".into())));
        for wrong in ["a:1", "ftp://a:1", "http://a", "http://a:x"] {
            assert!(Via::to_delete(wrong).is_err(), "{wrong}");
        }
    }
}
