//! What a controller has the node do, one command at a time, each with its true result.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use slim_compat_grpc::proto::southbound::{
    Ack, ConfigurationCommand, ConfigurationCommandAck, ConnectionStatus, Subscription,
    SubscriptionStatus, control_message::Payload,
};
use slim_compat_grpc::{GroupRequest, group_request};
use slim_config::Client;
use slim_wire::{Id, TextName};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use super::links::{ControllerId, Links};
use super::presence::{Presence, Sent};
use super::tokens::Tokens;
use crate::node::uplink::State;

/// What commands work on.
pub(super) struct Commands {
    pub(super) links: Links,
    pub(super) presence: Presence,
    pub(super) tokens: Tokens,
}

/// A command that was not done, and why.
struct Failure {
    code: Code,
    message: String,
}

/// How long a new link may take before it is reported as failed; one that is refused is reported
/// at once. It is tried on all the same.
const CONNECTING: Duration = Duration::from_secs(3);

/// How long a name may take to become known here that a controller knows already.
const KNOWN: Duration = Duration::from_secs(4);

/// How long an app may take to do what a group request asks for. Controllers wait for 10 s in all.
const DONE: Duration = Duration::from_secs(5);

fn not_found(message: String) -> Failure {
    Failure { code: Code::NotFound, message }
}

fn invalid(message: String) -> Failure {
    Failure { code: Code::InvalidArgument, message }
}

/// The answer to a command that either was done or was not.
fn ack(request: &str, result: Result<(), Failure>) -> Payload {
    let original_message_id = request.to_owned();
    Payload::Ack(match result {
        // As in release 0.6, where group commands are acknowledged with their own id.
        Ok(()) => {
            Ack { original_message_id, success: true, messages: vec![request.to_owned()], code: 0 }
        }
        Err(Failure { code, message }) => Ack {
            original_message_id,
            success: false,
            messages: vec![message],
            code: i32::from(code).unsigned_abs(),
        },
    })
}

impl Commands {
    /// Does what it can at once, in the order of commands, and returns what is left: to see that
    /// links come up.
    pub(super) async fn configure(
        self: &Arc<Self>,
        by: ControllerId,
        request: &str,
        command: ConfigurationCommand,
    ) -> impl Future<Output = Payload> + use<> {
        let mut connections = Vec::new();
        for connection in &command.connections_to_create {
            let id = &connection.connection_id;
            let client = Client::requested(id, &connection.config_data)
                .map_err(|findings| findings.to_string());
            let state = match client {
                Ok(client) => self.links.connect(by, id, client).await,
                Err(error) => Err(error),
            };
            connections.push((id.clone(), state));
        }
        for subscription in &command.subscriptions_to_delete {
            if let Ok(name) = name_of(subscription) {
                self.links.delete_route(by, &subscription.connection_id, &name);
            }
        }
        let deleted = command.subscriptions_to_delete.iter().map(|s| (s.clone(), Ok(())));
        let set = command.subscriptions_to_set.iter().map(|subscription| {
            let id = &subscription.connection_id;
            let made = name_of(subscription).and_then(|name| self.links.set_route(by, id, name));
            (subscription.clone(), made)
        });
        let subscriptions: Vec<_> = set.chain(deleted).collect();
        for id in &command.connections_to_delete {
            self.links.disconnect(by, id);
        }
        if command.complete {
            self.retain(by, &command);
        }
        self.links.publish();
        let (request, detailed) = (request.to_owned(), command.detailed);
        async move {
            let deadline = Instant::now() + CONNECTING;
            let mut statuses = Vec::new();
            for (id, state) in connections {
                let result = match state {
                    Ok(state) => come_up(state, deadline).await,
                    Err(error) => Err(error),
                };
                statuses.push((id, result));
            }
            configured(request, detailed, statuses, subscriptions)
        }
    }

