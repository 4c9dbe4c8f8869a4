//! The life of one stream, from its first message to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{
    Ack, ConfigurationCommand, ControlMessage, DeregisterNodeResponse, ListChannelsResponse,
    ListParticipantsResponse,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, error, info, warn};

use super::stream::message;
use super::{Stream, drive, registration};
use crate::controller::hub::{Hub, Refused};
use crate::controller::model::Reported;
use crate::controller::name::RouteName;
use crate::controller::store::NodeRecord;

/// How long a newcomer may take to register.
const REGISTRATION: Duration = Duration::from_secs(15);

/// How long the stream of a node is given to show that it is alive when another comes with its id.
const PROBE: Duration = Duration::from_secs(5);

/// How long a refused stream is held: published nodes come back without a pause.
const HOLD: Duration = Duration::from_secs(4);

/// What nodes write as connection in a report.
const REPORT: &str = "n/a";

/// Serves a stream until it ends, always without an error.
pub(super) async fn run(
    hub: &Arc<Hub>,
    mut inbound: Streaming<ControlMessage>,
    peer: IpAddr,
    out: mpsc::Sender<ControlMessage>,
    ended: CancellationToken,
) {
    let stream = tokio::select! {
        stream = open(hub, &mut inbound, peer, &out, &ended) => stream,
        () = ended.cancelled() => return,
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(reason) => {
            warn!(svc = "southbound", %peer, reason, "Node refused");
            let messages = vec![reason];
            let refusal = Ack { success: false, messages, ..Ack::default() };
            let _ = out.try_send(message(Payload::Ack(refusal)));
            let _ = timeout(HOLD, ended.cancelled()).await;
            return;
        }
    };
    // From here on the stream ends when it is told to, not when its queue does.
    drop(out);
    hub.tasks.spawn(drive::drive(Arc::clone(hub), Arc::clone(&stream)));
    hub.tasks.spawn(drive::survey(Arc::clone(hub), Arc::clone(&stream)));
    loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            () = stream.ended.cancelled() => break,
        };
        match message {
            Ok(Some(message)) => {
                stream.hear();
                if !handle(hub, &stream, message).await {
                    stream.flush().await;
                    break;
                }
            }
            Ok(None) => break,
            Err(status) => {
                debug!(node_id = stream.node, reason = status.message(), "Stream of a node broke");
                break;
            }
        }
    }
    hub.lose(&stream);
    info!(svc = "southbound", node_id = stream.node, "Node disconnected");
}

/// Registers the node, or says why not.
async fn open(
    hub: &Arc<Hub>,
    inbound: &mut Streaming<ControlMessage>,
    peer: IpAddr,
    out: &mpsc::Sender<ControlMessage>,
    ended: &CancellationToken,
) -> Result<Arc<Stream>, String> {
    let first = timeout(REGISTRATION, inbound.message()).await;
    let first = first.map_err(|_| "no registration came in time".to_owned())?;
    let first = first.ok().flatten().and_then(|message| message.payload);
    let Some(Payload::RegisterNodeRequest(request)) = first else {
        return Err("expected a registration as first message".into());
    };
    let record = registration::record(request, peer)?;
    loop {
        let open = |generation| {
            let (id, is_complete) = (record.id.clone(), record.product.is_some());
            Stream::new(id, generation, is_complete, out.clone(), ended.clone())
        };
        match hub.register(&record, open) {
            Ok(stream) => {
                greet(&stream, &record);
                return Ok(stream);
            }
            Err(Refused::Taken(generation)) => fence(hub, &record.id, generation).await?,
            Err(Refused::Full) => return Err("there are too many nodes".into()),
            Err(Refused::Store(error)) => {
                error!(%error, node_id = record.id, "A node could not be kept");
                return Err("the controller cannot keep what it is told".into());
            }
        }
    }
}

/// Ends the stream that a node left behind, unless that is alive.
async fn fence(hub: &Hub, id: &str, generation: u64) -> Result<(), String> {
    let Some(last) = hub.stream(id).filter(|last| last.generation == generation) else {
        // It has just ended.
        tokio::task::yield_now().await;
        return Ok(());
    };
    if last.is_alive(PROBE).await {
        return Err(format!("a node with ID {id} is connected already"));
    }
    hub.lose(&last);
    Ok(())
}

