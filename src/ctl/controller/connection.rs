use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;
use slim_compat_grpc::proto::northbound::Node;
use slim_compat_grpc::proto::southbound::{ConnectionEntry, ConnectionType};

use super::{Caller, connection_values};
use crate::ctl::Error;
use crate::ctl::output::{Answer, Table, shown};

/// `slimctl connection`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// List the connections that a node has
    #[command(visible_alias = "ls")]
    List {
        /// Which node, such as slim/0
        #[arg(short, long, value_name = "NODE", alias = "node_id")]
        node_id: String,
    },
}

impl Command {
    pub(in crate::ctl) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        let Self::List { node_id } = self;
        let node = shown(node_id);
        caller.say(&format!("Listing connections for node ID: {node}"));
        let request = Node { id: node_id.clone(), dest_node_id: String::new() };
        let what = "failed to list connections";
        let answer = caller.call(what, async |mut c| c.list_connections(request).await)?;
        let entries = answer.entries;
        let mut text = format!("Received connection list response: {}\n", entries.len());
        for entry in &entries {
            let ConnectionEntry { id, config_data, .. } = entry;
            let (kind, config) = (kind(entry), shown(config_data));
            _ = writeln!(text, "Connection ID: {id}, Connection type: {kind}, ConfigData {config}");
        }
        let value = json!({ "node": node_id, "connections": connection_values(&entries) });
        Ok(Answer { text, table: Some(table(&entries)), value })
    }
}

/// The kind of a connection as its enumeration names it.
pub(super) fn kind(entry: &ConnectionEntry) -> String {
    let known = ConnectionType::try_from(entry.connection_type);
    known.map_or_else(|_| entry.connection_type.to_string(), |kind| kind.as_str_name().to_owned())
}

/// Connections as a table.
pub(in crate::ctl) fn table(entries: &[ConnectionEntry]) -> Table {
    let mut table = Table::new(&["ID", "TYPE", "CONFIG"], ("connection", "connections"));
    for entry in entries {
        let kind = kind(entry).trim_start_matches("CONNECTION_TYPE_").to_lowercase();
        table.push(vec![entry.id.to_string(), kind, shown(&entry.config_data)]);
    }
    table
}
