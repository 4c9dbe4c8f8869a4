use std::collections::BTreeMap;
use std::time::Instant;

use slim_compat_grpc::proto::northbound::{
    AddRouteRequest, AddRouteResponse, CreateConnectionRequest, CreateConnectionResponse,
    CreateSubscriptionRequest, CreateSubscriptionResponse, DeleteRouteRequest, DeleteRouteResponse,
    DeleteSubscriptionRequest, DeleteSubscriptionResponse, RouteState, StoredRoute,
    StoredRouteListResponse,
};
use slim_compat_grpc::proto::southbound::{Connection, Subscription};
use tonic::Status;
use tracing::debug;

use super::{LIMIT, nodes, unknown_node};
use crate::controller::hub::Hub;
use crate::controller::model::{Model, Progress, endpoint_in};
use crate::controller::name::{RouteName, route_text};
use crate::controller::store::{Change, ConnectionRecord, RouteRecord, RouteTarget, StoreError};

/// Largest client block, in bytes.
const CONFIG_BYTES: usize = 16 * 1024;

/// Longest id of a connection, in bytes.
const ID_BYTES: usize = 1024;

fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

fn name_of(subscription: Option<&Subscription>) -> Result<RouteName, Status> {
    let subscription = subscription.ok_or_else(|| invalid("subscription must be provided"))?;
    RouteName::of(subscription).map_err(|error| invalid(error.to_string()))
}

/// The endpoint in a client block that is small enough to be kept.
fn endpoint_of(connection: &Connection) -> Result<String, Status> {
    let Connection { connection_id, config_data } = connection;
    if config_data.len() > CONFIG_BYTES || connection_id.len() > ID_BYTES {
        let text = format!("expected at most {CONFIG_BYTES} bytes of config data");
        return Err(invalid(format!("invalid connection: {text}, and {ID_BYTES} of ID")));
    }
    let endpoint = endpoint_in(config_data);
    let endpoint = endpoint.map_err(|error| invalid(format!("invalid connection: {error}")))?;
    match endpoint.len() {
        0..=ID_BYTES => Ok(endpoint),
        _ => Err(invalid(format!("invalid connection: expected at most {ID_BYTES} of endpoint"))),
    }
}

/// The checks that adding and deleting a route have in common.
fn check_nodes(model: &Model, source: &str, destination: &str) -> Result<(), Status> {
    let check = |id: &str, what| match model.node(id) {
        Some(_) => Ok(()),
        None => {
            Err(Status::not_found(format!("invalid {what} nodeID: node with ID {id} not found")))
        }
    };
    check(source, "source")?;
    if destination.is_empty() {
        return Ok(());
    }
    check(destination, "destination")?;
    match source == destination {
        true => Err(invalid("destination node ID cannot be the same as source node ID")),
        false => Ok(()),
    }
}

/// What operators may have kept at a time.
const ROUTES: usize = 262_144;
const CONNECTIONS: usize = 65_536;

/// Whether there is room for one more, unless it replaces what is there.
pub(super) fn room_for<K: Ord, V>(
    key: &K,
    kept: &BTreeMap<K, V>,
    limit: usize,
    what: &str,
) -> Result<(), Status> {
    if kept.len() < limit || kept.contains_key(key) {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!("{what}: expected at most {limit}")))
}

const NOWHERE: &str = "either destNodeId or connectionId must be provided";

pub(super) fn add(hub: &Hub, request: AddRouteRequest) -> Result<AddRouteResponse, Status> {
    let AddRouteRequest { connection, subscription, node_id, dest_node_id } = request;
    let name = name_of(subscription.as_ref())?;
    let subscription = subscription.unwrap_or_default();
    let route_id = hub.commit(|model| {
        check_nodes(model, &node_id, &dest_node_id)?;
        let (destination, to) = if dest_node_id.is_empty() {
            let given = connection.filter(|connection| !connection.connection_id.is_empty());
            let connection = given.ok_or_else(|| invalid(NOWHERE))?;
            let endpoint = endpoint_of(&connection)?;
            if endpoint != connection.connection_id {
                let text = "endpoint in config data does not match connection ID";
                return Err(invalid(format!("invalid connection: {text}")));
            }
            let config = connection.config_data;
            (endpoint.clone(), RouteTarget::Endpoint { endpoint, config })
        } else {
            (dest_node_id.clone(), RouteTarget::Node(dest_node_id))
        };
        let id = format!("{node_id}:{}", route_text(&subscription, &destination));
        room_for(&id, &model.state().routes, ROUTES, "routes")?;
        Ok((vec![Change::PutRoute(route(id.clone(), node_id, name, to))], id))
    })?;
    debug!(route_id, "Route stored");
    Ok(AddRouteResponse { success: true, route_id })
}

