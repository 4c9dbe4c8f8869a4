use std::sync::Arc;

use slim_compat_grpc::proto::southbound::{
    Ack, ConfigurationCommand, ConnectionDetails, ConnectionListResponse, ControlMessage,
    MembershipResponse, RegisterNodeRequest, ReportsComplete, Subscription,
    SubscriptionListResponse, control_message::Payload,
};
use slim_compat_grpc::{Subscription as Change, new_message_id};
use slim_wire::TextName;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tonic::Status;

use super::commands::Commands;
use super::links::ControllerId;
use super::lists;
use super::names::Names;
use crate::version::Version;

/// What a node says of itself.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) node_id: String,
    pub(super) group_name: Option<String>,
    pub(super) connection_details: Vec<ConnectionDetails>,
}

/// One stream of a controller: what it asks for is done, and it is told of this node's clients.
pub(super) struct Session {
    pub(super) controller: ControllerId,
    pub(super) commands: Arc<Commands>,
    pub(super) out: mpsc::Sender<ControlMessage>,
    /// Commands of this stream that may be under way at a time.
    pub(super) under_way: Arc<Semaphore>,
}

/// Commands of one stream that may be under way; more are left unread.
pub(super) const UNDER_WAY: usize = 64;

/// Names per report, and entries per message of a list, as in release 0.6.
const CHUNK: usize = 100;

/// The stream has ended: nobody takes answers any more.
pub(super) struct Closed;

impl Session {
    /// Introduces this node, then tells of its clients for as long as the stream lasts.
    pub(super) async fn report(
        &self,
        registration: Registration,
        names: &Names,
    ) -> Result<(), Closed> {
        let Registration { node_id, group_name, connection_details } = registration;
        let product = Some(format!("slim-quic/{}", Version::NUMBER));
        let request = RegisterNodeRequest { node_id, connection_details, group_name, product };
        self.send(Payload::RegisterNodeRequest(request)).await?;
        let (known, mut changes) = names.follow();
        for known in known.chunks(CHUNK) {
            self.tell(known.iter().map(|name| (Change::Made, &**name))).await?;
        }
        self.send(Payload::ReportsComplete(ReportsComplete {})).await?;
        self.follow(&mut changes).await
    }

    /// Tells of changes. Once some were missed the stream has to end: with the next registration the
    /// controller forgets what is not reported again.
    async fn follow(
        &self,
        changes: &mut broadcast::Receiver<(Change, Arc<TextName>)>,
    ) -> Result<(), Closed> {
        loop {
            let first = tokio::select! {
                change = changes.recv() => change,
                () = self.out.closed() => return Err(Closed),
            };
            match first {
                Ok(first) => {
                    let mut batch = vec![first];
                    while let (true, Ok(next)) = (batch.len() < CHUNK, changes.try_recv()) {
                        batch.push(next);
                    }
                    self.tell(batch.iter().map(|(change, name)| (*change, &**name))).await?;
                }
                // Or the node stops.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return Err(Closed),
            }
        }
    }

    /// Reports of changes. Receivers take what is set before what is deleted, so a name that is in
    /// both waits for the next message.
    async fn tell<'a>(
        &self,
        changes: impl Iterator<Item = (Change, &'a TextName)>,
    ) -> Result<(), Closed> {
        let mut report = ConfigurationCommand::default();
        for (change, name) in changes {
            let entry = reported(name);
            let (to, other) = match change {
                Change::Made => (&mut report.subscriptions_to_set, &report.subscriptions_to_delete),
                Change::TakenBack => {
                    (&mut report.subscriptions_to_delete, &report.subscriptions_to_set)
                }
            };
            if other.contains(&entry) {
                let entries = std::mem::take(&mut report);
                self.send(Payload::ConfigCommand(entries)).await?;
                match change {
                    Change::Made => report.subscriptions_to_set.push(entry),
                    Change::TakenBack => report.subscriptions_to_delete.push(entry),
                }
            } else {
                to.push(entry);
            }
        }
        self.send(Payload::ConfigCommand(report)).await
    }

    async fn send(&self, payload: Payload) -> Result<(), Closed> {
        let message =
            ControlMessage { message_id: new_message_id(rand::random()), payload: Some(payload) };
        self.out.send(message).await.map_err(|_| Closed)
    }

