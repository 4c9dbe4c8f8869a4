use std::time::{Duration, Instant};

use slim_compat_grpc::proto::northbound::{CreateChannelResponse, ListChannelsResponse};
use slim_compat_grpc::proto::southbound as south;
use slim_compat_grpc::proto::southbound::Ack;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::routes::room_for;
use super::{LIMIT, Northbound, REPORTS, success};
use crate::controller::model::Model;
use crate::controller::name::{RouteName, draw_channel};
use crate::controller::southbound::{Stream, Unanswered};
use crate::controller::store::{Change, ChannelRecord, StoreError};

/// How long a node may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Names of moderators of one channel.
const MODERATORS: usize = 64;

impl Northbound {
    pub(super) fn channels(&self) -> ListChannelsResponse {
        let channel_id = self.hub().read(|model| {
            let channels = model.state().channels.values();
            channels.filter(|made| !made.pending).map(|made| made.name.clone()).collect()
        });
        ListChannelsResponse { channel_id }
    }

    /// A channel that is known to have been made, by its name.
    pub(super) fn channel(&self, name: &str) -> Result<ChannelRecord, Status> {
        let channel = self.kept(name)?;
        if channel.pending { Err(unknown_channel(name)) } else { Ok(channel) }
    }

    /// A channel that may have been made, by its name.
    fn kept(&self, name: &str) -> Result<ChannelRecord, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument("channel ID cannot be empty"));
        }
        let channel = self.hub().read(|model| model.state().channels.get(name).cloned());
        channel.ok_or_else(|| unknown_channel(name))
    }

    pub(super) async fn create(
        &self,
        mut moderators: Vec<String>,
    ) -> Result<CreateChannelResponse, Status> {
        let deadline = Instant::now() + LIMIT;
        let Some(first) = moderators.first().filter(|_| moderators.len() <= MODERATORS) else {
            let text = format!("expected 1 to {MODERATORS} moderators, got {}", moderators.len());
            return Err(Status::invalid_argument(text));
        };
        for moderator in &moderators[1..] {
            RouteName::four(moderator).map_err(|error| unusable(&error.to_string()))?;
        }
        let moderator = self.moderator(first).await?;
        moderators[0] = moderator.to_string();
        let stream = self.node_of(&moderator).await?;
        let name = draw_channel(&moderator);
        let _turn = self.turn(&name, deadline).await?;
        let record = ChannelRecord {
            name: name.clone(),
            moderators: moderators.clone(),
            participants: Vec::new(),
            pending: true,
            invited: Vec::new(),
        };
        self.hub().read(|model| room_for(&name, &model.state().channels, CHANNELS, "channels"))?;
        self.keep(Change::PutChannel(record))?;
        let order = south::CreateChannelRequest {
            moderators: moderators.clone(),
            channel_name: name.clone(),
        };
        let order = Payload::CreateChannelRequest(order);
        if let Err(error) = obey(&stream, order, deadline, "failed to create channel").await {
            if is_unknown(&error) {
                // It may have been made all the same.
                let channel_name = name.clone();
                let order = south::DeleteChannelRequest { channel_name, moderators };
                let order = Payload::DeleteChannelRequest(order);
                if obey(&stream, order, deadline, "failed to delete channel").await.is_err() {
                    let text = format!("channel {name} may have been made, it can be deleted");
                    return Err(Status::new(error.code(), format!("{}; {text}", error.message())));
                }
            }
            self.keep(Change::DeleteChannel(name))?;
            return Err(error);
        }
        self.change_channel(&name, |channel| channel.pending = false)?;
        debug!("Channel created successfully: {name}");
        debug!("Channel saved successfully.");
        Ok(CreateChannelResponse { channel_id: name })
    }

    /// The moderator with its instance. Without one it is that of the only client of this name.
    async fn moderator(&self, text: &str) -> Result<RouteName, Status> {
        let wrong = match RouteName::four(text) {
            Ok(name) => return Ok(name),
            Err(error) => unusable(&error.to_string()),
        };
        let name = RouteName::three(text).map_err(|_| wrong)?;
        let candidates = |model: &Model| {
            let live = model.hosts(&name).into_iter().filter(|host| host.live.is_some());
            let mut instances: Vec<_> = live.filter_map(|host| host.name.instance).collect();
            instances.sort_unstable();
            instances.dedup();
            instances
        };
        let told = |model: &mut Model| model.all_told().then_some(());
        self.hub().until(Instant::now() + REPORTS, told).await;
        self.await_client(&name).await;
        let instances = self.hub().read(candidates);
        match *instances {
            [instance] => Ok(RouteName { instance: Some(instance), ..name }),
            [] => Err(Status::failed_precondition(format!(
                "moderator {text} not found: no client of a connected node has this name"
            ))),
            _ => {
                let names = instances.iter().map(|instance| format!("{text}/{instance}"));
                let names: Vec<_> = names.collect();
                Err(Status::failed_precondition(format!(
                    "moderator {text} is not unique, name one of {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// The stream of the node where the moderator is.
    pub(super) async fn node_of(
        &self,
        moderator: &RouteName,
    ) -> Result<std::sync::Arc<Stream>, Status> {
        self.await_client(moderator).await;
        let node = self.hub().read(|model| model.host_of(moderator).map(|host| host.node));
        if let Some(stream) = node.and_then(|node| self.hub().stream(&node)) {
            return Ok(stream);
        }
        Err(self.hub().read(|model| {
            let hosts = model.hosts(moderator);
            if let Some(host) = hosts.first() {
                let node = &host.node;
                Status::unavailable(format!(
                    "moderator {moderator}: node {node} is not connected, current status: \
                     not_connected"
                ))
            } else if model.has_live_nodes() {
                Status::not_found(format!(
                    "moderator {moderator} not found: no client of a connected node has this name"
                ))
            } else {
                Status::unavailable(format!("no nodes available for moderator {moderator}"))
            }
        }))
    }

    pub(super) async fn delete(&self, name: &str) -> Result<Ack, Status> {
        let deadline = Instant::now() + LIMIT;
        let _turn = self.turn(name, deadline).await?;
        let channel = self.kept(name)?;
        let moderator = moderator_of(&channel)?;
        let stream = match self.node_of(&moderator).await {
            Ok(stream) => stream,
            Err(error) if self.is_gone(&moderator) => return self.forget(name, &error),
            Err(error) => return Err(error),
        };
        let (channel_name, moderators) = (name.to_owned(), channel.moderators.clone());
        let order = south::DeleteChannelRequest { channel_name, moderators };
        let order = Payload::DeleteChannelRequest(order);
        match obey(&stream, order, deadline, "failed to delete channel").await {
            Ok(()) => debug!("Ack message received, channel deleted successfully."),
            Err(error) if error.code() == Code::NotFound => return self.forget(name, &error),
            Err(error) => return Err(error),
        }
        for participant in channel.participants.iter().chain(&channel.invited) {
            let Ok(other) = RouteName::three(participant) else { continue };
            if self.joined(name, &other, false, deadline).await == Some(false) {
                return Err(Status::deadline_exceeded(format!(
                    "participant {participant} has not left channel {name} yet, it is being deleted"
                )));
            }
        }
        self.keep(Change::DeleteChannel(name.to_owned()))?;
        debug!("Channel deleted successfully.");
        Ok(success())
    }

    /// Removes the record of a channel that nobody can end any more.
    fn forget(&self, name: &str, error: &Status) -> Result<Ack, Status> {
        self.keep(Change::DeleteChannel(name.to_owned()))?;
        let text = format!("only the record of the channel was removed: {}", error.message());
        warn!(channel = name, "Channel deleted, but {text}");
        Ok(Ack { messages: vec![text], ..success() })
    }

    fn is_gone(&self, moderator: &RouteName) -> bool {
        self.hub().read(|model| model.hosts(moderator).is_empty() && model.has_heard_of_all())
    }

    fn keep(&self, change: Change) -> Result<(), StoreError> {
        self.hub().commit(|_| Ok((vec![change], ())))
    }

    /// Changes the record of a channel, as it is by then and if it is there.
    pub(super) fn change_channel(
        &self,
        name: &str,
        change: impl FnOnce(&mut ChannelRecord),
    ) -> Result<(), StoreError> {
        self.hub().commit(|model| {
            let Some(record) = model.state().channels.get(name) else {
                return Ok((Vec::new(), ()));
            };
            let mut changed = record.clone();
            change(&mut changed);
            let differs = changed != *record;
            Ok((differs.then_some(Change::PutChannel(changed)).into_iter().collect(), ()))
        })
    }
}

fn unknown_channel(name: &str) -> Status {
    Status::not_found(format!(
        "failed to get channel: failed to get channel: channel with ID {name} not found"
    ))
}

/// Whether what was asked for may have been done all the same.
pub(super) fn is_unknown(error: &Status) -> bool {
    matches!(error.code(), Code::DeadlineExceeded | Code::Unavailable)
}

fn unusable(error: &str) -> Status {
    Status::invalid_argument(format!(
        "failed to get available node for channel creation: failed to parse moderator route: {error}"
    ))
}

/// The moderator that was given first, which is the one.
pub(super) fn moderator_of(channel: &ChannelRecord) -> Result<RouteName, Status> {
    let first = channel.moderators.first().map(String::as_str).unwrap_or_default();
    RouteName::four(first).map_err(|error| unusable(&error.to_string()))
}

/// Channels that operators may have at a time.
const CHANNELS: usize = 65_536;

/// Characters of a node's own words that callers get to see.
const SAID: usize = 512;

/// Has a node do something, and waits for its word on it.
pub(super) async fn obey(
    stream: &Stream,
    order: Payload,
    deadline: Instant,
    what: &str,
) -> Result<(), Status> {
    let deadline = deadline.min(Instant::now() + ANSWER);
    match stream.ask(order, deadline).await {
        Ok(Payload::Ack(Ack { success: true, .. })) => Ok(()),
        Ok(Payload::Ack(Ack { messages, code, .. })) => {
            let code = match Code::from(i32::try_from(code).unwrap_or_default()) {
                Code::Ok => Code::FailedPrecondition,
                code => code,
            };
            let said: String = messages.join(" ").chars().take(SAID).collect();
            Err(Status::new(code, format!("{what}: [{said}]")))
        }
        Ok(_) => Err(Status::internal(format!("{what}: the node answered with something else"))),
        Err(Unanswered::Silent) => Err(Status::deadline_exceeded(format!(
            "{what}: timeout waiting for message of type ACK"
        ))),
        Err(Unanswered::Ended) => Err(super::not_connected(&stream.node)),
        Err(Unanswered::Busy) => Err(Status::resource_exhausted(format!(
            "{what}: node {} is asked too much",
            stream.node
        ))),
    }
}