fn route(id: String, node: String, name: RouteName, to: RouteTarget) -> RouteRecord {
    let RouteName { components, instance } = name;
    RouteRecord { id, node, components, instance, to, deleted: false }
}

pub(super) fn delete(
    hub: &Hub,
    request: DeleteRouteRequest,
) -> Result<DeleteRouteResponse, Status> {
    let DeleteRouteRequest { subscription, node_id, dest_node_id } = request;
    name_of(subscription.as_ref())?;
    let subscription = subscription.unwrap_or_default();
    hub.commit(|model| {
        check_nodes(model, &node_id, &dest_node_id)?;
        let destination = match (&*dest_node_id, &*subscription.connection_id) {
            ("", "") => return Err(invalid(NOWHERE)),
            ("", endpoint) => endpoint,
            (node, _) => node,
        };
        let id = format!("{node_id}:{}", route_text(&subscription, destination));
        let missing = || {
            Status::not_found(format!(
                "failed to delete route: failed to mark route for delete {id} (route {id} not \
                 found)"
            ))
        };
        Ok((vec![mark_deleted(model, &id).ok_or_else(missing)?], ()))
    })?;
    Ok(DeleteRouteResponse { success: true })
}

fn mark_deleted(model: &Model, id: &str) -> Option<Change> {
    let route = model.state().routes.get(id)?.clone();
    Some(Change::PutRoute(RouteRecord { deleted: true, ..route }))
}

pub(super) fn list(hub: &Hub, node: &str) -> Result<StoredRouteListResponse, Status> {
    let known = |id: &str| hub.read(|model| model.node(id).is_some());
    if !node.is_empty() && !known(node) {
        return Err(unknown_node(node));
    }
    let ids: Vec<_> = match node {
        "" => hub.read(|model| model.state().nodes.keys().cloned().collect()),
        node => vec![node.to_owned()],
    };
    let routes = ids.iter().flat_map(|id| hub.quietly(|model| model.routes(id)));
    let entries = routes.map(|route| {
        let (state, reason) = match route.progress {
            Progress::Pending => (RouteState::Pending, String::new()),
            Progress::Applied => (RouteState::Applied, String::new()),
            Progress::Deleted => (RouteState::Deleted, String::new()),
            Progress::Failed { reason, attempts: 0 } => (RouteState::Failed, reason),
            Progress::Failed { reason, attempts } => {
                (RouteState::Failed, format!("{reason} (attempt {attempts})"))
            }
        };
        StoredRoute {
            route_id: route.id,
            node_id: route.node,
            subscription: Some(route.name.to_subscription("")),
            destination: route.destination,
            state: state.into(),
            reason,
        }
    });
    Ok(StoredRouteListResponse { entries: entries.collect() })
}

pub(super) async fn connect(
    hub: &Hub,
    request: CreateConnectionRequest,
) -> Result<CreateConnectionResponse, Status> {
    let deadline = Instant::now() + LIMIT;
    let CreateConnectionRequest { connection, node_id: node } = request;
    nodes::stream(hub, &node)?;
    let connection = connection.ok_or_else(|| invalid("connection must be provided"))?;
    let endpoint = endpoint_of(&connection)?;
    let id = match connection.connection_id {
        id if id.is_empty() => format!("{:032x}", rand::random::<u128>()),
        id => id,
    };
    let config = connection.config_data;
    let record = ConnectionRecord { node: node.clone(), id: id.clone(), endpoint, config };
    let key = (node.clone(), id.clone());
    let last = hub.commit(|model| {
        room_for(&key, &model.state().connections, CONNECTIONS, "connections")?;
        let last = model.state().connections.get(&key).cloned();
        Ok::<_, Status>((vec![Change::PutConnection(record.clone())], last))
    })?;
    let progress = hub.until(deadline, |model| settled(model.connection_progress(&node, &id)));
    let undo = |model: &Model| {
        let is_this = model.state().connections.get(&key) == Some(&record);
        is_this.then(|| match last {
            Some(last) => Change::PutConnection(last),
            None => Change::DeleteConnection(node.clone(), id.clone()),
        })
    };
    outcome(hub, progress.await, "connection", undo)?;
    Ok(CreateConnectionResponse { success: true, connection_id: id })
}

