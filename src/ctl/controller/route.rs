use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;
use slim_compat_grpc::proto::northbound::{
    AddRouteRequest, DeleteRouteRequest, Node, RouteState, StoredRoute, StoredRouteListRequest,
};
use slim_compat_grpc::proto::southbound::{Connection, ConnectionEntry, SubscriptionEntry};

use super::connection::kind;
use super::{Caller, Via, check_via, connection_values, done, id_cell, id_value, subscription};
use crate::ctl::Error;
use crate::ctl::output::{Answer, Format, Table, shown};

/// `slimctl route`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// List the routes that a node has
    #[command(visible_alias = "ls")]
    List {
        /// Which node.
        #[command(flatten)]
        node: OfNode,
    },
    /// Add a route: what is sent to the name on this node goes to another
    Add {
        /// The name, ORG/NS/APP/ID
        route: String,
        /// The word `via`
        #[arg(value_name = "via")]
        keyword: String,
        /// A node's id; or a file with the JSON of a client block, whose name ends in .json
        #[arg(value_name = "FILE.json|NODE")]
        destination: String,
        /// Which node.
        #[command(flatten)]
        node: OfNode,
    },
    /// Remove a route
    #[command(visible_alias = "delete")]
    Del {
        /// The name, ORG/NS/APP/ID
        route: String,
        /// The word `via`
        #[arg(value_name = "via")]
        keyword: String,
        /// A node's id; or http[s]://HOST:PORT
        #[arg(value_name = "URL|NODE")]
        destination: String,
        /// Which node.
        #[command(flatten)]
        node: OfNode,
    },
    /// List the routes that the controller wants its nodes to have, and how far each got
    Outline {
        /// Only routes of this node
        #[arg(short, long, value_name = "NODE", alias = "origin_node_id")]
        origin_node_id: Option<String>,
        /// Only routes to this node or endpoint
        #[arg(short, long, value_name = "NODE", alias = "target_node_id")]
        target_node_id: Option<String>,
        // `-o` is the origin here.
        /// Form of the result: text, table, json or yaml [default: text]
        #[arg(long, value_enum, value_name = "FORM", hide_possible_values = true)]
        output: Option<Format>,
    },
}

/// Which node is meant.
#[derive(Args, Debug)]
pub(in crate::ctl) struct OfNode {
    /// Which node, such as slim/0
    #[arg(short, long, value_name = "NODE", alias = "node_id")]
    node_id: String,
}

impl Command {
    pub(in crate::ctl) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::List { node } => list(caller, &node.node_id),
            Self::Add { route, keyword, destination, node } => {
                check_via(keyword)?;
                add(caller, route, &Via::to_add(destination)?, &node.node_id)
            }
            Self::Del { route, keyword, destination, node } => {
                check_via(keyword)?;
                delete(caller, route, Via::to_delete(destination)?, &node.node_id)
            }
            Self::Outline { origin_node_id, target_node_id, .. } => {
                outline(caller, origin_node_id.as_deref(), target_node_id.as_deref())
            }
        }
    }
}

impl Command {
    /// The form of the result, where a command has an option of its own for it.
    pub(in crate::ctl) fn output(&self) -> Option<Format> {
        match self {
            Self::Outline { output, .. } => *output,
            _ => None,
        }
    }
}

fn list(caller: &Caller, node: &str) -> Result<Answer, Error> {
    caller.say(&format!("Listing routes for node ID: {}", shown(node)));
    let request = Node { id: node.to_owned(), dest_node_id: String::new() };
    let what = "failed to list routes";
    let answer = caller.call(what, async |mut c| c.list_routes(request).await)?;
    let mut text = format!("Received connection list response: {}\n", answer.entries.len());
    for entry in &answer.entries {
        let id = match entry.id {
            None => "<nil>".into(),
            Some(0) => String::new(),
            Some(id) => format!("value:{id}"),
        };
        let mut local = entry.local_connections.iter().map(|c| format!("local:{}", c.id));
        let remote = entry.remote_connections.iter();
        let mut remote =
            remote.map(|c| format!("remote:{}:{}:{}", kind(c), shown(&c.config_data), c.id));
        _ = writeln!(text, "{}", line(entry, &id, &mut local, &mut remote));
    }
    Ok(Answer {
        text,
        table: Some(table(&answer.entries)),
        value: json!({ "node": node, "routes": values(&answer.entries) }),
    })
}

/// A route as the documents show it, its connections in brackets.
pub(in crate::ctl) fn line(
    entry: &SubscriptionEntry,
    id: &str,
    local: &mut dyn Iterator<Item = String>,
    remote: &mut dyn Iterator<Item = String>,
) -> String {
    let (local, remote): (Vec<_>, Vec<_>) = (local.collect(), remote.collect());
    let (local, remote) = (local.join(" "), remote.join(" "));
    format!("{} id={id} local=[{local}] remote=[{remote}]", name(entry))
}

