//! What a controller sees of this node's names and links.

use std::collections::BTreeMap;

use slim_compat_grpc::CONTROLLER;
use slim_compat_grpc::proto::southbound::{ConnectionEntry, ConnectionType, SubscriptionEntry};
use slim_wire::{Id, TextName};

use super::commands::Commands;
use crate::datapath::LinkId;

/// Every name with its links: those that clients have subscribed to, and those that controllers
/// routed. The control plane's own app is always there.
pub(super) async fn subscriptions(commands: &Commands) -> Vec<SubscriptionEntry> {
    let own = TextName::new(CONTROLLER, Id::from_u64(0)).expect("short texts");
    let clients = commands.presence.core.call(|local| {
        let core = local.host.core.borrow();
        let named = core
            .client_names()
            .filter_map(|known| Some((TextName::clone(known.text?), known.links.to_vec())));
        named.collect::<Vec<_>>()
    });
    let mut entries: BTreeMap<(Vec<String>, Option<u64>), SubscriptionEntry> = BTreeMap::new();
    let mut entry_of = |name: &TextName, local: Vec<ConnectionEntry>, remote| {
        let [component_0, component_1, component_2] = name.components().map(str::to_owned);
        let id = Some(name.id().to_u64().unwrap_or(u64::MAX));
        let key = (vec![component_0.clone(), component_1.clone(), component_2.clone()], id);
        let entry = entries.entry(key).or_insert_with(|| SubscriptionEntry {
            component_0,
            component_1,
            component_2,
            id,
            ..Default::default()
        });
        entry.local_connections.extend(local);
        entry.remote_connections.extend::<Vec<_>>(remote);
    };
    let in_process = entry(0, ConnectionType::Local, "{}".to_owned());
    entry_of(&own, vec![in_process], Vec::new());
    for (name, links) in clients.await.unwrap_or_default() {
        if name != own {
            let accepted =
                |link: LinkId| entry(link.number(), ConnectionType::Remote, "{}".to_owned());
            entry_of(&name, Vec::new(), links.into_iter().map(accepted).collect());
        }
    }
    for (number, link) in (0..).zip(commands.links.list()) {
        let config = config_of(&link.id);
        for name in &link.names {
            let remote = vec![entry(number, ConnectionType::Remote, config.clone())];
            entry_of(name, Vec::new(), remote);
        }
    }
    entries.into_values().collect()
}

/// The links of clients, and those that controllers asked for, up or not.
pub(super) async fn connections(commands: &Commands) -> Vec<ConnectionEntry> {
    let mut entries = Vec::new();
    for core in commands.links.cores() {
        let ids = core.call(|local| {
            let core = local.host.core.borrow();
            let clients = core.ports().filter(|port| !port.is_node());
            clients.map(|port| port.id()).collect::<Vec<_>>()
        });
        let accepted = |link: LinkId| entry(link.number(), ConnectionType::Remote, "{}".to_owned());
        entries.extend(ids.await.unwrap_or_default().into_iter().map(accepted));
    }
    let wanted = (0..).zip(commands.links.list());
    entries.extend(wanted.map(|(number, link)| {
        let config = config_of(&link.id);
        entry(number, ConnectionType::Remote, config)
    }));
    entries
}

fn entry(id: u64, connection_type: ConnectionType, config_data: String) -> ConnectionEntry {
    ConnectionEntry { id, connection_type: connection_type.into(), config_data }
}

/// The configuration of a link as its controller may know it again.
fn config_of(endpoint: &str) -> String {
    serde_json::json!({ "endpoint": endpoint }).to_string()
}