/// Not what is still to come.
fn settled(progress: Option<Progress>) -> Option<Progress> {
    progress.filter(|progress| *progress != Progress::Pending)
}

/// What was not done is not kept either. `undo` finds nothing to undo if somebody else has changed
/// the record since.
fn outcome(
    hub: &Hub,
    progress: Option<Progress>,
    what: &str,
    undo: impl FnOnce(&Model) -> Option<Change>,
) -> Result<(), Status> {
    let error = match progress {
        Some(Progress::Applied) => return Ok(()),
        Some(Progress::Failed { reason, .. }) => {
            Status::unavailable(format!("failed to create {what}: {reason}"))
        }
        Some(Progress::Deleted | Progress::Pending) => {
            return Err(Status::aborted(format!("the {what} was deleted meanwhile")));
        }
        None => Status::deadline_exceeded(format!(
            "failed to create {what}: timeout waiting for message of type ACK"
        )),
    };
    hub.commit(|model| Ok::<_, StoreError>((undo(model).into_iter().collect(), ())))?;
    Err(error)
}

pub(super) async fn subscribe(
    hub: &Hub,
    request: CreateSubscriptionRequest,
) -> Result<CreateSubscriptionResponse, Status> {
    let deadline = Instant::now() + LIMIT;
    let CreateSubscriptionRequest { subscription, node_id: node } = request;
    nodes::stream(hub, &node)?;
    let name = name_of(subscription.as_ref())?;
    let subscription = subscription.unwrap_or_default();
    let connection = subscription.connection_id.clone();
    let subscription_id = route_text(&subscription, &connection);
    let id = format!("{node}:{subscription_id}");
    let (last, record) = hub.commit(|model| {
        if !model.state().connections.contains_key(&(node.clone(), connection.clone())) {
            return Err(Status::not_found(format!(
                "failed to get connection by ID: connection with ID {connection} not found"
            )));
        }
        room_for(&id, &model.state().routes, ROUTES, "routes")?;
        let last = model.state().routes.get(&id).cloned();
        let to = RouteTarget::Connection(connection.clone());
        let record = route(id.clone(), node.clone(), name, to);
        Ok((vec![Change::PutRoute(record.clone())], (last, record)))
    })?;
    let progress = hub.until(deadline, |model| settled(model.progress(&id)));
    let undo = |model: &Model| {
        model.state().routes.get(&id).filter(|now| **now == record)?;
        match last {
            Some(last) => Some(Change::PutRoute(last)),
            // The node may have it.
            None => mark_deleted(model, &id),
        }
    };
    outcome(hub, progress.await, "subscription", undo)?;
    Ok(CreateSubscriptionResponse { success: true, subscription_id })
}