    /// Gives up what a controller wanted before and no longer wants.
    fn retain(&self, by: ControllerId, command: &ConfigurationCommand) {
        let created = command.connections_to_create.iter().map(|c| c.connection_id.as_str());
        let used = command.subscriptions_to_set.iter().map(|s| s.connection_id.as_str());
        let ids: HashSet<_> = created.chain(used).collect();
        let routes = command.subscriptions_to_set.iter();
        let routes = routes.filter_map(|s| Some((s.connection_id.as_str(), name_of(s).ok()?)));
        self.links.retain(by, &ids, &routes.collect());
    }

    /// Has an app of this node begin a group. That it did cannot be seen from here: it subscribes to
    /// the channel with the first invitation.
    pub(super) async fn create_channel(
        &self,
        request: &str,
        moderators: &[String],
        channel: &str,
    ) -> Payload {
        ack(request, self.ask(moderators, channel, Ask::Create).await)
    }

    /// Has it end the group. Who has left is for the controller to see: it knows the members.
    pub(super) async fn delete_channel(
        &self,
        request: &str,
        moderators: &[String],
        channel: &str,
    ) -> Payload {
        ack(request, self.ask(moderators, channel, Ask::Delete).await)
    }

    /// Has it invite an app. If only a client of this node can be meant, its joining is waited
    /// for; of others their nodes know more.
    pub(super) async fn add_participant(
        &self,
        request: &str,
        moderators: &[String],
        channel: &str,
        participant: &str,
    ) -> Payload {
        let added = async {
            let name = three_parts(participant)?;
            let prefix = name.to_name().prefix;
            if !self.presence.wait(KNOWN, move |core| core.is_known(prefix)).await {
                let why = "nobody has subscribed to this name";
                return Err(not_found(format!("participant {participant} not found: {why}")));
            }
            self.ask(moderators, channel, Ask::Add(name)).await?;
            self.settle(channel, participant, true).await
        };
        ack(request, added.await)
    }

    /// Has it remove an app, which is waited for as in [`Self::add_participant`].
    pub(super) async fn delete_participant(
        &self,
        request: &str,
        moderators: &[String],
        channel: &str,
        participant: &str,
    ) -> Payload {
        let removed = async {
            let name = three_parts(participant)?;
            self.ask(moderators, channel, Ask::Remove(name)).await?;
            self.settle(channel, participant, false).await
        };
        ack(request, removed.await)
    }

    /// Whether a client of this node is in a channel under its own name.
    pub(super) async fn is_member(&self, channel: &str, participant: &str) -> bool {
        let prefixes =
            [channel, participant].map(|name| Some(three_parts(name).ok()?.to_name().prefix));
        let [Some(channel), Some(own)] = prefixes else {
            return false;
        };
        let call = self
            .presence
            .core
            .call(move |local| local.host.core.borrow().clients_of_both(own, channel) > 0);
        call.await.unwrap_or(false)
    }

    /// Waits until a client of this node has joined a channel, or left it.
    async fn settle(&self, channel: &str, participant: &str, joined: bool) -> Result<(), Failure> {
        let channel_prefix = three_parts(channel)?.to_name().prefix;
        let own = three_parts(participant)?.to_name().prefix;
        let done = self.presence.wait(DONE, move |core| {
            !core.is_only_here(own) || (core.clients_of_both(own, channel_prefix) > 0) == joined
        });
        if done.await {
            return Ok(());
        }
        let act = if joined { "join" } else { "leave" };
        Err(late(format!("participant {participant} to {act} {channel}")))
    }

    /// Sends a request to the first of the moderators.
    async fn ask(&self, moderators: &[String], channel: &str, ask: Ask) -> Result<(), Failure> {
        let Some(given) = moderators.first() else {
            return Err(invalid("moderators: expected at least one, got none".to_owned()));
        };
        let moderator: TextName =
            given.parse().map_err(|error| invalid(format!("moderator: {error}")))?;
        if moderator.id().is_any() {
            let expected = "company/namespace/appname/appinstance";
            return Err(invalid(format!("moderator: expected {expected}, got {given}")));
        }
        let channel = three_parts(channel)?;
        let tokens = self.tokens.metadata().map_err(|error| Failure {
            code: Code::FailedPrecondition,
            message: format!("controller.token_provider: {error}"),
        })?;
        let message_id = rand::random();
        let [clear, native] = tokens.map(|metadata| {
            group_request(ask.request(), &moderator, &channel, message_id, metadata)
        });
        let (Some(clear), Some(native)) = (clear, native) else {
            let why = "its session's id would be one that apps refuse; choose another name";
            return Err(invalid(format!("channel: {why}")));
        };
        let make = move |is_native| if is_native { native } else { clear };
        match self.presence.send(moderator, make).await {
            Some(Sent::Queued) => Ok(()),
            Some(Sent::Unknown) => {
                let why = "no client of this node has this name";
                Err(not_found(format!("moderator {given} not found: {why}")))
            }
            None => Err(Failure { code: Code::Unavailable, message: "this node stops".to_owned() }),
        }
    }
}

