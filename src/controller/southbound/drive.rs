//! Tells a node what is wanted of it, and looks at what it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slim_compat_grpc::proto::southbound::control_message::Payload;
use slim_compat_grpc::proto::southbound::{Ack, ConfigurationCommand};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::lists::Listed;
use super::stream::message;
use super::{Stream, Unanswered};
use crate::controller::hub::Hub;
use crate::controller::model::{Answer, Due};

/// How long a node may take to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Sends commands to a node, one after the other, until its stream ends.
pub(super) async fn drive(hub: Arc<Hub>, stream: Arc<Stream>) {
    let mut changes = hub.changes();
    let (id, generation) = (&*stream.node, stream.generation);
    info!(node_id = id, "Sending routes to registered node {id}");
    loop {
        changes.mark_unchanged();
        let next = |model: &mut crate::controller::model::Model| {
            model.next_command(id, generation, Instant::now())
        };
        if let Some(command) = hub.quietly(next) {
            let Some(answer) = tell(&stream, command).await else { return };
            hub.update(|model| model.answered(id, generation, &answer, Instant::now()));
            continue;
        }
        let due = hub.quietly(|model| model.due(id, generation, Instant::now()));
        let at = match due {
            Some(Due::Now) => continue,
            Some(Due::At(at)) => Some(at),
            None => None,
        };
        let timer = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stream.ended.cancelled() => return,
            () = timer => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// The node's answer to a command; `None` if its stream has ended.
async fn tell(stream: &Stream, command: ConfigurationCommand) -> Option<Answer> {
    let connections = command.connections_to_create.len();
    let (set, delete) = (command.subscriptions_to_set.len(), command.subscriptions_to_delete.len());
    let message = message(Payload::ConfigCommand(command));
    let (id, node) = (message.message_id.clone(), &*stream.node);
    info!(
        connections_count = connections,
        message_id = id,
        node_id = node,
        subscriptions_count = set,
        subscriptions_to_delete_count = delete,
        "Sending configuration command to registered node"
    );
    let answer = match stream.ask_message(message, Instant::now() + ANSWER).await {
        Ok(Payload::Ack(Ack { success: true, messages, .. })) => {
            let messages = messages.join(" ");
            info!(
                ack_messages = %format_args!("[{messages}]"),
                node_id = node,
                original_message_id = id,
                "Sending routes completed successfully"
            );
            return Some(Answer::Done);
        }
        Ok(Payload::Ack(Ack { messages, .. })) => Answer::Failed(messages.join("; ")),
        Ok(Payload::ConfigCommandAck(ack)) => {
            let links = ack.connections_status.iter().filter(|link| !link.success).count();
            let routes = ack.subscriptions_status.iter().filter(|route| !route.success).count();
            if links + routes == 0 {
                info!(
                    ack_messages = "[]",
                    node_id = node,
                    original_message_id = id,
                    "Sending routes completed successfully"
                );
            } else {
                warn!(
                    connections_failed = links,
                    node_id = node,
                    original_message_id = id,
                    subscriptions_failed = routes,
                    "Sending routes completed with failures"
                );
            }
            return Some(Answer::Detailed(ack));
        }
        Ok(_) => Answer::Failed("the node answered with something else".into()),
        Err(Unanswered::Ended) => return None,
        Err(Unanswered::Silent | Unanswered::Busy) => Answer::Silence,
    };
    warn!(answer = ?answer, node_id = node, original_message_id = id, "Sending routes failed");
    Some(answer)
}

/// Looks at what a node has: when it registers, when it asks for that, and now and then.
pub(super) async fn survey(hub: Arc<Hub>, stream: Arc<Stream>) {
    let mut sweeps = tokio::time::interval(hub.settings.sweep);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if stream.is_complete {
        // It reports by itself, and is told everything now.
        sweeps.tick().await;
    }
    loop {
        tokio::select! {
            () = stream.ended.cancelled() => return,
            _ = sweeps.tick() => {}
            () = stream.survey.notified() => {}
        }
        if look(&hub, &stream).await == Err(Unanswered::Ended) {
            return;
        }
    }
}

async fn look(hub: &Hub, stream: &Stream) -> Result<(), Unanswered> {
    let (id, generation) = (&*stream.node, stream.generation);
    let (asked, mark) = hub.read(|model| (model.sequence(), model.mark_of(id)));
    let entries = match stream.subscriptions(Instant::now() + ANSWER).await {
        Ok(Some(entries)) => entries,
        // Every published node has an entry of its own: it is silent, not empty.
        Ok(None) | Err(Unanswered::Silent) => {
            warn!(node_id = id, "A node does not say which routes it has");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Listed { clients, routes } = Listed::of(entries);
    let missing = hub.update(|model| {
        if !stream.is_complete {
            model.listed(id, generation, &clients, asked);
        }
        model.compare(id, generation, &routes, mark)
    });
    if missing > 0 {
        warn!(missing, node_id = id, "A node lacks routes that it was told, it is told again");
    }
    Ok(())
}
