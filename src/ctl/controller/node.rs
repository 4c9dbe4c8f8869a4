use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};
use slim_compat_grpc::proto::northbound::{Node, NodeEntry, NodeListRequest, NodeStatus};
use slim_compat_grpc::proto::southbound::ConnectionDetails;

use super::{Caller, done};
use crate::ctl::Error;
use crate::ctl::output::{Answer, Table, shown};

/// `slimctl node`, as far as a controller answers.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// List all nodes that have registered
    #[command(visible_alias = "ls")]
    List,
    /// Forget a node that is gone for good
    #[command(visible_alias = "delete")]
    Deregister {
        /// Its id, such as slim/0
        id: String,
    },
}

impl Command {
    pub(in crate::ctl) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::List => {
                let what = "failed to list nodes";
                let request = NodeListRequest {};
                let nodes = caller.call(what, async |mut c| c.list_nodes(request).await)?;
                Ok(list(&nodes.entries))
            }
            Self::Deregister { id } => {
                let what = "failed to deregister node";
                let request = Node { id: id.clone(), dest_node_id: String::new() };
                let answer = caller.call(what, async |mut c| c.deregister_node(request).await)?;
                done(answer.success, what)?;
                let text = format!("Node deregistered successfully with ID: {}\n", shown(id));
                Ok(Answer::plain(text, json!({ "deregistered": id })))
            }
        }
    }
}

fn status(node: &NodeEntry) -> String {
    let known = NodeStatus::try_from(node.status);
    known.map_or_else(|_| node.status.to_string(), |status| status.as_str_name().to_owned())
}

fn list(nodes: &[NodeEntry]) -> Answer {
    let mut text = String::new();
    let mut table = Table::new(&["NODE", "STATUS", "ENDPOINTS", "GROUP"], ("node", "nodes"));
    let mut values = Vec::new();
    for node in nodes {
        let (id, status) = (shown(&node.id), status(node));
        _ = writeln!(text, "Node ID: {id} status: {status}");
        write_connections(&mut text, &node.connections);
        let endpoints: Vec<_> = node.connections.iter().map(|c| shown(&c.endpoint)).collect();
        let group = node.connections.iter().find_map(|c| c.group_name.as_deref());
        let group = shown(group.unwrap_or_default());
        table.push(vec![id, status.clone(), endpoints.join(" "), group]);
        let connections: Vec<_> = node.connections.iter().map(connection_value).collect();
        values.push(json!({ "id": node.id, "status": status, "connections": connections }));
    }
    Answer { text, table: Some(table), value: json!({ "nodes": values }) }
}

fn write_connections(text: &mut String, connections: &[ConnectionDetails]) {
    if connections.is_empty() {
        text.push_str("No connection details available\n");
        return;
    }
    text.push_str("  Connection details:\n");
    for connection in connections {
        _ = writeln!(text, "  - Endpoint: {}", shown(&connection.endpoint));
        _ = writeln!(text, "    MtlsRequired: {}", connection.mtls_required);
        if let Some(external) = &connection.external_endpoint {
            _ = writeln!(text, "    ExternalEndpoint: {}", shown(external));
        }
        if let Some(group) = &connection.group_name {
            _ = writeln!(text, "    GroupName: {}", shown(group));
        }
    }
}

fn connection_value(connection: &ConnectionDetails) -> Value {
    json!({
        "endpoint": connection.endpoint,
        "mtls_required": connection.mtls_required,
        "local_endpoint": connection.local_endpoint,
        "external_endpoint": connection.external_endpoint,
        "group_name": connection.group_name,
    })
}