/// What an app is asked for.
enum Ask {
    Create,
    Add(TextName),
    Remove(TextName),
    Delete,
}

impl Ask {
    fn request(&self) -> GroupRequest<'_> {
        match self {
            Self::Create => GroupRequest::Create,
            Self::Add(participant) => GroupRequest::Add(participant),
            Self::Remove(participant) => GroupRequest::Remove(participant),
            Self::Delete => GroupRequest::Delete,
        }
    }
}

/// Something that was expected did not happen in time.
fn late(what: String) -> Failure {
    Failure { code: Code::DeadlineExceeded, message: format!("timeout waiting for {what}") }
}

/// A name of three parts.
fn three_parts(text: &str) -> Result<TextName, Failure> {
    let error = || {
        let expected = "expected 3 components separated by '/'";
        invalid(format!("invalid name format, {expected}, got {text}"))
    };
    let name: TextName = text.parse().map_err(|_| error())?;
    if name.id().is_any() { Ok(name) } else { Err(error()) }
}

/// The name that a route is for.
fn name_of(subscription: &Subscription) -> Result<TextName, String> {
    let Subscription { component_0, component_1, component_2, id, .. } = subscription;
    let id = id.map_or(Id::ANY, Id::from_u64);
    TextName::new([component_0, component_1, component_2], id).map_err(|error| error.to_string())
}

/// Waits until a link is open, or has failed.
async fn come_up(mut state: watch::Receiver<State>, deadline: Instant) -> Result<(), String> {
    let tried = state.wait_for(|state| *state != State::Begun);
    // The link may have been given up meanwhile.
    let _ = tokio::time::timeout_at(deadline, tried).await;
    match &*state.borrow() {
        State::Open => Ok(()),
        State::Down { reason } => Err(reason.clone()),
        State::Begun => Err("not connected yet".to_owned()),
    }
}

/// The answer to a configuration command.
fn configured(
    request: String,
    detailed: bool,
    connections: Vec<(String, Result<(), String>)>,
    subscriptions: Vec<(Subscription, Result<(), String>)>,
) -> Payload {
    if detailed {
        let connections = connections.into_iter().map(|(connection_id, result)| ConnectionStatus {
            connection_id,
            success: result.is_ok(),
            error_msg: result.err().unwrap_or_default(),
        });
        let subscriptions =
            subscriptions.into_iter().map(|(subscription, result)| SubscriptionStatus {
                subscription: Some(subscription),
                success: result.is_ok(),
                error_msg: result.err().unwrap_or_default(),
            });
        return Payload::ConfigCommandAck(ConfigurationCommandAck {
            original_message_id: request,
            connections_status: connections.collect(),
            subscriptions_status: subscriptions.collect(),
        });
    }
    let of_connections = connections
        .into_iter()
        .filter_map(|(id, result)| result.err().map(|error| format!("connection {id}: {error}")));
    let of_subscriptions = subscriptions.into_iter().filter_map(|(subscription, result)| {
        let Subscription { component_0, component_1, component_2, .. } = subscription;
        let name = format!("{component_0}/{component_1}/{component_2}");
        result.err().map(|error| format!("subscription {name}: {error}"))
    });
    let messages: Vec<_> = of_connections.chain(of_subscriptions).collect();
    Payload::Ack(Ack {
        original_message_id: request,
        success: messages.is_empty(),
        messages,
        code: 0,
    })
}