    /// Takes the next message of the controller. Configuration is changed in the order of the
    /// commands; each is answered when its result is known, and none waits for another's.
    pub(super) async fn take(&self, message: ControlMessage) -> Result<(), Closed> {
        let ControlMessage { message_id: id, payload } = message;
        let Ok(place) = Arc::clone(&self.under_way).acquire_owned().await else {
            return Err(Closed);
        };
        let (commands, out) = (Arc::clone(&self.commands), self.out.clone());
        let answer = move |payload| async move {
            let message = ControlMessage {
                message_id: new_message_id(rand::random()),
                payload: Some(payload),
            };
            // The stream may have ended meanwhile.
            let _ = out.send(message).await;
            drop(place);
        };
        match payload {
            Some(Payload::ConfigCommand(command)) => {
                let rest = commands.configure(self.controller, &id, command).await;
                tokio::spawn(async move { answer(rest.await).await });
            }
            Some(Payload::SubscriptionListRequest(_)) => {
                let entries = lists::subscriptions(&commands).await;
                return self
                    .list(entries, |entries_or_id| {
                        let later_entries = Vec::new();
                        Payload::SubscriptionListResponse(SubscriptionListResponse {
                            entries_or_id,
                            later_entries,
                        })
                    })
                    .await;
            }
            Some(Payload::ConnectionListRequest(_)) => {
                let entries = lists::connections(&commands).await;
                return self
                    .list(entries, |entries_or_id| {
                        let later_entries = Vec::new();
                        Payload::ConnectionListResponse(ConnectionListResponse {
                            entries_or_id,
                            later_entries,
                        })
                    })
                    .await;
            }
            Some(payload) => {
                tokio::spawn(async move {
                    if let Some(payload) = on_group(&commands, &id, payload).await {
                        answer(payload).await;
                    }
                });
            }
            None => {}
        }
        Ok(())
    }

    /// Answers with a list, in messages of a hundred entries; an empty one is one message.
    async fn list(
        &self,
        entries: Vec<impl prost::Message>,
        of: impl Fn(Vec<bytes::Bytes>) -> Payload,
    ) -> Result<(), Closed> {
        let encoded: Vec<bytes::Bytes> =
            entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
        if encoded.is_empty() {
            return self.send(of(Vec::new())).await;
        }
        for chunk in encoded.chunks(CHUNK) {
            self.send(of(chunk.to_vec())).await?;
        }
        Ok(())
    }
}

/// Does a group command. Answers of the controller are not answered, and nor is what no node is
/// asked for.
async fn on_group(commands: &Commands, id: &str, payload: Payload) -> Option<Payload> {
    Some(match payload {
        Payload::CreateChannelRequest(request) => {
            commands.create_channel(id, &request.moderators, &request.channel_name).await
        }
        Payload::DeleteChannelRequest(request) => {
            commands.delete_channel(id, &request.moderators, &request.channel_name).await
        }
        Payload::AddParticipantRequest(request) => {
            let (moderators, participant) = (&request.moderators, &request.participant_name);
            commands.add_participant(id, moderators, &request.channel_name, participant).await
        }
        Payload::DeleteParticipantRequest(request) => {
            let (moderators, participant) = (&request.moderators, &request.participant_name);
            commands.delete_participant(id, moderators, &request.channel_name, participant).await
        }
        Payload::MembershipRequest(request) => {
            let joined = commands.is_member(&request.channel_name, &request.participant_name);
            Payload::MembershipResponse(MembershipResponse {
                original_message_id: id.to_owned(),
                joined: joined.await,
            })
        }
        Payload::ListChannelRequest(_)
        | Payload::ListParticipantsRequest(_)
        | Payload::RegisterNodeRequest(_)
        | Payload::DeregisterNodeRequest(_) => {
            let status = Status::unimplemented("asked of a node, expected of a controller");
            Payload::Ack(refusal(id, &status))
        }
        _ => return None,
    })
}

fn refusal(id: &str, status: &Status) -> Ack {
    Ack {
        original_message_id: id.to_owned(),
        success: false,
        messages: vec![status.message().to_owned()],
        code: i32::from(status.code()).unsigned_abs(),
    }
}

/// A name as nodes report it: without an instance it has the null id.
fn reported(name: &TextName) -> Subscription {
    let [component_0, component_1, component_2] = name.components().map(str::to_owned);
    Subscription {
        component_0,
        component_1,
        component_2,
        id: name.id().to_u64(),
        connection_id: "n/a".to_owned(),
        node_id: None,
    }
}
