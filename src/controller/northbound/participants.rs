use std::time::{Duration, Instant};

use slim_compat_grpc::proto::northbound::ListParticipantsResponse;
use slim_compat_grpc::proto::southbound as south;
use slim_compat_grpc::proto::southbound::Ack;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use tonic::{Code, Status};
use tracing::debug;

use super::channels::{is_unknown, moderator_of, obey};
use super::membership::Membership;
use super::{LIMIT, Northbound, success};
use crate::controller::name::RouteName;
use crate::controller::southbound::Stream;
use crate::controller::store::{ChannelRecord, StoreError};

/// Participants of one channel.
const PARTICIPANTS: usize = 10_000;

/// Left of the time of a call to withdraw an invitation.
const WITHDRAWAL: Duration = Duration::from_secs(2);

impl Northbound {
    pub(super) fn participants(&self, channel: &str) -> Result<ListParticipantsResponse, Status> {
        Ok(ListParticipantsResponse { participant_id: self.channel(channel)?.participants })
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
        if record.participants.len() + record.invited.len() >= PARTICIPANTS {
            let text = format!("channel {channel} has {PARTICIPANTS} participants already");
            return Err(Status::resource_exhausted(text));
        }
        let was_invited = record.invited.iter().any(|other| other == participant);
        if was_invited && self.membership(channel, &name, deadline).await == Membership::In {
            self.confirm(channel, participant)?;
            return Ok(success());
        }
        let stream = self.node_of(&moderator_of(&record)?).await?;
        self.is_somewhere(&name).await?;
        if !was_invited {
            self.change_channel(channel, |record| record.invited.push(participant.to_owned()))?;
        }
        match self.invite(&stream, &record, &name, deadline).await {
            Ok(()) => self.confirm(channel, participant)?,
            Err(error) if is_unknown(&error) => {
                return Err(self.withdraw(&stream, &record, participant, error, deadline).await?);
            }
            Err(error) => {
                if !was_invited {
                    self.retract(channel, participant)?;
                }
                return Err(error);
            }
        }
        debug!("Channel updated, participant added successfully.");
        Ok(success())
    }

    /// Who was invited has joined.
    pub(super) fn confirm(&self, channel: &str, participant: &str) -> Result<(), StoreError> {
        self.change_channel(channel, |record| {
            let invited = record.invited.len();
            record.invited.retain(|other| other != participant);
            if record.invited.len() < invited {
                record.participants.push(participant.to_owned());
            }
        })
    }

    /// Nobody of this name is wanted in a channel any more.
    fn retract(&self, channel: &str, participant: &str) -> Result<(), StoreError> {
        self.change_channel(channel, |record| {
            record.invited.retain(|other| other != participant);
            record.participants.retain(|other| other != participant);
        })
    }

    /// Withdraws an invitation that nobody followed, or of which nothing is known. Moderators at
    /// published nodes could do nothing else any more if they were asked to remove somebody who
    /// did not join: there the invitation stays, and so does its record, for who joins late is to
    /// be listed then. Returns what to tell the operator.
    async fn withdraw(
        &self,
        stream: &Stream,
        channel: &ChannelRecord,
        participant: &str,
        error: Status,
        deadline: Instant,
    ) -> Result<Status, StoreError> {
        if stream.is_complete
            && obey(stream, removal(channel, participant), deadline, "").await.is_ok()
        {
            self.retract(&channel.name, participant)?;
            return Ok(error);
        }
        let text = "the invitation stands, and who joins late will be listed";
        Ok(Status::new(error.code(), format!("{}; {text}", error.message())))
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
        name: &RouteName,
        deadline: Instant,
    ) -> Result<(), Status> {
        let participant = name.to_string();
        let order = south::AddParticipantRequest {
            channel_name: channel.name.clone(),
            participant_name: participant.clone(),
            moderators: channel.moderators.clone(),
        };
        let order = Payload::AddParticipantRequest(order);
        match obey(stream, order, deadline, "failed to add participant").await {
            // Somebody else invited it, or an earlier call whose end was not seen.
            Err(error) if error.code() == Code::AlreadyExists => {}
            result => result?,
        }
        debug!("Ack message received, participant added successfully.");
        match self.joined(&channel.name, name, true, deadline - WITHDRAWAL).await {
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
        let record = self.channel(channel)?;
        if participant.is_empty() {
            return Err(Status::invalid_argument("participant ID cannot be empty"));
        }
        let is_invited = record.invited.iter().any(|other| other == participant);
        if !is_invited && !record.participants.iter().any(|other| other == participant) {
            let text = format!("participant {participant} not found in channel {channel}");
            return Err(Status::not_found(text));
        }
        let invalid = |error| format!("invalid participant name: {error}");
        let name = RouteName::three(participant);
        let name = name.map_err(|error| Status::invalid_argument(invalid(error)))?;
        let stream = self.node_of(&moderator_of(&record)?).await?;
        if is_invited
            && !stream.is_complete
            && self.membership(channel, &name, deadline).await == Membership::Out
        {
            return Err(Status::failed_precondition(format!(
                "participant {participant} has not joined channel {channel}, and the moderator's \
                 node {} cannot withdraw an invitation; delete the participant when it has \
                 joined, or the channel",
                stream.node
            )));
        }
        let order = removal(&record, participant);
        match obey(&stream, order, deadline, "failed to delete participant").await {
            // The moderator is not there, but the participant has left by itself.
            Err(error)
                if error.code() == Code::NotFound
                    && self.has_left(channel, &name, deadline).await => {}
            result => result?,
        }
        debug!("Ack message received, participant deleted successfully.");
        if self.joined(channel, &name, false, deadline).await == Some(false) {
            let text = format!("participant {participant} has not left channel {channel} yet");
            return Err(Status::deadline_exceeded(text));
        }
        self.retract(channel, participant)?;
        debug!("Channel updated, participant deleted successfully.");
        Ok(success())
    }
}

fn removal(channel: &ChannelRecord, participant: &str) -> Payload {
    Payload::DeleteParticipantRequest(south::DeleteParticipantRequest {
        channel_name: channel.name.clone(),
        participant_name: participant.to_owned(),
        moderators: channel.moderators.clone(),
    })
}
