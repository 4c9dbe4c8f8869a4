//! Who is in a channel, as nodes say it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use slim_compat_grpc::proto::southbound as south;
use slim_compat_grpc::proto::southbound::control_message::Payload;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::Northbound;
use super::channels::{ANSWER, moderator_of};
use crate::controller::model::Model;
use crate::controller::name::RouteName;
use crate::controller::southbound::Stream;
use crate::controller::store::{ChannelRecord, StoreError};

/// Pauses between questions whether somebody has joined or left.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether somebody is in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    /// A node says so.
    In,
    /// All connected nodes with such a client say that it is not.
    Out,
    /// A node that should know has not said it.
    Unsaid,
    /// Nobody can tell: a client at a published node may be the one.
    Unknowable,
}

/// What is kept of a channel and is not so, or not known to be so: the channel, and whom of it.
type Differences = BTreeSet<(String, String)>;

impl Northbound {
    /// Whether a client is in a channel now.
    pub(super) async fn membership(
        &self,
        channel: &str,
        name: &RouteName,
        deadline: Instant,
    ) -> Membership {
        let Some(streams) = self.nodes_with(name) else { return Membership::Unknowable };
        let deadline = deadline.min(Instant::now() + ANSWER);
        let questions = streams.iter().map(|stream| ask(stream, channel, name, deadline));
        let answers = join_all(questions).await;
        if answers.contains(&Some(true)) {
            Membership::In
        } else if answers.iter().all(|answer| *answer == Some(false)) {
            Membership::Out
        } else {
            // A node that does not answer has told nothing: neither that it is, nor that it is not.
            Membership::Unsaid
        }
    }

    /// Whether a client is in a channel, or, with `wanted` false, is not, by `deadline`; `None` if
    /// nobody can tell.
    pub(super) async fn joined(
        &self,
        channel: &str,
        name: &RouteName,
        wanted: bool,
        deadline: Instant,
    ) -> Option<bool> {
        let deadline = deadline.min(Instant::now() + ANSWER);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.membership(channel, name, deadline).await {
                Membership::Unknowable => return None,
                Membership::In if wanted => return Some(true),
                Membership::Out if !wanted => return Some(true),
                Membership::In | Membership::Out | Membership::Unsaid => {}
            }
            if Instant::now() + pause >= deadline {
                return Some(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether a client is surely in a channel no more: no node that may have it is away.
    pub(super) async fn has_left(
        &self,
        channel: &str,
        name: &RouteName,
        deadline: Instant,
    ) -> bool {
        self.membership(channel, name, deadline).await == Membership::Out
            && self.hub().read(|model| {
                let is_there = model.hosts(name).iter().all(|host| host.live.is_some());
                is_there && model.has_heard_of_all()
            })
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

    /// Compares what is kept of channels with what nodes say: once all have reported, and then now
    /// and then. Who joined late is listed from then on; all else that differs is only logged.
    pub(in crate::controller) async fn compare_memberships(self) {
        let period = self.hub().settings.sweep;
        let all = |model: &mut Model| model.has_heard_of_all().then_some(());
        self.hub().until(Instant::now() + period, all).await;
        let mut sweeps = tokio::time::interval(period);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut differences = Differences::new();
        loop {
            sweeps.tick().await;
            let channels: Vec<ChannelRecord> =
                self.hub().read(|model| model.state().channels.values().cloned().collect());
            let before = std::mem::take(&mut differences);
            for channel in channels {
                match self.compare(&channel, &before).await {
                    Ok(more) => differences.extend(more),
                    Err(error) => {
                        error!(%error, channel = channel.name, "A change could not be kept");
                    }
                }
            }
        }
    }

    /// Compares one channel. Logs what differs and did not differ `before`.
    async fn compare(
        &self,
        channel: &ChannelRecord,
        before: &Differences,
    ) -> Result<Differences, StoreError> {
        let mut differences = Differences::new();
        let mut differ = |participant: &str, text: &str| {
            // Of what is being changed nothing can be said.
            let is_same =
                self.hub().read(|model| model.state().channels.get(&channel.name) == Some(channel));
            if is_same && !self.is_changing(&channel.name) {
                let difference = (channel.name.clone(), participant.to_owned());
                if !before.contains(&difference) {
                    warn!(channel = channel.name, participant, "{text}");
                }
                differences.insert(difference);
            }
        };
        let now = |name: RouteName| async move {
            self.membership(&channel.name, &name, Instant::now() + ANSWER).await
        };
        if let (true, Ok(moderator)) = (channel.pending, moderator_of(channel)) {
            let name = RouteName { instance: None, ..moderator };
            if now(name.clone()).await == Membership::In {
                info!(channel = channel.name, "The moderator of a channel is in it, it is listed");
                self.change_channel(&channel.name, |channel| channel.pending = false)?;
            } else {
                let text = "It is not known whether a channel was made, it can be deleted";
                differ(&name.to_string(), text);
            }
        }
        for participant in &channel.invited {
            let Ok(name) = RouteName::three(participant) else { continue };
            if now(name).await == Membership::In {
                let channel = &channel.name;
                info!(channel, participant, "A participant has joined late, it is listed");
                self.confirm(channel, participant)?;
            } else {
                differ(participant, "It is not known whether an invited participant has joined");
            }
        }
        for participant in &channel.participants {
            let Ok(name) = RouteName::three(participant) else { continue };
            if self.has_left(&channel.name, &name, Instant::now() + ANSWER).await {
                differ(participant, "A participant is listed, but not in its channel");
            }
        }
        Ok(differences)
    }
}

async fn ask(
    stream: &Stream,
    channel: &str,
    participant: &RouteName,
    deadline: Instant,
) -> Option<bool> {
    let (channel_name, participant_name) = (channel.to_owned(), participant.to_string());
    let question = south::MembershipRequest { channel_name, participant_name };
    match stream.ask(Payload::MembershipRequest(question), deadline).await {
        Ok(Payload::MembershipResponse(answer)) => Some(answer.joined),
        _ => None,
    }
}