fn name(entry: &SubscriptionEntry) -> String {
    let SubscriptionEntry { component_0, component_1, component_2, .. } = entry;
    shown(&format!("{component_0}/{component_1}/{component_2}"))
}

/// Routes as a table.
pub(in crate::ctl) fn table(entries: &[SubscriptionEntry]) -> Table {
    let mut table = Table::new(&["NAME", "ID", "LOCAL", "REMOTE"], ("route", "routes"));
    for entry in entries {
        let ids = |connections: &[ConnectionEntry]| {
            let ids: Vec<_> = connections.iter().map(|c| c.id.to_string()).collect();
            ids.join(" ")
        };
        let local = ids(&entry.local_connections);
        table.push(vec![name(entry), id_cell(entry.id), local, ids(&entry.remote_connections)]);
    }
    table
}

/// Routes as a list for programs.
pub(in crate::ctl) fn values(entries: &[SubscriptionEntry]) -> serde_json::Value {
    let value = |entry: &SubscriptionEntry| {
        let SubscriptionEntry { component_0, component_1, component_2, .. } = entry;
        json!({
            "name": format!("{component_0}/{component_1}/{component_2}"),
            "id": id_value(entry.id),
            "local": connection_values(&entry.local_connections),
            "remote": connection_values(&entry.remote_connections),
        })
    };
    entries.iter().map(value).collect()
}

fn add(caller: &Caller, route: &str, via: &Via, node: &str) -> Result<Answer, Error> {
    let mut subscription = subscription(route)?;
    let (connection, dest_node_id) = match via {
        Via::Node(destination) => (None, destination.clone()),
        Via::Endpoint { endpoint, config } => {
            subscription.connection_id.clone_from(endpoint);
            let config_data = config.clone().unwrap_or_default();
            (Some(Connection { connection_id: endpoint.clone(), config_data }), String::new())
        }
    };
    caller.say(&format!("Add route for node ID: {}", shown(node)));
    let (subscription, node_id) = (Some(subscription), node.to_owned());
    let request = AddRouteRequest { connection, subscription, node_id, dest_node_id };
    let what = "failed to create route";
    let answer = caller.call(what, async |mut c| c.add_route(request).await)?;
    done(answer.success, what)?;
    let text = format!("Route created successfully with ID: {}\n", shown(&answer.route_id));
    Ok(Answer::plain(text, json!({ "node": node, "route": answer.route_id })))
}

fn delete(caller: &Caller, route: &str, via: Via, node: &str) -> Result<Answer, Error> {
    let mut subscription = subscription(route)?;
    let dest_node_id = match via {
        Via::Node(destination) => destination,
        Via::Endpoint { endpoint, .. } => {
            subscription.connection_id = endpoint;
            String::new()
        }
    };
    caller.say(&format!("Delete route for node ID: {}", shown(node)));
    let (subscription, node_id) = (Some(subscription), node.to_owned());
    let request = DeleteRouteRequest { subscription, node_id, dest_node_id };
    let what = "failed to delete route";
    let answer = caller.call(what, async |mut c| c.delete_route(request).await)?;
    done(answer.success, what)?;
    let text = format!("ACK received success={}\n", answer.success);
    Ok(Answer::plain(text, json!({ "node": node, "deleted": route })))
}

fn outline(caller: &Caller, origin: Option<&str>, target: Option<&str>) -> Result<Answer, Error> {
    let request = StoredRouteListRequest { node_id: origin.unwrap_or_default().to_owned() };
    let what = "failed to list stored routes";
    let answer = caller.call(what, async |mut c| c.list_stored_routes(request).await)?;
    let headings = &["NODE", "NAME", "ID", "DESTINATION", "STATE", "REASON"];
    let mut table = Table::new(headings, ("route", "routes"));
    let mut routes = Vec::new();
    let wanted = |route: &&StoredRoute| target.is_none_or(|target| route.destination == target);
    for route in answer.entries.iter().filter(wanted) {
        let subscription = route.subscription.clone().unwrap_or_default();
        let (org, namespace) = (&subscription.component_0, &subscription.component_1);
        let name = format!("{org}/{namespace}/{}", subscription.component_2);
        let state = RouteState::try_from(route.state);
        let state = state.map_or_else(|_| route.state.to_string(), |s| s.as_str_name().into());
        let StoredRoute { route_id, node_id, destination, reason, .. } = route;
        routes.push(json!({
            "route": route_id,
            "node": node_id,
            "name": name,
            "id": id_value(subscription.id),
            "destination": destination,
            "state": state,
            "reason": (!reason.is_empty()).then_some(reason),
        }));
        let (name, id, reason) = (shown(&name), id_cell(subscription.id), shown(reason));
        table.push(vec![shown(node_id), name, id, shown(destination), state, reason]);
    }
    let value = json!({ "routes": routes });
    Ok(Answer { text: table.to_string(), table: Some(table), value })
}
