//! Lists of nodes, in the layouts of 0.6 and of 0.7.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{ConnectionEntry, SubscriptionEntry};

use crate::controller::model::endpoint_in;
use crate::controller::name::RouteName;

/// Published nodes put so many entries into a message; one with fewer is the last.
pub(super) const CHUNK_ENTRIES: usize = 100;

/// An entry of a list.
pub(super) trait Listing: Message + Default {
    /// The entries in a message of the list that `request` asked for; `None` if it is not of one,
    /// or cannot be read.
    fn read(message: Payload, request: &str) -> Option<Vec<Self>>;
}

impl Listing for SubscriptionEntry {
    fn read(message: Payload, request: &str) -> Option<Vec<Self>> {
        let Payload::SubscriptionListResponse(list) = message else { return None };
        entries(&list.entries_or_id, list.later_entries, request)
    }
}

impl Listing for ConnectionEntry {
    fn read(message: Payload, request: &str) -> Option<Vec<Self>> {
        let Payload::ConnectionListResponse(list) = message else { return None };
        entries(&list.entries_or_id, list.later_entries, request)
    }
}

fn entries<T: Message + Default>(first: &[Bytes], later: Vec<T>, request: &str) -> Option<Vec<T>> {
    if let [id] = first
        && **id == *request.as_bytes()
    {
        return Some(later);
    }
    if !later.is_empty() {
        // An answer to another request.
        return None;
    }
    first.iter().map(|entry| T::decode(&**entry).ok()).collect()
}

/// What a list of subscriptions says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Names of clients.
    pub(super) clients: BTreeSet<RouteName>,
    /// Names that are reached over connections that the node made, with their endpoints.
    pub(super) routes: BTreeSet<(RouteName, String)>,
}

impl Listed {
    /// Connections that were accepted, and those inside the node, have the client block `{}`.
    pub(super) fn of(entries: Vec<SubscriptionEntry>) -> Self {
        let mut listed = Self::default();
        for entry in entries {
            let SubscriptionEntry { component_0, component_1, component_2, id, .. } = entry;
            let Ok(name) = RouteName::new([component_0, component_1, component_2], id) else {
                continue;
            };
            let accepted = |connection: &ConnectionEntry| connection.config_data == "{}";
            if !entry.local_connections.is_empty() || entry.remote_connections.iter().any(accepted)
            {
                listed.clients.insert(name.clone());
            }
            let made = entry.remote_connections.iter();
            let endpoints = made.filter_map(|made| endpoint_in(&made.config_data).ok());
            listed.routes.extend(endpoints.map(|endpoint| (name.clone(), endpoint)));
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use slim_compat_grpc::proto::southbound::{ConnectionListResponse, SubscriptionListResponse};

    use super::*;

    fn connection(id: u64, config: &str) -> ConnectionEntry {
        ConnectionEntry { id, connection_type: 1, config_data: config.into() }
    }

    fn subscription(app: &str, remote: Vec<ConnectionEntry>) -> SubscriptionEntry {
        SubscriptionEntry {
            component_0: "org".into(),
            component_1: "ns".into(),
            component_2: app.into(),
            id: Some(7),
            remote_connections: remote,
            ..SubscriptionEntry::default()
        }
    }

    fn old(entries: &[ConnectionEntry]) -> Payload {
        let entries_or_id = entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
        let later_entries = Vec::new();
        Payload::ConnectionListResponse(ConnectionListResponse { entries_or_id, later_entries })
    }

    fn new(id: &str, later_entries: Vec<ConnectionEntry>) -> Payload {
        let entries_or_id = vec![Bytes::copy_from_slice(id.as_bytes())];
        Payload::ConnectionListResponse(ConnectionListResponse { entries_or_id, later_entries })
    }

    #[test]
    fn both_layouts_are_read() {
        let all = vec![connection(1, "{}"), connection(2, r#"{"endpoint":"http://a:1"}"#)];
        assert_eq!(ConnectionEntry::read(old(&all), "id"), Some(all.clone()));
        assert_eq!(ConnectionEntry::read(new("id", all.clone()), "id"), Some(all.clone()));
        assert_eq!(ConnectionEntry::read(new("id", Vec::new()), "id"), Some(Vec::new()));
        assert_eq!(ConnectionEntry::read(old(&[]), "id"), Some(Vec::new()));
    }

    #[test]
    fn what_answers_something_else_is_not_taken() {
        let all = vec![connection(1, "{}")];
        assert_eq!(ConnectionEntry::read(new("other", all), "id"), None);
        assert_eq!(SubscriptionEntry::read(old(&[]), "id"), None);
        let garbage = Bytes::from_static(&[0xff]);
        let garbage = SubscriptionListResponse {
            entries_or_id: vec![garbage.clone(), garbage],
            later_entries: Vec::new(),
        };
        let garbage = Payload::SubscriptionListResponse(garbage);
        assert_eq!(SubscriptionEntry::read(garbage, "id"), None);
    }

    #[test]
    fn clients_are_told_from_links_to_other_nodes() {
        let link = connection(2, r#"{"endpoint":"http://b:1","tls":{"insecure":true}}"#);
        let inside = SubscriptionEntry {
            local_connections: vec![connection(0, "{}")],
            ..subscription("inside", Vec::new())
        };
        let listed = Listed::of(vec![
            subscription("here", vec![connection(1, "{}")]),
            subscription("there", vec![link.clone()]),
            subscription("both", vec![connection(1, "{}"), link]),
            inside,
        ]);
        let apps = listed.clients.iter().map(|name| &*name.components[2]);
        assert_eq!(apps.collect::<Vec<_>>(), ["both", "here", "inside"]);
        let routes = listed.routes.iter().map(|(name, to)| (&*name.components[2], &**to));
        let expected = [("both", "http://b:1"), ("there", "http://b:1")];
        assert_eq!(routes.collect::<Vec<_>>(), expected);
    }
}