pub(super) async fn unsubscribe(
    hub: &Hub,
    request: DeleteSubscriptionRequest,
) -> Result<DeleteSubscriptionResponse, Status> {
    let deadline = Instant::now() + LIMIT;
    let DeleteSubscriptionRequest { subscription_id, node_id: node } = request;
    if hub.read(|model| model.node(&node).is_none()) {
        return Err(unknown_node(&node));
    }
    let id = format!("{node}:{subscription_id}");
    hub.commit(|model| {
        let missing = || {
            Status::not_found(format!(
                "failed to get subscription by ID: subscription with ID {subscription_id} not found"
            ))
        };
        Ok::<_, Status>((vec![mark_deleted(model, &id).ok_or_else(missing)?], ()))
    })?;
    let gone = |model: &mut Model| match model.progress(&id) {
        Some(Progress::Deleted) if model.live(&node).is_some() => None,
        _ => Some(()),
    };
    match hub.until(deadline, gone).await {
        Some(()) => Ok(DeleteSubscriptionResponse { success: true }),
        None => Err(Status::deadline_exceeded(format!(
            "the deletion is kept and will be repeated, but node {node} did not acknowledge it yet"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;
    use tonic::Code;

    use super::*;
    use crate::controller::model::Answer;
    use crate::controller::settings::Settings;
    use crate::controller::southbound::Stream;
    use crate::controller::store::{MemoryStore, NodeRecord};

    const NODE: &str = "slim/0";

    /// A hub with one node, and the number of its stream.
    fn hub() -> (Hub, u64) {
        let hub = Hub::new(Settings::default(), Arc::new(MemoryStore::default()));
        let hub = hub.expect("an empty store");
        let (connections, id) = (Vec::new(), NODE.to_owned());
        let node = NodeRecord { id, group: None, connections, product: None };
        let open = |generation| {
            let (out, _) = mpsc::channel(1);
            Stream::new(NODE.into(), generation, false, out, CancellationToken::new())
        };
        let generation = hub.register(&node, open).expect("there is room").generation;
        (hub, generation)
    }

    /// The node does nothing of what it is to do.
    fn fail(hub: &Hub, generation: u64) {
        let now = Instant::now();
        let command = hub.quietly(|model| model.next_command(NODE, generation, now));
        command.expect("something to do");
        let failed = Answer::Failed("not today".into());
        hub.update(|model| model.answered(NODE, generation, &failed, now));
    }

    fn request(endpoint: &str) -> CreateConnectionRequest {
        let config_data = format!(r#"{{"endpoint":"{endpoint}"}}"#);
        let connection = Connection { connection_id: "link".into(), config_data };
        CreateConnectionRequest { connection: Some(connection), node_id: NODE.into() }
    }

    #[tokio::test]
    async fn what_somebody_else_put_in_the_place_of_what_failed_stays() {
        let (hub, generation) = hub();
        let key = (NODE.to_owned(), "link".to_owned());
        let other = ConnectionRecord {
            node: NODE.into(),
            id: "link".into(),
            endpoint: "http://b:1".into(),
            config: r#"{"endpoint":"http://b:1"}"#.into(),
        };
        let meanwhile = async {
            let put = Change::PutConnection(other.clone());
            hub.commit(|_| Ok::<_, StoreError>((vec![put], ()))).expect("kept");
            fail(&hub, generation);
        };
        let (made, ()) = tokio::join!(connect(&hub, request("http://a:1")), meanwhile);
        assert_eq!(made.expect_err("it failed").code(), Code::Unavailable);
        assert_eq!(hub.read(|model| model.state().connections.get(&key).cloned()), Some(other));

        let subscription = Subscription {
            component_0: "org".into(),
            component_1: "ns".into(),
            component_2: "app".into(),
            connection_id: "link".into(),
            ..Subscription::default()
        };
        let id = format!("{NODE}:{}", route_text(&subscription, "link"));
        let name = RouteName::of(&subscription).expect("a name");
        let to = RouteTarget::Endpoint { endpoint: "http://c:1".into(), config: "{}".into() };
        let other = route(id.clone(), NODE.into(), name, to);
        let meanwhile = async {
            let put = Change::PutRoute(other.clone());
            hub.commit(|_| Ok::<_, StoreError>((vec![put], ()))).expect("kept");
            fail(&hub, generation);
        };
        let asked =
            CreateSubscriptionRequest { subscription: Some(subscription), node_id: NODE.into() };
        let (made, ()) = tokio::join!(subscribe(&hub, asked), meanwhile);
        assert_eq!(made.expect_err("it failed").code(), Code::Unavailable);
        assert_eq!(hub.read(|model| model.state().routes.get(&id).cloned()), Some(other));
    }

    #[tokio::test]
    async fn what_failed_is_not_kept_and_what_was_there_before_is() {
        let (hub, generation) = hub();
        let key = (NODE.to_owned(), "link".to_owned());
        let kept = || hub.read(|model| model.state().connections.get(&key).cloned());
        let failing = async { fail(&hub, generation) };
        let (made, ()) = tokio::join!(connect(&hub, request("http://a:1")), failing);
        made.expect_err("it failed");
        assert_eq!(kept(), None);
        let before = ConnectionRecord {
            node: NODE.into(),
            id: "link".into(),
            endpoint: "http://b:1".into(),
            config: r#"{"endpoint":"http://b:1"}"#.into(),
        };
        let put = Change::PutConnection(before.clone());
        hub.commit(|_| Ok::<_, StoreError>((vec![put], ()))).expect("kept");
        let failing = async { fail(&hub, generation) };
        let (made, ()) = tokio::join!(connect(&hub, request("http://a:1")), failing);
        made.expect_err("it failed");
        assert_eq!(kept(), Some(before));
    }
}
