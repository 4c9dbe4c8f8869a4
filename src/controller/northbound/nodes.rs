use std::sync::Arc;
use std::time::{Duration, Instant};

use slim_compat_grpc::proto::northbound::{
    ConnectionListResponse, DeregisterNodeResponse, NodeEntry, NodeListResponse, NodeStatus,
    SubscriptionListResponse,
};
use slim_compat_grpc::proto::southbound::ConnectionDetails;
use tonic::Status;
use tracing::info;

use super::{not_connected, unknown_node};
use crate::controller::hub::Hub;
use crate::controller::southbound::{Stream, Unanswered};
use crate::controller::store::{NodeAddress, NodeRecord};

/// How long a list may take; a node that is alive and silent has none.
const LIST: Duration = Duration::from_secs(6);
const PROBE: Duration = Duration::from_secs(5);

pub(super) fn list(hub: &Hub) -> NodeListResponse {
    let entries = hub.read(|model| {
        let nodes = model.state().nodes.values();
        nodes.map(|node| entry(node, model.live(&node.id).is_some())).collect()
    });
    NodeListResponse { entries }
}

fn entry(node: &NodeRecord, live: bool) -> NodeEntry {
    let connections = node.connections.iter().map(|address| {
        let NodeAddress { endpoint, mtls_required, external_endpoint, group } = address.clone();
        let (local_endpoint, group_name) = (None, group);
        ConnectionDetails { endpoint, mtls_required, local_endpoint, external_endpoint, group_name }
    });
    let status = if live { NodeStatus::Connected } else { NodeStatus::NotConnected };
    NodeEntry { id: node.id.clone(), connections: connections.collect(), status: status.into() }
}

/// The stream of a node that is known.
pub(super) fn stream(hub: &Hub, id: &str) -> Result<Arc<Stream>, Status> {
    if hub.read(|model| model.node(id).is_none()) {
        return Err(unknown_node(id));
    }
    hub.stream(id).ok_or_else(|| not_connected(id))
}

pub(super) async fn connections(hub: &Hub, id: &str) -> Result<ConnectionListResponse, Status> {
    let stream = stream(hub, id)?;
    let listed = stream.connections(Instant::now() + LIST).await;
    let entries = complete(&stream, listed, "ConnectionListResponse").await?;
    Ok(ConnectionListResponse { entries })
}

pub(super) async fn subscriptions(hub: &Hub, id: &str) -> Result<SubscriptionListResponse, Status> {
    let stream = stream(hub, id)?;
    let listed = stream.subscriptions(Instant::now() + LIST).await;
    let entries = complete(&stream, listed, "SubscriptionListResponse").await?;
    Ok(SubscriptionListResponse { entries })
}

async fn complete<T>(
    stream: &Stream,
    listed: Result<Option<Vec<T>>, Unanswered>,
    kind: &str,
) -> Result<Vec<T>, Status> {
    match listed {
        Ok(Some(entries)) => Ok(entries),
        Ok(None) if stream.is_alive(PROBE).await => Ok(Vec::new()),
        Ok(None) | Err(Unanswered::Silent) => Err(Status::deadline_exceeded(format!(
            "failed to receive {kind}: timeout waiting for message of type {kind}"
        ))),
        Err(Unanswered::Ended) => Err(not_connected(&stream.node)),
        Err(Unanswered::Busy) => {
            Err(Status::resource_exhausted(format!("node {} is asked too much", stream.node)))
        }
    }
}

/// A node that is still running registers again.
pub(super) fn deregister(hub: &Hub, id: &str) -> Result<DeregisterNodeResponse, Status> {
    match hub.remove(id)? {
        true => {
            info!(node_id = id, "Node removed");
            Ok(DeregisterNodeResponse { success: true })
        }
        false => Err(unknown_node(id)),
    }
}
