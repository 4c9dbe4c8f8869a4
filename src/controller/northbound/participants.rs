use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use slim_compat_grpc::proto::northbound::ListParticipantsResponse;
use slim_compat_grpc::proto::southbound as south;
use slim_compat_grpc::proto::southbound::Ack;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use tonic::{Code, Status};
use tracing::debug;

use super::channels::{ANSWER, moderator_of, obey};
use super::{LIMIT, Northbound, success};
use crate::controller::model::Model;
use crate::controller::name::RouteName;
use crate::controller::southbound::Stream;
use crate::controller::store::{Change, ChannelRecord};

/// Participants of one channel.
const PARTICIPANTS: usize = 10_000;

/// Pauses between questions whether somebody has joined or left.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Northbound {
    pub(super) fn participants(&self, channel: &str) -> Result<ListParticipantsResponse, Status> {
        let wanted = self.channel(channel)?.participants.into_iter();
        let confirmed = wanted.filter(|name| self.is_confirmed(channel, Some(name)));
        Ok(ListParticipantsResponse { participant_id: confirmed.collect() })
    }

    pub(super) async fn add(&self, channel: &str, participant: &str) -> Result<Ack, Status> {
        let deadline = Instant::now() + LIMIT;
        let _turn = self.turn(channel, deadline).await?;
        let record = self.channel(channel)?;
        if participant.is_empty() {
            return Err(Status::invalid_argument("participant ID cannot be empty"));
        }
        let invalid = |error| format!("invalid participant name: {error}");
        let name = RouteName::three(participant);
        let name = name.map_err(|error| Status::invalid_argument(invalid(error)))?;
        if record.participants.iter().any(|other| other == participant) {
            let text = format!("participant {participant} already exists in channel {channel}");
            return Err(Status::already_exists(text));
        }
        if record.participants.len() >= PARTICIPANTS {
            let text = format!("channel {channel} has {PARTICIPANTS} participants already");
            return Err(Status::resource_exhausted(text));
        }
        let stream = self.node_of(&moderator_of(&record)?).await?;
        self.is_somewhere(&name).await?;
        let unconfirmed = self.unconfirmed(channel, Some(participant));
        let mut wanted = record.clone();
        wanted.participants.push(participant.to_owned());
        self.keep(Change::PutChannel(wanted))?;
        if let Err(error) = self.invite(&stream, &record, participant, deadline).await {
            self.keep(Change::PutChannel(record))?;
            return Err(error);
        }
        drop(unconfirmed);
        debug!("Channel updated, participant added successfully.");
        Ok(success())
    }

    /// Refuses a name that surely nobody has, before anything is sent.
    async fn is_somewhere(&self, name: &RouteName) -> Result<(), Status> {
        self.await_client(name).await;
        let nowhere = self.hub().read(|model| {
            let there = model.hosts(name).iter().any(|host| host.live.is_some());
            !there && model.knows_all_clients()
        });
        match nowhere {
            true => Err(Status::not_found(format!(
                "participant {name} not found: no client has subscribed to this name"
            ))),
            false => Ok(()),
        }
    }

    async fn invite(
        &self,
        stream: &Stream,
        channel: &ChannelRecord,
        participant: &str,
        deadline: Instant,
    ) -> Result<(), Status> {
        let order = south::AddParticipantRequest {
            channel_name: channel.name.clone(),
            participant_name: participant.to_owned(),
            moderators: channel.moderators.clone(),
        };
        let order = Payload::AddParticipantRequest(order);
        match obey(stream, order, deadline, "failed to add participant").await {
            // Somebody else invited it, or an earlier call whose end was not seen.
            Err(error) if error.code() == Code::AlreadyExists => {}
            result => result?,
        }
        debug!("Ack message received, participant added successfully.");
        match self.joined(&channel.name, participant, true, deadline).await {
            Some(false) => Err(Status::deadline_exceeded(format!(
                "participant {participant} did not join channel {}",
                channel.name
            ))),
            Some(true) | None => Ok(()),
        }
    }

    pub(super) async fn remove(&self, channel: &str, participant: &str) -> Result<Ack, Status> {
        let deadline = Instant::now() + LIMIT;
        let _turn = self.turn(channel, deadline).await?;
        let mut record = self.channel(channel)?;
        if participant.is_empty() {
            return Err(Status::invalid_argument("participant ID cannot be empty"));
        }
        let Some(place) = record.participants.iter().position(|other| other == participant) else {
            let text = format!("participant {participant} not found in channel {channel}");
            return Err(Status::not_found(text));
        };
        let stream = self.node_of(&moderator_of(&record)?).await?;
        let order = south::DeleteParticipantRequest {
            channel_name: channel.to_owned(),
            participant_name: participant.to_owned(),
            moderators: record.moderators.clone(),
        };
        let order = Payload::DeleteParticipantRequest(order);
        match obey(&stream, order, deadline, "failed to delete participant").await {
            // It has left by itself.
            Err(error) if error.code() == Code::NotFound => {}
            result => result?,
        }
        debug!("Ack message received, participant deleted successfully.");
        if self.joined(channel, participant, false, deadline).await == Some(false) {
            let text = format!("participant {participant} has not left channel {channel} yet");
            return Err(Status::deadline_exceeded(text));
        }
        record.participants.remove(place);
        self.keep(Change::PutChannel(record))?;
        debug!("Channel updated, participant deleted successfully.");
        Ok(success())
    }

    /// Whether a participant is in a channel, or, with `wanted` false, is not, by `deadline`;
    /// `None` if nobody can tell: a client at a published node may be the one.
    pub(super) async fn joined(
        &self,
        channel: &str,
        participant: &str,
        wanted: bool,
        deadline: Instant,
    ) -> Option<bool> {
        let name = RouteName::three(participant).ok()?;
        let deadline = deadline.min(Instant::now() + ANSWER);
        let mut pause = FIRST_PAUSE;
        loop {
            let streams = self.nodes_with(&name)?;
            let questions =
                streams.iter().map(|stream| ask(stream, channel, participant, deadline));
            // A node that does not answer has told nothing: neither that it is, nor that it is not.
            let answers = join_all(questions).await;
            let reached = match wanted {
                true => answers.contains(&Some(true)),
                false => answers.iter().all(|answer| *answer == Some(false)),
            };
            if reached {
                return Some(true);
            }
            if Instant::now() + pause >= deadline {
                return Some(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The streams of all nodes that have this client; `None` if one of them cannot tell who is in
    /// a channel.
    fn nodes_with(&self, name: &RouteName) -> Option<Vec<Arc<Stream>>> {
        let mut nodes: Vec<_> = self.hub().read(|model| model.hosts(name));
        nodes.retain(|host| host.live.is_some());
        if nodes.iter().any(|host| !host.is_complete) {
            return None;
        }
        // Not there at all, as far as nodes that do not report everything are asked.
        if nodes.is_empty() && !self.hub().read(Model::knows_all_clients) {
            return None;
        }
        nodes.dedup_by(|one, other| one.node == other.node);
        Some(nodes.iter().filter_map(|host| self.hub().stream(&host.node)).collect())
    }
}

async fn ask(stream: &Stream, channel: &str, participant: &str, deadline: Instant) -> Option<bool> {
    let (channel_name, participant_name) = (channel.to_owned(), participant.to_owned());
    let question = south::MembershipRequest { channel_name, participant_name };
    match stream.ask(Payload::MembershipRequest(question), deadline).await {
        Ok(Payload::MembershipResponse(answer)) => Some(answer.joined),
        _ => None,
    }
}