fn greet(stream: &Stream, record: &NodeRecord) {
    let id = &record.id;
    info!(svc = "southbound", "Registering node with ID: {id}");
    for address in &record.connections {
        let shown = registration::shown(address);
        info!(svc = "southbound", "Connection details: [{shown}]");
    }
    let messages = vec!["Node registered successfully".to_owned()];
    stream.tell(Payload::Ack(Ack { success: true, messages, ..Ack::default() }));
    info!(node_id = id, service = "RouteService", "Create generic routes for node");
}

/// Takes a message of a registered node. Returns whether the stream goes on.
async fn handle(hub: &Hub, stream: &Stream, message: ControlMessage) -> bool {
    let Some(payload) = message.payload else { return true };
    match payload {
        Payload::ConfigCommand(report) => take_report(hub, stream, &report),
        Payload::ReportsComplete(_) => {
            hub.update(|model| model.complete(&stream.node, stream.generation));
        }
        Payload::Ack(ref ack) => stream.answer(&ack.original_message_id.clone(), payload),
        Payload::ConfigCommandAck(ref ack) => {
            stream.answer(&ack.original_message_id.clone(), payload);
        }
        Payload::MembershipResponse(ref membership) => {
            stream.answer(&membership.original_message_id.clone(), payload);
        }
        Payload::SubscriptionListResponse(_) | Payload::ConnectionListResponse(_) => {
            stream.chunk(payload).await;
        }
        Payload::DeregisterNodeRequest(_) => {
            stream.tell(Payload::DeregisterNodeResponse(DeregisterNodeResponse { success: true }));
            return false;
        }
        Payload::CreateChannelRequest(_)
        | Payload::DeleteChannelRequest(_)
        | Payload::AddParticipantRequest(_)
        | Payload::DeleteParticipantRequest(_) => {
            let messages = vec!["groups are managed by operators, not by nodes".to_owned()];
            let (original_message_id, success) = (message.message_id, false);
            let refusal = Ack { original_message_id, success, messages, ..Ack::default() };
            stream.tell(Payload::Ack(refusal));
        }
        Payload::ListChannelRequest(_) => {
            let channel_name = hub.read(|model| {
                let channels = model.state().channels.values();
                channels.filter(|made| !made.pending).map(|made| made.name.clone()).collect()
            });
            stream.tell(Payload::ListChannelResponse(ListChannelsResponse { channel_name }));
        }
        Payload::ListParticipantsRequest(request) => {
            let of = |name| hub.read(|model| model.state().channels.get(name).cloned());
            let participant_name =
                of(&request.channel_name).map_or_else(Vec::new, |channel| channel.participants);
            let list = ListParticipantsResponse { participant_name };
            stream.tell(Payload::ListParticipantsResponse(list));
        }
        Payload::RegisterNodeRequest(_)
        | Payload::RegisterNodeResponse(_)
        | Payload::DeregisterNodeResponse(_)
        | Payload::SubscriptionListRequest(_)
        | Payload::ConnectionListRequest(_)
        | Payload::ListChannelResponse(_)
        | Payload::ListParticipantsResponse(_)
        | Payload::MembershipRequest(_) => {
            debug!(node_id = stream.node, "Message of a node that makes no sense here");
        }
    }
    true
}

fn take_report(hub: &Hub, stream: &Stream, report: &ConfigurationCommand) {
    let names = |list: &'_ [_]| {
        let reported = list.iter().filter(|entry: &&_| is_report(entry));
        reported.filter_map(|entry| RouteName::of(entry).ok()).collect::<Vec<_>>()
    };
    let (set, gone) = (names(&report.subscriptions_to_set), names(&report.subscriptions_to_delete));
    let (id, generation) = (&*stream.node, stream.generation);
    let full = hub.update(|model| {
        let results = set.iter().map(|name| model.report(id, generation, name));
        let full = results.filter(|result| *result == Reported::Full).count();
        if stream.is_complete {
            gone.iter().for_each(|name| model.withdraw(id, generation, name));
        }
        full
    });
    if full > 0 {
        warn!(node_id = id, names = full, "A node reports more names than are kept");
    }
    if !stream.is_complete && !gone.is_empty() {
        // Published nodes report the first of several clients that leave. Their list is right.
        stream.survey.notify_one();
    }
}

fn is_report(subscription: &slim_compat_grpc::proto::southbound::Subscription) -> bool {
    subscription.connection_id == REPORT
}
